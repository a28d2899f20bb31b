-- mod_client_proxy: all online resources of one account behind one address
--
-- Wiring and life cycle only: what happens to a request is in requests.lua, who can serve it in backends.lua.
--
-- What a room has to tell those that use it, it says through `events`, one object for all of them (Prosody's
-- util.events). The event, what comes with it, and who fires it:
--   changed                                     what an operator is told may be another line: subscription, backends, server
--   backend-gone        backend                 it is in the pool no longer: backends
--   backend-went        JID                     its server says that its session is over, if it was a backend or not: backends
--   backend-away        backend                 others can do what it has got, as it hibernates or is in doubt: backends
--   backend-back        backend                 it is in doubt no longer: backends
--   stream-broken                               what was sent to backends, or by them, may have been lost: backends
--   backend-silent      backend                 it has not answered its first ping: health
--   doubt-raised        list of backends        these are in doubt from now on: doubt
--   doubt-settled       list of backends        these still are, though the presence of others has come: doubt
--   backends-lost       list of backends        their presence has not come, with that of the others: doubt
--   session-hibernates, session-resumed  JID    of a client of the target's host, if that is ours: hibernation
--   stream-established, stream-ended, server-silent, server-heard, server-unreachable: see start() in server.lua

local random_bytes = require "util.random".bytes;
local new_events = require "util.events".new;
local sha256 = require "util.hashes".sha256;

local shell = module:require "shell";
shell.begin();

local addresses = module:require "addresses";
local failures = module:require "failures";

-- What a reload carries over: { target, pool, formats, backends, subscription, book, book_of, pending, exchange, asked,
-- directed, messages, keys, totals, watchers }
local saved = module.saved_state or {};

local metrics = module:require "metrics".new {
	outcomes = failures.OUTCOMES;
	states = module:require "states".NAMES;
	totals = saved.totals;
};
local answers = failures.new(metrics);
local backend_request_failures = failures.new(metrics, "backend_requests_");

-- An error that is no string keeps Prosody from printing a traceback below it.
local refusal_mt = {
	__tostring = function (refusal)
		return refusal.message;
	end;
};

local function refuse_to_load(message)
	metrics:set_gauges {}; -- who looks at them sees that nothing is served
	if saved.pending then
		answers:give_up(saved.pending, "unloaded");
	end
	if saved.asked then -- no version before 1.1 had what follows
		backend_request_failures:give_up(saved.asked, "unloaded");
		module:require "directed".give_up(saved.directed);
		module:require "watchers".give_up(saved.watchers);
	end
	module:require "limits".release();
	metrics:retire();
	module:set_status("error", message);
	shell.fail(message);
	error(setmetatable({ message = message }, refusal_mt));
end

local function must(value, message)
	if value == nil then
		refuse_to_load(message);
	end
	return value;
end

module:log("info", "This is version %s", module:require "origin");

if module:get_host_type() ~= "component" then
	refuse_to_load([[load it on a component: Component "proxy.domain.example" "client_proxy"]]);
end

local options = must(module:require "options");
local core = must(module:require "load_core");
local address_formats = module:require "formats";
local own_format = options.address_format or address_formats.DEFAULT;
local jat = must(core.jat(module.host, own_format));
local keeps_target = saved.target == options.target;
local pool = keeps_target and saved.pool or must(core.pool(random_bytes(core.POOL_SEEDBYTES)));
-- The key is the target's alone, so that sender and recipient make the same choices after a restart, and at each proxy
-- that has the same target.
pool:set_strategy(options.strategy, sha256(options.target):sub(1, core.POOL_KEYBYTES));
local formats = address_formats.new {
	address_format = options.address_format;
	pool = pool;
	saved = keeps_target and saved.formats;
};
local book = saved.book or must(core.requesters(random_bytes(core.REQUESTERS_SEEDBYTES)));
book:set_max(options.max_requesters);
local pending = saved.pending or must(core.pending(random_bytes(core.PENDING_SEEDBYTES), book));
-- The requests of backends that wait for an answer, see backend_requests.lua, with a book that only counts them
local asked = saved.asked or must(core.pending(random_bytes(core.PENDING_SEEDBYTES),
	must(core.requesters(random_bytes(core.REQUESTERS_SEEDBYTES), "full"))));
local keys = must(module:require "keys".open(jat, module:open_store(), options.key_lifetime, saved.keys));

-- An instance that a reload has interrupted may go on to dispatch and to settle: then by the same exchange, so that it
-- sees the same format, and what it counts is told by us.
local exchange = saved.exchange or must(core.exchange(jat, book, pool, pending));
exchange:use(jat, pool);
metrics:set_source(exchange, core.ANSWER_TIMES);
local book_of = saved.book_of; -- the format and the key of the tokens in the book

-- Tokens in another format, or of another key, are new ones.
local function renew_book()
	local current = own_format.." by "..keys.name();
	if current ~= book_of then
		book:new_generation();
		book_of = current;
	end
end

renew_book();

if saved.target and not keeps_target then
	answers:give_up(pending, "retargeted");
	backend_request_failures:give_up(asked, "retargeted");
	module:require "roster".withdraw(saved.target);
end

