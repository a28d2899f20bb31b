-- Who can serve: the target's available resources, as its presence tells them
-- (RFC 6121 section 4), and which of them are to be chosen.

local bounces = module:require "bounces";
local doubt = module:require "doubt";
local health = module:require "health";

local jid_bare = require "util.jid".bare;
local jid_host = require "util.jid".host;
local jid_resource = require "util.jid".resource;
local new_cache = require "util.cache".new;
local st = require "util.stanza";

-- What the pool makes of a backend's state
local POOL_STATES = { ready = "ready", suspended = "suspended", draining = "away", hibernating = "away", excluded = "away" };

-- How many backends are remembered that are not to be had any more though their session may go on
local REMEMBERED = 256;

local backends = {};

-- RFC 6121 section 4.7.2.3
local function read_priority(presence)
	local text = presence:get_child_text("priority") or "";
	local priority = text:find("^%s*[+-]?%d+%s*$") and math.tointeger(tonumber(text)) or 0;
	return math.max(-128, math.min(127, priority));
end

-- Presence that is sent because it was asked for says when it was new (XEP-0203), as most servers have it.
local function is_old(presence)
	return presence:get_child("delay", "urn:xmpp:delay") ~= nil;
end

local function state_of(record, is_in_doubt)
	if record.is_excluded then
		return "excluded";
	elseif record.is_drained or record.priority < 0 then
		return "draining";
	elseif record.is_hibernating then
		return "hibernating";
	end
	return (record.is_suspended or is_in_doubt) and "suspended" or "ready";
end

