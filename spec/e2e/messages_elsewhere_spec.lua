-- Messages and requests of backends where the target is on another server: two real servers with real streams between
-- them.

local new_ejabberd = require "spec.support.ejabberd".new;
local new_prosody = require "spec.support.prosody".new;
local service = require "spec.support.service";
local throwaway = require "spec.support.throwaway";
local xmpp = require "spec.support.xmpp";
local st = require "util.stanza";

local PROXY, TARGET = service.proxy, service.target;
local is_iq, is_message, request = xmpp.is_iq, xmpp.is_message, service.request;

local hosts = [[
VirtualHost "domain.example"
Component "proxy.domain.example" "client_proxy"
	target_address = "some-user@some-domain.example"
	modules_enabled = { "copy_presence" }
	copy_presence_to = "observer@domain.example/observer"
]];

-- (options) -> server, not yet running
local new_other = {
	Prosody = function (options)
		options.hosts, options.modules = 'VirtualHost "some-domain.example"', "carbons mam offline";
		return new_prosody(options);
	end,
	ejabberd = function (options)
		options.host, options.modules = "some-domain.example", { "mod_carboncopy", "mod_mam", "mod_offline" };
		return new_ejabberd(options);
	end,
};

for _, name in ipairs { "Prosody", "ejabberd" } do
	describe("where the target is on another server, "..name..",", function ()
		local server, other, requester, observer, backends;

		-- Waits until the proxy has got the presence of that resource.
		local function await(resource, type)
			observer:receive(function (stanza)
				local attr = is_message(stanza) and stanza.tags[1].attr or {};
				return attr.from == TARGET.."/"..resource and attr.type == type;
			end);
		end

		local function log_in(resource)
			local backend = xmpp.client(other, "some-user", "some-domain.example", resource);
			backend:request(st.iq({ type = "set", id = "carbons" }):tag("enable", { xmlns = "urn:xmpp:carbons:2" }));
			backend:send(st.presence());
			return backend;
		end

		setup(function ()
			local port, other_port = throwaway.free_port(), throwaway.free_port();
			server = new_prosody {
				hosts = hosts;
				accounts = { "user@domain.example", "observer@domain.example" };
				s2s = { port = port, peer_port = other_port };
			};
			other = new_other[name] {
				accounts = { TARGET };
				s2s = { port = other_port, peer_port = port, peer_domains = { "domain.example", PROXY } };
			};
			other:start();
			server:start();
			requester = xmpp.client(server, "user", "domain.example", "abc");
			observer = xmpp.client(server, "observer", "domain.example", "observer");
			backends = { a = log_in "a" };
			backends.a:receive(xmpp.presence_from(PROXY, "subscribe"));
			backends.a:send(st.presence({ to = PROXY, type = "subscribed" }));
			await "a";
			backends.b = log_in "b";
			await "b";
		end);

		teardown(function ()
			server:remove();
			other:remove();
		end);

		-- -> the backend that gets this message, what it gets
		local function send(to, id)
			requester:send(st.message({ to = to, id = id, type = "chat" }, "hello"));
			local deadline = 100;
			repeat
				for _, backend in pairs(backends) do
					backend:sync();
					local got = backend:take(is_message);
					if got then
						return backend, got;
					end
				end
				deadline = deadline - 1;
			until deadline == 0;
			error(id.." has not come");
		end

		local function assert_no_message(...)
			for _, connection in ipairs { ... } do
				connection:sync();
				assert.is_nil(connection:take(is_message));
			end
		end

		it("a conversation stays with one backend, and nobody gets a copy", function ()
			local backend, question = send(PROXY, "question");
			local addresses = {};
			for number = 1, 5 do
				backend:send(st.message({ to = question.attr.from, id = "answer-"..number, type = "chat" }, "hello")
					:tag("private", { xmlns = "urn:xmpp:carbons:2" }));
				local answer = requester:receive(is_message);
				assert.same({ "answer-"..number, "chat", requester.jid }, { answer.attr.id, answer.attr.type, answer.attr.to });
				addresses[answer.attr.from] = true;
				local receiver, got = send(answer.attr.from, "reply-"..number);
				assert.equal(backend, receiver);
				assert.same({ question.attr.from, "reply-"..number }, { got.attr.from, got.attr.id });
				assert.equal(backend, (send(PROXY, "again-"..number)));
			end
			assert.is_nil(next(addresses, (next(addresses))));
			assert_no_message(backends.a, backends.b, requester);
		end);

		it("a message bounces to the backend that has sent it", function ()
			local backend, question = send(PROXY, "question");
			backend:send(st.message({ to = question.attr.from, id = "room", type = "groupchat" }, "hello"));
			local came = requester:receive(is_message);
			requester:send(st.error_reply(came, "cancel", "service-unavailable"));
			local bounce = backend:receive(is_message);
			assert.same({ question.attr.from, "room", "error" }, { bounce.attr.from, bounce.attr.id, bounce.attr.type });
		end);

		it("backends ask requesters, and are asked by their tokens", function ()
			local backend, question = send(PROXY, "question");
			for _, one in pairs(backends) do
				one:send(request("1", question.attr.from));
				local got = requester:receive(is_iq);
				requester:send(st.reply(got):tag("who", { xmlns = "urn:example", jid = one.jid }));
				local answer = one:receive(is_iq);
				assert.same({ "1", "result", question.attr.from }, { answer.attr.id, answer.attr.type, answer.attr.from });
				assert.equal(one.jid, answer.tags[1].attr.jid);
				requester:send(request("2", got.attr.from));
				one:send(st.reply(one:receive(is_iq)));
				assert.equal(got.attr.from, requester:receive(is_iq).attr.from);
			end
			local gone = PROXY.."/qAAAAAAAAAAAA";
			backend:send(request("3", gone));
			local answer = backend:receive(is_iq);
			assert.same({ gone, "item-not-found" }, { answer.attr.from, (service.error_of(answer)) });
		end);

		it("a conversation goes on with the other backend when one has gone", function ()
			local backend = send(PROXY, "question");
			local resource = backend.jid:match("/(.*)");
			backend:close();
			backends[resource] = nil;
			await(resource, "unavailable");
			local successor = send(PROXY, "later");
			assert.not_equal(backend, successor);
		end);
	end);
end
