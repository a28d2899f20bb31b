-- A soak: requests at half of the peak rate, and what memory Prosody has in use meanwhile.
--
--     lua5.4 bench/soak.lua SECONDS

local subjects = require "bench.subjects";
local new_load = require "bench.load".new;
local socket = require "socket";

local SECONDS = tonumber(arg[1]);
local POINTS = 30; -- of the curve
local PEAK_REQUESTS, IN_FLIGHT = 5000, 64;
local now = socket.gettime;

-- Asks at this rate until `deadline`. -> how many requests were answered
local function run_until(load, rate, deadline)
	local times, asked, started = {}, 0, now();
	while now() < deadline do
		while asked < (now() - started) * rate do
			load:ask();
			asked = asked + 1;
		end
		load:work(times, 0.001);
	end
	while #times < asked do
		load:await(times);
	end
	return #times;
end

local function soak(server, load, rate)
	local started, answered = now(), 0;
	for point = 0, POINTS do
		local deadline = started + SECONDS * point / POINTS;
		answered = answered + run_until(load, rate, deadline);
		print(("  %8.0f %10d %12.1f %12.1f"):format(now() - started, answered, server:resident_memory() / 2^20, server:lua_memory() / 1024));
	end
end

local server, requester, backend, address = subjects.start(subjects.ours "short");
local load = new_load({ requester }, backend, address);
load:run(PEAK_REQUESTS, IN_FLIGHT);
local _, seconds = load:run(PEAK_REQUESTS, IN_FLIGHT);
local rate = PEAK_REQUESTS / seconds / 2;
print(("# Memory of Prosody %s in use during %d seconds of %.0f requests a second, half of the peak rate")
	:format(server:version(), SECONDS, rate));
print(("# %8s %10s %12s %12s"):format("seconds", "answered", "resident_MiB", "Lua_MiB"));
soak(server, load, rate);
server:remove();
