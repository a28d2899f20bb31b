-- Instructions of the whole Prosody process for one message to a backend and its reply, which goes to where the message
-- came from, counted by callgrind: between two clients, and by way of the component, under each strategy. The least of
-- some starts counts, as in round_trip.lua.
--
--     lua5.4 bench/messages.lua
--
-- In the environment, BENCH_STARTS: how many starts

local callgrind = require "bench.callgrind";
local subjects = require "bench.subjects";
local is_message = require "spec.support.xmpp".is_message;
local core = require "mod_client_proxy.core";
local st = require "util.stanza";

local STARTS = tonumber(os.getenv("BENCH_STARTS")) or 3;
local WARM_UP, ROUND_TRIPS = 100, 400;

local function converse(requester, backend, address, count)
	for number = 1, count do
		local id = "n"..number;
		requester:send(st.message({ to = address, id = id, type = "chat" }, "question"));
		backend:send(st.message({ to = backend:receive(is_message).attr.from, id = id, type = "chat" }, "answer"));
		address = requester:receive(is_message).attr.from; -- as a client does (RFC 6121 section 5.1)
	end
end

-- One start. -> instructions for one round trip, the version of Prosody
local function measure_once(subject)
	local server, requester, backend, address = subjects.start(subject, callgrind.command(subject.name));
	converse(requester, backend, address, WARM_UP);
	local total = callgrind.count(server, subject.name, function () converse(requester, backend, address, ROUND_TRIPS); end);
	local version = server:version();
	server:remove();
	return total / ROUND_TRIPS, version;
end

-- -> the same
local function measure(subject)
	local least, version = measure_once(subject);
	for _ = 2, STARTS do
		least = math.min(least, (measure_once(subject)));
	end
	return least, version;
end

local direct, version = measure(subjects.direct());
print(("# Instructions for one message and its reply, in all of Prosody %s: the least of %d starts; and over direct. no_top_tag is")
	:format(version, STARTS));
print "# without the cheap debug lines of top_tag.lua.";
print(("# %-18s %12s %12s"):format("subject", "instructions", "over_direct"));
local function show(name, count)
	print(("  %-18s %12.0f %12.0f"):format(name, count, count - direct));
end
show("direct", direct);
show("no_top_tag", (measure(subjects.ours_without_top_tag())));
for _, strategy in ipairs(core.STRATEGIES) do
	show(strategy, (measure(subjects.ours_by(strategy))));
end
