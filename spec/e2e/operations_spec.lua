-- What an operator sees: log, status, shell commands.

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

describe("an operator", function ()
	local server, requester;

	before_each(function ()
		server = new_prosody { hosts = hosts }:start();
		requester = service.requester(server);
	end);

	after_each(function ()
		server:remove();
	end);

	local function assert_contains(text, ...)
		for _, words in ipairs { ... } do
			assert.truthy(text:find(words, 1, true), ("%q is not in %s"):format(words, text));
		end
	end

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
		local backend = service.backend(server, "a");
		service.backend(server, "b");
		local function is_ping(stanza)
			return stanza:get_child("ping", "urn:xmpp:ping") ~= nil;
		end
		local has_lost_one = false;
		repeat -- chance decides who gets it
			requester:send(service.request("lost"));
			assert.equal("remote-server-timeout", (service.error_of(requester:receive(xmpp.is_iq))));
			for _, stanza in ipairs(backend:sync()) do
				has_lost_one = has_lost_one or stanza.attr.id == "lost";
			end
		until has_lost_one;
		backend:receive(is_ping);
		local ping = backend:receive(is_ping); -- the second, as the first has not been answered
		assert.equal("suspended", status_of "a".state);
		assert.truthy(table.concat(log_lines "warn", "\n"):find('Resource "a" of the target does not answer a ping', 1, true));
		backend:send(st.reply(ping));
		backend:sync();
		assert.equal("ready", status_of "a".state);
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
		assert_contains(output, name.." gets no new requests, 1 are pending");
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
	end);

	it("has drained what he has drained until its session is over, whatever is asked and not answered", function ()
		local backends = service.backends(server, { "a", "b" });
		server:client_proxy("drain", PROXY, "a");
		local function is_ping(stanza)
			return stanza:get_child("ping", "urn:xmpp:ping") ~= nil;
		end
		for round = 1, 2 do -- as the one after the last one is what shows that something became of the silence
			server:client_proxy("resync", PROXY);
			for _ = round, 2 do
				backends.a:receive(is_ping);
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
		assert_contains(server:client_proxy("status", PROXY), "draining, hibernating or excluded");
	end);

	it("makes the proxy find out anew who is there", function ()
		local backend = service.backend(server, "a");
		assert_contains(server:client_proxy("resync", PROXY), TARGET.." is asked for its presence");
		local ping = backend:receive(function (stanza) return stanza:get_child("ping", "urn:xmpp:ping"); end);
		backend:send(st.reply(ping));
		backend:sync();
		assert.equal("ready", status_of "a".state);
	end);

	it("gets a clear message for an unknown host or resource", function ()
		for _, case in ipairs {
			{ { "status", "nowhere.example" }, "nowhere.example is no client_proxy, these are: "..PROXY },
			{ { "status", "some-domain.example" }, "some-domain.example is no client_proxy" },
			{ { "drain", PROXY, "nobody" }, PROXY.." has no backend nobody" },
			{ { "undrain", PROXY, "nobody" }, PROXY.." has no backend nobody" },
			{ { "resync", "nowhere.example" }, "nowhere.example is no client_proxy" },
		} do
			local output, code = server:ctl("shell", "client_proxy", table.unpack(case[1]));
			assert.equal(1, code);
			assert_contains(output, "Error: "..case[2]);
		end
		assert.falsy(server:log():find("[Tt]raceback"));
	end);

	it("has no commands of a proxy that is unloaded", function ()
		server:ctl("shell", "module", "unload", "client_proxy", PROXY);
		local _, code = server:ctl("shell", "client_proxy", "status", PROXY);
		assert.not_equal(0, code);
		server:ctl("shell", "module", "load", "client_proxy", PROXY);
		server:client_proxy("status", PROXY);
	end);

	it("reads in the log and the module's status what changes, once each, and nothing of single requests", function ()
		await_module_status("[warn] No resource of "..TARGET.." is online");
		for number = 1, 5 do
			requester:request(service.request("nobody-"..number));
		end
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
			"No resource of "..TARGET.." is online, requests are refused: log in a client that answers them",
		}, log_lines "warn");
		assert.same({
			"This is version "..VERSION..", from "..server.plugin_path.."/mod_client_proxy/mod_client_proxy.lua",
			TARGET.." is online, requests are served",
			'Resource "b" of the target is online, too: there are 2. If it should not serve, log it out, '
				.."drain it with `prosodyctl shell client_proxy drain`, or name those that should in client_proxy_resources",
		}, log_lines "info");
		assert.same({}, log_lines "error");
	end);
end);
