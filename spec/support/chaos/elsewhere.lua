-- For chaos: backends that are clients of another server, which chaos/played_cluster.lua plays: they go with and without a
-- word, and their server says what it likes in their name, be they there or not.

local backends = require "spec.support.chaos.backends";
local service = require "spec.support.service";
local socket = require "socket";
local st = require "util.stanza";
local text = require "spec.support.chaos.text";

local now, random = socket.gettime, math.random;

local NS = "urn:example:chaos";

-- What their server says in the name of one that is not there: a condition, or nothing
local SAYINGS = { "service-unavailable", "service-unavailable", "recipient-unavailable", "item-not-found", false };

local elsewhere = backends.class();

-- (chaos, target, slots, flighty): see backends.lua
function elsewhere.new(...)
	local self = backends.new(elsewhere, ...);
	self.dead = {}; -- by resource: the last backend that was it, and has gone or cannot be reached
	self.blocked = {}; -- by JID
	self.cluster = self.chaos.cluster;
	self.cluster:serve(self);
	return self;
end

--
-- What they say, and what is said in their name
--

-- A backend that cannot be reached can answer, too: the answer is kept until it can be reached again.
function elsewhere:can_answer(backend) -- luacheck: ignore 212/self
	return backend.is_online or backend.waiting ~= nil;
end

function elsewhere:send(backend, stanza)
	stanza.attr.from = stanza.attr.from or backend.jid;
	if backend.waiting then
		table.insert(backend.waiting, stanza);
	else
		self.cluster:send(backend.node, stanza);
	end
end

function elsewhere:tell(backend, type)
	local presence = st.presence({ from = backend.jid, to = service.proxy, type = type });
	if not type then
		presence:text_tag("priority", tostring(backend.priority));
	elseif type == "unavailable" then
		backend.drained_at = nil; -- its session is over, and with it what the operator has said of that
	end
	self.chaos.ledger:note(backend, type and "told "..type or "told available");
	self.cluster:send(backend.node, presence);
end

-- (backends): tells the presence of all of them, in any order, that of some twice
function elsewhere:tell_all(list)
	for position = #list, 2, -1 do
		local other = random(position);
		list[position], list[other] = list[other], list[position];
	end
	for _, backend in ipairs(list) do
		for _ = 1, random(8) == 1 and 2 or 1 do
			self:tell(backend);
		end
	end
	if not list[1] then
		self.cluster:send_by_any(st.presence({ from = self.target, to = service.proxy, type = "unavailable" }));
	end
end

--
-- What they are told
--

local function bounce(self, backend, stanza)
	local says = backend.death.says;
	if says then
		self.cluster:send(backend.node, st.error_reply(stanza, says == "recipient-unavailable" and "wait" or "cancel", says));
	end
end

function elsewhere:on_iq_to_the_dead(backend, stanza)
	if stanza:get_child("query", NS) then
		self.chaos.ledger:arrived(backend, stanza.tags[1], stanza.attr.from, now());
	end
	bounce(self, backend, stanza);
end

-- A request is proof that the component knows it.
local function is_known(self, backend)
	if not backend.online_since and self.cluster:is_calm() then
		backend.online_since = now();
	end
end

function elsewhere:on_iq_to(backend, stanza)
	if not stanza:get_child("query", NS) then
		self:on_any_request(backend, stanza);
	elseif self.blocked[stanza.attr.from] then -- XEP-0191 section 3.3
		backend.last_doubted = now();
		self:send(backend, st.error_reply(stanza, "cancel", "service-unavailable"));
	else
		is_known(self, backend);
		self:on_any_request(backend, stanza);
	end
end

function elsewhere:on_iq(stanza)
	local resource = stanza.attr.to:match("/(.*)") or "";
	if stanza.attr.type ~= "get" and stanza.attr.type ~= "set" then
		local backend = self.online[resource];
		return backend and self.chaos.ledger.backend_requests:settled(backend.writer, stanza, now());
	elseif self.online[resource] then
		self:on_iq_to(self.online[resource], stanza);
	elseif self.dead[resource] then
		self:on_iq_to_the_dead(self.dead[resource], stanza);
	else
		self.cluster:send_by_any(st.error_reply(stanza, "cancel", "service-unavailable"));
	end
end

function elsewhere:on_message_to(backend, stanza)
	if not self.blocked[stanza.attr.from] then
		is_known(self, backend);
		self:on_message(backend, stanza);
	elseif stanza.attr.type ~= "error" then -- XEP-0191 section 3.3
		backend.last_doubted = now();
		self:send(backend, st.error_reply(stanza, "cancel", "service-unavailable"));
	end
end

-- Their server keeps no message, and gives it to nobody else.
function elsewhere:on_message_to_target(stanza)
	local resource = stanza.attr.to:match("/(.*)") or "";
	local dead = self.dead[resource];
	if self.online[resource] then
		self:on_message_to(self.online[resource], stanza);
	elseif dead then
		self:on_message(dead, stanza);
		if stanza.attr.type ~= "error" then
			bounce(self, dead, stanza);
		end
	elseif stanza.attr.type ~= "error" then
		self.cluster:send_by_any(st.error_reply(stanza, "cancel", "service-unavailable"));
	end
end

function elsewhere:on_probe()
	local answer = self.cluster:way_to_answer_probes();
	if answer then
		answer(self);
	elseif random(4) == 1 then
		self.chaos:after(random() * 0.2, function () self:tell_all(self:all()); end);
	else
		self:tell_all(self:all());
	end
end

-- to be called with what comes for the target
function elsewhere:on_stanza(stanza)
	if stanza.name == "iq" then
		self:on_iq(stanza);
	elseif stanza.name == "message" then
		self:on_message_to_target(stanza);
	elseif stanza.attr.type == "probe" then
		self:on_probe();
	elseif stanza.attr.type == "subscribe" then
		self.cluster:send_by_any(st.presence({ from = self.target, to = service.proxy, type = "subscribed" }));
	end
