-- Options that look like ours and are none: Prosody takes any name for an option, so a misspelt one has no effect,
-- and nothing else says so.

local getconfig = require "core.configmanager".getconfig;

local PREFIX = "client_proxy_";
local FAR = 3; -- letters that the name of another module's option differs from each of ours at least

local misspelt = {};

-- (a, b) -> how many letters have to be inserted, removed or replaced to make b of a, or a of b (Levenshtein's distance)
local function distance(a, b)
	local row = {}; -- distances of the first letters of a, as many as are dealt with, from the first ones of b
	for j = 0, #b do
		row[j] = j;
	end
	for i = 1, #a do
		local diagonal = row[0];
		row[0] = i;
		for j = 1, #b do
			local replaced = diagonal + (a:byte(i) == b:byte(j) and 0 or 1);
			diagonal = row[j];
			row[j] = math.min(replaced, row[j] + 1, row[j - 1] + 1);
		end
	end
	return row[#b];
end

-- (name, names) -> the one of them that is nearest to it, and how far it is
local function nearest(name, names)
	local best, least = nil, math.huge;
	for _, candidate in ipairs(names) do
		local far = distance(name, candidate);
		if far < least then
			best, least = candidate, far;
		end
	end
	return best, least;
end

-- (name, names) -> the only one of them that has in it what follows the prefix in the name, such as "timeout" | nil
local function containing(name, names)
	local rest, found = name:sub(#PREFIX + 1), nil;
	for _, candidate in ipairs(names) do
		if candidate:find(rest, 1, true) then
			if found then
				return nil;
			end
			found = candidate;
		end
	end
	return found;
end

-- (name, names) -> what to say of an option of this name, or nil
local function judge(name, names)
	local best, far = nearest(name, names);
	local is_of_prefix = name:sub(1, #PREFIX) == PREFIX;
	if far == 0 or far >= FAR and not is_of_prefix then
		return;
	end
	local longest = math.max(#name, #best) - #PREFIX;
	local meant = (far < FAR or far <= longest / 2) and best or containing(name, names);
	if meant then
		return ("There is no option %s, it has no effect: %s may be meant"):format(name, meant);
	end
	return ("There is no option %s, it has no effect. There are: %s"):format(name, table.concat(names, ", "));
end

-- (names): warns of each option, of the component's section and of the global one, that is none of these and looks as if it
-- were meant for this module.
function misspelt.warn(names)
	local config, lines = getconfig(), {};
	for _, section in ipairs { "*", module.host } do
		for name in pairs(rawget(config, section) or {}) do
			lines[#lines + 1] = judge(name, names);
		end
	end
	table.sort(lines);
	for _, line in ipairs(lines) do
		module:log("warn", "%s", line);
	end
end

return misspelt;
