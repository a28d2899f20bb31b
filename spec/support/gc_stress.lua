-- busted's helper, in the place of paths.lua, to run specs under a garbage collector that hardly rests. Whatever is
-- not referred to any more is soon collected, so a mistake is seen at once.

dofile("spec/support/paths.lua");

-- Instructions of Lua's machine from one collection to the next. That is a few allocations, and a prime number, so
-- that collections do not always come in the same turn of a loop. With far fewer, objects would survive two
-- collections while they are being made, and count as old.
local INSTRUCTIONS = 61;
local COLLECTIONS = 20000; -- of what is young, to one of all

collectgarbage("generational", 1, 100);

local count = 0;
debug.sethook(function ()
	count = count + 1;
	if count % COLLECTIONS == 0 then
		collectgarbage();
	else
		-- Makes the next allocation collect first, be it Lua's or the core's. A collection
		-- right here would never be inside the core.
		collectgarbage("restart");
	end
end, "", INSTRUCTIONS);