local target_host = addresses.host(options.target);
local events = new_events();
local server = module:require "server".new { host = target_host, pending = pending, events = events };
local subscription = module:require "subscription".new {
	target = options.target;
	auto_approve = options.auto_approve;
	server = server;
	events = events;
	saved = keeps_target and saved.subscription;
};
local limits = module:require "limits".new { target = options.target, auto_approve = options.auto_approve };
local backends = module:require "backends".new {
	target = options.target;
	server = server;
	pool = pool;
	exchange = exchange;
	formats = formats;
	subscription = subscription;
	metrics = metrics;
	events = events;
	is_wanted = module:require "globs".matcher(options.resources or { "*" });
	saved = keeps_target and saved.backends;
};
local diagnosis = module:require "diagnosis".new {
	target = options.target;
	pool = pool;
	formats = formats;
	server = server;
	subscription = subscription;
	events = events;
};
local is_allowed = options.allow and module:require "access".new(options.allow); -- otherwise nobody has to ask
local addresses_in_use = addresses.new(exchange, pool, options.target);
local backend_requests = module:require "backend_requests".new {
	timeout = options.request_timeout;
	max_pending = options.max_pending;
	max_pending_per_requester = options.max_pending_per_requester;
	addresses = addresses_in_use;
	pending = asked;
	failures = backend_request_failures;
	metrics = metrics;
	events = events;
};
local messages = module:require "messages".new {
	addresses = addresses_in_use;
	exchange = exchange;
	book = book;
	pool = pool;
	metrics = metrics;
	backends = backends;
	is_allowed = is_allowed;
	saved = saved.messages;
};
local directed = module:require "directed".new {
	target = options.target;
	max = options.max_requesters;
	is_allowed = is_allowed;
	addresses = addresses_in_use;
	exchange = exchange;
	pool = pool;
	events = events;
	saved = saved.directed;
	keeps_target = keeps_target;
};
local requests = module:require "requests".new {
	timeout = options.request_timeout;
	retries = options.retries;
	max_pending = options.max_pending;
	max_pending_per_requester = options.max_pending_per_requester;
	is_allowed = is_allowed;
	addresses = addresses_in_use;
	exchange = exchange;
	pool = pool;
	pending = pending;
	failures = answers;
	metrics = metrics;
	backends = backends;
	backend_requests = backend_requests;
	events = events;
};
local unsent = module:require "unsent".new { pending = pending, backend_requests = backend_requests };
local watchers = module:require "watchers".new {
	target = options.target;
	pool = pool;
	events = events;
	max = options.max_requesters;
	is_allowed = is_allowed;
	saved = saved.watchers;
};
shell.start {
	target = options.target;
	formats = formats;
	strategy = options.strategy;
	max_requesters = options.max_requesters;
	book = book;
	pending = pending;
	asked = asked;
	backends = backends;
	subscription = subscription;
	watchers = watchers;
	diagnosis = diagnosis;
	metrics = metrics;
};

-- mod_iq, at priority 0, offers an IQ to the handlers of other modules. Before that, malformed ones are refused, answers
-- taken that something pending waits for, and what is sent to a token goes where that leads: this is nobody else's business.
for _, address in ipairs { "host", "bare", "full" } do
	module:hook("iq/"..address, requests.on_iq_first, 10);
	module:hook("iq/"..address, requests.on_iq_last, -10);
	module:hook("message/"..address, messages.on_message, -10);
	module:hook("presence/"..address, backends.on_presence); -- what the target says to the proxy
	module:hook("presence/"..address, directed.on_presence, -1);
	module:hook("presence/"..address, watchers.on_presence, -2); -- all else
end

module:require "disco".start(requests.on_iq_last);

-- Answers to its pings, which are none of what is pending
module:hook("iq/host", backends.on_iq, 5);

local function update_statistics()
	metrics:set_gauges {
		pending = #pending + #asked, max_pending = options.max_pending;
		requesters = #book, max_requesters = options.max_requesters;
		watchers = #watchers, watchers_failing = watchers:failing();
		backends = backends:count_states();
	};
	metrics:publish();
end

module:hook_global("stats-update", update_statistics);
module:require "metrics_page".hook(update_statistics);

local function start()
	limits:start();
	backends:start();
	watchers:start();
end

events.fire_event("changed");
if prosody.start_time then
	start();
else -- hosts are activated in no fixed order, and the target's may be one of them
	module:hook_global("server-started", start);
end
module:hook_global("host-activated", function (host)
	if prosody.start_time and host == target_host then
		start();
	end
end, -10); -- when its modules are loaded

local rotation = module:add_timer(keys.due, function ()
	local due = keys.rotate();
	renew_book();
	return due;
end);

function module.save()
	return {
		target = options.target; pool = pool; formats = formats:save(); backends = backends:save(); subscription = subscription:save();
		book = book; book_of = book_of; pending = pending; exchange = exchange; asked = asked; directed = directed:save();
		messages = messages:save(), keys = keys.save(); totals = metrics:publish(); watchers = watchers:save();
	};
end

local function stop()
	diagnosis:retire(); -- that nobody serves after this is no news
	requests:stop();
	backend_requests:stop();
	unsent:stop();
	messages:stop();
	directed:stop();
	backends:stop();
	limits.release();
	metrics:publish();
	watchers:stop();
end

function module.unload()
	rotation:stop();
	requests:retire();
	backend_requests:retire();
	unsent:retire();
	messages:retire();
	directed:retire();
	backends:retire();
	subscription:retire();
	limits:retire();
	diagnosis:retire();
	shell.stop();
	watchers:retire();
	if not module.reloading then
		stop();
		metrics:set_gauges {};
	end
	metrics:retire();
end

module:hook_global("server-stopping", stop, 10);
