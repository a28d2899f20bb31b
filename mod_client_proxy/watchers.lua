-- The service's presence for the accounts that have subscribed to it, to each service address of its own (RFC 6121
-- sections 3 and 4): they are its watchers. It is available while a backend serves.

local addresses = module:require "addresses";
local presence = module:require "presence";
local send_presence = module:require "send_presence";
local slices = module:require "slices";
local timers = module:require "timers";
local watcher_list = module:require "watcher_list";

local bare = addresses.bare;
local now = require "util.time".monotonic;
local st = require "util.stanza";

local GRACE = 5; -- seconds without a backend, until watchers are told
local PASSED_IN_A_SLICE = 10 * slices.SIZE; -- accounts that need not be told anything, at most

local watchers = {};
watchers.__index = watchers;

local function send(from, to, type)
	send_presence(st.presence({ from = from, to = to, type = type }));
end

-- (type): "available" or "unavailable"
local function send_state(from, to, state)
	send(from, to, state == "unavailable" and "unavailable" or nil);
end

-- (list, account, address, state) -> whether the watcher has been told this, as it had been told something else
local function tell(list, account, address, state)
	local watched = list:watched(account);
	if not watched or not watched[address] or watched[address] == state then
		return false;
	end
	watched[address] = state; -- before that is sent, which can call back anything
	send_state(address, account, state);
	return true;
end

-- At once: all who think that the service is available are told that it is not.
local function tell_all_unavailable(list)
	for number = 1, list.SHARDS do
		for _, account in ipairs(list:accounts(number)) do
			for _, address in ipairs(list:addresses(account)) do
				local watched = list:watched(account);
				if watched and watched[address] == "available" then
					tell(list, account, address, "unavailable");
				end
			end
		end
	end
end

local function forget_all_of(self, account)
	local list = self.list:addresses(account);
	for _, address in ipairs(list) do
		self.list:forget(account, address);
	end
	return list;
end

-- -> how many presences have been sent to this account, so that all of its addresses are as they are to be
local function see_to(self, account)
	local count = 0;
	if not self.is_allowed(account) then
		for _, address in ipairs(forget_all_of(self, account)) do
			send(address, account, "unsubscribed");
			count = count + 1;
		end
		return count;
	end
	for _, address in ipairs(self.state.announced and self.list:addresses(account) or {}) do
		count = count + (tell(self.list, account, address, self.state.announced) and 1 or 0);
	end
	return count;
end

-- -> the next account of the walk | nil: it is over
local function next_account(self)
	local walk = self.walk;
	while #walk.accounts == 0 do
		if walk.shard == self.list.SHARDS then
			return nil;
		end
		walk.shard = walk.shard + 1;
		walk.accounts = self.list:accounts(walk.shard);
	end
	return table.remove(walk.accounts);
end

-- -> whether there is more to do
local function walk_on(self)
	local sent = 0;
	for _ = 1, PASSED_IN_A_SLICE do
		local account = self.is_active and next_account(self);
		if not account then
			return false;
		end
		sent = sent + see_to(self, account);
		if sent >= slices.SIZE then
			return true;
		end
	end
	return true;
end

-- All are seen to from the beginning, also if that is being done: what each has been told says what is left to do.
local function see_to_all(self)
	self.walk = { shard = 0, accounts = {} };
	self.walk_slices:start();
end

local function announce(self, state)
	if self.state.announced ~= state then
		self.state.announced = state;
		see_to_all(self);
	end
end

local function wait_for_a_backend(self)
	local left = math.max(0, self.state.gone_at + GRACE - now());
	self.timers:set("grace", left, function () announce(self, "unavailable"); end);
end

-- Who serves may have changed.
local function update(self)
	local state = self.state;
	if not self.is_active then
		return;
	elseif self.pool:serves() then
		state.gone_at = nil;
		self.timers:stop("grace");
		announce(self, "available");
	elseif not state.gone_at then
		state.gone_at = now();
		wait_for_a_backend(self);
	end
end

local function current(self)
	return self.state.announced or "unavailable";
end

