-- For chaos: the ledger's part about directed presence: who has been shown whom, and whether that has ended.
--
-- A showing is what one sender has told one address: that it is available, or after that, not. A presence is one `available`
-- of it. Whoever has got one goes on to believe it until an `unavailable` comes from the same address, and that must come
-- when the sender has said so, or has gone, be it that a receiver has gone first. None comes to somebody who believes
-- nothing, and of the backends that are there, one alone believes one showing.
--
-- Nothing is asked about addresses that a target's owner has blocked at some time: what the one side says is then dropped.

local st = require "util.stanza";

local presence = {};
presence.__index = presence;

local NS = "urn:example:chaos";
local MUST_END_WITHIN = 5; -- seconds
local GONE_FOR_SURE = 3; -- seconds after a backend has left that its session can go on without it, or be resumed
local LEFT_LATELY = 3; -- seconds in which a backend that leaves may get what nobody then reads
local UNHEARD = 2; -- seconds: what was said just before a connection was cut may not have been heard
local KNOWN_FOR = 20; -- seconds

local IS_FROM_SERVICE = "^[^/]*proxy%.domain%.example/";

local function bare(address)
	return address:match("^[^/]+");
end

-- (ledger) -> presence
function presence.new(ledger)
	return setmetatable({
		ledger = ledger, count = 0, arrivals = 0, ends = 0,
		by_number = {}; -- those that have been sent not long ago, by what their payload says
		sent = {}; -- the same, in the order in which they were sent
		owners = {}; -- the JIDs of those who are seen by backends, by the addresses that they are seen as
		was_blocked = {}; -- by such an address
		last_left = -math.huge; -- when a backend has last left
	}, presence);
end

local function describe(one)
	return ("%s of %s to %s"):format(one.number, one.showing.sender.jid, one.showing.at);
end

--
-- What is sent
--

local function showing_of(sender, at)
	local showing = sender.shown[at];
	if not showing then
		showing = { sender = sender, at = at, is_on = false, ended_at = nil };
		sender.shown[at] = showing;
	end
	return showing;
end

-- (sender, at) -> the `unavailable`, which that writer is about to send there; to a bare address, it ends all at that service
function presence:ended(sender, at, time)
	self.count = self.count + 1;
	for other, showing in pairs(sender.shown) do
		if other == at or bare(other) == at then
			showing.is_on, showing.ended_at = false, time;
		end
	end
	return st.presence({ type = "unavailable", to = at });
end

-- Whether all that could get it is known, and is there
function presence:is_certain(since)
	local ledger = self.ledger;
	return ledger.target and ledger.target_since < since and ledger.configured_at < since and self.last_left < since
		and (ledger.messages.excuses.forgotten or 0) < since;
end

-- One to a service address, of somebody whom nobody sees there yet, must come to a backend if there are some.
function presence:expect(one, time)
	local since = time - LEFT_LATELY;
	local function holds()
		return not one.came_at and not one.showing.sender.gone_at and not one.showing.sender.was_blocked and self:is_certain(since);
	end
	if holds() and self.ledger:other_ready(nil, time) then
		self.ledger:suspect("lost", time, holds, "presence %s came to nobody", describe(one));
	end
end

-- (sender, at, time, token) -> the `available`, which that writer is about to send there
-- token: whose the address is, if it is a requester's: { writer, known_since }, see asking.lua
function presence:shown(sender, at, time, token)
	local showing = showing_of(sender, at);
	self.count = self.count + 1;
	local one = {
		number = "p"..self.count, showing = showing, sent = time, is_first = not showing.is_on and not showing.is_believed;
		receiver = token and token.writer, known_since = token and token.known_since;
		addressed = self.ledger.backends[self.ledger.messages.backend_of[at]];
	};
	showing.is_on, showing.ended_at = true, nil;
	self.by_number[one.number] = one;
	table.insert(self.sent, one);
	if one.is_first and not token and not self.ledger.messages.backend_of[at] then
		self:expect(one, time);
	end
	return st.presence({ to = at }):tag("seen", { xmlns = NS, what = one.number }):up();
end

