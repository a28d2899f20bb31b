-- Several Prosodys before one target: on each, proxies of its own, one for each way to choose; and a server of the
-- target's, which is the first of them or another one.

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
]];

-- (front, has_target) -> the second half of its configuration
local function front_hosts(front, has_target)
	local lines = { ('VirtualHost "front-%d.example"'):format(front) };
	if front == 1 then
		table.insert(lines, ("Component %q\n\tcomponent_secret = %q"):format(fronts.requesters, fronts.requesters));
	end
	if has_target then
		table.insert(lines, 'VirtualHost "some-domain.example"');
	end
	for name, strategy in pairs(STRATEGIES) do
		table.insert(lines, proxy_lines:format(name, front, strategy));
	end
	return table.concat(lines, "\n");
end

-- (name, front) -> the address of that proxy at that front
function fronts.proxy(name, front)
	return ("%s.front-%d.example"):format(name, front);
end

-- (ports, target_port) -> by domain, the port of its server
local function list_peers(ports, target_port)
	local peers = { [fronts.requesters] = ports[1], ["some-domain.example"] = target_port };
	for front, port in ipairs(ports) do
		peers[("front-%d.example"):format(front)] = port;
		for name in pairs(STRATEGIES) do
			peers[fronts.proxy(name, front)] = port;
		end
	end
	return peers;
end

-- (count, target_server) -> so many fronts, not yet running
-- target_server: "ejabberd", or "the first front"
function fronts.new(count, target_server)
	local self = setmetatable({ servers = {}, backends = {}, is_first = target_server == "the first front" }, fronts);
	local ports = {};
	for front = 1, count do
		ports[front] = throwaway.free_port();
	end
	local target_port = self.is_first and ports[1] or throwaway.free_port();
	local peers = list_peers(ports, target_port);
	for front, port in ipairs(ports) do
		local has_target = self.is_first and front == 1;
		self.servers[front] = new_prosody {
			hosts = front_hosts(front, has_target);
			accounts = { ("user@front-%d.example"):format(front), has_target and TARGET or nil };
			s2s = { port = port, peers = peers };
		};
	end
	self.target_server = self.is_first and self.servers[1]
		or new_ejabberd { host = "some-domain.example", accounts = { TARGET }, s2s = { port = target_port, peers = peers } };
	return self;
end

-- Waits until all proxies of the fronts that run have so many backends that are ready.
function fronts:await_ready(count)
	local deadline = socket.gettime() + PATIENCE;
	for front, server in ipairs(self.servers) do
		for name in pairs(STRATEGIES) do
			local series = ('prosody_mod_client_proxy__backends{host="%s",state="ready"}'):format(fronts.proxy(name, front));
			while server.pid and server:metrics()[series] ~= count do
				assert(socket.gettime() < deadline, series.." is not "..count);
				socket.sleep(PAUSE);
			end
		end
	end
end

function fronts:log_in(resource)
	local backend = xmpp.client(self.target_server, "some-user", "some-domain.example", resource);
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

-- Starts all of them, with these backends, the first of which accepts subscriptions.
function fronts:start(resources)
	if not self.is_first then
		self.target_server:start();
	end
	for _, server in ipairs(self.servers) do
		server:start();
	end
	for number, resource in ipairs(resources) do
		local backend = self:log_in(resource);
		if number == 1 then
			accept(self, backend);
		end
	end
	self.asking = xmpp.component(self.servers[1], fronts.requesters, "front-1.example");
	self:await_ready(#resources);
	return self;
end

function fronts:remove()
	for _, server in ipairs(self.servers) do
		server:remove();
	end
	if not self.is_first then
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
