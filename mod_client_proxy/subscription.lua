-- The presence subscription to the target (RFC 6121 section 3): asked for until it is granted and answered with
-- presence. A target on this Prosody is made to grant it, see roster.lua.
--
-- Its states:
--   "starting", "no-account", "roster-broken", "reachable"   the target has not been asked yet, see diagnosis.lua for why
--   "asked"         it has been, and its server may not have read it
--   "unapproved"    its server has read it, and nobody has accepted it
--   "granted"       it is accepted
--   "refused"       it is refused, or was withdrawn
--   "unreachable"   a server cannot reach the target, or has no such account

local addresses = module:require "addresses";
local new_probes = module:require "probes".new;
local roster = module:require "roster";
local timers = module:require "timers";

local st = require "util.stanza";

-- Seconds until the target is asked again; each pause is twice the one before.
local FIRST_PAUSE = 1;
local LONGEST_PAUSE = 60 * 60;
local LONGEST_PAUSE_UNREACHABLE = 5 * 60;
local LONGEST_PAUSE_WORTH_TRYING = 2;

-- In these states the target has not been asked yet. In all others, it has, and its answers decide about the next state.
local IS_UNASKED = { ["starting"] = true, ["no-account"] = true, ["roster-broken"] = true, ["reachable"] = true };

local subscription = {};
subscription.__index = subscription;

local ask;

-- (setup) -> subscription
-- setup: { target (the prepared bare JID), auto_approve, server (the target's), events (where "changed" is fired when
--          state() returns something else), saved (what save() returned before a reload, or nil) }
function subscription.new(setup)
	local saved = setup.saved or { state = "starting" };
	local self = setmetatable({
		target = setup.target, auto_approve = setup.auto_approve, server = setup.server, events = setup.events;
		current = saved.state, reason = saved.reason;
		pause = FIRST_PAUSE;
		asked_at = nil; -- what had been heard of the target's server when it was first asked
		timers = timers.new(); -- "ask": until the target is asked again; none when it has answered
		probes = new_probes(setup.target);
	}, subscription);
	self.probes.is_allowed = self.current == "granted";
	return self;
end

local function set_state(self, state, reason)
	if self.current ~= state or self.reason ~= reason then
		self.current, self.reason = state, reason;
		self.probes.is_allowed = state == "granted";
		self.events.fire_event("changed");
	end
end

-- Whether the target's server has certainly read the request: as long as nothing comes from it, it may not have got it.
local function has_been_read(self)
	if self.server:is_waiting() then
		self.asked_at = self.server:heard_so_far(); -- what has come until now is no answer
	end
	return self.server:has_been_heard_since(self.asked_at);
end

local function longest_pause(self)
	if self.current ~= "unreachable" then
		return LONGEST_PAUSE;
	end
	return self.server:is_worth_trying() and LONGEST_PAUSE_WORTH_TRYING or LONGEST_PAUSE_UNREACHABLE;
end

local function ask_later(self)
	self.timers:set("ask", self.pause, function ()
		if self.current == "asked" and has_been_read(self) then
			set_state(self, "unapproved");
		end
		ask(self);
	end);
	self.pause = math.min(self.pause * 2, longest_pause(self));
end

local function ask_later_if_need_be(self)
	if not self.timers:is_running("ask") then
		ask_later(self);
	end
end

local function ask_soon(self)
	self.pause = FIRST_PAUSE;
	ask_later(self);
end

-- -> the host of a target to which the module gives consent itself, as it is here | nil, false: its owner is asked
local function approved_host(self)
	local host = self.auto_approve and prosody.hosts[addresses.host(self.target)];
	return host and host.type == "local" and host;
end

-- Gives the target's consent. -> nil | the state that says why that is impossible, and the reason if one is known
local function approve_account(target)
	if not roster.has_account(target) then
		return "no-account";
	end
	local changed, problem = roster.approve(target);
	if changed == nil then
		return "roster-broken", problem;
	end
end

