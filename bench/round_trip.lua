-- Instructions of the whole Prosody process for one request and its answer, counted by
-- callgrind. A busy machine adds to them, as Prosody then waits, wakes and looks at its
-- timers more often, and so does Lua's collector, with hash seeds that differ from start
-- to start: the least of some starts counts.
--
--     lua5.4 bench/round_trip.lua [PLUGIN_PATH]
--
-- PLUGIN_PATH: where the module of 2018 is, to be measured as well

local subjects = require "bench.subjects";
local new_load = require "bench.load".new;
local throwaway = require "spec.support.throwaway";

local STARTS, WARM_UP, ROUND_TRIPS = 3, 100, 400;

local function vgdb(server, command)
	local output, code = throwaway.read_command(("vgdb --pid=%d %s 2>&1"):format(server.pid, command));
	assert(code == 0, output);
end

local function read_total(file)
	return tonumber(throwaway.read_file(file):match("\nsummary: (%d+)"));
end

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
	local dump = os.getenv("TMPDIR").."/"..subject.name;
	local server, requester, backend, address = subjects.start(subject,
		("valgrind --quiet --tool=callgrind --trace-children=yes --callgrind-out-file=%s"):format(dump));
	local load = new_load(requester, backend, address);
	load:run(WARM_UP, 1);
	vgdb(server, "zero");
	load:run(ROUND_TRIPS, 1);
	vgdb(server, "dump");
	local version = server:version();
	server:remove();
	return read_total(dump..".1") / ROUND_TRIPS, read_core(dump..".1"), version;
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

local function show(list, counts, reference)
	print(("# %-18s %12s %12s   %s"):format("subject", "instructions", "over_direct", "of_what_"..reference.."_is_over_direct"));
	for _, subject in ipairs(list) do
		local over = counts[subject.name] - counts.direct;
		print(("  %-18s %12.0f %12.0f   %.2f"):format(subject.name, counts[subject.name], over, over / (counts[reference] - counts.direct)));
	end
end

local function show_parts(counts, core)
	local rest = counts.ours_sealed - counts.direct;
	local function show_part(name, count)
		print(("  %-18s %12.0f"):format(name, count));
		rest = rest - count;
	end
	print "# What ours_sealed is over direct, by parts: what any component costs; each letter of the token that Prosody";
	print "# reads, splits, escapes and prints; the calls into the core; statistics; all else";
	show_part("null", counts.null - counts.direct);
	show_part("length_of_token", counts.null_long_token - counts.null);
	for _, name in ipairs { "jat_encode", "pool_pick", "pending_add", "pending_take" } do
		show_part(name, core[name]);
	end
	show_part("statistics", counts.ours_sealed - counts.ours_uncounted);
	show_part("all_else", rest);
end

local list = subjects.list(arg[1]);
local counts, core, version = {}, {}, nil;
for _, subject in ipairs(list) do
	counts[subject.name], core[subject.name], version = measure(subject);
end
counts.ours_uncounted = measure(subjects.ours_uncounted());
print(("# Instructions for one round trip of an IQ, in all of Prosody %s: the least of %d starts"):format(version, STARTS));
show(list, counts, arg[1] and "2018" or "2018-like");
show_parts(counts, core.ours_sealed);
