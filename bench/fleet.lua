-- For bench/: several Prosodys, the fronts, each with a proxy and with users of its own, before one target; and the target's
-- server, or servers.

require "spec.support.paths";
local new_cluster = require "spec.support.cluster".new;
local new_crowd = require "bench.crowd".new;
local new_ejabberd = require "spec.support.ejabberd".new;
local new_prosody = require "spec.support.prosody".new;
local process = require "spec.support.process";
local service = require "spec.support.service";
local socket = require "socket";
local st = require "util.stanza";
local throwaway = require "spec.support.throwaway";
local xmpp = require "spec.support.xmpp";

local TARGET, TARGET_HOST = service.target, "some-domain.example";
local REQUESTERS = 8; -- connections for each front

local IDLE_SECONDS, IDLE_SHARE = 0.3, 0.1;
local WARM_UP, STRETCH = 0.4, 1; -- seconds

-- Who takes part: fronts, targets (lists of servers; the latter is empty if the target is on the first front), crowd
-- (bench/crowd.lua), logged_in (how many backends are)
local fleet = {};
fleet.__index = fleet;

local function host_of(front)
	return ("front-%d.example"):format(front);
end

local function proxy_of(front)
	return "proxy."..host_of(front);
end

local front_lines = [[
VirtualHost "%s"
	modules_enabled = { %s }
Component "%s" "client_proxy"
	modules_enabled = { %s }
	target_address = "some-user@some-domain.example"
	client_proxy_max_pending_per_requester = 1000
]];

local target_lines = [[
VirtualHost "some-domain.example"
	modules_enabled = { %s }
]];

-- Where the streams of each of these servers lead
local function list_peers(ports)
	local peers = {};
	for front, port in ipairs(ports) do
		peers[host_of(front)], peers[proxy_of(front)] = { port }, { port };
	end
	return peers;
end

-- A certificate for all names, which nobody trusts: servers tell who they are by dialback then.
local function make_certificate(dir, fronts)
	local names = { "DNS:"..TARGET_HOST };
	for front = 1, fronts do
		table.insert(names, "DNS:"..host_of(front));
		table.insert(names, "DNS:"..proxy_of(front));
	end
	local command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=%s -addext subjectAltName=%s -keyout %s -out %s 2>&1";
	local output, code = throwaway.read_command(command:format(TARGET_HOST, table.concat(names, ","),
		throwaway.quote(dir.."/all.key"), throwaway.quote(dir.."/all.crt")));
	assert(code == 0, output);
end

-- (self, accounts, lines, port, peers) -> a Prosody
local function prosody_of(self, accounts, lines, port, peers)
	local server = new_prosody {
		hosts = lines, accounts = accounts, log_level = "info", run_by = self.run_by;
		s2s = { port = port, peers = peers, requires_encryption = self.is_encrypted };
	};
	if self.is_encrypted then
		make_certificate(server.dir, self.count);
	end
	return server;
end

local function modules_of(self)
	return (self.is_encrypted and '"tls"; ' or "")..(self.is_bidirectional and '"s2s_bidi"; ' or "");
end

-- What is to be started for the target, the servers in it, and the ports to which the fronts' streams lead, in turn
local make_target = {
	prosody = function (self, peers)
		local port = throwaway.free_port();
		local server = prosody_of(self, { TARGET }, target_lines:format(modules_of(self)), port, peers);
		return server, { server }, { port };
	end;
	ejabberd = function (_, peers)
		local port = throwaway.free_port();
		local server = new_ejabberd { host = TARGET_HOST, accounts = { TARGET }, s2s = { port = port, peers = peers } };
		return server, { server }, { port };
	end;
	cluster = function (self, peers)
		local cluster = new_cluster { host = TARGET_HOST, accounts = { TARGET }, peers = peers, streams = self.streams };
		return cluster, cluster.nodes, cluster.s2s_ports;
	end;
};

