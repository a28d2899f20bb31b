-- A small XMPP client and external component, over blocking sockets: a spec
-- speaks for every party in turn, in the order it writes down.

local socket = require "socket";
local base64 = require "util.encodings".base64;
local new_stream = require "util.xmppstream".new;
local st = require "util.stanza";
local sha1 = require "util.hashes".sha1;

local TIMEOUT = 30; -- seconds, for what a spec expects to come: a third stream between two servers may be needed for it

-- bytes, more than any server lets through; util.xmppstream's own limit is lower in some versions
local STANZA_SIZE_LIMIT = 1024 * 1024;

local xmpp = {};

local connection = {};
connection.__index = connection;

local callbacks = {
	stream_ns = "http://etherx.jabber.org/streams";
	streamopened = function (session, attr)
		session.notopen = nil;
		session.connection.stream_id, session.connection.header = attr.id, attr;
	end;
	streamclosed = function (session)
		session.connection.closed = true;
	end;
	handlestanza = function (session, stanza)
		table.insert(session.connection.received, stanza);
	end;
	error = function (session, reason, text)
		session.connection.stream_error = tostring(reason).." "..tostring(text);
	end;
};

-- (tcp, default_ns) -> connection, over a connected socket, on which the other side may open a stream
function xmpp.over(tcp, default_ns)
	local self = setmetatable({ received = {}, unread = "", default_ns = default_ns }, connection);
	self.socket = tcp;
	self.socket:setoption("tcp-nodelay", true);
	-- the session is one of its own because util.xmppstream puts functions into it
	self.session = { connection = self, notopen = true };
	self.stream = new_stream(self.session, setmetatable({ default_ns = default_ns }, { __index = callbacks }), STANZA_SIZE_LIMIT);
	return self;
end

-- (port, default_ns) -> connection to that port
function xmpp.open(port, default_ns)
	return xmpp.over(assert(socket.connect("127.0.0.1", port)), default_ns);
end

function connection:send(data)
	self.socket:settimeout(TIMEOUT);
	local sent, failure = self.socket:send(tostring(data));
	if not sent then
		error(("cannot send, %s%s"):format(failure, self.stream_error and ": "..self.stream_error or ""), 2);
	end
end

-- Sends a stanza of several kilobytes. Expat in the server (see read, below) would
-- wait for more if it came in two parts; white space is harmless between stanzas.
function connection:send_large(stanza)
	self:send(tostring(stanza)..(" "):rep(65536));
end

-- (attributes) sends a stream's header: what is in each, and these
function connection:send_header(attributes)
	attributes.xmlns, attributes["xmlns:stream"], attributes.version = self.default_ns, "http://etherx.jabber.org/streams", "1.0";
	self:send("<?xml version='1.0'?>"..st.stanza("stream:stream", attributes):top_tag());
end

-- (attributes): opens a stream, or another one after the first
function connection:open_stream(attributes)
	self.stream:reset();
	self.session.notopen = true;
	self.stream_id, self.header = nil, nil;
	self:send_header(attributes);
end

