-- What an exchange does with those that it is made for, when somebody else has them, too

local core = require "mod_client_proxy.core";
local expect = require "spec.support.expect";
local new_pending = require "spec.support.pending".new;

local PROXY, BACKEND, REQUESTER = "proxy.domain.example", "some-user@some-domain.example/a", "user@some-domain.example/abc";
local JID_MAX = 3071; -- bytes

describe("an exchange", function ()
	local jat, book, pool, pending;

	before_each(function ()
		jat = core.jat(PROXY, "short");
		jat:add_key(1, ("k"):rep(core.JAT_KEYBYTES));
		pool = core.pool(("s"):rep(core.POOL_SEEDBYTES));
		pool:add(BACKEND);
		pending, book = new_pending(("s"):rep(core.PENDING_SEEDBYTES));
	end);

	it("resolves nobody whose JID is longer than any that it adds", function ()
		local exchange = core.exchange(jat, book, pool, pending);
		book:add(("j"):rep(JID_MAX), ("\0"):rep(9));
		book:add(("j"):rep(JID_MAX + 1), ("\0"):rep(8).."\1");
		book:add(("j"):rep(0xFFFF), ("\0"):rep(23).."\1");
		assert.equal(("j"):rep(JID_MAX), exchange:resolve("qAAAAAAAAAAAA"));
		assert.same({ nil, "short" }, { exchange:resolve("qAAAAAAAAAAAB") });
		assert.same({ nil, "digest" }, { exchange:resolve("d"..("A"):rep(31).."B") });
	end);

	it("uses another codec and another pool, and keeps them, from when it is told", function ()
		local exchange = core.exchange(jat, book, pool, pending);
		local to, address = exchange:dispatch(REQUESTER, PROXY, "first", 0, 60);
		assert.same({ BACKEND, PROXY.."/"..jat:encode(REQUESTER) }, { to, address });
		exchange:settle(to, address, "first", 1);

		local token;
		do
			local sealed, other_pool = core.jat(PROXY, "sealed"), core.pool(("t"):rep(core.POOL_SEEDBYTES));
			sealed:add_key(1, ("k"):rep(core.JAT_KEYBYTES));
			other_pool:add("other");
			token = sealed:encode(REQUESTER);
			exchange:use(sealed, other_pool);
		end
		book:new_generation();
		collectgarbage();
		assert.same({ "other", PROXY.."/"..token }, { exchange:dispatch(REQUESTER, PROXY, "second", 0, 60) });
		assert.equal(REQUESTER, exchange:resolve(token));
		assert.equal(1, (exchange:counts()));
	end);

	it("gives backends the tokens of the codec that it uses, and those that they have stay", function ()
		local exchange, sealed = core.exchange(jat, book, pool, pending), core.jat(PROXY, "sealed");
		exchange:admit("first");
		local first = pool:token("first");
		sealed:add_key(2, ("l"):rep(core.JAT_KEYBYTES));
		exchange:use(sealed, pool);
		assert.is_false(exchange:admit("first"));
		assert.equal(first, pool:token("first"));
		exchange:admit("second");
		assert.same({ "first", "second" }, { exchange:backend(first), exchange:backend(pool:token("second")) });

		local other_pool = core.pool(("t"):rep(core.POOL_SEEDBYTES));
		exchange:use(jat, other_pool);
		assert.same({ nil, true }, { exchange:backend(first) });
		exchange:admit("first");
		assert.equal(first, other_pool:token("first"));
	end);

	it("gives backends no tokens without a key", function ()
		local exchange = core.exchange(core.jat(PROXY, "short"), book, pool, pending);
		assert.is_true(exchange:admit("first"));
		assert.equal("", pool:token("first"));
	end);

	describe("knows what is known of backends' tokens:", function ()
		for number, vector in ipairs(dofile("spec/vectors/jat.lua").backends) do
			it("number "..number, function ()
				for format_number, format in ipairs(core.FORMATS) do
					local codec = core.jat(vector.host, format);
					codec:add_key(format_number, vector.key);
					pool:remove(BACKEND);
					local exchange = core.exchange(codec, book, pool, pending);
					exchange:admit(vector.jid);
					assert.equal(vector.token, pool:token(vector.jid));
					assert.equal(vector.jid, exchange:backend(vector.token));
					for _, token in ipairs { vector.token, vector.second } do -- which are no requester's
						assert.same({ nil, "bad-token" }, { codec:decode(token) });
						assert.same({ nil, "bad-token" }, { exchange:reach(vector.jid, token) });
					end
					pool:remove(vector.jid);
					assert.is_true(pool:add("another", vector.token));
					exchange:admit(vector.jid);
					assert.equal(vector.second, pool:token(vector.jid));
					assert.equal(vector.jid, exchange:backend(vector.second));
					pool:remove(vector.jid);
					pool:remove("another");
				end
			end);
		end
	end);

	it("uses nothing but a codec and a pool", function ()
		local exchange = core.exchange(jat, book, pool, pending);
		for _, wrong in ipairs { false, {}, book } do
			expect.raises("mod_client_proxy.jat expected", exchange.use, exchange, wrong, pool);
			expect.raises("mod_client_proxy.pool expected", exchange.use, exchange, jat, wrong);
			expect.raises("mod_client_proxy.exchange expected", exchange.use, wrong, jat, pool);
		end
		local collected = core.jat(PROXY, "short");
		getmetatable(collected).__gc(collected);
		expect.raises("already collected", exchange.use, exchange, collected, pool);
		assert.equal(BACKEND, (exchange:dispatch(REQUESTER, PROXY, "id", 0, 60)));
	end);

	-- The table would go on with requesters of a book that it does not keep.
	it("is not made of a table for another book", function ()
		local other = core.requesters(("t"):rep(core.REQUESTERS_SEEDBYTES));
		expect.raises("a table for those in this book expected", core.exchange, jat, other, pool, pending);
		assert.is_nil(book:find(REQUESTER));
	end);
end);
