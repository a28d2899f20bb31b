local desk = require "spec.support.desk";
local st = require "util.stanza";

local PROXY, TARGET, BACKEND, REQUESTER, TIMEOUT = desk.PROXY, desk.TARGET, desk.BACKEND, desk.REQUESTER, desk.TIMEOUT;
local iq, answer_to, assert_error, canonical = desk.iq, desk.answer_to, desk.assert_error, desk.canonical;

describe("requests", function ()
	local run, module, clock;

	before_each(function ()
		run = desk.new();
		module, clock = run.module, run.clock;
	end);

	describe("whose backend goes", function ()
		local OTHER = TARGET.."/b";

		-- The backend is gone, and what is due at once is done. -> stanzas that leave
		local function go(backend)
			run.pool:remove(backend);
			run:tell("backend-gone", backend);
			assert.same({}, module.sent);
			assert.same({}, module:pass(0));
			return module:take_sent();
		end

		it("are handed to another when they are a get, with the same id, token and payload", function ()
			local first = run:request { to = "node@"..PROXY.."/thing" };
			run.pool:add(OTHER);
			local sent = go(BACKEND);
			assert.equal(1, #sent);
			assert.equal(OTHER, sent[1].attr.to);
			first.attr.to = OTHER;
			assert.equal(canonical(first), canonical(sent[1]));
			local answered = run:receive(answer_to(sent[1]));
			assert.same({ "node@"..PROXY.."/thing", REQUESTER }, { answered[1].attr.from, answered[1].attr.to });
			assert.equal(0, #run.pending);
		end);

		it("keep their deadline", function ()
			run:request();
			run.pool:add(OTHER);
			clock.now = clock.now + 10;
			go(BACKEND);
			assert.equal(5000 + TIMEOUT, run.pending:deadline());
		end);

		it("get service-unavailable when they are a set", function ()
			run:request { type = "set", to = "node@"..PROXY.."/thing" };
			run.pool:add(OTHER);
			local sent = go(BACKEND);
			assert.equal(1, #sent);
			assert_error(sent[1], "node@"..PROXY.."/thing", REQUESTER, "1234", "cancel", "service-unavailable");
		end);

		it("get service-unavailable when there is no other backend", function ()
			run:request();
			local sent = go(BACKEND);
			assert.equal(1, #sent);
			assert_error(sent[1], PROXY, REQUESTER, "1234", "cancel", "service-unavailable");
			assert.equal(0, #run.pending);
		end);

		it("get service-unavailable when there is no other than who asks", function ()
			run:request { from = OTHER };
			run.pool:add(OTHER);
			assert_error(go(BACKEND)[1], PROXY, OTHER, "1234", "cancel", "service-unavailable");
		end);

		for retries = 0, 3 do
			it(("are handed on %d times with client_proxy_retries = %d"):format(retries, retries), function ()
				run:load { retries = retries };
				local backend = run:request().attr.to;
				for number = 1, retries do
					run.pool:add(TARGET.."/"..number);
					local sent = go(backend);
					backend = TARGET.."/"..number;
					assert.equal(backend, sent[1].attr.to);
				end
				run.pool:add(OTHER);
				assert_error(go(backend)[1], PROXY, REQUESTER, "1234", "cancel", "service-unavailable");
			end);
		end

		it("are handed on in slices", function ()
			for number = 1, 240 do
				run:request { id = "n"..number };
			end
			run.pool:add(OTHER);
			run.pool:remove(BACKEND);
			run:tell("backend-gone", BACKEND);
			for _, count in ipairs { 100, 100, 40 } do
				local timer = module.timers[#module.timers];
				assert.equal(0, timer.delay);
				timer.fired = true;
				assert.is_nil(timer.callback());
				assert.equal(count, #module:take_sent());
			end
			assert.equal(240, #run.pending);
			assert.equal(240, run.pending:count(OTHER));
			assert.equal(TIMEOUT, module:running_timer().delay);
		end);

		it("are handed on in slices, however many backends had them that go at once", function ()
			run.pool:remove(BACKEND);
			for number = 1, 240 do
				local backend = TARGET.."/"..number;
				run.pool:add(backend);
				assert.equal(backend, run:request({ id = "n"..number }).attr.to);
				run.pool:remove(backend);
			end
			run.pool:add(OTHER);
			for number = 1, 240 do
				run:tell("backend-gone", TARGET.."/"..number);
			end
			assert.same({}, module:take_sent());
			for _, count in ipairs { 100, 100, 40 } do
				module:fire_slice();
				assert.equal(count, #module:take_sent());
			end
			assert.equal(240, run.pending:count(OTHER));
		end);

		it("are not the business of who comes with the same address", function ()
			local dispatched = run:request();
			run.pool:remove(BACKEND);
			run:tell("backend-gone", BACKEND);
			run.pool:add(BACKEND);
			run:assert_dropped(answer_to(dispatched));
			local second = run:request { id = "5678" };
			assert.equal(BACKEND, second.attr.to);
			assert.same({}, module:pass(0));
			local sent = module:take_sent();
			assert.equal(1, #sent);
			assert_error(sent[1], PROXY, REQUESTER, "1234", "cancel", "service-unavailable");
			assert.equal(1, #run:receive(answer_to(second)));
			assert.equal(0, #run.pending);
		end);

		it("end with their deadline if that comes first, once", function ()
			run:request();
			run.pool:add(OTHER);
			run.pool:remove(BACKEND);
			run:tell("backend-gone", BACKEND);
			clock.now = clock.now + TIMEOUT;
			module.timers[1].callback(); -- the one for deadlines
			assert.equal("remote-server-timeout", select(2, module:take_sent()[1]:get_error()));
			assert.same({}, module:pass(0));
			assert.same({}, module:take_sent());
		end);

		it("are answered, each once, when the pending table takes them no more", function ()
			for number = 1, 3 do
				run:request { id = "n"..number };
			end
			run:load { max_pending = 1 }; -- as after a reload
			run.pool:add(OTHER);
			local sent, became = go(BACKEND), {};
			assert.equal(3, #sent);
			for _, stanza in ipairs(sent) do
				became[stanza.attr.to] = (became[stanza.attr.to] or 0) + 1;
			end
			assert.same({ [OTHER] = 1, [REQUESTER] = 2 }, became);
			assert.same({ backend_gone = 2, retries = 1 }, run.counts);
			assert.equal(1, #run.pending);
		end);

		-- (bytes) -> a payload that takes about so much memory
		local payloads = {
			["of one text"] = function (bytes) return st.stanza("query"):text(("x"):rep(bytes)); end,
			["of one attribute"] = function (bytes) return st.stanza("query", { x = ("x"):rep(bytes) }); end,
			["of elements side by side"] = function (bytes)
				local query = st.stanza("query");
				for _ = 1, bytes // 320 do
					query:tag("x"):up();
				end
				return query;
			end,
			["of elements in each other"] = function (bytes)
				local query = st.stanza("query");
				for _ = 1, bytes // 320 do
					query:tag("x");
				end
				return query:reset();
			end,
		};
		for name, new_payload in pairs(payloads) do
			it("are handed on if they are small, get service-unavailable if they are large: "..name, function ()
				for id, bytes in pairs { small = 6000, large = 8192, ["very large"] = 100000 } do
					run:receive_iq({ type = "get", id = id, from = REQUESTER, to = PROXY }, new_payload(bytes));
				end
				run.pool:add(OTHER);
				local sent, became = go(BACKEND), {};
				assert.equal(3, #sent); -- each of them once
				for _, stanza in ipairs(sent) do
					became[stanza.attr.id] = stanza.attr.type.." to "..stanza.attr.to;
				end
				assert.same({ small = "get to "..OTHER, large = "error to "..REQUESTER, ["very large"] = "error to "..REQUESTER }, became);
			end);
		end

		it("are handed on after a reload", function ()
			run:request();
			run.requests:retire();
			run:load();
			run.pool:add(OTHER);
			assert.equal(OTHER, go(BACKEND)[1].attr.to);
		end);
	end);

	describe("whose backend is in doubt", function ()
		local OTHER = TARGET.."/b";

		-- Sends requests, each of its own id, all of them to BACKEND.
		local function ask(count, type)
			for number = 1, count do
				assert.equal(BACKEND, run:request({ id = (type or "get")..number, type = type }).attr.to);
			end
		end

		-- What is due at once is done. -> ids of what leaves, by who gets it
		local function take()
			assert.same({}, module:pass(0));
			local ids = {};
			for _, stanza in ipairs(module:take_sent()) do
				ids[stanza.attr.to] = ids[stanza.attr.to] or {};
				table.insert(ids[stanza.attr.to], stanza.attr.id);
			end
			return ids;
		end

		-- It is in doubt, and others are to have what it has got.
		local function doubt(backend)
			run.pool:set_state(backend, "suspended");
			run:tell("backend-away", backend);
		end

		local function come_back(backend)
			run.pool:set_state(backend, "ready");
			run:tell("backend-back", backend);
		end

		it("are handed on if they are gets, and wait if they are sets", function ()
			ask(3);
			ask(2, "set");
			run.pool:add(OTHER);
			doubt(BACKEND);
			assert.same({ [OTHER] = { "get1", "get2", "get3" } }, take());
			assert.same({ 2, 3 }, { run.pending:count(BACKEND), run.pending:count(OTHER) });
		end);

		it("wait when the other one is not ready either, and are handed on when it is and that is told", function ()
			ask(3);
			for _, state in ipairs { "suspended", "away" } do
				run.pool:add(OTHER);
				run.pool:set_state(OTHER, state);
				doubt(BACKEND);
				assert.same({}, take());
			end
			run.pool:set_state(OTHER, "ready");
			run:tell("backend-away", BACKEND);
			assert.same({ [OTHER] = { "get1", "get2", "get3" } }, take());
		end);

		it("wait for it when the only one that is ready is their requester, whatever happens then", function ()
			run:request { from = OTHER };
			run.pool:add(OTHER);
			doubt(BACKEND);
			assert.same({}, take());
			assert.equal(1, run.pending:count(BACKEND));
			run.pool:add(TARGET.."/c");
			run:tell("backend-away", BACKEND);
			assert.same({}, take());
		end);

		it("stay where they are when it is ready again before they are handed on, with or without another one", function ()
			run:load { retries = 3 };
			ask(3);
			doubt(BACKEND);
			run.pool:set_state(BACKEND, "ready");
			assert.same({}, take());
			run.pool:add(OTHER);
			doubt(BACKEND);
			run.pool:set_state(BACKEND, "ready");
			assert.same({}, take());
			assert.equal(3, run.pending:count(BACKEND));
		end);

		it("stay where they are from when it is ready again on, in the middle of that", function ()
			ask(5);
			run.pool:add(OTHER);
			local count = 0;
			function module:send(stanza)
				count = count + 1;
				if count == 2 then
					run.pool:set_state(BACKEND, "ready");
				end
				getmetatable(self).__index.send(self, stanza);
			end
			doubt(BACKEND);
			assert.same({ [OTHER] = { "get1", "get2" } }, take());
		end);

		it("are handed on no more once nobody is ready, in the middle of that", function ()
			ask(5);
			run.pool:add(OTHER);
			function module:send(stanza)
				run.pool:set_state(OTHER, "suspended");
				getmetatable(self).__index.send(self, stanza);
			end
			doubt(BACKEND);
			assert.same({ [OTHER] = { "get1" } }, take());
			assert.equal(4, run.pending:count(BACKEND));
		end);

		describe("after a stream broke", function ()
			before_each(function ()
				run:load { retries = 3 };
				ask(3);
				ask(2, "set");
				module:pass(0.1);
				run:tell("stream-broken");
				run.pool:set_state(BACKEND, "suspended");
				module:pass(0.1);
			end);

			it("are sent again when it is back, once, to itself if there is no other, if they are gets", function ()
				come_back(BACKEND);
				assert.same({ [BACKEND] = { "get1", "get2", "get3" } }, take());
				assert.equal(3, run.counts.retries);
				module:pass(0.1);
				come_back(BACKEND);
				assert.same({ [BACKEND] = { "get1", "get2", "get3" } }, take()); -- it was in doubt once more
				assert.equal(5, run.pending:count(BACKEND));
				module:pass(0);
				assert.same({}, take());
			end);

			it("are sent again to itself when the other one is in doubt", function ()
				run.pool:add(OTHER);
				run.pool:set_state(OTHER, "suspended");
				come_back(BACKEND);
				assert.same({ [BACKEND] = { "get1", "get2", "get3" } }, take());
			end);

			it("are sent again to another one that is ready, rather", function ()
				run.pool:add(OTHER);
				come_back(BACKEND);
				assert.same({ [OTHER] = { "get1", "get2", "get3" } }, take());
				module:pass(0.1);
				run.pool:set_state(OTHER, "suspended");
				come_back(OTHER);
				assert.same({ [BACKEND] = { "get1", "get2", "get3" } }, take());
			end);

			it("are not sent again when they came after it was back", function ()
				come_back(BACKEND);
				take();
				run:request { id = "new" };
				assert.same({}, take());
				assert.equal(1, #run:receive(answer_to(iq { type = "get", id = "new", from = PROXY.."/"..run.jat:encode(REQUESTER), to = BACKEND })));
			end);

			it("are not sent again when it is back after 4 seconds or more", function ()
				module:pass(3.9);
				come_back(BACKEND);
				assert.same({}, take());
				module:pass(100);
				assert.is_nil(run.counts.retries);
			end);

			it("get remote-server-timeout 4 seconds after that if they cannot be sent again and are not answered", function ()
				come_back(BACKEND);
				take();
				local answered = run:receive(iq({ type = "result", id = "set1", from = BACKEND, to = PROXY.."/"..run.jat:encode(REQUESTER) }, false));
				assert.equal("set1", answered[1].attr.id);
				module:pass(3.8);
				run:request { id = "new", type = "set" };
				assert.same({}, module:take_sent());
				module:pass(0.1);
				local sent = module:take_sent();
				assert.equal(1, #sent);
				assert_error(sent[1], PROXY, REQUESTER, "set2", "wait", "remote-server-timeout");
				assert.equal(1, run.counts.backend_gone);
				assert.equal(4, run.pending:count(BACKEND)); -- the gets, and the new one
				module:pass(20);
				assert.same({}, module:take_sent());
			end);

			it("wait on if nobody knows yet whether it is there", function ()
				module:pass(20);
				assert.same({}, module:take_sent());
				assert.equal(5, run.pending:count(BACKEND));
				run.pool:remove(BACKEND);
				run:tell("backend-gone", BACKEND);
				module:pass(0);
				assert.equal(5, #module:take_sent());
			end);

			it("are waited for 4 seconds anew when another one breaks", function ()
				come_back(BACKEND);
				take();
				module:pass(2);
				run:tell("stream-broken");
				module:pass(2.5);
				assert.same({}, module:take_sent());
				come_back(BACKEND);
				take();
				module:pass(1.4);
				assert.same({}, module:take_sent());
				module:pass(0.1);
				local sent = module:take_sent();
				assert.same({ 2, "error" }, { #sent, sent[1].attr.type });
				assert.equal(3, run.pending:count(BACKEND));
			end);

			it("are sent again in slices, of one backend after the other, also of one that comes meanwhile", function ()
				local backends = { TARGET.."/1", TARGET.."/2", TARGET.."/3" };
				for number, backend in ipairs(backends) do
					run.pool:add(backend);
					for get = 1, 120 do
						assert.equal(backend, run:request({ id = number.."-"..get }).attr.to);
					end
					run.pool:set_state(backend, "suspended");
				end
				module:pass(0.1);
				local function assert_slice(number, first, last)
					module:fire_slice();
					local sent = module:take_sent();
					assert.equal(last - first + 1, #sent);
					for index, stanza in ipairs(sent) do
						assert.equal(number.."-"..first + index - 1, stanza.attr.id);
					end
				end
				come_back(backends[1]);
				come_back(backends[2]);
				assert.same({}, module:take_sent());
				assert_slice(1, 1, 100);
				come_back(backends[3]);
				for _, slice in ipairs { { 1, 101, 120 }, { 2, 1, 100 }, { 2, 101, 120 }, { 3, 1, 100 }, { 3, 101, 120 } } do
					assert_slice(table.unpack(slice));
				end
				assert.same({}, take());
				come_back(BACKEND);
				assert.same({ "get1", "get2", "get3" }, select(2, next(take())));
			end);

			it("are given up a hundred at a time", function ()
				for number = 1, 240 do
					run:request { id = "more"..number, type = "set" };
				end
				module:pass(0.1);
				come_back(BACKEND);
				take();
				module:pass(3.7);
				clock.now = clock.now + 0.1;
				assert.same({}, module:take_sent());
				for _, timer in ipairs(module:running_timers()) do
					if timer.due <= clock.now then
						timer.fired = true;
						timer.callback();
					end
				end
				for _, count in ipairs { 100, 100, 42 } do
					module:fire_slice();
					assert.equal(count, #module:take_sent());
				end
			end);

			it("are all given up though another module's handler throws on the answers", function ()
				come_back(BACKEND);
				take();
				local count = 0;
				function module.send()
					count = count + 1;
					error("thrown");
				end
				assert.equal(2, #module:pass(5));
				assert.equal(2, count);
				assert.equal(3, #run.pending);
			end);

			it("leave no timer when the module goes", function ()
				come_back(BACKEND);
				run.requests:retire();
				assert.same({}, module:running_timers());
				run:tell("stream-broken");
				assert.same({}, module:running_timers());
			end);
		end);
	end);
end);
