-- How much one stream between two servers carries: answers that come to a server by it from a played one, or go there, and
-- are counted where they come to.
--
--     lua5.4 bench/flood.lua

local new_crowd = require "bench.crowd".new;
local new_ejabberd = require "spec.support.ejabberd".new;
local new_played_server = require "spec.support.played_server".new;
local new_prosody = require "spec.support.prosody".new;
local process = require "spec.support.process";
local service = require "spec.support.service";
local socket = require "socket";
local st = require "util.stanza";
local throwaway = require "spec.support.throwaway";
local xmpp = require "spec.support.xmpp";

local CLIENTS, STANZAS, AT_ONCE = 10, 60000, 100;

local DOMAIN = "flood.example";

local new_server = {
	prosody = function (port, peer_port)
		return new_prosody { hosts = 'VirtualHost "some-domain.example"\n', accounts = { service.target }, log_level = "info",
			s2s = { port = port, peers = { [DOMAIN] = { peer_port } } } };
	end;
	ejabberd = function (port, peer_port)
		return new_ejabberd { host = "some-domain.example", accounts = { service.target },
			s2s = { port = port, peers = { [DOMAIN] = { peer_port } } } };
	end;
};

-- -> the server, one played for the other domain, its stream to the server, and clients that are to get something, or send it
local function start(name)
	local port, peer_port = throwaway.free_port(), throwaway.free_port();
	local server = new_server[name](port, peer_port):start();
	local played = new_played_server { domain = DOMAIN, port = peer_port, peer_port = port, peer = "some-domain.example" };
	local clients = {};
	for number = 1, CLIENTS do
		clients[number] = xmpp.client(server, "some-user", "some-domain.example", "backend-"..number);
	end
	return server, played, played:open(), clients;
end

local RESULT = "<iq type='result' id='flood' from='%s' to='%s'/>";

-- (crowd, server, send): so many stanzas are sent, some with each call of send(number), and all come to where the crowd
-- counts them. -> how many a second, and microseconds of the server's processor time for one
local function flood(crowd, server, send)
	local before, started = process.cpu_seconds(server.pid), socket.gettime();
	local sent = 0;
	while sent < STANZAS do
		send(sent // AT_ONCE);
		sent = sent + AT_ONCE;
		while crowd:turn(0) do end
	end
	crowd:await(function () return crowd.counted == STANZAS; end);
	return STANZAS / (crowd.last - started), (process.cpu_seconds(server.pid) - before) * 1e6 / STANZAS;
end

local function flood_in(server, stream, clients)
	local crowd, pieces = new_crowd(), {};
	for number = 1, AT_ONCE do
		pieces[number] = RESULT:format("someone@"..DOMAIN.."/a", clients[number % CLIENTS + 1].jid);
	end
	for _, client in ipairs(clients) do
		crowd:add_counter(client);
	end
	local data = table.concat(pieces);
	return flood(crowd, server, function () stream.connection:send(data); end);
end

-- By the one stream that the server has opened to the played one
local function flood_out(server, played, clients)
	clients[1]:send(st.iq({ type = "result", id = "open", to = "someone@"..DOMAIN.."/a" }));
	local _, stream = played:receive(function (stanza) return stanza.attr.id == "open"; end);
	local crowd, data = new_crowd(), {};
	crowd:add_counter(stream.connection);
	for number, client in ipairs(clients) do
		data[number] = RESULT:format(client.jid, "someone@"..DOMAIN.."/a"):rep(AT_ONCE);
	end
	return flood(crowd, server, function (number)
		local index = number % CLIENTS + 1;
		clients[index]:send(data[index]);
	end);
end

local function show(name, where, rate, microseconds)
	print(("  %-9s %-20s %8.0f %9.1f"):format(name, where, rate, microseconds));
	io.stdout:flush();
end

print(("# What one stream carries: stanzas a second, and microseconds of the server's processor time for one; to or from %d clients")
	:format(CLIENTS));
print(("# %-9s %-20s %8s %9s"):format("server", "the stream comes", "rate", "us"));
for _, name in ipairs { "prosody", "ejabberd" } do
	local server, played, stream, clients = start(name);
	show(name, "from another server", flood_in(server, stream, clients));
	show(name, "to another server", flood_out(server, played, clients));
	played:remove();
	server:remove();
end
