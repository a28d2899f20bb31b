-- What the lines bring that doc/operation.markdown says to write into the configuration of the target's server: each is left
-- out once, where that server is a cluster of two ejabberd nodes with Debian's configuration. And what limits a target on a
-- Prosody, and the streams of its server.
--
--     lua5.4 bench/limits_elsewhere.lua [rate|rate_of_prosody|sessions|streams|pauses ...]

require "spec.support.paths";
local clustered = require "spec.support.clustered";
local code_blocks = require "spec.support.code_blocks";
local configuration = require "spec.support.ejabberd_configuration";
local failover = require "spec.support.failover";
local new_prosody = require "spec.support.prosody".new;
local service = require "spec.support.service";
local socket = require "socket";
local st = require "util.stanza";
local throwaway = require "spec.support.throwaway";
local xmpp = require "spec.support.xmpp";

local now = socket.gettime;

local DOCUMENTATION = "doc/operation.markdown";
local RESOURCES = { "a", "b", "c", "d" };
local IN_FLIGHT, SECONDS, TURN = 200, 10, 0.02; -- requests; seconds
local BURST = 25000; -- bytes, more than any limit here lets through before it holds
local COPIES, WATCHED = 12, 20; -- backends, seconds
local PAUSES, LONGEST = 4, 120; -- seconds

local shipped = configuration.of_debian();
local block = code_blocks.below(DOCUMENTATION, "ejabberd, for the target's account");

local function without(name)
	return configuration.with(shipped, configuration.without(block, name));
end

local function with_all()
	return configuration.with(shipped, block);
end

local function show(format, ...)
	print(format:format(...));
	io.stdout:flush();
end

-- (options, f): calls f with parties (spec/support/clustered.lua) that are there meanwhile
local function with_parties(options, f)
	local parties = clustered.new(options);
	local ok, failure = xpcall(function ()
		parties:start();
		f(parties);
	end, debug.traceback);
	parties:remove();
	assert(ok, failure);
end

local function size(list)
	local count = 0;
	for _ in pairs(list) do
		count = count + 1;
	end
	return count;
end

-- -> requests a second that are answered by these backends, when what limits let through at once is used up
local function rate(parties, backends)
	for _, backend in pairs(backends) do
		backend:send((" "):rep(BURST));
		backend:sync(30);
	end
	local count, start = 0, now();
	while now() < start + SECONDS do
		parties:send_requests(IN_FLIGHT - size(parties.open));
		count = count + size((parties:work(backends, TURN)));
	end
	return count / (now() - start);
end

local measures = {};

-- Debian's limits of streams; who asks has none.
local LIMITED_FRONT = 'modules_enabled = { "limits" }; unlimited_jids = { "user@domain.example" }';
local LIFTED = 'modules_enabled = { "limits" }; unlimited_jids = { "some-domain.example" }';

