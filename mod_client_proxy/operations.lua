-- What happens, in numbers: for the metrics, and in all since the start for the status.

-- How a request can end, but for an answer that the backend gives in time
local OUTCOMES = { "answered", "error", "timeout", "no_backend", "backend_gone", "limited", "refused", "unloaded" };
local BACKEND_STATES = { "ready", "suspended", "hibernating", "draining", "excluded" };
local SECONDS = { 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 60 };

local operations = {};

-- (totals) -> the functions below
-- totals: what was counted before a reload, nil at first
function operations.new(totals)
	totals = totals or {};
	local counters = {
		retries = module:metric("counter", "retries", "",
			"Requests handed to another backend because theirs was gone", {}):with_labels();
		unmatched_answers = module:metric("counter", "unmatched_answers", "",
			"Answers that no request was waiting for, dropped", {}):with_labels();
	};
	local requests = module:metric("counter", "requests", "", "Requests that have ended, by how", { "outcome" });
	for _, outcome in ipairs(OUTCOMES) do
		counters[outcome] = requests:with_labels(outcome);
	end
	for name in pairs(counters) do
		totals[name] = totals[name] or 0;
	end
	local answer_time = module:metric("histogram", "answer_time", "seconds",
		"Time that backends took to answer", {}, { buckets = { table.unpack(SECONDS) } }):with_labels(); -- a copy, as Prosody adds +Inf to it
	local pending_gauge = module:metric("gauge", "pending", "", "Requests that wait for an answer", {}):with_labels();
	local backends_gauge = module:metric("gauge", "backends", "", "Backends by state", { "state" });

	-- (name): an outcome, "retries" or "unmatched_answers" has happened once more
	local function count(name)
		totals[name] = totals[name] + 1;
		counters[name]:add(1);
	end

	-- (outcome, seconds): a backend's answer was delivered, "answered" or "error"
	local function count_answer(outcome, seconds)
		count(outcome);
		answer_time:sample(seconds);
	end

	-- (pending, states): how many requests there are now, and how many backends in each state
	local function set_gauges(pending, states)
		for _, state in ipairs(BACKEND_STATES) do
			backends_gauge:with_labels(state):set(states[state] or 0);
		end
		pending_gauge:set(pending);
	end

	return {
		count = count;
		count_answer = count_answer;
		set_gauges = set_gauges;
		totals = totals; -- by name, to be read only
	};
end

return operations;
