-- The presence subscription to the target (RFC 6121 section 3): asked for until it
-- is granted and answered with presence, and set up in the roster of a target on
-- this Prosody, for whose consent the configuration stands.

local jid_resource = require "util.jid".resource;
local jid_split = require "util.jid".split;
local rostermanager = require "core.rostermanager";
local st = require "util.stanza";
local user_exists = require "core.usermanager".user_exists;

-- Seconds until the target is asked again; each pause is twice the one before.
local FIRST_PAUSE = 1;
local LONGEST_PAUSE = 60 * 60;
local LONGEST_PAUSE_UNREACHABLE = 5 * 60;

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
--          on_change(): to be told when state() returns something else }
function subscription.new(setup)
	local target = setup.target;
	local node, host = jid_split(target);
	local saved = setup.saved or { state = "starting" };
	local state, reason = saved.state, saved.reason;
	local pause = FIRST_PAUSE;
	local timer; -- until the target is asked again; nil when it has answered
	local is_probe_due = false;
	local ask;

	local function set_state(new_state, new_reason)
		if state ~= new_state or reason ~= new_reason then
			state, reason = new_state, new_reason;
			setup.on_change();
		end
	end

	local function send_to_target(type)
		module:send(st.presence({ from = module.host, to = target, type = type }));
	end

	local function stop()
		if timer then
			timer:stop();
			timer = nil;
		end
	end

	local function ask_later()
		stop();
		timer = module:add_timer(pause, function ()
			timer = nil;
			if state == "asked" then
				set_state("unapproved");
			end
			ask();
		end);
		pause = math.min(pause * 2, state == "unreachable" and LONGEST_PAUSE_UNREACHABLE or LONGEST_PAUSE);
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
		if IS_UNASKED[state] then
			set_state("asked");
		end
		send_to_target("subscribe");
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

	-- to be called when a backend has been lost without a word from the target's server
	local function check()
		if not timer then
			ask_later(); -- before anything is sent, the answer to which may come at once
		end
		if state == "granted" then
			send_to_target("probe");
		end
	end

	-- to be called when a resource of the target has gone: a session that takes the place of
	-- another one can have come before that, as ejabberd tells it
	local function on_gone()
		if prosody.hosts[host] or is_probe_due then
			return;
		end
		is_probe_due = true;
		module:add_timer(FIRST_PAUSE, function ()
			is_probe_due = false;
			if state == "granted" then
				send_to_target("probe");
			end
		end);
	end

	local function on_subscribed()
		set_state("granted");
		-- Prosody sends no presence on behalf of an account that approved in advance
		send_to_target("probe");
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
			stop();
			pause = FIRST_PAUSE;
		elseif state == "unreachable" then
			ask_soon();
			set_state("reachable");
		elseif state == "asked" and stanza.attr.type == "unavailable" and not jid_resource(stanza.attr.from) then
			set_state("unapproved"); -- Prosody's receipt for a request that somebody has to accept
		end
	end

	return {
		check = check;
		on_error = on_error;
		on_gone = on_gone;
		on_presence = on_presence;
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
