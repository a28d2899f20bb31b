-- For spec/lua/exchanges_spec.lua: requests, an instance of requests.lua with a real core, backends, and a
-- ledger. The ledger holds that each request gets exactly one answer, the right one, and that what is not
-- answered is pending, after each event and whatever happens while a stanza is sent: see `during`.
--
-- Requests are known by numbers, which their payload tells, and which a backend puts into its result.

local core = require "mod_client_proxy.core";
local new_pending = require "spec.support.pending".new;
local expect = require "spec.support.expect";
local fake_module = require "spec.support.module";
local new_events = require "util.events".new;
local st = require "util.stanza";

local PROXY = "proxy.domain.example";
local TARGET = "some-user@some-domain.example";
local ANSWERS = { result = true, error = true };

local exchange = {};
exchange.__index = exchange;

exchange.PROXY = PROXY;
exchange.THROWN = setmetatable({}, { __tostring = function () return "what another module's handler throws"; end });

-- (resource) -> the JID of a backend
function exchange.backend(resource)
	return TARGET.."/"..resource;
end

local function new_metrics(self)
	local function count(_, what)
		self.counts[what] = (self.counts[what] or 0) + 1;
	end
	return { count = count };
end

-- (self, instance) -> backends, as far as requests.lua and its rooms know them
local function new_backends(self, instance)
	return {
		alive = function (_, backend) self:back(backend); end;
		suspect = function (_, backend)
			table.insert(self.suspected, backend);
			self.on_told(backend);
		end;
		lose_unreachable = function (_, backend)
			self.on_told(backend);
			if self.pool:remove(backend) then
				self:end_session(backend);
				instance.events.fire_event("backend-gone", backend);
			end
		end;
	};
end

-- Makes an instance: it has a module, and all that requests.lua makes, of its own.
local function new_instance(self)
	local module = fake_module.new({}, self.instance and self.instance.module);
	local instance = { module = module, events = new_events() };
	function module.send(_, stanza)
		return self:sent(stanza);
	end
	local metrics = new_metrics(self);
	instance.failures = module:require "failures".new(metrics);
	instance.requests = module:require "requests".new {
		timeout = self.timeout, retries = self.retries, max_pending = self.max, max_pending_per_requester = self.max;
		addresses = module:require "addresses".new(self.core_exchange, self.pool, TARGET), exchange = self.core_exchange;
		pool = self.pool, pending = self.pending;
		failures = instance.failures, metrics = metrics, events = instance.events, backends = new_backends(self, instance);
		backend_requests = { settle = function () end };
	};
	self.instance = instance;
end

