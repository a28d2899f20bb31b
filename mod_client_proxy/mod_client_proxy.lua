-- mod_client_proxy: all online resources of one account behind one address
--
-- Wiring only: what happens to a request is in requests.lua, who can serve it
-- in backends.lua.

local jid_host = require "util.jid".host;
local random_bytes = require "util.random".bytes;
local sha256 = require "util.hashes".sha256;

local failures_room = module:require "failures";
local new_events = require "util.events".new;

-- What a reload carries over: { target, pool, backends, subscription, pending, keys, totals }
local saved = module.saved_state or {};

local metrics = module:require "metrics".new {
	outcomes = failures_room.OUTCOMES;
	states = { "ready", "suspended", "hibernating", "draining", "excluded" };
	totals = saved.totals;
};
local failures = failures_room.new(metrics);

-- An error that is no string keeps Prosody from printing a traceback below it.
local refusal_mt = {
	__tostring = function (refusal)
		return refusal.message;
	end;
};

local function refuse_to_load(message)
	if saved.pending then
		failures:give_up(saved.pending, "unloaded");
		metrics:set_gauges(0, {});
	end
	module:set_status("error", message);
	error(setmetatable({ message = message }, refusal_mt));
end

local function must(value, message)
	if value == nil then
		refuse_to_load(message);
	end
	return value;
end

if module:get_host_type() ~= "component" then
	refuse_to_load([[load it on a component: Component "proxy.domain.example" "client_proxy"]]);
end

local options = must(module:require "options");
local core = must(module:require "load_core");
local jat = must(core.jat(module.host, options.address_format));
local keeps_target = saved.target == options.target;
local pool = keeps_target and saved.pool or must(core.pool(random_bytes(core.POOL_SEEDBYTES)));
-- With a key that stays the same, what sender and recipient choose does, too.
must(pool:set_strategy(options.strategy, sha256(module.host):sub(1, core.POOL_KEYBYTES)));
local pending = saved.pending or must(core.pending(random_bytes(core.PENDING_SEEDBYTES)));
local keys = must(module:require "keys".open(jat, module:open_store(), options.key_lifetime, saved.keys));

if saved.target and not keeps_target then
	failures:give_up(pending, "retargeted");
	module:require "subscription".withdraw(saved.target);
end

local server = module:require "server".new(jid_host(options.target), function () return #pending > 0; end);
local events = new_events();
local diagnosis;
local function on_change()
	diagnosis.changed();
end
local subscription = module:require "subscription".new {
	target = options.target;
	auto_approve = options.auto_approve;
	server = server;
	saved = keeps_target and saved.subscription;
	on_change = on_change;
};
local backends = module:require "backends".new {
	target = options.target;
	server = server;
	pool = pool;
	subscription = subscription;
	is_wanted = module:require "globs".matcher(options.resources or { "*" });
	saved = keeps_target and saved.backends;
	on_gone = function (backend) events.fire_event("backend-gone", backend); end;
	on_away = function (backend) events.fire_event("backend-away", backend); end;
	on_back = function (backend) events.fire_event("backend-back", backend); end;
	on_broken = function () events.fire_event("stream-broken"); end;
	on_change = on_change;
};
diagnosis = module:require "diagnosis".new {
	target = options.target;
	pool = pool;
	server = server;
	subscription = subscription;
};
local requests = module:require "requests".new {
	timeout = options.request_timeout;
	retries = options.retries;
	max_pending = options.max_pending;
	max_pending_per_requester = options.max_pending_per_requester;
	addresses = module:require "addresses".new(jat, options.target);
	pool = pool;
	pending = pending;
	failures = failures;
	metrics = metrics;
	backends = {
		alive = function (_, backend) backends.alive(backend); end;
		suspect = function (_, backend) backends.suspect(backend); end;
		lose_unreachable = function (_, backend) backends.lose_unreachable(backend); end;
	};
	events = events;
};
local shell = module:require "shell";
shell.start {
	target = options.target;
	address_format = options.address_format;
	strategy = options.strategy;
	pending = pending;
	backends = backends;
	subscription = subscription;
	diagnosis = diagnosis;
	totals = metrics.totals;
};

-- mod_iq, at priority 0, offers an IQ to the handlers of other modules. It needs
-- sound ones, and answers for a backend's requester are nobody else's business.
for _, address in ipairs { "host", "bare", "full" } do
	module:hook("iq/"..address, requests.on_iq_first, 10);
	module:hook("iq/"..address, requests.on_iq_last, -10);
	module:hook("message/"..address, requests.on_message, -10);
	module:hook("presence/"..address, backends.on_presence);
end

-- Answers to its pings, which are none of what is pending
module:hook("iq/host", backends.on_iq, 5);

module:hook_global("stats-update", function ()
	metrics:set_gauges(#pending, backends.count_states());
end);

on_change();
if prosody.start_time then
	backends.start();
else -- hosts are activated in no fixed order, and the target's may be one of them
	module:hook_global("server-started", backends.start);
end
module:hook_global("host-activated", function (host)
	if prosody.start_time and host == jid_host(options.target) then
		backends.start();
	end
end, -10); -- when its modules are loaded

local rotation = module:add_timer(keys.due, keys.rotate);

function module.save()
	return {
		target = options.target; pool = pool; backends = backends.save(); subscription = subscription.save();
		pending = pending; keys = keys.save(); totals = metrics.totals;
	};
end

local function stop()
	requests:stop();
	backends.stop();
end

function module.unload()
	-- Timers would keep all of this in memory until they are due.
	rotation:stop();
	requests:retire();
	backends.stop_timers();
	subscription.stop();
	shell.stop();
	if not module.reloading then
		stop();
		metrics:set_gauges(0, {});
	end
end

module:hook_global("server-stopping", stop, 10);
