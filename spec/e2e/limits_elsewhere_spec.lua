-- The limits of the target's server, where that is another one: what the configurations of ejabberd and of Prosody, as Debian
-- ships them, do to a service, and what the lines in doc/operation.markdown change of that. Each of them is left out once.

local clustered = require "spec.support.clustered";
local code_blocks = require "spec.support.code_blocks";
local configuration = require "spec.support.ejabberd_configuration";
local limited = require "spec.support.limited";
local prosody = require "spec.support.prosody";
local service = require "spec.support.service";
local xmpp = require "spec.support.xmpp";
local socket = require "socket";
local st = require "util.stanza";
local throwaway = require "spec.support.throwaway";

local gettime, sleep = socket.gettime, socket.sleep;
local PROXY, TARGET = service.proxy, service.target;
local HOST = "some-domain.example";
local COPIES, SESSIONS = 12, 10; -- backends; of one account, as many as Debian's configuration lets be there
local CONTACTS, SUBSCRIPTIONS = 7, 5; -- accounts that subscribe; as many as a client is told of in a minute
local RATE, BURST, SECONDS = 3000, 20000, 3; -- bytes a second, bytes that come at once before that, and what takes at least so long
local PATIENCE, PAUSE, HANGS = 20, 0.1, 3; -- seconds
local FAILURES = 8; -- so many that by chance at least one pause of up to 5 minutes is longer than 3 seconds

-- (server) -> what the documentation says to write into its configuration
local function block_for(server)
	return code_blocks.below("doc/operation.markdown", server..", for the target's account");
end

local function numbered(prefix, count)
	local names = {};
	for number = 1, count do
		names[number] = prefix..number;
	end
	return names;
end

-- Waits until so many backends are ready at that Prosody.
local function await_ready(server, count)
	local deadline = gettime() + PATIENCE;
	local found;
	repeat
		assert(gettime() < deadline, ("%s are ready instead of %d"):format(found, count));
		sleep(PAUSE);
		found = server:metrics()['prosody_mod_client_proxy__backends{host="proxy.domain.example",state="ready"}'];
	until found == count;
end

