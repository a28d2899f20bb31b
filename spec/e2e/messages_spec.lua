-- Messages, from requesters to backends and back

local new_prosody = require "spec.support.prosody".new;
local service = require "spec.support.service";
local xmpp = require "spec.support.xmpp";
local st = require "util.stanza";

local PROXY, TARGET = service.proxy, service.target;
local is_message, error_of = xmpp.is_message, service.error_of;

local hosts = [[
VirtualHost "some-domain.example"
	smacks_hibernation_time = 1
Component "component.example"
	component_secret = "component.example"
Component "proxy.domain.example" "client_proxy"
	target_address = "some-user@some-domain.example"
]];

local PRIVATE, HINTS = "urn:xmpp:carbons:2", "urn:xmpp:hints";

-- (jid) -> its bare JID, its resource
local function split(jid)
	return jid:match("^([^/]*)/?(.*)$");
end

-- (to, id, text, type) -> a chat message, but for `type`
local function message(to, id, text, type)
	return st.message({ to = to, id = id, type = type or "chat" }, text or "hello");
end

-- -> who has got a message since, and that message; it is the only one among all of them
local function only_receiver(backends)
	local receiver, received;
	for _, backend in pairs(backends) do
		for _, stanza in ipairs(backend:sync()) do
			if is_message(stanza) then
				assert.is_nil(received);
				receiver, received = backend, stanza;
			end
		end
		backend.received = {};
	end
	assert.truthy(received);
	return receiver, received;
end

local function assert_nobody_got_a_message(connections)
	for _, connection in pairs(connections) do
		for _, stanza in ipairs(connection:sync()) do
			assert.not_equal("message", stanza.name);
		end
		connection.received = {};
	end
end

