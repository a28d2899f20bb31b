-- For chaos: the ledger's part about messages: who has written what, to whom, and what has become of it.
--
-- A message is right if it arrives once, where it was sent to, as it was, in its order; or if, in place of that, one
-- error comes back to its writer, from where it was sent to. An error that somebody replies with is a message, too, but
-- none comes back about it.
--
-- What was under way when a connection without XEP-0198 was cut, or was to come back from somebody the component has since
-- been told to forget, may be lost. It has an excuse, by whose name it is counted apart. No excuse is there for what
-- arrives twice, or with somebody else.

local now = require "socket".gettime;
local st = require "util.stanza";
local window = require "spec.support.chaos.window";

local messages = {};
messages.__index = messages;

local NS = "urn:example:chaos";
local MUST_COME_WITHIN = 8; -- seconds: a session that nobody resumes ends after one, and the rest is for a busy machine
local KNOWN_FOR = 15; -- seconds that a writer is remembered who has gone
local CUT_IS_KNOWN_AFTER = 0.3; -- seconds
local ACKNOWLEDGED_WITHIN = 2; -- seconds: what was acknowledged just before a connection was cut may not have been heard
local STEADY_FOR = 1.5; -- seconds between two messages of a conversation of which is asked why they went to different backends

-- The component's own word that there is nobody for a message
local NOBODY = { ["No resource of the target is online"] = true, ["All resources of the target that are online take nothing new"] = true };

local function bare(address)
	return address:match("^[^/]+");
end

-- (ledger) -> messages
function messages.new(ledger)
	return setmetatable({
		ledger = ledger, count = 0, arrivals = 0, errors = 0, unacknowledged = 0, abandoned = 0, headlines = 0, reformatted = 0, passed_on = 0;
		writers = {}; -- by key
		gone = {}; -- writers who have gone, in that order
		sessions = {}; -- by JID, how many writers have had it
		open = {}; -- the messages that have neither arrived nor come back
		open_count = 0;
		excused = {}; -- by reason, how many were lost that had an excuse
		excuses = {}; -- by reason, until when all that is written has that excuse
		backend_of = {}, token_of = {}; -- the JIDs of backends by the addresses that they are seen as, and these by the JIDs
		conversations = {}; -- by whose they are, see party_of(), and address: { backend, at }: where the last one arrived
	}, messages);
end

-- (jid, backend) -> writer
-- backend: the one that it is, see backends.lua, or nil: it is a requester
function messages:new_writer(jid, backend)
	local sessions = self.sessions[jid] or 0;
	self.sessions[jid] = sessions + 1;
	local writer = {
		key = jid.." "..sessions, jid = jid, backend = backend;
		first = sessions * 1000000; -- no number is had again under one JID, however often others have it
		count = 0, sent = {}, seen = {}; -- seen: by the key of a writer, the number of the last message from there
		open_count = 0;
		open_requests = {}; -- see backend_requests.lua
		shown = {}, sees = {}; -- by the address that it has shown itself to, a showing; by that it is shown, a presence: see presence.lua
	};
	self.writers[writer.key] = writer;
	return writer;
end

-- Whether there may be nobody: then nobody is told of an error that does not arrive, either.
local function may_be_unreachable(message, receiver)
	local is_error, backend = message.type == "error", receiver.backend;
	if backend then
		return is_error and not (backend.online_since and backend.online_since < message.sent);
	end
	return receiver.gone_at and (is_error or message.sent < receiver.gone_at + CUT_IS_KNOWN_AFTER);
end

