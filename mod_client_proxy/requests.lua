-- The life of a request: dispatched to a backend, settled by its answer or by
-- its deadline.

local errors = require "util.error";
local jid_bare = require "util.jid".bare;
local jid_resource = require "util.jid".resource;
local now = require "util.time".monotonic;
local st = require "util.stanza";

-- RFC 6120 section 8.3.3 has the conditions
local failures = errors.init("client_proxy", {
	["bad-address"] = { "modify", "jid-malformed", "The sender's address cannot be translated" };
	["malformed"] = { "modify", "bad-request", "An IQ is a get or set with an id and exactly one child element, or their answer" };
	["no-backend"] = { "cancel", "service-unavailable", "No resource of the target is online" };
	["no-memory"] = { "wait", "resource-constraint", "Too many requests are pending" };
	["no-messages"] = { "cancel", "feature-not-implemented", "Messages are not supported here" };
	["no-such-resource"] = { "cancel", "service-unavailable", "This address takes no requests" };
	["not-by-backends"] = { "cancel", "feature-not-implemented", "A backend cannot send requests to a requester" };
	["timeout"] = { "wait", "remote-server-timeout", "No answer came in time" };
	["unloaded"] = { "wait", "service-unavailable", "The service is being stopped" };
});

-- How many requests expire before Prosody gets to do something else
local EXPIRE_SLICE = 500;

local IQ_REQUEST = { get = true, set = true };
local IQ_ANSWER = { result = true, error = true };

local requests = {};

-- The one place that answers with an error, and never something that must not
-- be answered (RFC 6120 sections 8.2.3 and 8.3.1).
local function answer_error(send, stanza, failure)
	local type = stanza.attr.type;
	if type ~= "error" and not (stanza.name == "iq" and type == "result") then
		send(st.error_reply(stanza, failures.new(failure)));
	end
end

local function send_from_here(stanza)
	module:send(stanza);
end

-- Answers a request that the pending table has let go.
local function answer_taken(requester, service, id, failure)
	answer_error(send_from_here, st.stanza("iq", { type = "get", from = requester, to = service, id = id }), failure);
end

-- RFC 6120 section 8.2.3; Prosody sees to it for its own clients only
local function is_well_formed_request(stanza)
	return IQ_REQUEST[stanza.attr.type] and stanza.attr.id and #stanza.tags == 1;
end

-- (pending): answers every pending request at once, the module is going away
function requests.give_up(pending)
	local requester, service, id = pending:expire(math.huge);
	while requester do
		answer_taken(requester, service, id, "unloaded");
		requester, service, id = pending:expire(math.huge);
	end
end

-- (setup) -> the handlers for IQ and message events, and stop()
-- setup: { target, timeout (seconds), jat, pool, pending, operations }
function requests.new(setup)
	local jat, pool, pending, target = setup.jat, setup.pool, setup.pending, setup.target;
	local timer, timer_due; -- the one timer, and when it fires
	local stopped = false;

	local function expire()
		local time = now();
		for _ = 1, EXPIRE_SLICE do
			local requester, service, id = pending:expire(time);
			if not requester then
				break;
			end
			answer_taken(requester, service, id, "timeout");
		end
		timer_due = pending:deadline();
		return timer_due and math.max(0, timer_due - time);
	end

	-- Sees to it that the timer fires by the earliest deadline. A reload can have shortened the timeout.
	local function watch_deadlines()
		local deadline = pending:deadline();
		if not deadline or timer_due and timer_due <= deadline then
			return;
		end
		if timer_due then
			timer:stop();
		end
		timer_due = deadline;
		timer = module:add_timer(math.max(0, deadline - now()), expire);
	end

	local function dispatch(origin, stanza)
		local attr = stanza.attr;
		local requester, service = attr.from, attr.to;
		if stopped then
			return answer_error(origin.send, stanza, "unloaded");
		end
		local backend = pool:pick(requester);
		if not backend then
			return answer_error(origin.send, stanza, "no-backend");
		end
		local token = jat:encode(requester);
		if not token then
			return answer_error(origin.send, stanza, "bad-address");
		end
		local translated = jid_bare(service).."/"..token;
		if not pending:add(backend, translated, attr.id, requester, service, now() + setup.timeout) then
			return answer_error(origin.send, stanza, "no-memory");
		end
		watch_deadlines();
		attr.from, attr.to = translated, backend;
		module:send(stanza);
	end

	local function drop_answer(stanza)
		module:log("debug", "Dropped an answer that nobody waits for: %s", stanza:top_tag());
		setup.operations.count_unmatched();
	end

	local function settle(stanza)
		local attr = stanza.attr;
		local requester, service = pending:take(attr.from, attr.to, attr.id);
		if requester then
			attr.from, attr.to = service, requester;
			module:send(stanza);
			return true;
		end
	end

	-- A backend may not send requests to a requester, and nobody else to a token.
	-- What looks like a digest can be anyone's resource, unless a backend uses it.
	local function refused_token(attr)
		local resource = jid_resource(attr.to);
		if not resource then
			return;
		end
		local decoded, reason = jat:decode(resource);
		if jid_bare(attr.from) == target then
			return (decoded or reason == "digest") and "not-by-backends";
		end
		return decoded and "no-such-resource";
	end

	-- before any other module: settles what is pending, refuses what cannot be handled
	local function on_iq_first(event)
		local origin, stanza = event.origin, event.stanza;
		local is_answer = IQ_ANSWER[stanza.attr.type];
		if is_answer and stanza.attr.id then
			return settle(stanza);
		elseif is_answer then
			drop_answer(stanza);
			return true;
		end
		local failure = not is_well_formed_request(stanza) and "malformed" or refused_token(stanza.attr);
		if failure then
			answer_error(origin.send, stanza, failure);
			return true;
		end
	end

	-- after all other modules: takes what none of them wanted
	local function on_iq_last(event)
		local origin, stanza = event.origin, event.stanza;
		if IQ_ANSWER[stanza.attr.type] then
			drop_answer(stanza);
		else
			dispatch(origin, stanza);
		end
		return true;
	end

	local function on_message(event)
		answer_error(event.origin.send, event.stanza, "no-messages");
		return true;
	end

	-- Answers all that is pending, and refuses what still comes
	local function stop()
		stopped = true;
		requests.give_up(pending);
	end

	watch_deadlines();
	return {
		stop = stop;
		on_iq_first = on_iq_first;
		on_iq_last = on_iq_last;
		on_message = on_message;
	};
end

return requests;
