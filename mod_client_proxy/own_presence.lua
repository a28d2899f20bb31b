-- The proxy's own presence, for the target: the proxy is available as long as it can serve.

local send_presence = module:require "send_presence";

local st = require "util.stanza";

local own_presence = {};
own_presence.__index = own_presence;

-- (setup) -> own presence
-- setup: { target (the prepared bare JID), pool, saved (what save() returned before a reload, or nil) }
function own_presence.new(setup)
	local saved = setup.saved or { is_watched = false, was_serving = false };
	return setmetatable({
		target = setup.target, pool = setup.pool;
		is_watched = saved.is_watched; -- whether the target is subscribed to it
		was_serving = saved.was_serving; -- what the pool said the last time, as only changes are told
	}, own_presence);
end

local function send(to, type)
	send_presence(st.presence({ from = module.host, to = to, type = type }));
end

local function send_current(self, to)
	send(to, not self.pool:serves() and "unavailable" or nil);
end

-- The target wants to see it.
function own_presence:subscribe()
	self.is_watched = true;
	send(self.target, "subscribed");
	send_current(self, self.target);
end

-- The target wants to see it no longer.
function own_presence:unsubscribe()
	self.is_watched = false;
	send(self.target, "unavailable");
end

-- (from): the target's server asks for it, which it does for those who are subscribed.
function own_presence:probe(from)
	self.is_watched = true;
	send_current(self, from);
end

-- Tells the target whether the proxy can serve, if that has changed.
function own_presence:update()
	if self.was_serving ~= self.pool:serves() then
		self.was_serving = not self.was_serving;
		if self.is_watched then
			send_current(self, self.target);
		end
	end
end

-- To be called when the module goes for good.
function own_presence:stop()
	if self.is_watched and self.was_serving then
		send(self.target, "unavailable");
	end
end

-- -> what a reload has to carry over
function own_presence:save()
	return { is_watched = self.is_watched, was_serving = self.was_serving };
end

return own_presence;
