-- What is pending, and who gets which answer, whatever the order of events. The ledger that sees to it
-- that nothing is lost, doubled or mixed up is spec/support/exchange.lua.

local core = require "mod_client_proxy.core";
local exchange = require "spec.support.exchange";
local random = require "spec.support.random";
local st = require "util.stanza";

local PROXY, THROWN = exchange.PROXY, exchange.THROWN;
local A, B, C = exchange.backend "a", exchange.backend "b", exchange.backend "c";
local MANY = 240; -- more than two slices

-- How many events there are in all, of which SPEC_EVENTS is another number
local EVENTS = tonumber(os.getenv("SPEC_EVENTS")) or 100000;
local EVENTS_EACH = 400; -- before everything has to come to its end

random.announce("exchanges_spec");

describe("exchanges", function ()
	local run;

	before_each(function ()
		run = exchange.new();
		run:come(A);
	end);

	-- `during` once, for the nth stanza from now on that goes to a backend (which: "get" or "set") or a requester ("result" or "error")
	local function at_nth(nth, during)
		local count = 0;
		function run.during(stanza)
			count = count + 1;
			if count == nth then
				during(stanza);
			end
		end
	end

	local function ask(count, attr)
		local numbers = {};
		for n = 1, count do
			numbers[n] = run:request(attr or {});
		end
		return numbers;
	end

	-- How often each kind of answer was given to these
	local function tally(numbers)
		local counts = {};
		for _, number in ipairs(numbers) do
			local answer = run:answer_of(number) or "none";
			counts[answer] = (counts[answer] or 0) + 1;
		end
		return counts;
	end

	describe("with an answer that comes while the request is sent", function ()
		it("end with it", function ()
			at_nth(1, function (stanza) run:answer(stanza); end);
			local number = run:request {};
			assert.equal("result", run:answer_of(number));
			run:finish();
			assert.same({ answered = 1 }, run:all_counts());
		end);

		it("end with it when it is the second backend's, and the first one's bounce came so, too", function ()
			run:come(B);
			local first;
			function run.during(stanza)
				if not first then
					first = stanza.attr.to;
					run:bounce(stanza);
				elseif stanza.attr.type == "get" then
					assert.not_equal(first, stanza.attr.to);
					run:answer(stanza);
				end
			end
			local number = run:request {};
			assert.equal("result", run:answer_of(number));
			assert.same({ retries = 1, answered = 1 }, run:all_counts());
			run:finish();
		end);

		for retries = 0, 3 do
			it(("end once when all backends bounce so, and it may be sent again %d times"):format(retries), function ()
				run = exchange.new { retries = retries };
				local count = 0;
				for n = 1, 6 do
					run:come(exchange.backend("r"..n));
				end
				function run.during(stanza)
					if stanza.attr.type == "get" then
						count = count + 1;
						run:bounce(stanza);
					end
				end
				local number = run:request {};
				assert.equal("service-unavailable", run:answer_of(number));
				assert.equal(retries + 1, count);
				run:finish();
				assert.equal(1, run:all_counts().backend_gone);
			end);
		end

		it("never go to the same backend again after its bounce", function ()
			run = exchange.new { retries = 10 };
			for n = 1, 20 do
				run:come(A);
				run:come(B);
				local first;
				function run.during(stanza)
					first = first or stanza.attr.to;
					if stanza.attr.to == first then
						run:bounce(stanza);
					end
				end
				run:request { id = "i"..n };
				assert.equal(n, run:all_counts().retries);
			end
			run:finish();
		end);

		it("end with it when it is a refusal, and the backend stays", function ()
			at_nth(1, function (stanza) run:refuse(stanza); end);
			run:come(B);
			local number = run:request {};
			assert.equal("forbidden", run:answer_of(number));
			assert.equal(2, #run.pool);
			run:finish();
		end);
	end);

	-- While the bounce of one request is settled, all others of that backend are handed on, and new ones come
	-- in whose texts are as long: what is freed is used again at once.
	it("are not mixed up when requests come and go while a bounce is settled", function ()
		run = exchange.new { retries = 2 };
		run:come(A);
		local function requests(letter)
			for n = 10, 59 do
				run:request { from = ("user%s@some-domain.example/%d"):format(letter, n), id = letter..n };
			end
		end
		requests "x";
		run:come(B);
		local is_busy = false;
		function run.during(stanza)
			if not is_busy and stanza.attr.type == "get" then
				is_busy = true;
				run:go(A);
				run:pass(0);
				requests "y";
				run:come(A);
				for _, got in ipairs { table.unpack(run.at[B] or {}, 1, 20) } do
					run:answer(got);
				end
				requests "z";
			end
		end
		run:bounce(run.at[A][1]);
		run.during = nil;
		run:pass(0);
		for _, backend in ipairs { A, B } do
			for _, stanza in ipairs(run.at[backend] or {}) do
				run:answer(stanza);
			end
		end
		run:finish();
		assert.is_nil(run:all_counts().timeout);
	end);

	describe("when another module's handler throws while the nth stanza is sent", function ()
		-- What happens, and what is thrown in
		local events = {
			["as requests are dispatched"] = function () ask(5); end,
			["as answers are delivered"] = function ()
				ask(5);
				for _, stanza in ipairs(run.at[A] or {}) do
					run:answer(stanza);
				end
			end,
			["as a backend's requests go to another"] = function ()
				ask(MANY);
				run:come(B);
				run:go(A);
				run:pass(0);
				assert.is_false(run.pending:has_abandoned());
			end,
			["as a backend's requests are given up"] = function ()
				ask(MANY // 2);
				ask(MANY // 2, { type = "set" });
				run:go(A);
				run:pass(0);
				assert.is_false(run.pending:has_abandoned());
			end,
			["as the gets of one that hibernates go to another"] = function ()
				ask(MANY);
				run:come(B);
				run:hibernate(A);
				run:pass(0);
				assert.equal(0, run.pending:count(A));
			end,
			["as requests time out"] = function ()
				ask(MANY);
				run:pass(run.timeout);
			end,
			["as the gets of one that is in doubt go to another"] = function ()
				ask(MANY);
				run:come(B);
				run:doubt(A);
				run:pass(0);
				assert.equal(0, run.pending:count(A));
			end,
			["as what a broken stream has lost is sent again, or given up"] = function ()
				ask(MANY // 2);
				ask(MANY // 2, { type = "set" });
				run:pass(1);
				run:break_stream { A };
				run:back(A);
				run:pass(0);
				assert.equal(MANY, #run.pending);
				run:pass(4);
				assert.equal(MANY // 2, #run.pending);
			end,
			["as the module is unloaded"] = function ()
				ask(MANY);
				run:unload();
				assert.equal(0, run.open_count);
			end,
			["as bounces are settled"] = function ()
				ask(5);
				run:come(B);
				for _, stanza in ipairs(run.at[A] or {}) do
					run:bounce(stanza);
				end
			end,
		};
		for name, event in pairs(events) do
			it("each of the others ends once, "..name, function ()
				for nth = 1, 2 * MANY + 1 do
					if nth < 12 or nth % 50 < 2 then -- the borders of slices, and a few between them
						run = exchange.new();
						run:come(A);
						at_nth(nth, function () error(THROWN, 0); end);
						event();
						run:finish();
					end
				end
			end);

			it("each of the others ends once, though every third one throws, "..name, function ()
				local count = 0;
				function run.during()
					count = count + 1;
					if count % 3 == 0 then
						error(THROWN, 0);
					end
				end
				event();
				run:finish();
			end);
		end
	end);

	it("end once each though whoever is told of their backend throws", function ()
		function run.on_told()
			error(THROWN, 0);
		end
		local first = run:request {};
		ask(5);
		run:come(B);
		run:bounce(run.at[A][1]);
		assert.equal(1, #run.at[B]);
		run:answer(run.at[B][1]);
		assert.equal("result", run:answer_of(first));
		run:finish();
		assert.same({ retries = 1, answered = 1, timeout = 5 }, run:all_counts());
	end);

	describe("when the module is reloaded while a stanza is sent", function ()
		-- What is under way then, once there are requests at A, and B is there
		local events = {
			["a slice of what goes to another"] = function () run:go(A); run:pass(0); end,
			["a slice of what one that hibernates hands on"] = function () run:hibernate(A); run:pass(0); end,
			["a slice of what one that is in doubt hands on"] = function () run:doubt(A); run:pass(0); end,
			["a slice of what is sent again after a stream broke"] = function ()
				run:pass(1);
				run:break_stream { A, B };
				run:back(A);
				run:pass(0);
			end,
			["a slice of what times out"] = function () run:pass(run.timeout); end,
			["a bounce"] = function () run:bounce(run.at[A][1]); run:pass(0); end,
		};
		for name, event in pairs(events) do
			for _, nth in ipairs { 1, 2, 50, 99, 100, 101, 239 } do
				it(("each ends once, and the old instance leaves no timer: stanza %d of %s"):format(nth, name), function ()
					ask(MANY);
					run:come(B);
					at_nth(nth, function () run:reload(); end);
					event();
					run:finish();
				end);
			end
		end

		it("what the backend had goes to another all the same", function ()
			local numbers = ask(MANY);
			run:come(B);
			at_nth(150, function () run:reload(); end);
			run:go(A);
			run:pass(0);
			run:pass(0);
			assert.equal(MANY, #run.at[B]);
			for _, stanza in ipairs(run.at[B]) do
				run:answer(stanza);
			end
			assert.same({ result = MANY }, tally(numbers));
		end);

		it("what a bounce abandons goes to another all the same", function ()
			local numbers = ask(MANY);
			run:come(B);
			at_nth(1, function () run:reload(); end);
			run:bounce(run.at[A][1]);
			run:pass(0);
			assert.equal(MANY, #run.at[B]);
			assert.same({ none = MANY }, tally(numbers));
		end);

		it("nobody is suspected by the old instance after that", function ()
			ask(MANY);
			local suspected;
			at_nth(50, function ()
				run:reload();
				suspected = #run.suspected;
			end);
			run:pass(run.timeout);
			assert.equal(49, suspected);
			assert.equal(49, #run.suspected); -- the new one has yet to take its turn
			run:pass(0);
			assert.equal(MANY - 1, #run.suspected);
		end);
	end);

	describe("with ids that are equal", function ()
		local X, Y = PROXY.."/x", PROXY.."/y";

		it("go to different backends when the service addresses differ in the resource alone", function ()
			run:come(B);
			for n = 1, 20 do -- whatever is picked first
				run:request { id = "i"..n, to = X };
				run:request { id = "i"..n, to = Y };
				assert.same({ n, n }, { #run.at[A], #run.at[B] });
				run:answer(run.at[B][n]);
				run:answer(run.at[A][n]);
			end
			run:finish();
			assert.same({ answered = 40 }, run:all_counts());
		end);

		it("are a conflict when there is no other backend, and the first is answered", function ()
			local first, second = run:request { id = "i", to = X }, run:request { id = "i", to = Y };
			assert.equal("conflict", run:answer_of(second));
			assert.is_nil(run:answer_of(first));
			run:answer(run.at[A][1]);
			assert.equal("result", run:answer_of(first));
			local third = run:request { id = "i", to = Y };
			run:answer(run.at[A][2]);
			assert.equal("result", run:answer_of(third));
			run:finish();
			assert.same({ answered = 2, refused = 1 }, run:all_counts());
		end);

		it("are a conflict when the other backend is the requester", function ()
			run:come(B);
			run:request { id = "i", to = X, from = B };
			assert.equal("conflict", run:answer_of(run:request { id = "i", to = Y, from = B }));
			run:finish();
		end);

		it("are no conflict when they are different requesters', or to different nodes", function ()
			local number = 0;
			for _, from in ipairs { "user@some-domain.example/abc", "user@some-domain.example/abd", "user2@some-domain.example/abc" } do
				for _, node in ipairs { "", "node@", "node2@" } do
					number = run:request { id = "i", from = from, to = node..PROXY.."/"..from };
				end
			end
			assert.equal(9, number);
			assert.equal(9, #run.at[A]);
			run:finish();
		end);

		it("are answered in their order when the service address is the same", function ()
			local count = 3;
			ask(count, { id = "i", to = X });
			for n = 1, count do
				run:answer(run.at[A][1]);
				assert.equal(count - n, run.open_count);
			end
			run:answer(run.at[A][1]);
			assert.equal(1, run:all_counts().unmatched_answers);
			run:finish();
		end);

		it("end once each when one is to be sent again to where the other is", function ()
			run:come(B);
			local x, y = run:request { id = "i", to = X }, run:request { id = "i", to = Y };
			run:go(A);
			run:pass(0);
			local gone, there = x, y;
			if run.asked[x].key:find(PROXY.."/x", 1, true) and not run:answer_of(x) then
				gone, there = y, x;
			end
			assert.equal("service-unavailable", run:answer_of(gone));
			assert.is_nil(run:answer_of(there));
			run:answer(run.at[B][1]);
			assert.equal("result", run:answer_of(there));
			run:finish();
		end);
	end);

	-- All that XML has of them; an attribute can hold them as character references (XML 1.0 sections 2.2 and 3.3.3).
	it("with control characters in the id are refused", function ()
		for _, character in ipairs { "\t", "\n", "\r" } do
			for _, id in ipairs { "%s", "a%s", "%sb", "a%sb" } do
				assert.equal("bad-request", run:answer_of(run:request { id = id:format(character) }));
			end
		end
		assert.equal(0, #run.pending);
		assert.same({}, run.instance.module.timers);
		assert.is_nil(run.at[A]);
		assert.same({ refused = 3 * 4 }, run:all_counts());
		assert.is_nil(run:answer_of(run:request { id = " \127é" }));
		run:finish();
	end);

	describe("of one that hibernates", function ()
		it("move if they are a get, and stay if they are a set", function ()
			local gets, sets = ask(5), ask(5, { type = "set" });
			run:come(B);
			run:hibernate(A);
			run:pass(0);
			assert.same({ 5, 5 }, { #run.at[B], run.pending:count(A) });
			local resumed = run.at[A];
			run:resume(A);
			for _, stanza in ipairs(resumed) do
				run:answer(stanza);
			end
			assert.same({ none = 5 }, tally(gets));
			assert.same({ result = 5 }, tally(sets));
			assert.same({ retries = 5, answered = 5, unmatched_answers = 5 }, run:all_counts());
			for _, stanza in ipairs(run.at[B]) do
				run:answer(stanza);
			end
			assert.same({ result = 5 }, tally(gets));
			run:finish();
		end);

		it("move once, as a retry", function ()
			ask(1);
			run:come(B);
			run:hibernate(A);
			run:pass(0);
			run:come(C);
			run:hibernate(B);
			run:pass(0);
			assert.is_nil(run.at[C]);
			run:go(B);
			run:pass(0);
			assert.same({ retries = 1, backend_gone = 1 }, run:all_counts());
			run:finish();
		end);

		it("move a hundred at a time", function ()
			ask(MANY);
			run:come(B);
			run:hibernate(A);
			local module = run.instance.module;
			for _, count in ipairs { 100, 200, 240 } do
				local timer = module.timers[#module.timers];
				assert.equal(0, timer.delay);
				timer.fired = true;
				timer.callback();
				assert.equal(count, #run.at[B]);
			end
			run:pass(0);
			assert.equal(MANY, #run.at[B]);
			run:finish();
		end);

		it("move in the order in which they came", function ()
			local numbers = ask(20);
			run:come(B);
			run:hibernate(A);
			run:pass(0);
			for n, stanza in ipairs(run.at[B]) do
				assert.equal(tostring(numbers[n]), stanza.tags[1].attr.number);
			end
		end);

		it("wait where there is no other, and move when it is told of again", function ()
			ask(3);
			run:hibernate(A);
			run:pass(1);
			assert.equal(3, run.pending:count(A));
			run:come(B);
			run.instance.events.fire_event("backend-away", A);
			run:pass(0);
			assert.equal(3, #run.at[B]);
			run:finish();
		end);

		it("wait when the only other is their requester, and are answered when it resumes; others move", function ()
			run:request { from = B };
			run:request { from = B };
			run:request {};
			local at = run.at[A];
			run:come(B);
			run:hibernate(A);
			run:pass(0);
			assert.same({ 2, 1 }, { run.pending:count(A), run.pending:count(B) });
			run:resume(A);
			for _, stanza in ipairs(at) do
				run:answer(stanza);
			end
			assert.same({ answered = 2, retries = 1, unmatched_answers = 1 }, run:all_counts());
			run:finish();
		end);

		it("end once when it goes while they are moved", function ()
			ask(MANY);
			run:come(B);
			at_nth(50, function () run:go(A); end);
			run:hibernate(A);
			run:pass(0);
			assert.equal(MANY, #run.at[B]);
			run:finish();
		end);

		it("end once when the other one hibernates while they are moved to it", function ()
			ask(MANY);
			run:come(B);
			at_nth(50, function ()
				run:hibernate(B);
				run:come(C);
			end);
			run:hibernate(A);
			run:pass(0);
			assert.same({ 0, 50, 190 }, { run.pending:count(A), run.pending:count(B), run.pending:count(C) });
			run:finish();
		end);
	end);

	describe("of one that is in doubt", function ()
		it("are sent again once, though it and another one are back at once after a stream broke, and each is answered", function ()
			run = exchange.new { retries = 3 };
			run:come(A);
			local gets, sets = ask(MANY), ask(5, { type = "set" });
			run:come(B);
			run:pass(1);
			run:break_stream { A, B };
			run:pass(0.1);
			run:back(A);
			run:back(B);
			run:pass(0);
			assert.same({ 5, MANY }, { run.pending:count(A), run.pending:count(B) });
			for _, stanza in ipairs(run.at[B]) do
				run:answer(stanza);
			end
			assert.same({ result = MANY }, tally(gets));
			run:pass(4);
			assert.same({ ["remote-server-timeout"] = 5 }, tally(sets));
			assert.same({ retries = MANY, answered = MANY, backend_gone = 5 }, run:all_counts());
			run:finish();
		end);

		it("stay where they are when both are back at once, and no stream broke", function ()
			ask(MANY);
			run:come(B);
			run:doubt(A);
			run:back(A);
			run:pass(1);
			assert.equal(MANY, run.pending:count(A));
			run:finish();
		end);

		it("go to another as long as there is one when its server says that it is not there, and end with that error otherwise", function ()
			local first, second = run:request {}, run:request {};
			run:doubt(A);
			run:come(B);
			run:doubtful(run.at[A][1]);
			assert.equal(1, #run.at[B]);
			run:doubt(B);
			run:doubtful(run.at[A][2]);
			assert.equal("service-unavailable", run:answer_of(second));
			run:answer(run.at[B][1]);
			assert.equal("result", run:answer_of(first));
			run:finish();
		end);
	end);

	it("keep their deadline, however often they are sent again", function ()
		run = exchange.new { retries = 3 };
		run:come(A);
		run:request {};
		local before = A;
		for n = 1, 3 do
			local after = exchange.backend("r"..n);
			run:come(after);
			run:pass(10);
			run:go(before);
			run:pass(0);
			before = after;
		end
		run:pass(run.timeout - 30.5);
		assert.equal(1, run.open_count);
		run:pass(0.5);
		assert.equal(0, run.open_count);
		assert.same({ retries = 3, timeout = 1 }, run:all_counts());
	end);

	describe("in any order", function ()
		local BACKENDS = { A, B, C };
		local REQUESTERS = { "user@some-domain.example/abc", "user@some-domain.example/abd", "other@domain.example", A, B };
		local SERVICES = { PROXY, PROXY.."/x", PROXY.."/y", "node@"..PROXY.."/x" };
		local TYPES = { "get", "get", "get", "set" };
		local IDS = { "i", "j", "k", "l", "m" };

		-- What a backend has got, or nil; it may be answered again some time.
		local function any_stanza()
			local at = run.at[random.element(BACKENDS)] or {};
			return at[1] and (math.random(4) == 1 and random.element(at) or table.remove(at, math.random(#at)));
		end

		local function with_any_stanza(respond)
			return function ()
				local stanza = any_stanza();
				if stanza then
					respond(stanza);
				end
			end;
		end

		local function wrong_answer(stanza)
			local change = random.element { "to", "from", "id" };
			local answered = st.clone(stanza);
			answered.tags[1].attr.wrong = "true";
			answered.attr[change] = random.element { A, B, C, stanza.attr.from.."x", stanza.attr.to.."x", "x" };
			run:answer(answered);
		end

		local function request()
			run:request {
				from = random.element(REQUESTERS), to = random.element(SERVICES), type = random.element(TYPES);
				id = math.random(3) == 1 and random.element(IDS) or nil;
			};
		end

		local function burst()
			for _ = 1, math.random(150) do
				request();
			end
		end

		local function answer(stanza) run:answer(stanza); end
		local function bounce(stanza) run:bounce(stanza); end
		local function refuse(stanza) run:refuse(stanza); end
		local function doubtful(stanza) run:doubtful(stanza); end
		local function break_stream() run:break_stream(BACKENDS); end
		local function reload() run:reload(); end
		local function throw() error(THROWN, 0); end

		local function with_any_backend(name)
			return function () run[name](run, random.element(BACKENDS)); end;
		end

		-- Each as often as it stands here
		local events = {
			request, request, request, request, request, request, request, request, request, request, request, request,
			with_any_stanza(answer), with_any_stanza(answer), with_any_stanza(answer), with_any_stanza(answer), with_any_stanza(answer),
			with_any_stanza(wrong_answer), with_any_stanza(bounce), with_any_stanza(refuse), with_any_stanza(doubtful),
			with_any_backend "doubt", with_any_backend "back", with_any_backend "back",
			with_any_backend "come", with_any_backend "come", with_any_backend "resume", with_any_backend "resume",
			with_any_backend "go", with_any_backend "hibernate",
			function () run:pass(0); end, function () run:pass(math.random() * 20); end,
		};
		local rare_events = { burst, reload, break_stream, break_stream, function () run:pass(100); end };

		-- What comes while a stanza is sent, most of it as an answer to that
		local interruptions = {
			answer, bounce, refuse, doubtful, throw, throw, reload, request, break_stream,
			with_any_backend "doubt", with_any_backend "back",
			with_any_stanza(answer), with_any_stanza(bounce), with_any_backend "come", with_any_backend "go", with_any_backend "hibernate",
		};

		local function interrupt(stanza)
			local interruption = random.element(interruptions);
			local is_request = stanza.attr.type == "get" or stanza.attr.type == "set";
			if is_request or interruption ~= answer and interruption ~= bounce and interruption ~= refuse and interruption ~= doubtful then
				interruption(stanza);
			end
		end

		it("each ends once, with the right answer", function ()
			random.restart();
			local totals = {};
			for _ = 1, EVENTS // EVENTS_EACH do
				run = exchange.new {
					retries = math.random(0, 3), max = math.random(4) == 1 and math.random(200) or nil, seed = random.bytes(core.POOL_SEEDBYTES);
				};
				local one_in = random.element { 2, 10, 100, math.huge };
				for _ = 1, EVENTS_EACH do
					function run.during(stanza)
						if one_in < math.huge and math.random(one_in) == 1 and run.depth < 5 then
							interrupt(stanza);
						end
					end
					random.element(math.random(50) == 1 and rare_events or events)();
				end
				run:finish();
				local sum = -(run:all_counts().retries or 0) - (run:all_counts().unmatched_answers or 0);
				for what, count in pairs(run:all_counts()) do
					sum = sum + count;
					totals[what] = (totals[what] or 0) + count;
				end
				assert.equal(#run.asked, sum); -- how they ended, each counted once
			end
			for _, what in ipairs(EVENTS < 50000 and {} or { "answered", "error", "timeout", "no_backend", "backend_gone", "limited", "refused",
				"retries", "unmatched_answers" }) do
				assert.truthy(totals[what], what.." did not happen at all");
			end
		end);
	end);
end);
