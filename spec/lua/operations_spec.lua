local fake_module = require "spec.support.module";

describe("operations", function ()
	local module, operations;

	before_each(function ()
		module = fake_module.new();
		operations = module:require "operations".new();
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
		assert.same(expected, operations.totals);
	end);

	it("counts, each for itself", function ()
		for _, outcome in ipairs(outcomes) do
			operations.count(outcome);
			assert.equal(1, value("requests "..outcome));
			assert.equal(1, operations.totals[outcome]);
		end
		operations.count "retries";
		operations.count "retries";
		operations.count "unmatched_answers";
		assert.same({ 2, 1 }, { value "retries", value "unmatched_answers" });
		assert.same({ 2, 1 }, { operations.totals.retries, operations.totals.unmatched_answers });
	end);

	it("counts answers with the time they took", function ()
		operations.count_answer("answered", 0.25);
		operations.count_answer("error", 0.5);
		assert.same({ 1, 1 }, { value "requests answered", value "requests error" });
		assert.same({ 0.25, 0.5 }, module.metrics.answer_time_seconds.samples);
	end);

	it("shows how much there is now", function ()
		operations.set_gauges(7, { ready = 2, draining = 1 });
		assert.equal(7, value "pending");
		assert.same({ 2, 0, 0, 1 }, { value "backends ready", value "backends suspended",
			value "backends hibernating", value "backends draining" });
		operations.set_gauges(0, { suspended = 1, hibernating = 1 });
		assert.equal(0, value "pending");
		assert.same({ 0, 1, 1, 0 }, { value "backends ready", value "backends suspended",
			value "backends hibernating", value "backends draining" });
	end);

	it("goes on counting after a reload", function ()
		operations.count "answered";
		operations = module:require "operations".new(operations.totals);
		operations.count "answered";
		assert.equal(2, value "requests answered");
		assert.equal(2, operations.totals.answered);
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
		local loaded = module:require "operations";
		loaded.new();
		loaded.new();
		assert.equal(2, #given);
		assert.same(given[1], given[2]);
		assert.same({ 0.001, 60, 11 }, { given[1][1], given[1][#given[1]], #given[1] });
	end);
end);
