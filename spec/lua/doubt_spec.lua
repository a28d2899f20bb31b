local fake_module = require "spec.support.module";
local new_events = require "util.events".new;

local A, B, C, D = "some-user@some-domain.example/a", "some-user@some-domain.example/b", "some-user@some-domain.example/c",
	"some-user@some-domain.example/d";
local THROWN = {};

describe("doubt", function ()
	local module, doubts;
	local all; -- backends
	local heard; -- how often the target's server was heard
	local asked; -- how often for the presence of all backends
	local raised, settled, lost; -- lists of backends, in order
	local react; -- what is done when it is told or asked, by what

	-- -> a table with a record for each of them, in the order of the list
	local function records_of_all()
		return setmetatable({}, { __pairs = function ()
			local index = 0;
			return function ()
				index = index + 1;
				return all[index], {};
			end;
		end });
	end

	local function new_doubts()
		local events = new_events();
		local function call(name, ...)
			if react[name] then
				react[name](...);
			end
		end
		doubts = module:require "doubt".new {
			server = { heard_so_far = function () return heard; end, has_been_heard_since = function (_, before) return heard ~= before; end };
			subscription = { check = function ()
				asked = asked + 1;
				call("ask");
			end };
			records = records_of_all(), events = events;
		};
		events.add_handler("doubt-raised", function (backends)
			table.insert(raised, { table.unpack(backends) });
			for _, backend in ipairs(backends) do
				assert.is_true(doubts:has(backend));
			end
			call("raised", backends);
		end);
		events.add_handler("doubt-settled", function (backends)
			table.sort(backends);
			table.insert(settled, backends);
			call("settled", backends);
		end);
		events.add_handler("backends-lost", function (backends)
			table.sort(backends);
			table.insert(lost, backends);
			for _, backend in ipairs(backends) do
				assert.is_false(doubts:has(backend));
			end
			call("lost", backends);
		end);
	end

	before_each(function ()
		module = fake_module.new();
		all, heard, asked, raised, settled, lost, react = { A, B, C, D }, 0, 0, {}, {}, {}, {};
		new_doubts();
	end);

	-- Time passes, in which something comes from the target's server if it is `true`.
	local function pass(seconds, is_heard)
		heard = heard + (is_heard and 1 or 0);
		assert.same({}, module:pass(seconds));
	end

	-- -> how often they were asked for since this was last asked
	local function take_asked()
		local count = asked;
		asked = 0;
		return count;
	end

	local function assert_nothing_left()
		assert.is_false(doubts:any());
		assert.same({}, module:running_timers());
		assert.is_nil(next(doubts.rounds));
		assert.is_nil(doubts.open);
	end

	it("is there about none at first", function ()
		assert.is_false(doubts:has(A));
		assert.same({}, doubts:save());
		assert_nothing_left();
	end);

	it("is about those that it was raised about, which is told before they are asked for, once", function ()
		function react.raised()
			assert.equal(0, asked);
		end
		doubts:raise { A, B };
		assert.same({ { A, B } }, raised);
		assert.equal(1, asked);
		assert.is_true(doubts:any());
		assert.same({ true, true, false }, { doubts:has(A), doubts:has(B), doubts:has(C) });
	end);

	it("about none is none", function ()
		doubts:raise {};
		assert.same({ {}, 0 }, { raised, asked });
		assert_nothing_left();
	end);

	it("ends after 3 seconds: whose presence has not come has gone, if something has come from their server", function ()
		all = { A, B, C };
		doubts:raise { A, B, C };
		doubts:confirm(B);
		pass(2.9, true);
		assert.same({}, lost);
		pass(0.1);
		assert.same({ { A, C } }, lost);
		assert_nothing_left();
		pass(1000, true);
		assert.equal(1, #lost);
	end);

	it("counts what comes from their server from when it was raised on", function ()
		pass(0, true);
		doubts:raise { A };
		pass(3);
		assert.same({}, lost);
		pass(5.9, true);
		assert.same({}, lost);
		pass(0.1);
		assert.same({ { A } }, lost);
	end);

	it("lasts as long as nothing comes from their server, who are asked for after 3 seconds, 6, 12, 24, and then every 30", function ()
		doubts:raise { A };
		take_asked();
		for _, pause in ipairs { 3, 6, 12, 24, 30, 30, 30 } do
			pass(pause - 0.1);
			assert.equal(0, take_asked());
			pass(0.1);
			assert.equal(1, take_asked());
		end
		assert.same({}, lost);
		pass(30, true);
		assert.same({ { A } }, lost);
		assert.equal(0, take_asked());
		assert_nothing_left();
	end);

	it("is over when the presence has come, which tells whether there was any", function ()
		doubts:raise { A, B };
		assert.is_true(doubts:confirm(A));
		assert.is_false(doubts:has(A));
		assert.is_false(doubts:confirm(A));
		assert.is_false(doubts:confirm(C));
		assert.is_true(doubts:confirm(B));
		assert.is_false(doubts:any());
	end);

	it("is over when it is forgotten, which tells whether there was any", function ()
		doubts:raise { A, B };
		assert.is_true(doubts:forget(A));
		assert.is_false(doubts:has(A));
		assert.is_false(doubts:forget(A));
		assert.is_false(doubts:forget(C));
		assert.is_true(doubts:forget(B));
		assert_nothing_left();
		pass(100, true);
		assert.same({ {}, 1 }, { lost, asked });
	end);

	it("can be raised about more while presence is awaited, which is the same doubt: all are told of together", function ()
		doubts:raise { A };
		pass(0.4);
		doubts:raise { B };
		assert.same({ { A }, { B } }, raised);
		assert.equal(2, asked);
		assert.equal(2, #module:running_timers());
		pass(2.5, true);
		assert.same({}, lost);
		pass(0.1);
		assert.same({ { A, B } }, lost);
		assert_nothing_left();
	end);

	it("is another one half a second later, with its own time", function ()
		doubts:raise { A };
		pass(0.5, true);
		doubts:raise { B };
		pass(2.5);
		assert.same({ { A } }, lost);
		assert.is_true(doubts:has(B));
		pass(0.4, true);
		assert.is_true(doubts:has(B));
		pass(0.1);
		assert.same({ { A }, { B } }, lost);
		assert_nothing_left();
	end);

	it("is another one for whom presence has come in this one, as that may have been sent before", function ()
		all = { A, B };
		doubts:raise { A };
		pass(0.1);
		doubts:confirm(B);
		pass(0.1);
		doubts:raise { B };
		pass(2.8, true);
		assert.same({ { A } }, lost);
		assert.is_true(doubts:has(B));
		pass(0.2);
		assert.same({ { A }, { B } }, lost);
		assert_nothing_left();
	end);

	it("begins anew when it is raised again, about the same", function ()
		doubts:raise { A };
		pass(2, true);
		doubts:raise { A };
		pass(2.9, true);
		assert.is_true(doubts:has(A));
		assert.same({}, lost);
		pass(0.1);
		assert.same({ { A } }, lost);
		assert_nothing_left();
	end);

	it("that begins anew is one, of which nothing is left from before", function ()
		for _ = 1, 20 do
			doubts:raise { A, B };
			pass(1, true);
		end
		assert.equal(2, #module:running_timers());
		doubts:forget(A);
		doubts:forget(B);
		assert_nothing_left();
		pass(1000, true);
		assert.same({}, lost);
		assert.equal(20, asked);
	end);

	it("does not end as long as more and more presence comes, as it does when there is little room for it", function ()
		all = {};
		for number = 1, 100 do
			all[number] = "some-user@some-domain.example/"..number;
		end
		doubts:raise(all);
		for number = 1, 50 do
			doubts:confirm(all[number]);
			pass(0.9, true);
			doubts:confirm(all[1]); -- which says nothing new
		end
		assert.same({}, lost);
		pass(0.9, true);
		assert.same({}, lost);
		pass(1.1);
		assert.equal(1, #lost);
		assert.equal(50, #lost[1]);
		assert_nothing_left();
	end);

	it("that begins anew for some ends in time for the others", function ()
		doubts:raise { A, B };
		pass(1, true);
		doubts:raise { B };
		pass(2, true);
		assert.same({ { A } }, lost);
		assert.is_true(doubts:has(B));
		pass(1, true);
		assert.same({ { A }, { B } }, lost);
		assert_nothing_left();
	end);

	describe("about one", function ()
		it("makes for doubt about all whose presence does not come in half a second, if that of some does", function ()
			doubts:raise { A };
			pass(0.3);
			doubts:confirm(B);
			pass(0.1);
			assert.same({ { A } }, raised);
			pass(0.1);
			assert.same({ { A }, { C, D } }, raised);
			assert.same({ { A } }, settled);
			assert.same({ true, false }, { doubts:is_settled(A), doubts:is_settled(C) });
			assert.equal(2, asked);
			pass(2.5, true);
			assert.same({ { A } }, lost);
			pass(0.4, true);
			assert.equal(1, #lost);
			pass(0.1);
			assert.same({ { A }, { C, D } }, lost);
			assert_nothing_left();
		end);

		it("makes for no other while there is no presence at all", function ()
			doubts:raise { A };
			pass(100);
			assert.same({ { A } }, raised);
			assert.same({}, settled);
			assert.is_false(doubts:is_settled(A));
			doubts:confirm(B); -- late
			pass(0.5);
			assert.same({ { A }, { C, D } }, raised);
			assert.same({ { A } }, settled);
		end);

		it("makes for no other when presence comes of all", function ()
			for _, backend in ipairs(all) do
				doubts:raise { A };
				for _, other in ipairs(all) do
					if other ~= backend then
						doubts:confirm(other);
					end
				end
				doubts:confirm(backend);
				pass(1);
			end
			assert.equal(#all, #raised);
			assert_nothing_left();
		end);

		it("is settled when the presence of others has come in half a second, which is told once", function ()
			all = { A, B, C };
			doubts:raise { A, C };
			doubts:confirm(B);
			pass(0.4);
			doubts:confirm(C);
			assert.same({}, settled);
			assert.is_false(doubts:is_settled(A));
			pass(0.1);
			assert.same({ { A } }, settled);
			assert.same({ true, false, false }, { doubts:is_settled(A), doubts:is_settled(B), doubts:is_settled(C) });
			pass(2.4);
			assert.equal(1, #settled);
			doubts:confirm(A);
			assert.is_false(doubts:is_settled(A));
			assert_nothing_left();
		end);

		it("is not settled as long as no presence comes, nor again when it begins anew", function ()
			all = { A, B };
			doubts:raise { A };
			pass(100);
			assert.same({}, settled);
			assert.is_false(doubts:is_settled(A));
			doubts:confirm(B);
			pass(0.5);
			assert.same({ { A } }, settled);
			doubts:raise { A };
			assert.is_false(doubts:is_settled(A));
			pass(0.6);
			assert.same({ { A } }, settled);
		end);

		it("is settled though whoever is asked for the presence of others then throws", function ()
			doubts:raise { A };
			doubts:confirm(B);
			function react.ask()
				error(THROWN);
			end
			assert.same({ THROWN }, module:pass(0.5));
			assert.same({ { A } }, settled);
			assert.is_true(doubts:has(C));
		end);

		it("makes for doubt about others, too, when it is over because its own presence has come", function ()
			doubts:raise { A };
			doubts:confirm(A);
			assert.is_false(doubts:any());
			pass(0.5);
			assert.same({ { A }, { B, C, D } }, raised);
			doubts:confirm(B);
			doubts:confirm(C);
			doubts:confirm(D);
			pass(0.5);
			assert.same({ { A }, { B, C, D }, { A } }, raised);
			assert.equal(0, #lost);
		end);

		it("makes for none about others when it has answered, as there was no reason for it", function ()
			doubts:raise { A };
			doubts:confirm(B);
			doubts:forget(A);
			pass(100);
			assert.same({ { A } }, raised);
			assert_nothing_left();
		end);

		it("makes for none about those that are already in doubt, nor about those that have gone", function ()
			doubts:raise { C };
			pass(0.6);
			doubts:raise { A };
			doubts:confirm(B);
			all = { A, B, C };
			pass(0.5);
			assert.same({ { C }, { A } }, raised);
		end);

		it("does not go round and round where the server never tells of one, which answers nevertheless", function ()
			for _ = 1, 50 do
				doubts:raise { A };
				for _ = 1, 100 do
					for _, backend in ipairs { A, B, C } do
						doubts:confirm(backend);
					end
					doubts:forget(D);
					pass(0.1);
				end
				assert.is_false(doubts:any());
			end
			assert.is_true(#raised <= 50 * 2);
			assert_nothing_left();
		end);
	end);

	it("is carried over a reload, and begins anew after it", function ()
		doubts:raise { A, B };
		pass(2.9, true);
		local saved = doubts:save();
		table.sort(saved);
		assert.same({ A, B }, saved);
		doubts:retire();
		assert.same({}, module:running_timers());
		module, asked, raised = fake_module.new({}, module), 0, {};
		new_doubts();
		doubts:raise(saved);
		assert.same({ { A, B } }, raised);
		pass(2.9, true);
		assert.same({}, lost);
		pass(0.1);
		assert.same({ { A, B } }, lost);
	end);

	it("leaves no timer when the module goes, nor is any raised after that", function ()
		doubts:raise { A };
		pass(1);
		doubts:raise { B };
		pass(1);
		doubts:raise { C };
		assert.is_true(#module:running_timers() > 3);
		doubts:retire();
		assert.same({}, module:running_timers());
		asked = 0;
		doubts:raise { D };
		assert.same({ false, 0 }, { doubts:has(D), asked });
		assert.same({}, module:running_timers());
	end);

	for _, name in ipairs { "raised", "ask" } do
		it("ends in time though whoever is "..name.." throws", function ()
			react[name] = function ()
				error(THROWN);
			end
			assert.has_error(function () doubts:raise { A }; end, THROWN);
			react[name] = nil;
			pass(3, true);
			assert.same({ { A } }, lost);
			assert_nothing_left();
		end);
	end

	it("is asked about on though another module's handler throws then", function ()
		doubts:raise { A };
		function react.ask()
			error(THROWN);
		end
		assert.same({ THROWN }, module:pass(3));
		react.ask = nil;
		assert.equal(2, take_asked());
		pass(6);
		assert.equal(1, take_asked());
		pass(12, true);
		assert.same({ { A } }, lost);
	end);

	it("is over though whoever is told of the lost throws", function ()
		doubts:raise { A, B };
		function react.lost()
			error(THROWN);
		end
		heard = 1;
		assert.same({ THROWN }, module:pass(3));
		assert_nothing_left();
	end);

	it("may be over while all are asked for, as their presence can come at once, or an error", function ()
		for _, over in ipairs { "confirm", "forget" } do
			function react.ask()
				for _, backend in ipairs(all) do
					doubts[over](doubts, backend);
				end
			end
			doubts:raise { A, C };
			assert.is_false(doubts:any());
			pass(0.5);
			assert_nothing_left();
		end
		function react.ask() doubts:forget(A); end
		doubts:raise { A };
		assert_nothing_left();
		react.ask = nil;
		doubts:raise { A };
		function react.ask() doubts:forget(A); end
		pass(100);
		assert_nothing_left();
		assert.same({}, lost);
	end);

	it("can be raised while it is told of what has gone, or asked", function ()
		function react.lost(backends)
			if backends[1] == A then
				doubts:raise { B };
			end
		end
		doubts:raise { A };
		pass(3, true);
		assert.is_true(doubts:has(B));
		function react.ask()
			react.ask = nil;
			doubts:raise { C };
		end
		pass(3);
		assert.is_true(doubts:has(C));
		pass(6, true);
		pass(30, true);
		assert.same({ { A }, { C }, { B } }, lost);
		assert_nothing_left();
	end);

	it("about a thousand is as good as about one", function ()
		all = {};
		for n = 1, 1000 do
			all[n] = ("some-user@some-domain.example/%04d"):format(n);
		end
		doubts:raise(all);
		for n = 1, 1000, 2 do
			assert.is_true(doubts:confirm(all[n]));
		end
		assert.equal(2, #module:running_timers());
		pass(3, true);
		assert.equal(500, #lost[1]);
		assert.equal(all[2], lost[1][1]);
		assert_nothing_left();
	end);

	it("about a thousand, each raised by itself in the same moment, is one", function ()
		for n = 1, 1000 do
			all[n] = "some-user@some-domain.example/"..n;
			doubts:raise { all[n] };
		end
		assert.equal(2, #module:running_timers());
		pass(3, true);
		assert.same({ 1, 1000 }, { #lost, #lost[1] });
		assert_nothing_left();
	end);
end);
