-- For chaos: backends that are clients of the component's own server: they also hang up without a word, and come back.

local backends = require "spec.support.chaos.backends";
local service = require "spec.support.service";
local socket = require "socket";
local st = require "util.stanza";
local text = require "spec.support.chaos.text";
local xmpp = require "spec.support.xmpp";

local now, random = socket.gettime, math.random;

local BLOCKING_NS = "urn:xmpp:blocking";

local clients = backends.class();

-- (chaos, target, slots, flighty): see backends.lua
function clients.new(...)
	return backends.new(clients, ...);
end

--
-- What they say, and are told
--

-- Prosody closes the stream of a session that resumes after its connection was cut
-- in the middle of a stanza: its parser still has the stanza's first half.
local function send_if_open(connection, data)
	if not pcall(connection.send, connection, data) then
		connection.closed = true;
	end
end

function clients:can_answer(backend) -- luacheck: ignore 212/self
	return backend.is_online and not backend.connection.closed;
end

function clients:send(backend, stanza) -- luacheck: ignore 212/self
	send_if_open(backend.connection, stanza);
end

function clients:on_iq(backend, stanza)
	local is_request = stanza.attr.type == "get" or stanza.attr.type == "set";
	if is_request then
		self:on_any_request(backend, stanza);
	elseif backend.on_result and backend.on_result.id == stanza.attr.id then
		local call = backend.on_result.call;
		backend.on_result = nil;
		call(stanza.attr.type == "result");
	elseif (stanza.attr.from or ""):find(service.proxy, 1, true) then
		self.chaos.ledger.backend_requests:settled(backend.writer, stanza, now());
	end
end

function clients:on_stanza(backend, stanza)
	if stanza.name == "r" then
		if backend.is_online and not (backend.hung and backend.hung.is_deaf) then
			table.insert(backend.acknowledged, { number = backend.handled, at = now() });
			self:send(backend, st.stanza("a", { xmlns = "urn:xmpp:sm:3", h = tostring(backend.handled) }));
		end
	elseif stanza.name == "iq" then
		backend.handled = backend.handled + 1;
		self:on_iq(backend, stanza);
	elseif stanza.name == "message" then
		backend.handled = backend.handled + 1;
		self:on_message(backend, stanza);
	elseif stanza.name == "presence" then
		backend.handled = backend.handled + 1;
		if stanza.attr.type == "subscribe" then
			self:send(backend, st.presence({ to = service.proxy, type = "subscribed" }));
		else
			self.chaos.ledger.presence:came(backend.writer, stanza, now());
		end
	end
end

-- (iq, on_end) -> whether one could be asked: one of them sends it; on_end(whether it has succeeded)
function clients:ask_server(iq, on_end)
	for _, backend in pairs(self.online) do
		if backend.is_online and not backend.hung and not backend.on_result then
			backend.on_result = { id = iq.attr.id, call = on_end };
			self:send(backend, iq);
			return true;
		end
	end
end

-- XEP-0191. on_end(whether it has succeeded), if it has returned true
function clients:block(jids, on_end)
	local iq = st.iq({ type = "set", id = text.unique("block") }):tag("block", { xmlns = BLOCKING_NS });
	for _, jid in ipairs(jids) do
		iq:tag("item", { jid = jid }):up();
	end
	return self:ask_server(iq, on_end);
end

function clients:unblock_all(on_end)
	return self:ask_server(st.iq({ type = "set", id = text.unique("unblock") }):tag("unblock", { xmlns = BLOCKING_NS }), on_end);
end

--
-- How they come and go
--

-- (resource): which one, any if nil
function clients:join(resource)
	resource = resource or text.resource();
	if self.online[resource] then
		return;
	end
	local backend = self:new_backend(resource);
	local connection = xmpp.client(self.chaos.server, self.user, "some-domain.example", resource);
	backend.resumes = random(5) > 1;
	if backend.resumes then
		connection:enable_resumption();
	end
	connection:send(st.presence());
	backend.connection = connection; -- for what comes meanwhile
	connection:sync();
	backend.handled = 1; -- the answer to that
	self:is_there(backend);
	return backend;
end

local function hang_up(self, backend)
	self.chaos.ledger.messages:cut(backend.writer, now());
	backend.connection:cut();
end

local function go_in_good_order(self, backend) -- with all that is under way unanswered
	send_if_open(backend.connection, st.presence({ type = "unavailable" }));
	send_if_open(backend.connection, "</stream:stream>");
	hang_up(self, backend);
end

local function close_stream(self, backend)
	send_if_open(backend.connection, "</stream:stream>");
	hang_up(self, backend);
end

function clients:resume(backend)
	if self.online[backend.resource] or not backend.resumes then
		return; -- another has come in its place, or it cannot go on
	end
	local old = backend.connection;
	local ok, connection = pcall(xmpp.resume, self.chaos.server, old, backend.handled);
	if ok then
		connection.resumption = old.resumption;
		table.insert(backend.acknowledged, { number = backend.handled, at = now() });
		backend.connection = connection;
		backend.resumed_at = now();
		backend.leaves_at = now() + backends.lifetime(backend.is_long and random(2) == 1);
		self:is_there(backend);
	end
end

-- It hangs up: its session goes on without a connection, until it is resumed, another takes its place, or it times out.
local function hibernate(self, backend)
	hang_up(self, backend);
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
			self:forget(backend);
			hang_up(self, backend);
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
		self:forget(backend);
		hibernate(self, backend);
	end);
end

local ways_to_go = { go_in_good_order, close_stream, hibernate, die, die };

function clients:leave(backend)
	self:forget(backend);
	backend.hung = nil;
	local way = backend.is_long and ways_to_go[random(#ways_to_go)] or die;
	way(self, backend);
end

-- to be called ten times a second
function clients:nudge()
	for _, backend in pairs(self.online) do
		send_if_open(backend.connection, text.NUDGE);
	end
end

-- -> by their sockets, what is to be called when one can be read from
function clients:readers()
	local readers = {};
	for _, backend in pairs(self.online) do
		readers[backend.connection.socket] = function () backend.connection:read(0); end;
	end
	return readers;
end

-- to be called in each turn, when what has come has been read
function clients:step()
	for _, backend in ipairs(self:all()) do
		local received = backend.connection.received;
		while received[1] do
			self:on_stanza(backend, table.remove(received, 1));
		end
		if backend.connection.closed then
			backend.was_closed_by_server = true;
			self:forget(backend);
			backend.connection:cut();
		end
	end
end

-- to be called at the end, when nothing is under way any more
function clients:close()
	for _, backend in ipairs(self:all()) do
		self:forget(backend);
		backend.connection:close();
	end
end

return clients;
