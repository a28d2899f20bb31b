-- How long it takes until some hundred requests are answered where Prosody has its default rate limits: mod_limits
-- reads no more than 10 kB a second from a client, as which a backend comes. Requesters are slowed down as well, but of
-- those there are many.
--
--     lua5.4 bench/limits.lua [PLUGIN_PATH]
--
-- PLUGIN_PATH: where the module of 2018 is, to be measured as well

local subjects = require "bench.subjects";
local new_load = require "bench.load".new;

local REQUESTS, REQUESTERS = 400, 40;
local GOAL = 2; -- seconds

-- So that an answer has about as many bytes as that of a Jicofo to a request for a conference
local PAYLOAD = ("<query xmlns='urn:example:bench'>%s</query>"):format(("x"):rep(150));

-- A limited connection can be read from once in a second. What is sent to have the rest looked at (see bench/load.lua)
-- counts towards the limits itself.
local LOAD_OPTIONS = { payload = PAYLOAD, nudge_after = 1.5, patience = 60 };

-- -> seconds, the version of Prosody
local function measure(subject)
	local server, requesters, backend, address = subjects.start_limited(subject, REQUESTERS);
	local load = new_load(requesters, backend, address, LOAD_OPTIONS);
	local _, seconds = load:run(REQUESTS, REQUESTS);
	local version = server:version();
	server:remove();
	return seconds, version;
end

local rows, version = {}, nil;
for _, subject in ipairs { subjects.direct(), subjects.ours "short", subjects.of_2018(arg[1]) } do
	local seconds;
	seconds, version = measure(subject);
	table.insert(rows, ("  %-18s %8.1f %8s"):format(subject.name, seconds, subject.name == "ours_short" and GOAL or "-"));
end
print(("# Seconds until %d requests of %d requesters are answered by one backend, through Prosody %s with its default rate")
	:format(REQUESTS, REQUESTERS, version));
print "# limits for clients";
print(("# %-18s %8s %8s"):format("subject", "seconds", "goal"));
print(table.concat(rows, "\n"));
