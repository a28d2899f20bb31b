-- The sessions of the targets that play backends: they come, answer well or badly, hang, leave
-- without a word, and come back. What is true of each is written down here, for the ledger.

local service = require "spec.support.service";
local socket = require "socket";
local st = require "util.stanza";
local text = require "spec.support.chaos.text";
local xmpp = require "spec.support.xmpp";

local now, random = socket.gettime, math.random;

local NS = "urn:example:chaos";
local BLOCKING_NS = "urn:xmpp:blocking";
local NEVER = -math.huge;
local MOST_HUNG = 2; -- at the same time

local backends = {};
backends.__index = backends;

-- (chaos, target, slots, flighty) -> the backends of that target: as many that stay for long, and as many that do not
function backends.new(chaos, target, slots, flighty)
	return setmetatable({
		chaos = chaos, target = target, user = target:match("^[^@]+"), slots = slots, flighty = flighty;
		online = {}; -- by resource
	}, backends);
end

-- Prosody closes the stream of a session that resumes after its connection was cut
-- in the middle of a stanza: its parser still has the stanza's first half.
local function send_if_open(connection, data)
	if not pcall(connection.send, connection, data) then
		connection.closed = true;
	end
end

--
-- Answers
--

local function answer(backend, stanza, changed)
	changed = changed or {};
	if not backend.is_online or backend.connection.closed then
		return; -- it has gone meanwhile
	end
	local reply = st.stanza("iq", { type = changed.type or "result", id = changed.id or stanza.attr.id, to = changed.to or stanza.attr.from });
	local query = stanza.tags[1];
	reply:tag("query", { xmlns = NS, who = query.attr.who, what = query.attr.what, ask = query.attr.ask }):up();
	if changed.type then
		reply:tag("error", { type = "cancel" }):tag("item-not-found", { xmlns = "urn:ietf:params:xml:ns:xmpp-stanzas" });
	end
	send_if_open(backend.connection, reply);
end

-- Each is done to some out of a thousand requests; to the rest an answer at once.
local misbehaviours = {
	{ 20, function (_, backend, stanza) -- twice
		answer(backend, stanza);
		answer(backend, stanza);
	end };
	{ 10, function (_, backend, stanza)
		answer(backend, stanza, { id = "unknown"..random(1000000) });
		answer(backend, stanza);
	end };
	{ 10, function (_, backend, stanza) -- with a token changed in one place
		local to = stanza.attr.from;
		local position = #to - random(0, math.min(40, #to - 20));
		if to:byte(position) < 128 then
			answer(backend, stanza, { to = to:sub(1, position - 1)..(to:byte(position) == 65 and "B" or "A")..to:sub(position + 1) });
		end
		answer(backend, stanza);
	end };
	{ 10, function (_, backend, stanza) -- from another address, or to the proxy itself
		answer(backend, stanza, { to = "other@"..service.proxy..stanza.attr.from:match("/.*") });
		answer(backend, stanza, { to = service.proxy });
		answer(backend, stanza);
	end };
	{ 20, function (_, backend, stanza)
		answer(backend, stanza, { type = "error" });
	end };
};

-- Likewise, but of those only that are not sound
local delays = {
	{ 60, function (chaos, backend, stanza) -- late, so out of order
		chaos:after(random() * 0.5, function () answer(backend, stanza); end);
	end };
	{ 2, function () end }; -- never
	{ 4, function (chaos, backend, stanza) -- too late
		chaos:after(2.2, function () answer(backend, stanza); end);
	end };
};

local function pick(list)
	local dice = random(1000);
	for _, entry in ipairs(list) do
		dice = dice - entry[1];
		if dice <= 0 then
			return entry[2];
		end
	end
end

function backends:on_request(backend, stanza)
	self.chaos.ledger:arrived(backend, stanza.tags[1], stanza.attr.from, now());
	if backend.hung or not backend.is_online then
		return;
	end
	local misbehave = not backend.is_sound and pick(delays) or pick(misbehaviours) or answer;
	if misbehave == answer then
		answer(backend, stanza);
	else
		misbehave(self.chaos, backend, stanza);
	end
end

local function answer_ping(backend, stanza)
	local hung = backend.hung;
	if hung and hung.is_deaf or not backend.is_online then
		backend.unanswered_ping = stanza;
	elseif backend.knows_no_ping then
		send_if_open(backend.connection, st.error_reply(stanza, "cancel", "service-unavailable"));
	else
		send_if_open(backend.connection, st.reply(stanza));
	end
end

