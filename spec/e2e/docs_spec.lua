-- What the documentation says to write or to type, and what it says comes of it, on a real Prosody

local examples = require "spec.support.examples";
local code_blocks = require "spec.support.code_blocks";
local play = require "spec.support.play";
local prosody = require "spec.support.prosody";
local service = require "spec.support.service";
local throwaway = require "spec.support.throwaway";
local typist = require "spec.support.typist";
local xmpp = require "spec.support.xmpp";

local function name_of(block)
	return ("%s, line %d (%s)"):format(block.path, block.line, block.heading);
end

describe("in the documentation", function ()
	describe("the stanzas", function ()
		local server;

		lazy_setup(function ()
			server = prosody.new():start();
		end);

		lazy_teardown(function ()
			server:remove();
		end);

		for _, block in ipairs(code_blocks.all("xmpp")) do
			it("of "..name_of(block).." come and go", function ()
				play(server, block.text);
			end);
		end
	end);

	it("all metrics are told of, and no others", function ()
		local server = prosody.new():start();
		finally(function () server:remove(); end);
		local there, told = {}, {};
		for series in pairs(server:metrics()) do
			local name = series:match("^prosody_mod_client_proxy__([%w_]+)");
			name = name:gsub("^answer_time_seconds_%w+$", "answer_time_seconds");
			there[name] = not name:find("_created$") or nil; -- when a counter began, which OpenMetrics adds by itself
		end
		for cell in throwaway.read_file("doc/operation.markdown"):match("### All metrics\n(.-)\n#"):gmatch("\n| (`[^|]+) |") do
			for name in cell:gmatch("`([%w_]+)") do
				told[name] = true;
			end
		end
		assert.same(there, told);
	end);

	describe("what is printed", function ()
		-- (text) -> its lines, with other numbers
		local function lines_of(text)
			local lines = {};
			for line in text:gmatch("[^\n]+") do
				table.insert(lines, (line:gsub(" +$", ""):gsub("%d+", "1"):gsub("  +", "  ")));
			end
			return lines;
		end

		for _, block in ipairs(code_blocks.all("console")) do
			it("according to "..name_of(block).." is printed", function ()
				local server = prosody.new():start();
				finally(function () server:remove(); end);
				service.backend(server, "a");
				service.backend(server, "b", -1);
				local words, told = {}, block.text:gsub("/usr/lib/prosody/modules", (server.plugin_path:gsub("%%", "%%%%")));
				local command, expected = told:match("^%$ prosodyctl ([^\n]+)\n(.*)$");
				for word in command:gmatch("%S+") do
					table.insert(words, word);
				end
				assert.same(lines_of(expected), lines_of((server:ctl(table.unpack(words)))));
			end);
		end
	end);

	describe("the line of the log", function ()
		for _, block in ipairs(code_blocks.all("log")) do
			it("of "..name_of(block).." is there", function ()
				local server = prosody.new():start();
				finally(function () server:remove(); end);
				local line = block.text:gsub("/usr/lib/prosody/modules", (server.plugin_path:gsub("%%", "%%%%")));
				assert.truthy(server:log():find("\t"..line, 1, true), line);
			end);
		end
	end);

	describe("the configuration", function ()
		-- (text) -> the configuration of a server that it is written into: a component with all that it needs, the rest above that
		local function hosts_of(text)
			local has_component = text:find("Component", 1, true);
			local global = text:match("^(.-)Component") or text;
			return global..'VirtualHost "some-domain.example"\n'..(has_component and text:sub(#global + 1)
				or 'Component "proxy.domain.example" "client_proxy"\n\ttarget_address = "some-user@some-domain.example"\n');
		end

		-- Of a line of the log, whether it complains of more than that nobody has logged in yet, and that there is no other server
		local function is_complaint(line)
			return (line:find("\terror\t") or line:find("\twarn\t")) and line:find("proxy.domain.example", 1, true)
				and not line:find("No resource of", 1, true) and not line:find("cannot be reached", 1, true);
		end

		-- (text) -> options of a server that has that in its configuration. Its own plugin_paths are there already, and Prosody may fail
		-- where one is set twice.
		local function options_of(text)
			local path = text:match('^plugin_paths = { "([^"]+)" }\n$');
			return {
				hosts = hosts_of(path and "" or text);
				plugin_path = path and path:gsub("^/path/to/the/checkout$", (throwaway.checkout:gsub("%%", "%%%%")));
			};
		end

		for _, block in ipairs(code_blocks.all("lua")) do
			it("of "..name_of(block).." is one that nobody complains of", function ()
				local server = prosody.new(options_of(block.text));
				finally(function () server:remove(); end);
				server:start();
				assert.truthy(server:client_proxy("status", "proxy.domain.example"):find("Target:", 1, true));
				for line in server:log():gmatch("[^\n]+") do
					assert.falsy(is_complaint(line) and line);
				end
			end);
		end
	end);

	-- The README makes its accounts and starts backends. Whoever reads the rest has done so before. The reader sees the presence that
	-- the component gets.
	describe("what is typed", function ()
		local HOSTS = [[
VirtualHost "some-domain.example"
	modules_enabled = { "tls" }
Component "proxy.domain.example" "client_proxy"
	target_address = "some-user@some-domain.example"
	modules_enabled = { "copy_presence" }
	copy_presence_to = "reader@some-domain.example/1"
]];

		local BEFORE = [[
prosodyctl register some-user some-domain.example secret
XMPP_PASSWORD=secret python3 examples/backend.py some-user@some-domain.example/a &
]];

		-- What some of it prints
		local PRINTS = { ["request.py"] = "Words: 3, counted by " };

		local function await_backend(reader)
			reader:receive(function (stanza)
				local presence = stanza:get_child("presence");
				return presence and presence.attr.type == nil and presence.attr.from:sub(1, #service.target + 1) == service.target.."/";
			end);
		end

		local function type_all(path)
			local server = prosody.new { hosts = HOSTS, accounts = { "reader@some-domain.example" } };
			finally(function () server:remove(); end);
			local certificate = examples.make_certificate(server.dir);
			server:start();
			local reader, shell = xmpp.client(server, "reader", "some-domain.example", "1"), typist.new(server, certificate);
			local ok, failure = pcall(function ()
				if path ~= "README.markdown" then
					shell:type(BEFORE);
					await_backend(reader);
				end
				for _, block in ipairs(code_blocks.of(path)) do
					local printed = block.language == "sh" and shell:type(block.text) or "";
					for word, expected in pairs(PRINTS) do
						assert.truthy(not block.text:find(word, 1, true) or printed:find(expected, 1, true), printed);
					end
					for _ in block.text:gmatch("&\n") do
						await_backend(reader);
					end
				end
			end);
			shell:close();
			assert(ok, failure);
		end

		local has_any = {};
		for _, block in ipairs(code_blocks.all("sh")) do
			has_any[block.path] = true;
		end
		for path in pairs(has_any) do
			it("because "..path.." says so works", function ()
				type_all(path);
			end);
		end
	end);
end);
