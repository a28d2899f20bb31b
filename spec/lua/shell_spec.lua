local fake_module = require "spec.support.module";

local VERSION = dofile("mod_client_proxy/version.lua");
local PROXY, TARGET = "proxy.domain.example", "some-user@some-domain.example";

local is_well;

-- Loads shell.lua for a proxy; `module` has what all of them share.
local function start(module, list, calls, limit)
	local shell = module:require "shell";
	shell.begin();
	shell.start {
		target = TARGET;
		formats = { describe = function () return "sealed; plain for others"; end };
		strategy = "round_robin";
		pending = setmetatable({ count = function (_, jid) return #jid; end }, { __len = function () return 7; end });
		backends = {
			list = function () return list; end;
			drain = function (_, resource, is_drained)
				for _, entry in ipairs(list) do
					if entry.resource == resource then
						table.insert(calls, resource.." "..tostring(is_drained));
						entry.state = (is_drained or entry.priority < 0) and "draining" or "ready";
						return true;
					end
				end
				return false;
			end;
			resync = function () table.insert(calls, "resync"); end;
		};
		watchers = setmetatable({}, { __len = function () return 12; end });
		subscription = { state = function () return "granted", nil; end };
		diagnosis = { current = function () return "info", "This is how it is", is_well; end, limit = function () return limit; end };
		max_requesters = 100;
		book = setmetatable({}, { __len = function () return 12; end });
		asked = setmetatable({}, { __len = function () return 13; end });
		metrics = { publish = function ()
			return {
				answered = 1, error = 2, timeout = 3, backend_gone = 4, no_backend = 5, limited = 6, refused = 7, unloaded = 8,
				retries = 9, unmatched_answers = 10;
				backend_requests_answered = 21, backend_requests_error = 22, backend_requests_timeout = 23,
				backend_requests_backend_gone = 24, backend_requests_limited = 25, backend_requests_refused = 26,
				backend_requests_unloaded = 27;
				messages_to_backend_sent = 31, messages_to_backend_error = 32, messages_to_backend_no_backend = 33,
				messages_to_backend_limited = 34, messages_to_backend_refused = 35, messages_to_backend_dropped = 36,
				messages_to_backend_unloaded = 37;
				messages_to_requester_sent = 41, messages_to_requester_error = 42, messages_to_requester_refused = 43;
			};
		end };
	};
	return shell;
end

describe("the shell commands", function ()
	local module, shell, calls, printed;
	local list;

	before_each(function ()
		is_well = true;
		module = fake_module.new();
		calls, printed = {}, {};
		list = {
			{ jid = TARGET.."/a", resource = "a", since = 0, priority = 5, state = "ready" };
			{ jid = TARGET.."/\u{df}", resource = "\u{df}", since = 0, priority = -5, state = "draining" };
		};
		shell = start(module, list, calls);
	end);

	-- (name, ...) -> what the command returns, run as Prosody's shell does
	local function run(name, ...)
		local section = module.shared_tables["/*/admin_shell/env"].client_proxy;
		local self = setmetatable({ session = { print = function (line) table.insert(printed, line); end } }, { __index = section });
		return self[name](self, ...);
	end

	it("show the status of a proxy, with all that a person has to know", function ()
		assert.same({ true, "Requests are served" }, { run("status", "Proxy.domain.example") });
		local page = table.concat(printed, "\n");
		for _, words in ipairs {
			"Proxy:          "..PROXY, "Status:         This is how it is",
			"Version:        "..VERSION..", from "..module.path, "Resource ", "State ", "Priority ", "Pending ", "Online since",
			TARGET, "granted", "Address format: sealed; plain for others", "round_robin", "Watchers:       12", os.date("%Y-%m-%d", 0),
			"Answered: 1,", "error: 2;", "timed out: 3,", "backend gone: 4,",
			"no backend: 5;", "limited: 6,", "refused: 7,", "unloaded: 8", "Retries: 9;", "unmatched answers: 10;", "pending now: 7",
			"Requesters:     12 of at most 100 are remembered";
			"Requests of backends: answered: 21, with an error: 22; timed out: 23, backend gone: 24; limited: 25, refused: 26, "
				.."unloaded: 27; pending now: 13";
			"Messages to backends: 31, errors: 32; no backend: 33, limited: 34, refused: 35, dropped: 36, unloaded: 37";
			"Messages to requesters: 41, errors: 42; refused: 43";
		} do
			assert.truthy(page:find(words, 1, true), words.." is not in "..page);
		end
		assert.truthy(page:find(("\na +| ready +| +5 | +%d | "):format(#TARGET + 2)), page);
		assert.truthy(page:find(("\n\u{df} +| draining +| +%%-5 | +%d | "):format(#TARGET + 3)), page);
	end);

	it("show a limit that holds the target's server, if there is one", function ()
		run("status", PROXY);
		assert.is_nil(table.concat(printed, "\n"):find("Limit:", 1, true));
		start(module, list, calls, "so many bytes");
		run("status", PROXY);
		assert.truthy(table.concat(printed, "\n"):find("\nLimit: +so many bytes\n"));
	end);

	it("show a resource in full, however long", function ()
		list[1].resource = ("r"):rep(200);
		run("status", PROXY);
		assert.truthy(table.concat(printed, "\n"):find(("r"):rep(200), 1, true));
	end);

	it("drain and undrain a backend", function ()
		local ok, text = run("drain", PROXY, "a");
		assert.is_true(ok);
		assert.truthy(text:find(("pending: %d"):format(#TARGET + 2), 1, true));
		ok, text = run("undrain", PROXY, "a");
		assert.is_true(ok);
		assert.truthy(text:find("a gets new requests", 1, true));
		assert.same({ "a true", "a false" }, calls);
	end);

	it("tell the log of what is drained and undrained, and of nothing else", function ()
		run("drain", PROXY, "a");
		run("undrain", PROXY, "a");
		run("undrain", PROXY, "\u{df}");
		run("drain", PROXY, "b");
		run("status");
		assert.same({
			{ level = "info", text = 'Resource "a" of the target was drained in the shell: it gets no new requests until it is '
				..'undrained, or leaves' };
			{ level = "info", text = 'Resource "a" of the target was undrained in the shell: it is ready' };
			{ level = "info", text = 'Resource "\u{df}" of the target was undrained in the shell: it is draining' };
		}, module.log_lines);
	end);

	it("say so when undraining does not help", function ()
		local ok, text = run("undrain", PROXY, "\u{df}");
		assert.is_true(ok);
		assert.truthy(text:find("still gets no new requests: it is draining, with the presence priority -5", 1, true));
	end);

	it("resync", function ()
		assert.is_true((run("resync", PROXY)));
		assert.same({ "resync" }, calls);
	end);

	it("say so when there is no such backend", function ()
		for _, name in ipairs { "drain", "undrain" } do
			for _, resource in ipairs { "b", "A", "", "\0", 7, true } do
				local ok, text = run(name, PROXY, resource);
				assert.is_nil(ok);
				assert.truthy(text:find("no backend "..tostring(resource), 1, true));
			end
		end
		assert.same({}, calls);
	end);

	it("say so when there is no such proxy, and which there are", function ()
		for _, name in ipairs { "status", "drain", "undrain", "resync" } do
			for _, host in ipairs { "some-domain.example", "", "@", 7, false } do
				local ok, text = run(name, host, "a");
				assert.is_nil(ok);
				assert.truthy(text:find(tostring(host).." is no client_proxy", 1, true));
				assert.truthy(text:find(PROXY, 1, true));
			end
		end
		assert.same({}, calls);
		assert.same({}, printed);
	end);

	it("name the arguments that are missing", function ()
		assert.same({ nil, "What is missing: the host, the resource. Write: client_proxy drain <host> <resource>" }, { run "drain" });
		assert.same({ nil, "What is missing: the host. Write: client_proxy undrain <host> <resource>" }, { run("undrain", nil, "a") });
		assert.same({ nil, "What is missing: the resource. Write: client_proxy drain <host> <resource>" }, { run("drain", PROXY) });
		assert.same({ nil, "What is missing: the host. Write: client_proxy resync <host>" }, { run "resync" });
		assert.same({}, calls);
	end);

	it("say that there is something wrong, if there is", function ()
		is_well = false;
		assert.same({ nil, "Requests to "..PROXY.." are not served as they should be, see the status" }, { run("status", PROXY) });
		assert.truthy(table.concat(printed, "\n"):find("Status:         This is how it is", 1, true));
	end);

	describe("of a proxy that could not be loaded", function ()
		local OTHER, REASON = "other.domain.example", "target_address is missing";
		local other_module, other_shell;

		before_each(function ()
			other_module = fake_module.new();
			other_module.host, other_module.shared_tables, other_module.prosody = OTHER, module.shared_tables, module.prosody;
			module.prosody.hosts[OTHER] = {};
			other_shell = other_module:require "shell";
			other_shell.begin();
		end);

		it("show why, besides those of the other", function ()
			other_shell.fail(REASON);
			assert.same({ nil, "Requests to "..OTHER.." are not served as they should be, see the status" }, { run "status" });
			local page = table.concat(printed, "\n");
			for _, words in ipairs { "Proxy:          "..OTHER.."\nStatus:         It could not be loaded: "..REASON.."\n\n",
				"Proxy:          "..PROXY.."\nStatus:         This is how it is" } do
				assert.truthy(page:find(words, 1, true), page);
			end
			assert.same({ true, "Requests are served" }, { run("status", PROXY) });
			for _, name in ipairs { "drain", "undrain", "resync" } do
				assert.same({ nil, OTHER.." could not be loaded: "..REASON }, { run(name, OTHER, "a") });
			end
			assert.same({}, calls);
		end);

		it("show that, too, if an error has ended it that nobody has expected", function ()
			run("status", OTHER);
			assert.truthy(table.concat(printed, "\n"):find("could not be loaded: an error", 1, true));
		end);

		it("are there though no other proxy is", function ()
			other_shell.fail(REASON);
			shell.stop();
			assert.is_nil((run "status"));
			assert.truthy(table.concat(printed, "\n"):find(REASON, 1, true));
			assert.truthy(select(2, run("status", PROXY)):find("these are: "..OTHER, 1, true));
		end);

		it("forget it when its host has gone, even if another has come in its place", function ()
			other_shell.fail(REASON);
			for _, host in ipairs { { nil }, { {} } } do
				module.prosody.hosts[OTHER] = host[1];
				printed = {};
				assert.is_true((run "status"));
				assert.is_nil(table.concat(printed, "\n"):find(OTHER, 1, true));
			end
			shell.stop();
			assert.is_nil(module.shared_tables["/*/admin_shell/env"].client_proxy);
		end);

		it("are as usual when it is loaded after all", function ()
			other_shell.fail(REASON);
			other_shell = start(other_module, list, calls);
			assert.is_true((run "status"));
			assert.is_true((run("resync", OTHER)));
			other_shell.stop();
			shell.stop();
			assert.is_nil(module.shared_tables["/*/admin_shell/env"].client_proxy);
		end);
	end);

	it("show the status of all proxies", function ()
		local other_module = fake_module.new();
		other_module.host, other_module.shared_tables = "other.domain.example", module.shared_tables;
		start(other_module, list, calls);
		assert.same({ true, "Requests are served" }, { run "status" });
		local page = table.concat(printed, "\n");
		assert.truthy(page:find("^Proxy: +other%.domain%.example\n.*\n\nProxy: +proxy%.domain%.example\n"), page);
	end);

	it("show that there is none, in a shell that has been open since one was", function ()
		local section = module.shared_tables["/*/admin_shell/env"].client_proxy;
		shell.stop();
		assert.same({ nil, "No client_proxy is loaded on this Prosody" }, { section.status { session = {} } });
	end);

	it("say so to a shell that knows of no session of its own, as it was opened too early", function ()
		local section = module.shared_tables["/*/admin_shell/env"].client_proxy;
		local ok, text = section:status();
		assert.is_nil(ok);
		assert.truthy(text:find("open it anew", 1, true));
	end);

	it("are pointed to if there is none of that name", function ()
		assert.same({ nil, "client_proxy has no command stop: see client_proxy help" }, { run("stop", PROXY) });
	end);

	it("are told of by themselves, too", function ()
		assert.is_true((run "help"));
		local page = table.concat(printed, "\n");
		for _, words in ipairs { "client_proxy status [host]\n    Show", "client_proxy drain <host> <resource>\n", "client_proxy help\n" } do
			assert.truthy(page:find(words, 1, true), page);
		end
	end);

	it("are told of where the shell's help looks for the letters before the underscore, whichever is loaded first", function ()
		local env = module.shared_tables["/*/admin_shell/env"];
		shell.stop();
		for _, is_first in ipairs { true, false } do
			env.help = is_first and {} or nil;
			module.prosody.start_time = nil;
			start(module, list, calls);
			env.help = env.help or {};
			env.help.client_proxy = function (self) return self, "help"; end;
			module.hooks["server-started"]();
			assert.same({ "self", "help" }, { env.help.client("self") });
			shell.stop();
			assert.is_nil(env.help.client);
		end
	end);

	it("are told of in the help", function ()
		local help = getmetatable(module.shared_tables["/*/admin_shell/env"].client_proxy).help;
		assert.is_string(help.desc);
		for name, count in pairs { status = 1, drain = 2, undrain = 2, resync = 1, help = 0 } do
			assert.is_string(help.commands[name].desc);
			assert.equal(count, #help.commands[name].args);
		end
	end);

	it("reach each of several proxies, until the last is gone", function ()
		local other_module, other_calls = fake_module.new(), {};
		other_module.host, other_module.shared_tables = "other.domain.example", module.shared_tables;
		local other_shell = start(other_module, list, other_calls);
		run("drain", PROXY, "a");
		run("drain", "other.domain.example", "\u{df}");
		assert.same({ "a true" }, calls);
		assert.same({ "\u{df} true" }, other_calls);
		assert.truthy(select(2, run("status", "x")):find("these are: other.domain.example, "..PROXY, 1, true));
		shell.stop();
		assert.is_nil((run("drain", PROXY, "a")));
		assert.is_true((run("drain", "other.domain.example", "a")));
		other_shell.stop();
		assert.is_nil(module.shared_tables["/*/admin_shell/env"].client_proxy);
	end);
end);
