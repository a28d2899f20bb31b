-- For chaos: what an operator does meanwhile, who reloads the module, with other options and with another
-- target, drains and undrains backends, and asks for all presence anew.

local admin_shell = require "spec.support.admin_shell";
local core = require "mod_client_proxy.core";
local service = require "spec.support.service";
local socket = require "socket";

local now, random = socket.gettime, math.random;

local operator = {};
operator.__index = operator;

local FEW_REQUESTERS = 100; -- for a book in which not all of those who take part have room

-- What is to be had again at the end, so that memory can be compared
local USUAL = {
	strategy = "random", retries = 2, address_format = "unset", timeout = 2;
	max_pending = 100000, max_per_requester = 10000, max_requesters = 100000, allow = "nil";
};

local CHOICES = {
	strategy = core.STRATEGIES;
	retries = { 0, 1, 2, 3, 2, 3 };
	address_format = { "unset", table.unpack(core.FORMATS) };
	timeout = { 1, 2, 2, 2 };
	max_pending = { 100000, 100000, 100000, 1000 };
	max_per_requester = { 10000, 10000, 10000, 200 };
	max_requesters = { 100000, 100000, 10, 3 };
	allow = { "nil", '{ "some-domain.example" }', '{ "*@*.example" }' }; -- each allows all requesters there are
};
local names = { "strategy", "retries", "address_format", "timeout", "max_pending", "max_per_requester", "max_requesters", "allow" };

-- (values, target) -> the configuration of the hosts
local function hosts_with(values, target)
	return ([[
announce_hibernation = false
smacks_hibernation_time = 1
c2s_timeout = 10
VirtualHost "some-domain.example"
	modules_enabled = { "blocklist", "chaos_neighbour" }
Component "proxy.domain.example" "client_proxy"
	modules_enabled = { "chaos_neighbour" }
	target_address = %q
	client_proxy_strategy = %q
	client_proxy_retries = %d
	client_proxy_address_format = %s
	client_proxy_request_timeout = %d
	client_proxy_max_pending = %d
	client_proxy_max_pending_per_requester = %d
	client_proxy_max_requesters = %d
	client_proxy_allow = %s
]]):format(target, values.strategy, values.retries, values.address_format == "unset" and "nil" or ("%q"):format(values.address_format),
		values.timeout, values.max_pending, values.max_per_requester, values.max_requesters, values.allow);
end

-- (target) -> the configuration to start with
function operator.usual_hosts(target)
	return hosts_with(USUAL, target);
end

-- (chaos) -> operator of its running server
function operator.new(chaos)
	local self = setmetatable({ chaos = chaos, target = chaos.parties[1].target }, operator);
	self.values = setmetatable({}, { __index = USUAL });
	self.shell = admin_shell.new(chaos.server);
	self.has_commands = self.shell:run("client_proxy:help()"); -- the module of 2018 has none
	self.next_target = now() + 15;
	-- Of so many chances, one is taken. What the component does about backends elsewhere takes it seconds, and begins
	-- anew with each reload.
	self.leisure = chaos.cluster and 20 or 5;
	return self;
end

-- (line, on_end): a command that must succeed, unless on_end(ok) returns true
function operator:run(line, on_end)
	self.is_busy = true;
	self.shell:start(line, function (ok, result)
		self.is_busy = false;
		if not (on_end and on_end(ok)) and not ok then
			self.chaos.ledger:found("failed_commands", "%s: %s", line, result);
		end
	end);
end

--
-- Reloads
--

function operator:reload(on_end)
	self:run(("module:reload('client_proxy', %q)"):format(service.proxy), on_end);
end

function operator:configure(on_end)
	local ledger = self.chaos.ledger;
	ledger.configured_at = math.huge;
	ledger.messages:excuse_until("forgotten", math.huge);
	self.chaos.server:configure(hosts_with(self.values, self.target));
	self:run("config:reload()", function ()
		self:reload(function (ok)
			ledger.configured_at = now();
			ledger.messages:excuse_until("forgotten", self.values.max_requesters < FEW_REQUESTERS and math.huge or now());
			return on_end and on_end(ok);
		end);
	end);
end

function operator:change_options()
	for _, name in ipairs(names) do
		if random(3) == 1 and not self.chaos.without.options then
			self.values[name] = CHOICES[name][random(#CHOICES[name])];
		end
	end
	self:configure();
end

-- What the old target has is answered at once.
function operator:change_target(target)
	local ledger = self.chaos.ledger;
	self.target = target;
	ledger:set_target(nil, now());
	self:configure(function ()
		ledger:set_target(target, now());
	end);
end

function operator:maybe_change_target()
	if now() < self.next_target or self.chaos.without.targets then
		return;
	end
	local is_first = self.target == self.chaos.parties[1].target;
	self.next_target = now() + (is_first and 5 or 30);
	self:change_target(self.chaos.parties[is_first and 2 or 1].target);
	return true;
end

--
-- Drains
--

function operator:serving()
	for _, party in ipairs(self.chaos.parties) do
		if party.target == self.target then
			return party;
		end
	end
end

local function command(name, backend)
	return ("client_proxy:%s(%q, %q)"):format(name, service.proxy, backend.resource);
end

-- A backend that hangs is what one would drain; and then perhaps look whether it is still there.
function operator:drain()
	local party = self:serving();
	local backend = random(3) > 1 and party:any(function (backend) return backend.hung; end) or party:any();
	if not backend or backend.may_be_drained or self.chaos.without.drains then
		return;
	end
	backend.may_be_drained = true;
	self.draining = backend.resource;
	local since, sessions = backend.online_since, backend.sessions;
	self:run(command("drain", backend), function (ok)
		self.draining = nil;
		if ok and backend.is_online and backend.online_since == since and backend.sessions == sessions then
			backend.drained_at = now();
			self.chaos.ledger:note(backend, "drained");
			if backend.hung and random(2) == 1 then
				self:resync();
			end
		end
		return true; -- it may have gone before
	end);
end

function operator:undrain()
	local backend = self:serving():any(function (backend) return backend.drained_at; end);
	if backend then
		backend.drained_at = nil;
		self:run(command("undrain", backend), function (ok)
			backend.may_be_drained, backend.last_changed = not ok, now();
			return true;
		end);
	end
end

function operator:resync()
	self:run(("client_proxy:resync(%q)"):format(service.proxy));
end

-- Each is done so often out of ten times.
local deeds = {
	{ 2, operator.reload }, { 2, operator.change_options }, { 3, operator.drain }, { 1, operator.undrain }, { 2, operator.resync };
};

-- to be called ten times a second
function operator:something_happens()
	if self.is_busy or self:maybe_change_target() or random(self.leisure) > 1 then
		return;
	end
	local dice = random(10);
	for _, deed in ipairs(deeds) do
		dice = dice - deed[1];
		if dice <= 0 then
			return (self.has_commands or deed[2] == operator.reload or deed[2] == operator.change_options) and deed[2](self);
		end
	end
end

-- to be called in each turn
function operator:step()
	self.shell:step();
end

-- to be called at the end: all options are again as at the beginning
function operator:close()
	while self.is_busy do
		self:step();
		socket.sleep(0.01);
	end
	self.values, self.target = USUAL, self.chaos.parties[1].target;
	self:configure();
	while self.is_busy do
		self:step();
		socket.sleep(0.01);
	end
	self.shell:close();
end

return operator;
