-- Instructions of the whole Prosody process for one request and its answer, counted by
-- callgrind, and the bytes that its Lua allocates for that. A busy machine adds to the instructions, as
-- Prosody then waits, wakes and looks at its timers more often, and so does Lua's collector, with hash
-- seeds that differ from start to start: the least of some starts counts.
--
--     lua5.4 bench/round_trip.lua [PLUGIN_PATH]
--
-- PLUGIN_PATH: where the module of 2018 is, to be measured as well
-- In the environment, BENCH_STARTS: how many starts, and BENCH_SUBJECTS: names of subjects, if not all are to be
-- measured

local callgrind = require "bench.callgrind";
local subjects = require "bench.subjects";
local new_load = require "bench.load".new;
local throwaway = require "spec.support.throwaway";

local STARTS = tonumber(os.getenv("BENCH_STARTS")) or 3;
local WARM_UP, ROUND_TRIPS = 100, 400;
local ALLOCATING_ROUND_TRIPS = 2000;

-- Of what the module of 2018 is over direct; bytes over direct
local GOALS = { ours_no_top_tag = 0.50, ours_short = 0 };
local BYTES_GOALS = { ours_short = 300 };

-- The instructions of calls into the C core, by function. A function that contains others from headers has a line for
-- each file, and one for all of them.
local function read_core(file)
	local counts = {};
	local output = throwaway.read_command(("callgrind_annotate --inclusive=yes --auto=no --threshold=100 %s"):format(file));
	for count, name in output:gmatch("([%d,]+) [^\n]-%.[ch]:l_([%w_]+)") do
		counts[name] = math.max(counts[name] or 0, tonumber((count:gsub(",", ""))) / ROUND_TRIPS);
	end
	return counts;
end

-- One start. -> instructions for one round trip, those of them in the core, the version of Prosody
local function measure_once(subject)
	local server, requester, backend, address = subjects.start(subject, callgrind.command(subject.name));
	local load = new_load({ requester }, backend, address);
	load:run(WARM_UP, 1);
	local total, dump = callgrind.count(server, subject.name, function () load:run(ROUND_TRIPS, 1); end);
	local version = server:version();
	server:remove();
	return total / ROUND_TRIPS, read_core(dump), version;
end

-- -> the same
local function measure(subject)
	local count, core, version = measure_once(subject);
	for _ = 2, STARTS do
		local other_count, other_core = measure_once(subject);
		if other_count < count then
			count, core = other_count, other_core;
		end
	end
	return count, core, version;
end

-- Bytes that Lua allocates for a round trip. Asking for them in Prosody's shell allocates some as well, the same for
-- each subject.
local function measure_bytes(subject)
	local server, requester, backend, address = subjects.start(subject);
	local load = new_load({ requester }, backend, address);
	load:run(WARM_UP, 1);
	local function kilobytes()
		return tonumber(server:run_lua("collectgarbage('stop') and collectgarbage('count')"):match("[%d.]+"));
	end
	kilobytes();
	local before = kilobytes();
	load:run(ALLOCATING_ROUND_TRIPS, 1);
	local bytes = (kilobytes() - before) * 1024 / ALLOCATING_ROUND_TRIPS;
	server:remove();
	return bytes;
end

local function goal(form, value)
	return value and form:format(value) or "-";
end

local function show(list, counts, bytes, reference)
	print(("# %-18s %12s %12s %8s %6s %9s %12s %6s"):format("subject", "instructions", "over_direct", "of_2018", "goal", "bytes",
		"over_direct", "goal"));
	for _, subject in ipairs(list) do
		local name = subject.name;
		local over = counts[name] - counts.direct;
		print(("  %-18s %12.0f %12.0f %8.2f %6s %9.0f %12.0f %6s"):format(name, counts[name], over, over / (counts[reference] - counts.direct),
			goal("%.2f", GOALS[name]), bytes[name], bytes[name] - bytes.direct, goal("%d", BYTES_GOALS[name])));
	end
end

local function show_parts(counts, core)
	local rest = counts.ours_no_top_tag - counts.direct;
	local function show_part(name, count)
		print(("  %-18s %12.0f"):format(name, count));
		rest = rest - count;
	end
	print "# What ours_no_top_tag is over direct, by parts: what any component costs; the calls into the core, with what they";
	print "# call; statistics; all else. And what top_tag.lua saves of that and of what Prosody does for two clients.";
	show_part("null", counts.null - counts.direct);
	for _, name in ipairs { "exchange_dispatch", "exchange_settle" } do
		show_part(name, core[name] or 0 / 0);
	end
	show_part("statistics", counts.ours_short - counts.ours_uncounted);
	show_part("all_else", rest);
	show_part("top_tag", counts.ours_short - counts.ours_no_top_tag);
end

local of_2018 = subjects.of_2018(arg[1]);
local list = {
	subjects.direct(), subjects.null(), subjects.null_cheap();
	subjects.ours "short", subjects.ours_without_top_tag(), subjects.ours "sealed", subjects.ours "signed", subjects.ours "plain";
	of_2018;
};
if arg[1] then
	table.insert(list, subjects.of_2018());
end

-- Without direct and the reference, nothing can be told of the others.
local wanted = os.getenv("BENCH_SUBJECTS");
local function is_wanted(name)
	return not wanted or name == "direct" or name == of_2018.name or (" "..wanted.." "):find(" "..name.." ", 1, true) ~= nil;
end

local counts, core, bytes, measured, version = {}, {}, {}, {}, nil;
for _, subject in ipairs(list) do
	if is_wanted(subject.name) then
		table.insert(measured, subject);
		counts[subject.name], core[subject.name], version = measure(subject);
		bytes[subject.name] = measure_bytes(subject);
	end
end
print(("# Instructions for one round trip of an IQ, in all of Prosody %s: the least of %d starts; what each is over direct, as a")
	:format(version, STARTS));
print(("# share of what %s is; bytes allocated for one; with the goals, which are not to be passed. ours_short is the default as it")
	:format(of_2018.name));
print "# is installed; ours_no_top_tag the same without the cheap debug lines of top_tag.lua, null_cheap null with them.";
show(measured, counts, bytes, of_2018.name);
if not wanted then
	counts.ours_uncounted = measure(subjects.ours_uncounted());
	show_parts(counts, core.ours_no_top_tag);
end