-- (writer, time): a backend leaves. What it has said last may not have been heard.
function presence:left(writer, time)
	self.last_left = time;
	for _, showing in pairs(writer.shown) do
		if showing.ended_at and showing.ended_at > time - UNHEARD then
			showing.ended_at = nil;
		end
	end
end

-- (writer, addresses): that requester is blocked, who is seen as these.
function presence:block(writer, addresses)
	writer.was_blocked = true;
	for _, address in ipairs(addresses) do
		self.was_blocked[address] = true;
	end
end

--
-- What comes
--

-- Whether it may have gone to any backend: the address need have been none of a requester's in the component's eyes.
function presence:may_be_dispatched(one)
	return not one.receiver or self.ledger.backend_requests:may_be_dispatched {
		receiver = one.receiver, asker = one.showing.sender, sent = one.sent, known_since = one.known_since;
	};
end

function presence:judge_backend(one, backend, from, time)
	local messages, sender, at = self.ledger.messages, one.showing.sender, one.showing.at;
	self.owners[from] = self.owners[from] or sender.jid;
	local as_message = { writer = sender, id = one.number, address = at, sent = one.sent, addressed = one.addressed };
	if self.owners[from] ~= sender.jid then
		self.ledger:found("wrong_address", "presence %s came from %s, which is %s", describe(one), from, self.owners[from]);
	elseif not self:may_be_dispatched(one) or backend == sender.backend then
		self.ledger:found("misdelivered", "presence %s came to %s", describe(one), backend.jid);
	elseif one.addressed then
		messages:judge_addressed(as_message, backend, time);
	elseif one.is_first and not messages.backend_of[at] and (messages.excuses.forgotten or 0) < one.sent then
		self.ledger:judge_choice(backend, as_message, time);
		messages:judge_conversation(as_message, backend, time);
	end
end

-- Also a backend can be one, which has written as a requester does.
function presence:judge_requester(one, receiver, from)
	local sender = one.showing.sender;
	if not one.receiver or one.receiver.jid ~= receiver.jid then
		self.ledger:found("misdelivered", "presence %s came to %s", describe(one), receiver.jid);
	elseif receiver.backend and self:may_be_dispatched(one) then
		return; -- to the one that was meant, by chance
	elseif not self.ledger.messages:is_token_of(sender.jid, from) then
		self.ledger:found("wrong_address", "presence %s came from %s", describe(one), from);
	end
end

function presence:has_come(receiver, one, stanza, time)
	local from = stanza.attr.from;
	self.arrivals = self.arrivals + 1;
	if one.came_at then
		self.ledger:found("doubled", "presence %s came to %s, and to %s", describe(one), receiver.jid, one.came_to.jid);
	elseif bare(from) ~= bare(one.showing.at) or stanza.attr.to ~= receiver.jid then
		self.ledger:found("wrong_address", "presence %s came to %s as %s", describe(one), receiver.jid, stanza:top_tag());
	elseif receiver.backend and not (one.receiver and one.receiver.jid == receiver.jid) then
		self:judge_backend(one, receiver.backend, from, time);
	else
		self:judge_requester(one, receiver, from);
	end
	one.came_at, one.came_to, one.from = time, receiver, from;
	one.showing.is_believed = true;
	receiver.sees[from] = one;
end

-- Nobody tells the component that a requester's session is over. If that is a backend's, which has written as a requester
-- does, the next one of its JID may be told of the end of what the one before has seen.
local function may_be_of_the_session_before(self, receiver, from)
	return receiver.backend and receiver.first > 0 and not self.owners[from];
end

-- Likewise, what the session before has seen of an account that was the target until a reload: that is told after the reload,
-- and nobody tells the component of that account's sessions any more.
local function may_be_of_the_target_before(self, receiver, time)
	local backend, ledger = receiver.backend, self.ledger;
	return backend and receiver.first > 0 and (ledger.target ~= backend.target or ledger.target_since > time - MUST_END_WITHIN);
end

function presence:has_ended(receiver, from, time)
	local one = receiver.sees[from];
	self.ends = self.ends + 1;
	receiver.sees[from] = nil;
	if one then
		one.showing.is_believed = false;
	elseif not self.was_blocked[from] and not may_be_of_the_session_before(self, receiver, from)
		and not may_be_of_the_target_before(self, receiver, time) then
		self.ledger:found("ended_twice", "%s was told that %s is unavailable, and did not believe otherwise", receiver.key, from);
	end
