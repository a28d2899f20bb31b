-- The life of a request: dispatched to a backend, and settled by its answer or
-- by its deadline; when the backend goes away before, handed to another.

local errors = require "util.error";
local find, sub = string.find, string.sub;
local now = require "util.time".monotonic;
local st = require "util.stanza";

-- RFC 6120 section 8.3.3 has the conditions
local failures = errors.init("client_proxy", {
	["backend-gone"] = { "cancel", "service-unavailable", "The resource that was to answer has gone" };
	["bad-address"] = { "modify", "jid-malformed", "The sender's address cannot be translated" };
	["malformed"] = { "modify", "bad-request", "An IQ is a get or set with an id and exactly one child element, or their answer" };
	["no-backend"] = { "cancel", "service-unavailable", "No resource of the target is online" };
	["full"] = { "wait", "resource-constraint", "Too many requests are pending" };
	["no-memory"] = { "wait", "resource-constraint", "There is no memory for another request" };
	["requester-full"] = { "wait", "resource-constraint", "Too many of your requests are pending" };
	["no-messages"] = { "cancel", "feature-not-implemented", "Messages are not supported here" };
	["no-such-resource"] = { "cancel", "service-unavailable", "This address takes no requests" };
	["not-by-backends"] = { "cancel", "feature-not-implemented", "A backend cannot send requests to a requester" };
	["timeout"] = { "wait", "remote-server-timeout", "No answer came in time" };
	["unloaded"] = { "wait", "service-unavailable", "The service is being stopped" };
});

-- How the requests that end so are counted
local outcomes = {
	["backend-gone"] = "backend_gone", ["no-backend"] = "no_backend", ["timeout"] = "timeout", ["unloaded"] = "unloaded";
	["full"] = "limited", ["requester-full"] = "limited", ["no-memory"] = "limited";
	["bad-address"] = "refused", ["malformed"] = "refused", ["no-such-resource"] = "refused", ["not-by-backends"] = "refused";
};

-- How many requests expire or change their backend before Prosody gets to do something else
local SLICE = 100;

-- How much of a get is kept to be sent again, and what an element takes besides its texts. Without
-- a limit, a requester could fill Lua's memory with large ones that its backend takes its time for.
local KEPT_BYTES, ELEMENT_BYTES = 8192, 256;

local IQ_REQUEST = { get = true, set = true };
local IQ_ANSWER = { result = true, error = true };

-- Why a token may not be decoded that is one nevertheless, or just looks like it
local LOOKS_LIKE_TOKEN = { digest = true, plain = true };

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

-- (jid) -> the bare JID, and the resource if it has one (RFC 7622 section 3.1). The router has seen
-- to it that it is a JID; taking it apart with util.jid costs a request as much as all of the core.
local function split_resource(jid)
	local slash = find(jid, "/", 1, true);
	if slash then
		return sub(jid, 1, slash - 1), sub(jid, slash + 1);
	end
	return jid;
end

-- RFC 6120 section 8.2.3; Prosody sees to it for its own clients only
local function is_well_formed_request(stanza)
	return IQ_REQUEST[stanza.attr.type] and stanza.attr.id and #stanza.tags == 1;
end

-- (element, room) -> bytes of memory that it leaves of `room`, below 0 if it takes more
local function room_beside(element, room)
	room = room - ELEMENT_BYTES;
	for name, value in pairs(element.attr) do
		room = room - #name - #value;
	end
	for _, child in ipairs(element) do
		if room < 0 then
			break;
		end
		room = type(child) == "string" and room - #child or room_beside(child, room);
	end
	return room;
end

-- (pending[, operations]): answers every pending request at once, the module is going away
function requests.give_up(pending, operations)
	local requester, service, id = pending:expire(math.huge);
	while requester do
		if operations then
			operations.count("unloaded");
		end
		answer_taken(requester, service, id, "unloaded");
		requester, service, id = pending:expire(math.huge);
	end
end

-- An error that the backend did not send itself, but a server that could not
-- reach it: one of our own hosts, our mod_s2s, or the target's server.
function requests.is_bounce(origin, stanza, pool)
	local is_ours = origin.dummy or origin == prosody.hosts[origin.host];
	return stanza.attr.type == "error" and (is_ours or not pool:state(stanza.attr.from));
end

