local core = require "mod_client_proxy.core";
local expect = require "spec.support.expect";
local process = require "spec.support.process";
local random = require "spec.support.random";

local SEED = ("seed"):rep(core.PENDING_SEEDBYTES // 4);
local NAN = 0 / 0;
local MEGABYTE = 1024 * 1024;

random.announce("pending_spec");

local function new_table()
	return core.pending(random.bytes(core.PENDING_SEEDBYTES));
end

-- The same, slow and obvious: a list, the oldest first
local oracle = {};
oracle.__index = oracle;

function oracle.new()
	return setmetatable({ entries = {} }, oracle);
end

function oracle:add(backend, to, id, requester, service, deadline, handle)
	table.insert(self.entries, {
		backend = backend, to = to, id = id, requester = requester, service = service, deadline = deadline, handle = handle,
	});
end

-- Removes the oldest entry for which `wanted` is true: what is remembered of it
function oracle:take_oldest(wanted)
	for position, entry in ipairs(self.entries) do
		if wanted(entry) then
			table.remove(self.entries, position);
			return entry.requester, entry.service, entry.id, entry.handle, entry.deadline, entry.backend;
		end
	end
end

function oracle:take(from, to, id)
	return self:take_oldest(function (entry)
		return entry.backend == from and entry.to == to and entry.id == id;
	end);
end

function oracle:take_back(backend)
	return self:take_oldest(function (entry)
		return entry.backend == backend;
	end);
end

function oracle:count(backend)
	local count = 0;
	for _, entry in ipairs(self.entries) do
		count = count + (entry.backend == backend and 1 or 0);
	end
	return count;
end

-- Why the requester's next request would not be taken
function oracle:refusal(requester, max, max_per_requester)
	local bare, count = requester:match("^[^/]*"), 0;
	for _, entry in ipairs(self.entries) do
		if entry.requester:match("^[^/]*") == bare then
			count = count + 1;
		end
	end
	return #self.entries >= max and "full" or count >= max_per_requester and "requester-full" or nil;
end

function oracle:knows(handle)
	for _, entry in ipairs(self.entries) do
		if entry.handle == handle then
			return true;
		end
	end
	return false;
end

function oracle:deadline()
	local earliest;
	for _, entry in ipairs(self.entries) do
		if not earliest or entry.deadline < earliest then
			earliest = entry.deadline;
		end
	end
	return earliest;
end

-- Removes the entry if it is among those that may expire next, and tells whether it was.
function oracle:expire(now, requester, service, id, handle, deadline, backend)
	local earliest = self:deadline();
	if earliest == nil or earliest > now then
		return requester == nil;
	end
	for position, entry in ipairs(self.entries) do
		if entry.deadline == earliest and entry.requester == requester then
			table.remove(self.entries, position);
			return entry.service == service and entry.id == id and entry.handle == handle and deadline == earliest
				and entry.backend == backend;
		end
	end
	return false;
end

-- No two requesters are the same, so that each entry can be told from all others.
local last_requester = 0;
local function new_requester()
	last_requester = last_requester + 1;
	return random.bytes(math.random(0, 20))..last_requester;
end

local deadlines = {
	timeout = function (now)
		return now + 60;
	end;
	few = function ()
		return math.random(20);
	end;
	any = function (now)
		return now + math.random() * 200;
	end;
	extreme = function ()
		return random.element { -math.huge, -1e308, -1, -0.0, 0, 5e-324, 1e308, math.huge };
	end;
};

-- (keys, steps, add_weight, deadline_kind): `add_weight` of the steps add
local function run_sequence(keys, steps, add_weight, deadline_kind)
	local pending, slow, now = new_table(), oracle.new(), 0;
	for step = 1, steps do
		local key, chance = random.element(keys), math.random();
		local from, to, id = key[1], key[2], key[3];
		if chance < add_weight then
			local requester, service = new_requester(), random.bytes(math.random(0, 20));
			local deadline = deadlines[deadline_kind](now);
			local handle = pending:add(from, to, id, requester, service, deadline);
			expect.equal("userdata", type(handle), "step %d, add", step);
			expect.that(not slow:knows(handle), "step %d, add", step);
			slow:add(from, to, id, requester, service, deadline, handle);
		elseif chance < 0.8 then
			expect.same({ slow:take(from, to, id) }, { pending:take(from, to, id) }, "step %d, take", step);
		elseif chance < 0.85 then
			expect.same({ slow:take_back(from) }, { pending:take_back(from) }, "step %d, take back", step);
		else
			expect.that(slow:expire(now, pending:expire(now)), "step %d, expire", step);
		end
		now = now + math.random(0, 2);
		expect.equal(slow:deadline(), pending:deadline(), "step %d, deadline", step);
		expect.equal(#slow.entries, #pending, "step %d, number", step);
		expect.equal(slow:count(from), pending:count(from), "step %d, number of one backend", step);
	end
	for step = 1, #slow.entries do
		expect.that(slow:expire(math.huge, pending:expire(math.huge)), "expire %d of the rest", step);
	end
	expect.equal(nil, pending:expire(math.huge), "nothing is left");
	expect.equal(0, #pending, "nothing is left");
end

-- Lest Lua's own garbage comes to megabytes
local function collect_now_and_then(turn)
	if turn % 10000 == 0 then
		collectgarbage();
	end
end

local function some_keys(count)
	local keys = {};
	for i = 1, count do
		-- so that keys often agree in one or two of their parts
		keys[i] = { random.element { "", "f", "\0", "\255" }, random.element { "", "t", "\0" }, random.bytes(math.random(0, 1)) };
	end
	return keys;
end

describe("core.pending", function ()
	local pending;

	before_each(function ()
		random.restart();
		last_requester = 0;
		pending = new_table();
	end);

	it("gives back its memory, with entries left or none", function ()
		-- small and large; so much that what is lost is more than what tests before have freed
		local services = { "service", ("s"):rep(2000) };
		local function use(leave)
			local subject = new_table();
			for i = 1, process.turns(2000, 50) do
				subject:add("f", "t", "i"..i % 100, "requester"..i, services[i % 2 + 1], i);
			end
			for _ = 1, leave and 0 or #subject do
				subject:expire(math.huge);
			end
		end
		process.stays_flat(function ()
			for i = 1, 50 do
				use(i % 2 == 0);
				collectgarbage();
			end
		end, 2 * MEGABYTE);
	end);

	describe("does what a list does", function ()
		local cases = {
			{ "with one key", 1, 30, 400 };
			{ "with few keys", 4, 100, 300 };
			{ "with some keys", 50, 20, 600 };
			{ "with many keys", 2000, 3, process.turns(2500, 800) };
		};
		for _, case in ipairs(cases) do
			for kind in pairs(deadlines) do
				local what, key_count, sequences, steps = table.unpack(case);
				it(("%s and %s deadlines"):format(what, kind), function ()
					for _ = 1, process.turns(sequences, math.ceil(sequences / 30)) do
						run_sequence(some_keys(key_count), steps, 0.35 + 0.3 * math.random(), kind);
					end
				end);
			end
		end
	end);

	describe("take", function ()
		it("finds nothing in an empty table", function ()
			assert.is_nil(pending:take("f", "t", "i"));
			assert.equal(1, select("#", pending:take("f", "t", "i")));
		end);

		it("gives what was remembered, once", function ()
			local handle = pending:add("f", "t", "i", "requester", "service", 1);
			assert.same({ "requester", "service", "i", handle, 1, "f" }, { pending:take("f", "t", "i") });
			assert.is_nil(pending:take("f", "t", "i"));
			assert.is_nil(pending:deadline());
			assert.equal(0, #pending);
		end);

		it("gives those with equal answers first in, first out", function ()
			for i = 1, 10 do
				pending:add("f", "t", "i", "requester"..i, "service"..i, -i);
			end
			for i = 1, 10 do
				local requester, service = pending:take("f", "t", "i");
				assert.same({ "requester"..i, "service"..i }, { requester, service });
			end
			assert.is_nil(pending:take("f", "t", "i"));
		end);

		it("keeps that order where some have expired", function ()
			for i = 1, 30 do
				pending:add("f", "t", "i", "requester"..i, "service", i % 3 == 0 and 1 or 2);
			end
			for _ = 1, 10 do
				pending:expire(1);
			end
			for i = 1, 30 do
				if i % 3 ~= 0 then
					assert.equal("requester"..i, (pending:take("f", "t", "i")));
				end
			end
			assert.equal(0, #pending);
		end);

		it("keeps that order two thousand deep", function ()
			for i = 1, 2000 do
				pending:add("f", "t", "i", "requester"..i, "service", i % 2);
			end
			assert.equal(2000, #pending);
			for i = 1, 1000 do
				local requester = pending:expire(0);
				expect.that(tonumber(requester:match("%d+")) % 2 == 0, "expire %d", i);
			end
			for i = 1, 1999, 2 do
				expect.equal("requester"..i, (pending:take("f", "t", "i")), "take %d", i);
			end
			assert.is_nil(pending:take("f", "t", "i"));
		end);

		it("does not take one part for another", function ()
			local text, answers = "a\0aab\0a", {};
			for i = 0, #text do
				for j = i, #text do
					table.insert(answers, { text:sub(1, i), text:sub(i + 1, j), text:sub(j + 1) });
				end
			end
			for _, order in ipairs { { 1, 2, 3 }, { 1, 3, 2 }, { 2, 1, 3 }, { 2, 3, 1 }, { 3, 1, 2 }, { 3, 2, 1 } } do
				local parts = { "x", "y", "z" };
				table.insert(answers, { parts[order[1]], parts[order[2]], parts[order[3]] });
			end
			for number, answer in ipairs(answers) do
				expect.equal(nil, pending:take(answer[1], answer[2], answer[3]), "%d before", number);
				pending:add(answer[1], answer[2], answer[3], "requester"..number, "service", 0);
			end
			random.shuffle(answers);
			local found = {};
			for number, answer in ipairs(answers) do
				found[pending:take(answer[1], answer[2], answer[3])] = true;
				expect.equal(nil, pending:take(answer[1], answer[2], answer[3]), "%d after", number);
			end
			for number = 1, #answers do
				expect.that(found["requester"..number], "%d found", number);
			end
		end);

		it("gives the right one for each of these", function ()
			pending:add("ab", "c", "d", "first", "", 0);
			pending:add("a", "bc", "d", "second", "", 0);
			pending:add("a", "b", "cd", "third", "", 0);
			assert.equal("third", (pending:take("a", "b", "cd")));
			assert.equal("first", (pending:take("ab", "c", "d")));
			assert.equal("second", (pending:take("a", "bc", "d")));
		end);

		it("wants every part to be the same to the byte", function ()
			pending:add("f\0g", "t\0u", "i\0j", "requester", "service", 0);
			for _, answer in ipairs {
				{ "f\0h", "t\0u", "i\0j" }, { "f", "t\0u", "i\0j" }, { "F\0g", "t\0u", "i\0j" }, { "f\0g\0", "t\0u", "i\0j" },
				{ "f\0g", "t\0v", "i\0j" }, { "f\0g", "t", "i\0j" }, { "f\0g", "T\0u", "i\0j" }, { "f\0g", "t\0u\0", "i\0j" },
				{ "f\0g", "t\0u", "i\0k" }, { "f\0g", "t\0u", "i" }, { "f\0g", "t\0u", "I\0j" }, { "f\0g", "t\0u", "i\0j\0" },
			} do
				assert.is_nil(pending:take(answer[1], answer[2], answer[3]));
			end
			assert.equal("requester", (pending:take("f\0g", "t\0u", "i\0j")));
		end);
	end);

	describe("take_back", function ()
		it("finds nothing of a backend that has nothing", function ()
			pending:add("f", "t", "i", "requester", "service", 1);
			assert.is_nil(pending:take_back("g"));
			assert.equal(1, select("#", pending:take_back("g")));
		end);

		it("gives what the backend has, the oldest first, and nothing of others", function ()
			for i = 1, 1000 do
				pending:add("f"..i % 3, "t"..i % 5, "i"..i % 10, "requester"..i, "service", -i);
			end
			for i = 1, 1000 do
				if i % 3 == 1 then
					expect.equal("requester"..i, (pending:take_back("f1")), "take back %d", i);
				end
			end
			assert.is_nil(pending:take_back("f1"));
			assert.equal(666, #pending);
			assert.is_nil(pending:take("f1", "t1", "i1"));
			pending:add("f1", "t", "i", "again", "service", 0);
			assert.equal("again", (pending:take_back("f1")));
		end);
	end);

	describe("count", function ()
		it("tells how many requests a backend has, none once they are gone", function ()
			pending:add("f", "t", "i", "requester", "service", 1);
			pending:add("f", "t", "j", "requester", "service", 2);
			pending:add("g", "t", "i", "requester", "service", 3);
			assert.same({ 2, 1, 0 }, { pending:count("f"), pending:count("g"), pending:count("h") });
			pending:take("f", "t", "j");
			pending:expire(1);
			assert.same({ 0, 1 }, { pending:count("f"), pending:count("g") });
		end);
	end);

	describe("limit", function ()
		it("refuses what is too much, in all or of one bare JID, and takes it when there is room", function ()
			local slow = oracle.new();
			for step = 1, process.turns(20000, 2000) do
				if step % 500 == 1 then
					slow.max, slow.max_per_requester = math.random(0, 40), math.random(0, 10);
					pending:limit(slow.max, slow.max_per_requester);
				end
				local requester = random.element { "a", "b", "a@b", "" }..random.element { "", "/", "/r", "/r/s" };
				local backend = "f"..math.random(3);
				if math.random() < 0.6 then
					local refusal = slow:refusal(requester, slow.max, slow.max_per_requester);
					local handle, code = pending:add(backend, "t", "i"..step, requester, "service", step);
					expect.equal(refusal, code, "step %d", step);
					if handle then
						slow:add(backend, "t", "i"..step, requester, "service", step, handle);
					end
				else
					expect.same({ slow:take_back(backend) }, { pending:take_back(backend) }, "step %d", step);
				end
				expect.equal(#slow.entries, #pending, "step %d", step);
			end
		end);

		it("is none at first", function ()
			for i = 1, 1000 do
				assert(pending:add("f", "t", "i"..i, "requester/"..i, "service", 0));
			end
		end);

		it("does not touch what is pending already", function ()
			for i = 1, 10 do
				pending:add("f", "t", "i"..i, "requester", "service", i);
			end
			pending:limit(5, 5);
			assert.equal(10, #pending);
			assert.same({ nil, "full" }, { pending:add("f", "t", "i", "another", "service", 0) });
			for _ = 1, 5 do
				pending:expire(10);
			end
			assert.same({ nil, "full" }, { pending:add("f", "t", "i", "another", "service", 0) });
			pending:limit(50, 5);
			assert.same({ nil, "requester-full" }, { pending:add("f", "t", "i", "requester/r", "service", 0) });
			assert.truthy(pending:add("f", "t", "i", "another", "service", 0));
		end);
	end);

	describe("texts", function ()
		local function expect_kept(backend, to, id, requester, service)
			local first = pending:add(backend, to, id, requester, service, 1);
			local second = pending:add(backend, to, id, requester, service, 2);
			local third = pending:add(backend, to, id, requester, service, 3);
			assert.same({ requester, service, id, first, 1, backend }, { pending:expire(1) });
			assert.same({ requester, service, id, second, 2, backend }, { pending:take(backend, to, id) });
			assert.same({ requester, service, id, third, 3, backend }, { pending:take_back(backend) });
		end

		it("may be empty", function ()
			expect_kept("", "", "", "", "");
			expect_kept("f", "t", "", "r", "s");
			expect_kept("f", "t", "i", "", "s");
			expect_kept("f", "t", "i", "r", "");
		end);

		it("may be any bytes", function ()
			expect_kept("\0", "\0\0", "\0\0\0", "\0\0\0\0", "\0\0\0\0\0");
			expect_kept("\255", "\192\128", "\237\160\128", "\254\254", "a\128");
			for length = 0, 200 do
				expect_kept(random.bytes(length), random.bytes(length), random.bytes(length), random.bytes(length), random.bytes(length));
			end
		end);

		it("may be long", function ()
			for _, length in ipairs { 1, 10000, process.turns(1000000, 70000) } do
				local long = random.bytes(length);
				expect_kept("f", "t", long, "r", "s");
				expect_kept(long, "t", "i", "r", "s");
				expect_kept("f", long, "i", "r", "s");
			end
			for _, length in ipairs { 511, 3071, 65535 } do
				local long = random.bytes(length);
				expect_kept("f", "t", "i", long, "s");
				expect_kept("f", "t", "i", "r", long);
			end
		end);

		it("are copies", function ()
			for i = 1, 100 do
				pending:add("f", "t", "i"..i, ("r"):rep(1000)..i, ("s"):rep(1000)..i, i);
			end
			collectgarbage();
			for i = 1, 100 do
				local requester, service, id = pending:expire(100);
				assert.same({ ("r"):rep(1000)..i, ("s"):rep(1000)..i, "i"..i }, { requester, service, id });
			end
		end);
	end);

	describe("expire", function ()
		it("finds nothing in an empty table", function ()
			assert.is_nil(pending:expire(math.huge));
			assert.equal(1, select("#", pending:expire(math.huge)));
		end);

		it("gives what was remembered, once", function ()
			local handle = pending:add("f", "t", "i", "requester", "service", 1);
			assert.same({ "requester", "service", "i", handle, 1, "f" }, { pending:expire(1) });
			assert.is_nil(pending:expire(1));
			assert.is_nil(pending:take("f", "t", "i"));
			assert.equal(0, #pending);
		end);

		it("waits for the deadline, and no longer", function ()
			pending:add("f", "t", "i", "requester", "service", 10.5);
			assert.is_nil(pending:expire(-math.huge));
			assert.is_nil(pending:expire(10.499999999));
			assert.equal(1, #pending);
			assert.equal("requester", (pending:expire(10.5)));
		end);

		it("keeps to the order of the deadlines", function ()
			local order = {};
			for i = 1, 1000 do
				order[i] = i;
			end
			for _, deadline in ipairs(random.shuffle(order)) do
				pending:add("f", "t", "i", "requester"..deadline, "service", deadline);
			end
			for deadline = 1, 1000 do
				expect.equal(nil, pending:expire(deadline - 0.5), "before %d", deadline);
				expect.equal(deadline, pending:deadline(), "deadline %d", deadline);
				expect.equal("requester"..deadline, (pending:expire(1000)), "expire %d", deadline);
			end
		end);

		it("keeps to that order whatever has been taken before", function ()
			for round = 1, process.turns(200, 20) do
				local order = {};
				for i = 1, 40 do
					order[i] = i;
				end
				for _, deadline in ipairs(random.shuffle(order)) do
					pending:add("f", "t", tostring(deadline), "requester"..deadline, "service", deadline);
				end
				random.shuffle(order);
				for i = 1, 20 do
					pending:take("f", "t", tostring(order[i]));
				end
				local left = table.move(order, 21, 40, 1, {});
				table.sort(left);
				for _, deadline in ipairs(left) do
					expect.equal("requester"..deadline, (pending:expire(40)), "round %d, deadline %d", round, deadline);
				end
			end
		end);

		it("knows infinite deadlines", function ()
			pending:add("f", "t", "never", "never", "service", math.huge);
			pending:add("f", "t", "always", "always", "service", -math.huge);
			assert.equal(-math.huge, pending:deadline());
			assert.equal("always", (pending:expire(-math.huge)));
			assert.equal(math.huge, pending:deadline());
			assert.is_nil(pending:expire(1e308));
			assert.equal("never", (pending:expire(math.huge)));
			assert.is_nil(pending:deadline());
		end);

		it("takes whole numbers for times", function ()
			pending:add("f", "t", "i", "requester", "service", 7);
			assert.equal(7, pending:deadline());
			assert.is_nil(pending:expire(6));
			assert.equal("requester", (pending:expire(7)));
		end);
	end);

	describe("with a great many", function ()
		local count = process.turns(100000, 5000);

		local function order_of_all()
			local order = {};
			for i = 1, count do
				order[i] = i;
			end
			return random.shuffle(order);
		end

		local function add_all(deadline_of)
			for i = 1, count do
				expect.that(pending:add("f"..i % 7, "t"..i % 1000, "i"..i, "requester"..i, "service"..i, deadline_of(i)), "add %d", i);
				expect.equal(i, #pending, "add %d", i);
			end
		end

		it("takes each of them", function ()
			add_all(math.random);
			for number, i in ipairs(order_of_all()) do
				local requester, service = pending:take("f"..i % 7, "t"..i % 1000, "i"..i);
				expect.equal("requester"..i, requester, "take %d", i);
				expect.equal("service"..i, service, "take %d", i);
				expect.equal(count - number, #pending, "take %d", i);
			end
			assert.is_nil(pending:deadline());
		end);

		it("lets each of them expire", function ()
			local order = order_of_all();
			add_all(function (i)
				return order[i];
			end);
			local number_at = {};
			for i, deadline in ipairs(order) do
				number_at[deadline] = i;
			end
			for deadline = 1, count do
				expect.equal(nil, pending:expire(deadline - 1), "before %d", deadline);
				local requester, service, id = pending:expire(deadline);
				local i = number_at[deadline];
				expect.equal("requester"..i, requester, "expire %d", i);
				expect.equal("service"..i, service, "expire %d", i);
				expect.equal("i"..i, id, "expire %d", i);
			end
			assert.equal(0, #pending);
			assert.is_nil(pending:take("f1", "t1", "i1"));
		end);
	end);

	it("keeps nothing of answers that nobody waits for", function ()
		for i = 1, 1000 do
			pending:add("f", "t", "i"..i, "requester", "service", i);
		end
		process.stays_flat(function ()
			for i = 1, process.turns(1000000, 10000) do
				expect.equal(nil, pending:take("f", "t", "j"..i), "take %d", i);
				collect_now_and_then(i);
			end
		end, 2 * MEGABYTE);
		assert.equal(1000, #pending);
		assert.equal(1, pending:deadline());
		assert.equal("requester", (pending:take("f", "t", "i1000")));
	end);

	it("keeps nothing of backends and requesters that have nothing pending", function ()
		local number = 0;
		process.stays_flat(function ()
			for _ = 1, process.turns(200000, 2000) do
				number = number + 1;
				pending:add("backend"..number, "t", "i", "requester"..number, "service", 1);
				expect.equal("requester"..number, (pending:expire(1)), "request %d", number);
				collect_now_and_then(number);
			end
		end, 2 * MEGABYTE);
	end);

	it("keeps nothing of requesters that may have nothing pending", function ()
		local number = 0;
		pending:limit(1, 0);
		process.stays_flat(function ()
			for _ = 1, process.turns(200000, 2000) do
				number = number + 1;
				local _, code = pending:add("backend", "t", "i", "requester"..number, "service", 1);
				expect.equal("requester-full", code, "request %d", number);
				collect_now_and_then(number);
			end
		end, 2 * MEGABYTE);
	end);

	it("shares nothing with another table", function ()
		local other = core.pending(SEED);
		local third = core.pending(SEED);
		other:add("f", "t", "i", "requester", "service", 1);
		assert.is_nil(third:take("f", "t", "i"));
		assert.is_nil(third:expire(math.huge));
		assert.equal("requester", (other:take("f", "t", "i")));
	end);

	it("works on while others are collected", function ()
		local function fill(subject)
			for i = 1, 600 do
				subject:add("f", "t", "i"..i % 50, "requester"..i, "service", i);
			end
		end
		fill(pending);
		for _ = 1, 20 do
			fill(new_table());
		end
		collectgarbage();
		for i = 1, 600 do
			expect.equal("requester"..i, (pending:expire(600)), "%d", i);
		end
	end);

	describe("mistakes raise:", function ()
		it("a seed of another length", function ()
			for _, length in ipairs { 0, 15, 17, 32 } do
				expect.raises(("16 bytes expected, got %d"):format(length), core.pending, ("s"):rep(length));
			end
		end);

		it("a deadline that is no time", function ()
			expect.raises("not a time", pending.add, pending, "f", "t", "i", "r", "s", NAN);
			expect.raises("not a time", pending.add, pending, "f", "t", "i", "r", "s", -NAN);
			assert.equal(0, #pending);
		end);

		it("an address that is longer than any", function ()
			local long = ("r"):rep(65536);
			expect.raises("too long", pending.add, pending, "f", "t", "i", long, "s", 0);
			expect.raises("too long", pending.add, pending, "f", "t", "i", "r", long, 0);
			assert.equal(0, #pending);
		end);

		it("a limit that is no number of requests", function ()
			expect.raises("negative", pending.limit, pending, -1, 0);
			expect.raises("negative", pending.limit, pending, 0, -1);
			expect.raises("integer", pending.limit, pending, 0.5, 0);
			expect.raises("number expected", pending.limit, pending, 0);
		end);

		it("arguments of a wrong type, or none", function ()
			for _, wrong in ipairs { false, true, {}, print, pending } do
				expect.raises("string expected", core.pending, wrong);
				expect.raises("string expected", pending.take_back, pending, wrong);
				expect.raises("string expected", pending.count, pending, wrong);
				for position = 1, 6 do
					local arguments = { "f", "t", "i", "r", "s", 1 };
					arguments[position] = wrong;
					expect.raises(position == 6 and "number expected" or "string expected",
						pending.add, pending, table.unpack(arguments));
				end
				for position = 1, 3 do
					local arguments = { "f", "t", "i" };
					arguments[position] = wrong;
					expect.raises("string expected", pending.take, pending, table.unpack(arguments));
				end
				expect.raises("number expected", pending.expire, pending, wrong);
			end
			expect.raises("string expected", core.pending);
			for given = 0, 5 do
				local arguments = { "f", "t", "i", "r", "s" };
				expect.raises(given == 5 and "number expected" or "string expected",
					pending.add, pending, table.unpack(arguments, 1, given));
				if given < 3 then
					expect.raises("string expected", pending.take, pending, table.unpack(arguments, 1, given));
				end
			end
			expect.raises("number expected", pending.expire, pending);
			assert.equal(0, #pending);
		end);

		it("an object that is no table of pending requests", function ()
			local meta = getmetatable(pending);
			local others = { core.jat("h", "sealed"), core.pool(("s"):rep(core.POOL_SEEDBYTES)), io.stdout, {}, "s" };
			for _, method in ipairs {
				pending.add, pending.take, pending.take_back, pending.expire, pending.deadline, pending.limit, pending.count,
				meta.__len, meta.__gc,
			} do
				for _, other in ipairs(others) do
					expect.raises("mod_client_proxy.pending expected", method, other, "f", "t", "i", "r", "s", 1);
				end
				expect.raises("mod_client_proxy.pending expected", method);
			end
		end);

		it("a table that has been collected", function ()
			local meta = getmetatable(pending);
			pending:add("f", "t", "i", "r", "s", 1);
			meta.__gc(pending);
			meta.__gc(pending);
			for _, method in ipairs {
				pending.add, pending.take, pending.take_back, pending.expire, pending.deadline, pending.limit, pending.count,
				meta.__len,
			} do
				expect.raises("already collected", method, pending, "f", "t", "i", "r", "s", 1);
			end
		end);
	end);
end);
