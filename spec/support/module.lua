-- A stand-in for Prosody's `module` object. It loads a Lua file of ours the way
-- module:require does, and remembers what that file does with Prosody.
--
-- Time is the module's own, and passes only when a spec says so.
--
--     MODULE_DIR  the folder of the Lua files to test (default: the checkout's)

local new_statistics = require "util.statistics".new;
local st = require "util.stanza";

local directory = os.getenv("MODULE_DIR") or "mod_client_proxy";

local fake_module = {};

-- (value) -> the same, which has no table in common with it
local function copy(value)
	if type(value) ~= "table" then
		return value;
	end
	local copied = {};
	for k, v in pairs(value) do
		copied[k] = copy(v);
	end
	return copied;
end

fake_module.copy = copy;

-- A keyval store that, like Prosody's, keeps no reference to what it is given, and nothing of an empty table.
-- content: by key; read_errors: by key, what to fail with; write_error: likewise, for all; writes: the keys of all writes
local store = {};
store.__index = store;

function store:get(key)
	if self.read_errors[key] then
		return nil, self.read_errors[key];
	end
	return copy(self.content[key]);
end

function store:set(key, data)
	table.insert(self.writes, key);
	if self.write_error then
		return nil, self.write_error;
	end
	self.content[key] = next(data) and copy(data);
	return true;
end

local methods = {};
local module_mt = { __index = methods };

-- (configured, before) -> module
-- configured: what stands below the component in the configuration; before: the module whose place
-- this one takes, as in a reload: time and what there is of Prosody are the same to both
function fake_module.new(configured, before)
	before = before or {};
	return setmetatable({
		host = "proxy.domain.example";
		name = "client_proxy";
		path = directory.."/mod_client_proxy.lua";
		configured = configured or {};
		configured_globally = {}; -- what stands above all hosts, for those who look at the whole configuration
		clock = before.clock or { now = 5000 }; -- seconds
		sent = {}; -- stanzas
		log_lines = {}; -- { level, text }
		timers = {}; -- { delay, due, callback, stopped, fired }, for the spec to call
		registry = before.registry or new_statistics().metric_registry; -- of its metrics; specs can put another one there
		hooks = {}; -- by event: handler
		priorities = {}; -- by event: of that handler, if it has one
		identities = {}; -- { category, type, name }
		shared_tables = {}; -- by path
		stores = before.stores or {}; -- by name: what open_store() returns
		libraries = {}; -- by name: what a file gets instead of what it requires under that name
		-- what a file sees as its global of that name
		prosody = before.prosody or {
			full_sessions = {}, hosts = { ["proxy.domain.example"] = { s2sout = {} } }, paths = { plugins = directory };
		};
	}, module_mt);
end

function methods:require(lib)
	local function now() return self.clock.now; end
	local time = { monotonic = now, now = now };
	local config = { getconfig = function () return { ["*"] = self.configured_globally, [self.host] = self.configured }; end };
	local environment = setmetatable({
		module = self, prosody = self.prosody;
		require = function (name)
			return self.libraries[name] or name == "util.time" and time or name == "core.configmanager" and config or require(name);
		end;
	}, { __index = _G });
	return assert(loadfile(directory.."/"..lib..".lua", "t", environment))();
end

function methods:get_option(name, default)
	local value = self.configured[name];
	if value == nil then
		return default;
	end
	return value;
end

-- Clones, because the sender may go on to change what it has sent.
function methods:send(stanza)
	table.insert(self.sent, st.clone(stanza));
end

-- () -> stanzas: what was sent since it was last asked
function methods:take_sent()
	local sent = self.sent;
	self.sent = {};
	return sent;
end

-- Stricter than Prosody, where an argument that does not fit the format is shown somehow.
function methods:log(level, format, ...)
	table.insert(self.log_lines, { level = level, text = format:format(...) });
end

function methods:get_option_string(name, default)
	local value = self:get_option(name, default);
	return value ~= nil and tostring(value) or nil;
end

function methods:add_identity(category, type, name)
	table.insert(self.identities, { category = category, type = type, name = name });
end

function methods:hook(event, handler, priority)
	self.hooks[event], self.priorities[event] = handler, priority;
end

function methods:hook_object_event(_, event, handler)
	self.hooks[event] = handler;
end

function methods:hook_global(event, handler)
	self.hooks[event] = handler;
end

function methods:open_store(name)
	self.stores[name] = self.stores[name] or setmetatable({ content = {}, read_errors = {}, writes = {} }, store);
	return self.stores[name];
end

local timer = {};
timer.__index = timer;

function timer:stop()
	self.stopped = true;
end

function methods:add_timer(delay, callback)
	local added = setmetatable({ delay = delay, due = self.clock.now + delay, callback = callback }, timer);
	table.insert(self.timers, added);
	return added;
end

-- -> a list of those that run, in the order in which they were added
function methods:running_timers()
	local running = {};
	for _, candidate in ipairs(self.timers) do
		if not candidate.stopped and not candidate.fired then
			table.insert(running, candidate);
		end
	end
	return running;
end

-- The one timer that runs, or nil
function methods:running_timer()
	local running = self:running_timers();
	assert(#running <= 1, "more than one timer runs");
	return running[1];
end

-- The one timer that runs is due. It is none that repeats itself. -> how long it was
function methods:fire_timer()
	local due = self:running_timer();
	due.fired = true;
	assert(due.callback() == nil);
	return due.delay;
end

-- The first timer that is due at once fires; what it sets for later is left.
function methods:fire_slice()
	for _, candidate in ipairs(self:running_timers()) do
		if candidate.delay == 0 then
			candidate.fired = true;
			return candidate.callback();
		end
	end
	error("no timer is due at once");
end

local function first_due(self, time)
	local first;
	self.timers = self:running_timers();
	for _, candidate in ipairs(self.timers) do
		if not self.is_gone and candidate.due <= time and (not first or candidate.due < first.due) then
			first = candidate;
		end
	end
	return first;
end

-- Time passes, and what becomes due meanwhile is done, the earliest first. None of it repeats itself.
-- A module that has been reloaded or unloaded, and says so by `is_gone`, is called no more, as in Prosody.
-- An error in a timer's callback ends that one alone, as in Prosody. -> a list of these errors
function methods:pass(seconds)
	local time, errors, rest = self.clock.now + seconds, {}, 100000;
	local due = first_due(self, time);
	while due do
		self.clock.now = math.max(self.clock.now, due.due);
		due.fired = true;
		local ok, result = pcall(due.callback);
		if not ok then
			table.insert(errors, result);
		end
		assert(not ok or result == nil, "a timer repeats itself");
		rest = rest - 1;
		assert(rest > 0, "there is no end of timers");
		due = first_due(self, time);
	end
	self.clock.now = time;
	return errors;
end

-- As Prosody does, there is one for each name and labels, over reloads. Which host it is of is left out.
function methods:metric(type, name, unit, description, label_keys, extra)
	return self.registry[type](self.registry, name, unit, description, label_keys, extra);
end

function methods:set_status(level, text)
	self.status = { level = level, text = text };
end

function methods:shared(path)
	self.shared_tables[path] = self.shared_tables[path] or {};
	return self.shared_tables[path];
end

return fake_module;
