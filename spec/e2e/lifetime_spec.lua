-- What outlives what: deadlines, reloads, unloading, restarts

local new_prosody = require "spec.support.prosody".new;
local service = require "spec.support.service";
local xmpp = require "spec.support.xmpp";
local st = require "util.stanza";

local is_iq, is_message, request = xmpp.is_iq, xmpp.is_message, service.request;

local usual_hosts = require "spec.support.prosody".usual_hosts;

describe("a pending request", function ()
	local server, backend, requester;

	local function start(hosts)
		server = new_prosody { hosts = hosts }:start();
		backend = service.backend(server, "a");
		requester = service.requester(server);
	end

	after_each(function ()
		server:remove();
	end);

	-- A request that the backend has got and not answered
	local function hold(id, address)
		requester:send(request(id, address));
		return backend:receive(is_iq);
	end

	local function module_command(command)
		return server:ctl("shell", "module", command, "client_proxy", "proxy.domain.example");
	end

	it("gets remote-server-timeout at its deadline, and nothing later", function ()
		start(usual_hosts.."client_proxy_request_timeout = 1");
		local received = hold("late", "room@proxy.domain.example/thing");
		local answer = requester:receive(is_iq);
		assert.same({ "remote-server-timeout", "wait" }, { service.error_of(answer) });
		assert.equal("late", answer.attr.id);
		assert.equal("room@proxy.domain.example/thing", answer.attr.from);

		backend:send(st.reply(received));
		backend:sync();
		requester:sync();
		assert.same({}, requester.received);
		assert.equal(1, server:counter("unmatched_answers"));
	end);

	it("times out with all others of its time, and the next ones after them", function ()
		start(usual_hosts.."client_proxy_request_timeout = 1; client_proxy_max_pending_per_requester = 600");
		for round = 1, 2 do
			for number = 1, 600 do -- more than expire in one go
				requester:send(request(round.."-"..number));
			end
			for number = 1, 600 do
				local answer = requester:receive(is_iq);
				assert.equal(round.."-"..number, answer.attr.id);
				assert.equal("remote-server-timeout", service.error_of(answer));
			end
			-- the backend shows that it is alive, and may have the next ones, too
			backend:send(st.reply(backend:receive(xmpp.is_ping)));
			backend:sync();
			backend.received = {};
		end
	end);

	it("is answered after a reload, and times out after a reload", function ()
		start(usual_hosts.."client_proxy_request_timeout = 2");
		local answered = hold("answered");
		hold("timed-out");
		module_command("reload");
		backend:send(st.reply(answered));
		assert.equal("result", requester:receive(is_iq).attr.type);
		local answer = requester:receive(is_iq);
		assert.equal("timed-out", answer.attr.id);
		assert.equal("remote-server-timeout", service.error_of(answer));
	end);

	it("is answered at once when the module is unloaded", function ()
		start();
		hold("unloaded", "room@proxy.domain.example");
		module_command("unload");
		local answer = requester:receive(is_iq);
		assert.same({ "service-unavailable", "wait" }, { service.error_of(answer) });
		assert.equal("unloaded", answer.attr.id);
		assert.equal("room@proxy.domain.example", answer.attr.from);
	end);

	it("is answered at once when Prosody stops", function ()
		start();
		hold("stopped");
		server:signal("TERM");
		local answer = requester:receive(is_iq);
		assert.same({ "service-unavailable", "wait" }, { service.error_of(answer) });
		assert.equal("stopped", answer.attr.id);
	end);

	it("is answered at once when a reload fails because of the configuration", function ()
		start();
		hold("reloaded");
		server:configure((usual_hosts:gsub("target_address", "no_address")));
		server:ctl("shell", "config", "reload");
		module_command("reload");
		assert.same({ "service-unavailable", "wait" }, { service.error_of(requester:receive(is_iq)) });
	end);

	it("is answered at once when a reload brings a new target, whose backends get what comes then", function ()
		start();
		local received = hold("old-target", "room@proxy.domain.example");
		server:configure((usual_hosts:gsub("some%-user@", "other-user@")));
		server:ctl("shell", "config", "reload");
		module_command("reload");
		local answer = requester:receive(is_iq);
		assert.same({ "service-unavailable", "wait" }, { service.error_of(answer) });
		assert.equal("room@proxy.domain.example", answer.attr.from);
		backend:send(st.reply(received));
		assert.equal("service-unavailable", service.error_of(requester:request(request("no-backend"))));
		local other = xmpp.client(server, "other-user", "some-domain.example", "b");
		other:send(st.presence());
		other:sync();
		requester:send(request("new-target"));
		other:send(st.reply(other:receive(is_iq)));
		assert.equal("new-target", requester:receive(is_iq).attr.id);
		backend:sync();
		requester:sync();
		assert.same({}, requester.received);
	end);

	-- (priority, what): the next IQ to the proxy host is offered to a module that reloads the proxy, or whatever `what` is,
	-- and then to the handlers of the instance that was there before.
	local function meanwhile(priority, what)
		server:run_lua(([[local events, handler = prosody.hosts['proxy.domain.example'].events]]
			..[[ function handler() events.remove_handler('iq/host', handler)]]
			..[[ require'core.modulemanager'.%s('proxy.domain.example', 'client_proxy') end]]
			..[[ events.add_handler('iq/host', handler, %d)]]):format(what, priority));
	end

	it("that comes while the module is reloaded gets an answer, though the backend gives none", function ()
		start(usual_hosts.."client_proxy_request_timeout = 1");
		for _, priority in ipairs { 20, 5 } do -- before and after the handlers that look at it first
			meanwhile(priority, "reload");
			assert.equal("error", requester:request(request("meanwhile-"..priority)).attr.type);
		end
	end);

	it("is counted as answered when the module is reloaded as the answer comes", function ()
		start();
		local received = hold("answered");
		meanwhile(20, "reload");
		backend:send(st.reply(received));
		assert.equal("result", requester:receive(is_iq).attr.type);
		assert.truthy(server:client_proxy("status", "proxy.domain.example"):find("Answered: 1,", 1, true));
	end);

	it("has the new format as soon as a reload has changed that, though the old instance has yet to send some again", function ()
		start();
		for number = 1, 3 do
			hold("retried-"..number);
		end
		local other = service.backend(server, "b");
		server:configure(usual_hosts..'client_proxy_address_format = "sealed"');
		server:ctl("shell", "config", "reload");
		server:run_lua([[local events, handler = prosody.hosts['some-domain.example'].events]]
			..[[ function handler() events.remove_handler('iq/full', handler)]]
			..[[ require'core.modulemanager'.reload('proxy.domain.example', 'client_proxy') end]]
			..[[ events.add_handler('iq/full', handler, 100)]]);
		backend:send(st.presence { type = "unavailable" });
		local token = other:receive(is_iq).attr.from:match("/(.*)");
		assert.equal("q", token:sub(1, 1));
		for _ = 1, 2 do
			token = other:receive(is_iq).attr.from:match("/(.*)");
			assert.equal("s", token:sub(1, 1));
		end
		requester:send(request("new"));
		assert.equal(token, other:receive(is_iq).attr.from:match("/(.*)"));
	end);

	it("keeps no instance of the module in memory that has been reloaded", function ()
		start();
		for number = 1, 20 do
			hold("held-"..number);
		end
		local function reload_often()
			server:run_lua("local m = require'core.modulemanager' for _ = 1, 50 do m.reload('proxy.domain.example', 'client_proxy') end");
		end
		reload_often();
		local before = server:lua_memory();
		reload_often();
		reload_often();
		local after = server:lua_memory();
		assert.is_true(after < before + 1024, ("%.0f kB before, %.0f kB after"):format(before, after)); -- 100 instances are megabytes
		requester:send(request("served"));
		backend:send(st.reply(backend:receive(is_iq)));
		local answer = requester:receive(is_iq);
		while answer.attr.id ~= "served" do -- so many reloads can take longer than a request may
			assert.equal("remote-server-timeout", service.error_of(answer));
			answer = requester:receive(is_iq);
		end
		assert.equal("result", answer.attr.type);
	end);
end);

