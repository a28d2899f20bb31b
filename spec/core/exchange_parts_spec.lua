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
		assert.equal(("j"):rep(JID_MAX), exchange:resolve(BACKEND, "qAAAAAAAAAAAA"));
		assert.same({ nil, "short" }, { exchange:resolve(BACKEND, "qAAAAAAAAAAAB") });
		assert.same({ nil, "digest" }, { exchange:resolve(BACKEND, "d"..("A"):rep(31).."B") });
	end);

	-- The table would go on with requesters of a book that it does not keep.
	it("is not made of a table for another book", function ()
		local other = core.requesters(("t"):rep(core.REQUESTERS_SEEDBYTES));
		expect.raises("a table for those in this book expected", core.exchange, jat, other, pool, pending);
		assert.is_nil(book:find(REQUESTER));
	end);
end);
