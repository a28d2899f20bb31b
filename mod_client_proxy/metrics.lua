-- What happens, in numbers: for Prosody's statistics, and in all since the start for the status.
--
-- No request costs a call of Prosody's statistics. What has happened is added up, here or (answers, with the times they
-- took) by the core's exchange, and publish() tells Prosody how much more there is than when it was told last.

local ANSWERS = { "answered", "error" }; -- how a request can end that is answered
local DIRECTIONS = { "to_backend", "to_requester" }; -- of messages
-- What can become of a message: sent on, or, as an error that is about another one, sent on; or how it fails
local MESSAGE_OUTCOMES = { "sent", "error", "no_backend", "limited", "refused", "dropped", "unloaded" };
local GAUGES = { -- besides that of the backends: by name, what it is
	pending = "Requests that wait for an answer", max_pending = "As many of them there may be in each direction";
	requesters = "Requesters that are remembered", max_requesters = "As many of them there may be";
	watchers = "Subscriptions to the service's presence, by account and service address";
	watchers_failing = "Entries of the watchers' store that cannot be read or written";
};
local SUM, FIRST_BUCKET = 3, 4; -- where these are among what a source counts

local metrics = {};
metrics.__index = metrics;

-- Adds those of messages to the counters: messages_DIRECTION_OUTCOME.
local function add_messages(counters)
	local messages = module:metric("counter", "messages", "", "Messages, by where they went and what became of them",
		{ "direction", "outcome" });
	for _, direction in ipairs(DIRECTIONS) do
		for _, outcome in ipairs(MESSAGE_OUTCOMES) do
			counters[("messages_%s_%s"):format(direction, outcome)] = messages:with_labels(direction, outcome);
		end
	end
end

-- (outcomes) -> Prosody's counters by name: OUTCOME for each of requests, backend_requests_OUTCOME for each of requests
-- that backends send, and the others
local function new_counters(outcomes)
	local counters = {
		retries = module:metric("counter", "retries", "",
			"Requests handed to another backend because theirs was gone", {}):with_labels();
		unmatched_answers = module:metric("counter", "unmatched_answers", "",
			"Answers that no request was waiting for, dropped", {}):with_labels();
		backends_interrupted = module:metric("counter", "backends_interrupted", "",
			"Times that a backend has ceased to be ready", {}):with_labels();
	};
	local requests = module:metric("counter", "requests", "", "Requests that have ended, by how", { "outcome" });
	local backend_requests = module:metric("counter", "backend_requests", "", "Requests of backends that have ended, by how",
		{ "outcome" });
	for _, list in ipairs { ANSWERS, outcomes } do
		for _, outcome in ipairs(list) do
			counters[outcome] = requests:with_labels(outcome);
			counters["backend_requests_"..outcome] = backend_requests:with_labels(outcome);
		end
	end
	add_messages(counters);
	return counters;
end

local function new_gauges()
	local gauges = {};
	for name, description in pairs(GAUGES) do
		gauges[name] = module:metric("gauge", name, "", description, {}):with_labels();
	end
	return gauges;
end

-- (setup) -> metrics
-- setup: { outcomes (how requests can end that no backend answers), states (those of backends), both lists of names,
--          totals (what a reload carries over: what publish() returned, or nil) }
function metrics.new(setup)
	local self = setmetatable({
		states = setup.states;
		totals = setup.totals or {}; -- by name, as far as they are published
		unpublished = {}; -- by name: what has happened since
		counters = new_counters(setup.outcomes);
		gauges = new_gauges();
		backends = module:metric("gauge", "backends", "", "Backends by state", { "state" });
		source = nil, wants_samples = false; -- see set_source()
	}, metrics);
	-- Where Prosody keeps no statistics, it gives something in place of a metric whose every field is a table.
	self.has_readers = type(self.gauges.pending.set) == "function";
	for name in pairs(self.counters) do
		self.totals[name] = self.totals[name] or 0;
		self.unpublished[name] = 0;
	end
	return self;
end

