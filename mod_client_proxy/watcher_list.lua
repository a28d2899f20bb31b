-- Who watches which service addresses, and what each watcher has been told. It is kept in Prosody's storage, in shards, so
-- that no more is written than what has changed, and one shard at a time.
--
-- Stored, under "1" to "64": { { account, service address, ... }, ... }, a list, as SQL storage has a row, and thus a statement,
-- for each key that is a text.
--
-- In which shard an account is, is left to chance. Nobody can thus see to it that all are in one, which would be large.

local slices = module:require "slices";
local storage = module:require "storage";
local timers = module:require "timers";

local STORE = "client_proxy_watchers";
local SHARDS = 64;
local WRITE_AFTER = 60; -- seconds from a change, or a failure to write it
local ADDRESSES_EACH = 32; -- how many one account watches at most
local BYTES_EACH = 512; -- that account and address of a watcher may have on average, as many as there may be of them

local LOST = "Not all that watch the service are known: %d of the %d entries of the store %q of %s cannot be read (entry %s: %s). "
	.."What cannot be read is left as it is, and the accounts in there are told nothing. Restore it (%s) and restart Prosody, "
	.."or remove it: these accounts can subscribe anew";

local watcher_list = {};
watcher_list.__index = watcher_list;

watcher_list.SHARDS = SHARDS;

local function is_sound_entry(entry)
	if type(entry) ~= "table" or not entry[1] then
		return false;
	end
	for _, text in pairs(entry) do
		if type(text) ~= "string" then
			return false;
		end
	end
	return true;
end

local function is_sound(stored)
	if type(stored) ~= "table" then
		return false;
	end
	for index, entry in pairs(stored) do
		if not math.tointeger(index) or not is_sound_entry(entry) then
			return false;
		end
	end
	return true;
end

-- -> what is stored of a shard | nil, why it cannot be read
local function read(store, name)
	local stored, problem = store:get(name);
	if problem then
		return nil, problem;
	elseif stored == nil and not storage.has_file(STORE, name) then
		return {};
	elseif not is_sound(stored) then
		return nil, "damaged";
	end
	return stored;
end

local function put(state, account, address, number)
	state.shard_of[account] = number;
	local shard = state.shards[number];
	shard[account] = shard[account] or {};
	if not shard[account][address] then
		shard[account][address] = "unknown";
		state.count, state.bytes = state.count + 1, state.bytes + #account + #address;
	end
end

-- If Prosody has ended while it wrote, an account that had been forgotten and come again may be in two shards.
local function take_in(state, number, stored)
	for _, entry in ipairs(stored) do
		local account = entry[1];
		local before = state.shard_of[account];
		if before then
			state.changed[before], state.changed[number] = true, true;
		end
		for index = 2, #entry do
			put(state, account, entry[index], before or number);
		end
	end
end

