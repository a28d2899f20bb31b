local fake_module = require "spec.support.module";
local new_events = require "util.events".new;
local st = require "util.stanza";

local PROXY = "proxy.domain.example";
local BACKEND, OTHER_BACKEND = "some-user@some-domain.example/a", "some-user@some-domain.example/b";
local THROWN = {};

describe("the health of backends", function ()
	local module, health;
	local silent; -- those that have not answered, in order
	local react; -- what is done when it is told of one, or nil

	local function new_health(saved)
		local events = new_events();
		events.add_handler("backend-silent", function (backend)
			table.insert(silent, backend);
			if react then
				react(backend);
			end
		end);
		health = module:require "health".new(saved, events);
	end

	before_each(function ()
		module = fake_module.new();
		silent, react = {}, nil;
		new_health();
	end);

	-- The module is loaded anew. Between the two of them the clock stands still.
	local function reload()
		local saved = health:save();
		health:retire();
		assert.same({}, module:running_timers());
		module = fake_module.new({}, module);
		new_health(saved);
	end

	-- -> how many pings were sent in that time
	local function pass(seconds)
		assert.same({}, module:pass(seconds));
		return #module:take_sent();
	end

	-- Whether such an answer to the ping is one, but for what `attr` says
	local function is_answer(ping, attr)
		attr = attr or {};
		return health:is_answer(st.stanza("iq", {
			type = attr.type or "result", id = attr.id or ping.attr.id, from = attr.from or ping.attr.to, to = attr.to or ping.attr.from,
		}));
	end

	it("is asked for with a ping at once, once", function ()
		health:check(BACKEND);
		health:check(BACKEND);
		local sent = module:take_sent();
		assert.equal(1, #sent);
		assert.same({ type = "get", id = sent[1].attr.id, from = PROXY, to = BACKEND }, sent[1].attr);
		assert.truthy(sent[1]:get_child("ping", "urn:xmpp:ping"));
		assert.equal(1, #sent[1]);
	end);

	it("is asked for again after pauses of 1, 2, 4 seconds and so on, up to 5 minutes", function ()
		health:check(BACKEND);
		module:take_sent();
		for _, pause in ipairs { 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300 } do
			assert.equal(0, pass(pause - 0.5));
			assert.equal(1, pass(0.5));
		end
	end);

	it("is told of when the first ping is not answered, and of no other", function ()
		health:check(BACKEND);
		pass(0.9);
		assert.same({}, silent);
		pass(0.1);
		assert.same({ BACKEND }, silent);
		pass(10000);
		assert.same({ BACKEND }, silent);
	end);

	it("is each backend's own", function ()
		health:check(BACKEND);
		module:pass(0.5);
		health:check(OTHER_BACKEND);
		local one, other = module.sent[1], module.sent[2];
		assert.same({ BACKEND, OTHER_BACKEND }, { one.attr.to, other.attr.to });
		assert.is_false(is_answer(one, { from = OTHER_BACKEND }));
		assert.is_false(is_answer(other, { from = BACKEND }));
		module:pass(0.5);
		assert.same({ BACKEND }, silent);
		health:forget(BACKEND);
		module:pass(0.5);
		assert.same({ BACKEND, OTHER_BACKEND }, silent);
	end);

	it("is told by a result or an error, to any of the pings", function ()
		health:check(BACKEND);
		module:pass(100);
		local pings = module:take_sent();
		assert.is_true(#pings > 5);
		local ids = {};
		for _, ping in ipairs(pings) do
			assert.is_nil(ids[ping.attr.id]);
			ids[ping.attr.id] = true;
			assert.is_true(is_answer(ping));
			assert.is_true(is_answer(ping, { type = "error" }));
		end
	end);

	it("is told by nothing else", function ()
		health:check(BACKEND);
		local ping = module:take_sent()[1];
		assert.is_false(is_answer(ping, { type = "get" }));
		assert.is_false(is_answer(ping, { type = "set" }));
		assert.is_false(is_answer(ping, { to = PROXY.."/thing" }));
		assert.is_false(is_answer(ping, { to = "node@"..PROXY }));
		assert.is_false(is_answer(ping, { id = "x"..ping.attr.id }));
		assert.is_false(is_answer(ping, { id = "" }));
		assert.is_false(is_answer(ping, { from = BACKEND.."b" }));
		assert.is_false(health:is_answer(st.stanza("iq", { type = "result", from = BACKEND, to = PROXY })));
		health:forget(BACKEND);
		health:check(BACKEND);
		assert.is_false(is_answer(ping)); -- of another session, perhaps
	end);

	it("is asked for no more when it is forgotten", function ()
		health:check(BACKEND);
		local ping = module:take_sent()[1];
		health:forget(BACKEND);
		health:forget(BACKEND);
		assert.same({}, module:running_timers());
		assert.equal(0, pass(10000));
		assert.same({}, silent);
		assert.is_false(is_answer(ping));
	end);

	it("is asked for no more when it is forgotten while it is told of", function ()
		function react(backend)
			health:forget(backend);
		end
		health:check(BACKEND);
		module:take_sent();
		assert.equal(0, pass(10000));
		assert.same({}, module:running_timers());
	end);

	it("may be answered while the ping is sent", function ()
		function module.send(_, stanza)
			assert.is_true(is_answer(stanza));
			health:forget(stanza.attr.to);
		end
		health:check(BACKEND);
		assert.same({}, module:running_timers());
	end);

	describe("that is suspected of not being alive", function ()
		-- -> how many pings that makes for
		local function suspect(backend)
			health:suspect(backend or BACKEND);
			return #module:take_sent();
		end

		it("is asked for at once, once", function ()
			assert.equal(1, suspect());
			assert.equal(0, suspect());
			assert.is_true(health:any());
		end);

		it("is not asked for in the second after it was shown that it is, by an answer", function ()
			suspect();
			assert.is_true(health:alive(BACKEND));
			assert.is_false(health:any());
			assert.same({}, module:running_timers());
			assert.equal(0, suspect());
			assert.equal(0, pass(0.9));
			assert.equal(0, suspect());
			assert.equal(1, suspect(OTHER_BACKEND));
			health:forget(OTHER_BACKEND);
			assert.equal(1, pass(0.1));
			assert.equal(0, suspect());
		end);

		it("is not asked for when it has been shown again before it was to be asked for", function ()
			suspect();
			health:alive(BACKEND);
			suspect();
			assert.is_true(health:alive(BACKEND));
			assert.same({}, module:running_timers());
			assert.equal(0, pass(100));
		end);

		it("is asked for, when it was to be asked for later, as soon as the operator wants it", function ()
			suspect();
			health:alive(BACKEND);
			suspect();
			health:check(BACKEND);
			assert.equal(1, #module:take_sent());
			assert.equal(1, #module:running_timers());
		end);

		it("is asked for at once when the answer has come without a question", function ()
			assert.is_false(health:alive(BACKEND));
			assert.equal(1, suspect());
		end);

		it("is asked for, whatever it has shown, when that is what the operator wants", function ()
			suspect();
			health:alive(BACKEND);
			health:check(BACKEND);
			assert.equal(1, #module:take_sent());
		end);

		it("is asked for at once when it was forgotten meanwhile, as it may be another session's", function ()
			suspect();
			health:alive(BACKEND);
			health:forget(BACKEND);
			assert.equal(1, suspect());
		end);

		for was_asked_for, seconds in pairs { [true] = 10, [false] = 1 } do
			local how = was_asked_for and "was asked for" or "came by itself";
			it(("is not asked for in the %d seconds after presence that %s, when it has answered"):format(seconds, how), function ()
				suspect();
				health:answered(BACKEND);
				assert.is_true(health:present(BACKEND, was_asked_for));
				assert.is_false(health:any());
				assert.same({}, module:running_timers());
				assert.equal(0, suspect());
				assert.equal(0, pass(seconds - 0.1));
				assert.equal(1, pass(0.1));
			end);

			it("is not shown by presence that "..how..", as long as there is no answer", function ()
				assert.is_false(health:present(BACKEND, was_asked_for));
				assert.equal(1, suspect());
				assert.is_false(health:present(BACKEND, was_asked_for));
				pass(1);
				assert.same({ BACKEND }, silent);
				assert.is_false(health:present(BACKEND, was_asked_for));
				assert.is_true(health:any());
				health:answered(BACKEND);
				assert.is_true(health:present(BACKEND, was_asked_for));
				assert.is_false(health:present(BACKEND, was_asked_for));
			end);
		end

		it("is not told of when there was an answer, though that does not decide, and is asked for on", function ()
			suspect();
			pass(0.5);
			health:answered(BACKEND);
			assert.equal(3, pass(7));
			assert.same({}, silent);
		end);

		it("keeps its calm over a reload, and what was answered", function ()
			suspect();
			health:alive(BACKEND);
			suspect(OTHER_BACKEND);
			health:answered(OTHER_BACKEND);
			reload();
			pass(0.9);
			assert.equal(0, suspect());
			assert.is_true(health:present(OTHER_BACKEND, false));
			assert.equal(1, pass(0.1));
		end);

		it("is nobody else's when it is shown", function ()
			suspect();
			assert.is_false(health:alive(OTHER_BACKEND));
			assert.is_false(health:present(OTHER_BACKEND, true));
			pass(1);
			assert.same({ BACKEND }, silent);
		end);
	end);

	it("is asked for at once after a reload, and then as it would have been", function ()
		health:check(BACKEND);
		pass(3.5);
		local ids = health:save().checks[BACKEND].id;
		reload();
		assert.equal(0, pass(0));
		health:start();
		local ping = module.sent[1];
		assert.equal(ids, ping.attr.id:sub(1, #ids));
		assert.equal(1, pass(0));
		assert.equal(0, pass(3.5));
		assert.equal(1, pass(0.5));
		assert.same({ BACKEND }, silent);
		health:start();
		assert.equal(0, pass(0));
		assert.equal(1, #module:running_timers());
	end);

	it("is told of after a reload that comes before the first ping has been waited for", function ()
		health:check(BACKEND);
		pass(0.5);
		reload();
		health:start();
		pass(1);
		assert.same({ BACKEND }, silent);
	end);

	it("may be forgotten between a reload and the start", function ()
		health:check(BACKEND);
		reload();
		health:forget(BACKEND);
		health:start();
		assert.equal(0, pass(10000));
	end);

	it("is asked for on though another module's handler throws", function ()
		for nth = 1, 6 do
			local count = 0;
			function module:send(stanza)
				count = count + 1;
				getmetatable(self).__index.send(self, stanza);
				if count == nth then
					error(THROWN);
				end
			end
			local ok, thrown = pcall(health.check, health, BACKEND);
			assert.is_true(ok or thrown == THROWN);
			assert.same(nth > 1 and nth < 4 and { THROWN } or {}, module:pass(4));
			assert.equal(3, #module:take_sent());
			assert.equal(1, #module:running_timers());
			health:forget(BACKEND);
		end
	end);

	it("is asked for on though whoever is told of it throws", function ()
		function react()
			error(THROWN);
		end
		health:check(BACKEND);
		module:take_sent();
		assert.same({ THROWN }, module:pass(1));
		assert.equal(2, pass(2 + 4));
	end);

	it("is asked for by the new instance, though the old one was to ask once more after it had gone", function ()
		local old_module, old = module, health;
		reload();
		health:start();
		old:check(BACKEND);
		old:suspect(BACKEND);
		old:start();
		assert.same({ {}, {} }, { old_module:running_timers(), old_module:take_sent() });
		health:suspect(BACKEND);
		assert.equal(1, #module:take_sent());
		assert.equal(1, pass(1));
	end);

	it("is asked for by the new instance alone when it is reloaded while it is told of", function ()
		local old = module;
		function react()
			reload();
			health:start();
		end
		health:check(BACKEND);
		assert.same({}, old:pass(1));
		assert.same({}, old:running_timers());
		assert.equal(1, #module:running_timers());
	end);
end);
