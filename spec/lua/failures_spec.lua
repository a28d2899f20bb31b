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
