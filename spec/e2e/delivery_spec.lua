-- What other modules see of an IQ that the proxy sends, on the way that it takes by itself, and on the one through
-- Prosody's router, which it takes as soon as a host of Prosody is called like an account

local expect = require "spec.support.expect";
local new_prosody = require "spec.support.prosody".new;
local service = require "spec.support.service";
local xmpp = require "spec.support.xmpp";
local st = require "util.stanza";

local is_iq = xmpp.is_iq;

local HOSTS = [[
local modules = { "record_events", "blocklist", "carbons", "mam" }
VirtualHost "some-domain.example"
	modules_enabled = modules
VirtualHost "other.example"
	modules_enabled = modules
Component "component.example"
	component_secret = "component.example"
	modules_enabled = { "record_events" }
Component "somebody@account.example" "record_events"
	enabled = false
Component "proxy.domain.example" "client_proxy"
	target_address = "some-user@some-domain.example"
	modules_enabled = { "record_events" }
]];

local BLOCKING = "urn:xmpp:blocking";

local function request(name, type, attr)
	local iq = service.request("rec-"..name, nil, type);
	for key, value in pairs(attr or {}) do
		iq.tags[1].attr[key] = value;
	end
	return iq;
end

-- A party of a scenario, which is there for that alone
local function with(connection, f)
	f(connection);
	if not connection.closed then
		connection:close();
	end
end

