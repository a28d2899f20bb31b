-- Every request gets exactly one answer, whatever becomes of its backend

local new_prosody = require "spec.support.prosody".new;
local service = require "spec.support.service";
local xmpp = require "spec.support.xmpp";
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

	describe("of somebody whom the target has blocked", function ()
		local a, blocked;

		-- A request of that requester, which the backend answers. -> the address that the backend sees
		local function address_of(who)
			who:send(request("seen"));
			local received = a:receive(is_iq);
			a:send(st.reply(received));
			who:receive(is_iq);
			return received.attr.from;
		end

		before_each(function ()
			server = new_prosody { hosts = usual_hosts:gsub('VirtualHost "some%-domain.example"', '%0\n\tmodules_enabled = { "blocklist" }') }:start();
			requester = service.requester(server);
			a = service.backend(server, "a");
			blocked = xmpp.client(server, "other-user", "some-domain.example", "r");
			local action = st.iq({ type = "set", id = "block" }):tag("block", { xmlns = "urn:xmpp:blocking" })
				:tag("item", { jid = address_of(blocked) }):reset();
			assert.equal("result", a:request(action).attr.type);
		end);

		it("is answered with the error, and no other request and no backend is touched", function ()
			local held = hold(a, 5);
			local b = service.backend(server, "b");
			for number = 1, 20 do
				local answer = blocked:request(request("blocked-"..number, nil, number % 2 == 0 and "set" or "get"));
				assert.same({ "service-unavailable", "cancel" }, { service.error_of(answer) });
				assert.equal("proxy.domain.example", answer.attr.from);
			end
			for _, received in ipairs(held) do
				a:send(st.reply(received));
			end
			for _, answer in pairs(answers(5)) do
				assert.equal("result", answer.attr.type);
			end
			local status = server:client_proxy("status", service.proxy);
			assert.truthy(status:find("a +| ready") and status:find("b +| ready"), status);
			assert.equal(0, service.answer_all(b));
		end);
	end);

	it("is answered by the other's backend alone when two requesters' are bounced at a time", function ()
		-- a session that cannot be resumed: mod_smacks bounces what it has not acknowledged
		start "client_proxy_retries = 2";
		for round = 1, 5 do
			local a = service.backend(server, "a");
			a:send("<enable xmlns='urn:xmpp:sm:3'/>");
			a:receive(function (stanza) return stanza.name == "enabled"; end);
			local requesters = {};
			for number = 1, 8 do
				requesters[number] = xmpp.client(server, number % 2 == 0 and "user" or "other-user", "some-domain.example", "r"..number);
				for count = 1, 12 do
					requesters[number]:send(request(("q%d-%d"):format(number, count), nil, (number + count) % 3 == 0 and "set" or "get"));
					a:receive(is_iq);
				end
			end
			local b = service.backend(server, round % 2 == 0 and "b" or "B");
			a:close();
			for _ = 1, 64 do
				b:send(st.reply(b:receive(is_iq)));
			end
			b:sync();
			for number, each in ipairs(requesters) do
				each:sync();
				local seen = {};
				for _, answer in ipairs(each.received) do
					assert.equal(tostring(number), answer.attr.id:match("^q(%d+)%-"));
					assert.is_nil(seen[answer.attr.id]);
					seen[answer.attr.id] = true;
					local is_set = (number + tonumber(answer.attr.id:match("%d+$"))) % 3 == 0;
					assert.equal(is_set and "error" or "result", answer.attr.type);
				end
				assert.equal(12, #each.received);
				each:close();
			end
			b:close();
		end
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

	it("goes to another backend as soon as its own hibernates if it is a get, a set waits", function ()
		start();
		local a = service.backend(server, "a");
		a:enable_resumption();
		local held = hold(a, 5);
		local b = service.backend(server, "b");
		a:cut();
		for _ = 1, 5 do
			local received = b:receive(is_iq);
			assert.equal("get", received.attr.type);
			b:send(st.reply(received));
		end
		for _ = 1, 5 do
			local answer = requester:receive(is_iq);
			assert.same({ "get", "result" }, { answer.attr.id:match("^%a+"), answer.attr.type });
		end
		a = xmpp.resume(server, a, 10);
		for _, received in ipairs(held) do
			a:send(st.reply(received)); -- of which nobody waits for those to the gets
		end
		a:sync();
		requester:sync();
		for _, answer in ipairs(requester.received) do
			assert.same({ "set", "result" }, { answer.attr.id:match("^%a+"), answer.attr.type });
		end
		assert.equal(5, #requester.received);
		assert.equal(5, server:counter("unmatched_answers"));
		assert.equal(5, server:counter("retries"));
	end);

	it("that waits for a hibernating backend goes to the next one that comes if it is a get", function ()
		start();
		local a = service.backend(server, "a");
		a:enable_resumption();
		hold(a, 5);
		a:cut();
		server:await("HIBERNATING some-user@some-domain.example/a");
		local b = xmpp.client(server, "some-user", "some-domain.example", "b");
		b:send(st.presence());
		for _ = 1, 5 do
			b:send(st.reply(b:receive(is_iq)));
		end
		for _ = 1, 5 do
			assert.equal("result", requester:receive(is_iq).attr.type);
		end
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

		local function receive_ping()
			return a:receive(xmpp.is_ping);
		end

		-- The backend a lets a request time out, and then its first ping go unanswered: the second one tells.
		before_each(function ()
			start "client_proxy_request_timeout = 1";
			a = service.backend(server, "a");
			requester:send(request("never-answered"));
			a:receive(is_iq);
			b = service.backend(server, "b");
			assert.equal("remote-server-timeout", service.error_of(requester:receive(is_iq)));
			assert.equal("proxy.domain.example", receive_ping().attr.from);
			ping = receive_ping();
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

		it("does not go to it because its presence comes again, when the operator asks or by itself", function ()
			server:client_proxy("resync", service.proxy);
			b:send(st.reply(b:receive(is_iq)));
			a:send(st.presence():text_tag("status", "still here"));
			a:sync();
			all_go_to(b);
			receive_ping(); -- it is still asked
			assert.truthy(server:client_proxy("status", service.proxy):find("a +| suspended"));
		end);

		it("goes to it again after a new session, which takes the old one's place", function ()
			a = service.backend(server, "a");
			b:close();
			all_go_to(a);
			assert.truthy(server:client_proxy("status", service.proxy):find("a +| ready"));
		end);
	end);

	it("that times out suspends no backend that answers a ping, and fills no log", function ()
		start "client_proxy_request_timeout = 1";
		local a = service.backend(server, "a");
		service.backend(server, "b"):close();
		for number = 1, 20 do
			requester:send(request("never-answered-"..number));
			a:receive(is_iq);
		end
		local before = #server:log();
		for _ = 1, 20 do
			assert.equal("remote-server-timeout", service.error_of(requester:receive(is_iq)));
		end
		a:send(st.reply(a:receive(is_iq)));
		a:sync();
		assert.truthy(server:client_proxy("status", service.proxy):find("a +| ready"));
		for line in server:log():sub(before):gmatch("[^\n]+") do
			assert.falsy(line:find("proxy%.domain%.example:client_proxy%s+%a+%s") and not line:find("debug"), line);
		end
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
