-- All that knows the target's server and its backends, put together as mod_client_proxy.lua does it, with a
-- server that does whatever it likes, and other modules that fail: it does not matter in which order, nothing
-- goes on for ever, and when the server has come to its senses, those serve that are there, and nobody else.

local core = require "mod_client_proxy.core";
local new_pending = require "spec.support.pending".new;
local expect = require "spec.support.expect";
local fake_module = require "spec.support.module";
local new_events = require "util.events".new;
local random = require "spec.support.random";
local st = require "util.stanza";

local PROXY = "proxy.domain.example";
local HOST = "some-domain.example";
local TARGET = "some-user@some-domain.example";
local REQUESTER = "user@domain.example/abc";
local RESOURCES = { "a", "b", "c", "d" };
local THROWN = setmetatable({}, { __tostring = function () return "what another module's handler throws"; end });
local POOL_STATES = { ready = "ready", suspended = "suspended", draining = "away", excluded = "away" };
local LONG = 3 * 60 * 60; -- seconds, after which all is asked for again at the latest

-- How many events there are in all, of which SPEC_EVENTS is another number
local EVENTS = tonumber(os.getenv("SPEC_EVENTS")) or 30000;
local EVENTS_EACH = 150; -- before the server comes to its senses

random.announce("mad_server_spec");

