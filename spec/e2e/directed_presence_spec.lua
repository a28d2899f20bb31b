-- Directed presence: who thinks whom available, when clients come, go and are cut off, when the module goes, and on other servers.

local new_ejabberd = require "spec.support.ejabberd".new;
local new_prosody = require "spec.support.prosody".new;
local usual_hosts = require "spec.support.prosody".usual_hosts;
local service = require "spec.support.service";
local socket = require "socket";
local throwaway = require "spec.support.throwaway";
local xmpp = require "spec.support.xmpp";
local st = require "util.stanza";

local PROXY, TARGET = service.proxy, service.target;
local SERVICES = { PROXY, "node@"..PROXY };

-- What a service's addresses begin with
local function is_of_proxy(address)
	local host = address:gsub("^[^@/]*@", ""):gsub("/.*", "");
	return host == PROXY;
end

local function is_presence_of_proxy(stanza)
	return stanza.name == "presence" and is_of_proxy(stanza.attr.from);
end

-- (connection, type) -> the presence of that type that comes next from an address of the proxy
local function receive(connection, type)
	local stanza = connection:receive(is_presence_of_proxy);
	assert.equal(type, stanza.attr.type);
	return stanza;
end

local function assert_nothing(connection)
	for _, stanza in ipairs(connection:sync()) do
		assert.is_false(is_presence_of_proxy(stanza), tostring(stanza));
	end
	connection.received = {};
end

local function direct(connection, to, type)
	connection:send(st.presence({ to = to, type = type }):text_tag("status", "as it is"));
end

-- `unavailable` comes once from each of these addresses
local function assert_ends(connection, addresses)
	local missing, count = {}, #addresses;
	for _, address in ipairs(addresses) do
		missing[address] = true;
	end
	for _ = 1, count do
		local from = receive(connection, "unavailable").attr.from;
		assert.is_true(missing[from], from);
		missing[from] = nil;
	end
	assert_nothing(connection);
end

local GOING = {
	["logs out"] = function (connection) connection:close(); end;
	["is cut off"] = function (connection) connection:cut(); end;
	["says so"] = function (connection) connection:send(st.presence({ type = "unavailable" })); end;
};

