-- For spec/e2e/failover_spec.lua and bench/failover.lua: what becomes of requests when one of two nodes
-- is killed under load, and comes back. Requesters send as many a second as they are to, whatever becomes
-- of them, and backends at both nodes answer.

local clustered = require "spec.support.clustered";
local service = require "spec.support.service";
local socket = require "socket";
local st = require "util.stanza";
local throwaway = require "spec.support.throwaway";
local xmpp = require "spec.support.xmpp";

local now = socket.gettime;

local RATE = 300; -- requests a second
local REQUESTERS = 10; -- with accounts of their own
local SET_EACH = 5; -- requests, of which one is a set
local ANSWER_AFTER = 0.1; -- seconds, so that some are under way when the node is killed
local KILLED, STARTED, ENDED = 3, 10, 20; -- seconds after the first request
local GRACE = 10; -- seconds after the last request
local TURN = 0.01; -- seconds, at most
local VICTIM = 2; -- the node

local ADDRESSES = { service.proxy, "room@"..service.proxy, service.proxy.."/thing", "other@"..service.proxy };

local failover = {};
failover.__index = failover;

local function user_names()
	local names = {};
	for number = 1, REQUESTERS do
		names[number] = "user-"..number;
	end
	return names;
end

local function connect_requesters(self)
	for number, user in ipairs(user_names()) do
		self.requesters[number] = xmpp.client(self.parties.server, user, "domain.example", "abc");
	end
end

local function add_backend(self, backend, node, resource)
	backend.node, backend.resource = node, resource;
	table.insert(self.backends, backend);
end

-- The backends at the node that is to be killed come first, so that one of them is the primary.
local function connect_backends(self)
	for _, place in ipairs { { VICTIM, "b1" }, { VICTIM, "b2" }, { 3 - VICTIM, "a1" }, { 3 - VICTIM, "a2" } } do
		local node, resource = table.unpack(place);
		add_backend(self, self.parties:log_in(node, resource)[resource], node, resource);
	end
end

local function reconnect_backend(self, resource)
	local backend = xmpp.client(self.parties.nodes[VICTIM], "some-user", "some-domain.example", resource);
	backend:send(st.presence());
	add_backend(self, backend, VICTIM, resource);
end

--
-- Requests
--

