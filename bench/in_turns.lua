-- For bench/: several things measured in turns, so that all of them meet what else the machine does.

local ROUNDS = 4;

-- (list, measure) -> a list: for each, what measure(it) returns, a table with a field "sum". Of several rounds, the one with
-- the smallest sum counts: what else the machine does adds to it, and takes nothing away.
return function (list, measure)
	local best = {};
	for _ = 1, ROUNDS do
		for number, each in ipairs(list) do
			local figures = measure(each);
			if not best[number] or figures.sum < best[number].sum then
				best[number] = figures;
			end
		end
	end
	return best;
end
