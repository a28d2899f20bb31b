-- What an operator has to know and to do: one line, in the log and as the module's
-- status, each time that it changes.

local addresses = module:require "addresses";
local timers = module:require "timers";

local now = require "util.time".now;

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

-- About the target and, twice, the proxy host
local UNAUTHENTICATED = "The stream to the server of %s is not authenticated, so nothing can be sent to it: see that Prosody has a "
	.."certificate for %s which the other server trusts, and the other way round; where the two use dialback (XEP-0220) instead, "
	.."the other one has to be able to connect to Prosody for %s";

-- About the target's host and the proxy host
local ON_COMPONENT = "%s is a component, not a host with accounts: write an account that serves as target_address of %s";

-- About the target
local NONE_YET = "No resource of %s serves yet, as Prosody has just started";
local NONE_ONLINE = "No resource of %s is online, requests are refused: log in a client that answers them";
local NONE_READY = "Each resource of %s that could serve is suspended: one gets requests all the same, but nobody may answer them";
local NONE_CHOSEN = "Each resource of %s that is online is draining, hibernating or excluded, requests are refused";

-- About bytes a second, requests a second, the proxy host, and the target's. The option has to stand where mod_limits is
-- enabled: a component does not have it from the global section.
local LIMITED = "Prosody reads %d bytes a second at most from the server of %s (mod_limits), which are about %d answers: "
	..[[to lift that, write below Component %q "client_proxy": modules_enabled = { "limits" }; unlimited_jids = { %q }, ]]
	.."and restart Prosody";

local BYTES_OF_ANSWER = 200; -- of a small one

local PRESENCE_WITHIN = 1; -- seconds, in which presence may come before it is said that there is none

-- Seconds from a start of Prosody, in which backends and other servers may come before it is warned of that they have not
local GRACE = 30;

local diagnosis = {};
diagnosis.__index = diagnosis;

-- Says what there is to say, if that is something new.
local function report(self)
	self.is_starting = self.is_starting and not self.pool:serves();
	local level, line = self:current();
	if line ~= self.reported.line or level ~= self.reported.level then
		self.reported = { level = level, line = line };
		module:set_status(level, line, true);
		module:log(level, "%s", line);
	end
end

-- Says that a limit holds the target's server, and what to do. It is nothing that is wrong, so it is said once, though
-- streams come and go.
local function report_limit(self)
	local line = self:limit();
	if line and line ~= self.reported_limit then
		self.reported_limit = line;
		module:log("info", "%s", line);
	end
end

local function is_nobody_there(self)
	return self.subscription:state() == "granted" and #self.pool == 0;
end

-- What happens at any start is no reason for an alert: until a backend serves, or for so many seconds, it is not warned of.
local function begin_grace(self)
	local since_start = prosody.start_time and now() - prosody.start_time or 0;
	if since_start < GRACE then
		self.is_starting = true;
		self.timers:set("grace", math.min(GRACE - since_start, GRACE), function ()
			self.is_starting = false;
			report(self);
		end);
	end
end

-- (setup) -> diagnosis, which reports when "changed" is fired
-- setup: { target, pool, formats, server, subscription, events (see mod_client_proxy.lua) }
function diagnosis.new(setup)
	local self = setmetatable({
		target = setup.target, pool = setup.pool, formats = setup.formats, server = setup.server, subscription = setup.subscription;
		reported = {}; -- the last line, and its level
		reported_limit = nil; -- the last line about a limit
		is_starting = false; -- see begin_grace()
		timers = timers.new();
	}, diagnosis);
	begin_grace(self);
	-- Changes often come together, as when all presence comes at once. Only what is the case after the last of them is said.
	setup.events.add_handler("changed", function ()
		if not self.timers:is_running("report") then
			self.timers:set("report", is_nobody_there(self) and PRESENCE_WITHIN or 0, function ()
				report(self);
				report_limit(self);
			end);
		end
	end);
	setup.events.add_handler("stream-established", function () report_limit(self); end);
	return self;
end

-- Whether the target is on a component that is a part of this Prosody, such as rooms. An external one (XEP-0114) is
-- another server, for all that is known here.
local function is_on_component(self)
	local host = prosody.hosts[addresses.host(self.target)];
	return host and host.type == "component" and not host.modules.component;
end

-- What is wrong with the way to the target. -> level, line, whether it can be so at a start | nil: nothing
local function problem_of(self)
	local state, reason = self.subscription:state();
	reason = reason and (" (%s)"):format(reason) or "";
	if #self.pool == 0 and is_on_component(self) then
		return "warn", ON_COMPONENT:format(addresses.host(self.target), module.host);
	elseif self.server:is_unauthenticated() then
		return "warn", UNAUTHENTICATED:format(self.target, module.host, module.host)..reason, true;
	elseif self.server:is_silent() then
		return "warn", SILENT:format(self.target), true;
	elseif problems[state] then
		local level, format = table.unpack(problems[state]);
		return level, format:format(self.target, module.host)..reason, state == "unreachable";
	end
end

-- -> level ("info", "warn" or "error"), line, whether requests are served as they should be
function diagnosis:current()
	local level, line, may_pass = problem_of(self);
	if line then
		return self.is_starting and may_pass and "info" or level, line, false;
	elseif self.pool:is_ready() then
		local remark;
		level, remark = self.formats:remark();
		return level, ("%s is online, requests are served%s"):format(self.target, remark), level == "info";
	elseif self.pool:serves() then
		return "info", NONE_READY:format(self.target), false; -- who does not answer has been warned of, one by one
	elseif self.is_starting then
		return "info", NONE_YET:format(self.target), false;
	end
	return "warn", (#self.pool > 0 and NONE_CHOSEN or NONE_ONLINE):format(self.target), false;
end

-- -> line, about the limit that holds the target's server | nil: there is none
function diagnosis:limit()
	local rate, host = self.server:rate_limit(), addresses.host(self.target);
	return rate and LIMITED:format(rate // 1, host, rate // BYTES_OF_ANSWER, module.host, host);
end

-- To be called when the module goes, whether it is reloaded or not.
function diagnosis:retire()
	self.timers:retire();
end

return diagnosis;