-- By the kind of a presence: (self, from, account, address), see presence.lua
local on_presence = {
	["watch"] = function (self, _, account, address)
		if not self.is_allowed(account) then
			self.list:forget(account, address);
		elseif self.list:add(account, address) then
			send(address, account, "subscribed");
			local watched = self.list:watched(account);
			if watched and watched[address] then -- still
				watched[address] = current(self);
				send_state(address, account, current(self));
			end
			return;
		end
		send(address, account, "unsubscribed");
	end;
	["unwatch"] = function (self, _, account, address)
		self.list:forget(account, address);
		send(address, account, "unsubscribed");
		send(address, account, "unavailable");
	end;
	["watcher-probe"] = function (self, from, account, address)
		local watched = self.list:watched(account);
		if watched and watched[address] and self.is_allowed(account) then
			if from == account then
				watched[address] = current(self);
			end
			return send_state(address, from, current(self));
		end
		self.list:forget(account, address);
		send(address, account, "unsubscribed");
	end;
	["watcher-error"] = function (self, _, account, address)
		self.list:forget(account, address);
	end;
};

local function add_handlers(self)
	-- For presence/host, presence/bare, presence/full, of which it takes all, so that none is answered with an error.
	function self.on_presence(event)
		local attr = event.stanza.attr;
		local handler = on_presence[presence.kind(event.stanza, self.target)];
		if handler then
			handler(self, attr.from, bare(attr.from), bare(attr.to));
		end
		return true;
	end
end

local function is_anybody()
	return true;
end

-- (setup) -> watchers, with the handler for presence events; the length is how many there are
-- setup: { target (the prepared bare JID), pool, events (see mod_client_proxy.lua), max (how many there may be),
--          is_allowed(bare JID): whether it may use the service, nil if everybody may; saved (what save() returned before a
--          reload, or nil) }
function watchers.new(setup)
	local saved = setup.saved or { announced = nil, gone_at = nil };
	local self = setmetatable({
		target = setup.target, pool = setup.pool, is_allowed = setup.is_allowed or is_anybody;
		list = watcher_list.new { max = setup.max, saved = saved.list };
		-- { announced ("available" or "unavailable", as watchers are told; nil: unknown, Prosody has just started),
		--   gone_at (the time since when no backend serves, or nil), list }. One table over reloads: an instance that a
		-- reload interrupts while it tells watchers goes on by what is the case.
		state = saved;
		walk = nil; -- { shard (its number), accounts (of the shard, who are left) }
		is_active = false; -- from start() to stop() or retire()
		timers = timers.new(); -- "grace"
	}, watchers);
	saved.list = self.list:save();
	self.walk_slices = slices.new(function () return walk_on(self); end);
	setup.events.add_handler("changed", function () update(self); end);
	module:hook_global("user-deleted", function (event)
		forget_all_of(self, event.username.."@"..event.host);
	end);
	add_handlers(self);
	return self;
end

function watchers:__len()
	return #self.list;
end

-- -> how many entries of their store cannot be read or written, so that watchers may be forgotten
function watchers:failing()
	return self.list:failing();
end

-- To be called when all hosts are there. What is wrong with what watchers have been told is put right from now on.
function watchers:start()
	self.is_active = true;
	self.list:forget(self.target, module.host); -- of when another account was the target: own_presence.lua is for this one
	see_to_all(self);
	if self.state.gone_at then
		wait_for_a_backend(self);
	end
	update(self);
end

-- To be called when the module goes for good.
function watchers:stop()
	self.is_active = false;
	self.state.announced = "unavailable";
	self.list:retire();
	tell_all_unavailable(self.list);
end

-- (saved): the same, for what save() returned, if no instance comes after that.
function watchers.give_up(saved)
	saved.announced = "unavailable";
	local list = watcher_list.new { saved = saved.list, max = 0 };
	list:retire();
	tell_all_unavailable(list);
end

-- To be called when the module goes, whether it is reloaded or not.
function watchers:retire()
	self.is_active = false;
	self.timers:retire();
	self.walk_slices:retire();
	self.list:retire();
end

-- -> what a reload has to carry over
function watchers:save()
	return self.state;
end

return watchers;
