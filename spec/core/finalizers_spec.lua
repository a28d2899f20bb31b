-- While the core asks Lua for memory, the garbage collector can run finalizers, which can call the core: what it was
-- about to tell of is there no longer, or is another's.

local core = require "mod_client_proxy.core";
local new_pending = require "spec.support.pending".new;

local PROXY, BACKEND = "proxy.domain.example", "some-user@some-domain.example/a";
local ROUNDS = 50;

-- (finalizer, call, ...) -> what call(...) returns. The finalizer is run when that first could ask for memory.
local function call_with(finalizer, call, ...)
	local count = 0;
	local hook, mask, instructions = debug.gethook(); -- that of spec/support/gc_stress.lua collects at other times, too
	debug.sethook();
	collectgarbage("stop");
	setmetatable({}, { __gc = function ()
		count = count + 1;
		finalizer();
	end });
	collectgarbage("restart");
	local results = table.pack(call(...));
	collectgarbage("stop"); -- else it could run later, and the spec would not see anything
	debug.sethook(hook, mask, instructions);
	assert.equal(1, count);
	return table.unpack(results, 1, results.n);
end

describe("while a finalizer calls the core,", function ()
	local book, pool, pending, exchange, mode;

	before_each(function ()
		local jat = core.jat(PROXY, "short");
		jat:add_key(1, ("k"):rep(core.JAT_KEYBYTES));
		pool = core.pool(("s"):rep(core.POOL_SEEDBYTES));
		pool:add(BACKEND);
		pending, book = new_pending(("s"):rep(core.PENDING_SEEDBYTES));
		exchange = core.exchange(jat, book, pool, pending);
		collectgarbage();
		mode = collectgarbage("generational", 1, 100);
	end);

	after_each(function ()
		collectgarbage("restart");
		collectgarbage(mode);
	end);

	-- Short strings that are there already take no memory: then what is pushed next is the first that does.
	for _, more in ipairs { ("x"):rep(60), "" } do
		local name, long = more == "" and "not the first" or "the first of all", ("x"):rep(60);

		it("a request goes to a backend that has left and come again: "..name, function ()
			for round = 1, ROUNDS do
				local other = ("%s%d"):format(BACKEND..more, round);
				pool:add(other);
				pool:remove(BACKEND);
				local to, address = call_with(function ()
					pool:remove(other);
					pool:add(BACKEND);
				end, exchange.dispatch, exchange, "user@host/"..round, PROXY, "id", 0, 60);
				assert.equal(BACKEND, to);
				assert.equal(1, pending:count(BACKEND));
				assert.equal("user@host/"..round, (exchange:settle(BACKEND, address, "id", 1)));
			end
		end);

		it("a request is that of its requester, who was forgotten: "..name, function ()
			book:set_max(1);
			for round = 1, ROUNDS do
				local requester, other = ("user@host/%03d%s"):format(round, more), ("mine@host/%03d%s"):format(round, more);
				local to, address = call_with(function ()
					book:add(other, "");
				end, exchange.dispatch, exchange, requester, PROXY, "id", 0, 60, 1, { name = "iq", attr = {} });
				assert.equal(requester, (exchange:settle(to, address, "id", 1)));
				assert.same({ 1, 0 }, { #book, pending:bytes() });
			end
		end);

		it("an answer is nobody's whose request has ended: "..name, function ()
			for round = 1, ROUNDS do
				local to, address = exchange:dispatch("user@host/"..more, PROXY.."/"..long..round, "id", 0, 60);
				assert.is_nil(call_with(function ()
					pending:expire(60);
				end, exchange.settle, exchange, to, address, "id", 1));
				assert.same({ 0, 0 }, { #pending, pending:bytes() });
				assert.equal(0, (exchange:counts()));
			end
		end);

		for _, method in ipairs { "take", "expire", "first_movable" } do
			it(method.."() raises if its request has ended: "..name, function ()
				local arguments = { take = { BACKEND, "to", "id" }, expire = { 60 }, first_movable = { BACKEND } };
				for round = 1, ROUNDS do
					local service = PROXY.."/"..long..round;
					pending:add(BACKEND, "to", "id", "user@host/"..more, service, 0, 60, 1, { name = "iq", attr = {} });
					local ok, problem = call_with(function ()
						pending:take_movable(BACKEND);
					end, pcall, pending[method], pending, table.unpack(arguments[method]));
					assert.is_false(ok);
					assert.equal("a finalizer has called a method of the core", problem);
					assert.same({ 0, 0 }, { #pending, pending:bytes() });
				end
			end);
		end
	end

	it("what is addressed goes where it was to go, though the requester and the backend have gone", function ()
		book:set_max(1);
		for round = 1, ROUNDS do
			local other = ("%s%060d"):format(BACKEND, round);
			local requester = ("user@host/%060d"):format(round);
			local alike = ("%s%060d"):format(BACKEND, round + ROUNDS); -- which gets the same memory
			pool:add(other);
			pool:remove(BACKEND);
			local to, address = call_with(function ()
				book:add("mine@host/"..round, "");
				pool:remove(other);
				pool:add(alike);
			end, exchange.address, exchange, requester, PROXY);
			assert.equal(other, to);
			pool:remove(alike);
			assert.truthy(address:find("^proxy%.domain%.example/q[%w_-]+$"));
			assert.is_nil(book:find(requester));
		end
	end);

	it("whom a backend reaches is told though it is forgotten, and so is a backend's JID and token", function ()
		book:set_max(1);
		pool:remove(BACKEND);
		for round = 1, ROUNDS do
			local requester, backend = ("user@host/%060d"):format(round), ("%s%060d"):format(BACKEND, round);
			exchange:admit(backend);
			local token = select(2, exchange:address(requester, PROXY)):sub(#PROXY + 2);
			assert.equal(requester, (call_with(function ()
				book:add("mine@host/"..round, "");
			end, exchange.reach, exchange, backend, token)));
			local its_token = pool:token(backend);
			assert.equal(backend, (call_with(function ()
				pool:remove(backend);
			end, exchange.backend, exchange, its_token)));
			exchange:admit(backend);
			assert.equal(backend, (call_with(function ()
				pool:remove(backend);
			end, pool.pick_lasting, pool, "user@host", PROXY)));
		end
	end);

	it("what is added is that of its requester, who was forgotten", function ()
		book:set_max(1);
		for round = 1, ROUNDS do
			local grows, requester, other = {}, ("user@host/%03d"):format(round), ("mine@host/%03d"):format(round);
			local stanza = { name = "iq", attr = {} };
			book:add(requester, "");
			call_with(function ()
				book:add(other, "");
			end, function ()
				grows[1] = true; -- asks for memory without a collection
				pending:add(BACKEND, "to", "id", requester, PROXY, 0, 60, 1, stanza);
			end);
			assert.is_true(grows[1]);
			assert.equal(requester, (pending:take(BACKEND, "to", "id")));
			assert.same({ 1, 0 }, { #book, pending:bytes() });
		end
	end);
end);
