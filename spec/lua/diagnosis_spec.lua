local fake_module = require "spec.support.module";
local new_events = require "util.events".new;

local PROXY, TARGET = "proxy.domain.example", "some-user@some-domain.example";

describe("the diagnosis", function ()
	local module, diagnosis, state, reason, is_serving, is_silent, rate, pool, events, remark;

	before_each(function ()
		module = fake_module.new();
		state, reason, is_serving, is_silent, rate, pool = "granted", nil, true, false, nil, { "a" };
		events, remark = new_events(), { "info", "" };
		diagnosis = module:require "diagnosis".new {
			target = TARGET, events = events;
			pool = setmetatable({ serves = function () return is_serving; end }, { __len = function () return #pool; end });
			formats = { remark = function () return table.unpack(remark); end };
			server = { is_silent = function () return is_silent; end, rate_limit = function () return rate; end };
			subscription = { state = function () return state, reason; end };
		};
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
		assert.same({ level, lines[1].text }, { diagnosis:current() });
		for _, words in ipairs { TARGET, ... } do
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
		assert.equal(1, #module.timers);
		assert.same({}, change());
	end);
end);
