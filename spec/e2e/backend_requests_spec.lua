-- Requests that backends send to requesters, and requests for one backend and no other

local new_prosody = require "spec.support.prosody".new;
local service = require "spec.support.service";
local xmpp = require "spec.support.xmpp";
local st = require "util.stanza";

local PROXY, TARGET = service.proxy, service.target;
local is_iq, is_message, error_of, request = xmpp.is_iq, xmpp.is_message, service.error_of, service.request;

local hosts = [[
VirtualHost "some-domain.example"
	smacks_hibernation_time = 1
Component "component.example"
	component_secret = "component.example"
Component "proxy.domain.example" "client_proxy"
	target_address = "some-user@some-domain.example"
	modules_enabled = { "disco" }
	client_proxy_max_pending_per_requester = 3
]];

describe("a backend", function ()
	local server, backends, requester, component;

	local function start(more)
		server = new_prosody { hosts = hosts..(more or "") }:start();
		backends = service.backends(server, { "a", "b" });
		requester = service.requester(server);
		component = xmpp.component(server, "component.example", "some-domain.example");
	end

	after_each(function ()
		server:remove();
	end);

	-- (connection, backend[, to]) -> the token of a requester as this backend sees it, which has sent it a request
	local function token_of(connection, backend, from)
		local drained = backend == backends.a and "b" or "a";
		server:client_proxy("drain", PROXY, drained);
		local iq = request("introduction");
		iq.attr.from = from;
		connection:send(iq);
		local got = backend:receive(is_iq);
		backend:send(st.reply(got));
		connection:receive(xmpp.is_answer_to(iq));
		server:client_proxy("undrain", PROXY, drained);
		return got.attr.from;
	end

	local function assert_silence(...)
		for _, connection in ipairs { ... } do
			connection:sync();
			connection:sync(); -- what the first has brought about has come, too
			assert.same({}, connection.received);
		end
	end

	local function count(outcome)
		return server:metrics()[('prosody_mod_client_proxy__backend_requests_total{host="proxy.domain.example",outcome=%q}'):format(outcome)];
	end

	it("asks a requester, which answers it once", function ()
		start();
		local token = token_of(requester, backends.a);
		for number, type in ipairs { "get", "set" } do
			backends.a:send(request("1234", token, type));
			local got = requester:receive(is_iq);
			assert.same({ "1234", type, requester.jid }, { got.attr.id, got.attr.type, got.attr.to });
			assert.truthy(got.attr.from:find("^proxy%.domain%.example/b[%w_-]+$"));
			assert.equal("1234", got:find("{urn:example:service}query@number"));
			assert.equal("<&> \u{5d0}", got:find("{urn:example:service}query/item#"));
			local answer = number == 1 and st.reply(got):tag("answer", { xmlns = "urn:example:service" }):up()
				or st.error_reply(got, "cancel", "not-allowed", "No");
			requester:send(answer);
			requester:send(answer); -- a second answer is nobody's
			local settled = backends.a:receive(is_iq);
			assert.same({ "1234", token, backends.a.jid }, { settled.attr.id, settled.attr.from, settled.attr.to });
			assert.equal(number == 1 and "result" or "error", settled.attr.type);
			assert.equal(1, #settled.tags);
			assert_silence(backends.a, backends.b, requester);
		end
		assert.same({ 1, 1 }, { count "answered", count "error" });
	end);

	it("is not mistaken for another one, nor one requester for another, however equal the ids", function ()
		start();
		local tokens = {};
		for _, name in ipairs { "x", "y" } do
			tokens[name] = token_of(component, backends.a, "user@component.example/"..name);
		end
		for _, backend in pairs(backends) do
			for name, token in pairs(tokens) do
				backend:send(request("1", token):tag("for", { name = backend.jid.." "..name }));
			end
		end
		local got = {};
		for _ = 1, 4 do
			table.insert(got, component:receive(is_iq));
		end
		for index = 4, 1, -1 do
			component:send(st.reply(got[index]):add_child(got[index].tags[1]));
		end
		for _, backend in pairs(backends) do
			for _ = 1, 2 do
				local answer = backend:receive(is_iq);
				for name, token in pairs(tokens) do
					if token == answer.attr.from then
						assert.equal(backend.jid.." "..name, answer.tags[1]:get_child("for").attr.name);
					end
				end
			end
		end
		assert_silence(backends.a, backends.b, component);
	end);

	it("gets its answers first in, first out, under one id", function ()
		start();
		local token = token_of(requester, backends.a);
		backends.a:send(request("1", token));
		backends.a:send(request("1", token));
		for number = 1, 2 do
			requester:send(st.reply(requester:receive(is_iq)):tag("number", { xmlns = "urn:example", value = tostring(number) }));
			assert.equal(tostring(number), backends.a:receive(is_iq).tags[1].attr.value);
		end
		assert_silence(backends.a, requester);
	end);

	it("asks the requester and no other module, whatever it asks", function ()
		start();
		local token = token_of(requester, backends.a);
		backends.a:send(st.iq({ type = "get", id = "1", to = token }):tag("query", { xmlns = "http://jabber.org/protocol/disco#info" }));
		assert.equal("http://jabber.org/protocol/disco#info", requester:receive(is_iq).tags[1].attr.xmlns);
	end);

	it("gets an error when the requester has gone", function ()
		start();
		local token = token_of(requester, backends.a);
		requester:close();
		local answer = backends.a:request(request("1", token));
		assert.same({ "error", token }, { answer.attr.type, answer.attr.from });
		assert.same({ "service-unavailable", "cancel" }, { error_of(answer) });
		assert.equal(1, count "error");
	end);

	it("gets an error when the requester goes with the request", function ()
		start();
		local token = token_of(requester, backends.a);
		requester:enable_resumption();
		backends.a:send(request("1", token));
		requester:sync();
		requester:cut();
		local answer = backends.a:receive(is_iq);
		assert.same({ "1", "error", token }, { answer.attr.id, answer.attr.type, answer.attr.from });
	end);

	it("gets an error when the time is over, and the answer that comes later is nobody's", function ()
		start("\tclient_proxy_request_timeout = 1\n");
		local token = token_of(requester, backends.a);
		backends.a:send(request("1", token));
		local late = requester:receive(is_iq);
		local answer = backends.a:receive(is_iq);
		assert.same({ "1", "error", token }, { answer.attr.id, answer.attr.type, answer.attr.from });
		assert.same({ "remote-server-timeout", "wait" }, { error_of(answer) });
		requester:send(st.reply(late));
		assert_silence(requester, backends.a);
		assert.equal(1, count "timeout");
	end);

	it("reaches nobody by an address that it has not been given", function ()
		start();
		local token = token_of(requester, backends.a);
		for _, address in ipairs { PROXY.."/qAAAAAAAAAAAA", (token:sub(1, -2)..(token:sub(-1) == "A" and "B" or "A")), PROXY.."/"..requester.jid } do
			local answer = backends.a:request(request("1", address));
			assert.equal(address, answer.attr.from);
			assert.same({ "item-not-found", "cancel" }, { error_of(answer) });
		end
		assert_silence(requester, backends.a, backends.b);
	end);

	it("reaches nobody who has not written to the service in plain addresses, either", function ()
		start('\tclient_proxy_address_format = "plain"\n');
		local answer = backends.a:request(request("1", PROXY.."/"..requester.jid));
		assert.same({ "item-not-found", "cancel" }, { error_of(answer) });
		assert_silence(requester, backends.b);
		local token = token_of(requester, backends.a);
		assert.equal(PROXY.."/"..requester.jid, token);
		backends.a:send(request("2", token));
		requester:send(st.reply(requester:receive(is_iq)));
		assert.equal("result", backends.a:receive(is_iq).attr.type);
	end);

	it("that goes leaves nothing for who comes under its name", function ()
		start();
		local token = token_of(requester, backends.a);
		backends.a:send(request("1", token));
		local old = requester:receive(is_iq);
		backends.a:close();
		backends.a = service.backend(server, "a");
		backends.a:send(request("1", token));
		local new = requester:receive(is_iq);
		assert.equal(old.attr.from, new.attr.from); -- its token
		requester:send(st.reply(old):tag("old", { xmlns = "urn:example" }));
		requester:send(st.reply(new):tag("new", { xmlns = "urn:example" }));
		-- the two cannot be told apart by anything, so the first answer is the one that counts, and there is one
		assert.equal("result", backends.a:receive(is_iq).attr.type);
		assert_silence(backends.a, requester);
		assert.equal(1, count "backend_gone");
	end);

	it("may have so many pending, and another one as many of its own", function ()
		start();
		local token = token_of(requester, backends.a);
		token_of(requester, backends.b);
		for _, backend in pairs(backends) do
			for number = 1, 4 do
				backend:send(request(tostring(number), token));
			end
			local answer = backend:receive(is_iq);
			assert.equal("4", answer.attr.id);
			assert.same({ "resource-constraint", "wait" }, { error_of(answer) });
			assert_silence(backend);
		end
		for _ = 1, 6 do
			requester:send(st.reply(requester:receive(is_iq)));
		end
		for _, backend in pairs(backends) do
			for _ = 1, 3 do
				assert.equal("result", backend:receive(is_iq).attr.type);
			end
		end
		assert.equal(2, count "limited");
	end);

	it("has its answers over a reload, and an error at once when the module goes", function ()
		start();
		local token = token_of(requester, backends.a);
		backends.a:send(request("1", token));
		local got = requester:receive(is_iq);
		server:ctl("shell", "module", "reload", "client_proxy", PROXY);
		requester:send(st.reply(got));
		local answer = backends.a:receive(is_iq);
		assert.same({ "result", token }, { answer.attr.type, answer.attr.from });
		backends.a:send(request("2", token));
		requester:receive(is_iq);
		server:ctl("shell", "module", "unload", "client_proxy", PROXY);
		answer = backends.a:receive(is_iq);
		assert.same({ "2", "error", token }, { answer.attr.id, answer.attr.type, answer.attr.from });
		assert.same({ "service-unavailable", "wait" }, { error_of(answer) });
	end);

	it("that is no backend, as it has sent no presence, asks nobody", function ()
		start();
		local token = token_of(requester, backends.a);
		local silent = xmpp.client(server, "some-user", "some-domain.example", "silent");
		assert.same({ "service-unavailable", "cancel" }, { error_of(silent:request(request("1", token))) });
		silent:send(st.message({ to = token, id = "2" }, "hello"));
		assert.same({ "service-unavailable", "cancel" }, { error_of(silent:receive(is_message)) });
		assert_silence(requester);
	end);

	it("cannot be answered in a requester's name", function ()
		start();
		local token = token_of(requester, backends.a);
		backends.a:send(request("1", token));
		local got = requester:receive(is_iq);
		for _, from in ipairs { "user@component.example/abc", "component.example" } do
			component:send(st.iq({ type = "result", id = "1", from = from, to = got.attr.from }));
		end
		component:sync();
		assert_silence(backends.a, component);
		requester:send(st.reply(got));
		assert.equal("result", backends.a:receive(is_iq).attr.type);
	end);

	describe("is asked by its token", function ()
		-- -> the address of a backend, as a requester sees it
		local function address_of(backend)
			backend:send(st.message({ to = token_of(requester, backend), id = "message" }, "hello"));
			return requester:receive(is_message).attr.from;
		end

		it("and nobody else is, draining or not", function ()
			start();
			local address = address_of(backends.a);
			for number = 1, 10 do
				requester:send(request(tostring(number), address));
				local got = backends.a:receive(is_iq);
				assert.equal(tostring(number), got.attr.id);
				backends.a:send(st.reply(got));
				local answer = requester:receive(is_iq);
				assert.same({ "result", address }, { answer.attr.type, answer.attr.from });
				if number == 5 then
					server:client_proxy("drain", PROXY, "a");
				end
			end
			assert_silence(backends.b);
		end);

		it("and no other module on the component, whatever it is asked", function ()
			start();
			local address = address_of(backends.a);
			requester:send(st.iq({ type = "get", id = "1", to = address }):tag("query", { xmlns = "http://jabber.org/protocol/disco#info" }));
			local got = backends.a:receive(is_iq);
			assert.equal("http://jabber.org/protocol/disco#info", got.tags[1].attr.xmlns);
			backends.a:send(st.reply(got));
			assert.equal(address, requester:receive(is_iq).attr.from);
		end);

		it("and when it has gone, or goes, no other one is", function ()
			start();
			local address = address_of(backends.a);
			requester:send(request("1", address));
			backends.a:receive(is_iq);
			backends.a:close();
			local answer = requester:receive(is_iq);
			assert.same({ "1", address, "error" }, { answer.attr.id, answer.attr.from, answer.attr.type });
			assert.same({ "service-unavailable", "cancel" }, { error_of(answer) });
			answer = requester:request(request("2", address));
			assert.equal(address, answer.attr.from);
			assert.same({ "item-not-found", "cancel" }, { error_of(answer) });
			backends.b:sync();
			assert.is_nil(backends.b:take(is_iq));
			backends.a = service.backend(server, "a"); -- has the same token again
			requester:send(request("3", address));
			assert.equal("3", backends.a:receive(is_iq).attr.id);
		end);

		it("with an answer from there beside one from the bare address under the same id", function ()
			start();
			local address = address_of(backends.a);
			server:client_proxy("drain", PROXY, "b");
			requester:send(request("1", address));
			requester:send(request("1", PROXY));
			assert.same({ "conflict", "cancel" }, { error_of(requester:receive(is_iq)) });
			backends.a:send(st.reply(backends.a:receive(is_iq)));
			assert.equal(address, requester:receive(is_iq).attr.from);
			assert.equal(TARGET.."/a", backends.a.jid);
		end);
	end);
end);
