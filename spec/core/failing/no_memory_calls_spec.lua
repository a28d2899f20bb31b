-- Every allocation in every function that Lua can call fails once, be it Lua's or the core's:
-- the call raises Lua's "not enough memory" or returns nil, "no-memory", and all is as before.
-- Leaks are for the sanitizers to find, which this core.so is built with.

local path = assert(package.searchpath("mod_client_proxy.core", package.cpath));
local call_failing = assert(package.loadlib(path, "call_failing"));
local open = assert(package.loadlib(path, "luaopen_mod_client_proxy_core"));
local core = require "mod_client_proxy.core";
local new_table = require "spec.support.pending".new;

local registry = debug.getregistry();

-- Lua keeps only one of each string up to 40 bytes: these are longer, so that each needs memory anew
local function long(text)
	return text..("."):rep(50);
end

local POOL_SEED, POOL_KEY = ("s"):rep(core.POOL_SEEDBYTES), ("k"):rep(core.POOL_KEYBYTES);
local PENDING_SEED = ("s"):rep(core.PENDING_SEEDBYTES);
local REQUESTERS_SEED = ("s"):rep(core.REQUESTERS_SEEDBYTES);
local JID = long("user@some.domain.example/");
local BACKENDS = { long("a@"), long("b@"), long("c@") };
local BACKEND_TOKENS = { long("token of a"), long("token of b"), long("token of c") };

local function key(number)
	return ("%d"):format(number):rep(core.JAT_KEYBYTES);
end

local function new_jat()
	local jat = core.jat("proxy.domain.example", "sealed");
	jat:add_key(1, key(1));
	jat:add_key(2, key(2));
	return jat;
end

local TOKEN = new_jat():encode(JID);

-- (strategy) -> function that makes a pool with it
local function new_pool_by(strategy)
	return function ()
		local pool = core.pool(POOL_SEED);
		pool:set_strategy(strategy, POOL_KEY);
		for number, jid in ipairs(BACKENDS) do
			pool:add(jid, BACKEND_TOKENS[number]);
		end
		return pool;
	end;
end

local new_pool = new_pool_by("primary");

local STANZAS = {};
for number = 1, 3 do
	STANZAS[number] = { name = "iq", attr = { id = number.."" }, tags = {} };
end

local function new_pending()
	local pending = new_table(PENDING_SEED);
	pending:add(BACKENDS[1], "to", long("first"), JID, long("service"), 0, 2, 2, STANZAS[1]);
	pending:add(BACKENDS[2], "to", long("second"), JID, long("service"), 0, 1, 1, STANZAS[2]);
	pending:set_limits(4, 3);
	return pending;
end

-- (number) -> function that makes a table with so many stanzas more: now and then there is no place left for the next
local function new_pending_with(number)
	return function ()
		local pending = new_pending();
		pending:set_limits(20, 20);
		for i = 1, number do
			assert(pending:add(BACKENDS[1], "to", long("more-"..i), JID, "service", 0, 4, 1, STANZAS[1]));
		end
		return pending;
	end;
end

local function new_fixed()
	local pending = new_pending();
	pending:add(BACKENDS[3], "to", long("third"), JID, long("service"), 0, 3);
	return pending;
end

local function new_abandoned()
	local pending = new_pending();
	pending:abandon(BACKENDS[1]);
	return pending;
end

local OTHER_JID = long("other@some.domain.example/");
local ITS_TOKEN, OTHER_TOKEN = long("token of "), long("other token of ");

local function new_book()
	local book = core.requesters(REQUESTERS_SEED);
	assert(book:add(JID, ITS_TOKEN));
	assert(book:add(long("held@"), ""));
	assert(book:hold(long("held@"), 5));
	return book;
end

-- Where one that is added would be the first of its size
local function new_full_book()
	local book = new_book();
	book:set_max(2);
	book:hold(JID, 1);
	return book;
end

local NAMES_KEY = ("n"):rep(core.JAT_KEYBYTES);