describe("directed presence", function ()
	local server, requester, backends;

	before_each(function ()
		server = new_prosody():start();
		backends = service.backends(server, { "a", "b" });
		requester = service.requester(server);
		requester:send(st.presence());
		requester:sync();
		requester.received = {};
	end);

	after_each(function ()
		server:remove();
	end);

	-- The backend that the requester's messages to this address go to -> it, the address that it sees
	local function of_messages(to)
		requester:send(st.message({ to = to, type = "chat", id = "m" }):text_tag("body", "who?"));
		requester:sync();
		for _, backend in pairs(backends) do
			for _, stanza in ipairs(backend:sync()) do
				if xmpp.is_message(stanza) then
					backend.received = {};
					return backend, stanza.attr.from;
				end
			end
		end
		error("no backend has got the message");
	end

	-- -> the address from which the requester gets what this backend sends to the token
	local function address_of(backend, token)
		backend:send(st.message({ to = token, type = "chat" }):text_tag("body", "here"));
		return requester:receive(xmpp.is_message).attr.from;
	end

	local function module_command(command)
		server:ctl("shell", "module", command, "client_proxy", PROXY);
	end

	-- (options): reloads the module with these below the component, and no other ones
	local function reconfigure(options)
		server:configure(usual_hosts:gsub("target_address.*", "")..options);
		server:ctl("shell", "config", "reload");
		module_command("reload");
	end

	for _, at in ipairs { PROXY, PROXY.."/x", "node@"..PROXY, "node@"..PROXY.."/x" } do
		it("of a requester goes to the backend that its messages go to, as it is: "..at, function ()
			local backend, token = of_messages(at);
			for _, type in ipairs { false, "unavailable" } do
				direct(requester, at, type or nil);
				local stanza = receive(backend, type or nil);
				assert.equal(token, stanza.attr.from);
				assert.equal(backend.jid, stanza.attr.to);
				assert.equal("as it is", stanza:get_child_text("status"));
			end
			direct(requester, at, "unavailable");
			assert_nothing(requester);
			assert_nothing(backends.a);
			assert_nothing(backends.b);
		end);
	end

	for how, go in pairs(GOING) do
		it("of a requester ends once for each backend and service when it "..how, function ()
			local tokens = {};
			for index, address in ipairs(SERVICES) do
				local _, token = of_messages(address);
				tokens[index] = token;
				for _, at in ipairs { address, address_of(backends.a, token), address_of(backends.b, token) } do
					direct(requester, at);
					requester:sync();
				end
			end
			for _, backend in pairs(backends) do
				backend:sync();
				backend.received = {};
			end
			go(requester);
			assert_ends(backends.a, tokens);
			assert_ends(backends.b, tokens);
		end);

		it("of a backend ends once for each service when it "..how, function ()
			local addresses = {};
			for index, at in ipairs(SERVICES) do
				local _, token = of_messages(at);
				addresses[index] = address_of(backends.a, token);
				direct(backends.a, token);
				assert.equal(addresses[index], receive(requester).attr.from);
				direct(backends.b, token);
				receive(requester);
			end
			go(backends.a);
			assert_ends(requester, addresses);
		end);
	end

	it("of a requester that is in the account's roster ends, though its server tells it at the bare address", function ()
		server:run_lua(("prosody.bare_sessions['user@some-domain.example'].roster[%q] = { subscription = 'from', groups = {} }"):format(PROXY));
		local _, token = of_messages(PROXY);
		direct(requester, address_of(backends.a, token));
		assert.equal(token, receive(backends.a).attr.from);
		requester:close();
		assert_ends(backends.a, { token });
	end);

	it("of a requester moves on when its backend has gone", function ()
		local backend, token = of_messages(PROXY);
		local other = backend == backends.a and backends.b or backends.a;
		direct(requester, PROXY);
		receive(backend);
		backend:close();
		other:sync();
		direct(requester, PROXY);
		assert.equal(token, receive(other).attr.from);
		requester:close();
		assert_ends(other, { token });
	end);

	it("ends with the address that it had, though backends see another one now", function ()
		local backend, token = of_messages(PROXY);
		direct(requester, PROXY);
		receive(backend);
		reconfigure("target_address = 'some-user@some-domain.example'; client_proxy_address_format = 'plain'");
		assert_nothing(backend);
		requester:close();
		assert_ends(backend, { token });
	end);

	it("goes on over a reload, and ends when the module is unloaded, or serves another account", function ()
		for _, last in ipairs { "unload", "retarget" } do
			local backend, token = of_messages(PROXY);
			local address = address_of(backend, token);
			direct(requester, PROXY);
			receive(backend);
			direct(backend, token);
			receive(requester);
			module_command("reload");
			assert_nothing(backend);
			assert_nothing(requester);
			if last == "unload" then
				module_command("unload");
			else
				reconfigure("target_address = 'other-user@some-domain.example'");
			end
			assert_ends(requester, { address });
			receive(backend, "unavailable");
			for _, each in pairs(backends) do
				each:sync();
				each.received = {};
			end
			module_command("load");
			backend:send(st.presence());
			backend:sync();
		end
	end);

	it("ends when Prosody stops", function ()
		local backend, token = of_messages(PROXY);
		direct(requester, PROXY);
		receive(backend);
		server:signal("TERM");
		assert.equal(token, receive(backend, "unavailable").attr.from);
	end);

	it("is never answered", function ()
		local _, token = of_messages(PROXY);
		for _, backend in pairs(backends) do
			backend:close();
		end
		for _, type in ipairs { false, "unavailable", "error" } do
			for _, at in ipairs { PROXY, PROXY.."/x", token, "node@"..PROXY, PROXY.."/bAAAAAAAAAAAA" } do
				direct(requester, at, type or nil);
			end
		end
		assert_nothing(requester);
		assert.falsy(server:log():find("\terror\t"));
	end);
end);

local new_other = {
	Prosody = function (options)
		options.hosts = 'VirtualHost "some-domain.example"';
		return new_prosody(options);
	end;
	ejabberd = function (options)
		options.host = "some-domain.example";
		return new_ejabberd(options);
	end;
};

