-- Checks that cost next to nothing while they hold, for loops of a million turns.

local expect = {};

-- (expected, got, format, ...): the rest says where, if they differ
function expect.equal(expected, got, ...)
	if expected ~= got then
		error(("%s: expected %q, got %q"):format(string.format(...), tostring(expected), tostring(got)), 2);
	end
end

-- (holds, format, ...)
function expect.that(holds, ...)
	if not holds then
		error(string.format(...), 2);
	end
end

-- (fragment, f, ...): f(...) raises an error whose message contains `fragment`
function expect.raises(fragment, f, ...)
	local succeeded, message = pcall(f, ...);
	if succeeded then
		error(("no error, expected: %s"):format(fragment), 2);
	end
	if not tostring(message):find(fragment, 1, true) then
		error(("expected: %s, got: %s"):format(fragment, message), 2);
	end
end

return expect;
