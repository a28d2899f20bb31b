-- For chaos: requests that backends send to requesters, whose tokens they hold, and what those do about them: they answer at
-- once, mostly; or late, twice, never, in a wrong way.

local service = require "spec.support.service";
local socket = require "socket";
local st = require "util.stanza";

local now, random = socket.gettime, math.random;

local MOST_OPEN = 60; -- requests of one backend
local REQUESTS_EACH = 2; -- as many requests there are for each of a backend
local HELD = 8; -- tokens that each backend knows

local NS = "urn:example:chaos";

local asking = {};
asking.__index = asking;

-- (chaos) -> asking
function asking.new(chaos)
	return setmetatable({ chaos = chaos, ledger = chaos.ledger.backend_requests }, asking);
end

-- (backend, address, writer, sent): the backend has got something from that writer, who is seen as that address, and has sent
-- it at that time. What comes from another backend's token is not of a requester.
function asking:learn(backend, address, writer, sent)
	if self.chaos.ledger.messages.is_of_backend(address) then
		return;
	end
	backend.tokens[random(HELD)] = { address = address, writer = writer, known_since = sent };
end

--
-- Those who ask
--

-- An id that others have, too. None is used again under one JID, as an answer to the first request, which comes late, would be
-- taken for that to the second.
local function new_id(asker)
	asker.last_id = (asker.last_id or asker.first) + 1;
	return "q"..asker.last_id;
end

local function new_request(self, backend, time)
	local position = random(HELD);
	local token = backend.tokens[position];
	if not token then
		return;
	elseif token.known_since < self.chaos.ledger.configured_at and random(5) > 1 then -- perhaps it is one no more
		backend.tokens[position] = nil;
		return;
	end
	local requester, request = token.writer.requester, { asker = backend.writer, sent = time, type = random(4) == 1 and "set" or "get" };
	request.address, request.receiver, request.known_since = token.address, token.writer, token.known_since;
	request.id = new_id(request.asker);
	if requester and (requester.is_blocked or requester.last_blocked > time - 2) then
		request.excuse = "blocked";
	elseif not self.chaos.without.neighbour and random(200) == 1 then
		request.ask = random(2) == 1 and "throw-first" or "throw-at-receiver";
		request.excuse = request.ask == "throw-first" and "thrown" or nil;
	end
	return request;
end

function asking:may_ask(backend, time)
	local requesters = self.chaos.requesters;
	return self.chaos:may_have_more(self.ledger.count, REQUESTS_EACH) and backend.asked:count_quick(time) < requesters.pipeline
		and time >= requesters.rests_until
		and not backend.hung and backend.is_online and not self.chaos.without.asking;
end

local function ask(self, party, backend, time)
	local open = 0;
	for _ in pairs(backend.writer.open_requests) do
		open = open + 1;
	end
	for _ = open, MOST_OPEN do
		local request = self:may_ask(backend, time) and new_request(self, backend, time);
		if not request then
			return;
		end
		local payload = self.ledger:asked(request);
		backend.asked:add(request);
		party:send(backend, st.iq({ type = request.type, id = request.id, to = request.address }):add_child(payload));
	end
end

-- to be called in each turn
function asking:step()
	local time = now();
	for _, party in ipairs(self.chaos.parties) do
		for _, backend in pairs(party.online) do
			if random(party.target == self.chaos.ledger.target and 1 or 20) == 1 then
				ask(self, party, backend, time);
			end
		end
	end
end

--
-- Those who are asked
--

local function reply(requester, stanza, changed)
	local answer = st.reply(stanza):add_child(stanza.tags[1]);
	for name, value in pairs(changed or {}) do
		answer.attr[name] = value;
	end
	requester.connection:send(tostring(answer));
end

local function is_connected(self, requester)
	return self.chaos.ledger.requesters[requester.jid] == requester;
end

local function reply_after(self, seconds, requester, stanza)
	self.chaos:after(seconds, function ()
		if is_connected(self, requester) then
			reply(requester, stanza);
		end
	end);
end

-- Each is done to some out of a thousand requests; to the rest an answer at once.
local replies = {
	{ 30, function (_, requester, stanza) -- twice
		reply(requester, stanza);
		reply(requester, stanza);
	end };
	{ 20, function (_, requester, stanza) -- in wrong ways first
		reply(requester, stanza, { id = "unknown" });
		reply(requester, stanza, { to = service.proxy });
		reply(requester, stanza, { to = "other@"..stanza.attr.from });
		reply(requester, stanza);
	end };
	{ 30, function (_, requester, stanza)
		requester.connection:send(tostring(st.error_reply(stanza, "cancel", "not-allowed"):add_child(stanza.tags[1])));
	end };
	{ 30, function (self, requester, stanza) reply_after(self, random() * 0.5, requester, stanza); end };
	{ 2, function () end }; -- never
	{ 4, function (self, requester, stanza) reply_after(self, 2.5, requester, stanza); end }; -- too late
};

local function reply_at_once(_, requester, stanza, request)
	request.was_answered_at_once = now();
	reply(requester, stanza);
end

local function pick()
	local dice = random(1000);
	for _, entry in ipairs(replies) do
		dice = dice - entry[1];
		if dice <= 0 then
			return entry[2];
		end
	end
	return reply_at_once;
end

-- (requester, stanza): a request has come to it, which it does something about.
function asking:answer(requester, stanza)
	if not stanza:get_child("asks", NS) then
		return;
	end
	local request = self.ledger:came(requester.writer, stanza, now());
	if request then
		pick()(self, requester, stanza, request);
	end
end

-- (party, backend, stanza): likewise to a backend.
function asking:answer_by_backend(party, backend, stanza)
	if self.ledger:came(backend.writer, stanza, now()) and party:can_answer(backend) then
		party:send(backend, st.reply(stanza):add_child(stanza.tags[1]));
	end
end

return asking;