end

-- XEP-0191. on_end(whether it has succeeded), if it has returned true
function elsewhere:block(jids, on_end)
	for _, jid in ipairs(jids) do
		self.blocked[jid] = true;
	end
	self.chaos:after(0.01, function () on_end(true); end);
	return true;
end

function elsewhere:unblock_all(on_end)
	self.blocked = {};
	self.chaos:after(0.01, function () on_end(true); end);
	return true;
end

--
-- How they come and go
--

-- (resource): which one, any if nil
function elsewhere:join(resource)
	resource = resource or text.resource();
	if self.online[resource] then
		return;
	end
	local backend = self:new_backend(resource);
	local before = self.dead[resource];
	backend.may_be_drained = backend.may_be_drained or before ~= nil; -- as it may be taken for the one before
	backend.is_elsewhere, backend.sessions = true, 1;
	backend.priority = random(0, 3);
	backend.node = self.cluster:any_node();
	self.dead[resource] = nil;
	self:is_there(backend);
	self:tell(backend);
	if not self.cluster:is_calm() then
		backend.online_since = nil;
	end
	return backend;
end

-- It is gone: from now on, requests for it get the error that its server answers with, or nothing.
function elsewhere:die(backend)
	self:forget(backend);
	backend.hung = nil;
	self.dead[backend.resource] = backend;
	self.chaos.ledger:died(backend, SAYINGS[random(#SAYINGS)], now());
	self.chaos.ledger:note(backend, "dead, "..(backend.death.says or "in silence"));
end

local function go_in_good_order(self, backend)
	self:die(backend);
	self:tell(backend, "unavailable");
end

local function go_and_be_told_late(self, backend)
	self:die(backend);
	self.chaos:after(random() * 0.5, function ()
		if self.dead[backend.resource] == backend then
			self:tell(backend, "unavailable");
			self:tell(backend, "unavailable");
		end
	end);
end

local function be_replaced(self, backend)
	self:die(backend);
	self.chaos:after(random() * 0.5, function () self:join(backend.resource); end);
end

-- It cannot be reached, but goes on where it is.
function elsewhere:cut_off(backend)
	self:die(backend);
	backend.waiting = {};
end

-- It can be reached again. What it has had to say meanwhile comes late, or not at all.
function elsewhere:come_back(backend)
	local waiting = backend.waiting;
	backend.waiting = nil;
	if self.dead[backend.resource] ~= backend then
		return; -- another has come in its place
	end
	self.dead[backend.resource], backend.death = nil, nil;
	self:is_there(backend);
	self.chaos.ledger:note(backend, "back");
	backend.online_since = nil; -- until it gets a request
	if random(2) == 1 then
		self:tell(backend);
	end
	if random(2) == 1 then
		for _, stanza in ipairs(waiting) do
			self:send(backend, stanza);
		end
	end
end

local function be_cut_off_for_a_while(self, backend)
	backend.leaves_at = now() + 5 + random() * 10;
	self:cut_off(backend);
	self.chaos:after(1 + random() * 4, function () self:come_back(backend); end);
end

local ways_to_go = { go_in_good_order, go_and_be_told_late, be_replaced, be_cut_off_for_a_while, elsewhere.die, elsewhere.die };

function elsewhere:leave(backend)
	ways_to_go[random(#ways_to_go)](self, backend);
end

--
-- What is said though it is not so
--

-- To the component, another session of that name comes after that: what it held against the one before is void.
local function is_another_session(backend)
	backend.sessions = backend.sessions + 1;
	backend.drained_at = nil;
	if backend.hung then
		backend.hung.timed_out = nil;
	end
end

local function say_that_one_has_gone(self)
	local backend = self:any();
	if backend then
		backend.online_since = nil;
		self.chaos.ledger.messages:excuse("cut", backend.writer);
		self.chaos.ledger.backend_requests:excuse("gone", backend.writer);
		is_another_session(backend);
		self:tell(backend, random(2) == 1 and "unavailable" or "error");
		self.chaos:after(0.1, function ()
			if self.online[backend.resource] == backend then
				self:tell(backend);
				backend.online_since = self.cluster:is_calm() and now() + 1 or nil;
			end
		end);
	end
end

local function say_that_a_dead_one_is_there(self)
	local list = {};
	for resource in pairs(self.dead) do
		table.insert(list, resource);
	end
	table.sort(list);
	local backend = self.dead[list[1] and list[random(#list)]];
	if backend then
		self:tell(backend);
		self.chaos.ledger:told_alive(backend);
	end
end

local function say_again(self)
	local backend = self:any();
	if backend then
		backend.priority, backend.last_changed = random(0, 3), now();
		self:tell(backend);
	end
end

local function send_stray_errors(self)
	local backend = self:any();
	if backend then
		backend.last_doubted = now();
		for _, to in ipairs { service.proxy, service.proxy.."/unknown" } do
			local iq = st.iq({ type = "get", id = text.unique("stray"), from = to, to = backend.jid }):tag("query", { xmlns = NS });
			self:send(backend, st.error_reply(iq, "cancel", "service-unavailable"));
		end
	end
end

local whims = { say_that_one_has_gone, say_that_a_dead_one_is_there, say_again, send_stray_errors };

function elsewhere:something_happens()
	backends.something_happens(self);
	if random(20) == 1 and not self.chaos.without.whims then
		whims[random(#whims)](self);
	end
end

-- What comes for them is read by the cluster.
function elsewhere.readers()
	return {};
end

function elsewhere.step()
end

function elsewhere.nudge()
end

function elsewhere.close()
end

return elsewhere;
