-- Service discovery (XEP-0030), with and without Prosody's mod_disco on the component

local new_prosody = require "spec.support.prosody".new;
local service = require "spec.support.service";
local xmpp = require "spec.support.xmpp";
local calculate_hash = require "util.caps".calculate_hash;
local st = require "util.stanza";

local usual_hosts = require "spec.support.prosody".usual_hosts;
local is_iq = xmpp.is_iq;

local PROXY, TARGET = service.proxy, service.target;
local INFO, ITEMS = "http://jabber.org/protocol/disco#info", "http://jabber.org/protocol/disco#items";
local COMMANDS = "http://jabber.org/protocol/commands";
local ADDRESSES = { PROXY, PROXY.."/thing", "room@"..PROXY, "room@"..PROXY.."/thing" };

-- (lines) -> the configuration, with these lines below the component
local function hosts_with(lines)
	return usual_hosts.."\t"..lines.."\n";
end

local function query(xmlns, to, node)
	return st.iq({ type = "get", id = "disco", to = to or PROXY }):tag("query", { xmlns = xmlns, node = node });
end

local function command(node, to)
	return st.iq({ type = "set", id = "command", to = to or PROXY }):tag("command", { xmlns = COMMANDS, node = node, action = "execute" });
end

describe("service discovery", function ()
	local server, backend, requester;

	local function start(lines)
		server = new_prosody { hosts = hosts_with(lines or "") }:start();
		backend = service.backend(server, "a");
		requester = service.requester(server);
	end

	after_each(function ()
		server:remove();
	end);

	-- A backend gets it, and answers with this payload. -> the payload that the requester gets
	local function by_backend(iq, payload)
		requester:send(iq);
		requester:sync();
		local received = backend:receive(is_iq);
		assert.same({ iq.tags[1].name, iq.tags[1].attr }, { received.tags[1].name, received.tags[1].attr });
		backend:send(st.reply(received):add_child(payload or st.stanza("query", { xmlns = "urn:example" })));
		local answer = requester:receive(is_iq);
		assert.same({ "result", iq.attr.id, iq.attr.to }, { answer.attr.type, answer.attr.id, answer.attr.from });
		return answer.tags[1];
	end

	-- The component answers it. -> the answer
	local function by_component(iq)
		local answer = requester:request(iq);
		backend:sync();
		assert.same({}, backend.received);
		assert.equal(iq.attr.to, answer.attr.from);
		return answer;
	end

	-- (payload, name) -> a list of texts, in order: all attributes of the children of this name
	local function children(payload, name)
		local list = {};
		for child in payload:childtags(name) do
			local attr = child.attr;
			table.insert(list, table.concat({ attr.category or attr.jid or attr.var, attr.type or attr.node, attr.name }, " "));
		end
		return list;
	end

	local function items_of_backend(node)
		local items = st.stanza("query", { xmlns = ITEMS, node = node });
		for number, jid in ipairs { backend.jid, TARGET, "Some-User@some-domain.example/another", "other.example", "user@some-domain.example/abc" } do
			items:tag("item", { jid = jid, node = "n"..number, name = "N" }):up();
		end
		return items;
	end

	local function assert_items(node, addresses)
		for _, address in ipairs(addresses) do
			local items = by_backend(query(ITEMS, address, node), items_of_backend(node));
			assert.equal(node, items.attr.node);
			assert.same({ address.." n1 N", address.." n2 N", address.." n3 N", "other.example n4 N", "user@some-domain.example/abc n5 N" },
				children(items, "item"));
		end
	end

	it("is a backend's, with the service address in place of the target's in items", function ()
		start();
		assert_items(COMMANDS, ADDRESSES);
		assert_items(nil, ADDRESSES);
		for _, address in ipairs(ADDRESSES) do
			local info = st.stanza("query", { xmlns = INFO }):tag("identity", { category = "automation", type = "bot", name = backend.jid }):up();
			assert.same({ "automation bot "..backend.jid }, children(by_backend(query(INFO, address), info), "identity"));
		end
	end);

	for lines, name in pairs {
		['modules_enabled = { "disco" }'] = "Client proxy",
		['modules_enabled = { "disco" }; name = "Word counter"'] = "Word counter",
	} do
		it("is the component's with mod_disco, with an identity and the name "..name, function ()
			start(lines);
			for _ = 1, 2 do
				for _, address in ipairs { PROXY, PROXY.."/thing" } do
					local answer = by_component(query(INFO, address));
					assert.same({ "component generic "..name }, children(answer.tags[1], "identity"));
					assert.same({ INFO, ITEMS }, children(answer.tags[1], "feature"));
					assert.same({}, children(by_component(query(ITEMS, address)).tags[1], "item"));
				end
				-- once more after a reload, which leaves one identity
				server:ctl("shell", "module", "reload", "client_proxy", PROXY);
				backend:sync();
				backend.received = {};
			end
		end);
	end

	it("of nodes that mod_disco does not know is a backend's", function ()
		start 'modules_enabled = { "disco" }';
		assert_items(COMMANDS, ADDRESSES);
		for _, node in ipairs { COMMANDS, "n1", "http://prosody.im#another" } do
			for _, address in ipairs(ADDRESSES) do
				local info = st.stanza("query", { xmlns = INFO, node = node }):tag("identity", { category = "automation", type = "command-node" }):up();
				assert.same({ "automation command-node" }, children(by_backend(query(INFO, address, node), info), "identity"));
			end
		end
	end);

	it("of nodes ends as any request does: refused, without a backend, without an answer, with another backend, by a reload", function ()
		start 'modules_enabled = { "disco" }; client_proxy_request_timeout = 1; client_proxy_allow = { "some-domain.example" }';
		local component = xmpp.component(server, "component.example", "some-domain.example");
		local stanza = query(ITEMS, PROXY, COMMANDS);
		stanza.attr.from = component.from;
		assert.equal("forbidden", service.error_of(component:request(stanza)));
		assert.equal("remote-server-timeout", service.error_of(requester:request(query(ITEMS, PROXY, COMMANDS))));
		backend:close();
		requester:sync();
		assert.equal("service-unavailable", service.error_of(requester:request(query(ITEMS, PROXY, COMMANDS))));
		server:configure(hosts_with 'modules_enabled = { "disco" }; client_proxy_request_timeout = 60');
		server:ctl("shell", "config", "reload");
		server:ctl("shell", "module", "reload", "client_proxy", PROXY);
		backend = service.backend(server, "a");
		requester:send(query(ITEMS, PROXY, COMMANDS));
		backend:receive(is_iq);
		local other = service.backend(server, "b");
		server:ctl("shell", "module", "reload", "disco", PROXY);
		backend:close();
		local received = other:receive(is_iq);
		assert.equal(COMMANDS, received.tags[1].attr.node);
		server:ctl("shell", "module", "reload", "client_proxy", PROXY);
		other:send(st.reply(received):add_child(st.stanza("query", { xmlns = ITEMS }):tag("item", { jid = TARGET.."/a", node = "n" })));
		assert.same({ PROXY.." n" }, children(requester:receive(is_iq).tags[1], "item"));
	end);

	it("of the nodes of mod_disco itself, the hash of its capabilities (XEP-0115), is the component's", function ()
		start 'modules_enabled = { "disco" }';
		local hash = calculate_hash(by_component(query(INFO)).tags[1]);
		local answer = by_component(query(INFO, PROXY, "http://prosody.im#"..hash));
		assert.same({ "component generic Client proxy" }, children(answer.tags[1], "identity"));
		assert.equal("result", by_component(query(INFO, PROXY, "")).attr.type);
		assert.equal("result", by_component(query(ITEMS, PROXY, "")).attr.type);
	end);

	it("of nodes that mod_adhoc on the component knows is the component's", function ()
		start 'modules_enabled = { "disco", "adhoc", "command" }';
		assert.same({ PROXY.." own-command Own command" }, children(by_component(query(ITEMS, PROXY, COMMANDS)).tags[1], "item"));
		assert.same({ "automation command-list Ad-Hoc Commands" }, children(by_component(query(INFO, PROXY, COMMANDS)).tags[1], "identity"));
		assert.same({ "automation command-node Own command" }, children(by_component(query(INFO, PROXY, "own-command")).tags[1], "identity"));
		assert.equal("completed", by_component(command("own-command")).tags[1].attr.status);
		-- and what it does not know is a backend's
		by_backend(query(INFO, PROXY, "n1"));
		by_backend(query(ITEMS, PROXY, "n1"));
		by_backend(command("n1"));
		by_backend(query(ITEMS, "room@"..PROXY, COMMANDS));
	end);

	it("leads a client from the list of commands to the command of a backend", function ()
		start 'modules_enabled = { "disco" }';
		local items = by_backend(query(ITEMS, "room@"..PROXY, COMMANDS), items_of_backend(COMMANDS));
		local item = items:get_child("item");
		local answer = by_backend(command(item.attr.node, item.attr.jid),
			st.stanza("command", { xmlns = COMMANDS, node = "n1", sessionid = "1", status = "executing" }));
		assert.equal("executing", answer.attr.status);
	end);
end);
