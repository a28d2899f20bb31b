-- Who can serve: the target's available resources, as its presence tells them (RFC 6121 section 4), and which of them
-- are to be chosen.

local addresses = module:require "addresses";
local bounces = module:require "bounces";
local doubt = module:require "doubt";
local health = module:require "health";
local hibernation = module:require "hibernation";
local own_presence = module:require "own_presence";
local presence = module:require "presence";
local states = module:require "states";

local jid_resource = addresses.resource;
local new_cache = require "util.cache".new;

-- How many backends are remembered that have been lost though their sessions may go on
local REMEMBERED = 256;

local backends = {};
backends.__index = backends;

local function is_wanted(self, backend)
	return self.is_wanted(jid_resource(backend));
end

local function state_of(self, backend)
	return states.of(self.records[backend], is_wanted(self, backend), self.doubts:has(backend));
end

-- Requests of backends that hibernate or are in doubt go to others, as soon as one of these is ready.
local function relieve(self)
	for backend, record in pairs(self.records) do
		if record.is_hibernating or self.doubts:is_settled(backend) then
			self.events.fire_event("backend-away", backend);
		end
	end
end

-- To be called last, after everything that may have changed who serves: whoever is told here can call back anything,
-- and an error in another module's handler ends it.
local function changed(self)
	self.events.fire_event("changed");
	if self.was_ready ~= self.pool:is_ready() then
		self.was_ready = not self.was_ready;
		if self.was_ready then
			relieve(self);
		end
	end
	self.own_presence:update();
end

-- (backend, state): it gets this state in the pool, or leaves it if that is nil.
local function set_state(self, backend, state)
	if state ~= "ready" and self.pool:state(backend) == "ready" then
		self.metrics:count "backends_interrupted";
	end
	if state then
		self.pool:set_state(backend, state);
	else
		self.pool:remove(backend);
	end
end

-- Sets fields of a backend's record, and tells the pool what follows from the record.
local function set_fields(self, backend, fields)
	local record = self.records[backend];
	for name, value in pairs(fields) do
		record[name] = value;
	end
	self.pool:set_priority(backend, record.priority);
	set_state(self, backend, states.in_pool(state_of(self, backend)));
end

-- Does the same if it is a backend, and tells everybody.
local function update(self, backend, fields)
	if self.records[backend] then
		set_fields(self, backend, fields);
		changed(self);
	end
end

-- What is remembered of a backend that comes again, unless it has another session now
local function recall(self, backend)
	local known = self.remembered:get(backend);
	self.remembered:set(backend, nil);
	return known and known.session == prosody.full_sessions[backend] and known or {};
end

local function log_new(self, backend)
	local resource, count = jid_resource(backend), #self.pool;
	module:log("debug", "%s came, backends: %d", backend, count);
	if not is_wanted(self, backend) then
		module:log("info", "Resource %q of the target is not among client_proxy_resources: it gets no requests", resource);
	elseif count > 1 then
		module:log("info", "Resource %q of the target is online, too: there are %d. If it should not serve, log it out, "
			.."drain it with `prosodyctl shell client_proxy drain`, or name those that should in client_proxy_resources",
			resource, count);
	end
end

-- Makes it a backend. -> whether that was possible
local function add(self, backend)
	local ok, failure = self.exchange:admit(backend);
	if not ok then
		module:log("error", "A backend cannot be used: %s", failure);
		return false;
	end
	self.pool:set_state(backend, "away"); -- until came() has its priority, so that it does not cease to be ready by that
	local known = recall(self, backend);
	self.records[backend] = {
		since = os.time(), priority = 0, is_hibernating = hibernation.is_hibernating(backend);
		is_drained = known.is_drained, is_suspended = known.is_suspended;
	};
	log_new(self, backend);
	return true;
end

-- It has shown that it is alive.
local function clear_suspension(self, backend)
	if self.records[backend].is_suspended then
		module:log("info", "Resource %q of the target answers again", jid_resource(backend));
	end
	set_fields(self, backend, { is_suspended = false, has_been_late = false });
end

-- Its presence has come, which its server may have sent in its place: if a request has timed out there while it was in doubt, it
-- is pinged now.
local function ask_if_late(self, backend)
	local record = self.records[backend]; -- nil if much has followed from its presence
	if record and record.has_been_late then
		record.has_been_late = false;
		self.checks:suspect(backend);
	end
end

