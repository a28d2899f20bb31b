-- Instructions of the whole Prosody process for one request and its answer, counted by
-- callgrind: the same for the same Prosody within 0.5 %, however busy the machine is.
--
--     lua5.4 bench/round_trip.lua [PLUGIN_PATH]
--
-- PLUGIN_PATH: where the module of 2018 is, to be measured as well

local subjects = require "bench.subjects";
local new_load = require "bench.load".new;
local throwaway = require "spec.support.throwaway";

local WARM_UP, ROUND_TRIPS = 100, 400;

local function vgdb(server, command)
	local output, code = throwaway.read_command(("vgdb --pid=%d %s 2>&1"):format(server.pid, command));
	assert(code == 0, output);
end

local function read_total(file)
	return tonumber(throwaway.read_file(file):match("\nsummary: (%d+)"));
end

-- -> instructions for one round trip, the version of Prosody
local function measure(subject)
	local dir = os.getenv("TMPDIR").."/"..subject.name;
	local server, requester, backend, address = subjects.start(subject,
		("valgrind --quiet --tool=callgrind --trace-children=yes --callgrind-out-file=%s"):format(dir));
	local load = new_load(requester, backend, address);
	load:run(WARM_UP, 1);
	vgdb(server, "zero");
	load:run(ROUND_TRIPS, 1);
	vgdb(server, "dump");
	local version = server:version();
	server:remove();
	return read_total(dir..".1") / ROUND_TRIPS, version;
end

local list = subjects.list(arg[1]);
local counts, version = {}, nil;
for _, subject in ipairs(list) do
	counts[subject.name], version = measure(subject);
end
local reference = arg[1] and "2018" or "2018-like";
print(("# Instructions for one round trip of an IQ, in all of Prosody %s"):format(version));
print(("# %-28s %12s %12s   %s"):format("subject", "instructions", "over direct", "of what "..reference.." is over direct"));
for _, subject in ipairs(list) do
	local over = counts[subject.name] - counts.direct;
	print(("  %-28s %12.0f %12.0f   %.2f"):format(subject.name, counts[subject.name], over, over / (counts[reference] - counts.direct)));
end