-- (setup) -> exchange
-- setup: { retries (1 if nil), max (how many may be pending, in all and by one bare JID), seed (the pool's) }
function exchange.new(setup)
	setup = setup or {};
	local self = setmetatable({
		timeout = 60, retries = setup.retries or 1, max = setup.max or 100000;
		jat = core.jat(PROXY, "sealed");
		pool = core.pool(setup.seed or ("\0"):rep(core.POOL_SEEDBYTES));
		asked = {}; -- by number: { requester, service, id, type, key, deliveries (to backends) }
		open = {}; -- by key, which is all that an answer tells of its request: how many are not answered
		times = {}; -- by key: how often it was asked
		open_count = 0; -- of all
		answers = {}; -- by key: how the last one was answered: "result" or the condition of an error
		at = {}; -- by backend: the stanzas that its session has got, oldest first
		sessions = {}; -- by backend: how many there have been
		counts = {}; -- by what was counted; see all_counts()
		suspected = {}; -- backends, in order
		old_modules = {}; -- which have been reloaded
		on_told = function () end; -- (backend): is called when one is suspected, or told to be unreachable
		during = nil; -- (stanza): is called while a stanza is sent, just before it is delivered
	}, exchange);
	self.jat:add_key(7, ("k"):rep(core.JAT_KEYBYTES));
	self.pending, self.book = new_pending(("\0"):rep(core.PENDING_SEEDBYTES));
	self.core_exchange = core.exchange(self.jat, self.book, self.pool, self.pending);
	new_instance(self);
	return self;
end

-- -> by what was counted, be it in Lua or in the core: how often, if ever
function exchange:all_counts()
	local results, errors = self.core_exchange:counts();
	local all = { answered = results > 0 and results or nil, error = errors > 0 and errors or nil };
	for what, count in pairs(self.counts) do
		all[what] = count;
	end
	return all;
end

local function key_of(requester, service, id)
	return ("%s <- %s: %s"):format(requester, service, id);
end

local function bare(jid)
	return jid:match("^[^/]*");
end

-- A stanza arrives at a backend, if it should.
local function arrive_at_backend(self, stanza)
	local attr = stanza.attr;
	local request = self.asked[tonumber(stanza.tags[1].attr.number)];
	expect.equal(request.type, attr.type, "type of what %s gets", attr.to);
	expect.equal(request.id, attr.id, "id of what %s gets", attr.to);
	expect.equal(bare(request.service).."/"..self.jat:encode(request.requester), attr.from, "sender of what %s gets", attr.to);
	expect.that(attr.to ~= request.requester, "%s gets its own request", attr.to);
	expect.that(self.pool:state(attr.to) and self.pool:state(attr.to) ~= "away", "%s gets a request though it should not", attr.to);
	expect.that(self.open[request.key] > 0, "%s gets a request that is answered", attr.to);
	request.deliveries = request.deliveries + 1;
	expect.that(request.deliveries <= (request.type == "get" and self.retries or 0) + 1, "%s is sent again and again", request.key);
end

-- What a backend says late, or though it was not asked, cannot be told from what it says to a request that looks the same.
local function may_be_taken_for_another(self, request, answer)
	return answer.tags[1].attr.wrong or request.deliveries > 1 or self.open[request.key] == 0 or self.times[request.key] > 1;
end

-- An answer arrives at a requester, and ought to be one to what it has asked.
local function arrive_at_requester(self, stanza)
	local attr = stanza.attr;
	local key = key_of(attr.to, attr.from, attr.id);
	expect.that((self.open[key] or 0) > 0, "%s %s: nobody waits for it", key, attr.type);
	self.open[key] = self.open[key] - 1;
	self.open_count = self.open_count - 1;
	if attr.type == "result" then
		local request = self.asked[tonumber(stanza.tags[1].attr.number)];
		local is_alike = attr.to == request.requester and attr.id == request.id and bare(attr.from) == bare(request.service);
		expect.that(key == request.key or is_alike and may_be_taken_for_another(self, request, stanza), "%s: gets the answer to %s", key, request.key);
	end
	self.answers[key] = attr.type == "result" and "result" or select(2, stanza:get_error());
end

local function deliver(self, stanza)
	if ANSWERS[stanza.attr.type] then
		arrive_at_requester(self, stanza);
	else
		arrive_at_backend(self, stanza);
	end
end

-- What the ledger finds is said at the end of the event, as others may catch it here.
function exchange:sent(stanza)
	stanza = st.clone(stanza);
	local ok, problem = pcall(deliver, self, stanza);
	self.problem = self.problem or not ok and problem or nil;
	local to = stanza.attr.to;
	local session = self.sessions[to];
	if self.during then
		self.during(stanza);
	end
	if not ANSWERS[stanza.attr.type] and self.sessions[to] == session then
		self.at[to] = self.at[to] or {};
		table.insert(self.at[to], stanza);
	end
end

function exchange:end_session(backend)
	self.sessions[backend] = (self.sessions[backend] or 0) + 1;
	self.at[backend] = nil;
end

-- What holds between any two events
function exchange:check()
	expect.that(not self.problem, "%s", self.problem);
	expect.equal(self.open_count, #self.pending, "requests that are pending");
	for _, module in ipairs(self.old_modules) do
		expect.equal(0, #module:running_timers(), "timers of an instance that has gone");
	end
end

local function check_errors(errors)
	for _, thrown in ipairs(errors) do
		if thrown ~= exchange.THROWN then
			error(thrown, 0);
		end
	end
end

-- An event inside of another one is no time to check.
local function happen(self, event, ...)
	self.depth = (self.depth or 0) + 1;
	local result = table.pack(pcall(event, ...));
	self.depth = self.depth - 1;
	if self.depth > 0 then
		return table.unpack(assert(result[1] and result or error(result[2], 0)), 2, result.n);
	end
	check_errors { not result[1] and result[2] or nil };
	self:check();
	return table.unpack(result, 2, result.n);
end

local function receive(self, origin, stanza)
	local event = { origin = origin, stanza = stanza };
	local handlers = self.instance.requests;
	return happen(self, function ()
		return handlers.on_iq_first(event) or handlers.on_iq_last(event);
	end);
end

-- (attr) -> its number; attr: { from, to, id, type }, each has a default
function exchange:request(attr)
	local number = #self.asked + 1;
	local request = {
		requester = attr.from or "user@some-domain.example/abc", service = attr.to or PROXY, id = attr.id or "n"..number;
		type = attr.type or "get", deliveries = 0;
	};
	request.key = key_of(request.requester, request.service, request.id);
	self.asked[number] = request;
	self.open[request.key] = (self.open[request.key] or 0) + 1;
	self.open_count = self.open_count + 1;
	self.times[request.key] = (self.times[request.key] or 0) + 1;
	local stanza = st.stanza("iq", { type = request.type, id = request.id, from = request.requester, to = request.service })
		:tag("query", { xmlns = "x:y", number = tostring(number) }):up();
	receive(self, { send = function (answer) arrive_at_requester(self, answer); end }, stanza);
	return number;
end

-- (number) -> how it was answered, or nil
function exchange:answer_of(number)
	local key = self.asked[number].key;
	return self.open[key] == 0 and self.answers[key] or nil;
end

-- (stanza, backend): the answer to the stanza, from the backend that got it if nil
function exchange:answer(stanza, backend)
	receive(self, {}, st.reply(stanza):add_child(st.clone(stanza.tags[1])));
	return backend;
end

-- (stanza, condition): the target's server, which is not ours, cannot be reached
function exchange:bounce(stanza)
	receive(self, { dummy = true }, st.error_reply(stanza, "cancel", "remote-server-not-found"));
end

-- (stanza): the backend says that it cannot do it, or the target's server says that there is no such backend
function exchange:doubtful(stanza)
	receive(self, {}, st.error_reply(stanza, "cancel", "service-unavailable"));
end

-- (stanza): a host of ours says no in the name of a client who is logged in
function exchange:refuse(stanza)
	local prosody = self.instance.module.prosody;
	local host = { type = "local", host = "some-domain.example" };
	prosody.hosts["some-domain.example"], prosody.full_sessions[stanza.attr.to] = host, {};
	receive(self, host, st.error_reply(stanza, "auth", "forbidden"));
	prosody.hosts["some-domain.example"], prosody.full_sessions[stanza.attr.to] = nil, nil;
end

function exchange:come(backend)
	self.pool:add(backend);
end

function exchange:go(backend)
	if self.pool:remove(backend) then
		self:end_session(backend);
		happen(self, self.instance.events.fire_event, "backend-gone", backend);
	end
end

function exchange:hibernate(backend)
	if self.pool:set_state(backend, "away") then
		happen(self, self.instance.events.fire_event, "backend-away", backend);
	end
end

function exchange:resume(backend)
	self.pool:set_state(backend, "ready");
end

-- It is in doubt: others get what it has, if there are any, and it gets nothing unless all are in doubt.
function exchange:doubt(backend)
	if self.pool:state(backend) == "ready" then
		self.pool:set_state(backend, "suspended");
		if self.pool:is_ready() then
			happen(self, self.instance.events.fire_event, "backend-away", backend);
		end
	end
end

-- It is in doubt no longer.
function exchange:back(backend)
	if self.pool:state(backend) == "suspended" then
		self.pool:set_state(backend, "ready");
		happen(self, self.instance.events.fire_event, "backend-back", backend);
	end
end

-- A stream of the target's server breaks: all that is on the way is lost, and all backends are in doubt.
function exchange:break_stream(backends)
	happen(self, self.instance.events.fire_event, "stream-broken");
	for _, backend in ipairs(backends) do
		self.at[backend] = nil;
		if self.pool:state(backend) == "ready" then
			self.pool:set_state(backend, "suspended");
		end
	end
end

-- What is to come before is done. The errors of others end what they are thrown in, and nothing else.
function exchange:pass(seconds)
	local module = self.instance.module;
	happen(self, function ()
		check_errors(module:pass(seconds));
	end);
end

-- Puts a new instance into the place of this one.
function exchange:reload()
	local old = self.instance;
	table.insert(self.old_modules, old.module);
	old.module.is_gone = true;
	old.requests:retire();
	new_instance(self);
end

-- The module goes for good, and so do its handlers.
function exchange:unload()
	local old = self.instance;
	table.insert(self.old_modules, old.module);
	old.module.is_gone = true;
	old.requests:retire();
	happen(self, old.requests.stop, old.requests);
end

-- Time passes until everything has come to its end, which it does by the deadline of the last request.
function exchange:finish()
	self.during = nil;
	for _ = 1, 2 do -- a reload may have been in the middle of the first one
		self:pass(self.timeout);
	end
	expect.equal(0, self.open_count, "requests without an answer");
	expect.equal(0, self.pending:bytes(), "bytes of none");
	expect.that(not self.instance.module:running_timer(), "a timer runs for nothing");
end

return exchange;
