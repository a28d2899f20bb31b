-- The life of a request: dispatched to a backend, and settled by its answer or
-- by its deadline; when the backend goes away before, handed to another.
--
-- A request is in the pending table, and has nothing anywhere else, until it is taken out of it; then
-- whoever took it has all there is of it, and answers it or puts it back before anything else is done.
-- So it does not matter what sending a stanza can call back: another module's handlers, a reload, an
-- answer that comes at once.

local bounces = module:require "bounces";

local errors = require "util.error";
local find, sub = string.find, string.sub;
local now = require "util.time".monotonic;
local st = require "util.stanza";

-- RFC 6120 section 8.3.3 has the conditions
local failures = errors.init("client_proxy", {
	["backend-gone"] = { "cancel", "service-unavailable", "The resource that was to answer has gone" };
	["bad-address"] = { "modify", "jid-malformed", "The sender's address cannot be translated" };
	["bad-id"] = { "modify", "bad-request", "There are control characters in the id, which no answer can bring back" };
	["conflict"] = { "cancel", "conflict", "A request with this id, to an address that differs in the resource alone, is pending" };
	["malformed"] = { "modify", "bad-request", "An IQ is a get or set with an id and exactly one child element, or their answer" };
	["no-backend"] = { "cancel", "service-unavailable", "No resource of the target is online" };
	["full"] = { "wait", "resource-constraint", "Too many requests are pending" };
	["no-memory"] = { "wait", "resource-constraint", "There is no memory for another request" };
	["requester-full"] = { "wait", "resource-constraint", "Too many of your requests are pending, or they are too large" };
	["lost"] = { "wait", "remote-server-timeout", "The connection to the target's server broke, and no answer has come since" };
	["retargeted"] = { "wait", "service-unavailable", "The service has moved to another account" };
	["no-messages"] = { "cancel", "feature-not-implemented", "Messages are not supported here" };
	["no-such-resource"] = { "cancel", "service-unavailable", "This address takes no requests" };
	["not-by-backends"] = { "cancel", "feature-not-implemented", "A backend cannot send requests to a requester" };
	["timeout"] = { "wait", "remote-server-timeout", "No answer came in time" };
	["unloaded"] = { "wait", "service-unavailable", "The service is being stopped" };
});

-- How the requests that end so are counted
local outcomes = {
	["backend-gone"] = "backend_gone", ["no-backend"] = "no_backend", ["timeout"] = "timeout", ["unloaded"] = "unloaded";
	["retargeted"] = "backend_gone", ["lost"] = "backend_gone";
	["full"] = "limited", ["requester-full"] = "limited", ["no-memory"] = "limited";
	["bad-address"] = "refused", ["bad-id"] = "refused", ["conflict"] = "refused", ["malformed"] = "refused",
	["no-such-resource"] = "refused", ["not-by-backends"] = "refused";
};

-- How many requests expire or change their backend before Prosody gets to do something else
local SLICE = 100;

-- Seconds after a stream has broken, in which an answer may still come by another one
local LOST_AFTER = 4;

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

-- (pending, operations, failure): every pending request ends so at once, whatever its deadline
function requests.give_up(pending, operations, failure)
	local requester, service, id = pending:expire(math.huge);
	while requester do
		operations.count(outcomes[failure]);
		local ok, problem = pcall(answer_taken, requester, service, id, failure); -- as the others have no later
		if not ok then
			module:log("error", "Another module's handler has failed on an answer: %s", problem);
		end
		requester, service, id = pending:expire(math.huge);
	end
end

-- (work) -> start(), retire()
-- From start() on, work() is called each time that Prosody has done other things, until it says that there is no more.
-- From retire() on there is no timer, and start() does all of the work at once: it was called by something that a
-- reload was in the middle of.
local function in_slices(work)
	local timer;
	local is_retired = false;

	local function stop()
		if timer then
			timer:stop();
			timer = nil;
		end
	end

	local function run()
		timer = module:add_timer(0, run); -- already now, as an error in another module's handler would end this here
		if not work() then
			stop();
		end
	end

	local function start()
		if is_retired then
			repeat until not work();
		else
			timer = timer or module:add_timer(0, run);
		end
	end

	local function retire()
		is_retired = true;
		stop();
	end

	return start, retire;
end

