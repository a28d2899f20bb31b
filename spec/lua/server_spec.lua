local fake_module = require "spec.support.module";
local new_events = require "util.events".new;
local st = require "util.stanza";

local PROXY = "proxy.domain.example";
local HOST = "some-domain.example"; -- the target's
local THROWN = {};

describe("the target's server", function ()
	local module, server;
	local told; -- what is said of it, in order
	local react; -- what is done then, by what is said
	local is_awaited; -- whether something is pending

	local function tell(name)
		return function (data)
			table.insert(told, data ~= nil and name.." "..tostring(data) or name);
			if react[name] then
				react[name]();
			end
		end;
	end

	local function new_server()
		local events = new_events();
		for event, name in pairs {
			["stream-established"] = "established", ["stream-ended"] = "ended";
			["server-silent"] = "silent", ["server-heard"] = "heard", ["server-unreachable"] = "unreachable";
			["changed"] = "changed";
		} do
			events.add_handler(event, tell(name));
		end
		local pending = setmetatable({}, { __len = function () return is_awaited and 1 or 0; end });
		server = module:require "server".new { host = HOST, pending = pending, events = events };
	end

	local function start()
		server:start();
	end

	before_each(function ()
		module = fake_module.new();
		module.prosody.incoming_s2s = {};
		told, react, is_awaited = {}, {}, false;
		new_server();
		start();
	end);

	-- -> what was said since it was last asked
	local function take_told()
		local said = told;
		told = {};
		return said;
	end

	-- -> how many pings were sent in that time
	local function pass(seconds)
		assert.same({}, module:pass(seconds));
		return #module:take_sent();
	end

	-- Makes it, or something else on this Prosody, one that is not reached by streams to other servers
	local function make_ours(type)
		module.prosody.hosts[HOST] = { type = type, host = HOST, events = {} };
	end

	-- -> the stream that our stanzas for it go by, from now on; `closed` is how it was closed, each time
	local function new_route()
		local route = { closed = {} };
		function route:close(reason)
			table.insert(self.closed, reason);
		end
		module.prosody.hosts[PROXY].s2sout[HOST] = route;
		return route;
	end

	-- An answer to the ping, but for what `attr` says. -> whether it was dealt with
	local function answer(ping, origin, attr)
		attr = attr or {};
		return server:on_iq { origin = origin or { type = "s2sin" }, stanza = st.stanza("iq", {
			type = attr.type or "result", id = attr.id or ping.attr.id, from = attr.from or ping.attr.to, to = attr.to or ping.attr.from,
		}) };
	end

	-- All timers but the one that looks now and then whether something is awaited
	local function other_timers()
		return #module:running_timers() - 1;
	end

	describe("that is listened to", function ()
		it("is pinged at once, once", function ()
			server:listen();
			server:listen();
			local sent = module:take_sent();
			assert.equal(1, #sent);
			assert.same({ type = "get", id = sent[1].attr.id, from = PROXY, to = HOST }, sent[1].attr);
			assert.truthy(sent[1]:get_child("ping", "urn:xmpp:ping"));
			assert.equal(1, #sent[1]);
			assert.equal(1, other_timers());
		end);

		it("is pinged again after 3 seconds, and then every 5, with the same id", function ()
			server:listen();
			local id = module:take_sent()[1].attr.id;
			for _, pause in ipairs { 3, 5, 5, 5 } do
				assert.equal(0, pass(pause - 0.1));
				assert.same({}, module:pass(0.1));
				local sent = module:take_sent();
				assert.same({ id, HOST }, { sent[1].attr.id, sent[1].attr.to });
				assert.is_nil(sent[2]);
			end
		end);

		it("is silent after 3 seconds in which nothing has come from it, which is said once", function ()
			server:listen();
			pass(2.9);
			assert.is_false(server:is_silent());
			assert.same({}, take_told());
			pass(0.1);
			assert.is_true(server:is_silent());
			assert.same({ "silent" }, take_told());
			pass(100);
			assert.is_true(server:is_silent());
			assert.same({}, take_told());
		end);

		it("is silent no more when something comes from it, whatever that is, and is pinged no more", function ()
			server:listen();
			pass(20);
			take_told();
			server:heard();
			assert.is_false(server:is_silent());
			assert.same({ "heard" }, take_told());
			assert.equal(0, other_timers());
			assert.equal(0, pass(100));
			server:heard();
			assert.same({}, take_told());
		end);

		it("is pinged no more when something comes before it is silent, of which nothing is said", function ()
			server:listen();
			pass(2.9);
			server:heard();
			assert.same({}, take_told());
			assert.equal(0, other_timers());
			assert.equal(0, pass(100));
		end);

		it("is listened to anew after that, with another id", function ()
			server:listen();
			local before = module:take_sent()[1];
			server:heard();
			server:listen();
			local ping = module:take_sent()[1];
			assert.not_equal(before.attr.id, ping.attr.id);
			assert.is_nil(answer(before));
			assert.equal(1, other_timers());
			assert.is_true(answer(ping));
			assert.equal(0, other_timers());
		end);

		it("is heard when it answers a ping, be it with a result or an error, over any of its streams", function ()
			for _, origin in ipairs { { type = "s2sin" }, { type = "s2sout" } } do
				for _, type in ipairs { "result", "error" } do
					local before = server:heard_so_far();
					server:listen();
					pass(3);
					local ping = module:take_sent()[1] or { attr = { id = server.listening.id, from = PROXY, to = HOST } };
					assert.is_true(answer(ping, origin, { type = type }));
					assert.is_true(server:has_been_heard_since(before));
					assert.same({ "silent", "heard" }, take_told());
					assert.equal(0, other_timers());
				end
			end
		end);

		it("is not heard by what is no answer to the ping, which is others' business", function ()
			assert.is_nil(answer(st.iq { type = "get", id = "x", to = HOST, from = PROXY }));
			server:listen();
			local ping = module:take_sent()[1];
			for _, attr in ipairs {
				{ id = "x" }, { id = ping.attr.id.."1" }, { from = "some-user@"..HOST }, { from = HOST.."/x" }, { from = "x."..HOST };
				{ to = PROXY.."/x" }, { to = "node@"..PROXY }, { type = "get" }, { type = "set" };
			} do
				assert.is_nil(answer(ping, nil, attr));
			end
			assert.equal(1, other_timers());
			assert.is_false(server:has_been_heard_since(0));
		end);

		it("cannot be reached when our own server says so, be it mod_s2s or what sends back at once", function ()
			for _, origin in ipairs { { type = "s2sin", dummy = true }, module.prosody.hosts[PROXY], { type = "component" }, { type = "local" } } do
				server:listen();
				local ping = module:take_sent()[1];
				assert.is_true(answer(ping, origin, { type = "error" }));
				assert.same({ "unreachable" }, take_told());
				assert.is_false(server:has_been_heard_since(0));
				assert.is_false(server:is_silent());
				assert.equal(0, other_timers());
				assert.equal(0, pass(100));
			end
		end);

		it("can be listened to again a second after that, not before, as the same would be said at once", function ()
			server:listen();
			answer(module:take_sent()[1], { dummy = true }, { type = "error" });
			server:listen();
			pass(0.9);
			server:listen();
			assert.equal(0, #module:take_sent());
			assert.equal(0, other_timers());
			pass(0.1);
			server:listen();
			assert.equal(1, #module:take_sent());
		end);

		it("is not listened to for ever when whoever is told that it cannot be reached does that, and that is said at once", function ()
			local count = 0;
			function module.send(_, stanza)
				count = count + 1;
				assert(count < 100, "there is no end");
				answer(stanza, { type = "component" }, { type = "error" });
			end
			function react.unreachable()
				server:listen();
			end
			server:listen();
			assert.equal(1, count);
			for _ = 1, 100 do
				module:pass(0);
			end
			assert.equal(1, count);
		end);

		it("may be heard while the ping is sent, the first one or another", function ()
			for nth = 1, 3 do
				local count = 0;
				function module.send(_, stanza)
					count = count + 1;
					if count == nth then
						assert.is_true(answer(stanza));
					end
				end
				server:listen();
				module:pass(100);
				assert.equal(nth, count);
				assert.equal(0, other_timers());
				assert.is_false(server:is_silent());
			end
		end);

		it("may be heard while it is said to be silent, and is not pinged then", function ()
			function react.silent()
				server:heard();
			end
			server:listen();
			assert.equal(1, pass(100));
			assert.same({ "silent", "heard" }, take_told());
		end);

		it("is listened to on though another module's handler throws while a ping is sent", function ()
			for nth = 1, 4 do
				local count = 0;
				function module.send()
					count = count + 1;
					if count == nth then
						error(THROWN);
					end
				end
				local ok, thrown = pcall(server.listen, server);
				assert.is_true(ok or thrown == THROWN);
				assert.same(nth > 1 and { THROWN } or {}, module:pass(13));
				assert.equal(4, count);
				assert.equal(1, other_timers());
				assert.same({ "silent" }, take_told());
				server:heard();
				take_told();
			end
		end);

		it("is listened to on though whoever is told that it is silent throws", function ()
			function react.silent()
				error(THROWN);
			end
			server:listen();
			module:take_sent();
			assert.same({ THROWN }, module:pass(3));
			assert.same({ "silent" }, take_told());
			assert.equal(1, pass(5));
			assert.same({}, take_told());
		end);

		it("is pinged no more though whoever is told that it is heard throws", function ()
			server:listen();
			pass(3);
			function react.heard()
				error(THROWN);
			end
			assert.has_error(function () server:heard(); end, THROWN);
			assert.equal(0, other_timers());
			assert.is_false(server:is_silent());
		end);
	end);

	describe("whose stream from here brings nothing back", function ()
		local TIMEOUT = "connection-timeout";

		-- How many seconds it has been listened to whenever the stream is replaced, if that stands before each ping
		local function renewals(seconds)
			local times = {};
			local route = new_route();
			function route.close(_, reason)
				assert.equal(TIMEOUT, reason.condition);
				assert.is_string(reason.text);
				table.insert(times, module.clock.now - 5000);
			end
			server:listen();
			module:pass(seconds);
			return times;
		end

		it("is worth trying from the first new one on, until twenty have not helped, or something comes", function ()
			assert.is_false(server:is_worth_trying());
			for number = 1, 25 do
				local route = new_route();
				function route.close() end
				server:listen();
				module:pass(3);
				assert.equal(number < 20, server:is_worth_trying());
				server:on_iq { origin = { type = "s2sin", dummy = true }, stanza = st.reply(module:take_sent()[1]) };
				module:pass(1);
			end
			server:heard();
			assert.is_false(server:is_worth_trying());
		end);

		it("gets a new one in the first, second, fourth, eighth round and so on", function ()
			assert.same({ 3, 8, 18, 38, 78, 158 }, renewals(300));
		end);

		it("loses it with a reason that the other side can understand, which is logged", function ()
			local route = new_route();
			server:listen();
			module:pass(2.9);
			assert.same({}, route.closed);
			module:pass(0.1);
			assert.equal(TIMEOUT, route.closed[1].condition);
			assert.equal(1, #module.log_lines);
			assert.truthy(module.log_lines[1].text:find(HOST, 1, true));
		end);

		it("keeps one that is newer than the ping", function ()
			local old = new_route();
			server:listen();
			pass(1);
			local new = new_route();
			pass(2);
			assert.same({ 0, 0 }, { #old.closed, #new.closed });
			pass(5); -- the second round
			assert.same({ 0, 1 }, { #old.closed, #new.closed });
			pass(5);
			assert.equal(1, #new.closed);
		end);

		it("loses the one that the ping has opened", function ()
			local route;
			function module.send()
				route = route or new_route();
			end
			server:listen();
			pass(3);
			assert.equal(1, #route.closed);
		end);

		it("has none that could be closed", function ()
			server:listen();
			assert.equal(1 + 1 + 60, pass(3 + 60 * 5));
			assert.same({}, module.log_lines);
		end);

		it("is not that of another host", function ()
			local other = { close = function () error("it is another's"); end };
			module.prosody.hosts[PROXY].s2sout["x."..HOST] = other;
			module.prosody.hosts["domain.example"] = { s2sout = { [HOST] = other } };
			server:listen();
			pass(100);
		end);

		it("is said to be silent though another module's handler throws when the stream is closed", function ()
			local route = new_route();
			function route.close()
				error(THROWN);
			end
			server:listen();
			assert.same({ THROWN, THROWN, THROWN }, module:pass(30)); -- in the first, second and fourth round
			assert.same({ "silent" }, take_told());
			server:heard();
		end);

		it("may say while it is closed that it cannot be reached, by what has waited in its queue", function ()
			local route = new_route();
			server:listen();
			local ping = module:take_sent()[1];
			function route.close()
				module.prosody.hosts[PROXY].s2sout[HOST] = nil;
				answer(ping, { type = "s2sin", dummy = true }, { type = "error" });
			end
			assert.equal(0, pass(100));
			assert.equal("unreachable", take_told()[1]);
			assert.is_false(server:is_silent());
			assert.equal(0, other_timers());
		end);
	end);

	for _, type in ipairs { "local", "component" } do
		it("is never pinged where it is of this Prosody, and always to be heard: "..type, function ()
			make_ours(type);
			is_awaited = true;
			server:listen();
			assert.is_false(server:is_elsewhere());
			assert.equal(0, pass(100));
			assert.is_false(server:is_silent());
			assert.is_true(server:has_been_heard_since(server:heard_so_far()));
			module.hooks["s2sin-established"] { session = { type = "s2sin", incoming = true, hosts = { [HOST] = { authed = true } } } };
			module.hooks["s2sin-destroyed"] { session = { type = "s2sin", incoming = true, hosts = { [HOST] = { authed = true } } } };
			pass(1);
			assert.same({}, told);
		end);
	end

	it("is not listened to before the start, nor watched", function ()
		module = fake_module.new();
		new_server();
		is_awaited = true;
		server:listen();
		server:heard();
		assert.equal(0, pass(100));
		assert.same({}, module.timers);
		assert.same({}, module.hooks);
	end);

	it("is watched once, however often it is started", function ()
		start();
		assert.equal(1, #module:running_timers());
	end);

	it("has been heard since it was last asked about, or not", function ()
		local before = server:heard_so_far();
		assert.is_false(server:has_been_heard_since(before));
		server:heard();
		assert.is_true(server:has_been_heard_since(before));
		assert.is_false(server:has_been_heard_since(server:heard_so_far()));
	end);

	describe("that backends' answers are awaited from", function ()
		it("is listened to when nothing at all has come from it for 5 seconds", function ()
			is_awaited = true;
			assert.equal(0, pass(9.9)); -- at the first look, it may just have begun
			assert.equal(1, pass(0.1));
			assert.is_false(server:is_silent());
			assert.equal(1, pass(3));
			assert.is_true(server:is_silent());
		end);

		it("is left alone as long as something comes, and answers are awaited", function ()
			is_awaited = true;
			for _ = 1, 20 do
				assert.equal(0, pass(4.9));
				server:heard();
			end
			is_awaited = false;
			assert.equal(0, pass(100));
		end);

		it("is left alone when none was awaited meanwhile", function ()
			for _ = 1, 10 do
				is_awaited = not is_awaited;
				assert.equal(0, pass(5));
			end
		end);

		it("is watched on though another module's handler throws while it is pinged", function ()
			is_awaited = true;
			function module.send()
				error(THROWN);
			end
			assert.same({ THROWN }, module:pass(10));
			module.send = nil;
			server:heard();
			assert.equal(0, pass(4.9));
			assert.equal(1, pass(5.1));
		end);
	end);

	describe("and its streams:", function ()
		local BROKEN, IN_GOOD_ORDER = "ended true", "ended false";

		local function incoming(changes)
			local session = {
				type = "s2sin", direction = "incoming", incoming = true, from_host = HOST, to_host = PROXY, hosts = { [HOST] = { authed = true } },
			};
			for name, value in pairs(changes or {}) do
				session[name] = value;
			end
			return session;
		end

		local function outgoing(changes)
			local session = {
				type = "s2sout", direction = "outgoing", outgoing = true, from_host = PROXY, to_host = HOST, hosts = { [HOST] = { authed = true } },
			};
			for name, value in pairs(changes or {}) do
				session[name] = value;
			end
			return session;
		end

		it("the lowest limit of those by which it sends to the proxy holds it", function ()
			local function limited(rate)
				return { conn = { _limit = rate and 1 / rate } };
			end
			module.prosody.incoming_s2s = {
				[incoming(limited(nil))] = true;
				[incoming { to_host = "domain.example", conn = limited(10).conn }] = true;
				[incoming { hosts = { ["other.example"] = { authed = true } }, conn = limited(20).conn }] = true;
				[incoming { type = "s2sin_unauthed", hosts = {}, conn = limited(30).conn }] = true;
			};
			assert.is_nil(server:rate_limit());
			module.prosody.incoming_s2s[incoming { throttle = { rate = 30000 } }] = true;
			assert.equal(30000, server:rate_limit());
			module.prosody.incoming_s2s[incoming(limited(20000))] = true;
			assert.equal(20000, server:rate_limit());
			module.prosody.incoming_s2s[incoming(limited(40000))] = true;
			assert.equal(20000, server:rate_limit());
			make_ours "component";
			assert.is_nil(server:rate_limit());
		end);

		-- As Prosody does it, with what the session was before it is emptied
		local function destroy(session, reason)
			module.hooks["s2s-destroyed"] { session = session, reason = reason };
			if session.type == "s2sin" or session.type == "s2sout" then
				module.hooks[(session.direction == "outgoing" and "s2sout" or "s2sin").."-destroyed"] { session = session, reason = reason };
			end
			for name in pairs(session) do
				session[name] = nil;
			end
		end

		local function establish(session)
			module.hooks[(session.direction == "outgoing" and "s2sout" or "s2sin").."-established"] { session = session };
		end

		-- -> what is said, after all that happens together
		local function said()
			assert.same({}, told);
			module:pass(0);
			return take_told();
		end

		for name, new in pairs { ["from it"] = incoming, ["to it"] = outgoing } do
			it("one "..name.." that ends is said to have ended, in good order if the other side has closed it so", function ()
				destroy(new(), false);
				assert.same({ IN_GOOD_ORDER }, said());
				for _, reason in ipairs { "closed", "connection-timeout", true } do
					destroy(new(), reason);
					assert.same({ BROKEN }, said());
				end
				destroy(new(), nil);
				assert.same({ BROKEN }, said());
				assert.same({}, said());
			end);
		end

		it("several that end together are said to have ended once, broken if one is", function ()
			destroy(incoming(), false);
			destroy(outgoing(), "closed");
			destroy(incoming(), false);
			assert.same({ BROKEN }, said());
			destroy(incoming(), false);
			destroy(outgoing(), false);
			assert.same({ IN_GOOD_ORDER }, said());
		end);

		it("one that is established is said to be so if it can carry what the server sends", function ()
			establish(incoming());
			assert.same({ "established" }, said());
			establish(outgoing { incoming = true }); -- XEP-0288
			assert.same({ "established" }, said());
			establish(outgoing());
			assert.same({}, said());
		end);

		it("several that are established together are said to be so once", function ()
			establish(incoming());
			establish(outgoing { incoming = true });
			establish(incoming());
			assert.same({ "established" }, said());
		end);

		it("one that is established asks again whether those that still wait for that are the server's own", function ()
			local UNPROVED = { [HOST] = { dialback_key = "key" } };
			module.prosody.incoming_s2s = {
				[incoming { type = "s2sin_unauthed", streamid = "1", hosts = UNPROVED }] = true;
				[incoming { type = "s2sin_unauthed", streamid = "2", hosts = UNPROVED, to_host = "domain.example" }] = true;
				[incoming { type = "s2sin_unauthed", streamid = "3", hosts = { ["other.example"] = { dialback_key = "key" } } }] = true;
				[incoming { streamid = "4", hosts = { [HOST] = { dialback_key = "key", authed = true } } }] = true;
				[incoming { type = "s2sin_unauthed", streamid = "5", hosts = {} }] = true; -- it has not said a key yet
				[incoming { type = "s2sin_unauthed", hosts = false }] = true;
			};
			local sent = {};
			local function sends2s(stanza)
				table.insert(sent, tostring(stanza));
			end
			establish(outgoing { from_host = "domain.example", sends2s = sends2s });
			establish(outgoing { to_host = "other.example", sends2s = sends2s });
			establish(incoming());
			assert.same({}, sent);
			establish(outgoing { sends2s = sends2s });
			local question = st.stanza("db:verify", { from = PROXY, to = HOST, id = "1" }):text("key");
			assert.same({ tostring(question) }, sent);
		end);

		for name, session in pairs {
			["from a server that only claims its domain"] = incoming { hosts = { ["other.example"] = { authed = true } } };
			["from a server that has not yet proved that the domain is its own"] =
				incoming { hosts = { ["other.example"] = { authed = true }, [HOST] = { dialback_key = "key" } } };
			["from a server that has proved nothing"] = incoming { type = "s2sin_unauthed", hosts = {} };
			["from a server whose proof does not count yet"] = incoming { type = "s2sin_unauthed" };
			["from its subdomain"] = incoming { from_host = "x."..HOST, hosts = { ["x."..HOST] = { authed = true } } };
			["from a client"] = { type = "c2s", hosts = { [HOST] = { authed = true } }, incoming = true };
			["without any proof"] = incoming { hosts = false };
			["to another server"] = outgoing { to_host = "other.example", incoming = true };
			["to another server, which has proved both domains"] = outgoing { to_host = "other.example", incoming = true };
			["to it, before it has proved that it is it"] = outgoing { type = "s2sout_unauthed", incoming = true };
		} do
			it("one "..name.." says nothing", function ()
				establish(session);
				assert.same({}, said());
				destroy(session, "closed");
				assert.same({}, said());
			end);
		end

		it("one that has brought stanzas of its domain beside another's counts", function ()
			local session = incoming { from_host = "other.example", hosts = { ["other.example"] = { authed = true }, [HOST] = { authed = true } } };
			establish(session);
			assert.same({ "established" }, said());
			destroy(session, "closed");
			assert.same({ BROKEN }, said());
		end);

		it("one of another host of ours has carried nothing of ours, though who ends it may be about to end", function ()
			destroy(outgoing { from_host = "domain.example" }, "closed");
			assert.same({ IN_GOOD_ORDER }, said());
			destroy(incoming { to_host = "domain.example" }, "closed");
			assert.same({ IN_GOOD_ORDER }, said());
			destroy(incoming { to_host = "domain.example" }, "closed");
			destroy(incoming(), "closed");
			assert.same({ BROKEN }, said());
		end);

		describe("one to it that is not authenticated", function ()
			-- It is the one that our stanzas wait in, from now on
			local function opened(changes)
				local session = outgoing { type = "s2sout_unauthed", had_stream = true, close = function () end };
				for name, value in pairs(changes or {}) do
					session[name] = value;
				end
				module.prosody.hosts[PROXY].s2sout[HOST] = session;
				return session;
			end

			it("lets wait what is sent to it", function ()
				assert.is_false(server:is_waiting());
				local session = opened();
				assert.is_true(server:is_waiting());
				session.type = "s2sout";
				assert.is_false(server:is_waiting());
				opened();
				make_ours "component";
				assert.is_false(server:is_waiting());
			end);

			local function begin(session)
				module.hooks["s2s-created"] { session = session };
			end

			it("is told of when it has had three seconds, whatever comes from there meanwhile, until one is", function ()
				begin(opened());
				pass(2.9);
				server:heard();
				assert.is_false(server:is_unauthenticated());
				pass(0.1);
				assert.is_true(server:is_unauthenticated());
				assert.same({ "changed" }, take_told());
				pass(20);
				assert.same({}, take_told());
				establish(outgoing());
				assert.is_false(server:is_unauthenticated());
				assert.same({ "changed" }, take_told());
			end);

			it("has three seconds from a reload on, too", function ()
				opened();
				module = fake_module.new({}, module);
				new_server();
				start();
				pass(2.9);
				assert.is_false(server:is_unauthenticated());
				pass(0.1);
				assert.is_true(server:is_unauthenticated());
			end);

			it("is not told of if it is authenticated in time, or has gone, which is told of by itself", function ()
				local session = opened();
				begin(session);
				session.type = "s2sout";
				pass(10);
				session = opened { had_stream = false };
				begin(session);
				destroy(session);
				pass(10);
				assert.is_false(server:is_unauthenticated());
				assert.same({}, take_told());
			end);

			it("is told of when it ends", function ()
				destroy(opened(), "not-authorized");
				assert.is_true(server:is_unauthenticated());
				assert.same({ "changed" }, take_told());
				destroy(opened(), "not-authorized");
				assert.same({}, take_told());
				make_ours "local";
				assert.is_false(server:is_unauthenticated());
			end);

			it("is told of until one cannot even be opened, or theirs can be used for both ways", function ()
				destroy(opened());
				destroy(opened { had_stream = false });
				assert.is_false(server:is_unauthenticated());
				destroy(opened());
				establish(incoming());
				assert.is_true(server:is_unauthenticated());
				establish(incoming { outgoing = true });
				assert.is_false(server:is_unauthenticated());
			end);

			it("is none that was, nor one of another host or to another", function ()
				destroy(outgoing { had_stream = true });
				destroy(opened { from_host = "domain.example" });
				destroy(opened { to_host = "other.example" });
				destroy(incoming { type = "s2sin_unauthed", had_stream = true });
				begin(opened { from_host = "domain.example" });
				begin(opened { to_host = "other.example" });
				pass(10);
				assert.is_false(server:is_unauthenticated());
			end);
		end);

		it("what is said of them is said each time, though whoever was told has thrown", function ()
			function react.ended() error(THROWN); end
			function react.established() error(THROWN); end
			for _ = 1, 2 do
				destroy(incoming(), "closed");
				establish(incoming());
				assert.same({ THROWN, THROWN }, module:pass(0));
				assert.same({ BROKEN, "established" }, take_told());
			end
			react.ended = nil;
			destroy(incoming(), false);
			assert.same({ IN_GOOD_ORDER }, said());
		end);

		it("one that ends while it is said that one has ended is told of after that", function ()
			function react.ended()
				react.ended = nil;
				destroy(incoming(), "closed");
			end
			destroy(incoming(), false);
			module:pass(0);
			assert.same({ IN_GOOD_ORDER, BROKEN }, take_told());
		end);

		it("nothing is said of them after a reload", function ()
			destroy(incoming(), "closed");
			establish(incoming());
			server:retire();
			assert.same({}, module:running_timers());
			pass(100);
			assert.same({}, told);
		end);
	end);

	it("leaves no timer when the module goes, whatever is under way", function ()
		server:listen();
		pass(30);
		server:retire();
		assert.same({}, module:running_timers());
		assert.equal(0, pass(100));
	end);

	it("is asked for nothing more by an instance that has gone, which a reload was in the middle of", function ()
		server:retire();
		module:take_sent();
		server:listen();
		module.hooks["s2sin-destroyed"] { session = { type = "s2sin", direction = "incoming", to_host = PROXY, hosts = { [HOST] = { authed = true } } } };
		assert.same({}, module:take_sent());
		assert.same({}, module:running_timers());
	end);

	it("is asked for nothing more by an instance that goes while the ping is sent", function ()
		is_awaited = true;
		for nth = 1, 3 do
			local count = 0;
			function module.send()
				count = count + 1;
				if count == nth then
					server:retire();
				end
			end
			server:listen();
			pass(20);
			assert.equal(nth, count);
			assert.same({}, module:running_timers());
			new_server();
			start();
		end
	end);
end);
