-- For bench/: the instructions of a whole Prosody, counted by callgrind.

local throwaway = require "spec.support.throwaway";

local callgrind = {};

local function file_of(name)
	return assert(os.getenv("TMPDIR"), "run it by tools/with_scratch").."/"..name;
end

local function vgdb(server, command)
	local output, code = throwaway.read_command(("vgdb --pid=%d %s 2>&1"):format(server.pid, command));
	assert(code == 0, output);
end

-- (name) -> the command by way of which Prosody is to be started
-- name: of what is measured, for the names of files
function callgrind.command(name)
	return ("valgrind --quiet --tool=callgrind --trace-children=yes --callgrind-out-file=%s"):format(file_of(name));
end

-- (server, name, work) -> the instructions of that Prosody while work() goes on, the file that has them by function
-- To be called once for each start.
function callgrind.count(server, name, work)
	vgdb(server, "zero");
	work();
	vgdb(server, "dump");
	local dump = file_of(name)..".1";
	return tonumber(throwaway.read_file(dump):match("\nsummary: (%d+)")), dump;
end

return callgrind;