describe("a target on ejabberd", function ()
	local block, shipped = block_for "ejabberd", configuration.of_debian();
	local parties;

	setup(function ()
		local users = numbered("early-", CONTACTS);
		table.move(numbered("late-", CONTACTS), 1, CONTACTS, CONTACTS + 1, users);
		parties = clustered.new { configuration = shipped, users = users, component = 'client_proxy_strategy = "round_robin"' };
		parties:start();
	end);

	teardown(function ()
		parties:remove();
	end);

	-- From now on, both nodes have Debian's configuration with that in it.
	local function use(text)
		for _, node in ipairs(parties.nodes) do
			node:configure(configuration.with(shipped, text));
			node:reload();
		end
	end

	local function close(connections)
		for _, connection in pairs(connections) do
			connection:close();
		end
	end

	-- -> bytes a second that its node reads from the client's connection, bytes that come at once before that | nil: no limit
	local function limit_of(client)
		local state = parties.nodes[1]:run(([[element(6, maps:get(socket, sys:get_state(
			ejabberd_sm:get_session_pid(<<"%s">>, <<"%s">>, <<"%s">>)))) ]]):format(client.user, HOST, client.jid:match("/(.*)")));
		local rate, burst = state:match("^{state,(%d+),(%d+),");
		assert(rate or state == "none", state);
		return tonumber(rate), tonumber(burst);
	end

	-- Seconds until so many bytes and a request behind them have been read, and the request is answered
	local function time_for(client, bytes)
		local began = gettime();
		client:send((" "):rep(bytes));
		client:sync(PATIENCE);
		return gettime() - began;
	end

	-- What to do to see what a line of the block is for. By its name: how it is without the line, how it is with it
	local cases = {};

	cases.service = {
		function ()
			local backend = limited.log_in(parties, "slow");
			assert.same({ RATE, BURST }, { limit_of(backend) });
			backend:close();
		end;
		function ()
			local backend = limited.log_in(parties, "fast");
			assert.is_nil((limit_of(backend)));
			backend:close();
		end;
	};

	cases.c2s_shaper = {
		function ()
			local backend = limited.log_in(parties, "slow");
			assert.is_true(time_for(backend, BURST + (SECONDS + 1) * RATE) > SECONDS);
			backend:close();
		end;
		function ()
			local backend, other = limited.log_in(parties, "fast"), xmpp.client(parties.nodes[1], "user", HOST, "slow");
			assert.is_nil((limit_of(backend)));
			assert.equal(RATE, (limit_of(other)));
			close { backend, other };
		end;
	};

	local function log_in_copies()
		local copies = {};
		for _, resource in ipairs(numbered("copy-", COPIES)) do
			copies[resource] = limited.log_in(parties, resource);
		end
		return copies;
	end

	-- Waits until at least so many of these have been ended. -> their resources
	local function await_ended(copies, count)
		local deadline = gettime() + PATIENCE;
		local ended;
		repeat
			assert(gettime() < deadline, "not enough sessions have been ended");
			ended = {};
			for resource, copy in pairs(copies) do
				if not pcall(copy.sync, copy) then
					assert.truthy(copy.stream_error:find("<conflict ", 1, true));
					table.insert(ended, resource);
				end
			end
		until #ended >= count;
		table.sort(ended);
		return ended;
	end

	cases.max_user_sessions = {
		function ()
			local copies = log_in_copies();
			-- those that have been there for the longest
			assert.same({ "copy-1", "copy-2" }, await_ended(copies, COPIES - SESSIONS));
			await_ready(parties.server, SESSIONS);
			close(copies);
			await_ready(parties.server, 0);
		end;
		function ()
			local copies = log_in_copies();
			await_ready(parties.server, COPIES);
			assert.is_true(parties:are_served_by(copies, PATIENCE));
			close(copies);
			await_ready(parties.server, 0);
		end;
	};

	-- -> the names of the nodes that have a stream to the proxy
	local function origins()
		return parties.nodes[1]:run(([[lists:sort([node(element(3, Stream)) ||
			Stream <- mnesia:dirty_read(s2s, {<<"%s">>, <<"%s">>})])]]):format(HOST, PROXY));
	end

	local function restart()
		local nodes = parties.nodes;
		nodes[2]:stop();
		nodes[1]:stop();
		nodes[1]:start(); -- the one that was there last is the first that knows all
		nodes[2]:start();
	end

	-- -> the same, when backends at both nodes have served
	local function origins_of_answers()
		local backends = parties:log_in_one_each();
		await_ready(parties.server, 2);
		assert.is_true(parties:are_served_by(backends, PATIENCE));
		local found = origins();
		close(backends);
		await_ready(parties.server, 0);
		return found;
	end

	cases.max_s2s_connections = {
		function ()
			restart(); -- until then, a rule holds that is in the configuration no longer, and streams are there
			assert.truthy(origins_of_answers():find("^%[[^,]+%]$"));
			assert.is_nil(limited.seconds_beside_hanging_node(parties, HANGS));
			await_ready(parties.server, 0);
		end;
		function ()
			assert.equal("[one@localhost,two@localhost]", origins_of_answers());
			assert.truthy(limited.seconds_beside_hanging_node(parties, HANGS));
			await_ready(parties.server, 0);
		end;
	};

	cases.mod_pres_counter = {
		function () assert.same({ SUBSCRIPTIONS, SUBSCRIPTIONS }, { limited.subscribe(parties, numbered("early-", CONTACTS)) }); end;
		function () assert.same({ CONTACTS, CONTACTS }, { limited.subscribe(parties, numbered("late-", CONTACTS)) }); end;
	};

	cases.s2s_max_retry_delay = {
		function () assert.is_true(limited.longest_pause(parties, FAILURES) > 3); end;
		function () assert.is_true(limited.longest_pause(parties, FAILURES) <= 3); end;
	};

	local names = configuration.names(block);

	it("has a case here for each line that is told to write", function ()
		local there = {};
		for name in pairs(cases) do
			table.insert(there, name);
		end
		table.sort(there);
		table.sort(names);
		assert.same(names, there);
	end);

	for _, name in ipairs(names) do
		local without, with = table.unpack(cases[name]);

		it("is limited without "..name, function ()
			use(configuration.without(block, name));
			without();
		end);

		it("is not with "..name, function ()
			use(block);
			with();
		end);
	end
end);

