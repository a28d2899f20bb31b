-- Who may use the service (client_proxy_allow)

local new_prosody = require "spec.support.prosody".new;
local service = require "spec.support.service";
local xmpp = require "spec.support.xmpp";
local st = require "util.stanza";

local is_iq, request = xmpp.is_iq, service.request;

-- (list, more) -> the configuration, with that list in Lua; more: lines in front of the component's options
local function hosts_with(list, more)
	return ([[
VirtualHost "some-domain.example"
VirtualHost "open.example"
VirtualHost "x.glob.example"
Component "component.example"
	component_secret = "component.example"
Component "proxy.domain.example" "client_proxy"
%s
	target_address = "some-user@some-domain.example"
	client_proxy_allow = %s
]]):format(more or "", list);
end

local ACCOUNTS = {
	"some-user@some-domain.example", "user@some-domain.example", "other-user@some-domain.example",
	"user@open.example", "bot-1@x.glob.example",
};

describe("with client_proxy_allow", function ()
	local server, backend, clients;

	local function start(list, more)
		server = new_prosody { hosts = hosts_with(list, more), accounts = ACCOUNTS }:start();
		backend = service.backend(server, "a");
		clients = {};
		for _, account in ipairs(ACCOUNTS) do
			local user, host = account:match("^(.*)@(.*)$");
			clients[account] = xmpp.client(server, user, host, "abc");
		end
		clients["component.example"] = xmpp.component(server, "component.example", "some-domain.example");
	end

	after_each(function ()
		server:remove();
	end);

	local function request_of(name, client, to)
		local stanza = request(name, to);
		stanza.attr.from = client.from;
		return stanza;
	end

	-- Each of these is served, and all others are not.
	local function assert_served(names)
		local is_served = {};
		for _, name in ipairs(names) do
			is_served[name] = true;
		end
		for name, client in pairs(clients) do
			for _, address in ipairs { "proxy.domain.example", "room@proxy.domain.example/thing" } do
				client:send(request_of(name, client, address));
				client:sync();
				assert.equal(is_served[name] and 1 or 0, service.answer_all(backend), name);
				client:sync();
				local answer = client:receive(is_iq);
				assert.equal(address, answer.attr.from);
				if is_served[name] then
					assert.equal("result", answer.attr.type);
				else
					assert.same({ "forbidden", "auth" }, { service.error_of(answer) });
				end
				client.received = {};
			end
		end
	end

	it("those who are listed are served: a host, a bare JID, globs; all others are forbidden, until a reload brings another list", function ()
		start [[{ "open.example", "User@some-domain.example", "*.glob.example" }]];
		assert_served { "user@open.example", "user@some-domain.example", "bot-1@x.glob.example" };
		assert.equal("forbidden", service.error_of(backend:request(request("by a backend"))));
		local metrics = server:metrics();
		assert.equal(7, metrics['prosody_mod_client_proxy__requests_total{host="proxy.domain.example",outcome="refused"}']);

		for _, case in ipairs {
			{ [[{ "component.example", "bot-?@*.example" }]], { "component.example", "bot-1@x.glob.example" } },
			{ [["some-domain.example"]], { "some-user@some-domain.example", "user@some-domain.example", "other-user@some-domain.example" } },
			{ [[{ "nobody@some-domain.example" }]], {} },
			{ [[nil]], { "component.example", table.unpack(ACCOUNTS) } },
		} do
			server:configure(hosts_with(case[1]));
			server:ctl("shell", "config", "reload");
			server:ctl("shell", "module", "reload", "client_proxy", "proxy.domain.example");
			backend:sync();
			backend.received = {};
			assert_served(case[2]);
		end
	end);

	it("what a requester has asked is answered, though a reload has forbidden it meanwhile", function ()
		start [[{ "some-domain.example" }]];
		local requester = clients["user@some-domain.example"];
		requester:send(request("before"));
		requester:sync();
		server:configure(hosts_with [[{ "open.example" }]]);
		server:ctl("shell", "config", "reload");
		server:ctl("shell", "module", "reload", "client_proxy", "proxy.domain.example");
		assert.equal(1, service.answer_all(backend));
		local answer = requester:receive(is_iq);
		assert.same({ "result", "before" }, { answer.attr.type, answer.attr.id });
		assert.equal("forbidden", service.error_of(requester:request(request("after"))));
	end);

	it("what other modules on the component answer is answered to anybody", function ()
		start([[{ "open.example" }]], [[	modules_enabled = { "ping", "disco" }]]);
		local requester = clients["user@some-domain.example"];
		for _, xmlns in ipairs { "urn:xmpp:ping", "http://jabber.org/protocol/disco#info" } do
			local stanza = st.iq({ type = "get", id = xmlns, to = "proxy.domain.example" })
				:tag(xmlns == "urn:xmpp:ping" and "ping" or "query", { xmlns = xmlns });
			assert.equal("result", requester:request(stanza).attr.type);
		end
		assert.equal("forbidden", service.error_of(requester:request(request("other"))));
	end);
end);
