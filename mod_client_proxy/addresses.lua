-- Addresses: the one place in Lua that takes JIDs apart, and that knows what a token looks like.
--
-- A backend sees a requester as a token, the resource of a service address: `proxy.domain.example/TOKEN`.

local jid = require "util.jid";
local find, sub = string.find, string.sub;

-- Why a resource does not tell a requester, where it may still be a token that a backend has been given: the book may have
-- forgotten whose name it is, and in the plain format any JID can be a token.
local LOOKS_LIKE_TOKEN = { short = true, digest = true, plain = true };

local addresses = {};
addresses.__index = addresses;

addresses.bare = jid.bare; -- (jid) -> the bare JID
addresses.host = jid.host; -- (jid) -> its host
addresses.resource = jid.resource; -- (jid) -> its resource | nil
addresses.split = jid.split; -- (jid) -> node | nil, host, resource | nil

-- (jid) -> the bare JID, the resource | nil
-- For JIDs that the router has let pass, this says the same as util.jid (RFC 7622 section 3.1), and takes a fraction of
-- the time: util.jid would take as much as all that the core does for a request.
function addresses.split_resource(address)
	local slash = find(address, "/", 1, true);
	if slash then
		return sub(address, 1, slash - 1), sub(address, slash + 1);
	end
	return address;
end

local split_resource = addresses.split_resource;

-- (exchange, target) -> addresses
-- exchange: the core's; target: the prepared bare JID
function addresses.new(exchange, target)
	return setmetatable({ exchange = exchange, target = target }, addresses);
end

-- (jid) -> whether it is the target's, with a resource or without
-- jid: as somebody has written it inside a stanza, where no router has prepared it
function addresses:is_of_target(address)
	local node, host = jid.prepped_split(address);
	return host ~= nil and jid.join(node, host) == self.target;
end

-- (from, to) -> why a request to this address is refused, a name of failures.lua | nil if it is not
-- Neither a backend nor anybody else may send requests to a token. If a resource only looks like one, a backend's are
-- refused as well, but others may have chosen it for a service address.
function addresses:refused_token(from, to)
	local _, resource = split_resource(to);
	if not resource then
		return nil;
	end
	local requester, reason = self.exchange:resolve(from, resource);
	if split_resource(from) == self.target then
		return (requester or LOOKS_LIKE_TOKEN[reason]) and "not-by-backends" or nil;
	end
	return requester and "no-such-resource" or nil;
end

return addresses;
