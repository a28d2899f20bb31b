-- What a stanza is: decided here, and carried out elsewhere.

local IS_REQUEST = { get = true, set = true };
local IS_ANSWER = { result = true, error = true };

local kinds = {};

-- By the type of an IQ: whether it is an answer
kinds.IS_ANSWER = IS_ANSWER;

-- (stanza) -> whether an IQ is a stage of an ad-hoc command (XEP-0050)
function kinds.is_command(stanza)
	local attr = stanza.tags[1].attr;
	return attr.xmlns == "http://jabber.org/protocol/commands" and stanza.tags[1].name == "command";
end

-- By what an address is: why a request that was sent there is refused, a name of failures.lua
local REFUSED_AT = { token = "no-such-resource", ["no-backend"] = "no-such-backend", ["no-requester"] = "no-such-requester" };

-- (stanza, kind_of_address, addresses) -> what an IQ is
--   "request"             to be dispatched, unless another module answers it
--   "request-to-one"      to be dispatched to the backend whose token is in its address, whatever other modules there are
--   "backends-request", requester    a backend's, for that requester
--   "answer"              to what may be pending
--   "answer-without-id"   nobody can wait for it
--   "refused", failure    a request that cannot be handled, and why: a name of failures.lua
-- kind_of_address: addresses.kind, looked up once by the caller, as every request needs it; addresses: its self
-- Prosody itself looks whether an IQ is well formed (RFC 6120 section 8.2.3) only if one of its own clients sends it.
function kinds.of_iq(stanza, kind_of_address, addresses)
	local attr = stanza.attr;
	local type, id = attr.type, attr.id;
	if IS_ANSWER[type] then
		return id and "answer" or "answer-without-id";
	elseif not IS_REQUEST[type] or not id or #stanza.tags ~= 1 then
		return "refused", "malformed";
	end
	local address, requester = kind_of_address(addresses, attr.from, attr.to);
	if address == "requester" then
		return "backends-request", requester;
	elseif address == "backend" then
		return "request-to-one";
	elseif REFUSED_AT[address] then
		return "refused", REFUSED_AT[address];
	end
	return "request";
end

-- (stanza, addresses) -> what a message is
--   "to-backend", backend         for that backend, or if nil, for the one that is chosen
--   "to-requester", requester     a backend's, for that requester
--   "bounce", requester           an error in the name of a resource of the target: its own, or its server's
--   "error-to-backend", backend   an error about what that backend has sent
--   "to-nobody"                   a backend's, for somebody who is not known (any more)
--   "refused", failure            and why: a name of failures.lua
--   "stray-error"                 an error that nobody waits for
function kinds.of_message(stanza, addresses)
	local attr = stanza.attr;
	local address, jid = addresses:kind(attr.from, attr.to);
	if attr.type == "error" then
		return address == "requester" and "bounce" or address == "backend" and "error-to-backend" or "stray-error", jid;
	elseif address == "requester" then
		return "to-requester", jid;
	elseif address == "no-requester" then
		return "to-nobody";
	elseif address == "token" then
		return "refused", REFUSED_AT.token;
	elseif attr.type == "groupchat" then -- the component is no occupant of rooms (XEP-0045 section 7.4)
		return "refused", "no-rooms";
	end
	return "to-backend", jid;
end

-- (bounce, can_be_resent, pool, backend) -> what becomes of a request that is answered so
--   "retry"     the backend will not answer it: another one is to be tried
--   "deliver"   the answer is the requester's
-- bounce: what bounces.lua says of the answer; can_be_resent: whether it is a get that has a retry left
-- If a server may have sent the answer, and the backend is not ready anyway, the request is tried again rather than the
-- answer believed, as long as another backend is ready.
function kinds.of_settlement(bounce, can_be_resent, pool, backend)
	if bounce == "unreachable" then
		return "retry";
	elseif bounce == "doubtful" and can_be_resent and pool:is_ready() and pool:state(backend) ~= "ready" then
		return "retry";
	end
	return "deliver";
end

return kinds;
