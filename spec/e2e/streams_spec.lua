-- What becomes of requests while the streams to another server are not as they should be. The spec plays that server, and
-- says when a stream is authenticated, how fast it is read from, and where it is cut.

local new_account = require "spec.support.played_account".new;
local new_played_server = require "spec.support.played_server".new;
local new_prosody = require "spec.support.prosody".new;
local service = require "spec.support.service";
local throwaway = require "spec.support.throwaway";
local xmpp = require "spec.support.xmpp";
local st = require "util.stanza";

local PROXY, TARGET = service.proxy, service.target;
local TIMES_OUT_SOON = "client_proxy_request_timeout = 1";
local TIMED_OUT = 'prosody_mod_client_proxy__backend_requests_total{host="proxy.domain.example",outcome="timeout"}';

local hosts = [[
VirtualHost "domain.example"
Component "proxy.domain.example" "client_proxy"
	modules_enabled = { "ping" }
	target_address = "some-user@some-domain.example"
]];

describe("a stream to another server", function ()
	local server, played, account, requester;

	before_each(function ()
		local port, played_port = throwaway.free_port(), throwaway.free_port();
		server = new_prosody { hosts = hosts, accounts = { "user@domain.example" }, s2s = { port = port, peer_port = played_port } };
		played = new_played_server { domain = "some-domain.example", port = played_port, peer_port = port };
		account = new_account(played, TARGET);
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
		local keys = {};
		played.on_key = function (stream)
			table.insert(keys, stream);
		end;
		played:await_their_stream():close();
		played:pump(function () return keys[1]; end); -- it is begun at once, for a probe
		account:tell_all();
		return function ()
			played.on_key = nil;
			for _, stream in ipairs(keys) do
				stream:authenticate();
			end
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
end);
