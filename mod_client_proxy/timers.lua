-- Timers, each known by a key, that end with the module. By itself, Prosody would keep a timer, and with it the whole
-- instance, in memory until it is due, though the module has been reloaded or unloaded.

local timers = {};
timers.__index = timers;

-- () -> timers
function timers.new()
	return setmetatable({
		running = {}; -- by key: Prosody's timer
		is_retired = false;
	}, timers);
end

-- (key, seconds, callback): calls it once, after these seconds. A timer with this key that still runs is stopped
-- before. After retire(), this does nothing else.
-- key: anything but nil
function timers:set(key, seconds, callback)
	self:stop(key);
	if self.is_retired then
		return;
	end
	self.running[key] = module:add_timer(seconds, function ()
		self.running[key] = nil; -- before the call, which may set it anew
		callback();
	end);
end

-- (key, seconds, callback): likewise, for what is given so many seconds to come. If Prosody itself has stood still
-- meanwhile, as on a disk that does not answer, what has come is read before the callback is called.
function timers:allow(key, seconds, callback)
	self:set(key, seconds, function ()
		self:set(key, 0, callback);
	end);
end

-- (key): stops it, if there is one
function timers:stop(key)
	local timer = self.running[key];
	if timer then
		self.running[key] = nil;
		timer:stop();
	end
end

-- (key) -> whether it is yet to be called
function timers:is_running(key)
	return self.running[key] ~= nil;
end

-- Stops all of them, and sets none any more. To be called when the module goes, whether it is reloaded or not:
-- something that it was in the middle of may go on after that.
function timers:retire()
	self.is_retired = true;
	for key in pairs(self.running) do
		self:stop(key);
	end
end

return timers;
