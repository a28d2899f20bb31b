-- For specs with a target whose server is a cluster (spec/support/cluster.lua): all who take part, which are a
-- Prosody with the proxy and those who use it, and the cluster, with backends at either node.

local iterators = require "util.iterators";
local new_cluster = require "spec.support.cluster".new;
local new_prosody = require "spec.support.prosody".new;
local service = require "spec.support.service";
local socket = require "socket";
local st = require "util.stanza";
local throwaway = require "spec.support.throwaway";
local xmpp = require "spec.support.xmpp";

local PROXY, TARGET = service.proxy, service.target;
local PATIENCE, PLACING = 10, 30; -- seconds
local SHOW_AFTER = 1; -- seconds in which nothing comes
local PAUSE = 0.1; -- seconds, between requests
local LOST_AFTER = 1; -- seconds without an answer after which one request may be lost for good, and others are sent
local NUDGE_AFTER, NUDGE = 0.2, (" "):rep(2048); -- seconds
local MANY = 40; -- requests, enough that each backend gets some

local hosts = [[
VirtualHost "domain.example"
%s
Component "proxy.domain.example" "client_proxy"
	target_address = "some-user@some-domain.example"
	modules_enabled = { "copy_presence" }
	copy_presence_to = "observer@domain.example/observer"
%s
]];

local clustered = {};
clustered.__index = clustered;

-- (options) -> parties, none of which is there yet
-- options: component, lines for the proxy's section of the configuration, none if nil
--          host, likewise for its neighbour's, whose streams have the same limits
--          users, names of more users of that neighbour, none if nil
--          reaches, the node that Prosody's streams lead to, 1 or 2; if nil, chance decides for each of them
--          tick, retry_delay, streams, configuration: see spec/support/cluster.lua
--          log_level, statistics: see spec/support/prosody.lua
function clustered.new(options)
	options = options or {};
	local port = throwaway.free_port();
	local accounts = { "user@domain.example", "observer@domain.example" };
	for _, user in ipairs(options.users or {}) do
		table.insert(accounts, user.."@domain.example");
	end
	local cluster = new_cluster {
		host = "some-domain.example";
		accounts = { TARGET, "user@some-domain.example" };
		peers = { ["domain.example"] = { port }, [PROXY] = { port } };
		tick = options.tick, retry_delay = options.retry_delay, streams = options.streams, configuration = options.configuration;
	};
	local server = new_prosody {
		hosts = hosts:format(options.host or "", options.component or "");
		accounts = accounts;
		s2s = { port = port, peer_ports = options.reaches and { cluster.s2s_ports[options.reaches] } or cluster.s2s_ports };
		log_level = options.log_level, statistics = options.statistics;
	};
	return setmetatable({ cluster = cluster, nodes = cluster.nodes, server = server, count = 0 }, clustered);
end

-- Starts Prosody, for the first time or again.
function clustered:start_server()
	self.server:start();
	self.open = {}; -- ids of requests that have not been answered
	self.requester = xmpp.client(self.server, "user", "domain.example", "abc");
	self.observer = xmpp.client(self.server, "observer", "domain.example", "observer");
end

-- Starts all of them; the owner of the target approves.
function clustered:start()
	self.cluster:start();
	self:start_server();
	local owner = xmpp.client(self.nodes[1], "some-user", "some-domain.example", "owner");
	owner:send(st.presence());
	owner:receive(xmpp.presence_from(PROXY, "subscribe"));
	owner:send(st.presence({ to = PROXY, type = "subscribed" }));
	self:await_presence("available", "owner");
	owner:close();
	self:await_presence("unavailable", "owner");
	return self;
end

function clustered:remove()
	self.server:remove();
	self.cluster:remove();
end

