-- core.pool: each strategy against the same, slow and obvious

local core = require "mod_client_proxy.core";
local new_pending = require "spec.support.pending".new;
local backend_names = require "spec.support.names";
local expect = require "spec.support.expect";
local process = require "spec.support.process";
local random = require "spec.support.random";
local vectors = require "spec.vectors.ring";

local SEED = ("seed"):rep(core.POOL_SEEDBYTES // 4);
local KEY = ("k"):rep(core.POOL_KEYBYTES);
local OTHER_KEY = ("o"):rep(core.POOL_KEYBYTES);
local STATES = { "ready", "suspended", "away" };
local NO_REQUESTS = new_pending(("s"):rep(core.PENDING_SEEDBYTES));

random.announce("strategies_spec");

local name, names = backend_names.one, backend_names.list;

-- (text) -> the service address, at some proxy, whose name is that text, or nil if it can be none
local function service_named(text)
	local host = random.element { "proxy.domain.example", "other.example" };
	return not text:find("@") and (text == "" and host or text.."@"..host) or nil;
end

-- (strategy, list, key) -> pool that has them all
local function new_pool(strategy, list, key)
	local pool = core.pool(random.bytes(core.POOL_SEEDBYTES));
	pool:set_strategy(strategy, key or KEY);
	for _, jid in ipairs(list) do
		pool:add(jid);
	end
	return pool;
end

local function copy(list)
	return table.move(list, 1, #list, 1, {});
end

local function reversed(list)
	local other = {};
	for i = #list, 1, -1 do
		table.insert(other, list[i]);
	end
	return other;
end

local function index_of(list, value)
	for index, other in ipairs(list) do
		if other == value then
			return index;
		end
	end
end

-- A list of backends, each { jid, state, priority, since }
local oracle = {};
oracle.__index = oracle;

function oracle.new()
	return setmetatable({ backends = {}, now = 0, queues = { ready = {}, suspended = {}, away = {} } }, oracle);
end

function oracle:find(jid)
	for position, backend in ipairs(self.backends) do
		if backend.jid == jid then
			return backend, position;
		end
	end
end

function oracle:set_state(jid, state)
	local backend = self:find(jid);
	if not backend or backend.state == state then
		return false;
	end
	if backend.state then
		self:leave(backend);
	end
	self.now = self.now + 1;
	backend.state, backend.since = state, self.now;
	self:join(backend);
	return true;
end

function oracle:add(jid)
	if self:find(jid) then
		return false;
	end
	table.insert(self.backends, { jid = jid, priority = 0 });
	return self:set_state(jid, "ready");
end

function oracle:remove(jid)
	local backend, position = self:find(jid);
	if not backend then
		return false;
	end
	self:leave(backend);
	table.remove(self.backends, position);
	if self.last == backend then
		self.last = nil;
	end
	return true;
end

function oracle:set_priority(jid, priority)
	local backend = self:find(jid);
	local before = backend and backend.priority;
	if backend then
		backend.priority = priority;
	end
	return before ~= nil and before ~= priority;
end

-- The backends that a request of `requester` may go to
-- or, if there is such a backend, one that avoids `avoided` as if that were none
function oracle:choices(requester, avoided)
	local excepted = avoided and self:find(avoided) and avoided or requester;
	for _, state in ipairs { "ready", "suspended" } do
		local choices = {};
		for _, backend in ipairs(self.backends) do
			if backend.state == state and backend.jid ~= excepted then
				table.insert(choices, backend);
			end
		end
		if choices[1] then
			return choices;
		end
	end
	return {};
end

-- For round_robin: a queue for each state. Whoever had the last turn of all stays at the end.
function oracle:join(backend)
	local queue = self.queues[backend.state];
	local is_last = #queue > 0 and queue[#queue] == self.last;
	table.insert(queue, is_last and #queue or #queue + 1, backend);
end

function oracle:leave(backend)
	local queue = self.queues[backend.state];
	table.remove(queue, index_of(queue, backend));
end

-- (oracle, picked, requester, service, avoided): fails unless that is what a pick by the strategy returns.
-- With an avoided one, the choice may be the requester itself, and then there is none.
local check = {};

local function expect_choice(choice, picked, requester, count)
	expect.equal(choice and choice ~= requester and choice or nil, picked, "of %d", count);
end

local function jids_of(choices)
	local list = {};
	for i, backend in ipairs(choices) do
		list[i] = backend.jid;
	end
	return list;
end

function check.random(slow, picked, requester, _, avoided)
	local choices = jids_of(slow:choices(requester, avoided));
	local may_be_none = #choices == 0 or index_of(choices, requester);
	expect.that(picked ~= requester and picked ~= avoided or picked == nil, "picked %q, which is excepted", picked);
	expect.that(picked == nil and may_be_none or index_of(choices, picked), "picked %q among %d", picked, #choices);
end

check.least_pending = check.random;

function check.round_robin(slow, picked, requester, _, avoided)
	local choices = slow:choices(requester, avoided);
	if #choices == 0 then
		return expect.equal(nil, picked, "of none");
	end
	local queue = slow.queues[choices[1].state];
	local turn = index_of(choices, queue[1]) and queue[1] or queue[2];
	expect_choice(turn.jid, picked, requester, #choices);
	expect.that(#choices == 1 or slow.last ~= turn, "two turns in a row");
	slow.last = turn;
	table.remove(queue, index_of(queue, turn));
	table.insert(queue, turn);
end

function check.primary(slow, picked, requester, _, avoided)
	local choices = slow:choices(requester, avoided);
	table.sort(choices, function (a, b)
		if a.priority ~= b.priority then
			return a.priority > b.priority;
		end
		return a.since < b.since;
	end);
	expect_choice(choices[1] and choices[1].jid, picked, requester, #choices);
end

-- What a pool has that never had any other backends, in whatever order they came
local function check_by_set(strategy)
	return function (slow, picked, requester, service, avoided)
		local list = jids_of(slow:choices(requester, avoided));
		local pool = new_pool(strategy, random.shuffle(list));
		if index_of(list, requester) then -- which this pool would not choose for itself
			local choice = pool:pick(requester:match("^[^/]*").."/of nobody", service);
			expect_choice(choice, picked, requester, #list);
		else
			expect.equal(pool:pick(requester, service), picked, "of %d", #list);
		end
	end
end

check.sender = check_by_set("sender");
check.recipient = check_by_set("recipient");

-- `add_weight` of the steps add, so that some sequences grow and some shrink.
local function run_sequence(strategy, universe, steps, add_weight)
	local pool, slow = new_pool(strategy, {}), oracle.new();
	for step = 1, steps do
		local jid, chance = random.element(universe), math.random();
		if chance < add_weight then
			expect.equal(slow:add(jid), pool:add(jid), "step %d, add", step);
		elseif chance < 0.4 then
			expect.equal(slow:remove(jid), pool:remove(jid), "step %d, remove", step);
		elseif chance < 0.6 then
			local state = random.element(STATES);
			expect.equal(slow:set_state(jid, state), pool:set_state(jid, state), "step %d, set", step);
		elseif chance < 0.7 then
			local priority = math.random(-2, 2);
			expect.equal(slow:set_priority(jid, priority), pool:set_priority(jid, priority), "step %d, priority", step);
		else
			local requester = random.element { jid, ("user-%d@h/r"):format(math.random(1000)), "" };
			local service = random.element { "", "proxy.domain.example", ("room-%d@h/r"):format(math.random(1000)) };
			local avoided = random.element { jid, random.element(universe), "nobody", false } or nil;
			local picked = pool:pick(requester, service, NO_REQUESTS, avoided);
			check[strategy](slow, picked, requester, service, avoided);
		end
		expect.equal(#slow:choices() > 0, pool:serves(), "step %d, serves", step);
		expect.equal(#slow.queues.ready > 0, pool:is_ready(), "step %d, is ready", step);
		expect.equal(#slow.backends, #pool, "step %d, number", step);
	end
end

-- The strategies that choose by chance, turn or load, and so otherwise for what belongs together
local HAS_ANOTHER = { random = true, round_robin = true, least_pending = true };

-- Two pools with the same backends: all picks of one are compared with those of the other, which never picks for what
-- belongs together; and what the first one picks for that, with what a pool by the strategy `sender` does.
local trio = {};
trio.__index = trio;

function trio.new()
	local seed = random.bytes(core.POOL_SEEDBYTES);
	local self = setmetatable({ pool = core.pool(seed), twin = core.pool(seed), by_sender = core.pool(SEED), key = KEY }, trio);
	self:set_strategy(random.element(core.STRATEGIES), KEY);
	return self;
end

function trio:all(method, ...)
	for _, pool in ipairs { self.pool, self.twin, self.by_sender } do
		pool[method](pool, ...);
	end
end

function trio:set_strategy(strategy, key)
	self.strategy, self.key = strategy, key;
	self.pool:set_strategy(strategy, key);
	self.twin:set_strategy(strategy, key);
	self.by_sender:set_strategy("sender", key);
end

function trio:compare(requester, service)
	local lasting = self.pool:pick_lasting(requester, service);
	local slow = HAS_ANOTHER[self.strategy] and self.by_sender or self.twin;
	expect.equal(slow:pick(requester, service), lasting, "%s, for what belongs together", self.strategy);
	expect.equal(lasting, self.pool:pick_lasting(requester, service), "%s, the same again", self.strategy);
	expect.that(lasting ~= requester, "%s: %q is given itself", self.strategy, requester);
	if math.random(2) == 1 then
		local avoided = random.element { requester, "nobody", false } or nil;
		local picked = self.pool:pick(requester, service, NO_REQUESTS, avoided);
		expect.equal(self.twin:pick(requester, service, NO_REQUESTS, avoided), picked, "%s, for a request", self.strategy);
	end
end

local function run_lasting(universe, steps, add_weight)
	local three = trio.new();
	for step = 1, steps do
		local jid, chance = random.element(universe), math.random();
		if chance < add_weight then
			three:all("add", jid);
		elseif chance < 0.4 then
			three:all("remove", jid);
		elseif chance < 0.6 then
			three:all("set_state", jid, random.element(STATES));
		elseif chance < 0.65 then
			three:all("set_priority", jid, math.random(-2, 2));
		elseif chance < 0.7 then
			three:set_strategy(random.element(core.STRATEGIES), random.element { KEY, three.key, random.bytes(core.POOL_KEYBYTES) });
		else
			local requester = random.element { jid, ("user-%d@h/r"):format(math.random(1000)), "" };
			local succeeded, problem = pcall(three.compare, three, requester, random.element { "", "proxy.domain.example", jid });
			expect.that(succeeded, "step %d: %s", step, problem);
		end
	end
end

-- Whoever has how many of `turns` picks
local function count_picks(pool, turns, ...)
	local counts = {};
	for _ = 1, turns do
		local picked = pool:pick(...);
		counts[picked] = (counts[picked] or 0) + 1;
	end
	return counts;
end

-- (pool, keys) -> what each of the requesters' bare JIDs gets, in their order
local function pick_all(pool, keys)
	local picked = {};
	for i, key in ipairs(keys) do
		picked[i] = pool:pick(key);
	end
	return picked;
end

local function random_list(format, count)
	local list = {};
	for i = 1, count do
		list[i] = format:format(math.random(0));
	end
	return list;
end

local function random_keys(count)
	return random_list("user-%x@some-domain.example", count);
end

local function random_names(count)
	return random_list("some-user@some-domain.example/%x", count);
end

-- (pool, list): each of the list is picked once in as many turns
local function takes_turns(pool, list)
	local counts = count_picks(pool, #list);
	for _, jid in ipairs(list) do
		expect.equal(1, counts[jid], "turns of %q", jid);
	end
end

-- Those that choose by the backends that there are alone
local IS_CERTAIN = { primary = true, sender = true, recipient = true };

-- Two pools with the same backends: one whose strategy and key are going to change, and one that has the later ones
-- from the beginning.
local pair = {};
pair.__index = pair;

function pair.new(before, strategy, key)
	return setmetatable({ strategy = strategy, states = {}, pool = new_pool(before, {}), fresh = new_pool(strategy, {}, key) }, pair);
end

function pair:both(method, ...)
	self.pool[method](self.pool, ...);
	self.fresh[method](self.fresh, ...);
end

-- Each of the list is there afterwards, in some state and with some priority.
function pair:change_all(list)
	for _, jid in ipairs(list) do
		self:both("add", jid);
		self.states[jid] = random.element(STATES);
		self:both("set_state", jid, self.states[jid]);
		self:both("set_priority", jid, math.random(-2, 2));
	end
end

-- All that have one state get another.
function pair:set_all(from, to)
	for _, jid in ipairs(names(30)) do
		if self.states[jid] == from then
			self.states[jid] = to;
			self:both("set_state", jid, to);
		end
	end
end

function pair:remove_all()
	for _, jid in ipairs(names(30)) do
		self:both("remove", jid);
	end
	self.states = {};
end

-- The backends that there are to choose among
function pair:choices()
	local by_state = { ready = {}, suspended = {}, away = {} };
	for jid, state in pairs(self.states) do
		table.insert(by_state[state], jid);
	end
	return by_state.ready[1] and by_state.ready or by_state.suspended;
end

function pair:compare()
	local choices = self:choices();
	for number = 1, 30 do
		local requester, service = ("user-%d@h/r"):format(number), ("room-%d@h"):format(number);
		local picked = self.pool:pick(requester, service, NO_REQUESTS);
		expect.that(picked == nil and not choices[1] or index_of(choices, picked), "%q of %d", picked, #choices);
		expect.that(not IS_CERTAIN[self.strategy] or picked == self.fresh:pick(requester, service), "picked %q for %s", picked, requester);
		expect.equal(self.fresh:pick_lasting(requester, service), self.pool:pick_lasting(requester, service), "lasting, %s", requester);
	end
	if self.strategy == "round_robin" then
		takes_turns(self.pool, choices);
	end
end

describe("core.pool, by strategy", function ()
	before_each(random.restart);

	for _, strategy in ipairs(core.STRATEGIES) do
		describe(strategy, function ()
			for _, case in ipairs {
				{ "with few backends", names(3), 200, 300 };
				{ "with some backends", names(30), 30, 600 };
				{ "with strange JIDs", { "", "\0", "a", "a\0b", "\255", "/", "a/", ("j"):rep(3071) }, 50, 300 };
			} do
				local what, universe, sequences, steps = table.unpack(case);
				it("does what a list does, "..what, function ()
					for _ = 1, process.turns(sequences, 2) do
						run_sequence(strategy, universe, steps, 0.2 + 0.2 * math.random());
					end
				end);
			end

			it("finds none in an empty pool", function ()
				local pool = new_pool(strategy, {});
				assert.is_false(pool:serves());
				assert.is_false(pool:is_ready());
				assert.is_nil(pool:pick(nil, nil, NO_REQUESTS));
				assert.equal(1, select("#", pool:pick("a", "b", NO_REQUESTS)));
			end);

			it("finds none where all others are away, and the suspended where none is ready", function ()
				local pool = new_pool(strategy, { "a", "b", "c" });
				pool:set_state("b", "suspended");
				pool:set_state("c", "away");
				for _ = 1, 20 do
					assert.equal("a", pool:pick(nil, nil, NO_REQUESTS));
					assert.equal("b", pool:pick("a", nil, NO_REQUESTS));
				end
				pool:remove("b");
				assert.is_true(pool:serves());
				assert.is_true(pool:is_ready());
				pool:set_state("a", "suspended");
				assert.is_true(pool:serves());
				assert.is_false(pool:is_ready());
				assert.is_nil(pool:pick("a", nil, NO_REQUESTS));
				pool:set_state("a", "away");
				assert.is_false(pool:serves());
				assert.is_nil(pool:pick(nil, nil, NO_REQUESTS));
			end);

			it("avoids a backend as if it were none, and finds none where only that one or the requester is left", function ()
				local pool = new_pool(strategy, { "a", "b" });
				for _ = 1, 20 do
					assert.equal("b", pool:pick("requester", nil, NO_REQUESTS, "a"));
					assert.equal("a", pool:pick(nil, nil, NO_REQUESTS, "b"));
					assert.equal("b", pool:pick("a", nil, NO_REQUESTS, "a"));
					assert.is_nil(pool:pick("a", nil, NO_REQUESTS, "b"));
				end
				pool:set_state("b", "suspended");
				for _ = 1, 20 do
					assert.equal("b", pool:pick("requester", nil, NO_REQUESTS, "a"));
					assert.equal("a", pool:pick("requester", nil, NO_REQUESTS, "b"));
					assert.equal("b", pool:pick("a", nil, NO_REQUESTS, "nobody"));
				end
				pool:remove("b");
				assert.is_nil(pool:pick("requester", nil, NO_REQUESTS, "a"));
				assert.equal("a", pool:pick("requester", nil, NO_REQUESTS, "b"));
				pool:remove("a");
				assert.is_nil(pool:pick("requester", nil, NO_REQUESTS, "a"));
			end);

			it("gives back its memory", function ()
				local all = {};
				for i = 1, process.turns(1000, 20) do
					all[i] = ("j"):rep(1000)..i;
				end
				process.stays_flat(function ()
					for _ = 1, 20 do
						local pool = new_pool(strategy, all);
						for _, jid in ipairs(all) do
							pool:remove(jid);
						end
						new_pool(strategy, all);
						collectgarbage();
					end
				end, 2 * 1024 * 1024);
			end);

			for _, before in ipairs(core.STRATEGIES) do
				for _, key in ipairs { KEY, OTHER_KEY } do
					local how = key == KEY and "the same key" or "another key";
					it("follows "..before.." with "..how.." as if there had never been another", function ()
						local two = pair.new(before, strategy, key);
						two:change_all(names(30));
						two.pool:set_strategy(strategy, key);
						two:compare();
						two:change_all(random.shuffle(names(30)));
						two:compare();
						two:set_all("ready", "away");
						two:compare();
						two:remove_all();
						assert.is_nil(two.pool:pick(nil, nil, NO_REQUESTS));
						two:change_all(names(30));
						two:compare();
					end);
				end
			end
		end);
	end

	describe("for what belongs together", function ()
		for _, case in ipairs {
			{ "with few backends", names(3), 400, 300 };
			{ "with some backends", names(30), 100, 400 };
			{ "with strange JIDs", { "", "\0", "a", "a\0b", "\255", "/", "a/", ("j"):rep(3071) }, 100, 300 };
		} do
			local what, universe, sequences, steps = table.unpack(case);
			it("does what a pool by sender does, or by its own strategy, and requests see nothing of it, "..what, function ()
				for _ = 1, process.turns(sequences, 2) do
					run_lasting(universe, steps, 0.2 + 0.2 * math.random());
				end
			end);
		end

		for _, strategy in ipairs(core.STRATEGIES) do
			it("is chosen by what is known of "..(HAS_ANOTHER[strategy] and "sender" or strategy).." under "..strategy, function ()
				for _, vector in ipairs(vectors) do
					local pool = new_pool(strategy, vector.members, vector.key);
					for _, case in ipairs(vector.texts) do
						local text, expected = case[1], vector.members[case[2]];
						local service = service_named(text);
						if HAS_ANOTHER[strategy] or strategy == "sender" then
							expect.equal(expected, pool:pick_lasting(text.."/r", "other"), "%q", text);
						elseif strategy == "recipient" then
							expect.that(not service or pool:pick_lasting("requester", service.."/r") == expected, "%q", text);
						else
							expect.equal(vector.members[1], pool:pick_lasting(text.."/r", "other"), "%q", text);
						end
					end
				end
			end);

			it("is never given to the backend that asks, under "..strategy, function ()
				local pool = new_pool(strategy, names(5));
				for number = 1, 5 do
					local picked = pool:pick_lasting(name(number), "service");
					assert.is_true(picked ~= nil and picked ~= name(number));
				end
				for number = 2, 5 do
					pool:remove(name(number));
				end
				assert.is_nil(pool:pick_lasting(name(1), "service"));
				assert.equal(1, select("#", pool:pick_lasting(name(1), "service")));
				assert.equal(name(1), pool:pick_lasting(name(2), "service"));
			end);
		end

		it("moves little when a backend leaves, whatever the strategy for requests", function ()
			local pool, before = new_pool("random", names(10)), {};
			local keys = random_keys(1000);
			for i, key in ipairs(keys) do
				before[i] = pool:pick_lasting(key, "");
			end
			pool:remove(name(3));
			for i, key in ipairs(keys) do
				local picked = pool:pick_lasting(key, "");
				expect.that(picked == before[i] or before[i] == name(3), "%s moves", key);
				expect.that(picked ~= name(3), "%s is with one that has left", key);
			end
		end);
	end);

	it("is random where nothing else is said", function ()
		local seed = random.bytes(core.POOL_SEEDBYTES);
		local pool, twin = core.pool(seed), core.pool(seed);
		pool:set_strategy("random", KEY);
		for number = 1, 20 do
			pool:add(name(number));
			twin:add(name(number));
		end
		for turn = 1, 100 do
			expect.equal(pool:pick(), twin:pick(), "turn %d", turn);
		end
	end);

	it("skips a random number that would make some likelier than others", function ()
		-- Found by undoing SplitMix64: the first pick by `before` meets 2^64 - 1, which no remainder
		-- by 3 is evenly spread over, and `after` begins with the number that follows it.
		local before, after = 0x31628af67b2131ab, 0x31628af67b2131ab + 0x9e3779b97f4a7c15;
		local picks = {};
		for _, state in ipairs { before, after } do
			local pool = core.pool(("s"):rep(core.POOL_SEEDBYTES - 8)..("=I8"):pack(state));
			local picked = {};
			for number = 1, 3 do
				pool:add(name(number));
			end
			for turn = 1, 50 do
				picked[turn] = pool:pick();
			end
			table.insert(picks, picked);
		end
		assert.same(picks[2], picks[1]);
	end);

	describe("round_robin", function ()
		it("goes through all, again and again in the same order", function ()
			local pool, order = new_pool("round_robin", names(10)), {};
			for i = 1, 10 do
				order[i] = pool:pick();
			end
			expect.same(names(10), order, "as they came");
			for turn = 0, 99 do
				expect.equal(order[turn % 10 + 1], pool:pick(), "turn %d", turn);
			end
		end);

		it("skips nobody when others leave and return all the time", function ()
			local pool = new_pool("round_robin", names(10));
			local counts, before = {}, nil;
			for turn = 1, 1000 do
				local picked = pool:pick();
				expect.that(picked ~= before, "two turns in a row, %d", turn);
				counts[picked] = (counts[picked] or 0) + 1;
				before = picked;
				-- numbers 6 to 10 hurry back; who had a turn has to wait for it until all others had one
				local returning = name(turn % 5 + 6);
				if turn % 2 == 0 then
					pool:remove(returning);
					pool:add(returning);
				else
					pool:set_state(returning, "away");
					pool:set_state(returning, "ready");
				end
			end
			for number = 1, 5 do
				expect.that(counts[name(number)] >= 100, "%d had %d turns", number, counts[name(number)]);
			end
		end);

		it("gives the next turn to one that returns to the one that had the last", function ()
			local pool = new_pool("round_robin", { "a", "b" });
			assert.equal("a", pool:pick());
			assert.equal("b", pool:pick());
			pool:set_state("a", "away");
			assert.equal("b", pool:pick());
			pool:set_state("a", "ready");
			assert.equal("a", pool:pick());
			assert.equal("b", pool:pick());
			pool:remove("b");
			pool:add("b");
			assert.equal("a", pool:pick());
			assert.equal("b", pool:pick());
		end);

		it("keeps the place of a backend that asks", function ()
			local pool = new_pool("round_robin", { "a", "b", "c" });
			assert.equal("b", pool:pick("a"));
			assert.equal("c", pool:pick("a"));
			assert.equal("b", pool:pick("a"));
			assert.equal("a", pool:pick("b"));
			assert.equal("c", pool:pick());
			assert.equal("b", pool:pick());
			assert.equal("a", pool:pick());
		end);

		it("goes on where it was when it is set again, as by a reload, or a priority is", function ()
			local pool = new_pool("round_robin", { "a", "b", "c" });
			assert.equal("a", pool:pick());
			assert.equal("b", pool:pick());
			assert.is_true(pool:set_strategy("round_robin", KEY));
			assert.equal("c", pool:pick());
			pool:set_priority("a", 7);
			assert.equal("a", pool:pick());
			assert.equal("b", pool:pick());
		end);
	end);

	describe("least_pending", function ()
		local pending;

		local function hand(backend, count)
			for _ = 1, count do
				assert(pending:add(backend, "to", "id", "requester", "service", 0, 0));
			end
		end

		before_each(function ()
			pending = new_pending(random.bytes(core.PENDING_SEEDBYTES));
		end);

		it("takes the less loaded of two", function ()
			local pool = new_pool("least_pending", { "a", "b" });
			hand("a", 1);
			assert.same({ b = 100 }, count_picks(pool, 100, nil, nil, pending));
			hand("b", 2);
			assert.same({ a = 100 }, count_picks(pool, 100, nil, nil, pending));
			assert.same({ b = 100 }, count_picks(pool, 100, "a", nil, pending));
		end);

		it("takes two different ones, each pair as likely as the next", function ()
			local pool = new_pool("least_pending", { "a", "b", "c", "d" });
			hand("b", 1);
			hand("c", 2);
			hand("d", 3);
			local counts = count_picks(pool, 6000, nil, nil, pending);
			assert.is_nil(counts.d); -- in no pair the less loaded one
			for backend, expected in pairs { a = 3000, b = 2000, c = 1000 } do -- of three pairs, two and one
				expect.that(math.abs(counts[backend] - expected) < 300, "%s: %d", backend, counts[backend]);
			end
			counts = count_picks(pool, 6000, "b", nil, pending);
			assert.is_nil(counts.b);
			assert.is_nil(counts.d);
			for backend, expected in pairs { a = 4000, c = 2000 } do
				expect.that(math.abs(counts[backend] - expected) < 300, "%s: %d", backend, counts[backend]);
			end
		end);

		it("takes either of two that have the same", function ()
			local pool = new_pool("least_pending", names(10));
			local counts = count_picks(pool, 10000, nil, nil, pending);
			for number = 1, 10 do
				expect.that(math.abs(counts[name(number)] - 1000) < 250, "%d: %d", number, counts[name(number)]);
			end
		end);

		it("keeps the loads close together", function ()
			local pool = new_pool("least_pending", names(100));
			for _ = 1, 10000 do
				hand(pool:pick(nil, nil, pending), 1);
			end
			for number = 1, 100 do -- at random, some would have 125 and more
				expect.that(math.abs(pending:count(name(number)) - 100) <= 12, "%d: %d", number, pending:count(name(number)));
			end
		end);

		it("cannot do without the pending table", function ()
			local pool = new_pool("least_pending", { "a" });
			expect.raises("mod_client_proxy.pending expected, got no value", pool.pick, pool);
			expect.raises("mod_client_proxy.pending expected, got nil", pool.pick, pool, "requester", "service", nil);
		end);
	end);

	describe("primary", function ()
		it("stays with the first that came", function ()
			local pool = new_pool("primary", { "a", "b", "c" });
			assert.same({ a = 100 }, count_picks(pool, 100, "requester"));
		end);

		it("is taken over by a standby, and not back", function ()
			local pool = new_pool("primary", { "a", "b", "c" });
			pool:set_state("a", "away");
			assert.equal("b", pool:pick());
			pool:set_state("a", "ready");
			assert.equal("b", pool:pick());
			pool:set_state("b", "suspended");
			assert.equal("c", pool:pick());
			pool:set_state("b", "ready");
			assert.equal("c", pool:pick());
			pool:remove("c");
			assert.equal("a", pool:pick());
			pool:add("c");
			assert.equal("a", pool:pick());
			assert.equal("b", pool:pick("a"));
		end);

		it("goes by the highest priority first", function ()
			local pool = new_pool("primary", { "a", "b", "c" });
			assert.is_true(pool:set_priority("c", 1));
			assert.equal("c", pool:pick());
			assert.is_true(pool:set_priority("b", 127));
			assert.equal("b", pool:pick());
			assert.is_true(pool:set_priority("c", 127)); -- since after b
			assert.equal("b", pool:pick());
			pool:set_priority("a", 127); -- since before b
			assert.equal("a", pool:pick());
			pool:set_priority("a", -1);
			pool:set_priority("b", -128);
			pool:set_priority("c", -128);
			assert.equal("a", pool:pick());
			pool:remove("a");
			assert.equal("b", pool:pick());
		end);

		it("gives a new backend no priority of one before", function ()
			local pool = new_pool("primary", { "a", "b" });
			pool:set_priority("b", 5);
			pool:remove("b");
			pool:add("b");
			assert.equal("a", pool:pick());
		end);

		it("is in the order of thousands", function ()
			local pool, slow = new_pool("primary", {}), oracle.new();
			local count = process.turns(3000, 100);
			for number = 1, count do
				local priority = math.random(-128, 127);
				pool:add(name(number));
				slow:add(name(number));
				pool:set_priority(name(number), priority);
				slow:set_priority(name(number), priority);
			end
			local order = slow:choices();
			table.sort(order, function (a, b)
				return a.priority > b.priority or a.priority == b.priority and a.since < b.since;
			end);
			for position, backend in ipairs(order) do
				expect.equal(backend.jid, pool:pick(), "position %d", position);
				expect.equal(order[position + 1] and order[position + 1].jid, pool:pick(backend.jid), "after position %d", position);
				pool:remove(backend.jid);
			end
		end);
	end);

	describe("sender and recipient", function ()
		it("choose what they are known to choose", function ()
			for number, vector in ipairs(vectors) do
				for _, list in ipairs { vector.members, reversed(vector.members) } do
					local pool = new_pool("sender", list, vector.key);
					for _, case in ipairs(vector.texts) do
						local text, expected = case[1], vector.members[case[2]];
						expect.equal(expected, pool:pick(text), "vector %d, sender %q", number, text);
						expect.equal(expected, pool:pick(text.."/resource/", "other"), "vector %d, sender %q", number, text);
					end
					pool:set_strategy("recipient", vector.key);
					for _, case in ipairs(vector.texts) do
						local service, expected = service_named(case[1]), vector.members[case[2]];
						if service then
							expect.equal(expected, pool:pick(nil, service), "vector %d, recipient %q", number, service);
							expect.equal(expected, pool:pick("requester", service.."/r@/r"), "vector %d, recipient %q", number, service);
						end
					end
				end
			end
		end);

		it("take nobody for the empty JID", function ()
			local pool = new_pool("sender", names(100));
			assert.equal(pool:pick("/resource"), pool:pick());
			pool:set_strategy("recipient", KEY);
			assert.equal(pool:pick("requester", ""), pool:pick("requester"));
			assert.equal(pool:pick("requester", "proxy.domain.example/user@resource"), pool:pick("requester"));
		end);

		it("choose by the set of backends alone, whatever was before", function ()
			local keys, list = random_keys(300), random_names(12);
			local expected = pick_all(new_pool("sender", list), keys);
			local pool = new_pool("sender", random.shuffle(copy(list)));
			expect.same(expected, pick_all(pool, keys), "another order, another seed");
			for _ = 1, 3 do
				local others = random_names(process.turns(1000, 100));
				for _, jid in ipairs(others) do
					pool:add(jid);
				end
				for _, jid in ipairs(random.shuffle(list)) do
					pool:set_state(jid, "away");
					pool:set_priority(jid, math.random(100));
				end
				for _, jid in ipairs(random.shuffle(others)) do
					pool:remove(jid);
				end
				for _, jid in ipairs(random.shuffle(list)) do
					pool:set_state(jid, "ready");
				end
				expect.same(expected, pick_all(pool, keys), "after others came and went");
			end
			pool:set_strategy("recipient", KEY);
			pool:set_strategy("sender", KEY);
			expect.same(expected, pick_all(pool, keys), "after another strategy");
		end);

		it("choose otherwise under another key", function ()
			local keys, pool = random_keys(1000), new_pool("sender", names(10));
			local before = pick_all(pool, keys);
			for position = 1, core.POOL_KEYBYTES do
				pool:set_strategy("sender", KEY:sub(1, position - 1).."\0"..KEY:sub(position + 1));
				local same = 0;
				for i, picked in ipairs(pick_all(pool, keys)) do
					same = same + (picked == before[i] and 1 or 0);
				end
				expect.that(same < 250, "byte %d: %d of 1000 as before", position, same); -- about 100
			end
			pool:set_strategy("sender", KEY);
			expect.same(before, pick_all(pool, keys), "the first key again");
		end);

		for _, count in ipairs { 2, 10, 100, 1000, 5000 } do -- of the most, what is far apart in memory is fetched ahead
			it("move little when one of "..count.." backends leaves or another joins", function ()
				local keys, list = random_keys(process.turns(100000, 200)), random_names(count);
				local newcomer = random_names(1)[1];
				local pool = new_pool("sender", list);
				local before, counts = pick_all(pool, keys), {};
				for _, picked in ipairs(before) do
					counts[picked] = (counts[picked] or 0) + 1;
				end
				local leaving = before[1]; -- who has something

				pool:remove(leaving);
				local moved = 0;
				for i, picked in ipairs(pick_all(pool, keys)) do
					if before[i] == leaving then
						moved = moved + 1;
						expect.that(picked ~= leaving and picked ~= nil, "%s is gone", picked);
					else
						expect.equal(before[i], picked, "%s, which is another's", keys[i]);
					end
				end
				assert.equal(counts[leaving], moved);

				pool:add(leaving);
				expect.same(before, pick_all(pool, keys), "after its return");

				pool:add(newcomer);
				moved = 0;
				for i, picked in ipairs(pick_all(pool, keys)) do
					if picked ~= before[i] then
						moved = moved + 1;
						expect.equal(newcomer, picked, "%s, which moves", keys[i]);
					end
				end
				expect.that(moved > 0 or #keys < 10 * count, "nothing moves");
				expect.that(moved <= (1 / count + 0.05) * #keys, "%d of %d move", moved, #keys);
			end);
		end

		for _, count in ipairs { 2, 3, 10 } do
			it("spread "..count.." backends' load within 1.25 times the mean", function ()
				local keys = random_keys(process.turns(100000, 1000));
				for _ = 1, process.turns(3, 1) do
					local counts, most = {}, 0;
					for _, picked in ipairs(pick_all(new_pool("sender", random_names(count), random.bytes(16)), keys)) do
						counts[picked] = (counts[picked] or 0) + 1;
						most = math.max(most, counts[picked]);
					end
					local allowed = 1.25 * #keys / count + (#keys < 100000 and 100 or 0);
					expect.that(most <= allowed, "%d of %d", most, #keys);
				end
			end);
		end

		it("treat a backend that asks as if it were none", function ()
			local list = {};
			for i = 1, 20 do
				list[i] = ("user-%d@some-domain.example/r"):format(i);
			end
			local pool = new_pool("sender", list);
			for i, jid in ipairs(list) do
				local others = copy(list);
				table.remove(others, i);
				expect.equal(new_pool("sender", others):pick(jid), pool:pick(jid), "%s", jid);
			end
		end);
	end);

	describe("mistakes raise:", function ()
		it("a strategy that is none, or no key", function ()
			local pool = core.pool(SEED);
			expect.raises("invalid option 'best'", pool.set_strategy, pool, "best", KEY);
			expect.raises("string expected, got no value", pool.set_strategy, pool);
			expect.raises("string expected, got no value", pool.set_strategy, pool, "random");
			for _, length in ipairs { 0, 15, 17, 32 } do
				expect.raises(("16 bytes expected, got %d"):format(length), pool.set_strategy, pool, "sender", ("k"):rep(length));
			end
			for _, wrong in ipairs { false, true, {}, print, pool } do
				expect.raises("string expected", pool.set_strategy, pool, wrong, KEY);
				expect.raises("string expected", pool.set_strategy, pool, "sender", wrong);
			end
		end);

		it("a priority that is none", function ()
			local pool = new_pool("primary", { "a", "b" });
			for _, wrong in ipairs { -129, 128, math.maxinteger, math.mininteger } do
				expect.raises("-128 to 127 expected", pool.set_priority, pool, "b", wrong);
			end
			for _, wrong in ipairs { false, true, {}, print, pool, "x" } do
				expect.raises("number expected", pool.set_priority, pool, "b", wrong);
			end
			expect.raises("number expected, got no value", pool.set_priority, pool, "b");
			expect.raises("no integer representation", pool.set_priority, pool, "b", 0.5);
			expect.raises("string expected", pool.set_priority, pool, {}, 1);
			assert.equal("a", pool:pick());
			assert.is_false(pool:set_priority("c", 1));
			assert.is_false(pool:set_priority("b", 0));
			assert.is_true(pool:set_priority("b", -128));
			assert.is_true(pool:set_priority("b", 127));
		end);

		it("arguments of a pick of a wrong type", function ()
			local pool = new_pool("sender", { "a" });
			for _, wrong in ipairs { false, true, {}, print, pool } do
				expect.raises("string expected", pool.pick, pool, wrong);
				expect.raises("string expected", pool.pick, pool, "requester", wrong);
				expect.raises("mod_client_proxy.pending expected", pool.pick, pool, "requester", "service", wrong);
				expect.raises("string expected", pool.pick, pool, "requester", "service", nil, wrong);
			end
			local collected = new_pending(("s"):rep(core.PENDING_SEEDBYTES));
			getmetatable(collected).__gc(collected);
			expect.raises("already collected", pool.pick, pool, "requester", "service", collected);
		end);
	end);
end);
