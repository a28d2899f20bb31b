-- Jitsi Meet: its clients reach Jicofo, the conference focus, through a component
-- like ours. Jicofo reads in the resource of `from` who asks.

local core = require "mod_client_proxy.core";
local new_prosody = require "spec.support.prosody".new;
local service = require "spec.support.service";
local xmpp = require "spec.support.xmpp";
local jid = require "util.jid";
local st = require "util.stanza";

local PROXY = "focus.meet.example";
local TARGET = "focus@auth.meet.example";
local XMLNS = "http://jitsi.org/protocol/focus";
local SHORT = "^focus%.meet%.example/q[%w_-]+$"; -- what who is no Jicofo sees

-- What Jitsi's own configuration has for a deployment where only users open rooms, by the names that it gives to hosts. The
-- lines of the component are Jitsi's to the letter. Its other modules, which do not matter here, are not there.
local JITSI = [[
muc_mapper_domain_base = "meet.example"
cross_domain_bosh = false
consider_bosh_secure = true
unlimited_jids = { "focus@auth.meet.example", "jvb@auth.meet.example" }

VirtualHost "meet.example"
	authentication = "internal_hashed"
	modules_enabled = { "bosh", "websocket", "smacks", "pubsub", "ping" }
	c2s_require_encryption = false
	main_muc = "conference.meet.example"

VirtualHost "guest.meet.example"
	authentication = "anonymous"
	c2s_require_encryption = false

Component "conference.meet.example" "muc"
	restrict_room_creation = true
	storage = "memory"
	admins = { "focus@auth.meet.example" }
	muc_room_locking = false
	muc_room_default_public_jids = true

Component "internal.auth.meet.example" "muc"
	storage = "memory"
	modules_enabled = { "ping" }
	admins = { "focus@auth.meet.example", "jvb@auth.meet.example" }
	muc_room_locking = false
	muc_room_default_public_jids = true

VirtualHost "auth.meet.example"
	authentication = "internal_hashed"

-- Proxy to jicofo's user JID, so that it doesn't have to register as a component.
Component "focus.meet.example" "client_proxy"
    target_address = "focus@auth.meet.example"
]];

-- What is in a requester's place in each format
local FORMS = {
	short = "^q[%w_-]+$", sealed = "^s[%w_-]+$";
	signed = "^moderator@meet%.example/[%x-]+#[%w_-]+$", plain = "^moderator@meet%.example/[%x-]+$";
};

-- Whom Jicofo takes a request for: what does not read as a JID stays what it is.
local function read_requester(from)
	local _, host, resource = jid.split(from);
	return host == PROXY and jid.prep(resource) or from;
end

-- Jicofo's part in a deployment where only users of meet.example may open a room
local focus = {};
focus.__index = focus;

-- The presence that Jicofo sends, and sends again when something changes
local function focus_presence()
	return st.presence():text_tag("priority", "0")
		:tag("c", { xmlns = "http://jabber.org/protocol/caps", hash = "sha-1", node = "http://jitsi.org/jicofo", ver = "ar9MKW9zQcHzsgVKEALtFLV5ehg=" })
		:up();
end

-- (server, presence, resource) -> connection of a client of Jicofo's account, when the proxy has its presence
local function log_in(server, presence, resource)
	local connection = xmpp.client(server, "focus", "auth.meet.example", resource);
	connection:send(presence);
	connection:sync();
	connection.received = {};
	return connection;
end

local function start_focus(server)
	return setmetatable({ connection = log_in(server, focus_presence(), "focus"), sessions = {}, rooms = {} }, focus);
end

local requests = {};

function requests.conference(self, stanza, requester)
	local asked = stanza.tags[1].attr;
	local session_id;
	if jid.host(requester) == "meet.example" then
		session_id = "session-of-"..asked["machine-uid"];
		self.sessions[session_id] = true;
	elseif not self.rooms[asked.room] then
		return st.error_reply(stanza, "auth", "not-authorized", "Only users may open a room"):reset():add_child(stanza.tags[1]);
	end
	self.rooms[asked.room] = true;
	return st.reply(stanza)
		:tag("conference", {
			xmlns = XMLNS, room = asked.room, ready = "true", focusjid = "focus@auth.meet.example",
			["session-id"] = session_id, identity = session_id and jid.bare(requester),
		})
			:tag("property", { xmlns = XMLNS, name = "authentication", value = "true" }):up()
			:tag("property", { xmlns = XMLNS, name = "externalAuth", value = "false" }):up();
