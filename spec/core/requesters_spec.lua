local core = require "mod_client_proxy.core";
local expect = require "spec.support.expect";
local process = require "spec.support.process";
local random = require "spec.support.random";

local MEGABYTE = 1024 * 1024;
local COUNT_MAX = (1 << 24) - 1;
local BYTES_MAX = (1 << 40) - 1;

random.announce("requesters_spec");

local function new_book(counted)
	return core.requesters(random.bytes(core.REQUESTERS_SEEDBYTES), counted);
end

local function bare(jid)
	return jid:match("^[^/]*");
end

-- The same, slow and obvious: a list of requesters, of which those that are idle come first the longer they have been.
-- A requester is { jid, token, generation, held }, of which the last is a list of bytes, one for each thing.
local oracle = {};
oracle.__index = oracle;

-- (counted): as for core.requesters()
function oracle.new(counted)
	local account_of = counted == "full" and function (jid) return jid; end or bare;
	return setmetatable({ requesters = {}, generation = 0, max = math.huge, account_of = account_of }, oracle);
end

-- (wanted) -> the first requester for which `wanted` is true, its place
function oracle:first(wanted)
	for place, requester in ipairs(self.requesters) do
		if wanted(requester) then
			return requester, place;
		end
	end
end

-- (jid, token or nil) -> requester or nil
function oracle:named(jid, token)
	if token then
		local requester = self:by_token(token);
		return requester and requester.jid == jid and requester or nil;
	end
	return (self:first(function (requester)
		return requester.jid == jid and requester.generation == self.generation;
	end));
end

function oracle:by_token(token)
	return token ~= "" and self:first(function (requester)
		return requester.token == token and requester.generation >= self.generation - 1;
	end) or nil;
end

function oracle:find(jid)
	local requester = self:named(jid);
	return requester and requester.token;
end

function oracle:resolve(token)
	local requester = self:by_token(token);
	return requester and requester.jid;
end

function oracle:knows(jid)
	return self:first(function (requester)
		return requester.jid == jid and requester.generation >= self.generation - 1;
	end) ~= nil;
end

function oracle:use(jid, token)
	local requester = self:named(jid, token);
	local _, place = self:first(function (other) return other == requester; end);
	if #requester.held == 0 then
		table.insert(self.requesters, table.remove(self.requesters, place));
	end
end

