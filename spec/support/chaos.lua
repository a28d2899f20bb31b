-- Many requesters with requests under way all the time, and backends that come,
-- go and misbehave. The ledger of what was asked and what came back is kept here
-- alone: it trusts neither the component nor the backends.
--
-- An answer is right if it comes once, to who asked, from the address asked, and,
-- if a backend made it, with what that backend was sent. What a requester had
-- under way when it disconnected is closed in the ledger before it does, so that
-- what Prosody then has nobody to deliver to counts neither way.

local prosody = require "spec.support.prosody";
local service = require "spec.support.service";
local socket = require "socket";
local st = require "util.stanza";
local xmpp = require "spec.support.xmpp";

local now, random = socket.gettime, math.random;

local REQUESTERS = 8;
local PIPELINE = 25; -- requests each has under way
local RESOURCES = { "r1", "r2", "r3", "r4", "r5", "r6" };
local GRACE = 10; -- seconds after the last request that an answer may take

local chaos = {};
chaos.__index = chaos;

-- Sessions that do not come back are not to be in memory for long; Prosody has
-- every one there until it would have had to log in.
chaos.hosts = "smacks_hibernation_time = 2\nc2s_timeout = 10\n"..prosody.usual_hosts..[[
client_proxy_request_timeout = 1
client_proxy_max_pending_per_requester = 10000
]];

-- (server, options) -> chaos
-- server: a running Prosody with chaos.hosts; options: reload, whether to reload the module now and then
function chaos.new(server, options)
	return setmetatable({
		server = server;
		options = options;
		requesters = {};
		backends = {}; -- by resource
		later = {}; -- functions to call, each { at, call }
		resources_used = 0;
		ledger = { requests = 0, answers = 0, errors = 0, open = 0, abandoned = 0,
			lost = 0, doubled = 0, misdelivered = 0, wrong_address = 0 };
	}, chaos);
end

local addresses = {
	"proxy.domain.example", "proxy.domain.example/thing", "room@proxy.domain.example", "room@proxy.domain.example/thing",
};

function chaos:after(seconds, call)
	table.insert(self.later, { at = now() + seconds, call = call });
end

--
-- Requesters
--

