-- Whether a backend is alive, which a ping asks it (XEP-0199).
--
-- What it takes to suspend one: a request has timed out, or the operator asks, and then the backend
-- itself leaves a ping unanswered. A time-out alone does not do, since it is a requester's word:
-- anybody can ask what no backend answers. From then on it is pinged again after growing pauses.
--
-- What ends that is a sign of life: an answer that only the backend can have sent, be it to a ping or to a
-- request. If a server may have said it in its place, as a server says of a session that it has not got
-- what a client without XEP-0199 says of a ping, then it takes the backend's presence as well.

local kinds = module:require "kinds";
local timers = module:require "timers";

local new_id = require "util.id".medium;
local now = require "util.time".monotonic;
local st = require "util.stanza";

local PATIENCE = 1; -- seconds, until an unanswered ping means something
local CALM = 1; -- seconds after a sign of life in which there is no new reason to ask for one
local LONG_CALM = 10; -- likewise if that has taken the presence of all backends
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
	self.timers:set(check, check.pause, function ()
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

-- -> the check of the backend that has yet to begin | nil if it has begun
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

-- Nothing more is asked of it. -> whether something was
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

-- To be called when the module goes, whether it is reloaded or not. Something that it was in the middle of may go
-- on after that: a check that began then would keep the next instance, which has the same ones, from beginning any.
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
		local check = self.checks[backend]; -- which the ping before may have ended
		if check and not self.timers:is_running(check) and not self.timers.is_retired then
			start_pinging(self, check, backend);
		end
	end
end

return health;
