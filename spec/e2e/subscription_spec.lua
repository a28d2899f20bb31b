-- The target is on the same Prosody, and nobody has to approve anything.

local new_prosody = require "spec.support.prosody".new;
local service = require "spec.support.service";
local xmpp = require "spec.support.xmpp";
local st = require "util.stanza";

local PROXY, TARGET = service.proxy, service.target;

describe("the subscription to a target on the same Prosody", function ()
	local server;

	after_each(function ()
		server:remove();
	end);

	local function start(option)
		server = new_prosody { hosts = ([[
VirtualHost "some-domain.example"
Component "proxy.domain.example" "client_proxy"
	target_address = "some-user@some-domain.example"
	%s
]]):format(option or "") }:start();
	end

	-- Runs a function of Prosody's on the target's account.
	local function run(manager, call, ...)
		local arguments = {};
		for _, argument in ipairs { ... } do
			table.insert(arguments, ("%q"):format(argument));
		end
		local output = server:run_lua(("require %q.%s(%s) or error('failed')"):format(manager, call, table.concat(arguments, ", ")));
		assert.falsy(output:find("failed", 1, true), output);
	end

	local function make_account()
		run("core.usermanager", "create_user", "some-user", "some-user", "some-domain.example");
	end

	local function delete_account()
		run("core.usermanager", "delete_user", "some-user", "some-domain.example");
	end

	-- A request goes to this backend and back.
	local function serves(backend)
		backend:sync();
		backend.received = {};
		local requester = service.requester(server);
		requester:send(service.request("served"));
		requester:sync();
		assert.equal(1, service.answer_all(backend));
		assert.equal("result", requester:receive(xmpp.is_iq).attr.type);
		requester:close();
	end

	local function refuses()
		local requester = service.requester(server);
		assert.equal("service-unavailable", service.error_of(requester:request(service.request("refused"))));
		requester:close();
	end

	-- What the target's own roster says of the proxy; it gets pushes from then on.
	local function roster_item(client)
		local roster = client:request(st.iq({ type = "get", id = "roster" }):tag("query", { xmlns = "jabber:iq:roster" }));
		for item in roster:get_child("query", "jabber:iq:roster"):childtags("item") do
			if item.attr.jid == PROXY then
				return item.attr.subscription, item.attr.ask;
			end
		end
	end

	-- Waits for a push of the proxy's item with this subscription.
	local function receive_push(client, subscription)
		return client:receive(function (stanza)
			local query = stanza.attr.type == "set" and stanza:get_child("query", "jabber:iq:roster");
			local item = query and query:get_child("item");
			return item and item.attr.jid == PROXY and item.attr.subscription == subscription;
		end);
	end

	local function says(...)
		local status = server:client_proxy("status", PROXY);
		for _, words in ipairs { ... } do
			assert.truthy(status:find(words, 1, true), status);
		end
	end

	it("is there on the first start, and each one after it", function ()
		start();
		for number = 1, 8 do
			local backend = service.backend(server, "a");
			serves(backend);
			if number == 1 then
				assert.same({ "from" }, { roster_item(backend) });
			end
			server:stop();
			server:start();
		end
	end);

	-- Another account is the target from now on.
	local function move_on()
		server:configure(([[
VirtualHost "some-domain.example"
Component "proxy.domain.example" "client_proxy"
	target_address = "user@some-domain.example"
]]));
		server:ctl("shell", "config", "reload");
		server:ctl("shell", "module", "reload", "client_proxy", PROXY);
	end

	it("is taken back when a reload brings another target, with a push", function ()
		start();
		server:stop();
		server:start(); -- it is known after a restart, too, that the module has made it
		local backend = service.backend(server, "a");
		assert.same({ "from" }, { roster_item(backend) });
		move_on();
		receive_push(backend, "remove");
		assert.same({}, { roster_item(backend) });
	end);

	it("is left alone when a reload brings another target, if the account's owner has made or changed it", function ()
		start("client_proxy_auto_approve = false");
		local backend = service.backend(server, "a");
		backend:send(st.presence({ to = PROXY, type = "subscribed" }));
		backend:sync();
		assert.same({ "from" }, { roster_item(backend) });
		move_on();
		assert.same({ "from" }, { roster_item(backend) });
		server:remove();

		start();
		backend = service.backend(server, "a");
		backend:request(st.iq({ type = "set", id = "name" }):tag("query", { xmlns = "jabber:iq:roster" })
			:tag("item", { jid = PROXY, name = "The service" }):reset());
		move_on();
		assert.same({ "from" }, { roster_item(backend) });
	end);

	it("is made when the account is, after the start", function ()
		start();
		delete_account();
		server:stop();
		server:start();
		says("Subscription:   no-account", "There is no account "..TARGET);
		refuses();
		make_account();
		local backend = service.backend(server, "a");
		serves(backend);
		assert.same({ "from" }, { roster_item(backend) });
		server:client_proxy("resync", PROXY);
		says("Subscription:   granted", "requests are served");
	end);

	it("is made again when the account is deleted and made again", function ()
		start();
		serves(service.backend(server, "a"));
		delete_account();
		refuses();
		make_account();
		serves(service.backend(server, "a"));
		server:stop();
		server:start();
		serves(service.backend(server, "a"));
	end);

	it("is made again when the target's client removes it from the roster, with a push", function ()
		start();
		local backend = service.backend(server, "a");
		roster_item(backend);
		backend:request(st.iq({ type = "set", id = "remove" }):tag("query", { xmlns = "jabber:iq:roster" })
			:tag("item", { jid = PROXY, subscription = "remove" }));
		receive_push(backend, "from");
		serves(backend);
	end);

	it("is made again when a client of the target's ends it, with a push", function ()
		start();
		local backend = service.backend(server, "a");
		roster_item(backend);
		backend:send(st.presence({ to = PROXY, type = "unsubscribed" }));
		receive_push(backend, "none");
		receive_push(backend, "from");
		serves(backend);
	end);

	it("is made again when the roster has been edited with no word to anybody", function ()
		start();
		local first = service.backend(server, "a");
		serves(first);
		run("core.rostermanager", "unsubscribed", "some-user", "some-domain.example", PROXY);
		assert.same({ "none" }, { roster_item(first) });
		local second = service.backend(server, "b");
		assert.same({ "from" }, { roster_item(second) });
		first:close();
		serves(second);
	end);

	it("is made again when the roster was lost while Prosody was not running", function ()
		start();
		serves(service.backend(server, "a"));
		server:stop();
		assert(os.execute(("rm -r '%s/data/some%%2ddomain%%2eexample/roster'"):format(server.dir)));
		server:start();
		local backend = service.backend(server, "a");
		serves(backend);
		assert.same({ "from" }, { roster_item(backend) });
	end);

	it("is there again when the target's host was away for a while", function ()
		start();
		serves(service.backend(server, "a"));
		server:ctl("shell", "host", "deactivate", "some-domain.example");
		server:ctl("shell", "host", "activate", "some-domain.example");
		local backend = service.backend(server, "a");
		serves(backend);
		run("core.rostermanager", "unsubscribed", "some-user", "some-domain.example", PROXY);
		serves(service.backend(server, "a")); -- in the place of the other
	end);

	-- (target, components) -> the log; a proxy of that target is said to have it on a component, before and after a reload
	local function is_told_of_a_component(target, components)
		server = new_prosody { hosts = ([[
VirtualHost "some-domain.example"
Component "proxy.domain.example" "client_proxy"
	target_address = %q
]]):format(target)..components }:start();
		refuses();
		local words = target:match("@(.*)").." is a component, not a host with accounts: write an account that serves as "
			.."target_address of "..PROXY;
		says(words);
		server:ctl("shell", "module", "reload", "client_proxy", PROXY);
		server:client_proxy("resync", PROXY);
		refuses();
		says(words);
		assert.truthy(server:log():find("\twarn\t"..words, 1, true));
		for _, wrong in ipairs { "has not approved yet", "cannot be reached", "[Tt]raceback" } do
			assert.falsy(server:log():find(wrong));
		end
	end

	it("is said to be impossible where the target is a room", function ()
		is_told_of_a_component("room@rooms.domain.example", [[
Component "rooms.domain.example" "muc"
]]);
	end);

	it("is said to be impossible where the target is on another proxy", function ()
		is_told_of_a_component("room@other-proxy.domain.example", [[
Component "other-proxy.domain.example" "client_proxy"
	target_address = "some-user@some-domain.example"
]]);
	end);

	it("is said to be impossible where the target's host has become a component, until it is a host again", function ()
		start();
		serves(service.backend(server, "a"));
		local function become(kind)
			server:configure(kind..[[

Component "proxy.domain.example" "client_proxy"
	target_address = "some-user@some-domain.example"
VirtualHost "other.example"
]]);
			server:ctl("shell", "config", "reload");
			server:ctl("shell", "host", "deactivate", "some-domain.example");
			server:ctl("shell", "host", "activate", "some-domain.example");
		end
		become [[Component "some-domain.example" "muc"]];
		says("some-domain.example is a component, not a host with accounts");
		local rounds = 0;
		repeat -- until presence has had its time to come
			rounds = rounds + 1;
			assert(rounds < 100, "the log does not tell it");
			says("some-domain.example is a component, not a host with accounts");
		until server:log():find("\twarn\tsome-domain.example is a component", 1, true);
		become [[VirtualHost "some-domain.example"]];
		serves(service.backend(server, "a"));
		says("requests are served");
	end);

	it("is the one of two proxies, each to its own target", function ()
		server = new_prosody { hosts = [[
VirtualHost "some-domain.example"
Component "proxy.domain.example" "client_proxy"
	target_address = "some-user@some-domain.example"
Component "other-proxy.domain.example" "client_proxy"
	target_address = "other-user@some-domain.example"
]] }:start();
		local backend = service.backend(server, "a");
		serves(backend);
		local requester = service.requester(server);
		local to_other = service.request("other", "other-proxy.domain.example");
		assert.equal("service-unavailable", service.error_of(requester:request(to_other)));
		local other = xmpp.client(server, "other-user", "some-domain.example", "a");
		other:send(st.presence());
		other:sync();
		requester:send(to_other);
		assert.truthy(other:receive(xmpp.is_iq).attr.from:find("^other%-proxy%.domain%.example/"));
	end);

	describe("that the target has to the proxy's presence", function ()
		it("is accepted, in both rosters, and told when the proxy can serve", function ()
			start();
			local watcher = service.backend(server, "watcher", -1); -- which gets no requests
			roster_item(watcher);
			watcher:send(st.presence({ to = PROXY, type = "subscribe" }));
			receive_push(watcher, "both");
			watcher:receive(xmpp.presence_from(PROXY, "unavailable"));
			local backend = service.backend(server, "a");
			watcher:receive(xmpp.presence_from(PROXY));
			backend:close();
			watcher:receive(xmpp.presence_from(PROXY, "unavailable"));
			service.backend(server, "b");
			watcher:receive(xmpp.presence_from(PROXY));
			server:ctl("shell", "module", "unload", "client_proxy", PROXY);
			watcher:receive(xmpp.presence_from(PROXY, "unavailable"));
			server:ctl("shell", "module", "load", "client_proxy", PROXY);
			watcher:receive(xmpp.presence_from(PROXY));
		end);

		it("lasts over a restart: a probe is answered", function ()
			start();
			local watcher = service.backend(server, "watcher", -1);
			roster_item(watcher);
			watcher:send(st.presence({ to = PROXY, type = "subscribe" }));
			watcher:receive(xmpp.presence_from(PROXY, "subscribed"));
			server:stop();
			server:start();
			local backend = xmpp.client(server, "some-user", "some-domain.example", "a");
			backend:send(st.presence()); -- with which Prosody sends the probe
			backend:receive(xmpp.presence_from(PROXY));
			backend:send(st.presence():text_tag("priority", "-1"));
			backend:receive(xmpp.presence_from(PROXY, "unavailable"));
		end);
	end);

	describe("with client_proxy_auto_approve = false", function ()
		it("waits for the target's owner, and says so", function ()
			start "client_proxy_auto_approve = false";
			local backend = xmpp.client(server, "some-user", "some-domain.example", "a");
			assert.is_nil(roster_item(backend));
			backend:send(st.presence());
			backend:receive(xmpp.presence_from(PROXY, "subscribe"));
			refuses();
			says("Subscription:   unapproved", TARGET.." has not approved yet", "accept the request");
			backend:send(st.presence({ to = PROXY, type = "subscribed" }));
			receive_push(backend, "from");
			serves(backend);
			says("Subscription:   granted", "requests are served");
		end);

		it("stays ended when the target's owner ends it, and says so", function ()
			start "client_proxy_auto_approve = false";
			local backend = xmpp.client(server, "some-user", "some-domain.example", "a");
			backend:send(st.presence());
			backend:receive(xmpp.presence_from(PROXY, "subscribe"));
			backend:send(st.presence({ to = PROXY, type = "subscribed" }));
			serves(backend);
			backend:send(st.presence({ to = PROXY, type = "unsubscribed" }));
			backend:sync();
			refuses();
			says("Subscription:   refused", "does not let "..PROXY.." see its presence");
			backend:receive(xmpp.presence_from(PROXY, "subscribe")); -- asked again, for the case of a mistake
			backend:send(st.presence({ to = PROXY, type = "unsubscribed" }));
			assert.not_equal("from", (roster_item(backend)));
		end);
	end);
end);
