-- The target is an account of an external component, so that the spec itself
-- writes what the target's server sends.

local new_prosody = require "spec.support.prosody".new;
local service = require "spec.support.service";
local xmpp = require "spec.support.xmpp";
local st = require "util.stanza";

local PROXY, TARGET = "proxy.domain.example", "some-user@component.example";

describe("a target on another server", function ()
	local server, other_server, requester;

	before_each(function ()
		server = new_prosody { hosts = [[
VirtualHost "some-domain.example"
Component "component.example"
	component_secret = "component.example"
Component "proxy.domain.example" "client_proxy"
	target_address = "some-user@component.example"
]] }:start();
		other_server = xmpp.component(server, "component.example", "some-domain.example");
		requester = service.requester(server);
		-- what it was sent at the start bounced: the component was not connected yet
		server:ctl("shell", "module", "reload", "client_proxy", PROXY);
	end);

	after_each(function ()
		server:remove();
	end);

	local function send_presence(from, type)
		other_server:send(st.presence({ from = from, to = PROXY, type = type }));
		other_server:sync();
		other_server.received = {};
	end

	-- The resources that requests go to, in alphabetical order
	local function backends()
		local seen, list = {}, {};
		for number = 1, 30 do
			requester:send(service.request("who-"..number));
		end
		requester:sync();
		for _, stanza in ipairs(other_server:sync()) do
			if stanza.name == "iq" then
				local resource = stanza.attr.to:match("^some%-user@component%.example/(.+)$");
				if not seen[resource] then
					seen[resource] = true;
					table.insert(list, resource);
				end
				other_server:send(st.reply(stanza));
			end
		end
		for _ = 1, 30 do
			local answer = requester:receive(xmpp.is_iq);
			if answer.attr.type == "error" then
				assert.equal("service-unavailable", service.error_of(answer));
			end
		end
		table.sort(list);
		return list;
	end

	it("is asked for a subscription on load, and probed when it grants it", function ()
		local subscribe = other_server:receive(xmpp.presence_from(PROXY, "subscribe"));
		assert.equal(TARGET, subscribe.attr.to);
		other_server:sync();
		assert.same({}, other_server.received); -- a probe now would end the request at some servers
		other_server:send(st.presence({ from = TARGET, to = PROXY, type = "subscribed" }));
		local probe = other_server:receive(xmpp.presence_from(PROXY, "probe"));
		assert.equal(TARGET, probe.attr.to);
	end);

	it("is served by what is available, until that is unavailable", function ()
		assert.same({}, backends());
		send_presence(TARGET.."/a");
		assert.same({ "a" }, backends());
		send_presence(TARGET.."/b");
		send_presence(TARGET.."/c");
		send_presence(TARGET.."/b"); -- again
		assert.same({ "a", "b", "c" }, backends());
		send_presence(TARGET.."/a", "unavailable");
		send_presence(TARGET.."/a", "unavailable"); -- again
		assert.same({ "b", "c" }, backends());
		send_presence(TARGET.."/b", "error");
		assert.same({ "c" }, backends());
	end);

	for _, type in ipairs { "unavailable", "error", "unsubscribed" } do
		it("has no resource left when "..type.." comes from its bare address", function ()
			send_presence(TARGET.."/a");
			send_presence(TARGET.."/b");
			assert.same({ "a", "b" }, backends());
			send_presence(TARGET, type);
			assert.same({}, backends());
			send_presence(TARGET.."/b");
			assert.same({ "b" }, backends());
		end);
	end

	it("is not taken for another address that looks alike", function ()
		send_presence(TARGET.."/a");
		for _, from in ipairs {
			"component.example/a", "some-user2@component.example/b", "2some-user@component.example/b", "component.example",
		} do
			send_presence(from);
			send_presence(from, "unavailable");
		end
		send_presence(TARGET); -- of no resource
		assert.same({ "a" }, backends());
	end);

	it("may bounce what was sent to a resource that has gone: a get goes to another", function ()
		send_presence(TARGET.."/a");
		requester:send(service.request("bounced"));
		local received = other_server:receive(xmpp.is_iq);
		-- the resource goes and the next one comes before the server gets to the request
		send_presence(TARGET.."/b");
		other_server:send(st.presence({ from = TARGET.."/a", to = PROXY, type = "unavailable" }));
		other_server:send(st.error_reply(received, "cancel", "service-unavailable"));
		local again = other_server:receive(xmpp.is_iq);
		assert.equal(TARGET.."/b", again.attr.to);
		assert.equal(received.attr.from, again.attr.from);
		other_server:send(st.reply(again));
		assert.equal("result", requester:receive(xmpp.is_iq).attr.type);
	end);

	it("that cannot be reached any more bounces: a get goes nowhere, and later ones neither", function ()
		send_presence(TARGET.."/a");
		send_presence(TARGET.."/b");
		other_server:close();
		for _ = 1, 3 do
			local answer = requester:request(service.request("unreachable"));
			assert.same({ "service-unavailable", "cancel" }, { service.error_of(answer) });
		end
	end);

	it("is told the proxy's presence when it asks for it, and when that changes", function ()
		other_server:sync();
		other_server.received = {};
		other_server:send(st.presence({ from = TARGET, to = PROXY, type = "probe" }));
		assert.equal(TARGET, other_server:receive(xmpp.presence_from(PROXY, "unavailable")).attr.to);
		other_server:send(st.presence({ from = TARGET.."/a", to = PROXY, type = "subscribe" }));
		assert.equal(TARGET, other_server:receive(xmpp.presence_from(PROXY, "subscribed")).attr.to);
		assert.equal(TARGET, other_server:receive(xmpp.presence_from(PROXY, "unavailable")).attr.to);
		other_server:send(st.presence({ from = TARGET.."/a", to = PROXY }));
		assert.equal(TARGET, other_server:receive(xmpp.presence_from(PROXY)).attr.to);
		other_server:send(st.presence({ from = TARGET.."/a", to = PROXY, type = "unavailable" }));
		assert.equal(TARGET, other_server:receive(xmpp.presence_from(PROXY, "unavailable")).attr.to);
		other_server:send(st.presence({ from = TARGET.."/a", to = PROXY, type = "unsubscribe" }));
		assert.equal(TARGET, other_server:receive(xmpp.presence_from(PROXY, "unavailable")).attr.to);
		other_server:send(st.presence({ from = TARGET.."/a", to = PROXY }));
		for _, stanza in ipairs(other_server:sync()) do
			assert.not_equal("presence", stanza.name);
		end
	end);
end);
