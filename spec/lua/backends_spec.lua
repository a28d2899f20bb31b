local core = require "mod_client_proxy.core";
local fake_module = require "spec.support.module";
local st = require "util.stanza";

local PROXY = "proxy.domain.example";
local TARGET = "some-user@some-domain.example";
local STRANGER = "user@some-domain.example";

describe("backends", function ()
	local module, pool, backends;
	local told; -- what the requests' side is told, in order
	local asked; -- what the subscription is told, in order
	local changes; -- how often it was told that something has changed
	local is_wanted; -- which resources may serve
	local bounces; -- whether what answers a ping is a bounce

	local function tell_subscription(name)
		return function ()
			table.insert(asked, name);
		end;
	end

	local function new_backends(saved)
		return module:require "backends".new {
			target = TARGET, pool = pool, timeout = 60, saved = saved;
			is_wanted = function (resource) return is_wanted(resource); end;
			subscription = {
				check = tell_subscription "check", on_error = tell_subscription "error", on_gone = tell_subscription "gone",
				on_presence = tell_subscription "presence",
				on_subscribed = tell_subscription "subscribed", on_unsubscribed = tell_subscription "unsubscribed",
				resync = tell_subscription "resync", start = tell_subscription "start",
			};
			on_came = function (backend)
				assert.is_nil(pool:state(backend));
				table.insert(told, "came "..backend);
			end;
			on_gone = function (backend)
				assert.is_nil(pool:state(backend));
				table.insert(told, "gone "..backend);
			end;
			on_change = function () changes = changes + 1; end;
			is_bounce = function () return bounces; end;
		};
	end

	before_each(function ()
		module = fake_module.new();
		told, asked, changes, bounces = {}, {}, 0, false;
		is_wanted = function () return true; end;
		pool = core.pool(("\0"):rep(core.POOL_SEEDBYTES));
		backends = new_backends();
	end);

	-- A presence comes in. It must be handled, and answered with nothing but `...`,
	-- each { type =, from =, to = } of a presence
	local function receive(type, from, to, ...)
		local answered = {};
		local event = {
			origin = { send = function (stanza) table.insert(answered, stanza); end };
			stanza = st.presence({ type = type, from = from, to = to });
		};
		assert.is_true(backends.on_presence(event));
		for _, stanza in ipairs(module:take_sent()) do
			table.insert(answered, stanza);
		end
		assert.equal(select("#", ...), #answered);
		for index, expected in ipairs { ... } do
			assert.equal("presence", answered[index].name);
			assert.same(expected, answered[index].attr);
			assert.equal(0, #answered[index]);
		end
	end

	local function assert_backends(...)
		assert.equal(select("#", ...), #pool);
		for _, jid in ipairs { ... } do
			assert.is_false(pool:add(jid), jid.." is no backend");
		end
	end

	-- A presence with a priority
	local function receive_priority(priority, from)
		backends.on_presence { origin = {}, stanza = st.presence({ from = from, to = PROXY }):text_tag("priority", priority) };
	end

	local function state_of(resource)
		for _, entry in ipairs(backends.list()) do
			if entry.resource == resource then
				return entry.state, pool:state(entry.jid);
			end
		end
	end

	it("are none at the start, when the subscription is, too", function ()
		assert.same({}, asked);
		backends.start();
		assert.same({ "start" }, asked);
		assert_backends();
		assert.same({}, backends.list());
		assert.is_false(pool:serves());
	end);

	describe("are told by the target's presence:", function ()
		before_each(function ()
			receive(nil, TARGET.."/a", PROXY);
			receive(nil, TARGET.."/b", PROXY);
		end);

		it("available resources are backends", function ()
			assert_backends(TARGET.."/a", TARGET.."/b");
		end);

		it("one that changes its presence stays one backend", function ()
			receive(nil, TARGET.."/a", PROXY);
			assert_backends(TARGET.."/a", TARGET.."/b");
		end);

		it("resources are distinct by every letter, case included", function ()
			receive(nil, TARGET.."/A", PROXY);
			receive(nil, TARGET.."/a/b@c", PROXY);
			assert_backends(TARGET.."/a", TARGET.."/b", TARGET.."/A", TARGET.."/a/b@c");
		end);

		it("the bare target, available, is no backend", function ()
			receive(nil, TARGET, PROXY);
			assert_backends(TARGET.."/a", TARGET.."/b");
		end);

		for _, type in ipairs { "unavailable", "error" } do
			it(type.." from a resource ends that backend", function ()
				receive(type, TARGET.."/a", PROXY);
				assert_backends(TARGET.."/b");
				receive(type, TARGET.."/a", PROXY);
				assert_backends(TARGET.."/b");
				receive(type, TARGET.."/b", PROXY);
				assert_backends();
			end);

			it(type.." from the bare target ends all backends", function ()
				receive(type, TARGET, PROXY);
				assert_backends();
				receive(type, TARGET, PROXY);
				assert_backends();
			end);
		end

		for _, from in ipairs { TARGET, TARGET.."/a" } do
			it("unsubscribed ends all backends, sent from "..from, function ()
				receive("unsubscribed", from, PROXY);
				assert_backends();
			end);
		end

		it("what nobody knows changes nothing", function ()
			receive("something", TARGET.."/c", PROXY);
			assert_backends(TARGET.."/a", TARGET.."/b");
		end);

		it("a resource that went can come again", function ()
			receive("unavailable", TARGET, PROXY);
			receive(nil, TARGET.."/a", PROXY);
			assert_backends(TARGET.."/a");
		end);
	end);

	describe("let the subscription know", function ()
		for type, call in pairs {
			[false] = "presence", unavailable = "presence", error = "error", subscribed = "subscribed", unsubscribed = "unsubscribed",
		} do
			it("of "..(type or "available").." presence from the target", function ()
				receive(type or nil, TARGET, PROXY);
				assert.same({ call }, asked);
			end);
		end

		it("of a resource's presence, but not of its errors", function ()
			receive(nil, TARGET.."/a", PROXY);
			receive("unavailable", TARGET.."/a", PROXY);
			receive("error", TARGET.."/a", PROXY);
			assert.same({ "presence", "presence", "gone" }, asked);
		end);

		it("of nothing that others send", function ()
			for _, type in ipairs { false, "unavailable", "error", "subscribed", "unsubscribed" } do
				receive(type or nil, STRANGER, PROXY);
				receive(type or nil, TARGET, "n@"..PROXY);
			end
			assert.same({}, asked);
		end);
	end);

	for _, from in ipairs { TARGET, TARGET.."/a" } do
		describe("and a target that subscribes to the proxy from "..from, function ()
			local subscribed = { type = "subscribed", from = PROXY, to = TARGET };
			local available = { from = PROXY, to = TARGET };
			local unavailable = { type = "unavailable", from = PROXY, to = TARGET };

			it("is accepted and told that there is no backend, one, and none again", function ()
				receive("subscribe", from, PROXY, subscribed, unavailable);
				receive(nil, TARGET.."/a", PROXY, available);
				receive(nil, TARGET.."/b", PROXY);
				receive("unavailable", TARGET.."/a", PROXY);
				receive("unavailable", TARGET.."/b", PROXY, unavailable);
			end);

			it("is accepted and told that there is a backend", function ()
				receive(nil, TARGET.."/b", PROXY);
				receive("subscribe", from, PROXY, subscribed, available);
			end);

			it("is answered when it probes, and told of changes since", function ()
				receive("probe", from, PROXY, { type = "unavailable", from = PROXY, to = from });
				receive(nil, TARGET.."/a", PROXY, available);
				receive("probe", from, PROXY, { from = PROXY, to = from });
			end);

			it("is told no more when it unsubscribes", function ()
				receive("subscribe", from, PROXY, subscribed, unavailable);
				receive("unsubscribe", from, PROXY, unavailable);
				receive(nil, TARGET.."/a", PROXY);
			end);

			it("is told after a reload, and when the module goes", function ()
				receive("subscribe", from, PROXY, subscribed, unavailable);
				receive(nil, TARGET.."/a", PROXY, available);
				backends = new_backends(backends.save());
				receive("unavailable", TARGET.."/a", PROXY, unavailable);
				backends.stop();
				assert.same({}, module:take_sent());
				receive(nil, TARGET.."/a", PROXY, available);
				backends.stop();
				assert.same(unavailable, module:take_sent()[1].attr);
			end);

			it("is told when there are only backends that get no requests", function ()
				receive("subscribe", from, PROXY, subscribed, unavailable);
				receive(nil, TARGET.."/a", PROXY, available);
				backends.drain("a", true);
				assert.same(unavailable, module:take_sent()[1].attr);
				backends.drain("a", false);
				assert.same(available, module:take_sent()[1].attr);
			end);
		end);
	end

	local strangers = {
		["another account"] = STRANGER;
		["an account whose name ends like the target's"] = "x"..TARGET;
		["an account whose host begins like the target's"] = TARGET.."x";
		["an account on the target's subdomain"] = "some-user@x.some-domain.example";
		["the target's server"] = "some-domain.example";
		["an account of another letter case"] = "Some-User@some-domain.example";
		["an account on the proxy host"] = "some-user@"..PROXY;
	};
	local types = { "unavailable", "error", "subscribed", "unsubscribe", "unsubscribed", "probe", "something" };

	for who, stranger in pairs(strangers) do
		describe("and a stranger, "..who, function ()
			before_each(function ()
				receive(nil, TARGET.."/a", PROXY);
			end);

			for _, from in ipairs { stranger, stranger.."/a", stranger.."/"..TARGET.."/a" } do
				it("is refused a subscription to any service address, asking from "..from, function ()
					for service, bare in pairs { [PROXY] = PROXY, [PROXY.."/x"] = PROXY, ["n@"..PROXY] = "n@"..PROXY, ["n@"..PROXY.."/x"] = "n@"..PROXY } do
						receive("subscribe", from, service, { type = "unsubscribed", from = bare, to = stranger });
					end
					assert_backends(TARGET.."/a");
				end);

				it("is ignored in all else, sent from "..from, function ()
					for _, service in ipairs { PROXY, PROXY.."/x", "n@"..PROXY, "n@"..PROXY.."/x" } do
						receive(nil, from, service);
						for _, type in ipairs(types) do
							receive(type, from, service);
						end
					end
					assert_backends(TARGET.."/a");
				end);
			end
		end);
	end

	describe("are not told by what the target sends to", function ()
		for _, service in ipairs { "n@"..PROXY, PROXY.."/x", "n@"..PROXY.."/x" } do
			it(service, function ()
				receive(nil, TARGET.."/a", PROXY);
				for _, from in ipairs { TARGET, TARGET.."/a", TARGET.."/c" } do
					receive(nil, from, service);
					for _, type in ipairs(types) do
						receive(type, from, service);
					end
				end
				assert_backends(TARGET.."/a");
			end);
		end
	end);

	describe("are logged", function ()
		local function lines()
			local found = {};
			for _, line in ipairs(module.log_lines) do
				if line.level ~= "debug" then
					table.insert(found, line);
				end
			end
			module.log_lines = {};
			return found;
		end

		it("when there is more than one, each that comes", function ()
			receive(nil, TARGET.."/a", PROXY);
			assert.same({}, lines());
			receive(nil, TARGET.."/b", PROXY);
			local found = lines();
			assert.equal(1, #found);
			assert.equal("info", found[1].level);
			assert.truthy(found[1].text:find('"b"', 1, true));
			assert.truthy(found[1].text:find("there are 2", 1, true));
			receive(nil, TARGET.."/b", PROXY);
			receive("unavailable", TARGET.."/b", PROXY);
			assert.same({}, lines());
			receive(nil, TARGET.."/b", PROXY);
			assert.equal(1, #lines());
		end);

		it("when one is suspended, and when it answers again", function ()
			receive(nil, TARGET.."/a", PROXY);
			backends.suspect(TARGET.."/a");
			backends.suspect(TARGET.."/a");
			local found = lines();
			assert.equal(1, #found);
			assert.equal("warn", found[1].level);
			assert.truthy(found[1].text:find('"a"', 1, true));
			local ping = module:take_sent()[1];
			backends.on_iq { origin = {}, stanza = st.reply(ping) };
			found = lines();
			assert.equal(1, #found);
			assert.equal("info", found[1].level);
			assert.truthy(found[1].text:find('"a"', 1, true));
		end);

		it("when there is no memory for one", function ()
			pool = setmetatable({ add = function () return nil, "no-memory"; end, state = function () end, serves = function () return false; end },
				{ __len = function () return 0; end });
			backends = new_backends();
			receive(nil, TARGET.."/a", PROXY);
			local found = lines();
			assert.equal(1, #found);
			assert.equal("error", found[1].level);
			assert.truthy(found[1].text:find("no-memory", 1, true));
			assert.same({}, backends.list());
		end);
	end);

	describe("are listed", function ()
		it("by resource, with what is known of them", function ()
			local before = os.time();
			receive_priority("7", TARGET.."/b");
			receive(nil, TARGET.."/a/b@c", PROXY);
			local list = backends.list();
			assert.same({ "a/b@c", "b" }, { list[1].resource, list[2].resource });
			assert.same({ TARGET.."/a/b@c", TARGET.."/b" }, { list[1].jid, list[2].jid });
			assert.same({ 0, 7 }, { list[1].priority, list[2].priority });
			assert.same({ "ready", "ready" }, { list[1].state, list[2].state });
			assert.is_true(list[2].since >= before and list[2].since <= os.time());
			assert.equal(2, #list);
		end);

		it("in their order, however many", function ()
			local expected = {};
			for number = 10, 40 do
				receive(nil, TARGET.."/r"..(number * 7 % 31 + 10), PROXY);
				table.insert(expected, "r"..number);
			end
			local resources = {};
			for _, entry in ipairs(backends.list()) do
				table.insert(resources, entry.resource);
			end
			assert.same(expected, resources);
		end);

		it("and known to the pool by their priority", function ()
			pool:strategy("primary", ("k"):rep(core.POOL_KEYBYTES));
			receive_priority("1", TARGET.."/a");
			receive_priority("2", TARGET.."/b");
			assert.equal(TARGET.."/b", pool:pick());
			receive_priority("3", TARGET.."/a");
			assert.equal(TARGET.."/a", pool:pick());
		end);

		it("and counted by state", function ()
			assert.same({}, backends.count_states());
			receive(nil, TARGET.."/a", PROXY);
			receive(nil, TARGET.."/b", PROXY);
			receive_priority("-1", TARGET.."/c");
			backends.suspect(TARGET.."/b");
			assert.same({ ready = 1, suspended = 1, draining = 1 }, backends.count_states());
		end);

		it("as they were before a reload", function ()
			receive_priority("7", TARGET.."/b");
			backends.drain("b", true);
			local list = backends.list();
			backends = new_backends(backends.save());
			assert.same(list, backends.list());
			assert.equal("draining", list[1].state);
		end);

		for text, priority in pairs {
			["5"] = 5, [" 5\n"] = 5, ["+5"] = 5, ["-5"] = -5, ["127"] = 127, ["-128"] = -128,
			["128"] = 127, ["-129"] = -128, ["99999999999999999999"] = 0, [""] = 0, ["high"] = 0, ["5.5"] = 0, ["0x10"] = 0, ["5 5"] = 0,
		} do
			it(("with priority %d when their presence says %q"):format(priority, text), function ()
				receive_priority(text, TARGET.."/a");
				assert.equal(priority, backends.list()[1].priority);
			end);
		end
	end);

	describe("are drained", function ()
		before_each(function ()
			receive(nil, TARGET.."/a", PROXY);
		end);

		it("by the operator, until undrained", function ()
			assert.is_true(backends.drain("a", true));
			assert.same({ "draining", "away" }, { state_of "a" });
			assert.is_false(pool:serves());
			receive_priority("1", TARGET.."/a");
			assert.same({ "draining", "away" }, { state_of "a" });
			assert.is_true(backends.drain("a", false));
			assert.same({ "ready", "ready" }, { state_of "a" });
			assert.is_true(pool:serves());
		end);

		it("by the operator, until they leave", function ()
			backends.drain("a", true);
			receive("unavailable", TARGET.."/a", PROXY);
			receive(nil, TARGET.."/a", PROXY);
			assert.same({ "ready", "ready" }, { state_of "a" });
		end);

		it("by a negative priority, as long as it is", function ()
			receive_priority("-1", TARGET.."/a");
			assert.same({ "draining", "away" }, { state_of "a" });
			backends.drain("a", true);
			backends.drain("a", false);
			assert.same({ "draining", "away" }, { state_of "a" });
			receive_priority("0", TARGET.."/a");
			assert.same({ "ready", "ready" }, { state_of "a" });
		end);

		it("also from the start", function ()
			receive_priority("-1", TARGET.."/b");
			assert.same({ "draining", "away" }, { state_of "b" });
		end);

		it("if they are backends", function ()
			assert.is_false(backends.drain("b", true));
			assert.is_nil((state_of "b"));
		end);

		it("whatever else they are, and are that again when undrained", function ()
			backends.suspect(TARGET.."/a");
			backends.drain("a", true);
			assert.same({ "draining", "away" }, { state_of "a" });
			backends.drain("a", false);
			assert.same({ "suspended", "suspended" }, { state_of "a" });
		end);
	end);

	describe("are excluded", function ()
		before_each(function ()
			is_wanted = function (resource) return resource ~= "x"; end;
			receive(nil, TARGET.."/x", PROXY);
		end);

		it("when they are not wanted, which is logged when they come", function ()
			assert.same({ "excluded", "away" }, { state_of "x" });
			assert.is_false(pool:serves());
			assert.equal("info", module.log_lines[2].level);
			assert.truthy(module.log_lines[2].text:find('"x" of the target is not among client_proxy_resources', 1, true));
			receive_priority("5", TARGET.."/x");
			assert.equal(2, #module.log_lines);
			receive(nil, TARGET.."/a", PROXY);
			assert.same({ "ready", "ready" }, { state_of "a" });
		end);

		it("whatever else they are", function ()
			receive_priority("-1", TARGET.."/x");
			backends.drain("x", true);
			backends.drain("x", false);
			assert.same({ "excluded", "away" }, { state_of "x" });
			module:take_sent();
			backends.suspect(TARGET.."/x");
			backends.resync();
			assert.same({}, module:take_sent());
		end);

		it("or not any more, as the configuration is after a reload", function ()
			receive(nil, TARGET.."/a", PROXY);
			is_wanted = function (resource) return resource == "x"; end;
			backends = new_backends(backends.save());
			backends.start();
			assert.same({ "ready", "ready" }, { state_of "x" });
			assert.same({ "excluded", "away" }, { state_of "a" });
		end);
	end);

	it("tell that something has changed whenever it has", function ()
		for number, change in ipairs {
			function () receive(nil, TARGET.."/a", PROXY); end,
			function () backends.suspect(TARGET.."/a"); end,
			function () backends.drain("a", true); end,
			function () receive("unavailable", TARGET.."/a", PROXY); end,
		} do
			local before = changes;
			module:take_sent();
			change();
			assert.is_true(changes > before, number);
		end
	end);

	describe("are asked anew when the operator wants it", function ()
		it("the target for its presence, and they whether they are alive", function ()
			receive(nil, TARGET.."/a", PROXY);
			receive(nil, TARGET.."/b", PROXY);
			asked = {};
			backends.resync();
			assert.same({ "resync" }, asked);
			local sent = module:take_sent();
			assert.same({ TARGET.."/a", TARGET.."/b" }, { sent[1].attr.to, sent[2].attr.to });
			assert.same({ "ready", "ready" }, { state_of "a" });
			assert.is_true(backends.on_iq { origin = {}, stanza = st.reply(sent[2]) });
			for _, timer in ipairs(module.timers) do
				timer.callback();
			end
			assert_backends(TARGET.."/b");
		end);
	end);

	describe("that come and go", function ()
		it("are told of, before they can be chosen and after", function ()
			receive(nil, TARGET.."/a", PROXY);
			receive(nil, TARGET.."/a", PROXY); -- again
			receive(nil, TARGET.."/b", PROXY);
			receive("unavailable", TARGET.."/a", PROXY);
			receive("unavailable", TARGET, PROXY);
			assert.same({ "came "..TARGET.."/a", "came "..TARGET.."/b", "gone "..TARGET.."/a", "gone "..TARGET.."/b" }, told);
		end);
	end);

	describe("that are suspected", function ()
		local BACKEND = TARGET.."/a";
		local ping;

		before_each(function ()
			receive(nil, BACKEND, PROXY);
			asked = {};
			backends.suspect(BACKEND);
			ping = module:take_sent()[1];
		end);

		-- Whether the stanza is taken for an answer to a ping
		local function answer(attr)
			return backends.on_iq { origin = {}, stanza = st.stanza("iq", {
				type = attr.type or "result", id = attr.id or ping.attr.id, from = attr.from or BACKEND, to = attr.to or PROXY,
			}) };
		end

		it("are pinged, and suspended", function ()
			assert.equal("suspended", pool:state(BACKEND));
			assert.equal("get", ping.attr.type);
			assert.same({ PROXY, BACKEND }, { ping.attr.from, ping.attr.to });
			assert.truthy(ping:get_child("ping", "urn:xmpp:ping"));
		end);

		it("are not pinged again meanwhile", function ()
			backends.suspect(BACKEND);
			assert.same({}, module:take_sent());
		end);

		for _, type in ipairs { "result", "error" } do
			it("are ready again after a ping's "..type..", whatever their timer does later", function ()
				assert.is_true(answer { type = type });
				assert.equal("ready", pool:state(BACKEND));
				module.timers[1].callback();
				assert.equal("ready", pool:state(BACKEND));
				assert.same({}, module:take_sent());
			end);
		end

		it("are not ready again by what is no answer to the ping", function ()
			assert.is_nil(answer { id = "another" });
			assert.is_nil(answer { from = TARGET.."/b" });
			assert.is_nil(answer { from = STRANGER });
			assert.is_nil(answer { to = PROXY.."/thing" });
			assert.is_nil(answer { type = "get" });
			assert.equal("suspended", pool:state(BACKEND));
		end);

		it("are dropped, and the target's presence checked, when no answer comes", function ()
			assert.equal(60, module.timers[1].delay);
			module.timers[1].callback();
			assert.is_nil(pool:state(BACKEND));
			assert.equal("gone "..BACKEND, told[#told]);
			assert.same({ "check" }, asked);
			assert.is_nil(answer {}); -- too late
		end);

		it("are dropped, and the target's presence checked, when the ping bounces", function ()
			bounces = true;
			assert.is_true(answer { type = "error" });
			assert.is_nil(pool:state(BACKEND));
			assert.same({ "check" }, asked);
		end);

		it("are forgotten as such when they go", function ()
			receive("unavailable", BACKEND, PROXY);
			receive(nil, BACKEND, PROXY);
			assert.is_nil(answer {});
			module.timers[1].callback();
			assert.equal("ready", pool:state(BACKEND));
		end);

		it("are pinged anew after a reload", function ()
			backends = new_backends(backends.save());
			assert.same({}, module:take_sent());
			backends.start();
			local second = module:take_sent()[1];
			assert.equal(BACKEND, second.attr.to);
			assert.equal("suspended", pool:state(BACKEND));
			assert.is_true(answer { id = second.attr.id });
			assert.equal("ready", pool:state(BACKEND));
		end);

		it("are not waited for when they hibernate meanwhile", function ()
			module.prosody.hosts["some-domain.example"] = { type = "local", events = {} };
			backends.start();
			module:take_sent();
			module.hooks["smacks-hibernation-start"] { origin = { full_jid = BACKEND } };
			assert.same({ "hibernating", "away" }, { state_of "a" });
			module.timers[1].callback();
			assert.is_nil(answer {});
			backends = new_backends(backends.save());
			backends.start();
			assert.same({}, module:take_sent());
			assert.same({ "hibernating", "away" }, { state_of "a" });
		end);

		it("are backends, all others are left alone", function ()
			backends.suspect(STRANGER);
			assert.same({}, module:take_sent());
		end);
	end);

	describe("that hibernate", function ()
		local BACKEND = TARGET.."/a";

		before_each(function ()
			module.prosody.hosts["some-domain.example"] = { type = "local", events = {} };
			backends.start();
			receive(nil, BACKEND, PROXY);
		end);

		it("are away until they resume", function ()
			module.hooks["smacks-hibernation-start"] { origin = { full_jid = BACKEND } };
			assert.equal("away", pool:state(BACKEND));
			module.hooks["smacks-hibernation-end"] { origin = { full_jid = BACKEND }, resumed = {} };
			assert.equal("ready", pool:state(BACKEND));
		end);

		it("are away from the start when they did before", function ()
			module.prosody.full_sessions[TARGET.."/b"] = { hibernating = 1 };
			receive(nil, TARGET.."/b", PROXY);
			assert.same({ "hibernating", "away" }, { state_of "b" });
		end);

		it("are backends, all other sessions are left alone", function ()
			module.hooks["smacks-hibernation-start"] { origin = { full_jid = STRANGER } };
			module.hooks["smacks-hibernation-start"] { origin = {} };
			module.hooks["smacks-hibernation-end"] { origin = {}, resumed = {} };
			assert.equal("ready", pool:state(BACKEND));
		end);
	end);

	describe("on another server", function ()
		before_each(function ()
			backends.start();
			receive(nil, TARGET.."/a", PROXY);
			receive(nil, TARGET.."/b", PROXY);
			asked = {};
		end);

		-- A stream has ended, and what is due at once is done.
		local function end_stream(session)
			local before = #module.timers;
			module.hooks[session.from_host == PROXY and "s2sout-destroyed" or "s2sin-destroyed"] { session = session };
			for index = before + 1, #module.timers do
				assert.equal(0, module.timers[index].delay);
				module.timers[index].callback();
			end
		end

		local function states()
			return { (state_of "a"), (state_of "b") };
		end

		it("are not watched for hibernation", function ()
			assert.is_nil(module.hooks["smacks-hibernation-start"]);
		end);

		for name, session in pairs {
			["to"] = { from_host = PROXY, to_host = "some-domain.example" },
			["from"] = { from_host = "some-domain.example", to_host = PROXY },
			["that others share with"] = { from_host = "x.example", to_host = PROXY, hosts = { ["some-domain.example"] = {} } },
		} do
			it("are suspended when a stream "..name.." its server ends, until their presence comes again", function ()
				end_stream(session);
				assert.same({ "suspended", "suspended" }, states());
				assert.same({ "check" }, asked);
				receive(nil, TARGET.."/b", PROXY);
				assert.same({ "suspended", "ready" }, states());
				assert.equal(60, module.timers[#module.timers].delay);
				module.timers[#module.timers].callback();
				assert_backends(TARGET.."/b");
				assert.equal("gone "..TARGET.."/a", told[#told]);
			end);
		end

		it("are left alone when other streams end", function ()
			end_stream { from_host = PROXY, to_host = "x.example", hosts = {} };
			end_stream { from_host = "x.example", to_host = PROXY };
			assert.same({ "ready", "ready" }, states());
			assert.same({}, asked);
		end);

		it("are none when a stream ends: then nothing is done", function ()
			receive("unavailable", TARGET, PROXY);
			asked = {};
			end_stream { from_host = PROXY, to_host = "some-domain.example" };
			assert.same({}, asked);
		end);

		it("are given their time anew when another stream ends, and after a reload", function ()
			end_stream { from_host = PROXY, to_host = "some-domain.example" };
			local first = module.timers[#module.timers];
			end_stream { from_host = PROXY, to_host = "some-domain.example" };
			local second = module.timers[#module.timers];
			first.callback();
			assert_backends(TARGET.."/a", TARGET.."/b");
			backends = new_backends(backends.save());
			backends.start();
			second.callback();
			assert_backends(TARGET.."/a", TARGET.."/b");
			assert.same({ "suspended", "suspended" }, states());
			module.timers[#module.timers].callback();
			assert_backends();
		end);

		it("are suspended once when several streams end at the same time, which is logged", function ()
			module.log_lines = {};
			local before = #module.timers;
			module.hooks["s2sout-destroyed"] { session = { from_host = PROXY, to_host = "some-domain.example" } };
			module.hooks["s2sin-destroyed"] { session = { from_host = "some-domain.example", to_host = PROXY } };
			assert.equal(before + 1, #module.timers);
			module.timers[before + 1].callback();
			assert.equal(1, #module.log_lines);
			assert.equal("info", module.log_lines[1].level);
			end_stream { from_host = PROXY, to_host = "some-domain.example" };
			assert.equal(2, #module.log_lines);
		end);
	end);
end);
