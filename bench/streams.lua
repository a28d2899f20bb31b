-- What the streams between the servers bring and cost: one for both ways or one for each, with encryption or without, one for
-- both nodes of a cluster or one for each.
--
--     lua5.4 bench/streams.lua

local in_turns = require "bench.in_turns";
local new_fleet = require "bench.fleet".new;

local BACKENDS, IN_FLIGHT = 100, 64;

local ARRANGEMENTS = {
	{ "prosody", "two, in clear", {} };
	{ "prosody", "one, in clear", { is_bidirectional = true } };
	{ "prosody", "two, encrypted", { is_encrypted = true } };
	{ "prosody", "one, encrypted", { is_encrypted = true, is_bidirectional = true } };
	{ "cluster", "one for both nodes", { streams = 1 } };
	{ "cluster", "one for each node", { streams = 2 } };
};

local function start(arrangement)
	local target, _, options = table.unpack(arrangement);
	local fleet = new_fleet(1, target, options):start();
	fleet:log_in(BACKENDS);
	fleet:tell_presence();
	return fleet;
end

local function measure(fleet)
	return fleet:measure(1, IN_FLIGHT);
end

local function show(target, what, figures)
	local second = figures.targets[2];
	print(("  %-9s %-20s %8.0f %9.3f %9.3f %9s %9.3f"):format(target, what, figures.rate, figures.fronts, figures.targets[1],
		second and ("%.3f"):format(second) or "-", figures.sum));
end

print(("# One front, %d backends, %d requests under way: requests a second, milliseconds of processor time for one, by how the servers")
	:format(BACKENDS, IN_FLIGHT));
print "# are connected: one stream for both ways, or one for each; encrypted or not; or, for answers of a cluster, one for both of";
print "# its nodes or one for each";
print(("# %-9s %-20s %8s %9s %9s %9s %9s"):format("target", "streams", "rate", "front_ms", "target_ms", "node_2_ms", "sum_ms"));
local fleets = {};
for number, arrangement in ipairs(ARRANGEMENTS) do
	fleets[number] = start(arrangement);
end
for number, figures in ipairs(in_turns(fleets, measure)) do
	show(ARRANGEMENTS[number][1], ARRANGEMENTS[number][2], figures);
	fleets[number]:remove();
end
