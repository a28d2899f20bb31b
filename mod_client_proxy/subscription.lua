-- The presence subscription to the target (RFC 6121 section 3): asked for until it
-- is granted and answered with presence, and set up in the roster of a target on
-- this Prosody, for whose consent the configuration stands.

local jid_resource = require "util.jid".resource;
local jid_split = require "util.jid".split;
local now = require "util.time".monotonic;
local rostermanager = require "core.rostermanager";
local st = require "util.stanza";
local user_exists = require "core.usermanager".user_exists;

-- Seconds until the target is asked again; each pause is twice the one before.
local FIRST_PAUSE = 1;
local LONGEST_PAUSE = 60 * 60;
local LONGEST_PAUSE_UNREACHABLE = 5 * 60;
local LONGEST_PAUSE_WORTH_TRYING = 2;

-- Seconds between one probe and the next. Presence gets lost while a server waits before it tries again to
-- reach ours, up to five minutes by default with some; so it is asked for once more after each of these pauses.
local PROBE_PAUSE = 1;
local FURTHER_PROBES = { 2, 8, 32, 128, 300 };

-- In these states the target has not been asked yet; in all others an answer decides about the next one.
local IS_UNASKED = { ["starting"] = true, ["no-account"] = true, ["roster-broken"] = true, ["reachable"] = true };

local subscription = {};

-- An entry that the module has made says so, until somebody else changes it.
local function mark_as_ours(node, host)
	local roster = rostermanager.load_roster(node, host);
	roster[module.host].made_by = module.name;
	return rostermanager.save_roster(node, host, roster, module.host);
end

-- (target): it is the target no longer. What the module has granted in its roster is taken back.
function subscription.withdraw(target)
	local node, host = jid_split(target);
	local session = prosody.hosts[host];
	local roster = session and session.type == "local" and user_exists(node, host) and rostermanager.load_roster(node, host) or {};
	local item = roster[module.host];
	if not item or item.made_by ~= module.name then
		return;
	end
	rostermanager.unsubscribed(node, host, module.host);
	item.made_by = nil;
	if item.subscription == "none" and not item.ask and not item.name and not next(item.groups) then
		roster[module.host] = nil;
	end
	rostermanager.save_roster(node, host, roster, module.host);
	rostermanager.roster_push(node, host, module.host);
end