-- (type, resources, show): waits until the proxy has got presence of that type from each of these; show(), which
-- has it sent, is called now, and again when nothing comes.
local function await_presence(self, type, resources, show)
	local awaited, count = {}, #resources;
	for _, resource in ipairs(resources) do
		awaited[TARGET.."/"..resource] = true;
	end
	local deadline = socket.gettime() + PATIENCE;
	show();
	while count > 0 do
		local came, message = pcall(self.observer.receive, self.observer, xmpp.is_message, SHOW_AFTER);
		local attr = came and message.tags[1].attr or {};
		if awaited[attr.from] and (attr.type or "available") == type then
			awaited[attr.from], count = nil, count - 1;
		elseif not came then
			assert(socket.gettime() < deadline, ("not all presence of type %s has come"):format(type));
			show();
		end
	end
end

-- Waits until the proxy has got presence of that type from each of these resources.
function clustered:await_presence(type, ...)
	await_presence(self, type, { ... }, function () end);
end

-- (node, ...) -> backends of these resources, by name, logged in at that node and known to the proxy
function clustered:log_in(node, ...)
	local backends = {};
	self.observer:sync();
	self.observer.received = {}; -- of earlier ones
	for _, resource in ipairs { ... } do
		backends[resource] = xmpp.client(self.nodes[node], "some-user", "some-domain.example", resource);
	end
	await_presence(self, "available", { ... }, function () -- what a node sends before it knows that a stream has ended is lost
		for _, backend in pairs(backends) do
			backend:send(st.presence());
		end
	end);
	for _, backend in pairs(backends) do
		backend:sync();
		backend.received = {};
	end
	return backends;
end

-- -> backends a at node 1 and b at node 2, by name
function clustered:log_in_one_each()
	return { a = self:log_in(1, "a").a, b = self:log_in(2, "b").b };
end

--
-- Where the streams are
--

local function are_at(nodes, to, from)
	for index, node in ipairs(nodes) do
		local incoming, outgoing = node:streams();
		if (incoming > 0) ~= (index == to) or (outgoing > 0) ~= (index == from) then
			return false;
		end
	end
	return true;
end

-- All streams end, and one in each direction is established. Chance decides to which node Prosody's leads; the
-- other one comes from a node that is named. -> whether both have been used
local function renew_streams(self, from)
	for _, node in ipairs(self.nodes) do
		node:run("ejabberd_s2s:stop_s2s_connections()");
	end
	local client = xmpp.client(self.nodes[from], "user", "some-domain.example", "client");
	client:send(st.iq({ type = "get", id = "renew", to = PROXY }):tag("one"):up():tag("too-many"));
	-- what is sent before the end of a stream has been seen is lost
	local ok, answer = pcall(client.receive, client, function (stanza) return stanza.attr.id == "renew"; end, 1);
	client:close();
	return ok and service.error_of(answer) == "bad-request"; -- by the proxy
end

-- (to, from): brings it about that Prosody's stream leads to one node, and that the cluster's comes from
-- one. No backend may be logged in, as its presence would open another one.
function clustered:place_streams(to, from)
	local deadline = socket.gettime() + PLACING;
	repeat
		assert(socket.gettime() < deadline, "the streams are not where they should be");
	until renew_streams(self, from) and are_at(self.nodes, to, from);
end

--
-- Requests
--

function clustered:send_requests(count, type)
	for _ = 1, count do
		self.count = self.count + 1;
		local id = (type or "get").."-"..self.count;
		self.open[id] = true;
		self.requester:send(service.request(id, nil, type));
	end
end

local function is_request(stanza)
	return stanza.name == "iq" and (stanza.attr.from or ""):find(PROXY.."/", 1, true) == 1;
end

-- Waits until the backend has got as many requests, which it does not answer.
function clustered.await_requests(backend, count)
	for _ = 1, count do
		backend:receive(is_request);
	end
end

-- Answers what the backend has got, pings too.
local function answer(backend)
	for _, stanza in ipairs(backend.received) do
		if stanza.attr.type == "get" or stanza.attr.type == "set" then
			backend:send(st.reply(stanza));
			backend.answered = (backend.answered or 0) + 1;
		end
	end
	backend.received = {};
end

