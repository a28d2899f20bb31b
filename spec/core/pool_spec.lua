local core = require "mod_client_proxy.core";
local new_pending = require "spec.support.pending".new;
local backend_names = require "spec.support.names";
local expect = require "spec.support.expect";
local process = require "spec.support.process";
local random = require "spec.support.random";

local SEED = ("seed"):rep(core.POOL_SEEDBYTES // 4);
local STRANGE_JIDS = { "", "\0", "\0\0", "a\0", "a\0b", "a", "\255", "\192\128", ("j"):rep(3071) };

random.announce("pool_spec");

local name, names = backend_names.one, backend_names.list;

-- (list, seed) -> pool that has them all
local function new_pool(list, seed)
	local pool = core.pool(seed or SEED);
	for _, jid in ipairs(list) do
		pool:add(jid);
	end
	return pool;
end

-- Removes all backends, which are of that list.
local function clear(pool, list)
	for _, jid in ipairs(list) do
		pool:remove(jid);
	end
	assert.equal(0, #pool);
end

-- The same, slow and obvious: an array
local oracle = {};
oracle.__index = oracle;

function oracle.new()
	return setmetatable({ backends = {}, states = {}, tokens = {} }, oracle);
end

function oracle:find(jid)
	for position, backend in ipairs(self.backends) do
		if backend == jid then
			return position;
		end
	end
end

-- (token) -> the backend that has it
function oracle:resolve(token)
	for jid, other in pairs(self.tokens) do
		if other == token and token ~= "" then
			return jid;
		end
	end
end

-- -> boolean | nil, "taken"
function oracle:add(jid, token)
	if self:find(jid) then
		return false;
	elseif self:resolve(token) then
		return nil, "taken";
	end
	table.insert(self.backends, jid);
	self.states[jid], self.tokens[jid] = "ready", token or "";
	return true;
end

function oracle:remove(jid)
	local position = self:find(jid);
	if position then
		table.remove(self.backends, position);
	end
	self.states[jid], self.tokens[jid] = nil, nil;
	return position ~= nil;
end

function oracle:clear()
	self.backends, self.states, self.tokens = {}, {}, {};
end

function oracle:set_state(jid, state)
	local before = self.states[jid];
	if before then
		self.states[jid] = state;
	end
	return before ~= nil and before ~= state;
end

function oracle:is_ready()
	for _, state in pairs(self.states) do
		if state == "ready" then
			return true;
		end
	end
	return false;
end

-- Whether `picked` is what a pick may return; with one to be avoided, it may be that the choice is the requester
function oracle:allows(picked, requester, avoided)
	local is_avoided = avoided and self.states[avoided];
	local except = is_avoided and avoided or requester;
	local choices = { ready = {}, suspended = {}, away = {} };
	for jid, state in pairs(self.states) do
		if jid ~= except then
			choices[state][jid] = true;
		end
	end
	local allowed = next(choices.ready) ~= nil and choices.ready or choices.suspended;
	if picked == nil then
		return next(allowed) == nil or is_avoided and requester ~= nil and allowed[requester] == true;
	end
	return allowed[picked] == true and picked ~= requester;
end

-- How far counts are from what is expected of equally likely outcomes: about the number of
-- outcomes if the choice is uniform, and far more if it is not
local function chi_square(counts, outcomes)
	local total = 0;
	for _, count in pairs(counts) do
		total = total + count;
	end
	local expected, sum = total / #outcomes, 0;
	for _, outcome in ipairs(outcomes) do
		sum = sum + ((counts[outcome] or 0) - expected)^2 / expected;
	end
	return sum;
end

local function count_picks(pool, turns, except)
	local counts = {};
	for _ = 1, turns do
		local picked = pool:pick(except);
		counts[picked] = (counts[picked] or 0) + 1;
	end
	return counts;
end

-- `add_weight` of the steps add, so that some sequences grow and some shrink. A twin with the same seed has to pick the same.
local function run_sequence(universe, steps, add_weight)
	local seed = random.bytes(core.POOL_SEEDBYTES);
	local pool, twin, slow = core.pool(seed), core.pool(seed), oracle.new();
	for step = 1, steps do
		local jid, chance = random.element(universe), math.random();
		if chance < add_weight then
			local token = random.element { random.element(universe), "", false } or nil; -- any texts will do
			expect.same({ slow:add(jid, token) }, { pool:add(jid, token) }, "step %d, add", step);
			twin:add(jid, token);
		elseif chance < 0.7 then
			local removed = slow:remove(jid);
			expect.equal(removed, pool:remove(jid), "step %d, remove", step);
			twin:remove(jid);
		elseif chance < 0.8 then
			local state = random.element { "ready", "suspended", "away" };
			expect.equal(slow:set_state(jid, state), pool:set_state(jid, state), "step %d, set", step);
			twin:set_state(jid, state);
		elseif chance < 0.8 + 2 / steps then
			slow:clear();
			clear(pool, universe);
			clear(twin, universe);
		else
			local except = math.random(4) > 1 and jid or nil;
			local avoided = math.random(3) == 1 and random.element(universe) or nil;
			local picked = pool:pick(except, nil, nil, avoided);
			expect.that(slow:allows(picked, except, avoided), "step %d: picked %q, never %q", step, picked, except);
			expect.equal(picked, twin:pick(except, nil, nil, avoided), "step %d, the twin's pick", step);
		end
		expect.equal(slow.states[jid], pool:state(jid), "step %d, state", step);
		expect.equal(slow.tokens[jid], pool:token(jid), "step %d, token", step);
		expect.equal(slow:resolve(jid), pool:resolve(jid), "step %d, whose token", step);
		expect.equal(#slow.backends, #pool, "step %d, number", step);
		expect.equal(slow:is_ready(), pool:is_ready(), "step %d, is ready", step);
	end
end

describe("core.pool", function ()
	before_each(random.restart);

	it("gives back its memory", function ()
		local all = {};
		for i = 1, process.turns(2000, 20) do
			all[i] = ("j"):rep(1000)..i; -- so that what is lost is more than what tests before have freed
		end
		process.stays_flat(function ()
			for _ = 1, 50 do
				clear(new_pool(all), all);
				new_pool(all);
				collectgarbage();
			end
		end, 2 * 1024 * 1024);
	end);

	describe("does what an array does", function ()
		local cases = {
			{ "with few backends", names(3), 400, 300 };
			{ "with strange JIDs", STRANGE_JIDS, 100, 500 };
			{ "with some backends", names(40), 60, 1000 };
			{ "with many backends", names(800), 6, process.turns(4000, 2000) };
		};
		for _, case in ipairs(cases) do
			local what, universe, sequences, steps = table.unpack(case);
			it(what, function ()
				for _ = 1, process.turns(sequences, math.ceil(sequences / 20)) do
					run_sequence(universe, steps, 0.25 + 0.3 * math.random());
				end
			end);
		end
	end);

	describe("add", function ()
		it("tells whether the backend is new", function ()
			local pool = core.pool(SEED);
			assert.is_true(pool:add("a"));
			assert.is_false(pool:add("a"));
			assert.is_true(pool:add("A"));
			assert.equal(2, #pool);
		end);

		it("takes any bytes for a JID", function ()
			local pool = core.pool(SEED);
			for count, jid in ipairs(STRANGE_JIDS) do
				assert.is_true(pool:add(jid));
				assert.equal(count, #pool);
			end
			for _, jid in ipairs(STRANGE_JIDS) do
				assert.is_false(pool:add(jid));
			end
			local counts = count_picks(pool, 1000);
			for _, jid in ipairs(STRANGE_JIDS) do
				assert.is_truthy(counts[jid]);
				assert.is_true(pool:remove(jid));
			end
			assert.equal(0, #pool);
		end);
	end);

	describe("a token", function ()
		it("is any bytes, and the backend's as long as that is there", function ()
			local pool = core.pool(SEED);
			for number, token in ipairs(STRANGE_JIDS) do
				assert.is_nil(pool:resolve(token));
				assert.is_true(pool:add(name(number), token));
				assert.equal(token, pool:token(name(number)));
				assert.equal(token ~= "" and name(number) or nil, pool:resolve(token));
			end
			for number, token in ipairs(STRANGE_JIDS) do
				assert.is_true(pool:remove(name(number)));
				assert.is_nil(pool:token(name(number)));
				assert.is_nil(pool:resolve(token));
			end
		end);

		it("is that of one backend, which keeps it", function ()
			local pool = core.pool(SEED);
			assert.is_true(pool:add("a", "token"));
			assert.same({ nil, "taken" }, { pool:add("b", "token") });
			assert.is_nil(pool:state("b"));
			assert.is_false(pool:add("a", "another"));
			assert.is_false(pool:add("a"));
			assert.equal("token", pool:token("a"));
			assert.is_nil(pool:resolve("another"));
			pool:set_state("a", "away");
			pool:set_priority("a", 7);
			pool:set_format("a", "plain");
			pool:set_strategy("sender", ("k"):rep(core.POOL_KEYBYTES));
			assert.equal("a", pool:resolve("token"));
			pool:remove("a");
			assert.is_true(pool:add("b", "token"));
			assert.is_true(pool:add("a", "another"));
			assert.same({ "b", "a" }, { pool:resolve("token"), pool:resolve("another") });
		end);

		it("is none where none was given, and many may have none", function ()
			local pool = core.pool(SEED);
			assert.is_true(pool:add("a") and pool:add("b", "") and pool:add("c", nil));
			assert.same({ "", "", "" }, { pool:token("a"), pool:token("b"), pool:token("c") });
			assert.is_nil(pool:resolve(""));
			assert.is_nil(pool:token("d"));
		end);
	end);

	it("keeps copies of the JIDs", function ()
		local pool = core.pool(SEED);
		for i = 1, 1000 do
			expect.equal(true, pool:add("only here "..i), "add %d", i);
		end
		collectgarbage();
		for i = 1, 1000 do
			expect.equal(false, pool:add("only here "..i), "add %d again", i);
			expect.that(pool:pick():find("^only here %d+$"), "pick %d", i);
		end
	end);

	describe("remove", function ()
		it("tells whether it was a backend", function ()
			local pool = new_pool { "a", "b" };
			assert.is_true(pool:remove("a"));
			assert.is_false(pool:remove("a"));
			assert.is_false(pool:remove("c"));
			assert.equal(1, #pool);
		end);

		it("keeps all others, wherever the backend was", function ()
			for gone = 1, 20 do
				local pool = new_pool(names(20));
				pool:remove(name(gone));
				local counts = count_picks(pool, 1000);
				for i = 1, 20 do
					assert.equal(i ~= gone, counts[name(i)] ~= nil);
				end
			end
		end);
	end);

	describe("clear", function ()
		it("leaves no backend", function ()
			local pool = new_pool(names(2000));
			clear(pool, names(2000));
			assert.equal(0, #pool);
			assert.is_nil(pool:pick());
			assert.is_false(pool:remove(name(1)));
			assert.is_true(pool:add(name(1)));
			assert.equal(name(1), pool:pick());
		end);

		it("is harmless where there is none", function ()
			local pool = core.pool(SEED);
			clear(pool, names(20));
			assert.equal(0, #pool);
		end);
	end);

	describe("pick", function ()
		it("finds none in an empty pool", function ()
			local pool = core.pool(SEED);
			assert.is_nil(pool:pick());
			assert.is_nil(pool:pick("a"));
			assert.equal(1, select("#", pool:pick()));
		end);

		it("finds none where the only backend is excepted", function ()
			local pool = new_pool { "a" };
			assert.is_nil(pool:pick("a"));
			assert.equal("a", pool:pick());
			assert.equal("a", pool:pick(nil));
			assert.equal("a", pool:pick("b"));
			assert.equal("a", pool:pick(""));
		end);

		it("excepts the empty JID, too", function ()
			local pool = new_pool { "" };
			assert.is_nil(pool:pick(""));
			assert.equal("", pool:pick());
		end);

		it("excepts nothing but the very same JID", function ()
			local pool = new_pool { "a\0b" };
			for _, except in ipairs { "a", "a\0", "a\0c", "a\0b\0", "A\0b" } do
				assert.equal("a\0b", pool:pick(except));
			end
			assert.is_nil(pool:pick("a\0b"));
		end);

		it("is uniform", function ()
			for _, count in ipairs { 2, 3, 10, 64, 100 } do
				local all = names(count);
				local counts = count_picks(new_pool(all), 500 * count);
				-- eight times the standard deviation
				expect.that(chi_square(counts, all) < count + 8 * math.sqrt(2 * count) + 20, "among %d", count);
			end
		end);

		it("is uniform among the others, whichever is excepted", function ()
			for _, count in ipairs { 2, 3, 10 } do
				for excepted = 1, count do
					local others = names(count);
					local pool = new_pool(others);
					table.remove(others, excepted);
					local counts = count_picks(pool, 500 * count, name(excepted));
					assert.is_nil(counts[name(excepted)]);
					expect.that(chi_square(counts, others) < count + 8 * math.sqrt(2 * count) + 20, "%d of %d", excepted, count);
				end
			end
		end);

		it("is uniform after a removal", function ()
			local pool = new_pool(names(11));
			pool:remove(name(3));
			local others = names(11);
			table.remove(others, 3);
			expect.that(chi_square(count_picks(pool, 5000), others) < 66, "ten left of eleven");
			table.remove(others, 5);
			expect.that(chi_square(count_picks(pool, 5000, name(6)), others) < 66, "nine of them");
		end);

		it("does not depend on the pick before", function ()
			local pool, pairs_of_picks, outcomes = new_pool(names(10)), {}, {};
			for i = 1, 10 do
				for j = 1, 10 do
					table.insert(outcomes, name(i).." "..name(j));
				end
			end
			local before = pool:pick();
			for _ = 1, 20000 do
				local picked = pool:pick();
				local both = before.." "..picked;
				pairs_of_picks[both] = (pairs_of_picks[both] or 0) + 1;
				before = picked;
			end
			expect.that(chi_square(pairs_of_picks, outcomes) < 240, "two in a row");
		end);

		it("reaches every one of many", function ()
			local all = names(1100);
			local counts = count_picks(new_pool(all), 30000);
			for _, jid in ipairs(all) do
				expect.that(counts[jid], "%s", jid);
			end
		end);

		it("repeats with the same seed, and with no other", function ()
			local function picks(seed)
				local pool, picked = new_pool(names(50), seed), {};
				for i = 1, 50 do
					picked[i] = pool:pick();
				end
				return table.concat(picked, " ");
			end
			assert.equal(picks(SEED), picks(SEED));
			for position = 17, core.POOL_SEEDBYTES do -- those before are for the hash
				assert.not_equal(picks(SEED), picks(SEED:sub(1, position - 1).."\0"..SEED:sub(position + 1)));
			end
		end);
	end);

	it("takes thousands of backends in any order, and lets them go", function ()
		local all = names(process.turns(5000, 2100));
		local pool = core.pool(SEED);
		for count, jid in ipairs(random.shuffle(all)) do
			expect.equal(true, pool:add(jid), "add %d", count);
			expect.equal(count, #pool, "add %d", count);
		end
		random.shuffle(all);
		local kept = {};
		for i = 1, #all // 2 do
			kept[all[i]] = true;
		end
		for i = #all, #all // 2 + 1, -1 do
			expect.equal(true, pool:remove(all[i]), "remove %d", i);
			expect.equal(false, pool:remove(all[i]), "remove %d again", i);
			expect.equal(i - 1, #pool, "remove %d", i);
		end
		for _ = 1, 1000 do
			expect.that(kept[pool:pick()], "picked one that is gone");
		end
		for jid in pairs(kept) do
			expect.equal(false, pool:add(jid), "%s", jid);
			expect.equal(true, pool:remove(jid), "%s", jid);
		end
		assert.equal(0, #pool);
		assert.is_nil(pool:pick());
	end);

	describe("mistakes raise:", function ()
		it("a seed of another length", function ()
			for _, length in ipairs { 0, 16, 23, 25, 48 } do
				expect.raises(("24 bytes expected, got %d"):format(length), core.pool, ("s"):rep(length));
			end
		end);

		it("arguments of a wrong type, or none", function ()
			local pool = core.pool(SEED);
			for _, wrong in ipairs { false, true, {}, print, pool } do
				expect.raises("string expected", core.pool, wrong);
				expect.raises("string expected", pool.add, pool, wrong);
				expect.raises("string expected", pool.add, pool, "a", wrong);
				expect.raises("string expected", pool.token, pool, wrong);
				expect.raises("string expected", pool.resolve, pool, wrong);
				expect.raises("string expected", pool.pick_lasting, pool, wrong, "b");
				expect.raises("string expected", pool.pick_lasting, pool, "a", wrong);
				expect.raises("string expected", pool.remove, pool, wrong);
				expect.raises("string expected", pool.pick, pool, wrong);
			end
			expect.raises("string expected", core.pool);
			expect.raises("string expected", pool.add, pool);
			expect.raises("string expected", pool.remove, pool);
			expect.raises("string expected", pool.token, pool);
			expect.raises("string expected", pool.resolve, pool);
			expect.raises("string expected", pool.pick_lasting, pool, "a");
			assert.equal(0, #pool);
		end);

		it("an object that is no pool", function ()
			local pool = core.pool(SEED);
			local meta = getmetatable(pool);
			local others = { core.jat("h", "sealed"), new_pending(("s"):rep(core.PENDING_SEEDBYTES)), io.stdout, {}, "s" };
			for _, method in ipairs { pool.add, pool.remove, pool.set_state, pool.state, pool.set_priority, pool.set_strategy,
				pool.serves, pool.is_ready, pool.pick, pool.pick_lasting, pool.token, pool.resolve, pool.set_format, meta.__len, meta.__gc } do
				for _, other in ipairs(others) do
					expect.raises("mod_client_proxy.pool expected", method, other, "a");
				end
				expect.raises("mod_client_proxy.pool expected", method);
			end
		end);

		it("a pool that has been collected", function ()
			local pool = new_pool { "a" };
			local meta = getmetatable(pool);
			meta.__gc(pool);
			meta.__gc(pool);
			for _, method in ipairs { pool.add, pool.remove, pool.set_state, pool.state, pool.set_priority, pool.set_strategy,
				pool.serves, pool.is_ready, pool.pick, pool.pick_lasting, pool.token, pool.resolve, pool.set_format, meta.__len } do
				expect.raises("already collected", method, pool, "a");
			end
		end);
	end);

	it("works on while others are collected", function ()
		local pool = new_pool(names(600));
		for _ = 1, 20 do
			new_pool(names(600), random.bytes(core.POOL_SEEDBYTES));
		end
		collectgarbage();
		assert.equal(600, #pool);
		for i = 1, 600 do
			expect.equal(true, pool:remove(name(i)), "%d", i);
		end
	end);
end);