function measures.rate()
	show("# Requests a second, %d under way, answered by %d backends at one ejabberd node", IN_FLIGHT, #RESOURCES);
	for _, subject in ipairs {
		{ "as shipped", shipped }, { "without c2s_shaper", without "c2s_shaper" }, { "all lines", with_all() };
		{ "all lines; Prosody limits the stream", with_all(), LIMITED_FRONT };
		{ "all lines; Prosody does not, for this server", with_all(), LIMITED_FRONT, LIFTED };
	} do
		local name, text, host, component = table.unpack(subject);
		if component then -- the module that copies presence is named there already
			component = component:gsub('"limits"', '"limits", "copy_presence"');
		end
		with_parties({ configuration = text, host = host, component = component, log_level = "info" }, function (parties)
			local backends = parties:log_in(1, table.unpack(RESOURCES));
			show("  %-46s %8.0f", name, rate(parties, backends));
		end);
	end
end

-- (lines) -> requests a second where the target's server is a Prosody with that in its configuration
local function rate_of_prosody(lines)
	local port, other_port = throwaway.free_port(), throwaway.free_port();
	local server = new_prosody {
		hosts = 'VirtualHost "domain.example"\nComponent "proxy.domain.example" "client_proxy"\n'
			..'target_address = "some-user@some-domain.example"\n';
		accounts = { "user@domain.example" }, s2s = { port = port, peer_port = other_port }, log_level = "info";
	};
	local other = new_prosody {
		hosts = lines..'VirtualHost "some-domain.example"\n', accounts = { service.target }, modules = "limits";
		s2s = { port = other_port, peer_port = port }, log_level = "info";
	};
	local result;
	local ok, failure = xpcall(function ()
		server:start();
		other:start();
		local parties = setmetatable({ server = server, open = {}, count = 0 }, clustered);
		parties.requester = xmpp.client(server, "user", "domain.example", "abc");
		local backends = service.backends(other, RESOURCES);
		local owner = xmpp.client(other, "some-user", "some-domain.example", "owner");
		owner:send(st.presence():text_tag("priority", "-1")); -- it serves nobody
		owner:receive(xmpp.presence_from(service.proxy, "subscribe"));
		owner:send(st.presence({ to = service.proxy, type = "subscribed" }));
		parties:await_ready(RESOURCES, backends);
		result = rate(parties, backends);
	end, debug.traceback);
	server:remove();
	other:remove();
	assert(ok, failure);
	return result;
end

function measures.rate_of_prosody()
	local line = code_blocks.below(DOCUMENTATION, "Prosody, for the target's account");
	local account, stream = line:match('{ ("[^"]+"), ("[^"]+") }');
	show("# Requests a second, %d under way, answered by %d backends at another Prosody", IN_FLIGHT, #RESOURCES);
	for _, subject in ipairs {
		{ "as shipped", "" }, { "its backends are not limited", ("unlimited_jids = { %s }\n"):format(account) };
		{ "the proxy's stream is not limited", ("unlimited_jids = { %s }\n"):format(stream) }, { "neither is limited", line };
	} do
		show("  %-46s %8.0f", subject[1], rate_of_prosody(subject[2]));
	end
end

local function log_in_copy(parties, number)
	local copy = xmpp.client(parties.nodes[1], "some-user", "some-domain.example", "copy-"..number);
	copy:send(st.presence());
	return copy;
end

-- Each backend that has been ended comes again at once, as a service does.
-- -> how many sessions are ended
local function count_ended(parties)
	local copies, ended = {}, 0;
	for number = 1, COPIES do
		copies[number] = log_in_copy(parties, number);
	end
	local deadline = now() + WATCHED;
	while now() < deadline do
		for number, copy in ipairs(copies) do
			copy:read(now());
			if copy.closed then
				ended = ended + 1;
				copy:cut();
				copies[number] = log_in_copy(parties, number);
			end
			copy.received = {};
		end
		socket.sleep(TURN);
	end
	return ended;
end

function measures.sessions()
	show("# Sessions that ejabberd ends in %d s, of %d backends that log in again at once", WATCHED, COPIES);
	for _, subject in ipairs { { "without max_user_sessions", without "max_user_sessions" }, { "all lines", with_all() } } do
		with_parties({ configuration = subject[2], log_level = "info" }, function (parties)
			show("  %-46s %8d", subject[1], count_ended(parties));
		end);
	end
end

-- (figures, requests) of failover.run -> of what backends at the node that stays had got before the kill and had not yet answered:
-- how much there was, and how much of it came to another backend as well, or has no result
local function count_disturbed(figures, requests)
	local all, disturbed = 0, 0;
	for _, request in ipairs(requests) do
		local arrival = request.arrivals[1];
		if arrival and arrival.node == 1 and arrival.at < figures.killed and (request.ended or math.huge) > figures.killed then
			all = all + 1;
			disturbed = disturbed + ((request.arrivals[2] or request.outcome ~= "result") and 1 or 0);
		end
	end
	return all, disturbed;
end

function measures.streams()
	print "# Of 6000 requests at 300 a second, while the node that the answers come from is killed: those that have no result; the";
	print "# last of them was sent so many seconds after the kill; of what the backends at the other node were about to answer, how much";
	print "# had to be sent to another backend, or has no result";
	for _, subject in ipairs { { "without max_s2s_connections", without "max_s2s_connections" }, { "all lines", with_all() } } do
		local figures, requests = failover.run { strategy = "random", place = { 1, 2 }, configuration = subject[2] };
		local all, disturbed = count_disturbed(figures, requests);
		show("  %-46s %8d %8.2f %8s", subject[1], figures.errors + figures.unanswered, figures.last_failed, ("%d/%d"):format(disturbed, all));
	end
end

-- -> seconds from when Prosody is there again until requests are served
local function seconds_until_served(parties, backend)
	parties.server:stop "KILL";
	local deadline = now() + 10;
	repeat -- what it says before its node knows that the stream has ended is lost
		assert(now() < deadline, "the node does not notice that Prosody has gone");
		backend:send(st.presence());
	until pcall(backend.receive, backend, xmpp.presence_from(service.proxy, "error"), 0.3);
	parties:start_server();
	local ok, seconds = pcall(parties.await_service, parties, { backend }, LONGEST);
	return ok and seconds or LONGEST;
end

function measures.pauses()
	show("# Seconds until requests are served when Prosody has been killed and is there again, %d if it takes longer", LONGEST);
	for _, subject in ipairs { { "without s2s_max_retry_delay", without "s2s_max_retry_delay", 1 }, { "all lines", with_all(), PAUSES } } do
		local name, text, times = table.unpack(subject);
		with_parties({ configuration = text, log_level = "info" }, function (parties)
			local backend = parties:log_in(1, "a").a;
			for _ = 1, times do
				show("  %-46s %8.1f", name, seconds_until_served(parties, backend));
			end
		end);
	end
end

for _, name in ipairs(arg[1] and arg or { "rate", "rate_of_prosody", "sessions", "streams", "pauses" }) do
	measures[name]();
end
