-- How an IQ or a message reaches its receiver. Nearly all go to clients of this Prosody, and Prosody's router, which module:send calls,
-- then takes the address apart to find out on which of its hosts the event iq/full, or message/full, is to be fired. A client's session knows
-- its host, so that event is fired here, for a fraction of what the router takes. No module can tell the difference: it is
-- the same event on the same host, with the same data. Whatever is not as simple as that is left to the router.

local top_tag = module:require "top_tag";

local st = require "util.stanza";

local find = string.find;
local cheapen = top_tag.cheapen;
local hosts, full_sessions, own_host = prosody.hosts, prosody.full_sessions, module.host;

-- Prosody can have a component under an account's address, which then gets all that is for that account. Where there is
-- one, each stanza is left to the router, as it would take too long to ask for each whether it is for that account.
local is_any_host_an_account;

local function look_at_hosts()
	is_any_host_an_account = false;
	for host in pairs(hosts) do
		if find(host, "@", 1, true) then
			is_any_host_an_account = true;
		end
	end
end

look_at_hosts();
module:hook_global("host-activated", look_at_hosts, 1000); -- before any module is loaded there, as that may send something
module:hook_global("host-deactivated", look_at_hosts, 1000);

-- By the name of a stanza
local EVENTS = { iq = "iq/full", message = "message/full" };

-- Does what the router does when no module has dealt with it: it is refused, but an answer, or an error, is dropped.
local function on_unhandled(origin, stanza)
	local type = stanza.attr.type;
	module:log("debug", "No module of the receiver's host has dealt with this: %s", stanza:top_tag());
	if type ~= "error" and type ~= "result" and origin.send then
		origin.send(st.error_reply(stanza, "cancel", "service-unavailable"));
	end
end

local delivery = {};

-- (stanza, to): sends an IQ or a message, as module:send does
-- stanza: an IQ is a get, set, result or error; to: the receiver, the same as in the stanza
-- It can call back anything before it returns.
function delivery.send(stanza, to)
	cheapen(stanza);
	local session = full_sessions[to];
	local host = session and hosts[session.host];
	if not host or is_any_host_an_account or stanza.attr.xmlns then
		module:send(stanza);
		return;
	end
	local origin = hosts[own_host];
	if not host.events.fire_event(EVENTS[stanza.name], { origin = origin, stanza = stanza }) then
		on_unhandled(origin, stanza);
	end
end

return delivery;
