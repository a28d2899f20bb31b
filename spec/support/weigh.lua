-- For spec/core/weight_spec.lua and spec/lua/weight_spec.lua: the bytes that a pending table counts for a stanza it keeps

local core = require "mod_client_proxy.core";
local new_pending = require "spec.support.pending".new;
local expect = require "spec.support.expect";

-- (stanza) -> what it counts as; nil if it is not kept
return function (stanza)
	local pending = new_pending(("s"):rep(core.PENDING_SEEDBYTES));
	assert(pending:add("f", "t", "i", "requester", "service", 0, 0));
	local bytes = pending:bytes();
	assert(pending:take("f", "t", "i"));
	assert(pending:add("f", "t", "i", "requester", "service", 0, 0, 1, stanza));
	bytes = pending:bytes() - bytes;
	local retries, kept = select(7, pending:take("f", "t", "i"));
	if retries == 0 then
		expect.equal(nil, kept, "what is not kept");
		expect.equal(0, bytes, "bytes of what is not kept");
		return nil;
	end
	expect.equal(stanza, kept, "what is kept");
	return bytes;
end;
