-- Whether the documentation is in step with what there is: files, headings, options, specs, code that some spec tries

local code_blocks = require "spec.support.code_blocks";
local throwaway = require "spec.support.throwaway";

local read_command, read_file = throwaway.read_command, throwaway.read_file;

-- The languages of code that spec/e2e/docs_spec.lua tries, and spec/e2e/limits_elsewhere_spec.lua
local TRIED = {
	console = true, log = true, lua = true, sh = true, xmpp = true, yaml = true;
};

local FILES = code_blocks.files();

local function exists(path)
	return os.rename(path, path) ~= nil;
end

-- (text) -> the text without blocks of code
local function prose_of(text)
	return (text:gsub("\n```.-\n```", ""));
end

-- (path) -> a set of what links to its headings say
local function anchors_of(path)
	local anchors, last = {}, "";
	for line in prose_of(read_file(path)):gmatch("[^\n]*") do
		local heading = line:match("^#+ (.+)$") or line:find("^[=-]+$") and last;
		if heading then
			anchors[heading:lower():gsub("[^%w_ -]", ""):gsub(" ", "-")] = true;
		end
		last = line;
	end
	return anchors;
end

describe("the documentation", function ()
	it("has a README of at most 200 lines", function ()
		local _, lines = read_file("README.markdown"):gsub("\n", "");
		assert.is_true(lines <= 200, lines);
	end);

	it("leads to files and headings that are there", function ()
		local count = 0;
		for _, path in ipairs(FILES) do
			for target in read_file(path):gmatch("%]%(([^)]+)%)") do
				local file, anchor = target:match("^([^#]*)#?(.*)$");
				file = file == "" and path or path:match("^(.-)[^/]*$")..file;
				file = file:gsub("^doc/%.%./", "");
				assert.is_true(exists(file), path..": "..target);
				assert.is_true(anchor == "" or anchors_of(file)[anchor], path..": "..target);
				count = count + 1;
			end
		end
		assert.is_true(count > 20);
	end);

	it("has no code that no spec tries", function ()
		for _, path in ipairs(FILES) do
			for _, block in ipairs(code_blocks.of(path)) do
				assert.truthy(TRIED[block.language], ("%s, line %d: %s"):format(path, block.line, block.language));
			end
			assert.falsy(prose_of(read_file(path)):find("\n\n    %S"), path.." has code that is only indented");
		end
	end);

	it("tells all options, with their defaults", function ()
		local readme, count = read_file("README.markdown"), 0;
		for name, rest in read_file("mod_client_proxy/options.lua"):gmatch('\n\t[%w_]+ = read_%w+%("([%w_]+)"([^\n]*)%)') do
			local default = readme:match("\n| `"..name.."` | ([^|]+) |");
			assert.truthy(default, name);
			local number, days, word = rest:match("^, (%d+)[,%s]"), rest:match("^, (%d+) %* DAY"), rest:match("^, \"?(%a+)\"?");
			if days then
				assert.equal(days.." days", default);
			elseif number then
				assert.equal(number, default);
			elseif word and word ~= "nil" then
				assert.equal(word, (default:gsub('[`"]', "")));
			end
			count = count + 1;
		end
		local _, told = readme:gsub("\n| `client_proxy_", "");
		assert.equal(count, told + 1); -- and target_address
	end);

	it("tells lines of the log that the module writes", function ()
		local source, count = "", 0;
		for path in read_command("ls mod_client_proxy/*.lua"):gmatch("[^\n]+") do
			source = source..read_file(path);
		end
		source = source:gsub('"%s*%.%.%s*"', ""); -- between the parts of a long text
		for _, lines in read_file("doc/operation.markdown"):gmatch("\n| (%l+) | ([^|]+) |") do
			for line in lines:gmatch("`([^`]+)`") do
				for part in (line.."..."):gmatch("(.-)%.%.%.") do
					assert.is_true(source:find(part, 1, true) ~= nil, line);
				end
				count = count + 1;
			end
		end
		assert.is_true(count > 15);
	end);

	-- (text, parts) -> whether it has them, in this order. parts: a text with "..." between them
	local function has_parts(text, parts)
		local position = 1;
		for part in (parts.."..."):gmatch("(.-)%.%.%.") do
			local _, last = text:find(part, position, true);
			if not last then
				return false;
			end
			position = last + 1;
		end
		return true;
	end

	-- (name, case) -> whether that end-to-end spec has this case, in which "..." stands for what a spec fills in
	local function has_case(name, case)
		for line in read_file("spec/e2e/"..name.."_spec.lua"):gmatch("[^\n]+") do
			if line:find("^%s*it%(") and has_parts(line, case) then
				return true;
			end
		end
		return false;
	end

	-- -> a list of the rows of its tables, lists of five cells each
	local function drill()
		local rows, section = {}, read_file("doc/operation.markdown"):match("\nFailure drill\n%-+\n(.-)\n[^\n]+\n%-%-%-");
		for line in section:gmatch("\n| (%u[^\n]*)") do
			local row = {};
			for cell in line:gmatch("(.-) |%f[%s\0]%s?") do
				table.insert(row, cell);
			end
			assert.equal(5, #row, line);
			table.insert(rows, row[1] ~= "What dies" and row or nil);
		end
		assert.is_true(#rows > 30, #rows);
		return rows;
	end

	it("has a spec for each row of the failure drill", function ()
		for _, row in ipairs(drill()) do
			local shown, count = row[5], 0;
			for name, case in shown:gmatch('`([%w_]+)` "([^"]+)"') do
				assert.is_true(exists("spec/e2e/"..name.."_spec.lua"), name);
				assert.is_true(has_case(name, case), name..": "..case);
				count = count + 1;
			end
			local _, named = shown:gsub("[^;]+", "");
			assert.is_true(count > 0 and count == named, shown);
		end
	end);

	it("says of no failure that an operator sees what is not told", function ()
		local told = read_file("examples/prometheus/client_proxy_alerts.yml");
		for path in read_command("ls mod_client_proxy/*.lua"):gmatch("[^\n]+") do
			told = told..read_file(path):gsub('"%s*%.%.%s*"', "");
		end
		for _, row in ipairs(drill()) do
			for text in row[3]:gmatch("`([^`]+)`") do
				text = text:gsub("_total$", ""):gsub("_seconds$", ""); -- which Prosody adds to the names of metrics
				assert.is_true(text == "up" or has_parts(told, text), text);
			end
		end
	end);

	it("names specs that are there", function ()
		local count = 0;
		for name in read_file("doc/security.markdown"):gmatch("`(%l[%w_]+/[%w_/]+)`") do
			assert.is_true(exists("spec/"..name.."_spec.lua"), name);
			count = count + 1;
		end
		assert.is_true(count > 20);
	end);
end);
