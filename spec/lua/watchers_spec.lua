local fake_module = require "spec.support.module";
local random = require "spec.support.random";
local new_events = require "util.events".new;
local st = require "util.stanza";

local PROXY, NODE = "proxy.domain.example", "node@proxy.domain.example";
local TARGET = "some-user@some-domain.example";
local USER = "user@some-domain.example";
local STORE = "client_proxy_watchers";
local GRACE, WRITE_AFTER, SLICE = 5, 60, 100;

random.announce("watchers_spec");

describe("watchers", function ()
	local module, watchers, events, serves, is_allowed, max, on_send, target;
	local driver, directory; -- of Prosody's storage

	local function set_storage()
		module.libraries["core.storagemanager"] = { get_driver = function () return {}, driver; end };
		module.libraries["util.datamanager"] = {
			getpath = function (key, host, store)
				assert.equal(PROXY, host);
				return ("%s/%s.%s"):format(directory, store, key);
			end;
		};
	end

	-- The files are loaded as they are at a start, or after a reload, with what was saved before.
	local function load(saved)
		events = new_events();
		set_storage();
		local send = module.send;
		function module:send(stanza)
			send(self, stanza);
			if on_send then
				on_send(stanza.attr);
			end
		end
		watchers = module:require "watchers".new {
			target = target, events = events, max = max, is_allowed = is_allowed, saved = saved;
			pool = { serves = function () return serves; end };
		};
	end

	local function start(saved)
		load(saved);
		watchers:start();
	end

	before_each(function ()
		module = fake_module.new();
		serves, is_allowed, max, on_send, driver, target = false, nil, 100000, nil, "sql", TARGET;
	end);

	local function reload(is_wrong)
		local saved = watchers:save();
		watchers:retire();
		assert.same({}, module:running_timers());
		module.is_gone = true;
		local sent = module:take_sent();
		module = fake_module.new({}, module);
		module.sent = sent;
		if is_wrong then
			set_storage();
			module:require "watchers".give_up(saved);
		else
			start(saved);
		end
	end

	-- Prosody is gone, without a word if it has crashed, and started again
	local function restart(has_crashed)
		if not has_crashed then
			watchers:stop();
		end
		module.is_gone = true;
		module = fake_module.new({}, module);
		start();
	end

	local function receive(type, from, to)
		assert.is_true(watchers.on_presence { stanza = st.presence { type = type, from = from, to = to } });
	end

	local function set_serving(is_serving)
		serves = is_serving;
		events.fire_event("changed");
	end

	-- No backend has served for so long, and what is to be done then is not done yet, but for the first slice of it.
	local function pass_grace()
		set_serving(false);
		module.clock.now = module.clock.now + GRACE;
		for _, timer in ipairs(module:running_timers()) do
			if timer.delay == GRACE then
				timer.fired = true;
				timer.callback();
			end
		end
		assert.same({}, module.sent);
		module:fire_slice();
	end

	-- -> a list: what has been sent since it was last asked, as "TYPE from FROM to TO"
	local function sent()
		local list = {};
		for _, stanza in ipairs(module:take_sent()) do
			assert.equal("presence", stanza.name);
			assert.equal(0, #stanza);
			table.insert(list, ("%s from %s to %s"):format(stanza.attr.type or "available", stanza.attr.from, stanza.attr.to));
		end
		return list;
	end

	local function watch(account, address)
		receive("subscribe", account or USER, address or PROXY);
		return sent();
	end

	local function account(number)
		return ("user-%d@some-domain.example"):format(number);
	end

	-- The service is available, and these accounts watch it.
	local function have_watchers(count)
		serves = true;
		start();
		for number = 1, count do
			watch(account(number));
		end
		module:pass(0);
	end

	local function stored()
		local list = {};
		for _, shard in pairs(module.stores[STORE].content) do
			for _, entry in ipairs(shard) do -- a list, so that storage in SQL has one row for all
				for index = 2, #entry do
					table.insert(list, entry[1].." "..entry[index]);
				end
			end
		end
		table.sort(list);
		return list;
	end

	local function logged(level)
		local lines = {};
		for _, line in ipairs(module.log_lines) do
			assert.is_true(line.level == "error" or line.level == "warn" or line.level == "debug");
			table.insert(lines, line.level == level and line.text or nil);
		end
		return lines;
	end

	describe("subscribe:", function ()
		for state, is_serving in pairs { available = true, unavailable = false } do
			it("accepted, told that the service is "..state..", each time that they do", function ()
				serves = is_serving;
				start();
				for _ = 1, 2 do
					assert.same({
						("subscribed from %s to %s"):format(PROXY, USER), ("%s from %s to %s"):format(state, PROXY, USER),
					}, watch());
					assert.equal(1, #watchers);
				end
			end);
		end

		it("to the bare service address, by the bare account, whatever resources there are", function ()
			start();
			assert.same({
				("subscribed from %s to %s"):format(NODE, USER), ("unavailable from %s to %s"):format(NODE, USER),
			}, watch(USER.."/abc/d@e", NODE.."/thing/x@y"));
			watch(USER, NODE);
			assert.equal(1, #watchers);
			watch(USER, PROXY);
			assert.equal(2, #watchers);
		end);

		it("the target, too, to any address but the proxy host itself, which is none of our business", function ()
			start();
			assert.same({}, watch(TARGET));
			assert.equal(2, #watch(TARGET, NODE));
			assert.equal(1, #watchers);
		end);

		it("32 addresses each, and are refused more until they give up one", function ()
			start();
			for number = 1, 32 do
				assert.equal(2, #watch(USER, ("n%d@%s"):format(number, PROXY)));
			end
			assert.same({ ("unsubscribed from %s to %s"):format(PROXY, USER) }, watch());
			assert.equal(32, #watchers);
			assert.equal(2, #watch(USER, "n32@"..PROXY)); -- again
			assert.equal(2, #watch("other-"..USER));
			receive("unsubscribe", USER, "n1@"..PROXY);
			sent();
			assert.equal(2, #watch());
		end);

		it("as many as there may be, and are refused beyond that", function ()
			max = 2;
			start();
			watch(account(1));
			watch(account(1), NODE);
			assert.same({ ("unsubscribed from %s to %s"):format(PROXY, account(2)) }, watch(account(2)));
			receive("unsubscribe", account(1), PROXY);
			sent();
			assert.equal(2, #watch(account(2)));
		end);

		it("with addresses of half a kilobyte on average, and are refused beyond that", function ()
			max = 8;
			start();
			local long = ("n"):rep(900).."@"..PROXY;
			local taken = 0;
			while #watch(account(taken + 1), long) == 2 do
				taken = taken + 1;
			end
			assert.equal(4, taken); -- 8 * 512 bytes
			assert.equal(1, #watch(account(8), long));
			receive("unsubscribe", account(1), long);
			sent();
			assert.equal(2, #watch(account(8), long));
		end);

		it("unless they are not allowed to use the service", function ()
			function is_allowed(jid) return jid ~= USER; end
			start();
			assert.same({ ("unsubscribed from %s to %s"):format(PROXY, USER) }, watch(USER.."/abc"));
			assert.equal(2, #watch(account(1)));
			assert.equal(1, #watchers);
		end);

		it("and have no presence sent after they were forgotten as the acceptance was sent", function ()
			start();
			function on_send(attr)
				if attr.type == "subscribed" then
					receive("unsubscribe", USER, PROXY);
				end
			end
			receive("subscribe", USER, PROXY);
			assert.same({
				("subscribed from %s to %s"):format(PROXY, USER),
				("unsubscribed from %s to %s"):format(PROXY, USER), ("unavailable from %s to %s"):format(PROXY, USER),
			}, sent());
			assert.equal(0, #watchers);
		end);
	end);

	describe("that are known", function ()
		before_each(function ()
			have_watchers(0);
			watch();
			watch(USER, NODE);
		end);

		it("unsubscribe from one address, and are forgotten there", function ()
			receive("unsubscribe", USER.."/abc", PROXY.."/x");
			assert.same({
				("unsubscribed from %s to %s"):format(PROXY, USER), ("unavailable from %s to %s"):format(PROXY, USER),
			}, sent());
			assert.equal(1, #watchers);
			set_serving(false);
			module:pass(GRACE);
			assert.same({ ("unavailable from %s to %s"):format(NODE, USER) }, sent());
		end);

		it("are answered where they ask, strangers that they are not subscribed, and those who are not allowed, too", function ()
			receive("probe", USER.."/abc", NODE.."/x");
			assert.same({ ("available from %s to %s/abc"):format(NODE, USER) }, sent());
			receive("probe", USER, NODE);
			assert.same({ ("available from %s to %s"):format(NODE, USER) }, sent());
			for _, pair in ipairs { { USER, "other-"..NODE }, { "other-"..USER, NODE } } do
				receive("probe", pair[1].."/abc", pair[2]);
				assert.same({ ("unsubscribed from %s to %s"):format(pair[2], pair[1]) }, sent());
			end
			watchers.is_allowed = function () return false; end;
			receive("probe", USER.."/abc", NODE);
			assert.same({ ("unsubscribed from %s to %s"):format(NODE, USER) }, sent());
			assert.equal(1, #watchers);
		end);

		it("are forgotten at one address by an error, which is not answered", function ()
			receive("error", USER.."/abc", NODE);
			receive("error", account(7), NODE);
			assert.same({}, sent());
			assert.equal(1, #watchers);
			receive("probe", USER, PROXY);
			assert.same({ ("available from %s to %s"):format(PROXY, USER) }, sent());
		end);

		it("are forgotten at all addresses when their account is deleted", function ()
			watch(account(1));
			module.hooks["user-deleted"] { username = "user", host = "some-domain.example" };
			module.hooks["user-deleted"] { username = "nobody", host = "some-domain.example" };
			assert.same({}, sent());
			assert.equal(1, #watchers);
			module:pass(WRITE_AFTER);
			assert.same({ account(1).." "..PROXY }, stored());
		end);

		it("are neither told nor forgotten by other presence", function ()
			for _, type in ipairs { false, "unavailable", "subscribed", "unsubscribed", "something" } do
				receive(type or nil, USER.."/abc", PROXY);
			end
			assert.same({}, sent());
			assert.equal(2, #watchers);
		end);
	end);

	describe("are told", function ()
		it("at once that the service is available", function ()
			start();
			watch();
			set_serving(true);
			module:pass(0);
			assert.same({ ("available from %s to %s"):format(PROXY, USER) }, sent());
			set_serving(true);
			module:pass(10 * GRACE);
			assert.same({}, sent());
		end);

		it("that it is not, after a grace", function ()
			have_watchers(1);
			set_serving(false);
			module:pass(GRACE - 1);
			set_serving(false);
			receive("probe", account(1).."/abc", PROXY);
			assert.same({ ("available from %s to %s/abc"):format(PROXY, account(1)) }, sent());
			module:pass(1);
			assert.same({ ("unavailable from %s to %s"):format(PROXY, account(1)) }, sent());
			module:pass(10 * GRACE);
			assert.same({}, sent());
		end);

		it("nothing about a gap that is shorter than the grace, however many there are", function ()
			have_watchers(1);
			for _ = 1, 3 do
				set_serving(false);
				module:pass(GRACE - 1);
				set_serving(true);
				module:pass(1);
			end
			module:pass(10 * GRACE);
			assert.same({}, sent());
		end);

		it("in slices, those who have been forgotten meanwhile nothing", function ()
			have_watchers(3 * SLICE);
			pass_grace();
			local first, is_told = sent(), {};
			assert.equal(SLICE, #first);
			for _, line in ipairs(first) do
				is_told[line:match(" to (.*)")] = true;
			end
			local forgotten;
			for number = 1, 3 * SLICE do
				if not is_told[account(number)] then
					forgotten = account(number);
					receive("error", forgotten, PROXY);
					break;
				end
			end
			module:pass(0);
			local rest = sent();
			assert.equal(2 * SLICE - 1, #rest);
			for _, line in ipairs(rest) do
				assert.is_nil(is_told[line:match(" to (.*)")]);
				assert.not_equal(forgotten, line:match(" to (.*)"));
			end
		end);

		it("no more in a slice though each watches many addresses", function ()
			have_watchers(0);
			for number = 1, 10 do
				for node = 1, 32 do
					watch(account(number), ("n%d@%s"):format(node, PROXY));
				end
			end
			pass_grace();
			local first = #sent();
			assert.is_true(first >= SLICE and first < SLICE + 32, first);
			module:pass(0);
			assert.equal(320 - first, #sent());
		end);

		it("what is the case at last, if it changes meanwhile, and nothing twice", function ()
			have_watchers(3 * SLICE);
			pass_grace();
			assert.equal(SLICE, #sent());
			set_serving(true);
			module:pass(0);
			local again = sent();
			assert.equal(SLICE, #again);
			assert.truthy(again[1]:find("^available "));
		end);

		it("even if another module's handler fails for some", function ()
			have_watchers(0);
			for number = 1, 3 do
				watch(account(number));
				watch(account(number), NODE);
			end
			function on_send()
				error("what another module's handler throws");
			end
			set_serving(false);
			assert.same({}, module:pass(GRACE));
			assert.equal(6, #sent());
			assert.equal(6, #logged "error");
			watchers:stop();
			assert.same({}, sent());
		end);

		it("once, though what is sent to one makes it subscribe to more", function ()
			have_watchers(1);
			function on_send(attr)
				if attr.type == "unavailable" and attr.from == PROXY then
					for node = 1, 31 do
						receive("subscribe", account(1), ("n%d@%s"):format(node, PROXY));
					end
				end
			end
			set_serving(false);
			module:pass(GRACE);
			local lines = sent();
			assert.equal(1 + 31 * 2, #lines);
			assert.equal(32, #watchers);
		end);
	end);

	describe("are told at the end", function ()
		it("that the service is unavailable, those who think that it is not", function ()
			have_watchers(2);
			watch(account(2), NODE);
			receive("unsubscribe", account(1), PROXY);
			sent();
			watchers:retire();
			watchers:stop();
			local lines = sent();
			table.sort(lines);
			assert.same({
				("unavailable from %s to %s"):format(NODE, account(2)), ("unavailable from %s to %s"):format(PROXY, account(2)),
			}, lines);
			watchers:stop();
			set_serving(true);
			module:pass(10 * GRACE);
			assert.same({}, sent());
		end);

		it("that it is unavailable, also whoever is just being told that it is available", function ()
			start();
			watch();
			function on_send()
				on_send = nil;
				watchers:retire();
				watchers:stop();
			end
			set_serving(true);
			module:pass(0);
			assert.same({ ("available from %s to %s"):format(PROXY, USER), ("unavailable from %s to %s"):format(PROXY, USER) }, sent());
		end);

		it("nothing more, if they know", function ()
			start();
			watch();
			watchers:stop();
			assert.same({}, sent());
		end);

		it("and whoever still subscribes is answered and stored", function ()
			have_watchers(0);
			watchers:stop();
			assert.same({ ("subscribed from %s to %s"):format(PROXY, USER), ("unavailable from %s to %s"):format(PROXY, USER) }, watch());
			assert.same({ USER.." "..PROXY }, stored());
		end);
	end);

	describe("after a restart", function ()
		it("are told that the service is available as soon as it is", function ()
			have_watchers(1);
			restart();
			serves = false;
			sent();
			module:pass(1);
			set_serving(true);
			module:pass(10 * GRACE);
			assert.same({ ("available from %s to %s"):format(PROXY, account(1)) }, sent());
		end);

		it("are told that it is not after the grace, those who have subscribed since nothing more", function ()
			have_watchers(1);
			module:pass(WRITE_AFTER);
			serves = false;
			restart(true);
			watch(account(2));
			module:pass(GRACE - 1);
			assert.same({}, sent());
			module:pass(1);
			assert.same({ ("unavailable from %s to %s"):format(PROXY, account(1)) }, sent());
			module:pass(10 * GRACE);
			assert.same({}, sent());
			set_serving(true);
			module:pass(0);
			assert.equal(2, #sent());
		end);

		it("are answered before anything is known, and then told nothing that they know", function ()
			have_watchers(1);
			module:pass(WRITE_AFTER);
			serves = false;
			restart(true);
			receive("probe", account(1), PROXY);
			assert.same({ ("unavailable from %s to %s"):format(PROXY, account(1)) }, sent());
			module:pass(10 * GRACE);
			assert.same({}, sent());
		end);

		it("are told only when all hosts are there", function ()
			have_watchers(1);
			module:pass(WRITE_AFTER);
			module.is_gone = true;
			module = fake_module.new({}, module);
			load();
			events.fire_event("changed");
			module:pass(10 * GRACE);
			assert.same({}, sent());
			watchers:start();
			module:pass(0);
			assert.equal(1, #sent());
		end);

		it("are forgotten and told so, if they are not allowed any more", function ()
			have_watchers(2);
			watch(account(1), NODE);
			function is_allowed(jid) return jid ~= account(1); end
			restart();
			sent();
			module:pass(0);
			local lines = sent();
			table.sort(lines);
			assert.same({
				("available from %s to %s"):format(PROXY, account(2)),
				("unsubscribed from %s to %s"):format(NODE, account(1)), ("unsubscribed from %s to %s"):format(PROXY, account(1)),
			}, lines);
			assert.equal(1, #watchers);
			module:pass(WRITE_AFTER);
			assert.same({ account(2).." "..PROXY }, stored());
		end);
	end);

	describe("after a reload", function ()
		it("are told nothing", function ()
			have_watchers(2);
			reload();
			module:pass(10 * GRACE);
			assert.same({}, sent());
			assert.equal(2, #watchers);
		end);

		it("are told what is left to be told, and what has changed", function ()
			have_watchers(3 * SLICE);
			set_serving(false);
			module:pass(GRACE - 1);
			reload();
			module:pass(0.5);
			assert.same({}, sent());
			reload();
			module.clock.now = module.clock.now + 0.5;
			for _, timer in ipairs(module:running_timers()) do
				if timer.delay == 0.5 then
					timer.fired = true;
					timer.callback(); -- the grace is over
				end
			end
			module:fire_slice();
			assert.equal(SLICE, #module.sent);
			reload();
			module:pass(0);
			assert.equal(3 * SLICE, #sent());
			serves = true;
			reload();
			module:pass(0);
			assert.equal(3 * SLICE, #sent());
		end);

		it("are told no more by an instance that was interrupted as it told them", function ()
			have_watchers(SLICE);
			set_serving(false);
			local reloaded = false;
			function on_send()
				if not reloaded then
					reloaded = true;
					reload();
				end
			end
			module:pass(GRACE);
			module:pass(0);
			local is_told = {};
			for _, line in ipairs(sent()) do
				assert.is_nil(is_told[line], line);
				is_told[line] = true;
			end
			for number = 1, SLICE do
				assert.is_true(is_told[("unavailable from %s to %s"):format(PROXY, account(number))]);
			end
		end);

		it("that makes one of them the target, are told, but for that one at the proxy host, whose presence it is then", function ()
			have_watchers(2);
			watch(account(1), NODE);
			target = account(1);
			reload();
			assert.equal(2, #watchers);
			set_serving(false);
			module:pass(GRACE + WRITE_AFTER);
			local lines = sent();
			table.sort(lines);
			assert.same({
				("unavailable from %s to %s"):format(NODE, account(1)), ("unavailable from %s to %s"):format(PROXY, account(2)),
			}, lines);
			assert.same({ account(1).." "..NODE, account(2).." "..PROXY }, stored());
		end);

		it("that is refused, are told that the service is unavailable", function ()
			have_watchers(1);
			module.stores[STORE].write_error = "disk full";
			watch(account(2));
			reload(true);
			assert.equal(2, #sent());
			assert.same({}, module:running_timers());
		end);

		it("are forgotten and told so, if they are not allowed any more", function ()
			have_watchers(2);
			function is_allowed(jid) return jid ~= account(1); end
			reload();
			module:pass(0);
			assert.same({ ("unsubscribed from %s to %s"):format(PROXY, account(1)) }, sent());
		end);
	end);

	-- Against a model: who watches what, and what each has been told last
	describe("in any order of events", function ()
		local ADDRESSES = { PROXY, NODE, "n@"..PROXY };
		local watched, beliefs; -- by account, by address: true; "available" or "unavailable"
		local refused; -- the account that is not allowed
		local answered; -- the account that is being answered, which may be told the same again

		local function set(map, who, address, value)
			map[who] = map[who] or {};
			map[who][address] = value;
		end

		local function get(map, who, address)
			return map[who] and map[who][address];
		end

		local function hear(attr)
			local type, who, address = attr.type or "available", attr.to, attr.from;
			if type == "available" or type == "unavailable" then
				assert(who == answered or get(beliefs, who, address) ~= type, "told twice: "..type.." to "..who);
				assert(get(watched, who, address) or who == answered, who.." is told, and does not watch");
				set(beliefs, who, address, type);
			elseif type == "unsubscribed" then
				set(watched, who, address, nil);
				set(beliefs, who, address, nil);
			end
		end

		local function present(type)
			local who, address = account(math.random(400)), random.element(ADDRESSES);
			if type == "error" then
				set(watched, who, address, nil);
				set(beliefs, who, address, nil);
			elseif type == "subscribe" and who ~= refused then
				set(watched, who, address, true);
			end
			answered = who;
			receive(type, who, address);
			answered = nil;
		end

		local steps = {
			function () present "subscribe"; end, function () present "subscribe"; end, function () present "subscribe"; end;
			function () present "subscribe"; end, function () present "unsubscribe"; end;
			function () present "probe"; end, function () present "error"; end;
			function () set_serving(not serves); end, function () set_serving(not serves); end;
			function () module:pass(0); end, function () module:pass(math.random() * 2 * GRACE); end;
			function ()
				for _, timer in ipairs(module:running_timers()) do
					if timer.delay == 0 then
						module:fire_slice();
						break;
					end
				end
			end;
			function () reload(); end;
			function ()
				refused = account(math.random(400));
				reload();
			end;
			function ()
				if math.random(20) == 1 then
					local has_crashed = math.random(2) == 1;
					if has_crashed then
						module:pass(2 * WRITE_AFTER);
					end
					restart(has_crashed);
					beliefs = {};
				end
			end;
			function ()
				local who = math.random(400);
				watched[account(who)], beliefs[account(who)] = nil, nil;
				module.hooks["user-deleted"] { username = "user-"..who, host = "some-domain.example" };
			end;
		};

		-- Nothing happens for so long that everybody has been told, and all is written.
		local function check()
			module:pass(2 * WRITE_AFTER);
			local expected = {};
			for who, addresses in pairs(watched) do
				for address in pairs(addresses) do
					table.insert(expected, who.." "..address);
					assert.equal(serves and "available" or "unavailable", get(beliefs, who, address), who.." at "..address);
				end
			end
			table.sort(expected);
			assert.equal(#expected, #watchers);
			assert.same(expected, stored());
			assert.same({}, module:running_timers());
		end

		it("know at last what is the case, are told nothing twice, and are stored", function ()
			random.restart();
			watched, beliefs, refused = {}, {}, nil;
			function is_allowed(jid) return jid ~= refused; end
			function on_send(attr)
				hear(attr);
				if math.random(10) == 1 then
					error("what another module's handler throws");
				end
			end
			start();
			for _ = 1, 600 do
				present "subscribe";
			end
			for step = 1, os.getenv("SPEC_LIGHT") and 1000 or 4000 do
				random.element(steps)();
				if step % 100 == 0 then
					check();
				end
			end
			check();
			for _, line in ipairs(logged "error") do
				assert.truthy(line:find("what another module's handler throws", 1, true), line);
			end
		end);
	end);

	describe("in storage", function ()
		local store;

		before_each(function ()
			have_watchers(0);
			store = module.stores[STORE];
		end);

		it("are written once a minute, if anything has changed, no more than what has", function ()
			watch();
			module:pass(WRITE_AFTER - 1);
			watch(USER, NODE);
			receive("subscribe", USER, NODE);
			assert.same({}, store.writes);
			module:pass(1);
			assert.same({ USER.." "..NODE, USER.." "..PROXY }, stored());
			assert.equal(1, #store.writes);
			assert.same({}, module:running_timers());
			watch(USER, "other-"..NODE);
			module:pass(WRITE_AFTER - 1);
			assert.equal(1, #store.writes);
			module:pass(1);
			assert.equal(2, #store.writes);
			receive("unsubscribe", USER, NODE);
			receive("unsubscribe", USER, "other-"..NODE);
			receive("error", USER, PROXY);
			module:pass(WRITE_AFTER);
			assert.equal(3, #store.writes);
			assert.same({}, stored());
			receive("unsubscribe", USER, PROXY);
			receive("error", account(7), PROXY);
			assert.same({}, module:running_timers());
		end);

		it("are written one shard in a slice, and what changes meanwhile a minute later", function ()
			for number = 1, 2000 do
				watch(account(number));
			end
			module:pass(WRITE_AFTER - 1);
			module.clock.now = module.clock.now + 1;
			local due = module:running_timer();
			due.fired = true;
			due.callback();
			for written = 1, 64 do
				module:fire_slice();
				assert.equal(written, #store.writes);
				watch("other-"..account(written)); -- which are written next time
			end
			module:pass(WRITE_AFTER - 1);
			assert.equal(64, #store.writes);
			module:pass(1);
			assert.is_true(#store.writes > 64);
			assert.equal(2064, #stored());
			restart(true);
			assert.equal(2064, #watchers);
		end);

		it("are spread over the shards, also if somebody chooses the accounts", function ()
			for number = 1, 6400 do
				watch(account(number));
			end
			for shard = 1, 64 do
				local count = #watchers.list:accounts(shard);
				assert.is_true(count > 40 and count < 200, count);
			end
		end);

		for how, leave in pairs {
			["a reload"] = function () reload(); end, ["unloading"] = function () watchers:retire(); end,
			["stopping"] = function () watchers:stop(); end,
		} do
			it("are written at once by "..how, function ()
				for number = 1, 10 do
					watch(account(number));
				end
				leave();
				assert.equal(10, #stored());
			end);
		end

		it("that cannot be written are told of once, tried again, and carried over by a reload", function ()
			store.write_error = "disk full";
			for number = 1, 10 do
				watch(account(number));
			end
			assert.equal(0, watchers:failing());
			module:pass(3 * WRITE_AFTER);
			assert.same({}, stored());
			assert.is_true(watchers:failing() > 0 and watchers:failing() <= 10, watchers:failing());
			assert.equal(1, #logged "error");
			assert.truthy(logged "error"[1]:find("disk full", 1, true));
			reload();
			reload();
			assert.same({}, logged "error");
			assert.is_true(watchers:failing() > 0);
			store.write_error = nil;
			module:pass(WRITE_AFTER);
			assert.equal(10, #stored());
			assert.equal(0, watchers:failing());
			assert.same({}, module:running_timers());
			store.write_error = "disk full";
			watch();
			module:pass(2 * WRITE_AFTER);
			assert.equal(1, #logged "error");
		end);

		it("are all there after a restart", function ()
			for number = 1, 200 do
				watch(account(number));
				watch(account(number), NODE);
			end
			restart();
			assert.equal(400, #watchers);
			sent();
			receive("probe", account(77), NODE);
			assert.equal(1, #sent());
			assert.same({}, logged "warn");
		end);

		-- (damage, words): damage() does something to a shard. What comes of that is told, in these words, and the others are there.
		local function is_lost(damage, words)
			for number = 1, 2000 do -- so many that there are some in each shard
				watch(account(number));
			end
			watchers:stop();
			local lost = watchers.list:accounts(7);
			assert.is_true(#lost > 0);
			damage();
			restart(true);
			assert.equal(2000 - #lost, #watchers);
			assert.equal(1, #logged "warn");
			assert.equal(1, watchers:failing());
			for _, word in ipairs { STORE, PROXY, words, "(7)", "1 of the 64" } do
				assert.truthy(logged "warn"[1]:find(word, 1, true), logged "warn"[1]);
			end
			sent();
			store.writes = {};
			for number = 1, 4000 do
				assert.equal(2, #watch(account(number)));
			end
			reload();
			module:pass(WRITE_AFTER);
			assert.is_true(#store.writes >= 63);
			for _, key in ipairs(store.writes) do
				assert.not_equal("7", key);
			end
		end

		it("are lost in a shard that cannot be read, which is left alone", function ()
			is_lost(function () store.read_errors["7"] = "disk on fire"; end, "disk on fire");
		end);

		for what, content in pairs {
			["a text"] = "text", ["a list of texts"] = { "text" }, ["something that is no list"] = { [USER] = { USER, PROXY } };
			["a list of no lists"] = { { account = USER } };
			["a list of numbers"] = { { USER, 1 } }, ["a number for an account"] = { { 1, PROXY } };
		} do
			it("are lost in a shard that is damaged: "..what, function ()
				is_lost(function () store.content["7"] = content; end, "damaged");
			end);
		end

		it("are lost in a shard whose file is empty, where storage is internal", function ()
			driver, directory = "internal", os.tmpname();
			assert(os.remove(directory));
			assert(require "lfs".mkdir(directory));
			local path = ("%s/%s.7"):format(directory, STORE);
			is_lost(function ()
				store.content["7"] = nil;
				assert(io.open(path, "w")):close();
			end, "damaged");
			os.remove(path);
			assert(require "lfs".rmdir(directory));
		end);

		it("are kept in memory alone, and served, if nothing can be read", function ()
			for shard = 1, 64 do
				store.read_errors[tostring(shard)] = "no connection";
			end
			restart(true);
			assert.equal(1, #logged "warn");
			assert.equal(2, #watch());
			reload();
			module:pass(WRITE_AFTER);
			assert.equal(1, #watchers);
			assert.same({}, store.writes);
		end);

		it("are one, if Prosody has ended as it wrote, and they are in two shards", function ()
			store.content["3"] = { { USER, PROXY } };
			store.content["9"] = { { USER, NODE, PROXY }, { account(1), PROXY } };
			restart(true);
			assert.equal(3, #watchers);
			sent();
			module:pass(WRITE_AFTER);
			assert.same({ account(1).." "..PROXY, USER.." "..NODE, USER.." "..PROXY }, stored());
			restart();
			assert.equal(3, #watchers);
		end);
	end);
end);
