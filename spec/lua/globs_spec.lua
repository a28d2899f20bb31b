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
		["a*b*c"] = { yes = { "abc", "a-b-c", "abcbc", "abbcc" }, no = { "ac", "acb", "xabc", "abcx" } };
		["ab*ba"] = { yes = { "abba", "ab-ba" }, no = { "aba", "ab", "ba" } };
		["**"] = { yes = { "", "a" }, no = {} };
		["*a?*"] = { yes = { "ab", "aa", "xa\u{20ac}", "xaya" }, no = { "a", "xa", "bc" } };
		["??*?"] = { yes = { "abc", "\u{20ac}\u{20ac}\u{20ac}", "abcd" }, no = { "ab", "\u{20ac}" } };
		["*.*.b"] = { yes = { "..b", "x.y.b", "x.y.b.b" }, no = { ".b", "x.b", "x.y.b." } };
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

	it("match like a slow and obvious matcher", function ()
		local function is_like(name, glob)
			local sign = glob:sub(1, 1);
			if sign == "" then
				return name == "";
			elseif sign == "*" then
				return is_like(name, glob:sub(2)) or name ~= "" and is_like(name:sub(2), glob);
			end
			return name ~= "" and (sign == "?" or sign == name:sub(1, 1)) and is_like(name:sub(2), glob:sub(2));
		end
		local function any(signs)
			return (("x"):rep(math.random(0, 7)):gsub("x", function ()
				local at = math.random(#signs);
				return signs:sub(at, at);
			end));
		end
		local seed = tonumber(os.getenv("SPEC_SEED")) or os.time();
		print("globs_spec: SPEC_SEED="..seed);
		math.randomseed(seed);
		for _ = 1, 20000 do
			local glob, name = any("ab.**?"), any("ab.");
			assert.equal(is_like(name, glob), matcher { glob } (name), ("%q %q"):format(glob, name));
		end
	end);

	it("take no long time for any name, however many stars there are", function ()
		local matches = matcher { "*a*a*b" };
		local began = os.clock();
		assert.is_false(matches(("a"):rep(1023)));
		assert.is_true(os.clock() - began < 0.1);
	end);

	it("match what one of several matches, and nothing if there is none", function ()
		local matches = matcher { "a*", "*b" };
		assert.same({ true, true, true, false }, { matches "a", matches "b", matches "ab", matches "ba" });
		assert.is_false(matcher {} "a");
	end);
end);
