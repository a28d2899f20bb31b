-- Who can serve: the presence subscription to the target (RFC 6121 section 3),
-- and the backends it tells of (section 4).

local jid_bare = require "util.jid".bare;
local jid_resource = require "util.jid".resource;
local st = require "util.stanza";

local backends = {};

-- (target, pool) -> backends
-- target: the prepared bare JID; pool: filled and emptied here from now on
function backends.new(target, pool)
	local function send_presence(to, type)
		module:send(st.presence({ from = module.host, to = to, type = type }));
	end

	local function note_change(before, jid)
		local count = #pool;
		if count == before then
			return;
		end
		module:log("debug", "%s %s: %d backends", jid, count > before and "came" or "went", count);
		if before == 0 then
			module:log("info", "The target is online, requests are served");
		elseif count == 0 then
			module:log("info", "No resource of the target is online, requests are refused");
		end
	end

	local function came(from)
		local before = #pool;
		if not jid_resource(from) then
			return;
		end
		local ok, failure = pool:add(from);
		if ok == nil then
			module:log("error", "A backend cannot be used: %s", failure);
		end
		note_change(before, from);
	end

	-- From the bare address: no resource is left (RFC 6121 section 4.3.2)
	local function went(from)
		local before = #pool;
		if jid_resource(from) then
			pool:remove(from);
		else
			pool:clear();
		end
		note_change(before, from);
	end

	local on_target_presence = {
		available = came;
		unavailable = went;
		error = went;
		unsubscribed = function (from)
			went(jid_bare(from));
		end;
		subscribed = function ()
			-- Prosody sends no presence on behalf of an account that approved in advance
			send_presence(target, "probe");
		end;
		subscribe = function (from)
			send_presence(jid_bare(from), "subscribed");
			send_presence(jid_bare(from));
		end;
		probe = function (from)
			send_presence(from);
		end;
	};

	-- for presence/host, presence/bare, presence/full; presence is never answered with an error
	local function on_presence(event)
		local attr = event.stanza.attr;
		local type = attr.type or "available";
		local handler = on_target_presence[type];
		if handler and attr.to == module.host and jid_bare(attr.from) == target then
			handler(attr.from);
		elseif type == "subscribe" then
			module:send(st.presence({ from = jid_bare(attr.to), to = jid_bare(attr.from), type = "unsubscribed" }));
		end
		return true;
	end

	-- Asks for the subscription; where it exists already that is answered at once,
	-- too (RFC 6121 section 3.1.3). No probe before it is: Prosody, refusing that,
	-- would also forget the request that waits for the target's approval.
	local function subscribe()
		send_presence(target, "subscribe");
	end

	return {
		on_presence = on_presence;
		subscribe = subscribe;
	};
end

return backends;
