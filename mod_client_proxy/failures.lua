-- How things can go wrong: what the sender is told, and how it is counted. This is the one place that answers with an
-- error; it never answers what must not be answered (RFC 6120 sections 8.2.3 and 8.3.1).

local errors = require "util.error";
local st = require "util.stanza";

-- By name: type, condition (RFC 6120 section 8.3.3), text; and the outcome that it is counted as, if it is
local FAILURES = {
	["backend-gone"] = { "cancel", "service-unavailable", "The resource that was to answer has gone", outcome = "backend_gone" };
	["bad-address"] = { "modify", "jid-malformed", "The sender's address cannot be translated", outcome = "refused" };
	["bad-id"] = { "modify", "bad-request", "There are control characters in the id, which no answer can bring back", outcome = "refused" };
	["conflict"] = { "cancel", "conflict", "A request with this id, to an address that differs in the resource alone, is pending", outcome = "refused" };
	["forbidden"] = { "auth", "forbidden", "This service is not open to everybody, and you are not among those who may use it", outcome = "refused" };
	["full"] = { "wait", "resource-constraint", "Too many requests are pending", outcome = "limited" };
	["lost"] = { "wait", "remote-server-timeout", "The connection to the target's server broke, and no answer has come since",
		outcome = "backend_gone" };
	["malformed"] = { "modify", "bad-request", "An IQ is a get or set with an id and exactly one child element, or their answer", outcome = "refused" };
	["no-backend"] = { "cancel", "service-unavailable", "No resource of the target is online", outcome = "no_backend" };
	["no-memory"] = { "wait", "resource-constraint", "There is no memory for another request", outcome = "limited" };
	["no-rooms"] = { "cancel", "service-unavailable", "This address is no occupant of rooms", outcome = "refused" };
	["no-such-backend"] = { "cancel", "item-not-found", "The resource that this address stood for has gone", outcome = "refused" };
	["no-such-requester"] = { "cancel", "item-not-found", "Nobody is known by this address (any more)", outcome = "refused" };
	["no-such-resource"] = { "cancel", "service-unavailable", "This address is not for you to write to", outcome = "refused" };
	["none-ready"] = { "wait", "service-unavailable", "All resources of the target that are online take nothing new", outcome = "no_backend" };
	["requester-full"] = { "wait", "resource-constraint", "Too many of your requests are pending, or they are too large", outcome = "limited" };
	["retargeted"] = { "wait", "service-unavailable", "The service has moved to another account", outcome = "backend_gone" };
	["timeout"] = { "wait", "remote-server-timeout", "No answer came in time", outcome = "timeout" };
	["unloaded"] = { "wait", "service-unavailable", "The service is being stopped", outcome = "unloaded" };
};

local registry = errors.init("client_proxy", FAILURES);

local failures = {};
failures.__index = failures;

-- How requests can end that nobody answers, as metrics.lua counts them: a list of names
failures.OUTCOMES = { "timeout", "no_backend", "backend_gone", "limited", "refused", "unloaded" };

-- (metrics, prefix) -> failures
-- prefix: what stands before the outcomes in the names of the counters that count these failures; nil: nothing
function failures.new(metrics, prefix)
	return setmetatable({ metrics = metrics, prefix = prefix or "" }, failures);
end

-- (stanza) -> whether it must not be answered with an error
local function is_never_answered(stanza)
	local type = stanza.attr.type;
	return type == "error" or stanza.name == "iq" and type == "result";
end

local function answer(send, stanza, name)
	if not is_never_answered(stanza) then
		send(st.error_reply(stanza, registry.new(name)));
	end
end

local function send_from_here(stanza)
	module:send(stanza);
end

local function answer_request(requester, service, id, name)
	answer(send_from_here, st.stanza("iq", { type = "get", from = requester, to = service, id = id }), name);
end

local function count(self, name)
	local outcome = FAILURES[name].outcome;
	if outcome then
		self.metrics:count(self.prefix..outcome);
	end
end

-- (origin, stanza, name): what has just come in from there is refused.
function failures:refuse(origin, stanza, name)
	count(self, name);
	answer(origin.send, stanza, name);
end

-- (requester, service, id, name): a request that the pending table has let go ends so.
function failures:fail(requester, service, id, name)
	count(self, name);
	answer_request(requester, service, id, name);
end

-- (pending, name): every pending request ends so at once, whatever its deadline.
-- An error in another module's handler does not interrupt this: nobody else would answer the requests that are left.
function failures:give_up(pending, name)
	local requester, service, id = pending:expire(math.huge);
	while requester do
		count(self, name);
		local ok, problem = pcall(answer_request, requester, service, id, name);
		if not ok then
			module:log("error", "Another module's handler has failed on an answer: %s", problem);
		end
		requester, service, id = pending:expire(math.huge);
	end
end

return failures;
