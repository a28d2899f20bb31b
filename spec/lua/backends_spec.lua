local core = require "mod_client_proxy.core";
local fake_module = require "spec.support.module";
local new_events = require "util.events".new;
local st = require "util.stanza";

local PROXY = "proxy.domain.example";
local TARGET = "some-user@some-domain.example";
local STRANGER = "user@some-domain.example";

-- By what is said of the target's server
local EVENTS = {
	established = "stream-established", ended = "stream-ended";
	silent = "server-silent", heard = "server-heard", unreachable = "server-unreachable";
};

describe("backends", function ()
	local module, pool, backends;
	local told; -- what the requests' side is told, in order
	local asked; -- what the subscription is told, in order
	local on_check; -- what the subscription does when it is to check, or nil
	local changes; -- how often it was told that something has changed
	local is_wanted; -- which resources may serve
	local on_heard; -- what follows from that, or nil
	local heard; -- how often the target's server has been heard
	local is_heard; -- whether something comes from the target's server that those in doubt are asked by
	local events; -- by which all is told
	local interruptions; -- how often metrics.lua was told that a backend has ceased to be ready
	local formatted; -- what formats.lua is told: a list of { backend, is_jicofo, how many changes there had been } or { backend, "gone" }

	local function tell_subscription(name)
		return function ()
			table.insert(asked, name);
		end;
	end

	local function new_told_events()
		events = new_events();
		events.add_handler("backend-gone", function (backend)
			assert.is_nil(pool:state(backend));
			table.insert(told, "gone "..backend);
		end);
		events.add_handler("backend-away", function (backend)
			assert.is_true(pool:state(backend) == "away" or pool:state(backend) == "suspended");
			table.insert(told, "away "..backend);
		end);
		events.add_handler("backend-back", function (backend)
			table.insert(told, "back "..backend);
		end);
		events.add_handler("stream-broken", function ()
			table.insert(told, "broken");
		end);
		events.add_handler("changed", function () changes = changes + 1; end);
	end

	local function new_backends(saved)
		new_told_events();
		return module:require "backends".new {
			target = TARGET, pool = pool, saved = saved;
			exchange = { admit = function (_, backend) return pool:add(backend); end };
			server = {
				heard = function ()
					heard = heard + 1;
					if on_heard then
						on_heard();
					end
				end, heard_so_far = function () end;
				has_been_heard_since = function () return is_heard; end;
				on_iq = function () end, start = function () end, retire = function () end;
			};
			is_wanted = function (resource) return is_wanted(resource); end;
			formats = {
				set = function (_, backend, is_jicofo)
					assert.is_string(pool:state(backend));
					table.insert(formatted, { backend, is_jicofo, changes });
				end;
				forget = function (_, backend) table.insert(formatted, { backend, "gone" }); end;
			};
			subscription = {
				check = function ()
					table.insert(asked, "check");
					if on_check then
						on_check();
					end
				end;
				on_error = tell_subscription "error", on_gone = tell_subscription "gone",
				on_presence = tell_subscription "presence", on_shaken = tell_subscription "shaken",
				on_subscribed = tell_subscription "subscribed", on_unsubscribed = tell_subscription "unsubscribed",
				resync = tell_subscription "resync", start = tell_subscription "start",
			};
			metrics = {
				count = function (_, name)
					assert.equal("backends_interrupted", name);
					interruptions = interruptions + 1;
				end;
			};
			events = events;
		};
	end

	before_each(function ()
		module = fake_module.new();
		formatted, interruptions = {}, 0;
		told, asked, changes, on_check, on_heard, heard, is_heard = {}, {}, 0, nil, nil, 0, true;
		is_wanted = function () return true; end;
		pool = core.pool(("\0"):rep(core.POOL_SEEDBYTES));
		backends = new_backends();
	end);

	-- A presence comes in. It must be answered with nothing but `...`, each { type =, from =, to = } of a presence; pings
	-- are left to be taken. -> whether it is taken, or else left to others
	local function offer(type, from, to, ...)
		local answered = {};
		local event = {
			origin = { send = function (stanza) table.insert(answered, stanza); end };
			stanza = st.presence({ type = type, from = from, to = to });
		};
		local is_taken = backends.on_presence(event);
		for _, stanza in ipairs(module:take_sent()) do
			table.insert(stanza:get_child("ping", "urn:xmpp:ping") and module.sent or answered, stanza);
		end
		assert.equal(select("#", ...), #answered);
		for index, expected in ipairs { ... } do
			assert.equal("presence", answered[index].name);
			assert.same(expected, answered[index].attr);
			assert.equal(0, #answered[index]);
		end
		return is_taken;
	end

	local function receive(...)
		assert.is_true(offer(...));
	end

	local function leave(type, from, to)
		assert.is_nil(offer(type, from, to));
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

	-- The module is loaded anew, and nothing is left of it that was.
	local function reload()
		local saved = backends:save();
		backends:retire();
		assert.same({}, module:running_timers());
		module = fake_module.new({}, module);
		backends = new_backends(saved);
	end

	local function state_of(resource)
		for _, entry in ipairs(backends:list()) do
			if entry.resource == resource then
				return entry.state, pool:state(entry.jid);
			end
		end
	end

	it("are none at the start, when the subscription is, too", function ()
		assert.same({}, asked);
		backends:start();
		assert.same({ "start" }, asked);
		assert_backends();
		assert.same({}, backends:list());
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
			leave("something", TARGET.."/c", PROXY);
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
				leave(type or nil, STRANGER, PROXY);
				leave(type or nil, TARGET, "n@"..PROXY);
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
				reload();
				receive("unavailable", TARGET.."/a", PROXY, unavailable);
				backends:stop();
				assert.same({}, module:take_sent());
				receive(nil, TARGET.."/a", PROXY, available);
				backends:stop();
				assert.same(unavailable, module:take_sent()[1].attr);
			end);

			it("does not keep the module from going by what fails on that", function ()
				receive("subscribe", from, PROXY, subscribed, unavailable);
				receive(nil, TARGET.."/a", PROXY, available);
				function module.send()
					error("what another module's handler throws");
				end
				backends:stop();
				local last = module.log_lines[#module.log_lines];
				assert.equal("error", last.level);
				assert.truthy(last.text:find("what another module's handler throws", 1, true));
			end);

			it("is told when there are only backends that get no requests", function ()
				receive("subscribe", from, PROXY, subscribed, unavailable);
				receive(nil, TARGET.."/a", PROXY, available);
				backends:drain("a", true);
				assert.same(unavailable, module:take_sent()[1].attr);
				backends:drain("a", false);
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
	local types = { "unavailable", "error", "subscribe", "subscribed", "unsubscribe", "unsubscribed", "probe", "something" };

	for who, stranger in pairs(strangers) do
		describe("and a stranger, "..who, function ()
			before_each(function ()
				receive(nil, TARGET.."/a", PROXY);
			end);

			for _, from in ipairs { stranger, stranger.."/a", stranger.."/"..TARGET.."/a" } do
				it("is left to others, sent from "..from, function ()
					for _, service in ipairs { PROXY, PROXY.."/x", "n@"..PROXY, "n@"..PROXY.."/x" } do
						leave(nil, from, service);
						for _, type in ipairs(types) do
							leave(type, from, service);
						end
					end
					assert_backends(TARGET.."/a");
				end);
			end
		end);
	end

	describe("are not told by what the target sends to", function ()
		local OF_SUBSCRIPTION = { subscribe = true, unsubscribe = true, probe = true };

		for _, service in ipairs { "n@"..PROXY, PROXY.."/x", "n@"..PROXY.."/x" } do
			it(service, function ()
				receive(nil, TARGET.."/a", PROXY);
				for _, from in ipairs { TARGET, TARGET.."/a", TARGET.."/c" } do
					leave(nil, from, service);
					for _, type in ipairs(types) do
						if service ~= PROXY.."/x" or not OF_SUBSCRIPTION[type] then
							leave(type, from, service);
						end
					end
				end
				assert_backends(TARGET.."/a");
			end);
		end

		it("a resource of the proxy host, though that counts as a subscription to the proxy host", function ()
			receive("subscribe", TARGET, PROXY.."/x", { type = "subscribed", from = PROXY, to = TARGET },
				{ type = "unavailable", from = PROXY, to = TARGET });
			receive("probe", TARGET.."/b", PROXY.."/x", { type = "unavailable", from = PROXY, to = TARGET.."/b" });
			receive("unsubscribe", TARGET, PROXY.."/x", { type = "unavailable", from = PROXY, to = TARGET });
			assert_backends();
		end);
	end);

	describe("are told to formats.lua:", function ()
		local NODES = { [true] = "http://jitsi.org/jicofo", [false] = "urn:example:other" };

		local function come(is_jicofo)
			local stanza = st.presence { from = TARGET.."/a", to = PROXY };
			if is_jicofo ~= nil then
				stanza:tag("c", { xmlns = "http://jabber.org/protocol/caps", node = NODES[is_jicofo] }):reset();
			end
			backends.on_presence { origin = {}, stanza = stanza };
		end

		it("whether each presence names a Jicofo, or does not say, before all that follows from it", function ()
			come(true);
			come(false);
			come(nil);
			assert.same({ { TARGET.."/a", true, 0 }, { TARGET.."/a", false, 1 }, { TARGET.."/a", nil, 2 } }, formatted);
		end);

		for _, type in ipairs { "unavailable", "error" } do
			it("that it is no backend any more, when its presence is "..type, function ()
				come(true);
				receive(type, TARGET.."/a", PROXY);
				assert.same({ { TARGET.."/a", true, 0 }, { TARGET.."/a", "gone" } }, formatted);
			end);
		end

		it("that none is a backend any more", function ()
			come(true);
			receive("unavailable", TARGET, PROXY);
			assert.same({ TARGET.."/a", "gone" }, formatted[2]);
		end);
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
			backends:suspect(TARGET.."/a");
			assert.same({}, lines());
			is_heard = false;
			module:pass(100);
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
			assert.same({}, backends:list());
		end);
	end);

	describe("are listed", function ()
		it("by resource, with what is known of them", function ()
			local before = os.time();
			receive_priority("7", TARGET.."/b");
			receive(nil, TARGET.."/a/b@c", PROXY);
			local list = backends:list();
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
			for _, entry in ipairs(backends:list()) do
				table.insert(resources, entry.resource);
			end
			assert.same(expected, resources);
		end);

		it("and known to the pool by their priority", function ()
			pool:set_strategy("primary", ("k"):rep(core.POOL_KEYBYTES));
			receive_priority("1", TARGET.."/a");
			receive_priority("2", TARGET.."/b");
			assert.equal(TARGET.."/b", pool:pick());
			receive_priority("3", TARGET.."/a");
			assert.equal(TARGET.."/a", pool:pick());
		end);

		it("and counted by state", function ()
			assert.same({}, backends:count_states());
			receive(nil, TARGET.."/a", PROXY);
			receive(nil, TARGET.."/b", PROXY);
			receive_priority("-1", TARGET.."/c");
			backends:suspect(TARGET.."/b");
			assert.same({ ready = 2, draining = 1 }, backends:count_states());
			module:pass(1);
			assert.same({ ready = 1, suspended = 1, draining = 1 }, backends:count_states());
		end);

		it("as they were before a reload", function ()
			receive_priority("7", TARGET.."/b");
			backends:drain("b", true);
			local list = backends:list();
			reload();
			assert.same(list, backends:list());
			assert.equal("draining", list[1].state);
		end);

		for text, priority in pairs {
			["5"] = 5, [" 5\n"] = 5, ["+5"] = 5, ["-5"] = -5, ["127"] = 127, ["-128"] = -128,
			["128"] = 127, ["-129"] = -128, ["99999999999999999999"] = 0, [""] = 0, ["high"] = 0, ["5.5"] = 0, ["0x10"] = 0, ["5 5"] = 0,
		} do
			it(("with priority %d when their presence says %q"):format(priority, text), function ()
				receive_priority(text, TARGET.."/a");
				assert.equal(priority, backends:list()[1].priority);
			end);
		end
	end);

	describe("are drained", function ()
		before_each(function ()
			receive(nil, TARGET.."/a", PROXY);
		end);

		it("by the operator, until undrained", function ()
			assert.is_true(backends:drain("a", true));
			assert.same({ "draining", "away" }, { state_of "a" });
			assert.is_false(pool:serves());
			receive_priority("1", TARGET.."/a");
			assert.same({ "draining", "away" }, { state_of "a" });
			assert.is_true(backends:drain("a", false));
			assert.same({ "ready", "ready" }, { state_of "a" });
			assert.is_true(pool:serves());
		end);

		it("by the operator, until they leave", function ()
			backends:drain("a", true);
			receive("unavailable", TARGET.."/a", PROXY);
			receive(nil, TARGET.."/a", PROXY);
			assert.same({ "ready", "ready" }, { state_of "a" });
		end);

		it("by a negative priority, as long as it is", function ()
			receive_priority("-1", TARGET.."/a");
			assert.same({ "draining", "away" }, { state_of "a" });
			backends:drain("a", true);
			backends:drain("a", false);
			assert.same({ "draining", "away" }, { state_of "a" });
			receive_priority("0", TARGET.."/a");
			assert.same({ "ready", "ready" }, { state_of "a" });
		end);

		it("also from the start", function ()
			receive_priority("-1", TARGET.."/b");
			assert.same({ "draining", "away" }, { state_of "b" });
		end);

		it("if they are backends", function ()
			assert.is_false(backends:drain("b", true));
			assert.is_nil((state_of "b"));
		end);

		it("whatever else they are, and are that again when undrained", function ()
			backends:suspect(TARGET.."/a");
			module:pass(1);
			backends:drain("a", true);
			assert.same({ "draining", "away" }, { state_of "a" });
			backends:drain("a", false);
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
			backends:drain("x", true);
			backends:drain("x", false);
			assert.same({ "excluded", "away" }, { state_of "x" });
			module:take_sent();
			backends:suspect(TARGET.."/x");
			backends:resync();
			assert.same({}, module:take_sent());
		end);

		it("or not any more, as the configuration is after a reload", function ()
			receive(nil, TARGET.."/a", PROXY);
			is_wanted = function (resource) return resource == "x"; end;
			reload();
			backends:start();
			assert.same({ "ready", "ready" }, { state_of "x" });
			assert.same({ "excluded", "away" }, { state_of "a" });
		end);
	end);

	it("tell that something has changed whenever it has", function ()
		for number, change in ipairs {
			function () receive(nil, TARGET.."/a", PROXY); end,
			function () backends:suspect(TARGET.."/a"); module:pass(1); end,
			function () backends:drain("a", true); end,
			function () receive("unavailable", TARGET.."/a", PROXY); end,
		} do
			local before = changes;
			module:take_sent();
			change();
			assert.is_true(changes > before, number);
		end
	end);

	describe("are counted", function ()
		-- (count, change): by change(), so many of them cease to be ready.
		local function interrupts(count, change)
			local before = interruptions;
			change();
			assert.equal(count, interruptions - before);
		end

		it("each time that one ceases to be ready, whatever it is then", function ()
			interrupts(0, function ()
				receive(nil, TARGET.."/a", PROXY);
				receive_priority("1", TARGET.."/a");
				receive(nil, TARGET.."/b", PROXY);
				backends:suspect(TARGET.."/a");
			end);
			interrupts(1, function () receive_priority("-1", TARGET.."/a"); end); -- draining
			interrupts(0, function () receive_priority("1", TARGET.."/a"); end);
			interrupts(1, function () backends:drain("a", true); end);
			interrupts(0, function () backends:drain("a", false); end);
			interrupts(1, function () backends:suspect(TARGET.."/a"); module:pass(1); end); -- suspended
			interrupts(1, function () receive("unavailable", TARGET.."/b", PROXY); end); -- gone
		end);

		it("all of them when all have gone, each that goes and comes at once, and none over a reload", function ()
			for _, resource in ipairs { "a", "b", "c" } do
				receive(nil, TARGET.."/"..resource, PROXY);
			end
			interrupts(0, function () reload(); backends:start(); end);
			interrupts(3, function () receive("unavailable", TARGET, PROXY); end);
			interrupts(4, function ()
				for _ = 1, 4 do
					receive(nil, TARGET.."/a", PROXY);
					receive("unavailable", TARGET.."/a", PROXY);
				end
			end);
		end);

		it("not where they have not been ready", function ()
			is_wanted = function (resource) return resource ~= "x"; end;
			interrupts(0, function ()
				receive(nil, TARGET.."/x", PROXY); -- excluded
				receive("unavailable", TARGET.."/x", PROXY);
				receive_priority("-1", TARGET.."/a"); -- draining
				receive("unavailable", TARGET.."/a", PROXY);
				receive("unavailable", TARGET.."/a", PROXY);
			end);
		end);
	end);

	describe("are asked anew when the operator wants it", function ()
		it("the target for its presence, and they whether they are alive", function ()
			receive(nil, TARGET.."/a", PROXY);
			receive(nil, TARGET.."/b", PROXY);
			asked = {};
			backends:resync();
			assert.same({ "resync" }, asked);
			local sent = module:take_sent();
			assert.same({ TARGET.."/a", TARGET.."/b" }, { sent[1].attr.to, sent[2].attr.to });
			assert.same({ "ready", "ready" }, { state_of "a" });
			assert.is_true(backends.on_iq { origin = {}, stanza = st.reply(sent[2]) });
			module:pass(1);
			assert.same({ "suspended", "suspended" }, { state_of "a" });
			assert.same({ "ready", "ready" }, { state_of "b" });
		end);
	end);

	describe("that come and go", function ()
		it("are told of, each that goes when it cannot be chosen any more", function ()
			receive(nil, TARGET.."/a", PROXY);
			receive(nil, TARGET.."/a", PROXY); -- again
			receive(nil, TARGET.."/b", PROXY);
			assert.same({}, told);
			receive("unavailable", TARGET.."/a", PROXY);
			receive("unavailable", TARGET.."/a", PROXY); -- again
			receive("unavailable", TARGET, PROXY);
			assert.same({ "gone "..TARGET.."/a", "gone "..TARGET.."/b" }, told);
		end);
	end);

	describe("that are suspected", function ()
		local BACKEND = TARGET.."/a";
		local ping;

		before_each(function ()
			receive(nil, BACKEND, PROXY);
			asked = {};
			backends:suspect(BACKEND);
			ping = module:take_sent()[1];
		end);

		-- What answers the ping, but for what `attr` says. -> whether it is taken for that
		local function answer(attr, origin)
			attr = attr or {};
			local stanza = st.stanza("iq", {
				type = attr.type or "result", id = attr.id or ping.attr.id, from = attr.from or BACKEND, to = attr.to or PROXY,
			});
			if attr.condition then
				stanza:tag("error", { type = "cancel" }):tag(attr.condition, { xmlns = "urn:ietf:params:xml:ns:xmpp-stanzas" }):reset();
			end
			return backends.on_iq { origin = origin or {}, stanza = stanza };
		end

		local SERVER = { dummy = true }; -- the origin of what our own Prosody says of another server

		it("are pinged, and nothing else", function ()
			assert.equal("ready", pool:state(BACKEND));
			assert.equal("get", ping.attr.type);
			assert.same({ PROXY, BACKEND }, { ping.attr.from, ping.attr.to });
			assert.truthy(ping:get_child("ping", "urn:xmpp:ping"));
		end);

		it("are not pinged again meanwhile", function ()
			backends:suspect(BACKEND);
			assert.same({}, module:take_sent());
		end);

		it("are suspended when they leave that unanswered, and are in doubt then", function ()
			module:pass(0.9);
			assert.equal("ready", pool:state(BACKEND));
			assert.same({}, asked);
			module:pass(0.1);
			assert.same({ "suspended", "suspended" }, { state_of "a" });
			assert.same({ "check" }, asked);
		end);

		it("are suspended and not in doubt then when they are clients of ours", function ()
			module.prosody.full_sessions[BACKEND] = {};
			module:pass(1000);
			assert.same({ "suspended", "suspended" }, { state_of "a" });
			assert.same({ "check" }, asked);
			assert_backends(BACKEND);
		end);

		it("are never lost for want of an answer, as long as they are there", function ()
			module:pass(1);
			receive(nil, BACKEND, PROXY);
			module:pass(30 * 24 * 60 * 60);
			assert_backends(BACKEND);
			assert.same({ "suspended", "suspended" }, { state_of "a" });
			assert.same({ "back "..BACKEND }, told);
		end);

		it("are never lost for want of an answer while nothing comes from their server at all", function ()
			is_heard = false;
			module:pass(1000);
			assert_backends(BACKEND);
			assert.same({ "suspended", "suspended" }, { state_of "a" });
			assert.is_true(#asked > 1000 / 40);
		end);

		it("are lost when they leave that unanswered and their presence does not come", function ()
			module:pass(3.9);
			assert_backends(BACKEND);
			module:pass(0.1);
			assert_backends();
			assert.same({ "gone "..BACKEND }, told);
			assert.equal("shaken", asked[#asked]);
		end);

		local signs_of_life = {
			["a result"] = function (id) return answer { id = id }; end;
			["an error that only a client sends"] = function (id) return answer { type = "error", id = id, condition = "feature-not-implemented" }; end;
		};
		for name, answer_ping in pairs(signs_of_life) do
			it("are left alone after "..name..", whatever their timer would do later", function ()
				assert.is_true(answer_ping());
				assert.equal("ready", pool:state(BACKEND));
				assert.same({}, module:running_timers());
				assert.same({}, module:take_sent());
				assert.is_nil(answer_ping());
				assert.is_true(heard > 1);
			end);

			it("are ready again after "..name.." to a later ping", function ()
				is_heard = false;
				module:pass(10);
				assert.equal("suspended", pool:state(BACKEND));
				local pings = module:take_sent();
				assert.is_true(answer_ping(pings[#pings].attr.id));
				assert.same({ "ready", "ready" }, { state_of "a" });
				assert.same({}, module:running_timers());
				assert.equal("back "..BACKEND, told[#told]);
			end);
		end

		it("are ready again when they answer a request", function ()
			module:pass(2);
			assert.equal("suspended", pool:state(BACKEND));
			backends:alive(BACKEND);
			assert.same({ "ready", "ready" }, { state_of "a" });
			assert.same({}, module:running_timers());
		end);

		it("are asked no more when they answer a request before the ping, and not again for a second", function ()
			backends:alive(BACKEND);
			assert.same({}, module:running_timers());
			module:pass(0.9);
			backends:suspect(BACKEND);
			assert.same({}, module:take_sent());
			module:pass(0.1);
			backends:suspect(BACKEND);
			assert.equal(1, #module:take_sent());
		end);

		it("are not alive because others are, or because strangers answer", function ()
			receive(nil, TARGET.."/b", PROXY);
			backends:alive(TARGET.."/b");
			backends:alive(STRANGER);
			module:pass(1);
			assert.equal("suspended", pool:state(BACKEND));
			assert.equal("ready", pool:state(TARGET.."/b"));
		end);

		for _, condition in ipairs { "service-unavailable", "recipient-unavailable", "item-not-found", "gone", "remote-server-timeout" } do
			describe("and answered by what a server may say, too, "..condition..",", function ()
				before_each(function ()
					assert.is_true(answer { type = "error", condition = condition });
				end);

				it("are in doubt, and get nothing new", function ()
					assert.same({ "suspended", "suspended" }, { state_of "a" });
					assert.same({ "check" }, asked);
				end);

				it("are lost when their presence does not come within seconds", function ()
					module:pass(2.9);
					assert_backends(BACKEND);
					module:pass(0.1);
					assert_backends();
					assert.same({ "gone "..BACKEND }, told);
				end);

				it("are ready again when it comes, and pinged no more", function ()
					module:pass(1);
					receive(nil, BACKEND, PROXY);
					assert.same({ "ready", "ready" }, { state_of "a" });
					module:take_sent();
					module:pass(1000);
					assert.same({}, module:take_sent());
					assert_backends(BACKEND);
				end);

				it("are ready again when they answer a request", function ()
					backends:alive(BACKEND);
					assert.same({ "ready", "ready" }, { state_of "a" });
					module:pass(1000);
					assert_backends(BACKEND);
				end);

				it("are asked anew at the earliest a second after presence that came by itself, ten after one that was asked for", function ()
					for pause, presence in pairs {
						[1] = st.presence { from = BACKEND, to = PROXY },
						[10] = st.presence({ from = BACKEND, to = PROXY }):tag("delay", { xmlns = "urn:xmpp:delay" }):up(),
					} do
						receive("unavailable", BACKEND, PROXY);
						receive(nil, BACKEND, PROXY);
						backends:suspect(BACKEND);
						ping = module:take_sent()[1];
						assert.is_true(answer { type = "error", condition = condition });
						backends.on_presence { origin = {}, stanza = presence };
						module:take_sent();
						module:pass(pause - 0.1);
						backends:suspect(BACKEND);
						assert.same({}, module:take_sent());
						module:pass(0.1);
						backends:suspect(BACKEND);
						assert.equal(1, #module:take_sent());
					end
				end);

				it("are asked first when they come again after they were lost", function ()
					module:pass(3);
					module:take_sent();
					receive(nil, BACKEND, PROXY);
					assert.same({ "suspended", "suspended" }, { state_of "a" });
					ping = module:take_sent()[1];
					assert.is_true(answer());
					assert.same({ "ready", "ready" }, { state_of "a" });
				end);
			end);
		end

		it("are ready again after the answer to an earlier ping, too", function ()
			is_heard = false;
			module:pass(10);
			assert.is_true(answer());
			assert.same({ "ready", "ready" }, { state_of "a" });
		end);

		it("are not ready again by what is no answer to the ping", function ()
			module:pass(1);
			assert.is_nil(answer { id = "another" });
			assert.is_nil(answer { from = TARGET.."/b" });
			assert.is_nil(answer { from = STRANGER });
			assert.is_nil(answer { to = PROXY.."/thing" });
			assert.is_nil(answer { type = "get" });
			assert.equal("suspended", pool:state(BACKEND));
		end);

		it("are not ready again by presence that says nothing new, nor by any other", function ()
			module:pass(1);
			receive(nil, BACKEND, PROXY);
			receive_priority("5", BACKEND);
			assert.same({ "suspended", "suspended" }, { state_of "a" });
		end);

		it("are not ready again by a server's refusal in their name", function ()
			local host = { type = "local", host = "some-domain.example" };
			module.prosody.hosts["some-domain.example"], module.prosody.full_sessions[BACKEND] = host, {};
			module:pass(1);
			assert.is_true(answer({ type = "error" }, host));
			assert.same({ "suspended", "suspended" }, { state_of "a" });
			assert.equal(1, #module:running_timers());
		end);

		it("are lost, and the target's presence checked, when a server cannot reach them", function ()
			assert.is_true(answer({ type = "error" }, SERVER));
			assert_backends();
			assert.same({ "gone "..BACKEND }, told);
			assert.same({ "check" }, asked);
			assert.same({}, module:running_timers());
		end);

		it("are not lost so while they are clients of ours", function ()
			module.prosody.full_sessions[BACKEND] = {};
			assert.is_true(answer({ type = "error" }, SERVER));
			assert_backends(BACKEND);
		end);

		it("are forgotten as such when they go", function ()
			receive("unavailable", BACKEND, PROXY);
			assert.same({}, module:running_timers());
			receive(nil, BACKEND, PROXY);
			assert.is_nil(answer());
			assert.equal("ready", pool:state(BACKEND));
		end);

		it("are pinged on after a reload, and what answers a ping from before it counts", function ()
			module:pass(1);
			module:take_sent();
			reload();
			assert.same({}, module:take_sent());
			backends:start();
			local second = module:take_sent()[1];
			assert.equal(BACKEND, second.attr.to);
			assert.equal("suspended", pool:state(BACKEND));
			assert.is_true(answer());
			assert.equal("ready", pool:state(BACKEND));
			assert.same({}, module:running_timers());
		end);

		it("are not waited for when they hibernate meanwhile", function ()
			module.prosody.hosts["some-domain.example"] = { type = "local", events = {} };
			module.prosody.full_sessions[BACKEND] = {};
			backends:start();
			module:pass(1);
			assert.equal("suspended", pool:state(BACKEND));
			module:take_sent();
			module.hooks["smacks-hibernation-start"] { origin = { full_jid = BACKEND } };
			assert.same({ "hibernating", "away" }, { state_of "a" });
			assert.same({}, module:running_timers());
			assert.is_nil(answer());
			reload();
			backends:start();
			assert.same({}, module:take_sent());
			module.hooks["smacks-hibernation-end"] { origin = { full_jid = BACKEND }, resumed = {} };
			assert.same({ "ready", "ready" }, { state_of "a" });
		end);

		it("are backends, all others are left alone", function ()
			backends:suspect(STRANGER);
			assert.same({}, module:take_sent());
		end);

		it("are ready or drain, all others are left alone", function ()
			module.prosody.hosts["some-domain.example"] = { type = "local", events = {} };
			module.prosody.full_sessions[TARGET.."/hibernating"] = {};
			is_wanted = function (resource) return resource ~= "excluded"; end;
			backends:start();
			for _, state in ipairs { "ready", "draining", "hibernating", "excluded" } do
				receive(nil, TARGET.."/"..state, PROXY);
			end
			backends:drain("draining", true);
			module.hooks["smacks-hibernation-start"] { origin = { full_jid = TARGET.."/hibernating" } };
			module:take_sent();
			for state, count in pairs { ready = 1, draining = 1, hibernating = 0, excluded = 0 } do
				assert.equal(state, (state_of(state)));
				backends:suspect(TARGET.."/"..state);
				assert.equal(count, #module:take_sent());
			end
		end);

		it("drain, are suspended when they are undrained and have not answered, ready when they have", function ()
			for state, resource in pairs { suspended = "b", ready = "c" } do
				receive(nil, TARGET.."/"..resource, PROXY);
				backends:drain(resource, true);
				backends:suspect(TARGET.."/"..resource);
				if state == "ready" then
					backends:alive(TARGET.."/"..resource);
				end
				module:pass(1);
				assert.same({ "draining", "away" }, { state_of(resource) });
				backends:drain(resource, false);
				assert.same({ state, state }, { state_of(resource) });
			end
		end);
	end);

	-- What is held against a backend ends with its session, or when it is taken back, and with nothing else.
	describe("of which something is held against", function ()
		local BACKEND = TARGET.."/a";

		-- Ways for a backend to be lost though nobody says that its session is over
		local losses = {
			["an error in its name"] = function () receive("error", BACKEND, PROXY); end,
			["an error from the bare target"] = function () receive("error", TARGET, PROXY); end,
			["unavailable from the bare target"] = function () receive("unavailable", TARGET, PROXY); end,
			["unsubscribed"] = function () receive("unsubscribed", TARGET, PROXY); end,
			["a server that cannot reach it"] = function () backends:lose_unreachable(BACKEND); end,
			["a stream that ends, and no presence for a while"] = function ()
				events.fire_event("stream-ended", true);
				module:pass(3);
			end,
		};

		-- Things that say nothing of its session while it is there
		local no_losses = {
			["a resync, answered with presence and to the ping"] = function ()
				module:take_sent();
				backends:resync();
				for _, stanza in ipairs(module:take_sent()) do
					if stanza.attr.to == BACKEND and state_of "a" == "draining" then
						backends.on_iq { origin = {}, stanza = st.reply(stanza) };
					end
				end
				receive(nil, BACKEND, PROXY);
			end,
			["a reload"] = function () reload(); backends:start(); end,
			["a probe, a subscription and its end"] = function ()
				for _, type in ipairs { "probe", "subscribe", "unsubscribe", "subscribed" } do
					backends.on_presence { origin = {}, stanza = st.presence { type = type, from = BACKEND, to = PROXY } };
				end
				module:take_sent();
			end,
			["a stream that ends, and presence"] = function ()
				events.fire_event("stream-ended", true);
				module:pass(2);
				receive(nil, BACKEND, PROXY);
				module:pass(60);
			end,
		};

		-- What can be held against it
		local marks = {
			draining = function () backends:drain("a", true); end,
			suspended = function () backends:suspect(BACKEND); module:pass(1); end,
		};

		before_each(function ()
			backends:start();
			receive(nil, BACKEND, PROXY);
		end);

		for state, mark in pairs(marks) do
			for name, happen in pairs(no_losses) do
				it(("it is still %s after %s"):format(state, name), function ()
					mark();
					happen();
					assert.equal(state, (state_of "a"));
				end);
			end

			for name, lose in pairs(losses) do
				it(("it is %s again when it was lost by %s, until its session ends"):format(state, name), function ()
					mark();
					lose();
					assert_backends();
					receive(nil, BACKEND, PROXY);
					assert.equal(state, (state_of "a"));
					receive("unavailable", BACKEND, PROXY);
					receive(nil, BACKEND, PROXY);
					assert.same({ "ready", "ready" }, { state_of "a" });
				end);

				it(("it is %s again when it was lost by %s, also over a reload"):format(state, name), function ()
					mark();
					lose();
					reload();
					backends:start();
					receive(nil, BACKEND, PROXY);
					assert.equal(state, (state_of "a"));
				end);

				it(("it is %s no more when its server says that its session is over after it was lost by %s"):format(state, name), function ()
					mark();
					lose();
					receive("unavailable", BACKEND, PROXY);
					receive(nil, BACKEND, PROXY);
					assert.same({ "ready", "ready" }, { state_of "a" });
				end);
			end

			it(("it is %s no more when another session of ours has got its address"):format(state), function ()
				module.prosody.full_sessions[BACKEND] = {};
				mark();
				receive("unavailable", TARGET, PROXY);
				module.prosody.full_sessions[BACKEND] = {};
				receive(nil, BACKEND, PROXY);
				assert.same({ "ready", "ready" }, { state_of "a" });
			end);

			it(("it is %s again while it is the same session of ours"):format(state), function ()
				module.prosody.full_sessions[BACKEND] = {};
				mark();
				receive("unavailable", TARGET, PROXY);
				receive(nil, BACKEND, PROXY);
				assert.equal(state, (state_of "a"));
			end);
		end

		it("it is pinged on when it comes again suspended, and ready when it answers", function ()
			marks.suspended();
			receive("error", BACKEND, PROXY);
			assert.same({}, module:running_timers());
			module:take_sent();
			receive(nil, BACKEND, PROXY);
			local sent = module:take_sent();
			assert.equal(1, #sent);
			assert.truthy(sent[1]:get_child("ping", "urn:xmpp:ping"));
			assert.equal("suspended", (state_of "a"));
			assert.is_true(backends.on_iq { origin = {}, stanza = st.reply(sent[1]) });
			assert.same({ "ready", "ready" }, { state_of "a" });
		end);

		it("it is what it was, and as its presence says, before anything is sent when it comes again", function ()
			marks.suspended();
			receive("error", BACKEND, PROXY);
			local found;
			function module.send()
				found = { state_of "a" };
				error("thrown");
			end
			assert.error(function () receive_priority("-1", BACKEND); end, "thrown");
			assert.same({ "draining", "away" }, found);
			assert.equal(1, #module:running_timers());
		end);

		it("256 are remembered of all that were lost, the last ones", function ()
			for number = 1, 256 do
				local resource = "r"..number;
				receive(nil, TARGET.."/"..resource, PROXY);
				backends:drain(resource, true);
			end
			backends:drain("a", true);
			receive("error", TARGET.."/r1", PROXY);
			receive("error", BACKEND, PROXY);
			for number = 2, 256 do
				receive("error", TARGET.."/r"..number, PROXY);
			end
			for number = 1, 256 do
				receive(nil, TARGET.."/r"..number, PROXY);
			end
			receive(nil, BACKEND, PROXY);
			assert.same({ draining = 256, ready = 1 }, backends:count_states());
			assert.equal("ready", (state_of "r1"));
			assert.equal("draining", (state_of "a"));
		end);

		it("nothing is remembered of those that nothing was held against", function ()
			backends:drain("a", true);
			receive("error", BACKEND, PROXY);
			for number = 1, 300 do
				receive(nil, TARGET.."/r"..number, PROXY);
				receive("error", TARGET.."/r"..number, PROXY);
			end
			receive(nil, BACKEND, PROXY);
			assert.equal("draining", (state_of "a"));
		end);
	end);
	describe("that hibernate", function ()
		local BACKEND = TARGET.."/a";

		before_each(function ()
			module.prosody.hosts["some-domain.example"] = { type = "local", events = {} };
			backends:start();
			receive(nil, BACKEND, PROXY);
		end);

		local function hibernate(resource)
			module.hooks["smacks-hibernation-start"] { origin = { full_jid = TARGET.."/"..resource } };
		end

		it("are away until they resume", function ()
			hibernate "a";
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
			assert.same({}, told);
		end);

		it("are told of at once, and again whenever others can serve for the first time since", function ()
			hibernate "a";
			assert.same({ "away "..BACKEND }, told);
			receive(nil, TARGET.."/b", PROXY);
			assert.same({ "away "..BACKEND, "away "..BACKEND }, told);
			receive(nil, TARGET.."/c", PROXY);
			assert.equal(2, #told);
			backends:drain("b", true);
			backends:drain("c", true);
			assert.equal(2, #told);
			backends:drain("c", false);
			assert.same({ "away "..BACKEND }, { table.unpack(told, 3) });
		end);

		it("are told of after a reload, which may have been in the middle of handing on", function ()
			hibernate "a";
			receive(nil, TARGET.."/b", PROXY);
			told = {};
			reload();
			assert.same({}, told);
			backends:start();
			assert.same({ "away "..BACKEND }, told);
		end);

		it("are told of though another module's handler throws when the target is told that others can serve", function ()
			receive("subscribe", TARGET, PROXY, { type = "subscribed", from = PROXY, to = TARGET }, { from = PROXY, to = TARGET });
			hibernate "a";
			module:take_sent();
			told, changes = {}, 0;
			function module.send()
				error("thrown");
			end
			receive(nil, TARGET.."/b", PROXY);
			assert.same({ "away "..BACKEND }, told);
			assert.equal(1, changes);
		end);

		it("are told of no more when they have resumed", function ()
			hibernate "a";
			module.hooks["smacks-hibernation-end"] { origin = { full_jid = BACKEND }, resumed = { full_jid = BACKEND } };
			told = {};
			backends:drain("a", true);
			receive(nil, TARGET.."/b", PROXY);
			assert.same({}, told);
		end);
	end);

	describe("on another server", function ()
		before_each(function ()
			backends:start();
			receive(nil, TARGET.."/a", PROXY);
			receive(nil, TARGET.."/b", PROXY);
			asked = {};
		end);

		local function states()
			return { (state_of "a"), (state_of "b") };
		end

		-- -> whom pings have been sent to since this was last asked
		local function pinged()
			local list = {};
			for _, stanza in ipairs(module:take_sent()) do
				assert.truthy(stanza:get_child("ping", "urn:xmpp:ping"));
				table.insert(list, stanza.attr.to);
			end
			return list;
		end

		it("are not watched for hibernation", function ()
			assert.is_nil(module.hooks["smacks-hibernation-start"]);
		end);

		for _, event in ipairs { "ended", "silent", "unreachable" } do
			it("are in doubt when its server is said to be "..event..", each until its presence comes", function ()
				events.fire_event(EVENTS[event], true);
				assert.same({ "suspended", "suspended" }, states());
				assert.equal("check", asked[1]);
				receive(nil, TARGET.."/b", PROXY);
				assert.same({ "suspended", "ready" }, states());
				module:pass(2.9);
				assert_backends(TARGET.."/a", TARGET.."/b");
				module:pass(0.1);
				assert_backends(TARGET.."/b");
				assert.equal("gone "..TARGET.."/a", told[#told]);
			end);
		end

		it("are in doubt until they answer a request", function ()
			events.fire_event("stream-ended", true);
			backends:alive(TARGET.."/a");
			assert.same({ "ready", "suspended" }, states());
			module:pass(3);
			assert_backends(TARGET.."/a");
		end);

		it("are pinged when their presence has come, if a request has timed out there while they were in doubt", function ()
			events.fire_event("stream-ended", true);
			backends:suspect(TARGET.."/a");
			assert.same({}, pinged());
			receive(nil, TARGET.."/a", PROXY);
			receive(nil, TARGET.."/b", PROXY);
			assert.same({ "ready", "ready" }, states());
			assert.same({ TARGET.."/a" }, pinged());
			module:pass(1);
			assert.same({ "suspended", "ready" }, states());
		end);

		it("are pinged so when all else has been done, as another module's handler may throw", function ()
			events.fire_event("stream-ended", true);
			backends:suspect(TARGET.."/a");
			local before = changes;
			function module.send()
				error("thrown");
			end
			assert.has_error(function () receive(nil, TARGET.."/a", PROXY); end, "thrown");
			assert.equal("back "..TARGET.."/a", told[#told]);
			assert.equal(before + 1, changes);
		end);

		it("are pinged likewise when a reload has come between", function ()
			events.fire_event("stream-ended", true);
			backends:suspect(TARGET.."/a");
			reload();
			backends:start();
			assert.same({}, pinged());
			receive(nil, TARGET.."/a", PROXY);
			assert.same({ TARGET.."/a" }, pinged());
		end);

		it("are pinged so once, and not if they have answered meanwhile", function ()
			events.fire_event("stream-ended", true);
			for _, resource in ipairs { "a", "b" } do
				backends:suspect(TARGET.."/"..resource);
			end
			backends:alive(TARGET.."/b");
			receive(nil, TARGET.."/a", PROXY);
			backends:alive(TARGET.."/a");
			assert.same({ TARGET.."/a" }, pinged());
			module:pass(1);
			events.fire_event("stream-ended", true);
			receive(nil, TARGET.."/a", PROXY);
			receive(nil, TARGET.."/b", PROXY);
			assert.same({}, pinged());
		end);

		it("are asked again and again for their presence, and none is lost, as long as nothing at all comes", function ()
			is_heard = false;
			events.fire_event("server-silent");
			module:pass(1000);
			assert.same({ "suspended", "suspended" }, states());
			is_heard = true;
			module:pass(30);
			assert_backends();
		end);

		it("have what they have got handed on when another one is in doubt no longer", function ()
			events.fire_event("stream-ended", true);
			assert.same({ "broken" }, told);
			receive(nil, TARGET.."/b", PROXY);
			module:pass(0.4);
			assert.same({ "broken", "back "..TARGET.."/b" }, told);
			module:pass(0.1);
			assert.same({ "broken", "back "..TARGET.."/b", "away "..TARGET.."/a" }, told);
		end);

		it("have what they have got handed on as soon as one is ready, if none was when the presence of others came", function ()
			receive_priority("-1", TARGET.."/c");
			events.fire_event("stream-ended", false);
			receive_priority("-1", TARGET.."/c");
			module:pass(0.5);
			assert.same({ "back "..TARGET.."/c" }, told);
			receive(nil, TARGET.."/b", PROXY);
			assert.same({ "back "..TARGET.."/c", "back "..TARGET.."/b", "away "..TARGET.."/a" }, told);
		end);

		it("have what they have got handed on when the presence of others has come, and theirs has not half a second later", function ()
			backends:suspect(TARGET.."/a");
			module:pass(1);
			receive(nil, TARGET.."/b", PROXY);
			module:pass(0.4);
			assert.same({}, told);
			module:pass(0.1);
			assert.same({ "away "..TARGET.."/a" }, told);
		end);

		it("have what they have got handed on later if nobody is ready by then, once somebody is, or comes", function ()
			events.fire_event("stream-ended", false);
			backends:drain("b", true);
			receive(nil, TARGET.."/b", PROXY);
			module:pass(0.5);
			assert.same({ "back "..TARGET.."/b" }, told);
			backends:drain("b", false);
			assert.same({ "back "..TARGET.."/b", "away "..TARGET.."/a" }, told);
		end);

		it("are said to be broken off only when a stream has not ended in good order", function ()
			events.fire_event("stream-ended", false);
			assert.same({}, told);
			assert.same({ "suspended", "suspended" }, states());
		end);

		it("are in doubt, too, when their presence does not come with that of others, which only one was in doubt for", function ()
			receive(nil, TARGET.."/c", PROXY);
			backends:suspect(TARGET.."/a");
			module:pass(1);
			receive(nil, TARGET.."/c", PROXY);
			module:pass(0.4);
			assert.same({ "suspended", "ready" }, states());
			module:pass(0.1);
			assert.same({ "suspended", "suspended" }, states());
			assert.equal("ready", (state_of "c"));
			module:pass(2.9);
			assert_backends(TARGET.."/b", TARGET.."/c");
			module:pass(0.1);
			assert_backends(TARGET.."/c");
		end);

		it("are lost in time though another module's handler throws on what asks for their presence", function ()
			on_check = function () error("thrown"); end;
			assert.error(function () events.fire_event("stream-ended", true); end, "thrown");
			assert.same({ "suspended", "suspended" }, states());
			module:pass(3);
			assert_backends();
		end);

		it("are none when a stream ends: then the target is only asked", function ()
			receive("unavailable", TARGET, PROXY);
			asked, told = {}, {};
			events.fire_event("stream-ended", true);
			assert.same({ "shaken" }, asked);
			assert.same({ "broken" }, told);
		end);

		it("are given their time anew when another stream ends, and after a reload", function ()
			events.fire_event("stream-ended", true);
			module:pass(2.9);
			receive(nil, TARGET.."/a", PROXY);
			events.fire_event("stream-ended", true);
			module:pass(2.9);
			assert_backends(TARGET.."/a", TARGET.."/b");
			reload();
			backends:start();
			module:pass(2.9);
			assert_backends(TARGET.."/a", TARGET.."/b");
			assert.same({ "suspended", "suspended" }, states());
			module:pass(0.1);
			assert_backends();
		end);

		for name, show_life in pairs {
			["answer"] = function (backend) backends:alive(backend); end;
			["presence"] = function (backend) receive(nil, backend, PROXY); end;
		} do
			it("are in doubt no longer, by their "..name..", before anything follows from that their server is heard", function ()
				events.fire_event("stream-ended", true);
				local state_then;
				function on_heard()
					state_then = state_then or state_of "a";
				end
				show_life(TARGET.."/a");
				assert.same({ "ready", "suspended" }, { state_then, (state_of "b") });
			end);
		end

		it("may be none when something is said of their server, which is told as a change, as it makes for another diagnosis", function ()
			receive("unavailable", TARGET, PROXY);
			for _, event in ipairs { "silent", "heard", "unreachable" } do
				local before = changes;
				events.fire_event(EVENTS[event]);
				assert.is_true(changes > before, event);
			end
		end);

		it("are asked for again when something new is known of their server", function ()
			for _, event in ipairs { "established", "heard" } do
				asked = {};
				events.fire_event(EVENTS[event]);
				assert.same({ "shaken" }, asked);
				assert.same({ "ready", "ready" }, states());
			end
		end);
	end);
end);