function backends:on_iq(backend, stanza)
	if stanza:get_child("query", NS) then
		self:on_request(backend, stanza);
	elseif stanza.attr.type == "get" then
		answer_ping(backend, stanza);
	elseif backend.on_result and backend.on_result.id == stanza.attr.id then
		local call = backend.on_result.call;
		backend.on_result = nil;
		call(stanza.attr.type == "result");
	end
end

function backends:on_stanza(backend, stanza)
	if stanza.name == "r" then
		if backend.is_online and not (backend.hung and backend.hung.is_deaf) then
			send_if_open(backend.connection, st.stanza("a", { xmlns = "urn:xmpp:sm:3", h = tostring(backend.handled) }));
		end
	elseif stanza.name == "iq" then
		backend.handled = backend.handled + 1;
		self:on_iq(backend, stanza);
	elseif stanza.name == "presence" or stanza.name == "message" then
		backend.handled = backend.handled + 1;
		if stanza.attr.type == "subscribe" then
			send_if_open(backend.connection, st.presence({ to = service.proxy, type = "subscribed" }));
		end
	end
end

-- (iq, on_end) -> whether one could be asked: one of them sends it; on_end(whether it has succeeded)
function backends:ask_server(iq, on_end)
	for _, backend in pairs(self.online) do
		if backend.is_online and not backend.hung and not backend.on_result then
			backend.on_result = { id = iq.attr.id, call = on_end };
			send_if_open(backend.connection, iq);
			return true;
		end
	end
end

-- XEP-0191. on_end(whether it has succeeded), if it has returned true
function backends:block(jids, on_end)
	local iq = st.iq({ type = "set", id = text.unique("block") }):tag("block", { xmlns = BLOCKING_NS });
	for _, jid in ipairs(jids) do
		iq:tag("item", { jid = jid }):up();
	end
	return self:ask_server(iq, on_end);
end

function backends:unblock_all(on_end)
	return self:ask_server(st.iq({ type = "set", id = text.unique("unblock") }):tag("unblock", { xmlns = BLOCKING_NS }), on_end);
end

--
-- How they come, hang and go
--

-- It is there from now on, as far as the component knows.
local function is_there(self, backend, connection)
	backend.connection = connection;
	backend.is_online, backend.online_since = true, now();
	self.online[backend.resource] = backend;
	self.chaos.ledger.backends[backend.jid] = backend;
end

-- It is there no longer, or not for long: nothing is expected of it from now on.
local function is_leaving(self, backend)
	backend.is_online, backend.online_since = false, nil;
	self.chaos.ledger.backends[backend.jid] = nil;
	if backend.on_result then
		backend.on_result.call(false);
		backend.on_result = nil;
	end
end

local function forget(self, backend)
	if backend.is_online then
		is_leaving(self, backend);
	end
	if self.online[backend.resource] == backend then
		self.online[backend.resource] = nil;
	end
end

local function lifetime(is_long)
	return is_long and 15 + random() * 20 or 0.2 + random() * 0.6;
end

-- (resource): which one, any if nil
function backends:join(resource)
	resource = resource or text.resource();
	if self.online[resource] then
		return;
	end
	local is_long = self:count_long() < self.slots;
	local backend = {
		jid = self.target.."/"..resource, resource = resource, target = self.target, handled = 0;
		is_sound = random(3) > 1; -- answers each request at once
		knows_no_ping = random(8) == 1;
		is_long = is_long;
		may_be_drained = self.chaos.operator.draining == resource; -- from when the operator wants it to be
		last_timeout = NEVER, last_hung = NEVER, resumed_at = NEVER;
	};
	local connection = xmpp.client(self.chaos.server, self.user, "some-domain.example", resource);
	connection:enable_resumption();
	connection:send(st.presence());
	backend.connection = connection; -- for what comes meanwhile
	connection:sync();
	backend.leaves_at = now() + lifetime(is_long);
	if is_long and random(self.chaos.is_brisk and 8 or 2) == 1 then
		backend.hangs_at = now() + random() * 5;
	end
	is_there(self, backend, connection);
	return backend;
end

local function go_in_good_order(_, backend) -- with all that is under way unanswered
	send_if_open(backend.connection, st.presence({ type = "unavailable" }));
	send_if_open(backend.connection, "</stream:stream>");
	backend.connection:cut();
end

local function close_stream(_, backend)
	send_if_open(backend.connection, "</stream:stream>");
	backend.connection:cut();
end

