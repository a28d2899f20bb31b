-- Accounts subscribe to the service's presence, with ordinary clients, and see it come and go.

local new_ejabberd = require "spec.support.ejabberd".new;
local new_prosody = require "spec.support.prosody".new;
local service = require "spec.support.service";
local throwaway = require "spec.support.throwaway";
local xmpp = require "spec.support.xmpp";
local lfs = require "lfs";
local gettime, sleep = require "socket".gettime, require "socket".sleep;
local st = require "util.stanza";

local PROXY, NODE = service.proxy, "node@"..service.proxy;
local USER = "user@some-domain.example";
local usual_hosts = require "spec.support.prosody".usual_hosts;

describe("a service that is watched", function ()
	local server, user;

	local function query_roster(client)
		return client:request(st.iq({ type = "get", id = "roster" }):tag("query", { xmlns = "jabber:iq:roster" }))
			:get_child("query", "jabber:iq:roster");
	end

	-- -> a client that is online, with the user's roster
	local function log_in(resource)
		local client = xmpp.client(server, "user", "some-domain.example", resource or "abc");
		query_roster(client);
		client:send(st.presence());
		client:receive(xmpp.presence_from(client.jid));
		return client;
	end

	-- What the user's roster says of an address
	local function subscription_to(address)
		for item in query_roster(user):childtags("item") do
			if item.attr.jid == address then
				return item.attr.subscription;
			end
		end
	end

	local function ask(type, address)
		user:send(st.presence { type = type, to = address or PROXY });
	end

	-- -> a list: the presence that has come from service addresses, as "TYPE from FROM", in this order
	local function seen(client)
		local list = {};
		for _, stanza in ipairs((client or user):sync()) do
			local from = stanza.name == "presence" and stanza.attr.from or "";
			if from == PROXY or from:find("@"..PROXY, 1, true) then
				table.insert(list, ("%s from %s"):format(stanza.attr.type or "available", from));
			end
		end
		(client or user).received = {};
		return list;
	end

	local function available(address)
		user:receive(xmpp.presence_from(address or PROXY));
	end

	local function unavailable(address)
		user:receive(xmpp.presence_from(address or PROXY, "unavailable"));
	end

	-- in either order
	local function unavailable_at_both()
		local addresses = { [PROXY] = true, [NODE] = true };
		while next(addresses) do
			local attr = user:receive(function (stanza) return stanza.name == "presence" and addresses[stanza.attr.from]; end).attr;
			assert.equal("unavailable", attr.type);
			addresses[attr.from] = nil;
		end
	end

	local function reload()
		server:ctl("shell", "module", "reload", "client_proxy", PROXY);
	end

	local function count()
		return tonumber(server:client_proxy("status", PROXY):match("\nWatchers: +(%d+)\n"));
	end

	before_each(function ()
		server = new_prosody():start();
		user = log_in();
	end);

	after_each(function ()
		server:remove();
	end);

	it("is seen as it comes and goes, and by those who come later", function ()
		ask "subscribe";
		assert.same({ "subscribed from "..PROXY, "unavailable from "..PROXY }, seen());
		assert.equal("to", subscription_to(PROXY));
		local backend = service.backend(server, "a");
		available();
		local later = log_in "later";
		assert.same({ "available from "..PROXY }, seen(later));
		backend:close();
		unavailable();
		assert.same({ "unavailable from "..PROXY }, seen(later));
		assert.same({ "unavailable from "..PROXY }, seen(log_in "last"));
		service.backend(server, "a");
		available();
		assert.equal(1, count());
		assert.equal(1, server:metrics()[("prosody_mod_client_proxy__watchers{host=%q}"):format(PROXY)]);
	end);

	it("is seen as it is there, though its backend is gone for a moment", function ()
		local backend = service.backend(server, "a");
		ask "subscribe";
		assert.same({ "subscribed from "..PROXY, "available from "..PROXY }, seen());
		for _ = 1, 3 do
			backend:close();
			backend = service.backend(server, "a");
		end
		assert.same({}, seen());
		backend:close();
		assert.same({}, seen());
		unavailable();
		assert.same({}, seen());
	end);

	it("is known to its watchers after a restart of Prosody", function ()
		local backend = service.backend(server, "a");
		ask "subscribe";
		ask("subscribe", NODE);
		available(NODE);
		user.received = {};
		-- Prosody 0.12 can be interrupted by a signal as it writes to a client, and takes what it sends to that one then for
		-- written. So the last that it writes before is not to this one.
		backend:sync();
		server:stop();
		unavailable_at_both();
		server:start();
		user = log_in();
		unavailable_at_both();
		service.backend(server, "a");
		available();
		assert.equal(2, count());
	end);

	it("is known after a crash of Prosody, and its watchers are told that it does not come again", function ()
		service.backend(server, "a");
		ask "subscribe";
		available();
		reload(); -- which writes it
		server:stop "KILL";
		server:start();
		user = xmpp.client(server, "user", "some-domain.example", "abc");
		query_roster(user);
		assert.same({}, seen());
		assert.equal(1, count());
		user:send(st.presence());
		unavailable(); -- its server's probe is answered
		unavailable(); -- and all are told
		assert.same({}, seen());
	end);

	it("tells nobody of a reload", function ()
		service.backend(server, "a");
		ask "subscribe";
		available();
		reload();
		reload();
		assert.same({}, seen());
		assert.equal(1, count());
		server:ctl("shell", "module", "unload", "client_proxy", PROXY);
		assert.same({ "unavailable from "..PROXY }, seen());
		server:ctl("shell", "module", "load", "client_proxy", PROXY);
		available();
		assert.equal(1, count());
	end);

	it("tells of a reload that is refused", function ()
		service.backend(server, "a");
		ask "subscribe";
		available();
		server:configure((usual_hosts:gsub("target_address", "no_address")));
		server:ctl("shell", "config", "reload");
		reload();
		assert.same({ "unavailable from "..PROXY }, seen());
	end);

	it("forgets who unsubscribes, or takes it from the roster", function ()
		ask "subscribe";
		ask("subscribe", NODE);
		seen();
		ask "unsubscribe";
		seen();
		assert.equal("none", subscription_to(PROXY));
		user:request(st.iq({ type = "set", id = "remove" }):tag("query", { xmlns = "jabber:iq:roster" })
			:tag("item", { jid = NODE, subscription = "remove" }):reset());
		assert.is_nil(subscription_to(NODE));
		assert.equal(0, count());
		seen();
		service.backend(server, "a");
		assert.same({}, seen());
	end);

	it("forgets an account that is deleted, though it is not in its roster", function ()
		ask "subscribe";
		seen();
		server:stop();
		assert(os.remove(server.dir.."/data/some%2ddomain%2eexample/roster/user.dat"));
		server:start();
		assert.equal(1, count());
		server:run_lua([[require "core.usermanager".delete_user("user", "some-domain.example")]]);
		assert.equal(0, count());
	end);

	it("is another at each address, of which an account can watch 32", function ()
		service.backend(server, "a");
		for number = 1, 32 do
			ask("subscribe", ("n%d@%s/thing"):format(number, PROXY));
			available(("n%d@%s"):format(number, PROXY));
		end
		user.received = {};
		ask "subscribe";
		assert.same({ "unsubscribed from "..PROXY }, seen());
		assert.equal("none", subscription_to(PROXY));
		assert.equal("to", subscription_to("n32@"..PROXY));
		assert.equal(32, count());
	end);

	it("answers a component's users as it does clients', nothing to errors, and not those who have not subscribed", function ()
		service.backend(server, "a");
		local component = xmpp.component(server, "component.example", "some-domain.example");
		local function send(type, to)
			component:send(st.presence { type = type, from = "who@component.example/x", to = to });
			local list = {};
			for _, stanza in ipairs(component:sync()) do
				table.insert(list, ("%s from %s to %s"):format(stanza.attr.type or "available", stanza.attr.from, stanza.attr.to));
			end
			component.received = {};
			return list;
		end
		assert.same({ "unsubscribed from "..PROXY.." to who@component.example" }, send("probe", PROXY));
		assert.same({
			"subscribed from "..PROXY.." to who@component.example", "available from "..PROXY.." to who@component.example",
		}, send("subscribe", PROXY.."/x"));
		assert.same({ "available from "..PROXY.." to who@component.example/x" }, send("probe", PROXY.."/y"));
		for _, type in ipairs { "subscribed", "unsubscribed", "unavailable", "something" } do
			assert.same({}, send(type, PROXY));
		end
		assert.same({ "available from "..PROXY.." to who@component.example/x" }, send("probe", PROXY));
		assert.same({}, send("error", PROXY));
		assert.same({ "unsubscribed from "..PROXY.." to who@component.example" }, send("probe", PROXY));
		assert.equal(0, count());
	end);

	it("is known to the others after a part of the store is damaged, which the log tells", function ()
		service.backend(server, "a");
		for number = 1, 20 do
			ask("subscribe", ("n%d@%s"):format(number, PROXY));
			available(("n%d@%s"):format(number, PROXY));
		end
		local component = xmpp.component(server, "component.example", "some-domain.example");
		for number = 1, 20 do
			component:send(st.presence { type = "subscribe", from = ("u%d@component.example"):format(number), to = PROXY });
		end
		component:sync();
		assert.equal(40, count());
		server:stop();
		local folder, damaged, left = server.dir.."/data/proxy%2edomain%2eexample/client_proxy_watchers", nil, 0;
		for name in lfs.dir(folder) do
			local content = name:find("%.dat$") and io.open(folder.."/"..name):read("a") or "";
			local _, watched = content:gsub("@component%.example", "");
			if watched > 0 and not damaged and not content:find(USER, 1, true) then
				damaged = name;
				local file = io.open(folder.."/"..name, "w");
				file:write("return {"):close();
			else
				left = left + watched;
			end
		end
		assert.is_true(left > 0 and left < 20);
		server:start();
		assert.equal(20 + left, count());
		local number = damaged:match("%d+");
		assert.truthy(server:log():find(("warn\t[^\n]*1 of the 64 entries of the store \"client_proxy_watchers\" of %s cannot be read %%(entry %s: ")
			:format(PROXY:gsub("%.", "%%."), number)));
		reload();
		assert.equal("return {", io.open(folder.."/"..damaged):read("a"));
	end);
end);

