-- What the specs ask about the process they run in, and one of its own to measure in

local process = {};

-- SPEC_LIGHT is set where everything is slow, as under valgrind: specs take fewer turns then.
local light = os.getenv("SPEC_LIGHT") ~= nil;

-- Under valgrind or AddressSanitizer, what the process has in use is mostly the tool's own, and the tool itself
-- finds leaks.
local resident_bytes_tell = not light and not os.getenv("ASAN_OPTIONS");

local TICKS = 100; -- a second, in which Linux tells times whatever it counts in

-- (full, few) -> the number of turns to take
function process.turns(full, few)
	return light and few or full;
end

-- (pid) -> bytes of memory that a process, or this one, has in use. /proc/PID/status says the
-- same as statm, without leaving the size of a page open.
function process.resident_bytes(pid)
	for line in io.lines(("/proc/%s/status"):format(pid or "self")) do
		local kilobytes = line:match("^VmRSS:%s*(%d+) kB");
		if kilobytes then
			return tonumber(kilobytes) * 1024;
		end
	end
end

-- (pid) -> seconds of processor time that a process has taken, in user and kernel mode, with all of its threads
function process.cpu_seconds(pid)
	local file = assert(io.open(("/proc/%d/stat"):format(pid)));
	local user, system = file:read("a"):match("^.*%)"..(" %S+"):rep(11).." (%d+) (%d+)");
	file:close();
	return (user + system) / TICKS;
end

-- (f, allowed): calls f twice, and asserts that the second call leaves at most `allowed` bytes more in use. After the
-- first one, the process has what every call needs, such as room for Lua's garbage.
function process.stays_flat(f, allowed)
	f();
	collectgarbage();
	local lua_before, all_before = collectgarbage("count"), process.resident_bytes();
	f();
	collectgarbage();
	local lua_grown = (collectgarbage("count") - lua_before) * 1024;
	if lua_grown > allowed then
		error(("%d bytes more in Lua, %d allowed"):format(lua_grown // 1, allowed), 2);
	end
	local all_grown = process.resident_bytes() - all_before;
	if resident_bytes_tell and all_grown > allowed then
		error(("%d bytes more in the process, %d allowed"):format(all_grown, allowed), 2);
	end
end

-- (script) -> output of a Lua of its own that runs it
function process.run(script)
	local lua = _VERSION:lower():gsub(" ", "");
	local output = assert(io.popen(("exec %s %s 2>&1"):format(lua, script)));
	local text = output:read("a");
	local succeeded = output:close();
	return succeeded and text or error(text, 2);
end

return process;
