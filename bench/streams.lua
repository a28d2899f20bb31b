-- What the streams between the servers bring and cost: one for both ways or one for each, with encryption or without, one for
-- both nodes of a cluster or one for each.
--
--     lua5.4 bench/streams.lua

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

local function show_arrangement(target, what, options)
	local fleet = new_fleet(1, target, options):start();
	fleet:log_in(BACKENDS);
	fleet:tell_presence();
	fleet:use_fronts(1);
	local figures = fleet:measure(IN_FLIGHT);
	local second = figures.targets[2];
	print(("  %-9s %-20s %8.0f %9.3f %9.3f %9s %9.3f"):format(target, what, figures.rate, figures.fronts, figures.targets[1],
		second and ("%.3f"):format(second) or "-", figures.sum));
	io.stdout:flush();
	fleet:remove();
end

print(("# One front, %d backends, %d requests under way: requests a second, milliseconds of processor time for one, by how the servers")
	:format(BACKENDS, IN_FLIGHT));
print "# are connected: one stream for both ways, or one for each; encrypted or not; or, for answers of a cluster, one for both of";
print "# its nodes or one for each";
print(("# %-9s %-20s %8s %9s %9s %9s %9s"):format("target", "streams", "rate", "front_ms", "target_ms", "node_2_ms", "sum_ms"));
for _, arrangement in ipairs(ARRANGEMENTS) do
	show_arrangement(table.unpack(arrangement));
end