-- By the kind of the other server: (options) -> server, not yet running
local new_other = {
	Prosody = function (options)
		options.hosts = 'VirtualHost "elsewhere.example"';
		return new_prosody(options);
	end,
	ejabberd = function (options)
		options.host = "elsewhere.example";
		return new_ejabberd(options);
	end,
};

for _, name in ipairs { "Prosody", "ejabberd" } do
	describe("a service that is watched from another server, "..name..",", function ()
		local server, other, user;

		before_each(function ()
			local port, other_port = throwaway.free_port(), throwaway.free_port();
			server = new_prosody { s2s = { port = port, peer_port = other_port } }:start();
			other = new_other[name] {
				accounts = { "user@elsewhere.example" };
				s2s = { port = other_port, peer_port = port, peer_domains = { PROXY } };
			};
			other:start();
		end);

		after_each(function ()
			server:remove();
			other:remove();
		end);

		local function log_in()
			user = xmpp.client(other, "user", "elsewhere.example", "abc");
			user:request(st.iq({ type = "get", id = "roster" }):tag("query", { xmlns = "jabber:iq:roster" }));
			user:send(st.presence());
		end

		local function await(type)
			user:receive(xmpp.presence_from(PROXY, type));
		end

		local function count()
			return tonumber(server:client_proxy("status", PROXY):match("\nWatchers: +(%d+)\n"));
		end

		-- Waits until the proxy has been told that this server cannot be reached.
		local function await_bounces(number)
			local deadline = gettime() + 20;
			local bounces;
			repeat
				sleep(0.1);
				bounces = select(2, server:log():gsub("Sending error replies for [1-9]%d* queued stanzas", ""));
				assert(gettime() < deadline, "nothing came back");
			until bounces == number;
		end

		it("is watched on when that has been down for a while", function ()
			local backend = service.backend(server, "a");
			log_in();
			user:send(st.presence { type = "subscribe", to = PROXY });
			await "subscribed";
			await();
			other:stop();
			backend:close();
			await_bounces(1);
			assert.equal(1, count());
			service.backend(server, "a");
			await_bounces(2);
			assert.equal(1, count());
			other:start();
			log_in();
			await();
			assert.equal(1, count());
		end);
	end);
end
