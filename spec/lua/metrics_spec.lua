-- On the statistics of the Prosody that the specs run on: util.statistics, which others read, and util.statsd,
-- which sends everything to a socket of the spec's

local core = require "mod_client_proxy.core";
local fake_module = require "spec.support.module";
local new_pending = require "spec.support.pending".new;
local random = require "spec.support.random";
local socket = require "socket";

local OUTCOMES = { "answered", "error", "timeout", "no_backend", "backend_gone", "limited", "refused", "unloaded" };
local BOUNDS = { 0.5, 2, 8 }; -- exact as floating-point numbers, as are sums of quarters

local module, metrics, exchange;

random.announce("metrics_spec");

-- -> an exchange of the core, with one backend
local function new_exchange()
	local jat, pool = core.jat("proxy.domain.example", "short"), core.pool(("s"):rep(core.POOL_SEEDBYTES));
	local pending, book = new_pending(("s"):rep(core.PENDING_SEEDBYTES));
	jat:add_key(0, ("k"):rep(core.JAT_KEYBYTES));
	pool:add("backend");
	return core.exchange(jat, book, pool, pending);
end

-- (outcome, seconds): the exchange counts an answer that took so long, "answered" or "error".
local function count_answer(outcome, seconds)
	if outcome == "error" then
		exchange:count_error(seconds);
	else
		local backend, address = assert(exchange:dispatch("requester", "service", "id", 0, 0));
		assert(exchange:settle(backend, address, "id", seconds));
	end
end

-- (totals) -> metrics without a source
local function new(totals)
	return module:require "metrics".new {
		outcomes = module:require "failures".OUTCOMES, totals = totals;
		states = module:require "states".NAMES;
	};
end

-- (use_source): a reload as mod_client_proxy.lua does it, after which use_source() gives the new instance its source
-- -> the instance of before
local function reload(use_source)
	local before = metrics;
	local totals = metrics:publish();
	before:retire();
	module = fake_module.new(nil, module);
	metrics = new(totals);
	use_source();
	return before;
end

-- In place of the core's: counts answers with their times, as metrics:set_source wants it
local function new_source()
	local source = { values = { 0, 0, 0, 0, 0, 0, 0 } };
	function source:counts()
		return table.unpack(self.values);
	end
	-- (outcome, seconds): as the slow and obvious way has it
	function source:count(outcome, seconds)
		local values, bucket = self.values, 1;
		values[outcome == "answered" and 1 or 2] = values[outcome == "answered" and 1 or 2] + 1;
		values[3] = values[3] + seconds;
		for _, bound in ipairs(BOUNDS) do
			bucket = bucket + (seconds > bound and 1 or 0);
		end
		values[3 + bucket] = values[3 + bucket] + 1;
	end
	return source;
end

-- (name, ...) -> Prosody's metric with these labels
local function metric(name, ...)
	return module.registry:get_metric_families()[name]:with_labels(...);
end

local function value(name, ...)
	return metric(name, ...).value;
end

-- -> by what Prosody's page shows behind the name: the value, but not the time when it was made
local function shown(name)
	local values = {};
	for suffix, labels, number in metric(name):iter_samples() do
		if suffix and suffix ~= "_created" then
			values[labels and labels.le or suffix] = number;
		end
	end
	return values;
end

-- A histogram that is told of each answer
local function histogram_of(bounds, samples)
	local statistics = require "util.statistics".new().metric_registry;
	local histogram = statistics:histogram("expected", "", "", {}, { buckets = { table.unpack(bounds) } });
	for _, seconds in ipairs(samples) do
		histogram:with_labels():sample(seconds);
	end
	local ours = module.registry;
	module.registry = statistics;
	local expected = shown "expected";
	module.registry = ours;
	return expected;
end

-- The metrics have an exchange as their source.
local function use_exchange()
	exchange = new_exchange();
	metrics:set_source(exchange, core.ANSWER_TIMES);
end

before_each(function ()
	module = fake_module.new();
	metrics = new();
end);