-- The limits that Debian's configuration of Prosody has
local function limits_of_debian()
	local text = throwaway.read_file(prosody.root.."/etc/prosody/prosody.cfg.lua");
	return assert(text:match("\n(limits = %b{})"));
end

describe("a target on a Prosody", function ()
	local PLAIN = 'VirtualHost "some-domain.example"\n';
	local CLIENT_RATE, STREAM_RATE = 10000, 30000; -- bytes a second
	local line = block_for "Prosody";
	local server, other, requester;

	setup(function ()
		local port, other_port = throwaway.free_port(), throwaway.free_port();
		server = prosody.new {
			hosts = 'VirtualHost "domain.example"\nComponent "proxy.domain.example" "client_proxy"\n'
				..'target_address = "some-user@some-domain.example"\n';
			accounts = { "user@domain.example" }, s2s = { port = port, peer_port = other_port };
		}:start();
		other = prosody.new { hosts = PLAIN, accounts = { TARGET }, modules = "limits", s2s = { port = other_port, peer_port = port } }:start();
		requester = xmpp.client(server, "user", "domain.example", "abc");
		local owner = xmpp.client(other, "some-user", HOST, "owner");
		owner:send(st.presence());
		owner:receive(xmpp.presence_from(PROXY, "subscribe"));
		owner:send(st.presence({ to = PROXY, type = "subscribed" }));
		await_ready(server, 1);
		owner:close();
		await_ready(server, 0);
	end);

	teardown(function ()
		server:remove();
		other:remove();
	end);

	-- -> bytes a second that the target's server reads from these sessions, 0 if all
	local function limit_of(sessions, name, value)
		return tonumber(other:run_lua(([[(function () for key, value in pairs(prosody.%s) do
			local session = value == true and key or value;
			if session.%s == %q then return math.floor(session.conn._limit and 1 / session.conn._limit + 0.5 or 0); end
		end end)()]]):gsub("%s+", " "):format(sessions, name, value)):match("%d+"));
	end

	-- (lines) -> the limits of a backend and of the stream from the proxy, when that server has been started with these lines
	local function limits_with(lines)
		other:stop();
		other:configure(limits_of_debian().."\n"..lines..PLAIN);
		other:start();
		local backend = xmpp.client(other, "some-user", HOST, "a");
		backend:send(st.presence());
		await_ready(server, 1);
		requester:send(service.request("1"));
		backend:send(st.reply(backend:receive(function (stanza) return stanza.attr.id == "1"; end)));
		assert.equal("result", requester:receive(xmpp.is_iq).attr.type);
		local limits = { limit_of("full_sessions", "full_jid", backend.jid), limit_of("incoming_s2s", "from_host", PROXY) };
		backend:close();
		await_ready(server, 0);
		return limits;
	end

	it("is limited twice, by Debian's configuration", function ()
		assert.same({ CLIENT_RATE, STREAM_RATE }, limits_with "");
	end);

	it("is not limited with the line that is told to write", function ()
		assert.same({ 0, 0 }, limits_with(line));
	end);

	it("is limited once without either of its addresses", function ()
		assert.same({ CLIENT_RATE, 0 }, limits_with((line:gsub('"some%-user@[^"]*", ', ""))));
		assert.same({ 0, STREAM_RATE }, limits_with((line:gsub(', "proxy[^"]*"', ""))));
	end);
end);
