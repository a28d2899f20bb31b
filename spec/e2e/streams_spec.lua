-- What becomes of requests while the streams to another server are not as they should be. The spec plays that server, and
-- says when a stream is authenticated, how fast it is read from, and where it is cut.

local new_played_target = require "spec.support.played_target".new;
local service = require "spec.support.service";
local xmpp = require "spec.support.xmpp";
local gettime = require "socket".gettime;
local st = require "util.stanza";

local PROXY, TARGET = service.proxy, service.target;
local TIMES_OUT_SOON = "client_proxy_request_timeout = 1";
local TIMED_OUT = 'prosody_mod_client_proxy__backend_requests_total{host="proxy.domain.example",outcome="timeout"}';
local IS_FULL = 'prosody.hosts["proxy.domain.example"].s2sout["some-domain.example"].conn.writebuffer ~= nil';

local hosts = [[
VirtualHost "domain.example"
Component "proxy.domain.example" "client_proxy"
	modules_enabled = { "ping" }
	target_address = "some-user@some-domain.example"
]];

describe("a stream to another server", function ()
	local server, played, account, requester;

	before_each(function ()
		server, played, account = new_played_target { hosts = hosts, accounts = { "user@domain.example" }, modules = "s2s_bidi" };
	end);

	after_each(function ()
		server:remove();
		played:remove();
	end);

	local function is_request(stanza)
		return stanza.name == "iq" and stanza:get_child("query", "urn:example:service") ~= nil;
	end

	local function is_probe(stanza)
		return stanza.attr.type == "probe";
	end

	-- The service is up, with these resources. options, globals: lines of the component's configuration, and of the server's
	local function start_with(names, options, globals)
		for _, name in ipairs(names) do
			account:add(name);
		end
		server:configure((globals or "")..hosts..(options or ""));
		server:start();
		requester = xmpp.client(server, "user", "domain.example", "abc");
		played:receive(is_probe);
		played:sync();
		played.received = {};
	end

	-- Ends the stream to the played server in good order. The next one is begun, but not authenticated until the function is
	-- called that is returned. By its own stream, the played server says that its resources are there.
	local function begin_anew()
		local waiting, authenticate = played:let_keys_wait();
		played:await_their_stream():close();
		played:pump(function () return waiting[1]; end); -- it is begun at once, for a probe
		account:tell_all();
		return function ()
			authenticate();
			played:await_their_stream();
		end;
	end

	-- The ids of the requests and messages that have come by it, in order
	local function ids()
		local list = {};
		for _, entry in ipairs(played.received) do
			if is_request(entry.stanza) or entry.stanza.name == "message" then
				table.insert(list, entry.stanza.attr.id);
			end
		end
		return list;
	end

	local function send_request(id, type)
		requester:send(service.request(id, nil, type));
	end

	-- So many requests have been answered, all of them so: by the condition of an error, or "result".
	local function assert_answered(count, outcome, timeout)
		for _ = 1, count do
			local answer = played:receive_at(requester, xmpp.is_iq, timeout);
			assert.equal(outcome, service.error_of(answer) or answer.attr.type);
		end
	end

	describe("that is not authenticated in time", function ()
		it("brings nothing that nobody waits for any more, but all else, in order", function ()
			start_with({ "a" }, TIMES_OUT_SOON);
			local authenticate = begin_anew();
			requester:send(st.message({ id = "message-1", to = PROXY }):text_tag("body", "first"));
			send_request("old-get");
			send_request("old-set", "set");
			requester:send(st.message({ id = "message-2", to = PROXY }):text_tag("body", "second"));
			assert_answered(2, "remote-server-timeout");
			send_request("new-get");
			send_request("new-set", "set");
			requester:sync();
			authenticate();
			assert_answered(2, "result");
			played:sync();
			assert.same({ "message-1", "message-2", "new-get", "new-set" }, ids());
		end);

		it("brings once what is asked again under the same id", function ()
			start_with({ "a" }, TIMES_OUT_SOON);
			local authenticate = begin_anew();
			for _ = 1, 2 do
				send_request("same", "set");
				assert_answered(1, "remote-server-timeout");
			end
			send_request("same", "set");
			requester:sync();
			authenticate();
			assert_answered(1, "result");
			played:sync();
			assert.same({ "same" }, ids());
		end);

		it("brings a get only to the backend to which it was sent last", function ()
			account:add("a", { priority = 1 });
			start_with({ "b" }, "client_proxy_strategy = 'primary'");
			local authenticate = begin_anew();
			send_request("get");
			send_request("set", "set");
			requester:sync();
			account:log_out("a");
			assert_answered(1, "service-unavailable"); -- the set
			authenticate();
			assert_answered(1, "result");
			played:sync();
			assert.same({ "get" }, ids());
			local request = played:receive(is_request);
			assert.equal(TARGET.."/b", request.attr.to);
		end);

		it("brings nothing to a requester that its backend does not wait for any more", function ()
			start_with({ "a" }, TIMES_OUT_SOON);
			local user, token = "user@some-domain.example/x", nil;
			function account.on_request(resource, stanza)
				token = stanza.attr.from;
				account:answer(resource, st.reply(stanza));
			end
			local function ask(id, from, to)
				local iq = service.request(id, to);
				iq.attr.from = from;
				played:send(iq);
			end
			ask("hello", user, PROXY);
			played:receive(function (stanza) return stanza.attr.to == user; end);
			local authenticate = begin_anew();
			ask("old", account.resources.a.jid, token);
			played:pump(function () return server:metrics()[TIMED_OUT] == 1; end); -- what it is told waits, too
			ask("new", account.resources.a.jid, token);
			authenticate();
			local is_iq = function (stanza) return stanza.name == "iq" and stanza.attr.from ~= PROXY; end;
			local first, second = played:receive(is_iq), played:receive(is_iq);
			assert.same({ "old", "error" }, { first.attr.id, first.attr.type });
			assert.same({ "new", "get" }, { second.attr.id, second.attr.type });
		end);

		for _, change in ipairs { "reload", "unload" } do
			it("brings nothing old after the module was told to "..change, function ()
				start_with({ "a" }, TIMES_OUT_SOON);
				local authenticate = begin_anew();
				send_request("old", "set");
				if change == "unload" then
					server:ctl("shell", "module", "unload", "client_proxy", PROXY);
					assert_answered(1, "service-unavailable");
				else
					server:ctl("shell", "module", "reload", "client_proxy", PROXY);
					assert_answered(1, "remote-server-timeout");
				end
				authenticate();
				played:sync();
				assert.same({}, ids());
			end);
		end

		it("takes what is new though its queue has been full", function ()
			start_with({ "a" }, TIMES_OUT_SOON, "s2s_send_queue_size = 10\n");
			local authenticate = begin_anew();
			for number = 1, 20 do
				send_request("old-"..number, "set");
			end
			assert_answered(20, "remote-server-timeout");
			played:pump(function ()
				account:tell("a"); -- so that it is not taken for silent
				return server:log():find("are not sent any more", 1, true);
			end);
			send_request("new");
			requester:sync();
			authenticate();
			assert_answered(1, "result");
			played:sync();
			assert.same({ "new" }, ids());
		end);
	end);

	-- (count) -> requests of that many gets and as many sets, by id, as one resource got them, which has not answered yet
	local function hold_requests(count)
		local held, number = {}, 0;
		local answer = account.on_request;
		function account.on_request(_, stanza)
			held[stanza.attr.id] = stanza;
			number = number + 1;
		end;
		for i = 1, count do
			send_request("get-"..i);
			send_request("set-"..i, "set");
		end
		played:pump(function () return number == 2 * count; end);
		account.on_request = answer;
		return held;
	end

	-- How many answers come of each kind: by the type of the request and the outcome; and no more of them. The requester is
	-- not asked anything else meanwhile.
	local function outcomes(count, timeout)
		local all = {};
		for _ = 1, count do
			local answer = played:receive_at(requester, xmpp.is_iq, timeout);
			local name = answer.attr.id:match("^%a+").." "..(service.error_of(answer) or answer.attr.type);
			all[name] = (all[name] or 0) + 1;
		end
		played:sync();
		assert.same({}, requester:sync());
		return all;
	end

	for _, way in ipairs { "one", "two" } do
		describe("where there is "..way.." for both ways", function ()
			before_each(function ()
				played.offers_bidi = way == "one";
			end);

			-- The stream by which the played server sends
			local function sending()
				local stream = played:usual_stream();
				assert.equal(way == "one", stream.is_bidirectional or false);
				assert.equal(way == "two", stream.is_ours);
				return stream;
			end

			it("brings requests and answers, both ways, and messages", function ()
				start_with { "a", "b" };
				for number = 1, 10 do
					send_request("get-"..number);
					send_request("set-"..number, "set");
				end
				assert.same({ ["get result"] = 10, ["set result"] = 10 }, outcomes(20));
				function account.on_request(resource, stanza)
					account:answer(resource, st.error_reply(stanza, "cancel", "not-acceptable"));
				end
				send_request("get");
				assert.same({ ["get not-acceptable"] = 1 }, outcomes(1));
				requester:send(st.message({ id = "ask", to = PROXY }):text_tag("body", "text"));
				local message = played:receive(xmpp.is_message);
				played:send(st.message({ id = "reply", from = message.attr.to, to = message.attr.from }):text_tag("body", "text"));
				assert.equal("reply", played:receive_at(requester, xmpp.is_message).attr.id);
				local ask = service.request("ask", message.attr.from);
				ask.attr.from = message.attr.to;
				played:send(ask);
				local asked = played:receive_at(requester, xmpp.is_iq);
				assert.equal("get", asked.attr.type);
				requester:send(st.reply(asked));
				local answered = played:receive(function (stanza) return stanza.attr.type == "result" and stanza.attr.id == "ask"; end);
				assert.equal(message.attr.to, answered.attr.to);
				sending();
				assert.is_true(#played:open_streams(true) > 0 and #played:open_streams(false) > 0);
				local is_each_for_both = #played:open_streams(true) == #played.streams and #played:open_streams(false) == #played.streams;
				assert.equal(way == "one", is_each_for_both and #played.streams == 1);
			end);

			it("and is cut in the middle of an answer: that is none, gets are sent once more, sets answered in time", function ()
				start_with { "a" };
				local held = hold_requests(5);
				local stream = sending();
				stream:send(st.reply(held["get-1"]));
				stream:send(tostring(st.reply(held["get-2"]):text_tag("half", ("x"):rep(100))):sub(1, -10));
				stream:cut();
				assert.same({ ["get result"] = 5, ["set remote-server-timeout"] = 5 }, outcomes(10));
				local ids_again = {};
				for _, id in ipairs(ids()) do
					ids_again[id] = (ids_again[id] or 0) + 1;
				end
				assert.same({ 1, 2, 2, 2, 2 }, { ids_again["get-1"], ids_again["get-2"], ids_again["get-3"], ids_again["get-4"], ids_again["get-5"] });
				assert.same({ 1, 1 }, { ids_again["set-1"], ids_again["set-5"] });
			end);

			it("and is cut in the middle of a request: gets are sent once more, sets answered in time", function ()
				start_with { "a" };
				local stream = played:await_their_stream();
				stream.is_hung = true;
				for number = 1, 5 do
					send_request("get-"..number);
					send_request("set-"..number, "set");
				end
				requester:sync();
				stream.connection.socket:settimeout(10);
				assert(stream.connection.socket:receive(200)); -- bytes, less than one
				stream:cut();
				assert.same({ ["get result"] = 5, ["set remote-server-timeout"] = 5 }, outcomes(10));
				assert.equal(5, #ids()); -- none of the first ten has been read whole
			end);

			it("and brings answers byte by byte: each is taken when it is whole", function ()
				start_with { "a" };
				local held = hold_requests(3);
				local stream = sending();
				for _, id in ipairs { "get-1", "set-3", "set-1", "get-3", "set-2", "get-2" } do
					for byte in tostring(st.reply(held[id])):gmatch(".") do
						stream:send(byte);
						played:turn(0);
					end
					assert.equal(id, played:receive_at(requester, xmpp.is_iq).attr.id);
				end
				assert.same({}, outcomes(0));
			end);
		end);
	end

	-- No set has come twice.
	local function assert_none_twice()
		local seen = {};
		for _, id in ipairs(ids()) do
			assert.is_nil(seen[id], id);
			seen[id] = true;
		end
	end

	describe("that is read", function ()
		it("slowly leaves no request without an answer in time, and brings none twice", function ()
			start_with({ "a" }, TIMES_OUT_SOON);
			local stream = played:await_their_stream();
			stream.is_hung = true;
			for number = 1, 100 do
				send_request("old-"..number, "set");
			end
			assert_answered(100, "remote-server-timeout");
			stream.is_hung, stream.piece = false, 100;
			for number = 1, 100 do
				send_request("new-"..number, "set");
			end
			local all = outcomes(100);
			assert.equal(100, (all["new result"] or 0) + (all["new remote-server-timeout"] or 0));
			stream.piece = nil;
			played:pump(function ()
				send_request("last-"..gettime(), "set"); -- as a get may be sent twice
				return played:receive_at(requester, xmpp.is_iq).attr.type == "result";
			end);
			assert_none_twice();
		end);

		it("not at all until it takes nothing more leaves no request without an answer in time", function ()
			start_with({ "a" }, TIMES_OUT_SOON);
			played:hang();
			local text = ("x"):rep(100000);
			for number = 1, 100 do -- more than the system takes for a stream
				requester:send(service.request("large-"..number, nil, "set"):text_tag("text", text));
			end
			assert.truthy(server:run_lua(IS_FULL):find("true", 1, true));
			assert_answered(100, "remote-server-timeout");
			played:go_on();
			played:pump(function () -- until there is a stream that works
				send_request("last-"..gettime(), "set"); -- as a get may be sent twice
				return played:receive_at(requester, xmpp.is_iq).attr.type == "result";
			end);
			assert.same({}, outcomes(0));
			assert_none_twice();
		end);
	end);
end);
