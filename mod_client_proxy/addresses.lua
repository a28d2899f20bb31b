-- Addresses: the one place in Lua that takes JIDs apart, and that knows what a token looks like.
--
-- A backend sees a requester as a token, the resource of a service address: `proxy.domain.example/TOKEN`. A requester
-- sees a backend likewise, as that backend's token.

local jid = require "util.jid";
local find, sub = string.find, string.sub;

-- Why a resource does not tell a requester, where it may still be a token that a backend has been given: the book may have
-- forgotten whose it is, or the key by which it was made has been replaced.
local LOOKS_LIKE_TOKEN = { short = true, digest = true, plain = true, ["unknown-key"] = true, forged = true };

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

-- (exchange, pool, target) -> addresses
-- exchange, pool: the core's; target: the prepared bare JID
function addresses.new(exchange, pool, target)
	return setmetatable({ exchange = exchange, pool = pool, target = target }, addresses);
end

-- (text) -> whether it is a JID of the target's, with a resource or without
-- text: as somebody has written it inside a stanza, where no router has prepared it
function addresses:names_target(text)
	local node, host = jid.prepped_split(text);
	return host ~= nil and jid.join(node, host) == self.target;
end

-- (address) -> whether it is a JID of the target's, with a resource or without; a prepared one
function addresses:is_of_target(address)
	return split_resource(address) == self.target;
end

-- (from, to) -> what the address `to` is for `from`, which has sent something there
--   "service"                 a service address, and no token
--   "backend", backend        one with a backend's token
--   "no-backend"              one with what looks like a backend's token, but is that of none, or of `from` itself
--   "requester", requester    one with a token, to which a resource of the target writes
--   "no-requester"            likewise, but whose token that was, if it was one, is not known (any more)
--   "token"                   one with a token, to which somebody writes who has not been given it
-- Who has been reached by the target has been used, see exchange:reach().
function addresses:kind(from, to)
	local _, resource = split_resource(to);
	if not resource then
		return "service";
	end
	local exchange = self.exchange;
	local backend, is_like_a_backends = exchange:backend(resource);
	if backend and backend ~= from then
		return "backend", backend;
	elseif backend or is_like_a_backends then
		return "no-backend";
	elseif not self:is_of_target(from) then
		return exchange:resolve(resource) and "token" or "service";
	end
	local requester, reason = exchange:reach(from, resource);
	if requester then
		return "requester", requester;
	end
	return LOOKS_LIKE_TOKEN[reason] and "no-requester" or "service";
end

-- (backend, to) -> the address from which requesters get what this backend has sent to the address `to`
--                | nil: it is no backend
function addresses:of_backend(backend, to)
	local token = self.pool:token(backend);
	return token and split_resource(to).."/"..token;
end

-- (to) -> the backend whose token is in this address | nil
function addresses:backend(to)
	local _, resource = split_resource(to);
	return resource and self.exchange:backend(resource) or nil;
end

return addresses;
