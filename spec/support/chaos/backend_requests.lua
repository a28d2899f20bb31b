-- For chaos: the ledger's part about requests of backends: what each backend has asked which requester, and how it ended.
--
-- Each ends once: by the answer of that requester and of nobody else, or by an error. What may end in no way at all has an
-- excuse, by whose name it is counted apart; most of these are of backends that have gone.

local now = require "socket".gettime;
local st = require "util.stanza";
local window = require "spec.support.chaos.window";

local backend_requests = {};
backend_requests.__index = backend_requests;

local NS = "urn:example:chaos";
local MUST_END_WITHIN = 12; -- seconds: the longest timeout there is, and 10
local REMEMBERED_FOR = 15; -- seconds after the end

local function bare(address)
	return address:match("^[^/]+");
end

-- (ledger) -> backend requests
function backend_requests.new(ledger)
	return setmetatable({
		ledger = ledger, count = 0, answers = 0, errors = 0, elsewhere = 0, answered = 0, late = 0;
		by_number = {}; -- the requests, by what their payload says
		open = {}, open_count = 0;
		ended = {}; -- those that are not open any more, in the order in which they ended
		excused = {}; -- by reason, how many did not end that had an excuse
		excuses = {}; -- by reason, until when all that is asked has that excuse
	}, backend_requests);
end

-- What an error tells of a request: who has asked, whom, and under which id
local function key_of(request)
	return request.address.."\n"..request.id;
end