describe("the backends", function ()
	it("are all there right after a reload", function ()
		local server = new_prosody():start();
		finally(function () server:remove(); end);
		local backends = service.backends(server, { "a", "b" });
		local requester = service.requester(server);
		server:ctl("shell", "module", "reload", "client_proxy", "proxy.domain.example");
		for number = 1, 40 do
			requester:send(request("reloaded-"..number));
		end
		requester:sync();
		local a, b = service.answer_all(backends.a), service.answer_all(backends.b);
		assert.equal(40, a + b);
		assert.is_true(a > 0 and b > 0);
	end);
end);

describe("the token of a requester", function ()
	local server, backend, requester;

	local function log_in()
		backend = service.backend(server, "a");
		requester = service.requester(server);
	end

	before_each(function ()
		server = new_prosody():start();
		log_in();
	end);

	after_each(function ()
		server:remove();
	end);

	-- The address the backend sees
	local function translated()
		requester:send(request("token"));
		local received = backend:receive(is_iq);
		backend:send(st.reply(received));
		requester:receive(is_iq);
		return received.attr.from;
	end

	local function restart(change)
		server:stop();
		if change then
			change();
		end
		server:start();
		log_in();
	end

	-- Key generations are told apart by their age, so they are made older instead of waiting.
	local function set_age_of_the_key(seconds)
		local path = server.dir.."/data/proxy%2edomain%2eexample/client_proxy.dat";
		local file = assert(io.open(path));
		local content = file:read("a");
		file:close();
		content = content:gsub('(%["created"%] = )%d+', "%1"..os.time() - seconds);
		file = assert(io.open(path, "w"));
		file:write(content);
		file:close();
	end

	local function let_the_key_reach_its_lifetime()
		set_age_of_the_key(31 * 24 * 60 * 60);
	end

	local function reload()
		server:ctl("shell", "module", "reload", "client_proxy", "proxy.domain.example");
	end

	-- Others may send requests to any address but a token that the proxy knows.
	local function is_refused_to_strangers(address)
		local stranger = service.requester(server, "stranger");
		stranger:send(request("stranger", address));
		backend:sync();
		local taken = service.answer_all(backend);
		local answer = stranger:receive(is_iq);
		stranger:close();
		assert.equal(taken == 1 and "result" or "error", answer.attr.type);
		if taken == 0 then
			assert.same({ "service-unavailable", "cancel" }, { service.error_of(answer) });
		end
		return taken == 0;
	end

	-- A backend reaches somebody by a token only while that can be opened.
	local function can_be_opened(address)
		backend:send(st.message({ to = address, id = "open" }, "hello"));
		backend:sync();
		local answer = backend:take(is_message);
		if answer then
			assert.same({ "item-not-found", "cancel" }, { service.error_of(answer) });
			return false;
		end
		assert.equal("open", requester:receive(is_message).attr.id);
		return true;
	end

	it("is the same after a reload and after a restart", function ()
		local before = translated();
		server:ctl("shell", "module", "reload", "client_proxy", "proxy.domain.example");
		assert.equal(before, translated());
		restart();
		assert.equal(before, translated());
	end);

	it("changes with the key, the previous one of which still opens it, where it is sealed", function ()
		restart(function ()
			server:configure(usual_hosts..'client_proxy_address_format = "sealed"');
		end);
		local first = translated();
		restart(let_the_key_reach_its_lifetime);
		local second = translated();
		assert.not_equal(first, second);
		assert.is_true(can_be_opened(first));
		assert.is_true(can_be_opened(second));

		restart(let_the_key_reach_its_lifetime);
		local third = translated();
		assert.not_equal(second, third);
		assert.is_false(can_be_opened(first));
		assert.is_true(can_be_opened(second));
		assert.is_true(can_be_opened(third));
	end);

	it("changes with the key when its time has come, and the one before is known as long as the book remembers it", function ()
		server:configure(usual_hosts.."client_proxy_key_lifetime = 60");
		local first = translated();
		server:ctl("shell", "config", "reload");
		set_age_of_the_key(54); -- no lifetime can be shorter than 60
		reload();
		assert.equal(first, translated());
		local second, until_time = first, os.time() + 30;
		while second == first do -- until a timer ends
			assert.truthy(os.time() < until_time);
			second = translated();
		end
		assert.equal(second, translated());
		for _, address in ipairs { first, second } do
			assert.is_true(is_refused_to_strangers(address));
			assert.is_true(can_be_opened(address));
		end

		set_age_of_the_key(60);
		reload();
		local third = translated();
		assert.not_equal(second, third);
		assert.is_false(is_refused_to_strangers(first));
		assert.is_true(is_refused_to_strangers(second));
		assert.is_true(is_refused_to_strangers(third));

		restart();
		assert.is_false(is_refused_to_strangers(third)); -- the book has gone
		assert.equal(third, translated());
		assert.is_true(is_refused_to_strangers(third));
	end);

	for what, damaged in pairs {
		["a key that is too short"] = 'return { ["current"] = { ["id"] = 0; ["key"] = "c2hvcnQ="; ["created"] = 0; }; };',
		["an empty file"] = "", ["a file of spaces"] = " \n",
	} do
		it("is not made from damaged keys: the module refuses to load and leaves them alone: "..what, function ()
			local path = server.dir.."/data/proxy%2edomain%2eexample/client_proxy.dat";
			server:stop();
			local file = assert(io.open(path, "w"));
			file:write(damaged);
			file:close();
			server:start();
			requester = service.requester(server);
			assert.equal("service-unavailable", service.error_of(requester:request(request("damaged"))));
			assert.truthy(server:log():find("in Prosody's storage are damaged", 1, true));
			file = assert(io.open(path));
			assert.equal(damaged, file:read("a"));
			file:close();
		end);
	end

	it("is the same after a reload where nothing can be stored, and the log says once that it cannot", function ()
		server:stop();
		server:configure((usual_hosts:gsub("target_address", 'storage = "none"; %0')));
		server:start();
		log_in();
		local before = translated();
		for _ = 1, 3 do
			server:ctl("shell", "module", "reload", "client_proxy", "proxy.domain.example");
			assert.equal(before, translated());
		end
		local _, count = server:log():gsub("The new key cannot be written", "");
		assert.equal(1, count);
	end);

	it("and its key are in no line of the log", function ()
		local address = translated();
		local file = assert(io.open(server.dir.."/data/proxy%2edomain%2eexample/client_proxy.dat"));
		local key = file:read("a"):match('%["key"%] = "([^"]+)"');
		file:close();
		assert.equal(44, #key);
		assert.truthy(address);
		assert.falsy(server:log():find(key, 1, true));
	end);
end);
