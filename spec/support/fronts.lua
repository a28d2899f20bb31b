-- Several Prosodys before one target: on each, proxies of its own, one for each way to choose; and a server of the
-- target's, which is the first of them, another one, or a cluster.

local new_cluster = require "spec.support.cluster".new;
local new_ejabberd = require "spec.support.ejabberd".new;
local new_prosody = require "spec.support.prosody".new;
local service = require "spec.support.service";
local socket = require "socket";
local st = require "util.stanza";
local throwaway = require "spec.support.throwaway";
local xmpp = require "spec.support.xmpp";

local TARGET = service.target;
local PATIENCE, PAUSE = 20, 0.05; -- seconds
local MANY = 60; -- stanzas, enough that each backend gets some

-- By the first name in a proxy's address, its strategy
local STRATEGIES = { ["by-sender"] = "sender", ["by-recipient"] = "recipient", ["by-priority"] = "primary", usual = "random" };

local fronts = {
	requesters = "component.example"; -- the host of those who ask to see who is chosen, at the first front
};
fronts.__index = fronts;

local proxy_lines = [[
Component "%s.front-%d.example" "client_proxy"
	target_address = "some-user@some-domain.example"
	client_proxy_strategy = "%s"
	client_proxy_retries = %d
]];

-- (front, has_target, retries) -> the second half of its configuration
local function front_hosts(front, has_target, retries)
	local lines = { ('VirtualHost "front-%d.example"'):format(front) };
	if front == 1 then
		table.insert(lines, ("Component %q\n\tcomponent_secret = %q"):format(fronts.requesters, fronts.requesters));
	end
	if has_target then
		table.insert(lines, 'VirtualHost "some-domain.example"');
	end
	for name, strategy in pairs(STRATEGIES) do
		table.insert(lines, proxy_lines:format(name, front, strategy, retries));
	end
	return table.concat(lines, "\n");
end

local function list_accounts(front, has_target, users)
	local accounts = { has_target and TARGET or nil };
	for _, user in ipairs(users) do
		table.insert(accounts, ("%s@front-%d.example"):format(user, front));
	end
	return accounts;
end

-- (name, front) -> the address of that proxy at that front
function fronts.proxy(name, front)
	return ("%s.front-%d.example"):format(name, front);
end

-- (ports, target_ports) -> by domain, the ports of its server
-- target_ports: those of the target's server, or nil if it is the one that wants to know
local function list_peers(ports, target_ports)
	local peers = { [fronts.requesters] = { ports[1] }, ["some-domain.example"] = target_ports };
	for front, port in ipairs(ports) do
		peers[("front-%d.example"):format(front)] = { port };
		for name in pairs(STRATEGIES) do
			peers[fronts.proxy(name, front)] = { port };
		end
	end
	return peers;
end

-- By what serves the target's host: (self, ports): makes its nodes, if it is none of the fronts. -> their ports
local target_servers = {
	["the first front"] = function (_, ports)
		return { ports[1] };
	end;
	["ejabberd"] = function (self, ports)
		local target_ports = { throwaway.free_port() };
		self.target_server = new_ejabberd {
			host = "some-domain.example", accounts = { TARGET }, s2s = { port = target_ports[1], peers = list_peers(ports) };
		};
		self.nodes = { self.target_server };
		return target_ports;
	end;
	["a cluster"] = function (self, ports)
		self.target_server = new_cluster { host = "some-domain.example", accounts = { TARGET }, peers = list_peers(ports) };
		self.nodes = self.target_server.nodes;
		return self.target_server.s2s_ports;
	end;
};

-- (roots, target_server, options) -> fronts, not yet running
-- roots: for each front, which Prosody it is, one of prosody.roots() (spec/support/prosody.lua)
-- target_server: "the first front", "ejabberd", or "a cluster"
-- options: users (names of users at each front, "user" alone if nil), log_level (see spec/support/prosody.lua);
--          retries (client_proxy_retries, 1 if nil)
function fronts.new(roots, target_server, options)
	options = options or {};
	local self = setmetatable({
		servers = {}, nodes = {}, backends = {}, places = {}, is_first = target_server == "the first front";
	}, fronts);
	local ports = {};
	for front in ipairs(roots) do
		ports[front] = throwaway.free_port();
	end
	local peers = list_peers(ports, target_servers[target_server](self, ports));
	for front, port in ipairs(ports) do
		local has_target = self.is_first and front == 1;
		self.servers[front] = new_prosody {
			hosts = front_hosts(front, has_target, options.retries or 1), root = roots[front];
			accounts = list_accounts(front, has_target, options.users or { "user" });
			s2s = { port = port, peers = peers };
			log_level = options.log_level;
		};
	end
	return self;
end

-- (metrics, proxy) -> how many backends of that proxy are ready, and how many there are in all states
local function count_backends(metrics, proxy)
	local prefix, sum = ('prosody_mod_client_proxy__backends{host="%s",'):format(proxy), 0;
	for series, value in pairs(metrics) do
		sum = sum + (series:find(prefix, 1, true) and value or 0);
	end
	return metrics[prefix..'state="ready"}'], sum;
end

