-- For spec/core/as_built/memory_spec.lua: what 200,000 typical pending requests cost. This is a process of its
-- own: one that has freed memory before would use that first, and the requests would seem to cost less.
--
-- Prints the bytes in use: before, with the requests, and with the same again after all had gone.

dofile("spec/support/paths.lua");
local core = require "mod_client_proxy.core";
local new_pending = require "spec.support.pending".new;
local process = require "spec.support.process";

local COUNT = 200000;
local BACKEND = "focus@auth.some-domain.example/focus123";
local SERVICE = "focus.meet.some-domain.example";

local pending = new_pending(("s"):rep(core.PENDING_SEEDBYTES));

local function uuid(i)
	return ("%08x-%04x-4%03x-9%03x-%012x"):format(i * 2654435761 & 0xffffffff, i & 0xffff, i >> 8 & 0xfff, i & 0xfff, i);
end

local function add_all()
	for i = 1, COUNT do
		local requester = ("%s@meet.some-domain.example/%08x"):format(uuid(i):sub(1, 21), i);
		local token = "s"..("%078x"):format(i);
		assert(#requester == 55);
		assert(pending:add(BACKEND, SERVICE.."/"..token, uuid(i)..":sendIQ", requester, SERVICE, 0, i));
	end
	assert(#pending == COUNT);
end

local function resident_bytes()
	collectgarbage();
	collectgarbage();
	return process.resident_bytes();
end

local empty = resident_bytes();
add_all();
local full = resident_bytes();
for _ = 1, COUNT do
	pending:expire(math.huge);
end
assert(#pending == 0);
add_all();
print(COUNT, empty, full, resident_bytes());
