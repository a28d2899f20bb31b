-- A stream between a server that a spec plays and a Prosody, which either of them has opened
-- (RFC 6120 section 4), without encryption. Every dialback key is right (XEP-0220), unless the spec says otherwise.

local xmpp = require "spec.support.xmpp";
local new_id = require "util.id".medium;
local st = require "util.stanza";

local NS = "jabber:server";
local DIALBACK_NS = "jabber:server:dialback";
local STREAMS_NS = "http://etherx.jabber.org/streams";
local BIDI_NS = "urn:xmpp:bidi";

-- { connection, server (the played one),
--   is_ours: whether the played server has opened it, and sends; what the other one has opened is only read from, unless
--   is_bidirectional,
--   peer: the host of the other server's that it is for, is_authenticated, is_closed,
--   piece: how many bytes are read at a time, if not all that have come, which a spec can set,
--   is_hung: whether it is left as it is, which a spec can set, as if the process were stopped }
local stream = {};
stream.__index = stream;

local function new(server, connection, is_ours)
	return setmetatable({ server = server, connection = connection, is_ours = is_ours, is_hung = false }, stream);
end

-- (server, tcp) -> stream that the other server has begun to open
function stream.accept(server, tcp)
	return new(server, xmpp.over(tcp, NS), false);
end

-- (server, port, peer) -> stream that the played server has begun to open
function stream.open(server, port, peer)
	local self = new(server, xmpp.open(port, NS), true);
	self.peer = peer;
	self.connection:open_stream({ from = server.domain, to = peer, ["xmlns:db"] = DIALBACK_NS });
	return self;
end

-- Sends a stanza, or any text.
function stream:send(stanza)
	self.connection:send(stanza);
end

local function answer_header(self)
	local header = self.connection.header;
	self.peer = header.from;
	self.connection:send_header({ id = new_id(), from = self.server.domain, to = self.peer, ["xmlns:db"] = DIALBACK_NS });
	local features = st.stanza("stream:features"):tag("dialback", { xmlns = "urn:xmpp:features:dialback" }):up();
	if self.server.offers_bidi then
		features:tag("bidi", { xmlns = "urn:xmpp:features:bidi" });
	end
	self:send(features);
end

local function send_key(self)
	self:send(st.stanza("db:result", { from = self.server.domain, to = self.peer }):text("key"));
end

-- Authenticates a stream of the other server that had to wait for that, see on_key.
function stream:authenticate()
	self:send(st.stanza("db:result", { from = self.server.domain, to = self.peer, type = "valid" }));
	self.is_authenticated = true;
end

local function on_dialback(self, stanza)
	local attr = stanza.attr;
	if stanza.name == "result" and not attr.type and self.server.on_key then
		return self.server.on_key(self);
	elseif not attr.type then -- a question, be it for the key of this stream or that of another
		self:send(st.stanza("db:"..stanza.name, { from = attr.to, to = attr.from, id = attr.id, type = "valid" }));
	end
	if stanza.name == "result" then
		self.is_authenticated = not attr.type or attr.type == "valid";
	end
end

local function on_received(self, stanza)
	if stanza.attr.xmlns == DIALBACK_NS then
		on_dialback(self, stanza);
	elseif stanza.attr.xmlns == BIDI_NS then
		self.is_bidirectional = true;
	elseif stanza.attr.xmlns == STREAMS_NS then -- its features
		send_key(self);
	else
		self.server:on_received(stanza, self);
	end
end

-- Handles what has come. To be called when there is something to be read.
function stream:read()
	local connection = self.connection;
	connection:read(0, self.piece);
	if connection.header and not self.peer then
		answer_header(self);
	end
	while connection.received[1] do
		on_received(self, table.remove(connection.received, 1));
	end
	if connection.closed then
		self:cut();
	end
end

-- Ends it without a word.
function stream:cut()
	self.is_closed = true;
	self.connection.socket:close();
end

-- Ends it in good order, and waits for the other side.
function stream:close()
	self:send("</stream:stream>");
	self.server:pump(function () return self.is_closed; end);
end

return stream;
