-- What presence says (RFC 6121 sections 3 and 4): decided here, and carried out in backends.lua.

local addresses = module:require "addresses";

-- What it is, by its type and by whether it comes from a resource of the target or from the account as a whole
local OF_RESOURCE = { available = "available", unavailable = "unavailable", error = "unreachable" };
local OF_ACCOUNT = { available = "reachable", unavailable = "none-left", error = "target-unreachable" };
local OF_EITHER = {
	subscribed = "subscribed", unsubscribed = "unsubscribed", subscribe = "subscribe", unsubscribe = "unsubscribe", probe = "probe",
};
-- From or to anybody else
local OF_OTHERS = { available = "directed", unavailable = "directed", subscribe = "request-of-stranger" };

local presence = {};

-- (stanza, target) -> what a presence is. From the target to the proxy host:
--   "available", "unavailable"    a resource has come, or changed; has gone
--   "unreachable"                 a server cannot reach this resource
--   "reachable", "none-left"      the target's server answers; no resource is left (RFC 6121 section 4.3.2)
--   "target-unreachable"          a server cannot reach the target, or has no such account
--   "subscribed", "unsubscribed"  what the target says of the proxy's request to see its presence
--   "subscribe", "unsubscribe"    whether the target wants to see the proxy's
--   "probe"                       its server asks for the proxy's, as it does for those who are subscribed
-- All that is from or to anybody else:
--   "request-of-stranger"         somebody wants to see the presence of a service address
--   "directed"                    of a requester to a backend, or of a backend to a requester: see presence.direction
--   "recipient-unreachable"       a server cannot reach whom presence was sent to from an address with a resource
--   "ignored"                     anything else
-- target: the prepared bare JID
function presence.kind(stanza, target)
	local attr = stanza.attr;
	local type = attr.type or "available";
	local is_of_target = attr.to == module.host and addresses.bare(attr.from) == target;
	local of_either = OF_EITHER[type];
	if is_of_target and of_either then
		return of_either;
	elseif is_of_target then
		return (addresses.resource(attr.from) and OF_RESOURCE or OF_ACCOUNT)[type] or "ignored";
	end
	return type == "error" and addresses.resource(attr.to) and "recipient-unreachable" or OF_OTHERS[type] or "ignored";
end

-- (stanza, addresses) -> where directed presence goes
--   "to-backend", backend         to that backend, or if nil, to the one that this requester's messages go to
--   "to-requester", requester     a backend's, for that requester, or if nil, for one who is not known any more
--   nil                           to nobody
function presence.direction(stanza, addresses_in_use)
	local address, jid = addresses_in_use:kind(stanza.attr.from, stanza.attr.to);
	if address == "requester" or address == "no-requester" then
		return "to-requester", jid;
	elseif address == "token" then
		return nil;
	end
	return "to-backend", jid;
end

-- (stanza) -> its priority, -128 to 127 (RFC 6121 section 4.7.2.3)
function presence.priority(stanza)
	local text = stanza:get_child_text("priority") or "";
	local priority = text:find("^%s*[+-]?%d+%s*$") and math.tointeger(tonumber(text)) or 0;
	return math.max(-128, math.min(127, priority));
end

-- (stanza) -> whether it says by its entity capabilities (XEP-0115) that it is of a Jicofo, as Jicofo's presence has done
-- since April 2020, and thus before it read JIDs out of a resource. nil if it says nothing of capabilities: a server may
-- leave out what it has told before (XEP-0115 section 8.4).
function presence.names_jicofo(stanza)
	local capabilities = stanza:get_child("c", "http://jabber.org/protocol/caps");
	if capabilities then
		return capabilities.attr.node == "http://jitsi.org/jicofo";
	end
	return nil;
end

-- (stanza) -> whether it answers a probe. Most servers then say in it since when it has been so (XEP-0203).
function presence.was_asked_for(stanza)
	return stanza:get_child("delay", "urn:xmpp:delay") ~= nil;
end

return presence;