-- (setup) -> the handlers for IQ and message events, for backends that come and go, save() and stop()
-- setup: { target, timeout (seconds), retries, max_pending, max_pending_per_requester, jat, pool,
--          pending, held (what save() returned before a reload), operations,
--          suspect(backend), drop(backend): to be told of what lets a request time out, or cannot be reached }
function requests.new(setup)
	local jat, pool, pending, target, operations = setup.jat, setup.pool, setup.pending, setup.target, setup.operations;
	local timer, timer_due; -- the one timer, and when it fires
	local stopped = false;
	local leaving = {}; -- backends that have gone, with requests still to be taken back
	-- by a request's handle: the stanza to send again, and how often, where that is not setup.retries
	local held = setup.held or { stanzas = {}, retries = {} };

	pending:limit(setup.max_pending, setup.max_pending_per_requester);

	local function refuse(origin, stanza, failure)
		operations.count(outcomes[failure]);
		answer_error(origin.send, stanza, failure);
	end

	-- A request that the pending table has let go
	local function fail(requester, service, id, failure)
		operations.count(outcomes[failure]);
		answer_taken(requester, service, id, failure);
	end

	local function hold(handle, stanza, retries)
		if retries > 0 and stanza.attr.type == "get" and room_beside(stanza, KEPT_BYTES) >= 0 then
			held.stanzas[handle] = stanza;
			held.retries[handle] = retries ~= setup.retries and retries or nil;
		end
	end

	local function release(handle)
		local stanza, retries = held.stanzas[handle], held.retries[handle] or setup.retries;
		held.stanzas[handle], held.retries[handle] = nil, nil;
		return stanza, retries;
	end

	local expire;

	local function set_timer()
		if timer then
			timer:stop();
		end
		timer_due = pending:deadline();
		timer = timer_due and module:add_timer(math.max(0, timer_due - now()), expire);
	end

	-- Sees to it that the timer fires by the deadline. A reload can have shortened the timeout.
	local function watch_deadline(deadline)
		if not timer_due or deadline < timer_due then
			set_timer();
		end
	end

	function expire()
		local time = now();
		timer = nil;
		set_timer(); -- already now, as an error in another module's handler would end this here
		for _ = 1, SLICE do
			local requester, service, id, handle, _, backend = pending:expire(time);
			if not requester then
				break;
			end
			release(handle);
			fail(requester, service, id, "timeout");
			setup.suspect(backend);
		end
		set_timer();
	end

	-- Records the request, then sends it. -> handle | nil, failure
	local function hand_over(stanza, backend, translated, requester, service, deadline, retries)
		local attr = stanza.attr;
		local handle, failure = pending:add(backend, translated, attr.id, requester, service, deadline);
		if handle then
			hold(handle, stanza, retries);
			watch_deadline(deadline);
			attr.from, attr.to = translated, backend;
			module:send(stanza);
		end
		return handle, failure;
	end

	local function dispatch(origin, stanza)
		local requester, service = stanza.attr.from, stanza.attr.to;
		if stopped then
			return refuse(origin, stanza, "unloaded");
		end
		local backend = pool:pick(requester, service, pending);
		if not backend then
			return refuse(origin, stanza, "no-backend");
		end
		local token = jat:encode(requester);
		if not token then
			return refuse(origin, stanza, "bad-address");
		end
		local handle, failure = hand_over(stanza, backend, (split_resource(service)).."/"..token, requester, service,
			now() + setup.timeout, setup.retries);
		if not handle then
			refuse(origin, stanza, failure);
		end
	end

	-- What becomes of a request whose backend will not answer it
	local function retry(requester, service, id, handle, deadline)
		local stanza, retries = release(handle);
		local backend = stanza and pool:pick(requester, service, pending);
		if backend and hand_over(st.clone(stanza), backend, stanza.attr.from, requester, service, deadline, retries - 1) then
			operations.count("retries");
		else
			fail(requester, service, id, "backend-gone");
		end
	end

	-- A slice of what the backend still had. Whether there is more
	local function take_back(backend)
		for _ = 1, SLICE do
			local requester, service, id, handle, deadline = pending:take_back(backend);
			if not requester then
				leaving[backend] = nil;
				return false;
			end
			retry(requester, service, id, handle, deadline);
		end
		return true;
	end

	-- to be called when it is in the pool no longer
	local function on_backend_gone(backend)
		if not leaving[backend] and take_back(backend) then
			leaving[backend] = true;
			module:add_timer(0, function ()
				return leaving[backend] and take_back(backend) and 0 or nil;
			end);
		end
	end

	-- to be called before it is in the pool: what it had before is not to be taken for what it gets now
	local function on_backend_came(backend)
		while leaving[backend] do
			take_back(backend);
		end
	end

	local function drop_answer(stanza)
		module:log("debug", "Dropped an answer that nobody waits for: %s", stanza:top_tag());
		operations.count("unmatched_answers");
	end

	local function settle(origin, stanza)
		local attr = stanza.attr;
		local requester, service, id, handle, deadline, backend = pending:take(attr.from, attr.to, attr.id);
		if not requester then
			return;
		end
		if requests.is_bounce(origin, stanza, pool) then
			setup.drop(backend);
			retry(requester, service, id, handle, deadline);
		else
			release(handle);
			operations.count_answer(attr.type == "error" and "error" or "answered", now() - (deadline - setup.timeout));
			attr.from, attr.to = service, requester;
			module:send(stanza);
		end
		return true;
	end

	-- A backend may not send requests to a requester, and nobody else to a token.
	-- What only looks like one can be anyone's resource, unless a backend uses it.
	local function refused_token(attr)
		local _, resource = split_resource(attr.to);
		if not resource then
			return;
		end
		local decoded, reason = jat:decode(resource);
		if (split_resource(attr.from)) == target then
			return (decoded or LOOKS_LIKE_TOKEN[reason]) and "not-by-backends";
		end
		return decoded and "no-such-resource";
	end

	-- before any other module: settles what is pending, refuses what cannot be handled
	local function on_iq_first(event)
		local origin, stanza = event.origin, event.stanza;
		local is_answer = IQ_ANSWER[stanza.attr.type];
		if is_answer and stanza.attr.id then
			return settle(origin, stanza);
		elseif is_answer then
			drop_answer(stanza);
			return true;
		end
		local failure = not is_well_formed_request(stanza) and "malformed" or refused_token(stanza.attr);
		if failure then
			refuse(origin, stanza, failure);
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
		requests.give_up(pending, operations);
	end

	-- What a reload has to carry over besides pool and pending
	local function save()
		while next(leaving) do -- sending can let others go, so pairs will not do
			on_backend_came(next(leaving));
		end
		return held;
	end

	set_timer();
	return {
		on_backend_came = on_backend_came;
		on_backend_gone = on_backend_gone;
		save = save;
		stop = stop;
		on_iq_first = on_iq_first;
		on_iq_last = on_iq_last;
		on_message = on_message;
	};
end

return requests;
