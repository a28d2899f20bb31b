local new_prosody = require "spec.support.prosody".new;
local service = require "spec.support.service";
local xmpp = require "spec.support.xmpp";
local parse_xml = require "util.xml".parse;
local st = require "util.stanza";

local is_iq, request = xmpp.is_iq, service.request;

-- The way there and back through the backend, which answers with a payload
local function round_trip(requester, backend, iq)
	requester:send(iq);
	local received = backend:receive(is_iq);
	backend:send(st.reply(received):tag("query", { xmlns = "urn:example:service" }):text_tag("answer", "of "..iq.attr.id));
	local answer = requester:receive(is_iq);
	return received, answer;
end

describe("address translation", function ()
	local server, backend, requester;

	lazy_setup(function ()
		server = new_prosody():start();
		backend = service.backend(server, "a");
		requester = service.requester(server);
	end);

	lazy_teardown(function ()
		server:remove();
	end);

	it("is the one of the four stanzas", function ()
		requester:send("<iq type='get' id='1234' to='proxy.domain.example'><query xmlns='urn:example:service'/></iq>");

		local received = backend:receive(is_iq);
		local token = received.attr.from:match("^proxy%.domain%.example/(q[%w_-]+)$");
		assert.truthy(token);
		assert.equal("get", received.attr.type);
		assert.equal("1234", received.attr.id);
		assert.equal("some-user@some-domain.example/a", received.attr.to);

		backend:send(("<iq type='result' id='1234' to='proxy.domain.example/%s'/>"):format(token));

		local answer = requester:receive(is_iq);
		assert.equal("result", answer.attr.type);
		assert.equal("1234", answer.attr.id);
		assert.equal("user@some-domain.example/abc", answer.attr.to);
		assert.equal("proxy.domain.example", answer.attr.from);
	end);

	it("leaves id, type and payload as they are", function ()
		for _, type in ipairs { "get", "set" } do
			local sent = request("an id <&> \u{20ac}", nil, type);
			local received, answer = round_trip(requester, backend, sent);
			assert.equal(sent.attr.id, received.attr.id);
			assert.equal(type, received.attr.type);
			local parsed = parse_xml(tostring(sent)); -- namespaces inherited as in what was received
			assert.same(st.preserialize(parsed.tags[1]), st.preserialize(received.tags[1]));
			assert.equal(1, #received.tags);
			assert.equal(sent.attr.id, answer.attr.id);
			assert.equal("of "..sent.attr.id, answer:find("{urn:example:service}query/answer#"));
		end
	end);

	it("answers from the service address that was used", function ()
		for number, address in ipairs {
			"proxy.domain.example", "proxy.domain.example/thing",
			"room@proxy.domain.example", "room@proxy.domain.example/thing",
		} do
			local received, answer = round_trip(requester, backend, request("address-"..number, address));
			local bare = address:match("^[^/]+");
			assert.equal(bare, received.attr.from:match("^([^/]+)/q[%w_-]+$"));
			assert.equal(address, answer.attr.from);
			assert.equal(requester.jid, answer.attr.to);
		end
	end);

	it("hides the requester from the backend, behind the same token each time", function ()
		local first = round_trip(requester, backend, request("first"));
		local second = round_trip(requester, backend, request("second"));
		local other = service.requester(server, "another resource");
		local third = round_trip(other, backend, request("third"));
		assert.equal(first.attr.from, second.attr.from);
		assert.not_equal(first.attr.from, third.attr.from);
		assert.falsy(tostring(first):find("user@some-domain.example/abc", 1, true));
		other:close();
	end);

	it("delivers an error that the backend answers", function ()
		requester:send(request("refused"));
		local received = backend:receive(is_iq);
		backend:send(st.error_reply(received, "auth", "forbidden", "not you"));
		local answer = requester:receive(is_iq);
		assert.same({ "auth", "forbidden", "not you" }, { answer:get_error() });
		assert.equal("proxy.domain.example", answer.attr.from);
	end);

	for name, resource in pairs {
		["of 1023 bytes"] = ("r"):rep(1023),
		["in a right-to-left script"] = "\u{5e9}\u{5dc}\u{5d5}\u{5dd}",
		["of 1022 bytes in a right-to-left script"] = ("\u{5e9}"):rep(511),
	} do
		it("works for a requester with a resource "..name, function ()
			local other = service.requester(server, resource);
			assert.equal("user@some-domain.example/"..resource, other.jid);
			local received, answer = round_trip(other, backend, request("odd resource"));
			assert.truthy(received.attr.from:find("^proxy%.domain%.example/q[%w_-]+$"));
			assert.equal("result", answer.attr.type);
			assert.equal(other.jid, answer.attr.to);
			other:close();
		end);
	end

	it("works for a requester that is a component, with a bare or a full address", function ()
		local component = xmpp.component(server, "component.example", "some-domain.example");
		for number, from in ipairs { "component.example", "node@component.example", "node@component.example/resource" } do
			local iq = request("component-"..number);
			iq.attr.from = from;
			local _, answer = round_trip(component, backend, iq);
			assert.equal(from, answer.attr.to);
			assert.equal("proxy.domain.example", answer.attr.from);
		end
		component:close();
	end);

	it("keeps requests to different service addresses with one id apart", function ()
		requester:send(request("same", "one@proxy.domain.example"));
		requester:send(request("same", "two@proxy.domain.example"));
		local first, second = backend:receive(is_iq), backend:receive(is_iq);
		backend:send(st.reply(second):text_tag("who", "two"));
		backend:send(st.reply(first):text_tag("who", "one"));
		for _ = 1, 2 do
			local answer = requester:receive(is_iq);
			assert.equal(answer:get_child_text("who").."@proxy.domain.example", answer.attr.from);
		end
	end);

	it("answers equal requests first in, first out, each once", function ()
		for _ = 1, 3 do
			requester:send(request("equal"));
		end
		for number = 1, 3 do
			local received = backend:receive(is_iq);
			backend:send(st.reply(received):text_tag("number", tostring(number)));
		end
		for number = 1, 3 do
			assert.equal(tostring(number), requester:receive(is_iq):get_child_text("number"));
		end
		requester:sync();
		assert.same({}, requester.received);
	end);

	it("lets another module on the host answer first", function ()
		server:ctl("shell", "module", "load", "ping", "proxy.domain.example");
		local answer = requester:request(st.iq({ type = "get", id = "ping", to = "proxy.domain.example" })
			:tag("ping", { xmlns = "urn:xmpp:ping" }));
		assert.equal("result", answer.attr.type);
		backend:sync();
		assert.same({}, backend.received);
		server:ctl("shell", "module", "unload", "ping", "proxy.domain.example");
	end);
end);
