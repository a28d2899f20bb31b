-- Clients of this Prosody whose connection is gone, and whose session is kept for their return (XEP-0198): what is
-- sent to such a session waits in its queue.

local hibernation = {};

-- (jid) -> whether its session here is one of these | nil if it has none
function hibernation.is_hibernating(jid)
	local session = prosody.full_sessions[jid];
	return session and session.hibernating;
end

-- (host, events): from now on, "session-hibernates" and "session-resumed" are fired with the JIDs of such clients.
-- host: Prosody's session of that host; events: see mod_client_proxy.lua
function hibernation.watch(host, events)
	module:hook_object_event(host.events, "smacks-hibernation-start", function (event)
		events.fire_event("session-hibernates", event.origin.full_jid or "");
	end);
	module:hook_object_event(host.events, "smacks-hibernation-end", function (event)
		events.fire_event("session-resumed", event.resumed.full_jid or event.origin.full_jid or "");
	end);
end

return hibernation;
