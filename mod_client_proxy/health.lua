-- Whether a backend is alive, which a ping asks it (XEP-0199).
--
-- What it takes to suspend one: a request has timed out, or the operator asks, and then the backend
-- itself leaves a ping unanswered. A time-out alone does not do, since it is a requester's word:
-- anybody can ask what no backend answers. From then on it is pinged again after growing pauses, and
-- an answer to any of these pings shows that it is alive.

local new_id = require "util.id".medium;
local st = require "util.stanza";

local PATIENCE = 1; -- seconds, until an unanswered ping means something
local LONGEST_PAUSE = 5 * 60;

local health = {};
health.__index = health;

-- (saved, on_silent) -> health
-- saved: what save() returned before a reload, or nil; on_silent(backend): its first ping was not answered
function health.new(saved, on_silent)
	return setmetatable({
		on_silent = on_silent;
		-- by backend: { id (what the ids of its pings begin with), count (of its pings),
		-- pause (seconds until the next one), timer (nil between stop() and start()), is_silent (whether the first was not answered) }
		checks = saved or {};
	}, health);
end

local function send_ping(check, backend)
	check.count = check.count + 1;
	module:send(st.iq({ type = "get", id = check.id..check.count, from = module.host, to = backend })
		:tag("ping", { xmlns = "urn:xmpp:ping" }));
end

local function set_timer(self, check, backend)
	check.timer = module:add_timer(check.pause, function ()
		check.pause = math.min(check.pause * 2, LONGEST_PAUSE);
		set_timer(self, check, backend); -- already now, as an error in another module's handler would end this here
		if not check.is_silent then
			check.is_silent = true;
			self.on_silent(backend);
		end
		if self.checks[backend] == check then
			send_ping(check, backend);
		end
	end);
end

local function stop_timer(check)
	if check.timer then
		check.timer:stop();
		check.timer = nil;
	end
end

local function start_pinging(self, check, backend)
	set_timer(self, check, backend);
	send_ping(check, backend);
end

-- Pings the backend until it answers or is forgotten, unless that is under way.
function health:check(backend)
	if not self.checks[backend] then
		local check = { id = new_id(), count = 0, pause = PATIENCE, is_silent = false };
		self.checks[backend] = check;
		start_pinging(self, check, backend);
	end
end

-- (stanza) -> whether it is the answer to a ping, be it the backend's own or a server's
function health:is_answer(stanza)
	local attr = stanza.attr;
	local check = self.checks[attr.from];
	return check ~= nil and attr.id ~= nil and attr.to == module.host and (attr.type == "result" or attr.type == "error")
		and attr.id:sub(1, #check.id) == check.id;
end

-- The backend is alive, or has gone: nothing more is asked of it.
function health:forget(backend)
	local check = self.checks[backend];
	if check then
		self.checks[backend] = nil;
		stop_timer(check);
	end
end

-- -> what a reload has to carry over; stop() is yet to be called
function health:save()
	return self.checks;
end

-- To be called when the module goes, whether it is reloaded or not
function health:stop()
	for _, check in pairs(self.checks) do
		stop_timer(check);
	end
end

-- Goes on with what a reload has carried over.
function health:start()
	local backends = {};
	for backend in pairs(self.checks) do
		table.insert(backends, backend);
	end
	for _, backend in ipairs(backends) do
		local check = self.checks[backend]; -- which the ping before may have ended
		if check and not check.timer then
			start_pinging(self, check, backend);
		end
	end
end

return health;