-- The longest idle is the first one in the list, as whoever becomes idle goes to its end.
function oracle:forget_one()
	local _, place = self:first(function (requester) return #requester.held == 0; end);
	if place then
		table.remove(self.requesters, place);
	end
	return place ~= nil;
end

-- (bytes) -> whether there is room for one more, whose JID and token have so many together
function oracle:has_room(bytes)
	for _, requester in ipairs(self.requesters) do
		bytes = bytes + #requester.jid + #requester.token;
	end
	return #self.requesters < self.max and (#self.requesters == 0 or bytes < self.max * 512);
end

function oracle:add(jid, token)
	if self:named(jid) or self:by_token(token) then
		return nil, "taken";
	end
	local forgotten = 0;
	while forgotten < 64 and not self:has_room(#jid + #token) and self:forget_one() do
		forgotten = forgotten + 1;
	end
	if not self:has_room(#jid + #token) and forgotten == 0 then
		return nil, "full";
	end
	table.insert(self.requesters, { jid = jid, token = token, generation = self.generation, held = {} });
	return true;
end

function oracle:hold(jid, bytes, token)
	table.insert(self:named(jid, token).held, bytes);
	return true;
end

-- (jid, place in `held`, bytes, token)
function oracle:lighten(jid, place, bytes, token)
	local held = self:named(jid, token).held;
	held[place] = held[place] - bytes;
end

-- (jid, place in `held`, token)
function oracle:release(jid, place, token)
	local requester = self:named(jid, token);
	table.remove(requester.held, place);
	if #requester.held == 0 then
		local _, at = self:first(function (other) return other == requester; end);
		table.insert(self.requesters, table.remove(self.requesters, at));
	end
end

function oracle:pending(jid, token)
	local requester = self:named(jid, token);
	if not requester then
		return nil;
	end
	local count, bytes = 0, 0;
	for _, other in ipairs(self.requesters) do
		if self.account_of(other.jid) == self.account_of(jid) then
			for _, each in ipairs(other.held) do
				count, bytes = count + 1, bytes + each;
			end
		end
	end
	return count, bytes, #requester.held;
end

-- Many share their first 8 bytes, which is all that the table of tokens hashes, and so does one that is only these.
local function some_tokens(count)
	local tokens, heads = { "" }, {};
	for i = 1, math.max(1, count // 3) do
		heads[i] = random.bytes(8);
	end
	for i = 1, count do
		tokens[i + 1] = random.element(heads)..random.bytes(random.element { 0, 1, 1, 16, 247 });
	end
	return tokens;
end

local function some_jids(count)
	local jids = { "", "/", "a/"..("r"):rep(3000) };
	for i = 1, count do
		local resource = random.element { "", "/", "/r", "/s", "/r/s", "/"..random.bytes(2) };
		jids[i + 3] = random.element { "a@b", "a", "c@b", random.bytes(2) }..resource;
	end
	return jids;
end

-- -> jid, token or nil: of somebody who is there as far as can be seen from outside, or of nobody
local function somebody(slow, jids, tokens)
	if #slow.requesters > 0 and math.random(8) > 1 then
		local requester = random.element(slow.requesters);
		return requester.jid, requester.token ~= "" and math.random(2) == 1 and requester.token or nil;
	end
	return random.element(jids), math.random(3) == 1 and random.element(tokens) or nil;
end

local BYTES = { 0, 1, 100, 4096, 1 << 32 };

-- What may be done: by name, (slow, book, jids, tokens, codes)
local steps_of = {};

function steps_of.add(slow, book, jids, tokens, codes)
	local jid, token = random.element(jids), random.element(tokens);
	local expected = table.pack(slow:add(jid, token));
	expect.same(expected, { book:add(jid, token) }, "add");
	local code = expected[2] or "added";
	codes[code] = (codes[code] or 0) + 1;
end

function steps_of.hold(slow, book, jids, tokens)
	local jid, token = somebody(slow, jids, tokens);
	local bytes = random.element(BYTES);
	if slow:named(jid, token) then
		slow:hold(jid, bytes, token);
		expect.equal(true, book:hold(jid, bytes, token), "hold");
	else
		expect.raises("no such requester", book.hold, book, jid, bytes, token);
	end
end

function steps_of.use(slow, book, jids, tokens)
	local jid, token = somebody(slow, jids, tokens);
	if slow:named(jid, token) then
		slow:use(jid, token);
		expect.equal(0, select("#", book:use(jid, token)), "use");
	else
		expect.raises("no such requester", book.use, book, jid, token);
	end
end

-- (slow, jid, token) -> place of one thing that the requester has pending, its bytes; nil if it has none
local function some_thing(slow, jid, token)
	local requester = slow:named(jid, token);
	if requester and #requester.held > 0 then
		local place = math.random(#requester.held);
		return place, requester.held[place];
	end
end

-- (slow, jid, token) -> what it raises to end something that the requester has not got
local function mistake(slow, jid, token)
	return slow:named(jid, token) and "has nothing pending" or "no such requester";
end

function steps_of.release(slow, book, jids, tokens)
	local jid, token = somebody(slow, jids, tokens);
	local place, bytes = some_thing(slow, jid, token);
	if place then
		slow:release(jid, place, token);
		expect.equal(0, select("#", book:release(jid, bytes, token)), "release");
	else
		expect.raises(mistake(slow, jid, token), book.release, book, jid, 0, token);
	end
end

function steps_of.lighten(slow, book, jids, tokens)
	local jid, token = somebody(slow, jids, tokens);
	local place, bytes = some_thing(slow, jid, token);
	if place then
		local less = random.element { 0, bytes, bytes // 2 };
		slow:lighten(jid, place, less, token);
		expect.equal(0, select("#", book:lighten(jid, less, token)), "lighten");
	else
		expect.raises(mistake(slow, jid, token), book.lighten, book, jid, 0, token);
	end
end

function steps_of.new_generation(slow, book)
	if math.random(15) == 1 then
		slow.generation = slow.generation + 1;
		book:new_generation();
	end
end

function steps_of.set_max(slow, book)
	if math.random(10) == 1 then
		slow.max = math.random(math.random(1, #slow.requesters + 10));
		book:set_max(slow.max);
	end
end

local STEPS = { "add", "add", "add", "hold", "release", "lighten", "new_generation", "set_max", "use" };

local function compare(slow, book, jid, token)
	expect.equal(#slow.requesters, #book, "number");
	expect.equal(slow:find(jid), book:find(jid), "find");
	expect.equal(slow:knows(jid), book:knows(jid), "knows");
	expect.equal(slow:resolve(token), book:resolve(token), "resolve");
	expect.same({ slow:pending(jid) }, { book:pending(jid) }, "pending");
	expect.same({ slow:pending(jid, token) }, { book:pending(jid, token) }, "pending by the token");
end

local function compare_all(slow, book, jids, tokens)
	for _, jid in ipairs(jids) do
		compare(slow, book, jid, "");
	end
	for _, token in ipairs(tokens) do
		expect.equal(slow:resolve(token), book:resolve(token), "resolve");
	end
	for _, requester in ipairs(slow.requesters) do
		compare(slow, book, requester.jid, requester.token);
	end
end

-- (jids, tokens, steps, limited, codes): `codes` counts what came of add()
local function run_sequence(jids, tokens, steps, limited, codes)
	local counted = random.element { "bare", "full", false } or nil;
	local slow, book, step = oracle.new(counted), new_book(counted), 0;
	local succeeded, failure = pcall(function ()
		while step < steps do
			step = step + 1;
			local name = random.element(STEPS);
			if limited or name ~= "set_max" then
				steps_of[name](slow, book, jids, tokens, codes);
			end
			compare(slow, book, random.element(jids), random.element(tokens));
			if step % (steps // 10) == 0 then
				compare_all(slow, book, jids, tokens);
			end
		end
	end);
	if not succeeded then
		error(("step %d: %s"):format(step, failure), 0);
	end
end

local function token(number)
	return ("%09d"):format(number);
end

-- (book, first, last): adds requesters of these numbers
local function add(book, first, last)
	for number = first, last or first do
		assert.is_true(book:add("jid"..number.."/r", token(number)));
	end
end

-- (book, first, last) -> numbers of those that are there
local function numbers(book, first, last)
	local found = {};
	for number = first, last do
		if book:find("jid"..number.."/r") then
			table.insert(found, number);
		end
	end
	return found;
end

describe("core.requesters", function ()
	local book;

	before_each(function ()
		random.restart();
		book = new_book();
	end);

	describe("does what a list does", function ()
		local CASES = {
			{ "with few requesters", 2, 3, 60, 300 };
			{ "with some", 20, 30, 40, 500 };
			{ "with many", process.turns(1500, 200), 2000, 1, process.turns(4000, 500) };
		};
		for _, case in ipairs(CASES) do
			local what, jid_count, token_count, sequences, steps = table.unpack(case);
			for _, limited in ipairs { false, jid_count < 100 or nil } do
				it(what..(limited and " and a bound" or ""), function ()
					local codes = {};
					for _ = 1, process.turns(sequences, math.ceil(sequences / 12)) do
						run_sequence(some_jids(jid_count), some_tokens(token_count), steps, limited, codes);
					end
					assert.truthy(codes.added > 0);
					assert.truthy(codes.taken > 0);
					assert.equal(limited, codes.full ~= nil);
				end);
			end
		end
	end);

	it("finds nobody in an empty one", function ()
		assert.is_nil(book:find(""));
		assert.is_nil(book:resolve(""));
		assert.is_nil(book:resolve(token(1)));
		assert.is_nil(book:pending(""));
		assert.equal(0, #book);
	end);

	it("gives back any bytes", function ()
		for length = 8, 255 do
			local jid, given = random.bytes(length * 12), random.bytes(length);
			expect.equal(true, book:add(jid, given), "%d bytes", length);
			expect.equal(given, book:find(jid), "%d bytes", length);
			expect.equal(jid, book:resolve(given), "%d bytes", length);
		end
		local longest = ("j"):rep(65535);
		assert.is_true(book:add(longest, ""));
		assert.equal("", book:find(longest));
		assert.is_nil(book:find(longest.."j"));
	end);

	it("tells tokens apart whose first 8 bytes are the same", function ()
		local head = "8 bytes.";
		local tokens = { head, head.."a", head.."b", head.."\0", head.."aa", head..("a"):rep(247) };
		for number, each in ipairs(tokens) do
			assert.is_nil(book:resolve(each));
			assert.is_true(book:add("jid"..number, each));
		end
		for number, each in ipairs(tokens) do
			assert.equal("jid"..number, book:resolve(each));
		end
		for _, none in ipairs { head.."c", head.."ab", head..("a"):rep(246), head..("a"):rep(248), head:sub(1, 7), "8" } do
			assert.is_nil(book:resolve(none));
		end
	end);

	it("takes nobody twice", function ()
		add(book, 1);
		assert.same({ nil, "taken" }, { book:add("jid1/r", token(2)) });
		assert.same({ nil, "taken" }, { book:add("jid2/r", token(1)) });
		assert.same({ nil, "taken" }, { book:add("jid1/r", "") });
		assert.equal(1, #book);
		assert.is_true(book:add("jid2/r", ""));
		assert.is_true(book:add("jid3/r", ""));
	end);

	describe("with a bound", function ()
		it("forgets who has been idle for the longest", function ()
			add(book, 1, 5);
			book:set_max(5);
			book:hold("jid1/r", 0);
			book:hold("jid3/r", 0);
			book:release("jid3/r", 0);
			book:find("jid2/r"); -- which does not count
			add(book, 6);
			assert.same({ 1, 3, 4, 5, 6 }, numbers(book, 1, 6));
			assert.is_nil(book:resolve(token(2)));
			add(book, 7, 8);
			assert.same({ 1, 3, 6, 7, 8 }, numbers(book, 1, 8));
			add(book, 9);
			assert.same({ 1, 6, 7, 8, 9 }, numbers(book, 1, 9));
			book:release("jid1/r", 0);
			add(book, 10, 13);
			assert.same({ 1, 10, 11, 12, 13 }, numbers(book, 1, 13));
			add(book, 14);
			assert.same({ 10, 11, 12, 13, 14 }, numbers(book, 1, 14));
		end);

		it("forgets nobody who has something pending", function ()
			book:set_max(2);
			add(book, 1, 2);
			book:hold("jid1/r", 1);
			book:hold("jid1/r", 2);
			book:hold("jid2/r", 3);
			assert.same({ nil, "full" }, { book:add("jid3/r", token(3)) });
			book:release("jid1/r", 1);
			assert.same({ nil, "full" }, { book:add("jid3/r", token(3)) });
			assert.same({ 1, 2 }, numbers(book, 1, 3));
			book:release("jid1/r", 2);
			add(book, 3);
			assert.same({ 2, 3 }, numbers(book, 1, 3));
			assert.equal(2, #book);
		end);

		it("becomes smaller with each that is added, where it was lowered", function ()
			add(book, 1, 150);
			book:set_max(3);
			assert.equal(150, #book);
			add(book, 151);
			assert.equal(150 - 64 + 1, #book);
			add(book, 152);
			assert.equal(150 - 64 + 1 - 64 + 1, #book);
			add(book, 153, 155);
			assert.same({ 153, 154, 155 }, numbers(book, 1, 155));
			book:set_max(2);
			book:hold("jid153/r", 0);
			book:hold("jid154/r", 0);
			add(book, 156);
			assert.same({ 153, 154, 156 }, numbers(book, 1, 156));
			book:hold("jid156/r", 0);
			assert.same({ nil, "full" }, { book:add("jid157/r", "") });
		end);

		it("has room for 512 bytes of JID and token each, on average", function ()
			book:set_max(4);
			assert.is_true(book:add(("a"):rep(4000), "")); -- the only one may be of any size
			assert.is_true(book:add(("b"):rep(1000), token(1)));
			assert.equal(1, #book);
			assert.is_true(book:add(("c"):rep(4 * 512 - 1000 - #token(1) - 1 - #token(2)), token(2)));
			assert.equal(2, #book);
			assert.is_true(book:add("d", ""));
			assert.equal(2, #book);
			assert.is_nil(book:find(("b"):rep(1000)));
			book:hold("d", 1);
			assert.is_true(book:add(("e"):rep(2000), ""));
			assert.same({ 2, "" }, { #book, book:find("d") });
			book:hold(("e"):rep(2000), 1);
			assert.same({ nil, "full" }, { book:add(("f"):rep(1000), "") });
		end);
	end);

	it("knows those of this and of the last generation", function ()
		add(book, 1);
		assert.same({ true, false, false }, { book:knows("jid1/r"), book:knows("jid1"), book:knows("jid2/r") });
		book:new_generation();
		assert.is_true(book:knows("jid1/r"));
		book:new_generation();
		assert.is_false(book:knows("jid1/r"));
		assert.is_nil(book:find("jid1/r"));
	end);

	it("takes who is used for idle since then", function ()
		add(book, 1, 4);
		book:set_max(4);
		book:use("jid1/r");
		book:use("jid3/r", token(3));
		book:use("jid3/r");
		book:hold("jid2/r", 1);
		book:use("jid2/r"); -- which is not idle
		add(book, 5);
		assert.same({ 1, 2, 3, 5 }, numbers(book, 1, 5));
		add(book, 6);
		assert.same({ 2, 3, 5, 6 }, numbers(book, 1, 6));
		book:release("jid2/r", 1);
		add(book, 7, 9);
		assert.same({ 2, 7, 8, 9 }, numbers(book, 1, 9));
		for number = 7, 9 do
			book:use(("jid%d/r"):format(number));
		end
		add(book, 10);
		assert.same({ 7, 8, 9, 10 }, numbers(book, 1, 10));
	end);

	it("uses one of the last generation by its token", function ()
		add(book, 1, 2);
		book:new_generation();
		assert.is_true(book:add("jid1/r", token(3)));
		book:set_max(3);
		book:use("jid1/r", token(1));
		assert.is_true(book:add("jid4/r", token(4)));
		assert.same({ "jid1/r", "jid1/r" }, { book:resolve(token(1)), book:resolve(token(3)) });
		assert.is_nil(book:resolve(token(2)));
	end);

	it("counts what is pending of each full JID, where it is to", function ()
		local full = new_book("full");
		assert.is_true(full:add("a@b/r", token(1)) and full:add("a@b/s", token(2)) and full:add("a@b", token(3)));
		full:hold("a@b/r", 5);
		full:hold("a@b/r", 7);
		assert.same({ 2, 12, 2 }, { full:pending("a@b/r") });
		assert.same({ 0, 0, 0 }, { full:pending("a@b/s") });
		assert.same({ 0, 0, 0 }, { full:pending("a@b") });
		full:new_generation();
		assert.is_true(full:add("a@b/r", token(4)));
		assert.same({ 2, 12, 0 }, { full:pending("a@b/r") });
		full:release("a@b/r", 5, token(1));
		assert.same({ 1, 7, 0 }, { full:pending("a@b/r") });
	end);

	it("limits what is pending of each full JID, where it counts that", function ()
		local pending = core.pending(("s"):rep(core.PENDING_SEEDBYTES), new_book("full"));
		pending:set_limits(10, 1);
		assert.truthy(pending:add("backend", "to", "1", "a@b/r", "service", 0, 1));
		assert.truthy(pending:add("backend", "to", "2", "a@b/s", "service", 0, 1));
		assert.same({ nil, "requester-full" }, { pending:add("backend", "to", "3", "a@b/s", "service", 0, 1) });
	end);

	it("finds those of this generation by JID, and of the last one by token", function ()
		add(book, 1);
		book:hold("jid1/r", 7);
		book:new_generation();
		assert.is_nil(book:find("jid1/r"));
		assert.equal("jid1/r", book:resolve(token(1)));
		assert.is_true(book:add("jid1/r", token(2)));
		assert.equal(token(2), book:find("jid1/r"));
		assert.equal("jid1/r", book:resolve(token(1)));
		assert.equal("jid1/r", book:resolve(token(2)));
		assert.same({ 1, 7, 0 }, { book:pending("jid1/r") });
		assert.same({ 1, 7, 1 }, { book:pending("jid1/r", token(1)) });
		book:new_generation();
		assert.is_nil(book:find("jid1/r"));
		assert.is_nil(book:resolve(token(1)));
		assert.equal("jid1/r", book:resolve(token(2)));
		assert.equal(2, #book);
		assert.is_true(book:add("jid3/r", token(1)));
		assert.equal("jid3/r", book:resolve(token(1)));
	end);

	it("finds who was not forgotten in 65536 generations, and not before", function ()
		add(book, 1);
		for generation = 1, 65535 do
			book:new_generation();
			if generation & generation + 1 == 0 or generation & 1023 == 0 then
				expect.equal(nil, book:find("jid1/r"), "generation %d", generation);
				expect.equal(generation == 1 and "jid1/r" or nil, book:resolve(token(1)), "generation %d", generation);
			end
		end
		book:new_generation();
		assert.equal(token(1), book:find("jid1/r"));
	end);

	it("counts together what one bare JID has pending", function ()
		for _, jid in ipairs { "a@b", "a@b/r", "a@b/s/r", "a@c/r" } do
			assert.is_true(book:add(jid, ""));
		end
		book:hold("a@b", 1);
		book:hold("a@b/r", 20);
		book:hold("a@b/r", 300);
		assert.same({ 3, 321, 0 }, { book:pending("a@b/s/r") });
		assert.same({ 3, 321, 2 }, { book:pending("a@b/r") });
		assert.same({ 0, 0, 0 }, { book:pending("a@c/r") });
		book:lighten("a@b/r", 290);
		assert.same({ 3, 31, 1 }, { book:pending("a@b") });
		book:release("a@b/r", 10);
		book:release("a@b", 1);
		assert.same({ 1, 20, 0 }, { book:pending("a@b") });
		book:release("a@b/r", 20);
		assert.same({ 0, 0, 0 }, { book:pending("a@b/r") });
	end);

	it("counts as much as it says", function ()
		assert.is_true(book:add("a/r", token(1)));
		assert.is_true(book:add("a/s", token(2)));
		assert.is_true(book:hold("a/r", BYTES_MAX - 1));
		expect.raises("too many", book.hold, book, "a/r", 2);
		expect.raises("too many", book.hold, book, "a/s", 2);
		assert.is_true(book:hold("a/s", 1));
		assert.same({ 2, BYTES_MAX, 1 }, { book:pending("a/s") });
		book:release("a/r", BYTES_MAX - 1);
		assert.same({ 1, 1, 1 }, { book:pending("a/s") });
		if process.turns(true, false) then
			for _ = 2, COUNT_MAX do
				book:hold("a/r", 0);
			end
			assert.same({ COUNT_MAX, 1, COUNT_MAX - 1 }, { book:pending("a/r") });
			expect.raises("has too much pending", book.hold, book, "a/r", 0);
			expect.raises("has too much pending", book.hold, book, "a/s", 0);
		end
	end);

	it("keeps nothing of those that are forgotten", function ()
		local number = 0;
		book:set_max(100);
		process.stays_flat(function ()
			for _ = 1, process.turns(200000, 2000) do
				number = number + 1;
				expect.equal(true, book:add("jid"..number.."/r", number % 3 == 0 and "" or token(number)), "%d", number);
				book:hold("jid"..number.."/r", 1);
				book:release("jid"..number.."/r", 1);
				if number % 10000 == 0 then
					collectgarbage();
				end
			end
		end, 2 * MEGABYTE);
		assert.equal(100, #book);
	end);

	it("gives back its memory, whoever has something pending", function ()
		process.stays_flat(function ()
			for turn = 1, 50 do
				local subject = new_book();
				for i = 1, process.turns(2000, 50) do
					local jid = ("j"):rep(i % 600).."/"..i;
					subject:add(jid, i % 3 == 0 and "" or token(i));
					if i % (turn % 3 + 1) == 0 then
						subject:hold(jid, i);
						subject:hold(jid, i);
					end
				end
				subject = nil; -- luacheck: ignore 311
				collectgarbage();
			end
		end, 2 * MEGABYTE);
	end);

	it("shares nothing with another one", function ()
		local other = core.requesters(("s"):rep(core.REQUESTERS_SEEDBYTES));
		add(other, 1);
		other:hold("jid1/r", 1);
		assert.is_nil(book:find("jid1/r"));
		assert.is_nil(book:resolve(token(1)));
		add(book, 1);
		assert.same({ 0, 0, 0 }, { book:pending("jid1/r") });
	end);

	describe("mistakes raise:", function ()
		local METHODS = { "set_max", "new_generation", "find", "knows", "use", "resolve", "add", "hold", "lighten", "release", "pending" };

		it("a seed of another length", function ()
			for _, length in ipairs { 0, 15, 17, 32 } do
				expect.raises(("16 bytes expected, got %d"):format(length), core.requesters, ("s"):rep(length));
			end
		end);

		it("a JID or a token of a length that none has", function ()
			expect.raises("too long", book.add, book, ("j"):rep(65536), "");
			expect.raises("too short", book.add, book, "j", "t");
			expect.raises("too short", book.add, book, "j", ("t"):rep(7));
			expect.raises("too long", book.add, book, "j", ("t"):rep(256));
			assert.equal(0, #book);
		end);

		it("to count what nobody is", function ()
			for _, wrong in ipairs { "", "Full", "each" } do
				expect.raises("invalid option", core.requesters, ("s"):rep(core.REQUESTERS_SEEDBYTES), wrong);
			end
		end);

		it("the use of nobody", function ()
			add(book, 1);
			expect.raises("no such requester", book.use, book, "jid2/r");
			expect.raises("no such requester", book.use, book, "jid1/r", token(2));
			book:new_generation();
			expect.raises("no such requester", book.use, book, "jid1/r");
		end);

		it("a bound of none", function ()
			for _, wrong in ipairs { 0, -1, math.mininteger } do
				expect.raises("1 or more expected", book.set_max, book, wrong);
			end
			book:set_max(math.maxinteger);
			add(book, 1);
		end);

		it("what nobody has pending", function ()
			add(book, 1);
			assert.is_true(book:add("jid1/s", ""));
			book:hold("jid1/s", 5);
			for _, method in ipairs { "hold", "lighten", "release" } do
				expect.raises("no such requester", book[method], book, "jid2/r", 0);
				expect.raises("no such requester", book[method], book, "jid1/s", 0, token(1));
				expect.raises("no such requester", book[method], book, "jid1/r", 0, token(2));
				expect.raises("no such requester", book[method], book, "jid1/s", 0, "");
				expect.raises("negative", book[method], book, "jid1/s", -1);
			end
			for _, method in ipairs { "lighten", "release" } do
				expect.raises("has nothing pending", book[method], book, "jid1/r", 0);
				expect.raises("has nothing pending", book[method], book, "jid1/r", 0, token(1));
				expect.raises("too many", book[method], book, "jid1/s", 6);
			end
			assert.same({ 1, 5, 1 }, { book:pending("jid1/s") });
			assert.is_nil(book:pending("jid1/r", token(2)));
			assert.is_nil(book:pending("jid1/s", token(1)));
		end);

		it("arguments of a wrong type, or none", function ()
			add(book, 1);
			book:hold("jid1/r", 1);
			for _, wrong in ipairs { false, true, {}, print, book } do
				expect.raises("string expected", core.requesters, wrong);
				expect.raises("string expected", core.requesters, ("s"):rep(core.REQUESTERS_SEEDBYTES), wrong);
				expect.raises("string expected", book.use, book, "jid1/r", wrong);
				for _, method in ipairs { "find", "knows", "use", "resolve", "add", "hold", "lighten", "release", "pending" } do
					expect.raises("string expected", book[method], book, wrong, 0);
				end
				for _, method in ipairs { "hold", "lighten", "release" } do
					expect.raises("number expected", book[method], book, "jid1/r", wrong);
					expect.raises("string expected", book[method], book, "jid1/r", 0, wrong);
				end
				expect.raises("number expected", book.set_max, book, wrong);
				expect.raises("string expected", book.add, book, "j", wrong);
				expect.raises("string expected", book.pending, book, "jid1/r", wrong);
			end
			expect.raises("string expected", core.requesters);
			expect.raises("string expected", book.add, book, "j");
			assert.same({ 1, 1, 1 }, { book:pending("jid1/r") });
			assert.equal(1, #book);
		end);

		it("an object that is no book", function ()
			local meta = getmetatable(book);
			local others = { core.jat("h", "sealed"), core.pool(("s"):rep(core.POOL_SEEDBYTES)), io.stdout, {}, "s" };
			local functions = { meta.__len, meta.__gc };
			for _, method in ipairs(METHODS) do
				table.insert(functions, book[method]);
			end
			for _, f in ipairs(functions) do
				for _, other in ipairs(others) do
					expect.raises("mod_client_proxy.requesters expected", f, other, "j", 1);
				end
				expect.raises("mod_client_proxy.requesters expected", f);
			end
		end);

		it("a book that has been collected", function ()
			local meta = getmetatable(book);
			add(book, 1);
			book:hold("jid1/r", 1);
			meta.__gc(book);
			meta.__gc(book);
			for _, method in ipairs(METHODS) do
				expect.raises("already collected", book[method], book, "j", 1);
			end
			expect.raises("already collected", meta.__len, book);
		end);
	end);
end);
