-- What presence says (RFC 6121 sections 3 and 4): decided here, and carried out in backends.lua and watchers.lua.

local addresses = module:require "addresses";

-- From the target: what it is, by its type and by whether it comes from a resource or from the account as a whole
local OF_RESOURCE = { available = "available", unavailable = "unavailable", error = "unreachable" };
local OF_ACCOUNT = { available = "reachable", unavailable = "none-left", error = "target-unreachable" };
local OF_EITHER = { subscribed = "subscribed", unsubscribed = "unsubscribed" };

-- Likewise, where it does not matter which resource of the proxy host it is to: subscriptions are to a bare JID.
local OF_EITHER_TO_ANY = { subscribe = "subscribe", unsubscribe = "unsubscribe", probe = "probe" };

-- From anybody else, or to another service address
local OF_OTHERS = { subscribe = "watch", unsubscribe = "unwatch", probe = "watcher-probe", error = "watcher-error" };

local presence = {};

-- (stanza, target) -> what a presence is. From the target to the proxy host:
--   "available", "unavailable"    a resource has come, or changed; has gone
--   "unreachable"                 a server cannot reach this resource
--   "reachable", "none-left"      the target's server answers; no resource is left (RFC 6121 section 4.3.2)
--   "target-unreachable"          a server cannot reach the target, or has no such account
--   "subscribed", "unsubscribed"  what the target says of the proxy's request to see its presence
--   "subscribe", "unsubscribe"    whether the target wants to see the proxy's
--   "probe"                       its server asks for the proxy's, as it does for those who are subscribed
-- All that is from anybody else, or to another service address, the resource of which does not matter:
--   "watch", "unwatch"            whether an account wants to see the presence of this service address
--   "watcher-probe"               its server asks for that, as it does for those who are subscribed
--   "watcher-error"               what that account was sent cannot be delivered, or is not wanted
-- And "ignored", which is anything else.
-- target: the prepared bare JID
function presence.kind(stanza, target)
	local attr = stanza.attr;
	local type = attr.type or "available";
	local is_of_target = addresses.bare(attr.from) == target;
	if is_of_target and attr.to == module.host then
		local of_one = addresses.resource(attr.from) and OF_RESOURCE or OF_ACCOUNT;
		return OF_EITHER[type] or OF_EITHER_TO_ANY[type] or of_one[type] or "ignored";
	elseif is_of_target and addresses.bare(attr.to) == module.host then
		return OF_EITHER_TO_ANY[type] or "ignored";
	end
	return OF_OTHERS[type] or "ignored";
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