-- (setup) -> the handlers for presence and IQ events, and more
-- setup: { target (the prepared bare JID), pool (filled and emptied here from now on), subscription,
--          server (the target's), is_wanted(resource): whether it may serve,
--          saved (what save() returned before a reload),
--          on_gone(backend): to be told when one is in the pool no longer;
--          on_away(backend): to be told when others can do what it has got, as it hibernates or is in doubt;
--          on_back(backend): to be told when one is in doubt no longer;
--          on_broken(): to be told when what has been sent to any of them, or by them, may have been lost;
--          on_change(): to be told when a backend has come, gone or changed }
function backends.new(setup)
	local target, pool, subscription, server = setup.target, setup.pool, setup.subscription, setup.server;
	local saved = setup.saved or { records = {}, remembered = new_cache(REMEMBERED), is_watched = false, was_serving = false, doubts = {} };
	-- by a backend's JID: { since, priority, is_excluded, is_drained, is_hibernating, is_suspended }
	local records = saved.records;
	local remembered = saved.remembered; -- by JID: { is_drained, is_suspended, session (the client's, here, or nil) }
	local is_watched = saved.is_watched; -- whether the target is subscribed to the proxy's presence
	local was_serving = saved.was_serving;
	local was_ready = saved.was_ready; -- whether any of them was
	local checks, doubts; -- health's and doubt's

	local function send_presence(to, type)
		module:send(st.presence({ from = module.host, to = to, type = type }));
	end

	-- The proxy is available as long as it can serve.
	local function send_own_presence(to)
		send_presence(to, not pool:serves() and "unavailable" or nil);
	end

	-- What those that hibernate or are in doubt have got is for the others, as soon as there is one.
	local function relieve()
		for backend, record in pairs(records) do
			if record.is_hibernating or doubts:is_settled(backend) then
				setup.on_away(backend);
			end
		end
	end

	local function changed()
		setup.on_change();
		if was_ready ~= pool:is_ready() then
			was_ready = not was_ready;
			if was_ready then
				relieve();
			end
		end
		if was_serving ~= pool:serves() then
			was_serving = not was_serving;
			if is_watched then
				send_own_presence(target); -- last of all, as an error in another module's handler would end this here
			end
		end
	end

	local function set_fields(backend, fields)
		local record = records[backend];
		for name, value in pairs(fields) do
			record[name] = value;
		end
		pool:set_priority(backend, record.priority);
		pool:set_state(backend, POOL_STATES[state_of(record, doubts:has(backend))]);
	end

	-- Sets fields of a backend's record, if it is one.
	local function update(backend, fields)
		if records[backend] then
			set_fields(backend, fields);
			changed();
		end
	end

	local function is_hibernating(jid)
		local session = prosody.full_sessions[jid];
		return session and session.hibernating;
	end

	-- What is remembered of a backend that comes again, as long as it has not got another session
	local function recall(backend)
		local known = remembered:get(backend);
		remembered:set(backend, nil);
		return known and known.session == prosody.full_sessions[backend] and known or {};
	end

	local function add(backend)
		local ok, failure = pool:add(backend);
		if not ok then
			module:log("error", "A backend cannot be used: %s", failure);
			return;
		end
		local known = recall(backend);
		local resource = jid_resource(backend);
		local is_excluded = not setup.is_wanted(resource);
		records[backend] = {
			since = os.time(), priority = 0, is_excluded = is_excluded, is_hibernating = is_hibernating(backend);
			is_drained = known.is_drained, is_suspended = known.is_suspended;
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

	-- It has shown that it is alive.
	local function clear_suspension(backend)
		if records[backend].is_suspended then
			module:log("info", "Resource %q of the target answers again", jid_resource(backend));
		end
		set_fields(backend, { is_suspended = false });
	end

	local function came(from, stanza)
		if not jid_resource(from) then
			return;
		end
		local is_new = not records[from];
		if is_new then
			add(from);
		end
		if not records[from] then
			return;
		end
		local was_in_doubt = doubts:confirm(from);
		set_fields(from, { priority = read_priority(stanza) });
		if checks:present(from, is_old(stanza)) then
			clear_suspension(from);
		end
		if is_new and records[from].is_suspended then
			checks:check(from);
		end
		if was_in_doubt then
			setup.on_back(from);
		end
		changed();
	end

	-- It is no backend any more. -> what it was, or nil
	local function remove(backend)
		local record = records[backend];
		if record then
			records[backend] = nil;
			pool:remove(backend);
			checks:forget(backend);
			doubts:forget(backend);
			setup.on_gone(backend);
		end
		return record;
	end

	-- Its server says that its session is over.
	local function went(backend)
		remembered:set(backend, nil);
		if remove(backend) then
			module:log("debug", "%s went: %d backends", backend, #pool);
		end
		changed();
	end

	-- Nobody says that its session is over, so what was held against it is remembered.
	local function forget(backend)
		local record = remove(backend);
		if record and (record.is_drained or record.is_suspended) then
			remembered:set(backend, {
				is_drained = record.is_drained, is_suspended = record.is_suspended, session = prosody.full_sessions[backend],
			});
		end
	end

	-- (which): those whose record is of this kind, all if nil, are no backends any more
	local function lose(which)
		local before = #pool;
		for backend, record in pairs(records) do
			if not which or which(record) then
				forget(backend);
			end
		end
		module:log("debug", "%d backends were lost: %d left", before - #pool, #pool);
		changed();
	end

	-- A server cannot reach it: is the target there at all? As to a client of ours, its presence tells.
	local function lose_unreachable(backend)
		if records[backend] and not prosody.full_sessions[backend] then
			forget(backend);
			module:log("debug", "%s cannot be reached: %d backends", backend, #pool);
			changed();
			subscription.check();
		end
	end

	-- Something speaks against it: a request has timed out there, say, which may be due to the request as well.
	local function suspect(backend)
		if pool:state(backend) == "ready" then
			checks:suspect(backend);
		end
	end

	-- The session of a client of this Prosody is over when its presence says so.
	local function raise_doubt(backend)
		if prosody.full_sessions[backend] then
			subscription.check();
		elseif not doubts:has(backend) then
			doubts:raise { backend };
		end
	end

	-- It does not answer a ping either: nothing new for it until it does.
	local function on_silent(backend)
		module:log("warn", "Resource %q of the target does not answer a ping: it gets no new requests until it does",
			jid_resource(backend));
		update(backend, { is_suspended = true });
		raise_doubt(backend);
	end

	local function all()
		local list = {};
		for backend in pairs(records) do
			table.insert(list, backend);
		end
		return list;
	end

	checks = health.new(saved.checks, on_silent);

	doubts = doubt.new {
		server = server;
		ask = subscription.check;
		all = all;
		on_raised = function (in_doubt)
			for _, backend in ipairs(in_doubt) do
				if records[backend] then
					set_fields(backend, {});
				end
			end
			changed();
		end;
		on_settled = function (in_doubt)
			for _, backend in ipairs(pool:is_ready() and in_doubt or {}) do
				setup.on_away(backend);
			end
			changed();
		end;
		-- Should their presence come after all, they are to answer a ping first.
		on_lost = function (lost)
			for _, backend in ipairs(lost) do
				if records[backend] then
					records[backend].is_suspended = true;
					forget(backend);
				end
			end
			module:log("info", "%d resources of the target are there no longer, as its server says: %d are", #lost, #pool);
			changed();
			subscription.on_shaken();
		end;
	};

	-- to be called when it has answered, as nobody else can have done
	local function alive(backend)
		if (checks:any() or doubts:any()) and records[backend] then
			local was_in_question, was_in_doubt = checks:alive(backend), doubts:forget(backend);
			if was_in_question or was_in_doubt then
				clear_suspension(backend);
			end
			if was_in_doubt then
				setup.on_back(backend);
			end
			changed();
		end
		server:heard(); -- last of all, as much can follow from that, a reload for example
	end

	-- for iq/host: an answer to a ping
	local function on_iq(event)
		local backend = event.stanza.attr.from;
		if server:on_iq(event) then
			return true;
		elseif not checks:is_answer(event.stanza) then
			return;
		end
		local bounce = bounces.kind(event.origin, event.stanza, pool);
		if bounce == "unreachable" then
			lose_unreachable(backend);
		elseif bounce == "doubtful" then
			checks:answered(backend);
			raise_doubt(backend);
		elseif not bounce then
			alive(backend);
		end
		return true;
	end

	-- A list in the order of the resources: { { jid, resource, since (os.time), priority, state }, ... }
	local function list()
		local entries = {};
		for jid, record in pairs(records) do
			table.insert(entries, {
				jid = jid, resource = jid_resource(jid), since = record.since,
				priority = record.priority, state = state_of(record, doubts:has(jid)),
			});
		end
		table.sort(entries, function (a, b) return a.resource < b.resource; end);
		return entries;
	end

	-- Nothing new for any of them until its presence has come, or an answer.
	local function doubt_all()
		doubts:raise(all());
	end

	-- A server that dies does not say which of its clients are gone, nor which stanzas it has not got.
	local function watch_server()
		local function on_no_answer()
			setup.on_change();
			doubt_all();
		end
		server:start {
			established = subscription.on_shaken;
			ended = function (is_broken)
				if #pool > 0 then
					module:log("info", "A stream to the target's server has ended: its resources are asked whether they are still there");
				end
				if is_broken then
					setup.on_broken();
				end
				doubt_all();
				subscription.on_shaken();
			end;
			silent = on_no_answer;
			heard = function ()
				setup.on_change();
				subscription.on_shaken();
			end;
			unreachable = on_no_answer;
		};
	end

	-- XEP-0198: what is sent to a hibernating session waits in a queue for its return
	local function watch_hibernation(session)
		module:hook_object_event(session.events, "smacks-hibernation-start", function (event)
			local backend = event.origin.full_jid or "";
			if records[backend] then
				checks:forget(backend);
				update(backend, { is_hibernating = true, is_suspended = false });
				setup.on_away(backend);
			end
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
			if jid_resource(from) then
				went(from);
				subscription.on_gone();
			else -- no resource is left (RFC 6121 section 4.3.2)
				lose();
			end
		end;
		error = function (from, stanza)
			if jid_resource(from) then
				forget(from);
				changed();
			else
				subscription.on_error(stanza);
				lose();
			end
		end;
		unsubscribed = function ()
			subscription.on_unsubscribed();
			lose();
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
			if type ~= "error" then
				server:heard(); -- last of all, as above
			end
		elseif type == "subscribe" then
			module:send(st.presence({ from = jid_bare(attr.to), to = jid_bare(attr.from), type = "unsubscribed" }));
		end
		return true;
	end

	-- to be called when the module goes away for good
	local function stop()
		if is_watched and was_serving then
			send_presence(target, "unavailable");
		end
	end

	-- to be called when the module goes, whether it is reloaded or not
	local function stop_timers()
		checks:stop();
		doubts:stop();
		server:stop();
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
		for backend, record in pairs(records) do
			local state = state_of(record, doubts:has(backend));
			counts[state] = (counts[state] or 0) + 1;
		end
		return counts;
	end

	-- to be called when all hosts are there, and when the target's comes later
	local function start()
		local host = jid_host(target);
		local session = prosody.hosts[host];
		if session and session.type == "local" then
			watch_hibernation(session);
		else
			watch_server();
		end
		subscription.start();
		doubts:raise(saved.doubts);
		for _, entry in ipairs(list()) do
			update(entry.jid, { is_excluded = not setup.is_wanted(entry.resource) });
		end
		checks:start();
		relieve(); -- in the middle of which a reload may have been
	end

	-- Asks for all presence anew, and whether the backends are alive.
	local function resync()
		subscription.resync();
		for _, entry in ipairs(list()) do
			if records[entry.jid] and entry.state ~= "hibernating" and entry.state ~= "excluded" then
				checks:check(entry.jid);
			end
		end
	end

	return {
		alive = alive;
		count_states = count_states;
		drain = drain;
		list = list;
		lose_unreachable = lose_unreachable;
		on_iq = on_iq;
		on_presence = on_presence;
		resync = resync;
		save = function ()
			return {
				records = records, remembered = remembered, checks = checks:save(), doubts = doubts:save();
				is_watched = is_watched, was_serving = was_serving, was_ready = was_ready;
			};
		end;
		start = start;
		stop = stop;
		stop_timers = stop_timers;
		suspect = suspect;
	};
end

return backends;
