local desk = require "spec.support.desk";

local PROXY, BACKEND, REQUESTER, TIMEOUT = desk.PROXY, desk.BACKEND, desk.REQUESTER, desk.TIMEOUT;
local iq, answer_to, assert_error = desk.iq, desk.answer_to, desk.assert_error;

describe("requests", function ()
	local run, module, clock;

	before_each(function ()
		run = desk.new();
		module, clock = run.module, run.clock;
	end);

	describe("that no backend answers in time", function ()
		it("are answered with an error from the service address", function ()
			for _, type in ipairs { "get", "set" } do
				run:request { to = "node@"..PROXY.."/thing", type = type };
				clock.now = clock.now + TIMEOUT;
				local delay, sent = run:fire();
				assert.is_nil(delay);
				assert.equal(1, #sent);
				assert_error(sent[1], "node@"..PROXY.."/thing", REQUESTER, "1234", "wait", "remote-server-timeout");
				assert.equal(0, #run.pending);
			end
		end);

		it("are not answered before", function ()
			run:request();
			assert.equal(TIMEOUT, module.timers[1].delay);
			clock.now = clock.now + TIMEOUT - 0.5;
			local delay, sent = run:fire();
			assert.equal(0.5, delay);
			assert.same({}, sent);
			assert.equal(1, #run.pending);
		end);

		it("expire when it is their turn, the oldest first", function ()
			for n = 1, 4 do
				run:request { id = "n"..n, from = REQUESTER..n };
				clock.now = clock.now + 10;
			end
			clock.now = 5000 + TIMEOUT + 10;
			local delay, sent = run:fire();
			assert.equal(10, delay);
			assert.same({ "n1", "n2" }, { sent[1].attr.id, sent[2].attr.id });
			assert.same({ REQUESTER.."1", REQUESTER.."2" }, { sent[1].attr.to, sent[2].attr.to });
			assert.equal(2, #sent);
			clock.now = clock.now + 30;
			delay, sent = run:fire();
			assert.is_nil(delay);
			assert.same({ "n3", "n4" }, { sent[1].attr.id, sent[2].attr.id });
			assert.equal(2, #sent);
		end);

		it("are waited for with one timer, which ends with the last of them", function ()
			run:request { id = "n1" };
			clock.now = clock.now + 1;
			local dispatched = run:request { id = "n2" };
			clock.now = clock.now + TIMEOUT - 1;
			assert.equal(1, (run:fire()));
			run:request { id = "n3" };
			run:receive(answer_to(dispatched));
			clock.now = clock.now + 1;
			assert.equal(TIMEOUT - 1, (run:fire()));
			clock.now = clock.now + TIMEOUT - 1;
			local delay, sent = run:fire();
			assert.is_nil(delay);
			assert.equal("n3", sent[1].attr.id);

			clock.now = clock.now + 100;
			run:request { id = "n4" };
			assert.equal(TIMEOUT, module:running_timer().delay);
		end);

		it("are all answered though another module's handler throws on one of the answers", function ()
			for n = 1, 3 do
				run:request { id = "n"..n };
			end
			clock.now = clock.now + TIMEOUT;
			local send = module.send;
			function module.send()
				module.send = send;
				error("thrown");
			end
			assert.error(function () run:fire(); end, "thrown");
			local delay, sent = run:fire();
			assert.is_nil(delay);
			assert.equal(2, #sent);
		end);

		it("are not answered again when they were in time", function ()
			run:receive(answer_to(run:request()));
			clock.now = clock.now + TIMEOUT;
			local delay, sent = run:fire();
			assert.is_nil(delay);
			assert.same({}, sent);
		end);

		it("get no second answer from a backend that is late", function ()
			local dispatched = run:request();
			clock.now = clock.now + TIMEOUT;
			run:fire();
			run:assert_dropped(answer_to(dispatched));
		end);

		it("expire one by one where they are equal", function ()
			local dispatched = run:request();
			clock.now = clock.now + 10;
			run:request();
			clock.now = clock.now + TIMEOUT - 10;
			local delay, sent = run:fire();
			assert.equal(10, delay);
			assert.equal(1, #sent);
			assert.equal("remote-server-timeout", select(2, sent[1]:get_error()));
			assert.equal(1, #run:receive(answer_to(dispatched)));
			run:assert_dropped(answer_to(dispatched));
		end);

		it("leave room for others when they are many: no more than 100 at a time", function ()
			for n = 1, 240 do
				run:request { id = "n"..n };
			end
			clock.now = clock.now + TIMEOUT;
			local seen, slices = {}, {};
			local delay, sent;
			repeat
				delay, sent = run:fire();
				table.insert(slices, #sent);
				for _, stanza in ipairs(sent) do
					assert.is_nil(seen[stanza.attr.id]);
					seen[stanza.attr.id] = true;
				end
				assert.truthy(delay == nil or delay <= 0);
			until not delay;
			assert.same({ 100, 100, 40 }, slices);
			assert.equal(0, #run.pending);
		end);
	end);

	describe("that a reload carries over", function ()
		before_each(function ()
			run:request { id = "n1" };
			clock.now = clock.now + 10;
			run:request { id = "n2" };
			clock.now = clock.now + 5;
			module.timers = {};
		end);

		it("time out when they would have", function ()
			run:load();
			assert.equal(TIMEOUT - 15, module:running_timer().delay);
			clock.now = clock.now + TIMEOUT - 15;
			local delay, sent = run:fire();
			assert.equal(10, delay);
			assert.equal(1, #sent);
			assert_error(sent[1], PROXY, REQUESTER, "n1", "wait", "remote-server-timeout");
		end);

		it("time out at once when they are overdue", function ()
			clock.now = clock.now + 2 * TIMEOUT;
			run:load();
			assert.equal(0, module.timers[1].delay);
			local delay, sent = run:fire();
			assert.is_nil(delay);
			assert.equal(2, #sent);
		end);

		it("share their timer with new ones", function ()
			run:load();
			run:request { id = "n3" };
			assert.equal(TIMEOUT - 15, module:running_timer().delay);
		end);

		it("do not let new ones with a shorter timeout wait for their own deadline", function ()
			run:load { timeout = 5 };
			run:request { id = "n3" };
			assert.equal(5, module:running_timer().delay);
			clock.now = clock.now + 5;
			local delay, sent = run:fire();
			assert.equal(TIMEOUT - 20, delay);
			assert.equal(1, #sent);
			assert_error(sent[1], PROXY, REQUESTER, "n3", "wait", "remote-server-timeout");
		end);

		it("are settled", function ()
			run:load();
			local sent = run:receive(iq({ type = "result", id = "n1", from = BACKEND, to = PROXY.."/"..run.jat:encode(REQUESTER) }, false));
			assert.equal(1, #sent);
			assert.same({ type = "result", id = "n1", from = PROXY, to = REQUESTER }, sent[1].attr);
		end);
	end);

	it("that time out make their backend suspected, others do not", function ()
		local dispatched = run:request { id = "n1" };
		run:request { id = "n2" };
		run:receive(answer_to(dispatched));
		clock.now = clock.now + TIMEOUT;
		run:fire();
		assert.same({ BACKEND }, run.suspected);
	end);

	it("set no timer while none is pending", function ()
		assert.same({}, module.timers);
	end);
end);