end

requests["login-url"] = function (_, stanza)
	local room = jid.node(stanza.tags[1].attr.room);
	return st.reply(stanza):tag("login-url", { xmlns = XMLNS, url = ".%2F"..room.."%3Flogin%3Dtrue" });
end;

function requests.logout(self, stanza)
	local session_id = stanza.tags[1].attr["session-id"];
	if not self.sessions[session_id] then
		return st.error_reply(stanza, "modify", "not-acceptable", "There is no such session");
	end
	self.sessions[session_id] = nil;
	return st.reply(stanza):tag("logout", { xmlns = XMLNS });
end

local type_of = { ["conference"] = "set", ["login-url"] = "get", ["logout"] = "set" };

-- The next request and who has sent it
function focus:receive()
	local stanza = self.connection:receive(xmpp.is_iq);
	assert.equal(type_of[stanza.tags[1].name], stanza.attr.type);
	assert.equal(TARGET.."/focus", stanza.attr.to);
	return stanza, read_requester(stanza.attr.from);
end

function focus:answer(stanza, requester)
	self.connection:send(requests[stanza.tags[1].name](self, stanza, requester));
end

-- (name, attributes) -> the request as Jitsi Meet's clients send it
local function request(name, attributes)
	attributes.xmlns = XMLNS;
	return st.iq({ type = type_of[name], id = "5f0c7e1a-3b2d-4e6f-8a9b-0c1d2e3f4a5b:sendIQ", to = PROXY }):tag(name, attributes);
end

local function login_url(room, machine_uid)
	return request("login-url", { room = room.."@conference.meet.example", ["machine-uid"] = machine_uid, popup = "true" });
end

local function logout(session_id)
	return request("logout", { ["session-id"] = session_id });
end

local function conference(room, machine_uid)
	return request("conference", { room = room.."@conference.meet.example", ["machine-uid"] = machine_uid })
		:tag("property", { name = "startAudioMuted", value = "9" }):up();
end

