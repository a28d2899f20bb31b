-- Throughput and latency through a real Prosody with 1, 16 and 256 requests under way all the
-- time. The subjects take turns, each time with a Prosody just started: two of the same can
-- differ by a tenth, and what else the machine does meets all of them. Each one's ratio is to
-- what "direct" had in the same turn, and the median counts.
--
--     lua5.4 bench/latency.lua [PLUGIN_PATH]
--
-- PLUGIN_PATH: where the module of 2018 is, to be measured as well
-- In the environment, BENCH_TURNS: how many turns

local subjects = require "bench.subjects";
local new_load = require "bench.load".new;
local percentiles = require "bench.percentiles";

local IN_FLIGHT = { 1, 16, 256 };
local TURNS = tonumber(os.getenv("BENCH_TURNS")) or 7;
local REQUESTS = { [1] = 1000, [16] = 3000, [256] = 3000 }; -- in a turn
local WARM_UP = 1000;

local COLUMNS = 4;

local function median(values)
	table.sort(values);
	return values[#values // 2 + 1];
end

-- -> { rate (a second), p50, p99, p99.9 (milliseconds) }
local function measure(load, in_flight)
	local times, seconds = load:run(REQUESTS[in_flight], in_flight);
	return { #times / seconds, percentiles(times) };
end

-- One turn. (subject, figures) figures: by how many are in flight, a list to append to. -> the version of Prosody
local function take_turn(subject, figures)
	local server, requester, backend, address = subjects.start(subject);
	local load = new_load({ requester }, backend, address);
	load:run(WARM_UP, 16);
	for _, in_flight in ipairs(IN_FLIGHT) do
		table.insert(figures[in_flight], measure(load, in_flight));
	end
	local version = server:version();
	server:remove();
	return version;
end

-- (turns, direct_turns, column) -> the median of a column, and of its ratio to direct's
local function summarize(turns, direct_turns, column)
	local values, ratios = {}, {};
	for number, turn in ipairs(turns) do
		values[number] = turn[column];
		ratios[number] = turn[column] / direct_turns[number][column];
	end
	return median(values), median(ratios);
end

local function show(name, in_flight, turns, direct_turns)
	local columns = { ("  %-18s %9d"):format(name, in_flight) };
	for column = 1, COLUMNS do
		table.insert(columns, ("%9.2f %5.2f"):format(summarize(turns, direct_turns, column)));
	end
	print(table.concat(columns, " "));
end

local list = { subjects.direct(), subjects.null(), subjects.ours "short", subjects.ours "sealed", subjects.of_2018(arg[1]) };
local figures, version = {}, nil;
for _, subject in ipairs(list) do
	figures[subject.name] = {};
	for _, in_flight in ipairs(IN_FLIGHT) do
		figures[subject.name][in_flight] = {};
	end
end
for _ = 1, TURNS do
	for _, subject in ipairs(list) do
		version = take_turn(subject, figures[subject.name]);
	end
end
print(("# Requests a second and milliseconds a request, by how many are under way, through Prosody %s: medians of %d turns;")
	:format(version, TURNS));
print("# behind each, the ratio to direct. Goals, for ours_short with 16 and 256: rate at least 0.98, p50 at most 1.05");
print(("# %-18s %9s %9s %5s %9s %5s %9s %5s %9s %5s"):format("subject", "in_flight", "rate", "ratio", "p50", "ratio",
	"p99", "ratio", "p99.9", "ratio"));
for _, in_flight in ipairs(IN_FLIGHT) do
	for _, subject in ipairs(list) do
		show(subject.name, in_flight, figures[subject.name][in_flight], figures.direct[in_flight]);
	end
end
