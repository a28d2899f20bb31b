local fake_module = require "spec.support.module";
local new_events = require "util.events".new;
local st = require "util.stanza";

local PROXY, REQUESTER, HOST = "proxy.domain.example", "user@some-domain.example/abc", "some-domain.example";

describe("delivery", function ()
	local module, hosts, fired, result, answers;

	local function add_host(name)
		hosts[name] = { host = name, events = new_events() };
		hosts[name].events.add_handler("iq/full", function (event)
			table.insert(fired, event);
			return result;
		end);
	end

	before_each(function ()
		module = fake_module.new();
		hosts, fired, result, answers = module.prosody.hosts, {}, true, {};
		hosts[PROXY].send = function (stanza) table.insert(answers, stanza); end;
		add_host(HOST);
		module.prosody.full_sessions[REQUESTER] = { host = HOST };
	end);

	-- (attr): sends an IQ to the requester, with these attributes besides. -> the IQ
	local function send(attr)
		local stanza = st.iq({ type = "result", id = "1", from = PROXY, to = REQUESTER });
		for name, value in pairs(attr or {}) do
			stanza.attr[name] = value;
		end
		module:require "delivery".send(stanza, stanza.attr.to);
		return stanza;
	end

	local function assert_routed(stanza)
		assert.same({}, fired);
		assert.equal(1, #module.sent);
		assert.same(stanza.attr, module.sent[1].attr);
	end

	it("fires the event on the host of the receiver's session", function ()
		for number, type in ipairs { "get", "set", "result", "error" } do
			local stanza = send { type = type };
			assert.equal(number, #fired);
			assert.equal(stanza, fired[number].stanza);
			assert.equal(hosts[PROXY], fired[number].origin);
			assert.is_nil(fired[number].to_self);
		end
		assert.same({}, module.sent);
		assert.same({}, answers);
	end);

	it("refuses a request that nobody deals with, and drops an answer", function ()
		for _, unhandled in ipairs { "nothing", false } do
			result, answers = unhandled ~= "nothing" and unhandled or nil, {};
			for _, type in ipairs { "get", "set", "result", "error" } do
				send { type = type, id = type };
			end
			assert.equal(2, #answers);
			for number, type in ipairs { "get", "set" } do
				assert.same({ type = "error", id = type, from = REQUESTER, to = PROXY }, answers[number].attr);
				assert.same({ "cancel", "service-unavailable" }, { answers[number]:get_error() });
			end
		end
		assert.equal(8, #fired);
		assert.same({}, module.sent);
	end);

	it("leaves to the router what is for nobody who has a session", function ()
		for _, to in ipairs { "user@some-domain.example", "user@some-domain.example/other", "component.example", HOST } do
			assert_routed(send { to = to });
			module:take_sent();
		end
	end);

	it("leaves to the router what is for a host that has gone", function ()
		hosts[HOST] = nil;
		assert_routed(send());
	end);

	it("leaves to the router what has a namespace", function ()
		assert_routed(send { xmlns = "x:y" });
	end);

	it("leaves everything to the router while a host is called like an account", function ()
		add_host "user@some-domain.example";
		assert_routed(send());
		hosts["user@some-domain.example"] = nil;
		module:take_sent();
		send();
		assert.equal(1, #fired);
		assert.same({}, module.sent);
	end);

	it("gives what it sends a cheap top tag, on both ways", function ()
		for _, to in ipairs { REQUESTER, "component.example" } do
			local stanza = send { to = to };
			assert.truthy(rawget(stanza, "top_tag"));
			assert.equal(st.stanza_mt.top_tag(stanza), stanza:top_tag());
		end
	end);
end);