-- Whether a histogram can be told of many answers at once, which Prosody has no function for: one that keeps sums in
-- these fields until somebody reads them. With util.statsd it has the same fields, but there is nothing to be read: what
-- sample() does not send, nobody gets. One that Prosody has kept since there were other buckets is left alone, too.
local function keeps_sums(histogram, bounds)
	if type(histogram._sum) ~= "number" or type(histogram._count) ~= "number" or type(histogram.iter_samples) ~= "function" then
		return false;
	end
	for i = 1, #bounds + 1 do
		local bucket = histogram[i];
		if type(bucket) ~= "table" or type(bucket.count) ~= "number" or bucket.threshold ~= (bounds[i] or math.huge) then
			return false;
		end
	end
	local read, state = histogram:iter_samples();
	return read(state) ~= nil;
end

-- (source, bounds): answers are counted there from now on. What it has counted before has been published.
-- source:counts() -> how many were "answered", how many "error"; all their times, in seconds; how many took at most
-- bounds[1], how many more than that and at most bounds[2], ..., how many took more than all of these
-- If `wants_samples` is true after that, sample() has to be called for each answer besides, and for none otherwise.
function metrics:set_source(source, bounds)
	self.source = source;
	self.seen = { source:counts() };
	self.answer_time = module:metric("histogram", "answer_time", "seconds", "Time that backends took to answer", {},
		{ buckets = { table.unpack(bounds) } }):with_labels(); -- a copy, as Prosody adds +Inf to it
	self.can_add = self.has_readers and keeps_sums(self.answer_time, bounds);
	self.wants_samples = self.has_readers and not self.can_add;
end

-- (name): what the counter of that name counts has happened once more. Answers to requests are counted by the source.
function metrics:count(name)
	local unpublished = self.unpublished;
	unpublished[name] = unpublished[name] + 1;
end

-- (seconds): Prosody is told of an answer at once.
function metrics:sample(seconds)
	self.answer_time:sample(seconds);
end

-- In a histogram, a bucket also counts what is in those before it.
local function add_times(histogram, counts, seen)
	local answers = 0;
	for i = FIRST_BUCKET, #counts do
		answers = answers + counts[i] - seen[i];
		local bucket = histogram[i - FIRST_BUCKET + 1];
		bucket.count = bucket.count + answers;
	end
	histogram._count = histogram._count + answers;
	histogram._sum = histogram._sum + (counts[SUM] - seen[SUM]);
end

local function take_from_source(self)
	local counts, seen, unpublished = { self.source:counts() }, self.seen, self.unpublished;
	for i, outcome in ipairs(ANSWERS) do
		unpublished[outcome] = unpublished[outcome] + counts[i] - seen[i];
	end
	if self.can_add then
		add_times(self.answer_time, counts, seen);
	end
	self.seen = counts;
end

-- Tells Prosody what has happened since it was told last. -> the totals, by name, which are of this moment
function metrics:publish()
	if self.source then
		take_from_source(self);
	end
	local totals, unpublished = self.totals, self.unpublished;
	for name, number in pairs(unpublished) do
		if number > 0 then
			totals[name] = totals[name] + number;
			unpublished[name] = 0;
			if self.has_readers then
				self.counters[name]:add(number);
			end
		end
	end
	return totals;
end

local function count_at_once(self, name)
	metrics.count(self, name);
	self:publish();
end

-- To be called when the module goes, whether it is reloaded or not. Publishes all there is. What has been begun before
-- may still come to be counted: nobody else publishes that. The source goes on with the next instance, if there is one.
function metrics:retire()
	self:publish();
	self.source = nil;
	self.count = count_at_once;
end

-- (numbers): what there is now, by the names in GAUGES, and `backends`, by state; what is nil is none
function metrics:set_gauges(numbers)
	if not self.has_readers then
		return;
	end
	for _, state in ipairs(self.states) do
		self.backends:with_labels(state):set(numbers.backends and numbers.backends[state] or 0);
	end
	for name, gauge in pairs(self.gauges) do
		gauge:set(numbers[name] or 0);
	end
end

return metrics;
