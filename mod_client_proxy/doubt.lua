-- Backends in doubt: their sessions may be over though nobody has said so.
--
-- The target is asked for its presence at once, and that decides (RFC 6121 section 4.3). A backend whose presence comes
-- is there. One whose presence does not come within seconds has gone, unless nothing at all comes from the target's
-- server meanwhile: that says nothing about a single backend, and all of them stay in doubt.
--
-- Backends that are doubted at the same time share a round: one question to the target, and the timers that belong to it.

local timers = module:require "timers";

local now = require "util.time".monotonic;

local CONFIRMED_WITHIN = 3; -- seconds
local TOGETHER_WITHIN = 0.5; -- seconds, in which the presence of all backends comes, as a rule
local LONGEST_PAUSE = 30; -- seconds
local GAP = 1; -- seconds: if nothing comes for so long, all presence has come that was on its way

local doubt = {};
doubt.__index = doubt;

local set_look_timer;

-- (setup) -> doubt
-- setup: { server (the target's), subscription (which is asked for the presence of all backends),
--          records (by backend, to be read only), events: where lists of backends are told of, "doubt-raised": these
--          are in doubt from now on, "doubt-settled": these still are, though the presence of others has come,
--          "backends-lost": these have gone }
function doubt.new(setup)
	return setmetatable({
		server = setup.server, subscription = setup.subscription, records = setup.records, events = setup.events;
		decisions = timers.new(); -- by round: until its members are taken for gone, or asked for again
		looks = timers.new(); -- by round: until others are looked for whose presence has not come either
		rounds = {}; -- those that are under way: { [round] = true }
		round_of = {}; -- by backend in doubt: the round that is about it
		open = nil; -- the round that others can still join, if any
	}, doubt);
end

-- Whether any backend is in doubt
function doubt:any()
	return next(self.round_of) ~= nil;
end

-- (backend) -> whether it is in doubt
function doubt:has(backend)
	return self.round_of[backend] ~= nil;
end

-- The backend leaves its round. -> that round | nil: it was in none
local function leave(self, backend)
	local round = self.round_of[backend];
	if round then
		self.round_of[backend] = nil;
		round.count = round.count - 1;
	end
	return round;
end

local function members_of(self, round)
	local members = {};
	for backend, its_round in pairs(self.round_of) do
		if its_round == round then
			table.insert(members, backend);
		end
	end
	return members;
end

local function finish(self, round)
	self.open = self.open ~= round and self.open or nil;
	self.rounds[round] = nil;
	self.decisions:stop(round);
	self.looks:stop(round);
end

-- The backend joins the round, and leaves the one that it was in, if any. A round that no backend is left in ends.
local function join(self, round, backend)
	local before = leave(self, backend);
	self.round_of[backend] = round;
	round.count = round.count + 1;
	if before and before.count == 0 then -- and thus another round than this
		finish(self, before);
	end
end

local function conclude(self, round)
	local members = members_of(self, round);
	for _, backend in ipairs(members) do
		leave(self, backend);
	end
	finish(self, round);
	self.events.fire_event("backends-lost", members);
end

local function set_timer(self, round, seconds)
	self.decisions:allow(round, seconds, function ()
		if now() < round.moved_at + GAP then
			set_timer(self, round, GAP);
			return;
		end
		round.pause = math.min(round.pause * 2, LONGEST_PAUSE);
		set_timer(self, round, round.pause); -- already now, as an error in another module's handler would end this here
		if self.server:has_been_heard_since(round.heard) then
			conclude(self, round);
		else
			self.subscription:check();
		end
	end);
end

-- -> a list of the backends whose presence has not come, and that are not in doubt yet
local function find_missing(self, round)
	local missing = {};
	for backend in pairs(self.records) do
		if not round.seen[backend] and not self.round_of[backend] then
			table.insert(missing, backend);
		end
	end
	return missing;
end

-- The target was asked for the presence of all backends. When that of some has come, those are doubted whose has not.
local function look_around(self, round)
	self.open = self.open ~= round and self.open or nil;
	if not next(round.seen) then
		set_look_timer(self, round);
		return;
	end
	round.is_settled = true;
	local members, missing = members_of(self, round), find_missing(self, round);
	if round.count == 0 then
		finish(self, round);
	end
	self.events.fire_event("doubt-settled", members);
	self:raise(missing); -- last of all, as an error in another module's handler would end this here
end

function set_look_timer(self, round)
	self.looks:set(round, TOGETHER_WITHIN, function ()
		look_around(self, round);
	end);
end

local function start_round(self)
	local round = { pause = CONFIRMED_WITHIN, heard = self.server:heard_so_far(), seen = {}, moved_at = -math.huge, count = 0 };
	self.rounds[round], self.open = true, round;
	set_timer(self, round, round.pause);
	set_look_timer(self, round);
	return round;
end

-- Whether these backends can join the round: not if the presence of one of them has come since it began, because that
-- was before there was reason to doubt it now.
local function can_join(round, backends)
	for _, backend in ipairs(backends) do
		if round.seen[backend] then
			return false;
		end
	end
	return true;
end

-- (backends): a list, which may be empty. These are in doubt from now on; for those that were already, it begins anew.
function doubt:raise(backends)
	if not backends[1] or self.decisions.is_retired then
		return;
	end
	local round = self.open and can_join(self.open, backends) and self.open or start_round(self);
	for _, backend in ipairs(backends) do
		join(self, round, backend);
	end
	self.events.fire_event("doubt-raised", backends);
	self.subscription:check();
end

-- (backend) -> whether it is still in doubt though the presence of others has come
function doubt:is_settled(backend)
	local round = self.round_of[backend];
	return round ~= nil and round.is_settled == true;
end

-- (backend): its presence has come. -> whether it was in doubt
function doubt:confirm(backend)
	for round in pairs(self.rounds) do
		if not round.seen[backend] then
			round.seen[backend], round.moved_at = true, now();
		end
	end
	local round = leave(self, backend);
	if round and round.count == 0 and round.is_settled then
		finish(self, round);
	end
	return round ~= nil;
end

-- (backend): it is in doubt no longer, as it has answered, or gone. -> whether it was
function doubt:forget(backend)
	local round = leave(self, backend);
	if round and round.count == 0 then
		finish(self, round);
	end
	return round ~= nil;
end

-- -> what a reload has to carry over, a list of backends
function doubt:save()
	local backends = {};
	for backend in pairs(self.round_of) do
		table.insert(backends, backend);
	end
	return backends;
end

-- To be called when the module goes, whether it is reloaded or not. Something that it was in the middle of may go
-- on after that, but raises no doubt any more.
function doubt:retire()
	self.decisions:retire();
	self.looks:retire();
end

return doubt;
