-- The target's server, where that is not this Prosody: its streams (RFC 6120 section 4), and whether
-- anything comes from it at all.
--
-- A server that hangs leaves its streams open and says nothing, and so does one that cannot reach us for
-- its answers. What every server has to answer is an IQ (RFC 6120 section 8.2.3), so it is pinged when there
-- is reason to ask (XEP-0199). If nothing comes, it is silent: that is said, and now and then a new stream
-- to it is tried, which may lead to another machine of the same domain.

local kinds = module:require "kinds";
local limits = module:require "limits";
local timers = module:require "timers";

local new_id = require "util.id".medium;
local now = require "util.time".monotonic;
local st = require "util.stanza";

local PATIENCE = 3; -- seconds that the server has to answer a ping, or to authenticate a stream
local QUICK_TRIES = 20; -- of new streams, one soon after the other
local PAUSE = 5; -- seconds until it is pinged again, and until it is pinged because a request has no answer yet

local REST = 1; -- seconds in which it is not pinged again when our own server has said that it cannot be reached

local UNAUTHENTICATED = "s2sout_unauthed"; -- the type of a stream to another server until it is authenticated

local IS_STREAM = { s2sin = true, s2sout = true }; -- the types of sessions that are streams of other servers

local server = {};
server.__index = server;

-- (setup) -> server
-- setup: { host, pending (what backends have yet to answer), events (where those are fired that start() names) }
function server.new(setup)
	return setmetatable({
		host = setup.host, pending = setup.pending, events = setup.events;
		is_watched = false; -- whether start() was called
		count = 0; -- how often something has come from it
		renewals = 0; -- how often the stream to it was replaced since something has come
		lacks_authentication = false; -- see is_unauthenticated()
		rests_until = -math.huge; -- on the clock of util.time
		listening = nil; -- while it is pinged: { id, rounds, route, is_told (whether that it is silent was told) }
		timers = timers.new();
	}, server);
end

-- Whether it is another server than this Prosody. A component of this Prosody is not, though it is another program: its
-- stream is of another kind, and Prosody says at once when that ends.
function server:is_elsewhere()
	return not prosody.hosts[self.host];
end

-- -> what has been heard so far, for has_been_heard_since()
function server:heard_so_far()
	return self.count;
end

-- (heard) -> whether something has come from it since heard_so_far() returned that; always true for a component of this
-- Prosody
function server:has_been_heard_since(heard)
	return self.count ~= heard or not self:is_elsewhere();
end

-- Whether it has been asked for a sign of life for long enough, and given none
function server:is_silent()
	return self.listening ~= nil and self.listening.rounds > 0;
end

-- Whether new streams to it have brought nothing yet, but are not too many: the next may lead to another machine.
function server:is_worth_trying()
	return self.renewals > 0 and self.renewals < QUICK_TRIES;
end

-- The stream that our stanzas for it go by, or nil
local function route_to(self)
	return prosody.hosts[module.host].s2sout[self.host];
end

-- Whether what is sent to it waits, as the stream to it is not authenticated yet
function server:is_waiting()
	local route = self:is_elsewhere() and route_to(self);
	return route and route.type == UNAUTHENTICATED or false;
end

-- Whether the last stream to it is there, or was, and is not authenticated in spite of having had the time for that, so
-- that nothing can be sent by it
function server:is_unauthenticated()
	return self.lacks_authentication and self:is_elsewhere();
end

local function set_unauthenticated(self, lacks_authentication)
	if self.lacks_authentication ~= lacks_authentication then
		self.lacks_authentication = lacks_authentication;
		self.events.fire_event("changed");
	end
end

-- (stream): one of ours to it, which has ended or had the time to be authenticated
local function judge(self, stream)
	if stream.type == UNAUTHENTICATED then
		set_unauthenticated(self, stream.had_stream or false); -- whether the other side has opened it, too
	end
end

-- Closes the stream with the error that RFC 6120 section 4.9.3.4 has for a connection that may be dead.
local function renew_route(self)
	local route = route_to(self);
	if route and route == self.listening.route then
		module:log("info", "Nothing comes from %s: the stream to it is closed, for a new one", self.host);
		self.renewals = self.renewals + 1;
		route:close { condition = "connection-timeout", text = "Nothing has come from you for too long" };
	end
end

local function ping(self)
	module:send(st.iq({ type = "get", id = self.listening.id, from = module.host, to = self.host })
		:tag("ping", { xmlns = "urn:xmpp:ping" }));
end

-- Whether it is the first, second, fourth, eighth and so on
local function is_time_to_renew(round)
	return round & (round - 1) == 0;
end

local function stop_listening(self)
	self.listening = nil;
	self.timers:stop("ping");
end

local function set_timer(self, listening, pause)
	self.timers:allow("ping", pause, function ()
		set_timer(self, listening, PAUSE); -- already now, as an error in another module's handler would end this here
		listening.rounds = listening.rounds + 1;
		if is_time_to_renew(listening.rounds) then
			renew_route(self);
		end
		if not listening.is_told and self.listening == listening then
			listening.is_told = true;
			self.events.fire_event("server-silent");
		end
		if self.listening == listening then
			listening.route = route_to(self);
			ping(self);
		end
	end);
end

