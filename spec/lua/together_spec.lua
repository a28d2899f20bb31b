-- What requests.lua and backends.lua do for each other, put together as mod_client_proxy.lua does it.

local core = require "mod_client_proxy.core";
local new_pending = require "spec.support.pending".new;
local fake_module = require "spec.support.module";
local new_events = require "util.events".new;
local st = require "util.stanza";

local PROXY = "proxy.domain.example";
local TARGET = "some-user@some-domain.example";
local A, B = TARGET.."/a", TARGET.."/b";
local REQUESTER = "user@some-domain.example/abc";
local TIMEOUT = 60;

describe("requests and backends together", function ()
	local module, pool, pending, book, exchange, backends, handlers, counts;
	local subscription = setmetatable({}, { __index = function () return function () end; end });

	-- Loads both of them, with what the ones before have saved.
	local function load_both(saved)
		local metrics = {
			count = function (_, name) counts[name] = (counts[name] or 0) + 1; end;
		};
		local events = new_events();
		local jat = core.jat(PROXY, "sealed");
		jat:add_key(7, ("k"):rep(core.JAT_KEYBYTES));
		exchange = core.exchange(jat, book, pool, pending);
		backends = module:require "backends".new {
			target = TARGET, exchange = exchange, pool = pool, subscription = subscription, saved = saved;
			server = module:require "server".new { host = "some-domain.example", pending = pending, events = events };
			is_wanted = function () return true; end;
			formats = module:require "formats".new { pool = pool }, metrics = metrics, events = events;
		};
		handlers = module:require "requests".new {
			timeout = TIMEOUT, retries = 1, max_pending = 100000, max_pending_per_requester = 100000;
			addresses = module:require "addresses".new(exchange, pool, TARGET), exchange = exchange, pool = pool, pending = pending;
			metrics = metrics, events = events;
			failures = module:require "failures".new(metrics);
			backends = backends, backend_requests = { settle = function () end };
		};
		backends:start();
	end

	before_each(function ()
		module = fake_module.new();
		counts = {};
		pool = core.pool(("\0"):rep(core.POOL_SEEDBYTES));
		pending, book = new_pending(("\0"):rep(core.PENDING_SEEDBYTES));
		module.prosody.hosts["some-domain.example"] = { type = "local", host = "some-domain.example", events = {} };
		load_both();
	end);

	local function receive(stanza, origin)
		local event = { stanza = stanza, origin = origin or { send = function (answer) module:send(answer); end } };
		return handlers.on_iq_first(event) or stanza.attr.to == PROXY and backends.on_iq(event) or handlers.on_iq_last(event);
	end

	local function present(backend, type)
		backends.on_presence { origin = {}, stanza = st.presence { type = type, from = backend, to = PROXY } };
	end

	local function ask(count, type, from)
		for n = 1, count do
			receive(st.iq({ type = type or "get", id = (type or "get")..n, from = from or REQUESTER, to = PROXY })
				:tag("query", { xmlns = "x:y" }):up());
		end
	end

	local function hibernate(backend)
		module.hooks["smacks-hibernation-start"] { origin = { full_jid = backend } };
	end

	local function resume(backend)
		module.hooks["smacks-hibernation-end"] { origin = { full_jid = backend }, resumed = { full_jid = backend } };
	end

	-- -> how many stanzas have been sent to each address, since it was last asked
	local function sent()
		local to = {};
		for _, stanza in ipairs(module:take_sent()) do
			to[stanza.attr.to] = (to[stanza.attr.to] or 0) + 1;
		end
		return to;
	end

	it("gets wait while their backend hibernates alone, and go to the next that comes, a hundred at a time; sets wait on", function ()
		present(A);
		ask(150);
		ask(5, "set");
		hibernate(A);
		module:pass(1);
		assert.equal(155, pending:count(A));
		sent();
		present(B);
		module:fire_slice();
		assert.same({ [B] = 100 }, sent());
		module:pass(0);
		assert.same({ [B] = 50 }, sent());
		assert.same({ 5, 150 }, { pending:count(A), pending:count(B) });
	end);

	-- Ways for B to become one that serves, and for it to be none before
	for how, ways in pairs {
		["resumes"] = { before = function () hibernate(B); end, after = function () resume(B); end },
		["is undrained"] = { before = function () backends:drain("b", true); end, after = function () backends:drain("b", false); end },
	} do
		it("gets go to one that "..how, function ()
			present(A);
			ask(3);
			present(B);
			ways.before();
			hibernate(A);
			module:pass(1);
			assert.equal(3, pending:count(A));
			ways.after();
			module:pass(0);
			assert.same({ 0, 3 }, { pending:count(A), pending:count(B) });
		end);
	end

	it("a get whose only other backend is its requester waits for the one that hibernates", function ()
		present(A);
		ask(1, "get", B);
		present(B);
		hibernate(A);
		module:pass(1);
		assert.equal(1, pending:count(A));
		resume(A);
		module:pass(TIMEOUT);
		assert.same({ timeout = 1, backends_interrupted = 2 }, counts); -- A, and B by its time-out
	end);

	it("what is left of a slice is handed on after a reload", function ()
		present(A);
		ask(150);
		hibernate(A);
		present(B);
		module:fire_slice();
		assert.equal(50, pending:count(A));
		local saved = backends:save();
		handlers:retire();
		backends:retire();
		assert.same({}, module:running_timers());
		module = fake_module.new({}, module);
		load_both(saved);
		module:pass(0);
		assert.same({ 0, 150 }, { pending:count(A), pending:count(B) });
	end);

	it("a backend that lets a request time out, and a ping, gets no others until it answers", function ()
		present(A);
		ask(1);
		module:pass(TIMEOUT);
		local ping = module:take_sent()[3];
		assert.equal(A, ping.attr.to);
		present(B);
		module:pass(1);
		sent();
		ask(20);
		assert.same({ [B] = 20 }, sent());
		assert.is_true(receive(st.reply(ping), {}));
		ask(20, "set");
		assert.truthy(sent()[A]);
		assert.is_nil(counts.unmatched_answers);
	end);

	it("a backend that cannot be reached is lost with all that it has, which goes to the others", function ()
		present(A);
		ask(10);
		local dispatched = module:take_sent();
		present(B);
		module.prosody.hosts["some-domain.example"] = nil; -- it is elsewhere
		receive(st.error_reply(dispatched[4], "cancel", "remote-server-not-found"), { dummy = true });
		assert.same({ [B] = 1 }, sent());
		assert.is_nil(pool:state(A));
		module:pass(0);
		assert.same({ [B] = 9 }, sent());
		assert.same({ retries = 10, backends_interrupted = 1 }, counts);
	end);

	it("a refusal of one stanza is nobody else's business", function ()
		present(A);
		module.prosody.full_sessions[A] = {};
		ask(2);
		local dispatched = module:take_sent();
		present(B);
		receive(st.error_reply(dispatched[1], "auth", "forbidden"), module.prosody.hosts["some-domain.example"]);
		assert.same({ [REQUESTER] = 1 }, sent());
		assert.same({ "ready", 1 }, { pool:state(A), pending:count(A) });
		local results, errors = exchange:counts();
		assert.same({ 0, 1 }, { results, errors });
	end);
end);
