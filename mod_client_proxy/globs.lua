-- Names with wildcards: "*" stands for any characters or none, "?" for one.
--
-- Strangers choose names that are to be matched. As one pattern, a glob with several stars would have Lua try all the ways
-- in which these can share out a name. So each part between them is searched for, in order, and none a second time.

local globs = {};

local find = string.find;

local function to_pattern(part)
	return (part:gsub("%p", function (sign)
		return sign == "?" and utf8.charpattern or "%"..sign;
	end));
end

-- (glob) -> patterns of what is between its stars; of the first and the last, these are at the ends of a name
local function parts_of(glob)
	local parts = {};
	for part in (glob.."*"):gmatch("([^*]*)%*") do
		table.insert(parts, to_pattern(part));
	end
	parts[1] = "^"..parts[1];
	parts[#parts] = parts[#parts].."$";
	return parts;
end

local function is_like(name, parts)
	local last = 0;
	for _, part in ipairs(parts) do
		last = select(2, find(name, part, last + 1));
		if not last then
			return false;
		end
	end
	return true;
end

-- (list) -> function (name) -> whether it is like one of them
function globs.matcher(list)
	local all = {};
	for index, glob in ipairs(list) do
		all[index] = parts_of(glob);
	end
	return function (name)
		for _, parts in ipairs(all) do
			if is_like(name, parts) then
				return true;
			end
		end
		return false;
	end;
end

return globs;