local function ask(self)
	local number = #self.requests + 1;
	local requester = self.requesters[number % REQUESTERS + 1];
	local request = {
		id = ("%d"):format(number), type = number % SET_EACH == 0 and "set" or "get", requester = requester;
		address = ADDRESSES[number // REQUESTERS % #ADDRESSES + 1], sent = now(), arrivals = {};
	};
	self.requests[number], self.by_id[request.id] = request, request;
	requester:send(service.request(request.id, request.address, request.type));
end

local function ask_what_is_due(self)
	local due = math.min(now() - self.start, ENDED) * RATE;
	while #self.requests < due do
		ask(self);
	end
end

local function end_request(self, stanza)
	local request = self.by_id[stanza.attr.id];
	assert(request and not request.ended and stanza.attr.from == request.address, tostring(stanza));
	request.ended = now();
	request.outcome = stanza.attr.type == "result" and "result" or service.error_of(stanza);
end

local function answer_later(self, backend, stanza)
	local request = self.by_id[stanza.attr.id];
	if request then
		table.insert(request.arrivals, { resource = backend.resource, node = backend.node, at = now() });
	end
	table.insert(self.answers, { at = now() + ANSWER_AFTER, backend = backend, stanza = st.reply(stanza) });
end

local function answer_what_is_due(self)
	while self.answers[1] and self.answers[1].at <= now() do
		local answer = table.remove(self.answers, 1);
		if not answer.backend.closed then
			answer.backend:send(answer.stanza);
		end
	end
end

--
-- Turns
--

local function take_in(self, connection)
	connection:read(now());
	for _, stanza in ipairs(connection.received) do
		local type = stanza.attr.type;
		if stanza.name == "iq" and (type == "get" or type == "set") then
			answer_later(self, connection, stanza);
		elseif stanza.name == "iq" then
			end_request(self, stanza);
		end
	end
	connection.received = {};
end

local function read_all(self)
	local sockets, owners = {}, {};
	for _, list in ipairs { self.requesters, self.backends } do
		for _, connection in ipairs(list) do
			if not connection.closed then
				table.insert(sockets, connection.socket);
				owners[connection.socket] = connection;
			end
		end
	end
	for _, readable in ipairs((socket.select(sockets, nil, TURN))) do
		take_in(self, owners[readable]);
	end
end

local function kill(self)
	self.killed = now();
	self.parties.nodes[VICTIM]:kill();
	for _, backend in ipairs(self.backends) do
		backend.closed = backend.closed or backend.node == VICTIM;
	end
end

local function begin_start(self)
	self.parties.nodes[VICTIM]:begin_start();
	self.is_starting = true;
end

local function finish_start(self)
	self.parties.nodes[VICTIM]:await_started();
	reconnect_backend(self, "b1");
	reconnect_backend(self, "b2");
	self.back = now();
end

local function let_things_happen(self)
	local passed = now() - self.start;
	if not self.killed and passed >= KILLED then
		kill(self);
	elseif not self.is_starting and passed >= STARTED then
		begin_start(self);
	elseif self.is_starting and not self.back and throwaway.is_listening(self.parties.nodes[VICTIM].c2s_port) then
		finish_start(self);
	end
end

local function open_count(self)
	local count = 0;
	for _, request in ipairs(self.requests) do
		count = count + (request.ended and 0 or 1);
	end
	return count;
end

local function take_turn(self)
	ask_what_is_due(self);
	read_all(self);
	answer_what_is_due(self);
end

local function run(self)
	self.start = now();
	while now() < self.start + ENDED do
		let_things_happen(self);
		take_turn(self);
	end
	repeat
		take_turn(self);
	until now() > self.start + ENDED + GRACE or open_count(self) == 0;
end

--
-- What has come of it
--

local function figures_of(self)
	local figures = { requests = #self.requests, results = 0, errors = 0, unanswered = 0, conditions = {};
		last_failed = 0, failed_after = 0, failed_gets = 0;
		open_gets = 0, open_gets_failed = 0, open_sets = 0, open_sets_failed = 0, open_sets_longest = 0, longest = 0,
		back = self.back and self.back - self.killed };
	for _, request in ipairs(self.requests) do
		local is_result = request.outcome == "result";
		local kind = is_result and "results" or request.outcome and "errors" or "unanswered";
		local ended = request.ended or now();
		figures[kind] = figures[kind] + 1;
		figures.longest = math.max(figures.longest, ended - request.sent);
		if not is_result then
			local condition = request.outcome or "unanswered";
			figures.conditions[condition] = (figures.conditions[condition] or 0) + 1;
		end
		local arrival = request.arrivals[1];
		if arrival and arrival.at < self.killed and ended > self.killed then
			local name = request.type == "get" and "open_gets" or "open_sets";
			figures[name] = figures[name] + 1;
			figures[name.."_failed"] = figures[name.."_failed"] + (is_result and 0 or 1);
			if request.type == "set" then
				figures.open_sets_longest = math.max(figures.open_sets_longest, ended - self.killed);
			end
		elseif not is_result and ended > self.killed then
			figures.last_failed = math.max(figures.last_failed, request.sent - self.killed);
			figures.failed_after = figures.failed_after + 1;
			figures.failed_gets = figures.failed_gets + (request.type == "get" and 1 or 0);
		end
	end
	return figures;
end

-- (options) -> figures, requests
-- options: strategy, place (a list: the node that Prosody's stream leads to, the one that the cluster's comes from),
--          component (more lines of its section), plugin_path
-- figures: { requests, results, errors, unanswered (how many), conditions (how many, by condition),
--            last_failed (seconds from the kill until the last one was sent that failed), failed_after (how many of those
--            that no backend had got before), failed_gets (of these),
--            open_gets, open_gets_failed, open_sets, open_sets_failed (how many a backend had got when the node was killed, and
--            of these failed), open_sets_longest (seconds that the last of these took from the kill on),
--            longest (seconds that a request took), back (seconds from the kill until the backends were back) }
-- requests: a list of { id, type, address, sent, ended, outcome ("result", or an error's condition), arrivals (at backends:
--           { resource, node, at }) }; ended and outcome are nil if it was not answered
function failover.run(options)
	local self = setmetatable({ requesters = {}, backends = {}, requests = {}, by_id = {}, answers = {} }, failover);
	self.parties = clustered.new {
		component = ("client_proxy_strategy = %q\n%s"):format(options.strategy, options.component or "");
		users = user_names(), log_level = "info";
	};
	local results = table.pack(xpcall(function ()
		self.parties:start();
		connect_requesters(self);
		if options.place then
			self.parties:place_streams(table.unpack(options.place));
		end
		connect_backends(self);
		run(self);
		return figures_of(self), self.requests;
	end, debug.traceback));
	self.parties:remove();
	assert(results[1], results[2]);
	return table.unpack(results, 2, results.n);
end

return failover;
