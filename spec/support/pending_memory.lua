-- For spec/core/as_built/memory_spec.lua: what 200,000 typical pending requests cost. This is a process of its
-- own: one that has freed memory before would use that first, and the requests would seem to cost less.
--
--     lua5.4 spec/support/pending_memory.lua pending|accounts
--
-- pending: what the table of what is pending takes for the requests, whose requesters are in the book already, and
-- have something else pending there. accounts: what the book takes when as many requesters, which were idle, have
-- something pending, each with a bare JID of its own.
--
-- Prints the bytes in use: before, with the requests, and with the same again after all had gone.

dofile("spec/support/paths.lua");
local core = require "mod_client_proxy.core";
local new_pending = require "spec.support.pending".new;
local process = require "spec.support.process";

local COUNT = 200000;
local BACKEND = "focus@auth.some-domain.example/focus123";
local SERVICE = "focus.meet.some-domain.example";

local pending, book = new_pending(("s"):rep(core.PENDING_SEEDBYTES));

local function uuid(i)
	return ("%08x-%04x-4%03x-9%03x-%012x"):format(i * 2654435761 & 0xffffffff, i & 0xffff, i >> 8 & 0xfff, i & 0xfff, i);
end

local function requester(i)
	local jid = ("%s@meet.some-domain.example/%08x"):format(uuid(i):sub(1, 21), i);
	assert(#jid == 55);
	return jid;
end

local function each(call)
	for i = 1, COUNT do
		call(i);
	end
end

local function hold(i)
	assert(book:hold(requester(i), 1));
end

local function release(i)
	book:release(requester(i), 1);
end

local function add(i)
	local token = "q"..("%012x"):format(i);
	assert(pending:add(BACKEND, SERVICE.."/"..token, uuid(i)..":sendIQ", requester(i), SERVICE, 0, i));
end

local function take()
	assert(pending:expire(math.huge));
end

local function resident_bytes()
	collectgarbage();
	collectgarbage();
	return process.resident_bytes();
end

local begin, finish = add, take;
each(function (i) assert(book:add(requester(i), "")); end);
if arg[1] == "accounts" then
	begin, finish = hold, release;
else
	each(hold);
end

local empty = resident_bytes();
each(begin);
local full = resident_bytes();
each(finish);
assert(#pending == 0);
each(begin);
print(COUNT, empty, full, resident_bytes());
