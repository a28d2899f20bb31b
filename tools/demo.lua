-- make demo: one request on its way to a backend and back, then a few more; messages, a backend's own request, and
-- presence.

require "spec.support.paths";
local prosody = require "spec.support.prosody";
local service = require "spec.support.service";
local xmpp = require "spec.support.xmpp";
local st = require "util.stanza";

local function show(direction, stanza)
	print(("%-23s %s"):format(direction, tostring(stanza)));
end

local function without_stream_language(stanza)
	stanza.attr["xml:lang"] = nil;
	return stanza;
end

local function four_stanzas(requester, backend)
	local request = st.iq({ type = "get", id = "1234", to = service.proxy, from = requester.jid })
		:tag("query", { xmlns = "urn:example:service" });
	show("user -> component:", request);
	requester:send(request);
	local received = without_stream_language(backend:receive(xmpp.is_iq));
	show("component -> backend:", received);
	local answer = st.reply(received):tag("query", { xmlns = "urn:example:service" }):text("it works");
	show("backend -> component:", answer);
	backend:send(answer);
	show("component -> user:", without_stream_language(requester:receive(xmpp.is_iq)));
end

-- A message to the service, a backend's answer, and a reply, which finds the same backend. -> that backend, the address by
-- which it knows the requester
local function converse(requester, backends)
	local question = st.message({ to = service.proxy, type = "chat", from = requester.jid }, "Is anybody there?");
	show("user -> component:", question);
	requester:send(question);
	requester:sync();
	for _, backend in ipairs(backends) do
		backend:sync();
		local received = backend:take(xmpp.is_message);
		if received then
			show("component -> backend:", without_stream_language(received));
			local answer = st.message({ to = received.attr.from, type = "chat", from = backend.jid }, "Yes, I am.");
			show("backend -> component:", answer);
			backend:send(answer);
			local answered = without_stream_language(requester:receive(xmpp.is_message));
			show("component -> user:", answered);
			requester:send(st.message({ to = answered.attr.from, type = "chat" }, "And still?"));
			assert(backend:receive(xmpp.is_message):get_child_text("body") == "And still?", "a reply went elsewhere");
			print("What the user sends there, the same backend gets.");
			return backend, received.attr.from;
		end
	end
	error("no backend has got the message");
end

-- The backend asks for the time at the requester.
local function backends_request(requester, backend, token)
	local request = st.iq({ type = "get", id = "5678", to = token, from = backend.jid }):tag("time", { xmlns = "urn:xmpp:time" });
	show("backend -> component:", request);
	backend:send(request);
	local received = without_stream_language(requester:receive(xmpp.is_iq));
	show("component -> user:", received);
	local answer = st.reply(received):tag("time", { xmlns = "urn:xmpp:time" }):text_tag("utc", os.date("!%Y-%m-%dT%H:%M:%SZ"));
	show("user -> component:", answer);
	requester:send(answer);
	show("component -> backend:", without_stream_language(backend:receive(xmpp.is_iq)));
end

-- The requester subscribes to the service's presence, and shows its own to a backend.
local function presence(requester, backend)
	local function is_of_service(stanza)
		return stanza.name == "presence" and stanza.attr.from == service.proxy;
	end
	requester:request(st.iq({ type = "get", id = "roster" }):query("jabber:iq:roster"));
	requester:send(st.presence());
	requester:sync();
	local subscribe = st.presence({ to = service.proxy, type = "subscribe" });
	show("user -> component:", subscribe);
	requester:send(subscribe);
	show("component -> user:", without_stream_language(requester:receive(is_of_service)));
	show("component -> user:", without_stream_language(requester:receive(is_of_service)));
	local here = st.presence({ to = service.proxy }):text_tag("status", "at my desk");
	show("user -> component:", here);
	requester:send(here);
	show("component -> backend:", without_stream_language(backend:receive(function (stanza)
		return stanza.name == "presence" and stanza.attr.from:find("^"..service.proxy:gsub("%p", "%%%0").."/") ~= nil;
	end)));
end

-- Sends requests, lets the backends answer, and says who answered how many
local function share_out(requester, backends, count)
	for number = 1, count do
		requester:send(service.request("more-"..number));
	end
	requester:sync();
	local shares = {};
	for _, backend in ipairs(backends) do
		table.insert(shares, ("%s answered %d"):format(backend.jid, service.answer_all(backend)));
	end
	for _ = 1, count do
		assert(requester:receive(xmpp.is_iq).attr.type == "result", "a request failed");
	end
	print(("%d requests: %s"):format(count, table.concat(shares, ", ")));
end

local function demo(server)
	server:start();
	print(("Prosody %s on loopback, the component %s, two backends\n"):format(server:version(), service.proxy));
	local a = service.backend(server, "a");
	local requester = service.requester(server);
	four_stanzas(requester, a);
	print();

	local b = service.backend(server, "b");
	share_out(requester, { a, b }, 20);
	print "\nMessages:\n";
	local partner, token = converse(requester, { a, b });
	print "\nA request of a backend:\n";
	backends_request(requester, partner, token);
	print "\nPresence:\n";
	presence(requester, partner);
	print();
	a:close();
	print(a.jid.." has left");
	share_out(requester, { b }, 20);
	b:close();
	requester:close();
end

local server = prosody.new();
local ok, failure = xpcall(demo, debug.traceback, server);
if not ok then
	io.stderr:write("The demo failed: ", failure, "\nProsody's log:\n", select(2, pcall(server.log, server)));
end
server:remove();
os.exit(ok);
