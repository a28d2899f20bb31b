-- Answers of the resolver come in any order, as those of a DNS server do. By itself, libunbound changes
-- the order once in a second: who tries again each other second would always try the same first.
module:set_global();

local resolver = require "net.adns".resolver();
local lookup = resolver.lookup;

local function shuffle(list)
	for index = #list, 2, -1 do
		local other = math.random(index);
		list[index], list[other] = list[other], list[index];
	end
end

function resolver:lookup(callback, ...)
	return lookup(self, function (answer, ...)
		shuffle(answer or {});
		callback(answer, ...);
	end, ...);
end
