-- What happens, in numbers: for Prosody's statistics, and in all since the start for the status.

local ANSWERS = { "answered", "error" }; -- how a request can end that a backend answers
local SECONDS = { 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 60 };

local metrics = {};
metrics.__index = metrics;

-- (outcomes) -> Prosody's counters by name: one for each outcome, and the others
local function new_counters(outcomes)
	local counters = {
		retries = module:metric("counter", "retries", "",
			"Requests handed to another backend because theirs was gone", {}):with_labels();
		unmatched_answers = module:metric("counter", "unmatched_answers", "",
			"Answers that no request was waiting for, dropped", {}):with_labels();
	};
	local requests = module:metric("counter", "requests", "", "Requests that have ended, by how", { "outcome" });
	for _, list in ipairs { ANSWERS, outcomes } do
		for _, outcome in ipairs(list) do
			counters[outcome] = requests:with_labels(outcome);
		end
	end
	return counters;
end

-- (setup) -> metrics
-- setup: { outcomes (how requests can end that no backend answers), states (those of backends), both lists of names,
--          totals (what a reload carries over of the field below, or nil) }
function metrics.new(setup)
	local self = setmetatable({
		states = setup.states;
		totals = setup.totals or {}; -- by name, to be read only
		counters = new_counters(setup.outcomes);
		answer_time = module:metric("histogram", "answer_time", "seconds", "Time that backends took to answer", {},
			{ buckets = { table.unpack(SECONDS) } }):with_labels(); -- a copy, as Prosody adds +Inf to it
		pending = module:metric("gauge", "pending", "", "Requests that wait for an answer", {}):with_labels();
		backends = module:metric("gauge", "backends", "", "Backends by state", { "state" });
	}, metrics);
	for name in pairs(self.counters) do
		self.totals[name] = self.totals[name] or 0;
	end
	return self;
end

-- (name): an outcome, "retries" or "unmatched_answers" has happened once more.
function metrics:count(name)
	local totals = self.totals;
	totals[name] = totals[name] + 1;
	self.counters[name]:add(1);
end

-- (outcome, seconds): a backend's answer is delivered, "answered" or "error".
function metrics:count_answer(outcome, seconds)
	local totals = self.totals;
	totals[outcome] = totals[outcome] + 1;
	self.counters[outcome]:add(1);
	self.answer_time:sample(seconds);
end

-- (pending, states): how many requests there are now, and how many backends, by state
function metrics:set_gauges(pending, states)
	for _, state in ipairs(self.states) do
		self.backends:with_labels(state):set(states[state] or 0);
	end
	self.pending:set(pending);
end

return metrics;
