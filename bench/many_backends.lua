-- What the Lua files do with very many backends: for each thing that can happen, the longest time for which Prosody does
-- nothing else, and the CPU time of all of it, which may be in slices. On a stand-in for Prosody's module object, so that what
-- Prosody itself does to send a stanza, or to write a line to its log, is not in there, nor is Lua's collector (see gc.lua).
--
--     tools/on_prosody ROOT lua5.4 bench/many_backends.lua [BACKENDS ...]

require "spec.support.paths";
local core = require "mod_client_proxy.core";
local new_pending = require "spec.support.pending".new;
local fake_module = require "spec.support.module";
local new_events = require "util.events".new;
local st = require "util.stanza";

local PROXY = "proxy.domain.example";
local TARGET = "some-user@some-domain.example";
local REQUESTER = "user@some-domain.example/abc";
local SIZES = { 1000, 10000, 100000 };
local REQUESTS = 100000; -- pending, whatever the number of backends
local NEW_MAX = 50000; -- KiB
local LARGE = 10000;
local PAGE = 10; -- seconds, in which slices may be done

local function nothing() end

-- It remembers neither what is sent nor what is logged, which would take time.
local function new_module()
	local module = fake_module.new();
	local timers = {}; -- a queue
	module.libraries["core.rostermanager"], module.libraries["core.usermanager"] = {}, {};
	module.log, module.send = nothing, nothing;
	function module:add_timer(delay, callback)
		local timer = { due = self.clock.now + delay, callback = callback, stop = function (timer) timer.callback = nil; end };
		timers[timer] = true;
		return timer;
	end
	module.all_timers = timers;
	return module;
end

local rooms = {};
rooms.__index = rooms;

-- Who can serve
function rooms:open_backends(exchange, metrics)
	local module, pool, pending, events = self.module, self.pool, self.pending, self.events;
	self.server = module:require "server".new { host = "some-domain.example", pending = pending, events = events };
	self.subscription = module:require "subscription".new { target = TARGET, server = self.server, events = events,
		saved = { state = "granted" } };
	self.formats = module:require "formats".new { pool = pool };
	self.backends = module:require "backends".new {
		target = TARGET, exchange = exchange, pool = pool, subscription = self.subscription, server = self.server;
		formats = self.formats, metrics = metrics, events = events, is_wanted = module:require "globs".matcher { "*" };
	};
end

-- What happens to a stanza
function rooms:open_stanzas(exchange, metrics)
	local module, pool, pending, events = self.module, self.pool, self.pending, self.events;
	local addresses = module:require "addresses".new(exchange, pool, TARGET);
	self.requests = module:require "requests".new {
		timeout = 60, retries = 1, max_pending = REQUESTS, max_pending_per_requester = REQUESTS;
		addresses = addresses, exchange = exchange, pool = pool, pending = pending, metrics = metrics, events = events;
		failures = module:require "failures".new(metrics), backends = self.backends, backend_requests = { settle = nothing };
	};
	self.directed = module:require "directed".new {
		target = TARGET, max = self.count, addresses = addresses, exchange = exchange, pool = pool, events = events;
	};
end

-- What an operator sees
function rooms:open_shell(book, metrics)
	local module = self.module;
	module:require "diagnosis".new {
		target = TARGET, pool = self.pool, formats = self.formats, server = self.server, subscription = self.subscription;
		events = self.events;
	};
	local shell = module:require "shell";
	shell.begin();
	shell.start {
		target = TARGET, formats = self.formats, strategy = "random", pending = self.pending, asked = {}, backends = self.backends;
		subscription = self.subscription, watchers = {}, max_requesters = 100000, book = book, metrics = metrics;
		diagnosis = { current = function () return "info", "", true; end, limit = nothing };
	};
end

function rooms.new(count)
	local pending, book = new_pending(("\0"):rep(core.PENDING_SEEDBYTES));
	local pool = core.pool(("\0"):rep(core.POOL_SEEDBYTES));
	local jat = core.jat(PROXY, "short");
	local exchange = core.exchange(jat, book, pool, pending);
	local metrics = { count = nothing, publish = function () return {}; end };
	local self = setmetatable({ module = new_module(), count = count, pool = pool, pending = pending, events = new_events() }, rooms);
	jat:add_key(7, ("k"):rep(core.JAT_KEYBYTES));
	self:open_backends(exchange, metrics);
	self:open_stanzas(exchange, metrics);
	self:open_shell(book, metrics);
	return self;
end

function rooms:backend(number)
	return ("%s/worker-7d9c5b-%08x"):format(TARGET, number % self.count);
end

-- Lua's collector works between turns, when much is new. Where it has freed very many things at once, malloc takes long
-- for the next large one: that is asked for here, too.
function rooms:collect()
	collectgarbage();
	self.large = ("\0"):rep(LARGE);
	self.large = nil;
	self.collect_at = collectgarbage "count" + NEW_MAX;
end