-- (count, target, options) -> so many fronts, and the servers of that target, none of which runs
-- target: "prosody", another one; "ejabberd"; "cluster", of two nodes of it; or "front", the first front itself
-- options: is_encrypted, whether streams between Prosodys are; is_bidirectional, whether they are used both ways;
--          streams, how many the nodes of a cluster may have to a front together, 1 if nil
--          run_by, a command to run each Prosody by, none if nil
function fleet.new(count, target, options)
	local self = setmetatable({ count = count, fronts = {}, targets = {}, users = {}, crowd = new_crowd(), logged_in = 0 }, fleet);
	for name, value in pairs(options or {}) do
		self[name] = value;
	end
	local ports = {};
	for front = 1, count do
		ports[front] = throwaway.free_port();
	end
	local peers, target_ports = list_peers(ports), { ports[1] };
	if target ~= "front" then
		self.target, self.targets, target_ports = make_target[target](self, peers);
	end
	for front, port in ipairs(ports) do
		peers[TARGET_HOST] = { target_ports[(front - 1) % #target_ports + 1] };
		local user, modules = "user@"..host_of(front), modules_of(self);
		local lines = front_lines:format(host_of(front), modules, proxy_of(front), modules);
		local has_target = target == "front" and front == 1;
		self.fronts[front] = prosody_of(self, { user, has_target and TARGET or nil },
			lines..(has_target and target_lines:format(modules) or ""), port, peers);
	end
	self.homes = target == "front" and self.fronts or self.targets; -- where backends log in
	return self;
end

-- The owner of the target accepts what the fronts have asked for.
local function accept(self, owner)
	for _ = 1, self.count do
		local proxy = owner:receive(function (stanza) return stanza.attr.type == "subscribe"; end, 30).attr.from;
		owner:send(st.presence({ to = proxy, type = "subscribed" }));
	end
	owner:sync();
end

-- (self, resource) -> connection of that resource of the target, at its servers in turn
local function log_in(self, resource)
	self.logged_in = self.logged_in + 1;
	return xmpp.client(self.homes[(self.logged_in - 1) % #self.homes + 1], "some-user", TARGET_HOST, resource);
end

-- Starts all of them. The first backend accepts subscriptions; it is counted among those that log_in() is asked for.
function fleet:start()
	if self.target then
		self.target:start();
	end
	for _, front in ipairs(self.fronts) do
		front:start();
	end
	local owner = log_in(self, "backend-1");
	owner:send(st.presence());
	if self.target then
		accept(self, owner);
	end
	self.crowd:add_backend(owner);
	self:await_ready();
	return self;
end

function fleet:remove()
	for _, front in ipairs(self.fronts) do
		front:remove();
	end
	if self.target then
		self.target:remove();
	end
end

-- (front) -> whether that front's proxy knows all backends that are logged in, and all are ready
function fleet:knows_all(front)
	local series = ('prosody_mod_client_proxy__backends{host="%s",state="ready"}'):format(proxy_of(front));
	return self.fronts[front]:metrics()[series] == self.logged_in;
end

-- Waits until all fronts do.
function fleet:await_ready()
	for front = 1, self.count do
		self.crowd:await(function () return self:knows_all(front); end);
	end
end

-- (servers) -> a list: seconds of processor time that each has taken
function fleet.cpu_seconds(servers)
	local list = {};
	for number, server in ipairs(servers) do
		list[number] = process.cpu_seconds(server.pid);
	end
	return list;
end

local function sum(list)
	local total = 0;
	for _, value in ipairs(list) do
		total = total + value;
	end
	return total;
end

-- Waits until the servers at which backends are have hardly anything more to do.
function fleet:await_idle()
	local used = sum(self.cpu_seconds(self.homes));
	self.crowd:await(function ()
		local deadline = socket.gettime() + IDLE_SECONDS;
		repeat until not self.crowd:turn(deadline - socket.gettime()) or socket.gettime() >= deadline;
		local before = used;
		used = sum(self.cpu_seconds(self.homes));
		return used - before < IDLE_SECONDS * IDLE_SHARE;
	end);
end

-- Logs in more backends, until there are so many, none of which has told its presence yet.
function fleet:log_in(count)
	self.silent = {};
	while self.logged_in < count do
		local backend = log_in(self, ("backend-%d"):format(self.logged_in + 1));
		self.crowd:add_backend(backend);
		table.insert(self.silent, backend);
	end
end

-- (is_for_all): they tell it, to the fronts alone, which is enough for these to know them; or to everybody, as most clients
-- do, the account's other resources among them. Returns when all fronts know.
function fleet:tell_presence(is_for_all)
	for _, backend in ipairs(self.silent) do
		for front = 1, is_for_all and 1 or self.count do
			backend:send(st.presence({ to = not is_for_all and proxy_of(front) or nil }));
		end
		while self.crowd:turn(0) do end
	end
	self:await_idle();
	self:await_ready();
end

-- The users of so many fronts are those who ask from now on.
function fleet:use_fronts(count)
	self.crowd.requesters = {};
	for front = 1, count do
		self.users[front] = self.users[front] or {};
		for number = 1, REQUESTERS do
			self.users[front][number] = self.users[front][number]
				or self.crowd:new_requester(xmpp.client(self.fronts[front], "user", host_of(front), "user-"..number), proxy_of(front));
			table.insert(self.crowd.requesters, self.users[front][number]);
		end
	end
end

-- (self) -> what one request takes meanwhile: { rate (requests a second), and milliseconds of processor time: fronts (all
-- of them), targets (a list), sum }
local function cost_of_working(self)
	local fronts, targets, started = self.cpu_seconds(self.fronts), self.cpu_seconds(self.targets), socket.gettime();
	local count = self.crowd:work(STRETCH);
	local seconds = socket.gettime() - started;
	local function each(after, before)
		return (after - before) * 1000 / count;
	end
	local figures = { rate = count / seconds, fronts = each(sum(self.cpu_seconds(self.fronts)), sum(fronts)), targets = {} };
	for number, after in ipairs(self.cpu_seconds(self.targets)) do
		figures.targets[number] = each(after, targets[number]);
	end
	figures.sum = figures.fronts + sum(figures.targets);
	return figures;
end

-- (fronts, in_flight) -> the same, where users of so many fronts ask, and so many requests are under way all the time at each
function fleet:measure(fronts, in_flight)
	self:use_fronts(fronts);
	self.crowd:ask(fronts * in_flight);
	self.crowd:work(WARM_UP);
	local figures = cost_of_working(self);
	self.crowd:finish();
	return figures;
end

return fleet;
