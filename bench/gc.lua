-- What pending requests cost Lua's garbage collector, which has to go through all
-- that Lua keeps and through nothing of what the C core does.
--
--     tools/on_prosody ROOT lua5.4 bench/gc.lua [MOST]
--
-- MOST: how many requests are held at most, a million if not given.
--
-- Each of them is held (core) in the core's table, (lua) in Lua tables, (stanza) in
-- the core's table with the stanza kept, as requests.lua keeps each get to be sent
-- again, (string) in the core's table with the stanza as a string beside it.

-- luacheck: ignore 241 (what is held need not be read)

require "spec.support.paths";
local core = require "mod_client_proxy.core";
local new_pending = require "spec.support.pending".new;
local indexedbheap = require "util.indexedbheap";
local parse_xml = require "util.xml".parse;
local st = require "util.stanza";

local MOST = tonumber(arg[1]) or 1000000;
local BACKENDS = 10;
local ROUNDS = 3;
local ITERATIONS = 20000; -- of the work, in a round
local OTHERS = 10000; -- stanzas that are always held, about 10 MiB
local LIVE = 100; -- iterations for which what the work makes is kept

local SERVICE = "focus.meet.some-domain.example";
local TOKEN = ("t"):rep(108); -- how all tokens begin

-- Prosody's own, of both versions: see default_gc_params in util/startup.lua
local PAUSE, SPEED = 105, 500;

local backends = {};
for number = 1, BACKENDS do
	backends[number] = ("focus@auth.meet.some-domain.example/focus%08x"):format(number);
end

-- -> backend, to, id, requester; what they are made from is garbage at once, as in the parser
local function texts(number)
	return backends[number % BACKENDS + 1],
		("%s/s%s%012x"):format(SERVICE, TOKEN, number),
		("3f2a8c44-77aa-4c11-9d3e-%012x:sendIQ"):format(number),
		("7d1f0c52-9b1e-4d5a-8c0a-%012x@some-domain.example/k3jH8s9d"):format(number);
end

local function request(to, backend, id)
	return st.iq({ type = "get", from = to, to = backend, id = id, ["xml:lang"] = "en" })
		:tag("query", { xmlns = "http://jabber.org/protocol/disco#info", node = "urn:example:bench" });
end

-- The ways to hold requests: new() -> add(number)

local function in_core()
	local pending = new_pending(("s"):rep(core.PENDING_SEEDBYTES));
	return function (number)
		local backend, to, id, requester = texts(number);
		return assert(pending:add(backend, to, id, requester, SERVICE, number, number));
	end
end

-- with the stanza to be sent again
local function in_core_with_stanza()
	local pending = new_pending(("s"):rep(core.PENDING_SEEDBYTES));
	return function (number)
		local backend, to, id, requester = texts(number);
		return assert(pending:add(backend, to, id, requester, SERVICE, number, number, 1, request(to, backend, id)));
	end
end

-- What can do the same: find by the answer, by the backend, and by the earliest deadline, and take out of all
local function in_lua()
	local by_answer, by_backend, deadlines = {}, {}, indexedbheap.create();
	return function (number)
		local backend, to, id, requester = texts(number);
		local entry = { requester = requester, service = SERVICE, id = id, backend = backend, deadline = number };
		by_answer[backend.."\0"..to.."\0"..id] = entry;
		by_backend[backend] = by_backend[backend] or {};
		by_backend[backend][entry] = true;
		entry.timer = deadlines:insert(entry, number);
	end
end

-- with the stanza beside it, serialized
local function in_core_and_as_string()
	local add, kept = in_core(), {};
	return function (number)
		add(number);
		local backend, to, id = texts(number);
		kept[number] = tostring(request(to, backend, id));
	end
end

local ways = {
	{ "core", in_core };
	{ "lua", in_lua };
	{ "stanza", in_core_with_stanza };
	{ "string", in_core_and_as_string };
};

-- A Prosody also has sessions, rosters and handlers. If there were none, the collector would be through in no time, and
-- begin anew far too often.
local others = {};
for number = 1, OTHERS do
	local backend, to, id = texts(number);
	others[number] = request(to, backend, id);
