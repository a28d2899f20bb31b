local desk = require "spec.support.desk";

local PROXY, TARGET, BACKEND, OTHER_BACKEND, REQUESTER = desk.PROXY, desk.TARGET, desk.BACKEND, desk.OTHER_BACKEND, desk.REQUESTER;
local iq, answer_to, assert_error = desk.iq, desk.answer_to, desk.assert_error;

describe("requests of backends", function ()
	local run, module, clock, token;

	before_each(function ()
		run = desk.new();
		module, clock = run.module, run.clock;
		run.exchange:admit(OTHER_BACKEND);
		token = PROXY.."/"..run.jat:encode(REQUESTER);
	end);

	local function ask(attr)
		attr = attr or {};
		return run:receive(iq {
			type = attr.type or "get", id = attr.id or "1", from = attr.from or BACKEND, to = attr.to or token,
		});
	end

	it("go to the requester, and the answer back, once", function ()
		for _, type in ipairs { "result", "error" } do
			local sent = ask();
			assert.same({ type = "get", id = "1", from = PROXY.."/"..run.pool:token(BACKEND), to = REQUESTER }, sent[1].attr);
			assert.equal(1, #run.asked);
			local back = run:receive(answer_to(sent[1], { type = type }));
			assert.same({ type = type, id = "1", from = token, to = BACKEND }, back[1].attr);
			assert.equal(0, #run.asked);
			run:assert_dropped(answer_to(sent[1], { type = type }));
		end
		assert.equal(1, run.counts.backend_requests_answered);
		assert.equal(1, run.counts.backend_requests_error);
		assert.equal(0, #run.pending);
	end);

	it("are answered by whom they went to, at the address that they came from, and nobody else", function ()
		local sent = ask()[1];
		run:assert_dropped(answer_to(sent, { from = REQUESTER.."x" }));
		run:assert_dropped(answer_to(sent, { to = "node@"..sent.attr.from }));
		run:assert_dropped(answer_to(sent, { to = PROXY.."/"..run.pool:token(OTHER_BACKEND) }));
		run:assert_dropped(answer_to(sent, { id = "2" }));
		assert.equal(BACKEND, run:receive(answer_to(sent))[1].attr.to);
	end);

	it("time out, and nobody is suspected for that", function ()
		ask();
		local _, sent = run:fire();
		assert.equal(0, #sent); -- not yet
		clock.now = clock.now + desk.TIMEOUT;
		_, sent = run:fire();
		assert_error(sent[1], token, BACKEND, "1", "wait", "remote-server-timeout");
		assert.same({}, run.suspected);
		assert.equal(1, run.counts.backend_requests_timeout);
	end);

	it("are limited for each backend by itself", function ()
		for number = 1, 256 do
			assert.equal(REQUESTER, ask { id = "n"..number }[1].attr.to);
		end
		assert_error(ask { id = "m" }[1], token, BACKEND, "m", "wait", "resource-constraint");
		assert.equal(REQUESTER, ask { id = "m", from = OTHER_BACKEND }[1].attr.to);
		assert.equal(1, run.counts.backend_requests_limited);
	end);

	it("under one id to two addresses of one requester are not mixed up", function ()
		local sent = ask()[1];
		run.jat:add_key(8, ("l"):rep(32));
		local other = PROXY.."/"..run.jat:encode(REQUESTER);
		assert.not_equal(token, other);
		assert_error(ask { to = other }[1], other, BACKEND, "1", "cancel", "conflict");
		assert.equal(token, run:receive(answer_to(sent))[1].attr.from);
	end);

	it("are forgotten as their backend goes, and nobody is answered: not who comes under the same name, either", function ()
		local sent = {};
		for number = 1, 150 do
			sent[number] = ask { id = "n"..number }[1];
		end
		ask { from = OTHER_BACKEND };
		run.pool:remove(BACKEND);
		run:tell("backend-gone", BACKEND);
		assert.equal(1, #run.asked);
		assert.same({}, module:take_sent());
		assert.equal(150, run.counts.backend_requests_backend_gone);
		run.exchange:admit(BACKEND);
		run:assert_dropped(answer_to(sent[150]));
		assert.equal(1, #ask { id = "n1" });
		clock.now = clock.now + desk.TIMEOUT - 1;
		module:pass(0.5);
		assert.same({}, module:take_sent());
	end);

	it("are all answered when the module stops, and refused from then on", function ()
		ask();
		ask { from = OTHER_BACKEND };
		run.backend_requests:stop();
		local sent = module:take_sent();
		assert.equal(2, #sent);
		for _, stanza in ipairs(sent) do
			assert_error(stanza, token, stanza.attr.to, "1", "wait", "service-unavailable");
		end
		assert_error(ask()[1], token, BACKEND, "1", "wait", "service-unavailable");
		assert.equal(3, run.counts.backend_requests_unloaded);
	end);

	it("go on after a reload, with their deadlines", function ()
		local sent = ask()[1];
		ask { id = "2" };
		run.backend_requests:retire();
		run:load();
		assert.equal(BACKEND, run:receive(answer_to(sent))[1].attr.to);
		clock.now = clock.now + desk.TIMEOUT;
		for _, timer in ipairs(module:running_timers()) do
			timer.callback();
		end
		assert_error(module:take_sent()[1], token, BACKEND, "2", "wait", "remote-server-timeout");
	end);

	it("that an answer comes for before they are sent are settled", function ()
		local send = module.send;
		function module.send(self, stanza)
			module.send = send;
			send(self, stanza);
			run.requests.on_iq_first(run:event_of(answer_to(stanza)));
		end
		local sent = ask();
		assert.equal(2, #sent);
		assert.equal(BACKEND, sent[2].attr.to);
		assert.equal(0, #run.asked);
	end);

	it("are refused from resources of the target that are no backends", function ()
		for _, from in ipairs { TARGET, TARGET.."/other" } do
			assert_error(ask { from = from }[1], token, from, "1", "cancel", "service-unavailable");
		end
		assert.equal(0, #run.asked);
		assert.equal(2, run.counts.backend_requests_refused);
	end);

	it("to a backend, as a requester, are that one's to answer", function ()
		local address = PROXY.."/"..run.jat:encode(OTHER_BACKEND);
		local sent = ask { to = address }[1];
		assert.equal(OTHER_BACKEND, sent.attr.to);
		local back = run:receive(answer_to(sent))[1];
		assert.same({ address, BACKEND }, { back.attr.from, back.attr.to });
	end);
end);
