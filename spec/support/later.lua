-- What is to be done in a while: for what gets a turn now and then, as a played server and the chaos do

local now = require "socket".gettime;

local later = {};
later.__index = later;

function later.new()
	return setmetatable({}, later);
end

-- Calls it in the turn when so many seconds have passed.
function later:after(seconds, call)
	table.insert(self, { at = now() + seconds, call = call });
end

-- to be called in each turn
function later:run()
	local due, time = {}, now();
	for position = #self, 1, -1 do
		if self[position].at <= time then
			table.insert(due, table.remove(self, position));
		end
	end
	table.sort(due, function (a, b) return a.at < b.at; end);
	for _, entry in ipairs(due) do
		entry.call();
	end
end

return later;
