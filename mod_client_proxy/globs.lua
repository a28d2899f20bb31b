-- Names with wildcards: "*" stands for any characters or none, "?" for one.

local globs = {};

local wildcards = { ["*"] = ".*", ["?"] = utf8.charpattern };

local function to_pattern(glob)
	return "^"..glob:gsub("%p", function (sign)
		return wildcards[sign] or "%"..sign;
	end).."$";
end

-- (list) -> function (name) -> whether it is like one of them
function globs.matcher(list)
	local patterns = {};
	for index, glob in ipairs(list) do
		patterns[index] = to_pattern(glob);
	end
	return function (name)
		for _, pattern in ipairs(patterns) do
			if name:find(pattern) then
				return true;
			end
		end
		return false;
	end;
end

return globs;
