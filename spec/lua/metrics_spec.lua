local fake_module = require "spec.support.module";

describe("metrics", function ()
	local module, metrics;

	-- (totals) -> metrics
	local function new(totals)
		return module:require "metrics".new {
			outcomes = module:require "failures".OUTCOMES, totals = totals;
			states = module:require "states".NAMES;
		};
	end

	before_each(function ()
		module = fake_module.new();
		metrics = new();
	end);

	local function value(name)
		return module.metrics[name].value;
	end

	local outcomes = { "answered", "error", "timeout", "no_backend", "backend_gone", "limited", "refused", "unloaded" };

	it("has every count from the start, at nought", function ()
		local expected = { retries = 0, unmatched_answers = 0 };
		for _, outcome in ipairs(outcomes) do
			assert.equal(0, value("requests "..outcome));
			expected[outcome] = 0;
		end
		assert.equal(0, value "retries");
		assert.equal(0, value "unmatched_answers");
		assert.same(expected, metrics.totals);
	end);

	it("counts, each for itself", function ()
		for _, outcome in ipairs(outcomes) do
			metrics:count(outcome);
			assert.equal(1, value("requests "..outcome));
			assert.equal(1, metrics.totals[outcome]);
		end
		metrics:count "retries";
		metrics:count "retries";
		metrics:count "unmatched_answers";
		assert.same({ 2, 1 }, { value "retries", value "unmatched_answers" });
		assert.same({ 2, 1 }, { metrics.totals.retries, metrics.totals.unmatched_answers });
	end);

	it("counts answers with the time they took", function ()
		metrics:count_answer("answered", 0.25);
		metrics:count_answer("error", 0.5);
		assert.same({ 1, 1 }, { value "requests answered", value "requests error" });
		assert.same({ 0.25, 0.5 }, module.metrics.answer_time_seconds.samples);
	end);

	it("shows how much there is now", function ()
		metrics:set_gauges(7, { ready = 2, draining = 1 });
		assert.equal(7, value "pending");
		assert.same({ 2, 0, 0, 1 }, { value "backends ready", value "backends suspended",
			value "backends hibernating", value "backends draining" });
		metrics:set_gauges(0, { suspended = 1, hibernating = 1 });
		assert.equal(0, value "pending");
		assert.same({ 0, 1, 1, 0 }, { value "backends ready", value "backends suspended",
			value "backends hibernating", value "backends draining" });
	end);

	it("goes on counting after a reload", function ()
		metrics:count "answered";
		metrics = new(metrics.totals);
		metrics:count "answered";
		assert.equal(2, value "requests answered");
		assert.equal(2, metrics.totals.answered);
	end);

	it("has buckets of its own for each histogram, which Prosody adds to", function ()
		local given = {};
		function module:metric(type, name, unit, description, label_keys, extra)
			if extra then
				table.insert(given, { table.unpack(extra.buckets) });
				table.insert(extra.buckets, math.huge);
			end
			return getmetatable(self).__index.metric(self, type, name, unit, description, label_keys);
		end
		new();
		new();
		assert.equal(2, #given);
		assert.same(given[1], given[2]);
		assert.same({ 0.001, 60, 11 }, { given[1][1], given[1][#given[1]], #given[1] });
	end);
end);