describe("Jitsi Meet", function ()
	local server, jicofo;

	before_each(function ()
		server = new_prosody { hosts = JITSI, accounts = { "moderator@meet.example", TARGET } }:start();
		jicofo = start_focus(server);
	end);

	after_each(function ()
		server:remove();
	end);

	local function receive_answer(client, iq)
		local answer = client:receive(xmpp.is_iq);
		assert.same({ PROXY, client.jid, iq.attr.id }, { answer.attr.from, answer.attr.to, answer.attr.id });
		return answer;
	end

	-- The payload of the answer that a client gets, after Jicofo has seen who asks
	local function ask(client, iq)
		client:send(iq);
		local stanza, requester = jicofo:receive();
		assert.equal(client.jid, requester);
		jicofo:answer(stanza, requester);
		local answer = receive_answer(client, iq);
		assert.equal("result", answer.attr.type);
		return assert(answer:get_child(iq.tags[1].name, XMLNS));
	end

	local function error_of(client, iq)
		client:send(iq);
		jicofo:answer(jicofo:receive());
		return { service.error_of(receive_answer(client, iq)) };
	end

	local function uuid(digit)
		return ("%s-3b2d-4e6f-8a9b-0c1d2e3f4a5b"):format(digit:rep(8));
	end

	it("opens a room for a user, who logs in and out", function ()
		local user = xmpp.client(server, "moderator", "meet.example", uuid "1");

		assert.equal(".%2Froom%3Flogin%3Dtrue", ask(user, login_url("room", "m1")).attr.url);

		local opened = ask(user, conference("room", "m1"));
		assert.same({
			xmlns = XMLNS, room = "room@conference.meet.example", ready = "true", focusjid = "focus@auth.meet.example",
			["session-id"] = "session-of-m1", identity = "moderator@meet.example",
		}, opened.attr);
		local properties = {};
		for property in opened:childtags("property", XMLNS) do
			properties[property.attr.name] = property.attr.value;
		end
		assert.same({ authentication = "true", externalAuth = "false" }, properties);

		ask(user, logout("session-of-m1"));
		assert.same({ "not-acceptable", "modify" }, error_of(user, logout("session-of-m1")));
		user:close();
	end);

	it("lets a guest into a room that a user has opened, and not before", function ()
		local guest = xmpp.client(server, nil, "guest.meet.example", uuid "2");
		assert.same({ "guest.meet.example", uuid "2" }, { jid.host(guest.jid), jid.resource(guest.jid) });
		assert.same({ "not-authorized", "auth" }, error_of(guest, conference("guests", "m2")));
		ask(guest, login_url("guests", "m2"));

		local user = xmpp.client(server, "moderator", "meet.example", uuid "1");
		ask(user, conference("guests", "m1"));
		local opened = ask(guest, conference("guests", "m2"));
		assert.equal("true", opened.attr.ready);
		assert.is_nil(opened.attr["session-id"]);
		guest:close();
		user:close();
	end);

	it("keeps many clients apart, answered in another order", function ()
		local clients, received = {}, {};
		for number = 1, 9 do
			clients[number] = xmpp.client(server, nil, "guest.meet.example", uuid(tostring(number)));
			clients[number]:send(login_url("room-"..number, "m"..number));
			received[number] = { jicofo:receive() };
		end
		for number = #clients, 1, -1 do
			jicofo:answer(table.unpack(received[number]));
		end
		for number, client in ipairs(clients) do
			assert.equal(client.jid, received[number][2]);
			local url = client:receive(xmpp.is_iq):get_child("login-url", XMLNS).attr.url;
			assert.equal((".%%2Froom-%d%%3Flogin%%3Dtrue"):format(number), url);
			client:sync();
			assert.same({}, client.received);
			client:close();
		end
	end);

	it("serves a user whose resource is no ASCII as it serves a stranger", function ()
		local user = xmpp.client(server, "moderator", "meet.example", "\u{5e9}\u{5dc}\u{5d5}\u{5dd}");
		assert.same({ "not-authorized", "auth" }, error_of(user, conference("right-to-left", "m1")));
		user:close();
	end);

	-- Asks again and again, until this connection has got a request of that client. -> as which it sees the client
	local function seen_by(connection, client)
		for _ = 1, 100 do -- chance decides who gets it
			client:send(login_url("room", "m1"));
			for _, backend in ipairs { jicofo.connection, connection } do
				backend:sync();
				local stanza = backend:take(xmpp.is_iq);
				if stanza then
					backend:send(requests["login-url"](nil, stanza));
					receive_answer(client, stanza);
					if backend == connection then
						return stanza.attr.from;
					end
					assert.equal(client.jid, read_requester(stanza.attr.from));
				end
			end
		end
		error("it gets no request");
	end

	-- (format): Jitsi's configuration with this line more, or as it is if nil, and the module is loaded with it
	local function ask_for(format)
		server:configure(JITSI..(format and ("    client_proxy_address_format = %q\n"):format(format) or ""));
		server:ctl("shell", "config", "reload");
		server:ctl("shell", "module", "reload", "client_proxy", PROXY);
	end

	local function status()
		return server:client_proxy("status", PROXY);
	end

	-- (level, words) -> how many lines of the component's log at this level have these words
	local function count_lines(level, words)
		local count = 0;
		for line in server:log():gmatch("[^\n]+") do
			local text = line:match("focus%.meet%.example:client_proxy\t"..level.."\t(.*)");
			count = count + (text and text:find(words, 1, true) and 1 or 0);
		end
		return count;
	end

	local function assert_contains(text, ...)
		for _, words in ipairs { ... } do
			assert.truthy(text:find(words, 1, true), ("%q is not in %s"):format(words, text));
		end
	end

	describe("with another client, which is no Jicofo, logged in to Jicofo's account,", function ()
		local other, user;

		before_each(function ()
			other = log_in(server, st.presence(), "other");
			user = xmpp.client(server, "moderator", "meet.example", uuid "1");
		end);

		it("shows that one a short pseudonym, and Jicofo who asks", function ()
			local address = seen_by(other, user);
			assert.truthy(address:find(SHORT), address);
			assert.equal(13, #jid.resource(address));
			assert.equal(address, seen_by(other, user));
			assert.equal(PROXY.."/"..user.jid, seen_by(jicofo.connection, user));
		end);

		it("shows a Jicofo that comes in its place who asks, and the other way round", function ()
			assert.truthy(seen_by(other, user):find(SHORT));
			local second = log_in(server, focus_presence(), "other"); -- in the place of the other
			assert.equal(PROXY.."/"..user.jid, seen_by(second, user));
			assert_contains(status(), [[; plain for "focus" and "other", which are Jicofos]]);
			second:close();
			local third = log_in(server, st.presence(), "other");
			assert.truthy(seen_by(third, user):find(SHORT));
			assert_contains(status(), [[; plain for "focus", which is a Jicofo]]);
		end);
	end);

	it("is served as before when Jicofo's presence does not repeat its capabilities, also after a reload", function ()
		local user = xmpp.client(server, "moderator", "meet.example", uuid "1");
		jicofo.connection:send(st.presence():text_tag("priority", "1"));
		jicofo.connection:sync();
		ask(user, login_url("room", "m1"));
		user:send(login_url("room", "m1"));
		local before, requester = jicofo:receive();
		ask_for(nil);
		jicofo:answer(before, requester);
		assert.equal("result", user:receive(xmpp.is_iq).attr.type);
		ask(user, login_url("room", "m1"));
		assert_contains(status(), [[; plain for "focus", which is a Jicofo]]);
	end);

	it("is told in the log and in the status that Jicofo sees plain addresses, once however often it sends its presence", function ()
		local words = [[is online, requests are served; "focus", which is a Jicofo, sees plain addresses]];
		assert_contains(status(), [[Address format: short; plain for "focus", which is a Jicofo]], words);
		for _ = 1, 5 do
			jicofo.connection:send(focus_presence());
			jicofo.connection:sync();
		end
		assert_contains(status(), words);
		assert.equal(1, count_lines("info", [["focus", which is a Jicofo]]));
	end);

	for _, format in ipairs(core.FORMATS) do
		it(("sees %s addresses where they are asked for, and is warned unless they are plain"):format(format), function ()
			local user = xmpp.client(server, "moderator", "meet.example", uuid "1");
			ask_for(format);
			user:send(login_url("room", "m1"));
			local stanza, requester = jicofo:receive();
			assert.truthy(jid.resource(stanza.attr.from):find(FORMS[format]), stanza.attr.from);
			jicofo:answer(stanza, requester);
			receive_answer(user, stanza);

			local warning = ([[client_proxy_address_format = %q cannot be read by "focus", which is a Jicofo]]):format(format);
			if format == "plain" then
				assert.equal(user.jid, requester);
				assert.falsy(status():find("Jicofo", 1, true));
				assert.equal(0, count_lines("warn", "Jicofo"));
			else
				assert.not_equal(user.jid, requester);
				assert_contains(status(), ([[Address format: %s, which cannot be read by "focus", which is a Jicofo]]):format(format),
					warning, "of a wrong sender", [[Write "plain"]]);
				assert.equal(1, count_lines("warn", warning));
			end

		end);
	end

	it("is served again when a line that Jicofo cannot read is taken away", function ()
		local user = xmpp.client(server, "moderator", "meet.example", uuid "1");
		jicofo.connection:send(st.presence()); -- this is all that a probe brings to an instance that has been loaded anew
		jicofo.connection:sync();
		ask_for "sealed";
		user:send(login_url("room", "m1"));
		local _, requester = jicofo:receive();
		assert.not_equal(user.jid, requester);
		ask_for(nil);
		ask(user, login_url("room", "m1"));
		assert.falsy(status():find("cannot be read", 1, true));
	end);
end);