-- message: { writer, address, type, id, sent (the time),
--            receiver: the writer whom it is for, nil: whoever is chosen among the backends,
--            known_since: if the address is known from another message, when that was sent,
--            excuse: why it may be lost, or nil }
-- -> its payload
function messages:written(message)
	local writer = message.writer;
	writer.count = writer.count + 1;
	message.number = writer.first + writer.count;
	message.id = message.id or "m"..message.number;
	message.what = "n"..message.number;
	writer.sent[message.what] = message;
	self.count = self.count + 1;
	self.open[message], self.open_count = true, self.open_count + 1;
	writer.open_count = writer.open_count + 1;
	for reason, last in pairs(self.excuses) do
		message.excuse = message.excuse or message.sent < last and reason or nil;
	end
	if message.receiver and may_be_unreachable(message, message.receiver) then
		message.excuse = "cut";
	end
	local jid = self.backend_of[message.address];
	message.addressed = self.ledger.backends[jid];
	if jid and message.type ~= "error" then
		message.receiver = nil; -- a backend that replies to another one, which has written as a requester does
	end
	return st.stanza("note", { xmlns = NS, who = writer.key, what = message.what, ask = message.ask });
end

function messages:close(message)
	if self.open[message] then
		self.open[message], self.open_count = nil, self.open_count - 1;
		message.writer.open_count = message.writer.open_count - 1;
		window.over(message);
	end
end

--
-- Excuses
--

-- (reason, writer): what is open now has that excuse, if it is from or to that writer; nil: all
function messages:excuse(reason, writer)
	for message in pairs(self.open) do
		if not writer or message.writer == writer or message.receiver == writer then
			message.excuse = message.excuse or reason;
		end
	end
end

-- (reason, last): likewise all that is open now, or written until then
function messages:excuse_until(reason, last)
	self:excuse(reason);
	self.excuses[reason] = last;
end

-- (writer, time): its connection is cut, or soon will be.
function messages:cut(writer, time)
	self:excuse("cut", writer);
	if writer.backend and not writer.backend.resumes then
		self:excuse_until("cut", math.max(self.excuses.cut or 0, time + CUT_IS_KNOWN_AFTER));
	end
end

-- (writer, time): it has gone for good.
function messages:leave(writer, time)
	self:cut(writer, time);
	writer.gone_at = time;
	table.insert(self.gone, writer);
	if writer.backend then
		return;
	end
	for message in pairs(self.open) do -- an error about it has nobody to go to
		if message.writer == writer then
			self:close(message);
			self.abandoned = self.abandoned + 1;
		end
	end
end

--
-- Where it arrives
--

local function describe(message)
	return ("%s of %s to %s"):format(message.id, message.writer.jid, message.address);
end

-- A backend may use a token of another format than what the component has been told to use since: it replies to what was sent
-- before that, and may have got it long after. Such an address is then one of the service, with any resource.
function messages:was_reformatted(message)
	return message.writer.backend and self.ledger.configured_at > (message.known_since or message.sent);
end

-- (jid, address) -> whether this is the address that a backend has had from the first time on, and nobody else
function messages:is_token_of(jid, address)
	local token = address:match("/.*");
	self.token_of[jid] = self.token_of[jid] or token;
	self.backend_of[address] = self.backend_of[address] or jid;
	return token == self.token_of[jid] and self.backend_of[address] == jid;
end

-- (address) -> whether it has the form of a backend's own
function messages.is_of_backend(address)
	return address:find("^[^/]+/b[%w_-]+$") ~= nil;
end

-- Whether a backend sees what one has written as something that a requester has
local function is_from_requester(receiver, from)
	return receiver.backend and not messages.is_of_backend(from);
end

function messages:judge_address(message, receiver, stanza)
	local from = stanza.attr.from;
	local backend = message.writer.backend;
	if bare(from) ~= bare(message.address) then
		self.ledger:found("wrong_address", "%s came from %s", describe(message), from);
	elseif message.receiver and backend and message.type ~= "error" and not is_from_requester(receiver, from)
		and not self:is_token_of(message.writer.jid, from) then
		self.ledger:found("wrong_address", "%s came from %s, which is %s, not from %s", describe(message), from,
			self.backend_of[from], self.token_of[message.writer.jid]);
	end
end

-- Whether this backend has been as fit as any other since that time
local function was_fit(ledger, backend, time)
	return backend.is_sound and not backend.may_be_drained and backend.last_changed < time - 3 and ledger.was_ready_at(backend, time);
