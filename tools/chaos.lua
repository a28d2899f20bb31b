-- tools/chaos.lua SECONDS [PLUGIN_PATH]: the chaos, on one Prosody
-- PLUGIN_PATH: where another mod_client_proxy is, to compare it with
--
--     CHAOS_STOP_AT_FIRST  1: stops for good as soon as something has happened that must never happen; or
--                          the name of that in chaos/ledger.lua: lost, say
--     CHAOS_TARGETS        here: they are accounts of the same Prosody; elsewhere: of a played server, whose
--                          streams break; else the ones, and then the others for as long
--     CHAOS_WITHOUT        what is to be left out, to narrow down what something comes of:
--                          some of asking, blocking, drains, hangs, messages, neighbour, options, presence, targets; elsewhere also of
--                          episodes (streams that break, say) and whims (what is said though it is not so)
--     SPEC_SEED            what decides what happens, else the time
--
-- The last line about each is the ledger. The exit code is 1 if something has happened that must never happen.

require "spec.support.paths";
local chaos = require "spec.support.chaos";
local prosody = require "spec.support.prosody";

local PROGRESS = 10; -- seconds from one line to the next

local seconds, plugin_path = tonumber(arg[1]), arg[2];
local stop_at = os.getenv("CHAOS_STOP_AT_FIRST");
local seed = tonumber(os.getenv("SPEC_SEED")) or os.time();

local function is_to_stop(ledger)
	return stop_at == "1" and ledger:violations() > 0 or (ledger[stop_at] or 0) > 0;
end

local function run(server, place)
	server:start();
	local function say(...)
		print(("Prosody %s, targets %s: %s"):format(server:version(), place, table.concat({ ... }, " ")));
		io.stdout:flush();
	end
	say(("%d seconds, SPEC_SEED=%d"):format(seconds, seed));
	local started, told, next_line = os.time(), 0, PROGRESS;
	local function progress(ledger)
		local passed = os.time() - started;
		for position = told + 1, #ledger.told do
			say(("after %d s,"):format(passed), ledger.told[position]);
		end
		told = #ledger.told;
		if passed >= next_line then
			say(("%d s,"):format(passed), ledger:describe());
			next_line = next_line + PROGRESS;
		end
	end
	local ledger = chaos.new(server, place):run(function (ledger)
		return os.time() < started + seconds and not is_to_stop(ledger);
	end, progress);
	progress(ledger);
	local tracebacks = chaos.count_tracebacks(server:log());
	if tracebacks > 0 then
		say("something was thrown", tracebacks, "times:", server:log():match("[^\n]*\n[^\n]*stack traceback:[^\n]*\n[^\n]*\n[^\n]*"));
	end
	say(ledger:describe());
	return ledger:violations() == 0 and tracebacks == 0;
end

local is_all_well = true;
for place in (os.getenv("CHAOS_TARGETS") or "here elsewhere"):gmatch("%a+") do
	math.randomseed(seed);
	local is_well = prosody.use(chaos.server_options(place, plugin_path), function (server) return run(server, place); end);
	is_all_well = is_all_well and is_well;
	if stop_at and not is_all_well then
		break;
	end
end
os.exit(is_all_well);
