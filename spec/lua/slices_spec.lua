local fake_module = require "spec.support.module";

describe("slices", function ()
	local module, slices, left, on_slice;

	before_each(function ()
		module = fake_module.new();
		left = 0;
		function on_slice() end
		slices = module:require "slices".new(function ()
			left = left - 1;
			on_slice();
			return left > 0;
		end);
	end);

	it("are done one by one, with time for others in between, until there is no more", function ()
		left = 3;
		slices:start();
		slices:start();
		assert.equal(3, left);
		for expected = 2, 0, -1 do
			module:fire_slice();
			assert.equal(expected, left);
		end
		assert.same({}, module:running_timers());
	end);

	it("go on after an error in one of them", function ()
		left = 3;
		slices:start();
		function on_slice()
			if left == 2 then
				error("what another module's handler throws");
			end
		end
		assert.equal(1, #module:pass(0));
		assert.equal(0, left);
	end);

	it("are all done at once when the module has gone, and leave no timer", function ()
		left = 3;
		slices:start();
		slices:retire();
		assert.same({}, module:running_timers());
		slices:start();
		assert.equal(0, left);
		assert.same({}, module:running_timers());
	end);
end);