describe("what the proxy sends", function ()
	local server, backend, observer;

	-- -> the answer of spec/support/modules/mod_record_events.lua, about all that has happened since it was last asked
	local function take()
		backend:sync();
		return observer:request(st.iq({ type = "get", id = "take", to = "some-domain.example" })
			:tag("take", { xmlns = "urn:example:record" }));
	end

	-- (requester, iq, answer) -> the requester's address as the backend sees it; answer: makes the answer, a result if nil
	local function exchange(requester, iq, answer)
		requester:send(iq);
		local received = backend:receive(is_iq);
		backend:send(answer and answer(received) or st.reply(received));
		assert.equal(iq.attr.id, requester:receive(is_iq).attr.id);
		return received.attr.from;
	end

	local function hibernate(connection)
		connection:cut();
		server:await("HIBERNATING "..connection.jid);
	end

	local function block(connection, jid, name)
		connection:request(st.iq({ type = "set", id = name }):tag(name, { xmlns = BLOCKING }):tag("item", { jid = jid }));
	end

	-- What happens, and whether all that the proxy sends then goes by the short way ("short") or only some of it ("any")
	local scenarios = {
		{ "a get and its result", "short", function (requester)
			exchange(requester, request("1"));
		end },
		{ "a set and its result", "short", function (requester)
			exchange(requester, request("1", "set"));
		end },
		{ "a request and its error", "short", function (requester)
			exchange(requester, request("1"), function (received)
				return st.error_reply(received, "cancel", "item-not-found");
			end);
		end },
		{ "a request that no module deals with", "any", function (requester)
			requester:send(request("1", "get", { unhandled = "1" }));
			assert.equal("service-unavailable", service.error_of(requester:receive(is_iq)));
			requester:send(request("2", "set", { unhandled = "1" }));
			assert.equal("service-unavailable", service.error_of(requester:receive(is_iq)));
		end },
		{ "answers that no module deals with", "short", function (requester)
			for number, type in ipairs { "result", "error" } do
				requester:send(request(tostring(number)));
				local answer = st.reply(backend:receive(is_iq));
				answer.attr.type = type;
				backend:send(answer:tag("query", { xmlns = "urn:example:service", unhandled = "1" }):up():tag("error"));
				backend:sync();
			end
			requester:sync();
			assert.same({}, requester.received);
		end },
		{ "an answer to somebody who has gone", "any", function (requester)
			requester:send(request("1"));
			local received = backend:receive(is_iq);
			requester:close();
			backend:send(st.reply(received));
		end },
		{ "an answer to somebody who hibernates", "short", function (requester)
			requester:enable_resumption();
			requester:send(request("1"));
			local received = backend:receive(is_iq);
			hibernate(requester);
			backend:send(st.reply(received));
			backend:sync();
			with(xmpp.resume(server, requester, 0), function (resumed)
				assert.equal("rec-1", resumed:receive(is_iq).attr.id);
			end);
			requester.closed = true;
		end },
		{ "a request to a backend that has hibernated since", "short", function (requester)
			backend:enable_resumption();
			requester:send(request("1"));
			local received = backend:receive(is_iq);
			hibernate(backend);
			backend = xmpp.resume(server, backend, 1);
			backend:sync();
			exchange(requester, request("2"));
			backend:send(st.reply(received));
			assert.equal("rec-1", requester:receive(is_iq).attr.id);
			backend:close(); -- and mod_smacks bounces what it has not said that it got
			backend = service.backend(server, "a");
		end },
		{ "an answer to somebody who blocks the proxy", "short", function (requester)
			block(requester, service.proxy, "block");
			requester:send(request("1")); -- which does not leave
			requester:receive(is_iq);
			block(requester, service.proxy, "unblock");
			requester:send(request("2"));
			local received = backend:receive(is_iq);
			block(requester, service.proxy, "block");
			backend:send(st.reply(received));
			backend:sync();
			block(requester, service.proxy, "unblock");
			requester:sync();
			assert.same({}, requester.received);
		end },
		{ "a request to a backend that blocks the requester", "any", function (requester)
			local token = exchange(requester, request("1"));
			block(backend, token, "block");
			for number, type in ipairs { "get", "set" } do
				requester:send(request(tostring(1 + number), type));
				assert.equal("service-unavailable", service.error_of(requester:receive(is_iq)));
			end
			block(backend, token, "unblock");
		end },
		{ "an answer to somebody on another host", "short", function ()
			with(xmpp.client(server, "user", "other.example", "abc"), function (requester)
				exchange(requester, request("1"));
			end);
		end },
		{ "an answer to a component", "any", function ()
			with(xmpp.component(server, "component.example", "some-domain.example"), function (component)
				for number, from in ipairs { "component.example", "node@component.example", "node@component.example/resource" } do
					local iq = request(tostring(number));
					iq.attr.from = from;
					exchange(component, iq);
				end
			end);
		end },
		{ "two answers at once", "short", function (requester)
			requester:send(request("1"));
			requester:send(request("2"));
			local first, second = backend:receive(is_iq), backend:receive(is_iq);
			backend:send(tostring(st.reply(second))..tostring(st.reply(first)));
			for number = 2, 1, -1 do
				assert.equal("rec-"..number, requester:receive(is_iq).attr.id);
			end
		end },
	};

	-- -> { lines (what was recorded), delivery, router (how often each way was taken) }
	local function run(scenario)
		take();
		with(service.requester(server), scenario);
		local answer = take();
		local lines = {};
		for line in answer:get_child_text("record"):gsub("proxy%.domain%.example/[%w_-]+", "TOKEN"):gmatch("[^\n]+") do
			table.insert(lines, line);
		end
		assert.is_true(#lines > 10);
		local ways = answer:get_child("ways").attr;
		return { lines = lines, delivery = tonumber(ways.delivery), router = tonumber(ways.router) };
	end

	local function run_all()
		local results = {};
		for _, scenario in ipairs(scenarios) do
			local name, _, f = table.unpack(scenario);
			results[name] = run(f);
		end
		return results;
	end

	-- (command): a host that is called like an account is to be there ("activate") or not ("deactivate")
	local function set_account_host(command)
		local output, code = server:ctl("shell", "host", command, "somebody@account.example");
		assert.equal(0, code, output);
	end

	lazy_setup(function ()
		server = new_prosody {
			hosts = HOSTS;
			accounts = {
				"user@some-domain.example", "other-user@some-domain.example", "some-user@some-domain.example", "user@other.example",
			};
		};
		server:start();
		backend = service.backend(server, "a");
		observer = xmpp.client(server, "other-user", "some-domain.example", "observer");
	end);

	lazy_teardown(function ()
		server:remove();
	end);

	describe("is seen by other modules", function ()
		local short, routed, short_again;

		lazy_setup(function ()
			short = run_all();
			set_account_host("activate");
			routed = run_all();
			set_account_host("deactivate");
			short_again = run_all();
		end);

		for _, scenario in ipairs(scenarios) do
			local name, way = table.unpack(scenario);

			it("as if the router had sent it: "..name, function ()
				expect.same(routed[name].lines, short[name].lines, "at first");
				expect.same(routed[name].lines, short_again[name].lines, "in the end");
			end);

			it("on its way: "..name, function ()
				assert.equal(0, routed[name].delivery);
				assert.is_true(routed[name].router > 0);
				for _, results in ipairs { short, short_again } do
					assert.is_true(results[name].delivery > 0);
					if way == "short" then
						assert.equal(0, results[name].router);
					end
				end
			end);
		end
	end);

	it("is logged at debug level as before", function ()
		take();
		local sent = request("'1' <&> \u{5d0}");
		sent.attr.from = "user@some-domain.example/abc"; -- as Prosody sets it after it has logged what came
		with(service.requester(server), function (requester)
			exchange(requester, sent, function (received)
				local reply = st.reply(received);
				reply.attr.from = backend.jid;
				return reply;
			end);
		end);
		local tags, cheap = {}, {};
		for tag in take():childtags "tag" do
			table.insert(tags, tag:get_text());
			table.insert(cheap, tag.attr.is_cheap);
		end
		assert.same({ "false", "true", "false", "true" }, cheap);
		local log = server:log();
		for number, prefix in ipairs { "Received[c2s]: ", "Sending[c2s]: ", "Received[c2s]: ", "Sending[c2s]: " } do
			local _, count = log:gsub((prefix..tags[number].."\n"):gsub("%p", "%%%0"), "");
			assert.equal(1, count, prefix..tags[number]);
		end
	end);
end);
