-- What a request costs each server, in processor time, with one front or several, few backends or many, and the target on
-- the front itself, on another Prosody, on an ejabberd, or on a cluster of two.
--
--     lua5.4 bench/scale.lua

local new_fleet = require "bench.fleet".new;
local cores = require "bench.cores";

local FRONTS = 4;
local TARGETS = { { "front", 1 }, { "prosody", FRONTS }, { "ejabberd", FRONTS }, { "cluster", FRONTS } }; -- with how many fronts
local USUAL = { backends = 100, fronts = 1, in_flight = 64 };

-- What is measured with each target, in this order, as backends only become more: what differs from USUAL
local CASES = {
	{ backends = 10 };
	{};
	{ in_flight = 1 };
	{ fronts = 2 }, { fronts = 3 }, { fronts = 4 };
	{ backends = 1000 }, { backends = 1000, fronts = 4 };
};

local function number_or_none(format, number)
	return number and format:format(number) or "-";
end

-- reference: the sum with one front
local function show(target, case, figures, reference)
	print(("  %-9s %8d %6d %9d %8.0f %9.3f %9s %9s %9.3f %6s"):format(target, case.backends, case.fronts, case.in_flight,
		figures.rate, figures.fronts, number_or_none("%.3f", figures.targets[1]), number_or_none("%.3f", figures.targets[2]),
		figures.sum, number_or_none("%.2f", case.fronts > 1 and figures.sum / reference)));
	io.stdout:flush();
end

local function measure(fleet, case)
	fleet:log_in(case.backends);
	fleet:tell_presence();
	fleet:use_fronts(case.fronts);
	return fleet:measure(case.in_flight * case.fronts);
end

-- One target, and all cases that it has enough fronts for
local function measure_all(target, fronts)
	local fleet, of_one = new_fleet(fronts, target):start(), {}; -- by number of backends, the sum with the usual one front
	cores.pin(fleet);
	for _, different in ipairs(CASES) do
		local case = setmetatable(different, { __index = USUAL });
		if case.fronts <= fronts then
			local figures = measure(fleet, case);
			show(target, case, figures, of_one[case.backends]);
			of_one[case.backends] = of_one[case.backends] or figures.sum;
		end
	end
	fleet:remove();
end

print "# What a request costs: requests a second, and milliseconds of processor time for one. So many backends, fronts, and";
print "# requests under way all the time at each front, of users that are logged in there by 8 connections. front_ms: of all";
print "# fronts together; target_ms, node_2_ms: of the target's servers, if they are others; sum_ms: of all servers; ratio: that";
print "# to one front.";
print(("# %s."):format(cores.describe(FRONTS)));
print(("# %-9s %8s %6s %9s %8s %9s %9s %9s %9s %6s"):format("target", "backends", "fronts", "in_flight", "rate", "front_ms",
	"target_ms", "node_2_ms", "sum_ms", "ratio"));
for _, arrangement in ipairs(TARGETS) do
	measure_all(table.unpack(arrangement));
end
