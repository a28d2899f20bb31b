-- For tools/chaos.lua and spec/e2e/chaos_spec.lua: many requesters with requests under way all the
-- time, backends that come, go and misbehave, an operator who reloads and drains, a target's owner
-- who blocks, and a neighbour that throws. Here is who takes part, and the course of events.
-- chaos/ledger.lua says what must never happen.

local asking = require "spec.support.chaos.asking";
local blocking = require "spec.support.chaos.blocking";
local conversations = require "spec.support.chaos.conversations";
local clients = require "spec.support.chaos.clients";
local played_cluster = require "spec.support.chaos.played_cluster";
local elsewhere = require "spec.support.chaos.elsewhere";
local later = require "spec.support.later";
local ledger = require "spec.support.chaos.ledger";
local operator = require "spec.support.chaos.operator";
local requesters = require "spec.support.chaos.requesters";
local showing = require "spec.support.chaos.showing";
local socket = require "socket";
local throwaway = require "spec.support.throwaway";
local watching = require "spec.support.chaos.watching";

local now = socket.gettime;

local GRACE = 12; -- seconds that what has to come in the end may take
local LONGEST_GRACE = 60; -- seconds after the last request in which all is to end; that takes so long on a machine that stands still at times
local STALL, SILENCE = 0.5, 1; -- seconds

-- By where the targets are: the two of them
local TARGETS = {
	here = { "some-user@some-domain.example", "deputy@some-domain.example" };
	elsewhere = { "some-user@"..played_cluster.domain, "deputy@"..played_cluster.domain };
};
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

local function accounts(place)
	local list = place == "here" and { watching.account, table.unpack(TARGETS.here) } or {};
	for _, user in ipairs(requesters.users) do
		table.insert(list, user.."@some-domain.example");
	end
	return list;
end

-- (place, plugin_path) -> what spec/support/prosody.lua needs to make a server for this
-- place: where the targets are, "here" or "elsewhere"
function chaos.server_options(place, plugin_path)
	return {
		hosts = operator.usual_hosts(TARGETS[place][1]), accounts = accounts(place), plugin_path = plugin_path, log_level = "warn";
		s2s = place == "elsewhere" and { port = throwaway.free_port(), peer_port = throwaway.free_port() } or nil;
	};
end

-- (server, place, is_brisk) -> chaos
-- server: a running Prosody with chaos.server_options(place); is_brisk: whether as many requests as possible
-- are to be made, of which few are under way in a lull
function chaos.new(server, place, is_brisk)
	local self = setmetatable({
		server = server, is_brisk = is_brisk, ledger = ledger.new(), later = later.new(), without = left_out();
		targets = TARGETS[place], parties = {}, parts = {};
	}, chaos);
	self.cluster = place == "elsewhere" and played_cluster.new(self) or nil;
	for position, target in ipairs(self.targets) do
		local new = place == "elsewhere" and elsewhere.new or clients.new;
		self.parties[position] = new(self, target, LONG[position], is_brisk and 1 or FLIGHTY[position]);
	end
	self.requesters = requesters.new(self);
	self.conversations, self.asking = conversations.new(self), asking.new(self);
	self.operator = operator.new(self);
	self.blocking = blocking.new(self);
	if place == "here" then
		self.showing, self.watching = showing.new(self), watching.new(self);
	end
	self.parts = { self.parties[1], self.parties[2], self.requesters, self.operator, self.blocking, self.cluster };
	return self;
end

-- Calls it in a turn when so many seconds have passed.
function chaos:after(seconds, call)
	self.later:after(seconds, call);
end

-- (count, each) -> whether there may be one more where there have been so many, and are to be so many requests for each; as many
-- as requests, if as many of all kinds as possible are to be made
function chaos:may_have_more(count, each)
	return (self.is_brisk and 1 or each) * count <= self.ledger.requests;
end

-- Ten times a second, also at the end: see text.NUDGE
function chaos:nudge()
	for _, party in ipairs { self.requesters, self.parties[1], self.parties[2] } do
		party:nudge();
	end
	self:after(0.1, function () self:nudge(); end);
end

-- Ten times a second something happens, or not.
function chaos:something_happens()
	if self.is_over then
		return;
	end
	for _, part in ipairs(self.parts) do
		part:something_happens();
	end
	self:after(0.1, function () self:something_happens(); end);
end

function chaos:count_lost(time)
	self.requesters:count_lost(time);
	self.ledger.messages:count_lost(time);
	self.ledger.backend_requests:count_lost(time);
end

function chaos:look_for_lost()
	local time = now();
	self:count_lost(time);
	self.ledger.messages:forget_ended(time);
	self.ledger.backend_requests:forget_ended(time);
	if self.showing then
		self.showing:judge();
		self.watching:judge();
	end
	self:after(1, function () self:look_for_lost(); end);
end

function chaos:read()
	local sockets, readers = {}, {};
	for _, party in ipairs { self.requesters, self.parties[1], self.parties[2], self.cluster or self.watching } do
		for one, read in pairs(party:readers()) do
			table.insert(sockets, one);
			readers[one] = read;
		end
	end
	local readable = socket.select(sockets, nil, 0.02);
	for _, one in ipairs(readable) do
		readers[one]();
	end
	return #readable > 0;
end

-- The ledger is told of turns that take long and of long silence: what is seen after that may have happened long ago.
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
	if self.cluster then
		self.cluster:step();
	end
	self.requesters:step(not self.is_over);
	if not self.is_over then
		self.asking:step();
	end
	if self.showing then
		self.showing:step(not self.is_over);
		self.watching:step();
	end
	self.operator:step();
	self.later:run();
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
	self.ledger:set_target(self.targets[1], now());
	for _, party in ipairs(self.parties) do
		for _ = 1, party.slots + party.flighty do
			party:join();
		end
	end
	self.requesters:start();
	if self.watching then
		self.watching:start();
	end
	self:something_happens();
	self:nudge();
	self:look_for_lost();
end

-- Waits for the last answers, and leaves the server as it was.
function chaos:finish()
	self.is_over = true;
	if self.cluster then
		self.cluster:calm_down();
	end
	self:go_on(LONGEST_GRACE, function ()
		return self.ledger.open == self.ledger.open_excused and self.ledger.messages.open_count == 0
			and self.ledger.backend_requests.open_count == 0;
	end);
	self:count_lost(math.huge);
	self:go_on(GRACE, function () return self.blocking:finish(); end);
	if self.showing then
		self.showing:finish();
		self:go_on(GRACE, function () return self.showing:has_finished(); end);
	end
	self:go_on(3, function () return not self.ledger.suspicions[1]; end);
	self:close();
end

function chaos:close()
	self.requesters:close();
	self.parties[1]:close();
	self.parties[2]:close();
	if self.watching and not self.is_brisk then
		self.watching:are_deserted();
		self:go_on(GRACE, function () return self.watching:know_it() or self.ledger.watched_wrong > 0; end);
	end
	self.operator:close();
	(self.cluster or self.watching):close();
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
