-- For chaos: what was asked and what came back. It is kept from what requesters and backends themselves
-- see and do, and trusts neither the component nor what the backends answer.
--
-- An answer is right if it comes once, to who asked, from the address asked, and,
-- if a backend made it, with what that backend was sent. What a requester had
-- under way when it disconnected is closed in the ledger before it does, so that
-- what Prosody then has nobody to deliver to counts neither way.
--
-- What there is to know of messages is in messages.lua, of requests that backends send in backend_requests.lua, of directed
-- presence in presence.lua, and of watchers in watching.lua.
--
-- The other rules depend on what was the case when the component decided. This process sees that
-- later than the component, and in another order. What may have been right does not count.

local backend_requests = require "spec.support.chaos.backend_requests";
local messages = require "spec.support.chaos.messages";
local presence = require "spec.support.chaos.presence";
local window = require "spec.support.chaos.window";
local now = require "socket".gettime;

local ledger = {};
ledger.__index = ledger;

local NS = "urn:example:chaos";
local MUST_COME_WITHIN = 12; -- seconds: the longest timeout there is, and 10
local HUNG_IS_KNOWN_AFTER = 5; -- seconds since it let a request time out: the longest timeout, and 3
local DRAINED_IS_KNOWN_AFTER = 2; -- seconds since the command has ended; likewise the target that a reload changed
local ALL_IS_SEEN_AFTER = 1.5; -- seconds
local DEATH_IS_KNOWN_AFTER = 2; -- seconds since its server has answered a request in its name for the first time
local FEW = 3; -- bursts of requests that a dead backend may get even after that
local BURST = 0.1; -- seconds: what was on its way when the first one was refused
local READY_FOR = 6; -- seconds that a backend must have been without fault to be ready for sure
local THERE_FOR = 3; -- seconds that it must have been there

-- What must never happen: { name, how it is called }
ledger.never = {
	{ "lost", "lost" };
	{ "doubled", "doubled" };
	{ "misdelivered", "misdelivered" };
	{ "wrong_address", "from a wrong address" };
	{ "failed_innocent", "failed innocent" }; -- an error though the backend was there all the time
	{ "given_to_hung", "given to the hung" }; -- a request for a backend that answers nothing, though another was ready
	{ "given_to_dead", "given to the dead" }; -- likewise for one that is gone, but for the few that it takes to find out
	{ "given_to_drained", "given to the drained" };
	{ "given_to_wrong_target", "given to the wrong target" };
	{ "disordered", "out of order" }; -- messages from one to another
	{ "strayed", "strayed" }; -- messages that went elsewhere than the others of their conversation
	{ "unended", "unended" }; -- presence that somebody goes on to believe though it is over
	{ "ended_twice", "ended twice" }; -- likewise that ends for somebody who does not believe it
	{ "watched_wrong", "watched wrong" }; -- watchers who believe what is not so
	{ "told_twice", "told twice" }; -- likewise who are told what they believe
	{ "failed_commands", "failed commands" }; -- of the operator: a reload, say
};

-- These say nothing about the backend: it took too long, or there was too much.
local NO_FAULT = { ["remote-server-timeout"] = true, ["resource-constraint"] = true };

-- () -> ledger
function ledger.new()
	local self = setmetatable({
		requests = 0, answers = 0, errors = 0, open = 0, open_excused = 0, abandoned = 0, excused = 0;
		requesters = {}; -- those that are connected, by JID
		backends = {}; -- those that are online, by JID: see backends.lua
		target = nil; -- the bare JID, nil while it is being changed
		target_since = 0;
		configured_at = 0; -- when a reload with other options has ended, math.huge until then
		stalls = 0, stalled_at = 0; -- when this process, or what it waited for, has taken too long
		suspicions = {}; -- to be looked at again when all has been seen: { at, holds, name, what }
		told = {}; -- what was found, in words
	}, ledger);
	for _, column in ipairs(ledger.never) do
		self[column[1]] = 0;
	end
	self.messages, self.backend_requests, self.presence = messages.new(self), backend_requests.new(self), presence.new(self);
	return self;
end

-- Remembers what has become of a backend, to explain what is found later.
function ledger.note(_, backend, what)
	backend.notes = backend.notes or {};
	table.insert(backend.notes, { at = now(), what = what });
end

