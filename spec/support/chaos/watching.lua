-- For chaos: watchers, accounts that have subscribed to the service's presence, and what they believe. They stay connected.

local service = require "spec.support.service";
local socket = require "socket";
local st = require "util.stanza";
local text = require "spec.support.chaos.text";
local xmpp = require "spec.support.xmpp";

local now = socket.gettime;

local IS_KNOWN_AFTER = 6; -- seconds: a gap of less than 5 is not told
local ADDRESSES = { service.proxy, "room@"..service.proxy };
local USER = "watcher";

local watching = { account = USER.."@some-domain.example" };
watching.__index = watching;

-- (chaos) -> watching
function watching.new(chaos)
	return setmetatable({
		chaos = chaos, connection = nil, is_settled_at = nil;
		believes = {}; -- by address: "available" or "unavailable"
		is_wrong = {}; -- by address, whether that has been found already
		served_since = nil; -- since when there has been a backend that is ready for sure
		deserted_at = nil; -- when the last one of all has gone
	}, watching);
end

-- to be called when all is as at the beginning
function watching:start()
	if self.chaos.without.presence then
		return;
	end
	self.connection = xmpp.client(self.chaos.server, USER, "some-domain.example", text.unique("w"));
	self.connection:send(st.presence());
	for _, address in ipairs(ADDRESSES) do
		self.connection:send(st.presence({ to = address, type = "subscribe" }));
	end
	-- What it is told until then is in answer to that, and to its server's probe.
	self.connection:sync();
	self.is_settled_at = now() + 1;
end

-- -> by their sockets, what is to be called when one can be read from
function watching:readers()
	local connection = self.connection;
	return connection and { [connection.socket] = function () connection:read(0); end } or {};
end

function watching:hear(from, state)
	if self.believes[from] == state and now() > self.is_settled_at then
		self.chaos.ledger:found("told_twice", "%s that %s is %s", self.connection.jid, from, state);
	end
	self.believes[from] = state;
end

-- to be called in each turn
function watching:step()
	local connection = self.connection;
	for _, stanza in ipairs(connection and connection.received or {}) do
		local type = stanza.attr.type;
		if stanza.name == "presence" and not stanza.attr.from:find("/", 1, true) and (not type or type == "unavailable") then
			self:hear(stanza.attr.from, type or "available");
		end
	end
	if connection then
		connection.received = {};
	end
end

-- What is so for sure, if that has been so for long
function watching:truth(time)
	local ledger = self.chaos.ledger;
	if self.deserted_at then
		return time > self.deserted_at + IS_KNOWN_AFTER and "unavailable" or nil;
	elseif not ledger.target or not ledger:other_ready(nil, time) then
		self.served_since = nil;
		return nil;
	end
	self.served_since = self.served_since or time;
	return time > math.max(self.served_since, ledger.target_since) + IS_KNOWN_AFTER and ledger:not_stalled_since(self.served_since)
		and "available" or nil;
end

-- to be called once a second
function watching:judge()
	local truth = self:truth(now());
	for _, address in ipairs(self.connection and ADDRESSES or {}) do
		local is_wrong = truth ~= nil and self.believes[address] ~= truth;
		if is_wrong and not self.is_wrong[address] then
			self.chaos.ledger:found("watched_wrong", "%s is %s to %s, though it is %s", address, self.believes[address],
				self.connection.jid, truth);
		end
		self.is_wrong[address] = is_wrong;
	end
end

-- to be called when all backends have gone, and none comes back
function watching:are_deserted()
	self.deserted_at = now();
end

-- -> whether they believe that none is there
function watching:know_it()
	for _, address in ipairs(self.connection and ADDRESSES or {}) do
		if self.believes[address] ~= "unavailable" then
			return false;
		end
	end
	return true;
end

function watching:close()
	if self.connection then
		self.connection:close();
	end
end

return watching;
