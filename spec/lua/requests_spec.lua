local desk = require "spec.support.desk";
local parse_xml = require "util.xml".parse;
local st = require "util.stanza";

local PROXY, TARGET, BACKEND, OTHER_BACKEND = desk.PROXY, desk.TARGET, desk.BACKEND, desk.OTHER_BACKEND;
local REQUESTER, TIMEOUT = desk.REQUESTER, desk.TIMEOUT;
local iq, answer_to, assert_error, canonical = desk.iq, desk.answer_to, desk.assert_error, desk.canonical;
local QUERY = "<query xmlns='jabber:iq:version'/>";

local function assert_stanza(expected_xml, stanza)
	assert.equal(canonical(assert(parse_xml(expected_xml))), canonical(stanza));
end

describe("requests", function ()
	local run, module, clock;

	before_each(function ()
		run = desk.new();
		module, clock = run.module, run.clock;
	end);

	describe("that are dispatched", function ()
		it("follow the example of the design to the letter", function ()
			local token = run.jat:encode(REQUESTER);

			local sent = run:receive(parse_xml("<iq type='get' id='1234' to='proxy.domain.example' from='user@some-domain.example/abc'>"
				..QUERY.."</iq>"));
			assert.equal(1, #sent);
			assert_stanza("<iq type='get' id='1234' to='some-user@some-domain.example/a' from='proxy.domain.example/"..token.."'>"
				..QUERY.."</iq>", sent[1]);

			sent = run:receive(parse_xml("<iq type='result' id='1234' to='proxy.domain.example/"..token.."' from='some-user@some-domain.example/a'>"
				..QUERY.."</iq>"));
			assert.equal(1, #sent);
			assert_stanza("<iq type='result' id='1234' to='user@some-domain.example/abc' from='proxy.domain.example'>"
				..QUERY.."</iq>", sent[1]);

			assert.equal(0, #run.pending);
			assert.is_nil(run.counts.unmatched_answers);
		end);

		for service, bare in pairs {
			[PROXY] = PROXY, [PROXY.."/thing"] = PROXY,
			["node@"..PROXY] = "node@"..PROXY, ["node@"..PROXY.."/thing"] = "node@"..PROXY,
			["node@"..PROXY.."/some/thing@else"] = "node@"..PROXY,
		} do
			it("are answered from the service address they were sent to: "..service, function ()
				local dispatched = run:request { to = service };
				assert.same({ type = "get", id = "1234", from = bare.."/"..run.jat:encode(REQUESTER), to = BACKEND }, dispatched.attr);
				local answered = run:receive(answer_to(dispatched));
				assert.equal(1, #answered);
				assert.same({ type = "result", id = "1234", from = service, to = REQUESTER }, answered[1].attr);
			end);
		end

		it("keep their payload and id, and so do their answers", function ()
			local payload = "<query xmlns='a:b' x='1 &lt; &quot;2&quot;'> text <deep xmlns='c:d'><er/>ü</deep>\n</query>";
			local id = "&lt;&amp;&gt; &quot;é";
			local dispatched = run:receive(parse_xml("<iq type='set' xml:lang='de' id='"..id.."' from='"..REQUESTER.."' to='"..PROXY.."'>"
				..payload.."</iq>"))[1];
			assert_stanza(("<iq type='set' xml:lang='de' id='%s' from='%s' to='%s'>%s</iq>")
				:format(id, PROXY.."/"..run.jat:encode(REQUESTER), BACKEND, payload), dispatched);
			local answered = run:receive(parse_xml(("<iq type='result' xml:lang='fr' id='%s' from='%s' to='%s'>%s<more xmlns='x:y'/></iq>")
				:format(id, BACKEND, dispatched.attr.from, payload)))[1];
			assert_stanza(("<iq type='result' xml:lang='fr' id='%s' from='%s' to='%s'>%s<more xmlns='x:y'/></iq>")
				:format(id, PROXY, REQUESTER, payload), answered);
		end);

		it("are first offered to other modules, as Prosody does", function ()
			for _, type in ipairs { "get", "set" } do
				assert.is_nil(run.requests.on_iq_first(run:event_of(iq { type = type, id = "1", from = REQUESTER, to = PROXY })));
				assert.same({}, module.sent);
				assert.equal(0, #run.pending);
			end
		end);

		it("are pending before they are sent", function ()
			local found = {};
			function module.send()
				table.insert(found, #run.pending);
			end
			local event = run:event_of(iq { type = "get", id = "1234", from = REQUESTER, to = PROXY });
			assert.is_nil(run.requests.on_iq_first(event));
			assert.is_true(run.requests.on_iq_last(event));
			assert.same({ 1 }, found);
		end);

		it("are not sent when there is no memory to have them pending", function ()
			local function dispatch()
				return nil, "no-memory";
			end
			run:load { exchange = { dispatch = dispatch } };
			assert_error(run:request(), PROXY, REQUESTER, "1234", "wait", "resource-constraint");
			assert.same({}, module.timers);
		end);

		it("are refused when there is no backend", function ()
			run.pool:remove(BACKEND);
			assert_error(run:request { to = "node@"..PROXY.."/thing" },
				"node@"..PROXY.."/thing", REQUESTER, "1234", "cancel", "service-unavailable");
			assert.equal(0, #run.pending);
			assert.same({}, module.timers);
		end);

		it("never go to the backend that asks", function ()
			assert_error(run:request { from = BACKEND }, PROXY, BACKEND, "1234", "cancel", "service-unavailable");
			run.pool:add(OTHER_BACKEND);
			for n = 1, 50 do
				assert.equal(OTHER_BACKEND, run:request({ from = BACKEND, id = "a"..n }).attr.to);
				assert.equal(BACKEND, run:request({ from = OTHER_BACKEND, id = "b"..n }).attr.to);
			end
		end);

		it("go to every backend in the course of time", function ()
			run.pool:add(OTHER_BACKEND);
			local got = {};
			for n = 1, 100 do
				got[run:request({ id = "n"..n }).attr.to] = true;
			end
			assert.same({ [BACKEND] = true, [OTHER_BACKEND] = true }, got);
		end);

		it("have a digest as token when the requester's address is long, and are answered", function ()
			local requester = ("n"):rep(1023).."@"..("h"):rep(1023).."/"..("r"):rep(1023);
			local dispatched = run:request { from = requester };
			assert.truthy(dispatched.attr.from:match("^proxy%.domain%.example/d[%w_-]+$"));
			assert.equal(33, #dispatched.attr.from - #PROXY - 1);
			local answered = run:receive(answer_to(dispatched));
			assert.equal(1, #answered);
			assert.same({ type = "result", id = "1234", from = PROXY, to = requester }, answered[1].attr);
		end);

		it("are refused when the requester's address is longer than any", function ()
			local requester = ("n"):rep(1024).."@"..("h"):rep(1023).."/"..("r"):rep(1023);
			assert_error(run:request { from = requester }, PROXY, requester, "1234", "modify", "jid-malformed");
			assert.equal(0, #run.pending);
			assert.same({}, module.timers);
		end);
	end);

	describe("that are malformed", function ()
		local function assert_bad_request(stanza)
			local id = stanza.attr.id;
			assert.is_true(run.requests.on_iq_first(run:event_of(stanza)));
			local sent = module:take_sent();
			assert.equal(1, #sent);
			assert_error(sent[1], PROXY, REQUESTER, id, "modify", "bad-request");
			assert.equal(0, #run.pending);
			assert.is_nil(run.counts.unmatched_answers);
		end

		for _, type in ipairs { "get", "set" } do
			it("are refused: a "..type.." without a child element", function ()
				assert_bad_request(iq({ type = type, id = "1234", from = REQUESTER, to = PROXY }, false));
				assert_bad_request(iq({ type = type, id = "1234", from = REQUESTER, to = PROXY }, false):text("text"));
			end);

			it("are refused: a "..type.." with two child elements", function ()
				assert_bad_request(iq({ type = type, id = "1234", from = REQUESTER, to = PROXY }):tag("more", { xmlns = "x:y" }):up());
			end);

			it("are refused: a "..type.." without an id", function ()
				assert_bad_request(iq { type = type, from = REQUESTER, to = PROXY });
			end);
		end

		it("are refused: an IQ without a type", function ()
			assert_bad_request(iq { id = "1234", from = REQUESTER, to = PROXY });
		end);

		it("are refused: an IQ of an unknown type", function ()
			for _, type in ipairs { "GET", "", "something", "unavailable" } do
				assert_bad_request(iq { type = type, id = "1234", from = REQUESTER, to = PROXY });
			end
		end);

		it("are dropped when they would be answers: no id", function ()
			local dispatched = run:request();
			for n, type in ipairs { "result", "error" } do
				assert.is_true(run.requests.on_iq_first(run:event_of(iq { type = type, from = BACKEND, to = dispatched.attr.from })));
				assert.same({}, module.sent);
				assert.equal(n, run.counts.unmatched_answers);
				assert.equal(1, #run.pending);
			end
		end);
	end);

	describe("that are pending", function ()
		it("are settled before any other module sees the answer", function ()
			local dispatched = run:request();
			assert.is_true(run.requests.on_iq_first(run:event_of(answer_to(dispatched))));
			assert.equal(1, #module:take_sent());
			assert.equal(0, #run.pending);
		end);

		it("are settled by an error as well, which is delivered as it is", function ()
			local failure = "<error type='auth' by='x.example'><forbidden xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>";
			local dispatched = run:request();
			local sent = run:receive(parse_xml(("<iq type='error' id='1234' from='%s' to='%s'>%s%s</iq>")
				:format(BACKEND, dispatched.attr.from, QUERY, failure)));
			assert.equal(1, #sent);
			assert_stanza(("<iq type='error' id='1234' from='%s' to='%s'>%s%s</iq>"):format(PROXY, REQUESTER, QUERY, failure), sent[1]);
		end);

		-- What differs from the right answer; TOKEN stands for the token
		local wrong_answers = {
			["from another backend"] = { from = OTHER_BACKEND };
			["from the bare target"] = { from = TARGET };
			["from a stranger"] = { from = REQUESTER };
			["from the target's server"] = { from = "some-domain.example" };
			["to another service address with the token"] = { to = "node@"..PROXY.."/TOKEN" };
			["to a longer token"] = { to = PROXY.."/TOKENA" };
			["to the proxy"] = { to = PROXY };
			["to no token"] = { to = PROXY.."/thing" };
			["with another id"] = { id = "12345" };
			["with an empty id"] = { id = "" };
		};
		for what, difference in pairs(wrong_answers) do
			for _, answer_type in ipairs { "result", "error" } do
				it(("are not settled by a wrong answer, which is dropped: %s %s"):format(answer_type, what), function ()
					local dispatched = run:request();
					run.pool:add(OTHER_BACKEND);
					run:assert_dropped(answer_to(dispatched, {
						type = answer_type, from = difference.from, id = difference.id,
						to = difference.to and difference.to:gsub("TOKEN", (run.jat:encode(REQUESTER))),
					}));
					assert.equal(1, #run.pending);
					assert.equal(1, #run:receive(answer_to(dispatched)));
					assert.equal(1, run.counts.unmatched_answers);
				end);
			end
		end

		it("are not settled by an answer with another requester's token", function ()
			local mine, others = run:request(), run:request { from = REQUESTER.."d" };
			assert.not_equal(mine.attr.from, others.attr.from);
			local sent = run:receive(answer_to(mine, { to = others.attr.from }));
			assert.equal(REQUESTER.."d", sent[1].attr.to);
			run:assert_dropped(answer_to(others));
			assert.equal(REQUESTER, run:receive(answer_to(mine))[1].attr.to);
		end);

		it("are answered once, however often the backend answers", function ()
			local dispatched = run:request();
			assert.equal(1, #run:receive(answer_to(dispatched)));
			run:assert_dropped(answer_to(dispatched));
			run:assert_dropped(answer_to(dispatched, { type = "error" }));
		end);

		it("are answered first in, first out where they are equal", function ()
			local dispatched;
			for n = 1, 3 do
				clock.now = 5000 + n;
				dispatched = run:request { to = PROXY.."/thing" };
			end
			assert.equal(3, #run.pending);
			clock.now = 5010;
			for _ = 1, 3 do
				local sent = run:receive(answer_to(dispatched));
				assert.equal(1, #sent);
				assert.same({ type = "result", id = "1234", from = PROXY.."/thing", to = REQUESTER }, sent[1].attr);
			end
			assert.equal(9 + 8 + 7, run:answer_time());
			run:assert_dropped(answer_to(dispatched));
		end);

		it("are answered even when their backend has gone", function ()
			local dispatched = run:request();
			run.pool:remove(BACKEND);
			assert.equal(1, #run:receive(answer_to(dispatched)));
		end);
	end);

	describe("whose backend cannot be reached", function ()
		local OTHER = TARGET.."/b";

		-- A server's error instead of the backend's answer. -> stanzas that leave
		local function bounce(dispatched, origin)
			local stanza = st.error_reply(dispatched, "cancel", "service-unavailable");
			assert.is_true(run.requests.on_iq_first { stanza = stanza, origin = origin });
			return module:take_sent();
		end

		for name, origin in pairs {
			["our own server says so of its client"] = { type = "local", host = "some-domain.example" },
			["our own server says so of the target's server"] = { dummy = true },
		} do
			it("are handed on, and it is dropped, when "..name, function ()
				module.prosody.hosts["some-domain.example"] = origin.host and origin;
				local dispatched = run:request();
				run.pool:add(OTHER);
				local sent = bounce(dispatched, origin);
				assert.equal(OTHER, sent[1].attr.to);
				assert.equal(1, #sent);
				assert.same({ BACKEND }, run.lost);
			end);
		end

		it("are handed on when the target's server says so of what is no backend any more", function ()
			local dispatched = run:request();
			run.pool:remove(BACKEND);
			run.pool:add(OTHER);
			local sent = bounce(dispatched, {});
			assert.equal(OTHER, sent[1].attr.to);
		end);

		it("get the same error as an answer when the backend sent it", function ()
			module.prosody.hosts["some-domain.example"] = { type = "local", host = "some-domain.example" };
			for _, origin in ipairs { { host = "some-domain.example" }, {} } do
				local dispatched = run:request();
				run.pool:add(OTHER);
				local sent = bounce(dispatched, origin);
				assert.equal(1, #sent);
				assert.equal(REQUESTER, sent[1].attr.to);
				assert.equal("service-unavailable", select(2, sent[1]:get_error()));
				assert.same({}, run.lost);
				run.pool:remove(OTHER);
			end
		end);
	end);

	describe("that are answered with an error that a server may have sent in the backend's place", function ()
		local OTHER = TARGET.."/b";

		-- -> stanzas that leave when that comes by a stream
		local function doubtful(dispatched, condition)
			return run:receive(st.error_reply(dispatched, "cancel", condition or "service-unavailable"));
		end

		it("get it, and the backend is suspected, as long as that is ready", function ()
			local dispatched = run:request();
			run.pool:add(OTHER);
			local sent = doubtful(dispatched);
			assert.equal(1, #sent);
			assert.same({ REQUESTER, "service-unavailable" }, { sent[1].attr.to, (select(2, sent[1]:get_error())) });
			assert.same({ { BACKEND }, {}, {} }, { run.suspected, run.alive, run.lost });
			assert.equal(1, run:all_counts().error);
		end);

		it("go to another that is ready when the backend is not, if they are gets", function ()
			for _, state in ipairs { "suspended", "away" } do
				run.pool:set_state(BACKEND, "ready");
				run.pool:remove(OTHER);
				local dispatched = run:request { id = state };
				run.pool:add(OTHER);
				run.pool:set_state(BACKEND, state);
				local sent = doubtful(dispatched);
				assert.equal(1, #sent);
				assert.same({ "get", OTHER, state }, { sent[1].attr.type, sent[1].attr.to, sent[1].attr.id });
			end
			assert.same({ retries = 2 }, run.counts);
			assert.same({ {}, {}, {} }, { run.suspected, run.alive, run.lost });
		end);

		it("get it when the backend is not ready, and no other is", function ()
			local dispatched = run:request();
			run.pool:add(OTHER);
			run.pool:set_state(BACKEND, "suspended");
			run.pool:set_state(OTHER, "suspended");
			assert.equal(REQUESTER, doubtful(dispatched)[1].attr.to);
		end);

		it("get it when they are sets, or gets that cannot be sent again", function ()
			run:load { retries = 0 };
			local dispatched = { run:request { id = "set", type = "set" }, run:request { id = "get" } };
			run.pool:add(OTHER);
			run.pool:set_state(BACKEND, "suspended");
			for _, stanza in ipairs(dispatched) do
				local sent = doubtful(stanza);
				assert.same({ "error", REQUESTER, stanza.attr.id }, { sent[1].attr.type, sent[1].attr.to, sent[1].attr.id });
			end
		end);

		it("get any other, though the backend is not ready, which is alive then", function ()
			local dispatched = run:request();
			run.pool:add(OTHER);
			run.pool:set_state(BACKEND, "suspended");
			assert.equal(REQUESTER, doubtful(dispatched, "not-acceptable")[1].attr.to);
			assert.same({ { BACKEND }, {} }, { run.alive, run.suspected });
		end);
	end);

	it("tell of each backend that answers that it is alive, after the answer was sent", function ()
		local dispatched = run:request();
		local sent_before;
		function run.on_alive(backend)
			assert.equal(BACKEND, backend);
			sent_before = #module.sent;
		end
		run:receive(answer_to(dispatched));
		assert.equal(1, sent_before);
	end);

	it("tell nothing more to what a reload has taken the place of while the answer was sent", function ()
		local first, second = run:request { id = "n1" }, run:request { id = "n2" };
		function module.send()
			run.requests:retire();
		end
		run:receive(answer_to(first));
		run:receive(st.error_reply(second, "cancel", "service-unavailable"));
		assert.same({ {}, {} }, { run.alive, run.suspected });
	end);

	describe("beyond a limit", function ()
		it("get resource-constraint, in all", function ()
			run:load { max_pending = 2 };
			local first = run:request { id = "n1" };
			run:request { id = "n2", from = "another@some-domain.example/r" };
			assert_error(run:request { id = "n3", from = "third@some-domain.example/r" },
				PROXY, "third@some-domain.example/r", "n3", "wait", "resource-constraint");
			run:receive(answer_to(first));
			assert.equal(BACKEND, run:request { id = "n4" }.attr.to);
		end);

		it("get resource-constraint, of one bare JID, and no other does", function ()
			run:load { max_pending_per_requester = 2 };
			run:request { id = "n1", from = "user@some-domain.example/one" };
			run:request { id = "n2", from = "user@some-domain.example/two" };
			assert_error(run:request { id = "n3", from = "user@some-domain.example/three" },
				PROXY, "user@some-domain.example/three", "n3", "wait", "resource-constraint");
			assert.equal(BACKEND, run:request { id = "n4", from = "user2@some-domain.example/one" }.attr.to);
		end);
	end);

	describe("are counted:", function ()
		local before;

		before_each(function ()
			before = {};
		end);

		local function assert_counted(expected)
			local counts = run:all_counts();
			local since = {};
			for name, count in pairs(counts) do
				since[name] = count > (before[name] or 0) and count - (before[name] or 0) or nil;
			end
			assert.same(expected, since);
			before = counts;
			module:take_sent();
		end

		it("a result or an error of the backend, with the time it took", function ()
			local first, second = run:request { id = "n1" }, run:request { id = "n2" };
			clock.now = clock.now + 2.5;
			run:receive(answer_to(first));
			assert_counted { answered = 1 };
			clock.now = clock.now + 1;
			run:receive(answer_to(second, { type = "error" }));
			assert_counted { error = 1 };
			assert.equal(2.5 + 3.5, run:answer_time());
			-- up to 1 ms, 3 ms, 10 ms, ... 1 s, 3 s, 10 s, 30 s, 60 s, and more
			assert.same({ 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0 }, { select(4, run.exchange:counts()) });
			assert.same({}, run.samples);
		end);

		it("an answer with the time it took, once more where Prosody is told of each", function ()
			run.wants_samples = true;
			run:load();
			local first, second = run:request { id = "n1" }, run:request { id = "n2" };
			clock.now = clock.now + 2.5;
			run:receive(answer_to(first));
			clock.now = clock.now + 1;
			run:receive(answer_to(second, { type = "error" }));
			assert.same({ 2.5, 3.5 }, run.samples);
		end);

		it("no answer in time", function ()
			run:request();
			clock.now = clock.now + TIMEOUT;
			run:fire();
			assert_counted { timeout = 1 };
		end);

		it("no backend, or one that goes, with and without another", function ()
			run:request { id = "n1" };
			run:request { id = "n2", type = "set" };
			run.pool:remove(BACKEND);
			run.pool:add(TARGET.."/b");
			run:tell("backend-gone", BACKEND);
			module:pass(0);
			assert_counted { retries = 1, backend_gone = 1 };
			run.pool:remove(TARGET.."/b");
			run:tell("backend-gone", TARGET.."/b");
			module:pass(0);
			assert_counted { backend_gone = 1 };
			run:request { id = "n3" };
			assert_counted { no_backend = 1 };
		end);

		it("beyond a limit, in all and of one requester", function ()
			run:load { max_pending = 1 };
			run:request { id = "n1" };
			run:request { id = "n2" };
			assert_counted { limited = 1 };
			run:load { max_pending_per_requester = 1 };
			run:request { id = "n3" };
			assert_counted { limited = 1 };
		end);

		it("not to be dispatched", function ()
			run:request { to = PROXY.."/"..run.jat:encode(REQUESTER) };
			assert_counted { refused = 1 };
			run:request { to = PROXY.."/bAAAAAAAAAAAA" };
			assert_counted { refused = 1 };
			run:receive(iq({ type = "get", id = "n1", from = REQUESTER, to = PROXY }, false));
			assert_counted { refused = 1 };
		end);

		it("pending when the module goes, or coming after", function ()
			run:request { id = "n1" };
			run:request { id = "n2" };
			run.requests:stop();
			assert_counted { unloaded = 2 };
			run:request { id = "n3" };
			assert_counted { unloaded = 1 };
		end);
	end);

	it("leave nothing kept once they are over", function ()
		local kept = setmetatable({}, { __mode = "k" });
		local function dispatch(id)
			local stanza = iq { type = "get", id = id, from = REQUESTER, to = PROXY };
			kept[stanza] = true;
			return run:receive(stanza)[1];
		end
		local function count_kept()
			collectgarbage();
			collectgarbage();
			local count = 0;
			for _ in pairs(kept) do
				count = count + 1;
			end
			return count;
		end
		run:load { retries = 3 };
		run.pool:add(TARGET.."/b");
		local answered, expired = dispatch("n1"), dispatch("n2");
		dispatch("n3");
		assert.equal(3, count_kept());
		run:receive(answer_to(answered));
		assert.equal(2, count_kept());
		run.pool:remove(expired.attr.to);
		run:tell("backend-gone", expired.attr.to);
		assert.same({}, module:pass(TIMEOUT));
		assert.equal(0, #run.pending);
		assert.equal(0, run.pending:bytes());
		assert.equal(0, count_kept());
	end);

	it("are all answered, and no more are taken, when the module stops", function ()
		run:request { id = "n1" };
		run.requests:stop();
		local sent = module:take_sent();
		assert.equal(1, #sent);
		assert_error(sent[1], PROXY, REQUESTER, "n1", "wait", "service-unavailable");
		sent = run:receive(iq { type = "get", id = "n2", from = REQUESTER, to = PROXY });
		assert.equal(1, #sent);
		assert_error(sent[1], PROXY, REQUESTER, "n2", "wait", "service-unavailable");
		assert.equal(0, #run.pending);
	end);

	it("are told of by address at debug only", function ()
		local dispatched = run:request();
		run:receive(answer_to(dispatched));
		run:receive(answer_to(dispatched));
		run:receive(iq { type = "result", from = BACKEND, to = PROXY });
		assert.equal(2, #module.log_lines);
		for _, line in ipairs(module.log_lines) do
			assert.equal("debug", line.level);
			assert.truthy(line.text:find(BACKEND, 1, true));
		end
	end);
end);