describe("a target's server gone mad", function ()
	local module, pool, pending, book, server, subscription, backends, handlers;
	local online; -- by resource: whether it is there, as the server knows
	local replies; -- of the server, which have yet to come
	local sent; -- the last stanzas that have gone to the server
	local count; -- of all that has
	local on_send; -- what happens when a stanza is sent there
	local is_loading; -- whether a module is being loaded, in which it cannot be again, and fails if anything throws
	local depth; -- how many stanzas are being sent, each while another one is
	local requests; -- how many there have been

	local function load_all(saved)
		local metrics = { count = function () end };
		local events = new_events();
		local jat = core.jat(PROXY, "sealed");
		jat:add_key(7, ("k"):rep(core.JAT_KEYBYTES));
		local exchange = core.exchange(jat, book, pool, pending);
		module.libraries["core.rostermanager"], module.libraries["core.usermanager"] = {}, {};
		server = module:require "server".new { host = HOST, pending = pending, events = events };
		subscription = module:require "subscription".new {
			target = TARGET, auto_approve = true, server = server, events = events, saved = saved and saved.subscription;
		};
		backends = module:require "backends".new {
			target = TARGET, exchange = exchange, pool = pool, subscription = subscription, server = server, saved = saved and saved.backends;
			is_wanted = function () return true; end;
			formats = module:require "formats".new { pool = pool }, metrics = metrics, events = events;
		};
		handlers = module:require "requests".new {
			timeout = 60, retries = 1, max_pending = 100000, max_pending_per_requester = 100000;
			addresses = module:require "addresses".new(exchange, pool, TARGET), exchange = exchange, pool = pool, pending = pending;
			metrics = metrics, events = events;
			failures = module:require "failures".new(metrics);
			backends = backends, backend_requests = { settle = function () end };
		};
	end

	local function new_module(before)
		module = fake_module.new({}, before);
		function module.send(_, stanza)
			if stanza.attr.to:find(HOST, 1, true) then
				count = count + 1;
				sent[count % 20 + 1] = st.clone(stanza);
				depth = depth + 1;
				expect.that(depth < 60, "there is no end of stanzas that are sent while others are");
				local ok, thrown = pcall(on_send, st.clone(stanza));
				depth = depth - 1;
				if not ok then
					error(thrown, 0);
				end
			end
		end
	end

	before_each(function ()
		online, replies, sent, count, depth, requests, is_loading = {}, {}, {}, 0, 0, 0, false;
		pool = core.pool(random.bytes(core.POOL_SEEDBYTES));
		pending, book = new_pending(random.bytes(core.PENDING_SEEDBYTES));
		function on_send() end
		new_module();
		load_all();
		backends:start();
	end);

	local function receive(stanza, origin)
		local event = { stanza = stanza, origin = origin or { type = "s2sin", send = function () end } };
		if stanza.name == "presence" then
			backends.on_presence(event);
		else
			return handlers.on_iq_first(event) or stanza.attr.to == PROXY and backends.on_iq(event) or handlers.on_iq_last(event);
		end
	end

	local function presence_of(resource, is_asked_for)
		local stanza = st.presence { from = TARGET.."/"..resource, to = PROXY };
		return is_asked_for and stanza:tag("delay", { xmlns = "urn:xmpp:delay" }):reset() or stanza;
	end

	-- What a sane server says to a stanza -> a list
	local function replies_to(stanza)
		local attr, list = stanza.attr, {};
		local resource = attr.to:sub(#TARGET + 2); -- "" of the host
		if stanza.name == "presence" and attr.type == "subscribe" then
			table.insert(list, st.presence { type = "subscribed", from = TARGET, to = PROXY });
		end
		if stanza.name == "presence" and (attr.type == "subscribe" or attr.type == "probe") then
			for _, name in ipairs(RESOURCES) do
				table.insert(list, online[name] and presence_of(name, true) or nil);
			end
		elseif stanza.name == "iq" and (attr.type == "get" or attr.type == "set") then
			local is_there = resource == "" or online[resource];
			table.insert(list, is_there and st.reply(stanza) or st.error_reply(stanza, "cancel", "service-unavailable"));
		end
		return list;
	end

	local old_modules = setmetatable({}, { __mode = "k" }); -- which have been reloaded

	local function reload()
		old_modules[module] = true;
		local saved = { backends = backends:save(), subscription = subscription:save() };
		module.is_gone = true;
		handlers:retire();
		backends:retire();
		subscription:retire();
		new_module(module);
		load_all(saved);
		is_loading = true;
		backends:start();
		is_loading = false;
	end

	local function request(type)
		requests = requests + 1;
		receive(st.iq({ type = type or random.element { "get", "get", "set" }, id = "n"..requests, from = REQUESTER, to = PROXY })
			:tag("query", { xmlns = "x:y" }):up());
	end

	local function a_jid()
		return TARGET..random.element { "", "/a", "/b", "/c", "/d" };
	end

	-- Any answer to any of the last stanzas that have gone there
	local function answer()
		local stanza = sent[math.random(20)];
		if not stanza or stanza.attr.type ~= "get" and stanza.attr.type ~= "set" then
			return;
		elseif math.random(3) == 1 then
			return receive(st.reply(stanza));
		end
		local origin = random.element { false, false, { type = "s2sin", dummy = true }, { type = "component", host = PROXY } } or nil;
		receive(st.error_reply(stanza, "cancel", random.element {
			"service-unavailable", "recipient-unavailable", "remote-server-not-found", "not-acceptable", "forbidden", "resource-constraint",
		}), origin);
	end

	-- Any presence, be it true or not
	local function presence()
		local type = random.element { "available", "available", "available", "available", "unavailable", "unavailable", "error", "unsubscribed",
			"subscribed", "subscribe", "unsubscribe", "probe" };
		local stanza = st.presence { type = type ~= "available" and type or nil, from = a_jid(), to = PROXY };
		if type == "error" then
			stanza = st.error_reply(st.presence { type = "probe", from = PROXY, to = a_jid() }, "cancel", "remote-server-not-found");
		elseif math.random(2) == 1 then
			stanza:tag("delay", { xmlns = "urn:xmpp:delay" }):reset();
		end
		receive(stanza);
	end

	-- Any stream comes or ends.
	local function stream()
		local session = random.element {
			{ type = "s2sin", direction = "incoming", incoming = true, from_host = HOST, to_host = PROXY, hosts = { [HOST] = { authed = true } } };
			{ type = "s2sout", direction = "outgoing", from_host = PROXY, to_host = HOST, hosts = {} };
		};
		local name = session.type..random.element { "-established", "-destroyed" };
		module.hooks[name] { session = session, reason = random.element { false, "broken" } };
	end

	-- The server says what it has to say, or some of it.
	local function reply()
		local stanza = table.remove(replies, math.random(3) == 1 and #replies > 0 and math.random(#replies) or 1);
		if stanza and math.random(4) > 1 then
			receive(stanza);
		end
	end

	local function pass(seconds)
		for _, thrown in ipairs(module:pass(seconds)) do
			if thrown ~= THROWN then
				error(thrown, 0);
			end
		end
	end

	local function log_in_or_out()
		local resource = random.element(RESOURCES);
		online[resource] = not online[resource];
		if math.random(2) == 1 then
			receive(online[resource] and presence_of(resource)
				or st.presence { type = "unavailable", from = TARGET.."/"..resource, to = PROXY });
		end
	end

	local function drain()
		backends:drain(random.element(RESOURCES), math.random(2) == 1);
	end

	local function throw()
		error(THROWN, 0);
	end

	-- Each as often as it stands here
	local events = {
		request, request, request, request, answer, answer, answer, presence, presence, stream, reply, reply, reply, reply, reply;
		log_in_or_out, drain, reload, function () backends:resync(); end;
		function () pass(0); end, function () pass(math.random()); end, function () pass(math.random(4)); end, function () pass(math.random(60)); end;
	};
	-- What happens while a stanza is sent
	local interruptions = { answer, answer, presence, stream, reply, throw, throw, reload, log_in_or_out, request };

	local function be_mad(one_in)
		function on_send(stanza)
			for _, stanza_of_server in ipairs(math.random(3) > 1 and replies_to(stanza) or {}) do
				table.insert(replies, stanza_of_server);
			end
			local interruption = math.random(one_in) == 1 and depth < 4 and random.element(interruptions);
			if interruption and not (is_loading and (interruption == throw or interruption == reload)) then
				interruption();
			end
		end
	end

	-- It says what is so, soon, one thing after the other.
	local function be_sane()
		replies = {};
		function on_send(stanza)
			for _, stanza_of_server in ipairs(replies_to(stanza)) do
				module:add_timer(0.01, function () receive(stanza_of_server); end);
			end
		end
		module.hooks["s2sin-established"] { session = {
			type = "s2sin", direction = "incoming", incoming = true, from_host = HOST, to_host = PROXY, hosts = { [HOST] = { authed = true } },
		} };
	end

	-- What holds after each event
	local function check()
		local list = backends:list();
		expect.equal(#list, #pool, "number of backends");
		for _, entry in ipairs(list) do
			expect.equal(POOL_STATES[entry.state], pool:state(entry.jid), "state of %s, which is %s", entry.jid, entry.state);
		end
		for old in pairs(old_modules) do
			expect.equal(0, #old:running_timers(), "timers of an instance that has gone");
		end
		expect.that(#module:running_timers() < 60, "%d timers run", #module:running_timers());
	end

	local function happen(event)
		local before = count;
		local ok, thrown = pcall(event);
		if not ok and thrown ~= THROWN then
			error(thrown, 0);
		end
		check();
		expect.that(count - before < 2000, "%d stanzas were sent", count - before);
	end

	-- All that is there and ready, by what it is that serves
	local function assert_sane()
		local expected, actual = {}, {};
		for _, resource in ipairs(RESOURCES) do
			table.insert(expected, online[resource] and resource.." ready" or nil);
		end
		for _, entry in ipairs(backends:list()) do
			table.insert(actual, entry.resource.." "..entry.state);
		end
		expect.same(expected, actual, "who serves");
	end

	it("is none that does not matter any more once it is sane", function ()
		random.restart();
		for _ = 1, EVENTS // EVENTS_EACH do
			be_mad(random.element { 2, 5, 20 });
			for _ = 1, EVENTS_EACH do
				happen(random.element(events));
			end
			be_sane();
			pass(LONG);
			for _, resource in ipairs(RESOURCES) do -- also those that it was remembered of
				backends:drain(resource, false);
			end
			for _ = 1, 30 do -- they tell of those that have gone without a word
				request "set";
				pass(1);
			end
			pass(LONG);
			check();
			assert_sane();
			local before = count;
			pass(10 * 60);
			expect.that(count - before <= 10, "%d stanzas were sent though there was nothing to be found out", count - before);
			expect.equal(0, #pending, "what is pending");
		end
	end);
end);
