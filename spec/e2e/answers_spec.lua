local new_prosody = require "spec.support.prosody".new;
local service = require "spec.support.service";
local xmpp = require "spec.support.xmpp";
local st = require "util.stanza";

local is_iq, request = xmpp.is_iq, service.request;

describe("an answer that nobody waits for", function ()
	local server, backends, requester, victim, stranger;

	lazy_setup(function ()
		server = new_prosody():start();
		backends = service.backends(server, { "a", "b" });
		requester = service.requester(server);
		victim = service.requester(server, "victim");
		stranger = xmpp.client(server, "other-user", "some-domain.example", "stranger");
	end);

	lazy_teardown(function ()
		server:remove();
	end);

	-- Sends a request; the backend that has got it, the other one, and the stanza
	local function dispatched(id)
		requester:send(request(id));
		requester:sync();
		for resource, backend in pairs(backends) do
			for _, stanza in ipairs(backend:sync()) do
				if stanza.attr.id == id then
					backend.received = {};
					return backend, backends[resource == "a" and "b" or "a"], stanza;
				end
			end
		end
	end

	-- What is sent reaches nobody, and is counted; the request it was made for
	-- is still answered by who may.
	local function is_harmless(id, forge)
		local backend, other, stanza = dispatched(id);
		local before = server:counter("unmatched_answers");
		local sent = forge(backend, other, stanza);
		for _, connection in ipairs { backend, other, stranger, requester, victim } do
			connection:sync();
			assert.same({}, connection.received);
		end
		assert.equal(before + sent, server:counter("unmatched_answers"));

		backend:send(st.reply(stanza));
		assert.equal("result", requester:receive(is_iq).attr.type);
		assert.equal(before + sent, server:counter("unmatched_answers"));
	end

	local function send_each_type(connection, attr)
		connection:send(st.stanza("iq", { type = "result", id = attr.id, to = attr.to }));
		connection:send(st.stanza("iq", { type = "error", id = attr.id, to = attr.to })
			:tag("error", { type = "cancel" }):tag("item-not-found", { xmlns = "urn:ietf:params:xml:ns:xmpp-stanzas" }));
		connection:sync();
		return 2;
	end

	it("is harmless under another id", function ()
		is_harmless("right-id", function (backend, _, stanza)
			return send_each_type(backend, { id = "wrong-id", to = stanza.attr.from });
		end);
	end);

	it("is harmless under another service address", function ()
		is_harmless("right-address", function (backend, _, stanza)
			local token = stanza.attr.from:match("/(.*)$");
			return send_each_type(backend, { id = stanza.attr.id, to = "room@proxy.domain.example/"..token });
		end);
	end);

	it("is harmless without a token", function ()
		is_harmless("no-token", function (backend, _, stanza)
			return send_each_type(backend, { id = stanza.attr.id, to = "proxy.domain.example" })
				+ send_each_type(backend, { id = stanza.attr.id, to = "room@proxy.domain.example" });
		end);
	end);

	it("is harmless with a changed token, whatever is changed", function ()
		is_harmless("changed-token", function (backend, _, stanza)
			local address = stanza.attr.from;
			local sent = 0;
			for position = #"proxy.domain.example/" + 1, #address do
				local changed = address:sub(position, position) == "A" and "B" or "A";
				sent = sent + send_each_type(backend,
					{ id = stanza.attr.id, to = address:sub(1, position - 1)..changed..address:sub(position + 1) });
			end
			return sent + send_each_type(backend, { id = stanza.attr.id, to = address:sub(1, -2) })
				+ send_each_type(backend, { id = stanza.attr.id, to = address.."A" });
		end);
	end);

	it("is harmless from another backend", function ()
		is_harmless("another-backend", function (_, other, stanza)
			return send_each_type(other, { id = stanza.attr.id, to = stanza.attr.from });
		end);
	end);

	it("is harmless from a stranger", function ()
		is_harmless("stranger", function (_, _, stanza)
			return send_each_type(stranger, { id = stanza.attr.id, to = stanza.attr.from });
		end);
	end);

	it("is harmless to someone who never asked", function ()
		is_harmless("to-the-victim", function (backend)
			victim:send(request("earlier"));
			victim:sync();
			local holder = backends.a:sync()[1] and backends.a or backends.b;
			local earlier = holder == backend and backend:receive(is_iq) or holder:receive(is_iq);
			holder:send(st.reply(earlier));
			victim:receive(is_iq);
			return send_each_type(backend, { id = "never-asked", to = earlier.attr.from });
		end);
	end);

	it("is dropped when the request has been answered already", function ()
		local backend, _, stanza = dispatched("twice");
		local before = server:counter("unmatched_answers");
		backend:send(st.reply(stanza));
		backend:send(st.reply(stanza));
		backend:send(st.error_reply(stanza, "cancel", "item-not-found"));
		assert.equal("result", requester:receive(is_iq).attr.type);
		backend:sync();
		requester:sync();
		assert.same({}, requester.received);
		assert.equal(before + 2, server:counter("unmatched_answers"));
	end);

	it("leaves no trace in memory, not even twenty thousand of them", function ()
		local function flood(count)
			for number = 1, count do
				backends.a:send(("<iq type='result' id='forged-%d' to='proxy.domain.example/s%064x'/>"):format(number, number));
				if number % 100 == 0 then
					backends.a:sync();
				end
			end
		end
		local before = server:counter("unmatched_answers");
		flood(4000); -- Prosody's own buffers and garbage have found their size
		local memory = server:resident_memory();
		flood(16000);
		assert.equal(before + 20000, server:counter("unmatched_answers"));
		assert.is_true(server:resident_memory() - memory < 4 * 1024 * 1024);
	end);
end);