end

-- (writer) -> whose conversation it is: an account's. But none of the target's own resources gets what it has written itself, so
-- each of them has one of its own.
local function party_of(writer)
	return writer.backend and writer.jid or bare(writer.jid);
end

-- A conversation goes on with the same backend, as long as that is there, and another one has not come.
function messages:judge_conversation(message, backend, time)
	local ledger = self.ledger;
	local key = party_of(message.writer).." "..bare(message.address);
	local last = self.conversations[key];
	self.conversations[key] = { backend = backend, at = time };
	local before = last and last.backend;
	if not before or before == backend or message.sent < last.at or time > last.at + STEADY_FOR
		or last.at < ledger.configured_at or ledger.target ~= backend.target or last.at < ledger.target_since
		or not ledger:not_stalled_since(last.at - 2) then
		return;
	end
	local function holds()
		return was_fit(ledger, before, time) and was_fit(ledger, backend, time) and before.is_online and backend.is_online;
	end
	if holds() then
		ledger:suspect("strayed", time, holds, "%s went to %s, %.2f s after another one to %s", describe(message), backend.jid,
			time - last.at, before.jid);
	end
end

-- The backend whose token is in the address gets it, if that is there.
function messages:judge_addressed(message, backend, time)
	local ledger, addressed = self.ledger, message.addressed;
	if addressed.jid == backend.jid or ledger.target ~= addressed.target or message.sent < ledger.target_since + 1
		or not ledger:not_stalled_since(time - 2) then
		return;
	end
	local function holds()
		return ledger.was_ready_at(addressed, time) and addressed.is_online;
	end
	if holds() then
		ledger:suspect("misdelivered", time, holds, "message %s was for %s, but went to %s", describe(message), addressed.jid, backend.jid);
	end
end

function messages:judge_backend(message, backend, time)
	if backend == message.writer.backend then
		self.ledger:found("misdelivered", "message %s came back to where it was from", describe(message));
	elseif message.addressed then
		self:judge_addressed(message, backend, time);
	elseif not self.backend_of[message.address] then -- else it is one that has gone, perhaps unknown to the component
		if (self.excuses.forgotten or 0) < message.sent then -- else an error may be about somebody whom nobody knows
			self.ledger:judge_choice(backend, message, time);
		end
		self:judge_conversation(message, backend, time);
	end
end

function messages:judge_receiver(message, receiver, stanza, time)
	local expected = message.receiver;
	if expected and receiver.backend and expected.jid ~= receiver.jid and self:was_reformatted(message) then
		expected, message.receiver = nil, nil;
		self.reformatted = self.reformatted + 1;
	end
	if stanza.attr.to ~= receiver.jid or stanza.attr.id ~= message.id or (stanza.attr.type or "normal") ~= message.type
		or expected and expected.jid ~= receiver.jid or not expected and not receiver.backend then
		self.ledger:found("misdelivered", "message %s arrived with %s as %s, and was for %s", describe(message), receiver.jid,
			stanza:top_tag(), expected and expected.jid or "a backend");
	elseif not expected then
		self:judge_backend(message, receiver.backend, time);
	end
end

-- Messages of one writer to one receiver come in the order in which they were sent.
function messages:judge_order(message, receiver)
	local key = message.writer.key;
	local last = receiver.seen[key];
	if last and last > message.number and not message.excuse and message.type ~= "error" then
		self.ledger:found("disordered", "%s arrived with %s after number %d", describe(message), receiver.jid, last);
	end
	receiver.seen[key] = math.max(last or 0, message.number);
end

-- What is written into a message, and into the text of an error that somebody replies with
local function find_note(stanza)
	local note = stanza:get_child("note", NS);
	if note then
		return note.attr.who, note.attr.what;
	end
	local _, _, text = stanza:get_error();
	return (text or ""):match("^said by (.*) (n%d+)$");
end

