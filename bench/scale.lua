-- What a request costs each server, in processor time, with one front or several, few backends or many, and the target on
-- the front itself, on another Prosody, on an ejabberd, or on a cluster of two.
--
--     lua5.4 bench/scale.lua

local new_fleet = require "bench.fleet".new;
local cores = require "bench.cores";
local in_turns = require "bench.in_turns";

local TARGETS = { "front", "prosody", "ejabberd", "cluster" };
local FRONTS = 4;
local USUAL = 64; -- in flight at each front

-- By number of backends, which only become more: { fronts, in flight at each }
local CASES = {
	{ 10, { { 1, USUAL } } };
	{ 100, { { 1, USUAL }, { 1, 1 }, { 2, USUAL }, { 3, USUAL }, { 4, USUAL } } };
	{ 1000, { { 1, USUAL }, { 4, USUAL } } };
};

-- -> by target, its fleet; there is only one front if the target is on it
local function start_fleets()
	local fleets = {};
	for _, target in ipairs(TARGETS) do
		fleets[target] = new_fleet(target == "front" and 1 or FRONTS, target):start();
		cores.pin(fleets[target]);
	end
	return fleets;
end

-- (fleets, backends, cases) -> a list of what is to be measured in turns, with so many backends
local function prepare(fleets, backends, cases)
	local list = {};
	for _, target in ipairs(TARGETS) do
		local fleet = fleets[target];
		fleet:log_in(backends);
		fleet:tell_presence();
		for _, case in ipairs(cases) do
			local fronts, in_flight = table.unpack(case);
			if fronts <= fleet.count then
				table.insert(list, { target = target, fleet = fleet, backends = backends, fronts = fronts, in_flight = in_flight });
			end
		end
	end
	return list;
end

local function measure(case)
	return case.fleet:measure(case.fronts, case.in_flight);
end

local function number_or_none(format, number)
	return number and format:format(number) or "-";
end

-- reference: the sum with one front
local function show(case, figures, reference)
	print(("  %-9s %8d %6d %9d %8.0f %9.3f %9s %9s %9.3f %6s"):format(case.target, case.backends, case.fronts, case.in_flight,
		figures.rate, figures.fronts, number_or_none("%.3f", figures.targets[1]), number_or_none("%.3f", figures.targets[2]),
		figures.sum, number_or_none("%.2f", case.fronts > 1 and figures.sum / reference)));
	io.stdout:flush();
end

local function measure_all(list)
	local reference;
	for number, figures in ipairs(in_turns(list, measure)) do
		local case = list[number];
		if case.fronts == 1 and case.in_flight == USUAL then
			reference = figures.sum;
		end
		show(case, figures, reference);
	end
end

print "# What a request costs: requests a second, and milliseconds of processor time for one. So many backends, fronts, and";
print "# requests under way all the time at each front, of users that are logged in there by 8 connections. front_ms: of all";
print "# fronts together; target_ms, node_2_ms: of the target's servers, if they are others; sum_ms: of all servers; ratio: that";
print "# to one front.";
print(("# %s."):format(cores.describe(FRONTS)));
print(("# %-9s %8s %6s %9s %8s %9s %9s %9s %9s %6s"):format("target", "backends", "fronts", "in_flight", "rate", "front_ms",
	"target_ms", "node_2_ms", "sum_ms", "ratio"));
local fleets = start_fleets();
for _, group in ipairs(CASES) do
	measure_all(prepare(fleets, table.unpack(group)));
end
for _, fleet in pairs(fleets) do
	fleet:remove();
end
