-- The life of a request: dispatched to a backend, and settled by its answer. What happens when no answer comes is in
-- deadlines.lua, and what happens when the backend goes away before in retries.lua.
--
-- All that there is of a pending request is in the pending table. Whoever takes it out of there gets all of it, and
-- either answers it or puts it back before doing anything else. Sending a stanza can call back anything: handlers of
-- other modules, which may fail, a reload, an answer that comes at once. Each of them finds a request either in the
-- table or answered.

local bounces = module:require "bounces";
local deadlines = module:require "deadlines";
local delivery = module:require "delivery";
local disco = module:require "disco";
local handover = module:require "handover";
local kinds = module:require "kinds";
local retries = module:require "retries";

local now = require "util.time".monotonic;
local bounce_kind, kind_of_iq, kind_of_settlement = bounces.kind, kinds.of_iq, kinds.of_settlement;
local IS_ANSWER, is_command = kinds.IS_ANSWER, kinds.is_command;
local send = delivery.send;
local translate_items = disco.translate_items;

local requests = {};
requests.__index = requests;

-- (self, stanza, backend) -> the backend that gets this request and no other | nil: one is chosen; how often it can be sent again
-- backend: the one whose token is in the address, or nil
-- An exchange of several stages (XEP-0050) stays with the backend to which its sender's messages go.
local function destination(self, stanza, backend)
	local attr = stanza.attr;
	if backend then
		return backend, 0;
	elseif is_command(stanza) then
		return self.pool:pick_lasting(attr.from, attr.to), self.max_retries;
	end
	return nil, self.max_retries;
end

-- Hands the request to a backend, if its sender may use the service. backend: see destination()
local function dispatch(self, origin, stanza, backend)
	local attr = stanza.attr;
	if self.is_allowed and not self.is_allowed(attr.from) then
		return self.failures:refuse(origin, stanza, "forbidden");
	end
	if self.is_stopped or self.is_retired then -- while other modules were offered the request
		return self.failures:refuse(origin, stanza, "unloaded");
	end
	local time, wanted, max_retries = now(), destination(self, stanza, backend);
	local ok, failure = self.hand_over(stanza, attr.from, attr.to, attr.id, time, time + self.timeout, max_retries, wanted);
	if not ok then
		self.failures:refuse(origin, stanza, failure);
	end
end

-- A result goes to its requester. -> true | nil: nobody waits for it
local function settle_result(self, stanza)
	local attr = stanza.attr;
	local backend, time = attr.from, now();
	local requester, service, added = self.exchange:settle(backend, attr.to, attr.id, time);
	if not requester then
		return;
	end
	if self.metrics.wants_samples then
		self.metrics:sample(time - added);
	end
	attr.from, attr.to = service, requester;
	translate_items(stanza, self.addresses);
	send(stanza, requester);
	if not self.is_retired then -- by a reload while the answer was sent
		self.backends:alive(backend);
	end
	return true;
end

-- An error goes to its requester, or, if a server says that the backend cannot be reached, the request to another
-- backend. Only after that is anybody told, as that can have any consequences. -> true | nil: nobody waits for it
local function settle_error(self, origin, stanza)
	local attr = stanza.attr;
	local requester, service, id, backend, added, deadline, left, kept = self.pending:take(attr.from, attr.to, attr.id);
	if not requester then
		return;
	end
	local bounce = bounce_kind(origin, stanza, self.pool);
	if bounce and kind_of_settlement(bounce, kept ~= nil, self.pool, backend) == "retry" then
		self.retries:retry(requester, service, id, backend, added, deadline, left, kept);
		if bounce == "unreachable" then
			self.backends:lose_unreachable(backend);
		end
		return true;
	end
	local metrics, seconds = self.metrics, now() - added;
	self.exchange:count_error(seconds);
	if metrics.wants_samples then
		metrics:sample(seconds);
	end
	attr.from, attr.to = service, requester;
	send(stanza, requester);
	if self.is_retired then -- by a reload while the answer was sent
		return true;
	elseif not bounce then
		self.backends:alive(backend);
	elseif bounce == "doubtful" then
		self.backends:suspect(backend);
	end
	return true;
end

local function drop_answer(self, stanza)
	module:log("debug", "Dropped an answer that nobody waits for: %s", stanza:top_tag());
	self.metrics:count("unmatched_answers");
end

local function add_handlers(self)
	local addresses, backend_requests = self.addresses, self.backend_requests;
	local kind_of_address = addresses.kind; -- every request needs it

	-- For IQ events, before any other module: deals with all that is no business of theirs.
	function self.on_iq_first(event)
		local origin, stanza = event.origin, event.stanza;
		local kind, what = kind_of_iq(stanza, kind_of_address, addresses);
		if kind == "request" then
			return;
		elseif kind == "answer" then
			if stanza.attr.type == "result" then
				return settle_result(self, stanza) or backend_requests:settle(stanza);
			end
			return settle_error(self, origin, stanza) or backend_requests:settle(stanza);
		elseif kind == "backends-request" then
			backend_requests:ask(origin, stanza, what);
		elseif kind == "request-to-one" then
			dispatch(self, origin, stanza, addresses:backend(stanza.attr.to));
		elseif kind == "refused" then
			self.failures:refuse(origin, stanza, what);
		else
			drop_answer(self, stanza);
		end
		return true;
	end

	-- For IQ events, after all other modules: takes what none of them wanted.
	function self.on_iq_last(event)
		local origin, stanza = event.origin, event.stanza;
		if IS_ANSWER[stanza.attr.type] then
			drop_answer(self, stanza);
		else
			dispatch(self, origin, stanza);
		end
		return true;
	end
end

-- (setup) -> requests, with the handlers for IQ events
-- setup: { timeout (seconds), retries, max_pending, max_pending_per_requester: the options of these names;
--          is_allowed (see access.lua), or nil if anyone may use the service;
--          addresses, exchange, pool, pending, failures, metrics, backends, backend_requests (what is for those is
--          handed on), events (see mod_client_proxy.lua) }
function requests.new(setup)
	local pool, pending, failures, metrics = setup.pool, setup.pending, setup.failures, setup.metrics;
	pending:set_limits(setup.max_pending, setup.max_pending_per_requester);
	local watched = deadlines.new {
		pending = pending, failures = failures;
		on_late = function (backend) setup.backends:suspect(backend); end;
	};
	local hand_over = handover.new { exchange = setup.exchange, deadlines = watched };
	local self = setmetatable({
		timeout = setup.timeout, max_retries = setup.retries, is_allowed = setup.is_allowed;
		addresses = setup.addresses, exchange = setup.exchange, pool = pool, pending = pending, backends = setup.backends;
		backend_requests = setup.backend_requests;
		failures = failures, metrics = metrics, hand_over = hand_over, deadlines = watched;
		retries = retries.new {
			pool = pool, pending = pending, hand_over = hand_over;
			failures = failures, metrics = metrics, events = setup.events;
		};
		is_stopped = false, is_retired = false;
	}, requests);
	add_handlers(self);
	return self;
end

-- Answers all that is pending, and refuses what still comes.
function requests:stop()
	self.is_stopped = true;
	self.failures:give_up(self.pending, "unloaded");
end

-- To be called when the module goes, whether it is reloaded or not.
function requests:retire()
	self.is_retired = true;
	self.deadlines:retire();
	self.retries:retire();
end

return requests;