-- (count, of, only) -> whether all proxies of the fronts that run have so many backends that are ready; if not, what the first has
-- that has not
-- of: how many backends they are to have in all states, any number if nil
-- only: the first name of the proxies that matter, all of them if nil
function fronts:are_ready(count, of, only)
	for front, server in ipairs(self.servers) do
		local metrics = server.pid and server:metrics();
		for name in pairs(metrics and STRATEGIES or {}) do
			local proxy = fronts.proxy(name, front);
			local ready, sum = count_backends(metrics, proxy);
			if (name == only or not only) and (ready ~= count or sum ~= (of or sum)) then
				return false, ("%s has %d backends, of which %d are ready, not %d"):format(proxy, sum, ready, count);
			end
		end
	end
	return true;
end

-- Waits until they have so many that are ready.
function fronts:await_ready(count)
	local deadline = socket.gettime() + PATIENCE;
	local ready, failure = self:are_ready(count);
	while not ready do
		assert(socket.gettime() < deadline, failure);
		socket.sleep(PAUSE);
		ready, failure = self:are_ready(count);
	end
end

-- (resource, node) -> backend
-- node: of the cluster, where it logs in; if nil, the one where it was the last time, or the first
function fronts:log_in(resource, node)
	self.places[resource] = node or self.places[resource] or 1;
	local server = self.nodes[self.places[resource]] or self.servers[1];
	local backend = xmpp.client(server, "some-user", "some-domain.example", resource);
	backend:send(st.presence());
	self.backends[resource] = backend;
	return backend;
end

function fronts:log_out(resource)
	self.backends[resource]:close();
	self.backends[resource] = nil;
end

-- The owner of the target accepts what the proxies elsewhere have asked for.
local function accept(self, owner)
	local missing = {};
	for front = self.is_first and 2 or 1, #self.servers do
		for name in pairs(STRATEGIES) do
			missing[fronts.proxy(name, front)] = true;
		end
	end
	while next(missing) do
		local proxy = owner:receive(function (stanza) return stanza.attr.type == "subscribe"; end).attr.from;
		missing[proxy] = nil;
		owner:send(st.presence({ to = proxy, type = "subscribed" }));
	end
end

-- Starts all of them, with these backends, at each node in turn, the first of which accepts subscriptions. It is there before it
-- is asked for them: what comes while a client logs in, ejabberd may keep until the next one does.
function fronts:start(resources)
	(self.target_server or self.servers[1]):start();
	local owner = self:log_in(resources[1]);
	owner:sync();
	for front = self.is_first and 2 or 1, #self.servers do
		self.servers[front]:start();
	end
	accept(self, owner);
	for number = 2, #resources do
		self:log_in(resources[number], (number - 1) % math.max(1, #self.nodes) + 1);
	end
	self.asking = xmpp.component(self.servers[1], fronts.requesters, "front-1.example");
	self:await_ready(#resources);
	return self;
end

function fronts:remove()
	for _, server in ipairs(self.servers) do
		server:remove();
	end
	if self.target_server then
		self.target_server:remove();
	end
end

-- (is_wanted, count) -> list of { backend, resource, stanza }: what backends have got of what is wanted, as soon as that
-- is so much; all else that they have got is gone.
function fronts:collect(is_wanted, count)
	local list = {};
	local deadline = socket.gettime() + PATIENCE;
	repeat
		for resource, backend in pairs(self.backends) do
			for _, stanza in ipairs(backend:sync()) do
				if is_wanted(stanza) then
					table.insert(list, { backend = backend, resource = resource, stanza = stanza });
				end
			end
			backend.received = {};
		end
		assert(socket.gettime() < deadline or #list >= count, ("%d of %d have come"):format(#list, count));
	until #list >= count;
	return list;
end

--
-- Which backend gets what
--

-- By what is looked at: (number, front) -> a stanza with that number in what decides about it
local numbered = {
	["requests by sender"] = function (number, front)
		return st.iq({ type = "get", id = "choice-"..number, from = ("user-%d@%s/%d"):format(number, fronts.requesters, math.random(1000)),
			to = fronts.proxy("by-sender", front) }):tag("query", { xmlns = "urn:example:service" });
	end;
	["requests by recipient"] = function (number, front)
		return st.iq({ type = "get", id = "choice-"..number, from = ("user-%d@%s/a"):format(math.random(1000), fronts.requesters),
			to = ("room-%d@%s/%d"):format(number, fronts.proxy("by-recipient", front), math.random(1000)) })
			:tag("query", { xmlns = "urn:example:service" });
	end;
	["messages"] = function (number, front)
		return st.message({ type = "chat", id = "choice-"..number, from = ("user-%d@%s/%d"):format(number, fronts.requesters, math.random(1000)),
			to = fronts.proxy("usual", front) }, "hello");
	end;
};

fronts.KINDS = { "requests by sender", "requests by recipient", "messages" };

local function number_of(stanza)
	return tonumber((stanza.attr.id or ""):match("^choice%-(%d+)$"));
end

-- (kind, front) -> by number, the resource that gets it
function fronts:choices(kind, front)
	for number = 1, MANY do
		self.asking:send(numbered[kind](number, front));
	end
	local chosen = {};
	for _, got in ipairs(self:collect(number_of, MANY)) do
		chosen[number_of(got.stanza)] = got.resource;
		if got.stanza.name == "iq" then
			got.backend:send(st.reply(got.stanza));
			assert(self.asking:receive(xmpp.is_iq).attr.type == "result");
		end
	end
	return chosen;
end

return fronts;
