-- The keys that seal the tokens: made at the first start, kept in Prosody's
-- storage, and replaced when they have reached their lifetime. Two generations
-- are kept, so that what the previous key sealed can still be opened.
--
-- Stored: { current = generation, previous = generation or nil }
--         generation = { id = 0 to 255, key = base64, created = seconds since 1970 }

local storage = module:require "storage";

local base64 = require "util.encodings".base64;
local random_bytes = require "util.random".bytes;

local KEY_BYTES = 32;
local HOUR = 60 * 60; -- until a failed write is tried again
local DAY = 24 * HOUR; -- until the wall clock is looked at again, which may be set meanwhile

local keys = {};

local function generation_key(generation)
	local key = type(generation) == "table" and type(generation.key) == "string" and base64.decode(generation.key);
	local id = key and math.tointeger(generation.id);
	if id and id >= 0 and id <= 255 and tonumber(generation.created) and #key == KEY_BYTES then
		return id, key;
	end
end

local function is_sound(stored)
	return type(stored) == "table" and generation_key(stored.current)
		and (stored.previous == nil or generation_key(stored.previous) and stored.previous.id ~= stored.current.id);
end

local function is_empty(stored) -- which it always is where storage is "none"
	return type(stored) == "table" and next(stored) == nil;
end

local function new_generation(after, time)
	return {
		id = after and (after.id + 1) % 256 or 0;
		key = base64.encode(random_bytes(KEY_BYTES));
		created = time;
	};
end

-- -> what is stored | nil: nothing | nil, what is wrong with it
local function read(store)
	local stored, read_error = store:get(nil);
	if read_error then
		return nil, ("the keys of %s cannot be read from Prosody's storage: %s"):format(module.host, read_error);
	elseif stored and not is_empty(stored) and not is_sound(stored) or not stored and storage.has_file(module.name, nil) then
		return nil, ("the keys of %s in Prosody's storage are damaged: restore them, or remove the store %q of that host for new ones")
			:format(module.host, module.name);
	end
	return not is_empty(stored) and stored or nil;
end

-- (jat, store, lifetime, saved, clock) -> keys | nil, message
-- Gives the jat the keys of the store (a keyval one), which must then not be given others. After a reload, those that were
-- in use go on if there are none that can be read, and are stored again.
-- lifetime: seconds; saved: what save() returned before a reload, or nil;
-- clock: the function that returns the wall clock's seconds, os.time if nil
-- keys: { rotate(), save() and name(), see below; due: the seconds until rotate() should be called }
function keys.open(jat, store, lifetime, saved, clock)
	clock = clock or os.time;
	local stored, problem = read(store);
	if problem and not saved then
		return nil, problem;
	end
	local is_stored = stored ~= nil;
	local is_failing = false; -- whether the last attempt to write them has failed, as the log tells
	if saved and (not stored or not saved.is_stored) then
		if saved.is_stored then
			module:log("warn", "The keys that are in use are written to Prosody's storage again: %s", problem or "there are none any more");
		end
		stored, is_stored, is_failing = saved.stored, false, saved.is_failing;
	elseif not stored then
		module:log("info", "There is no key in Prosody's storage, as at a first start: all tokens are new");
	end

	if stored then
		if stored.previous then
			jat:add_key(generation_key(stored.previous));
		end
		jat:add_key(generation_key(stored.current));
	end

	local function write()
		local ok, write_error = store:set(nil, stored);
		if not ok and not is_failing then
			module:log("error", "The new key cannot be written to Prosody's storage, a restart will change the tokens: %s", write_error);
		end
		is_stored, is_failing = ok, not ok;
	end

	-- () -> seconds until it should be called again
	-- Starts a new generation if it is time for one, and sees to it that it is stored.
	local function rotate()
		local time = clock();
		-- a key out of a far future was made while the clock was wrong
		local age = stored and math.abs(time - stored.current.created);
		if not age or age >= lifetime then
			stored = { current = new_generation(stored and stored.current, time), previous = stored and stored.current };
			jat:add_key(generation_key(stored.current));
			is_stored, age = false, 0;
		end
		if not is_stored then
			write();
		end
		return math.min(lifetime - age, is_stored and DAY or HOUR);
	end

	-- What a reload has to carry over
	local function save()
		return { stored = stored, is_stored = is_stored, is_failing = is_failing };
	end

	-- What tells the current key from all others
	local function name()
		return ("%s of %s"):format(stored.current.id, stored.current.created);
	end

	return { due = rotate(), rotate = rotate, save = save, name = name };
end

return keys;
