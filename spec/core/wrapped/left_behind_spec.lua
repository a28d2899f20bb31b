-- No secret stays behind in memory that was given back, nor in what is left of the stack. The
-- strings that Lua has of them are not the core's, and cannot be wiped.

local path = assert(package.searchpath("mod_client_proxy.core", package.cpath));
local look_for = assert(package.loadlib(path, "look_for"));
local left_behind = assert(package.loadlib(path, "left_behind"));
local call_failing = assert(package.loadlib(path, "call_failing"));
local core = require "mod_client_proxy.core";

local HOST, JID = "proxy.domain.example", "user@some-domain.example/abc";

local function bytes(hex)
	return (hex:gsub("%x%x", function (byte) return string.char(tonumber(byte, 16)); end));
end

-- Computed by the functions of spec/vectors/jat.py
local MASTER = bytes "2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683";
local SECRETS = {
	["the master key"] = MASTER;
	["k_enc"] = bytes "0c2eb17a18e90dd198f3f617f9d1e348b23777ed4fca227a889a99cc1c3c87bc";
	["k_mac"] = bytes "e3afdd06acb1813e5e8308548e86e3cd7020eb323646ce090502b684c162f05e";
	["k_sign"] = bytes "71c5b7dec3508422e56f48a353d1966bb0401be1fe9d5cef70bcb9971c47d99e";
	["k_name"] = bytes "f19809a025114296239556068ca9e6ec5dc57bf760c4bf9a8933819dfb5c1ee4";
	["the key that XChaCha20 makes of k_enc for the siv"] =
		bytes "ddff4dfabdd416ace746af1e57326fdacfab760351488793a35acf6aa73f681b";
	["the siv that would make the forged token a good one"] = bytes "b8a9cccdfdf817df8fa1507660a77e2d8ad62ac7ed3f878b";
	["the tag that would make the forged token a good one"] = bytes "1f208202cd5dbb2d4d4eac7a7da2d989";
};
local FORGED = {
	sealed = "sAN_la4JPDib9VvkjzcqgUk_gzU5gD9rBdh949fb-awE26QlZOPGboglzXGwCAHVeNip0DD8jB8jgUg"; -- one bit at the end
	signed = JID.."#AAAAAAAAAAAAAAAAAAAAAA";
};
local FORGED_END = bytes "2f61626380000001"; -- of what the sealed one decrypts to

-- (secret, what, f, ...) -> results of f(...), which leaves nothing of the secret behind
local function check(secret, what, f, ...)
	look_for(secret);
	local results = table.pack(f(...));
	local in_memory, on_stack = left_behind();
	assert.is_false(in_memory, "in memory given back by "..what);
	assert.is_false(on_stack, "on the stack by "..what);
	return table.unpack(results, 1, results.n);
end

-- Part of it may have been written over
local function halves(secret)
	return { secret:sub(1, #secret // 2), secret:sub(#secret // 2 + 1) };
end

-- (secret, new, ...): new(...) with each allocation failing, a method, and the object's end, leave nothing of it behind
-- (secret, new, arguments, method, ...): an object is made by new(arguments), a list, and used by its method
local function check_life(secret, new, arguments, method, ...)
	for _, half in ipairs(halves(secret)) do
		local count = 0;
		while check(half, "a failure", call_failing, count + 1, new, table.unpack(arguments)) do
			count = count + 1;
		end
		assert.truthy(count > 1);
		local object = new(table.unpack(arguments));
		check(half, method, object[method], object, ...);
		object = nil; -- luacheck: ignore 311
		check(half, "its end", collectgarbage);
	end
end

describe("What is left behind", function ()
	it("is found", function ()
		local pool, jat = core.pool(("s"):rep(core.POOL_SEEDBYTES)), core.jat(HOST, "sealed");
		jat:add_key(0, MASTER);
		pool:add(JID);
		look_for("what nobody has ever had");
		assert.same({ false, false }, { left_behind() });
		look_for(JID);
		pool:remove(JID);
		jat:encode(JID);
		assert.same({ true, true }, { left_behind() });
	end);

	for format, forged in pairs(FORGED) do
		-- which has another tag than the forged one, as that is no secret once it is sent
		local jid = format == "signed" and "other@some-domain.example/abc" or JID;
		for name, secret in pairs(SECRETS) do
			it("by a "..format.." jat is not "..name, function ()
				for _, half in ipairs(halves(secret)) do
					local jat = core.jat(HOST, format);
					check(half, "add_key", jat.add_key, jat, 0, MASTER);
					local token = check(half, "encode", jat.encode, jat, jid);
					assert.equal(jid, check(half, "decode", jat.decode, jat, token));
					assert.equal("forged", select(2, check(half, "decode", jat.decode, jat, forged)));
					check(half, "add_key", jat.add_key, jat, 1, MASTER);
					jat = nil; -- luacheck: ignore 311
					check(half, "its end", collectgarbage);
				end
			end);
		end
	end

	for name, secret in pairs(SECRETS) do
		it("by a short jat is not "..name, function ()
			for _, half in ipairs(halves(secret)) do
				local jat = core.jat(HOST, "short");
				check(half, "add_key", jat.add_key, jat, 0, MASTER);
				local token = check(half, "encode", jat.encode, jat, JID);
				assert.equal("short", select(2, check(half, "decode", jat.decode, jat, token)));
				check(half, "add_key", jat.add_key, jat, 1, MASTER);
				jat = nil; -- luacheck: ignore 311
				check(half, "its end", collectgarbage);
			end
		end);
	end

	it("by a sealed jat is not what a forged token decrypts to", function ()
		local jat = core.jat(HOST, "sealed");
		jat:add_key(0, MASTER);
		assert.equal("forged", select(2, check(FORGED_END, "decode", jat.decode, jat, FORGED.sealed)));
	end);

	local SEED, KEY = bytes "f0e1d2c3b4a5968778695a4b3c2d1e0f", bytes "0123456789abcdeffedcba9876543210";

	it("by a pending table is not its seed", function ()
		local book = core.requesters(("\0"):rep(core.REQUESTERS_SEEDBYTES));
		check_life(SEED, core.pending, { SEED, book }, "add", "backend", "to", "id", JID, "service", 0, 1);
	end);

	it("by a book is not its seed", function ()
		check_life(SEED, core.requesters, { SEED }, "add", JID, "its token");
	end);

	it("by a pool is neither its seed nor its key", function ()
		local seed = SEED..KEY:sub(-8);
		check_life(SEED, core.pool, { seed }, "add", JID);
		check_life(KEY, core.pool, { seed }, "set_strategy", "sender", KEY);
	end);
end);