-- Its presence has come, be it new or not.
local function came(self, backend, stanza)
	local is_new = not self.records[backend];
	if is_new and not add(self, backend) then
		return;
	end
	-- First of all, as it can be chosen from now on: what follows may send requests to it.
	self.formats:set(backend, presence.names_jicofo(stanza));
	local was_in_doubt = self.doubts:confirm(backend);
	set_fields(self, backend, { priority = presence.priority(stanza) });
	if self.checks:present(backend, presence.was_asked_for(stanza)) then
		clear_suspension(self, backend);
	end
	if is_new and self.records[backend].is_suspended then
		self.checks:check(backend);
	end
	if was_in_doubt then
		self.events.fire_event("backend-back", backend);
	end
	changed(self);
	ask_if_late(self, backend);
end

-- It is no backend any more. -> what it was, or nil
local function remove(self, backend)
	local record = self.records[backend];
	if record then
		self.records[backend] = nil;
		set_state(self, backend, nil);
		self.formats:forget(backend);
		self.checks:forget(backend);
		self.doubts:forget(backend);
		self.events.fire_event("backend-gone", backend);
	end
	return record;
end

-- Its server says that its session is over.
local function went(self, backend)
	self.remembered:set(backend, nil);
	if remove(self, backend) then
		module:log("debug", "%s went, backends: %d", backend, #self.pool);
	end
	self.events.fire_event("backend-went", backend);
	changed(self);
end

-- It is lost, but nobody says that its session is over: that it was drained or suspended is remembered.
local function forget(self, backend)
	local record = remove(self, backend);
	if record and (record.is_drained or record.is_suspended) then
		self.remembered:set(backend, {
			is_drained = record.is_drained, is_suspended = record.is_suspended, session = prosody.full_sessions[backend],
		});
	end
end

-- None of them is a backend any more.
local function lose_all(self)
	local before = #self.pool;
	for backend in pairs(self.records) do
		forget(self, backend);
	end
	module:log("debug", "Backends that were lost: %d, left: %d", before - #self.pool, #self.pool);
	changed(self);
end

local function all(self)
	local list = {};
	for backend in pairs(self.records) do
		table.insert(list, backend);
	end
	return list;
end

-- Its session may be over though nobody says so. A client of this Prosody is never in doubt, as its presence says when
-- its session ends: the target is only asked for it.
local function raise_doubt(self, backend)
	if prosody.full_sessions[backend] then
		self.subscription:check();
	elseif not self.doubts:has(backend) then
		self.doubts:raise { backend };
	end
end

-- It does not answer a ping: it gets no new requests until it does.
local function on_silent(self, backend)
	module:log("warn", "Resource %q of the target does not answer a ping: it gets no new requests until it does",
		jid_resource(backend));
	update(self, backend, { is_suspended = true });
	raise_doubt(self, backend);
end

local function on_doubt_raised(self, in_doubt)
	for _, backend in ipairs(in_doubt) do
		if self.records[backend] then
			set_fields(self, backend, {});
		end
	end
	changed(self);
end

local function on_doubt_settled(self, in_doubt)
	for _, backend in ipairs(self.pool:is_ready() and in_doubt or {}) do
		self.events.fire_event("backend-away", backend);
	end
	changed(self);
end

-- They are backends no longer. If their presence comes after all, they have to answer a ping before they serve again.
local function on_lost(self, lost)
	for _, backend in ipairs(lost) do
		if self.records[backend] then
			self.records[backend].is_suspended = true;
			forget(self, backend);
		end
	end
	module:log("info", "Resources of the target that are there no longer, as its server says: %d; that are: %d", #lost, #self.pool);
	changed(self);
	self.subscription:on_shaken();
end

-- A server that dies does not say which of its clients are gone, nor which stanzas it has not got. So none of them
-- gets new requests until its presence has come, or an answer.
local function on_stream_ended(self, is_broken)
	if #self.pool > 0 then
		module:log("info", "A stream to the target's server has ended: its resources are asked whether they are still there");
	end
	if is_broken then
		self.events.fire_event("stream-broken");
	end
	self.doubts:raise(all(self));
	self.subscription:on_shaken();
end

local function on_server_silent(self)
	self.events.fire_event("changed");
	self.doubts:raise(all(self));
end

local function on_server_heard(self)
	self.events.fire_event("changed");
	self.subscription:on_shaken();
end

local function on_hibernates(self, backend)
	if self.records[backend] then
		self.checks:forget(backend);
		update(self, backend, { is_hibernating = true, is_suspended = false });
		self.events.fire_event("backend-away", backend);
	end
end

-- What other rooms tell this one
local function hook(self, events)
	for event, handler in pairs {
		["backend-silent"] = on_silent;
		["doubt-raised"] = on_doubt_raised, ["doubt-settled"] = on_doubt_settled, ["backends-lost"] = on_lost;
		["stream-established"] = function () self.subscription:on_shaken(); end, ["stream-ended"] = on_stream_ended;
		["server-silent"] = on_server_silent, ["server-unreachable"] = on_server_silent, ["server-heard"] = on_server_heard;
		["session-hibernates"] = on_hibernates;
		["session-resumed"] = function (_, backend) update(self, backend, { is_hibernating = false }); end;
	} do
		events.add_handler(event, function (data) handler(self, data); end);
	end
end

-- By the kind of a presence: (self, from, stanza), see presence.lua
local on_presence = {
	["available"] = function (self, from, stanza)
		self.subscription:on_presence(stanza);
		came(self, from, stanza);
	end;
	["unavailable"] = function (self, from, stanza)
		self.subscription:on_presence(stanza);
		went(self, from);
		self.subscription:on_gone();
	end;
	["unreachable"] = function (self, from)
		forget(self, from);
		changed(self);
	end;
	["reachable"] = function (self, _, stanza)
		self.subscription:on_presence(stanza);
	end;
	["none-left"] = function (self, _, stanza)
		self.subscription:on_presence(stanza);
		lose_all(self);
	end;
	["target-unreachable"] = function (self, _, stanza)
		self.subscription:on_error(stanza);
		lose_all(self);
	end;
	["subscribed"] = function (self)
		self.subscription:on_subscribed();
	end;
	["unsubscribed"] = function (self)
		self.subscription:on_unsubscribed();
		lose_all(self);
	end;
	["subscribe"] = function (self) self.own_presence:subscribe(); end;
	["unsubscribe"] = function (self) self.own_presence:unsubscribe(); end;
	["probe"] = function (self, from) self.own_presence:probe(from); end;
};

-- The kinds of presence that have come from the target's server. An error is none: our own server can have made it.
local IS_OF_SERVER = {
	["available"] = true, ["unavailable"] = true, ["reachable"] = true, ["none-left"] = true, ["subscribed"] = true,
	["unsubscribed"] = true, ["subscribe"] = true, ["unsubscribe"] = true, ["probe"] = true,
};

-- The answer to a ping of health.lua has come.
local function on_pong(self, origin, stanza)
	local backend = stanza.attr.from;
	local bounce = bounces.kind(origin, stanza, self.pool);
	if bounce == "unreachable" then
		self:lose_unreachable(backend);
	elseif bounce == "doubtful" then
		self.checks:answered(backend);
		raise_doubt(self, backend);
	elseif not bounce then
		self:alive(backend);
	end
end

local function add_handlers(self)
	local server, checks = self.server, self.checks;

	-- For iq/host: deals with answers to pings, which are none of what is pending.
	function self.on_iq(event)
		if server:on_iq(event) then
			return true;
		elseif checks:is_answer(event.stanza) then
			on_pong(self, event.origin, event.stanza);
			return true;
		end
	end

	-- For presence/host, presence/bare, presence/full: takes what the target says to the proxy host.
	function self.on_presence(event)
		local stanza = event.stanza;
		local kind = presence.kind(stanza, self.target);
		if not on_presence[kind] then
			return;
		end
		on_presence[kind](self, stanza.attr.from, stanza);
		if IS_OF_SERVER[kind] then
			server:heard(); -- last of all, as much can follow from that, a reload for example
		end
		return true;
	end
end

-- (setup) -> backends, with the handlers for presence and IQ events
-- setup: { target (the prepared bare JID), exchange, pool (the exchange's, filled and emptied here from now on),
--          subscription, server (the target's), formats, metrics, events (see mod_client_proxy.lua), is_wanted(resource): whether
--          it may serve, saved (what save() returned before a reload, or nil) }
function backends.new(setup)
	local saved = setup.saved or { records = {}, remembered = new_cache(REMEMBERED), doubts = {} };
	local self = setmetatable({
		target = setup.target, pool = setup.pool, subscription = setup.subscription, server = setup.server, events = setup.events;
		exchange = setup.exchange, formats = setup.formats, metrics = setup.metrics, is_wanted = setup.is_wanted;
		-- by a backend's JID: { since, priority, is_drained, is_hibernating, is_suspended, has_been_late (whether a
		-- request has timed out there while it was in doubt) }. The pool has the same backends, but of each only what a
		-- choice takes, and gives no list of them.
		records = saved.records;
		remembered = saved.remembered; -- by JID: { is_drained, is_suspended, session (the client's, here, or nil) }
		was_ready = saved.was_ready or false; -- what the pool said the last time: a change from false to true has consequences
		saved_doubts = saved.doubts; -- until start()
		own_presence = own_presence.new { target = setup.target, pool = setup.pool, saved = saved.own_presence };
		checks = health.new(saved.checks, setup.events);
		doubts = doubt.new {
			server = setup.server, subscription = setup.subscription, records = saved.records, events = setup.events;
		};
	}, backends);
	hook(self, setup.events);
	add_handlers(self);
	return self;
end

-- (backend): a server cannot reach it, so it is lost, and the target asked for its presence. A client of this Prosody is
-- lost only when its presence says so.
function backends:lose_unreachable(backend)
	if self.records[backend] and not prosody.full_sessions[backend] then
		forget(self, backend);
		module:log("debug", "%s cannot be reached, backends: %d", backend, #self.pool);
		changed(self);
		self.subscription:check();
	end
end

-- (backend): it may be dead: a request has timed out there, for example, which can be due to the request as well. One that
-- drains is asked, too, as it may be undrained; one that is in doubt when its presence has come.
function backends:suspect(backend)
	local record = self.records[backend];
	local state = record and state_of(self, backend);
	if state == "ready" or state == "draining" then
		self.checks:suspect(backend);
	elseif state == "suspended" and self.doubts:has(backend) then
		record.has_been_late = true;
	end
end

-- (backend): it has answered, as nobody else can have done, so its server is alive, too. Not to be called for anybody but backends.
function backends:alive(backend)
	local checks, doubts = self.checks, self.doubts;
	if (checks:any() or doubts:any()) and self.records[backend] then
		local was_in_question, was_in_doubt = checks:alive(backend), doubts:forget(backend);
		if was_in_question or was_in_doubt then
			clear_suspension(self, backend);
		end
		if was_in_doubt then
			self.events.fire_event("backend-back", backend);
		end
		changed(self);
	end
	self.server:heard(); -- last of all, as much can follow from that, a reload for example
end

-- (resource, is_drained) -> whether it is a backend
-- It gets no new requests until it is undrained, or leaves.
function backends:drain(resource, is_drained)
	local backend = self.target.."/"..resource;
	update(self, backend, { is_drained = is_drained });
	return self.records[backend] ~= nil;
end

-- -> a list in the order of the resources: { { jid, resource, since (os.time), priority, state }, ... }
function backends:list()
	local entries = {};
	for jid, record in pairs(self.records) do
		table.insert(entries, {
			jid = jid, resource = jid_resource(jid), since = record.since, priority = record.priority, state = state_of(self, jid),
		});
	end
	table.sort(entries, function (a, b) return a.resource < b.resource; end);
	return entries;
end

-- -> by state: how many backends are in it, if any
function backends:count_states()
	local counts = {};
	for backend in pairs(self.records) do
		local state = state_of(self, backend);
		counts[state] = (counts[state] or 0) + 1;
	end
	return counts;
end

-- To be called when all hosts are there, and when the target's comes later.
function backends:start()
	local host = prosody.hosts[addresses.host(self.target)];
	if host and host.type == "local" then
		hibernation.watch(host, self.events);
	else
		self.server:start();
	end
	self.subscription:start();
	self.doubts:raise(self.saved_doubts);
	for _, entry in ipairs(self:list()) do
		update(self, entry.jid, {}); -- the option that says who is wanted may have changed
	end
	self.checks:start();
	relieve(self); -- a reload may have interrupted the instance before in the middle of this
end

-- Asks for all presence anew, and whether the backends are alive.
function backends:resync()
	self.subscription:resync();
	for _, entry in ipairs(self:list()) do
		if self.records[entry.jid] and entry.state ~= "hibernating" and entry.state ~= "excluded" then
			self.checks:check(entry.jid);
		end
	end
end

-- To be called when the module goes for good.
function backends:stop()
	self.own_presence:stop();
end

-- To be called when the module goes, whether it is reloaded or not.
function backends:retire()
	self.checks:retire();
	self.doubts:retire();
	self.server:retire();
end

-- -> what a reload has to carry over; retire() is yet to be called
function backends:save()
	return {
		records = self.records, remembered = self.remembered, was_ready = self.was_ready;
		checks = self.checks:save(), doubts = self.doubts:save(), own_presence = self.own_presence:save();
	};
end

return backends;
