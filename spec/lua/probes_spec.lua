local fake_module = require "spec.support.module";

local PROXY = "proxy.domain.example";
local TARGET = "some-user@some-domain.example";

describe("probes", function ()
	local module, probes;

	before_each(function ()
		module = fake_module.new();
		probes = module:require "probes".new(TARGET);
		probes.is_allowed = true;
	end);

	-- -> how many were sent in that time
	local function pass(seconds)
		assert.same({}, module:pass(seconds));
		local sent = module:take_sent();
		for _, stanza in ipairs(sent) do
			assert.equal("presence", stanza.name);
			assert.same({ type = "probe", from = PROXY, to = TARGET }, stanza.attr);
		end
		return #sent;
	end

	it("are sent at once, and no more than one each second", function ()
		probes:ask();
		assert.equal(1, pass(0));
		probes:ask();
		probes:ask();
		assert.equal(0, pass(0.9));
		assert.equal(1, pass(0.1));
		assert.equal(0, pass(100));
	end);

	it("are sent some time later when that is wanted, unless there is one at once before", function ()
		probes:ask(1);
		assert.equal(0, pass(0.9));
		probes:ask();
		assert.equal(1, pass(0));
		assert.equal(0, pass(100));
	end);

	it("are sent again and again, with growing pauses, of which the first can begin anew", function ()
		probes:ask_again_and_again();
		assert.equal(0, pass(1.9));
		probes:ask_again_and_again();
		assert.equal(0, pass(1.9));
		for _, pause in ipairs { 0.1, 8, 32, 128, 300 } do
			assert.equal(0, pass(pause - 0.05));
			assert.equal(1, pass(0.05));
		end
		assert.equal(0, pass(10000));
	end);

	it("are not sent when the target does not let the proxy see its presence", function ()
		probes.is_allowed = false;
		probes:ask();
		probes:ask_again_and_again();
		assert.equal(0, pass(1000));
		probes.is_allowed = true;
		probes:ask(1);
		probes.is_allowed = false;
		assert.equal(0, pass(1000));
	end);

	it("leave no timer when the module goes", function ()
		probes:ask(1);
		probes:ask_again_and_again();
		probes:retire();
		probes:ask(1);
		probes:ask_again_and_again();
		assert.same({}, module:running_timers());
	end);
end);
