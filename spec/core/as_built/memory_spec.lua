-- Nothing to run under a tool that manages memory in its own way

local process = require "spec.support.process";

-- (script) -> how many there are of what it measures, the bytes in use: without them, with them, and with as many others
local function measure(script)
	local figures = {};
	for figure in process.run(script):gmatch("%d+") do
		table.insert(figures, tonumber(figure));
	end
	return table.unpack(figures);
end

local CASES = {
	{ what = "pending request", script = "spec/support/pending_memory.lua pending", bytes = 160 };
	{ what = "bare JID with something pending", script = "spec/support/pending_memory.lua accounts", bytes = 40 };
	{ what = "requester in the book", script = "spec/support/requesters_memory.lua", bytes = 128 };
};

for _, case in ipairs(CASES) do
	describe("core memory", function ()
		local count, empty, full, full_again;

		setup(function ()
			count, empty, full, full_again = measure(case.script);
		end);

		it(("holds a typical %s in %d bytes"):format(case.what, case.bytes), function ()
			local each = (full - empty) / count;
			print(("core memory: %.1f bytes for each %s"):format(each, case.what));
			assert.is_true(each <= case.bytes, ("%.1f bytes"):format(each));
		end);

		it(("is used again where each %s has gone"):format(case.what), function ()
			local before, after = full - empty, full_again - empty;
			assert.is_true(after <= before * 1.03, ("%d bytes, then %d"):format(before, after));
		end);
	end);
end