describe("a message", function ()
	local server, backends, requester, component;

	setup(function ()
		server = new_prosody { hosts = hosts, modules = "carbons mam offline blocklist" }:start();
	end);

	teardown(function ()
		server:remove();
	end);

	before_each(function ()
		backends = service.backends(server, { "a", "b", "c" });
		requester = service.requester(server);
		component = xmpp.component(server, "component.example", "some-domain.example");
	end);

	after_each(function ()
		for connection in pairs(server.connections) do
			connection:close();
		end
	end);

	-- Logs in as the target; what its server has kept comes then.
	local function log_in(resource)
		local client = xmpp.client(server, "some-user", "some-domain.example", resource);
		client:send(st.presence());
		return client;
	end

	-- (from, to) -> which backend gets a message from a JID of the component's, and that message
	local function receiver_for(from, to)
		local stanza = message(to or PROXY, "1");
		stanza.attr.from = from;
		component:send(stanza);
		component:sync();
		return only_receiver(backends);
	end

	describe("to a service address", function ()
		it("reaches one backend, as it is but for the address and what keeps others from it", function ()
			requester:send(st.message({ to = PROXY, id = "1234", type = "chat", ["xml:lang"] = "he" })
				:text_tag("body", "\u{5e9}\u{5dc}\u{5d5}\u{5dd} <&>")
				:text_tag("thread", "thread-1", { parent = "thread-0" })
				:tag("request", { xmlns = "urn:xmpp:receipts" }):up()
				:tag("active", { xmlns = "http://jabber.org/protocol/chatstates" }):up()
				:tag("anything", { xmlns = "urn:example:own" }):text_tag("within", "text"):up());
			requester:sync();
			local backend, got = only_receiver(backends);
			local service_address, token = split(got.attr.from);
			assert.same({ PROXY, backend.jid, "1234", "chat", "he" },
				{ service_address, got.attr.to, got.attr.id, got.attr.type, got.attr["xml:lang"] });
			assert.truthy(token:find("^q[%w_-]+$"));
			assert.equal("\u{5e9}\u{5dc}\u{5d5}\u{5dd} <&>", got:get_child_text("body"));
			assert.same({ "thread-1", "thread-0" }, { got:get_child_text("thread"), got:get_child("thread").attr.parent });
			assert.truthy(got:get_child("request", "urn:xmpp:receipts"));
			assert.truthy(got:get_child("active", "http://jabber.org/protocol/chatstates"));
			assert.equal("text", got:find("{urn:example:own}anything/within#"));
			assert.equal(7, #got.tags); -- with the hints that mod_carbons has left
		end);

		it("is answered from the backend's token, by which a reply finds the same backend", function ()
			requester:send(message(PROXY, "question"));
			requester:sync();
			local backend, question = only_receiver(backends);
			backend:send(message(question.attr.from, "answer"));
			local answer = requester:receive(is_message);
			local service_address, token = split(answer.attr.from);
			assert.same({ PROXY, requester.jid, "answer" }, { service_address, answer.attr.to, answer.attr.id });
			assert.truthy(token:find("^b[%w_-]+$"));
			assert.is_nil(answer:get_child("private", PRIVATE));
			for number = 1, 5 do
				requester:send(message(answer.attr.from, "reply-"..number));
				requester:sync();
				local receiver, reply = only_receiver(backends);
				assert.equal(backend, receiver);
				assert.equal(question.attr.from, reply.attr.from);
			end
			requester:send(message("room@"..PROXY.."/"..token, "elsewhere"));
			requester:sync();
			local receiver, reply = only_receiver(backends);
			assert.equal(backend, receiver);
			assert.equal("room@"..PROXY, (split(reply.attr.from)));
		end);

		it("goes to one and the same backend from all resources of an account, and from other accounts to others", function ()
			local receivers = {};
			for number = 1, 40 do
				local user = ("user-%d@component.example"):format(number);
				local receiver = receiver_for(user.."/a");
				assert.equal(receiver, (receiver_for(user.."/b", "room@"..PROXY)));
				assert.equal(receiver, (receiver_for(user, PROXY.."/thing")));
				receivers[receiver] = true;
			end
			for _, backend in pairs(backends) do
				assert.is_true(receivers[backend]);
			end
		end);

		it("finds a successor when its backend has gone, by the token, too", function ()
			local backend, got = receiver_for("user@component.example/x");
			backend:send(message(got.attr.from, "answer"));
			local token = component:receive(is_message).attr.from;
			backend:close();
			for resource, other in pairs(backends) do
				if other == backend then
					backends[resource] = nil;
				end
			end
			local successor, second = receiver_for("user@component.example/x");
			assert.not_equal(backend, successor);
			assert.equal(got.attr.from, second.attr.from);
			assert.equal(successor, (receiver_for("user@component.example/x", token)));
		end);

		it("goes elsewhere when its backend drains, unless the backend's token is in the address", function ()
			local backend, got = receiver_for("user@component.example/x");
			backend:send(message(got.attr.from, "answer"));
			local token = component:receive(is_message).attr.from;
			server:client_proxy("drain", PROXY, backend.jid:match("/(.*)"));
			assert.not_equal(backend, (receiver_for("user@component.example/x")));
			assert.equal(backend, (receiver_for("user@component.example/x", token)));
			server:client_proxy("undrain", PROXY, backend.jid:match("/(.*)"));
			assert.equal(backend, (receiver_for("user@component.example/x")));
		end);

		it("of a backend goes to another one", function ()
			local sender = backends.a;
			for number = 1, 5 do
				sender:send(message(PROXY, "from-backend-"..number));
				sender:sync();
				assert.not_equal(sender, (only_receiver(backends)));
			end
			-- nor does it by its own token
			sender:send(message(PROXY, "1"));
			sender:sync();
			local _, got = only_receiver(backends);
			sender:send(message(got.attr.from, "to-itself")); -- its token, as another backend sees it, stands for it as a requester
			local own = sender:receive(is_message).attr.from;
			sender:send(message(own, "back"));
			sender:sync();
			assert.not_equal(sender, (only_receiver(backends)));
		end);

		it("of a backend that has gone is not answered by way of others", function ()
			backends.a:send(message(PROXY, "question"));
			backends.a:sync();
			local backend, question = only_receiver(backends);
			backends.a:close();
			backends.a = nil;
			backend:send(message(question.attr.from, "answer"));
			local answer = backend:receive(is_message);
			assert.same({ "error", "answer", question.attr.from }, { answer.attr.type, answer.attr.id, answer.attr.from });
			assert.same({ "item-not-found", "cancel" }, { error_of(answer) });
			assert_nobody_got_a_message(backends);
		end);

		it("is refused for rooms", function ()
			requester:send(message(PROXY, "1", "hello", "groupchat"));
			assert.same({ "service-unavailable", "cancel" }, { error_of(requester:receive(is_message)) });
			assert_nobody_got_a_message(backends);
		end);

		it("is refused where no backend is online, but a headline is dropped", function ()
			for _, backend in pairs(backends) do
				backend:close();
			end
			local before = server:metrics();
			for _, type in ipairs { "chat", "normal", "headline" } do
				requester:send(message(PROXY, type, "hello", type));
			end
			for _, type in ipairs { "chat", "normal" } do
				local answer = requester:receive(is_message);
				assert.same({ type, PROXY, "error" }, { answer.attr.id, answer.attr.from, answer.attr.type });
				assert.same({ "service-unavailable", "cancel" }, { error_of(answer) });
			end
			assert_nobody_got_a_message { requester };
			local function count(outcome)
				local series = ('prosody_mod_client_proxy__messages_total{direction="to_backend",host="proxy.domain.example",outcome=%q}')
					:format(outcome);
				return server:metrics()[series] - before[series];
			end
			assert.same({ 2, 1 }, { count "no_backend", count "dropped" });
		end);

		it("is refused for now where all backends drain", function ()
			for resource in pairs(backends) do
				server:client_proxy("drain", PROXY, resource);
			end
			requester:send(message(PROXY, "1"));
			assert.same({ "service-unavailable", "wait" }, { error_of(requester:receive(is_message)) });
			requester:send(service.request("1"));
			assert.same({ "service-unavailable", "wait" }, { error_of(requester:receive(xmpp.is_iq)) });
			assert_nobody_got_a_message(backends);
		end);
	end);

	describe("is given to one backend alone", function ()
		local function enable_carbons()
			for _, backend in pairs(backends) do
				assert.equal("result", backend:request(st.iq({ type = "set", id = "carbons" }):tag("enable", { xmlns = PRIVATE })).attr.type);
			end
		end

		it("where carbons, archive and offline storage are there", function ()
			-- -> how many messages the target's archive has
			local function count_archived(backend)
				backend:send(st.iq({ type = "set", id = "archive" }):tag("query", { xmlns = "urn:xmpp:mam:2" })
					:tag("set", { xmlns = "http://jabber.org/protocol/rsm" }):text_tag("max", "0"));
				return backend:receive(xmpp.is_iq):find("{urn:xmpp:mam:2}fin/{http://jabber.org/protocol/rsm}set/count#");
			end
			enable_carbons();
			backends.a:send(message(PROXY.."/qAAAAAAAAAAAA", "own")); -- what backends send is none of the proxy's business
			backends.a:sync();
			local archived = count_archived(backends.a);
			assert.not_equal("0", archived);
			for _, backend in pairs(backends) do
				backend:sync();
				backend.received = {};
			end
			for number = 1, 5 do
				requester:send(message(PROXY, "copied-"..number));
				requester:sync();
				local backend = only_receiver(backends);
				assert.equal(archived, count_archived(backend));
				assert_nobody_got_a_message(backends);
			end
			for _, backend in pairs(backends) do
				backend:close();
			end
			assert_nobody_got_a_message { log_in("later") };
		end);
	end);

	describe("to a token", function ()
		it("of a stranger is refused", function ()
			requester:send(message(PROXY, "1"));
			requester:sync();
			local backend, got = only_receiver(backends);
			for _, type in ipairs { "chat", "normal", "groupchat", "headline" } do
				local stanza = message(got.attr.from, type, "hello", type);
				stanza.attr.from = "user@component.example/x";
				component:send(stanza);
				local answer = component:receive(is_message);
				assert.same({ "service-unavailable", "cancel" }, { error_of(answer) });
				assert.equal(got.attr.from, answer.attr.from);
			end
			assert_nobody_got_a_message { backend, requester };
		end);

		it("of nobody is item-not-found to a backend, and dropped if it is an error", function ()
			local unknown = PROXY.."/qAAAAAAAAAAAA";
			backends.a:send(message(unknown, "1"));
			local answer = backends.a:receive(is_message);
			assert.same({ "item-not-found", "cancel", unknown, "1" }, { error_of(answer), select(2, error_of(answer)), answer.attr.from, answer.attr.id });
			backends.a:send(st.message({ to = unknown, id = "2", type = "error" }):tag("error", { type = "cancel" }));
			assert_nobody_got_a_message(backends);
		end);
	end);

	describe("of type error", function ()
		it("of a backend goes to the requester, from the backend's token", function ()
			requester:send(message(PROXY, "1"));
			requester:sync();
			local backend, got = only_receiver(backends);
			backend:send(st.error_reply(got, "modify", "not-acceptable", "Too long"));
			local answer = requester:receive(is_message);
			assert.same({ "1", "error" }, { answer.attr.id, answer.attr.type });
			assert.same({ "not-acceptable", "modify" }, { error_of(answer) });
			assert.truthy(answer.attr.from:find("^proxy%.domain%.example/b"));
		end);

		it("of a requester goes to the backend whose message bounced", function ()
			local backend, got = receiver_for("user@component.example/x");
			backend:send(message(got.attr.from, "answer"));
			local answer = component:receive(is_message);
			component:send(st.error_reply(answer, "cancel", "service-unavailable"));
			local bounce = backend:receive(is_message);
			assert.same({ "answer", "error", got.attr.from }, { bounce.attr.id, bounce.attr.type, bounce.attr.from });
			assert.equal("service-unavailable", (error_of(bounce)));
		end);

		it("of a requester whose session has gone goes to the backend whose message bounced", function ()
			requester:send(message(PROXY, "1"));
			requester:sync();
			local backend, got = only_receiver(backends);
			requester:close();
			backend:send(message(got.attr.from, "too-late", "hello", "headline"));
			assert_nobody_got_a_message { backend };
			backend:send(st.message({ to = got.attr.from, id = "room", type = "groupchat" }));
			local bounce = backend:receive(is_message);
			assert.same({ "room", "error", got.attr.from }, { bounce.attr.id, bounce.attr.type, bounce.attr.from });
		end);

		it("is dropped if it is for no backend, or from somebody to whom none can have written", function ()
			local backend, got = receiver_for("user@component.example/x");
			backend:send(message(got.attr.from, "answer"));
			local token = component:receive(is_message).attr.from;
			for _, address in ipairs { PROXY, PROXY.."/thing", "room@"..PROXY, PROXY.."/bAAAAAAAAAAAA" } do
				component:send(st.message({ from = "user@component.example/x", to = address, type = "error", id = "1" })
					:tag("error", { type = "cancel" }));
			end
			component:send(st.message({ from = "stranger@component.example/x", to = token, type = "error", id = "1" })
				:tag("error", { type = "cancel" }));
			component:sync();
			assert_nobody_got_a_message(backends);
			assert_nobody_got_a_message { component };
		end);

		it("comes from the service address that was used if the target has blocked the sender", function ()
			local block = st.iq({ type = "set", id = "block" }):tag("block", { xmlns = "urn:xmpp:blocking" }):tag("item", { jid = PROXY });
			backends.a:request(block);
			for id, address in pairs { ["1"] = PROXY, ["2"] = PROXY.."/thing", ["3"] = "room@"..PROXY.."/thing" } do
				requester:send(message(address, id));
				local answer = requester:receive(is_message);
				assert.same({ address, id, "error" }, { answer.attr.from, answer.attr.id, answer.attr.type });
			end
			block.tags[1].name, block.attr.id = "unblock", "unblock";
			backends.a:request(block);
			requester:send(message(PROXY, "4"));
			requester:sync();
			only_receiver(backends);
		end);
	end);

	describe("that a session with XEP-0198 has not acknowledged", function ()
		-- -> the backend to which the requester's messages go, whose connection is cut
		local function cut_receiver()
			requester:send(message(PROXY, "before"));
			requester:sync();
			local backend = only_receiver(backends);
			backend:enable_resumption();
			local before = #backend.received;
			requester:send(message(PROXY, "unacknowledged"));
			requester:sync();
			backend:sync();
			assert.equal(before, 0);
			backend:cut();
			for resource, other in pairs(backends) do
				if other == backend then
					backends[resource] = nil;
				end
			end
			return backend;
		end

		it("is an error for its sender when the session ends, once", function ()
			cut_receiver();
			local answer = requester:receive(is_message);
			assert.same({ "unacknowledged", "error", PROXY }, { answer.attr.id, answer.attr.type, answer.attr.from });
			assert.equal("recipient-unavailable", (error_of(answer)));
			assert_nobody_got_a_message { requester };
			assert_nobody_got_a_message(backends);
		end);

		it("is an error from the address that was used, also after a reload", function ()
			requester:send(message(PROXY, "before"));
			requester:sync();
			local backend = only_receiver(backends);
			backend:enable_resumption();
			requester:send(message(PROXY.."/thing", "unacknowledged"));
			requester:sync();
			backend:sync();
			server:ctl("shell", "module", "reload", "client_proxy", PROXY);
			backend:cut();
			local answer = requester:receive(is_message);
			assert.same({ "unacknowledged", "error", PROXY.."/thing" }, { answer.attr.id, answer.attr.type, answer.attr.from });
		end);

		it("is kept by the target's server if that was the last session, and then there is no error", function ()
			backends.b:close();
			backends.c:close();
			backends = { a = backends.a };
			cut_receiver();
			repeat -- until the session has ended, about which nobody else is told
				local status = server:client_proxy("status", PROXY);
			until not status:find("\n| *a ") and not status:find("hibernating");
			assert_nobody_got_a_message { requester };
			assert.equal("unacknowledged", log_in("later"):receive(is_message).attr.id);
		end);
	end);
end);

it("a message carries what keeps it from all but its backend, nothing of it twice", function ()
	local server = new_prosody():start(); -- without mod_carbons, which takes away what is for itself
	local ok, problem = pcall(function ()
		local backend = service.backend(server, "a");
		local requester = service.requester(server);
		requester:send(message(PROXY, "1"));
		requester:send(message(PROXY, "2"):tag("no-store", { xmlns = HINTS }):up():tag("private", { xmlns = PRIVATE }));
		for _ = 1, 2 do
			local got = backend:receive(is_message);
			for name, xmlns in pairs { private = PRIVATE, ["no-copy"] = HINTS, ["no-store"] = HINTS } do
				assert.truthy(got:get_child(name, xmlns), name);
			end
			assert.equal(4, #got.tags);
		end
	end);
	server:remove();
	assert(ok, problem);
end);

for _, strategy in ipairs { "random", "round_robin", "least_pending", "sender", "recipient", "primary" } do
	it("messages of one account go to one backend, and its commands, by strategy "..strategy, function ()
		local server = new_prosody { hosts = hosts..("\tclient_proxy_strategy = %q\n"):format(strategy) }:start();
		local ok, problem = pcall(function ()
			local backends = service.backends(server, { "a", "b", "c" });
			local requester = service.requester(server);
			requester:send(message(PROXY, "first"));
			requester:sync();
			local backend = only_receiver(backends);
			for number = 1, 10 do
				requester:send(message(PROXY, "next"));
				requester:send(st.iq({ type = "set", to = PROXY, id = "command-"..number })
					:tag("command", { xmlns = "http://jabber.org/protocol/commands", node = "add", sessionid = "1" }));
				requester:sync();
				local found = {};
				for _, other in pairs(backends) do
					for _, stanza in ipairs(other:sync()) do
						assert.equal(backend, other);
						table.insert(found, stanza.name);
						if stanza.name == "iq" then
							other:send(st.reply(stanza));
						end
					end
					other.received = {};
				end
				assert.same({ "message", "iq" }, found);
				requester:receive(xmpp.is_iq);
			end
		end);
		server:remove();
		assert(ok, problem);
	end);
end

for _, format in ipairs { "short", "sealed", "signed", "plain" } do
	it("a backend reaches whoever has written to the service, and nobody else, with addresses "..format, function ()
		local server = new_prosody { hosts = hosts..("\tclient_proxy_address_format = %q\n"):format(format) }:start();
		local ok, problem = pcall(function ()
			local backend = service.backend(server, "a");
			local requester = service.requester(server);
			local other = xmpp.client(server, "other-user", "some-domain.example", "silent");
			requester:send(message(PROXY, "question"));
			local question = backend:receive(is_message);
			backend:send(message(question.attr.from, "answer"));
			assert.equal("answer", requester:receive(is_message).attr.id);
			backend:send(message(PROXY.."/"..other.jid, "unasked")); -- what would be the token of `other`, if it were plain
			local answer = backend:receive(is_message);
			assert.equal("error", answer.attr.type);
			assert_nobody_got_a_message { other, requester };
			assert.not_equal(TARGET, requester.bare);
		end);
		server:remove();
		assert(ok, problem);
	end);
end

it("a conversation goes on after a reload with another format", function ()
	local function with_format(format)
		return hosts..("\tclient_proxy_address_format = %q\n"):format(format);
	end
	local server = new_prosody { hosts = with_format "short" }:start();
	local ok, problem = pcall(function ()
		local backends = service.backends(server, { "a", "b" });
		local requester = service.requester(server);
		for _, format in ipairs { "sealed", "signed", "short", "plain" } do
			requester:send(message(PROXY, "question"));
			requester:sync();
			local backend, question = only_receiver(backends);
			server:configure(with_format(format));
			server:ctl("shell", "config", "reload");
			server:ctl("shell", "module", "reload", "client_proxy", PROXY);
			backend:send(message(question.attr.from, "answer"));
			assert.equal("answer", requester:receive(is_message).attr.id);
			backend:send(service.request(format, question.attr.from));
			requester:send(st.reply(requester:receive(xmpp.is_iq)));
			local settled = backend:receive(xmpp.is_iq);
			assert.same({ "result", format, question.attr.from }, { settled.attr.type, settled.attr.id, settled.attr.from });
			assert_nobody_got_a_message(backends);
		end
	end);
	server:remove();
	assert(ok, problem);
end);
