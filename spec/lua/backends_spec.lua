local core = require "mod_client_proxy.core";
local fake_module = require "spec.support.module";
local st = require "util.stanza";

local PROXY = "proxy.domain.example";
local TARGET = "some-user@some-domain.example";
local STRANGER = "user@some-domain.example";

describe("backends", function ()
	local module, pool, backends;
	local told; -- what the requests' side is told, in order
	local bounces; -- whether what answers a ping is a bounce

	local function new_backends(pings)
		return module:require "backends".new {
			target = TARGET, pool = pool, timeout = 60, pings = pings;
			on_came = function (backend)
				assert.is_nil(pool:state(backend));
				table.insert(told, "came "..backend);
			end;
			on_gone = function (backend)
				assert.is_nil(pool:state(backend));
				table.insert(told, "gone "..backend);
			end;
			is_bounce = function () return bounces; end;
		};
	end

	before_each(function ()
		module = fake_module.new();
		told, bounces = {}, false;
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

	describe("at the start", function ()
		it("ask the target for its presence, once", function ()
			assert.same({}, module.sent);
			backends.start();
			assert.equal(1, #module.sent);
			assert.equal("presence", module.sent[1].name);
			assert.same({ type = "subscribe", from = PROXY, to = TARGET }, module.sent[1].attr);
		end);

		it("are none", function ()
			assert_backends();
		end);
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

		it("unsubscribe and what nobody knows change nothing", function ()
			receive("unsubscribe", TARGET, PROXY);
			receive("unsubscribe", TARGET.."/a", PROXY);
			receive("something", TARGET.."/c", PROXY);
			assert_backends(TARGET.."/a", TARGET.."/b");
		end);

		it("a resource that went can come again", function ()
			receive("unavailable", TARGET, PROXY);
			receive(nil, TARGET.."/a", PROXY);
			assert_backends(TARGET.."/a");
		end);
	end);

	for _, from in ipairs { TARGET, TARGET.."/a" } do
		describe("and a target that manages its subscription from "..from, function ()
			it("is probed when it has accepted", function ()
				receive("subscribed", from, PROXY, { type = "probe", from = PROXY, to = TARGET });
				assert_backends();
			end);

			it("gets its own subscription, and the proxy's presence", function ()
				receive("subscribe", from, PROXY,
					{ type = "subscribed", from = PROXY, to = TARGET },
					{ from = PROXY, to = TARGET });
				assert_backends();
			end);

			it("is told the proxy's presence when it probes", function ()
				receive("probe", from, PROXY, { from = PROXY, to = from });
				assert_backends();
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
		local function infos()
			local texts = {};
			for _, line in ipairs(module.log_lines) do
				if line.level ~= "debug" then
					assert.equal("info", line.level);
					assert.is_nil(line.text:find("@", 1, true), "addresses are for debug only");
					table.insert(texts, line.text);
				end
			end
			return texts;
		end

		it("when the first comes and when the last goes, for the operator", function ()
			receive(nil, TARGET.."/a", PROXY);
			assert.equal(1, #infos());
			receive(nil, TARGET.."/a", PROXY);
			receive(nil, TARGET.."/b", PROXY);
			receive("unavailable", TARGET.."/a", PROXY);
			receive("unavailable", TARGET.."/a", PROXY);
			assert.equal(1, #infos());
			receive("unavailable", TARGET.."/b", PROXY);
			assert.equal(2, #infos());
			receive("unavailable", TARGET, PROXY);
			assert.equal(2, #infos());
			assert.not_equal(infos()[1], infos()[2]);
		end);

		it("when there is no memory for one", function ()
			pool = setmetatable({ add = function () return nil, "no-memory"; end, state = function () end },
				{ __len = function () return 0; end });
			backends = new_backends();
			receive(nil, TARGET.."/a", PROXY);
			assert.equal(1, #module.log_lines);
			assert.equal("error", module.log_lines[1].level);
			assert.truthy(module.log_lines[1].text:find("no-memory", 1, true));
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

		it("are dropped and probed when no answer comes", function ()
			assert.equal(60, module.timers[1].delay);
			module.timers[1].callback();
			assert.is_nil(pool:state(BACKEND));
			assert.equal("gone "..BACKEND, told[#told]);
			assert.same({ type = "probe", from = PROXY, to = TARGET }, module:take_sent()[1].attr);
			assert.is_nil(answer {}); -- too late
		end);

		it("are dropped and probed when the ping bounces", function ()
			bounces = true;
			assert.is_true(answer { type = "error" });
			assert.is_nil(pool:state(BACKEND));
			assert.same({ type = "probe", from = PROXY, to = TARGET }, module:take_sent()[1].attr);
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
			local second = module:take_sent()[1];
			assert.equal(BACKEND, second.attr.to);
			assert.equal("suspended", pool:state(BACKEND));
			assert.is_true(answer { id = second.attr.id });
			assert.equal("ready", pool:state(BACKEND));
		end);

		it("stay away after a reload when they hibernate meanwhile", function ()
			pool:set(BACKEND, "away");
			backends = new_backends(backends.save());
			assert.same({}, module:take_sent());
			assert.equal("away", pool:state(BACKEND));
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
			receive(nil, BACKEND, PROXY, { type = "subscribe", from = PROXY, to = TARGET });
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
			assert.equal("away", pool:state(TARGET.."/b"));
		end);

		it("are backends, all other sessions are left alone", function ()
			module.hooks["smacks-hibernation-start"] { origin = { full_jid = STRANGER } };
			module.hooks["smacks-hibernation-start"] { origin = {} };
			module.hooks["smacks-hibernation-end"] { origin = {}, resumed = {} };
			assert.equal("ready", pool:state(BACKEND));
		end);
	end);

	it("on another server are not watched for hibernation", function ()
		backends.start();
		assert.is_nil(next(module.hooks));
	end);
end);
