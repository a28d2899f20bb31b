-- Probes: the target is asked for the presence of all its resources (RFC 6121 section 4.3), as long as it lets the proxy see it.

local timers = module:require "timers";

local now = require "util.time".monotonic;
local st = require "util.stanza";

-- Seconds between one probe and the next. Presence gets lost while a server waits before it tries again to
-- reach ours, up to five minutes by default with some; so it is asked for once more after each of these pauses.
local PAUSE = 1;
local FURTHER = { 2, 8, 32, 128, 300 };

local probes = {};
probes.__index = probes;

-- (target) -> probes
-- target: the prepared bare JID
function probes.new(target)
	return setmetatable({
		target = target;
		is_allowed = false; -- whether the target lets the proxy see its presence, as subscription.lua says
		probed_at = -math.huge; -- when one was sent the last time, on the clock of util.time
		timers = timers.new(); -- "next": until the next one, if it is to be sent; "further": until the next one of FURTHER
	}, probes);
end

local function send(self)
	self.timers:stop("next");
	self.probed_at = now();
	if self.is_allowed then
		module:send(st.presence({ from = module.host, to = self.target, type = "probe" }));
	end
end

-- (delay): sends one after so many seconds, at once if nil, but not too soon after the one before. Calls until then
-- make no more of them.
function probes:ask(delay)
	if not self.is_allowed then
		return;
	end
	delay = math.max(delay or 0, self.probed_at + PAUSE - now());
	if delay <= 0 then
		send(self);
	elseif not self.timers:is_running("next") then
		self.timers:set("next", delay, function () send(self); end);
	end
end

local function ask_further(self, number)
	local pause = FURTHER[number];
	if not pause then
		return;
	end
	self.timers:set("further", pause, function ()
		ask_further(self, number + 1);
		self:ask();
	end);
end

-- Sends one after each of the pauses, the first of which begins now.
function probes:ask_again_and_again()
	ask_further(self, 1);
end

-- To be called when the module goes, whether it is reloaded or not.
function probes:retire()
	self.timers:retire();
end

return probes;
