-- What each line brings that doc/operation.markdown says to write into a configuration where the target's server is another
-- one: the same is measured without that line, and with all of them. That server is a cluster of two ejabberd nodes, or a
-- Prosody; both have Debian's configuration besides.
--
--     lua5.4 bench/limits_elsewhere.lua [LINE ...]

require "spec.support.paths";
local clustered = require "spec.support.clustered";
local code_blocks = require "spec.support.code_blocks";
local configuration = require "spec.support.ejabberd_configuration";
local iterators = require "util.iterators";
local limited = require "spec.support.limited";
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
local CONTACTS = 20; -- accounts
local PAUSES = 8;
local PATIENCE = 120; -- seconds

-- Prosody with Debian's limits: its users' section, where who asks is freed of them; the component's section, and what frees
-- the streams of the target's server
local NEIGHBOUR = 'modules_enabled = { "limits" }; unlimited_jids = { "user@domain.example" }';
local LIMITED = 'modules_enabled = { "limits", "copy_presence" }\n';
local NOT_LIMITED = LIMITED..'unlimited_jids = { "some-domain.example" }\n';

local users = {};
for number = 1, CONTACTS do
	users[number] = "contact-"..number;
end

-- (text, f, component) -> what f returns, which is called with parties (spec/support/clustered.lua) that are there meanwhile:
-- with that in ejabberd's configuration, and these lines in the component's section, if there are any: then Prosody has limits
local function with_parties(text, f, component)
	local parties = clustered.new {
		configuration = configuration.with(configuration.of_debian(), text);
		host = component and NEIGHBOUR, component = component, users = users, log_level = "info";
	};
	local ok, result = xpcall(function ()
		parties:start();
		return f(parties);
	end, debug.traceback);
	parties:remove();
	assert(ok, result);
	return result;
end

-- -> requests a second that are answered by these backends, when what limits let through at once is used up
local function rate(parties, backends)
	for _, backend in pairs(backends) do
		backend:send((" "):rep(BURST));
		backend:sync(30);
	end
	local count, start = 0, now();
	while now() < start + SECONDS do
		parties:send_requests(IN_FLIGHT - iterators.count(pairs(parties.open)));
		count = count + iterators.count(pairs((parties:work(backends, TURN))));
	end
	return count / (now() - start);
end

local function rate_by_ejabberd(text, component)
	return with_parties(text, function (parties)
		return rate(parties, parties:log_in(1, table.unpack(RESOURCES)));
	end, component);
end

-- -> a Prosody with the proxy, and the target's with these lines at the top of its configuration; neither is running yet
local function two_prosodys(lines)
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
	return server, other;
end

-- -> backends at the other Prosody, when the proxy knows them
local function log_in_elsewhere(parties, other)
	local backends = service.backends(other, RESOURCES);
	local owner = xmpp.client(other, "some-user", "some-domain.example", "owner");
	owner:send(st.presence():text_tag("priority", "-1")); -- it serves nobody
	owner:receive(xmpp.presence_from(service.proxy, "subscribe"));
	owner:send(st.presence({ to = service.proxy, type = "subscribed" }));
	parties:await_ready(RESOURCES, backends);
	return backends;
end

local function rate_by_prosody(lines)
	local server, other = two_prosodys(lines);
	local ok, result = xpcall(function ()
		server:start();
		other:start();
		local parties = setmetatable({ server = server, open = {}, count = 0 }, clustered);
		parties.requester = xmpp.client(server, "user", "domain.example", "abc");
		return rate(parties, log_in_elsewhere(parties, other));
	end, debug.traceback);
	server:remove();
	other:remove();
	assert(ok, result);
	return result;
end

-- Each of many backends that is ended comes again at once, as a service does. -> how many sessions are ended
local function count_ended(parties)
	local copies, ended, deadline = {}, 0, now() + WATCHED;
	while now() < deadline do
		for number = 1, COPIES do
			local copy = copies[number] or limited.log_in(parties, "copy-"..number);
			copy:read(now());
			if copy.closed then
				ended = ended + 1;
				copy:cut();
			end
			copy.received = {};
			copies[number] = not copy.closed and copy or nil;
		end
		socket.sleep(TURN);
	end
	return ended;
end

-- What is measured for a line, and how: measure(text) -> a number, with that in the configuration of the target's server
local RATE = { what = ("requests a second, %d under way, %d backends"):format(IN_FLIGHT, #RESOURCES), measure = rate_by_ejabberd };
local RATE_BY_PROSODY = { what = RATE.what, measure = rate_by_prosody };

-- (f) -> a measure: what f(parties) returns
local function on_ejabberd(f)
	return function (text)
		return with_parties(text, f);
	end;
end

local SESSIONS = { what = ("sessions ended in %d s, of %d backends"):format(WATCHED, COPIES), measure = on_ejabberd(count_ended) };

local HANGING_NODE = {
	what = "seconds without answers as the other node hangs";
	measure = on_ejabberd(function (parties)
		return limited.seconds_beside_hanging_node(parties, PATIENCE) or PATIENCE;
	end);
};

local LONGEST_PAUSE = {
	what = ("seconds that it waits, the longest of %d times"):format(PAUSES);
	measure = on_ejabberd(function (parties)
		return limited.longest_pause(parties, PAUSES);
	end);
};

local SUBSCRIPTIONS = {
	what = ("requests to subscribe that arrive, of %d"):format(CONTACTS);
	measure = on_ejabberd(function (parties)
		return (limited.subscribe(parties, users));
	end);
};

local block = code_blocks.below(DOCUMENTATION, "ejabberd, for the target's account");
local line = code_blocks.below(DOCUMENTATION, "Prosody, for the target's account");
local account, stream = line:match('{ ("[^"]+"), ("[^"]+") }');

local function unlimited(jid)
	return ("unlimited_jids = { %s }\n"):format(jid);
end

-- Which line, what is measured, without it, with all lines
local rows = {
	{ "target", RATE_BY_PROSODY, { unlimited(stream) }, { line } };
	{ "proxy", RATE_BY_PROSODY, { unlimited(account) }, { line } };
	{ "unlimited_jids", RATE, { block, LIMITED }, { block, NOT_LIMITED } };
};
for _, subject in ipairs {
	{ "service", RATE }, { "c2s_shaper", RATE }, { "max_user_sessions", SESSIONS }, { "max_s2s_connections", HANGING_NODE };
	{ "s2s_max_retry_delay", LONGEST_PAUSE }, { "mod_pres_counter", SUBSCRIPTIONS };
} do
	local name, figure = table.unpack(subject);
	table.insert(rows, { name, figure, { configuration.without(block, name) }, { block } });
end

local wanted = {};
for _, name in ipairs(arg) do
	wanted[name] = true;
end

print("# What each line brings where the target's server is another one, with Debian's configuration: `target` and `proxy` of the");
print("# line for another Prosody, `unlimited_jids` of the component's own section, and those for ejabberd");
print(("# %-19s  %-48s %8s %8s"):format("line", "measured", "without", "with all"));
for _, row in ipairs(rows) do
	local name, figure, without, with = table.unpack(row);
	if wanted[name] or not next(wanted) then
		print(("  %-19s  %-48s %8.0f %8.0f"):format(name, figure.what,
			figure.measure(table.unpack(without)), figure.measure(table.unpack(with))));
		io.stdout:flush();
	end
end
