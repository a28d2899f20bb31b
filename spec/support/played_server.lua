-- The server of a domain, played by the spec itself over streams with a Prosody: it says whatever
-- one likes, in the name of any address of its domain. As there is one thread, the server gets its
-- turn only while a spec pumps it, which everything here does that waits.

local later = require "spec.support.later";
local played_stream = require "spec.support.played_stream";
local service = require "spec.support.service";
local socket = require "socket";
local st = require "util.stanza";
local xmpp = require "spec.support.xmpp";

local now = socket.gettime;

local TIMEOUT = 10; -- seconds, for what a spec expects to happen
local LONGEST_TURN = 0.05; -- seconds

-- What a spec may set, or look at:
--   streams     those that are open, or about to be, in the order of their beginnings: see played_stream.lua
--   accepted    how many streams the other server has begun to open
--   received    all stanzas that have come and that nobody has taken: { stanza, stream }
--   on_stanza(stanza, stream): called for each that comes, as are the played accounts' ones, by bare JID
--   on_key(stream): what is done when the other server wants to be authenticated on a stream of its own; it is at once, if nil
--   answers_pings   whether it answers what it is asked itself
--   offers_bidi whether streams of the other server may be used both ways (XEP-0288)
--   is_mute     whether nobody answers what connects anew: the system alone does
local played_server = {};
played_server.__index = played_server;

-- (options) -> played_server, which can be connected to
-- options: domain
--          port, that it listens on
--          peer_port, of the other server for streams
--          peer, the host there that it sends to, the proxy if nil
function played_server.new(options)
	local self = setmetatable({
		domain = options.domain, port = options.port, peer_port = options.peer_port, peer = options.peer or service.proxy;
		streams = {}, accepted = 0, received = {}, accounts = {}, later = later.new(), syncs = {}, sync_count = 0;
		is_mute = false, offers_bidi = false, answers_pings = true, on_stanza = function () end;
	}, played_server);
	self:listen();
	return self;
end

-- From now on, it can be connected to.
function played_server:listen()
	self.listener = assert(socket.bind("127.0.0.1", self.port));
end

-- From now on, whoever connects is refused.
function played_server:refuse()
	self.listener:close();
	self.listener = nil;
end

-- From now on, streams of the other server wait to be authenticated. -> a list of them, and the function that authenticates
-- them, and whatever comes after that at once
function played_server:let_keys_wait()
	local waiting = {};
	function self.on_key(stream)
		table.insert(waiting, stream);
	end
	return waiting, function ()
		self.on_key = nil;
		for _, stream in ipairs(waiting) do
			stream:authenticate();
		end
	end;
end

-- To be called at the end
function played_server:remove()
	for _, stream in ipairs(self.streams) do
		stream:cut();
	end
	if self.listener then
		self:refuse();
	end
end

-- Calls it when so many seconds have passed.
function played_server:after(seconds, call)
	self.later:after(seconds, call);
end

--
-- Its turns
--

local function accept(self)
	self.accepted = self.accepted + 1;
	table.insert(self.streams, played_stream.accept(self, self.listener:accept()));
end

local function forget_closed_streams(self)
	for position = #self.streams, 1, -1 do
		if self.streams[position].is_closed then
			table.remove(self.streams, position);
		end
	end
end

-- -> by the sockets that it waits for: what is to be called when one can be read from
function played_server:readers()
	forget_closed_streams(self);
	local readers = {};
	if self.listener and not self.is_mute then
		readers[self.listener] = function () accept(self); end;
	end
	for _, stream in ipairs(self.streams) do
		if not stream.is_hung then
			readers[stream.connection.socket] = function () stream:read(); end;
		end
	end
	return readers;
end

-- (seconds, connection): waits so long at most for what comes, be it for the connection of a client, and handles it
function played_server:turn(seconds, connection)
	local readers, sockets = self:readers(), {};
	if connection and not connection.closed then
		readers[connection.socket] = function () connection:read(0); end;
	end
	for one in pairs(readers) do
		table.insert(sockets, one);
	end
	for _, one in ipairs((socket.select(sockets, nil, seconds))) do
		readers[one]();
	end
	self.later:run();
end

-- (is_done, timeout, connection) -> what is_done() has returned: goes on until that is true, and errors if it
-- takes longer than `timeout` seconds. What comes for the connection of a client meanwhile is read, too.
function played_server:pump(is_done, timeout, connection)
	local deadline = now() + (timeout or TIMEOUT);
	repeat
		local result = is_done();
		if result then
			return result;
		end
		self:turn(LONGEST_TURN, connection);
	until now() >= deadline;
	return is_done() or error("what was awaited has not happened in time", 2);
end

-- Goes on for so many seconds.
function played_server:pump_for(seconds, connection)
	local deadline = now() + seconds;
	self:pump(function () return now() >= deadline; end, seconds + 1, connection);
