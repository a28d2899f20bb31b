-- The units of the C core by themselves, against what a module without one would
-- do with Lua tables and Prosody's own libraries: CPU time per call.
--
--     tools/on_prosody ROOT lua5.4 bench/core.lua

require "spec.support.paths";
local core = require "mod_client_proxy.core";
local new_pending = require "spec.support.pending".new;
local base64 = require "util.encodings".base64;
local hashes = require "util.hashes";
local multitable = require "util.multitable";
local st = require "util.stanza";

local ROUNDS = 7;
local CALLS = 50000; -- in a round
local REQUESTS = 1000; -- that differ; a power of ten below CALLS
local IN_FLIGHT = 100; -- requests pending at the same time; send_iq takes no more than 256
local BACKENDS = 10;
local TIMEOUT = 60; -- seconds

local HOST = "proxy.domain.example";
local TARGET = "some-user@some-domain.example";

-- Prosody's own, of both versions: see default_gc_params in util/startup.lua
collectgarbage("incremental", 105, 500);

local key = ("k"):rep(core.JAT_KEYBYTES);

local requests, backends = {}, {};
for number = 1, BACKENDS do
	backends[number] = ("%s/%016x"):format(TARGET, number);
end
for number = 1, REQUESTS do
	local requester = ("7d1f0c52-9b1e-4d5a-8c0a-%012x@some-domain.example/k3jH8s9d"):format(number);
	requests[number] = {
		requester = requester;
		id = ("3f2a8c44-77aa-4c11-9d3e-%012x"):format(number);
		backend = backends[number % BACKENDS + 1];
	};
end

local function request_of(number)
	return requests[number % REQUESTS + 1];
end

-- The core

local function core_codec(format)
	local jat = assert(core.jat(HOST, format));
	jat:add_key(0, key);
	local tokens = {};
	for number = 1, REQUESTS do
		tokens[number] = assert(jat:encode(requests[number].requester));
	end
	return {
		encode = function (number) return jat:encode(request_of(number).requester); end;
		decode = function (number) return jat:decode(tokens[number % REQUESTS + 1]); end;
	};
end

local sealed, signed = core_codec("sealed"), core_codec("signed");
for number, request in ipairs(requests) do
	request.to = HOST.."/"..sealed.encode(number - 1);
end

local pending = new_pending(("s"):rep(core.PENDING_SEEDBYTES));
pending:set_limits(IN_FLIGHT + 1, IN_FLIGHT + 1);

local pool = core.pool(("s"):rep(core.POOL_SEEDBYTES));
for _, backend in ipairs(backends) do
	pool:add(backend);
end

local function core_pick(number)
	return pool:pick(request_of(number).requester, HOST, pending);
end

local function core_add(number)
	local request = request_of(number);
	return pending:add(request.backend, request.to, request.id, request.requester, HOST, number, number + TIMEOUT);
end

local function core_take(number)
	local request = request_of(number);
	return pending:take(request.backend, request.to, request.id);
end

-- All of them together: what each request needs of the core, and each answer

local short = assert(core.jat(HOST, "short"));
short:add_key(0, key);
local book = core.requesters(("s"):rep(core.REQUESTERS_SEEDBYTES));
local exchange = core.exchange(short, book, pool, core.pending(("s"):rep(core.PENDING_SEEDBYTES), book));

local sent = {}; -- by the request's number, what its answer carries

local function core_dispatch(number)
	local request = request_of(number);
	local backend, address = exchange:dispatch(request.requester, HOST, request.id, number, number + TIMEOUT, 0);
	sent[number % REQUESTS] = { backend = backend, to = address };
	return backend;
end

local function core_settle(number)
	local answer = sent[number % REQUESTS];
	return exchange:settle(answer.backend, answer.to, request_of(number).id, number);
end

-- Lua tables

