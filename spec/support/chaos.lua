-- Many requesters with requests under way all the time, backends that come, go and misbehave,
-- an operator who reloads and drains, a target's owner who blocks, and a neighbour that throws:
-- here is who takes part, and the course of events. What must not come of it says chaos/ledger.lua.

local backends = require "spec.support.chaos.backends";
local blocking = require "spec.support.chaos.blocking";
local ledger = require "spec.support.chaos.ledger";
local operator = require "spec.support.chaos.operator";
local requesters = require "spec.support.chaos.requesters";
local socket = require "socket";

local now = socket.gettime;

local GRACE = 12; -- seconds after the last request that an answer may take
local STALL, SILENCE = 0.5, 1; -- seconds

local TARGETS = { "some-user@some-domain.example", "deputy@some-domain.example" };
local LONG, FLIGHTY = { 6, 3 }, { 3, 1 }; -- how many backends each has that stay for long, and that do not

local chaos = {};
chaos.__index = chaos;

-- What is to be left out: see tools/chaos.lua
local function left_out()
	local names = {};
	for name in (os.getenv("CHAOS_WITHOUT") or ""):gmatch("%a+") do
		names[name] = true;
	end
	return names;
end

local function accounts()
	local list = { table.unpack(TARGETS) };
	for _, user in ipairs(requesters.users) do
		table.insert(list, user.."@some-domain.example");
	end
	return list;
end

-- (plugin_path) -> what spec/support/prosody.lua needs to make a server for this
function chaos.server_options(plugin_path)
	return { hosts = operator.usual_hosts(TARGETS[1]), accounts = accounts(), plugin_path = plugin_path, log_level = "warn" };
end

-- (server, is_brisk) -> chaos
-- server: a running Prosody with chaos.server_options(); is_brisk: whether as many requests as possible
-- are to be made, of which few are under way in a lull
function chaos.new(server, is_brisk)
	local self = setmetatable({ server = server, is_brisk = is_brisk, ledger = ledger.new(), later = {}, parties = {}, without = left_out() }, chaos);
	for position, target in ipairs(TARGETS) do
		self.parties[position] = backends.new(self, target, LONG[position], is_brisk and 1 or FLIGHTY[position]);
	end
	self.requesters = requesters.new(self);
	self.operator = operator.new(self);
	self.blocking = blocking.new(self);
	return self;
end

-- Calls it in a turn when so many seconds have passed.
function chaos:after(seconds, call)
	table.insert(self.later, { at = now() + seconds, call = call });
end

function chaos:run_later()
	local due, time = {}, now();
	for position = #self.later, 1, -1 do
		if self.later[position].at <= time then
			table.insert(due, table.remove(self.later, position).call);
		end
	end
	for _, call in ipairs(due) do
		call();
	end
end

-- Ten times a second something happens, or not.
function chaos:something_happens()
	if self.is_over then
		return;
	end
	for _, part in ipairs { self.parties[1], self.parties[2], self.requesters, self.operator, self.blocking } do
		part:something_happens();
	end
	self:after(0.1, function () self:something_happens(); end);
end

function chaos:look_for_lost()
	self.requesters:count_lost();
	self:after(1, function () self:look_for_lost(); end);
end

function chaos:read()
	local sockets, connections = {}, {};
	for _, parties in ipairs { self.requesters.list, self.parties[1].online, self.parties[2].online } do
		for _, party in pairs(parties) do
			table.insert(sockets, party.connection.socket);
			connections[party.connection.socket] = party.connection;
		end
	end
	local readable = socket.select(sockets, nil, 0.02);
	for _, one in ipairs(readable) do
		connections[one]:read(now());
	end
	return #readable > 0;
end

-- When a turn has taken long, or nothing has come for long, what is seen may have happened long ago.
function chaos:watch_stalls(begun, has_read)
	local time = now();
	if time > begun + STALL or time > self.last_read + SILENCE then
		self.ledger:stalled(time);
	end
	if has_read then
		self.last_read = time;
	end
end

-- One turn: whatever has come is handled, whatever is due happens.
function chaos:step()
	local begun = now();
	local has_read = self:read();
	self.parties[1]:step();
	self.parties[2]:step();
	self.requesters:step(not self.is_over);
	self.operator:step();
	self:run_later();
	self:watch_stalls(begun, has_read);
	self.ledger:step(now());
end

-- (seconds, is_done): goes on until it is done, but no longer than that
function chaos:go_on(seconds, is_done)
	local last = now() + seconds;
	while not is_done() and now() < last do
		self:step();
	end
end

function chaos:start()
	self.last_read = now();
	self.ledger:set_target(TARGETS[1], now());
	for _, party in ipairs(self.parties) do
		for _ = 1, party.slots + party.flighty do
			party:join();
		end
	end
	self.requesters:start();
	self:something_happens();
	self:look_for_lost();
end

-- Waits for the last answers, and leaves the server as it was.
function chaos:finish()
	self.is_over = true;
	self:go_on(GRACE + 2, function () return self.ledger.open == self.ledger.open_excused; end);
	self:go_on(GRACE, function () return self.blocking:finish(); end);
	self:go_on(3, function () return not self.ledger.suspicions[1]; end);
	self.requesters:close();
	self.parties[1]:close();
	self.parties[2]:close();
	self.operator:close();
end

-- (goes_on, progress) -> ledger
-- goes_on(ledger): whether there are to be more requests; progress(ledger): called each second
function chaos:run(goes_on, progress)
	self:start();
	local next_progress = now();
	while goes_on(self.ledger) do
		self:step();
		if progress and now() >= next_progress then
			progress(self.ledger);
			next_progress = now() + 1;
		end
	end
	self:finish();
	return self.ledger;
end

-- (log) -> how often something was thrown in the server, but for what the neighbour throws
function chaos.count_tracebacks(log)
	local _, all = log:gsub("stack traceback:", "");
	local _, on_purpose = log:gsub("thrown on purpose[^\n]*\n[^\n]*stack traceback:", "");
	return all - on_purpose;
end

return chaos;
