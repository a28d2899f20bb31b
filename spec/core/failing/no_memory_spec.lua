-- Every allocation of the core fails once, and nothing is lost or changed by it.
-- Leaks are for the sanitizers to find, which this core.so is built with.

local path = assert(package.searchpath("mod_client_proxy.core", package.cpath));
local fail_allocation = assert(package.loadlib(path, "fail_allocation"));
local core = require "mod_client_proxy.core";
local new_pending = require "spec.support.pending".new;

local POOL_SEED = ("s"):rep(core.POOL_SEEDBYTES);
local PENDING_SEED = ("s"):rep(core.PENDING_SEEDBYTES);
local REQUESTERS_SEED = ("s"):rep(core.REQUESTERS_SEEDBYTES);

-- Calls with the first, the second, ... allocation failing, until there is none
-- left to fail. A call either works or says "no-memory". How many failed.
local function fail_each(call)
	local count = 0;
	while true do
		fail_allocation(count + 1);
		local result, code = call();
		local failed = fail_allocation(0);
		if not failed then
			assert.truthy(result);
			return count;
		end
		if not result then
			assert.equal("no-memory", code);
		end
		count = count + 1;
	end
end

describe("without memory", function ()
	it("no codec is made", function ()
		assert.equal(1, fail_each(function () return core.jat("proxy.domain.example", "sealed"); end));
	end);

	it("no pool, no pending table and no book is made", function ()
		assert.equal(9, fail_each(function () return core.pool(POOL_SEED); end));
		local book = core.requesters(REQUESTERS_SEED);
		assert.equal(7, fail_each(function () return core.pending(PENDING_SEED, book); end));
		assert.equal(7, fail_each(function () return core.requesters(REQUESTERS_SEED); end));
	end);

	-- Enough of them that every kind of allocation, growth included, is among them
	local COUNT = 1100;

	it("a backend is not added, and those that are stay", function ()
		local pool = core.pool(POOL_SEED);
		local failures = 0;
		for number = 1, COUNT do
			failures = failures + fail_each(function ()
				local before = #pool;
				local added, code = pool:add("backend-"..number);
				assert.equal(added and number or before, #pool);
				return added ~= nil or nil, code;
			end);
		end
		assert.is_true(failures >= COUNT);
		assert.equal(COUNT, #pool);
		for number = 1, COUNT do
			assert.is_true(pool:remove("backend-"..number));
		end
	end);

	it("the strategy is another one, which needs none", function ()
		local pool = core.pool(POOL_SEED);
		for number = 1, 10 do
			assert.is_true(pool:add("backend-"..number));
		end
		for _, strategy in ipairs(core.STRATEGIES) do
			assert.equal(0, fail_each(function () return pool:set_strategy(strategy, ("k"):rep(core.POOL_KEYBYTES)); end));
		end
		for number = 1, 10 do
			assert.is_true(pool:remove("backend-"..number));
		end
		assert.is_nil(pool:pick("requester"));
	end);

	it("a request is not recorded, and those that are stay", function ()
		local pending = new_pending(PENDING_SEED);
		local failures = 0;
		local recorded = {}; -- some twice: if a table cannot grow for one, that is added all the same
		for number = 1, COUNT do
			local requester = ("r"):rep(number % 600); -- small ones and large ones
			failures = failures + fail_each(function ()
				local before = #pending;
				-- each deadline before the last one's, as only then is memory needed for it
				local added, code = pending:add("backend", "to", "id-"..number, requester, "service", 0, -number);
				assert.equal(added and before + 1 or before, #pending);
				table.insert(recorded, added and number or nil);
				return added, code;
			end);
		end
		assert.is_true(failures > 100);
		for i = #recorded, 1, -1 do
			local number, requester = recorded[i];
			if number % 2 == 0 then
				requester = pending:take("backend", "to", "id-"..number);
			else
				requester = pending:expire(-number);
			end
			assert.equal(("r"):rep(number % 600), requester);
		end
		assert.equal(0, #pending);
	end);

	it("a requester is not added, or has nothing more pending, and those that are stay", function ()
		local book = core.requesters(REQUESTERS_SEED);
		local failures = { add = 0, hold = 0 };
		local function jid(number)
			return ("j"):rep(number % 600)..number; -- small ones and large ones
		end
		local function token(number)
			return ("%08d"):format(number)..("t"):rep(number % 200);
		end
		local count = 0; -- some calls add though there is no memory, as a table that cannot grow takes one more all the same
		for _ = 1, COUNT do
			failures.add = failures.add + fail_each(function ()
				local added, code = book:add(jid(count + 1), token(count + 1));
				count = added and count + 1 or count;
				assert.equal(count, #book);
				return added, code;
			end);
			failures.hold = failures.hold + fail_each(function ()
				local before = book:pending(jid(count));
				local held, code = book:hold(jid(count), count);
				local things = held and before + 1 or before;
				assert.same({ things, things * count, things }, { book:pending(jid(count)) });
				return held, code;
			end);
		end
		assert.is_true(failures.add > 100);
		assert.is_true(failures.hold > 0);
		for number = count, 1, -1 do
			assert.equal(token(number), book:find(jid(number)));
			assert.equal(jid(number), book:resolve(token(number)));
			for _ = 1, book:pending(jid(number)) do
				book:release(jid(number), number);
			end
		end
		book:set_max(1);
		for number = 1, count do
			assert.is_true(book:add("another-"..number, ""));
		end
		assert.equal(1, #book);
	end);
end);
