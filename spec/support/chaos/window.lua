-- For chaos: how much one party has under way. There are so many things at the same time that have been begun not
-- long ago; those that take long make room for others.

local SLOW = 0.3; -- seconds after which a thing is not one of these any more

local window = {};
window.__index = window;

-- () -> window
function window.new()
	return setmetatable({ quick = {}, first = 1, last = 0, count = 0 }, window);
end

-- (thing): it has begun now, at thing.sent, and goes on until over(thing) is called.
function window:add(thing)
	self.last, self.count = self.last + 1, self.count + 1;
	self.quick[self.last] = thing;
	thing.window = self;
end

local function leave(thing)
	thing.window.count = thing.window.count - 1;
	thing.window = nil;
end

-- (thing): it is over, if it was in a window.
function window.over(thing)
	if thing.window then
		leave(thing);
	end
end

-- (time) -> how many have been begun not long ago, and are not over
function window:count_quick(time)
	local quick = self.quick; -- in the order in which they began
	local thing = quick[self.first];
	while thing and (not thing.window or thing.sent < time - SLOW) do
		window.over(thing);
		quick[self.first] = nil;
		self.first = self.first + 1;
		thing = quick[self.first];
	end
	return self.count;
end

return window;
