-- What happens to each stanza that is not a request on its way to a backend

local new_prosody = require "spec.support.prosody".new;
local service = require "spec.support.service";
local xmpp = require "spec.support.xmpp";
local st = require "util.stanza";

local is_iq, request = xmpp.is_iq, service.request;

local ADDRESSES = {
	"proxy.domain.example", "proxy.domain.example/thing",
	"room@proxy.domain.example", "room@proxy.domain.example/thing",
};

describe("a stanza to the component", function ()
	local server, backend, requester, component;

	lazy_setup(function ()
		server = new_prosody():start();
		backend = service.backend(server, "a");
		requester = service.requester(server);
		component = xmpp.component(server, "component.example", "some-domain.example");
	end);

	lazy_teardown(function ()
		server:remove();
	end);

	-- Lets everything that was sent take effect, and checks that nobody was sent anything.
	local function assert_silence()
		for _, connection in ipairs { backend, requester, component } do
			connection:sync();
			assert.same({}, connection.received);
		end
	end

	local function assert_error(connection, condition, type)
		local answer = connection:receive();
		assert.equal("error", answer.attr.type);
		assert.same({ condition, type }, { service.error_of(answer) });
		assert_silence();
		return answer;
	end

	describe("that is an IQ of another server or component", function ()
		-- Prosody checks these for its own clients only; the component's stream stands for all others
		local malformed = {
			["get without a child"] = "<iq type='get' id='1' %s/>",
			["set without a child"] = "<iq type='set' id='1' %s/>",
			["get with two children"] = "<iq type='get' id='1' %s><a xmlns='urn:a'/><b xmlns='urn:b'/></iq>",
			["get with text only"] = "<iq type='get' id='1' %s>text</iq>",
			["get without id"] = "<iq type='get' %s><a xmlns='urn:a'/></iq>",
			["set without id"] = "<iq type='set' %s><a xmlns='urn:a'/></iq>",
			["get with neither"] = "<iq type='get' %s/>",
			["iq without type"] = "<iq id='1' %s><a xmlns='urn:a'/></iq>",
			["iq of an unknown type"] = "<iq type='put' id='1' %s><a xmlns='urn:a'/></iq>",
		};
		for name, template in pairs(malformed) do
			it("gets bad-request for a "..name, function ()
				for _, address in ipairs(ADDRESSES) do
					component:send(template:format(("from='component.example' to='%s'"):format(address)));
					local answer = assert_error(component, "bad-request", "modify");
					assert.equal(address, answer.attr.from);
				end
			end);
		end

		it("gets no answer to a result or error, however malformed", function ()
			for _, address in ipairs(ADDRESSES) do
				for _, type in ipairs { "result", "error" } do
					for _, rest in ipairs { "/>", " id='1'/>", "><a xmlns='urn:a'/><b xmlns='urn:b'/></iq>" } do
						component:send(("<iq type='%s' from='component.example' to='%s'%s"):format(type, address, rest));
					end
				end
			end
			assert_silence();
		end);

		it("works with an id of 10 kB", function ()
			local id = ("long id "):rep(1280);
			requester:send_large(request(id));
			local received = backend:receive(is_iq);
			assert.equal(id, received.attr.id);
			backend:send_large(st.reply(received));
			assert.equal(id, requester:receive(is_iq).attr.id);
			assert_silence();
		end);
	end);

	describe("that is an IQ with an id that XML does not bring back as it is", function ()
		for name, reference in pairs { newline = "&#10;", tab = "&#9;", ["carriage return"] = "&#13;" } do
			it("gets bad-request: a "..name, function ()
				for _, address in ipairs(ADDRESSES) do
					requester:send(("<iq type='get' id='a%sb' to='%s'><q xmlns='urn:example:service'/></iq>"):format(reference, address));
					assert_error(requester, "bad-request", "modify");
				end
			end);
		end

		it("is taken for what it is if the id has a space, or a letter beyond ASCII", function ()
			for _, id in ipairs { "a b", " ", "\u{85}", "\u{2028}\u{5d0}", "\127" } do
				requester:send(request(id));
				backend:send(st.reply(backend:receive(is_iq)));
				assert.equal(id, requester:receive(is_iq).attr.id);
			end
		end);
	end);

	describe("that is an IQ with the id of another one that is pending", function ()
		local SAME = "same-id";

		it("goes to another backend if the addresses differ in the resource alone, whatever the order of the answers", function ()
			local other = service.backend(server, "b");
			for _ = 1, 10 do
				requester:send(request(SAME, "proxy.domain.example/x"));
				requester:send(request(SAME, "proxy.domain.example/y"));
				requester:sync();
				local by_a, by_b = backend:receive(is_iq), other:receive(is_iq);
				other:send(st.reply(by_b):text_tag("by", "b"));
				local first = requester:receive(is_iq);
				backend:send(st.reply(by_a):text_tag("by", "a"));
				local second = requester:receive(is_iq);
				assert.same({ "b", "a" }, { first:get_child_text("by"), second:get_child_text("by") });
				assert.not_equal(first.attr.from, second.attr.from);
			end
			other:close();
			backend:receive(xmpp.presence_from(other.jid, "unavailable"));
			assert_silence();
		end);

		it("is refused with conflict if there is no other", function ()
			requester:send(request(SAME, "proxy.domain.example/x"));
			local received = backend:receive(is_iq);
			requester:send(request(SAME, "proxy.domain.example/y"));
			requester:send(request(SAME, "proxy.domain.example"));
			for _, address in ipairs { "proxy.domain.example/y", "proxy.domain.example" } do
				local answer = requester:receive(is_iq);
				assert.same({ "conflict", "cancel" }, { service.error_of(answer) });
				assert.equal(address, answer.attr.from);
			end
			backend:send(st.reply(received));
			assert.equal("proxy.domain.example/x", requester:receive(is_iq).attr.from);
			assert_silence();
		end);

		it("is answered after the first if the addresses are the same", function ()
			for number = 1, 3 do
				requester:send(request(SAME, "room@proxy.domain.example", number == 2 and "set" or "get"));
			end
			for number = 1, 3 do
				backend:send(st.reply(backend:receive(is_iq)):text_tag("number", tostring(number)));
			end
			for number = 1, 3 do
				assert.equal(tostring(number), requester:receive(is_iq):get_child_text("number"));
			end
			assert_silence();
		end);

		it("has nothing to do with it if the addresses differ otherwise, or the requesters", function ()
			local other = service.requester(server, "other");
			requester:send(request(SAME, "proxy.domain.example"));
			requester:send(request(SAME, "room@proxy.domain.example"));
			other:send(request(SAME, "proxy.domain.example/x"));
			for _ = 1, 3 do
				backend:send(st.reply(backend:receive(is_iq)));
			end
			requester:receive(is_iq);
			requester:receive(is_iq);
			assert.equal("proxy.domain.example/x", other:receive(is_iq).attr.from);
			other:close();
			assert_silence();
		end);
	end);

	it("that is an IQ to a token gets service-unavailable when it is a stranger's request", function ()
		requester:send(request("for-the-token"));
		local received = backend:receive(is_iq);
		backend:send(st.reply(received));
		requester:receive(is_iq);
		requester:send(request("stranger-to-token", received.attr.from));
		assert_error(requester, "service-unavailable", "cancel");
	end);

	it("that is a message gets no answer if it is an error, however malformed", function ()
		for _, address in ipairs(ADDRESSES) do
			requester:send(("<message type='error' to='%s'><error type='cancel'/></message>"):format(address));
			requester:send(("<message type='error' to='%s'/>"):format(address));
			component:send(("<message type='error' from='component.example' to='%s'/>"):format(address));
		end
		assert_silence();
	end);

	describe("that is presence", function ()
		it("of a stranger is ignored, unless it is about a subscription to the service", function ()
			for _, address in ipairs(ADDRESSES) do
				for _, type in ipairs { "error", "subscribed", "unsubscribed" } do
					component:send(st.presence({ from = "component.example/x", to = address, type = type }));
				end
			end
			assert_silence();
		end);

		it("of a stranger does not make a backend", function ()
			requester:send(st.presence({ to = "proxy.domain.example" }));
			component:send(st.presence({ from = "some-user@component.example/a", to = "proxy.domain.example" }));
			component:sync();
			for number = 1, 20 do
				requester:send(request("not-to-strangers-"..number));
				backend:send(st.reply(backend:receive(is_iq)));
				requester:receive(is_iq);
			end
			assert_silence();
		end);

		it("subscribing to the proxy is accepted from the target, which then sees the proxy online", function ()
			backend:send(st.iq({ type = "get", id = "roster" }):query("jabber:iq:roster"));
			backend:send(st.presence({ to = "proxy.domain.example", type = "subscribe" }));
			backend:receive(xmpp.presence_from("proxy.domain.example", "subscribed"));
			backend:receive(xmpp.presence_from("proxy.domain.example"));
			backend:sync();
			backend.received = {};
			-- the server probes all contacts on behalf of a resource that comes online
			local other = xmpp.client(server, "some-user", "some-domain.example", "b");
			other:send(st.presence());
			other:receive(xmpp.presence_from("proxy.domain.example"));
			other:close();
			backend:sync();
			backend.received = {};
			assert_silence();
		end);
	end);
end);