end

--
-- Its streams
--

-- (peer) -> stream to that host of the other server, to `self.peer` if nil, as soon as it can be used
function played_server:open(peer)
	local stream = self:begin_to_open(peer);
	self:pump(function () return stream.is_authenticated; end);
	return stream;
end

-- Likewise, without waiting until it can be used
function played_server:begin_to_open(peer)
	local stream = played_stream.open(self, self.peer_port, peer or self.peer);
	table.insert(self.streams, stream);
	return stream;
end

-- (is_ours) -> a list of the streams that can be used: those that it sends by, or those that it is sent something by
function played_server:open_streams(is_ours)
	local list = {};
	for _, stream in ipairs(self.streams) do
		if (stream.is_ours == is_ours or stream.is_bidirectional) and stream.is_authenticated and not stream.is_closed then
			table.insert(list, stream);
		end
	end
	return list;
end

-- -> the stream of `self.peer` to here, as soon as it can be used
function played_server:await_their_stream(timeout)
	return self:pump(function ()
		for _, stream in ipairs(self:open_streams(false)) do
			if stream.peer == self.peer then
				return stream;
			end
		end
	end, timeout);
end

-- -> what it sends by when nobody says anything else: the first of those streams that can be used, or a new one
function played_server:usual_stream()
	for _, stream in ipairs(self:open_streams(true)) do
		if stream.peer == self.peer and not stream.is_hung then
			return stream;
		end
	end
	return self:open();
end

-- Cuts all streams, without a word.
function played_server:cut()
	for _, stream in ipairs(self.streams) do
		stream:cut();
	end
end

-- It is as if its process were stopped: who connects is kept waiting, nothing is read.
function played_server:hang()
	self.is_mute = true;
	for _, stream in ipairs(self.streams) do
		stream.is_hung = true;
	end
end

-- It goes on after that.
function played_server:go_on()
	self.is_mute = false;
	for _, stream in ipairs(self.streams) do
		stream.is_hung = false;
	end
end

--
-- What it says, and is told
--

-- (stanza, stream): sends it by that stream, or the usual one
function played_server:send(stanza, stream)
	(stream or self:usual_stream()):send(stanza);
end

-- An IQ for the server itself, a ping say (XEP-0199)
local function on_own_iq(self, stanza)
	if self.answers_pings and stanza.name == "iq" and (stanza.attr.type == "get" or stanza.attr.type == "set") then
		self:send(st.reply(stanza));
	end
end

-- for played_stream.lua: a stanza has come
function played_server:on_received(stanza, stream)
	if self.syncs[stanza.attr.id or ""] then
		self.syncs[stanza.attr.id] = nil;
		return;
	end
	table.insert(self.received, { stanza = stanza, stream = stream });
	self.on_stanza(stanza, stream);
	if stanza.attr.to == self.domain then
		on_own_iq(self, stanza);
	end
	local account = self.accounts[(stanza.attr.to or ""):match("^[^/]*")];
	if account then
		account:on_stanza(stanza, stream);
	end
end

local function take(self, wanted)
	while self.received[1] do
		local entry = table.remove(self.received, 1);
		if not wanted or wanted(entry.stanza) then
			return entry;
		end
	end
end

-- (wanted, timeout) -> stanza, stream: the next for which `wanted` is true; those before it are gone. Errors if none comes.
function played_server:receive(wanted, timeout)
	local entry = self:pump(function () return take(self, wanted); end, timeout);
	return entry.stanza, entry.stream;
end

-- (wanted) -> how many of the stanzas that have come are of this kind; they stay there
function played_server:count(wanted)
	local count = 0;
	for _, entry in ipairs(self.received) do
		count = count + (wanted(entry.stanza) and 1 or 0);
	end
	return count;
end

-- What connection:receive does, while this server goes on
function played_server:receive_at(connection, wanted, timeout)
	return self:pump(function () return connection:take(wanted); end, timeout, connection);
end

-- What connection:request does, while this server goes on
function played_server:request_at(connection, iq, timeout)
	connection:send(iq);
	return self:receive_at(connection, xmpp.is_answer_to(iq), timeout);
end

-- Whatever was sent before has been dealt with by the host it was for, which has mod_ping; and what that host
-- has said because of something that happened before has come here.
-- timeout: as of pump()
function played_server:sync(timeout)
	self:usual_stream(); -- so that there is one
	for _, stream in ipairs(self:open_streams(true)) do
		if not stream.is_hung then
			self.sync_count = self.sync_count + 1;
			local id = "sync-"..self.sync_count;
			self.syncs[id] = true;
			stream:send(st.iq({ type = "get", id = id, from = self.domain, to = stream.peer })
				:tag("ping", { xmlns = "urn:xmpp:ping" }));
		end
	end
	self:pump(function () return not next(self.syncs); end, timeout);
end

return played_server;
