-- JIDs of backends, for the specs of the pool

local names = {};

function names.one(number)
	return ("some-user@some-domain.example/%d"):format(number);
end

-- (count) -> a list of as many
function names.list(count)
	local list = {};
	for i = 1, count do
		list[i] = names.one(i);
	end
	return list;
end

return names;
