-- Nothing to run under a tool that manages memory in its own way

local process = require "spec.support.process";

local BYTES_PER_REQUEST = 256;

describe("core memory", function ()
	local count, empty, full, full_again;

	setup(function ()
		local figures = {};
		for figure in process.run("spec/support/pending_memory.lua"):gmatch("%d+") do
			table.insert(figures, tonumber(figure));
		end
		count, empty, full, full_again = table.unpack(figures);
	end);

	it("holds a typical pending request in 256 bytes", function ()
		local each = (full - empty) / count;
		print(("core memory: %.1f bytes for each pending request"):format(each));
		assert.is_true(each <= BYTES_PER_REQUEST, ("%.1f bytes"):format(each));
	end);

	it("is used again for as many requests as before", function ()
		local before, after = full - empty, full_again - empty;
		assert.is_true(after <= before * 1.03, ("%d bytes, then %d"):format(before, after));
	end);
end);
