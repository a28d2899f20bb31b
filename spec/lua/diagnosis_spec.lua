local fake_module = require "spec.support.module";
local new_events = require "util.events".new;

local PROXY, TARGET = "proxy.domain.example", "some-user@some-domain.example";

describe("the diagnosis", function ()
	local module, diagnosis, state, reason, is_serving, is_ready, is_silent, is_unauthenticated, rate, pool, events, remark;

	-- (seconds): Prosody has been started so long ago; nil: it is about to
	local function load_after(seconds)
		module = fake_module.new();
		module.prosody.start_time = seconds and module.clock.now - seconds;
		events = new_events();
		diagnosis = module:require "diagnosis".new {
			target = TARGET, events = events;
			pool = setmetatable({
				serves = function () return is_serving; end, is_ready = function () return is_serving and is_ready; end;
			}, { __len = function () return #pool; end });
			formats = { remark = function () return table.unpack(remark); end };
			server = {
				is_silent = function () return is_silent; end, rate_limit = function () return rate; end;
				is_unauthenticated = function () return is_unauthenticated; end;
			};
			subscription = { state = function () return state, reason; end };
		};
	end

	before_each(function ()
		state, reason, is_serving, is_silent, is_unauthenticated, rate, pool = "granted", nil, true, false, false, nil, { "a" };
		remark, is_ready = { "info", "" }, true;
		load_after(1000);
	end);

	-- Something has changed. -> the lines that are logged when it is reported, which is so many seconds later, at once if nil
	local function change(seconds)
		events.fire_event("changed");
		module.log_lines = {};
		assert.same({}, module:pass(seconds or 0));
		return module.log_lines;
	end

	-- There is one line, in the log, as the status and to be shown, with these words
	local function assert_reported(level, ...)
		local lines = change(1);
		assert.equal(1, #lines);
		assert.equal(level, lines[1].level);
		assert.same({ level = level, text = lines[1].text }, module.status);
		local is_well = lines[1].text:find("requests are served", 1, true) ~= nil and level == "info";
		assert.same({ level, lines[1].text, is_well }, { diagnosis:current() });
		for _, words in ipairs { "some-domain.example", ... } do
			assert.truthy(lines[1].text:find(words, 1, true), lines[1].text);
		end
	end

	it("says that requests are served", function ()
		assert_reported("info", "is online");
	end);

	it("says what there is to say of addresses, while requests are served", function ()
		remark = { "warn", ", but look out" };
		assert_reported("warn", "is online, requests are served, but look out");
		assert.same({}, change());
		remark = { "info", "" };
		assert_reported("info", "is online");
		is_serving, pool, remark = false, {}, { "warn", ", but look out" };
		assert_reported("warn", "No resource");
		assert.falsy(module.status.text:find("look out", 1, true));
	end);

	it("says that those who serve are suspended, which has been warned of one by one", function ()
		is_ready = false;
		assert_reported("info", "is suspended");
		is_ready = true;
		assert_reported("info", "is online");
	end);

	it("says that nobody is online, and what to do, when no presence has come for a second", function ()
		is_serving, pool = false, {};
		assert.same({}, change(0.9));
		pool = { "a" };
		is_serving = true;
		assert_reported("info", "is online");
		is_serving, pool = false, {};
		assert_reported("warn", "No resource", "requests are refused", "log in a client");
	end);

	it("says that those who are online are not to serve", function ()
		is_serving, pool = false, { "a" };
		assert_reported("warn", "draining, hibernating or excluded");
	end);

	it("says that nothing comes from the target's server, whatever was known before", function ()
		is_silent = true;
		assert_reported("warn", "Nothing comes from the server of");
		state, is_silent = "asked", false;
		change();
		is_silent = true;
		assert_reported("warn", "Nothing comes from the server of");
	end);

	it("says that the target is on a component that is a part of this Prosody, whatever is answered there, unless it serves", function ()
		is_serving, pool = false, {};
		module.prosody.hosts["some-domain.example"] = { type = "component", modules = { muc = {} } };
		assert_reported("warn", "some-domain.example is a component, not a host with accounts", "target_address of "..PROXY);
		for _, current in ipairs { "asked", "unapproved", "refused", "unreachable", "granted" } do
			state = current;
			assert.same({}, change(1));
		end
		pool = { "a" };
		assert_reported("warn", "requests are refused");
		is_serving = true;
		assert_reported("info", "requests are served");
		is_serving, pool = false, {};
		for _, other in ipairs { { type = "local", modules = {} }, { type = "component", modules = { component = {} } } } do
			module.prosody.hosts["some-domain.example"] = other;
			change(1);
			assert.falsy(module.status.text:find("is a component", 1, true));
		end
	end);

	it("says that the stream to the target's server is not authenticated, whatever else is known, and why", function ()
		is_unauthenticated, is_silent = true, true;
		assert_reported("warn", "The stream to the server of", "is not authenticated", "a certificate for "..PROXY, "dialback");
		state, reason = "unreachable", "not-authorized";
		assert_reported("warn", "is not authenticated", "(not-authorized)");
	end);

	describe("in the first seconds of a start of Prosody", function ()
		-- (level, words): there is one line now, with these words
		local function assert_line(lines, level, words)
			assert.equal(1, #lines);
			assert.equal(level, lines[1].level);
			assert.truthy(lines[1].text:find(words, 1, true), lines[1].text);
		end

		local function begin()
			load_after(nil);
			is_serving, pool, state = false, {}, "starting";
			assert_line(change(), "info", "Prosody is starting");
			module.prosody.start_time = module.clock.now;
			state = "granted";
		end

		it("does not warn of it that nobody serves, but does after half a minute", function ()
			begin();
			assert_line(change(1), "info", "No resource of "..TARGET.." serves yet");
			pool = { "a" };
			assert.same({}, change(28.9));
			assert.is_false(select(3, diagnosis:current()));
			pool = {};
			assert_line(change(0.1), "warn", "No resource of "..TARGET.." is online, requests are refused");
		end);

		it("does so as soon as somebody has served", function ()
			begin();
			is_serving, pool = true, { "a" };
			assert_line(change(), "info", "is online");
			is_serving = false;
			assert_line(change(), "warn", "draining, hibernating or excluded, requests are refused");
			assert.same({}, change(100));
		end);

		it("does not warn of it that another server has not been reached, but does after half a minute", function ()
			for _, case in ipairs {
				{ words = "cannot be reached", set = function () state = "unreachable"; end };
				{ words = "Nothing comes from", set = function () is_silent = true; end };
				{ words = "is not authenticated", set = function () is_unauthenticated = true; end };
			} do
				is_silent, is_unauthenticated = false, false;
				begin();
				case.set();
				assert_line(change(1), "info", case.words);
				assert.same("info", module.status.level);
				module.log_lines = {};
				assert.same({}, module:pass(30));
				assert_line(module.log_lines, "warn", case.words);
			end
		end);

		it("warns at once of what does not pass by itself", function ()
			for _, problem in ipairs { "no-account", "unapproved", "refused" } do
				begin();
				state = problem;
				assert_line(change(), "warn", TARGET);
			end
		end);

		it("goes on after a reload, for what is left of it", function ()
			is_serving, pool = false, {};
			load_after(20);
			assert_line(change(1), "info", "serves yet");
			module.log_lines = {};
			assert.same({}, module:pass(8.9));
			assert.same({}, module.log_lines);
			assert.same({}, module:pass(0.1));
			assert_line(module.log_lines, "warn", "requests are refused");
			load_after(30);
			assert_line(change(1), "warn", "requests are refused");
			load_after(-1000000); -- as the clock has been set back since
			assert_line(change(1), "info", "serves yet");
			assert_line(change(30), "warn", "requests are refused");
		end);
	end);

	it("says nothing any more when the module goes, or Prosody stops", function ()
		load_after(nil);
		change();
		is_serving = false;
		events.fire_event("changed");
		diagnosis:retire();
		assert.same({}, change(100));
	end);

	for problem, words in pairs {
		["starting"] = { "info", "starting" },
		["reachable"] = { "info", "reached again" },
		["asked"] = { "info", "has been asked" },
		["unapproved"] = { "warn", PROXY, "accept the request" },
		["refused"] = { "warn", PROXY, "accept the request" },
		["no-account"] = { "warn", "no account", "prosodyctl adduser" },
		["roster-broken"] = { "error", PROXY, "roster", "storage" },
		["unreachable"] = { "warn", "cannot be reached", "server runs" },
	} do
		it("says what is wrong with the subscription, and what to do: "..problem, function ()
			state = problem;
			assert_reported(table.unpack(words));
			reason = "the reason";
			assert_reported(words[1], "(the reason)");
		end);
	end

	it("says that a limit holds the target's server, and what to write, once", function ()
		change();
		assert.is_nil(diagnosis:limit());
		rate = 30000;
		module.log_lines = {};
		events.fire_event("stream-established");
		assert.same({ { level = "info", text = diagnosis:limit() } }, module.log_lines);
		events.fire_event("stream-established");
		assert.same({}, change());
		rate = 60000;
		assert.same({ { level = "info", text = diagnosis:limit() } }, change());
		rate = 30000;
		for _, words in ipairs { "30000 bytes a second", "150 answers", "some-domain.example", [[below Component "proxy.domain.example"]],
			[[modules_enabled = { "limits" }; unlimited_jids = { "some-domain.example" }]] } do
			assert.truthy(diagnosis:limit():find(words, 1, true), diagnosis:limit());
		end
		rate = nil;
		assert.is_nil(diagnosis:limit());
	end);

	it("says nothing that it has said, and each change anew", function ()
		change();
		assert.same({}, change());
		is_serving = false;
		assert.equal(1, #change());
		assert.same({}, change());
		is_serving = true;
		assert.equal(1, #change());
	end);

	it("says only what comes of many changes at once", function ()
		change();
		is_serving = false;
		events.fire_event("changed");
		is_serving = true;
		events.fire_event("changed");
		assert.equal(1, #module:running_timers());
		assert.same({}, change());
	end);
end);