-- What has become of a backend lately, in words
local function notes_on(backend)
	local list, notes = {}, backend.notes or {};
	for position = math.max(1, #notes - 7), #notes do
		table.insert(list, ("%s %.1f s ago"):format(notes[position].what, now() - notes[position].at));
	end
	return table.concat(list, ", ");
end

function ledger:found(name, what, ...)
	self[name] = self[name] + 1;
	if self[name] <= 10 then
		table.insert(self.told, name..": "..what:format(...));
	end
end

-- (name, time, holds, what, ...): this counts as found if holds() is still true when this process has seen all that
-- was under way at `time`.
function ledger:suspect(name, time, holds, ...)
	table.insert(self.suspicions, { at = time + ALL_IS_SEEN_AFTER, holds = holds, name = name, what = table.pack(...) });
end

-- How many requests, messages, requests of backends, or directed presences there have been, of which there have been the fewest
function ledger:least()
	return math.min(self.requests, self.messages.count, self.backend_requests.count, self.presence.count);
end

-- How often what must never happen has happened
function ledger:violations()
	local sum = 0;
	for _, column in ipairs(ledger.never) do
		sum = sum + self[column[1]];
	end
	return sum;
end

--
-- Requests
--

-- request: { id, requester, address, sent (the time), is_excused: whether it may stay unanswered }
function ledger:sent(request)
	self.requests, self.open = self.requests + 1, self.open + 1;
	self.open_excused = self.open_excused + (request.is_excused and 1 or 0);
	request.arrivals = {}; -- at backends: { backend, at, bounce (what a server then said of it, as it was dead) }
	local requester = request.requester;
	requester.open[request.id] = request;
	requester.open_count = requester.open_count + 1;
	requester.asked[request.id] = true;
end

function ledger:close(request)
	local requester = request.requester;
	requester.open[request.id] = nil;
	requester.open_count = requester.open_count - 1;
	window.over(request);
	self.open = self.open - 1;
	self.open_excused = self.open_excused - (request.is_excused and 1 or 0);
end

-- to be called before a requester disconnects
function ledger:abandon(requester)
	for _, request in pairs(requester.open) do
		self:close(request);
		self.abandoned = self.abandoned + 1;
	end
	self.messages:leave(requester.writer, now());
	self.backend_requests:leave(requester.writer);
	self.requesters[requester.jid] = nil;
end

-- to be called now and then: closes requests that should have been answered long ago
function ledger:count_lost(requester, time)
	for _, request in pairs(requester.open) do
		if self:is_overdue(request.sent, MUST_COME_WITHIN, time) then
			self:close(request);
			if request.is_excused then
				self.excused = self.excused + 1;
			else
				self:found("lost", "%s of %s, which %d backends had", request.id, requester.jid, #request.arrivals);
			end
		end
	end
end

--
-- What backends get
--

-- Whether it was online, and not hung, from that time until now
local function was_well_since(backend, time)
	return backend.online_since and backend.online_since < time and not backend.hung
		and backend.last_hung < time and not (backend.connection and backend.connection.closed);
end

-- to be called as long as that is so
function ledger:stalled(time)
	if time > self.stalled_at + 1 then
		self.stalls = self.stalls + 1;
	end
	self.stalled_at = time;
end

function ledger:not_stalled_since(time)
	return self.stalled_at < time;
end

-- (sent, seconds, time) -> whether what was sent then, and has not come, has had so many seconds since, and none of them in a stall
function ledger:is_overdue(sent, seconds, time)
	return time > math.max(sent, self.stalled_at) + seconds;
end

local function is_ready_for_sure(backend, time)
	return was_well_since(backend, time - THERE_FOR) and backend.last_hung < time - READY_FOR;
end

-- A backend that lets a request time out is suspended for a moment, even if it answers all others. One whose
-- answer its server may have given is in doubt for a moment.
function ledger.was_ready_at(backend, time)
	return math.abs(backend.last_timeout - time) > 2 and math.abs(backend.last_doubted - time) > 1
		and is_ready_for_sure(backend, time);
end

local was_ready_at = ledger.was_ready_at;

-- Whether there is one, other than `backend`, that is ready for sure
function ledger:other_ready(backend, time)
	for _, other in pairs(self.backends) do
		if other ~= backend and other.target == self.target and other.is_sound and not other.may_be_drained
			and was_ready_at(other, time) then
			return other;
		end
	end
end

function ledger:judge_hung(backend, request, time)
	local hung = backend.hung;
	if not (hung and hung.is_deaf and hung.timed_out and self.target and hung.timed_out > self.target_since
		and time > hung.timed_out + HUNG_IS_KNOWN_AFTER
		and self:not_stalled_since(time - READY_FOR)) then
		return;
	end
	local other = self:other_ready(backend, time);
	if other then
		self:suspect("given_to_hung", time, function () return was_ready_at(other, time); end,
			"%s to %s, hung for %.1f s, known for %.1f s; %s was ready; %s", request.id, backend.jid, time - hung.since,
			time - hung.timed_out, other.jid, notes_on(backend));
	end
end

-- (backend, says, time): its session is over, and nobody has been told. From now on its server says so in
-- its name about each request, or says nothing.
function ledger.died(_, backend, says, time)
	backend.death = { at = time, says = says, visible = nil, arrivals = 0, last_burst = 0 };
end

-- to be called when somebody says in its name that it is there, though it is not, or when what was said may not have been heard
function ledger.told_alive(_, backend)
	backend.death.visible, backend.death.arrivals = nil, 0;
end

function ledger:judge_dead(backend, request, time)
	local death = backend.death;
	if death.says then
		death.visible = death.visible or time;
	end
	local known = death.visible and death.visible + (death.says and DEATH_IS_KNOWN_AFTER or HUNG_IS_KNOWN_AFTER);
	if not (known and time > known and self.target and death.visible > self.target_since
		and self:not_stalled_since(time - READY_FOR)) then
		return;
	end
	local other = self:other_ready(backend, time);
	if other and time > death.last_burst + BURST then
		death.arrivals, death.last_burst = death.arrivals + 1, time;
	end
	if other and death.arrivals > FEW then
		self:suspect("given_to_dead", time, function () return was_ready_at(other, time); end,
			"%s to %s, dead for %.1f s, known for %.1f s; %s was ready; %s", request.id, backend.jid, time - death.at,
			time - death.visible, other.jid, notes_on(backend));
	end
end

-- A session that is resumed gets what it had been sent before.
local function is_new(request, backend, since)
	return request.sent > since or backend.resumed_at < since;
end

function ledger:judge_drained(backend, request, time)
	local known = backend.drained_at and backend.drained_at + DRAINED_IS_KNOWN_AFTER;
	if known and self.target and backend.drained_at > self.target_since and time > known
		and is_new(request, backend, known) and self:not_stalled_since(time - READY_FOR) then
		self:found("given_to_drained", "%s to %s, drained for %.1f s; %s", request.id, backend.jid, time - backend.drained_at,
			notes_on(backend));
	end
end

function ledger:judge_target(backend, request)
	if self.target and backend.target ~= self.target and request.sent > self.target_since + DRAINED_IS_KNOWN_AFTER then
		self:found("given_to_wrong_target", "%s to %s", request.id, backend.jid);
	end
end

-- A backend has got what any other could have been given.
function ledger:judge_choice(backend, request, time)
	if backend.death then
		self:judge_dead(backend, request, time);
	end
	self:judge_hung(backend, request, time);
	self:judge_drained(backend, request, time);
	self:judge_target(backend, request);
end

-- A backend has got a request: whose it is and what it is are told by its payload. -> the request | nil if it is over
function ledger:arrived(backend, query, from, time)
	local requester = self.requesters[query.attr.who];
	if not requester then
		return; -- it has gone
	end
	requester.seen_as[from:match("^[^/]+")] = from;
	local request = requester.open[query.attr.what];
	if request then
		table.insert(request.arrivals, { backend = backend, at = time, bounce = backend.death and backend.death.says });
		self:judge_choice(backend, request, time);
	end
	return request;
end

--
-- What requesters get
--

-- A request has timed out that a backend had got: what the component knows of that backend now
function ledger:note_timeout(request, time)
	for _, arrival in ipairs(request.arrivals) do
		arrival.backend.last_timeout = time;
	end
	local last = request.arrivals[#request.arrivals];
	local death = last and last.backend.death;
	if death and last.at > death.at then
		death.visible = death.visible or time;
	end
	local hung = last and last.backend.hung;
	local since = hung and math.max(hung.since, self.target_since);
	if hung and last.at > since and not (hung.timed_out and hung.timed_out > since) then
		hung.timed_out = time;
	end
end

-- Which backends a request was at, in words
local function way_of(request)
	local stations = {};
	for position, arrival in ipairs(request.arrivals) do
		local backend = arrival.backend;
		stations[position] = ("%s after %.1f s%s"):format(backend.jid, arrival.at - request.sent,
			arrival.bounce and ", dead" or not backend.is_online and ", which has gone" or "");
	end
	return table.concat(stations, "; ");
end

function ledger:judge_failure(request, stanza, condition, time)
	local requester, since = request.requester, request.sent - 0.5;
	if request.is_excused or not self.target or self.target_since > since or not self:not_stalled_since(since)
		or requester.is_blocked or requester.last_blocked > since - 1 then
		return;
	end
	local last = request.arrivals[#request.arrivals];
	if last and last.bounce == condition then
		return; -- it was handed on to one whose death was not known yet
	end
	for _, arrival in ipairs(request.arrivals) do
		local backend = arrival.backend;
		local may_be_handed_on = backend.is_elsewhere and arrival ~= last; -- it can be in doubt though it is there
		if not may_be_handed_on and was_well_since(backend, since) then
			self:suspect("failed_innocent", time, function ()
				return not backend.was_closed_by_server;
			end, "%s of %s, which %s had: %s (%s) after %.1f s; it was at %s", request.id, requester.jid, backend.jid,
				condition, select(3, stanza:get_error()), time - request.sent, way_of(request));
			return;
		end
	end
end

local function is_misdelivered(requester, stanza, query)
	return stanza.attr.to ~= requester.jid or query and (query.attr.who ~= requester.jid or query.attr.what ~= stanza.attr.id);
end

function ledger:unexpected(requester, stanza, query)
	local is_own = requester.asked[stanza.attr.id] and not is_misdelivered(requester, stanza, query);
	self:found(is_own and "doubled" or "misdelivered", "%s", stanza:top_tag());
end

-- -> the condition, if it is an error that no backend made
function ledger:answered(requester, stanza, time)
	local attr, query = stanza.attr, stanza:get_child("query", NS);
	local request = requester.open[attr.id];
	self.answers = self.answers + 1;
	self.errors = self.errors + (attr.type == "error" and 1 or 0);
	if not request then
		return self:unexpected(requester, stanza, query);
	end
	local condition = attr.type == "error" and not query and select(2, stanza:get_error());
	if is_misdelivered(requester, stanza, query) then
		self:found("misdelivered", "%s, with %s of %s", stanza:top_tag(), query and query.attr.what, query and query.attr.who);
	elseif attr.from ~= request.address then
		self:found("wrong_address", "%s, not from %s", stanza:top_tag(), request.address);
	elseif condition == "remote-server-timeout" then
		self:note_timeout(request, time);
	elseif condition and not NO_FAULT[condition] then
		self:judge_failure(request, stanza, condition, time);
	end
	self:close(request);
	return condition;
end

--
-- The rest
--

-- to be called in each turn
function ledger:step(time)
	while self.suspicions[1] and self.suspicions[1].at <= time do
		local suspicion = table.remove(self.suspicions, 1);
		if suspicion.holds() and self:not_stalled_since(time - 2 * ALL_IS_SEEN_AFTER) then
			self:found(suspicion.name, table.unpack(suspicion.what, 1, suspicion.what.n));
		end
	end
end

-- (target): a reload to another target begins (nil), or has ended. Messages to the old one may be lost, as what its server
-- says of them is then a stranger's word.
function ledger:set_target(target, time)
	self.target, self.target_since = target, time;
	self.messages:excuse_until("retargeted", target and time or math.huge);
end

-- -> one line
function ledger:describe()
	local never = {};
	for _, column in ipairs(ledger.never) do
		table.insert(never, ("%d %s"):format(self[column[1]], column[2]));
	end
	return ("%d requests, %d answers (%d errors), %d abandoned, %d excused, %d stalls; %s; %s; %s; %s"):format(
		self.requests, self.answers, self.errors, self.abandoned, self.excused, self.stalls,
		self.messages:describe(), self.backend_requests:describe(), self.presence:describe(), table.concat(never, ", "));
end

return ledger;
