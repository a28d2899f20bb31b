-- Who can serve: the target's available resources, as its presence tells them
-- (RFC 6121 section 4), and which of them are to be chosen.

local jid_bare = require "util.jid".bare;
local jid_host = require "util.jid".host;
local jid_resource = require "util.jid".resource;
local new_id = require "util.id".medium;
local st = require "util.stanza";

-- What the pool makes of a backend's state
local POOL_STATES = { ready = "ready", suspended = "suspended", draining = "away", hibernating = "away", excluded = "away" };

local backends = {};

-- RFC 6121 section 4.7.2.3
local function read_priority(presence)
	local text = presence:get_child_text("priority") or "";
	local priority = text:find("^%s*[+-]?%d+%s*$") and math.tointeger(tonumber(text)) or 0;
	return math.max(-128, math.min(127, priority));
end

local function state_of(record)
	if record.is_excluded then
		return "excluded";
	elseif record.is_drained or record.priority < 0 then
		return "draining";
	elseif record.is_hibernating then
		return "hibernating";
	end
	return (record.is_suspended or record.doubt) and "suspended" or "ready";
end

-- (setup) -> the handlers for presence and IQ events, and more
-- setup: { target (the prepared bare JID), pool (filled and emptied here from now on), subscription,
--          timeout (seconds to answer a ping), is_wanted(resource): whether it may serve, saved (what save() returned before a reload),
--          is_bounce(origin, stanza): whether an answer is a server's, not the backend's;
--          on_came(backend), on_gone(backend): to be told before one is in the pool, and after;
--          on_change(): to be told when a backend has come, gone or changed }
function backends.new(setup)
	local target, pool, subscription = setup.target, setup.pool, setup.subscription;
	local saved = setup.saved or { records = {}, is_watched = false, was_serving = false };
	-- by a backend's JID: { since, priority, is_excluded, is_drained, is_hibernating, is_suspended,
	-- ping (the id to be answered, or false), doubt (what it is in until its presence comes, or false) }
	local records = saved.records;
	local is_watched = saved.is_watched; -- whether the target is subscribed to the proxy's presence
	local was_serving = saved.was_serving;

	local function send_presence(to, type)
		module:send(st.presence({ from = module.host, to = to, type = type }));
	end

	-- The proxy is available as long as it can serve.
	local function send_own_presence(to)
		send_presence(to, not pool:serves() and "unavailable" or nil);
	end

	local function changed()
		if was_serving ~= pool:serves() then
			was_serving = not was_serving;
			if is_watched then
				send_own_presence(target);
			end
		end
		setup.on_change();
	end

	-- Sets fields of a backend's record, if it is one.
	local function update(backend, fields)
		local record = records[backend];
		if not record then
			return;
		end
		for name, value in pairs(fields) do
			record[name] = value;
		end
		pool:priority(backend, record.priority);
		pool:set(backend, POOL_STATES[state_of(record)]);
		changed();
	end

	local function is_hibernating(jid)
		local session = prosody.full_sessions[jid];
		return session and session.hibernating;
	end

	local function add(backend)
		setup.on_came(backend);
		local ok, failure = pool:add(backend);
		if not ok then
			module:log("error", "A backend cannot be used: %s", failure);
			return;
		end
		local resource = jid_resource(backend);
		local is_excluded = not setup.is_wanted(resource);
		records[backend] = {
			since = os.time(), priority = 0, is_excluded = is_excluded, is_hibernating = is_hibernating(backend);
		};
		module:log("debug", "%s came: %d backends", backend, #pool);
		if is_excluded then
			module:log("info", "Resource %q of the target is not among client_proxy_resources: it gets no requests", resource);
		elseif #pool > 1 then
			module:log("info", "Resource %q of the target is online, too: there are %d. If it should not serve, log it out, "
				.."drain it with `prosodyctl shell client_proxy drain`, or name those that should in client_proxy_resources",
				resource, #pool);
		end
	end

	local function came(from, stanza)
		if not jid_resource(from) then
			return;
		end
		if not records[from] then
			add(from);
		end
		update(from, { priority = read_priority(stanza), doubt = false });
	end

	local function remove(backend)
		if pool:remove(backend) then
			records[backend] = nil;
			module:log("debug", "%s went: %d backends", backend, #pool);
			setup.on_gone(backend);
		end
	end

	-- From the bare address: no resource is left (RFC 6121 section 4.3.2)
	local function went(from)
		if jid_resource(from) then
			remove(from);
		else
			while #pool > 0 do
				remove(pool:any());
			end
		end
		changed();
	end

	-- It cannot be reached: is the target there at all?
	local function drop(backend)
		if records[backend] then
			went(backend);
			subscription.check();
		end
	end

	-- XEP-0199: one that does not answer is dropped
	local function ping(backend)
		local id = new_id();
		records[backend].ping = id;
		module:add_timer(setup.timeout, function ()
			if records[backend] and records[backend].ping == id then
				drop(backend);
			end
		end);
		module:send(st.iq({ type = "get", id = id, from = module.host, to = backend }):tag("ping", { xmlns = "urn:xmpp:ping" }));
	end

	-- It has let a request time out: nothing new for it until it answers a ping.
	local function suspect(backend)
		if pool:state(backend) == "ready" then
			module:log("warn", "Resource %q of the target let a request time out: it gets no new ones until it answers a ping",
				jid_resource(backend));
			update(backend, { is_suspended = true });
			ping(backend);
		end
	end

	-- for iq/host: an answer to a ping, even an error, shows that the backend is alive
	local function on_iq(event)
		local attr = event.stanza.attr;
		local record = records[attr.from];
		if not record or not record.ping or record.ping ~= attr.id or attr.to ~= module.host
			or attr.type ~= "result" and attr.type ~= "error" then
			return;
		end
		if setup.is_bounce(event.origin, event.stanza) then
			drop(attr.from);
			return true;
		end
		if record.is_suspended then
			module:log("info", "Resource %q of the target answers again", jid_resource(attr.from));
		end
		update(attr.from, { ping = false, is_suspended = false });
		return true;
	end

	-- A list in the order of the resources: { { jid, resource, since (os.time), priority, state }, ... }
	local function list()
		local entries = {};
		for jid, record in pairs(records) do
			table.insert(entries, {
				jid = jid, resource = jid_resource(jid), since = record.since,
				priority = record.priority, state = state_of(record),
			});
		end
		table.sort(entries, function (a, b) return a.resource < b.resource; end);
		return entries;
	end

	-- Nothing new for any of them until its presence comes again; those whose does not are dropped.
	local function doubt_all()
		local doubt = {};
		for _, entry in ipairs(list()) do
			update(entry.jid, { doubt = doubt });
		end
		subscription.check();
		module:add_timer(setup.timeout, function ()
			for _, entry in ipairs(list()) do
				if records[entry.jid] and records[entry.jid].doubt == doubt then
					went(entry.jid);
				end
			end
		end);
	end

	-- A server that dies does not say which of its clients are gone. Streams that were not
	-- authenticated say nothing: anybody can open one in that server's name.
	local function watch_streams(host)
		local is_due = false;
		local function on_destroyed(event)
			local session = event.session;
			local is_targets = session.from_host == host or session.to_host == host or session.hosts and session.hosts[host];
			if not is_targets or is_due or #pool == 0 then
				return;
			end
			is_due = true;
			module:add_timer(0, function () -- when all streams that end together have ended
				is_due = false;
				module:log("info", "A stream to the target's server has ended: its resources get no requests until their presence comes again");
				doubt_all();
			end);
		end
		module:hook_global("s2sin-destroyed", on_destroyed);
		module:hook_global("s2sout-destroyed", on_destroyed);
	end

	-- XEP-0198: what is sent to a hibernating session waits in a queue for its return
	local function watch_hibernation(session)
		module:hook_object_event(session.events, "smacks-hibernation-start", function (event)
			update(event.origin.full_jid or "", { is_hibernating = true, is_suspended = false, ping = false });
		end);
		module:hook_object_event(session.events, "smacks-hibernation-end", function (event)
			update(event.resumed.full_jid or event.origin.full_jid or "", { is_hibernating = false });
		end);
	end

	local on_target_presence = {
		available = function (from, stanza)
			subscription.on_presence(stanza);
			came(from, stanza);
		end;
		unavailable = function (from, stanza)
			subscription.on_presence(stanza);
			went(from);
			if jid_resource(from) then
				subscription.on_gone();
			end
		end;
		error = function (from, stanza)
			if not jid_resource(from) then
				subscription.on_error(stanza);
			end
			went(from);
		end;
		unsubscribed = function (from)
			subscription.on_unsubscribed();
			went(jid_bare(from));
		end;
		subscribed = subscription.on_subscribed;
		subscribe = function ()
			is_watched = true;
			send_presence(target, "subscribed");
			send_own_presence(target);
		end;
		unsubscribe = function ()
			is_watched = false;
			send_presence(target, "unavailable");
		end;
		probe = function (from) -- as a server sends it for those who are subscribed
			is_watched = true;
			send_own_presence(from);
		end;
	};

	-- for presence/host, presence/bare, presence/full; presence is never answered with an error
	local function on_presence(event)
		local stanza = event.stanza;
		local attr = stanza.attr;
		local type = attr.type or "available";
		local handler = on_target_presence[type];
		if handler and attr.to == module.host and jid_bare(attr.from) == target then
			handler(attr.from, stanza);
		elseif type == "subscribe" then
			module:send(st.presence({ from = jid_bare(attr.to), to = jid_bare(attr.from), type = "unsubscribed" }));
		end
		return true;
	end

	-- to be called when the module goes away
	local function stop()
		if is_watched and was_serving then
			send_presence(target, "unavailable");
		end
	end

	-- (resource, is_drained) -> whether it is a backend
	-- It gets no new requests until it is undrained, or leaves.
	local function drain(resource, is_drained)
		local backend = target.."/"..resource;
		update(backend, { is_drained = is_drained });
		return records[backend] ~= nil;
	end

	-- How many backends there are in each state that one is in
	local function count_states()
		local counts = {};
		for _, record in pairs(records) do
			local state = state_of(record);
			counts[state] = (counts[state] or 0) + 1;
		end
		return counts;
	end

	-- What a reload has carried over, but for its timers
	local function take_over(backend)
		local record = records[backend];
		update(backend, { is_excluded = not setup.is_wanted(jid_resource(backend)) });
		if record.ping then
			ping(backend);
		end
		return record.doubt;
	end

	-- to be called when all hosts are there, and when the target's comes later
	local function start()
		local host = jid_host(target);
		local session = prosody.hosts[host];
		if session and session.type == "local" then
			watch_hibernation(session);
		else
			watch_streams(host);
		end
		subscription.start();
		local is_in_doubt = false;
		for _, entry in ipairs(list()) do
			is_in_doubt = records[entry.jid] and take_over(entry.jid) or is_in_doubt;
		end
		if is_in_doubt then
			doubt_all();
		end
	end

	-- Asks for all presence anew, and whether the backends are alive.
	local function resync()
		subscription.resync();
		for _, entry in ipairs(list()) do
			if records[entry.jid] and entry.state ~= "hibernating" and entry.state ~= "excluded" then
				ping(entry.jid);
			end
		end
	end

	return {
		count_states = count_states;
		drain = drain;
		drop = drop;
		list = list;
		on_iq = on_iq;
		on_presence = on_presence;
		resync = resync;
		save = function () return { records = records, is_watched = is_watched, was_serving = was_serving }; end;
		start = start;
		stop = stop;
		suspect = suspect;
	};
end

return backends;
