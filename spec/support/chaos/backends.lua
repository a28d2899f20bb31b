-- For chaos: what is common to the backends of a target, wherever they are: they come and go, answer, and hang at
-- times. What is true of each is written down here, for the ledger.
--
-- A class of them says how: can_answer(backend), send(backend, stanza), join(resource), leave(backend),
-- readers(), step(), close(), block(jids, on_end) and unblock_all(on_end).

local answers = require "spec.support.chaos.answers";
local socket = require "socket";
local st = require "util.stanza";
local window = require "spec.support.chaos.window";

local now, random = socket.gettime, math.random;

local NS = "urn:example:chaos";
local NEVER = -math.huge;
local MOST_HUNG = 2; -- at the same time

local backends = {};
backends.__index = backends;

-- () -> a class of backends
function backends.class()
	local class = setmetatable({}, backends);
	class.__index = class;
	return class;
end

-- (class, chaos, target, slots, flighty) -> the backends of that target: as many that stay for long, and
-- as many that do not
function backends.new(class, chaos, target, slots, flighty)
	return setmetatable({
		chaos = chaos, target = target, user = target:match("^[^@]+"), slots = slots, flighty = flighty;
		online = {}; -- by resource
	}, class);
end

--
-- What they are
--

-- (resource) -> backend that is yet to come
function backends:new_backend(resource)
	local is_long = self:count_long() < self.slots;
	local backend = {
		jid = self.target.."/"..resource, resource = resource, target = self.target;
		handled = 0; -- stanzas that it has got
		acknowledged = {}; -- when it has told its server how many: { number, at }
		resumes = true; -- its session can go on after its connection has been cut (XEP-0198)
		is_sound = random(3) > 1; -- answers each request at once
		knows_no_ping = random(8) == 1;
		is_long = is_long;
		may_be_drained = self.chaos.operator.draining == resource; -- from when the operator wants it to be
		last_timeout = NEVER, last_hung = NEVER, last_doubted = NEVER, resumed_at = NEVER;
		last_changed = NEVER; -- what the component prefers it by, or whether it may serve
	};
	backend.tokens, backend.asked = {}, window.new(); -- see asking.lua
	backend.writer = self.chaos.ledger.messages:new_writer(backend.jid, backend);
	backend.leaves_at = now() + backends.lifetime(is_long);
	if is_long and random(self.chaos.is_brisk and 8 or 2) == 1 then
		backend.hangs_at = now() + random() * 5;
	end
	return backend;
end

function backends.lifetime(is_long)
	return is_long and 15 + random() * 20 or 0.2 + random() * 0.6;
end

-- It is there from now on, as far as the component knows.
function backends:is_there(backend)
	backend.is_online, backend.online_since = true, now();
	self.online[backend.resource] = backend;
	self.chaos.ledger.backends[backend.jid] = backend;
end

-- It is there no longer, or not for long: nothing is expected of it from now on.
function backends:is_leaving(backend)
	backend.is_online, backend.online_since, backend.left_at = false, nil, now();
	self.chaos.ledger.backends[backend.jid] = nil;
	self.chaos.ledger.messages:cut(backend.writer, now());
	self.chaos.ledger.backend_requests:excuse("gone", backend.writer);
	self.chaos.ledger.presence:left(backend.writer, now());
	if backend.on_result then
		backend.on_result.call(false);
		backend.on_result = nil;
	end
end

function backends:forget(backend)
	if backend.is_online then
		self:is_leaving(backend);
	end
	if self.online[backend.resource] == backend then
		self.online[backend.resource] = nil;
	end
end

-- -> one that is online at random | nil
function backends:any(is_wanted)
	local list = {};
	for _, backend in pairs(self.online) do
		if backend.is_online and (not is_wanted or is_wanted(backend)) then
			table.insert(list, backend);
		end
	end
	table.sort(list, function (a, b) return a.resource < b.resource; end); -- so that chance alone decides
	return list[1] and list[random(#list)];
end

-- -> all that are online, in the order of their resources
function backends:all()
	local list = {};
	for _, backend in pairs(self.online) do
		table.insert(list, backend);
	end
	table.sort(list, function (a, b) return a.resource < b.resource; end);
	return list;
end

-- How many are to stay for long
function backends:count_long()
	local count = 0;
	for _, backend in pairs(self.online) do
		count = count + (backend.is_long and 1 or 0);
	end
	return count;
end

function backends:count_hung()
	local count = 0;
	for _, backend in pairs(self.online) do
		count = count + (backend.hung and 1 or 0);
	end
	return count;
end

--
-- What they do
--

function backends:on_request(backend, stanza)
	local request = self.chaos.ledger:arrived(backend, stanza.tags[1], stanza.attr.from, now());
	if request then
		self.chaos.asking:learn(backend, stanza.attr.from, request.requester.writer, request.sent);
	end
	if not backend.hung and backend.is_online then
		answers.give(self, backend, stanza);
	end
end

function backends:on_any_request(backend, stanza)
	if stanza:get_child("query", NS) then
		self:on_request(backend, stanza);
	elseif stanza:get_child("asks", NS) then
		self.chaos.asking:answer_by_backend(self, backend, stanza);
	else
		self:on_ping(backend, stanza);
	end
end

function backends:on_message(backend, stanza)
	local message = self.chaos.ledger.messages:came(backend.writer, stanza, now());
	if message then
		self.chaos.asking:learn(backend, stanza.attr.from, message.writer, message.sent);
	end
	if message and not backend.hung and backend.is_online then
		self.chaos.conversations:reply(self, backend, stanza, message);
	end
end

function backends:on_ping(backend, stanza)
	local hung = backend.hung;
	if hung and hung.is_deaf or not backend.is_online then
		backend.unanswered_ping = stanza;
	elseif backend.knows_no_ping then
		backend.last_doubted = now();
		self:send(backend, st.error_reply(stanza, "cancel", "service-unavailable"));
	else
		self:send(backend, st.reply(stanza));
	end
end

-- It stays online, and answers no requests, if it is deaf no pings either.
function backends:hang(backend)
	backend.hangs_at = nil;
	if self:count_hung() < MOST_HUNG and not self.chaos.without.hangs then
		local duration = 10 + random() * 10;
		backend.hung = { since = now(), is_deaf = random(4) > 1, ends_at = now() + duration };
		backend.leaves_at = backend.hung.ends_at + backends.lifetime(false);
		self.chaos.ledger:note(backend, backend.hung.is_deaf and "deaf" or "hung");
	end
end

function backends:recover(backend)
	backend.hung = nil;
	backend.last_hung = now();
	if backend.unanswered_ping and random(2) == 1 then
		self:on_ping(backend, backend.unanswered_ping);
	end
end

-- to be called ten times a second
function backends:something_happens()
	local time, list = now(), self:all();
	if #list < self.slots + self.flighty then
		self:join();
	end
	for _, backend in ipairs(list) do
		if not backend.is_online then -- it is about to go
			goto continue;
		elseif backend.hung and time > backend.hung.ends_at then
			self:recover(backend);
		elseif backend.hangs_at and time > backend.hangs_at then
			self:hang(backend);
		elseif time > backend.leaves_at then
			self:leave(backend);
		end
		::continue::
	end
end

return backends;