-- (setup) -> the handlers for IQ and message events, for what happens to backends, stop() and stop_timers()
-- setup: { target, timeout (seconds), retries, max_pending, max_pending_per_requester, jat, pool, pending, operations,
--          alive(backend): to be told of what has answered, suspect(backend): of what lets a request time out, or
--          of an error that its server may have sent in its place,
--          lose_unreachable(backend): to be told of what a server says that it cannot reach }
function requests.new(setup)
	local jat, pool, pending, target, operations = setup.jat, setup.pool, setup.pending, setup.target, setup.operations;
	local timer, timer_due; -- the one timer for deadlines, and when it fires
	local stopped, retired = false, false;

	pending:set_limits(setup.max_pending, setup.max_pending_per_requester);

	local function refuse(origin, stanza, failure)
		operations.count(outcomes[failure]);
		answer_error(origin.send, stanza, failure);
	end

	-- A request that the pending table has let go
	local function fail(requester, service, id, failure)
		operations.count(outcomes[failure]);
		answer_taken(requester, service, id, failure);
	end

	local expire;

	local function set_timer()
		if timer then
			timer:stop();
		end
		timer_due = not retired and pending:deadline() or nil;
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
			local requester, service, id, backend = pending:expire(time);
			if not requester then
				break;
			end
			fail(requester, service, id, "timeout");
			if retired then -- by a reload in the middle of this: the rest is the next instance's
				return;
			end
			setup.suspect(backend);
		end
		set_timer();
	end

	-- Records the request, then sends it to the backend. A get is kept with it, to be sent again. -> true | nil, failure
	local function hand_over(stanza, backend, requester, service, id, added, deadline, retries)
		local attr = stanza.attr;
		local token = jat:encode(requester);
		if not token then
			return nil, "bad-address";
		end
		local translated = (split_resource(service)).."/"..token;
		local ok, failure = pending:add(backend, translated, id, requester, service, added, deadline,
			attr.type == "get" and retries or 0, stanza);
		if ok then
			watch_deadline(deadline);
			attr.from, attr.to = translated, backend;
			module:send(stanza);
		end
		return ok, failure;
	end

	local function dispatch(origin, stanza)
		local requester, service, id = stanza.attr.from, stanza.attr.to, stanza.attr.id;
		if stopped then
			return refuse(origin, stanza, "unloaded");
		end
		local backend = pool:pick(requester, service, pending);
		if not backend then
			return refuse(origin, stanza, "no-backend");
		end
		local time = now();
		local deadline = time + setup.timeout;
		local ok, failure = hand_over(stanza, backend, requester, service, id, time, deadline, setup.retries);
		if failure == "conflict" then -- to that backend, both look the same
			backend = pool:pick(requester, service, pending, backend);
			if backend then
				ok, failure = hand_over(stanza, backend, requester, service, id, time, deadline, setup.retries);
			end
		end
		if not ok then
			refuse(origin, stanza, failure);
		end
	end

	-- Sends a request again that the pending table has let go: to that backend, if there is one and it can be sent again.
	local function resend(backend, requester, service, id, _, _, deadline, retries, stanza)
		if backend and hand_over(st.clone(stanza), backend, requester, service, id, now(), deadline, retries - 1) then
			operations.count("retries");
		else
			fail(requester, service, id, "backend-gone");
		end
	end

	-- What becomes of a request that the pending table has let go because its backend will not answer it
	local function retry(requester, service, id, gone, added, deadline, retries, stanza)
		local backend = stanza and pool:pick(requester, service, pending, gone);
		resend(backend, requester, service, id, gone, added, deadline, retries, stanza);
	end

	-- A slice of what backends had that have gone. -> whether there is more
	local start_taking_back, retire_taking_back = in_slices(function ()
		for _ = 1, SLICE do
			local requester, service, id, gone, added, deadline, retries, stanza = pending:take_abandoned();
			if not requester then
				return false;
			end
			retry(requester, service, id, gone, added, deadline, retries, stanza);
		end
		return true;
	end);

	-- to be called when it is in the pool no longer
	local function on_backend_gone(backend)
		pending:abandon(backend);
		if pending:has_abandoned() then
			start_taking_back();
		end
	end

	-- A ready one for what `backend` has got: another one, if there is any, else itself | nil
	local function find_ready(requester, service, backend)
		local other = pool:pick(requester, service, pending, backend);
		return other and pool:state(other) == "ready" and other or pool:state(backend) == "ready" and backend or nil;
	end

	-- Whether what it has got is still for the others: since before that time or, if none is named, as long as it is not ready
	local function is_for_others(backend, added, before)
		if before then
			return added < before;
		end
		return pool:state(backend) ~= "ready";
	end

	-- A slice of the gets that a backend has, and are for others as above: each goes to another backend, waits there
	-- if there can be none for it, or until one is ready. -> whether there is more
	local function hand_on(backend, before)
		for _ = 1, SLICE do
			local requester, service, added = pending:first_movable(backend);
			if not requester or not is_for_others(backend, added, before) or not pool:is_ready() then
				return false;
			end
			local ready = find_ready(requester, service, backend);
			if ready then
				resend(ready, pending:take_movable(backend));
			else
				pending:fix_movable(backend);
			end
		end
		return true;
	end

	-- A slice of what cannot be sent again, and was with a backend when a stream broke. -> whether there is more
	local function give_up_lost(backend, before)
		for _ = 1, SLICE do
			local requester, service, id = pending:take_fixed(backend, before);
			if not requester then
				return false;
			end
			fail(requester, service, id, "lost");
		end
		return true;
	end

	local errands = {}; -- what is to be done in slices: { { work, backend, before }, ... }, the first one now

	local start_errands, retire_errands = in_slices(function ()
		local work, backend, before = table.unpack(errands[1]);
		if not work(backend, before) then
			table.remove(errands, 1);
		end
		return errands[1] ~= nil;
	end);

	local function add_errand(...)
		table.insert(errands, { ... });
		start_errands();
	end

	-- to be called when it hibernates or is in doubt, and there is another one for what it has
	local function on_backend_away(backend)
		add_errand(hand_on, backend);
	end

	-- When a stream of the target's server breaks, what a backend has got may have been lost, or its answers,
	-- until the backend is in doubt no longer: that has come by a stream that works.
	local broken_at = -math.huge; -- when a stream broke the last time
	local lost_before = {}; -- by backend: when it was in doubt no longer
	local loss_timer; -- until what may be lost is given up

	-- to be called when a stream of the target's server broke
	local function on_stream_broken()
		broken_at = now();
		if loss_timer then
			loss_timer:stop();
		end
		loss_timer = not retired and module:add_timer(LOST_AFTER, function ()
			loss_timer = nil;
			for backend, time in pairs(lost_before) do
				add_errand(give_up_lost, backend, time);
			end
			lost_before = {};
		end);
	end

	-- to be called when it is in doubt no longer: the gets that it may not have got are sent once more
	local function on_backend_back(backend)
		if now() < broken_at + LOST_AFTER then
			lost_before[backend] = now();
			add_errand(hand_on, backend, now());
		end
	end

	-- What an answer tells about the backend in whose name it came
	local function learn_from_answer(backend, bounce)
		if retired then -- by a reload while the answer was sent
			return;
		elseif not bounce then
			setup.alive(backend);
		elseif bounce == "doubtful" then
			setup.suspect(backend);
		end
	end

	local function drop_answer(stanza)
		module:log("debug", "Dropped an answer that nobody waits for: %s", stanza:top_tag());
		operations.count("unmatched_answers");
	end

	-- The answer goes to its requester, be it the backend's or a server's no. If a server cannot reach the
	-- backend, or seems to say so of one that is in doubt anyway, the request is tried elsewhere. It is taken
	-- care of before anybody is told, as that can do many other things.
	local function settle(origin, stanza)
		local attr = stanza.attr;
		local requester, service, id, backend, added, deadline, retries, kept = pending:take(attr.from, attr.to, attr.id);
		if not requester then
			return;
		end
		local bounce = bounces.kind(origin, stanza, pool);
		if bounce == "unreachable" then
			retry(requester, service, id, backend, added, deadline, retries, kept);
			setup.lose_unreachable(backend);
		elseif bounce == "doubtful" and kept and pool:is_ready() and pool:state(backend) ~= "ready" then
			retry(requester, service, id, backend, added, deadline, retries, kept);
		else
			operations.count_answer(attr.type == "error" and "error" or "answered", now() - added);
			attr.from, attr.to = service, requester;
			module:send(stanza);
			learn_from_answer(backend, bounce);
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
		requests.give_up(pending, operations, "unloaded");
	end

	-- to be called when the module goes, whether it is reloaded or not: a timer would keep all of this in memory
	local function stop_timers()
		retired = true;
		retire_taking_back();
		retire_errands();
		if loss_timer then
			loss_timer:stop();
		end
		if timer then
			timer:stop();
		end
	end

	set_timer();
	if pending:has_abandoned() then -- which a reload carries over
		start_taking_back();
	end
	return {
		on_backend_away = on_backend_away;
		on_backend_back = on_backend_back;
		on_backend_gone = on_backend_gone;
		on_stream_broken = on_stream_broken;
		stop = stop;
		stop_timers = stop_timers;
		on_iq_first = on_iq_first;
		on_iq_last = on_iq_last;
		on_message = on_message;
	};
end

return requests;
