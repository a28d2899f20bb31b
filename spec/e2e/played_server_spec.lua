-- The target is on a server that the spec plays over streams between servers, so that what
-- becomes of a stream and what is said by which is for the spec to decide.

local admin_shell = require "spec.support.admin_shell";
local new_played_target = require "spec.support.played_target".new;
local service = require "spec.support.service";
local xmpp = require "spec.support.xmpp";
local gettime = require "socket".gettime;
local st = require "util.stanza";

local TIMES_OUT_SOON = "client_proxy_request_timeout = 1";
local SOON, SECONDS = 3, 8; -- seconds: at once, but for one who has other things to do; and what "within seconds" comes to
local FEW = 5; -- requests

local PROXY, TARGET = service.proxy, service.target;

local hosts = [[
VirtualHost "domain.example"
Component "proxy.domain.example" "client_proxy"
	modules_enabled = { "ping" }
	target_address = "some-user@some-domain.example"
]];

describe("a target on a played server", function ()
	local server, shell, played, account, requester;

	before_each(function ()
		server, played, account = new_played_target { hosts = hosts, accounts = { "user@domain.example" } };
	end);

	after_each(function ()
		server:remove();
		played:remove();
	end);

	-- (options, globals): lines of the component's configuration, and of the server's
	local function start(options, globals)
		server:configure((globals or "")..hosts..(options or ""));
		server:start();
		shell = admin_shell.new(server);
		requester = xmpp.client(server, "user", "domain.example", "abc");
	end

	local function is_probe(stanza)
		return stanza.attr.type == "probe";
	end

	local function is_request(stanza)
		return stanza.name == "iq" and stanza:get_child("query", "urn:example:service") ~= nil;
	end

	-- The service is up, with these resources.
	local function start_with(names, ...)
		for _, name in ipairs(names) do
			account:add(name);
		end
		start(...);
		played:receive(is_probe);
		played:sync();
		played.received = {};
	end

	local function request(id, type)
		return played:request_at(requester, service.request(id, nil, type));
	end

	-- Prosody has read what had come on all its sockets: when one has been cut, it knows.
	local function await_notice()
		requester:sync();
		requester:sync();
	end

	local function status()
		local _, line, printed = shell:run(("client_proxy:status(%q)"):format(PROXY));
		return printed.."\n"..line;
	end

	-- (state) -> the names of the backends that are in that state, in alphabetical order, in one string
	local function who_is(state)
		local list = {};
		for name in status():gmatch("%f[^\n](%S+) *| "..state) do
			table.insert(list, name);
		end
		table.sort(list);
		return table.concat(list, " ");
	end

	-- Waits until exactly these are ready.
	local function await_ready(names, timeout)
		played:pump(function () return who_is("ready") == names; end, timeout);
	end

	-- Which resources answer of so many requests: a list in alphabetical order
	local function who_answers(count)
		local seen, list = {}, {};
		account.on_request = function (resource, stanza)
			seen[resource.name] = true;
			account:answer(resource, st.reply(stanza));
		end;
		for number = 1, count or 30 do
			requester:send(service.request("who-"..number));
		end
		for _ = 1, count or 30 do
			assert.equal("result", played:receive_at(requester, xmpp.is_iq).attr.type);
		end
		for name in pairs(seen) do
			table.insert(list, name);
		end
		table.sort(list);
		return list;
	end

	describe("(the fixture)", function ()
		it("is asked for a subscription, probed when it grants it, and serves", function ()
			account.is_approving = false;
			start();
			local subscribe, stream = played:receive(xmpp.presence_from(PROXY, "subscribe"));
			assert.equal(TARGET, subscribe.attr.to);
			assert.is_false(stream.is_ours);
			played:send(st.presence({ from = TARGET, to = PROXY, type = "subscribed" }));
			assert.equal(TARGET, played:receive(is_probe).attr.to);
			account:log_in("a");
			account:log_in("b", { priority = 5 });
			played:sync();
			assert.same({ "a", "b" }, who_answers());
			account:log_out("a");
			played:sync();
			assert.same({ "b" }, who_answers());
			assert.equal(1, #played:open_streams(true));
			assert.equal(1, #played:open_streams(false));
		end);

		it("speaks by several streams", function ()
			start_with {};
			account:log_in("a", { stream = played:open() });
			account:log_in("b", { stream = played:open() });
			played:sync();
			assert.same({ "a", "b" }, who_answers());
			local count = #played:open_streams(true);
			account.resources.a.stream:close();
			assert.equal(count - 1, #played:open_streams(true));
			account.resources.b.stream:cut();
			assert.equal(count - 2, #played:open_streams(true));
		end);

		it("is spoken to by another stream when one has been cut", function ()
			start_with { "a" };
			played:await_their_stream():cut();
			await_notice();
			played:sync(); -- Prosody's answer needs one
			assert.equal(2, played.accepted);
			played:cut();
			await_notice();
			played:sync();
			assert.equal(3, played.accepted);
			assert.same({ "a" }, who_answers());
		end);

		it("leaves alone what hangs, for as long as it does", function ()
			start_with { "a" };
			local stream = played:await_their_stream();
			stream.is_hung = true;
			requester:send(service.request("hanging"));
			requester:sync();
			played:pump_for(0.3);
			assert.same({}, played.received);
			stream.is_hung = false;
			assert.equal("result", played:receive_at(requester, xmpp.is_iq).attr.type);
		end);

		it("can refuse, and can keep waiting, who connects to it", function ()
			played:refuse();
			start();
			played:pump(function () return server:log():find("cannot be reached", 1, true); end);
			played:listen();
			played.is_mute = true;
			server:ctl("shell", "module", "reload", "client_proxy", PROXY);
			played:pump_for(0.3);
			assert.equal(0, played.accepted);
			played.is_mute = false;
			played:receive(xmpp.presence_from(PROXY, "subscribe"));
			assert.equal(1, played.accepted);
		end);

		it("answers in the name of who has gone, or does not", function ()
			start_with { "a", "b" };
			account:vanish("a");
			account:vanish("b");
			account.says_of_the_gone = nil;
			requester:send(service.request("silence", nil, "set"));
			played:receive(is_request);
			played:sync();
			assert.same({}, requester:sync());
			account.says_of_the_gone = "item-not-found";
			assert.equal("error", request("gone", "set").attr.type);
			assert.equal(1, played:count(is_request));
		end);

		it("can answer late, twice, and in any name", function ()
			account.answers_probes = 0.2;
			start_with { "a", "b" };
			await_ready("a b");
			account.on_request = function (resource, stanza)
				played:after(0.2, function ()
					account:answer(resource, st.reply(stanza));
					account:answer(resource, st.reply(stanza));
				end);
			end;
			assert.equal("result", request("late").attr.type);
			played:sync();
			assert.same({}, requester:sync());
			account:vanish("a");
			account:tell("b", "unavailable"); -- though it is there
			account:tell("a"); -- though it is not
			played:sync();
			assert.equal("a", who_is("ready"));
		end);
	end);

	local function is_logged(text)
		return server:log():find(text, 1, true) ~= nil;
	end

	-- One request that nobody answers is sent, and arrives at this resource.
	local function send_unanswered_to(name)
		local answer_others, has_arrived = account.on_request, false;
		account.on_request = function (resource, stanza)
			if resource.name == name then
				account.on_request, has_arrived = answer_others, true;
			else
				answer_others(resource, stanza);
			end
		end;
		repeat
			requester:send(service.request("unanswered", nil, "set"));
			played:sync();
			requester:sync();
			played:sync();
		until has_arrived;
		requester.received = {}; -- what others have answered
	end

	-- One request, which nobody answers, times out at this resource: so it is pinged.
	local function let_time_out(name)
		send_unanswered_to(name);
		assert.equal("error", played:receive_at(requester, xmpp.is_iq).attr.type);
	end

	-- Requests, one after another, until is_done(). -> how many there were at each resource, how many were answered so
	local function keep_asking(is_done)
		local count, arrived, outcomes = 0, {}, {};
		played.on_stanza = function (stanza)
			if is_request(stanza) then
				local resource = stanza.attr.to:match("/(.*)");
				arrived[resource] = (arrived[resource] or 0) + 1;
			end
		end;
		repeat
			count = count + 1;
			local type = request("asking-"..count, "set").attr.type;
			outcomes[type] = (outcomes[type] or 0) + 1;
			played.received = {};
		until is_done(count);
		return arrived, outcomes;
	end

	local function after(seconds)
		local deadline = gettime() + seconds;
		return function () return gettime() >= deadline; end;
	end

	describe("whose backend is pinged", function ()
		for _, condition in ipairs { "service-unavailable", "recipient-unavailable", "item-not-found" } do
			it("is asked for its presence when the ping is answered by "..condition..", and the backend stays if that comes", function ()
				start_with({ "a", "b" }, TIMES_OUT_SOON);
				account.resources.a.answers_pings = condition;
				let_time_out("a");
				played:receive(xmpp.is_ping, SOON);
				played:sync(); -- by now its answer has been read
				played:receive(is_probe, SOON);
				await_ready("a b", SOON);
				assert.same({ "a", "b" }, who_answers());
			end);

			it("loses the backend when the ping is answered by "..condition.." and no presence comes", function ()
				start_with({ "a", "b" }, TIMES_OUT_SOON);
				account.resources.a.answers_pings = condition;
				account.answers_probes = false;
				let_time_out("a");
				played:receive(xmpp.is_ping, SOON);
				played:sync(); -- by now its answer has been read
				played:receive(is_probe, SOON);
				await_ready("b", SOON);
				assert.truthy(status():find("\na *| suspended"));
				played:pump(function () return not status():find("\na *|"); end, SECONDS);
				assert.same({ "b" }, who_answers());
			end);
		end

		it("keeps it when the ping is answered by an error that only the client can have sent", function ()
			start_with({ "a", "b" }, TIMES_OUT_SOON);
			account.resources.a.answers_pings = "feature-not-implemented";
			let_time_out("a");
			played:receive(xmpp.is_ping, SOON);
			played:sync();
			assert.equal("a b", who_is("ready"));
			assert.equal(0, played:count(is_probe));
		end);

		it("keeps those that answer requests though they do not answer pings", function ()
			start_with({ "a", "b" }, TIMES_OUT_SOON);
			account.resources.a.answers_pings = false;
			account.resources.b.answers_pings = false;
			send_unanswered_to("a");
			send_unanswered_to("b");
			local is_over = after(4); -- time for them to time out, and for several pings
			local _, outcomes = keep_asking(function (count)
				if count % 50 == 0 then
					assert.equal("a b", who_is("ready"));
				end
				return is_over();
			end);
			assert.is_nil(outcomes.error);
			assert.is_false(is_logged("does not answer a ping"));
		end);
	end);

	describe("whose backend has gone without a word", function ()
		for _, strategy in ipairs { "random", "primary" } do
			it("gives it no more than a few requests, with "..strategy, function ()
				account:add("a", { priority = 1 });
				start_with({ "b" }, ("client_proxy_strategy = %q"):format(strategy));
				who_answers();
				account:vanish("a");
				local arrived, outcomes = keep_asking(function (count) return count == 100; end);
				assert.is_true(arrived.a <= FEW);
				assert.is_true(outcomes.error <= FEW);
				await_ready("b");
			end);
		end
	end);

	describe("with which a stream", function ()
		it("is newly established is probed again, and what was missed is found", function ()
			start_with { "a" };
			account:add("b"); -- which nobody has told
			played:open();
			played:receive(is_probe, SOON);
			await_ready("a b", SOON);
		end);

		it("is newly established is asked at once though it could not be reached for long", function ()
			played:refuse();
			start();
			played:pump(function () return select(2, server:log():gsub("s2s connection attempt failed", "")) >= 3; end);
			played:listen();
			account:add("a");
			played:open();
			played:receive(xmpp.presence_from(PROXY, "subscribe"), SOON);
			await_ready("a", SOON);
		end);

		it("has ended is probed until what was known has been confirmed", function ()
			start_with { "a", "b" };
			played:usual_stream();
			function account:on_probe()
				self.on_probe = nil; -- from the next one on, it tells all
				self:tell("a"); -- first, where b is has no stream to tell it by
			end
			played:cut();
			played:receive(is_probe, SOON);
			played:receive(is_probe, SOON);
			await_ready("a b", SOON);
		end);

		it("has ended gives its backends seconds, not a request's timeout, to tell their presence", function ()
			start_with { "a", "b" };
			played:usual_stream();
			account.answers_probes = false;
			played:cut();
			played:receive(is_probe, SOON);
			assert.equal("", who_is("ready"));
			account:tell("b");
			played:pump(function () return not status():find("\na *|"); end, SECONDS);
			assert.equal("b", who_is("ready"));
		end);

		it("has ended finds out about a backend that lets a request time out meanwhile, as soon as its presence has come", function ()
			start_with({ "a" }, TIMES_OUT_SOON);
			account.answers_probes, account.resources.a.answers_pings = false, false;
			account.on_request = function () end;
			local function is_ping(stanza)
				return xmpp.is_ping(stanza) and stanza.attr.to == TARGET.."/a";
			end
			played:cut();
			played:receive(is_probe, SOON);
			assert.equal("a", who_is("suspended"));
			assert.equal("error", request("unanswered", "set").attr.type);
			assert.equal(0, played:count(is_ping));
			account:tell("a");
			for _ = 1, 2 do -- the second, as the first has not been answered
				played:receive(is_ping, SOON);
			end
			assert.equal("a", who_is("suspended"));
		end);

		it("has ended goes on with another backend when one is in doubt: gets are handed on, sets are given up", function ()
			start_with { "a", "b" };
			played:usual_stream();
			account.answers_probes = false;
			local at = { a = {}, b = {} };
			account.on_request = function (resource, stanza)
				table.insert(at[resource.name], stanza);
			end;
			for number = 1, 20 do
				requester:send(service.request("get-"..number));
				requester:send(service.request("set-"..number, nil, "set"));
			end
			played:pump(function () return #at.a + #at.b == 40; end);
			local sets_at_a, gets_at_a = 0, 0;
			for _, stanza in ipairs(at.a) do
				sets_at_a = sets_at_a + (stanza.attr.type == "set" and 1 or 0);
				gets_at_a = gets_at_a + (stanza.attr.type == "get" and 1 or 0);
			end
			assert.is_true(sets_at_a > 0 and gets_at_a > 0);
			local had = #at.b;
			played:cut();
			played:receive(is_probe, SOON);
			account:tell("b");
			-- those that b has got may have been lost on their way, too
			played:pump(function () return #at.b == had + 20; end, SOON);
			for _, stanza in ipairs(at.b) do
				account:answer(account.resources.b, st.reply(stanza));
			end
			local outcomes = { get = { result = 0, error = 0 }, set = { result = 0, error = 0 } };
			local deadline = gettime() + SECONDS;
			for _ = 1, 40 do
				local answer = played:receive_at(requester, xmpp.is_iq, deadline - gettime());
				local outcome = outcomes[answer.attr.id:match("^%a+")];
				outcome[answer.attr.type] = outcome[answer.attr.type] + 1;
			end
			assert.same({ get = { result = 20, error = 0 }, set = { result = 20 - sets_at_a, error = sets_at_a } }, outcomes);
		end);
	end);

	it("is authenticated by the next stream to it when the one ends by which that was asked", function ()
		local waiting = played:let_keys_wait();
		start();
		played:pump(function () return waiting[1]; end);
		waiting[1].is_hung = true; -- it does not get the question
		local stream = played:begin_to_open();
		played:pump(function () return is_logged("asking some-domain.example if key"); end);
		played.on_key = nil;
		waiting[1]:cut();
		requester:send(service.request("opens-another-one"));
		played:pump(function () return stream.is_authenticated; end, SECONDS);
	end);

	-- As Prosody's own configuration has it, with 30 kB/s.
	describe("from which little is read at a time", function ()
		local limits = [[
limits = { s2sin = { rate = "5kb/s" }, c2s = { rate = "10mb/s" } }
VirtualHost "loads-limits.example" -- which is for all streams
	modules_enabled = { "limits" }
]];

		it("keeps its backends though pings wait behind answers", function ()
			start_with({ "a", "b" }, TIMES_OUT_SOON, limits);
			local sent, outcomes = 0, {};
			local is_over = after(5);
			repeat
				for _ = 1, 8 do
					sent = sent + 1;
					requester:send(service.request("asking-"..sent));
				end
				played:pump_for(0.1, requester);
			until is_over();
			for _ = 1, sent do
				local answer = played:receive_at(requester, xmpp.is_iq);
				local outcome = answer.attr.type == "error" and service.error_of(answer) or "result";
				outcomes[outcome] = (outcomes[outcome] or 0) + 1;
			end
			assert.is_true(outcomes["remote-server-timeout"] > 0); -- as far as that goes, there was too much
			assert.equal(sent, outcomes["remote-server-timeout"] + outcomes.result);
			assert.is_false(is_logged("are there no longer"));
			played:sync(20); -- all that still waits to be read comes before this
			await_ready("a b", 20);
			assert.same({ "a", "b" }, who_answers(10));
		end);
	end);

	describe("from which nothing comes", function ()
		it("is said to be silent, and is reached by a new stream", function ()
			start_with({ "a" }, TIMES_OUT_SOON);
			local stream = played:await_their_stream();
			stream.is_hung = true;
			account.answers_probes = false;
			requester:send(service.request("unanswered"));
			assert.equal("error", played:receive_at(requester, xmpp.is_iq).attr.type);
			played:pump(function () return played.accepted == 2; end, 2 * SECONDS);
			assert.is_true(is_logged("othing comes from"));
			assert.truthy(status():find("othing comes from", 1, true));
			account.answers_probes = true;
			played:receive(is_probe, SECONDS);
			await_ready("a", SOON);
			assert.same({ "a" }, who_answers());
			assert.falsy(status():find("othing comes from", 1, true));
		end);

		describe("as it does not authenticate our stream", function ()
			local WORDS = "The stream to the server of "..TARGET.." is not authenticated";

			before_each(function ()
				account.is_approving = false;
			end);

			local function assert_told()
				played:pump(function () return status():find(WORDS, 1, true); end, SECONDS);
				assert.truthy(status():find("a certificate for "..PROXY, 1, true));
				assert.is_true(is_logged(WORDS));
				assert.is_false(is_logged("has not approved yet"));
			end

			-- It does now: the proxy asks, and serves.
			local function assert_served()
				played:receive(xmpp.presence_from(PROXY, "subscribe"), 2 * SECONDS);
				assert.falsy(status():find(WORDS, 1, true));
				played:send(st.presence({ from = TARGET, to = PROXY, type = "subscribed" }));
				account:log_in("a");
				await_ready("a", SECONDS);
			end

			it("is said to be that, and not to have been asked, though it is heard by a stream of its own", function ()
				local waiting = played:let_keys_wait(); -- it takes ages
				start();
				played:pump(function () return waiting[1]; end); -- what Prosody asks by a stream that is not open yet is lost
				for _ = 1, 2 do
					local deadline = gettime() + SOON;
					repeat
						played:send(st.presence({ from = TARGET, to = PROXY, type = "probe" }));
						played:turn(0.1);
					until gettime() > deadline;
					assert_told();
					server:ctl("shell", "module", "reload", "client_proxy", PROXY);
				end
				played.on_key = nil;
				assert_served();
			end);

			it("is said to be that, and why, if it refuses to", function ()
				played.on_key = function (stream)
					stream:send("<stream:error><not-authorized xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>"
						.."<text xmlns='urn:ietf:params:xml:ns:xmpp-streams'>Your certificate is not trusted</text></stream:error></stream:stream>");
				end;
				start();
				for _ = 1, 2 do
					assert_told();
					played:pump(function () return status():find("Your certificate is not trusted", 1, true); end, SECONDS);
					server:ctl("shell", "module", "reload", "client_proxy", PROXY);
				end
				played.on_key = nil;
				assert_served();
			end);
		end);

		it("is not said to have been asked when it was not", function ()
			account.is_approving = false;
			played.is_mute = true;
			start();
			played:pump(function () return is_logged("trying to send over unauthed s2sout"); end); -- as it asks again
			requester:sync();
			assert.is_false(is_logged("has not approved yet"));
			assert.falsy(status():find("has not approved yet", 1, true));
			played.is_mute = false;
			played:receive(xmpp.presence_from(PROXY, "subscribe"));
			played:pump(function () return is_logged("has not approved yet"); end); -- as it was asked now
		end);
	end);
end);
