local fake_module = require "spec.support.module";

describe("globs", function ()
	local matcher = fake_module.new():require "globs".matcher;

	for glob, names in pairs {
		["focus"] = { yes = { "focus" }, no = { "", "focus1", "1focus", "Focus", "focu", "\nfocus" } };
		["focus*"] = { yes = { "focus", "focus-1", "focus\n1", "focus*" }, no = { "focu", "a focus" } };
		["*focus"] = { yes = { "focus", "a focus" }, no = { "focus-1" } };
		["f*s"] = { yes = { "fs", "focus", "f*s", "fs/fs" }, no = { "f", "s", "fss?" } };
		["f?s"] = { yes = { "f1s", "f?s", "f\u{20ac}s" }, no = { "fs", "f12s" } };
		["*"] = { yes = { "", "anything", "\u{5e9}" }, no = {} };
		["?"] = { yes = { "a", "\u{20ac}" }, no = { "", "ab" } };
		["a.b-c%d[e]^$(+)"] = { yes = { "a.b-c%d[e]^$(+)" }, no = { "axb-c%d[e]^$(+)", "a.b-c%d" } };
		["%a"] = { yes = { "%a" }, no = { "a", "x" } };
		["\u{5e9}*"] = { yes = { "\u{5e9}\u{5dc}" }, no = { "\u{5dc}" } };
	} do
		it(("match as %q says"):format(glob), function ()
			local matches = matcher { glob };
			for _, name in ipairs(names.yes) do
				assert.is_true(matches(name), name);
			end
			for _, name in ipairs(names.no) do
				assert.is_false(matches(name), name);
			end
		end);
	end

	it("match what one of several matches, and nothing if there is none", function ()
		local matches = matcher { "a*", "*b" };
		assert.same({ true, true, true, false }, { matches "a", matches "b", matches "ab", matches "ba" });
		assert.is_false(matcher {} "a");
	end);
end);
