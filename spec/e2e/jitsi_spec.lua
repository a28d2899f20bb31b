-- Jitsi Meet: its clients reach Jicofo, the conference focus, through a component
-- like ours. Jicofo reads in the resource of `from` who asks.

local new_prosody = require "spec.support.prosody".new;
local service = require "spec.support.service";
local xmpp = require "spec.support.xmpp";
local jid = require "util.jid";
local st = require "util.stanza";

local PROXY = "focus.meet.example";
local XMLNS = "http://jitsi.org/protocol/focus";

local hosts = [[
VirtualHost "meet.example"
VirtualHost "guest.meet.example"
	authentication = "anonymous"
VirtualHost "auth.meet.example"
Component "focus.meet.example" "client_proxy"
	target_address = "focus@auth.meet.example"
	client_proxy_address_format = "plain"
]];

-- Whom Jicofo takes a request for: what does not read as a JID stays what it is.
local function read_requester(from)
	local _, host, resource = jid.split(from);
	return host == PROXY and jid.prep(resource) or from;
end

-- Jicofo's part in a deployment where only users of meet.example may open a room
local focus = {};
focus.__index = focus;

local function start_focus(server)
	local connection = xmpp.client(server, "focus", "auth.meet.example", "focus");
	connection:send(st.presence());
	for _, stanza in ipairs(connection:sync()) do
		if stanza.attr.type == "subscribe" then -- unless it was granted without being asked for
			connection:send(st.presence({ to = stanza.attr.from, type = "subscribed" }));
		end
	end
	connection:sync();
	connection.received = {};
	return setmetatable({ connection = connection, sessions = {}, rooms = {} }, focus);
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
	assert.equal("focus@auth.meet.example/focus", stanza.attr.to);
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

	lazy_setup(function ()
		server = new_prosody { hosts = hosts, accounts = { "moderator@meet.example", "focus@auth.meet.example" } }:start();
		jicofo = start_focus(server);
	end);

	lazy_teardown(function ()
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
end);