-- Reads what has come, waiting until `deadline` (on socket.gettime's clock) for the first of it
-- piece: about how many bytes at most, 65536 if nil
function connection:read(deadline, piece)
	self.socket:settimeout(math.max(0, deadline - socket.gettime()));
	local data, failure, partial = self.socket:receive(1);
	self.socket:settimeout(0);
	local more, _, rest = self.socket:receive(piece or 65536);
	data = (data or partial or "")..(more or rest or "");
	if data == "" and failure == "closed" then
		self.closed = true;
	end
	-- Since 2.6 and its backports, Expat does not look at the beginning of a tag again
	-- before twice as much has come. So it is given whole tags only.
	self.unread = self.unread..data;
	if self.unread:sub(-1) == ">" then
		assert(self.stream:feed(self.unread));
		self.unread = "";
	end
	return data ~= "";
end

-- Of what has come, the next stanza for which `wanted` is true, or nil; those before it are gone.
function connection:take(wanted)
	while self.received[1] do
		local stanza = table.remove(self.received, 1);
		if not wanted or wanted(stanza) then
			return stanza;
		end
	end
end

-- Likewise, waiting for it. Errors if none comes.
function connection:receive(wanted, timeout)
	local deadline = socket.gettime() + (timeout or TIMEOUT);
	repeat
		local stanza = self:take(wanted);
		if stanza then
			return stanza;
		end
	until self.closed or not self:read(deadline);
	error(("nothing came%s%s"):format(self.closed and ", the stream is closed" or " in time",
		self.stream_error and ": "..self.stream_error or ""), 2);
end

function xmpp.is_iq(stanza)
	return stanza.name == "iq";
end

function xmpp.is_ping(stanza)
	return stanza:get_child("ping", "urn:xmpp:ping") ~= nil;
end

-- (iq) -> a function that says whether a stanza is the answer to it
function xmpp.is_answer_to(iq)
	return function (stanza)
		return stanza.name == "iq" and stanza.attr.id == iq.attr.id
			and (stanza.attr.type == "result" or stanza.attr.type == "error");
	end;
end

function xmpp.is_message(stanza)
	return stanza.name == "message";
end

function xmpp.presence_from(jid, type)
	return function (stanza)
		return stanza.name == "presence" and stanza.attr.from == jid and stanza.attr.type == type;
	end;
end

-- An IQ round trip with a local host of the server. When it returns, whatever the server
-- had sent to this connection because of earlier events has come: it is in `received`,
-- and returned.
function connection:sync(timeout)
	self.sync_count = (self.sync_count or 0) + 1;
	local id = "sync-"..self.sync_count;
	local kept = {};
	self:send(st.iq({ type = "get", id = id, to = self.host, from = self.from }):tag("ping", { xmlns = "urn:xmpp:ping" }));
	self:receive(function (stanza)
		local is_answer = stanza.attr.id == id and stanza.attr.from == self.host;
		if not is_answer then
			table.insert(kept, stanza);
		end
		return is_answer;
	end, timeout);
	self.received = table.move(self.received, 1, #self.received, #kept + 1, kept);
	return kept;
end

-- An IQ request and its answer
function connection:request(iq)
	self:send(iq);
	return self:receive(xmpp.is_answer_to(iq));
end

function connection:close()
	self.socket:settimeout(TIMEOUT);
	-- the server may have closed it already, which nobody has read yet
	if not self.closed and self.socket:send("</stream:stream>") then
		while not self.closed and self:read(socket.gettime() + TIMEOUT) do end
	end
	self:cut();
end

-- The connection is cut, with no word to the server
function connection:cut()
	self.socket:close();
	self.prosody.connections[self] = nil;
end

-- Lua closes a socket that nothing refers to. A spec may need no more of a client than
-- that it is online, so the server that it is at refers to it until it is closed.
local function keep(prosody, self)
	self.prosody = prosody;
	prosody.connections[self] = true;
	return self;
end

local function logged_in(prosody, user, host)
	local self = xmpp.open(prosody.c2s_port, "jabber:client");
	self.host = host;
	self:open_stream({ to = host });
	self:receive();
	self:send(st.stanza("auth", { xmlns = "urn:ietf:params:xml:ns:xmpp-sasl", mechanism = user and "PLAIN" or "ANONYMOUS" })
		:text(user and base64.encode("\0"..user.."\0"..user) or "="));
	assert(self:receive().name == "success", ("no login for %s at %s"):format(user or "anybody", host));
	self:open_stream({ to = host });
	self:receive();
	return self;
end

-- (prosody, user, host, resource) -> connection, bound to that full JID; the password is the name
-- user: nil where the host has anonymous users, and then the host makes up one
function xmpp.client(prosody, user, host, resource)
	local self = logged_in(prosody, user, host);
	local bound = self:request(st.iq({ type = "set", id = "bind" })
		:tag("bind", { xmlns = "urn:ietf:params:xml:ns:xmpp-bind" }):text_tag("resource", resource));
	self.user, self.jid = user, bound:find("{urn:ietf:params:xml:ns:xmpp-bind}bind/jid#");
	self.bare = self.jid:match("^[^/]+");
	return keep(prosody, self);
end

-- XEP-0198: from now on, the server keeps the session when the connection is cut.
function connection:enable_resumption()
	self:send(st.stanza("enable", { xmlns = "urn:xmpp:sm:3", resume = "true" }));
	self.resumption = self:receive(function (stanza) return stanza.name == "enabled"; end).attr.id;
end

-- (prosody, old, handled) -> connection, in the place of the old one that was cut
-- handled: how many stanzas the old one has received since it enabled this
function xmpp.resume(prosody, old, handled)
	local self = logged_in(prosody, old.user, old.host);
	self.user, self.jid = old.user, old.jid;
	self:send(st.stanza("resume", { xmlns = "urn:xmpp:sm:3", previd = old.resumption, h = tostring(handled) }));
	assert(self:receive().name == "resumed", "not resumed");
	return keep(prosody, self);
end

-- (prosody, component, host) -> connection of the external component (XEP-0114), whose secret is
-- its name; host: a local host to sync with
function xmpp.component(prosody, component, host)
	local self = xmpp.open(prosody.component_port, "jabber:component:accept");
	self.host, self.from = host, component;
	self:open_stream({ to = component });
	repeat until self.stream_id or not self:read(socket.gettime() + TIMEOUT);
	self:send(st.stanza("handshake"):text(sha1(self.stream_id..component, true)));
	assert(self:receive().name == "handshake", "no handshake for "..component);
	return keep(prosody, self);
end

-- (prosody, from, to) -> connection of anybody, not authenticated, who says it is the server of that domain
function xmpp.stranger(prosody, from, to)
	local self = xmpp.open(prosody.s2s.port, "jabber:server");
	self:open_stream({ to = to, from = from });
	self:receive();
	return keep(prosody, self);
end

return xmpp;
