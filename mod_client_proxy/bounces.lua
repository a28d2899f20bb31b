-- Errors that come in a backend's name though it did not send them: what a server says in its place.

local jid_host = require "util.jid".host;

-- Conditions that speak of the backend (RFC 6120 section 8.3.3), not of the stanza. The first is what
-- mod_smacks says of what it could not deliver, while the session that ends can still be looked up.
local SPEAKS_OF_RECIPIENT = {
	["recipient-unavailable"] = true, ["gone"] = true,
	["remote-server-not-found"] = true, ["remote-server-timeout"] = true,
};

local bounces = {};

-- (jid) -> the session of a client on this Prosody | nil | false if the host is not one of its own
local function session_of(jid)
	local host = prosody.hosts[jid_host(jid)];
	return host ~= nil and host.type == "local" and prosody.full_sessions[jid];
end

-- (origin, stanza, pool) -> what an answer in a backend's name is
--   nil            the backend's own
--   "unreachable"  a server's word that the backend cannot be reached
--   "refusal"      a server's no to this one stanza, as when its sender is blocked (XEP-0191)
-- Our own hosts and our mod_s2s are told by the origin, the target's server by a backend that is none.
function bounces.kind(origin, stanza, pool)
	if stanza.attr.type ~= "error" then
		return nil;
	elseif not origin.dummy and origin ~= prosody.hosts[origin.host] then
		return not pool:state(stanza.attr.from) and "unreachable" or nil;
	end
	local _, condition = stanza:get_error();
	local is_unreachable = origin.dummy or SPEAKS_OF_RECIPIENT[condition] or session_of(stanza.attr.from) == nil;
	return is_unreachable and "unreachable" or "refusal";
end

return bounces;
