-- What a stanza is: decided here, and carried out elsewhere.

local IS_REQUEST = { get = true, set = true };
local IS_ANSWER = { result = true, error = true };

local kinds = {};

-- By the type of an IQ: whether it is an answer
kinds.IS_ANSWER = IS_ANSWER;

-- (stanza, refused_token, addresses) -> what an IQ is
--   "request"             to be dispatched, unless another module answers it
--   "answer"              to what may be pending
--   "answer-without-id"   nobody can wait for it
--   "refused", failure    a request that cannot be handled, and why: a name of failures.lua
-- refused_token: addresses.refused_token, looked up once by the caller, as every request needs it; addresses: its self
-- Prosody itself looks whether an IQ is well formed (RFC 6120 section 8.2.3) only if one of its own clients sends it.
function kinds.of_iq(stanza, refused_token, addresses)
	local attr = stanza.attr;
	local type, id = attr.type, attr.id;
	if IS_ANSWER[type] then
		return id and "answer" or "answer-without-id";
	elseif not IS_REQUEST[type] or not id or #stanza.tags ~= 1 then
		return "refused", "malformed";
	end
	local failure = refused_token(addresses, attr.from, attr.to);
	if failure then
		return "refused", failure;
	end
	return "request";
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
