-- What the limits of the target's server do to a service, where that is a cluster (spec/support/clustered.lua). For
-- spec/e2e/limits_elsewhere_spec.lua and bench/limits_elsewhere.lua.

local service = require "spec.support.service";
local socket = require "socket";
local st = require "util.stanza";
local xmpp = require "spec.support.xmpp";

local TARGET, HOST = service.target, "some-domain.example";
local PATIENCE = 20; -- seconds

local limited = {};

-- (parties, resource) -> a session of the target at the first node
function limited.log_in(parties, resource)
	local session = xmpp.client(parties.nodes[1], "some-user", HOST, resource);
	session:send(st.presence());
	return session;
end

-- The contact asks for the target's presence.
local function ask(contact, target)
	contact:request(st.iq({ type = "get", id = "roster" }):tag("query", { xmlns = "jabber:iq:roster" })); -- else it is told nothing
	contact:send(st.presence({ to = TARGET, type = "subscribe" }));
	contact:send(st.message({ to = target.jid, id = "behind", type = "headline" })); -- this comes after it, by the same stream
end

-- -> whether the contact is told that the target has accepted
local function is_accepted(contact, target)
	target:send(st.presence({ to = contact.bare, type = "subscribed" }));
	target:send(st.message({ to = contact.jid, id = "behind", type = "headline" }));
	local stanza = contact:receive(function (received)
		return received.attr.type == "subscribed" or received.attr.id == "behind";
	end, PATIENCE);
	return stanza.attr.type == "subscribed";
end

-- (parties, users) -> how many of these users' requests for a subscription the target is told of, and how many of them are
-- told that it has accepted
function limited.subscribe(parties, users)
	local target = limited.log_in(parties, "owner-"..users[1]);
	target:sync();
	local contacts, told, accepted = {}, 0, 0;
	for index, user in ipairs(users) do
		contacts[index] = xmpp.client(parties.server, user, "domain.example", "abc");
		ask(contacts[index], target);
	end
	for _ = 1, #users do
		target:receive(function (stanza)
			local is_told = stanza.attr.type == "subscribe" and stanza.attr.from:find("@domain.example", 1, true);
			told = told + (is_told and 1 or 0);
			return stanza.attr.id == "behind";
		end, PATIENCE);
	end
	for _, contact in ipairs(contacts) do
		accepted = accepted + (is_accepted(contact, target) and 1 or 0);
		contact:close();
	end
	target:close();
	return told, accepted;
end

-- (parties, count) -> the longest of so many pauses, in seconds, that the first node makes: as long as Prosody is away, each
-- attempt to reach it ends in one. Prosody is there again after that.
function limited.longest_pause(parties, count)
	local node, backend = parties.nodes[1], parties:log_in(1, "patient").patient;
	parties.server:stop();
	local first, deadline = #node:log() + 1, socket.gettime() + PATIENCE;
	local pauses = {};
	while #pauses < count do
		assert(socket.gettime() < deadline, #pauses.." pauses");
		backend:send(st.presence());
		backend:sync();
		pauses = {};
		for seconds in node:log():sub(first):gmatch("bouncing for (%d+) seconds") do
			table.insert(pauses, tonumber(seconds));
		end
		node:end_pause();
	end
	parties:start_server();
	parties:await_presence("available", "patient");
	backend:close();
	parties:await_presence("unavailable", "patient");
	return math.max(table.unpack(pauses));
end

-- (parties, patience) -> seconds until a backend at the first node serves while the second one hangs, from where answers came
-- so far; nil if that takes longer
function limited.seconds_beside_hanging_node(parties, patience)
	parties:place_streams(1, 2);
	local backends = parties:log_in(1, "a");
	parties.nodes[2]:hang();
	local ok, seconds = pcall(parties.await_service, parties, backends, patience);
	parties.nodes[2]:continue();
	parties:await_answers(backends);
	backends.a:close();
	return ok and seconds or nil;
end

return limited;
