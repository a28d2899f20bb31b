-- Throughput and latency through a real Prosody with 1, 16 and 256 requests under way all the
-- time. The servers run side by side and take turns, so that what else the machine does meets
-- all of them; each one's ratio is to what "direct" had in the same turn, and the median counts.
--
--     lua5.4 bench/latency.lua [PLUGIN_PATH]

local subjects = require "bench.subjects";
local new_load = require "bench.load".new;

local IN_FLIGHT = { 1, 16, 256 };
local TURNS = 7;
local REQUESTS = { [1] = 1000, [16] = 3000, [256] = 3000 }; -- in a turn

local function percentile(times, share)
	return times[math.ceil(#times * share)] * 1000;
end

local function median(values)
	table.sort(values);
	return values[#values // 2 + 1];
end

-- One turn. -> { rate (a second), p50, p99, p99.9 (milliseconds) }
local function measure(load, in_flight)
	local times, seconds = load:run(REQUESTS[in_flight], in_flight);
	table.sort(times);
	return { #times / seconds, percentile(times, 0.5), percentile(times, 0.99), percentile(times, 0.999) };
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
	local columns = { ("  %-28s %9d"):format(name, in_flight) };
	for column = 1, 4 do
		table.insert(columns, ("%9.2f %5.2f"):format(summarize(turns, direct_turns, column)));
	end
	print(table.concat(columns, " "));
end

local function compare(list, loads, in_flight)
	local turns = {};
	for _, subject in ipairs(list) do
		turns[subject.name] = {};
	end
	for number = 0, TURNS do
		for _, subject in ipairs(list) do
			turns[subject.name][number] = measure(loads[subject.name], in_flight); -- 0 is to warm up
		end
	end
	for _, subject in ipairs(list) do
		show(subject.name, in_flight, turns[subject.name], turns.direct);
	end
end

local list, loads, servers = subjects.list(arg[1]), {}, {};
for _, subject in ipairs(list) do
	local server, requester, backend, address = subjects.start(subject);
	loads[subject.name] = new_load(requester, backend, address);
	table.insert(servers, server);
end
print(("# Requests a second and milliseconds a request, by how many are under way, through Prosody %s: medians of %d turns;")
	:format(servers[1]:version(), TURNS));
print("# behind each, the ratio to direct");
print(("# %-28s %9s %9s %5s %9s %5s %9s %5s %9s %5s"):format("subject", "in_flight", "rate", "ratio", "p50", "ratio",
	"p99", "ratio", "p99.9", "ratio"));
for _, in_flight in ipairs(IN_FLIGHT) do
	compare(list, loads, in_flight);
end
for _, server in ipairs(servers) do
	server:remove();
end