-- In that account's roster, the proxy may see its presence.
local add_to_roster = {
	Prosody = function (other)
		other:run_lua(("prosody.bare_sessions['listed@some-domain.example'].roster[%q] = { subscription = 'from', groups = {} }")
			:format(PROXY));
	end;
	ejabberd = function (other)
		other:run([[mod_admin_extra:add_rosteritem(<<"listed">>, <<"some-domain.example">>, <<>>, <<"]]..PROXY
			..[[">>, <<>>, <<>>, <<"from">>)]]);
	end;
};

for name, new in pairs(new_other) do
	describe("directed presence by way of another server, "..name..",", function ()
		local server, other, observer, backend;
		local requesters; -- in the order here, there, there and listed

		before_each(function ()
			local port, other_port = throwaway.free_port(), throwaway.free_port();
			server = new_prosody {
				hosts = [[
VirtualHost "domain.example"
Component "proxy.domain.example" "client_proxy"
	target_address = "some-user@some-domain.example"
	modules_enabled = { "copy_presence" }
	copy_presence_to = "observer@domain.example/observer"
]];
				accounts = { "user@domain.example", "observer@domain.example" };
				s2s = { port = port, peer_port = other_port };
			};
			other = new {
				accounts = { TARGET, "user@some-domain.example", "listed@some-domain.example", "flush@some-domain.example" };
				s2s = { port = other_port, peer_port = port, peer_domains = { "domain.example", PROXY } };
			};
			other:start();
			server:start();
			observer = xmpp.client(server, "observer", "domain.example", "observer");
		end);

		after_each(function ()
			server:remove();
			other:remove();
		end);

		-- All that has been sent so far has come to where it goes, by whatever server, or is sent by the proxy's next slice.
		local function flush()
			local client = xmpp.client(other, "flush", "some-domain.example", "flush");
			for number = 1, 2 do
				local answer = client:request(service.request("flush-"..number, PROXY.."/bAAAAAAAAAAAA"));
				assert.equal("item-not-found", service.error_of(answer));
			end
			client:close();
		end

		-- -> the addresses of those whom the backend has been told of since the last time
		local function take_seen()
			flush();
			local seen = {};
			for _, stanza in ipairs(backend:sync()) do
				if is_presence_of_proxy(stanza) then
					assert.is_nil(stanza.attr.type);
					table.insert(seen, stanza.attr.from);
				end
			end
			backend.received = {};
			return seen;
		end

		-- The roster makes a difference: the backend sees the one who is listed, once, and nobody else. When a stream has just
		-- ended, as at the beginning, it may be in doubt for a moment, and sees nobody.
		local function await_seen(listed)
			local deadline = socket.gettime() + 10;
			local seen = take_seen();
			while not seen[1] do
				assert(socket.gettime() < deadline, "the backend does not see who is listed");
				listed:send(st.presence());
				listed:sync();
				seen = take_seen();
			end
			assert.equal(1, #seen);
		end

		local function log_in()
			backend = xmpp.client(other, "some-user", "some-domain.example", "a");
			backend:send(st.presence());
			backend:receive(xmpp.presence_from(PROXY, "subscribe"));
			backend:send(st.presence({ to = PROXY, type = "subscribed" }));
			observer:receive(function (stanza)
				return xmpp.is_message(stanza) and stanza.tags[1].attr.from == backend.jid and not stanza.tags[1].attr.type;
			end);
			local listed = xmpp.client(other, "listed", "some-domain.example", "abc");
			add_to_roster[name](other);
			requesters = {
				xmpp.client(server, "user", "domain.example", "abc"), xmpp.client(other, "user", "some-domain.example", "abc"), listed;
			};
			for _, requester in ipairs(requesters) do
				requester:send(st.presence());
				requester:sync();
			end
			await_seen(listed);
		end

		-- -> the address that the backend sees of that requester
		local function token_of(requester)
			requester:send(st.message({ to = PROXY, type = "chat", id = "m" }):text_tag("body", "who?"));
			return backend:receive(xmpp.is_message).attr.from;
		end

		-- -> the backend's address, as that requester sees it
		local function answer(token, requester)
			backend:send(st.message({ to = token, type = "chat" }):text_tag("body", "here"));
			return requester:receive(xmpp.is_message).attr.from;
		end

		for how, go in pairs(GOING) do
			it("of requesters ends once for the backend when one "..how, function ()
				log_in();
				for _, requester in ipairs(requesters) do
					local token = token_of(requester);
					direct(requester, PROXY);
					assert.equal(token, receive(backend).attr.from);
					direct(requester, answer(token, requester));
					assert.equal(token, receive(backend).attr.from);
					flush();
					backend:sync();
					backend.received = {};
					go(requester);
					assert.equal(token, receive(backend, "unavailable").attr.from);
					flush();
					assert_nothing(backend);
				end
			end);

			it("of the backend ends once for each requester when it "..how, function ()
				log_in();
				local addresses = {};
				for number, requester in ipairs(requesters) do
					local token = token_of(requester);
					addresses[number] = answer(token, requester);
					direct(backend, token);
					assert.equal(addresses[number], receive(requester).attr.from);
				end
				go(backend);
				for number, requester in ipairs(requesters) do
					assert.equal(addresses[number], receive(requester, "unavailable").attr.from);
				end
				flush();
				for _, requester in ipairs(requesters) do
					assert_nothing(requester);
				end
			end);
		end
	end);
end
