-- examples/backend.py and examples/notifier.py as they are, against a server whose certificate they have to verify

local prosody = require "spec.support.prosody";
local service = require "spec.support.service";
local xmpp = require "spec.support.xmpp";
local st = require "util.stanza";

local is_iq, is_message = xmpp.is_iq, xmpp.is_message;
local PROXY, TARGET, PASSWORD = service.proxy, service.target, "some-user";
local COMMANDS, FORM = "http://jabber.org/protocol/commands", "jabber:x:data";

-- What the other specs do without
local hosts = prosody.usual_hosts:gsub('VirtualHost "some%-domain.example"\n', '%0\tmodules_enabled = { "tls" }\n');

-- So many that each of two copies is the one that some of them get answers from
local accounts = { "user@some-domain.example", "other-user@some-domain.example", TARGET };
for number = 1, 40 do
	table.insert(accounts, ("user-%d@some-domain.example"):format(number));
end

describe("an example", function ()
	local server, certificate, watcher, requester, copies;

	-- Where Prosody looks for the host's certificate by itself
	local function make_certificate()
		certificate = server.dir.."/some-domain.example.crt";
		assert(os.execute(("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 "
			.."-subj /CN=some-domain.example -addext subjectAltName=DNS:some-domain.example "
			.."-keyout %s/some-domain.example.key -out %s 2>%s/openssl.log"):format(server.dir, certificate, server.dir)));
	end

	-- A contact of the target, who sees the backends come and go when the component does
	local function make_watcher()
		local target = service.backend(server, "first-login");
		watcher = xmpp.client(server, "other-user", "some-domain.example", "watcher");
		watcher:send(st.presence());
		watcher:send(st.presence({ to = TARGET, type = "subscribe" }));
		target:receive(xmpp.presence_from(watcher.bare, "subscribe"));
		target:send(st.presence({ to = watcher.bare, type = "subscribed" }));
		target:close();
		watcher:receive(xmpp.presence_from(target.jid, "unavailable"));
	end

	-- Debian's Python is the one with slixmpp. The alarm ends one that would not end.
	local function run(example, jid, environment)
		local pipe = server.dir.."/input";
		assert(os.execute("mkfifo "..pipe));
		local command = ("exec <%s; echo $$; exec env PYTHONPATH=spec/support/python PYTHONDONTWRITEBYTECODE=1 XMPP_PORT=%d %s "
			.."perl -e 'alarm 60; exec @ARGV' /usr/bin/python3 examples/%s %s 2>&1"):format(pipe, server.c2s_port, environment, example, jid);
		local copy = { output = assert(io.popen(command)), input = assert(io.open(pipe, "w")) };
		copy.pid = tonumber(copy.output:read());
		assert(os.remove(pipe));
		copies[copy] = true;
		return copy;
	end

	-- Waits until it has ended by itself, or by a signal. What it printed, and its exit code
	local function wait_for(copy)
		local text = copy.output:read("a");
		local _, _, code = copy.output:close();
		copy.input:close();
		copies[copy] = nil;
		return text, code or 0;
	end

	local function signal(copy, name)
		assert(os.execute(("kill -%s %d"):format(name, copy.pid)));
	end

	-- Runs a copy that may log in, and returns it when the component knows it
	local function start(example, jid)
		local copy = run(example, jid, ("SSL_CERT_FILE=%s XMPP_PASSWORD=%s"):format(certificate, PASSWORD));
		copy.jid = watcher:receive(function (stanza)
			return stanza.name == "presence" and stanza.attr.type == nil and stanza.attr.from:sub(1, #TARGET + 1) == TARGET.."/";
		end).attr.from;
		return copy;
	end

	before_each(function ()
		copies = {};
		server = prosody.new { hosts = hosts, accounts = accounts };
		make_certificate();
		server:start();
		make_watcher();
		requester = service.requester(server);
	end);

	after_each(function ()
		for copy in pairs(copies) do
			signal(copy, "KILL");
			wait_for(copy);
		end
		server:remove();
	end);

	describe("backend", function ()
		local function ask(id)
			requester:send(st.iq({ type = "get", id = id, to = service.proxy })
				:tag("query", { xmlns = "urn:example:service" }):text_tag("text", "three words <here>"));
		end

		-- How many of `count` answers to ask() each copy has given, by its address
		local function answers(count)
			local shares, ids = {}, {};
			for _ = 1, count do
				local answer = requester:receive(is_iq);
				assert.equal("result", answer.attr.type);
				assert.equal(service.proxy, answer.attr.from);
				assert.equal("3", answer:find("{urn:example:service}query/words#"));
				assert.is_nil(ids[answer.attr.id]);
				ids[answer.attr.id] = true;
				local jid = TARGET.."/"..answer:find("{urn:example:service}query/backend#");
				shares[jid] = (shares[jid] or 0) + 1;
			end
			return shares;
		end

		it("runs in several copies, which share the requests and leave without losing one", function ()
			local first, second = start("backend.py", TARGET.."/first"), start("backend.py", TARGET);
			assert.equal(TARGET.."/first", first.jid);
			assert.not_equal(first.jid, second.jid);

			for number = 1, 40 do
				ask("share-"..number);
			end
			local shares = answers(40);
			assert.same({ [first.jid] = 40 - shares[second.jid], [second.jid] = 40 - shares[first.jid] }, shares);

			-- it has requests that it has not even read
			signal(second, "STOP");
			for number = 1, 40 do
				ask("stopped-"..number);
			end
			requester:sync();
			signal(second, "TERM");
			signal(second, "CONT");
			answers(40);
			watcher:receive(xmpp.presence_from(second.jid, "unavailable"));
			local text, code = wait_for(second);
			assert.equal(0, code, text);

			for number = 1, 40 do
				ask("left-"..number);
			end
			assert.same({ [first.jid] = 40 }, answers(40));
		end);

		it("answers what it does not know with an error", function ()
			start("backend.py", TARGET);
			for id, payload in pairs { namespace = "urn:example:other", set = "urn:example:service" } do
				local answer = requester:request(st.iq({ type = id == "set" and "set" or "get", id = id, to = service.proxy })
					:tag("query", { xmlns = payload }));
				assert.same({ "feature-not-implemented", "cancel" }, { service.error_of(answer) });
				assert.equal(service.proxy, answer.attr.from);
			end
		end);

		it("ends when the server goes", function ()
			local copy = start("backend.py", TARGET);
			server:stop();
			wait_for(copy);
		end);

		it("is no backend with a wrong password, or with a certificate that it cannot trust", function ()
			for name, environment in pairs {
				wrong = ("SSL_CERT_FILE=%s XMPP_PASSWORD=wrong"):format(certificate);
				untrusted = "SSL_CERT_FILE=/dev/null XMPP_PASSWORD="..PASSWORD;
			} do
				wait_for(run("backend.py", TARGET.."/"..name, environment));
				assert.equal("service-unavailable", (service.error_of(requester:request(service.request(name)))));
			end
		end);
	end);

	describe("notifier", function ()
		local first, second, users;

		-- (connection, text, to, from) -> the text of the answer, and whom it is from
		local function talk(connection, text, to, from)
			connection:send(st.message({ to = to or PROXY, from = from, type = "chat" }, text));
			local answer = connection:receive(is_message);
			assert.equal("chat", answer.attr.type);
			return answer:get_child_text("body"), answer.attr.from;
		end

		-- A line for all copies
		local function publish(line)
			for copy in pairs(copies) do
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

		-- Ends a copy, which tells nothing but what slixmpp says of its own packaging.
		local function stop(copy)
			signal(copy, "TERM");
			local text, code = wait_for(copy);
			assert.same({ "", 0 }, { (text:gsub("^Using slower stringprep[^\n]*\n", "")), code });
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
			first = start("notifier.py", TARGET.."/first");
			local _, address = talk(requester, "help");
			users = { [first] = { from = address } };
			second = start("notifier.py", TARGET);
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
			for copy in pairs(copies) do
				stop(copy);
			end
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
			stop(first);
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

		it("has its command in the list of the service address", function ()
			local list = requester:request(st.iq({ type = "get", id = "items", to = PROXY })
				:tag("query", { xmlns = "http://jabber.org/protocol/disco#items", node = COMMANDS }));
			local item = list:find("{http://jabber.org/protocol/disco#items}query/item");
			assert.same({ PROXY, "subscribe" }, { item.attr.jid, item.attr.node });
		end);

		it("leaves its users to another copy when it goes", function ()
			local user = users[first][1];
			talk(user, "subscribe news");
			stop(first);
			watcher:receive(xmpp.presence_from(first.jid, "unavailable"));
			for _, address in ipairs { PROXY, users[first].from } do
				local text, from = talk(user, "subscribe news", address);
				assert.same({ "You get news from now on.", users[second].from }, { text, from });
			end
			publish "news From another copy";
			assert.equal("From another copy", receive_text(user, users[second].from));
		end);
	end);
end);
