-- The states of backends, by the names that operators see, and the pool's state for each of them.

local IN_POOL = { ready = "ready", suspended = "suspended", hibernating = "away", draining = "away", excluded = "away" };

local states = {};

states.NAMES = { "ready", "suspended", "hibernating", "draining", "excluded" };

-- (record, is_wanted, is_in_doubt) -> the name of a backend's state
-- record: see backends.lua; is_wanted: whether it may serve; is_in_doubt: whether its session may be over
function states.of(record, is_wanted, is_in_doubt)
	if not is_wanted then
		return "excluded";
	elseif record.is_drained or record.priority < 0 then
		return "draining";
	elseif record.is_hibernating then
		return "hibernating";
	end
	return (record.is_suspended or is_in_doubt) and "suspended" or "ready";
end

-- (state) -> the pool's state for it: "ready", "suspended" or "away"
function states.in_pool(state)
	return IN_POOL[state];
end

return states;
