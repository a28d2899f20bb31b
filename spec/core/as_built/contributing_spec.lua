-- Whether CONTRIBUTING.markdown names every file that it has to name, and nothing that is not there

-- Whose files all have a line of their own there; what the fuzz targets start from has not.
local COMPLETE = "find mod_client_proxy c_src tools bench spec/support debian -type f "
	.."-not -name '*.so' -not -name '*.pyc' -not -path 'c_src/fuzz/corpus/*' -not -path 'bench/results/*'";

local function read(path)
	local file = assert(io.open(path));
	local text = file:read("a");
	file:close();
	return text;
end

local function exists(path)
	return os.rename(path, path) ~= nil;
end

-- (path) -> a list: "a.{c,h}" stands for "a.c" and "a.h"
local function expand(path)
	local paths, front, names, back = {}, path:match("^(.-){(.-)}(.*)$");
	for name in (names or ""):gmatch("[^,]+") do
		table.insert(paths, front..name..back);
	end
	return names and paths or { path };
end

-- (text) -> a list of the paths in the tree of files: indented lines, those below a folder deeper than itself
local function tree_of(text)
	local paths, folders = {}, {};
	local tree = text:match("\nEvery file\n%-+\n\n(.-)\n\n");
	for indent, name in tree:gmatch("( +)(%S+)[^\n]*") do
		while #folders > 0 and folders[#folders].depth >= #indent do
			table.remove(folders);
		end
		local path = (#folders > 0 and folders[#folders].path or "")..name;
		if name:sub(-1) == "/" then
			table.insert(folders, { path = path, depth = #indent });
		end
		for _, each in ipairs(expand(path)) do
			table.insert(paths, each);
		end
	end
	return paths;
end

-- (text) -> a list of the words in code that begin with a folder of ours. What stands for any name, as NAME does, is
-- left out, and its folder is taken.
local function mentioned_in(text)
	local paths = {};
	for code in text:gsub("\n    [^\n]*", function (line) return "`"..line:sub(2).."`"; end):gmatch("`([^`]+)`") do
		for word in code:gmatch("%S+") do
			local folder = word:match("^([%w_.]+)/");
			if folder and folder ~= ".build" and exists(folder) then
				for _, path in ipairs(expand(word:find("NAME") and word:match("^(.-)[^/]*NAME") or word)) do
					table.insert(paths, path);
				end
			end
		end
	end
	return paths;
end

describe("CONTRIBUTING.markdown", function ()
	local text = read "CONTRIBUTING.markdown";
	local tree = tree_of(text);

	it("names every file", function ()
		local is_named = {};
		for _, path in ipairs(tree) do
			assert.is_nil(is_named[path], path.." is named twice");
			is_named[path] = true;
		end
		local count = 0;
		for path in assert(io.popen(COMPLETE)):lines() do
			count = count + 1;
			assert.is_true(is_named[path], path.." is not named");
		end
		assert.is_true(count > 100);
	end);

	it("names no file that is not there", function ()
		local mentioned = mentioned_in(text);
		assert.is_true(#tree > 100 and #mentioned > 50);
		for _, list in ipairs { tree, mentioned } do
			for _, path in ipairs(list) do
				assert.is_true(exists(path), path.." is not there");
			end
		end
	end);

	it("names no target that make does not have", function ()
		local makefile = read "Makefile";
		for target in text:gmatch("`make ([%l-]+)") do
			assert.truthy(makefile:find("\n"..target:gsub("%-", "%%-")..":"), "make "..target);
		end
	end);
end);
