-- Requests, backends and requesters whose hashes are the same are told apart by comparing them. This does not happen in the life
-- of a server: it took 2^32 tries to find each of these pairs, and that with a seed that is known.

local core = require "mod_client_proxy.core";
local new_pending = require "spec.support.pending".new;

local POOL_SEED = ("s"):rep(core.POOL_SEEDBYTES);
-- So long that a pending table hashes it and the id each for itself
local LONG = ("to"):rep(2000);
local PENDING_SEED = ("s"):rep(core.PENDING_SEEDBYTES);
local REQUESTERS_SEED = ("s"):rep(core.REQUESTERS_SEEDBYTES);

-- The same SipHash-2-4 under a key of sixteen times "s"
local PAIRS = {
	["the same length"] = { "aa8bed1e07587f55@", "b37fbbd44541857f@" },
	["different lengths"] = { "6d20fada0d62678b@", "3873b94b1aca259a" },
};

for what, pair in pairs(PAIRS) do
	local a, b = pair[1], pair[2];

	describe("With texts of "..what.." whose hashes collide,", function ()
		it("a pool knows one backend from the other", function ()
			local pool = core.pool(POOL_SEED);
			assert.is_true(pool:add(a));
			assert.is_nil(pool:state(b));
			assert.is_false(pool:remove(b));
			assert.is_true(pool:add(b));
			assert.equal(2, #pool);
			assert.is_true(pool:set_state(b, "away"));
			assert.equal("ready", pool:state(a));
			assert.is_true(pool:remove(a));
			assert.is_nil(pool:state(a));
			assert.equal(1, #pool);
			assert.equal("away", pool:state(b));
		end);

		it("a pool knows one token from the other", function ()
			local pool = core.pool(POOL_SEED);
			assert.is_true(pool:add("backend of a", a));
			assert.is_nil(pool:resolve(b));
			assert.is_true(pool:add("backend of b", b));
			assert.same({ "backend of a", "backend of b" }, { pool:resolve(a), pool:resolve(b) });
			pool:remove("backend of b");
			assert.equal("backend of a", pool:resolve(a));
			assert.is_nil(pool:resolve(b));
		end);

		it("a pending table knows one backend's requests from the other's", function ()
			local pending = new_pending(PENDING_SEED);
			pending:add(a, "to", "id", "requester-a", "service", 0, 1, 1, {});
			assert.equal(0, pending:count(b));
			assert.is_nil(pending:take_movable(b));
			assert.is_nil(pending:take_fixed(b, math.huge));
			pending:abandon(b);
			assert.is_false(pending:has_abandoned());
			assert.is_nil(pending:take(b, "to", "id"));
			pending:add(b, "to", "id", "requester-b", "service", 0, 2, 1, {});
			assert.equal(1, pending:count(a));
			assert.equal(1, pending:count(b));
			assert.equal("requester-b", (pending:take(b, "to", "id")));
			assert.equal("requester-a", (pending:take(a, "to", "id")));
		end);

		it("a pending table abandons one backend's requests and not the other's", function ()
			local pending = new_pending(PENDING_SEED);
			pending:add(a, "to", "id", "requester-a", "service", 0, 1, 1, {});
			pending:add(b, "to", "id", "requester-b", "service", 0, 2, 1, {});
			pending:abandon(a);
			assert.equal(0, pending:count(a));
			assert.equal(1, pending:count(b));
			assert.is_nil(pending:take(a, "to", "id"));
			assert.equal("requester-b", (pending:first_movable(b)));
			assert.equal("requester-b", (pending:take(b, "to", "id")));
			assert.equal("requester-a", (pending:take_abandoned()));
			assert.is_nil(pending:take_abandoned());
		end);

		it("a pending table has no conflict where only the hashes agree", function ()
			local pending = new_pending(PENDING_SEED);
			assert.is_true(pending:add("backend", LONG, a, "requester", "service", 0, 1));
			assert.is_true(pending:add("backend", LONG, b, "requester", "another service", 0, 1));
			assert.same({ nil, "conflict" }, { pending:add("backend", LONG, a, "requester", "another service", 0, 1) });
			assert.same({ nil, "conflict" }, { pending:add("backend", LONG, b, "requester", "service", 0, 1) });
		end);

		it("a pending table knows one id from the other", function ()
			local pending = new_pending(PENDING_SEED);
			pending:add("backend", LONG, a, "requester-a", "service", 0, 1, 1, {});
			assert.is_nil(pending:take("backend", LONG, b));
			pending:add("backend", LONG, b, "requester-b", "service", 0, 2, 1, {});
			assert.equal("requester-b", (pending:take("backend", LONG, b)));
			assert.equal("requester-a", (pending:take("backend", LONG, a)));
		end);

		it("a pending table compares addresses by their hashes alone, by which it can be seen that they do collide", function ()
			local pending = new_pending(PENDING_SEED);
			local to_a, to_b = a, b;
			local long_id = ("id"):rep(2000);
			pending:add("backend", to_a, long_id, "requester", "service", 0, 1);
			assert.is_nil(pending:take("backend", to_a..to_b, long_id));
			assert.equal("requester", (pending:take("backend", to_b, long_id)));
		end);

		it("a pending table knows one service address from the other", function ()
			local pending = new_pending(PENDING_SEED);
			pending:add("backend", "to", "id a", "requester", a, 0, 1);
			pending:add("backend", "to", "id b", "requester", b, 0, 1);
			pending:add("backend", "to", "another id a", "requester", a, 0, 1);
			assert.same({ nil, "conflict" }, { pending:add("backend", "to", "id a", "requester", b, 0, 1) });
			assert.equal(a, (select(2, pending:take("backend", "to", "id a"))));
			assert.equal(b, (select(2, pending:take("backend", "to", "id b"))));
			assert.equal(a, (select(2, pending:take("backend", "to", "another id a"))));
		end);

		it("a book knows one requester from the other", function ()
			local book = core.requesters(REQUESTERS_SEED);
			assert.is_true(book:add(a, "token of a"));
			assert.is_nil(book:find(b));
			assert.is_true(book:add(b, "token of b"));
			assert.equal("token of a", book:find(a));
			assert.equal("token of b", book:find(b));
			assert.same({ true, true, false }, { book:knows(a), book:knows(b), book:knows(a..b) });
			book:hold(a, 1); -- b alone can be forgotten
			book:set_max(1);
			assert.is_true(book:add("another", ""));
			assert.equal("token of a", book:find(a));
			assert.is_nil(book:find(b));
		end);

		it("bare JIDs count together in a book", function ()
			local book = core.requesters(REQUESTERS_SEED);
			assert.is_true(book:add(a.."/r", "") and book:add(b.."/r", "") and book:add(a..b.."/r", ""));
			book:hold(a.."/r", 5);
			assert.same({ 1, 5, 0 }, { book:pending(b.."/r") });
			assert.same({ 0, 0, 0 }, { book:pending(a..b.."/r") });
		end);

		it("full JIDs count together in a book that counts each", function ()
			local book = core.requesters(REQUESTERS_SEED, "full");
			assert.is_true(book:add(a, "") and book:add(b, "") and book:add(a..b, ""));
			book:hold(a, 5);
			assert.same({ 1, 5, 0 }, { book:pending(b) });
			assert.same({ 0, 0, 0 }, { book:pending(a..b) });
		end);

		it("requesters share a limit, by which it can be seen that they do collide", function ()
			local pending = new_pending(PENDING_SEED);
			pending:set_limits(10, 1);
			assert.truthy(pending:add("backend", "to", "id", a, "service", 0, 1));
			assert.same({ nil, "requester-full" }, { pending:add("backend", "to", "id", b, "service", 0, 1) });
			assert.truthy(pending:add("backend", "to", "id", a..b, "service", 0, 1));
		end);
	end);
end
