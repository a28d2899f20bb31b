-- The deadlines of what is pending, with one timer, which is set for the earliest. A request whose deadline has passed
-- is answered with an error.

local slices = module:require "slices";
local timers = module:require "timers";

local now = require "util.time".monotonic;

local deadlines = {};
deadlines.__index = deadlines;

local expire;

local function set_timer(self)
	local due = self.pending:deadline();
	self.due = due;
	if due then
		self.timers:set("expire", math.max(0, due - now()), function () expire(self); end);
	else
		self.timers:stop("expire");
	end
end

function expire(self)
	local time = now();
	set_timer(self); -- already now, as an error in another module's handler would end this here
	for _ = 1, slices.SIZE do
		local requester, service, id, backend = self.pending:expire(time);
		if not requester then
			break;
		end
		self.failures:fail(requester, service, id, "timeout");
		if self.timers.is_retired then -- by a reload in the middle of this: the rest is the next instance's
			return;
		end
		self.on_late(backend);
	end
	set_timer(self);
end

-- (setup) -> deadlines, which goes on with what a reload has carried over
-- setup: { pending, failures, on_late(backend): called when an answer of this backend has not come in time, nil: nothing is }
function deadlines.new(setup)
	local self = setmetatable({
		pending = setup.pending, failures = setup.failures, on_late = setup.on_late or function () end;
		timers = timers.new();
		-- When the timer fires, on the clock of util.time, or nil. That need not be the first deadline that the pending
		-- table has now: the one that it was set for may have been settled.
		due = nil;
	}, deadlines);
	set_timer(self);
	return self;
end

-- (deadline): a request that has this one was added. It can be the first of all: a reload may have shortened the timeout.
function deadlines:watch(deadline)
	local due = self.due;
	if not due or deadline < due then
		set_timer(self);
	end
end

-- To be called when the module goes, whether it is reloaded or not.
function deadlines:retire()
	self.timers:retire();
end

return deadlines;
