-- Backends of unequal speed, one of them ten times slower: how long requests take
-- with the strategies random and least_pending, on a real Prosody, one after the
-- other. Requests come at random times at a rate that random lets the slow backend
-- just cope with.
--
--     make bench

require "spec.support.paths";
local percentiles = require "bench.percentiles";
local prosody = require "spec.support.prosody";
local service = require "spec.support.service";
local socket = require "socket";
local st = require "util.stanza";

local REQUESTS = 1500;
local RATE = 100; -- a second
local SERVICE_TIMES = { fast = 0.002, faster = 0.002, slow = 0.020 }; -- seconds a request keeps a backend busy

local now = socket.gettime;

local hosts = [[
VirtualHost "some-domain.example"
Component "proxy.domain.example" "client_proxy"
	target_address = "some-user@some-domain.example"
	client_proxy_max_pending_per_requester = 100000
	client_proxy_strategy = %q
]];

-- A backend that works on one request at a time, in the order they came
local function new_backend(server, resource)
	return {
		connection = service.backend(server, resource), seconds = SERVICE_TIMES[resource], free_at = 0, answers = {}, count = 0,
	};
end

local function take_requests(backend)
	for _, stanza in ipairs(backend.connection.received) do
		if stanza.attr.type == "get" then
			backend.free_at = math.max(backend.free_at, now()) + backend.seconds;
			backend.count = backend.count + 1;
			table.insert(backend.answers, { at = backend.free_at, stanza = st.reply(stanza) });
		end
	end
	backend.connection.received = {};
end

local function send_answers(backend)
	while backend.answers[1] and backend.answers[1].at <= now() do
		backend.connection:send(table.remove(backend.answers, 1).stanza);
	end
end

local function take_answers(requester, sent_at, times)
	for _, stanza in ipairs(requester.received) do
		assert(stanza.attr.type == "result", "a request failed");
		table.insert(times, now() - sent_at[stanza.attr.id]);
	end
	requester.received = {};
end

-- Reads what has come to any of them, or waits a millisecond for it
local function read_all(connections)
	local by_socket, sockets = {}, {};
	for _, connection in ipairs(connections) do
		by_socket[connection.socket] = connection;
		table.insert(sockets, connection.socket);
	end
	for _, readable in ipairs((socket.select(sockets, nil, 0.001))) do
		by_socket[readable]:read(0);
	end
end

-- -> seconds that each request took; how many the slow backend had
local function measure(server)
	server:start();
	local requester = service.requester(server);
	local backends, connections = {}, { requester };
	for resource in pairs(SERVICE_TIMES) do
		backends[resource] = new_backend(server, resource);
		table.insert(connections, backends[resource].connection);
	end
	local sent_at, times, sent, next_at = {}, {}, 0, now();
	while #times < REQUESTS do
		while sent < REQUESTS and next_at <= now() do
			sent = sent + 1;
			sent_at["request-"..sent] = now();
			requester:send(service.request("request-"..sent));
			next_at = next_at - math.log(1 - math.random()) / RATE;
		end
		read_all(connections);
		for _, backend in pairs(backends) do
			take_requests(backend);
			send_answers(backend);
		end
		take_answers(requester, sent_at, times);
	end
	return times, backends.slow.count;
end

local function show(strategy)
	local times, slow_count = prosody.use({ hosts = hosts:format(strategy) }, measure);
	local p50, p99, p999 = percentiles(times);
	print(("  %-14s %8.1f %8.1f %8.1f %18d"):format(strategy, p50, p99, p999, slow_count));
end

math.randomseed(1);
print(("# %d requests, %d a second, three backends, one ten times slower: milliseconds a request"):format(REQUESTS, RATE));
print("# strategy            p50      p99    p99.9     to_the_slow_one");
show "random";
show "least_pending";