function chaos:send_request(requester)
	self.ledger.requests = self.ledger.requests + 1;
	self.ledger.open = self.ledger.open + 1;
	requester.count = requester.count + 1;
	local id, address = "q"..requester.count, addresses[random(#addresses)];
	requester.open[id] = address;
	requester.connection:send(("<iq type='%s' id='%s' to='%s'><query xmlns='urn:example:chaos' who='%s' what='%s'/></iq>")
		:format(random(4) == 1 and "set" or "get", id, address, requester.connection.jid, id));
end

function chaos:on_answer(requester, stanza)
	local ledger, attr = self.ledger, stanza.attr;
	if stanza.name ~= "iq" or attr.type ~= "result" and attr.type ~= "error" then
		return;
	end
	local address = requester.open[attr.id];
	local number = tonumber((attr.id or ""):match("^q(%d+)$"));
	ledger.answers = ledger.answers + 1;
	ledger.errors = ledger.errors + (attr.type == "error" and 1 or 0);
	if not address then
		local kind = number and number <= requester.count and "doubled" or "misdelivered";
		ledger[kind] = ledger[kind] + 1;
		return;
	end
	local query = stanza:get_child("query", "urn:example:chaos");
	if query and (query.attr.who ~= requester.connection.jid or query.attr.what ~= attr.id)
		or attr.to ~= requester.connection.jid then
		ledger.misdelivered = ledger.misdelivered + 1;
	elseif attr.from ~= address then
		ledger.wrong_address = ledger.wrong_address + 1;
	end
	requester.open[attr.id] = nil;
	ledger.open = ledger.open - 1;
	if self.sending then
		self:send_request(requester);
	end
end

function chaos:connect_requester(slot)
	self.resources_used = self.resources_used + 1;
	local user = slot % 2 == 0 and "user" or "other-user";
	local requester = { open = {}, count = 0 };
	requester.connection = xmpp.client(self.server, user, "some-domain.example", "chaos-"..self.resources_used);
	self.requesters[slot] = requester;
	for _ = 1, self.sending and PIPELINE or 0 do
		self:send_request(requester);
	end
end

function chaos:reconnect_requester(slot)
	local requester, ledger = self.requesters[slot], self.ledger;
	for _ in pairs(requester.open) do
		ledger.open = ledger.open - 1;
		ledger.abandoned = ledger.abandoned + 1;
	end
	if random(2) == 1 then
		requester.connection:cut();
	else
		requester.connection:send("</stream:stream>");
		requester.connection:cut();
	end
	self:connect_requester(slot);
end

--
-- Backends
--

-- Prosody closes the stream of a session that resumes after its connection was cut
-- in the middle of a stanza: its parser still has the stanza's first half.
local function send_if_open(connection, data)
	if not pcall(connection.send, connection, data) then
		connection.closed = true;
	end
end

local function answer(backend, stanza, changed)
	local query = stanza.tags[1];
	changed = changed or {};
	if not backend.connection or backend.connection.closed then
		return; -- it has gone meanwhile
	end
	send_if_open(backend.connection, ("<iq type='%s' id='%s' to='%s'><query xmlns='urn:example:chaos' who='%s' what='%s'/>%s</iq>"):format(
		changed.type or "result", changed.id or stanza.attr.id, changed.to or stanza.attr.from, query.attr.who, query.attr.what,
		changed.type and "<error type='cancel'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>" or ""));
end

-- Each is done to some out of a thousand requests; to the rest an answer at once.
local misbehaviours = {
	{ 30, function (self, backend, stanza) -- late, so out of order
		self:after(random() * 0.5, function () answer(backend, stanza); end);
	end };
	{ 1, function () end }; -- never
	{ 2, function (self, backend, stanza) -- too late
		self:after(1.2, function () answer(backend, stanza); end);
	end };
	{ 20, function (_, backend, stanza) -- twice
		answer(backend, stanza);
		answer(backend, stanza);
	end };
	{ 10, function (_, backend, stanza)
		answer(backend, stanza, { id = "q"..random(1000000) });
		answer(backend, stanza);
	end };
	{ 10, function (_, backend, stanza) -- with a token changed in one place
		local to = stanza.attr.from;
		local position = #to - random(0, 40);
		answer(backend, stanza, { to = to:sub(1, position - 1)..(to:byte(position) == 65 and "B" or "A")..to:sub(position + 1) });
		answer(backend, stanza);
	end };
	{ 10, function (_, backend, stanza) -- from another address, or to the proxy itself
		answer(backend, stanza, { to = "other@"..stanza.attr.from:match("[^@]+$") });
		answer(backend, stanza, { to = "proxy.domain.example" });
		answer(backend, stanza);
	end };
	{ 20, function (_, backend, stanza)
		answer(backend, stanza, { type = "error" });
	end };
};

function chaos:on_request(backend, stanza)
	local dice = random(1000);
	for _, misbehaviour in ipairs(misbehaviours) do
		dice = dice - misbehaviour[1];
		if dice <= 0 then
			return misbehaviour[2](self, backend, stanza);
		end
	end
	answer(backend, stanza);
end

function chaos:on_backend_stanza(backend, stanza)
	if stanza.name == "r" then
		send_if_open(backend.connection, st.stanza("a", { xmlns = "urn:xmpp:sm:3", h = tostring(backend.handled) }));
	elseif stanza.name == "iq" or stanza.name == "presence" or stanza.name == "message" then
		backend.handled = backend.handled + 1;
		if stanza:get_child("query", "urn:example:chaos") then
			self:on_request(backend, stanza);
		elseif stanza.attr.type == "get" then
			send_if_open(backend.connection, st.reply(stanza));
		elseif stanza.attr.type == "subscribe" then
			send_if_open(backend.connection, st.presence({ to = service.proxy, type = "subscribed" }));
		end
	end
end

function chaos:join(resource)
	local backend = { handled = 0 };
	local connection = xmpp.client(self.server, "some-user", "some-domain.example", resource);
	connection:enable_resumption();
	connection:send(st.presence());
	backend.connection = connection;
	self.backends[resource] = backend;
end

local ways_to_go = {
	function (connection) -- in an orderly way, with all that is under way unanswered
		send_if_open(connection, st.presence({ type = "unavailable" }));
		send_if_open(connection, "</stream:stream>");
		connection:cut();
	end;
	function (connection)
		send_if_open(connection, "</stream:stream>");
		connection:cut();
	end;
	function (connection, self, backend, resource) -- hibernates, and perhaps comes back
		connection:cut();
		if random(3) > 1 then
			self:after(random(), function ()
				if self.backends[resource] ~= nil then
					return; -- another has come in its place
				end
				local ok, resumed = pcall(xmpp.resume, self.server, connection, backend.handled);
				if ok then
					backend.connection = resumed;
					self.backends[resource] = backend;
				end
			end);
		end
	end;
};

function chaos:leave(resource)
	local backend = self.backends[resource];
	local connection = backend.connection;
	backend.connection = nil;
	self.backends[resource] = nil;
	ways_to_go[random(#ways_to_go)](connection, self, backend, resource);
end

--
-- The course of events
--

function chaos:something_happens()
	local resource = RESOURCES[random(#RESOURCES)];
	if not self.backends[resource] then
		self:join(resource);
	elseif random(3) == 1 then
		self:leave(resource);
	end
	if random(20) == 1 then
		self:reconnect_requester(random(REQUESTERS));
	end
	self:after(0.1, function () self:something_happens(); end);
end

function chaos:reload()
	if self.finish_reload then
		self.finish_reload();
	end
	self.finish_reload = self.server:start_ctl("shell", "module", "reload", "client_proxy", "proxy.domain.example");
	self:after(2, function () self:reload(); end);
end

function chaos:run_later()
	local due = {};
	for position = #self.later, 1, -1 do
		if self.later[position].at <= now() then
			table.insert(due, table.remove(self.later, position).call);
		end
	end
	for _, call in ipairs(due) do
		call();
	end
end

local function handle_received(connection, handle)
	while connection.received[1] do
		handle(table.remove(connection.received, 1));
	end
end

-- One turn: whatever has come is handled, whatever is due happens.
function chaos:step()
	local sockets, party_of = {}, {};
	for _, parties in ipairs { self.requesters, self.backends } do
		for _, party in pairs(parties) do
			table.insert(sockets, party.connection.socket);
			party_of[party.connection.socket] = party;
		end
	end
	for _, readable in ipairs((socket.select(sockets, nil, 0.02))) do
		party_of[readable].connection:read(now());
	end
	for _, requester in pairs(self.requesters) do
		handle_received(requester.connection, function (stanza) self:on_answer(requester, stanza); end);
	end
	for resource, backend in pairs(self.backends) do
		handle_received(backend.connection, function (stanza) self:on_backend_stanza(backend, stanza); end);
		if backend.connection.closed then
			backend.connection:cut();
			backend.connection = nil;
			self.backends[resource] = nil;
		end
	end
	self:run_later();
end

-- (goes_on, progress) -> ledger
-- goes_on(ledger): whether there are to be more requests; progress(ledger): called each second
function chaos:run(goes_on, progress)
	for _, resource in ipairs(RESOURCES) do
		self:join(resource);
	end
	self.sending = true;
	for slot = 1, REQUESTERS do
		self:connect_requester(slot);
	end
	self:something_happens();
	if self.options.reload then
		self:reload();
	end
	local next_progress = now();
	while goes_on(self.ledger) do
		self:step();
		if progress and now() >= next_progress then
			progress(self.ledger);
			next_progress = now() + 1;
		end
	end
	self.sending = false;
	local last = now() + GRACE;
	while self.ledger.open > 0 and now() < last do
		self:step();
	end
	self.ledger.lost = self.ledger.open;
	for _, parties in ipairs { self.requesters, self.backends } do
		for _, party in pairs(parties) do
			party.connection:close();
		end
	end
	if self.finish_reload then
		self.finish_reload();
	end
	return self.ledger;
end

-- (ledger) -> one line
function chaos.describe(ledger)
	return ("%d requests, %d answers (%d errors), %d abandoned; %d lost, %d doubled, %d misdelivered, %d from a wrong address"):format(
		ledger.requests, ledger.answers, ledger.errors, ledger.abandoned,
		ledger.lost, ledger.doubled, ledger.misdelivered, ledger.wrong_address);
end

return chaos;
