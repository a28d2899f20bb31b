-- What presence says (RFC 6121 sections 3 and 4): decided here, and carried out in backends.lua, watchers.lua and
-- directed.lua.

local addresses = module:require "addresses";

-- From the target: what it is, by its type and by whether it comes from a resource or from the account as a whole
local OF_RESOURCE = { available = "available", unavailable = "unavailable", error = "unreachable" };
local OF_ACCOUNT = { available = "reachable", unavailable = "none-left", error = "target-unreachable" };
local OF_EITHER = { subscribed = "subscribed", unsubscribed = "unsubscribed" };

-- Likewise, where it does not matter which resource of the proxy host it is to: subscriptions are to a bare JID.
local OF_EITHER_TO_ANY = { subscribe = "subscribe", unsubscribe = "unsubscribe", probe = "probe" };

-- From the target to an address with a resource, and from anybody else to any
local DIRECTED = { available = "directed", unavailable = "directed" };

-- From anybody else, or to another service address
local OF_OTHERS = { subscribe = "watch", unsubscribe = "unwatch", probe = "watcher-probe" };

-- Conditions of an error that say nothing of an account but that it cannot be reached for now (RFC 6120 section 8.3.3)
local IS_PASSING = {
	["remote-server-not-found"] = true, ["remote-server-timeout"] = true;
	["internal-server-error"] = true, ["resource-constraint"] = true;
};

-- Whether an error says that it will pass, by its type (RFC 6120 section 8.3.2) or by its condition
local function is_passing(stanza)
	local type, condition = stanza:get_error();
	return type == "wait" or IS_PASSING[condition] or false;
end

local presence = {};

-- Of an error that is not from the target to the proxy host
local function kind_of_error(stanza)
	if is_passing(stanza) then
		return "ignored";
	end
	return addresses.resource(stanza.attr.to) and "recipient-unreachable" or "watcher-error";
end

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
--   "watcher-error"               what that account was sent cannot be delivered for good, or is not wanted
-- From anybody to anybody else:
--   "directed"                    of a requester to a backend, or of a backend to a requester: see presence.direction
--   "recipient-unreachable"       a server cannot reach whom presence was sent to from an address with a resource, for good
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
		return OF_EITHER_TO_ANY[type] or DIRECTED[type] or type == "error" and kind_of_error(stanza) or "ignored";
	end
	return DIRECTED[type] or OF_OTHERS[type] or type == "error" and kind_of_error(stanza) or "ignored";
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
