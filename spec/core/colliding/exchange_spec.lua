-- Two requesters, or two backends, whose short tokens would be the same. In the life of a server, that does not happen; in this core.so,
-- the hash that such a token is made of has one byte, so that there are 256 of them.

local core = require "mod_client_proxy.core";
local expect = require "spec.support.expect";
local new_pending = require "spec.support.pending".new;
local random = require "spec.support.random";

local PROXY = "proxy.domain.example";
local BACKEND = "some-user@some-domain.example/a";
local REQUESTERS = 2000;
local HASHES = 256; -- so many short tokens there are
local SHORT = "^"..PROXY:gsub("%p", "%%%0").."/q[%w_-]+$";
local DIGEST = "^"..PROXY:gsub("%p", "%%%0").."/d[%w_-]+$";
local SHORT_LEN, DIGEST_LEN = #PROXY + 1 + 13, #PROXY + 1 + 33;

random.announce("colliding/exchange_spec");

describe("With short tokens that collide,", function ()
	local jat, book, pool, pending, exchange;

	before_each(function ()
		random.restart();
		jat = core.jat(PROXY, "short");
		jat:add_key(1, random.bytes(core.JAT_KEYBYTES));
		pending, book = new_pending(random.bytes(core.PENDING_SEEDBYTES));
		pool = core.pool(random.bytes(core.POOL_SEEDBYTES));
		pool:add(BACKEND);
		exchange = core.exchange(jat, book, pool, pending);
	end);

	local function jid_of(number)
		return ("user%d@some-domain.example/abc"):format(number);
	end

	-- (number[, id]) -> the address that the backend sees
	local function ask(number, id)
		local backend, address = exchange:dispatch(jid_of(number), PROXY, id or "id", 0, 60);
		expect.equal(BACKEND, backend, "requester %d: %s", number, address);
		return address;
	end

	local function answer(number, address, id)
		local requester, service = exchange:settle(BACKEND, address, id or "id", 1);
		expect.equal(jid_of(number), requester, "who gets the answer to requester %d", number);
		expect.equal(PROXY, service, "from where requester %d gets it", number);
	end

	local function expect_resolved(number, address)
		expect.equal(jid_of(number), exchange:resolve(address:sub(#PROXY + 2)), "whose %s is", address);
	end

	-- (first, last) -> two numbers of requesters whose short tokens are the same
	local function colliding_pair()
		local number_of = {};
		for number = 1, HASHES + 1 do
			local token = jat:encode(jid_of(number));
			if number_of[token] then
				return number_of[token], number;
			end
			number_of[token] = number;
		end
	end

	-- (number) -> that of a requester whose short token is another one
	local function number_unlike(number)
		local other = number + 1;
		while jat:encode(jid_of(other)) == jat:encode(jid_of(number)) do
			other = other + 1;
		end
		return other;
	end

	-- -> how many different short tokens the requesters would have: most often all that there are
	local function count_tokens()
		local count, is_there = 0, {};
		for number = 1, REQUESTERS do
			local token = jat:encode(jid_of(number));
			count = count + (is_there[token] and 0 or 1);
			is_there[token] = true;
		end
		assert.is_true(count <= HASHES);
		return count;
	end

	-- Asks once for each requester. -> their addresses by number
	local function ask_all()
		local addresses, number_of, digests = {}, {}, 0;
		for number = 1, REQUESTERS do
			local address = ask(number);
			expect.equal(nil, number_of[address], "who else than %d has %s", number, address);
			number_of[address] = number;
			addresses[number] = address;
			if #address == SHORT_LEN then
				expect.that(address:find(SHORT), "%s", address);
			else
				digests = digests + 1;
				expect.equal(DIGEST_LEN, #address, "length of %s", address);
				expect.that(address:find(DIGEST), "%s", address);
			end
		end
		assert.equal(REQUESTERS - count_tokens(), digests);
		return addresses;
	end

	it("no two requesters have the same address, and the second one of each two has a digest", function ()
		local addresses = ask_all();
		local first_with = {};
		for number = 1, REQUESTERS do
			local token = jat:encode(jid_of(number));
			local expected = first_with[token] and DIGEST_LEN or SHORT_LEN;
			first_with[token] = first_with[token] or number;
			expect.equal(expected, #addresses[number], "requester %d", number);
		end
	end);

	it("each answer goes to whoever has asked", function ()
		local addresses = ask_all();
		local order = {};
		for number = 1, REQUESTERS do
			order[number] = number;
		end
		for _, number in ipairs(random.shuffle(order)) do
			answer(number, addresses[number]);
		end
		assert.equal(0, #pending);
	end);

	it("each keeps its address as long as it is remembered, and is told from it", function ()
		local addresses = ask_all();
		for number = 1, REQUESTERS do
			answer(number, addresses[number]);
		end
		for number = REQUESTERS, 1, -1 do
			expect.equal(addresses[number], ask(number, "another"), "address of %d", number);
			expect_resolved(number, addresses[number]);
			answer(number, addresses[number], "another");
			expect_resolved(number, addresses[number]);
		end
		assert.equal(REQUESTERS, #book);
	end);

	it("the second one keeps its digest when the first one has been forgotten", function ()
		local first, second = colliding_pair();
		local of_first = ask(first);
		local of_second = ask(second);
		assert.equal(SHORT_LEN, #of_first);
		assert.equal(DIGEST_LEN, #of_second);
		answer(first, of_first);
		book:set_max(2);
		local other = number_unlike(first);
		answer(other, ask(other)); -- for whom the first one is forgotten
		assert.is_nil(book:find(jid_of(first)));
		assert.same({ nil, "short" }, { exchange:resolve(of_first:sub(#PROXY + 2)) });
		assert.equal(of_second, ask(second, "another"));
		expect_resolved(second, of_second);
		answer(second, of_second, "another");
		answer(second, of_second);

		book:set_max(10);
		assert.equal(of_first, ask(first)); -- which nobody has now
		expect_resolved(first, of_first);
		expect_resolved(second, of_second);
		answer(first, of_first);
	end);

	it("a first one that comes back finds its token taken, and has a digest", function ()
		local first, second = colliding_pair();
		answer(first, ask(first));
		book:set_max(1);
		local other = number_unlike(first);
		answer(other, ask(other)); -- for whom the first one is forgotten
		local of_second = ask(second);
		assert.equal(SHORT_LEN, #of_second);
		book:set_max(10);
		local of_first = ask(first);
		assert.equal(DIGEST_LEN, #of_first);
		answer(second, of_second);
		answer(first, of_first);
	end);

	it("tokens of the last key are still their requesters'", function ()
		local addresses = ask_all();
		for number = 1, REQUESTERS do
			answer(number, addresses[number]);
		end
		jat:add_key(2, random.bytes(core.JAT_KEYBYTES));
		book:new_generation();
		local owners = {};
		for number = 1, REQUESTERS do
			owners[addresses[number]] = number;
		end
		for number = 1, REQUESTERS, 7 do
			local address = ask(number);
			local owner = owners[address] or number; -- its own of the last key can be the same
			expect.equal(number, owner, "whose %s was", address);
			owners[address] = number;
			expect_resolved(number, address);
			expect_resolved(number, addresses[number]);
			answer(number, address);
		end
		for address, number in pairs(owners) do
			expect_resolved(number, address);
		end
	end);

	it("whom a backend writes to is whose token that is", function ()
		local addresses = ask_all();
		for number = 1, REQUESTERS do
			expect.equal(jid_of(number), exchange:reach(BACKEND, addresses[number]:sub(#PROXY + 2)), "whom %s reaches", addresses[number]);
		end
	end);

	describe("backends", function ()
		local BACKENDS = 600;

		local function backend_of(number)
			return ("some-user@some-domain.example/%d"):format(number);
		end

		-- Nobody has another one's token, and each is found by its own.
		local function check_all(tokens)
			local owners = {};
			for backend, token in pairs(tokens) do
				expect.equal(nil, owners[token], "who else than %s has %s", backend, token);
				owners[token] = backend;
				expect.equal(token, pool:token(backend), "token of %s", backend);
				expect.equal(backend, exchange:backend(token), "whose %s is", token);
			end
		end

		it("never have the same token, and the second one of each two has a longer one", function ()
			local tokens, is_taken, longer = {}, {}, 0;
			for number = 1, BACKENDS do
				assert.is_true(exchange:admit(backend_of(number)));
				local token = pool:token(backend_of(number));
				tokens[backend_of(number)] = token;
				expect.that(not is_taken[token] and token:find("^b[%w_-]+$"), "%s of %d", token, number);
				is_taken[token] = true;
				longer = longer + (#token == 33 and 1 or 0);
				expect.that(#token == 13 or #token == 33, "%s of %d", token, number);
			end
			check_all(tokens);
			expect.that(longer >= BACKENDS - HASHES, "%d have a longer one", longer);
		end);

		it("never have the same token, whoever comes and goes, and whenever the key is renewed", function ()
			local tokens, longer = {}, 0;
			for step = 1, 3000 do
				local backend = backend_of(math.random(BACKENDS));
				if tokens[backend] and math.random(2) == 1 then
					assert.is_true(pool:remove(backend));
					expect.equal(nil, exchange:backend(tokens[backend]), "step %d: whose the token of one that has gone is", step);
					tokens[backend] = nil;
				else
					expect.equal(not tokens[backend], exchange:admit(backend), "step %d: whether it is new", step);
					tokens[backend] = tokens[backend] or pool:token(backend);
					longer = longer + (#tokens[backend] == 33 and 1 or 0);
				end
				if step % 500 == 0 then
					jat:add_key(step // 500, random.bytes(core.JAT_KEYBYTES));
				end
				if step % 100 == 0 then
					check_all(tokens);
				end
			end
			assert.is_true(longer > 0);
		end);
	end);
end);
