-- examples/notifier.py as it is, against a server whose certificate it has to verify

local examples = require "spec.support.examples";
local service = require "spec.support.service";
local xmpp = require "spec.support.xmpp";
local st = require "util.stanza";

local is_iq, is_message = xmpp.is_iq, xmpp.is_message;
local PROXY, TARGET = service.proxy, service.target;
local COMMANDS, FORM = "http://jabber.org/protocol/commands", "jabber:x:data";

describe("the notifier among the examples", function ()
	local scene, requester, watcher, server, first, second, users;

	local function start(jid)
		return scene:start(("/usr/bin/python3 examples/notifier.py --ca %s %s"):format(scene.certificate, jid), "XMPP_PASSWORD="..examples.password);
	end

	-- (connection, text, to, from) -> the text of the answer, and whom it is from
	local function talk(connection, text, to, from)
		connection:send(st.message({ to = to or PROXY, from = from, type = "chat" }, text));
		local answer = connection:receive(is_message);
		assert.equal("chat", answer.attr.type);
		return answer:get_child_text("body"), answer.attr.from;
	end

	-- A line for all copies
	local function publish(line)
		for copy in pairs(scene.copies) do
			assert(copy.input:write(line, "\n"));
			assert(copy.input:flush());
		end
	end

	local function receive_text(connection, from)
		local message = connection:receive(is_message);
		assert.equal(from, message.attr.from);
		return message:get_child_text("body");
	end

	-- (user): which must have got no message
	local function assert_silent(user)
		for _, stanza in ipairs(user:sync()) do
			assert.not_equal("message", stanza.name);
		end
		user.received = {};
	end

	-- (user) answers the ping of its copy, which thus has heard of all that it had asked before. There are clients that
	-- know no pings.
	local function answer_ping(user)
		local ping = user:receive(is_iq);
		assert.truthy(ping:get_child("ping", "urn:xmpp:ping"));
		user:send(st.error_reply(ping, "cancel", "feature-not-implemented"));
	end

	-- A stage of the command
	local function command(id, session, action)
		return st.iq({ type = "set", to = PROXY, id = id })
			:tag("command", { xmlns = COMMANDS, node = "subscribe", sessionid = session, action = action });
	end

	local function submit(user, session, topic)
		return user:request(command("submit", session, "complete"):tag("x", { xmlns = FORM, type = "submit" })
			:tag("field", { var = "topic" }):text_tag("value", topic)):get_child("command", COMMANDS);
	end

	-- (component, from) -> a JID of the component's, to which the copy writes that writes from this address
	local function find_jid(component, from)
		for number = 1, 40 do
			local jid = ("user-%d@component.example/abc"):format(number);
			if select(2, talk(component, "help", PROXY, jid)) == from then
				return jid;
			end
		end
	end

	-- Two copies, and two users of each. users[copy]: { user, another, from (the copy's address, as they see it) }
	before_each(function ()
		scene = examples.new();
		server, watcher, requester = scene.server, scene.watcher, scene.requester;
		first = start(TARGET.."/first");
		local _, address = talk(requester, "help");
		users = { [first] = { from = address } };
		second = start(TARGET);
		users[second] = {};
		for number = 1, 40 do
			local user = xmpp.client(server, "user-"..number, "some-domain.example", "abc");
			local _, from = talk(user, "help");
			local of_copy = users[from == address and first or second];
			of_copy.from = from;
			table.insert(of_copy, user);
			if #users[first] >= 2 and #users[second] >= 2 then
				break;
			end
		end
		assert.not_equal(users[first].from, users[second].from);
	end);

	-- None has a fault to tell of.
	after_each(function ()
		for copy in pairs(scene.copies) do
			scene:stop(copy);
		end
	end);

	after_each(function ()
		scene:remove();
	end);

	it("tells its subscribers, whether they have subscribed by a message or by a command", function ()
		local user, another = users[first][1], users[first][2];
		local commander = users[second][1];
		assert.equal("You get news from now on.", (talk(user, "subscribe news")));
		assert.equal("You get news from now on.", (talk(another, "subscribe news")));
		assert.equal("You get weather from now on.", (talk(another, "subscribe weather")));

		local offer = commander:request(command("execute")):get_child("command", COMMANDS);
		assert.equal("executing", offer.attr.status);
		local field = offer:find("{jabber:x:data}x/field");
		assert.same({ "topic", "list-single" }, { field.attr.var, field.attr.type });
		local done = submit(commander, offer.attr.sessionid, field:find("option/value#"));
		assert.same({ "completed", "You get news from now on." }, { done.attr.status, done:get_child_text("note") });

		publish "news The <news> &\27[0m more";
		for copy, receivers in pairs { [first] = { user, another }, [second] = { commander } } do
			for _, receiver in ipairs(receivers) do
				assert.equal("The <news> & [0m more", receive_text(receiver, users[copy].from));
			end
		end
		publish "weather Sun";
		assert.equal("Sun", receive_text(another, users[first].from));
		assert_silent(user);
		assert_silent(commander);

		assert.equal("You get no news from here.", (talk(user, "unsubscribe news", users[first].from)));
		assert.equal("You get no weather from here.", (talk(another, "unsubscribe weather")));
		publish "weather Rain";
		publish "news Last";
		assert.equal("Last", receive_text(another, users[first].from));
		assert.equal("Last", receive_text(commander, users[second].from));
		assert_silent(user);
	end);

	it("answers what it does not understand with help, or with an error, but no error and no state of a chat", function ()
		local user = users[first][1];
		for _, text in ipairs { "hello", "subscribe", "subscribe gossip", "subscribe news weather" } do
			assert.truthy(talk(user, text):find("Topics are: news, weather", 1, true));
		end
		user:send(st.message({ to = PROXY, type = "chat" }):tag("active", { xmlns = "http://jabber.org/protocol/chatstates" }));
		user:send(st.message({ to = PROXY, type = "headline" }, "subscribe news"));
		user:send(st.message({ to = users[first].from, type = "error" }, "subscribe news"):tag("error", { type = "cancel" })
			:tag("gone", { xmlns = "urn:ietf:params:xml:ns:xmpp-stanzas" }));
		assert.equal("You get no news from here.", (talk(user, "unsubscribe news"))); -- the first answer that comes
		local session = user:request(command("execute")):find("{http://jabber.org/protocol/commands}command@sessionid");
		local refusal = user:request(command("complete", session, "complete"));
		assert.equal("bad-request", (service.error_of(refusal)));
		assert.truthy(submit(user, session, "gossip"):get_child_text("note"):find("Topics are", 1, true));
	end);

	it("forgets a user who has gone, as a ping tells", function ()
		local user, another = users[first][1], users[first][2];
		local elsewhere = xmpp.client(server, user.user, "some-domain.example", "elsewhere");
		elsewhere:send(st.presence());
		talk(user, "subscribe news");
		talk(another, "subscribe news");
		user:close();
		publish "news First";
		elsewhere:receive(is_message); -- to which the account's server gives it instead, so that nothing bounces
		assert.equal("First", receive_text(another, users[first].from));
		answer_ping(another);

		user = xmpp.client(server, user.user, "some-domain.example", "abc");
		publish "news Second";
		assert.equal("Second", receive_text(another, users[first].from));
		assert_silent(user);
		assert_silent(elsewhere);
	end);

	it("forgets a user to whom messages bounce", function ()
		local component = xmpp.component(server, "component.example", "some-domain.example");
		local another, from = users[first][1], users[first].from;
		local jid = find_jid(component, from);
		talk(component, "subscribe news", from, jid);
		talk(another, "subscribe news");
		publish "news First";
		local message = component:receive(is_message);
		assert.same({ from, jid, "First" }, { message.attr.from, message.attr.to, message:get_child_text("body") });
		component:send(st.error_reply(message, "cancel", "service-unavailable"));
		talk(component, "help", from, jid);

		assert.equal("First", receive_text(another, from));
		publish "news Second";
		assert.equal("Second", receive_text(another, from));
		assert_silent(component);
	end);

	it("forgets a user who says good-bye, and is seen to go itself", function ()
		local user, another, address = users[first][1], users[first][2], users[first].from;
		for _, each in ipairs { user, another } do
			each:send(st.presence { to = PROXY });
			each:send(st.message({ to = PROXY, type = "chat" }, "subscribe news"));
			each:receive(xmpp.presence_from(address));
			assert.equal("You get news from now on.", receive_text(each, address));
		end
		user:send(st.presence { to = PROXY, type = "unavailable" });
		talk(user, "help");
		publish "news First";
		assert.equal("First", receive_text(another, address));
		assert_silent(user);

		another:send(st.message({ to = PROXY, type = "chat" }, "unsubscribe news"));
		another:receive(xmpp.presence_from(address, "unavailable"));
		talk(user, "subscribe news");
		scene:stop(first);
		user:receive(xmpp.presence_from(address, "unavailable"));
	end);

	it("forgets a user whose client has gone, which had told it of its presence", function ()
		local user, another, address = users[first][1], users[first][2], users[first].from;
		local elsewhere = xmpp.client(server, user.user, "some-domain.example", "elsewhere");
		elsewhere:send(st.presence());
		user:send(st.presence { to = PROXY });
		talk(user, "subscribe news");
		talk(another, "subscribe news");
		user:close();
		talk(another, "help"); -- after which the copy has been told
		publish "news First";
		assert.equal("First", receive_text(another, address));
		assert_silent(elsewhere);
	end);

	it("keeps its subscribers when its connection is lost, and tells them then", function ()
		local user, address = users[first][1], users[first].from;
		user:send(st.message({ to = PROXY, type = "chat" }, "subscribe news"));
		user:receive(xmpp.presence_from(address));
		server:run_lua(("prosody.full_sessions[%q]:close()"):format(first.jid));
		user:receive(xmpp.presence_from(address, "unavailable"));
		publish "news While it was away";
		user:receive(xmpp.presence_from(address));
		assert.equal("While it was away", receive_text(user, address));
		assert.truthy(first.output:read():find("not connected", 1, true));
	end);

	it("has its command in the list of the service address", function ()
		local list = requester:request(st.iq({ type = "get", id = "items", to = PROXY })
			:tag("query", { xmlns = "http://jabber.org/protocol/disco#items", node = COMMANDS }));
		local item = list:find("{http://jabber.org/protocol/disco#items}query/item");
		assert.same({ PROXY, "subscribe" }, { item.attr.jid, item.attr.node });
	end);

	it("leaves its users to another copy when it goes", function ()
		local user = users[first][1];
		talk(user, "subscribe news");
		scene:stop(first);
		watcher:receive(xmpp.presence_from(first.jid, "unavailable"));
		for _, address in ipairs { PROXY, users[first].from } do
			local text, from = talk(user, "subscribe news", address);
			assert.same({ "You get news from now on.", users[second].from }, { text, from });
		end
		publish "news From another copy";
		assert.equal("From another copy", receive_text(user, users[second].from));
	end);
end);
