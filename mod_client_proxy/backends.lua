-- Who can serve: the presence subscription to the target (RFC 6121 section 3),
-- and the backends it tells of (section 4).

local jid_bare = require "util.jid".bare;
local jid_host = require "util.jid".host;
local jid_resource = require "util.jid".resource;
local new_id = require "util.id".medium;
local st = require "util.stanza";

local backends = {};

-- (setup) -> the handlers for presence and IQ events, and more
-- setup: { target (the prepared bare JID), pool (filled and emptied here from now on),
--          timeout (seconds to answer a ping), pings (what save() returned before a reload),
--          is_bounce(origin, stanza): whether an answer is a server's, not the backend's;
--          on_came(backend), on_gone(backend): to be told before one is in the pool, and after }
function backends.new(setup)
	local target, pool = setup.target, setup.pool;
	local pings = {}; -- by a suspended backend: the id of the ping that it has to answer

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

	local function is_hibernating(jid)
		local session = prosody.full_sessions[jid];
		return session and session.hibernating;
	end

	local function came(from)
		if not jid_resource(from) or pool:state(from) then
			return;
		end
		local before = #pool;
		setup.on_came(from);
		local ok, failure = pool:add(from);
		if not ok then
			module:log("error", "A backend cannot be used: %s", failure);
		elseif is_hibernating(from) then
			pool:set(from, "away");
		end
		note_change(before, from);
	end

	local function remove(backend)
		pings[backend] = nil;
		pool:remove(backend);
		setup.on_gone(backend);
	end

	-- From the bare address: no resource is left (RFC 6121 section 4.3.2)
	local function went(from)
		local before = #pool;
		if jid_resource(from) then
			remove(from);
		else
			while #pool > 0 do
				remove(pool:any());
			end
		end
		note_change(before, from);
	end

	-- It cannot be reached: is the target there at all?
	local function drop(backend)
		if pool:state(backend) then
			went(backend);
			send_presence(target, "probe");
		end
	end

	-- It has let a request time out: nothing new for it until it answers a ping (XEP-0199)
	local function suspect(backend)
		if pool:state(backend) ~= "ready" then
			return;
		end
		local id = new_id();
		pool:set(backend, "suspended");
		pings[backend] = id;
		module:log("debug", "%s is suspended until it answers a ping", backend);
		module:add_timer(setup.timeout, function ()
			if pings[backend] == id then
				drop(backend);
			end
		end);
		module:send(st.iq({ type = "get", id = id, from = module.host, to = backend }):tag("ping", { xmlns = "urn:xmpp:ping" }));
	end

	-- for iq/host: an answer to a ping, even an error, shows that the backend is alive
	local function on_iq(event)
		local attr = event.stanza.attr;
		if not pings[attr.from] or pings[attr.from] ~= attr.id or attr.to ~= module.host
			or attr.type ~= "result" and attr.type ~= "error" then
			return;
		end
		pings[attr.from] = nil;
		if setup.is_bounce(event.origin, event.stanza) then
			drop(attr.from);
		elseif pool:state(attr.from) == "suspended" then
			pool:set(attr.from, "ready");
		end
		return true;
	end

	-- XEP-0198: what is sent to a hibernating session waits in a queue for its return
	local function watch_hibernation()
		local host = prosody.hosts[jid_host(target)];
		if not (host and host.type == "local") then
			return;
		end
		module:hook_object_event(host.events, "smacks-hibernation-start", function (event)
			pool:set(event.origin.full_jid or "", "away");
		end);
		module:hook_object_event(host.events, "smacks-hibernation-end", function (event)
			pool:set(event.resumed.full_jid or event.origin.full_jid or "", "ready");
		end);
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

	-- To be called when all hosts are there. Asks for the subscription; where it
	-- exists already that is answered at once, too (RFC 6121 section 3.1.3). No
	-- probe before it is: Prosody, refusing that, would also forget the request
	-- that waits for the target's approval.
	local function start()
		watch_hibernation();
		send_presence(target, "subscribe");
	end

	for backend in pairs(setup.pings or {}) do
		if pool:state(backend) == "suspended" then -- and not hibernating meanwhile
			pool:set(backend, "ready");
			suspect(backend);
		end
	end

	return {
		drop = drop;
		on_iq = on_iq;
		on_presence = on_presence;
		save = function () return pings; end;
		start = start;
		suspect = suspect;
	};
end

return backends;
