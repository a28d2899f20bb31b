-- Errors that come in a backend's name though it did not send them: what a server says in its place.

local addresses = module:require "addresses";

-- Conditions that say something about the backend (RFC 6120 section 8.3.3), not about the stanza. mod_smacks answers
-- with the first of them what it could not deliver, while the session that ends can still be looked up.
local SPEAKS_OF_RECIPIENT = {
	["recipient-unavailable"] = true, ["gone"] = true,
	["remote-server-not-found"] = true, ["remote-server-timeout"] = true,
};

-- What a server on the other end of a stream may say in the name of a session that it has not got, or
-- cannot reach. The first two are for an address without a session (RFC 6121 section 8.5.3.2.3).
local MAY_BE_A_SERVERS = {
	["service-unavailable"] = true, ["recipient-unavailable"] = true, ["item-not-found"] = true, ["gone"] = true,
	["remote-server-not-found"] = true, ["remote-server-timeout"] = true,
	["internal-server-error"] = true, ["resource-constraint"] = true,
};

local bounces = {};

-- (jid) -> the session of a client on this Prosody | nil | false if the host is not one of its own
local function session_of(jid)
	local host = prosody.hosts[addresses.host(jid)];
	return host ~= nil and host.type == "local" and prosody.full_sessions[jid];
end

-- (backend, condition, pool) -> what an error is, see below, that has come by a stream: a server or a component on the
-- other end may speak in the backend's place.
local function kind_from_stream(backend, condition, pool)
	if not pool:state(backend) then
		return "unreachable";
	end
	return MAY_BE_A_SERVERS[condition] and not session_of(backend) and "doubtful" or nil;
end

-- (origin, stanza, pool) -> what an answer in a backend's name is
--   nil            the backend's own
--   "doubtful"     the backend's own, or its server's word that it is not there
--   "unreachable"  a server's word that the backend cannot be reached
--   "refusal"      a server's no to this one stanza, as when its sender is blocked (XEP-0191)
-- Only for what a backend was to answer: anybody else's error would be "unreachable".
-- Errors of our own hosts and of mod_s2s are known by their origin; of those that come from elsewhere, the ones in the
-- name of a JID that is no backend must be the server's.
function bounces.kind(origin, stanza, pool)
	local backend = stanza.attr.from;
	if stanza.attr.type ~= "error" then
		return nil;
	end
	local _, condition = stanza:get_error();
	if not origin.dummy and origin ~= prosody.hosts[origin.host] then
		return kind_from_stream(backend, condition, pool);
	end
	local is_unreachable = origin.dummy or SPEAKS_OF_RECIPIENT[condition] or session_of(backend) == nil;
	return is_unreachable and "unreachable" or "refusal";
end

return bounces;
