-- How a backend gets an IQ request: recorded as pending first, then sent. Nothing else goes this way.

local delivery = module:require "delivery";

local send = delivery.send;

local handover = {};

-- (setup) -> hand_over
-- setup: { addresses, pending, deadlines }
function handover.new(setup)
	local addresses, pending, deadlines = setup.addresses, setup.pending, setup.deadlines;
	local translate, watch = addresses.translate, deadlines.watch; -- every request needs them

	-- (stanza, backend, requester, service, id, added, deadline, retries) -> true | nil, a name of failures.lua
	-- stanza: it is changed and sent, and kept if it is a get that can be sent again; added, deadline: on util.time's clock;
	-- retries: how often it can be sent again, if it is a get
	return function (stanza, backend, requester, service, id, added, deadline, retries)
		local attr = stanza.attr;
		local translated = translate(addresses, requester, service);
		if not translated then
			return nil, "bad-address";
		end
		local ok, failure = pending:add(backend, translated, id, requester, service, added, deadline,
			attr.type == "get" and retries or 0, stanza);
		if ok then
			watch(deadlines, deadline);
			attr.from, attr.to = translated, backend;
			send(stanza, backend);
		end
		return ok, failure;
	end;
end

return handover;
