-- make demo: one request on its way to a backend and back, then a few more.

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