-- request: { asker, address, known_since (when the address was learnt), type, id, sent (the time), receiver: the writer whose
--            token is in the address, nil: nobody's, excuse: why it may have no end, or nil, ask: what the other module is asked for, or nil }
-- -> its payload
function backend_requests:asked(request)
	self.count = self.count + 1;
	request.number = "k"..self.count;
	self.by_number[request.number] = request;
	self.open[request], self.open_count = true, self.open_count + 1;
	request.asker.open_requests[key_of(request)] = request;
	for reason, last in pairs(self.excuses) do
		request.excuse = request.excuse or request.sent < last and reason or nil;
	end
	return st.stanza("asks", { xmlns = NS, what = request.number, ask = request.ask });
end

function backend_requests:close(request, time)
	if self.open[request] then
		self.open[request], self.open_count = nil, self.open_count - 1;
		request.asker.open_requests[key_of(request)] = nil;
		request.ended_at = time;
		table.insert(self.ended, request);
		window.over(request);
	end
end

-- (reason, writer): what is open now has that excuse, if that one has asked, or is asked; nil: all
function backend_requests:excuse(reason, writer)
	for request in pairs(self.open) do
		if not writer or request.asker == writer or request.receiver == writer then
			request.excuse = request.excuse or reason;
		end
	end
end

-- (reason, last): likewise all that is open now, or asked until then
function backend_requests:excuse_until(reason, last)
	self:excuse(reason);
	self.excuses[reason] = last;
end

-- (writer): that requester goes, and with it, perhaps, the answers that it has given.
function backend_requests:leave(writer)
	for request in pairs(self.open) do
		if request.receiver == writer then
			request.was_answered_at_once = nil;
		end
	end
end

local function describe(request)
	return ("request %s of %s to %s"):format(request.id, request.asker.jid, request.address);
end

--
-- Who gets it
--

-- Whether its address may be one of the service in the component's eyes, which since uses another format of tokens, or has
-- another target. Then it is a requester's request, which can be sent to more than one backend.
function backend_requests:may_be_dispatched(request)
	local ledger = self.ledger;
	return not request.receiver or request.asker.backend.target ~= ledger.target or ledger.target_since > request.sent - 3
		or ledger.configured_at > request.known_since;
end

function backend_requests:is_dispatched(request, receiver)
	local expected = request.receiver;
	return receiver.backend and not (expected and expected.jid == receiver.jid) and self:may_be_dispatched(request);
end

-- Who is asked: a requester, which can be a backend that has written as one, or any backend if the address is not what it was.
function backend_requests:judge_receiver(request, receiver, stanza)
	local ledger, expected = self.ledger, request.receiver;
	if self:is_dispatched(request, receiver) then
		request.was_dispatched = true; -- so it is answered to whoever has the asker's JID by then
		self.elsewhere = self.elsewhere + 1;
	elseif not expected or expected.jid ~= receiver.jid or stanza.attr.to ~= receiver.jid then
		ledger:found("misdelivered", "%s came to %s, and was for %s", describe(request), receiver.jid, expected and expected.jid or "nobody");
	elseif stanza.attr.id ~= request.id or stanza.attr.type ~= request.type then
		ledger:found("misdelivered", "%s came as %s", describe(request), stanza:top_tag());
	elseif receiver.backend and self:may_be_dispatched(request) then
		return; -- to the one that was meant, by chance
	elseif bare(stanza.attr.from) ~= bare(request.address) or not ledger.messages:is_token_of(request.asker.jid, stanza.attr.from) then
		ledger:found("wrong_address", "%s came from %s", describe(request), stanza.attr.from);
	end
end

-- (receiver, stanza, time) -> the request that has come to that writer | nil if it is not known
function backend_requests:came(receiver, stanza, time)
	local request = self.by_number[stanza.tags[1].attr.what];
	if not request then
		return;
	elseif request.came_at and not self:is_dispatched(request, receiver) then
		self.ledger:found("doubled", "%s came to %s, and before", describe(request), receiver.jid);
	else
		self:judge_receiver(request, receiver, stanza);
	end
	request.came_at = request.came_at or time;
	return request;
end

--
-- How it ends
--

-- Which request an answer is to, by its payload, or for an error without, by where it is from and its id
function backend_requests:find(asker, stanza)
	local payload = stanza:get_child("asks", NS);
	if payload then
		return self.by_number[payload.attr.what];
	end
	return asker.open_requests[(stanza.attr.from or "").."\n"..stanza.attr.id];
end

-- An error in place of the answer that the requester has given at once
function backend_requests:judge_failure(request, stanza, time)
	local ledger, since = self.ledger, request.sent - 0.5;
	local backend = request.asker.backend;
	if request.excuse or not request.was_answered_at_once or not ledger:not_stalled_since(since) or backend.target ~= ledger.target
		or ledger.target_since > since or not (backend.online_since and backend.online_since < since) then
		return;
	end
	local _, condition, text = stanza:get_error();
	if condition == "remote-server-timeout" then
		-- The answer may have waited behind a large stanza of the same requester, of which Prosody reads a bit in each turn.
		self.late = self.late + 1;
		return;
	end
	ledger:found("failed_innocent", "%s ended by %s (%s) after %.1f s, though %s had answered %.1f s ago", describe(request), condition,
		text, time - request.sent, request.receiver and request.receiver.jid, time - request.was_answered_at_once);
end

local function has_had(asker, id)
	local number = tonumber(id:match("^q(%d+)$"));
	return number and asker.last_id and number > asker.first and number <= asker.last_id;
end

-- The request of any session of that JID that an error is about | nil
function backend_requests:find_of_any(jid, stanza)
	for _, request in pairs(self.by_number) do
		if request.asker.jid == jid and request.id == stanza.attr.id and request.address == stanza.attr.from then
			return request;
		end
	end
end

-- What is known of it
local function history(request, time)
	if not request then
		return "of which nothing is known";
	end
	return ("which was asked %.1f s ago, of %s, came %s s ago, and ended %s s ago; it is excused as %s"):format(time - request.sent,
		request.receiver and request.receiver.jid or "nobody", request.came_at and time - request.came_at or "no",
		request.ended_at and time - request.ended_at or "no", tostring(request.excuse));
end

-- An error has come to a backend about what this session has not asked. What the component took for a requester's request is
-- answered to whoever has the JID by then.
function backend_requests:judge_strange(asker, stanza, time)
	local id = stanza.attr.id;
	local request = self:find_of_any(asker.jid, stanza);
	if asker.backend.is_elsewhere or stanza.attr.from:find("/unknown", 1, true) or request and request.was_dispatched then
		return;
	end
	self.ledger:found(has_had(asker, id) and "doubled" or "misdelivered", "%s came to %s, %s", tostring(stanza), asker.jid,
		history(request, time));
end

-- (asker, stanza, time): an answer has come to a backend.
function backend_requests:settled(asker, stanza, time)
	local attr, request = stanza.attr, self:find(asker, stanza);
	local is_answer = stanza:get_child("asks", NS) ~= nil;
	self.answers, self.errors = self.answers + 1, self.errors + (is_answer and 0 or 1);
	if not request then
		self:judge_strange(asker, stanza, time);
	elseif request.asker ~= asker and not ((asker.backend.is_elsewhere or request.was_dispatched) and request.asker.jid == asker.jid) then
		self.ledger:found("misdelivered", "%s came to %s, and is about %s", stanza:top_tag(), asker.jid, describe(request));
	elseif not self.open[request] then
		self.ledger:found("doubled", "%s came to %s, about %s", stanza:top_tag(), asker.jid, describe(request));
	elseif attr.from ~= request.address or attr.id ~= request.id or attr.to ~= asker.jid then
		self.ledger:found("wrong_address", "%s came to %s, about %s", stanza:top_tag(), asker.jid, describe(request));
	else
		self.answered = self.answered + (is_answer and 1 or 0);
		if not is_answer then
			self:judge_failure(request, stanza, time);
		end
		self:close(request, time);
	end
end

--
-- The rest
--

function backend_requests:lose(request)
	self:close(request, now());
	if request.excuse then
		self.excused[request.excuse] = (self.excused[request.excuse] or 0) + 1;
	else
		self.ledger:found("lost", "%s, sent %.1f s ago, %s", describe(request), now() - request.sent,
			request.came_at and "which came to the requester" or "which came to nobody");
	end
end

-- to be called now and then
function backend_requests:count_lost(time)
	for request in pairs(self.open) do
		if self.ledger:is_overdue(request.sent, MUST_END_WITHIN, time) then
			self:lose(request);
		end
	end
end

-- Likewise: those that ended long ago are forgotten.
function backend_requests:forget_ended(time)
	local kept = {};
	for _, request in ipairs(self.ended) do
		if request.ended_at + REMEMBERED_FOR > time then
			table.insert(kept, request);
		else
			self.by_number[request.number] = nil;
		end
	end
	self.ended = kept;
end

-- -> one line
function backend_requests:describe()
	local excused = {};
	for reason, number in pairs(self.excused) do
		table.insert(excused, (", %d %s"):format(number, reason));
	end
	table.sort(excused);
	return ("%d requests of backends, %d answered by who was asked, %d errors, %d of them though it had answered, %d at backends%s"):format(
		self.count, self.answered, self.errors, self.late, self.elsewhere, table.concat(excused));
end

return backend_requests;
