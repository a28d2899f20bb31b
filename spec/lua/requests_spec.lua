local core = require "mod_client_proxy.core";
local fake_module = require "spec.support.module";
local parse_xml = require "util.xml".parse;
local st = require "util.stanza";

local PROXY = "proxy.domain.example";
local TARGET = "some-user@some-domain.example";
local BACKEND, OTHER_BACKEND = TARGET.."/a", TARGET.."/b";
local REQUESTER = "user@some-domain.example/abc";
local TIMEOUT = 60;
local QUERY = "<query xmlns='jabber:iq:version'/>";

-- One spelling for equal stanzas: the attributes in order
local function canonical(stanza)
	local attributes, children = {}, {};
	for name, value in pairs(stanza.attr) do
		table.insert(attributes, (" %s='%s'"):format(name, st.xml_escape(value)));
	end
	table.sort(attributes);
	for _, child in ipairs(stanza) do
		table.insert(children, type(child) == "string" and st.xml_escape(child) or canonical(child));
	end
	return ("<%s%s>%s</%s>"):format(stanza.name, table.concat(attributes), table.concat(children), stanza.name);
end

local function assert_stanza(expected_xml, stanza)
	assert.equal(canonical(assert(parse_xml(expected_xml))), canonical(stanza));
end

local function iq(attr, payload)
	local stanza = st.stanza("iq", attr);
	if payload ~= false then
		stanza:add_child(payload or st.stanza("query", { xmlns = "jabber:iq:version" }));
	end
	return stanza;
end