-- Reads what has come to these connections, waiting for the first of it. If nothing comes, they all send white
-- space: a server's parser can hold back the end of what it got until more comes.
local function read_any(connections)
	local sockets, owners = {}, {};
	for index, connection in ipairs(connections) do
		sockets[index], owners[connection.socket] = connection.socket, connection;
	end
	local readable = socket.select(sockets, nil, NUDGE_AFTER);
	for _, ready in ipairs(readable) do
		owners[ready]:read(socket.gettime());
	end
	for _, connection in ipairs(#readable == 0 and connections or {}) do
		connection:send(NUDGE);
	end
end

-- Takes what the requester has got: answers to its requests, once each, and from where they were sent to.
local function take_answers(self, results, errors)
	for _, stanza in ipairs(self.requester.received) do
		local id = stanza.attr.id;
		assert(self.open[id] and stanza.attr.from == PROXY, tostring(stanza));
		self.open[id] = nil;
		if stanza.attr.type == "result" then
			results[id] = true;
		else
			errors[id] = service.error_of(stanza);
		end
	end
	self.requester.received = {};
end

-- These backends answer what they get, until all requests have been answered, or so many seconds have passed.
-- -> results that have come, by id; conditions of errors, by id; both are added to these tables if there are any
function clustered:work(backends, seconds, results, errors)
	results, errors = results or {}, errors or {};
	local deadline = socket.gettime() + seconds;
	local connections = { self.requester };
	for _, backend in pairs(backends) do
		table.insert(connections, backend);
	end
	while next(self.open) and socket.gettime() < deadline do
		read_any(connections);
		for _, backend in pairs(backends) do
			answer(backend);
		end
		take_answers(self, results, errors);
	end
	return results, errors;
end

-- Likewise, but all have to be answered.
function clustered:await_answers(backends)
	local results, errors = self:work(backends, PATIENCE);
	assert(not next(self.open), "not all requests have been answered");
	return results, errors;
end

-- (backends, seconds) -> whether many requests are all answered within that time, and each of these backends has answered
-- some; how many of the answers are errors
function clustered:are_served_by(backends, seconds)
	for _, backend in pairs(backends) do
		backend.answered = 0;
	end
	self:send_requests(MANY);
	local _, errors = self:work(backends, seconds or PATIENCE);
	local all_serve = not next(self.open) and not next(errors);
	for _, backend in pairs(backends) do
		all_serve = all_serve and backend.answered > 0;
	end
	return all_serve, iterators.count(pairs(errors));
end

-- Waits until requests are served by these backends, all of which do. Whether one is answered or not, the next is
-- sent: a node that is killed takes what it got last with it, and it is another request by which that can be seen.
-- -> how many seconds that took, how many requests failed until then
function clustered:await_service(backends, patience)
	local start = socket.gettime();
	local deadline = start + (patience or PATIENCE);
	local failed = 0;
	while true do
		self:send_requests(1);
		local _, errors = self:work(backends, PAUSE);
		failed = failed + iterators.count(pairs(errors));
		if not next(errors) and not next(self.open) then
			local all_serve, count = self:are_served_by(backends, LOST_AFTER);
			if all_serve then
				return socket.gettime() - start, failed;
			end
			failed = failed + count;
		end
		assert(socket.gettime() < deadline, ("not served yet, %d requests have failed, %d have not been answered")
			:format(failed, iterators.count(pairs(self.open))));
		socket.sleep(next(errors) and PAUSE or 0);
	end
end

-- The resources that status says are in that state
function clustered:resources(state)
	local found = {};
	for resource in self.server:client_proxy("status", PROXY):gmatch("%f[^\n](%S+)%s+|%s+"..state) do
		table.insert(found, resource);
	end
	table.sort(found);
	return found;
end

-- Waits until exactly these resources are ready; these backends answer pings meanwhile.
function clustered:await_ready(names, backends)
	local deadline = socket.gettime() + PATIENCE;
	local wanted, found = table.concat(names, " ");
	repeat
		assert(socket.gettime() < deadline, ("ready are %s"):format(found));
		for _, backend in pairs(backends) do
			backend:sync();
			answer(backend);
		end
		found = table.concat(self:resources("ready"), " ");
	until found == wanted;
end

return clustered;
