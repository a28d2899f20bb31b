-- Every request gets exactly one answer, whatever becomes of its backend

local new_prosody = require "spec.support.prosody".new;
local service = require "spec.support.service";
local xmpp = require "spec.support.xmpp";
local socket = require "socket";
local st = require "util.stanza";

local usual_hosts = require "spec.support.prosody".usual_hosts;
local is_iq, request = xmpp.is_iq, service.request;

describe("a request", function ()
	local server, requester;

	local function start(options)
		server = new_prosody { hosts = usual_hosts..(options or "") }:start();
		requester = service.requester(server);
	end

	after_each(function ()
		server:remove();
	end);

	-- Requests under way, each get and set: those that the backend has got
	local function hold(backend, count)
		for number = 1, count do
			requester:send(request("get-"..number, "room@proxy.domain.example/thing"));
			requester:send(request("set-"..number, nil, "set"));
		end
		local held = {};
		for number = 1, 2 * count do
			held[number] = backend:receive(is_iq);
		end
		return held;
	end

	-- One answer for each request under way, and no more
	local function answers(count)
		local by_id = {};
		for _ = 1, 2 * count do
			local answer = requester:receive(is_iq);
			assert.is_nil(by_id[answer.attr.id]);
			by_id[answer.attr.id] = answer;
			assert.equal(answer.attr.id:match("^get") and "room@proxy.domain.example/thing" or "proxy.domain.example", answer.attr.from);
		end
		requester:sync();
		assert.same({}, requester.received);
		return by_id;
	end

	local ways_to_go = {
		["says that it is unavailable"] = function (backend)
			backend:send(st.presence({ type = "unavailable" }));
		end,
		["closes its stream"] = function (backend) backend:close(); end,
		["loses its connection"] = function (backend) backend:cut(); end,
	};

	for name, go in pairs(ways_to_go) do
		it("goes to another backend if it is a get and its own "..name..", a set is refused", function ()
			start();
			local a = service.backend(server, "a");
			hold(a, 5);
			local b = service.backend(server, "b");
			go(a);
			for _ = 1, 5 do
				b:send(st.reply(b:receive(is_iq)));
			end
			for id, answer in pairs(answers(5)) do
				if id:match("^get") then
					assert.equal("result", answer.attr.type);
				else
					assert.same({ "service-unavailable", "cancel" }, { service.error_of(answer) });
				end
			end
		end);

		it("is refused when its backend "..name.." and there is no other", function ()
			start();
			local a = service.backend(server, "a");
			hold(a, 5);
			go(a);
			for _, answer in pairs(answers(5)) do
				assert.same({ "service-unavailable", "cancel" }, { service.error_of(answer) });
			end
		end);
	end

	it("goes on to no more backends than client_proxy_retries allows", function ()
		start "client_proxy_retries = 2";
		local a = service.backend(server, "a");
		requester:send(request("tried"));
		a:receive(is_iq);
		for _, resource in ipairs { "b", "c" } do
			local another = service.backend(server, resource);
			a:close();
			another:receive(is_iq);
			a = another;
		end
		service.backend(server, "d");
		a:close();
		assert.same({ "service-unavailable", "cancel" }, { service.error_of(requester:receive(is_iq)) });
	end);

	it("is not kept in memory to be sent again if it is large", function ()
		start();
		local a = service.backend(server, "a");
		a:sync();
		local before = server:lua_memory();
		local elements = ("<x/>"):rep(10000); -- megabytes, when they are parsed
		for number = 1, 20 do
			requester:send_large(("<iq type='get' id='%d' to='%s'><q xmlns='urn:example:service'>%s</q></iq>")
				:format(number, service.proxy, elements));
			a:receive(is_iq);
		end
		assert.is_true(server:lua_memory() < before + 4096);
	end);

	it("keeps its deadline when it goes to another backend", function ()
		start "client_proxy_request_timeout = 2";
		local a = service.backend(server, "a");
		local started = require "util.time".monotonic();
		requester:send(request("slow"));
		a:receive(is_iq);
		local b = service.backend(server, "b");
		a:close();
		b:receive(is_iq);
		assert.same({ "remote-server-timeout", "wait" }, { service.error_of(requester:receive(is_iq)) });
		local elapsed = require "util.time".monotonic() - started;
		assert.is_true(elapsed >= 1.9); -- a new deadline would be later, which another load of the machine could be, too
	end);

	it("is answered with the backend's own service-unavailable while that is online", function ()
		start();
		local a = service.backend(server, "a");
		requester:send(request("refused"));
		local received = a:receive(is_iq);
		service.backend(server, "b");
		a:send(st.error_reply(received, "cancel", "service-unavailable", "by the backend"));
		assert.same({ "cancel", "service-unavailable", "by the backend" }, { requester:receive(is_iq):get_error() });
	end);

	it("goes to another backend while one hibernates, and to that one again when it resumes", function ()
		start();
		local a, b = service.backend(server, "a"), service.backend(server, "b");
		a:enable_resumption();
		a:cut();
		server:await("HIBERNATING some-user@some-domain.example/a");
		for number = 1, 20 do
			requester:send(request("hibernating-"..number));
			b:send(st.reply(b:receive(is_iq)));
			assert.equal("result", requester:receive(is_iq).attr.type);
		end

		a = xmpp.resume(server, a, 0);
		a:sync();
		a.received = {};
		b:close();
		requester:send(request("resumed"));
		a:send(st.reply(a:receive(is_iq)));
		assert.equal("result", requester:receive(is_iq).attr.type);
	end);

	it("is refused while the only backend hibernates, and answered later if it was under way", function ()
		start();
		local a = service.backend(server, "a");
		a:enable_resumption();
		requester:send(request("under-way"));
		local received = a:receive(is_iq);
		a:cut();
		server:await("HIBERNATING some-user@some-domain.example/a");
		assert.equal("service-unavailable", service.error_of(requester:request(request("too-late"))));
		a = xmpp.resume(server, a, 1);
		a:send(st.reply(received));
		assert.equal("under-way", requester:receive(is_iq).attr.id);
	end);

	it("goes to another backend when its own does not come back from hibernation", function ()
		start();
		server:configure("smacks_hibernation_time = 1\n"..usual_hosts);
		server:stop();
		server:start();
		requester = service.requester(server);
		local a = service.backend(server, "a");
		a:enable_resumption();
		hold(a, 5);
		local b = service.backend(server, "b");
		a:cut();
		for _ = 1, 5 do
			b:send(st.reply(b:receive(is_iq)));
		end
		for id, answer in pairs(answers(5)) do
			assert.equal(id:match("^get") and "result" or "error", answer.attr.type);
		end
	end);

	describe("after another one has timed out", function ()
		local a, b, ping;

		before_each(function ()
			start "client_proxy_request_timeout = 1";
			a = service.backend(server, "a");
			requester:send(request("never-answered"));
			a:receive(is_iq);
			b = service.backend(server, "b");
			assert.equal("remote-server-timeout", service.error_of(requester:receive(is_iq)));
			ping = a:receive(is_iq);
			assert.truthy(ping:get_child("ping", "urn:xmpp:ping"));
			assert.equal("proxy.domain.example", ping.attr.from);
		end);

		local function all_go_to(backend)
			for number = 1, 20 do
				requester:send(request("suspended-"..number));
				backend:send(st.reply(backend:receive(is_iq)));
				assert.equal("result", requester:receive(is_iq).attr.type);
			end
		end

		it("does not go to the backend that let it, until that answers a ping", function ()
			all_go_to(b);
			a:send(st.reply(ping));
			a:sync();
			a.received = {};
			b:close();
			all_go_to(a);
		end);

		it("goes to it all the same when there is no other", function ()
			b:close();
			all_go_to(a);
		end);

		it("goes to it again when, after no answer to the ping either, it turns out to be there", function ()
			local deadline = socket.gettime() + 10;
			repeat
				requester:send(request("who"));
				requester:sync();
				local by_b = service.answer_all(b);
				local by_a = service.answer_all(a);
				assert.equal(1, by_a + by_b);
				assert.equal("result", requester:receive(is_iq).attr.type);
				assert.is_true(socket.gettime() < deadline);
			until by_a == 1;
		end);
	end);

	describe("beyond a limit", function ()
		it("is refused, and taken when there is room again", function ()
			start "client_proxy_max_pending = 3";
			local a = service.backend(server, "a");
			local other = xmpp.client(server, "other-user", "some-domain.example", "r");
			local held = {};
			for number = 1, 3 do
				requester:send(request("held-"..number));
				held[number] = a:receive(is_iq);
			end
			assert.same({ "resource-constraint", "wait" }, { service.error_of(other:request(request("too-many"))) });
			a:send(st.reply(held[1]));
			requester:receive(is_iq);
			other:send(request("fits"));
			a:send(st.reply(a:receive(is_iq)));
			assert.equal("result", other:receive(is_iq).attr.type);
		end);

		it("is refused to a greedy requester, whatever its resource, and to no other", function ()
			start "client_proxy_max_pending_per_requester = 3";
			local a = service.backend(server, "a");
			local same = service.requester(server, "another resource");
			local other = xmpp.client(server, "other-user", "some-domain.example", "r");
			for number = 1, 3 do
				requester:send(request("held-"..number));
				a:receive(is_iq);
			end
			assert.same({ "resource-constraint", "wait" }, { service.error_of(requester:request(request("too-many"))) });
			assert.same({ "resource-constraint", "wait" }, { service.error_of(same:request(request("too-many"))) });
			other:send(request("fits"));
			a:send(st.reply(a:receive(is_iq)));
			assert.equal("result", other:receive(is_iq).attr.type);
		end);
	end);
end);

describe("two proxies, each the other's target", function ()
	it("refuse requests, and send each other no storm of stanzas", function ()
		local server = new_prosody { hosts = [[
VirtualHost "some-domain.example"
Component "one.example" "client_proxy"
	target_address = "x@two.example"
Component "two.example" "client_proxy"
	target_address = "x@one.example"
]] }:start();
		finally(function () server:remove(); end);
		local requester = service.requester(server);
		for _, address in ipairs { "one.example", "two.example", "x@one.example", "x@two.example" } do
			local answer = requester:request(request("loop", address));
			assert.equal("service-unavailable", service.error_of(answer));
		end
		requester:sync();
		assert.same({}, requester.received);
	end);
end);
