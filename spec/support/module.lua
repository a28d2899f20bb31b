-- A stand-in for Prosody's `module` object. It loads a Lua file of ours the way
-- module:require does, and remembers what that file does with Prosody.
--
--     MODULE_DIR  the folder of the Lua files to test (default: the checkout's)

local st = require "util.stanza";

local directory = os.getenv("MODULE_DIR") or "mod_client_proxy";

local fake_module = {};

local methods = {};
local module_mt = { __index = methods };

-- (configured) -> module; configured: what stands below the component in the configuration
function fake_module.new(configured)
	return setmetatable({
		host = "proxy.domain.example";
		name = "client_proxy";
		path = directory.."/mod_client_proxy.lua";
		configured = configured or {};
		sent = {}; -- stanzas
		log_lines = {}; -- { level, text }
		timers = {}; -- { delay, callback, stopped, fired }, for the spec to call
		metrics = {}; -- by name, with the labels behind it: { value, samples }
		hooks = {}; -- by event: handler
		shared_tables = {}; -- by path
		prosody = { full_sessions = {}, hosts = {} }; -- what a file sees as its global of that name
	}, module_mt);
end

function methods:require(lib)
	local environment = setmetatable({ module = self, prosody = self.prosody }, { __index = _G });
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

function methods:hook_object_event(_, event, handler)
	self.hooks[event] = handler;
end

function methods:hook_global(event, handler)
	self.hooks[event] = handler;
end

local timer = {};
timer.__index = timer;

function timer:stop()
	self.stopped = true;
end

function methods:add_timer(delay, callback)
	local added = setmetatable({ delay = delay, callback = callback }, timer);
	table.insert(self.timers, added);
	return added;
end

-- The one timer that runs, or nil
function methods:running_timer()
	local running;
	for _, candidate in ipairs(self.timers) do
		if not candidate.stopped and not candidate.fired then
			assert(not running, "more than one timer runs");
			running = candidate;
		end
	end
	return running;
end

-- The one timer that runs is due. It is none that repeats itself. -> how long it was
function methods:fire_timer()
	local due = self:running_timer();
	due.fired = true;
	assert(due.callback() == nil);
	return due.delay;
end

local metric = {};
metric.__index = metric;

function metric:add(amount)
	self.value = self.value + amount;
end

function metric:set(value)
	self.value = value;
end

function metric:sample(value)
	table.insert(self.samples, value);
end

-- As Prosody does, there is one for each name and labels, over reloads.
function methods:metric(_, name, unit, _, label_keys)
	return {
		with_labels = function (_, ...)
			assert(select("#", ...) == #label_keys);
			local full_name = table.concat({ unit == "" and name or name.."_"..unit, ... }, " ");
			self.metrics[full_name] = self.metrics[full_name] or setmetatable({ value = 0, samples = {} }, metric);
			return self.metrics[full_name];
		end;
	};
end

function methods:set_status(level, text)
	self.status = { level = level, text = text };
end

function methods:shared(path)
	self.shared_tables[path] = self.shared_tables[path] or {};
	return self.shared_tables[path];
end

return fake_module;