function messages:find(stanza)
	local who, what = find_note(stanza);
	local writer = self.writers[who];
	return writer and writer.sent[what];
end

-- Which number a backend's message has had, by its id
local function number_of(id)
	return tonumber((id or ""):match("^m(%d+)"));
end

-- An error of the component's or a server's has come back to the writer.
function messages:come_back(writer, stanza, time)
	local id = stanza.attr.id;
	local number = number_of(id);
	local message = number and writer.sent["n"..number];
	if not message or message.id ~= id then
		if not (number and writer.backend and number < writer.first) then -- if so, it is about what the one before has written
			self.ledger:found("misdelivered", "%s came to %s, which has written nothing of that kind", stanza:top_tag(), writer.jid);
		end
		return;
	end
	self.errors = self.errors + 1;
	self:judge_error(message, stanza, time);
	message.came_back_as = select(2, stanza:get_error()) or "undefined-condition";
	self:close(message);
end

-- How many stanzas its server must know that a backend that has gone has got
local function acknowledged_for_sure(backend)
	for position = #backend.acknowledged, 1, -1 do
		local acknowledgement = backend.acknowledged[position];
		if acknowledgement.at < backend.left_at - ACKNOWLEDGED_WITHIN then
			return acknowledgement.number;
		end
	end
	return 0;
end

-- Whether a backend has got it, and its server may not know that. In these words mod_smacks alone says so, of a session that is
-- over: it may not have read yet what acknowledges it, however long ago that was sent, nor the client that its session is over.
local function is_unacknowledged(arrival, condition)
	local backend = arrival.backend;
	if not backend then
		return false;
	elseif arrival.is_dead or condition == "recipient-unavailable" then
		return true;
	end
	return not backend.is_online and arrival.number > acknowledged_for_sure(backend);
end

-- (message, condition) -> whether no error may come about it (any more). mod_smacks says of each session to which it was passed on
-- that it is over, if it has not acknowledged it.
local function is_second_word(message, condition)
	local is_of_mod_smacks = message.is_passed_on and condition == "recipient-unavailable";
	return message.type == "error" or not is_of_mod_smacks and (message.came_back_as or message.is_passed_on);
end

-- Nobody who replies with an error has an error of its own replied.
function messages:judge_error(message, stanza, time)
	local ledger, from, arrival = self.ledger, stanza.attr.from, message.arrival;
	local _, condition, text = stanza:get_error();
	if stanza.attr.to ~= message.writer.jid then
		ledger:found("misdelivered", "%s, about %s", stanza:top_tag(), describe(message));
	elseif is_second_word(message, condition) then
		local why = message.type == "error" and "is one" or message.came_back_as and "has come back" or "was passed on";
		ledger:found("doubled", "error about %s, which %s: %s (%s)", describe(message), why, condition, text);
	elseif arrival and not is_unacknowledged(arrival, condition) then
		ledger:found("doubled", "error about %s, which has arrived: %s (%s)", describe(message), condition, text);
	elseif from ~= message.address and from ~= bare(message.address) and not self:was_reformatted(message) then
		ledger:found("wrong_address", "error about %s came from %s", describe(message), from);
	elseif arrival or message.is_passed_on then
		self.unacknowledged = self.unacknowledged + 1;
	else
		self:judge_refusal(message, text, time);
	end
end

function messages:judge_refusal(message, text, time)
	local ledger, since = self.ledger, message.sent - 0.5;
	if not NOBODY[text] or not ledger.target or ledger.target_since > since - 2 or not ledger:not_stalled_since(since) then
		return;
	end
	local other = ledger:other_ready(message.writer.backend, time);
	if other then
		ledger:suspect("failed_innocent", time, function () return ledger.was_ready_at(other, time); end,
			"message %s: %s; %s was ready", describe(message), text, other.jid);
	end
end

