-- For chaos: names of many lengths, mostly short ones, so that the component's memory for one thing is
-- often as large as that for another.

local random = math.random;

local text = {};

local count = 0;

-- (prefix) -> prefix and a number that none has had
function text.unique(prefix)
	count = count + 1;
	return prefix..count;
end

local LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789";

local function letters(length)
	local list = {};
	for position = 1, length do
		local letter = random(#LETTERS);
		list[position] = LETTERS:sub(letter, letter);
	end
	return table.concat(list);
end

-- Most have up to 8 characters, some up to 60, few up to 600.
local function length()
	local dice = random(20);
	return dice == 1 and random(60, 600) or dice < 5 and random(8, 60) or random(1, 8);
end

-- A resource that a session may have had before, or one with which the component keeps about as much
-- of a backend as of a request
function text.resource()
	return letters(random(8) == 1 and length() or random(5) > 1 and random(16, 46) or random(2));
end

-- A resource that no session has had before; some are not seen by backends as they are
function text.new_resource()
	return text.unique(random(10) == 1 and "\u{e9}" or "")..(random(3) == 1 and "-"..letters(length()) or "");
end

-- (number) -> an id that has that number
function text.id(number)
	return "q"..number..(random(6) == 1 and "-"..letters(length()) or "");
end

-- What is in a request besides: most often nothing, up to some ten kilobytes
function text.payload()
	local dice = random(1000);
	if dice > 100 then
		return "";
	end
	return ("payload "):rep(dice > 30 and random(1, 20) or dice > 10 and random(100, 1000) or random(1000, 5000));
end

-- Expat in the server may not look at the end of what has come until more comes. So that nothing waits for that, this is sent
-- now and then.
text.NUDGE = (" "):rep(2048);

return text;
