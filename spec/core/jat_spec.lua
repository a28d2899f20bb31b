local core = require "mod_client_proxy.core";
local new_pending = require "spec.support.pending".new;
local expect = require "spec.support.expect";
local process = require "spec.support.process";
local random = require "spec.support.random";

local HOST = "proxy.domain.example";
local KEY_ID = 17;
local KEY = ("k"):rep(core.JAT_KEYBYTES);
local OTHER_KEY = ("o"):rep(core.JAT_KEYBYTES);
local THIRD_KEY = ("t"):rep(core.JAT_KEYBYTES);

local SEALED_JID_MAX = 735; -- bytes in the longest JID that fits into a sealed token
local SIGNED_JID_MAX = 1000; -- likewise
local JID_MAX = 3071;
local TOKEN_MAX = 1023;
local DIGEST_LEN = 33;
local TAG_LEN = 22; -- behind a signed token's last #
local SHORT_LEN = 13;
-- bytes in a sealed token before its base64url: key id, siv, kind and the JID's blocks
local HEAD, KIND, BLOCK = 25, 1, 32;

local SHORT_JID = "user@some-domain.example/abc";
local LONG_JID = "user@some-domain.example/"..("r"):rep(SEALED_JID_MAX - 25);
local DIGESTED_JID = LONG_JID.."r";

local ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
local REFUSALS = { ["bad-token"] = true, ["unknown-key"] = true, ["forged"] = true };

random.announce("jat_spec");

local function new_codec(key, key_id, host, format)
	local codec = core.jat(host or HOST, format or "sealed");
	codec:add_key(key_id or KEY_ID, key or KEY);
	return codec;
end

local function letter(value)
	return ALPHABET:sub(value + 1, value + 1);
end

local letters, printables = {}, {};
for value = 0, 255 do
	letters[string.char(value)] = letter(value % 64);
	printables[string.char(value)] = string.char(0x20 + value % 95);
end

local function random_base64url(count)
	return (random.bytes(count):gsub(".", letters));
end

local function random_printable(count)
	return (random.bytes(count):gsub(".", printables));
end

local function base64url(data)
	local text = {};
	for i = 1, #data, 3 do
		local first, second, third = data:byte(i, i + 2);
		local bits = first << 16 | (second or 0) << 8 | (third or 0);
		for shift = 18, third and 0 or second and 6 or 12, -6 do
			table.insert(text, letter(bits >> shift & 63));
		end
	end
	return table.concat(text);
end

local function with_byte(token, position, value)
	return token:sub(1, position - 1)..string.char(value)..token:sub(position + 1);
end

local function expect_refused(codec, token, ...)
	local jid, code = codec:decode(token);
	expect.equal(nil, jid, ...);
	expect.that(REFUSALS[code], ...);
	return code;
end

