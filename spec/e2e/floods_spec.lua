-- What strangers cannot bring about: memory that stays, lines in the log, stanzas without end

local new_prosody = require "spec.support.prosody".new;
local service = require "spec.support.service";
local xmpp = require "spec.support.xmpp";
local st = require "util.stanza";

local PROXY = service.proxy;
local is_message = xmpp.is_message;

local hosts = [[
VirtualHost "some-domain.example"
Component "component.example"
	component_secret = "component.example"
Component "proxy.domain.example" "client_proxy"
	target_address = "some-user@some-domain.example"
	client_proxy_max_requesters = 500
]];

describe("a stranger", function ()
	local server;

	after_each(function ()
		server:remove();
	end);

	it("makes the proxy remember no more than it may, and write no line, by messages and presence of any kind", function ()
		server = new_prosody { hosts = hosts, log_level = "info" }:start();
		local backend = service.backend(server, "a");
		local component = xmpp.component(server, "component.example", "some-domain.example");
		local number = 0;

		-- Stanzas of a requester that nobody has seen before
		local function flood(count)
			for _ = 1, count do
				number = number + 1;
				local from, id = ("user-%d@component.example/%s"):format(number, ("x"):rep(number % 500 + 1)), "n"..number;
				local places = { PROXY, "room@"..PROXY, PROXY.."/thing-"..number, PROXY.."/bAAAAAAAAAAAA", PROXY.."/qAAAAAAAAAAAA" };
				for index, type in ipairs { "chat", "headline", "groupchat", "error" } do
					component:send(st.message({ from = from, to = places[(number + index) % #places + 1], id = id, type = type }, "hello"));
				end
				for index, type in ipairs { false, "unavailable", "subscribe", "unsubscribe", "probe", "error", "subscribed" } do
					component:send(st.presence({ from = from, to = places[(number + index) % #places + 1], type = type or nil }));
				end
				if number % 50 == 0 then
					component:sync();
					component.received = {};
					backend:sync();
					backend.received = {};
				end
			end
		end

		-- What is logged, but for those who ask Prosody by its shell
		local function log()
			return (server:log():gsub("[^\n]* admin%x*\t[^\n]*\n", ""));
		end

		flood(1500);
		local before, memory = log(), server:lua_memory();
		flood(3000);
		assert.is_true(server:lua_memory() < memory + 512, server:lua_memory() - memory);
		assert.equal(before, log());
		local metrics = server:metrics();
		for _, name in ipairs { "requesters", "watchers" } do
			assert.is_true(metrics[("prosody_mod_client_proxy__%s{host=%q}"):format(name, PROXY)] <= 500, name);
		end
		-- and everybody is served as before
		local requester = service.requester(server);
		requester:send(st.message({ to = PROXY, id = "served", type = "chat" }, "hello"));
		backend:send(st.message({ to = backend:receive(is_message).attr.from, id = "answer", type = "chat" }, "hello"));
		assert.equal("answer", requester:receive(is_message).attr.id);
	end);

	it("gets two proxies that are behind each other's targets to send each other nothing without end", function ()
		server = new_prosody { hosts = [[
VirtualHost "some-domain.example"
Component "one.example" "client_proxy"
	target_address = "account@two.example"
Component "two.example" "client_proxy"
	target_address = "account@one.example"
]], log_level = "debug" }:start();
		local requester = service.requester(server);
		for _, address in ipairs { "one.example", "two.example", "account@one.example", "account@two.example" } do
			requester:send(st.message({ to = address, id = address, type = "chat" }, "hello"));
			assert.equal("service-unavailable", (service.error_of(requester:receive(is_message))));
			assert.equal("service-unavailable", (service.error_of(requester:request(service.request(address, address)))));
			for _, type in ipairs { false, "subscribe", "probe" } do
				requester:send(st.presence({ to = address, type = type or nil }));
			end
		end
		requester:sync();
		local before = #server:log();
		for _ = 1, 3 do
			requester:sync();
		end
		-- what is logged of these three, and of nothing else
		assert.is_true(#server:log() - before < 3000, server:log():sub(before));
	end);
end);
