-- A neighbour of mod_client_proxy, for spec/support/chaos.lua: it does to a request what the
-- payload's attribute `ask` asks for, and answers it or throws; at messages and requests of
-- backends, it only throws. On the component it sees the requests and what backends answer, on the
-- requesters' host the errors, whose payload is gone: those it knows by the id.

local st = require "util.stanza";

local XMLNS = "urn:example:chaos";
local ADDRESSES = { "host", "bare", "full" };

local function throw()
	error("thrown on purpose", 0);
end

local function answer(event)
	local stanza = event.stanza;
	event.origin.send(st.reply(stanza):add_child(stanza.tags[1]));
	return true;
end

-- (name, ask): a handler that throws if the payload, which has that name, asks for that
local function throw_on_demand(name, ask)
	return function (event)
		local payload = event.stanza:get_child(name, XMLNS);
		if payload and payload.attr.ask == ask then
			throw();
		end
	end;
end

-- (names of what to do, by what a payload may ask for) -> a handler for IQ
local function on_demand(deeds)
	return function (event)
		local query = event.stanza:get_child("query", XMLNS);
		local deed = query and deeds[event.stanza.attr.type.." "..(query.attr.ask or "")];
		if deed then
			return deed(event);
		end
	end;
end

if module:get_host_type() == "component" then
	-- mod_client_proxy has priorities 10 and -10, mod_iq has 0.
	local first = on_demand { ["get answer-first"] = answer, ["get throw-first"] = throw, ["result throw-at-result"] = throw };
	local before_mod_iq = on_demand { ["set answer-before"] = answer, ["set throw-before"] = throw };
	local last = on_demand { ["get answer-last"] = answer, ["set throw-last"] = throw };
	local in_mod_iq = on_demand { ["get answer"] = answer, ["set answer"] = answer, ["get throw"] = throw };
	for _, address in ipairs(ADDRESSES) do
		module:hook("iq/"..address, first, 20);
		module:hook("iq/"..address, before_mod_iq, 5);
		module:hook("iq/"..address, last, -5);
		module:hook("message/"..address, throw_on_demand("note", "throw-first"), 20);
		module:hook("iq/"..address, throw_on_demand("asks", "throw-first"), 20);
		module:hook("iq-get/"..address.."/"..XMLNS..":query", in_mod_iq);
		module:hook("iq-set/"..address.."/"..XMLNS..":query", in_mod_iq);
	end
else
	module:hook("message/full", throw_on_demand("note", "throw-at-receiver"), 20);
	module:hook("iq/full", throw_on_demand("asks", "throw-at-receiver"), 20);
	-- Nobody's messages are kept: what cannot be delivered comes back.
	module:hook("message/offline/handle", function () return false; end, 10);

	-- What is on its way to a backend, or to a requester. When a backend goes, mod_client_proxy does
	-- something about all that it had while another module, or somebody's login, waits for that: what is
	-- thrown then would hit those. So it throws only when a request is on its way for the first time.
	local seen, seen_before, count = {}, {}, 0;
	local function throw_once(event)
		local query = event.stanza:get_child("query", XMLNS);
		local key = query.attr.what.." "..query.attr.who;
		if not seen[key] and not seen_before[key] then
			if count > 1000 then
				seen, seen_before, count = {}, seen, 0;
			end
			seen[key], count = true, count + 1;
			throw();
		end
	end
	module:hook("iq/full", on_demand { ["get throw-at-backend"] = throw_once, ["result throw-at-requester"] = throw }, 20);
	-- For the same reason, it throws only when a request has timed out.
	module:hook("iq/full", function (event)
		local stanza = event.stanza;
		if stanza.attr.type == "error" and stanza.attr.id and stanza.attr.id:find("throw-at-error", 1, true)
			and select(2, stanza:get_error()) == "remote-server-timeout" then
			throw();
		end
	end, 20);
end