end

-- (receiver, stanza, time): a presence has come to that writer.
function presence:came(receiver, stanza, time)
	local type, seen = stanza.attr.type, stanza:get_child("seen", NS);
	local one = seen and self.by_number[seen.attr.what];
	if not stanza.attr.from:find(IS_FROM_SERVICE) then
		return; -- the service's own, or that of another resource of the same account
	elseif type == "error" and not receiver.backend then
		self.ledger:found("misdelivered", "presence was answered to %s: %s", receiver.jid, stanza:top_tag());
	elseif type == "unavailable" then
		self:has_ended(receiver, stanza.attr.from, time);
	elseif one and not type then
		self:has_come(receiver, one, stanza, time);
	end
end

--
-- What is believed
--

-- -> since when nobody should believe it any more, or nil
local function over_since(showing)
	local sender = showing.sender;
	local backend = sender.backend;
	local gone_at = sender.gone_at or backend and not backend.is_online and backend.left_at and backend.left_at + GONE_FOR_SURE;
	return showing.ended_at or gone_at or nil;
end

-- What a backend has told a token says nothing to the component if tokens have since come to be others, but that it has gone
-- does.
function presence:may_be_unheard(one)
	local showing = one.showing;
	return showing.sender.backend and showing.sender.backend.is_online and self.ledger.configured_at > (one.known_since or one.sent);
end

function presence:is_wrong(one, receiver, time)
	local since = over_since(one.showing);
	local backend = receiver.backend;
	local latest = time - MUST_END_WITHIN;
	return since and since < latest and one.came_at < latest and not self:may_be_unheard(one)
		and (not backend or backend.online_since and backend.online_since < latest)
		and not (one.showing.sender.was_blocked or receiver.was_blocked or self.was_blocked[one.from]);
end

function presence:judge_beliefs(receiver, time)
	for from, one in pairs(receiver.sees) do
		local showing = one.showing;
		if self:is_wrong(one, receiver, time) then
			receiver.sees[from] = nil;
			self.ledger:found("unended", "%s, which %s got %.1f s ago, and which was over %.1f s ago", describe(one), receiver.jid,
				time - one.came_at, time - over_since(showing));
		end
	end
end

-- Of two backends that are there, not both believe one showing.
function presence:judge_both(backend, believed, time)
	local latest = time - MUST_END_WITHIN;
	for _, one in pairs(backend.writer.sees) do
		local showing = one.showing;
		local is_sure = one.came_at < latest and backend.online_since and backend.online_since < latest
			and not showing.sender.was_blocked and not self.was_blocked[one.from];
		if is_sure and believed[showing] and not showing.is_told then
			showing.is_told = true;
			self.ledger:found("unended", "%s: both %s and %s believe it", describe(one), backend.jid, believed[showing].jid);
		elseif is_sure then
			believed[showing] = backend;
		end
	end
end

-- (backends, requesters, time): to be called once a second
-- backends: those that are online; requesters: those that are connected
function presence:judge(backends, requesters, time)
	while self.sent[1] and self.sent[1].sent + KNOWN_FOR < time do
		self.by_number[table.remove(self.sent, 1).number] = nil;
	end
	if not self.ledger:not_stalled_since(time - MUST_END_WITHIN) then
		return;
	end
	local believed = {};
	for _, backend in ipairs(backends) do
		self:judge_beliefs(backend.writer, time);
		self:judge_both(backend, believed, time);
	end
	for _, requester in ipairs(requesters) do
		self:judge_beliefs(requester.writer, time);
	end
end

-- (writers) -> whether one of them believes what is over
function presence.is_believed_in_vain(_, writers)
	for _, writer in ipairs(writers) do
		for _, one in pairs(writer.sees) do
			if over_since(one.showing) then
				return true;
			end
		end
	end
	return false;
end

-- -> one line
function presence:describe()
	return ("%d directed presences, %d arrived, %d ends"):format(self.count, self.arrivals, self.ends);
end

return presence;