-- Whether it was for a resource that has gone, and its server gave it to the account's other ones, each of which gets it
-- (RFC 6121, section 8.5.3.2.1)
local function was_passed_on(message, receiver, stanza)
	local expected, to = message.receiver, stanza.attr.to;
	return not message.arrival and expected and expected.backend and not expected.backend.is_online and to == expected.jid and receiver.jid ~= to
		and bare(receiver.jid) == bare(to) and (message.type == "chat" or message.type == "normal");
end

-- Whether a session that is over has had it come back unacknowledged, and the client reads what it was sent before that only now,
-- as one that is resumed in the middle of a stanza, and closed for that: see is_unacknowledged().
local function is_read_late(message, receiver)
	local expected = message.receiver;
	return message.came_back_as == "recipient-unavailable" and receiver.backend and not (expected and expected.jid ~= receiver.jid);
end

-- (message, receiver) -> whether it has arrived before, or come back
local function is_second(message, receiver)
	return message.arrival or message.is_passed_on or message.came_back_as and not is_read_late(message, receiver);
end

-- What has come back, and is read late, is among the last that its session has got: that one does not go on.
function messages:judge_session(message, receiver, time)
	if message.came_back_as then
		self.ledger:suspect("doubled", time, function () return receiver.backend.is_online; end,
			"message %s arrived with %s, which goes on, and has come back", describe(message), receiver.jid);
	end
end

-- (receiver, stanza, time) -> the message that has come to that writer | nil, if it was none that is known, or not for it
function messages:came(receiver, stanza, time)
	local message = self:find(stanza);
	if not message then
		if stanza.attr.type == "error" and not find_note(stanza) then
			self:come_back(receiver, stanza, time);
		end
		return; -- its writer has gone long ago
	end
	if was_passed_on(message, receiver, stanza) then
		self.passed_on = self.passed_on + 1;
		message.is_passed_on = true;
		self:close(message);
		return;
	end
	local backend = receiver.backend;
	self.arrivals = self.arrivals + 1;
	if is_second(message, receiver) then
		self.ledger:found("doubled", "message %s arrived with %s%s", describe(message), receiver.jid,
			message.arrival and ", and with "..message.arrival.jid or message.is_passed_on and ", and with others" or ", and has come back");
	else
		self:judge_receiver(message, receiver, stanza, time);
		self:judge_address(message, receiver, stanza);
		self:judge_order(message, receiver);
		self:judge_session(message, receiver, time);
	end
	message.arrival = { jid = receiver.jid, backend = backend, number = backend and backend.handled, at = time, is_dead = backend and backend.death };
	self:close(message);
	return message;
end

--
-- The rest
--

function messages:lose(message)
	self:close(message);
	if message.type == "headline" then -- nobody is told what becomes of one
		self.headlines = self.headlines + 1;
	elseif message.excuse then
		self.excused[message.excuse] = (self.excused[message.excuse] or 0) + 1;
	else
		self.ledger:found("lost", "%s message %s, sent %.1f s ago, for %s", message.type, describe(message), now() - message.sent,
			message.receiver and message.receiver.jid or message.addressed and message.addressed.jid or "any backend");
	end
end

-- to be called now and then
function messages:count_lost(time)
	for message in pairs(self.open) do
		if self.ledger:is_overdue(message.sent, MUST_COME_WITHIN, time) then
			self:lose(message);
		end
	end
end

-- Likewise: what can come no more is forgotten.
function messages:forget_ended(time)
	while self.gone[1] and self.gone[1].gone_at + KNOWN_FOR < time do
		self.writers[table.remove(self.gone, 1).key] = nil;
	end
end

-- -> one line
function messages:describe()
	local excused = {};
	for reason, number in pairs(self.excused) do
		table.insert(excused, (", %d %s"):format(number, reason));
	end
	table.sort(excused);
	return ("%d messages, %d arrived, %d came back (%d of them unacknowledged), %d abandoned, %d headlines dropped, %d reformatted, "
		.."%d passed on%s"):format(self.count, self.arrivals, self.errors, self.unacknowledged, self.abandoned, self.headlines,
		self.reformatted, self.passed_on, table.concat(excused));
end

return messages;
