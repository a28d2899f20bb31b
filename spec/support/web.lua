-- Clients that come over HTTP, by BOSH (XEP-0206) or by WebSocket (RFC 7395): as much of them as it takes to log in
-- and to send IQs.

local socket = require "socket";
local base64 = require "util.encodings".base64;
local parse_xml = require "util.xml".parse;
local st = require "util.stanza";

local TIMEOUT = 30; -- seconds, for what a spec expects to come

local BIND_NS = "urn:ietf:params:xml:ns:xmpp-bind";
local BOSH_NS = "http://jabber.org/protocol/httpbind";
local FRAMING_NS = "urn:ietf:params:xml:ns:xmpp-framing";

local web = {};

local function connect(server)
	local tcp = assert(socket.connect("127.0.0.1", server.http_port));
	tcp:setoption("tcp-nodelay", true);
	tcp:settimeout(TIMEOUT);
	return tcp;
end

-- (tcp) -> status line, headers, by their names in lower case
local function read_head(tcp)
	local status, headers = assert(tcp:receive()), {};
	for line in function () return assert(tcp:receive()); end do
		if line == "" then
			return status, headers;
		end
		local name, value = line:match("^(.-):%s*(.*)$");
		headers[name:lower()] = value;
	end
end

-- What is common to both: `exchange(stanza)` sends a stanza, and returns what has come, a list
local client = {};

-- (iq) -> its answer
function client:request(iq)
	iq.attr.xmlns = "jabber:client";
	for _, stanza in ipairs(self:exchange(iq)) do
		if stanza.attr.id == iq.attr.id then
			return stanza;
		end
	end
	error("no answer to "..iq.attr.id);
end

local function log_in(self, user, resource)
	local auth = st.stanza("auth", { xmlns = "urn:ietf:params:xml:ns:xmpp-sasl", mechanism = "PLAIN" })
		:text(base64.encode("\0"..user.."\0"..user));
	assert(self:exchange(auth)[1].name == "success", "no login for "..user);
	self:restart();
	local bound = self:request(st.iq({ type = "set", id = "bind" }):tag("bind", { xmlns = BIND_NS }):text_tag("resource", resource));
	self.jid = bound:find("{"..BIND_NS.."}bind/jid#");
end

--
-- BOSH
--

local bosh = setmetatable({}, { __index = client });
bosh.__index = bosh;

-- (attributes, stanza) -> what comes in the answer, which Prosody does not give before there is something
local function post(self, attributes, stanza)
	self.rid = self.rid + 1;
	attributes.rid, attributes.sid, attributes.xmlns = tostring(self.rid), self.sid, BOSH_NS;
	local body = st.stanza("body", attributes);
	body = tostring(stanza and body:add_child(stanza) or body);
	assert(self.tcp:send(("POST /http-bind HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n%s"):format(self.host, #body, body)));
	local status, headers = read_head(self.tcp);
	assert(status:find(" 200 ", 1, true), status);
	return parse_xml((assert(self.tcp:receive(tonumber(headers["content-length"])))));
end

function bosh:exchange(stanza)
	return post(self, {}, stanza).tags;
end

function bosh:restart()
	post(self, { ["xmpp:restart"] = "true", ["xmlns:xmpp"] = "urn:xmpp:xbosh", to = self.host });
end

-- From now on, what it sends comes by that connection to Prosody, a new one if nil. -> the one that it had before
function bosh:use(tcp)
	local before = self.tcp;
	self.tcp = tcp or connect(self.server);
	return before;
end

-- (server, user, host, resource) -> client, bound to that full JID; the password is the name
-- The host's configuration has mod_bosh. The session begins on a connection of its own, and goes on on another one.
function web.bosh(server, user, host, resource)
	local self = setmetatable({ server = server, host = host, rid = 1000, tcp = connect(server) }, bosh);
	self.sid = post(self, { to = host, wait = "60", hold = "1", ver = "1.6", ["xml:lang"] = "en",
		["xmlns:xmpp"] = "urn:xmpp:xbosh", ["xmpp:version"] = "1.0" }).attr.sid;
	self.first = self:use();
	log_in(self, user, resource);
	return self;
end

--
-- WebSocket
--

local websocket = setmetatable({}, { __index = client });
websocket.__index = websocket;

-- A key of zeros leaves what is masked as it is.
local function send_frame(self, text)
	local length = #text < 126 and string.char(0x80 | #text) or #text < 65536 and string.pack(">BI2", 0xfe, #text)
		or string.pack(">BI8", 0xff, #text);
	assert(self.tcp:send("\x81"..length.."\0\0\0\0"..text));
end

local function read_frame(self)
	local length = assert(self.tcp:receive(2)):byte(2);
	if length >= 126 then
		length = string.unpack(length == 126 and ">I2" or ">I8", (assert(self.tcp:receive(length == 126 and 2 or 8))));
	end
	return parse_xml((assert(self.tcp:receive(length))));
end

function websocket:exchange(stanza)
	send_frame(self, tostring(stanza));
	return { read_frame(self) };
end

function websocket:restart()
	self:exchange(st.stanza("open", { xmlns = FRAMING_NS, to = self.host, version = "1.0" }));
	read_frame(self); -- features
end

-- Likewise; the host's configuration has mod_websocket
function web.websocket(server, user, host, resource)
	local self = setmetatable({ host = host, tcp = connect(server) }, websocket);
	assert(self.tcp:send(("GET /xmpp-websocket HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
		.."Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\nSec-WebSocket-Protocol: xmpp\r\n\r\n"):format(
		host, base64.encode(("k"):rep(16)))));
	local status = read_head(self.tcp);
	assert(status:find(" 101 ", 1, true), status);
	self:restart();
	log_in(self, user, resource);
	return self;
end

return web;
