-- Work that is done in slices, so that Prosody gets to do other things in between, however much there is.

local timers = module:require "timers";

local slices = {};
slices.__index = slices;

-- How many requests are dealt with in one slice, or presences sent
slices.SIZE = 100;

-- (work) -> slices
-- work(): does one slice -> whether there is more
function slices.new(work)
	local self = setmetatable({ work = work, timers = timers.new() }, slices);
	function self.run()
		self.timers:set("next", 0, self.run); -- already now, as an error in another module's handler would end this here
		if not work() then
			self.timers:stop("next");
		end
	end
	return self;
end

-- There is work: from now on it is done, until there is no more. If this is called after retire(), by something that a
-- reload has interrupted, all of it is done at once, as no timer is set any more.
function slices:start()
	if self.timers.is_retired then
		repeat until not self.work();
	elseif not self.timers:is_running("next") then
		self.timers:set("next", 0, self.run);
	end
end

-- To be called when the module goes, whether it is reloaded or not.
function slices:retire()
	self.timers:retire();
end

return slices;