-- A turn: what is done before Prosody gets to anything else
function rooms:turn(call, ...)
	local begun = os.clock();
	call(...);
	local seconds = os.clock() - begun;
	self.longest, self.total = math.max(self.longest, seconds), self.total + seconds;
	if collectgarbage "count" > self.collect_at then
		self:collect();
	end
end

-- All that is due within so many seconds is done, each in a turn of its own.
function rooms:pass(seconds)
	local clock, timers = self.module.clock, self.module.all_timers;
	local time = clock.now + seconds;
	repeat
		local due = {};
		for timer in pairs(timers) do
			if not timer.callback then
				timers[timer] = nil;
			elseif timer.due <= time then
				table.insert(due, timer);
			end
		end
		table.sort(due, function (a, b) return a.due < b.due; end);
		for _, timer in ipairs(due) do
			if timer.callback then
				clock.now = math.max(clock.now, timer.due);
				timers[timer] = nil;
				self:turn(timer.callback);
			end
		end
	until not due[1];
	clock.now = time;
end

-- (what, ...): prints what that takes. `...`: the calls, each a turn
function rooms:measure(what, happens, seconds)
	collectgarbage "stop";
	self:collect();
	self.longest, self.total = 0, 0;
	happens();
	self:pass(seconds or 0);
	collectgarbage "restart";
	print(("  %8d %-52s %11.1f %9.0f"):format(self.count, what, self.longest * 1000, self.total * 1000));
end

function rooms:present(number, type)
	self:turn(self.backends.on_presence, { origin = {}, stanza = st.presence { from = self:backend(number), to = PROXY, type = type } });
end

function rooms:all_present(first, last)
	for number = first or 1, last or self.count do
		self:present(number);
	end
end

function rooms:ask(count)
	for number = 1, count do
		self.requests.on_iq_last { origin = { send = nothing }, stanza = st.iq({ type = "get", id = "id"..number, from = REQUESTER, to = PROXY })
			:tag("query", { xmlns = "jabber:iq:version" }):up() };
	end
end

-- Requesters' directed presence
function rooms:all_direct(first, last, type)
	for number = first, last do
		self:turn(self.directed.on_presence, { stanza = st.presence {
			from = ("user-%d@some-domain.example/abc"):format(number), to = PROXY, type = type } });
	end
end

function rooms:command(name, ...)
	local commands = self.module.shared_tables["/*/admin_shell/env"].client_proxy;
	self:turn(commands[name], setmetatable({ session = { print = nothing } }, { __index = commands }), PROXY, ...);
end

function rooms:measure_arrival()
	collectgarbage();
	collectgarbage();
	local before = collectgarbage "count";
	self:measure("all come, one presence each", function () self:all_present(); end);
	collectgarbage();
	collectgarbage();
	print(("# Lua's memory for each backend: %.0f bytes"):format((collectgarbage "count" - before) * 1024 / self.count));
end

function rooms:measure_operator()
	self:measure("the numbers for the statistics", function () self:turn(self.backends.count_states, self.backends); end);
	self:measure("shell: status", function () self:command "status"; end);
	self:measure("shell: drain", function () self:command("drain", "worker-7d9c5b-00000001"); end);
	self:measure("shell: resync", function () self:command "resync"; end);
	for number = 1, self.count do
		self.backends:alive(self:backend(number));
	end
	self:measure("a reload", function () self:turn(self.backends.start, self.backends); end);
end

function rooms:measure_losses()
	self:ask(REQUESTS);
	self:measure("a stream ends", function () self:turn(self.events.fire_event, "stream-ended", true); end);
	self:measure("half of them are there still", function () self:all_present(1, self.count // 2); end);
	self:measure("the others are not", nothing, PAGE);
	self:measure("they come again", function () self:all_present(self.count // 2 + 1); end);
	self:measure("a tenth goes at once", function ()
		for number = 1, self.count // 10 do
			self:present(number, "unavailable");
		end
	end, 0.1);
	self:all_present();
	self:ask(REQUESTS);
	self:measure("no resource is left, as the server says", function ()
		self:turn(self.backends.on_presence, { origin = {}, stanza = st.presence { from = TARGET, to = PROXY, type = "unavailable" } });
	end);
	self:all_present();
end

function rooms:measure_directed()
	self:measure("as many requesters' presence", function () self:all_direct(1, self.count); end);
	self:measure("a hundred more than are remembered", function () self:all_direct(self.count + 1, self.count + 100); end);
	self:measure("a hundred requesters go", function () self:all_direct(self.count + 1, self.count + 100, "unavailable"); end);
end

print "# The longest time in which Prosody does nothing else, and CPU time of all of it, in ms";
print(("# %8s %-52s %11s %9s"):format("backends", "what", "longest", "all"));
for _, count in ipairs(arg[1] and arg or SIZES) do
	local self = rooms.new(tonumber(count) // 1);
	self:measure_arrival();
	self:measure_operator();
	self:measure_losses();
	self:measure_directed();
end
