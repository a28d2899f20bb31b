-- requests.lua, messages.lua, backend_requests.lua and their rooms with a real core, and what a spec does with them:
-- stanzas come in, others leave, time
-- passes, and what backends.lua and metrics.lua would be told is remembered.

local core = require "mod_client_proxy.core";
local new_pending = require "spec.support.pending".new;
local fake_module = require "spec.support.module";
local new_events = require "util.events".new;
local st = require "util.stanza";
local assert = require "luassert";

local desk = {};
desk.__index = desk;

desk.PROXY = "proxy.domain.example";
desk.TARGET = "some-user@some-domain.example";
desk.BACKEND, desk.OTHER_BACKEND = desk.TARGET.."/a", desk.TARGET.."/b";
desk.REQUESTER = "user@some-domain.example/abc";
desk.TIMEOUT = 60; -- seconds

-- One spelling for equal stanzas: the attributes in order
function desk.canonical(stanza)
	local attributes, children = {}, {};
	for name, value in pairs(stanza.attr) do
		table.insert(attributes, (" %s='%s'"):format(name, st.xml_escape(value)));
	end
	table.sort(attributes);
	for _, child in ipairs(stanza) do
		table.insert(children, type(child) == "string" and st.xml_escape(child) or desk.canonical(child));
	end
	return ("<%s%s>%s</%s>"):format(stanza.name, table.concat(attributes), table.concat(children), stanza.name);
end

-- (attr, payload) -> an IQ; payload: its child element, one of its own if nil, none if false
function desk.iq(attr, payload)
	local stanza = st.stanza("iq", attr);
	if payload ~= false then
		stanza:add_child(payload or st.stanza("query", { xmlns = "jabber:iq:version" }));
	end
	return stanza;
end

-- (stanza, attr) -> the answer to a request that a backend got, but for what `attr` says
function desk.answer_to(stanza, attr)
	attr = attr or {};
	return desk.iq({
		type = attr.type or "result", id = attr.id or stanza.attr.id,
		from = attr.from or stanza.attr.to, to = attr.to or stanza.attr.from,
	}, false);
end