-- A keyed hash is the token, and a table has to remember what it stands for
local function lua_codec(hmac)
	local requester_of, token_of, tokens = {}, {}, {};
	local function encode(number)
		local requester = request_of(number).requester;
		local token = base64.encode(hmac(key, HOST.."\0"..requester));
		requester_of[token], token_of[requester] = requester, token;
		return token;
	end
	for number = 1, REQUESTS do
		tokens[number] = encode(number - 1);
	end
	return {
		encode = encode;
		encode_once = function (requester) return token_of[requester]; end;
		decode = function (number) return requester_of[tokens[number % REQUESTS + 1]]; end;
	};
end

local hmac_sha256 = lua_codec(hashes.hmac_sha256);

local function lua_pick()
	return backends[math.random(#backends)];
end

local lua_pending = {};

local function lua_add(number)
	local request = request_of(number);
	lua_pending[request.to.."\0"..request.id] = {
		requester = request.requester, service = HOST, id = request.id, backend = request.backend, deadline = number + TIMEOUT;
	};
	return true;
end

local function lua_take(number)
	local request = request_of(number);
	local index = request.to.."\0"..request.id;
	local entry = lua_pending[index];
	if entry and entry.backend == request.backend then
		lua_pending[index] = nil;
		return entry.requester, entry.service, entry.id;
	end
end

local function lua_dispatch(number)
	local request = request_of(number);
	local backend, to = lua_pick(), HOST.."/"..hmac_sha256.encode_once(request.requester);
	sent[number % REQUESTS] = { backend = backend, to = to };
	lua_pending[to.."\0"..request.id] = {
		requester = request.requester, service = HOST, id = request.id, backend = backend, deadline = number + TIMEOUT;
	};
	return backend;
end

local function lua_settle(number)
	local answer, request = sent[number % REQUESTS], request_of(number);
	local index = answer.to.."\0"..request.id;
	local entry = lua_pending[index];
	if entry and entry.backend == answer.backend then
		lua_pending[index] = nil;
		return entry.requester, entry.service;
	end
end

-- module:send_iq(), of Prosody's real core/moduleapi.lua with its real events,
-- promises and timers; the stanzas go nowhere

local events = require "util.events".new();
_G.prosody = {
	hosts = { [HOST] = { host = HOST, events = events, send = function () end } };
	core_post_stanza = function () end;
	events = events;
	config_loaded = true; -- net.server of 0.12 asks
};
local host_module = setmetatable({ host = HOST, name = "client_proxy", event_handlers = multitable.new() },
	{ __index = require "core.moduleapi" });

for _, request in ipairs(requests) do
	request.stanza = st.iq({ type = "get", from = request.to, to = request.backend, id = request.id })
		:tag("query", { xmlns = "urn:example:bench" });
	request.answer = st.reply(request.stanza);
end

local settled, rejected = 0, 0;

local function on_answer()
	settled = settled + 1;
end

local function on_failure()
	rejected = rejected + 1;
end

local function send_iq(number)
	return host_module:send_iq(request_of(number).stanza, nil, TIMEOUT):next(on_answer, on_failure);
end

local function answer_iq(number)
	local answer = request_of(number).answer;
	return events.fire_event("iq-result/host/"..answer.attr.id, { origin = host_module, stanza = answer });
end

-- What is measured

local function call_all(call)
	for number = 1, CALLS do
		if not call(number) then
			error("a call has failed");
		end
	end
end

-- Each request is answered when IN_FLIGHT others have followed it
local function in_flight(add, take)
	return function ()
		for number = 1, IN_FLIGHT do
			add(number);
		end
		for number = 1, CALLS do
			if not add(number + IN_FLIGHT) or not take(number) then
				error("a call has failed");
			end
		end
		for number = CALLS + 1, CALLS + IN_FLIGHT do
			take(number);
		end
	end
end

local function each(call)
	return function () call_all(call); end
end

local core_pending = in_flight(core_add, core_take);

local comparisons = {
	{ "encode_sealed", each(sealed.encode), "hmac_sha256", each(hmac_sha256.encode) };
	{ "encode_signed", each(signed.encode), "hmac_sha256", each(hmac_sha256.encode) };
	{ "decode_sealed", each(sealed.decode), "table", each(hmac_sha256.decode) };
	{ "decode_signed", each(signed.decode), "table", each(hmac_sha256.decode) };
	{ "pick", each(core_pick), "math.random", each(lua_pick) };
	{ "add_and_take", core_pending, "table", in_flight(lua_add, lua_take) };
	{ "add_and_take", core_pending, "send_iq", in_flight(send_iq, answer_iq) };
	{ "exchange", in_flight(core_dispatch, core_settle), "table", in_flight(lua_dispatch, lua_settle) };
};
if hashes.hmac_blake2s256 then -- from Prosody 13 on
	table.insert(comparisons, 3,
		{ "encode_sealed", each(sealed.encode), "hmac_blake2s256", each(lua_codec(hashes.hmac_blake2s256).encode) });
end

-- Nanoseconds of CPU time per call, with the collection of the garbage that it makes meanwhile
local function time(calls)
	collectgarbage();
	local started = os.clock();
	calls();
	return (os.clock() - started) / CALLS * 1e9;
end

local function compare(name, ours, other_name, theirs)
	local our_least, their_least = math.huge, math.huge;
	for _ = 1, ROUNDS do
		our_least = math.min(our_least, time(ours));
		their_least = math.min(their_least, time(theirs));
	end
	print(("%-15s %8.0f %11.0f %-16s %8.0f %11.0f %7.2f"):format(name, our_least, 1e9 / our_least, other_name,
		their_least, 1e9 / their_least, their_least / our_least));
end

-- How many of REQUESTS requests send_iq gives up before any of them could be answered
local function count_evicted()
	rejected = 0;
	for number = 1, REQUESTS do
		send_iq(number);
	end
	return rejected;
end

local version = io.open(os.getenv("PROSODY_ROOT").."/usr/lib/prosody/prosody.version"):read();
print("# The C core against Lua tables and Prosody's libraries: CPU time per call (ns) and calls per second");
print(("# Prosody %s. The least of %d rounds of %d calls, in turns; %d requests differ, %d are pending; %d backends.")
	:format(version, ROUNDS, CALLS, REQUESTS, IN_FLIGHT, BACKENDS));
print([[
# What the others do and do not give:
# hmac_*: unforgeable tokens that hide the requester, as sealed ones; but they stand for nobody to whoever has not
#   the table, so that it grows with each requester seen, is lost by a restart, and needs a rule when to forget.
# table (decode): such a look-up; what is not in there is unknown, be it forged, expired or forgotten.
# math.random: no backend that is suspended or the requester itself; taking one out of the array is O(n).
# table (add_and_take): no limits, in all or per requester; equal ids overwrite each other; deadlines, or what a
#   backend that has gone still had, are found by going through all; and the table is the collector's: see bench/gc.lua.
# send_iq: a timer and two hooks for each; one id at a time whoever asks, so a proxy has to make up ids of its own and
#   remember the requesters', which is not in here; no limit per requester. Events, promises and timers are Prosody's
#   own; the stanza goes nowhere, and the answer comes as the event that Prosody's router fires for it.
# exchange, table: a requester's short token, a backend, and a request that is pending until it is settled: all of the above
#   in one call for the request, and in one for its answer; with tables, a token is made once for each requester.]]);
print(("# %-13s %8s %11s %-16s %8s %11s %7s"):format("operation", "core_ns", "core_per_s", "other", "other_ns", "other_per_s",
	"ratio"));
for _, comparison in ipairs(comparisons) do
	compare(table.unpack(comparison));
end
assert(settled == ROUNDS * (CALLS + IN_FLIGHT) and rejected == 0);
print(("# send_iq has room for 256, then it gives up the oldest for the next one (0.12, which counts what it gave up twice, "
	.."for every other one): of %d sent before any was answered, %d were given up."):format(REQUESTS, count_evicted()));