local function warn_of_lost(lost, name, problem)
	local names = {};
	for number in pairs(lost) do
		table.insert(names, number);
	end
	table.sort(names);
	module:log("warn", LOST, #names, SHARDS, STORE, module.host, name, problem, table.concat(names, ", "));
end

-- -> all that is stored
local function load(store)
	local state = { shards = {}, shard_of = {}, count = 0, bytes = 0, changed = {}, lost = {}, is_failing = false };
	local lost_name, lost_problem;
	for number = 1, SHARDS do
		local name = tostring(number);
		local stored, problem = read(store, name);
		state.shards[number] = {};
		if stored then
			take_in(state, number, stored);
		else
			state.lost[number], lost_name, lost_problem = true, name, problem;
		end
	end
	if lost_name then
		warn_of_lost(state.lost, lost_name, lost_problem);
	end
	return state;
end

-- What is lost is left as it is, so that it can be repaired.
local function numbers_of_usable(lost)
	local usable, all = {}, {};
	for number = 1, SHARDS do
		table.insert(all, number);
		table.insert(usable, not lost[number] and number or nil);
	end
	return #usable > 0 and usable or all;
end

local function write(self, number)
	local state, stored = self.state, {};
	for account, watched in pairs(state.shards[number]) do
		local entry = { account };
		for address in pairs(watched) do
			table.insert(entry, address);
		end
		table.insert(stored, entry);
	end
	local ok, problem = self.store:set(tostring(number), stored);
	if ok then
		state.changed[number] = nil;
		state.is_failing = state.is_failing and next(state.changed) ~= nil;
	elseif not state.is_failing then
		state.is_failing = true;
		module:log("error", "Who watches the service cannot be written to Prosody's storage, "
			.."which is tried again each minute; a restart will forget those who came last: %s", problem);
	end
end

-- -> whether there is more to be written of what has been begun
local function write_next(self)
	local number = table.remove(self.queue);
	if number then
		write(self, number);
	end
	if #self.queue == 0 and not next(self.state.changed) then
		self.timers:stop("write");
	end
	return #self.queue > 0;
end

local function write_later(self)
	self.timers:set("write", WRITE_AFTER, function ()
		write_later(self); -- already now, for what cannot be written
		self.queue = {};
		for number in pairs(self.state.changed) do
			table.insert(self.queue, number);
		end
		self.write_slices:start();
	end);
end

local function set_changed(self, number)
	if self.state.lost[number] then
		return;
	end
	self.state.changed[number] = true;
	if self.timers.is_retired then
		write(self, number);
	elseif not self.timers:is_running("write") then
		write_later(self);
	end
end

-- (setup) -> list, whose length is how many watchers there are, each address that an account watches being one
-- setup: { max (how many there may be), saved (what save() returned before a reload, or nil) }
function watcher_list.new(setup)
	local store = module:open_store(STORE);
	local state = setup.saved or load(store);
	local self = setmetatable({
		store = store, max = setup.max;
		-- { shards (by number: { [account] = { [address] = what it has been told } }), shard_of (by account: number), count, bytes;
		--   changed (by number: true, if it is yet to be written), lost (likewise, if it cannot be read), is_failing }
		state = state;
		usable = numbers_of_usable(state.lost);
		queue = {}; -- numbers of the shards that are being written
		timers = timers.new(); -- "write"
	}, watcher_list);
	self.write_slices = slices.new(function () return write_next(self); end);
	if next(state.changed) then
		write_later(self);
	end
	return self;
end

function watcher_list:__len()
	return self.state.count;
end

-- -> how many entries of the store could not be read, or have been changed and could not be written yet
function watcher_list:failing()
	local state, count = self.state, 0;
	for _ in pairs(state.lost) do
		count = count + 1;
	end
	for _ in pairs(state.is_failing and state.changed or {}) do
		count = count + 1;
	end
	return count;
end

-- (account) -> { [address] = what it has been told }, whose values may be changed: "unknown" at first | nil: it watches none
function watcher_list:watched(account)
	local number = self.state.shard_of[account];
	return number and self.state.shards[number][account];
end

local function has_all_it_may(watched)
	local count = 0;
	for _ in pairs(watched or {}) do
		count = count + 1;
	end
	return count >= ADDRESSES_EACH;
end

-- (account, address): it watches this from now on, if it does not already. -> whether there is room for that
function watcher_list:add(account, address)
	local watched = self:watched(account);
	if watched and watched[address] then
		return true;
	elseif self.state.count >= self.max or has_all_it_may(watched)
		or self.state.bytes + #account + #address > self.max * BYTES_EACH then
		return false;
	end
	local number = self.state.shard_of[account] or self.usable[math.random(#self.usable)];
	put(self.state, account, address, number);
	set_changed(self, number);
	return true;
end

-- (account, address) -> whether it has watched this until now
function watcher_list:forget(account, address)
	local state, watched = self.state, self:watched(account);
	if not watched or not watched[address] then
		return false;
	end
	local number = state.shard_of[account];
	watched[address] = nil;
	state.count, state.bytes = state.count - 1, state.bytes - #account - #address;
	if not next(watched) then
		state.shard_of[account], state.shards[number][account] = nil, nil;
	end
	set_changed(self, number);
	return true;
end

-- (account) -> a list of the addresses that it watches
function watcher_list:addresses(account)
	local addresses = {};
	for address in pairs(self:watched(account) or {}) do
		table.insert(addresses, address);
	end
	return addresses;
end

-- (number) -> a list of the accounts in that shard, 1 to SHARDS
function watcher_list:accounts(number)
	local accounts = {};
	for account in pairs(self.state.shards[number]) do
		table.insert(accounts, account);
	end
	return accounts;
end

-- Writes what has changed, and from now on all changes at once. To be called when the module goes, whether it is reloaded
-- or not, and when Prosody stops.
function watcher_list:retire()
	self.timers:retire();
	self.write_slices:retire();
	for number in pairs(self.state.changed) do
		write(self, number);
	end
end

-- -> what a reload has to carry over
function watcher_list:save()
	return self.state;
end

return watcher_list;
