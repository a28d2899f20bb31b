-- What an operator sees: log, status, shell commands.

local new_admin_shell = require "spec.support.admin_shell".new;
local new_prosody = require "spec.support.prosody".new;
local service = require "spec.support.service";
local xmpp = require "spec.support.xmpp";
local st = require "util.stanza";

local VERSION = dofile("mod_client_proxy/version.lua");
local PROXY, TARGET = service.proxy, service.target;

local hosts = [[
VirtualHost "some-domain.example"
Component "proxy.domain.example" "client_proxy"
	target_address = "some-user@some-domain.example"
	client_proxy_request_timeout = 1
]];

local function assert_contains(text, ...)
	for _, words in ipairs { ... } do
		assert.truthy(text:find(words, 1, true), ("%q is not in %s"):format(words, text));
	end
end

describe("an operator", function ()
	local server, requester;

	before_each(function ()
		server = new_prosody { hosts = hosts }:start();
		requester = service.requester(server);
	end);

	after_each(function ()
		server:remove();
	end);

	-- The columns of a backend's line in the status
	local function status_of(resource)
		for line in server:client_proxy("status", PROXY):gmatch("[^\n]+") do
			local columns = {};
			for column in line:gmatch("[^|]+") do
				table.insert(columns, column:match("^%s*(.-)%s*$"));
			end
			if columns[1] == resource then
				return { state = columns[2], priority = columns[3], pending = columns[4], since = columns[5] };
			end
		end
	end

	-- The module's lines in the log of this level
	local function log_lines(level)
		local lines = {};
		for line in server:log():gmatch("[^\n]+") do
			local text = line:match("proxy%.domain%.example:client_proxy\t"..level.."\t(.*)");
			if text then
				table.insert(lines, text);
			end
		end
		return lines;
	end

	-- Waits until the module's status has these words.
	local function await_module_status(words)
		for _ = 1, 100 do
			if server:ctl("shell", "module", "info", "client_proxy", PROXY):find(words, 1, true) then
				return;
			end
		end
		error("the status never said: "..words);
	end

	it("is shown the status of a proxy in tables", function ()
		service.backend(server, "a", 7);
		local slow = service.backend(server, "b", -1);
		local page = server:client_proxy("status", PROXY);
		assert_contains(page, TARGET, "granted", "short", "random", "Resource", "State", "Priority", "Pending", "Online since",
			"Answered: 0", "requests are served");
		assert.same({ "ready", "7", "0" }, { status_of "a".state, status_of "a".priority, status_of "a".pending });
		assert.same({ "draining", "-1", "0" }, { status_of "b".state, status_of "b".priority, status_of "b".pending });
		assert.truthy(status_of "a".since:find("^%d%d%d%d%-%d%d%-%d%d %d%d:%d%d:%d%d$"));
		slow:close();
		assert.is_nil(status_of "b");
	end);

	it("is shown what is pending, and what became of the requests", function ()
		local backend = service.backend(server, "a");
		requester:send(service.request("one"));
		requester:send(service.request("two"));
		local first, second = backend:receive(xmpp.is_iq), backend:receive(xmpp.is_iq);
		assert.equal("2", status_of "a".pending);
		backend:send(st.reply(first));
		backend:send(st.error_reply(second, "cancel", "item-not-found"));
		requester:receive(xmpp.is_iq);
		requester:receive(xmpp.is_iq);
		requester:send(service.request("three"));
		assert.equal("remote-server-timeout", (service.error_of(requester:receive(xmpp.is_iq))));
		backend:close();
		requester:request(service.request("four"));
		assert_contains(server:client_proxy("status", PROXY), "Answered: 1, with an error: 1; timed out: 1, backend gone: 0, no backend: 1;",
			"pending now: 0");
		server:ctl("shell", "module", "reload", "client_proxy", PROXY);
		assert_contains(server:client_proxy("status", PROXY), "Answered: 1, with an error: 1; timed out: 1,");
	end);

	it("sees a backend suspended that does not answer, and ready again when it does", function ()
		local backend, other = service.backend(server, "a"), service.backend(server, "b");
		local has_lost_one = false;
		repeat -- chance decides who gets it
			requester:send(service.request("lost"));
			assert.equal("remote-server-timeout", (service.error_of(requester:receive(xmpp.is_iq))));
			for _, stanza in ipairs(backend:sync()) do
				has_lost_one = has_lost_one or stanza.attr.id == "lost";
			end
		until has_lost_one;
		backend:receive(xmpp.is_ping);
		local ping = backend:receive(xmpp.is_ping); -- the second, as the first has not been answered
		assert.equal("suspended", status_of "a".state);
		assert.truthy(table.concat(log_lines "warn", "\n"):find('Resource "a" of the target does not answer a ping', 1, true));
		other:close();
		local output, code = server:ctl("shell", "client_proxy", "status", PROXY);
		assert_contains(output, "Each resource of "..TARGET.." that could serve is suspended", "Error: ");
		assert.equal(1, code);
		backend:send(st.reply(ping));
		backend:sync();
		assert.equal("ready", status_of "a".state);
		assert_contains(server:client_proxy("status", PROXY), TARGET.." is online, requests are served", "OK: ");
		assert.truthy(table.concat(log_lines "info", "\n"):find('Resource "a" of the target answers again', 1, true));
	end);

	it("drains a backend, which may answer what it has, and undrains it", function ()
		server:configure((hosts:gsub("client_proxy_request_timeout = 1", ""))); -- so that there is time enough
		server:ctl("shell", "config", "reload");
		server:ctl("shell", "module", "reload", "client_proxy", PROXY);
		local backends = service.backends(server, { "a", "b" });
		requester:send(service.request("before"));
		requester:sync();
		local name = #backends.a:sync() > 0 and "a" or "b";
		local other = name == "a" and "b" or "a";
		local output = server:client_proxy("drain", PROXY, name);
		assert_contains(output, name.." gets no new requests, pending: 1");
		assert.equal("draining", status_of(name).state);
		for number = 1, 20 do
			requester:send(service.request("meanwhile-"..number));
		end
		requester:sync();
		assert.equal(20, service.answer_all(backends[other]));
		for _ = 1, 20 do
			requester:receive(xmpp.is_iq);
		end
		assert.equal(1, service.answer_all(backends[name]));
		assert.equal("before", requester:receive(xmpp.is_iq).attr.id);
		assert_contains(server:client_proxy("undrain", PROXY, name), name.." gets new requests");
		assert.equal("ready", status_of(name).state);
		assert_contains(table.concat(log_lines "info", "\n"), ("Resource %q of the target was drained in the shell"):format(name),
			("Resource %q of the target was undrained in the shell: it is ready"):format(name));
	end);

	it("sees a backend suspended that has ceased to answer while it was drained, when he undrains it", function ()
		local backend = service.backend(server, "a");
		requester:send(service.request("lost"));
		backend:receive(xmpp.is_iq);
		server:client_proxy("drain", PROXY, "a");
		assert.equal("remote-server-timeout", (service.error_of(requester:receive(xmpp.is_iq))));
		for _ = 1, 2 do -- the second, as the first has not been answered
			backend:receive(xmpp.is_ping);
		end
		server:client_proxy("undrain", PROXY, "a");
		assert.equal("suspended", status_of "a".state);
	end);

	it("has drained what he has drained until its session is over, whatever is asked and not answered", function ()
		local backends = service.backends(server, { "a", "b" });
		server:client_proxy("drain", PROXY, "a");
		for round = 1, 2 do -- as the one after the last one is what shows that something became of the silence
			server:client_proxy("resync", PROXY);
			for _ = round, 2 do
				backends.a:receive(xmpp.is_ping);
			end
			service.answer_all(backends.b);
		end
		backends.a:send(st.presence():text_tag("status", "still here"));
		backends.a:sync();
		assert.equal("draining", status_of "a".state);
		server:ctl("shell", "module", "reload", "client_proxy", PROXY);
		for number = 1, 20 do
			requester:send(service.request("drained-"..number));
		end
		requester:sync();
		assert.equal(20, service.answer_all(backends.b));
		backends.a:close();
		service.backend(server, "a");
		assert.equal("ready", status_of "a".state);
	end);

	it("is told when all that are online are drained, and requests are refused", function ()
		service.backend(server, "a");
		server:client_proxy("drain", PROXY, "a");
		assert.equal("service-unavailable", (service.error_of(requester:request(service.request("drained")))));
		local output, code = server:ctl("shell", "client_proxy", "status", PROXY);
		assert.equal(1, code);
		assert_contains(output, "draining, hibernating or excluded", "Error: Requests to "..PROXY.." are not served as they should be");
		assert.falsy(output:find("OK:", 1, true));
	end);

	it("makes the proxy find out anew who is there", function ()
		local backend = service.backend(server, "a");
		assert_contains(server:client_proxy("resync", PROXY), TARGET.." is asked for its presence");
		local ping = backend:receive(xmpp.is_ping);
		backend:send(st.reply(ping));
		backend:sync();
		assert.equal("ready", status_of "a".state);
	end);

	it("gets a clear message for an unknown host or resource, or none", function ()
		for _, case in ipairs {
			{ { "status", "nowhere.example" }, "nowhere.example is no client_proxy, these are: "..PROXY },
			{ { "status", "some-domain.example" }, "some-domain.example is no client_proxy" },
			{ { "drain", PROXY, "nobody" }, PROXY.." has no backend nobody" },
			{ { "undrain", PROXY, "nobody" }, PROXY.." has no backend nobody" },
			{ { "resync", "nowhere.example" }, "nowhere.example is no client_proxy" },
			{ { "drain" }, "What is missing: the host, the resource. Write: client_proxy drain <host> <resource>" },
			{ { "undrain", PROXY }, "What is missing: the resource. Write: client_proxy undrain <host> <resource>" },
			{ { "resync" }, "What is missing: the host. Write: client_proxy resync <host>" },
		} do
			local output, code = server:ctl("shell", "client_proxy", table.unpack(case[1]));
			assert.equal(1, code);
			assert_contains(output, "Error: "..case[2]);
		end
		assert.falsy(server:log():find("[Tt]raceback"));
	end);

	it("is told of a command that is not there, by Prosody 13 itself", function ()
		local output, code = server:ctl("shell", "client_proxy", "stop", PROXY);
		assert.equal(1, code);
		assert_contains(output, server:version():find("^0%.12") and "Error: client_proxy has no command stop" or "Error: Command not found");
		local shell = new_admin_shell(server);
		local ok, text = shell:run("client_proxy:stop()");
		assert.is_false(ok);
		assert_contains(text, "client_proxy has no command stop: see client_proxy help");
		shell:close();
	end);

	it("finds the commands in the shell's help, where Prosody's tells of any, and by themselves", function ()
		if not server:version():find("^0%.12") then
			assert_contains(server:ctl("shell", "help", "client_proxy"), "Help: client_proxy", "client_proxy drain <host> <resource>");
			local shell = new_admin_shell(server);
			local _, _, printed = shell:run("help client_proxy");
			assert_contains(printed, "Help: client_proxy", "client_proxy:drain(host, resource)");
			_, _, printed = shell:run("help");
			assert_contains(printed, "client_proxy: ");
			shell:close();
		end
		assert_contains(server:client_proxy("help"), "client_proxy drain <host> <resource>", "client_proxy status [host]");
	end);

	it("is asked to open a shell anew that was there before the module", function ()
		server:ctl("shell", "module", "unload", "client_proxy", PROXY);
		local shell = new_admin_shell(server);
		shell:run("server:version()"); -- from then on, it is open
		server:ctl("shell", "module", "load", "client_proxy", PROXY);
		local ok, text = shell:run(("client_proxy:status(%q)"):format(PROXY));
		assert.is_false(ok);
		assert_contains(text, "open it anew");
		shell:close();
	end);

	it("has no commands of a proxy that is unloaded", function ()
		server:ctl("shell", "module", "unload", "client_proxy", PROXY);
		local _, code = server:ctl("shell", "client_proxy", "status", PROXY);
		assert.not_equal(0, code);
		server:ctl("shell", "module", "load", "client_proxy", PROXY);
		server:client_proxy("status", PROXY);
	end);

	-- It is as if Prosody had been started a while ago.
	local function end_the_beginning()
		server:run_lua("rawset(prosody, 'start_time', prosody.start_time - 60)");
		server:ctl("shell", "module", "reload", "client_proxy", PROXY);
	end

	it("reads in the log and the module's status what changes, once each, and nothing of single requests", function ()
		await_module_status("[info] No resource of "..TARGET.." serves yet");
		for number = 1, 5 do
			requester:request(service.request("nobody-"..number));
		end
		assert.same({}, log_lines "warn");
		local backend = service.backend(server, "a");
		await_module_status("[info] "..TARGET.." is online, requests are served");
		for number = 1, 5 do
			requester:send(service.request("somebody-"..number));
			requester:sync();
			service.answer_all(backend);
			requester:receive(xmpp.is_iq);
		end
		service.backend(server, "b"):close();
		backend:close();
		await_module_status("[warn] No resource of "..TARGET.." is online");
		assert.same({
			"No resource of "..TARGET.." is online, requests are refused: log in a client that answers them",
		}, log_lines "warn");
		assert.same({
			"This is version "..VERSION..", from "..server.plugin_path.."/mod_client_proxy/mod_client_proxy.lua",
			"There is no key in Prosody's storage, as at a first start: all tokens are new",
			"No resource of "..TARGET.." serves yet, as Prosody has just started",
			TARGET.." is online, requests are served",
			'Resource "b" of the target is online, too: there are 2. If it should not serve, log it out, '
				.."drain it with `prosodyctl shell client_proxy drain`, or name those that should in client_proxy_resources",
		}, log_lines "info");
		assert.same({}, log_lines "error");
	end);

	it("is warned that nobody serves if nobody has come when the beginning is over", function ()
		await_module_status("[info] No resource of "..TARGET.." serves yet");
		local output, code = server:ctl("shell", "client_proxy", "status");
		assert.equal(1, code);
		assert_contains(output, "serves yet, as Prosody has just started");
		end_the_beginning();
		await_module_status("[warn] No resource of "..TARGET.." is online, requests are refused");
		assert.equal(1, #log_lines "warn");
	end);

	it("is warned of nothing when Prosody stops, whoever is online then", function ()
		end_the_beginning();
		await_module_status("[warn] No resource");
		service.backends(server, { "a", "b" });
		await_module_status("[info] "..TARGET.." is online");
		server:stop();
		assert.equal(1, #log_lines "warn");
		assert.same({}, log_lines "error");
	end);

	it("learns from prosodyctl whether requests are served, by its status, too", function ()
		service.backend(server, "a");
		for _, arguments in ipairs { {}, { PROXY } } do
			local output, code = server:ctl("shell", "client_proxy", "status", table.unpack(arguments));
			assert.equal(0, code);
			assert_contains(output, "Proxy:          "..PROXY, "Status:         "..TARGET.." is online, requests are served", "OK: Requests are served");
		end
	end);
end);

describe("an operator of two proxies, one of which cannot be loaded,", function ()
	local OTHER = "other-proxy.domain.example";
	local REASON = "client_proxy_retries = 99 is not possible: write a whole number from 0 to 10";
	local other = ([[
Component %q "client_proxy"
	target_address = "other-user@some-domain.example"
	client_proxy_retries = ]]):format(OTHER);

	local server;

	before_each(function ()
		server = new_prosody { hosts = hosts..other.."99\n" }:start();
		service.backend(server, "a");
	end);

	after_each(function ()
		server:remove();
	end);

	-- (words of the command, status, words of the output)
	local function assert_says(command, status, ...)
		local output, code = server:ctl("shell", "client_proxy", table.unpack(command));
		assert.equal(status, code, output);
		assert_contains(output, ...);
		return output;
	end

	local function reload_with(configuration)
		server:configure(configuration);
		server:ctl("shell", "config", "reload");
	end

	it("is told why, and how the other one is", function ()
		local output = assert_says({ "status" }, 1, "Error: Requests to "..OTHER.." are not served as they should be",
			"Proxy:          "..OTHER.."\nStatus:         It could not be loaded: "..REASON, "Proxy:          "..PROXY, "requests are served");
		assert.falsy(output:find("nil value", 1, true));
		assert_says({ "status", PROXY }, 0, "OK: Requests are served");
		assert_says({ "status", OTHER }, 1, REASON);
		assert_says({ "drain", OTHER, "a" }, 1, OTHER.." could not be loaded: "..REASON);
	end);

	it("is told how it is when it is loaded after all, and of the next failure", function ()
		reload_with(hosts..other.."1\n");
		server:ctl("shell", "module", "load", "client_proxy", OTHER);
		assert_says({ "status", OTHER }, 1, "Target:         other-user@some-domain.example");
		reload_with(hosts..other.."99\n");
		server:ctl("shell", "module", "reload", "client_proxy", OTHER);
		assert_says({ "status", OTHER }, 1, REASON);
		server:ctl("shell", "module", "reload", "client_proxy", PROXY);
		assert_says({ "status", OTHER }, 1, REASON);
		assert_says({ "status", PROXY }, 0, "OK: Requests are served");
	end);

	it("is told no more of it when its host is removed, nor of the other one then", function ()
		reload_with(hosts);
		server:ctl("shell", "host", "deactivate", OTHER);
		local output = assert_says({ "status" }, 0, PROXY, "OK: Requests are served");
		assert.falsy(output:find(OTHER, 1, true), output);
		assert_says({ "status", OTHER }, 1, OTHER.." is no client_proxy, these are: "..PROXY);
		server:ctl("shell", "host", "deactivate", PROXY);
		local _, code = server:ctl("shell", "client_proxy", "status");
		assert.not_equal(0, code);
		assert.falsy(server:log():find("[Tt]raceback"));
	end);

	it("is told of it alone when the other one is unloaded", function ()
		server:ctl("shell", "module", "unload", "client_proxy", PROXY);
		assert.falsy(assert_says({ "status" }, 1, REASON):find("Proxy:          "..PROXY, 1, true));
	end);
end);
