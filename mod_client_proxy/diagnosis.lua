-- What an operator has to know and to do: one line, in the log and as the module's
-- status, each time that it changes.

-- By the subscription's state: level, and a line about the target (first) and the proxy host (second)
local problems = {
	["starting"] = { "info", "Prosody is starting, %s is yet to be asked for its presence" };
	["reachable"] = { "info", "%s can be reached again, it is asked for its presence" };
	["asked"] = { "info", "%s has been asked for its presence" };
	["unapproved"] = { "warn", "%s has not approved yet that %s sees its presence: "
		.."accept the request with a client that is logged in to that account" };
	["refused"] = { "warn", "%s does not let %s see its presence: "
		.."accept the request, which comes again, with a client that is logged in to that account" };
	["no-account"] = { "warn", "There is no account %s: make it, with `prosodyctl adduser` for example" };
	["roster-broken"] = { "error", "The roster of %s cannot be given %s: see to Prosody's storage" };
	["unreachable"] = { "warn", "%s cannot be reached, it is tried again: see that its server runs, and that Prosody can connect to it" };
};

-- About the target. A server that cannot reach this one for its answers may wait for minutes before it tries again.
local SILENT = "Nothing comes from the server of %s, though it is asked again and again: see that it runs, "
	.."and that it can connect to this one; a new stream to it is tried";

local PRESENCE_WITHIN = 1; -- seconds, in which presence may come before it is said that there is none

local diagnosis = {};

-- (setup) -> changed(), to be called when something may have changed; current() -> level, line
-- setup: { target, pool, server, subscription }
function diagnosis.new(setup)
	local reported;
	local is_due = false;

	local function current()
		local target = setup.target;
		local state, reason = setup.subscription.state();
		if setup.server:is_silent() then
			return "warn", SILENT:format(target);
		elseif problems[state] then
			local level, format = table.unpack(problems[state]);
			return level, format:format(target, module.host)..(reason and (" (%s)"):format(reason) or "");
		elseif setup.pool:serves() then
			return "info", ("%s is online, requests are served"):format(target);
		elseif #setup.pool > 0 then
			return "warn", ("All resources of %s are draining, hibernating or excluded, requests are refused"):format(target);
		end
		return "warn", ("No resource of %s is online, requests are refused: log in a client that answers them"):format(target);
	end

	local function is_nobody_there()
		return setup.subscription.state() == "granted" and #setup.pool == 0;
	end

	local function report()
		is_due = false;
		local level, line = current();
		if line ~= reported then
			reported = line;
			module:set_status(level, line, true);
			module:log(level, "%s", line);
		end
	end

	-- One change can make another, as when all presence comes at once: what counts is the last.
	local function changed()
		if not is_due then
			is_due = true;
			module:add_timer(is_nobody_there() and PRESENCE_WITHIN or 0, report);
		end
	end

	return { changed = changed, current = current };
end

return diagnosis;
