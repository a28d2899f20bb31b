local core = require "mod_client_proxy.core";
local new_pending = require "spec.support.pending".new;
local expect = require "spec.support.expect";
local process = require "spec.support.process";
local random = require "spec.support.random";

local SEED = ("seed"):rep(core.PENDING_SEEDBYTES // 4);
local NAN = 0 / 0;
local MEGABYTE = 1024 * 1024;

random.announce("pending_spec");

local function new_table()
	return new_pending(random.bytes(core.PENDING_SEEDBYTES));
end

-- Those of which more is to be kept take longer to weigh
local STANZAS = {};
for i = 1, 6 do
	STANZAS[i] = { name = "iq", attr = { id = ("i"):rep(4 ^ i) }, tags = {} };
end

-- What one request without a letter counts as, and what a kept stanza does beside it; nil if it is not kept
local ENTRY_BYTES;
local function weigh(stanza)
	local scales = new_pending(SEED);
	scales:add("", "", "", "", "", 0, 0);
	ENTRY_BYTES = scales:bytes();
	scales:take("", "", "");
	scales:add("", "", "", "", "", 0, 0, 1, stanza);
	local bytes = scales:bytes();
	local retries = select(7, scales:take("", "", ""));
	return retries > 0 and bytes - ENTRY_BYTES or nil;
end

local weights = {};
for _, stanza in ipairs(STANZAS) do
	weights[stanza] = weigh(stanza);
end

local function bare(requester)
	return requester:match("^[^/]*");
end

-- The same, slow and obvious: a list, the oldest first. An entry is a list, too, of what is given to add().
local BACKEND, TO, ID, REQUESTER, SERVICE, ADDED, DEADLINE, RETRIES, STANZA = 1, 2, 3, 4, 5, 6, 7, 8, 9;
local oracle = {};
oracle.__index = oracle;

function oracle.new()
	return setmetatable({ entries = {}, fixed_count = 0, max = math.huge, max_per_requester = math.huge }, oracle);
end

-- It has no retries from now on.
function oracle:fix(entry)
	entry[RETRIES], entry[STANZA] = 0, nil;
	self.fixed_count = self.fixed_count + 1;
	entry.fixed_since = self.fixed_count;
end

-- What comes back of an entry
local function results_of(entry)
	return entry[REQUESTER], entry[SERVICE], entry[ID], entry[BACKEND], entry[ADDED], entry[DEADLINE], entry[RETRIES],
		entry[STANZA];
end

local function bytes_of(entry)
	local texts = #entry[REQUESTER] + #entry[SERVICE] + #entry[ID];
	return ENTRY_BYTES + texts + (entry[STANZA] and weights[entry[STANZA]] or 0);
end

-- (wanted) -> the oldest entry for which `wanted` is true, its position; how many there are, and their bytes
function oracle:find(wanted)
	local first, position, count, bytes = nil, nil, 0, 0;
	for i, entry in ipairs(self.entries) do
		if wanted(entry) then
			if not first then
				first, position = entry, i;
			end
			count, bytes = count + 1, bytes + bytes_of(entry);
		end
	end
	return first, position, count, bytes;
end

function oracle:take_oldest(wanted)
	local entry, position = self:find(wanted);
	if entry then
		table.remove(self.entries, position);
		return results_of(entry);
	end
end

local function is_answered_by(from, to, id)
	return function (entry)
		return not entry.is_abandoned and entry[BACKEND] == from and entry[TO] == to and entry[ID] == id;
	end
end

local function is_movable_of(backend)
	return function (entry)
		return not entry.is_abandoned and entry[BACKEND] == backend and entry[RETRIES] > 0;
	end
end

local function is_any()
	return true;
end

-- Why it would not be added
function oracle:refusal(entry)
	local _, _, all, all_bytes = self:find(is_any);
	local _, _, own, own_bytes = self:find(function (other)
		return bare(other[REQUESTER]) == bare(entry[REQUESTER]);
	end);
	local function is_full(count, bytes, max)
		return count >= max or count > 0 and bytes + bytes_of(entry) > max * core.PENDING_BYTES_EACH;
	end
	local same_answer = self:find(is_answered_by(entry[BACKEND], entry[TO], entry[ID]));
	return entry[ID]:find("[\0-\31]") and "bad-id"
		or is_full(all, all_bytes, self.max) and "full"
		or is_full(own, own_bytes, self.max_per_requester) and "requester-full"
		or same_answer and same_answer[SERVICE] ~= entry[SERVICE] and "conflict"
		or nil;
end

-- -> true | nil, code
function oracle:add(...)
	local entry = { ... };
	if not weights[entry[STANZA]] or (entry[RETRIES] or 0) == 0 then
		self:fix(entry);
	end
	local code = self:refusal(entry);
	if code then
		return nil, code;
	end
	table.insert(self.entries, entry);
	return true;
end

function oracle:take(from, to, id)
	return self:take_oldest(is_answered_by(from, to, id));
end

function oracle:first_movable(backend)
	local entry = self:find(is_movable_of(backend));
	if entry then
		return entry[REQUESTER], entry[SERVICE], entry[ADDED];
	end
end

function oracle:take_movable(backend)
	return self:take_oldest(is_movable_of(backend));
end

function oracle:fix_movable(backend)
	local entry = self:find(is_movable_of(backend));
	if entry then
		self:fix(entry);
	end
end

function oracle:take_fixed(backend, time)
	local first, position;
	for i, entry in ipairs(self.entries) do
		if not entry.is_abandoned and entry[BACKEND] == backend and entry[RETRIES] == 0
			and (not first or entry.fixed_since < first.fixed_since) then
			first, position = entry, i;
		end
	end
	if first and first[ADDED] < time then
		table.remove(self.entries, position);
		return results_of(first);
	end
end

function oracle:abandon(backend)
	for _, entry in ipairs(self.entries) do
		entry.is_abandoned = entry.is_abandoned or entry[BACKEND] == backend;
	end
end

function oracle:has_abandoned()
	return self:find(function (entry) return entry.is_abandoned; end) ~= nil;
end

function oracle:count(backend)
	local _, _, count = self:find(function (entry)
		return not entry.is_abandoned and entry[BACKEND] == backend;
	end);
	return count;
end

function oracle:count_answered(from, to, id)
	local _, _, count = self:find(is_answered_by(from, to, id));
	return count;
end

function oracle:bytes()
	local _, _, _, bytes = self:find(is_any);
	return bytes;
end

function oracle:deadline()
	local earliest;
	for _, entry in ipairs(self.entries) do
		if not earliest or entry[DEADLINE] < earliest then
			earliest = entry[DEADLINE];
		end
	end
	return earliest;
end

-- (wanted, results): removes the entry with these results, which has to be `wanted`; nothing, if none is
function oracle:take_some(wanted, ...)
	local _, _, count = self:find(wanted);
	local requester = ...;
	if count == 0 then
		return expect.equal(nil, requester, "of none");
	end
	local entry, position = self:find(function (entry)
		return wanted(entry) and entry[REQUESTER] == requester;
	end);
	expect.that(entry, "%q is not among the %d", tostring(requester), count);
	expect.same({ results_of(entry) }, { ... }, "results");
	table.remove(self.entries, position);
end

-- (now, results): likewise those of expire(now)
function oracle:expire(now, ...)
	local earliest = self:deadline();
	self:take_some(function (entry)
		return entry[DEADLINE] == earliest and earliest <= now;
	end, ...);
end

function oracle:take_abandoned(...)
	self:take_some(function (entry) return entry.is_abandoned; end, ...);
end

-- No two requesters are the same, so that each entry can be told from all others; but their bare JIDs often are.
local last_requester = 0;
local function new_requester()
	last_requester = last_requester + 1;
	return random.element { "a/", "b/", "a@b/r/", "/", "", random.bytes(math.random(20)) }..last_requester;
end

-- As long as that, without what no id may have
local function random_id(length)
	return (random.bytes(length):gsub("[\0-\31]", "i"));
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

-- What may be done: by name, (slow, pending, from, to, id, now)
local steps_of = {};

function steps_of.take(slow, pending, from, to, id)
	expect.equal(slow:count_answered(from, to, id), pending:count_answered(from, to, id), "number of one answer");
	expect.same({ slow:take(from, to, id) }, { pending:take(from, to, id) }, "take");
end

function steps_of.take_movable(slow, pending, from)
	expect.same({ slow:take_movable(from) }, { pending:take_movable(from) }, "take movable");
end

function steps_of.fix_movable(slow, pending, from)
	slow:fix_movable(from);
	expect.equal(0, select("#", pending:fix_movable(from)), "fix movable");
end

function steps_of.take_fixed(slow, pending, from, _, _, now)
	local time = random.element { now, now - math.random(0, 100), now + 1, math.huge, -math.huge };
	expect.same({ slow:take_fixed(from, time) }, { pending:take_fixed(from, time) }, "take fixed");
end

function steps_of.abandon(slow, pending, from)
	if math.random(5) == 1 then
		slow:abandon(from);
		expect.equal(0, select("#", pending:abandon(from)), "abandon");
	end
end

function steps_of.take_abandoned(slow, pending)
	slow:take_abandoned(pending:take_abandoned());
end

function steps_of.expire(slow, pending, _, _, _, now)
	slow:expire(now, pending:expire(now));
end

local OTHER_STEPS = { "take_movable", "take_fixed", "fix_movable", "abandon", "take_abandoned", "take_abandoned", "expire", "expire" };

local function compare(slow, pending, from)
	expect.equal(slow:deadline(), pending:deadline(), "deadline");
	expect.equal(#slow.entries, #pending, "number");
	expect.equal(slow:bytes(), pending:bytes(), "bytes");
	expect.equal(slow:count(from), pending:count(from), "number of one backend");
	expect.equal(slow:has_abandoned(), pending:has_abandoned(), "has abandoned");
	expect.same({ slow:first_movable(from) }, { pending:first_movable(from) }, "first movable");
end

-- (slow, pending, from, to, id, now, deadline_kind, codes): `codes` counts what came of it
local function add_step(slow, pending, from, to, id, now, deadline_kind, codes)
	-- mostly the same for the same answer
	local service = math.random(20) > 1 and "service of "..to..id or random.bytes(math.random(0, 20));
	local arguments = { from, to, id, new_requester(), service, now, deadlines[deadline_kind](now) };
	if math.random(3) == 1 then
		arguments[RETRIES], arguments[STANZA] = random.element { 0, 1, 2, 255 }, random.element(STANZAS);
	end
	local _, expected = slow:add(table.unpack(arguments));
	local added, code = pending:add(table.unpack(arguments));
	expect.equal(expected, code, "add");
	expect.equal(expected == nil or nil, added, "add");
	codes[code or "added"] = (codes[code or "added"] or 0) + 1;
end

local function set_limits(slow, pending)
	slow.max, slow.max_per_requester = math.random(0, 40), math.random(0, 15);
	pending:set_limits(slow.max, slow.max_per_requester);
end

-- (keys, steps, add_weight, deadline_kind[, limited]) -> how often add() returned which code, "added" for none
-- `add_weight` of the steps add
local function run_sequence(keys, steps, add_weight, deadline_kind, limited)
	local pending, slow, now, codes = new_table(), oracle.new(), 0, {};
	local step = 0;
	local succeeded, failure = pcall(function ()
		while step < steps do
			step = step + 1;
			local from, to, id = table.unpack(random.element(keys));
			local chance = math.random();
			if limited and step % 100 == 1 then
				set_limits(slow, pending);
			end
			if chance < add_weight then
				add_step(slow, pending, from, to, id, now, deadline_kind, codes);
			else
				local name = chance < 0.8 and "take" or random.element(OTHER_STEPS);
				steps_of[name](slow, pending, from, to, id, now);
			end
			now = now + math.random(0, 2);
			compare(slow, pending, from);
		end
		for _ = 1, #slow.entries do
			slow:expire(math.huge, pending:expire(math.huge));
		end
		expect.equal(nil, pending:expire(math.huge), "nothing is left");
		compare(slow, pending, keys[1][1]);
	end);
	if not succeeded then
		error(("step %d: %s"):format(step, failure), 0);
	end
	return codes;
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
		keys[i] = { random.element { "", "f", "\0", "\255" }, random.element { "", "t", "\0" }, random.bytes(math.random(0, 1)) }; -- of which some are bad
	end
	return keys;
end

describe("core.pending", function ()
	local pending, book;

	before_each(function ()
		random.restart();
		last_requester = 0;
		pending, book = new_table();
	end);

	it("gives back its memory, with entries left or none", function ()
		-- small and large; so much that what is lost is more than what tests before have freed
		local services = { "service", ("s"):rep(2000) };
		local function use(leave)
			local subject = new_table();
			for i = 1, process.turns(2000, 50) do
				subject:add("f", "t", "i"..i, "requester"..i, services[i % 2 + 1], 0, i, i % 3, STANZAS[2]);
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
			{ "with few keys", 4, 60, 300 };
			{ "with some keys", 50, 20, 600 };
			{ "with many keys", 2000, 2, process.turns(2000, 800) };
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
			local stanza = STANZAS[1];
			pending:add("f", "t", "i", "requester", "service", 1, 2, 3, stanza);
			expect.same({ "requester", "service", "i", "f", 1, 2, 3, stanza }, { pending:take("f", "t", "i") }, "take");
			assert.is_nil(pending:take("f", "t", "i"));
			assert.is_nil(pending:deadline());
			assert.equal(0, #pending);
			assert.equal(0, pending:bytes());
			pending:add("f", "t", "i", "requester", "service", 1, 2);
			assert.equal(8, select("#", pending:take("f", "t", "i")));
			pending:add("f", "t", "i", "requester", "service", 1, 2);
			assert.same({ "requester", "service", "i", "f", 1, 2, 0, nil }, { pending:take("f", "t", "i") });
		end);

		it("gives those with equal answers first in, first out", function ()
			for i = 1, 10 do
				pending:add("f", "t", "i", "requester"..i, "service", 0, -i);
			end
			for i = 1, 10 do
				assert.equal("requester"..i, (pending:take("f", "t", "i")));
			end
			assert.is_nil(pending:take("f", "t", "i"));
		end);

		it("keeps that order where some have expired", function ()
			for i = 1, 30 do
				pending:add("f", "t", "i", "requester"..i, "service", 0, i % 3 == 0 and 1 or 2);
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
				pending:add("f", "t", "i", "requester"..i, "service", 0, i % 2);
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
			local text, answers = "a\255aab\255a", {};
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
				pending:add(answer[1], answer[2], answer[3], "requester"..number, "service", 0, 0);
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
			pending:add("ab", "c", "d", "first", "", 0, 0);
			pending:add("a", "bc", "d", "second", "", 0, 0);
			pending:add("a", "b", "cd", "third", "", 0, 0);
			assert.equal("third", (pending:take("a", "b", "cd")));
			assert.equal("first", (pending:take("ab", "c", "d")));
			assert.equal("second", (pending:take("a", "bc", "d")));
		end);

		it("wants every part to be the same to the byte", function ()
			pending:add("f\0g", "t\0u", "i\127j", "requester", "service", 0, 0);
			for _, answer in ipairs {
				{ "f\0h", "t\0u", "i\127j" }, { "f", "t\0u", "i\127j" }, { "F\0g", "t\0u", "i\127j" }, { "f\0g\0", "t\0u", "i\127j" },
				{ "f\0g", "t\0v", "i\127j" }, { "f\0g", "t", "i\127j" }, { "f\0g", "T\0u", "i\127j" }, { "f\0g", "t\0u\0", "i\127j" },
				{ "f\0g", "t\0u", "i\127k" }, { "f\0g", "t\0u", "i" }, { "f\0g", "t\0u", "I\127j" }, { "f\0g", "t\0u", "i\127j\127" },
			} do
				assert.is_nil(pending:take(answer[1], answer[2], answer[3]));
			end
			assert.equal("requester", (pending:take("f\0g", "t\0u", "i\127j")));
		end);
	end);

	describe("take_movable", function ()
		it("finds nothing of a backend that has nothing with retries", function ()
			pending:add("f", "t", "i", "requester", "service", 0, 1);
			for _, method in ipairs { pending.first_movable, pending.take_movable } do
				for _, backend in ipairs { "f", "g" } do
					assert.is_nil(method(pending, backend));
					assert.equal(1, select("#", method(pending, backend)));
				end
			end
		end);

		it("gives what the backend has, the oldest first, and nothing of others", function ()
			for i = 1, 1000 do
				pending:add("f"..i % 3, "t"..i % 5, "i"..i % 10, "requester"..i, "service"..i % 10, i / 8, -i, i % 2, STANZAS[1]);
			end
			for i = 1, 1000 do
				if i % 3 == 1 and i % 2 == 1 then
					expect.same({ "requester"..i, "service"..i % 10, i / 8 }, { pending:first_movable("f1") }, "first movable %d", i);
					expect.equal("requester"..i, (pending:take_movable("f1")), "take movable %d", i);
				end
			end
			assert.is_nil(pending:take_movable("f1"));
			assert.equal(1000 - 167, #pending);
			assert.equal(167, pending:count("f1"));
			pending:add("f1", "t", "i", "again", "service", 0, 0, 1, STANZAS[2]);
			assert.equal("again", (pending:take_movable("f1")));
		end);
	end);

	describe("fix_movable", function ()
		it("takes the retries of the oldest away, and what is kept for it, which counts no longer", function ()
			for i = 1, 10 do
				pending:add("f", "t", "i", "requester"..i % 2, "service", 0, i, 1, STANZAS[i % 3 + 1]);
			end
			for i = 1, 10 do
				local before = pending:bytes();
				pending:fix_movable("f");
				assert.equal(before - weights[STANZAS[i % 3 + 1]], pending:bytes());
				assert.equal(10, pending:count("f"));
			end
			local fixed = pending:bytes();
			pending:fix_movable("f");
			pending:fix_movable("g");
			assert.equal(fixed, pending:bytes());
			assert.is_nil(pending:first_movable("f"));
			for i = 1, 10 do
				expect.same({ "requester"..i % 2, "service", "i", "f", 0, i, 0 }, { pending:take("f", "t", "i") }, "take %d", i);
			end
		end);

		it("leaves room for the same requester's next request", function ()
			local half = { name = "iq", attr = { id = ("i"):rep(core.PENDING_BYTES_EACH) }, tags = {} };
			pending:set_limits(10, 2);
			assert.is_true(pending:add("f", "t", "i", "requester", "service", 0, 0, 1, half));
			assert.same({ nil, "requester-full" }, { pending:add("f", "t", "j", "requester", "service", 0, 0, 1, half) });
			pending:fix_movable("f");
			assert.is_true(pending:add("f", "t", "j", "requester", "service", 0, 0, 1, half));
		end);
	end);

	describe("take_fixed", function ()
		it("finds nothing of a backend that has nothing without retries", function ()
			pending:add("f", "t", "i", "requester", "service", 0, 1, 1, STANZAS[1]);
			for _, backend in ipairs { "f", "g" } do
				assert.is_nil(pending:take_fixed(backend, math.huge));
				assert.equal(1, select("#", pending:take_fixed(backend, math.huge)));
			end
			assert.equal(1, #pending);
		end);

		it("gives what was added before that time, the oldest first, and nothing with retries or of others", function ()
			for i = 1, 20 do
				pending:add("f", "t", "i"..i, "requester"..i, "service", i, 100 - i, i % 2, STANZAS[1]);
				pending:add("g", "t", "i"..i, "requester"..i, "service", 0, 0);
			end
			assert.is_nil(pending:take_fixed("f", 2));
			for i = 2, 10, 2 do
				expect.same({ "requester"..i, "service", "i"..i, "f", i, 100 - i, 0 }, { pending:take_fixed("f", 10.5) }, "take fixed %d", i);
			end
			assert.is_nil(pending:take_fixed("f", 12));
			assert.equal("i12", select(3, pending:take_fixed("f", math.huge)));
			assert.same({ 14, 20 }, { pending:count("f"), pending:count("g") });
		end);

		it("gives what has lost its retries, which counts as the last from then on, whenever it was added", function ()
			pending:add("f", "t", "movable", "requester", "service", 1, 0, 1, STANZAS[1]);
			pending:add("f", "t", "fixed", "requester", "service", 2, 0);
			pending:fix_movable("f");
			assert.is_nil(pending:take_fixed("f", 2)); -- as the first of them is younger
			assert.equal("fixed", select(3, pending:take_fixed("f", 3)));
			assert.same({ "requester", "service", "movable", "f", 1, 0, 0 }, { pending:take_fixed("f", 2) });
			assert.equal(0, pending:bytes());
		end);

		it("gives nothing that is abandoned", function ()
			pending:add("f", "t", "i", "requester", "service", 0, 0);
			pending:abandon("f");
			assert.is_nil(pending:take_fixed("f", math.huge));
			assert.equal(1, #pending);
		end);
	end);

	describe("abandon", function ()
		it("hides what a backend has from its answers, but from no deadline", function ()
			pending:add("f", "t", "i", "requester", "service", 0, 1, 2, STANZAS[1]);
			pending:add("f", "t", "j", "other", "service", 0, 2);
			local bytes = pending:bytes();
			assert.is_false(pending:has_abandoned());
			pending:abandon("f");
			assert.is_true(pending:has_abandoned());
			assert.equal(0, pending:count("f"));
			assert.is_nil(pending:first_movable("f"));
			assert.is_nil(pending:take("f", "t", "i"));
			assert.equal(2, #pending);
			assert.equal(bytes, pending:bytes());
			expect.same({ "requester", "service", "i", "f", 0, 1, 2, STANZAS[1] }, { pending:expire(1) }, "expire");
			expect.same({ "other", "service", "j", "f", 0, 2, 0 }, { pending:take_abandoned() }, "take abandoned");
			assert.is_false(pending:has_abandoned());
			assert.is_nil(pending:take_abandoned());
			assert.equal(1, select("#", pending:take_abandoned()));
		end);

		it("has nothing to do with who comes with the same JID", function ()
			for round = 1, 3 do
				pending:add("f", "t", "i", "requester"..round, "service"..round, 0, round, 1, STANZAS[round]);
				assert.equal(1, pending:count("f"));
				pending:abandon("f");
			end
			assert.is_true(pending:add("f", "t", "i", "new", "another service", 0, 4, 1, STANZAS[4]));
			assert.equal("new", (pending:first_movable("f")));
			assert.equal("new", (pending:take("f", "t", "i")));
			assert.is_nil(pending:take("f", "t", "i"));
			local taken = {};
			while pending:has_abandoned() do
				local requester = pending:take_abandoned();
				taken[requester] = (taken[requester] or 0) + 1;
			end
			assert.same({ requester1 = 1, requester2 = 1, requester3 = 1 }, taken);
		end);

		it("gives up what several backends have, in whatever order they are emptied", function ()
			for _ = 1, 50 do
				local slow = oracle.new();
				for number = 1, 30 do
					local arguments = { "f"..number % 5, "t", "i", "requester"..number, "service", 0, math.random(30), number % 2, STANZAS[1] };
					slow:add(table.unpack(arguments));
					pending:add(table.unpack(arguments));
				end
				for _, number in ipairs(random.shuffle { 0, 1, 2, 3, 4 }) do
					slow:abandon("f"..number);
					pending:abandon("f"..number);
				end
				for _ = 1, 30 do
					local step = steps_of[random.element { "take_abandoned", "expire" }];
					step(slow, pending, nil, nil, nil, math.huge);
					compare(slow, pending, "f1");
				end
				assert.equal(0, #pending);
			end
		end);

		it("is nothing to a backend that has nothing", function ()
			pending:abandon("f");
			assert.is_false(pending:has_abandoned());
			assert.is_nil(pending:take_abandoned());
			assert.is_true(pending:add("f", "t", "i", "requester", "service", 0, 0));
			assert.equal("requester", (pending:take("f", "t", "i")));
		end);
	end);

	describe("what is kept", function ()
		local function new_stanza()
			return { name = "iq", attr = {}, tags = {} };
		end

		-- Each way in which a request goes
		local ways = {
			take = function () return pending:take("f", "t", "i"); end;
			take_movable = function () return pending:take_movable("f"); end;
			expire = function () return pending:expire(0); end;
			take_abandoned = function ()
				pending:abandon("f");
				return pending:take_abandoned();
			end;
		};
		for name, way in pairs(ways) do
			it("can be collected once its request is gone by "..name..", and not before", function ()
				local weak = setmetatable({}, { __mode = "v" });
				local stanza = new_stanza();
				weak[1] = stanza;
				pending:add("f", "t", "i", "requester", "service", 0, 0, 1, stanza);
				stanza = nil; -- luacheck: ignore 311
				collectgarbage();
				assert.is_table(weak[1]);
				assert.equal(weak[1], (select(8, way())));
				collectgarbage();
				assert.is_nil(weak[1]);
			end);
		end

		it("can be collected once its request is fixed, refused, or its table gone", function ()
			local weak = setmetatable({}, { __mode = "v" });
			local function add(number, service)
				local stanza = new_stanza();
				weak[number] = stanza;
				pending:add("f", "t", "i", "requester", service, 0, 0, 1, stanza);
				stanza = nil; -- luacheck: ignore 311
				collectgarbage();
			end
			add(1, "service");
			add(2, "another service");
			assert.is_table(weak[1]);
			assert.is_nil(weak[2]);
			pending:fix_movable("f");
			collectgarbage();
			assert.is_nil(weak[1]);
			add(3, "service");
			assert.is_table(weak[3]);
			pending = nil;
			collectgarbage();
			assert.is_nil(weak[3]);
		end);

		it("is not what has no retries or is too large", function ()
			local weak = setmetatable({}, { __mode = "v" });
			local function add(retries, letters)
				local stanza = new_stanza();
				stanza.attr.id = ("i"):rep(letters);
				table.insert(weak, stanza);
				pending:add("f", "t", "i", "requester", "service", 0, 0, retries, stanza);
			end
			add(0, 1);
			add(255, 10000);
			assert.equal(2 * (ENTRY_BYTES + #"i" + #"requester" + #"service"), pending:bytes());
			collectgarbage();
			assert.is_nil(weak[1]);
			assert.is_nil(weak[2]);
			assert.is_nil(pending:first_movable("f"));
			for _ = 1, 2 do
				expect.same({ "requester", "service", "i", "f", 0, 0, 0 }, { pending:take("f", "t", "i") }, "take");
			end
		end);

		it("needs no more room for many, one after the other, than for as many as there are at a time", function ()
			for i = 1, process.turns(100000, 3000) do
				local stanza = STANZAS[i % 3 + 1];
				pending:add("f", "t", "i"..i, "requester", "service", 0, i, 1, stanza);
				if i % 7 == 0 then
					pending:fix_movable("f");
					pending:add("f", "t", "i"..i, "requester", "other service", 0, 0, 1, stanza);
				end
				if i > 10 then
					expect.equal("i"..i - 10, (select(3, pending:take("f", "t", "i"..i - 10))), "take %d", i);
				end
			end
			local kept, places = 0, 0;
			for _, value in pairs((debug.getuservalue(pending, 1))) do
				places = places + 1;
				kept = kept + (type(value) == "table" and 1 or 0);
			end
			expect.that(places <= 20, "%d places", places);
			expect.that(kept <= 10, "%d kept", kept);
		end);
	end);

	describe("count", function ()
		it("tells how many requests a backend has, none once they are gone", function ()
			pending:add("f", "t", "i", "requester", "service", 0, 1);
			pending:add("f", "t", "j", "requester", "service", 0, 2);
			pending:add("g", "t", "i", "requester", "service", 0, 3);
			assert.same({ 2, 1, 0 }, { pending:count("f"), pending:count("g"), pending:count("h") });
			pending:take("f", "t", "j");
			pending:expire(1);
			assert.same({ 0, 1 }, { pending:count("f"), pending:count("g") });
		end);
	end);

	describe("count_answered", function ()
		it("is how many one answer can be for, as it comes, in turn", function ()
			for i = 1, 3 do
				pending:add("f", "t", "i", "requester"..i, "service", 0, i);
			end
			for _, other in ipairs { { "g", "t", "i" }, { "f", "u", "i" }, { "f", "t", "j" } } do
				assert.equal(0, pending:count_answered(table.unpack(other)));
				pending:add(other[1], other[2], other[3], "requester", "service", 0, 9);
				assert.equal(1, pending:count_answered(table.unpack(other)));
			end
			for i = 3, 1, -1 do
				assert.equal(i, pending:count_answered("f", "t", "i"));
				pending:take("f", "t", "i");
			end
			assert.equal(0, pending:count_answered("f", "t", "i"));
		end);

		it("leaves out what was abandoned, as nothing answers that any more", function ()
			pending:add("f", "t", "i", "requester", "service", 0, 1);
			pending:abandon("f");
			assert.equal(0, pending:count_answered("f", "t", "i"));
			pending:add("f", "t", "i", "requester", "service", 0, 1);
			assert.equal(1, pending:count_answered("f", "t", "i"));
		end);
	end);

	describe("set_limits", function ()
		it("refuses what is too much, in all or of one bare JID, and takes it when there is room", function ()
			local all = {};
			for _ = 1, process.turns(40, 8) do
				for code, count in pairs(run_sequence(some_keys(50), 600, 0.6, "timeout", true)) do
					all[code] = (all[code] or 0) + count;
				end
			end
			for _, code in ipairs { "added", "full", "requester-full", "conflict", "bad-id" } do
				expect.that(all[code], "never %s", code);
			end
		end);

		-- (number of letters in the id) -> what such a request counts as
		local function bytes_with(letters)
			return ENTRY_BYTES + #"a" + #"s" + letters;
		end

		it("counts bytes to the last one, in all and of one bare JID", function ()
			for _, case in ipairs { { 2, 100, "full", "b" }, { 100, 2, "requester-full", "a/r" } } do
				local max, max_per_requester, code, other = table.unpack(case);
				local room = 2 * core.PENDING_BYTES_EACH - bytes_with(1);
				pending = new_table();
				pending:set_limits(max, max_per_requester);
				pending:add("f", "t", "i", "a", "s", 0, 0);
				local letters = room - bytes_with(0) - (#other - 1);
				assert.same({ nil, code }, { pending:add("f", "t", ("j"):rep(letters + 1), other, "s", 0, 0) });
				assert.is_true(pending:add("f", "t", ("j"):rep(letters), other, "s", 0, 0));
				assert.equal(2 * core.PENDING_BYTES_EACH, pending:bytes());
			end
		end);

		it("lets the only one be of any size, and a requester's only one where there is room in all", function ()
			local large = ("i"):rep(3 * core.PENDING_BYTES_EACH);
			pending:set_limits(1, 1);
			assert.is_true(pending:add("f", "t", large, "a", "s", 0, 0));
			assert.same({ nil, "full" }, { pending:add("f", "t", "i", "b", "s", 0, 0) });
			pending:set_limits(9, 2);
			assert.same({ nil, "requester-full" }, { pending:add("f", "t", "i", "a/r", "s", 0, 0) });
			assert.is_true(pending:add("f", "t", large, "b", "s", 0, 0));
			assert.same({ nil, "full" }, { pending:add("f", "t", large, "c", "s", 0, 0) });
			pending:set_limits(0, 1);
			for _ = 1, 2 do
				pending:take("f", "t", large);
			end
			assert.same({ nil, "full" }, { pending:add("f", "t", "i", "a", "s", 0, 0) });
			pending:set_limits(1, 0);
			assert.same({ nil, "requester-full" }, { pending:add("f", "t", "i", "a", "s", 0, 0) });
		end);

		it("knows limits beyond all memory", function ()
			pending:set_limits(math.maxinteger, math.maxinteger);
			for _ = 1, 10 do
				assert.is_true(pending:add("f", "t", "i", "a", "s", 0, 0, 1, STANZAS[4]));
			end
		end);

		it("is none at first", function ()
			for i = 1, 1000 do
				assert(pending:add("f", "t", "i"..i, "requester/"..i, "service", 0, 0));
			end
		end);

		it("does not touch what is pending already", function ()
			for i = 1, 10 do
				pending:add("f", "t", "i"..i, "requester", "service", 0, i);
			end
			pending:set_limits(5, 5);
			assert.equal(10, #pending);
			assert.same({ nil, "full" }, { pending:add("f", "t", "i", "another", "service", 0, 0) });
			for _ = 1, 5 do
				pending:expire(10);
			end
			assert.same({ nil, "full" }, { pending:add("f", "t", "i", "another", "service", 0, 0) });
			pending:set_limits(50, 5);
			assert.same({ nil, "requester-full" }, { pending:add("f", "t", "i", "requester/r", "service", 0, 0) });
			assert.truthy(pending:add("f", "t", "i", "another", "service", 0, 0));
		end);
	end);

	describe("texts", function ()
		local function expect_kept(backend, to, id, requester, service)
			for deadline = 1, 3 do
				assert(pending:add(backend, to, id, requester, service, 7, deadline, 1, STANZAS[deadline]));
			end
			local function results(deadline)
				return { requester, service, id, backend, 7, deadline, 1, STANZAS[deadline] };
			end
			expect.same(results(1), { pending:expire(1) }, "expire");
			expect.same(results(2), { pending:take(backend, to, id) }, "take");
			expect.same(results(3), { pending:take_movable(backend) }, "take movable");
		end

		it("may be empty", function ()
			expect_kept("", "", "", "", "");
			expect_kept("f", "t", "", "r", "s");
			expect_kept("f", "t", "i", "", "s");
			expect_kept("f", "t", "i", "r", "");
		end);

		it("may be any bytes", function ()
			expect_kept("\0", "\0\0", "\32\127", "\0\0\0\0", "\0\0\0\0\0");
			expect_kept("\255", "\192\128", "\237\160\128", "\254\254", "a\128");
			for length = 0, 200 do
				expect_kept(random.bytes(length), random.bytes(length), random_id(length), random.bytes(length), random.bytes(length));
			end
		end);

		it("of an id are refused with a control character, wherever it is, and with no other byte", function ()
			for byte = 0, 255 do
				for _, before in ipairs { "", "i", "some-id" } do
					for _, after in ipairs { "", "i" } do
						local id = before..string.char(byte)..after;
						local expected = byte < 32 and { nil, "bad-id" } or { true };
						expect.same(expected, { pending:add("f", "t", id, "r", "s", 0, 0) }, "byte %d", byte);
						expect.equal(byte >= 32 and "r" or nil, (pending:take("f", "t", id)), "byte %d", byte);
					end
				end
			end
			assert.equal(0, pending:bytes());
		end);

		it("of an id are refused when they are too many", function ()
			local longest = ("i"):rep((1 << 23) - 1);
			for _ = 1, 2 do
				assert.same({ nil, "bad-id" }, { pending:add("f", "t", longest.."i", "r", "s", 0, 0) });
				assert.is_true(pending:add("f", "t", longest, "r", "s", 0, 0, 1, STANZAS[1]));
				assert.is_nil(pending:take("f", "t", longest.."i"));
				assert.is_nil(pending:take("f", "t", longest:sub(2)));
				assert.is_true((select(3, pending:take("f", "t", longest))) == longest);
			end
			assert.equal(0, pending:bytes());
		end);

		it("of a service address may not differ where the answers are the same", function ()
			pending:add("f", "t", "i", "a", "service", 0, 0);
			for _, service in ipairs { "", "servic", "service\0", "Service", "servicE", "a", "i" } do
				assert.same({ nil, "conflict" }, { pending:add("f", "t", "i", "a", service, 0, 0) });
				assert.is_true(pending:add("g", "t", "i", "a", service, 0, 0));
				assert.is_true(pending:add("f", "u", "i", "a", service, 0, 0));
				assert.is_true(pending:add("f", "t", "j", "a", service, 0, 0));
				pending:take("g", "t", "i");
				pending:take("f", "u", "i");
				pending:take("f", "t", "j");
			end
			assert.is_true(pending:add("f", "t", "i", "b", "service", 0, 0));
			pending:take("f", "t", "i");
			pending:take("f", "t", "i");
			assert.is_true(pending:add("f", "t", "i", "a", "another", 0, 0));
		end);

		it("may be long", function ()
			for _, length in ipairs { 1, 10000, process.turns(1000000, 70000) } do
				local long = random.bytes(length);
				expect_kept("f", "t", random_id(length), "r", "s");
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
				pending:add("f", "t", "i"..i, ("r"):rep(1000)..i, ("s"):rep(1000)..i, 0, i);
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
			pending:add("f", "t", "i", "requester", "service", 0, 1, 2, STANZAS[1]);
			expect.same({ "requester", "service", "i", "f", 0, 1, 2, STANZAS[1] }, { pending:expire(1) }, "expire");
			assert.is_nil(pending:expire(1));
			assert.is_nil(pending:take("f", "t", "i"));
			assert.equal(0, #pending);
			assert.equal(0, pending:bytes());
		end);

		it("waits for the deadline, and no longer", function ()
			pending:add("f", "t", "i", "requester", "service", 0, 10.5);
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
				pending:add("f", "t", "i", "requester"..deadline, "service", 0, deadline);
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
					pending:add("f", "t", tostring(deadline), "requester"..deadline, "service", 0, deadline);
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
			pending:add("f", "t", "never", "never", "service", 0, math.huge);
			pending:add("f", "t", "always", "always", "service", 0, -math.huge);
			assert.equal(-math.huge, pending:deadline());
			assert.equal("always", (pending:expire(-math.huge)));
			assert.equal(math.huge, pending:deadline());
			assert.is_nil(pending:expire(1e308));
			assert.equal("never", (pending:expire(math.huge)));
			assert.is_nil(pending:deadline());
		end);

		it("takes whole numbers for times", function ()
			pending:add("f", "t", "i", "requester", "service", 0, 7);
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
				expect.that(pending:add("f"..i % 7, "t"..i % 1000, "i"..i, "requester"..i, "service"..i, 0, deadline_of(i)), "add %d", i);
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
			pending:add("f", "t", "i"..i, "requester", "service", 0, i);
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
		book:set_max(1);
		process.stays_flat(function ()
			for _ = 1, process.turns(200000, 2000) do
				number = number + 1;
				pending:add("backend"..number, "t", "i", "requester"..number, "service", 0, 1);
				expect.equal("requester"..number, (pending:expire(1)), "request %d", number);
				collect_now_and_then(number);
			end
		end, 2 * MEGABYTE);
	end);

	it("keeps nothing of requesters that may have nothing pending", function ()
		local number = 0;
		book:set_max(1);
		pending:set_limits(1, 0);
		process.stays_flat(function ()
			for _ = 1, process.turns(200000, 2000) do
				number = number + 1;
				local _, code = pending:add("backend", "t", "i", "requester"..number, "service", 0, 1);
				expect.equal("requester-full", code, "request %d", number);
				collect_now_and_then(number);
			end
		end, 2 * MEGABYTE);
	end);

	it("shares nothing with another table", function ()
		local other = new_pending(SEED);
		local third = new_pending(SEED);
		other:add("f", "t", "i", "requester", "service", 0, 1);
		assert.is_nil(third:take("f", "t", "i"));
		assert.is_nil(third:expire(math.huge));
		assert.equal("requester", (other:take("f", "t", "i")));
	end);

	it("works on while others are collected", function ()
		local function fill(subject)
			for i = 1, 600 do
				subject:add("f", "t", "i"..i % 50, "requester"..i, "service", 0, i);
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

		it("what is no time", function ()
			for _, nan in ipairs { NAN, -NAN } do
				expect.raises("not a time", pending.add, pending, "f", "t", "i", "r", "s", nan, 0);
				expect.raises("not a time", pending.add, pending, "f", "t", "i", "r", "s", 0, nan);
			end
			assert.equal(0, #pending);
		end);

		it("retries that are no number of them, or without a stanza", function ()
			for _, wrong in ipairs { -1, 256, math.maxinteger, math.mininteger } do
				expect.raises("0 to 255 expected", pending.add, pending, "f", "t", "i", "r", "s", 0, 0, wrong, STANZAS[1]);
			end
			expect.raises("no integer representation", pending.add, pending, "f", "t", "i", "r", "s", 0, 0, 0.5, STANZAS[1]);
			for _, wrong in ipairs { false, true, {}, print, pending, "x" } do
				expect.raises("number expected", pending.add, pending, "f", "t", "i", "r", "s", 0, 0, wrong, STANZAS[1]);
			end
			for _, wrong in ipairs { false, true, 1, print, pending, "<iq/>" } do
				expect.raises("table expected", pending.add, pending, "f", "t", "i", "r", "s", 0, 0, 1, wrong);
			end
			expect.raises("table expected", pending.add, pending, "f", "t", "i", "r", "s", 0, 0, 1);
			assert.equal(0, #pending);
			assert.equal(0, pending:bytes());
			assert.is_true(pending:add("f", "t", "i", "r", "s", 0, 0, 255, STANZAS[1]));
			assert.is_true(pending:add("f", "t", "i", "r", "s", 0, 0, 0, "not looked at"));
		end);

		it("an address that is longer than any", function ()
			expect.raises("too long", pending.add, pending, "f", "t", "i", ("r"):rep(65536), "s", 0, 0);
			assert.equal(0, #pending);
		end);

		it("a limit that is no number of requests", function ()
			expect.raises("negative", pending.set_limits, pending, -1, 0);
			expect.raises("negative", pending.set_limits, pending, 0, -1);
			expect.raises("integer", pending.set_limits, pending, 0.5, 0);
			expect.raises("number expected", pending.set_limits, pending, 0);
		end);

		it("arguments of a wrong type, or none", function ()
			for _, wrong in ipairs { false, true, {}, print, pending } do
				expect.raises("string expected", core.pending, wrong);
				for _, method in ipairs { "first_movable", "take_movable", "take_fixed", "fix_movable", "abandon", "count" } do
					expect.raises("string expected", pending[method], pending, wrong);
				end
				for position = 1, 7 do
					local arguments = { "f", "t", "i", "r", "s", 1, 2 };
					arguments[position] = wrong;
					expect.raises(position >= 6 and "number expected" or "string expected",
						pending.add, pending, table.unpack(arguments));
				end
				for position = 1, 3 do
					local arguments = { "f", "t", "i" };
					arguments[position] = wrong;
					expect.raises("string expected", pending.take, pending, table.unpack(arguments));
					expect.raises("string expected", pending.count_answered, pending, table.unpack(arguments));
				end
				expect.raises("number expected", pending.expire, pending, wrong);
				expect.raises("number expected", pending.take_fixed, pending, "f", wrong);
			end
			expect.raises("string expected", core.pending);
			for given = 0, 6 do
				local arguments = { "f", "t", "i", "r", "s", 1 };
				expect.raises(given >= 5 and "number expected" or "string expected",
					pending.add, pending, table.unpack(arguments, 1, given));
				if given < 3 then
					expect.raises("string expected", pending.take, pending, table.unpack(arguments, 1, given));
				end
			end
			expect.raises("number expected", pending.expire, pending);
			expect.raises("number expected", pending.take_fixed, pending, "f");
			assert.equal(0, #pending);
		end);

		it("an object that is no table of pending requests", function ()
			local meta = getmetatable(pending);
			local others = { core.jat("h", "sealed"), core.pool(("s"):rep(core.POOL_SEEDBYTES)), io.stdout, {}, "s" };
			for _, method in ipairs {
				pending.add, pending.take, pending.first_movable, pending.take_movable, pending.take_fixed, pending.fix_movable, pending.abandon,
				pending.has_abandoned, pending.take_abandoned, pending.expire, pending.deadline, pending.set_limits, pending.count,
				pending.count_answered, pending.bytes, meta.__len, meta.__gc,
			} do
				for _, other in ipairs(others) do
					expect.raises("mod_client_proxy.pending expected", method, other, "f", "t", "i", "r", "s", 1, 2);
				end
				expect.raises("mod_client_proxy.pending expected", method);
			end
		end);

		it("a table that has been collected", function ()
			local meta = getmetatable(pending);
			pending:add("f", "t", "i", "r", "s", 0, 1);
			meta.__gc(pending);
			meta.__gc(pending);
			for _, method in ipairs {
				pending.add, pending.take, pending.first_movable, pending.take_movable, pending.take_fixed, pending.fix_movable, pending.abandon,
				pending.has_abandoned, pending.take_abandoned, pending.expire, pending.deadline, pending.set_limits, pending.count,
				pending.count_answered, pending.bytes, meta.__len,
			} do
				expect.raises("already collected", method, pending, "f", "t", "i", "r", "s", 1, 2);
			end
		end);
	end);
end);