-- Pings it until something comes from it, unless that is under way. It is not pinged for a while either after our own
-- server has said that it cannot be reached: whoever is told that may call this again at once, and if our own server
-- then says the same at once, there would be no end of it.
function server:listen()
	if self.listening or not self.is_watched or self.timers.is_retired or now() < self.rests_until or not self:is_elsewhere() then
		return;
	end
	local listening = { id = new_id(), rounds = 0, route = route_to(self) };
	self.listening = listening;
	set_timer(self, listening, PATIENCE);
	ping(self);
	if self.listening == listening then
		listening.route = route_to(self);
	end
end

-- Something has come from it that nobody else can have sent.
function server:heard()
	self.count = self.count + 1;
	self.renewals = 0;
	if self.listening then
		local was_silent = self:is_silent();
		stop_listening(self);
		if was_silent then
			self.events.fire_event("server-heard");
		end
	end
end

-- (event) -> true: the stanza of this IQ event answered a ping, and is dealt with | nil: it is something else
function server:on_iq(event)
	local listening, attr = self.listening, event.stanza.attr;
	if not listening or not kinds.IS_ANSWER[attr.type] or attr.from ~= self.host or attr.to ~= module.host or attr.id ~= listening.id then
		return;
	end
	if IS_STREAM[event.origin.type] and not event.origin.dummy then
		self:heard();
	else -- our own server cannot reach it
		stop_listening(self);
		self.rests_until = now() + REST;
		self.events.fire_event("server-unreachable");
	end
	return true;
end

-- Streams that are not authenticated for its domain say nothing: anybody can open one in its name, and a
-- server can try to speak for more domains than its own (XEP-0220).
local function is_its_stream(self, session)
	if session.direction == "outgoing" then
		return session.type == "s2sout" and session.to_host == self.host;
	end
	local host = session.type == "s2sin" and session.hosts and session.hosts[self.host];
	return host and host.authed or false;
end

-- Calls it once when everything has happened that happens together, however often this is called meanwhile.
local function soon(self, name, call)
	if not self.timers:is_running(name) then
		self.timers:set(name, 0, call);
	end
end

-- Whether the stream is for what the proxy and that server send each other; other hosts of this Prosody have their own.
local function is_ours(session)
	return module.host == (session.direction == "outgoing" and session.from_host or session.to_host);
end

-- A stream that the other side has closed in good order has brought all that was sent by it. A stream of another
-- host of this Prosody carries nothing of the proxy's, but its end can mean that a machine with backends has gone.
local function on_destroyed(self, event)
	if not is_its_stream(self, event.session) or not self:is_elsewhere() then
		return;
	end
	self.is_broken = self.is_broken or event.reason ~= false and is_ours(event.session);
	soon(self, "ended", function ()
		local is_broken = self.is_broken;
		self.is_broken = false;
		self.events.fire_event("stream-ended", is_broken);
	end);
end

-- Whether it is one of ours to that server, authenticated or not
local function is_route(self, session)
	return session.direction == "outgoing" and session.to_host == self.host and is_ours(session);
end

-- The stream has been begun. If it ends before it can be used, it is none of those that on_destroyed() looks at.
local function on_begun(self, stream)
	self.timers:set("authentication", PATIENCE, function () judge(self, stream); end);
end

-- Only a stream by which the server can send counts as one that is established.
local function on_established(self, event)
	if event.session.outgoing and is_its_stream(self, event.session) and is_ours(event.session) then
		set_unauthenticated(self, false);
	end
	if event.session.incoming and is_its_stream(self, event.session) and self:is_elsewhere() then
		soon(self, "established", function () self.events.fire_event("stream-established"); end);
	end
end

-- -> how many bytes a second Prosody reads at most from a stream by which the server sends to the proxy | nil: as many as
-- come
function server:rate_limit()
	local lowest;
	for session in pairs(self:is_elsewhere() and prosody.incoming_s2s or {}) do
		local rate = is_its_stream(self, session) and is_ours(session) and limits.rate_of(session);
		lowest = rate and math.min(rate, lowest or rate) or lowest;
	end
	return lowest;
end

local function watch(self)
	local was_awaited, count = false, self.count;
	local function look()
		self.timers:set("watch", PAUSE, look);
		local is_awaited = #self.pending > 0;
		if was_awaited and is_awaited and self.count == count then
			self:listen();
		end
		was_awaited, count = is_awaited, self.count;
	end
	self.timers:set("watch", PAUSE, look);
end

-- From now on it is watched, and these events are fired, besides "changed":
--   "stream-established"        a stream from it is there
--   "stream-ended" (is_broken)  a stream has ended; whether what was sent by it may not have arrived
--   "server-silent"             nothing comes from it
--   "server-heard"              something does again
--   "server-unreachable"        our own server says that it cannot be reached
function server:start()
	if self.is_watched then
		return;
	end
	self.is_watched = true;
	local function established(event) on_established(self, event); end
	local function destroyed(event) on_destroyed(self, event); end
	module:hook_global("s2sin-established", established);
	module:hook_global("s2sout-established", established);
	module:hook_global("s2sin-destroyed", destroyed);
	module:hook_global("s2sout-destroyed", destroyed);
	for event, handler in pairs { ["s2s-created"] = on_begun, ["s2s-destroyed"] = judge } do
		module:hook_global(event, function (data)
			if is_route(self, data.session) then
				handler(self, data.session);
			end
		end);
	end
	if self:is_waiting() then
		on_begun(self, route_to(self));
	end
	watch(self);
end

-- To be called when the module goes, whether it is reloaded or not. After that, something may go on that the reload has
-- interrupted, but starts nothing any more.
function server:retire()
	stop_listening(self);
	self.timers:retire();
end

return server;
