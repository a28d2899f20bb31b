-- How a backend gets an IQ request: recorded as pending first, then sent. Nothing else goes this way.

local delivery = module:require "delivery";

local send = delivery.send;

local handover = {};

-- (setup) -> hand_over
-- setup: { exchange, deadlines }
function handover.new(setup)
	local exchange, deadlines = setup.exchange, setup.deadlines;
	local dispatch, watch = exchange.dispatch, deadlines.watch; -- every request needs them

	-- (stanza, requester, service, id, time, deadline, retries[, backend]) -> true | nil, a name of failures.lua
	-- stanza: it is changed and sent, and kept if it is a get that can be sent again; time (now), deadline: on util.time's
	-- clock; retries: how often it can be sent again, if it is a get; backend: the one that gets it, or nil: one is chosen
	return function (stanza, requester, service, id, time, deadline, retries, backend)
		local attr = stanza.attr;
		local chosen, address = dispatch(exchange, requester, service, id, time, deadline,
			attr.type == "get" and retries or 0, stanza, backend);
		if not chosen then
			return nil, address;
		end
		watch(deadlines, deadline);
		attr.from, attr.to = address, chosen;
		send(stanza, chosen);
		return true;
	end;
end

return handover;