-- A digest says no more than that it is one, so that some change of it is a digest again.
local function expect_no_jid(codec, token, ...)
	local jid, code = codec:decode(token);
	expect.equal(nil, jid, ...);
	expect.that(REFUSALS[code] or code == "digest" and #token == DIGEST_LEN, ...);
end

local function expect_code(code, ...)
	local value, got = ...;
	assert.is_nil(value);
	assert.equal(code, got);
end

describe("core.jat", function ()
	local codec;

	before_each(function ()
		random.restart();
		codec = new_codec();
	end);

	describe("known answers", function ()
		for number, vector in ipairs(dofile("spec/vectors/jat.lua")) do
			local subject;

			before_each(function ()
				subject = new_codec(vector.key, vector.key_id, vector.host, vector.format);
			end);

			it(("make token %d"):format(number), function ()
				assert.equal(vector.token, subject:encode(vector.jid));
			end);

			it(("decode token %d"):format(number), function ()
				if vector.code then
					expect_code(vector.code, subject:decode(vector.token));
				else
					assert.equal(vector.jid, subject:decode(vector.token));
				end
			end);
		end
	end);

	describe("encode and decode", function ()
		it("bring back a JID of any length that can be sealed", function ()
			for length = 1, SEALED_JID_MAX do
				local jid = random.bytes(length);
				local token = codec:encode(jid);
				expect.that(token:find("^s[%w_-]+$"), "length %d", length);
				expect.that(#token <= TOKEN_MAX, "length %d", length);
				expect.equal(jid, codec:decode(token), "length %d", length);
			end
		end);

		it("make a digest of any longer one", function ()
			for length = SEALED_JID_MAX + 1, JID_MAX, process.turns(1, 5) do
				local token = codec:encode(random.bytes(length));
				expect.that(token:find("^d[%w_-]+$"), "length %d", length);
				expect.equal(DIGEST_LEN, #token, "length %d", length);
				local jid, code = codec:decode(token);
				expect.equal(nil, jid, "length %d", length);
				expect.equal("digest", code, "length %d", length);
			end
		end);

		it("keep bytes that are no text", function ()
			for _, jid in ipairs { "\0", "\128", "a\0b@c/\0", "\255\254\192\128", "a\128", "a\128\0", ("\0"):rep(32), ("\128"):rep(64) } do
				assert.equal(jid, codec:decode(codec:encode(jid)));
			end
		end);

		it("give one requester one token", function ()
			local twin = new_codec();
			for length = 1, 1000, 37 do
				local jid = random.bytes(length);
				expect.equal(codec:encode(jid), codec:encode(jid), "length %d", length);
				expect.equal(codec:encode(jid), twin:encode(jid), "length %d", length);
			end
		end);

		it("never give two requesters the same token", function ()
			local requesters = {};
			local function expect_new(jid)
				local token = codec:encode(jid);
				expect.that(requesters[token] == nil or requesters[token] == jid, "%q and %q", requesters[token], jid);
				requesters[token] = jid;
			end
			for _ = 1, process.turns(5000, 500) do
				local jid = random.bytes(math.random(60));
				expect_new(jid);
				-- what padding might add
				expect_new(jid.."\0");
				expect_new(jid.."\128");
				expect_new(jid.."\128\0");
			end
			for _ = 1, process.turns(1000, 100) do
				local jid = random.bytes(math.random(SEALED_JID_MAX + 1, JID_MAX - 1));
				expect_new(jid);
				expect_new(jid.."\0");
			end
		end);

		it("accept a host with any bytes, or none", function ()
			for _, host in ipairs { "", "\0", "a\0b", "\255", ("h"):rep(1023) } do
				local subject = new_codec(KEY, KEY_ID, host);
				assert.equal(SHORT_JID, subject:decode(subject:encode(SHORT_JID)));
			end
		end);
	end);

	describe("failures", function ()
		it("digest: the token of a JID that is too long to be sealed", function ()
			expect_code("digest", codec:decode(codec:encode(DIGESTED_JID)));
		end);

		it("no-key: there is no key to encode with", function ()
			expect_code("no-key", core.jat(HOST, "sealed"):encode(SHORT_JID));
		end);

		it("bad-jid: an empty JID, or one longer than a JID can be", function ()
			expect_code("bad-jid", codec:encode(""));
			expect_code("bad-jid", codec:encode(("j"):rep(JID_MAX + 1)));
			expect_code("bad-jid", codec:encode(("j"):rep(100000)));
		end);

		it("short: a short token, of which nobody can tell by itself whose it is", function ()
			local short = new_codec(KEY, KEY_ID, HOST, "short");
			expect_code("short", short:decode(short:encode(SHORT_JID)));
		end);

		it("plain: what looks like a plain token, of which nobody can tell who made it", function ()
			expect_code("plain", new_codec(KEY, KEY_ID, HOST, "plain"):decode(SHORT_JID));
		end);

		it("bad-token: no token by its form", function ()
			expect_code("bad-token", codec:decode("tea"));
		end);

		it("unknown-key: sealed under a key the codec does not have", function ()
			expect_code("unknown-key", codec:decode(new_codec(KEY, KEY_ID + 1):encode(SHORT_JID)));
		end);

		it("forged: not sealed by this host's key", function ()
			expect_code("forged", codec:decode(new_codec(OTHER_KEY):encode(SHORT_JID)));
		end);
	end);

	describe("decode refuses", function ()
		-- Made with the functions of spec/vectors/jat.py, of "a@b/c" for the host "p" and a key of
		-- 32 NULs, number 7: what only the key's owner could have sealed, but never would have
		local SEALED = {
			{ "of another kind", "bad-token", "sB-tCT2Q2hetD4huOsynP1SX7ups21gUbT8XR31YvBIPlzuFmE7_wQJqSik9rM_FDFgcUdDihbsQNcQ" };
			{ "without padding", "bad-token", "sBynWodWxoFgvwvSQbfWjaPfijc7nE-_xKp2wYk0nr5zbBOtFLcHV3X3hlqKEul6NvI8KfsrGKV8MOg" };
			{ "whose siv is wrong in its first byte only", "forged", "sB0rRhVrUL6k8mfz9zOpbqUODqmQYea8VCxwWNhOUw1FXui4t8a5qjUEjfXqZFY1A14IWXgfXHwB7Kg" };
			{ "whose siv is wrong in its last byte only", "forged", "sB0vRhVrUL6k8mfz9zOpbqUODqmQYea8VCjZuxASCcFAbwQ9RJB_0HRPGmgjtpT1MV3eI3jOLyCEG0A" };
		};

		for _, case in ipairs(SEALED) do
			local what, code, token = table.unpack(case);
			it("a token "..what, function ()
				local subject = new_codec(("\0"):rep(core.JAT_KEYBYTES), 7, "p");
				expect_code(code, subject:decode(token));
			end);
		end

		it("a short token with any byte changed to any other", function ()
			local token = codec:encode(SHORT_JID);
			for position = 1, #token do
				for value = 0, 255, process.turns(1, 5) do
					if value ~= token:byte(position) then
						local code = expect_refused(codec, with_byte(token, position, value), "position %d, value %d", position, value);
						if not ALPHABET:find(string.char(value), 1, true) then
							expect.equal("bad-token", code, "position %d, value %d", position, value);
						end
					end
				end
			end
		end);

		it("a long token with any byte changed", function ()
			local token = codec:encode(LONG_JID);
			for position = 1, #token do
				local value = token:byte(position);
				for _, changed in ipairs { value ~ 1, value ~ 32, value ~ 128, 0, ("="):byte() } do
					expect_refused(codec, with_byte(token, position, changed), "position %d, value %d", position, changed);
				end
				local other = letter((ALPHABET:find(token:sub(position, position), 1, true) + math.random(0, 62)) % 64);
				expect_refused(codec, with_byte(token, position, other:byte()), "position %d, %s", position, other);
			end
		end);

		it("to find a JID in a digest with any byte changed", function ()
			local token = codec:encode(DIGESTED_JID);
			for position = 1, #token do
				for value = 0, 255 do
					expect_no_jid(codec, with_byte(token, position, value), "position %d, value %d", position, value);
				end
			end
			expect_code("bad-token", codec:decode(with_byte(token, 1, ("s"):byte())));
			expect_code("bad-token", codec:decode(with_byte(token, 2, ("+"):byte())));
		end);

		it("a token with two bytes exchanged", function ()
			local token = codec:encode(SHORT_JID);
			for i = 1, #token do
				for j = i + 1, #token do
					if token:byte(i) ~= token:byte(j) then
						expect_refused(codec, with_byte(with_byte(token, i, token:byte(j)), j, token:byte(i)), "%d and %d", i, j);
					end
				end
			end
		end);

		it("any part of a token", function ()
			for _, jid in ipairs { SHORT_JID, LONG_JID, DIGESTED_JID } do
				local token = codec:encode(jid);
				for length = 0, #token - 1 do
					expect_refused(codec, token:sub(1, length), "the first %d", length);
					-- of a sealed token, these can look like a digest
					expect_no_jid(codec, token:sub(-length - 1, -2), "%d before the last", length);
					expect_no_jid(codec, token:sub(#token - length + 1), "the last %d", length);
				end
			end
		end);

		it("a token with more behind or before it", function ()
			for _, jid in ipairs { SHORT_JID, LONG_JID, DIGESTED_JID } do
				local token = codec:encode(jid);
				for value = 0, 255 do
					expect_refused(codec, token..string.char(value), "%d behind", value);
					expect_refused(codec, string.char(value)..token, "%d before", value);
				end
				for count = 1, 100 do
					expect_refused(codec, token..random_base64url(count), "%d behind", count);
					expect_refused(codec, token..("A"):rep(count), "%d A behind", count);
					expect_refused(codec, token..("="):rep(count), "%d = behind", count);
				end
				expect_refused(codec, token..token, "twice");
			end
		end);

		it("what is random, at any length", function ()
			for length = 0, 1100, process.turns(1, 7) do
				expect_no_jid(codec, random.bytes(length), "bytes, length %d", length);
				expect_no_jid(codec, random_base64url(length), "base64url, length %d", length);
				expect_no_jid(codec, ("s"..random_base64url(length)):sub(1, length), "s, length %d", length);
				expect_no_jid(codec, ("d"..random_base64url(length)):sub(1, length), "d, length %d", length);
				expect_no_jid(codec, "s"..random.bytes(length), "s and bytes, length %d", length);
				expect_no_jid(codec, ("A"):rep(length), "A, length %d", length);
				expect_no_jid(codec, "s"..("A"):rep(length), "s and A, length %d", length);
				expect_no_jid(codec, "d"..("A"):rep(length), "d and A, length %d", length);
			end
		end);

		it("what has a token's form and the key's number but no seal", function ()
			for length = 1, 800, process.turns(1, 11) do
				local token = "s"..base64url(string.char(KEY_ID)..random.bytes(length - 1));
				local blocks = (length - HEAD - KIND) / BLOCK;
				local has_form = #token <= TOKEN_MAX and blocks >= 1 and blocks == blocks // 1;
				local code = expect_refused(codec, token, "length %d", length);
				expect.equal(has_form and "forged" or "bad-token", code, "length %d", length);
			end
		end);

		it("what is far too long", function ()
			expect_code("bad-token", codec:decode("s"..("A"):rep(1000000)));
			expect_code("bad-token", codec:decode("d"..("A"):rep(1000000)));
		end);

		it("the base64 of another dialect", function ()
			-- one that the dialects write differently in both letters
			local token;
			for _ = 1, 1000 do
				token = codec:encode(random.bytes(60));
				if token:find("_", 1, true) and token:find("-", 1, true) then
					break;
				end
			end
			assert.is_truthy(token:find("_", 1, true) and token:find("-", 1, true));
			expect_code("bad-token", codec:decode((token:gsub("[_-]", { ["_"] = "/", ["-"] = "+" }))));
			expect_code("bad-token", codec:decode(token.."="));
			expect_code("bad-token", codec:decode(token:sub(1, 20).."\n"..token:sub(21)));
			expect_code("bad-token", codec:decode(token:sub(1, 20).." "..token:sub(21)));
		end);

		it("a token whose last letter has bits that say nothing", function ()
			local token = codec:encode(SHORT_JID);
			local last = ALPHABET:find(token:sub(-1), 1, true) - 1;
			-- 58 bytes leave four such bits
			assert.equal(0, last % 16);
			for bits = 1, 15 do
				expect_code("bad-token", codec:decode(token:sub(1, -2)..letter(last + bits)));
			end
		end);

		it("tokens of another host", function ()
			for _, host in ipairs { "other.domain.example", HOST.."e", HOST:sub(1, -2), HOST.."\0", "" } do
				local other = new_codec(KEY, KEY_ID, host);
				expect_code("forged", codec:decode(other:encode(SHORT_JID)));
				expect_code("forged", other:decode(codec:encode(SHORT_JID)));
			end
		end);

		it("any key's number but its own", function ()
			local token = codec:encode(SHORT_JID);
			for key_id = 0, 255 do
				local other = new_codec(OTHER_KEY, key_id);
				expect.equal(key_id == KEY_ID and "forged" or "unknown-key", select(2, other:decode(token)), "number %d", key_id);
			end
		end);

		it("a sealed token where there is no key", function ()
			local empty = core.jat(HOST, "sealed");
			expect_code("unknown-key", empty:decode(codec:encode(SHORT_JID)));
			expect_code("unknown-key", empty:decode(new_codec(KEY, 0):encode(SHORT_JID)));
			expect_code("digest", empty:decode(codec:encode(DIGESTED_JID)));
		end);
	end);

	describe("add_key", function ()
		it("keeps the tokens of the key before", function ()
			local before = codec:encode(SHORT_JID);
			codec:add_key(KEY_ID + 1, OTHER_KEY);
			local after = codec:encode(SHORT_JID);
			assert.not_equal(before, after);
			assert.equal(new_codec(OTHER_KEY, KEY_ID + 1):encode(SHORT_JID), after);
			assert.equal(SHORT_JID, codec:decode(before));
			assert.equal(SHORT_JID, codec:decode(after));
		end);

		it("gives up the key before that", function ()
			local first = codec:encode(SHORT_JID);
			codec:add_key(KEY_ID + 1, OTHER_KEY);
			local second = codec:encode(SHORT_JID);
			codec:add_key(KEY_ID + 2, THIRD_KEY);
			expect_code("unknown-key", codec:decode(first));
			assert.equal(SHORT_JID, codec:decode(second));
			assert.equal(SHORT_JID, codec:decode(codec:encode(SHORT_JID)));
		end);

		it("lets the numbers start again", function ()
			local subject = new_codec(KEY, 255);
			local before = subject:encode(SHORT_JID);
			subject:add_key(0, OTHER_KEY);
			assert.equal(SHORT_JID, subject:decode(before));
			assert.equal(SHORT_JID, subject:decode(subject:encode(SHORT_JID)));
		end);

		it("prefers the current key to another of the same number", function ()
			local before = codec:encode(SHORT_JID);
			codec:add_key(KEY_ID, OTHER_KEY);
			expect_code("forged", codec:decode(before));
			assert.equal(SHORT_JID, codec:decode(codec:encode(SHORT_JID)));
		end);

		it("makes another digest, too", function ()
			local before = codec:encode(DIGESTED_JID);
			codec:add_key(KEY_ID, OTHER_KEY);
			assert.not_equal(before, codec:encode(DIGESTED_JID));
		end);

		it("changes the token with any bit of the key", function ()
			local tokens = { [codec:encode(SHORT_JID)] = true };
			for bit = 0, #KEY * 8 - 1 do
				local position = bit // 8 + 1;
				local key = with_byte(KEY, position, KEY:byte(position) ~ 1 << bit % 8);
				local token = new_codec(key):encode(SHORT_JID);
				expect.that(not tokens[token], "bit %d", bit);
				tokens[token] = true;
			end
		end);
	end);

	describe("signed tokens", function ()
		local signing;

		before_each(function ()
			signing = new_codec(KEY, KEY_ID, HOST, "signed");
		end);

		it("are the JID and a tag, for a JID of any length that fits", function ()
			for length = 1, SIGNED_JID_MAX, process.turns(1, 3) do
				local jid = random_printable(length);
				local token = signing:encode(jid);
				expect.equal(jid.."#", token:sub(1, length + 1), "length %d", length);
				expect.that(token:find("^[%w_-]+$", length + 2), "length %d", length);
				expect.equal(length + 1 + TAG_LEN, #token, "length %d", length);
				expect.equal(jid, signing:decode(token), "length %d", length);
			end
		end);

		it("are digests for any longer one, those of every format", function ()
			for length = SIGNED_JID_MAX + 1, JID_MAX, process.turns(1, 5) do
				local jid = ("j"):rep(length);
				local token = signing:encode(jid);
				expect.equal(codec:encode(jid), token, "length %d", length);
				expect.equal("digest", select(2, signing:decode(token)), "length %d", length);
			end
		end);

		it("are digests for a JID with a byte that resourceprep might change", function ()
			for value = 0, 255 do
				for position = 1, #SHORT_JID do
					local jid = with_byte(SHORT_JID, position, value);
					local token = signing:encode(jid);
					if value >= 0x20 and value <= 0x7E then
						expect.equal(jid, signing:decode(token), "value %d at %d", value, position);
					else
						expect.that(token:find("^d[%w_-]+$"), "value %d at %d", value, position);
						expect.equal(DIGEST_LEN, #token, "value %d at %d", value, position);
					end
				end
			end
		end);

		it("may have any # in the JID", function ()
			local jid = SHORT_JID;
			for _, more in ipairs { "", "#", "##", "#"..("A"):rep(TAG_LEN), "#"..("A"):rep(TAG_LEN).."#", "#x" } do
				assert.equal(jid..more, signing:decode(signing:encode(jid..more)));
				assert.equal(more..jid, signing:decode(signing:encode(more..jid)));
			end
			while #jid <= SIGNED_JID_MAX do -- a token as a JID
				local token = signing:encode(jid);
				assert.equal(jid, signing:decode(token));
				jid = token;
			end
		end);

		for what, jid in pairs {
			["short"] = SHORT_JID,
			["with several #"] = "#user@some-domain.example/#"..("A"):rep(TAG_LEN).."#",
		} do
			it("are refused with any byte changed to any other: "..what, function ()
				local token = signing:encode(jid);
				for position = 1, #token do
					for value = 0, 255, process.turns(1, 5) do
						if value ~= token:byte(position) then
							local code = expect_refused(signing, with_byte(token, position, value), "position %d, value %d", position, value);
							if position <= #jid then
								expect.equal("forged", code, "position %d, value %d", position, value);
							elseif position == #jid + 1 or not ALPHABET:find(string.char(value), 1, true) then
								expect.equal("bad-token", code, "position %d, value %d", position, value);
							end
						end
					end
				end
			end);
		end

		it("are refused with any byte changed: as long as can be", function ()
			local token = signing:encode("user@some-domain.example/"..random_printable(SIGNED_JID_MAX - 25));
			assert.equal(TOKEN_MAX, #token);
			for position = 1, #token do
				local value = token:byte(position);
				for _, changed in ipairs { value ~ 1, value ~ 32, value ~ 128, 0, ("#"):byte() } do
					if changed ~= value then
						expect_refused(signing, with_byte(token, position, changed), "position %d, value %d", position, changed);
					end
				end
			end
		end);

		it("are refused in part, and with more behind or before", function ()
			for _, jid in ipairs { "a", SHORT_JID, "a#"..SHORT_JID } do
				local token = signing:encode(jid);
				for length = 0, #token - 1 do
					expect_refused(signing, token:sub(1, length), "the first %d", length);
					expect_refused(signing, token:sub(#token - length + 1), "the last %d", length);
				end
				for value = 0, 255 do
					expect_refused(signing, token..string.char(value), "%d behind", value);
					expect_refused(signing, string.char(value)..token, "%d before", value);
				end
				expect_refused(signing, token..token, "twice");
				expect_refused(signing, token:sub(1, -TAG_LEN - 2)..token:sub(-TAG_LEN), "without #");
			end
		end);

		it("are refused with the tag of another requester", function ()
			for _, other in ipairs { "User@some-domain.example/abc", "user@some-domain.example/ab", "user@some-domain.example", "a" } do
				expect_code("forged", signing:decode(SHORT_JID..signing:encode(other):sub(-TAG_LEN - 1)));
			end
		end);

		it("are refused when the tag's last letter has bits that say nothing", function ()
			local token = signing:encode(SHORT_JID);
			local last = ALPHABET:find(token:sub(-1), 1, true) - 1;
			assert.equal(0, last % 16); -- 16 bytes leave four such bits
			for bits = 1, 15 do
				expect_code("bad-token", signing:decode(token:sub(1, -2)..letter(last + bits)));
			end
		end);

		-- Made with the functions of spec/vectors/jat.py for the host "p" and a key of 32 NULs
		for what, case in pairs {
			["of nobody"] = { "bad-token", "#1t8xsR3akTxXxNYUeC8_nA" },
			["of another kind"] = { "forged", "a@b/c#G8ahyEOauvCqqK-8NvKu1g" },
			["made with 32 NULs, which are no key"] = { "forged", "a@b/c#sI6bLqzIApH1iYsaYA4i5Q" },
			["made with the key that seals"] = { "forged", "a@b/c#w6pZhQ91GOB9ZuGCCkSWew" },
			["whose tag is wrong in its first byte only"] = { "forged", "a@b/c#xc7VVBf_Wn6pN9xh9bl4tA" },
			["whose tag is wrong in its last byte only"] = { "forged", "a@b/c#xM7VVBf_Wn6pN9xh9bl4tQ" },
		} do
			it("are refused: one "..what, function ()
				local code, token = table.unpack(case);
				expect_code(code, new_codec(("\0"):rep(core.JAT_KEYBYTES), 7, "p", "signed"):decode(token));
			end);
		end

		it("are refused when they are another host's", function ()
			for _, host in ipairs { "other.domain.example", HOST.."e", HOST:sub(1, -2), HOST.."\0", HOST.."\0\1", "" } do
				local other = new_codec(KEY, KEY_ID, host, "signed");
				expect_code("forged", signing:decode(other:encode(SHORT_JID)));
				expect_code("forged", other:decode(signing:encode(SHORT_JID)));
			end
		end);

		it("are refused where there is no key", function ()
			local empty = core.jat(HOST, "signed");
			expect_code("no-key", empty:encode(SHORT_JID));
			expect_code("forged", empty:decode(signing:encode(SHORT_JID)));
		end);

		it("outlive their key by one generation, whatever its number", function ()
			for _, key_id in ipairs { KEY_ID, KEY_ID + 1 } do
				local subject = new_codec(KEY, KEY_ID, HOST, "signed");
				local first = subject:encode(SHORT_JID);
				subject:add_key(key_id, OTHER_KEY);
				local second = subject:encode(SHORT_JID);
				assert.not_equal(first, second);
				assert.equal(SHORT_JID, subject:decode(first));
				assert.equal(SHORT_JID, subject:decode(second));
				subject:add_key(key_id, THIRD_KEY);
				expect_code("forged", subject:decode(first));
				assert.equal(SHORT_JID, subject:decode(second));
				assert.equal(SHORT_JID, subject:decode(subject:encode(SHORT_JID)));
			end
		end);

		it("are not made of nobody, nor of more than a JID", function ()
			expect_code("bad-jid", signing:encode(""));
			expect_code("bad-jid", signing:encode(("j"):rep(JID_MAX + 1)));
		end);
	end);

	describe("plain tokens", function ()
		local plain;

		before_each(function ()
			plain = new_codec(KEY, KEY_ID, HOST, "plain");
		end);

		it("are the JID, of any length that fits", function ()
			for length = 1, TOKEN_MAX do
				local jid = ("j"):rep(length);
				expect.equal(jid, plain:encode(jid), "length %d", length);
			end
		end);

		it("are digests for any longer one, those of every format", function ()
			for length = TOKEN_MAX + 1, JID_MAX, process.turns(1, 5) do
				local jid = ("j"):rep(length);
				expect.equal(codec:encode(jid), plain:encode(jid), "length %d", length);
			end
		end);

		it("are digests for a JID with a byte that resourceprep might change", function ()
			for value = 0, 255 do
				local jid = SHORT_JID..string.char(value).."x";
				if value >= 0x20 and value <= 0x7E then
					expect.equal(jid, plain:encode(jid), "value %d", value);
				else
					expect.equal(DIGEST_LEN, #plain:encode(jid), "value %d", value);
					expect_code("digest", plain:decode(plain:encode(jid)));
				end
			end
		end);

		it("are digests for a JID that looks like one", function ()
			local digest = plain:encode(DIGESTED_JID..("r"):rep(TOKEN_MAX));
			expect_code("digest", plain:decode(digest));
			assert.not_equal(digest, plain:encode(digest));
			expect_code("digest", plain:decode(plain:encode(digest)));
			for position = 1, #digest do
				for value = 0x20, 0x7E do
					local jid = with_byte(digest, position, value);
					local looks_alike = jid:find("^[bd][%w_-]+$") ~= nil;
					expect.equal(looks_alike, plain:encode(jid) ~= jid, "value %d at %d", value, position);
				end
			end
		end);

		it("are digests for a JID that looks like the token of a backend, as that of a host can", function ()
			for _, jid in ipairs { "backendserver", "b"..("A-_z"):rep(3), "b"..("A-_z"):rep(8) } do
				expect.equal(DIGEST_LEN, #plain:encode(jid), "%q", jid);
			end
			for _, jid in ipairs { "backend-server", "backendserve", "backend.serve", "b"..("A-_z"):rep(8).."x", "qackendserver" } do
				assert.equal(jid, plain:encode(jid));
			end
		end);

		it("look like a JID with a node, made here or not", function ()
			local function looks_plain(text)
				return (text:find("^[^@/]+@[^@/]+$") or text:find("^[^@/]+@[^@/]+/.+$")) ~= nil;
			end
			local function expect_decoded(text)
				local jid, code = plain:decode(text);
				expect.equal(nil, jid, "%q", text);
				expect.equal(looks_plain(text) and "plain" or "bad-token", code, "%q", text);
			end
			local function extend(text, count)
				expect_decoded(text);
				for _, byte in ipairs(count > 0 and { "a", "@", "/", "#", " " } or {}) do
					extend(text..byte, count - 1);
				end
			end
			extend("", process.turns(7, 5));
			for length = 1, TOKEN_MAX - 4 do
				expect_decoded("a@b/"..("r"):rep(length));
				expect_decoded(("n"):rep(length).."@b/c");
			end
		end);

		it("do not look like anything that they cannot be", function ()
			for value = 0, 255 do
				local text = "a@b/c"..string.char(value);
				expect.equal(value >= 0x20 and value <= 0x7E and "plain" or "bad-token", select(2, plain:decode(text)), "value %d", value);
			end
			expect_code("bad-token", plain:decode("a@b/"..("r"):rep(TOKEN_MAX - 3)));
		end);

		it("are not made of nobody, of more than a JID, or without a key", function ()
			expect_code("bad-jid", plain:encode(""));
			expect_code("bad-jid", plain:encode(("j"):rep(JID_MAX + 1)));
			expect_code("no-key", core.jat(HOST, "plain"):encode(SHORT_JID));
		end);
	end);

	describe("short tokens", function ()
		local short;

		before_each(function ()
			short = new_codec(KEY, KEY_ID, HOST, "short");
		end);

		it("have 13 letters for a JID of any length and any bytes", function ()
			for length = 1, JID_MAX, process.turns(1, 11) do
				local token = short:encode(random.bytes(length));
				expect.that(token:find("^q[%w_-]+$"), "length %d", length);
				expect.equal(SHORT_LEN, #token, "length %d", length);
				expect.equal("short", select(2, short:decode(token)), "length %d", length);
			end
		end);

		it("are one for one requester", function ()
			local twin = new_codec(KEY, KEY_ID, HOST, "short");
			for length = 1, 1000, 37 do
				local jid = random.bytes(length);
				expect.equal(short:encode(jid), short:encode(jid), "length %d", length);
				expect.equal(short:encode(jid), twin:encode(jid), "length %d", length);
			end
		end);

		it("are different ones for JIDs that differ, however little", function ()
			local requesters = {};
			local function expect_new(jid)
				local token = short:encode(jid);
				expect.that(requesters[token] == nil or requesters[token] == jid, "%q and %q", requesters[token], jid);
				requesters[token] = jid;
			end
			for _ = 1, process.turns(20000, 500) do
				local jid = random.bytes(math.random(60));
				expect_new(jid);
				expect_new(jid.."\0");
				expect_new("\0"..jid);
				expect_new("\1"..jid);
			end
			for position = 1, #SHORT_JID do
				for value = 0, 255 do
					expect_new(with_byte(SHORT_JID, position, value));
				end
			end
		end);

		it("differ in every letter", function ()
			local seen = {};
			for place = 2, SHORT_LEN do
				seen[place] = {};
			end
			for number = 1, 5000 do
				local token = short:encode("requester"..number);
				for place = 2, SHORT_LEN do
					seen[place][token:sub(place, place)] = true;
				end
			end
			for place, found in pairs(seen) do
				local count = 0;
				for _ in pairs(found) do
					count = count + 1;
				end
				expect.equal(64, count, "letters in place %d", place);
			end
		end);

		it("are others under another key, of another host", function ()
			local token = short:encode(SHORT_JID);
			assert.not_equal(token, new_codec(OTHER_KEY, KEY_ID, HOST, "short"):encode(SHORT_JID));
			for _, host in ipairs { "other.domain.example", HOST.."e", HOST:sub(1, -2), HOST.."\0", HOST.."\0\1", "" } do
				assert.not_equal(token, new_codec(KEY, KEY_ID, host, "short"):encode(SHORT_JID));
			end
		end);

		it("go by the key alone, not by its number, and are others with the next one", function ()
			local token = short:encode(SHORT_JID);
			assert.equal(token, new_codec(KEY, KEY_ID + 1, HOST, "short"):encode(SHORT_JID));
			short:add_key(KEY_ID, OTHER_KEY);
			local following = short:encode(SHORT_JID);
			assert.not_equal(token, following);
			assert.equal(new_codec(OTHER_KEY, 0, HOST, "short"):encode(SHORT_JID), following);
			expect_code("short", short:decode(token));
			expect_code("short", short:decode(following));
		end);

		it("change with any bit of the key", function ()
			local tokens = { [short:encode(SHORT_JID)] = true };
			for bit = 0, #KEY * 8 - 1 do
				local position = bit // 8 + 1;
				local key = with_byte(KEY, position, KEY:byte(position) ~ 1 << bit % 8);
				local token = new_codec(key, KEY_ID, HOST, "short"):encode(SHORT_JID);
				expect.that(not tokens[token], "bit %d", bit);
				tokens[token] = true;
			end
		end);

		it("tell nobody's JID, whatever is decoded", function ()
			local function expect_decoded(text)
				local jid, code = short:decode(text);
				local looks_short = text:find("^q[%w_-]+$") and #text == SHORT_LEN;
				-- 24 bytes and 9 bytes fill their letters, so that any of them are canonical
				local looks_digested = text:find("^d[%w_-]+$") and #text == DIGEST_LEN;
				expect.equal(nil, jid, "%q", text);
				expect.equal(looks_short and "short" or looks_digested and "digest" or "bad-token", code, "%q", text);
			end
			for length = 0, 1100, process.turns(1, 7) do
				expect_decoded(random.bytes(length));
				expect_decoded(random_base64url(length));
				expect_decoded("q"..random_base64url(length));
				expect_decoded("d"..random_base64url(length));
				expect_decoded("q"..random.bytes(length));
			end
			for _ = 1, process.turns(2000, 100) do
				expect_decoded(random.bytes(SHORT_LEN));
				expect_decoded("q"..random.bytes(SHORT_LEN - 1));
				expect_decoded("q"..random_base64url(SHORT_LEN - 1));
				expect_decoded("d"..random_base64url(DIGEST_LEN - 1));
			end
			local token = short:encode(SHORT_JID);
			for position = 1, #token do
				for value = 0, 255 do
					expect_decoded(with_byte(token, position, value));
				end
			end
			for length = 0, #token do
				expect_decoded(token:sub(1, length));
				expect_decoded(token:sub(-length));
			end
			for value = 0, 255 do
				expect_decoded(token..string.char(value));
				expect_decoded(string.char(value)..token);
			end
		end);

		it("are told by their form where there is no key", function ()
			local empty = core.jat(HOST, "short");
			expect_code("no-key", empty:encode(SHORT_JID));
			expect_code("short", empty:decode(short:encode(SHORT_JID)));
		end);

		it("are not made of nobody, nor of more than a JID", function ()
			expect_code("bad-jid", short:encode(""));
			expect_code("bad-jid", short:encode(("j"):rep(JID_MAX + 1)));
		end);
	end);

	it("takes tokens of its own format only, and digests", function ()
		local tokens, codecs = {}, {};
		for _, format in ipairs { "short", "sealed", "signed", "plain" } do
			codecs[format] = new_codec(KEY, KEY_ID, HOST, format);
			tokens[format] = codecs[format]:encode(SHORT_JID);
		end
		expect_code("bad-token", codecs.sealed:decode(tokens.signed));
		expect_code("bad-token", codecs.sealed:decode(tokens.plain));
		expect_code("bad-token", codecs.signed:decode(tokens.sealed));
		expect_code("bad-token", codecs.signed:decode(tokens.plain));
		expect_code("bad-token", codecs.plain:decode(tokens.sealed));
		expect_code("plain", codecs.plain:decode(tokens.signed)); -- which could be a JID, too
		expect_code("short", codecs.short:decode(tokens.short));
		for _, format in ipairs { "sealed", "signed", "plain" } do
			expect_code("bad-token", codecs.short:decode(tokens[format]));
			expect_code("bad-token", codecs[format]:decode(tokens.short));
		end
		local digest = codecs.sealed:encode(("j"):rep(JID_MAX));
		for format, subject in pairs(codecs) do
			if format ~= "short" then -- which has the same length for all
				assert.equal(digest, subject:encode(("j"):rep(JID_MAX)));
			end
			expect_code("digest", subject:decode(digest));
		end
	end);

	describe("mistakes raise:", function ()
		it("a key of another length", function ()
			for _, length in ipairs { 0, 31, 33, 64 } do
				expect.raises(("32 bytes expected, got %d"):format(length), codec.add_key, codec, KEY_ID, ("k"):rep(length));
			end
		end);

		it("a key's number out of range", function ()
			for _, key_id in ipairs { -1, 256, math.mininteger, math.maxinteger } do
				expect.raises("0 to 255 expected", codec.add_key, codec, key_id, KEY);
			end
			expect.raises("integer", codec.add_key, codec, 1.5, KEY);
		end);

		it("arguments of a wrong type, or none", function ()
			for _, wrong in ipairs { false, {}, print, codec } do
				expect.raises("string expected", core.jat, wrong, "sealed");
				expect.raises("string expected", core.jat, HOST, wrong);
				expect.raises("string expected", codec.encode, codec, wrong);
				expect.raises("string expected", codec.decode, codec, wrong);
				expect.raises("number expected", codec.add_key, codec, wrong, KEY);
				expect.raises("string expected", codec.add_key, codec, KEY_ID, wrong);
			end
			expect.raises("string expected", core.jat);
			expect.raises("string expected", core.jat, HOST);
			expect.raises("string expected", codec.encode, codec);
			expect.raises("string expected", codec.decode, codec);
			expect.raises("number expected", codec.add_key, codec);
			expect.raises("string expected", codec.add_key, codec, KEY_ID);
		end);

		it("a format that there is not", function ()
			for _, format in ipairs { "", "open", "seal", "sealed ", "Sealed", "digest", "Short" } do
				expect.raises(("invalid option '%s'"):format(format), core.jat, HOST, format);
			end
		end);

		it("an object that is no codec", function ()
			local others = { core.pool(("s"):rep(core.POOL_SEEDBYTES)), new_pending(("s"):rep(core.PENDING_SEEDBYTES)), io.stdout, {}, "s" };
			for _, method in ipairs { codec.add_key, codec.encode, codec.decode, getmetatable(codec).__gc } do
				for _, other in ipairs(others) do
					expect.raises("mod_client_proxy.jat expected", method, other, "a", KEY);
				end
				expect.raises("mod_client_proxy.jat expected", method);
			end
		end);

		it("a codec that has been collected", function ()
			local collect = getmetatable(codec).__gc;
			collect(codec);
			collect(codec);
			expect.raises("already collected", codec.encode, codec, SHORT_JID);
			expect.raises("already collected", codec.decode, codec, "s");
			expect.raises("already collected", codec.add_key, codec, KEY_ID, KEY);
		end);
	end);

	it("works on while others are collected", function ()
		local token = codec:encode(SHORT_JID);
		for _ = 1, 100 do
			new_codec(OTHER_KEY):encode(SHORT_JID);
		end
		collectgarbage();
		assert.equal(SHORT_JID, codec:decode(token));
	end);

	it("gives back its memory", function ()
		process.stays_flat(function ()
			for i = 1, process.turns(5000, 100) do
				new_codec():encode(SHORT_JID);
				if i % 100 == 0 then
					collectgarbage();
				end
			end
		end, 2 * 1024 * 1024);
	end);
end);
