local desk = require "spec.support.desk";
local fake_module = require "spec.support.module";
local parse_xml = require "util.xml".parse;
local st = require "util.stanza";

local PROXY, TARGET, BACKEND, REQUESTER = desk.PROXY, desk.TARGET, desk.BACKEND, desk.REQUESTER;
local DISCO_ITEMS = "http://jabber.org/protocol/disco#items";
local SERVICE = "node@"..PROXY.."/thing";

describe("the answer of a backend", function ()
	local run;

	before_each(function ()
		run = desk.new();
	end);

	-- (payload[, type]) -> the payload that the requester gets
	local function pass(payload, type)
		local dispatched = run:receive_iq({ type = "get", id = "1", from = REQUESTER, to = SERVICE },
			st.stanza("query", { xmlns = DISCO_ITEMS, node = "http://jabber.org/protocol/commands" }));
		local answer = desk.answer_to(dispatched, { type = type }):add_child(payload);
		local sent = run:receive(answer);
		assert.equal(1, #sent);
		assert.same({ type = type or "result", id = "1", from = SERVICE, to = REQUESTER }, sent[1].attr);
		return sent[1].tags[1];
	end

	local function items(...)
		local query = st.stanza("query", { xmlns = DISCO_ITEMS, node = "http://jabber.org/protocol/commands" });
		for _, jid in ipairs { ... } do
			query:tag("item", { jid = jid, node = "node of "..jid, name = "A & B" }):text("text"):up();
		end
		return query;
	end

	-- (jid) -> what it comes out as
	local function item(jid)
		local query = pass(items(jid));
		assert.same({ 1, "A & B", "node of "..jid, "text" },
			{ #query.tags, query.tags[1].attr.name, query.tags[1].attr.node, query.tags[1]:get_text() });
		return query.tags[1].attr.jid;
	end

	for _, jid in ipairs {
		BACKEND, TARGET, desk.OTHER_BACKEND, TARGET.."/no such resource", TARGET.."/a/b@c",
		"Some-User@SOME-Domain.example/a", "some-user@some-domain.example./a",
	} do
		it("has the service address in place of the target's own, "..jid, function ()
			assert.equal(SERVICE, item(jid));
		end);
	end

	for _, jid in ipairs {
		"some-domain.example", "user@some-domain.example/a", "some-user@other.example", "some-user@some-domain.example.evil.example",
		"some-domain.example/some-user@some-domain.example", "xsome-user@some-domain.example", PROXY, "other@"..PROXY,
		"", "@", "some-user@some-domain.example/", TARGET.."/\127", "not a JID",
	} do
		it(("keeps an item of another JID, %q"):format(jid), function ()
			assert.equal(jid, item(jid));
		end);
	end

	it("can have several items, of which each is looked at, and none at all", function ()
		local query = pass(items("other.example", TARGET, BACKEND, "other@other.example"));
		local jids = {};
		for child in query:childtags("item") do
			table.insert(jids, child.attr.jid);
		end
		assert.same({ "other.example", SERVICE, SERVICE, "other@other.example" }, jids);
		assert.equal(0, #pass(items()).tags);
	end);

	it("is read as a stream's parser gives it, and as modules build it", function ()
		local parsed = parse_xml(("<query xmlns='%s'><item jid='%s'/></query>"):format(DISCO_ITEMS, BACKEND));
		assert.equal(SERVICE, pass(parsed).tags[1].attr.jid);
		parsed.tags[1].attr.xmlns, parsed.tags[1].attr.jid = DISCO_ITEMS, BACKEND;
		assert.equal(SERVICE, pass(parsed).tags[1].attr.jid);
	end);

	for name, payload in pairs {
		["elements of other names"] = "<query xmlns='http://jabber.org/protocol/disco#items'><entry jid='%s'/></query>",
		["elements of other namespaces"] = "<query xmlns='http://jabber.org/protocol/disco#items'><item xmlns='urn:example' jid='%s'/></query>",
		["other payloads"] = "<query xmlns='jabber:iq:roster'><item jid='%s'/></query>",
		["items deeper inside"] = "<query xmlns='http://jabber.org/protocol/disco#items'><set xmlns='urn:example'><item jid='%s'/></set></query>",
		["items without JIDs"] = "<query xmlns='http://jabber.org/protocol/disco#items'><item name='%s'/></query>",
	} do
		it("keeps "..name, function ()
			local parsed = parse_xml(payload:format(BACKEND));
			local before = desk.canonical(parsed);
			assert.equal(before, desk.canonical(pass(parsed)));
		end);
	end

	it("that is an error keeps all that is in it", function ()
		assert.equal(BACKEND, pass(items(BACKEND), "error").tags[1].attr.jid);
	end);

	it("can be empty", function ()
		local dispatched = run:request();
		assert.equal(0, #run:receive(desk.answer_to(dispatched))[1]);
	end);
end);

describe("what mod_disco is told", function ()
	local module, queries;

	local function start(configured)
		module, queries = fake_module.new(configured), {};
		module:require "disco".start(function (event)
			table.insert(queries, event);
			return true;
		end);
	end

	it("is an identity, with the component's name if it has one", function ()
		start();
		assert.same({ { category = "component", type = "generic", name = "Client proxy" } }, module.identities);
		start { name = "Word counter" };
		assert.same({ { category = "component", type = "generic", name = "Word counter" } }, module.identities);
	end);

	it("is that nodes go to a backend, unless another module knows them", function ()
		start();
		for _, name in ipairs { "host-disco-info-node", "host-disco-items-node" } do
			queries = {};
			local event = { node = "a", exists = false };
			assert.is_true(module.hooks[name](event));
			assert.same({ event }, queries);
			assert.is_nil(module.hooks[name] { node = "b", exists = true });
			assert.equal(1, #queries);
		end
	end);

	it("is that after all other modules", function ()
		start();
		assert.same({ -10, -10 }, { module.priorities["host-disco-info-node"], module.priorities["host-disco-items-node"] });
	end);
end);