describe("requests", function ()
	local module, clock, jat, pool, pending, requests, operations, handlers;

	local alive, suspected, lost; -- backends, in order
	local counts, answer_times; -- what was counted, by name; seconds, in order

	-- (timeout, changed) changed: other values for some of the setup
	local function new_handlers(timeout, changed)
		local setup = {
			target = TARGET, timeout = timeout or TIMEOUT, retries = 1, max_pending = 100000, max_pending_per_requester = 100000,
			jat = jat, pool = pool, pending = pending, operations = operations;
			alive = function (backend) table.insert(alive, backend); end;
			suspect = function (backend) table.insert(suspected, backend); end;
			lose_unreachable = function (backend)
				table.insert(lost, backend);
				if pool:remove(backend) then
					handlers.on_backend_gone(backend);
				end
			end;
		};
		for name, value in pairs(changed or {}) do
			setup[name] = value;
		end
		return requests.new(setup);
	end

	-- Tokens of this format from now on
	local function use_format(format)
		jat = core.jat(PROXY, format);
		jat:add_key(7, ("k"):rep(core.JAT_KEYBYTES));
		handlers = new_handlers();
	end

	before_each(function ()
		module = fake_module.new();
		clock = module.clock;
		pool = core.pool(("\0"):rep(core.POOL_SEEDBYTES));
		pool:add(BACKEND);
		pending = core.pending(("\0"):rep(core.PENDING_SEEDBYTES));
		counts, answer_times = {}, {};
		operations = {
			count = function (name)
				counts[name] = (counts[name] or 0) + 1;
			end;
			count_answer = function (outcome, seconds)
				counts[outcome] = (counts[outcome] or 0) + 1;
				table.insert(answer_times, seconds);
			end;
		};
		alive, suspected, lost = {}, {}, {};
		requests = module:require "requests";
		use_format("sealed");
	end);

	local function event_of(stanza)
		return { stanza = stanza, origin = { send = function (answer) return module:send(answer); end } };
	end

	-- An IQ or a message comes in, and no other module wants it.
	-- (stanza) -> stanzas that leave
	local function receive(stanza)
		local event = event_of(stanza);
		if stanza.name == "message" then
			assert.is_true(handlers.on_message(event));
		elseif not handlers.on_iq_first(event) then
			assert.is_true(handlers.on_iq_last(event));
		end
		return module:take_sent();
	end

	-- (attr, payload) -> the one stanza that leaves
	local function receive_iq(attr, payload)
		local sent = receive(iq(attr, payload));
		assert.equal(1, #sent);
		return sent[1];
	end

	-- A request from the requester to the proxy, but for what `attr` says
	local function request(attr)
		attr = attr or {};
		return receive_iq {
			type = attr.type or "get", id = attr.id or "1234", from = attr.from or REQUESTER, to = attr.to or PROXY,
		};
	end

	-- The answer to a request that a backend got, but for what `attr` says
	local function answer_to(stanza, attr)
		attr = attr or {};
		return iq({
			type = attr.type or "result", id = attr.id or stanza.attr.id,
			from = attr.from or stanza.attr.to, to = attr.to or stanza.attr.from,
		}, false);
	end

	local function assert_error(stanza, from, to, id, type, condition)
		assert.same({ type = "error", from = from, to = to, id = id }, stanza.attr);
		local actual_type, actual_condition, text = stanza:get_error();
		assert.same({ type, condition }, { actual_type, actual_condition });
		assert.is_string(text);
		assert.not_equal("", text);
		assert.equal(1, #stanza);
		assert.equal(2, #stanza.tags[1]);
	end

	local function assert_dropped(stanza)
		local before = counts.unmatched_answers or 0;
		assert.is_nil(handlers.on_iq_first(event_of(st.clone(stanza))));
		assert.equal(before, counts.unmatched_answers or 0);
		assert.is_true(handlers.on_iq_last(event_of(stanza)));
		assert.same({}, module:take_sent());
		assert.equal(before + 1, counts.unmatched_answers);
	end

	-- The timer is due. -> when it is due again, stanzas that leave
	local function fire()
		module:fire_timer();
		local following = module:running_timer();
		return following and following.delay, module:take_sent();
	end

	describe("that are dispatched", function ()
		it("follow the example of the design to the letter", function ()
			local token = jat:encode(REQUESTER);

			local sent = receive(parse_xml("<iq type='get' id='1234' to='proxy.domain.example' from='user@some-domain.example/abc'>"
				..QUERY.."</iq>"));
			assert.equal(1, #sent);
			assert_stanza("<iq type='get' id='1234' to='some-user@some-domain.example/a' from='proxy.domain.example/"..token.."'>"
				..QUERY.."</iq>", sent[1]);

			sent = receive(parse_xml("<iq type='result' id='1234' to='proxy.domain.example/"..token.."' from='some-user@some-domain.example/a'>"
				..QUERY.."</iq>"));
			assert.equal(1, #sent);
			assert_stanza("<iq type='result' id='1234' to='user@some-domain.example/abc' from='proxy.domain.example'>"
				..QUERY.."</iq>", sent[1]);

			assert.equal(0, #pending);
			assert.is_nil(counts.unmatched_answers);
		end);

		for service, bare in pairs {
			[PROXY] = PROXY, [PROXY.."/thing"] = PROXY,
			["node@"..PROXY] = "node@"..PROXY, ["node@"..PROXY.."/thing"] = "node@"..PROXY,
			["node@"..PROXY.."/some/thing@else"] = "node@"..PROXY,
		} do
			it("are answered from the service address they were sent to: "..service, function ()
				local dispatched = request { to = service };
				assert.same({ type = "get", id = "1234", from = bare.."/"..jat:encode(REQUESTER), to = BACKEND }, dispatched.attr);
				local answered = receive(answer_to(dispatched));
				assert.equal(1, #answered);
				assert.same({ type = "result", id = "1234", from = service, to = REQUESTER }, answered[1].attr);
			end);
		end

		it("keep their payload and id, and so do their answers", function ()
			local payload = "<query xmlns='a:b' x='1 &lt; &quot;2&quot;'> text <deep xmlns='c:d'><er/>ü</deep>\n</query>";
			local id = "&lt;&amp;&gt; &quot;é";
			local dispatched = receive(parse_xml("<iq type='set' xml:lang='de' id='"..id.."' from='"..REQUESTER.."' to='"..PROXY.."'>"
				..payload.."</iq>"))[1];
			assert_stanza(("<iq type='set' xml:lang='de' id='%s' from='%s' to='%s'>%s</iq>")
				:format(id, PROXY.."/"..jat:encode(REQUESTER), BACKEND, payload), dispatched);
			local answered = receive(parse_xml(("<iq type='result' xml:lang='fr' id='%s' from='%s' to='%s'>%s<more xmlns='x:y'/></iq>")
				:format(id, BACKEND, dispatched.attr.from, payload)))[1];
			assert_stanza(("<iq type='result' xml:lang='fr' id='%s' from='%s' to='%s'>%s<more xmlns='x:y'/></iq>")
				:format(id, PROXY, REQUESTER, payload), answered);
		end);

		it("are first offered to other modules, as Prosody does", function ()
			for _, type in ipairs { "get", "set" } do
				assert.is_nil(handlers.on_iq_first(event_of(iq { type = type, id = "1", from = REQUESTER, to = PROXY })));
				assert.same({}, module.sent);
				assert.equal(0, #pending);
			end
		end);

		it("are pending before they are sent", function ()
			local found = {};
			function module.send()
				table.insert(found, #pending);
			end
			local event = event_of(iq { type = "get", id = "1234", from = REQUESTER, to = PROXY });
			assert.is_nil(handlers.on_iq_first(event));
			assert.is_true(handlers.on_iq_last(event));
			assert.same({ 1 }, found);
		end);

		it("are not sent when there is no memory to have them pending", function ()
			local function add()
				return nil, "no-memory";
			end
			pending = { add = add, deadline = function () end, set_limits = function () end, has_abandoned = function () return false; end };
			handlers = new_handlers(nil, { pool = { pick = function () return BACKEND; end } });
			assert_error(request(), PROXY, REQUESTER, "1234", "wait", "resource-constraint");
			assert.same({}, module.timers);
		end);

		it("are refused when there is no backend", function ()
			pool:remove(BACKEND);
			assert_error(request { to = "node@"..PROXY.."/thing" },
				"node@"..PROXY.."/thing", REQUESTER, "1234", "cancel", "service-unavailable");
			assert.equal(0, #pending);
			assert.same({}, module.timers);
		end);

		it("never go to the backend that asks", function ()
			assert_error(request { from = BACKEND }, PROXY, BACKEND, "1234", "cancel", "service-unavailable");
			pool:add(OTHER_BACKEND);
			for n = 1, 50 do
				assert.equal(OTHER_BACKEND, request({ from = BACKEND, id = "a"..n }).attr.to);
				assert.equal(BACKEND, request({ from = OTHER_BACKEND, id = "b"..n }).attr.to);
			end
		end);

		it("go to every backend in the course of time", function ()
			pool:add(OTHER_BACKEND);
			local got = {};
			for n = 1, 100 do
				got[request({ id = "n"..n }).attr.to] = true;
			end
			assert.same({ [BACKEND] = true, [OTHER_BACKEND] = true }, got);
		end);

		it("have a digest as token when the requester's address is long, and are answered", function ()
			local requester = ("n"):rep(1023).."@"..("h"):rep(1023).."/"..("r"):rep(1023);
			local dispatched = request { from = requester };
			assert.truthy(dispatched.attr.from:match("^proxy%.domain%.example/d[%w_-]+$"));
			assert.equal(33, #dispatched.attr.from - #PROXY - 1);
			local answered = receive(answer_to(dispatched));
			assert.equal(1, #answered);
			assert.same({ type = "result", id = "1234", from = PROXY, to = requester }, answered[1].attr);
		end);

		it("are refused when the requester's address is longer than any", function ()
			local requester = ("n"):rep(1024).."@"..("h"):rep(1023).."/"..("r"):rep(1023);
			assert_error(request { from = requester }, PROXY, requester, "1234", "modify", "jid-malformed");
			assert.equal(0, #pending);
			assert.same({}, module.timers);
		end);
	end);

	describe("that are malformed", function ()
		local function assert_bad_request(stanza)
			local id = stanza.attr.id;
			assert.is_true(handlers.on_iq_first(event_of(stanza)));
			local sent = module:take_sent();
			assert.equal(1, #sent);
			assert_error(sent[1], PROXY, REQUESTER, id, "modify", "bad-request");
			assert.equal(0, #pending);
			assert.is_nil(counts.unmatched_answers);
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
			local dispatched = request();
			for n, type in ipairs { "result", "error" } do
				assert.is_true(handlers.on_iq_first(event_of(iq { type = type, from = BACKEND, to = dispatched.attr.from })));
				assert.same({}, module.sent);
				assert.equal(n, counts.unmatched_answers);
				assert.equal(1, #pending);
			end
		end);
	end);

	describe("that are pending", function ()
		it("are settled before any other module sees the answer", function ()
			local dispatched = request();
			assert.is_true(handlers.on_iq_first(event_of(answer_to(dispatched))));
			assert.equal(1, #module:take_sent());
			assert.equal(0, #pending);
		end);

		it("are settled by an error as well, which is delivered as it is", function ()
			local failure = "<error type='auth' by='x.example'><forbidden xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>";
			local dispatched = request();
			local sent = receive(parse_xml(("<iq type='error' id='1234' from='%s' to='%s'>%s%s</iq>")
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
					local dispatched = request();
					pool:add(OTHER_BACKEND);
					assert_dropped(answer_to(dispatched, {
						type = answer_type, from = difference.from, id = difference.id,
						to = difference.to and difference.to:gsub("TOKEN", (jat:encode(REQUESTER))),
					}));
					assert.equal(1, #pending);
					assert.equal(1, #receive(answer_to(dispatched)));
					assert.equal(1, counts.unmatched_answers);
				end);
			end
		end

		it("are not settled by an answer with another requester's token", function ()
			local mine, others = request(), request { from = REQUESTER.."d" };
			assert.not_equal(mine.attr.from, others.attr.from);
			local sent = receive(answer_to(mine, { to = others.attr.from }));
			assert.equal(REQUESTER.."d", sent[1].attr.to);
			assert_dropped(answer_to(others));
			assert.equal(REQUESTER, receive(answer_to(mine))[1].attr.to);
		end);

		it("are answered once, however often the backend answers", function ()
			local dispatched = request();
			assert.equal(1, #receive(answer_to(dispatched)));
			assert_dropped(answer_to(dispatched));
			assert_dropped(answer_to(dispatched, { type = "error" }));
		end);

		it("are answered first in, first out where they are equal", function ()
			local dispatched;
			for n = 1, 3 do
				clock.now = 5000 + n;
				dispatched = request { to = PROXY.."/thing" };
			end
			assert.equal(3, #pending);
			clock.now = 5010;
			for _ = 1, 3 do
				local sent = receive(answer_to(dispatched));
				assert.equal(1, #sent);
				assert.same({ type = "result", id = "1234", from = PROXY.."/thing", to = REQUESTER }, sent[1].attr);
			end
			assert.same({ 9, 8, 7 }, answer_times);
			assert_dropped(answer_to(dispatched));
		end);

		it("are answered even when their backend has gone", function ()
			local dispatched = request();
			pool:remove(BACKEND);
			assert.equal(1, #receive(answer_to(dispatched)));
		end);
	end);

	describe("to a token", function ()
		local function assert_refused(from, to, condition)
			for _, type in ipairs { "get", "set" } do
				local stanza = iq { type = type, id = "1234", from = from, to = to };
				assert.is_true(handlers.on_iq_first(event_of(stanza)));
				local sent = module:take_sent();
				assert.equal(1, #sent);
				assert_error(sent[1], to, from, "1234", "cancel", condition);
			end
			assert.equal(0, #pending);
		end

		local function assert_dispatched(from, to)
			pool:add(OTHER_BACKEND);
			local dispatched = request { from = from, to = to };
			assert.equal(to:match("^[^/]*").."/"..jat:encode(from), dispatched.attr.from);
			assert.equal(to, receive(answer_to(dispatched))[1].attr.from);
		end

		local DIGEST = "d"..("A-_z"):rep(8);
		local token;
		before_each(function ()
			token = jat:encode(REQUESTER);
		end);

		for _, service in ipairs { PROXY, "node@"..PROXY } do
			for _, from in ipairs { BACKEND, OTHER_BACKEND, TARGET } do
				it(("are not implemented from %s, at %s"):format(from, service), function ()
					assert_refused(from, service.."/"..token, "feature-not-implemented");
					assert_refused(from, service.."/"..DIGEST, "feature-not-implemented");
				end);
			end

			for _, from in ipairs { REQUESTER, "x"..BACKEND, TARGET..".example/a", "some-domain.example" } do
				it(("are refused from the stranger %s, at %s"):format(from, service), function ()
					assert_refused(from, service.."/"..token, "service-unavailable");
				end);

				it(("are dispatched from the stranger %s when it only looks like a digest, at %s"):format(from, service), function ()
					assert_dispatched(from, service.."/"..DIGEST);
				end);
			end

			it("are dispatched when it is none after all, at "..service, function ()
				local forged = token:sub(1, 39)..(token:sub(40, 40) == "A" and "B" or "A")..token:sub(41);
				local others = core.jat(PROXY, "sealed");
				others:add_key(8, ("o"):rep(core.JAT_KEYBYTES));
				for _, resource in ipairs { forged, others:encode(REQUESTER), token.."AAAA", token:sub(2), DIGEST:sub(1, -2), DIGEST.."A", "s", "d", "thing" } do
					for _, from in ipairs { REQUESTER, BACKEND } do
						assert_dispatched(from, service.."/"..resource);
					end
				end
			end);
		end

		describe("in the signed format", function ()
			before_each(function ()
				use_format("signed");
				token = jat:encode(REQUESTER);
			end);

			it("are not implemented from a backend", function ()
				assert_refused(BACKEND, PROXY.."/"..token, "feature-not-implemented");
				assert_refused(BACKEND, PROXY.."/"..DIGEST, "feature-not-implemented");
			end);

			it("are refused from a stranger", function ()
				assert_refused("some-domain.example", PROXY.."/"..token, "service-unavailable");
			end);

			it("are dispatched when it is none after all", function ()
				for _, resource in ipairs { token:sub(1, -2), "x"..token, "x@y", "x@y#"..("A"):rep(22), "thing" } do
					assert_dispatched(REQUESTER, PROXY.."/"..resource);
					assert_dispatched(BACKEND, PROXY.."/"..resource);
				end
			end);
		end);

		describe("in the plain format", function ()
			before_each(function ()
				use_format("plain");
			end);

			for _, resource in ipairs { "x@y", REQUESTER, DIGEST } do
				it("are not implemented from a backend: "..resource, function ()
					for _, from in ipairs { BACKEND, OTHER_BACKEND, TARGET } do
						assert_refused(from, PROXY.."/"..resource, "feature-not-implemented");
						assert_refused(from, "node@"..PROXY.."/"..resource, "feature-not-implemented");
					end
				end);

				it("are dispatched from anybody else: "..resource, function ()
					for _, from in ipairs { REQUESTER, "some-domain.example" } do
						assert_dispatched(from, PROXY.."/"..resource);
						assert_dispatched(from, "node@"..PROXY.."/"..resource);
					end
				end);
			end

			it("are dispatched when it could be anything", function ()
				for _, resource in ipairs { "thing", "some-domain.example", "@", "x@", "@y" } do
					assert_dispatched(REQUESTER, PROXY.."/"..resource);
					assert_dispatched(BACKEND, PROXY.."/"..resource);
				end
			end);
		end);

		it("are malformed first of all", function ()
			local sent = receive(iq({ type = "get", id = "1234", from = BACKEND, to = PROXY.."/"..token }, false));
			assert.equal(1, #sent);
			assert_error(sent[1], PROXY.."/"..token, BACKEND, "1234", "modify", "bad-request");
		end);
	end);

	describe("that no backend answers in time", function ()
		it("are answered with an error from the service address", function ()
			for _, type in ipairs { "get", "set" } do
				request { to = "node@"..PROXY.."/thing", type = type };
				clock.now = clock.now + TIMEOUT;
				local delay, sent = fire();
				assert.is_nil(delay);
				assert.equal(1, #sent);
				assert_error(sent[1], "node@"..PROXY.."/thing", REQUESTER, "1234", "wait", "remote-server-timeout");
				assert.equal(0, #pending);
			end
		end);

		it("are not answered before", function ()
			request();
			assert.equal(TIMEOUT, module.timers[1].delay);
			clock.now = clock.now + TIMEOUT - 0.5;
			local delay, sent = fire();
			assert.equal(0.5, delay);
			assert.same({}, sent);
			assert.equal(1, #pending);
		end);

		it("expire when it is their turn, the oldest first", function ()
			for n = 1, 4 do
				request { id = "n"..n, from = REQUESTER..n };
				clock.now = clock.now + 10;
			end
			clock.now = 5000 + TIMEOUT + 10;
			local delay, sent = fire();
			assert.equal(10, delay);
			assert.same({ "n1", "n2" }, { sent[1].attr.id, sent[2].attr.id });
			assert.same({ REQUESTER.."1", REQUESTER.."2" }, { sent[1].attr.to, sent[2].attr.to });
			assert.equal(2, #sent);
			clock.now = clock.now + 30;
			delay, sent = fire();
			assert.is_nil(delay);
			assert.same({ "n3", "n4" }, { sent[1].attr.id, sent[2].attr.id });
			assert.equal(2, #sent);
		end);

		it("are waited for with one timer, which ends with the last of them", function ()
			request { id = "n1" };
			clock.now = clock.now + 1;
			local dispatched = request { id = "n2" };
			clock.now = clock.now + TIMEOUT - 1;
			assert.equal(1, (fire()));
			request { id = "n3" };
			receive(answer_to(dispatched));
			clock.now = clock.now + 1;
			assert.equal(TIMEOUT - 1, (fire()));
			clock.now = clock.now + TIMEOUT - 1;
			local delay, sent = fire();
			assert.is_nil(delay);
			assert.equal("n3", sent[1].attr.id);

			clock.now = clock.now + 100;
			request { id = "n4" };
			assert.equal(TIMEOUT, module:running_timer().delay);
		end);

		it("are all answered though another module's handler throws on one of the answers", function ()
			for n = 1, 3 do
				request { id = "n"..n };
			end
			clock.now = clock.now + TIMEOUT;
			local send = module.send;
			function module.send()
				module.send = send;
				error("thrown");
			end
			assert.error(fire, "thrown");
			local delay, sent = fire();
			assert.is_nil(delay);
			assert.equal(2, #sent);
		end);

		it("are not answered again when they were in time", function ()
			receive(answer_to(request()));
			clock.now = clock.now + TIMEOUT;
			local delay, sent = fire();
			assert.is_nil(delay);
			assert.same({}, sent);
		end);

		it("get no second answer from a backend that is late", function ()
			local dispatched = request();
			clock.now = clock.now + TIMEOUT;
			fire();
			assert_dropped(answer_to(dispatched));
		end);

		it("expire one by one where they are equal", function ()
			local dispatched = request();
			clock.now = clock.now + 10;
			request();
			clock.now = clock.now + TIMEOUT - 10;
			local delay, sent = fire();
			assert.equal(10, delay);
			assert.equal(1, #sent);
			assert.equal("remote-server-timeout", select(2, sent[1]:get_error()));
			assert.equal(1, #receive(answer_to(dispatched)));
			assert_dropped(answer_to(dispatched));
		end);

		it("leave room for others when they are many: no more than 100 at a time", function ()
			for n = 1, 240 do
				request { id = "n"..n };
			end
			clock.now = clock.now + TIMEOUT;
			local seen, slices = {}, {};
			local delay, sent;
			repeat
				delay, sent = fire();
				table.insert(slices, #sent);
				for _, stanza in ipairs(sent) do
					assert.is_nil(seen[stanza.attr.id]);
					seen[stanza.attr.id] = true;
				end
				assert.truthy(delay == nil or delay <= 0);
			until not delay;
			assert.same({ 100, 100, 40 }, slices);
			assert.equal(0, #pending);
		end);
	end);

	describe("that a reload carries over", function ()
		before_each(function ()
			request { id = "n1" };
			clock.now = clock.now + 10;
			request { id = "n2" };
			clock.now = clock.now + 5;
			module.timers = {};
		end);

		it("time out when they would have", function ()
			handlers = new_handlers();
			assert.equal(TIMEOUT - 15, module:running_timer().delay);
			clock.now = clock.now + TIMEOUT - 15;
			local delay, sent = fire();
			assert.equal(10, delay);
			assert.equal(1, #sent);
			assert_error(sent[1], PROXY, REQUESTER, "n1", "wait", "remote-server-timeout");
		end);

		it("time out at once when they are overdue", function ()
			clock.now = clock.now + 2 * TIMEOUT;
			handlers = new_handlers();
			assert.equal(0, module.timers[1].delay);
			local delay, sent = fire();
			assert.is_nil(delay);
			assert.equal(2, #sent);
		end);

		it("share their timer with new ones", function ()
			handlers = new_handlers();
			request { id = "n3" };
			assert.equal(TIMEOUT - 15, module:running_timer().delay);
		end);

		it("do not let new ones with a shorter timeout wait for their own deadline", function ()
			handlers = new_handlers(5);
			request { id = "n3" };
			assert.equal(5, module:running_timer().delay);
			clock.now = clock.now + 5;
			local delay, sent = fire();
			assert.equal(TIMEOUT - 20, delay);
			assert.equal(1, #sent);
			assert_error(sent[1], PROXY, REQUESTER, "n3", "wait", "remote-server-timeout");
		end);

		it("are settled", function ()
			handlers = new_handlers();
			local sent = receive(iq({ type = "result", id = "n1", from = BACKEND, to = PROXY.."/"..jat:encode(REQUESTER) }, false));
			assert.equal(1, #sent);
			assert.same({ type = "result", id = "n1", from = PROXY, to = REQUESTER }, sent[1].attr);
		end);
	end);

	describe("whose backend goes", function ()
		local OTHER = TARGET.."/b";

		-- The backend is gone, and what is due at once is done. -> stanzas that leave
		local function go(backend)
			pool:remove(backend);
			handlers.on_backend_gone(backend);
			assert.same({}, module.sent);
			assert.same({}, module:pass(0));
			return module:take_sent();
		end

		it("are handed to another when they are a get, with the same id, token and payload", function ()
			local first = request { to = "node@"..PROXY.."/thing" };
			pool:add(OTHER);
			local sent = go(BACKEND);
			assert.equal(1, #sent);
			assert.equal(OTHER, sent[1].attr.to);
			first.attr.to = OTHER;
			assert.equal(canonical(first), canonical(sent[1]));
			local answered = receive(answer_to(sent[1]));
			assert.same({ "node@"..PROXY.."/thing", REQUESTER }, { answered[1].attr.from, answered[1].attr.to });
			assert.equal(0, #pending);
		end);

		it("keep their deadline", function ()
			request();
			pool:add(OTHER);
			clock.now = clock.now + 10;
			go(BACKEND);
			assert.equal(5000 + TIMEOUT, pending:deadline());
		end);

		it("get service-unavailable when they are a set", function ()
			request { type = "set", to = "node@"..PROXY.."/thing" };
			pool:add(OTHER);
			local sent = go(BACKEND);
			assert.equal(1, #sent);
			assert_error(sent[1], "node@"..PROXY.."/thing", REQUESTER, "1234", "cancel", "service-unavailable");
		end);

		it("get service-unavailable when there is no other backend", function ()
			request();
			local sent = go(BACKEND);
			assert.equal(1, #sent);
			assert_error(sent[1], PROXY, REQUESTER, "1234", "cancel", "service-unavailable");
			assert.equal(0, #pending);
		end);

		it("get service-unavailable when there is no other than who asks", function ()
			request { from = OTHER };
			pool:add(OTHER);
			assert_error(go(BACKEND)[1], PROXY, OTHER, "1234", "cancel", "service-unavailable");
		end);

		for retries = 0, 3 do
			it(("are handed on %d times with client_proxy_retries = %d"):format(retries, retries), function ()
				handlers = new_handlers(nil, { retries = retries });
				local backend = request().attr.to;
				for number = 1, retries do
					pool:add(TARGET.."/"..number);
					local sent = go(backend);
					backend = TARGET.."/"..number;
					assert.equal(backend, sent[1].attr.to);
				end
				pool:add(OTHER);
				assert_error(go(backend)[1], PROXY, REQUESTER, "1234", "cancel", "service-unavailable");
			end);
		end

		it("are handed on in slices", function ()
			for number = 1, 240 do
				request { id = "n"..number };
			end
			pool:add(OTHER);
			pool:remove(BACKEND);
			handlers.on_backend_gone(BACKEND);
			for _, count in ipairs { 100, 100, 40 } do
				local timer = module.timers[#module.timers];
				assert.equal(0, timer.delay);
				timer.fired = true;
				assert.is_nil(timer.callback());
				assert.equal(count, #module:take_sent());
			end
			assert.equal(240, #pending);
			assert.equal(240, pending:count(OTHER));
			assert.equal(TIMEOUT, module:running_timer().delay);
		end);

		it("are handed on in slices, however many backends had them that go at once", function ()
			pool:remove(BACKEND);
			for number = 1, 240 do
				local backend = TARGET.."/"..number;
				pool:add(backend);
				assert.equal(backend, request({ id = "n"..number }).attr.to);
				pool:remove(backend);
			end
			pool:add(OTHER);
			for number = 1, 240 do
				handlers.on_backend_gone(TARGET.."/"..number);
			end
			assert.same({}, module:take_sent());
			for _, count in ipairs { 100, 100, 40 } do
				module:fire_slice();
				assert.equal(count, #module:take_sent());
			end
			assert.equal(240, pending:count(OTHER));
		end);

		it("are not the business of who comes with the same address", function ()
			local dispatched = request();
			pool:remove(BACKEND);
			handlers.on_backend_gone(BACKEND);
			pool:add(BACKEND);
			assert_dropped(answer_to(dispatched));
			local second = request { id = "5678" };
			assert.equal(BACKEND, second.attr.to);
			assert.same({}, module:pass(0));
			local sent = module:take_sent();
			assert.equal(1, #sent);
			assert_error(sent[1], PROXY, REQUESTER, "1234", "cancel", "service-unavailable");
			assert.equal(1, #receive(answer_to(second)));
			assert.equal(0, #pending);
		end);

		it("end with their deadline if that comes first, once", function ()
			request();
			pool:add(OTHER);
			pool:remove(BACKEND);
			handlers.on_backend_gone(BACKEND);
			clock.now = clock.now + TIMEOUT;
			module.timers[1].callback(); -- the one for deadlines
			assert.equal("remote-server-timeout", select(2, module:take_sent()[1]:get_error()));
			assert.same({}, module:pass(0));
			assert.same({}, module:take_sent());
		end);

		it("are answered, each once, when the pending table takes them no more", function ()
			for number = 1, 3 do
				request { id = "n"..number };
			end
			handlers = new_handlers(nil, { max_pending = 1 }); -- as after a reload
			pool:add(OTHER);
			local sent, became = go(BACKEND), {};
			assert.equal(3, #sent);
			for _, stanza in ipairs(sent) do
				became[stanza.attr.to] = (became[stanza.attr.to] or 0) + 1;
			end
			assert.same({ [OTHER] = 1, [REQUESTER] = 2 }, became);
			assert.same({ backend_gone = 2, retries = 1 }, counts);
			assert.equal(1, #pending);
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
					receive_iq({ type = "get", id = id, from = REQUESTER, to = PROXY }, new_payload(bytes));
				end
				pool:add(OTHER);
				local sent, became = go(BACKEND), {};
				assert.equal(3, #sent); -- each of them once
				for _, stanza in ipairs(sent) do
					became[stanza.attr.id] = stanza.attr.type.." to "..stanza.attr.to;
				end
				assert.same({ small = "get to "..OTHER, large = "error to "..REQUESTER, ["very large"] = "error to "..REQUESTER }, became);
			end);
		end

		it("are handed on after a reload", function ()
			request();
			handlers.stop_timers();
			handlers = new_handlers();
			pool:add(OTHER);
			assert.equal(OTHER, go(BACKEND)[1].attr.to);
		end);
	end);

	describe("whose backend cannot be reached", function ()
		local OTHER = TARGET.."/b";

		-- A server's error instead of the backend's answer. -> stanzas that leave
		local function bounce(dispatched, origin)
			local stanza = st.error_reply(dispatched, "cancel", "service-unavailable");
			assert.is_true(handlers.on_iq_first { stanza = stanza, origin = origin });
			return module:take_sent();
		end

		for name, origin in pairs {
			["our own server says so of its client"] = { type = "local", host = "some-domain.example" },
			["our own server says so of the target's server"] = { dummy = true },
		} do
			it("are handed on, and it is dropped, when "..name, function ()
				module.prosody.hosts["some-domain.example"] = origin.host and origin;
				local dispatched = request();
				pool:add(OTHER);
				local sent = bounce(dispatched, origin);
				assert.equal(OTHER, sent[1].attr.to);
				assert.equal(1, #sent);
				assert.same({ BACKEND }, lost);
			end);
		end

		it("are handed on when the target's server says so of what is no backend any more", function ()
			local dispatched = request();
			pool:remove(BACKEND);
			pool:add(OTHER);
			local sent = bounce(dispatched, {});
			assert.equal(OTHER, sent[1].attr.to);
		end);

		it("get the same error as an answer when the backend sent it", function ()
			module.prosody.hosts["some-domain.example"] = { type = "local", host = "some-domain.example" };
			for _, origin in ipairs { { host = "some-domain.example" }, {} } do
				local dispatched = request();
				pool:add(OTHER);
				local sent = bounce(dispatched, origin);
				assert.equal(1, #sent);
				assert.equal(REQUESTER, sent[1].attr.to);
				assert.equal("service-unavailable", select(2, sent[1]:get_error()));
				assert.same({}, lost);
				pool:remove(OTHER);
			end
		end);
	end);

	describe("whose backend is in doubt", function ()
		local OTHER = TARGET.."/b";

		-- Sends requests, each of its own id, all of them to BACKEND.
		local function ask(count, type)
			for number = 1, count do
				assert.equal(BACKEND, request({ id = (type or "get")..number, type = type }).attr.to);
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
			pool:set_state(backend, "suspended");
			handlers.on_backend_away(backend);
		end

		local function come_back(backend)
			pool:set_state(backend, "ready");
			handlers.on_backend_back(backend);
		end

		it("are handed on if they are gets, and wait if they are sets", function ()
			ask(3);
			ask(2, "set");
			pool:add(OTHER);
			doubt(BACKEND);
			assert.same({ [OTHER] = { "get1", "get2", "get3" } }, take());
			assert.same({ 2, 3 }, { pending:count(BACKEND), pending:count(OTHER) });
		end);

		it("wait when the other one is not ready either, and are handed on when it is and that is told", function ()
			ask(3);
			for _, state in ipairs { "suspended", "away" } do
				pool:add(OTHER);
				pool:set_state(OTHER, state);
				doubt(BACKEND);
				assert.same({}, take());
			end
			pool:set_state(OTHER, "ready");
			handlers.on_backend_away(BACKEND);
			assert.same({ [OTHER] = { "get1", "get2", "get3" } }, take());
		end);

		it("wait for it when the only one that is ready is their requester, whatever happens then", function ()
			request { from = OTHER };
			pool:add(OTHER);
			doubt(BACKEND);
			assert.same({}, take());
			assert.equal(1, pending:count(BACKEND));
			pool:add(TARGET.."/c");
			handlers.on_backend_away(BACKEND);
			assert.same({}, take());
		end);

		it("stay where they are when it is ready again before they are handed on, with or without another one", function ()
			handlers = new_handlers(nil, { retries = 3 });
			ask(3);
			doubt(BACKEND);
			pool:set_state(BACKEND, "ready");
			assert.same({}, take());
			pool:add(OTHER);
			doubt(BACKEND);
			pool:set_state(BACKEND, "ready");
			assert.same({}, take());
			assert.equal(3, pending:count(BACKEND));
		end);

		it("stay where they are from when it is ready again on, in the middle of that", function ()
			ask(5);
			pool:add(OTHER);
			local count = 0;
			function module:send(stanza)
				count = count + 1;
				if count == 2 then
					pool:set_state(BACKEND, "ready");
				end
				getmetatable(self).__index.send(self, stanza);
			end
			doubt(BACKEND);
			assert.same({ [OTHER] = { "get1", "get2" } }, take());
		end);

		it("are handed on no more once nobody is ready, in the middle of that", function ()
			ask(5);
			pool:add(OTHER);
			function module:send(stanza)
				pool:set_state(OTHER, "suspended");
				getmetatable(self).__index.send(self, stanza);
			end
			doubt(BACKEND);
			assert.same({ [OTHER] = { "get1" } }, take());
			assert.equal(4, pending:count(BACKEND));
		end);

		describe("after a stream broke", function ()
			before_each(function ()
				handlers = new_handlers(nil, { retries = 3 });
				ask(3);
				ask(2, "set");
				module:pass(0.1);
				handlers.on_stream_broken();
				pool:set_state(BACKEND, "suspended");
				module:pass(0.1);
			end);

			it("are sent again when it is back, once, to itself if there is no other, if they are gets", function ()
				come_back(BACKEND);
				assert.same({ [BACKEND] = { "get1", "get2", "get3" } }, take());
				assert.equal(3, counts.retries);
				module:pass(0.1);
				come_back(BACKEND);
				assert.same({ [BACKEND] = { "get1", "get2", "get3" } }, take()); -- it was in doubt once more
				assert.equal(5, pending:count(BACKEND));
				module:pass(0);
				assert.same({}, take());
			end);

			it("are sent again to itself when the other one is in doubt", function ()
				pool:add(OTHER);
				pool:set_state(OTHER, "suspended");
				come_back(BACKEND);
				assert.same({ [BACKEND] = { "get1", "get2", "get3" } }, take());
			end);

			it("are sent again to another one that is ready, rather", function ()
				pool:add(OTHER);
				come_back(BACKEND);
				assert.same({ [OTHER] = { "get1", "get2", "get3" } }, take());
				module:pass(0.1);
				pool:set_state(OTHER, "suspended");
				come_back(OTHER);
				assert.same({ [BACKEND] = { "get1", "get2", "get3" } }, take());
			end);

			it("are not sent again when they came after it was back", function ()
				come_back(BACKEND);
				take();
				request { id = "new" };
				assert.same({}, take());
				assert.equal(1, #receive(answer_to(iq { type = "get", id = "new", from = PROXY.."/"..jat:encode(REQUESTER), to = BACKEND })));
			end);

			it("are not sent again when it is back after 4 seconds or more", function ()
				module:pass(3.9);
				come_back(BACKEND);
				assert.same({}, take());
				module:pass(100);
				assert.is_nil(counts.retries);
			end);

			it("get remote-server-timeout 4 seconds after that if they cannot be sent again and are not answered", function ()
				come_back(BACKEND);
				take();
				local answered = receive(iq({ type = "result", id = "set1", from = BACKEND, to = PROXY.."/"..jat:encode(REQUESTER) }, false));
				assert.equal("set1", answered[1].attr.id);
				module:pass(3.8);
				request { id = "new", type = "set" };
				assert.same({}, module:take_sent());
				module:pass(0.1);
				local sent = module:take_sent();
				assert.equal(1, #sent);
				assert_error(sent[1], PROXY, REQUESTER, "set2", "wait", "remote-server-timeout");
				assert.equal(1, counts.backend_gone);
				assert.equal(4, pending:count(BACKEND)); -- the gets, and the new one
				module:pass(20);
				assert.same({}, module:take_sent());
			end);

			it("wait on if nobody knows yet whether it is there", function ()
				module:pass(20);
				assert.same({}, module:take_sent());
				assert.equal(5, pending:count(BACKEND));
				pool:remove(BACKEND);
				handlers.on_backend_gone(BACKEND);
				module:pass(0);
				assert.equal(5, #module:take_sent());
			end);

			it("are waited for 4 seconds anew when another one breaks", function ()
				come_back(BACKEND);
				take();
				module:pass(2);
				handlers.on_stream_broken();
				module:pass(2.5);
				assert.same({}, module:take_sent());
				come_back(BACKEND);
				take();
				module:pass(1.4);
				assert.same({}, module:take_sent());
				module:pass(0.1);
				local sent = module:take_sent();
				assert.same({ 2, "error" }, { #sent, sent[1].attr.type });
				assert.equal(3, pending:count(BACKEND));
			end);

			it("are given up a hundred at a time", function ()
				for number = 1, 240 do
					request { id = "more"..number, type = "set" };
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
				assert.equal(3, #pending);
			end);

			it("leave no timer when the module goes", function ()
				come_back(BACKEND);
				handlers.stop_timers();
				assert.same({}, module:running_timers());
				handlers.on_stream_broken();
				assert.same({}, module:running_timers());
			end);
		end);
	end);

	describe("that are answered with an error that a server may have sent in the backend's place", function ()
		local OTHER = TARGET.."/b";

		-- -> stanzas that leave when that comes by a stream
		local function doubtful(dispatched, condition)
			return receive(st.error_reply(dispatched, "cancel", condition or "service-unavailable"));
		end

		it("get it, and the backend is suspected, as long as that is ready", function ()
			local dispatched = request();
			pool:add(OTHER);
			local sent = doubtful(dispatched);
			assert.equal(1, #sent);
			assert.same({ REQUESTER, "service-unavailable" }, { sent[1].attr.to, (select(2, sent[1]:get_error())) });
			assert.same({ { BACKEND }, {}, {} }, { suspected, alive, lost });
			assert.equal(1, counts.error);
		end);

		it("go to another that is ready when the backend is not, if they are gets", function ()
			for _, state in ipairs { "suspended", "away" } do
				pool:set_state(BACKEND, "ready");
				pool:remove(OTHER);
				local dispatched = request { id = state };
				pool:add(OTHER);
				pool:set_state(BACKEND, state);
				local sent = doubtful(dispatched);
				assert.equal(1, #sent);
				assert.same({ "get", OTHER, state }, { sent[1].attr.type, sent[1].attr.to, sent[1].attr.id });
			end
			assert.same({ retries = 2 }, counts);
			assert.same({ {}, {}, {} }, { suspected, alive, lost });
		end);

		it("get it when the backend is not ready, and no other is", function ()
			local dispatched = request();
			pool:add(OTHER);
			pool:set_state(BACKEND, "suspended");
			pool:set_state(OTHER, "suspended");
			assert.equal(REQUESTER, doubtful(dispatched)[1].attr.to);
		end);

		it("get it when they are sets, or gets that cannot be sent again", function ()
			handlers = new_handlers(nil, { retries = 0 });
			local dispatched = { request { id = "set", type = "set" }, request { id = "get" } };
			pool:add(OTHER);
			pool:set_state(BACKEND, "suspended");
			for _, stanza in ipairs(dispatched) do
				local sent = doubtful(stanza);
				assert.same({ "error", REQUESTER, stanza.attr.id }, { sent[1].attr.type, sent[1].attr.to, sent[1].attr.id });
			end
		end);

		it("get any other, though the backend is not ready, which is alive then", function ()
			local dispatched = request();
			pool:add(OTHER);
			pool:set_state(BACKEND, "suspended");
			assert.equal(REQUESTER, doubtful(dispatched, "not-acceptable")[1].attr.to);
			assert.same({ { BACKEND }, {} }, { alive, suspected });
		end);
	end);

	it("tell of each backend that answers that it is alive, after the answer was sent", function ()
		local dispatched = request();
		local sent_before;
		handlers = new_handlers(nil, { alive = function (backend)
			assert.equal(BACKEND, backend);
			sent_before = #module.sent;
		end });
		receive(answer_to(dispatched));
		assert.equal(1, sent_before);
	end);

	it("tell nothing more to what a reload has taken the place of while the answer was sent", function ()
		local first, second = request { id = "n1" }, request { id = "n2" };
		function module.send()
			handlers.stop_timers();
		end
		receive(answer_to(first));
		receive(st.error_reply(second, "cancel", "service-unavailable"));
		assert.same({ {}, {} }, { alive, suspected });
	end);

	it("that time out make their backend suspected, others do not", function ()
		local dispatched = request { id = "n1" };
		request { id = "n2" };
		receive(answer_to(dispatched));
		clock.now = clock.now + TIMEOUT;
		fire();
		assert.same({ BACKEND }, suspected);
	end);

	describe("beyond a limit", function ()
		it("get resource-constraint, in all", function ()
			handlers = new_handlers(nil, { max_pending = 2 });
			local first = request { id = "n1" };
			request { id = "n2", from = "another@some-domain.example/r" };
			assert_error(request { id = "n3", from = "third@some-domain.example/r" },
				PROXY, "third@some-domain.example/r", "n3", "wait", "resource-constraint");
			receive(answer_to(first));
			assert.equal(BACKEND, request { id = "n4" }.attr.to);
		end);

		it("get resource-constraint, of one bare JID, and no other does", function ()
			handlers = new_handlers(nil, { max_pending_per_requester = 2 });
			request { id = "n1", from = "user@some-domain.example/one" };
			request { id = "n2", from = "user@some-domain.example/two" };
			assert_error(request { id = "n3", from = "user@some-domain.example/three" },
				PROXY, "user@some-domain.example/three", "n3", "wait", "resource-constraint");
			assert.equal(BACKEND, request { id = "n4", from = "user2@some-domain.example/one" }.attr.to);
		end);
	end);

	describe("are counted:", function ()
		local function assert_counted(expected)
			assert.same(expected, counts);
			counts = {};
			module:take_sent();
		end

		it("a result or an error of the backend, with the time it took", function ()
			local first, second = request { id = "n1" }, request { id = "n2" };
			clock.now = clock.now + 2.5;
			receive(answer_to(first));
			assert_counted { answered = 1 };
			clock.now = clock.now + 1;
			receive(answer_to(second, { type = "error" }));
			assert_counted { error = 1 };
			assert.same({ 2.5, 3.5 }, answer_times);
		end);

		it("no answer in time", function ()
			request();
			clock.now = clock.now + TIMEOUT;
			fire();
			assert_counted { timeout = 1 };
		end);

		it("no backend, or one that goes, with and without another", function ()
			request { id = "n1" };
			request { id = "n2", type = "set" };
			pool:remove(BACKEND);
			pool:add(TARGET.."/b");
			handlers.on_backend_gone(BACKEND);
			module:pass(0);
			assert_counted { retries = 1, backend_gone = 1 };
			pool:remove(TARGET.."/b");
			handlers.on_backend_gone(TARGET.."/b");
			module:pass(0);
			assert_counted { backend_gone = 1 };
			request { id = "n3" };
			assert_counted { no_backend = 1 };
		end);

		it("beyond a limit, in all and of one requester", function ()
			handlers = new_handlers(nil, { max_pending = 1 });
			request { id = "n1" };
			request { id = "n2" };
			assert_counted { limited = 1 };
			handlers = new_handlers(nil, { max_pending_per_requester = 1 });
			request { id = "n3" };
			assert_counted { limited = 1 };
		end);

		it("not to be dispatched", function ()
			request { to = PROXY.."/"..jat:encode(REQUESTER) };
			assert_counted { refused = 1 };
			request { to = PROXY.."/"..jat:encode(REQUESTER), from = BACKEND };
			assert_counted { refused = 1 };
			receive(iq({ type = "get", id = "n1", from = REQUESTER, to = PROXY }, false));
			assert_counted { refused = 1 };
		end);

		it("pending when the module goes, or coming after", function ()
			request { id = "n1" };
			request { id = "n2" };
			handlers.stop();
			assert_counted { unloaded = 2 };
			request { id = "n3" };
			assert_counted { unloaded = 1 };
		end);
	end);

	it("leave nothing kept once they are over", function ()
		local kept = setmetatable({}, { __mode = "k" });
		local function dispatch(id)
			local stanza = iq { type = "get", id = id, from = REQUESTER, to = PROXY };
			kept[stanza] = true;
			return receive(stanza)[1];
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
		handlers = new_handlers(nil, { retries = 3 });
		pool:add(TARGET.."/b");
		local answered, expired = dispatch("n1"), dispatch("n2");
		dispatch("n3");
		assert.equal(3, count_kept());
		receive(answer_to(answered));
		assert.equal(2, count_kept());
		pool:remove(expired.attr.to);
		handlers.on_backend_gone(expired.attr.to);
		assert.same({}, module:pass(TIMEOUT));
		assert.equal(0, #pending);
		assert.equal(0, pending:bytes());
		assert.equal(0, count_kept());
	end);

	it("set no timer while none is pending", function ()
		assert.same({}, module.timers);
	end);

	describe("that are given up", function ()
		it("are answered at once, whenever they are due", function ()
			local dispatched = request { id = "n1", to = "node@"..PROXY.."/thing" };
			clock.now = clock.now + 1000;
			request { id = "n2" };
			requests.give_up(pending, operations, "unloaded");
			local sent = module:take_sent();
			assert.equal(2, #sent);
			assert_error(sent[1], "node@"..PROXY.."/thing", REQUESTER, "n1", "wait", "service-unavailable");
			assert_error(sent[2], PROXY, REQUESTER, "n2", "wait", "service-unavailable");
			assert.equal(0, #pending);
			assert_dropped(answer_to(dispatched));
		end);

		it("may be none, or very many", function ()
			requests.give_up(pending, operations, "unloaded");
			assert.same({}, module:take_sent());
			for n = 1, 1200 do
				request { id = "n"..n };
			end
			requests.give_up(pending, operations, "unloaded");
			assert.equal(1200, #module:take_sent());
			assert.equal(0, #pending);
		end);
	end);

	it("are all answered, and no more are taken, when the module stops", function ()
		request { id = "n1" };
		handlers.stop();
		local sent = module:take_sent();
		assert.equal(1, #sent);
		assert_error(sent[1], PROXY, REQUESTER, "n1", "wait", "service-unavailable");
		sent = receive(iq { type = "get", id = "n2", from = REQUESTER, to = PROXY });
		assert.equal(1, #sent);
		assert_error(sent[1], PROXY, REQUESTER, "n2", "wait", "service-unavailable");
		assert.equal(0, #pending);
	end);

	it("are told of by address at debug only", function ()
		local dispatched = request();
		receive(answer_to(dispatched));
		receive(answer_to(dispatched));
		receive(iq { type = "result", from = BACKEND, to = PROXY });
		assert.equal(2, #module.log_lines);
		for _, line in ipairs(module.log_lines) do
			assert.equal("debug", line.level);
			assert.truthy(line.text:find(BACKEND, 1, true));
		end
	end);
end);

describe("messages", function ()
	local handlers, module;

	before_each(function ()
		module = fake_module.new();
		handlers = module:require "requests".new {
			target = TARGET, timeout = TIMEOUT, pending = core.pending(("\0"):rep(core.PENDING_SEEDBYTES)),
			max_pending = 1, max_pending_per_requester = 1,
		};
	end);

	local function receive(attr)
		local event = {
			stanza = st.message(attr, "Hello");
			origin = { send = function (answer) return module:send(answer); end };
		};
		assert.is_true(handlers.on_message(event));
		return module:take_sent();
	end

	for _, from in ipairs { REQUESTER, BACKEND } do
		it("are not implemented, from "..from, function ()
			for _, type in ipairs { "normal", "chat", "groupchat", "headline", "result", false } do
				local sent = receive { type = type or nil, id = "1", from = from, to = "node@"..PROXY };
				assert.equal(1, #sent);
				assert.equal("message", sent[1].name);
				assert.same({ type = "error", id = "1", from = "node@"..PROXY, to = from }, sent[1].attr);
				assert.same({ "cancel", "feature-not-implemented" }, { (sent[1]:get_error()), (select(2, sent[1]:get_error())) });
			end
		end);

		it("of type error are never answered, from "..from, function ()
			assert.same({}, receive { type = "error", id = "1", from = from, to = PROXY });
			assert.same({}, receive { type = "error", from = from, to = PROXY.."/thing" });
		end);
	end
end);
