-- Checks that cost next to nothing while they hold, for loops of a million turns.

local expect = {};

-- What fails may be about any bytes, and long ones; what is said about it is plain text.
local function fail(...)
	local message = string.format(...):sub(1, 1000):gsub("[^\n\32-\126]", function (byte)
		return ("\\%03d"):format(byte:byte());
	end);
	error(message, 3);
end

-- (expected, got, format, ...): the rest says where, if they differ
function expect.equal(expected, got, ...)
	if expected ~= got then
		fail("%s: expected %q, got %q", string.format(...), tostring(expected), tostring(got));
	end
end

-- (expected, got, format, ...): likewise for two lists
function expect.same(expected, got, ...)
	for i = 1, math.max(#expected, #got) do
		if expected[i] ~= got[i] then
			fail("%s: expected %q in place %d, got %q", string.format(...), tostring(expected[i]), i, tostring(got[i]));
		end
	end
end

-- (holds, format, ...)
function expect.that(holds, ...)
	if not holds then
		fail(...);
	end
end

-- (fragment, f, ...): f(...) raises an error whose message contains `fragment`
function expect.raises(fragment, f, ...)
	local succeeded, message = pcall(f, ...);
	if succeeded then
		fail("no error, expected: %s", fragment);
	end
	if not tostring(message):find(fragment, 1, true) then
		fail("expected: %s, got: %s", fragment, message);
	end
end

return expect;