-- One with a request that can be sent again, and one that cannot
local function new_exchange()
	local jat, pending, book = core.jat("proxy.domain.example", "short"), new_table(PENDING_SEED);
	jat:add_key(1, NAMES_KEY);
	local exchange = core.exchange(jat, book, new_pool(), pending);
	exchange:dispatch(JID, long("service"), long("first"), 0, 2, 2, STANZAS[1]);
	exchange:dispatch(JID, long("service"), long("second"), 0, 2);
	return exchange;
end

-- (format) -> function that makes one that knows nobody
local function new_exchange_in(format)
	return function ()
		local jat, pending, book = core.jat("proxy.domain.example", format), new_table(PENDING_SEED);
		jat:add_key(1, NAMES_KEY);
		return core.exchange(jat, book, new_pool(), pending);
	end;
end

local function new_exchange_with_token()
	local exchange = new_exchange();
	assert(exchange:admit(long("known@")));
	return exchange;
end

local SEALED = select(2, new_exchange_in("sealed")():address(JID, "service")):match("/(.*)");
local ITS_BACKEND_TOKEN = debug.getuservalue(new_exchange_with_token(), 3):token(long("known@"));

local BACKEND, ADDRESS = new_exchange():dispatch(JID, long("service"), "id", 0, 2);
local NAME = ADDRESS:match("/(.*)");

-- Whatever can be known of an object, which has served its time with that

local read = {};

function read.jat(jat)
	return { jat:encode(JID), jat:decode(TOKEN), jat:decode(new_jat():encode("other")) };
end

