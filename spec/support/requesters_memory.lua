-- For spec/core/as_built/memory_spec.lua: what 200,000 typical requesters in the book cost, as
-- spec/support/pending_memory.lua has it for pending requests. All of them are forgotten in between by adding
-- as many others.
--
-- Prints the bytes in use: before, with the requesters, and with the others.

dofile("spec/support/paths.lua");
local core = require "mod_client_proxy.core";
local process = require "spec.support.process";

local COUNT = 200000;

local book = core.requesters(("s"):rep(core.REQUESTERS_SEEDBYTES));

-- As unlike each other as tokens are
local function token_of(i)
	return string.pack("<I8B", i * 0x9e3779b97f4a7c15, i & 0xf);
end

local function add(from, to)
	for i = from, to do
		local node = ("%08x-%04x-4%03x-9%01x"):format(i * 2654435761 & 0xffffffff, i & 0xffff, i >> 8 & 0xfff, i & 0xf);
		local jid = ("%s@meet.some-domain.example/%08x"):format(node, i);
		assert(#jid == 55);
		assert(#token_of(i) == 9);
		assert(book:add(jid, token_of(i)));
	end
	assert(#book == COUNT);
end

local function resident_bytes()
	collectgarbage();
	collectgarbage();
	return process.resident_bytes();
end

local empty = resident_bytes();
add(1, COUNT);
local full = resident_bytes();
book:set_max(COUNT);
add(COUNT + 1, 2 * COUNT);
assert(not book:resolve(token_of(COUNT)));
print(COUNT, empty, full, resident_bytes());