function desk.assert_error(stanza, from, to, id, type, condition)
	assert.same({ type = "error", from = from, to = to, id = id }, stanza.attr);
	local actual_type, actual_condition, text = stanza:get_error();
	assert.same({ type, condition }, { actual_type, actual_condition });
	assert.is_string(text);
	assert.not_equal("", text);
	assert.equal(1, #stanza);
	assert.equal(2, #stanza.tags[1]);
end

local function new_metrics(self)
	return {
		count = function (_, name)
			self.counts[name] = (self.counts[name] or 0) + 1;
		end;
		wants_samples = self.wants_samples;
		sample = function (_, seconds)
			table.insert(self.samples, seconds);
		end;
	};
end

-- -> by name, be it counted in Lua or in the core: how often, if ever
function desk:all_counts()
	local results, errors = self.exchange:counts();
	local all = { answered = results > 0 and results or nil, error = errors > 0 and errors or nil };
	for name, count in pairs(self.counts) do
		all[name] = count;
	end
	return all;
end

-- -> how many seconds all answers took
function desk:answer_time()
	return (select(3, self.exchange:counts()));
end

local function new_backends(self)
	return {
		alive = function (_, backend) self.on_alive(backend); end;
		suspect = function (_, backend) table.insert(self.suspected, backend); end;
		lose_unreachable = function (_, backend)
			table.insert(self.lost, backend);
			if self.pool:remove(backend) then
				self:tell("backend-gone", backend);
			end
		end;
	};
end

-- () -> desk, with one backend
function desk.new()
	local module = fake_module.new();
	local self = setmetatable({
		module = module, clock = module.clock;
		pool = core.pool(("\0"):rep(core.POOL_SEEDBYTES));
		alive = {}, suspected = {}, lost = {}; -- backends, in order
		counts = {}; -- by name; see all_counts()
		samples = {}; -- seconds that metrics.lua would be told of one by one, in order
	}, desk);
	function self.on_alive(backend)
		table.insert(self.alive, backend);
	end
	self.pending, self.book = new_pending(("\0"):rep(core.PENDING_SEEDBYTES));
	self.asked = core.pending(("\0"):rep(core.PENDING_SEEDBYTES), core.requesters(("\0"):rep(core.REQUESTERS_SEEDBYTES), "full"));
	self:use_format("sealed");
	return self;
end

-- Tokens of this format from now on
function desk:use_format(format)
	self.jat = core.jat(desk.PROXY, format);
	self.jat:add_key(7, ("k"):rep(core.JAT_KEYBYTES));
	self.book:new_generation();
	self.exchange = core.exchange(self.jat, self.book, self.pool, self.pending);
	self.exchange:admit(desk.BACKEND);
	self:load();
end

-- (changed): makes a new instance; changed: other values for some of the setup
function desk:load(changed)
	local metrics = new_metrics(self);
	self.events = new_events();
	self.failures = self.module:require "failures".new(metrics);
	self.addresses = self.module:require "addresses".new(self.exchange, self.pool, desk.TARGET);
	self.backend_requests = self.module:require "backend_requests".new {
		timeout = desk.TIMEOUT, max_pending = 100000, max_pending_per_requester = 256;
		addresses = self.addresses, pending = self.asked, failures = self.module:require "failures".new(metrics, "backend_requests_");
		metrics = metrics, events = self.events;
	};
	local setup = {
		timeout = desk.TIMEOUT, retries = 1, max_pending = 100000, max_pending_per_requester = 100000;
		addresses = self.addresses, exchange = self.exchange, pool = self.pool, pending = self.pending, failures = self.failures;
		metrics = metrics, backends = new_backends(self), backend_requests = self.backend_requests, events = self.events;
	};
	for name, value in pairs(changed or {}) do
		setup[name] = value;
	end
	self.requests = self.module:require "requests".new(setup);
	self.messages = self.module:require "messages".new {
		addresses = self.addresses, exchange = self.exchange, book = self.book, pool = self.pool;
		metrics = metrics, backends = setup.backends, is_allowed = setup.is_allowed;
		saved = self.messages and self.messages:save();
	};
end

-- (event, data): says what backends.lua would.
function desk:tell(event, data)
	self.events.fire_event(event, data);
end

function desk:event_of(stanza)
	return { stanza = stanza, origin = { send = function (answer) return self.module:send(answer); end } };
end

-- An IQ comes in, and no other module wants it. (stanza) -> stanzas that leave
function desk:receive(stanza)
	local event = self:event_of(stanza);
	if not self.requests.on_iq_first(event) then
		assert.is_true(self.requests.on_iq_last(event));
	end
	return self.module:take_sent();
end

-- (attr, payload) -> the one stanza that leaves
function desk:receive_iq(attr, payload)
	local sent = self:receive(desk.iq(attr, payload));
	assert.equal(1, #sent);
	return sent[1];
end

-- A request from the requester to the proxy, but for what `attr` says
function desk:request(attr)
	attr = attr or {};
	return self:receive_iq {
		type = attr.type or "get", id = attr.id or "1234", from = attr.from or desk.REQUESTER, to = attr.to or desk.PROXY,
	};
end

function desk:assert_dropped(stanza)
	local before = self.counts.unmatched_answers or 0;
	assert.is_nil(self.requests.on_iq_first(self:event_of(st.clone(stanza))));
	assert.equal(before, self.counts.unmatched_answers or 0);
	assert.is_true(self.requests.on_iq_last(self:event_of(stanza)));
	assert.same({}, self.module:take_sent());
	assert.equal(before + 1, self.counts.unmatched_answers);
end

-- The timer is due. -> when it is due again, stanzas that leave
function desk:fire()
	self.module:fire_timer();
	local following = self.module:running_timer();
	return following and following.delay, self.module:take_sent();
end

return desk;
