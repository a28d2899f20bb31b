-- What it costs that presence is watched: backends that log in and tell everybody, as clients do, the account's other
-- resources among them; and a front that starts and has to learn who is there.
--
--     lua5.4 bench/watched_presence.lua

local new_fleet = require "bench.fleet".new;
local socket = require "socket";

local FRONTS, PAUSE, PATIENCE = 2, 0.02, 60; -- seconds

-- By target, how many backends, which only become more. They are fewer where it takes minutes otherwise.
local TARGETS = { { "prosody", { 10, 100, 300, 1000 } }, { "ejabberd", { 10, 100, 200 } } };

local function differences(after, before)
	local list = {};
	for number, value in ipairs(after) do
		list[number] = value - before[number];
	end
	return list;
end

-- (fleet, call) -> seconds of processor time that the target's server takes meanwhile, and the second front
local function cost_of(fleet, call)
	local servers = { fleet.targets[1], fleet.fronts[2] };
	local before = fleet.cpu_seconds(servers);
	call();
	return table.unpack(differences(fleet.cpu_seconds(servers), before));
end

local function await_knowing(fleet, front)
	local deadline = socket.gettime() + PATIENCE;
	while not fleet:knows_all(front) do
		assert(socket.gettime() < deadline, "the front does not know all backends in time");
		socket.sleep(PAUSE);
	end
end

-- The second front is stopped, and started again. -> seconds until it knows all, and until it is up, processor time of the
-- front and of the target's server
local function restart(fleet)
	local front = fleet.fronts[2];
	front:stop();
	fleet:await_idle();
	local before, started = fleet.cpu_seconds({ fleet.targets[1] }), socket.gettime();
	front:start();
	local up = socket.gettime() - started;
	await_knowing(fleet, 2);
	local known = socket.gettime() - started;
	local own = fleet.cpu_seconds({ front })[1];
	fleet:await_idle();
	return known, up, own, differences(fleet.cpu_seconds({ fleet.targets[1] }), before)[1];
end

print(("# Backends that log in, with %d fronts that watch: seconds of processor time, until there are so many, of the target's server,")
	:format(FRONTS));
print "# and of one front; and one front that is started anew: seconds until it is up, and until it knows them all, and processor";
print "# time of it until then, its start included, and of the target's server.";
print(("# %-9s %8s %9s %9s %9s %9s %9s %9s"):format("target", "backends", "target_s", "front_s", "up_after", "knows_in", "front_s", "target_s"));
for _, arrangement in ipairs(TARGETS) do
	local target, numbers = table.unpack(arrangement);
	local fleet = new_fleet(FRONTS, target):start();
	local target_seconds, front_seconds = 0, 0;
	for _, backends in ipairs(numbers) do
		local of_target, of_front = cost_of(fleet, function ()
			fleet:log_in(backends);
			fleet:tell_presence(true);
		end);
		target_seconds, front_seconds = target_seconds + of_target, front_seconds + of_front;
		local known, up, own, told = restart(fleet);
		print(("  %-9s %8d %9.2f %9.2f %9.2f %9.2f %9.2f %9.2f"):format(target, backends, target_seconds, front_seconds, up, known, own, told));
		io.stdout:flush();
	end
	fleet:remove();
end
