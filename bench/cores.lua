-- For bench/: which cores of the machine the servers run on

local throwaway = require "spec.support.throwaway";

local OTHERS = 3; -- cores at least, for the target's servers and whoever asks and answers

local cores = {};

local count = tonumber((throwaway.read_command("nproc")));

local function pin(pid, list)
	local output, code = throwaway.read_command(("taskset --all-tasks --cpu-list --pid %s %d 2>&1"):format(list, pid));
	assert(code == 0, output);
end

local function has_enough(fronts)
	return count >= fronts + OTHERS;
end

-- (fleet) gives each front a core of its own, and all else the other ones, where the machine has enough.
function cores.pin(fleet)
	local fronts = #fleet.fronts;
	if not has_enough(fronts) then
		return;
	end
	local others = ("%d-%d"):format(fronts, count - 1);
	for number, front in ipairs(fleet.fronts) do
		pin(front.pid, number - 1);
	end
	for _, target in ipairs(fleet.targets) do
		pin(target.pid, others);
	end
	pin(throwaway.read_file("/proc/self/stat"):match("^%d+"), others);
end

-- (fronts) -> what is to be said about them
function cores.describe(fronts)
	return has_enough(fronts) and "each front has a core of its own"
		or ("all share %d cores, so that it is the processor time that tells, not the rate"):format(count);
end

return cores;