-- Of the turns, only that everybody has one: who is picked has had it, even if there is no memory to tell who
function read.pool(pool)
	local picked = {};
	for turn = 1, #BACKENDS do
		picked[turn] = pool:pick("") or "nobody";
	end
	table.sort(picked);
	local states, tokens, removed = {}, {}, {};
	for number, jid in ipairs(BACKENDS) do
		states[number] = pool:state(jid) or "none";
		tokens[number] = { pool:token(jid) or "none", pool:resolve(BACKEND_TOKENS[number]) or "nobody" };
	end
	local count = #pool;
	for number, jid in ipairs(BACKENDS) do
		removed[number] = pool:remove(jid);
	end
	return { count, picked, states, tokens, removed, #pool };
end

-- How many stanzas its user value holds
local function count_kept(pending)
	local count = 0;
	for _, value in pairs((debug.getuservalue(pending, 1))) do
		count = count + (type(value) == "table" and 1 or 0);
	end
	return count;
end

function read.pending(pending)
	local facts = { #pending, pending:bytes(), pending:count(BACKENDS[1]), pending:count(BACKENDS[2]),
		pending:deadline() or "none", pending:has_abandoned(), pending:first_movable(BACKENDS[1]) or "none" };
	for number = 1, 3 do
		table.insert(facts, select(2, pending:add("backend", "to", "id-"..number, "requester", "service", 0, 9)) or "added");
	end
	while #pending > 0 do
		table.insert(facts, { pending:expire(math.huge) });
	end
	table.insert(facts, count_kept(pending));
	return facts;
end

-- Not of its book, which may know one requester more
function read.exchange(exchange)
	local pool, pending = debug.getuservalue(exchange, 3), debug.getuservalue(exchange, 4);
	return {
		{ exchange:counts() }, exchange:resolve(NAME) or "nobody", read.pending(pending);
		#pool, pool:state(long("d@")) or "none", exchange:backend(ITS_BACKEND_TOKEN) or "nobody";
	};
end

function read.requesters(book)
	local facts = { #book };
	for _, jid in ipairs { JID, OTHER_JID, long("held@") } do
		table.insert(facts, { book:find(jid) or "nobody", book:pending(jid) });
	end
	table.insert(facts, book:resolve(ITS_TOKEN) or "nobody");
	table.insert(facts, book:resolve(OTHER_TOKEN) or "nobody");
	table.insert(facts, { book:add("yet another", "") or select(2, book:add("yet another", "")) });
	return facts;
end

-- Two objects cannot be compared, but what is in them can
local function comparable(value)
	if type(value) ~= "userdata" then
		return value;
	end
	local kind = debug.getmetatable(value).__name:match("[^.]+$");
	local is_alive, facts = pcall(read[kind], value);
	return is_alive and facts or "collected";
end

-- What call_failing returned, but for the first, and what has become of the object
local function outcome(object, _, succeeded, ...)
	local results = table.pack(...);
	for number = 1, results.n do
		results[number] = comparable(results[number]);
	end
	return { succeeded = succeeded, results = results, object = comparable(object) };
end

local function without_nil(object, ...)
	if object == nil then
		return ...;
	end
	return object, ...;
end

-- (f, new or nil, ...) -> number of allocations, how many of them raised: f(new(), ...) with each of them failing
local function fail_each(f, new, ...)
	local arguments = table.pack(...);
	-- (number of the allocation) -> boolean: whether it failed, outcome
	local function call(number)
		local object = new and new();
		local returned = table.pack(call_failing(number, f, without_nil(object, table.unpack(arguments, 1, arguments.n))));
		return returned[1], outcome(object, table.unpack(returned, 1, returned.n));
	end
	local untouched = comparable(new and new());
	local raised = { succeeded = false, results = { n = 1, "not enough memory" }, object = untouched };
	local returned = { succeeded = true, results = { n = 2, nil, "no-memory" }, object = untouched };
	local _, usual = call(0);
	assert.is_true(usual.succeeded);
	local raised_times = 0;
	for number = 1, math.huge do
		local failed, got = call(number);
		if not got.succeeded then
			raised_times = raised_times + 1;
			assert.same(raised, got);
		elseif got.results[2] == "no-memory" then
			assert.same(returned, got);
		else
			assert.same(usual, got);
		end
		if not failed then
			return number - 1, raised_times;
		end
	end
end

-- (library) -> table of its functions and its types' methods, by the names "core.f" and "type:method"
local function functions_of(library)
	local functions = {};
	local function collect(prefix, from)
		for name, value in pairs(from) do
			if type(value) == "function" then
				functions[prefix..name] = value;
			end
		end
	end
	collect("core.", library);
	for name, value in pairs(registry) do
		local kind = type(name) == "string" and name:match("^mod_client_proxy%.(.*)");
		if kind then
			collect(kind..":", value);
			collect(kind..":", value.__index);
		end
	end
	return functions;
end

local functions = functions_of(core);
local covered = {};

-- (name, count, new, ...): fails the allocations of that call, of which there are at least `count`
local function covers(name, count, new, ...)
	local arguments = table.pack(...);
	covered[name] = true;
	it(name.." changes nothing", function ()
		local failures = fail_each(functions[name], new, table.unpack(arguments, 1, arguments.n));
		assert.truthy(failures >= count, failures.." allocations");
	end);
end

describe("without memory for Lua, either,", function ()
	covers("core.jat", 2, nil, "proxy.domain.example", "sealed");
	covers("jat:add_key", 0, new_jat, 3, key(3));
	covers("jat:encode", 1, new_jat, JID);
	covers("jat:decode", 1, new_jat, TOKEN);
	covers("jat:__gc", 0, new_jat);

	covers("core.pool", 9, nil, POOL_SEED);
	covers("pool:add", 1, new_pool, long("d@"));
	covers("pool:add", 1, new_pool, long("d@"), long("token of d"));
	covers("pool:add", 0, new_pool, long("d@"), BACKEND_TOKENS[1]);
	covers("pool:add", 1, new_pool, long("d@"), 1234567);
	covers("pool:add", 1, new_pool, 1234567); -- which Lua makes a string of
	covers("pool:remove", 0, new_pool, BACKENDS[2]);
	covers("pool:set_state", 0, new_pool, BACKENDS[1], "suspended");
	covers("pool:state", 0, new_pool, BACKENDS[1]);
	covers("pool:set_priority", 0, new_pool, BACKENDS[3], 1);
	covers("pool:token", 1, new_pool, BACKENDS[1]);
	covers("pool:resolve", 1, new_pool, BACKEND_TOKENS[1]);
	for _, strategy in ipairs(core.STRATEGIES) do
		covers("pool:set_strategy", 0, new_pool, strategy, POOL_KEY);
	end
	covers("pool:serves", 0, new_pool);
	covers("pool:is_ready", 0, new_pool);
	for _, strategy in ipairs { "round_robin", "primary", "sender", "recipient" } do
		covers("pool:pick", 1, new_pool_by(strategy), JID, JID);
		covers("pool:pick_lasting", 1, new_pool_by(strategy), JID, JID);
	end
	covers("pool:__len", 0, new_pool);
	covers("pool:__gc", 0, new_pool);

	covers("core.pending", 8, nil, PENDING_SEED, core.requesters(REQUESTERS_SEED));
	covers("pending:set_limits", 0, new_pending, 3, 2);
	covers("pending:add", 1, new_pending, BACKENDS[3], "to", long("third"), JID, "service", 0, 3);
	for number = 0, 8 do
		covers("pending:add", 0, new_pending_with(number), BACKENDS[3], "to", long("third"), JID, "service", 0, 3, 3, STANZAS[3]);
	end
	it("pending:add raises where there is none for the place of a stanza", function ()
		local all = 0;
		for number = 0, 8 do
			local _, raised_times = fail_each(functions["pending:add"], new_pending_with(number),
				BACKENDS[3], "to", long("third"), JID, "service", 0, 3, 3, STANZAS[3]);
			all = all + raised_times;
		end
		assert.truthy(all > 0);
	end);
	covers("pending:add", 1, new_pending, BACKENDS[3], 1, 2, 3, 4, 5, 6);
	covers("pending:take", 4, new_pending, BACKENDS[1], "to", long("first"));
	covers("pending:first_movable", 2, new_pending, BACKENDS[2]);
	covers("pending:take_movable", 4, new_pending, BACKENDS[2]);
	covers("pending:take_fixed", 4, new_fixed, BACKENDS[3], 1);
	covers("pending:fix_movable", 0, new_pending, BACKENDS[2]);
	covers("pending:abandon", 0, new_pending, BACKENDS[1]);
	covers("pending:has_abandoned", 0, new_abandoned);
	covers("pending:take_abandoned", 4, new_abandoned);
	covers("pending:bytes", 0, new_pending);
	covers("pending:expire", 4, new_pending, 1);
	covers("pending:deadline", 0, new_pending);
	covers("pending:count", 0, new_pending, BACKENDS[1]);
	covers("pending:count_answered", 0, new_pending, BACKENDS[1], "to", long("first"));
	covers("pending:__len", 0, new_pending);
	covers("pending:__gc", 0, new_pending);

	covers("core.requesters", 7, nil, REQUESTERS_SEED);
	covers("core.requesters", 7, nil, REQUESTERS_SEED, "full");
	covers("requesters:knows", 0, new_book, JID);
	covers("requesters:use", 0, new_book, JID);
	covers("requesters:use", 0, new_book, JID, ITS_TOKEN);
	covers("requesters:set_max", 0, new_book, 1);
	covers("requesters:new_generation", 0, new_book);
	covers("requesters:find", 1, new_book, JID);
	covers("requesters:resolve", 1, new_book, ITS_TOKEN);
	covers("requesters:add", 1, new_book, ("a"):rep(400), OTHER_TOKEN);
	covers("requesters:add", 0, new_full_book, OTHER_JID, OTHER_TOKEN);
	covers("requesters:add", 0, new_book, JID, OTHER_TOKEN);
	covers("requesters:hold", 0, new_book, JID, 3);
	covers("requesters:hold", 0, new_book, JID, 3, ITS_TOKEN);
	covers("requesters:lighten", 0, new_book, long("held@"), 2);
	covers("requesters:release", 0, new_book, long("held@"), 5);
	covers("requesters:pending", 0, new_book, JID);
	covers("requesters:__len", 0, new_book);
	covers("requesters:__gc", 0, new_book);

	local function all_for_exchange()
		local pending, book = new_table(PENDING_SEED);
		return new_jat(), book, new_pool(), pending;
	end

	covers("core.exchange", 2, nil, all_for_exchange());
	covers("exchange:use", 0, new_exchange, new_jat(), new_pool());
	covers("exchange:dispatch", 2, new_exchange, JID, long("service"), long("third"), 0, 2);
	covers("exchange:dispatch", 2, new_exchange, long("nobody yet"), long("service"), long("third"), 0, 2);
	covers("exchange:dispatch", 2, new_exchange, JID, long("service"), long("third"), 0, 2, 3, STANZAS[3]);
	covers("exchange:dispatch", 2, new_exchange, JID, long("service"), long("third"), 0, 2, 3, STANZAS[3], BACKENDS[2]);
	covers("exchange:dispatch", 2, new_exchange, JID, long("service").."/resource", long("first"), 0, 2, 1, STANZAS[3]);
	covers("exchange:settle", 2, new_exchange, BACKEND, ADDRESS, long("first"), 1);
	covers("exchange:settle", 2, new_exchange, BACKEND, ADDRESS, long("second"), 1);
	covers("exchange:count_error", 0, new_exchange, 1);
	covers("exchange:counts", 0, new_exchange);
	covers("exchange:resolve", 1, new_exchange, NAME);
	covers("exchange:admit", 1, new_exchange, long("d@"));
	covers("exchange:admit", 0, new_exchange, BACKENDS[1]);
	covers("exchange:backend", 1, new_exchange_with_token, ITS_BACKEND_TOKEN);
	covers("exchange:backend", 0, new_exchange, ITS_BACKEND_TOKEN);
	covers("exchange:address", 2, new_exchange, JID, long("service"));
	covers("exchange:address", 2, new_exchange, long("nobody yet"), long("service"), BACKENDS[2]);
	covers("exchange:reach", 1, new_exchange, BACKENDS[1], NAME);
	it("exchange:reach takes in who is to be reached, or not, and reaches it all the same", function ()
		local _, raised_times = fail_each(functions["exchange:reach"], new_exchange_in("sealed"), BACKENDS[1], SEALED);
		assert.is_true(raised_times > 0);
	end);
	covers("exchange:reach", 1, new_exchange_in("sealed"), BACKENDS[1], SEALED);
	covers("exchange:__gc", 0, new_exchange);
	covers("pool:set_format", 0, new_pool, BACKENDS[1], "plain");

	it("no function is left out", function ()
		for name in pairs(functions) do
			assert.is_true(covered[name], name);
		end
	end);

	-- Opens the library with the allocation of that number failing, then once more, both as if for the first time
	local function open_twice(number)
		local types = {};
		for name, value in pairs(registry) do
			if type(name) == "string" and name:find("^mod_client_proxy%.") then
				types[name] = value;
			end
		end
		for name in pairs(types) do
			registry[name] = nil;
		end
		local failed, succeeded, message = call_failing(number, open);
		local opened = functions_of(open());
		for name, value in pairs(types) do
			registry[name] = value;
		end
		return opened, failed, succeeded or message;
	end

	it("the library is not opened by halves", function ()
		collectgarbage(); -- what is left of other specs is of types that are gone meanwhile
		local count, messages = 0, {};
		repeat
			count = count + 1;
			local opened, failed, message = open_twice(count);
			assert.not_equal(failed, message);
			messages[message] = true;
			for name in pairs(functions) do
				assert.is_function(opened[name], name);
			end
		until not failed;
		assert.truthy(count > 10);
		assert.same({
			["not enough memory"] = true, ["libsodium cannot be initialised"] = true, [true] = true,
		}, messages);
	end);
end);