-- Asks for the subscription. If there is one already, the answer comes at once (RFC 6121
-- section 3.1.3). No probe is sent before: when Prosody refuses a probe, it also forgets
-- the request that waits for the target's approval.
function ask(self)
	ask_later(self); -- before anything is sent, the answer to which may come at once
	if approved_host(self) then
		local problem, reason = approve_account(self.target);
		if problem then
			return set_state(self, problem, reason);
		end
	end
	if IS_UNASKED[self.current] or not self.asked_at then
		self.asked_at = self.server:heard_so_far();
	end
	if IS_UNASKED[self.current] then
		set_state(self, "asked");
	end
	module:send(st.presence({ from = module.host, to = self.target, type = "subscribe" }));
	self.server:listen();
end

-- A resource's presence is about to go to those in its roster. The proxy has to be among
-- them, also if the account has just been made, or its roster changed.
local function on_own_presence(self, event)
	if event.stanza.attr.to or event.origin.username ~= addresses.split(self.target) then
		return;
	end
	if roster.approve(self.target) or self.current ~= "granted" then
		ask_soon(self);
	end
end

-- To be called when all hosts are there, and when the target's comes later.
function subscription:start()
	local host = approved_host(self);
	if host then
		module:hook_object_event(host.events, "presence/bare", function (event) on_own_presence(self, event); end, 10);
	end
	ask(self);
end

-- The operator wants everything to be asked anew.
function subscription:resync()
	self.pause = FIRST_PAUSE;
	ask(self);
end

-- A backend may be gone though the target's server has not said so: the target is asked for its presence.
function subscription:check()
	ask_later_if_need_be(self); -- before anything is sent, the answer to which may come at once
	self.probes:ask();
	self.server:listen();
end

-- What is known may be out of date: a stream of the target's server has come or gone, for example.
function subscription:on_shaken()
	self.pause = FIRST_PAUSE;
	self.probes:ask_again_and_again();
	if self.current == "granted" then
		self:check();
	elseif self.current ~= "unapproved" and self.current ~= "refused" then -- these two are answers to the request
		ask(self);
	end
end

-- A resource of the target has gone. ejabberd may have told before that, and not after it, that another session has
-- come under the same name, so the target is asked.
function subscription:on_gone()
	if self.server:is_elsewhere() then
		self.probes:ask(FIRST_PAUSE);
	end
end

-- The target has accepted the request. Prosody sends no presence on behalf of an account that has done so in advance.
function subscription:on_subscribed()
	set_state(self, "granted");
	self.probes:ask();
end

-- The target has refused the request, or takes back what it has granted.
function subscription:on_unsubscribed()
	if self.current == "granted" then -- somebody may have edited its roster
		ask_soon(self);
	elseif not approved_host(self) then -- a person has said no
		self.pause = LONGEST_PAUSE;
		ask_later(self);
	end
	set_state(self, "refused");
end

-- (stanza): an error, from a server that cannot reach the target, or has no such account
function subscription:on_error(stanza)
	local _, condition, text = stanza:get_error();
	set_state(self, "unreachable", text and ("%s: %s"):format(condition, text:gsub("%c", " "):sub(1, 200)) or condition);
	ask_later_if_need_be(self);
end

-- (stanza): available or unavailable, so the target's server can be reached
function subscription:on_presence(stanza)
	if self.current == "granted" then
		self.timers:stop("ask");
		self.pause = FIRST_PAUSE;
	elseif self.current == "unreachable" then
		ask_soon(self);
		set_state(self, "reachable");
	elseif self.current == "asked" and stanza.attr.type == "unavailable" and not addresses.resource(stanza.attr.from) then
		set_state(self, "unapproved"); -- Prosody's receipt for a request that somebody has to accept
	end
end

-- -> its state, as above, and the reason if one is known
function subscription:state()
	return self.current, self.reason;
end

-- -> what a reload has to carry over
function subscription:save()
	return { state = self.current, reason = self.reason };
end

-- To be called when the module goes, whether it is reloaded or not.
function subscription:retire()
	self.timers:retire();
	self.probes:retire();
end

return subscription;
