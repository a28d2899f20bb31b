local fake_module = require "spec.support.module";
local new_events = require "util.events".new;
local st = require "util.stanza";

local PROXY = "proxy.domain.example";
local TARGET = "some-user@some-domain.example";

describe("the subscription", function ()
	local module, subscription, changes, auto_approve;
	local is_worth_trying; -- whether a new stream to it may help
	local is_waiting; -- whether what is sent to it waits
	local heard, listens; -- how often the target's server was heard, and listened to
	local roster; -- of the target, as Prosody's roster manager would see it, and what was done to it

	local function fake_rostermanager()
		return {
			is_contact_subscribed = function (node, host, jid)
				assert.same({ TARGET, PROXY }, { node.."@"..host, jid });
				return roster.is_approved, roster.load_error;
			end;
			set_contact_pending_in = function (node, host, jid)
				assert.same({ TARGET, PROXY }, { node.."@"..host, jid });
				roster.is_pending = not roster.is_read_only;
				return roster.is_pending;
			end;
			subscribed = function (node, host, jid)
				assert.same({ TARGET, PROXY }, { node.."@"..host, jid });
				roster.is_approved, roster.is_pending = roster.is_pending, false;
				roster.items[jid] = roster.items[jid] or { subscription = "from", groups = {} };
				return roster.is_approved;
			end;
			unsubscribed = function (node, host, jid)
				assert.same({ TARGET, PROXY }, { node.."@"..host, jid });
				local item = roster.items[jid];
				item.subscription = item.subscription == "both" and "to" or "none";
				roster.is_approved = false;
			end;
			load_roster = function (node, host)
				assert.equal(TARGET, node.."@"..host);
				return roster.items;
			end;
			save_roster = function (node, host, items, jid)
				assert.same({ TARGET, PROXY }, { node.."@"..host, jid });
				assert.equal(roster.items, items);
				roster.saved = items[jid] and { made_by = items[jid].made_by, subscription = items[jid].subscription } or "removed";
				return not roster.is_unsaved;
			end;
			roster_push = function (node, host, jid)
				assert.same({ TARGET, PROXY }, { node.."@"..host, jid });
				roster.pushes = roster.pushes + 1;
			end;
		};
	end

	-- (name) -> a room, with a roster and accounts that are ours
	local function load_room(name)
		module.libraries["core.rostermanager"] = fake_rostermanager();
		module.libraries["core.usermanager"] = { user_exists = function (node, host)
			return node.."@"..host == TARGET and roster.has_account;
		end };
		return module:require(name);
	end

	local function new_subscription(saved)
		local events = new_events();
		events.add_handler("changed", function () changes = changes + 1; end);
		return load_room("subscription").new {
			target = TARGET, auto_approve = auto_approve, saved = saved;
			server = {
				is_elsewhere = function () return not module.prosody.hosts["some-domain.example"]; end;
				heard_so_far = function () return heard; end;
				has_been_heard_since = function (_, before)
					return heard ~= before or module.prosody.hosts["some-domain.example"] ~= nil;
				end;
				is_worth_trying = function () return is_worth_trying; end;
				is_waiting = function () return is_waiting; end;
				listen = function () listens = listens + 1; end;
			};
			events = events;
		};
	end

	before_each(function ()
		module = fake_module.new();
		is_worth_trying, is_waiting = false, false;
		changes, auto_approve, heard, listens = 0, true, 0, 0;
		roster = { has_account = true, is_approved = false, pushes = 0, items = {} };
		subscription = new_subscription();
	end);

	local function make_local()
		module.prosody.hosts["some-domain.example"] = { type = "local", events = {} };
	end

	-- The types of the presences that were sent to the target since it was last asked
	local function sent()
		local types = {};
		for _, stanza in ipairs(module:take_sent()) do
			assert.equal("presence", stanza.name);
			assert.same({ from = PROXY, to = TARGET, type = stanza.attr.type }, stanza.attr);
			table.insert(types, stanza.attr.type);
		end
		return types;
	end

	-- Time passes. -> how long it was until the target is asked again
	local function wait()
		local timer = module:running_timer();
		assert.same({}, module:pass(timer.due - module.clock.now));
		return timer.delay;
	end

	local function bounce(condition, text)
		subscription:on_error(st.error_reply(st.presence({ from = PROXY, to = TARGET, type = "subscribe" }),
			"cancel", condition, text));
	end

	-- Presence from the target, the receipt for a request if nothing else is said
	local function present(type, from)
		subscription:on_presence(st.presence({ type = type ~= "available" and (type or "unavailable") or nil, from = from or TARGET, to = PROXY }));
	end

	local function assert_state(state, reason)
		assert.same({ state, reason }, { subscription:state() });
	end

	describe("to a target on another server", function ()
		it("is asked for at the start, and the target is probed when it has granted it", function ()
			assert_state "starting";
			assert.same({}, sent());
			subscription:start();
			assert.same({ "subscribe" }, sent());
			assert_state "asked";
			subscription:on_subscribed();
			assert.same({ "probe" }, sent());
			assert_state "granted";
			present();
			assert.is_nil(module:running_timer());
		end);

		it("is asked for again while there is no answer, after growing pauses of up to an hour", function ()
			subscription:start();
			heard = heard + 1;
			for _, pause in ipairs { 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 3600, 3600 } do
				sent();
				assert.equal(pause, wait());
				assert.same({ "subscribe" }, sent());
				assert_state "unapproved";
			end
		end);

		it("is not said to wait for approval before something has come from a server that has been asked", function ()
			heard = 10;
			subscription:start();
			for _ = 1, 5 do
				wait();
				assert_state "asked";
			end
			assert.equal(6, listens);
			heard = 11;
			wait();
			assert_state "unapproved";
		end);

		it("is not said to wait for approval before the stream to a server that has been heard is authenticated", function ()
			is_waiting = true;
			subscription:start();
			for _ = 1, 5 do
				heard = heard + 1; -- by a stream of its own
				wait();
				assert_state "asked";
			end
			is_waiting = false;
			wait();
			assert_state "asked";
			heard = heard + 1;
			wait();
			assert_state "unapproved";
		end);

		it("is asked for at once when the target's server can speak to ours, and then soon again", function ()
			subscription:start();
			for _ = 1, 5 do
				wait();
			end
			sent();
			subscription:on_shaken();
			assert.same({ "subscribe" }, sent());
			assert.same({}, module:pass(0.9));
			assert.same({}, sent());
			assert.same({}, module:pass(0.1));
			assert.same({ "subscribe" }, sent());
		end);

		it("is not asked for again then if the target's server has said that somebody has to accept it, or does not", function ()
			subscription:start();
			present();
			assert_state "unapproved";
			sent();
			subscription:on_shaken();
			assert.same({}, sent());
			subscription:on_unsubscribed();
			subscription:on_shaken();
			assert.same({}, sent());
		end);

		it("is found out about at once when something is known of the target's server, and five times more", function ()
			subscription:start();
			subscription:on_subscribed();
			present();
			module:pass(1);
			sent();
			subscription:on_shaken();
			for _, pause in ipairs { 2, 8, 32, 128, 300 } do
				assert.same({ "probe" }, sent());
				present();
				assert.same({}, module:pass(pause - 0.1));
				assert.same({}, sent());
				assert.same({}, module:pass(0.1));
			end
			assert.same({ "probe" }, sent());
			assert.is_nil(module:running_timer());
		end);

		it("is found out about from the beginning whenever something new is known", function ()
			subscription:start();
			subscription:on_subscribed();
			present();
			module:pass(1);
			subscription:on_shaken();
			present();
			module:pass(9);
			subscription:on_shaken();
			present();
			sent();
			module:pass(2);
			assert.same({ "probe" }, sent());
		end);

		it("is found out about once a second at most, however often that is wanted", function ()
			subscription:start();
			subscription:on_subscribed();
			present();
			sent();
			for _ = 1, 100 do
				subscription:check();
				subscription:on_gone();
				present();
			end
			assert.same({}, module:pass(0.9));
			assert.same({}, sent());
			assert.same({}, module:pass(0.1));
			assert.same({ "probe" }, sent());
			assert.is_nil(module:running_timer());
		end);

		it("leaves no timer when it stops", function ()
			subscription:start();
			subscription:on_subscribed();
			subscription:on_shaken();
			subscription:on_gone();
			assert.is_true(#module:running_timers() > 2);
			subscription:retire();
			assert.same({}, module:running_timers());
		end);

		it("is asked for again while the target cannot be reached, after up to five minutes", function ()
			subscription:start();
			for _, pause in ipairs { 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300 } do
				bounce("remote-server-not-found", "no route\nto \27[host");
				assert_state("unreachable", "remote-server-not-found: no route to  [host");
				assert.equal(pause, wait());
			end
		end);

		it("is asked for again every two seconds while the target cannot be reached and a new stream is worth trying", function ()
			is_worth_trying = true;
			subscription:start();
			for _, pause in ipairs { 1, 2, 2, 2, 2, 2 } do
				bounce("remote-server-not-found");
				assert.equal(pause, wait());
			end
			is_worth_trying = false;
			for _, pause in ipairs { 2, 2, 4, 8 } do
				bounce("remote-server-not-found");
				assert.equal(pause, wait());
			end
		end);

		it("tells why it cannot be reached, at no great length", function ()
			subscription:start();
			bounce("not-allowed");
			assert_state("unreachable", "not-allowed");
			bounce("not-allowed", ("x"):rep(1000));
			assert_state("unreachable", "not-allowed: "..("x"):rep(200));
		end);

		it("is asked for again while nothing comes after it is granted", function ()
			subscription:start();
			subscription:on_subscribed();
			sent();
			assert.equal(1, wait());
			assert.same({ "subscribe" }, sent());
			assert_state "granted";
			subscription:on_subscribed();
			present();
			assert.is_nil(module:running_timer());
		end);

		it("waits for somebody to accept it once the target's server has acknowledged it", function ()
			subscription:start();
			present();
			assert_state "unapproved";
			assert.equal(1, wait());
			assert_state "unapproved";
			subscription:on_subscribed();
			assert_state "granted";
		end);

		it("is not taken to wait for that when a resource comes or goes", function ()
			subscription:start();
			present("available", TARGET.."/a");
			present("unavailable", TARGET.."/a");
			assert_state "asked";
		end);

		it("is asked for soon when the target can be reached again", function ()
			subscription:start();
			for _ = 1, 5 do
				bounce "remote-server-not-found";
				wait();
			end
			sent();
			present("available", TARGET.."/a");
			assert_state "reachable";
			assert.same({}, sent());
			present("available", TARGET.."/b");
			present();
			assert_state "reachable";
			assert.equal(1, wait());
			assert_state "asked";
			assert.same({ "subscribe" }, sent());
			subscription:on_subscribed();
			present("available", TARGET.."/a");
			assert_state "granted";
			assert.is_nil(module:running_timer());
		end);

		it("that was refused is asked for again in an hour", function ()
			subscription:start();
			subscription:on_unsubscribed();
			assert_state "refused";
			present(); -- the last, unavailable
			assert_state "refused";
			assert.equal(3600, wait());
			assert_state "refused";
			subscription:on_subscribed();
			assert_state "granted";
		end);

		it("that was taken back is asked for again soon, and later if that is refused", function ()
			subscription:start();
			subscription:on_subscribed();
			present();
			sent();
			subscription:on_unsubscribed();
			assert_state "refused";
			assert.same({}, sent());
			assert.equal(1, wait());
			assert.same({ "subscribe" }, sent());
			subscription:on_unsubscribed();
			assert.equal(3600, wait());
		end);

		it("is found out about when a backend has been lost, until there is an answer", function ()
			subscription:start();
			subscription:on_subscribed();
			present();
			module:pass(1);
			sent();
			subscription:check();
			assert.same({ "probe" }, sent());
			assert.equal(1, listens - 1);
			assert.equal(1, wait());
			assert.same({ "subscribe" }, sent());
			subscription:check(); -- another one
			assert.same({ "probe" }, sent());
			assert.equal(2, wait());
			bounce "remote-server-timeout";
			assert_state("unreachable", "remote-server-timeout");
			sent();
			subscription:check();
			assert.same({}, sent());
			assert.equal(4, wait());
			subscription:on_subscribed();
			present();
			assert.is_nil(module:running_timer());
			module:pass(1);
			subscription:check();
			assert.equal(1, wait());
		end);

		it("is not asked for again when the answer to a probe comes while that is sent", function ()
			subscription:start();
			subscription:on_subscribed();
			present();
			module:pass(1);
			function module.send()
				present "available";
			end
			subscription:check();
			assert.is_nil(module:running_timer());
		end);

		it("is asked for again though another module's handler throws while the probe is sent", function ()
			subscription:start();
			subscription:on_subscribed();
			present();
			module:pass(1);
			function module.send()
				error("thrown");
			end
			assert.error(function () subscription:check(); end);
			assert.equal(1, module:running_timer().delay);
		end);

		it("is not probed for before it is granted, which could end the request", function ()
			subscription:start();
			sent();
			subscription:check();
			assert.same({}, sent());
		end);

		it("is asked for again when an error comes out of the blue", function ()
			subscription:start();
			subscription:on_subscribed();
			present();
			bounce "remote-server-timeout";
			assert_state("unreachable", "remote-server-timeout");
			assert.equal(1, wait());
		end);

		it("is asked for at once when the operator wants it, however long the pause", function ()
			subscription:start();
			for _ = 1, 10 do
				wait();
			end
			sent();
			subscription:resync();
			assert.same({ "subscribe" }, sent());
			assert.equal(1, wait());
		end);

		it("lets the target be probed soon after a resource has gone, once for all that go", function ()
			subscription:start();
			subscription:on_subscribed();
			present();
			sent();
			subscription:on_gone();
			subscription:on_gone();
			assert.same({}, sent());
			assert.equal(1, wait());
			assert.same({ "probe" }, sent());
			subscription:on_gone();
			bounce "remote-server-not-found";
			module.timers[#module.timers].stopped = true;
			sent();
			assert.equal(1, wait());
			assert.same({}, sent()); -- which has to be asked for its presence first
		end);

		it("lets the target be probed once when there is reason to do it at once while that was to be done soon", function ()
			subscription:start();
			subscription:on_subscribed();
			module:pass(100);
			present("available", TARGET.."/a");
			sent();
			subscription:on_gone();
			subscription:check();
			present("available", TARGET.."/a");
			assert.same({ "probe" }, sent());
			assert.is_nil(module:running_timer());
		end);

		it("sets no timer when it has stopped, though it may be in the middle of something", function ()
			subscription:start();
			subscription:on_subscribed();
			subscription:retire();
			subscription:on_gone();
			subscription:check();
			subscription:on_shaken();
			subscription:resync();
			assert.same({}, module:running_timers());
		end);

		it("needs nothing of a roster", function ()
			subscription:start();
			assert.same({ has_account = true, is_approved = false, pushes = 0, items = {} }, roster);
			assert.is_nil(next(module.hooks));
		end);
	end);

	describe("to a target on the same server", function ()
		before_each(make_local);

		it("is set up in the target's roster, with a push, and asked for", function ()
			subscription:start();
			assert.is_true(roster.is_approved);
			assert.equal(1, roster.pushes);
			assert.same({ "subscribe" }, sent());
		end);

		it("says in the roster who has made it, before the push", function ()
			subscription:start();
			assert.same({ made_by = "client_proxy", subscription = "from" }, roster.saved);
		end);

		it("is not asked for when the roster does not save who has made it", function ()
			roster.is_unsaved = true;
			subscription:start();
			assert_state("roster-broken", "it cannot be saved");
			assert.same({}, sent());
			assert.equal(0, roster.pushes);
		end);

		it("is none of ours where it exists: nothing is said in the roster", function ()
			roster.is_approved, roster.items[PROXY] = true, { subscription = "from", groups = {} };
			subscription:start();
			assert.is_nil(roster.items[PROXY].made_by);
			assert.is_nil(roster.saved);
		end);

		it("lets nobody be probed when a resource has gone", function ()
			subscription:start();
			subscription:on_subscribed();
			present();
			sent();
			subscription:on_gone();
			assert.is_nil(module:running_timer());
		end);

		it("is left as it is where it exists", function ()
			roster.is_approved = true;
			subscription:start();
			assert.equal(0, roster.pushes);
			assert.is_nil(roster.is_pending);
			assert.same({ "subscribe" }, sent());
		end);

		it("waits for the account to be made", function ()
			roster.has_account = false;
			subscription:start();
			assert.same({}, sent());
			assert_state "no-account";
			assert.is_false(roster.is_approved);
			assert.equal(1, wait());
			assert_state "no-account";
			roster.has_account = true;
			assert.equal(2, wait());
			assert.is_true(roster.is_approved);
			assert.same({ "subscribe" }, sent());
			assert_state "asked";
		end);

		for name, broken in pairs {
			["read"] = { has_account = true, load_error = "bad disk", pushes = 0, items = {} };
			["written"] = { has_account = true, is_approved = false, is_read_only = true, pushes = 0, items = {} };
		} do
			it("waits for a roster that cannot be "..name, function ()
				roster = broken;
				subscription:start();
				assert.same({}, sent());
				assert_state("roster-broken", broken.load_error or "it cannot be saved");
				assert.equal(0, roster.pushes);
				roster = { has_account = true, is_approved = false, pushes = 0, items = {} };
				wait();
				assert.same({ "subscribe" }, sent());
				assert_state "asked";
			end);
		end

		it("is set up again when it has been ended", function ()
			subscription:start();
			subscription:on_subscribed();
			present();
			roster.is_approved = false;
			subscription:on_unsubscribed();
			assert.equal(1, wait());
			assert.is_true(roster.is_approved);
			roster.is_approved = false;
			subscription:on_unsubscribed(); -- once more, while it was asked for
			assert.equal(2, wait());
			assert.is_true(roster.is_approved);
		end);

		-- A client of this account sends presence, to everybody if not `to` somebody.
		local function own_presence(username, to)
			module.hooks["presence/bare"] { origin = { username = username }, stanza = st.presence({ to = to }) };
		end

		it("is seen to when the target sends presence, and what else there is learnt soon", function ()
			subscription:start();
			subscription:on_subscribed();
			present();
			sent();
			own_presence("some-user");
			assert.is_nil(module:running_timer());
			roster.is_approved = false;
			own_presence("another-user");
			own_presence("some-user", "user@some-domain.example");
			assert.is_false(roster.is_approved);
			own_presence("some-user");
			assert.is_true(roster.is_approved);
			assert.equal(2, roster.pushes);
			assert.equal(1, wait());
			assert.same({ "subscribe" }, sent());
		end);

		it("is asked for soon when the target sends presence after the account was missing", function ()
			roster.has_account = false;
			subscription:start();
			for _ = 1, 10 do
				wait();
			end
			roster.has_account = true;
			own_presence("some-user");
			assert.is_true(roster.is_approved);
			assert.equal(1, wait());
			assert_state "asked";
		end);

		it("is only asked for when that is what the configuration says", function ()
			auto_approve = false;
			subscription = new_subscription();
			subscription:start();
			assert.same({ "subscribe" }, sent());
			assert.same({ has_account = true, is_approved = false, pushes = 0, items = {} }, roster);
			assert.is_nil(next(module.hooks));
			subscription:on_unsubscribed();
			assert.equal(3600, wait());
		end);
	end);

	it("to an account of a component on the same server needs nothing of a roster", function ()
		module.prosody.hosts["some-domain.example"] = { type = "component", events = {} };
		subscription:start();
		assert.same({ "subscribe" }, sent());
		assert.is_false(roster.is_approved);
	end);

	it("tells each change of its state, once", function ()
		subscription:start();
		assert.equal(1, changes); -- asked
		present();
		present();
		assert.equal(2, changes); -- unapproved
		subscription:on_subscribed();
		subscription:on_subscribed();
		present();
		assert.equal(3, changes); -- granted
		bounce "not-allowed";
		bounce "not-allowed";
		assert.equal(4, changes); -- unreachable
		bounce "remote-server-timeout";
		assert.equal(5, changes); -- for another reason
		subscription:on_unsubscribed();
		subscription:on_unsubscribed();
		assert.equal(6, changes); -- refused
	end);

	it("is as it was after a reload, and stops asking before", function ()
		subscription:start();
		subscription:on_subscribed();
		subscription:retire();
		assert.is_nil(module:running_timer());
		subscription:retire();
		changes = 0;
		subscription = new_subscription(subscription:save());
		assert_state "granted";
		subscription:start();
		subscription:on_subscribed();
		present();
		assert.equal(0, changes);
		bounce "not-allowed";
		subscription = new_subscription(subscription:save());
		assert_state("unreachable", "not-allowed");
	end);

	describe("that is withdrawn", function ()
		local function withdraw()
			roster.saved, roster.pushes = nil, 0;
			load_room("roster").withdraw(TARGET);
		end

		local function assert_untouched()
			assert.is_nil(roster.saved);
			assert.equal(0, roster.pushes);
			assert.same({}, sent());
		end

		it("is taken out of the roster of a target on this server, with a push", function ()
			make_local();
			subscription:start();
			withdraw();
			assert.is_false(roster.is_approved);
			assert.same({}, roster.items);
			assert.equal("removed", roster.saved);
			assert.equal(1, roster.pushes);
		end);

		-- What an owner can have made of the entry
		for what, fields in pairs {
			["a name"] = { name = "Proxy" }, ["a group"] = { groups = { services = true } },
			["a request"] = { ask = "subscribe" }, ["a subscription"] = { subscription = "both" },
		} do
			it("leaves the entry there, but not as ours, when it has "..what, function ()
				make_local();
				subscription:start();
				for name, value in pairs(fields) do
					roster.items[PROXY][name] = value;
				end
				withdraw();
				assert.is_false(roster.is_approved);
				assert.is_nil(roster.items[PROXY].made_by);
				assert.same({ subscription = fields.subscription and "to" or "none" }, roster.saved);
				assert.equal(1, roster.pushes);
			end);
		end

		it("stays when the module has not made it", function ()
			make_local();
			for _, made_by in ipairs { false, "another" } do
				roster.items[PROXY] = { subscription = "from", groups = {}, made_by = made_by or nil };
				withdraw();
				assert.equal("from", roster.items[PROXY].subscription);
				assert_untouched();
			end
		end);

		it("is nothing to do where there is none, no account, or no such host here", function ()
			withdraw();
			assert_untouched();
			make_local();
			withdraw();
			assert_untouched();
			subscription:start();
			sent();
			roster.has_account = false;
			withdraw();
			assert_untouched();
			roster.has_account = true;
			module.prosody.hosts["some-domain.example"].type = "component";
			withdraw();
			assert_untouched();
		end);
	end);
end);