function backends:resume(backend)
	if self.online[backend.resource] then
		return; -- another has come in its place
	end
	local old = backend.connection;
	local ok, connection = pcall(xmpp.resume, self.chaos.server, old, backend.handled);
	if ok then
		connection.resumption = old.resumption;
		backend.resumed_at = now();
		backend.leaves_at = now() + lifetime(backend.is_long and random(2) == 1);
		is_there(self, backend, connection);
	end
end

-- The session goes on without a connection, until it is resumed, another takes its place, or its time is over.
local function hibernate(self, backend)
	backend.connection:cut();
	local dice = random(4);
	if dice == 1 then
		self.chaos:after(random(), function () self:resume(backend); end);
	elseif dice == 2 then
		self.chaos:after(random() * 0.5, function () self:join(backend.resource); end);
	end
end

-- Another session takes the place of one that is still thought to be alive, while hardly anything
-- else is under way: what it had goes to backends that have nothing.
local function replace_in_a_lull(self, backend)
	self.chaos.requesters:rest(0.15);
	self.chaos:after(0.1, function ()
		if self.online[backend.resource] == backend then
			forget(self, backend);
			backend.connection:cut();
			self:join(backend.resource);
		end
	end);
end

-- What is sent until somebody sees that the connection is dead waits in the session.
local function die(self, backend)
	self.online[backend.resource] = backend;
	self.chaos:after(0.1 + random() * 0.4, function ()
		if self.online[backend.resource] ~= backend then
			return;
		elseif random(2) == 1 then
			return replace_in_a_lull(self, backend);
		end
		forget(self, backend);
		hibernate(self, backend);
	end);
end

local ways_to_go = { go_in_good_order, close_stream, hibernate, die, die };

function backends:leave(backend)
	forget(self, backend);
	backend.hung = nil;
	local way = backend.is_long and ways_to_go[random(#ways_to_go)] or die;
	way(self, backend);
end

-- How many are to stay for long
function backends:count_long()
	local count = 0;
	for _, backend in pairs(self.online) do
		count = count + (backend.is_long and 1 or 0);
	end
	return count;
end

function backends:count_hung()
	local count = 0;
	for _, backend in pairs(self.online) do
		count = count + (backend.hung and 1 or 0);
	end
	return count;
end

-- It stays online, and answers no requests, if it is deaf no pings either.
function backends:hang(backend)
	backend.hangs_at = nil;
	if self:count_hung() < MOST_HUNG and not self.chaos.without.hangs then
		local duration = 10 + random() * 10;
		backend.hung = { since = now(), is_deaf = random(4) > 1, ends_at = now() + duration };
		backend.leaves_at = backend.hung.ends_at + lifetime(false);
	end
end

local function recover(backend)
	backend.hung = nil;
	backend.last_hung = now();
	if backend.unanswered_ping and random(2) == 1 then
		answer_ping(backend, backend.unanswered_ping);
	end
end

-- -> one that is online at random | nil
function backends:any(is_wanted)
	local list = {};
	for _, backend in pairs(self.online) do
		if backend.is_online and (not is_wanted or is_wanted(backend)) then
			table.insert(list, backend);
		end
	end
	table.sort(list, function (a, b) return a.resource < b.resource; end); -- so that chance alone decides
	return list[1] and list[random(#list)];
end

local function copy_of(online)
	local list = {};
	for _, backend in pairs(online) do
		table.insert(list, backend);
	end
	table.sort(list, function (a, b) return a.resource < b.resource; end);
	return list;
end

-- to be called ten times a second
function backends:something_happens()
	local time, list = now(), copy_of(self.online);
	if #list < self.slots + self.flighty then
		self:join();
	end
	for _, backend in ipairs(list) do
		if not backend.is_online then -- it is about to go
			goto continue;
		elseif backend.hung and time > backend.hung.ends_at then
			recover(backend);
		elseif backend.hangs_at and time > backend.hangs_at then
			self:hang(backend);
		elseif time > backend.leaves_at then
			self:leave(backend);
		end
		::continue::
	end
end

-- to be called in each turn, when what has come has been read
function backends:step()
	for _, backend in ipairs(copy_of(self.online)) do
		local received = backend.connection.received;
		while received[1] do
			self:on_stanza(backend, table.remove(received, 1));
		end
		if backend.connection.closed then
			backend.was_closed_by_server = true;
			forget(self, backend);
			backend.connection:cut();
		end
	end
end

-- to be called at the end, when nothing is under way any more
function backends:close()
	for _, backend in ipairs(copy_of(self.online)) do
		forget(self, backend);
		backend.connection:close();
	end
end

return backends;