end

-- Short-lived garbage as from handling a request: a stanza and its answer, both
-- serialized. Some of it lives on for a while, as what has not been sent yet.
local live = {};
local function work(iteration)
	local stanza = request("requester@some-domain.example/resource", backends[1], "id-"..iteration);
	local answer = st.reply(stanza):tag("query", { xmlns = "http://jabber.org/protocol/disco#info" });
	live[iteration % LIVE + 1] = tostring(stanza)..tostring(answer);
end

-- Calls it with 1, 2, ... count. -> CPU seconds of all calls; by how much the longest took longer than their mean.
-- A table of the times would itself have to be enlarged and collected.
local function time_each(count, call)
	local longest = 0;
	local started = os.clock();
	local last = started;
	for number = 1, count do
		call(number);
		local time = os.clock();
		longest = math.max(longest, time - last);
		last = time;
	end
	return last - started, longest - (last - started) / math.max(count, 1);
end

-- An object that is gone at the end of a cycle of the collector, and starts over
local cycles = 0;
local function count_cycle()
	cycles = cycles + 1;
	setmetatable({}, { __gc = count_cycle });
end

count_cycle();

local function measure(name, new, count)
	local add = new();
	local adding, longest_add = time_each(count, add);
	local collection, working, longest_work = math.huge, math.huge, math.huge;
	for _ = 1, ROUNDS do
		local started = os.clock();
		collectgarbage();
		collection = math.min(collection, os.clock() - started);
		cycles = 0;
		local all, longest = time_each(ITERATIONS, work);
		working, longest_work = math.min(working, all), math.min(longest_work, longest);
	end
	local worked_cycles = cycles;
	collectgarbage();
	print(("%-8s %8d %9.1f %9.2f %9.1f %9.1f %9.3f %9.0f %7d"):format(name, count, collectgarbage("count") / 1024,
		adding / math.max(count, 1) * 1e6, longest_add * 1e3, collection * 1e3, longest_work * 1e3, working * 1e3, worked_cycles));
	add(0); -- so that nothing of what it holds can be collected before
end

-- (call) -> microseconds of CPU time
local function time_call(call)
	local CALLS = 100000;
	local started = os.clock();
	for _ = 1, CALLS do
		call();
	end
	return (os.clock() - started) / CALLS * 1e6;
end

local version = io.open(os.getenv("PROSODY_ROOT").."/usr/lib/prosody/prosody.version"):read();
print("# Lua's garbage collector with requests held: CPU time (us per request to hold, ms for all else), Lua's heap (MiB)");
print(("# Prosody %s, collectgarbage(\"incremental\", %d, %d) as by its default; %d times the work of a request; least of %d.")
	:format(version, PAUSE, SPEED, ITERATIONS, ROUNDS));
print([[
# core: in the core's table. lua: a table for each, found by its answer, its backend and, with util.indexedbheap, its
#   deadline. stanza: as core, with the stanza kept. string: as core, with the stanza beside it, serialized.
# hold: to make and record one (once). max_hold, max_work: by how much the longest one (of the work: iteration) takes
#   longer than the mean. full: collectgarbage(). work: all of it, and how many cycles of the collector are in it.]]);
print(("# %-6s %8s %9s %9s %9s %9s %9s %9s %7s"):format("held_in", "count", "heap_MiB", "hold_us", "max_hold", "full",
	"max_work", "work", "cycles"));
io.stdout:setvbuf("line");

collectgarbage("incremental", PAUSE, SPEED);
measure("nothing", in_core, 0);
for exponent = 3, math.floor(math.log(MOST, 10) + 0.5) do
	for _, way in ipairs(ways) do
		measure(way[1], way[2], math.tointeger(10 ^ exponent));
	end
end

local _, to, id = texts(1);
local stanza = request(to, backends[1], id);
local serialized = tostring(stanza);
print(("# What string costs instead: tostring(stanza) %.2f us for each, util.xml.parse() %.2f us for each that is sent again.")
	:format(time_call(function () return tostring(stanza); end), time_call(function () return parse_xml(serialized); end)));
