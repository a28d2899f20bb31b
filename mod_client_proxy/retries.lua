-- What becomes of requests whose backend will not answer them, or may not have got them: it has gone, it is away (it
-- hibernates or is in doubt), or a stream broke. A get that can be sent again goes to another backend, the others
-- wait or get an error.
--
-- What the pending table has let go is passed on as it came from there, see pending:take(): requester, service, id,
-- backend, added, deadline, retries, stanza (nil if it cannot be sent again).

local slices = module:require "slices";
local timers = module:require "timers";

local now = require "util.time".monotonic;
local st = require "util.stanza";

-- Seconds after a stream has broken, in which an answer may still come by another one
local LOST_AFTER = 4;

local retries = {};
retries.__index = retries;

-- (self, backend, ...): sends what the pending table has let go to that backend. If that is nil, or the request cannot
-- be added for it, the requester gets an error.
local function resend(self, backend, requester, service, id, _, _, deadline, left, stanza)
	if backend and self.hand_over(st.clone(stanza), requester, service, id, now(), deadline, left - 1, backend) then
		self.metrics:count("retries");
	else
		self.failures:fail(requester, service, id, "backend-gone");
	end
end

-- (requester, service, id, gone, added, deadline, left, stanza): what the pending table has let go, because `gone` will
-- not answer it, is sent to another backend. If there is none, or it cannot be sent again, it gets an error.
function retries:retry(requester, service, id, gone, added, deadline, left, stanza)
	local backend = stanza and self.pool:pick(requester, service, self.pending, gone);
	resend(self, backend, requester, service, id, gone, added, deadline, left, stanza);
end

-- Does a slice: tries again what was with backends that have gone. -> whether there is more
local function take_back(self)
	for _ = 1, slices.SIZE do
		local requester, service, id, gone, added, deadline, left, stanza = self.pending:take_abandoned();
		if not requester then
			return false;
		end
		self:retry(requester, service, id, gone, added, deadline, left, stanza);
	end
	return true;
end

-- -> a ready backend for a request that `backend` has: another one if possible, else `backend` itself | nil if none is ready
local function find_ready(self, requester, service, backend)
	local pool = self.pool;
	local other = pool:pick(requester, service, self.pending, backend);
	return other and pool:state(other) == "ready" and other or pool:state(backend) == "ready" and backend or nil;
end

-- (self, backend, added, before) -> whether a get that was added then, for this backend, has to be handed on
-- before: it has to if it was added before that time. If nil, it has to as long as the backend is not ready.
local function is_for_others(self, backend, added, before)
	if before then
		return added < before;
	end
	return self.pool:state(backend) ~= "ready";
end

-- Does a slice: hands on the gets of a backend for which is_for_others() says so, until no backend is ready. A get for
-- which there is no other backend stays where it is, and has no retries any more. -> whether there is more
local function hand_on(self, backend, before)
	local pending = self.pending;
	for _ = 1, slices.SIZE do
		local requester, service, added = pending:first_movable(backend);
		if not requester or not is_for_others(self, backend, added, before) or not self.pool:is_ready() then
			return false;
		end
		local ready = find_ready(self, requester, service, backend);
		if ready then
			resend(self, ready, pending:take_movable(backend));
		else
			pending:fix_movable(backend);
		end
	end
	return true;
end

-- Does a slice: gives up what cannot be sent again, and was with this backend before that time. -> whether there is more
local function give_up_lost(self, backend, before)
	for _ = 1, slices.SIZE do
		local requester, service, id = self.pending:take_fixed(backend, before);
		if not requester then
			return false;
		end
		self.failures:fail(requester, service, id, "lost");
	end
	return true;
end

-- Does a slice of the first errand. -> whether there is more to do
local function run_errand(self)
	local errands = self.errands;
	local errand = errands[errands.first];
	if not errand.work(self, errand.backend, errand.before) then
		errands[errands.first] = nil;
		errands.first = errands.first + 1;
	end
	return errands.first <= errands.last;
end

local function add_errand(self, work, backend, before)
	local errands = self.errands;
	errands.last = errands.last + 1;
	errands[errands.last] = { work = work, backend = backend, before = before };
	self.errand_slices:start();
end

local function on_backend_gone(self, backend)
	self.pending:abandon(backend);
	if self.pending:has_abandoned() then
		self.take_back_slices:start();
	end
end

local function give_up_all_lost(self)
	for backend, time in pairs(self.lost_before) do
		add_errand(self, give_up_lost, backend, time);
	end
	self.lost_before = {};
end

-- What was sent to backends may have been lost, and so may their answers. That goes for all that a backend gets until it
-- is in doubt no longer: then, something has come from it by a stream that works.
local function on_stream_broken(self)
	self.broken_at = now();
	self.timers:set("lost", LOST_AFTER, function () give_up_all_lost(self); end);
end

-- It is in doubt no longer. The gets that it has are sent once more, as the stream that broke may have lost them.
local function on_backend_back(self, backend)
	if now() < self.broken_at + LOST_AFTER then
		self.lost_before[backend] = now();
		add_errand(self, hand_on, backend, now());
	end
end

local function hook(self, events)
	events.add_handler("backend-gone", function (backend) on_backend_gone(self, backend); end);
	events.add_handler("backend-away", function (backend) add_errand(self, hand_on, backend); end);
	events.add_handler("backend-back", function (backend) on_backend_back(self, backend); end);
	events.add_handler("stream-broken", function () on_stream_broken(self); end);
end

-- (setup) -> retries, which goes on with what a reload has carried over
-- setup: { pool, pending, hand_over (see handover.lua), failures, metrics, events (see mod_client_proxy.lua) }
function retries.new(setup)
	local self = setmetatable({
		pool = setup.pool, pending = setup.pending, hand_over = setup.hand_over;
		failures = setup.failures, metrics = setup.metrics;
		-- What is to be done in slices: by number, from `first`, which is next, to `last`: { work, backend, before }. It is a
		-- queue, as there may be one errand for each of very many backends.
		errands = { first = 1, last = 0 };
		broken_at = -math.huge; -- when a stream broke the last time
		lost_before = {}; -- by backend: what it got before that time may be lost; that is when its doubt was over
		timers = timers.new();
	}, retries);
	self.take_back_slices = slices.new(function () return take_back(self); end);
	self.errand_slices = slices.new(function () return run_errand(self); end);
	hook(self, setup.events);
	if self.pending:has_abandoned() then
		self.take_back_slices:start();
	end
	return self;
end

-- To be called when the module goes, whether it is reloaded or not.
function retries:retire()
	self.take_back_slices:retire();
	self.errand_slices:retire();
	self.timers:retire();
end

return retries;
