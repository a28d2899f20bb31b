-- Whether a backend is alive, which a ping asks it (XEP-0199).
--
-- A backend is suspended when a request has timed out, or the operator asks, and the backend itself then
-- leaves a ping unanswered. A time-out alone is not enough, as it can be the requester's doing: anybody can
-- ask what no backend answers. From then on, the backend is pinged again after growing pauses.
--
-- A sign of life ends that: an answer that only the backend can have sent, be it to a ping or to a request.
-- If a server may have sent it, the backend's presence has to come as well: about a session that it does not
-- have, a server says the same as a client without XEP-0199 about a ping.

local kinds = module:require "kinds";
local timers = module:require "timers";

local new_id = require "util.id".medium;
local now = require "util.time".monotonic;
local st = require "util.stanza";

local PATIENCE = 1; -- seconds until the second ping, when the first counts as unanswered; later pauses are twice as long each
local CALM = 1; -- seconds after a sign of life before the backend is pinged for a new reason
local LONG_CALM = 10; -- likewise, if that sign of life was presence for which all backends had to be asked
local LONGEST_PAUSE = 5 * 60;

local health = {};
health.__index = health;

-- (saved, events) -> health
-- saved: what save() returned before a reload, or nil; events: where "backend-silent" is fired with a backend that has
-- not answered its first ping
function health.new(saved, events)
	return setmetatable({
		events = events;
		timers = timers.new(); -- by check: until the next ping
		-- by backend: { id (what the ids of its pings begin with), count (of its pings), pause (seconds until the next
		-- one), is_silent (whether the first was not answered), is_answered (whether one was, perhaps by a server) }
		checks = saved and saved.checks or {};
		calm_until = saved and saved.calm_until or {}; -- by backend, on the clock of util.time
	}, health);
end

local function send_ping(check, backend)
	check.count = check.count + 1;
	module:send(st.iq({ type = "get", id = check.id..check.count, from = module.host, to = backend })
		:tag("ping", { xmlns = "urn:xmpp:ping" }));
end

local function set_timer(self, check, backend)
	self.timers:allow(check, check.pause, function ()
		check.pause = math.min(check.pause * 2, LONGEST_PAUSE);
		set_timer(self, check, backend); -- already now, as an error in another module's handler would end this here
		if not check.is_silent and not check.is_answered then
			check.is_silent = true;
			self.events.fire_event("backend-silent", backend);
		end
		if self.checks[backend] == check then
			send_ping(check, backend);
		end
	end);
end

local function start_pinging(self, check, backend)
	set_timer(self, check, backend);
	send_ping(check, backend);
end

-- Whether any backend is being asked
function health:any()
	return next(self.checks) ~= nil;
end

-- -> the check of the backend, made if there is none, whose pings have yet to begin | nil if they have begun
local function new_check(self, backend)
	local check = self.checks[backend] or { id = new_id(), count = 0, pause = PATIENCE, is_silent = false };
	if check.count > 0 or self.timers.is_retired then
		return nil;
	end
	self.checks[backend] = check;
	self.timers:stop(check);
	return check;
end

-- (backend): pings it until it answers or is forgotten, unless that is under way.
function health:check(backend)
	local check = new_check(self, backend);
	if check then
		start_pinging(self, check, backend);
	end
end

-- (backend): there is reason to think that it is not alive. It is checked, after a while if it has just shown that it is.
function health:suspect(backend)
	local calm = (self.calm_until[backend] or 0) - now();
	if calm <= 0 then
		return self:check(backend);
	end
	local check = new_check(self, backend);
	if check then
		self.timers:set(check, calm, function ()
			start_pinging(self, check, backend);
		end);
	end
end

-- (stanza) -> whether it is the answer to a ping, be it the backend's own or a server's
function health:is_answer(stanza)
	local attr = stanza.attr;
	local check = self.checks[attr.from];
	return check ~= nil and attr.id ~= nil and attr.to == module.host and kinds.IS_ANSWER[attr.type] == true
		and attr.id:sub(1, #check.id) == check.id;
end

-- (backend): it has answered a ping, or its server has in its place: its presence is to tell.
function health:answered(backend)
	self.checks[backend].is_answered = true;
end

-- Ends the check of a backend. -> whether there was one
local function end_check(self, backend)
	local check = self.checks[backend];
	self.checks[backend] = nil;
	if check then
		self.timers:stop(check);
	end
	return check ~= nil;
end

-- (backend): it has sent what nobody else can have sent. -> whether it was being asked
function health:alive(backend)
	local was_in_question = end_check(self, backend);
	if was_in_question then
		self.calm_until[backend] = now() + CALM;
	end
	return was_in_question;
end

-- (backend, was_asked_for): its presence has come, because it was asked for or by itself. -> whether it was being asked,
-- and this shows that it is alive. Presence that comes by itself is trusted for a shorter time: when a cluster of
-- servers falls apart, presence comes from all parts of it.
function health:present(backend, was_asked_for)
	local check = self.checks[backend];
	if not check or not check.is_answered then
		return false;
	end
	self.calm_until[backend] = now() + (was_asked_for and LONG_CALM or CALM);
	return end_check(self, backend);
end

-- (backend): it has gone, or hibernates: nothing more is asked of it.
function health:forget(backend)
	self.calm_until[backend] = nil;
	end_check(self, backend);
end

-- -> what a reload has to carry over; retire() is yet to be called
function health:save()
	return { checks = self.checks, calm_until = self.calm_until };
end

-- To be called when the module goes, whether it is reloaded or not. After that, something may go on that the reload has
-- interrupted, but no check begins: the next instance has the same table of checks, and would take it for one of its own.
function health:retire()
	self.timers:retire();
end

-- Goes on with what a reload has carried over.
function health:start()
	local backends = {};
	for backend in pairs(self.checks) do
		table.insert(backends, backend);
	end
	for _, backend in ipairs(backends) do
		local check = self.checks[backend]; -- nil if the ping of another one has ended it meanwhile
		if check and not self.timers:is_running(check) and not self.timers.is_retired then
			start_pinging(self, check, backend);
		end
	end
end

return health;
