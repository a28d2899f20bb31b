-- For chaos: the messages that requesters and backends write to each other: to all kinds of addresses, in reply, late, twice,
-- to tokens that are not theirs, to those that are those of nobody.

local requesters = require "spec.support.chaos.requesters";
local service = require "spec.support.service";
local socket = require "socket";
local st = require "util.stanza";
local text = require "spec.support.chaos.text";

local now, random = socket.gettime, math.random;

local MOST_UNDER_WAY = 8; -- messages of one requester, but for the slow ones
local MOST_OPEN = 60; -- likewise, with them; mod_smacks keeps 500 for each session
local HEARD = 8; -- backends whose tokens each requester knows

local TYPES = { "chat", "chat", "chat", "chat", "normal", "normal", "headline" };

local conversations = {};
conversations.__index = conversations;

-- (chaos) -> conversations
function conversations.new(chaos)
	return setmetatable({ chaos = chaos }, conversations);
end

-- (message) -> the stanza, which the ledger knows of
function conversations:new_stanza(message)
	local type = message.type ~= "normal" and message.type or nil;
	local note = self.chaos.ledger.messages:written(message);
	return st.message({ type = type, to = message.address, id = message.id }):add_child(note);
end

-- An error that somebody replies with tells in its text which one it is.
function conversations:new_error(message)
	local note = self.chaos.ledger.messages:written(message);
	return st.message({ type = "error", to = message.address, id = message.id })
		:tag("error", { type = "modify" }):tag("not-acceptable", { xmlns = "urn:ietf:params:xml:ns:xmpp-stanzas" }):up()
			:text_tag("text", ("said by %s %s"):format(note.attr.who, note.attr.what), { xmlns = "urn:ietf:params:xml:ns:xmpp-stanzas" });
end

-- (address) -> the address, changed in one place of its resource
local function alter(address)
	local position = #address - random(0, math.min(10, #address - address:find("/", 1, true) - 1));
	if address:byte(position) >= 128 then
		return address;
	end
	return address:sub(1, position - 1)..(address:byte(position) == 65 and "B" or "A")..address:sub(position + 1);
end

--
-- What requesters write
--

-- Each is done to some out of a hundred messages; the rest are for a service address.
local addresses = {
	{ 25, function (_, requester) return requester.heard[random(HEARD)]; end }; -- of a backend that has written
	{ 5, function (self) return self.chaos.requesters:any().heard[random(HEARD)]; end }; -- or has written to another requester
	{ 3, function (self) return self.chaos.requesters:any().seen_as[service.proxy]; end }; -- a token that is a backend's to use
	{ 2, function (_, requester)
		local heard = requester.heard[random(HEARD)];
		return heard and alter(heard);
	end };
};

-- What comes from somebody who is blocked, mod_blocklist drops where the receiver is online; errors wherever it is.
local function excuse_of(requester)
	return (requester.is_blocked or requester.last_blocked > now() - 2) and "blocked" or nil;
end

local function any_address(self, requester)
	local dice = random(100);
	for _, entry in ipairs(addresses) do
		dice = dice - entry[1];
		if dice <= 0 then
			return entry[2](self, requester) or service.proxy;
		end
	end
	return requesters.ADDRESSES[random(#requesters.ADDRESSES)];
end

-- What a message can ask the other module for, which throws then: see modules/mod_chaos_neighbour.lua
local ASKS = { "throw-first", "throw-at-receiver" };

function conversations:ask_neighbour(message)
	if not self.chaos.without.neighbour and random(200) == 1 then
		message.ask, message.excuse = ASKS[random(#ASKS)], "thrown";
	end
end

-- There are about as many messages as requests.
function conversations:may_write(requester, time)
	local ledger, most = self.chaos.ledger, math.min(MOST_UNDER_WAY, self.chaos.requesters.pipeline);
	return ledger.messages.count <= ledger.requests and requester.told:count_quick(time) < most
		and requester.writer.open_count < MOST_OPEN and not self.chaos.without.messages;
end

-- (requester, time): writes as much as there is to be.
function conversations:go_on(requester, time)
	local data = {};
	while self:may_write(requester, time) do
		local message = {
			writer = requester.writer, address = any_address(self, requester), type = TYPES[random(#TYPES)], sent = time;
			excuse = excuse_of(requester);
		};
		self:ask_neighbour(message);
		local xml = tostring(self:new_stanza(message):text(text.payload()));
		requester.told:add(message);
		table.insert(data, #xml > 500 and xml..(" "):rep(#xml) or xml); -- see send_large in spec/support/xmpp.lua
	end
	if data[1] then
		requester.connection:send(table.concat(data));
	end
end

-- (requester, stanza, time): a message has come to it.
function conversations:hear(requester, stanza, time)
	local message = self.chaos.ledger.messages:came(requester.writer, stanza, time);
	if not message or message.type == "error" then
		return;
	end
	requester.heard[random(HEARD)] = stanza.attr.from;
	if random(20) == 1 then
		requester.connection:send(tostring(self:new_error {
			writer = requester.writer, receiver = message.writer, address = stanza.attr.from, id = message.id;
			type = "error", sent = time, excuse = excuse_of(requester);
		}));
	end
end

--
-- What backends write
--

local function write(self, party, backend, message, new)
	message.writer, message.sent = backend.writer, now();
	message.excuse = message.excuse or backend.waiting and "cut";
	party:send(backend, new(self, message));
end

local function reply(self, party, backend, stanza, message)
	if party:can_answer(backend) then
		local answer = {
			address = stanza.attr.from, receiver = message.writer, known_since = message.sent, type = TYPES[random(#TYPES)];
		};
		self:ask_neighbour(answer);
		write(self, party, backend, answer, self.new_stanza);
	end
end

-- Each is done to some out of a hundred messages.
local replies = {
	{ 70, reply };
	{ 3, function (...) -- twice
		reply(...);
		reply(...);
	end };
	{ 3, function (self, ...) -- late
		local arguments = { ... };
		self.chaos:after(random() * 0.5, function () reply(self, table.unpack(arguments)); end);
	end };
	{ 3, function (self, party, backend, stanza, message)
		local requester = message.writer.requester;
		write(self, party, backend, {
			address = stanza.attr.from, receiver = message.writer, known_since = message.sent, id = message.id, type = "error";
			excuse = requester and excuse_of(requester);
		}, self.new_error);
	end };
	{ 2, function (self, party, backend, stanza, message) -- to nobody
		write(self, party, backend, {
			address = alter(stanza.attr.from), receiver = nil, known_since = message.sent, type = "chat", excuse = "altered";
		}, self.new_stanza);
	end };
	{ 2, function (self, party, backend) -- as a requester
		write(self, party, backend, { address = service.proxy, receiver = nil, type = "chat" }, self.new_stanza);
	end };
};

-- (party, backend, stanza, message): the backend does something about a message that has come.
function conversations:reply(party, backend, stanza, message)
	local dice = random(100);
	for _, entry in ipairs(replies) do
		dice = dice - entry[1];
		if dice <= 0 and message.type ~= "error" then
			return entry[2](self, party, backend, stanza, message);
		end
	end
end

return conversations;