-- (setup) -> the functions to be called on presence from the target, and more
-- setup: { target (the prepared bare JID), auto_approve, saved (what save() returned before a reload),
--          server (the target's),
--          on_change(): to be told when state() returns something else }
function subscription.new(setup)
	local target, server = setup.target, setup.server;
	local node, host = jid_split(target);
	local saved = setup.saved or { state = "starting" };
	local state, reason = saved.state, saved.reason;
	local pause = FIRST_PAUSE;
	local timer; -- until the target is asked again; nil when it has answered
	local asked_at; -- what had been heard of the target's server when it was first asked
	local probed_at = -math.huge; -- when a probe was sent the last time
	local probe_timer; -- until the next one, if it is to be sent
	local is_stopped = false; -- from then on, nothing is set that would keep all of this in memory until it is due
	local further_timer; -- until the next one of FURTHER_PROBES
	local ask;

	local function set_state(new_state, new_reason)
		if state ~= new_state or reason ~= new_reason then
			state, reason = new_state, new_reason;
			setup.on_change();
		end
	end

	-- -> a timer | nil if it has been stopped, and may still be in the middle of something
	local function add_timer(seconds, callback)
		return not is_stopped and module:add_timer(seconds, callback) or nil;
	end

	local function send_to_target(type)
		module:send(st.presence({ from = module.host, to = target, type = type }));
	end

	local function stop_asking()
		if timer then
			timer:stop();
			timer = nil;
		end
	end

	local function stop_probing()
		if probe_timer then
			probe_timer:stop();
			probe_timer = nil;
		end
	end

	local function send_probe()
		stop_probing();
		probed_at = now();
		if state == "granted" then
			send_to_target("probe");
		end
	end

	-- Asks for the presence of all resources, some seconds from now at the earliest, once however often this is called.
	local function probe(delay)
		if state ~= "granted" then
			return;
		end
		delay = math.max(delay or 0, probed_at + PROBE_PAUSE - now());
		if delay <= 0 then
			send_probe();
		elseif not probe_timer then
			probe_timer = add_timer(delay, send_probe);
		end
	end

	local function stop_probing_further()
		if further_timer then
			further_timer:stop();
			further_timer = nil;
		end
	end

	local function probe_further(number)
		stop_probing_further();
		further_timer = FURTHER_PROBES[number] and add_timer(FURTHER_PROBES[number], function ()
			further_timer = nil;
			probe_further(number + 1);
			probe();
		end);
	end

	-- Whether the question has certainly been read: a server that is silent may not have got it.
	local function has_been_read()
		return server:has_been_heard_since(asked_at);
	end

	local function longest_pause()
		if state ~= "unreachable" then
			return LONGEST_PAUSE;
		end
		return server:is_worth_trying() and LONGEST_PAUSE_WORTH_TRYING or LONGEST_PAUSE_UNREACHABLE;
	end

	local function ask_later()
		stop_asking();
		timer = add_timer(pause, function ()
			timer = nil;
			if state == "asked" and has_been_read() then
				set_state("unapproved");
			end
			ask();
		end);
		pause = math.min(pause * 2, longest_pause());
	end

	local function ask_soon()
		pause = FIRST_PAUSE;
		ask_later();
	end

	local function target_host()
		local session = setup.auto_approve and prosody.hosts[host];
		return session and session.type == "local" and session;
	end

	-- Grants the subscription in the target's roster, as if its owner had accepted
	-- the request (RFC 6121 section 3.1.5). -> whether that was necessary | nil, error
	local function approve()
		local is_approved, load_error = rostermanager.is_contact_subscribed(node, host, module.host);
		if load_error then
			return nil, load_error;
		elseif is_approved then
			return false;
		end
		if not (rostermanager.set_contact_pending_in(node, host, module.host)
			and rostermanager.subscribed(node, host, module.host) and mark_as_ours(node, host)) then
			return nil, "it cannot be saved";
		end
		rostermanager.roster_push(node, host, module.host);
		return true;
	end

	-- -> state, reason: what is in the way of approving
	local function approve_account()
		if not user_exists(node, host) then
			return "no-account";
		end
		local changed, failure = approve();
		if changed == nil then
			return "roster-broken", failure;
		end
	end

	-- Where the subscription exists already that is answered at once, too (RFC 6121
	-- section 3.1.3). There is no probe before: Prosody, refusing that, would also
	-- forget the request that waits for the target's approval.
	function ask()
		ask_later(); -- before anything is sent, the answer to which may come at once
		if target_host() then
			local problem, why = approve_account();
			if problem then
				return set_state(problem, why);
			end
		end
		if IS_UNASKED[state] or not asked_at then
			asked_at = server:heard_so_far();
		end
		if IS_UNASKED[state] then
			set_state("asked");
		end
		send_to_target("subscribe");
		server:listen();
	end

	-- Before a resource's presence goes to those in the roster: though the account
	-- was made or its roster changed meanwhile, the proxy is to be among them.
	local function on_own_presence(event)
		if event.stanza.attr.to or event.origin.username ~= node then
			return;
		end
		if approve() or state ~= "granted" then
			ask_soon();
		end
	end

	-- to be called when all hosts are there, and when the target's comes later
	local function start()
		local session = target_host();
		if session then
			module:hook_object_event(session.events, "presence/bare", on_own_presence, 10);
		end
		ask();
	end

	-- to be called when the operator wants it
	local function resync()
		pause = FIRST_PAUSE;
		ask();
	end

	-- to be called when a backend may be gone without a word from the target's server
	local function check()
		if not timer then
			ask_later(); -- before anything is sent, the answer to which may come at once
		end
		probe();
		server:listen();
	end

	-- to be called when what is known may be out of date: a stream of the target's server has come or gone
	local function on_shaken()
		pause = FIRST_PAUSE;
		probe_further(1);
		if state == "granted" then
			check();
		elseif state ~= "unapproved" and state ~= "refused" then -- which an answer has said
			ask();
		end
	end

	-- to be called when a resource of the target has gone: a session that takes the place of
	-- another one can have come before that, as ejabberd tells it
	local function on_gone()
		if server:is_elsewhere() then
			probe(FIRST_PAUSE);
		end
	end

	local function on_subscribed()
		set_state("granted");
		-- Prosody sends no presence on behalf of an account that approved in advance
		probe();
	end

	local function on_unsubscribed()
		if state == "granted" then -- perhaps its roster has been edited
			ask_soon();
		elseif not target_host() then -- a person has said no
			pause = LONGEST_PAUSE;
			ask_later();
		end
		set_state("refused");
	end

	-- A server that cannot reach the target, or has no such account
	local function on_error(stanza)
		local _, condition, text = stanza:get_error();
		set_state("unreachable", text and ("%s: %s"):format(condition, text:gsub("%c", " "):sub(1, 200)) or condition);
		if not timer then
			ask_later();
		end
	end

	-- Available or unavailable: the target's server can be reached
	local function on_presence(stanza)
		if state == "granted" then
			stop_asking();
			pause = FIRST_PAUSE;
		elseif state == "unreachable" then
			ask_soon();
			set_state("reachable");
		elseif state == "asked" and stanza.attr.type == "unavailable" and not jid_resource(stanza.attr.from) then
			set_state("unapproved"); -- Prosody's receipt for a request that somebody has to accept
		end
	end

	-- to be called when the module goes, whether it is reloaded or not
	local function stop()
		is_stopped = true;
		stop_asking();
		stop_probing_further();
		stop_probing();
	end

	return {
		check = check;
		on_error = on_error;
		on_gone = on_gone;
		on_presence = on_presence;
		on_shaken = on_shaken;
		on_subscribed = on_subscribed;
		on_unsubscribed = on_unsubscribed;
		resync = resync;
		save = function () return { state = state, reason = reason }; end;
		start = start;
		state = function () return state, reason; end;
		stop = stop;
	};
end

return subscription;