describe("metrics", function ()
	before_each(function ()
		use_exchange();
	end);

	-- As mod_client_proxy.lua does it: there is a new exchange, too.
	local function reload_with_exchange()
		return reload(use_exchange);
	end

	it("has every count from the start, at nought", function ()
		local expected = { retries = 0, unmatched_answers = 0, backends_interrupted = 0 };
		for _, outcome in ipairs(OUTCOMES) do
			assert.equal(0, value("requests", outcome));
			assert.equal(0, value("backend_requests", outcome));
			expected[outcome], expected["backend_requests_"..outcome] = 0, 0;
		end
		for _, direction in ipairs { "to_backend", "to_requester" } do
			for _, outcome in ipairs { "sent", "error", "no_backend", "limited", "refused", "dropped", "unloaded" } do
				assert.equal(0, value("messages", direction, outcome));
				expected[("messages_%s_%s"):format(direction, outcome)] = 0;
			end
		end
		assert.same({ 0, 0, 0 }, { value "retries", value "unmatched_answers", value "backends_interrupted" });
		assert.same(expected, metrics:publish());
	end);

	it("counts, each for itself", function ()
		for _, outcome in ipairs { table.unpack(OUTCOMES, 3) } do
			metrics:count(outcome);
			assert.equal(1, metrics:publish()[outcome]);
			assert.equal(1, value("requests", outcome));
		end
		metrics:count "retries";
		metrics:count "retries";
		metrics:count "unmatched_answers";
		assert.same({ 2, 1 }, { metrics:publish().retries, metrics:publish().unmatched_answers });
		assert.same({ 2, 1 }, { value "retries", value "unmatched_answers" });
	end);

	it("counts answers with the time they took", function ()
		count_answer("answered", 0.25);
		count_answer("answered", 0.001);
		count_answer("error", 1000);
		local totals = metrics:publish();
		assert.same({ 2, 1 }, { totals.answered, totals.error });
		assert.same({ 2, 1 }, { value("requests", "answered"), value("requests", "error") });
		assert.same({
			_count = 3, _sum = 1000.251, ["0.001"] = 1, ["0.003"] = 1, ["0.01"] = 1, ["0.03"] = 1, ["0.1"] = 1, ["0.3"] = 2,
			["1"] = 2, ["3"] = 2, ["10"] = 2, ["30"] = 2, ["60"] = 2, ["+Inf"] = 3,
		}, shown "answer_time_seconds");
	end);

	it("tells Prosody nothing before it publishes", function ()
		metrics:count "timeout";
		count_answer("answered", 0.25);
		assert.same({ 0, 0, 0 }, { value("requests", "timeout"), value("requests", "answered"), shown "answer_time_seconds"._count });
	end);

	it("shows how much there is now", function ()
		local function gauges()
			local values = {
				value "pending", value "max_pending", value "requesters", value "max_requesters", value "watchers", value "watchers_failing",
			};
			for _, state in ipairs { "ready", "suspended", "hibernating", "draining" } do
				table.insert(values, value("backends", state));
			end
			return values;
		end
		metrics:set_gauges {
			pending = 7, max_pending = 8, requesters = 9, max_requesters = 10, watchers = 3, watchers_failing = 1;
			backends = { ready = 2, draining = 1 };
		};
		assert.same({ 7, 8, 9, 10, 3, 1, 2, 0, 0, 1 }, gauges());
		metrics:set_gauges { requesters = 1, backends = { suspended = 1, hibernating = 1 } };
		assert.same({ 0, 0, 1, 0, 0, 0, 0, 1, 1, 0 }, gauges());
		metrics:set_gauges {};
		assert.same({ 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }, gauges());
	end);

	it("goes on counting after a reload", function ()
		metrics:count "timeout";
		count_answer("answered", 0.25);
		reload_with_exchange();
		metrics:count "timeout";
		count_answer("answered", 0.25);
		local totals = metrics:publish();
		assert.same({ 2, 2 }, { totals.timeout, totals.answered });
		assert.same({ 2, 2 }, { value("requests", "timeout"), value("requests", "answered") });
		assert.same({ 2, 0.5 }, { shown "answer_time_seconds"._count, shown "answer_time_seconds"._sum });
	end);

	it("publishes at the end, and then at once what was begun before", function ()
		metrics:count "timeout";
		count_answer("error", 0.25);
		metrics:retire();
		assert.same({ 1, 1, 1 }, { value("requests", "timeout"), value("requests", "error"), shown "answer_time_seconds"._count });
		metrics:count "timeout";
		assert.equal(2, value("requests", "timeout"));
	end);

	it("has what was begun before a reload in the totals after it, once", function ()
		local before = reload_with_exchange();
		before:count "timeout";
		count_answer("answered", 0.25);
		metrics:count "timeout";
		before:publish();
		local totals = metrics:publish();
		assert.same({ 2, 1 }, { totals.timeout, totals.answered });
		assert.same({ 2, 1, 1 }, { value("requests", "timeout"), value("requests", "answered"), shown "answer_time_seconds"._count });
	end);

	it("has buckets of its own for each histogram, which Prosody adds to", function ()
		local histogram, given = module.registry.histogram, {};
		function module.registry:histogram(name, unit, description, label_keys, extra)
			table.insert(given, { table.unpack(extra.buckets) });
			return histogram(self, name, unit, description, label_keys, extra);
		end
		use_exchange();
		use_exchange();
		assert.equal(2, #given);
		assert.same(given[1], given[2]);
		assert.same({ 0.001, 60, 11 }, { given[1][1], given[1][#given[1]], #given[1] });
	end);
end);

describe("metrics of a source", function ()
	local source;

	before_each(function ()
		source = new_source();
	end);

	local function use_source()
		metrics:set_source(source, BOUNDS);
		assert.same({ 0.5, 2, 8 }, BOUNDS);
	end

	it("leave out what it had counted before", function ()
		source:count("answered", 0.25);
		use_source();
		source:count("error", 1);
		local totals = metrics:publish();
		assert.same({ 0, 1 }, { totals.answered, totals.error });
		assert.same(histogram_of(BOUNDS, { 1 }), shown "answer_time_seconds");
	end);

	it("need no samples where others read the sums", function ()
		use_source();
		assert.is_false(metrics.wants_samples);
	end);

	it("are told of each answer where Prosody has a histogram of other buckets, from before", function ()
		module:metric("histogram", "answer_time", "seconds", "", {}, { buckets = { 0.5, 2, 9 } });
		use_source();
		assert.is_true(metrics.wants_samples);
		source:count("answered", 8.5);
		metrics:sample(8.5);
		metrics:publish();
		assert.same({ _count = 1, _sum = 8.5, ["0.5"] = 0, ["2"] = 0, ["9"] = 1, ["+Inf"] = 1 }, shown "answer_time_seconds");
		assert.equal(1, value("requests", "answered"));
	end);

	it("are told of each answer where a histogram keeps something else in such fields", function ()
		local histogram = module.registry.histogram;
		for _, change in ipairs {
			function (kept) kept._sum = { 0 }; end, function (kept) kept._count = nil; end, function (kept) kept[4] = nil; end,
			function (kept) kept[2] = 0; end, function (kept) kept[1].count = "0"; end, function (kept) kept.iter_samples = 1; end,
		} do
			module.registry.families = {};
			metrics = new();
			function module.registry:histogram(...)
				local family = histogram(self, ...);
				change(family:with_labels());
				return family;
			end
			use_source();
			assert.is_true(metrics.wants_samples);
			source:count("answered", 1);
			metrics:publish(); -- touches none of these fields
			assert.equal(1, value("requests", "answered"));
		end
	end);

	it("are published as far as they are counted here when there is none", function ()
		metrics:count "timeout";
		assert.equal(1, metrics:publish().timeout);
		metrics:retire();
		assert.equal(1, value("requests", "timeout"));
	end);

	it("are what one sample for each answer would have made, whatever happens in between", function ()
		random.restart();
		use_source();
		local rand, samples, counts = math.random, {}, { answered = 0, error = 0, timeout = 0 };
		local before;
		local steps = {
			function ()
				local outcome, seconds = rand(2) == 1 and "answered" or "error", rand(0, 40) / 4;
				source:count(outcome, seconds);
				counts[outcome] = counts[outcome] + 1;
				table.insert(samples, seconds);
			end,
			function ()
				metrics:count "timeout";
				counts.timeout = counts.timeout + 1;
			end,
			function ()
				if before then
					before:count "timeout";
					counts.timeout = counts.timeout + 1;
				end
			end,
			function () metrics:publish(); end,
			function ()
				before = reload(use_source);
			end,
			function ()
				before = reload(function ()
					source = new_source();
					use_source();
				end);
			end,
		};
		for _ = 1, 2000 do
			steps[rand(#steps)]();
			if rand(10) == 1 then
				local totals = metrics:publish();
				for name, count in pairs(counts) do
					assert.equal(count, totals[name]);
					assert.equal(count, value("requests", name));
				end
				assert.same(histogram_of(BOUNDS, samples), shown "answer_time_seconds");
			end
		end
	end);
end);

describe("metrics with statsd", function ()
	local receiver;

	before_each(function ()
		receiver = socket.udp();
		assert(receiver:setsockname("127.0.0.1", 0));
		receiver:settimeout(0);
		local _, port = receiver:getsockname();
		module.registry = require "util.statsd".new({ statsd_server = "127.0.0.1", statsd_port = port }).metric_registry;
		metrics = new();
		use_exchange();
	end);

	after_each(function ()
		receiver:close();
	end);

	-- What has been sent since, sorted
	local function sent()
		local lines = {};
		for line in function () return receiver:receive(); end do
			table.insert(lines, line);
		end
		table.sort(lines);
		return lines;
	end

	it("want a sample for each answer", function ()
		assert.is_true(metrics.wants_samples);
		sent();
		count_answer("answered", 20);
		metrics:sample(20);
		assert.same({
			"prosody.answer_time_seconds.bucket.+Inf:1|c", "prosody.answer_time_seconds.bucket.30:1|c",
			"prosody.answer_time_seconds.bucket.60:1|c", "prosody.answer_time_seconds.count:1|c",
			"prosody.answer_time_seconds.sum:20|g",
		}, sent());
		metrics:publish();
		assert.same({ "prosody.requests.answered:1|c" }, sent());
	end);

	it("send how many there are since the last time", function ()
		metrics:publish();
		assert.same({}, sent());
		for _ = 1, 3 do
			metrics:count "timeout";
		end
		metrics:count "retries";
		assert.same({}, sent());
		metrics:publish();
		metrics:publish();
		assert.same({ "prosody.requests.timeout:3|c", "prosody.retries:1|c" }, sent());
		metrics:count "timeout";
		metrics:retire();
		assert.same({ "prosody.requests.timeout:1|c" }, sent());
	end);
end);

describe("metrics where Prosody keeps no statistics", function ()
	local calls;

	-- What Prosody gives in place of a metric then: its fields are itself, and so is what a call returns.
	before_each(function ()
		calls = 0;
		local nothing = setmetatable({}, {
			__index = function (self) return self; end;
			__newindex = function () error "a field is set"; end;
			__call = function (self)
				calls = calls + 1;
				return self;
			end;
		});
		function module:metric() -- luacheck: ignore 212/self
			return nothing;
		end
		metrics = new();
		use_exchange();
		calls = 0;
	end);

	it("count for the status alone", function ()
		assert.is_false(metrics.has_readers);
		assert.is_false(metrics.wants_samples);
		metrics:count "timeout";
		count_answer("answered", 0.25);
		local totals = metrics:publish();
		assert.same({ 1, 1 }, { totals.timeout, totals.answered });
		metrics:set_gauges(1, {}, 1);
		metrics:retire();
		metrics:count "timeout";
		assert.equal(2, totals.timeout);
		assert.equal(0, calls);
	end);
end);
