local fake_module = require "spec.support.module";

describe("the state of a backend", function ()
	local states = fake_module.new():require "states";

	-- (fields, is_unwanted, is_in_doubt) -> its state, and the pool's
	local function state(fields, is_unwanted, is_in_doubt)
		local record = { priority = 0 };
		for name, value in pairs(fields) do
			record[name] = value;
		end
		local name = states.of(record, not is_unwanted, is_in_doubt);
		return { name, states.in_pool(name) };
	end

	it("is ready when nothing is in the way", function ()
		assert.same({ "ready", "ready" }, state {});
		assert.same({ "ready", "ready" }, state { priority = 127 });
	end);

	it("is suspended when it does not answer, or is in doubt", function ()
		assert.same({ "suspended", "suspended" }, state { is_suspended = true });
		assert.same({ "suspended", "suspended" }, state({}, false, true));
	end);

	it("is hibernating, draining or excluded rather than suspended, the last of them first", function ()
		local fields = { is_suspended = true, is_hibernating = true };
		assert.same({ "hibernating", "away" }, state(fields, false, true));
		fields.priority = -1;
		assert.same({ "draining", "away" }, state(fields));
		fields.priority, fields.is_drained = 0, true;
		assert.same({ "draining", "away" }, state(fields));
		assert.same({ "excluded", "away" }, state(fields, true));
	end);

	it("has a name that is in the list, and each of these is known to the pool", function ()
		assert.equal(5, #states.NAMES);
		for _, name in ipairs(states.NAMES) do
			assert.is_string(states.in_pool(name));
		end
	end);
end);
