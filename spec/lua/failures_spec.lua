local desk = require "spec.support.desk";

local PROXY, REQUESTER = desk.PROXY, desk.REQUESTER;
local answer_to, assert_error = desk.answer_to, desk.assert_error;

describe("requests", function ()
	local run, module, clock;

	before_each(function ()
		run = desk.new();
		module, clock = run.module, run.clock;
	end);

	describe("that are given up", function ()
		it("are answered at once, whenever they are due", function ()
			local dispatched = run:request { id = "n1", to = "node@"..PROXY.."/thing" };
			clock.now = clock.now + 1000;
			run:request { id = "n2" };
			run.failures:give_up(run.pending, "unloaded");
			local sent = module:take_sent();
			assert.equal(2, #sent);
			assert_error(sent[1], "node@"..PROXY.."/thing", REQUESTER, "n1", "wait", "service-unavailable");
			assert_error(sent[2], PROXY, REQUESTER, "n2", "wait", "service-unavailable");
			assert.equal(0, #run.pending);
			run:assert_dropped(answer_to(dispatched));
		end);

		it("may be none, or very many", function ()
			run.failures:give_up(run.pending, "unloaded");
			assert.same({}, module:take_sent());
			for n = 1, 1200 do
				run:request { id = "n"..n };
			end
			run.failures:give_up(run.pending, "unloaded");
			assert.equal(1200, #module:take_sent());
			assert.equal(0, #run.pending);
		end);
	end);
end);

describe("a failure", function ()
	local fake_module = require "spec.support.module";
	local st = require "util.stanza";
	local module, failures, counts;

	before_each(function ()
		module = fake_module.new();
		counts = {};
		local metrics = { count = function (_, outcome) counts[outcome] = (counts[outcome] or 0) + 1; end };
		failures = module:require "failures".new(metrics);
	end);

	-- (stanza, name) -> the stanzas that it is answered with
	local function refuse(stanza, name)
		local sent = {};
		failures:refuse({ send = function (answer) table.insert(sent, answer); end }, stanza, name);
		return sent;
	end

	it("is told to the sender, and counted", function ()
		local sent = refuse(desk.iq { type = "get", id = "1", from = REQUESTER, to = PROXY }, "full");
		assert.equal(1, #sent);
		assert_error(sent[1], PROXY, REQUESTER, "1", "wait", "resource-constraint");
		assert.same({ limited = 1 }, counts);
		failures:fail(REQUESTER, PROXY, "2", "backend-gone");
		assert_error(module:take_sent()[1], PROXY, REQUESTER, "2", "cancel", "service-unavailable");
		assert.same({ limited = 1, backend_gone = 1 }, counts);
	end);

	it("is told of a message, and counted where its failures are", function ()
		failures = module:require "failures".new({ count = function (_, name) counts[name] = true; end }, "messages_to_backend_");
		local sent = refuse(st.message({ type = "result", id = "1", from = REQUESTER, to = PROXY }, "Hello"), "no-rooms");
		assert_error(sent[1], PROXY, REQUESTER, "1", "cancel", "service-unavailable");
		assert.same({ messages_to_backend_refused = true }, counts);
	end);

	it("is never an answer to an answer, or to an error", function ()
		for _, stanza in ipairs {
			st.iq { type = "result", id = "1", from = REQUESTER, to = PROXY }, st.iq { type = "error", id = "1", from = REQUESTER, to = PROXY },
			st.message { type = "error", from = REQUESTER, to = PROXY },
		} do
			assert.same({}, refuse(stanza, "malformed"));
		end
	end);

	it("that is counted has an outcome that is in the list", function ()
		local is_listed = {};
		for _, outcome in ipairs(module:require "failures".OUTCOMES) do
			is_listed[outcome] = true;
		end
		for _, name in ipairs { "backend-gone", "bad-address", "bad-id", "conflict", "forbidden", "full", "lost", "malformed", "no-backend", "no-memory",
			"no-rooms", "no-such-backend", "no-such-requester", "no-such-resource", "none-ready", "requester-full", "retargeted", "timeout", "unloaded" } do
			counts = {};
			failures:fail(REQUESTER, PROXY, "1", name);
			assert.is_true(is_listed[next(counts)], name);
		end
	end);
end);
