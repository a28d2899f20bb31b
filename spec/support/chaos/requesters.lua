-- For chaos: those who ask. Each has many requests under way all the time, and some connect anew now and then.

local service = require "spec.support.service";
local socket = require "socket";
local text = require "spec.support.chaos.text";
local window = require "spec.support.chaos.window";
local xmpp = require "spec.support.xmpp";

local now, random = socket.gettime, math.random;

local REQUESTERS = 8;
-- Requests that each has under way: so many that all backends have some, or so few that most have none
local PIPELINES = { 25, 3, 1, 1, 1 };
local BRISK = { 25 };
local AHEAD = 1000; -- how many more requests there may be than stanzas of another kind
local MOST_OPEN = 150; -- requests of one requester, the slow ones included

local requesters = {};
requesters.__index = requesters;

local ADDRESSES = { service.proxy, service.proxy, service.proxy, service.proxy.."/thing", "room@"..service.proxy, "room@"..service.proxy.."/thing" };
requesters.ADDRESSES = ADDRESSES;

requesters.users = { "u", "user", "other-user", ("long-name"):rep(8) };

-- What a request can ask the other module on the component for: see modules/mod_chaos_neighbour.lua.
-- Those marked true can end without an answer, as the other module throws away their own.
local ASKS = {
	["answer"] = false, ["answer-first"] = false, ["answer-before"] = false, ["answer-last"] = false;
	["throw"] = true, ["throw-first"] = true, ["throw-before"] = true, ["throw-last"] = true;
	["throw-at-backend"] = false, ["throw-at-result"] = false;
	["throw-at-requester"] = true, ["throw-at-error"] = true;
};
local ask_names = {};
for name in pairs(ASKS) do
	table.insert(ask_names, name);
end
table.sort(ask_names);

-- (chaos) -> requesters, none yet connected
function requesters.new(chaos)
	local pipelines = chaos.is_brisk and BRISK or PIPELINES;
	return setmetatable({ chaos = chaos, list = {}, pipelines = pipelines, pipeline = pipelines[1], rests_until = 0 }, requesters);
end

local function new_request(requester, may_ask)
	requester.count = requester.count + 1;
	local ask = may_ask and random(100) == 1 and ask_names[random(#ask_names)];
	return {
		id = text.id(requester.count)..(ask == "throw-at-error" and ask or ""), requester = requester;
		address = ADDRESSES[random(#ADDRESSES)], sent = now(), ask = ask, is_excused = ask and ASKS[ask];
	};
end

local function as_xml(request)
	local payload = text.payload();
	local xml = ("<iq type='%s' id='%s' to='%s'><query xmlns='urn:example:chaos' who='%s' what='%s'%s>%s</query></iq>"):format(
		random(8) == 1 and "set" or "get", request.id, request.address, request.requester.jid, request.id,
		request.ask and " ask='"..request.ask.."'" or "", payload);
	return #payload > 500 and xml..(" "):rep(#xml) or xml; -- see send_large in spec/support/xmpp.lua
end

-- How many requests of each requester may be under way. Where there are to be as many as possible of each kind of stanza,
-- requests wait for the others, but some there must be, as it is from them that backends learn whom to ask.
function requesters:most_under_way()
	local ledger = self.chaos.ledger;
	return self.chaos.is_brisk and ledger.requests > ledger:least() + AHEAD and 1 or self.pipeline;
end

function requesters:send_requests(requester, time)
	local data = {};
	local most = self:most_under_way();
	while time >= requester.pauses_until and requester.window:count_quick(time) < most
		and requester.open_count < MOST_OPEN do
		local request = new_request(requester, not self.chaos.without.neighbour);
		self.chaos.ledger:sent(request);
		requester.window:add(request);
		table.insert(data, as_xml(request));
	end
	if data[1] then
		requester.connection:send(table.concat(data));
	end
end

function requesters:on_answer(requester, stanza, time)
	local condition = self.chaos.ledger:answered(requester, stanza, time);
	if condition then -- it would be no use to ask again at once
		requester.pauses_until = time + random() * 0.02;
	end
end

function requesters:on_stanza(requester, stanza, time)
	local type = stanza.attr.type;
	if stanza.name == "message" then
		self.chaos.conversations:hear(requester, stanza, time);
	elseif stanza.name == "presence" then
		self.chaos.ledger.presence:came(requester.writer, stanza, time);
	elseif stanza.name == "iq" and (type == "result" or type == "error") then
		self:on_answer(requester, stanza, time);
	elseif stanza.name == "iq" then
		self.chaos.asking:answer(requester, stanza);
	end
end

function requesters:connect(slot)
	local user = requesters.users[random(3) > 1 and 1 or random(#requesters.users)];
	local connection = xmpp.client(self.chaos.server, user, "some-domain.example", text.new_resource());
	local requester = {
		connection = connection, jid = connection.jid, writer = self.chaos.ledger.messages:new_writer(connection.jid);
		heard = {}, told = window.new(); -- see conversations.lua
		count = 0, open = {}, open_count = 0, asked = {}; -- by id: see ledger.lua
		window = window.new();
		seen_as = {}; -- by bare service address, from which address a backend has last got a request
		is_blocked = false, last_blocked = -math.huge;
		pauses_until = 0;
	};
	requester.writer.requester = requester;
	self.chaos.ledger.requesters[requester.jid] = requester;
	self.list[slot] = requester;
end

function requesters:start()
	for slot = 1, REQUESTERS do
		self:connect(slot);
	end
end

function requesters:reconnect(slot)
	local requester = self.list[slot];
	-- What it had under way can time out, and nobody would see that it was due to the blocking.
	if requester.is_blocked or now() < requester.last_blocked + 4 then
		return;
	end
	self.chaos.ledger:abandon(requester);
	if random(2) == 1 then
		requester.connection:send("</stream:stream>");
	end
	requester.connection:cut();
	self:connect(slot);
end

function requesters:any()
	return self.list[random(#self.list)];
end

-- None sends anything new for so many seconds.
function requesters:rest(seconds)
	self.rests_until = now() + seconds;
end

-- -> by their sockets, what is to be called when one can be read from
function requesters:readers()
	local readers = {};
	for _, requester in ipairs(self.list) do
		readers[requester.connection.socket] = function () requester.connection:read(0); end;
	end
	return readers;
end

-- to be called ten times a second
function requesters:nudge()
	for _, requester in ipairs(self.list) do
		requester.connection:send(text.NUDGE);
	end
end

-- to be called ten times a second
function requesters:something_happens()
	if random(20) == 1 then
		self:reconnect(random(#self.list));
	end
	if random(30) == 1 then
		self.pipeline = self.pipelines[random(#self.pipelines)];
	end
end

-- to be called in each turn, when what has come has been read
function requesters:step(is_sending)
	local time = now();
	for _, requester in ipairs(self.list) do
		local received = requester.connection.received;
		for position = 1, #received do
			self:on_stanza(requester, received[position], time);
		end
		requester.connection.received = {};
		if is_sending and time >= self.rests_until then
			self:send_requests(requester, time);
			self.chaos.conversations:go_on(requester, time);
		end
	end
end

-- to be called now and then
function requesters:count_lost(time)
	for _, requester in ipairs(self.list) do
		self.chaos.ledger:count_lost(requester, time);
	end
end

function requesters:close()
	for _, requester in ipairs(self.list) do
		self.chaos.ledger:abandon(requester);
		requester.connection:close();
	end
	self.list = {};
end

return requesters;
