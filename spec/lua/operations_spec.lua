local fake_module = require "spec.support.module";

describe("operations", function ()
	it("counts each dropped answer", function ()
		local module = fake_module.new();
		local operations = module:require "operations";
		assert.equal(0, module.counters.unmatched_answers.value);
		operations.count_unmatched();
		assert.equal(1, module.counters.unmatched_answers.value);
		operations.count_unmatched();
		assert.equal(2, module.counters.unmatched_answers.value);
	end);
end);
