local fake_module = require "spec.support.module";

describe("timers", function ()
	local module, timers, called;

	local function call()
		called = called + 1;
	end

	before_each(function ()
		module = fake_module.new();
		timers = module:require "timers".new();
		called = 0;
	end);

	it("call once, when they are due", function ()
		timers:set("a", 2, call);
		assert.is_true(timers:is_running("a"));
		module:pass(1.5);
		assert.equal(0, called);
		module:pass(10);
		assert.equal(1, called);
		assert.is_false(timers:is_running("a"));
	end);

	it("are one for each key, the last that was set", function ()
		timers:set("a", 1, error);
		timers:set("a", 2, call);
		timers:set(timers, 2, call);
		assert.equal(2, #module:running_timers());
		assert.same({}, module:pass(2));
		assert.equal(2, called);
	end);

	it("do not call when they are stopped, which may be done at any time", function ()
		timers:set("a", 1, call);
		timers:stop("a");
		timers:stop("a");
		timers:stop("b");
		assert.is_false(timers:is_running("a"));
		module:pass(1);
		assert.equal(0, called);
	end);

	it("may be set anew by what they call, which may also fail", function ()
		timers:set("a", 1, function ()
			assert.is_false(timers:is_running("a"));
			timers:set("a", 1, call);
			error("what another module's handler throws");
		end);
		assert.equal(1, #module:pass(1));
		assert.is_true(timers:is_running("a"));
		module:pass(1);
		assert.equal(1, called);
	end);

	it("that allow for something to come call when their time is over, and not before Prosody has read what has come", function ()
		timers:allow("a", 1, call);
		timers:set("read", 1, function () timers:stop("a"); end);
		module:pass(1); -- the one and then the other, as after Prosody has stood still
		assert.equal(0, called);
		timers:allow("a", 1, call);
		module:pass(0.5);
		assert.equal(0, called);
		module:pass(1);
		assert.equal(1, called);
	end);

	it("are none any more after they were retired", function ()
		timers:set("a", 1, call);
		timers:set("b", 1, call);
		timers:retire();
		assert.is_false(timers:is_running("a"));
		timers:set("a", 1, call);
		timers:retire();
		assert.same({}, module:running_timers());
		module:pass(1);
		assert.equal(0, called);
	end);
end);
