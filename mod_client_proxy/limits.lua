-- Prosody's rate limits (mod_limits): how many bytes a second Prosody reads from one connection.
--
-- A target on this Prosody is freed of them, as the configuration stands for the consent of whoever runs Prosody. What
-- is taken is remembered, and given back when no proxy wants the target freed any more.
--
-- A limit is set when a connection comes, before anybody knows whose it is. It is the connection's own, where Prosody's
-- network backend has limits (epoll), else the session's throttle, by which mod_limits decides when to pause.
-- With BOSH, it is that of the one HTTP connection by which a session has begun. A session can use any other
-- later, among them that of another session, so there the connection is looked at with each stanza.

local addresses = module:require "addresses";

local filters = require "util.filters";

-- What has been taken, for all proxies on this Prosody, as two can have the same target. A reload leaves it there. By target:
-- { proxies (a set of hosts), rates (by connection: bytes a second), throttles (a set) }
local freed = module:shared("/*/client_proxy/freed");

local WEAK_KEYS = { __mode = "k" };

local limits = {};
limits.__index = limits;

-- What a throttle without a limit says, whatever it is asked
local function allow()
	return true;
end

-- -> bytes a second, as mod_limits has set it | nil: no limit
local function rate_of_connection(connection)
	return connection._limit and math.floor(1 / connection._limit + 0.5);
end

-- (session) -> bytes a second that Prosody reads from it at most | nil: as many as come
function limits.rate_of(session)
	local rate = session.conn and rate_of_connection(session.conn);
	return rate or session.throttle and session.throttle.rate;
end

-- mod_limits may have paused the connection, and asks the throttle that it had then when to go on. So the throttle stays.
local function free(taken, session)
	local connection, throttle = session.conn, session.throttle;
	local rate = connection and rate_of_connection(connection);
	if rate then
		taken.rates[connection] = rate;
		connection:setlimit(0);
	end
	if throttle then
		taken.throttles[throttle] = true;
		throttle.peek, throttle.poll = allow, allow;
	end
end

local function give_back(taken)
	for connection, rate in pairs(taken.rates) do
		if not rate_of_connection(connection) then -- else it has got another one since, with another session by BOSH
			connection:setlimit(rate);
		end
	end
	for throttle in pairs(taken.throttles) do
		throttle.peek, throttle.poll = nil, nil;
	end
end

-- (but_of): this proxy wants no target freed any more, but for that one if it is not nil. To be called without it when the
-- module goes for good.
function limits.release(but_of)
	for target, taken in pairs(freed) do
		if target ~= but_of and taken.proxies[module.host] then
			taken.proxies[module.host] = nil;
			if not next(taken.proxies) then
				freed[target] = nil;
				give_back(taken);
			end
		end
	end
end

-- (setup) -> limits. What this proxy has taken of another target, or without consent, is given back.
-- setup: { target (the prepared bare JID), auto_approve }
function limits.new(setup)
	limits.release(setup.auto_approve and setup.target or nil);
	return setmetatable({
		target = setup.target, auto_approve = setup.auto_approve;
		is_retired = false;
		looked_at = setmetatable({}, WEAK_KEYS); -- by session by BOSH: the filter by which each of its stanzas goes
	}, limits);
end

local function taken_of(self)
	local taken = freed[self.target];
	if not taken then
		taken = { proxies = {}, rates = setmetatable({}, WEAK_KEYS), throttles = setmetatable({}, WEAK_KEYS) };
		freed[self.target] = taken;
	end
	taken.proxies[module.host] = true;
	return taken;
end

local function look_at_each_stanza(self, session)
	if self.looked_at[session] then
		return;
	end
	local taken = taken_of(self);
	self.looked_at[session] = function (stanza, stanzas_session)
		free(taken, stanzas_session);
		return stanza;
	end;
	filters.add_filter(session, "stanzas/in", self.looked_at[session]);
end

-- A session has a user's name when, and only when, it is authenticated.
local function free_if_targets(self, session)
	local node, host = addresses.split(self.target);
	if self.is_retired or session.username ~= node or session.host ~= host then
		return;
	end
	free(taken_of(self), session);
	if session.bosh_wait then
		look_at_each_stanza(self, session);
	end
end

-- To be called when all hosts are there, and when the target's comes later. From now on, all sessions of a target on
-- this Prosody are freed, also those that are there already.
function limits:start()
	local node, name = addresses.split(self.target);
	local host = self.auto_approve and prosody.hosts[name];
	if not host or host.type ~= "local" then
		return;
	end
	local function on_session(event)
		free_if_targets(self, event.session);
	end
	module:hook_object_event(host.events, "authentication-success", on_session);
	module:hook_object_event(host.events, "resource-bind", on_session); -- authenticated before this was called
	module:hook_object_event(host.events, "smacks-hibernation-end", function (event) -- likewise, and has a new connection
		free_if_targets(self, event.resumed);
	end);
	local account = host.sessions[node];
	for _, session in pairs(account and account.sessions or {}) do
		free_if_targets(self, session);
	end
end

-- To be called when the module goes, whether it is reloaded or not. What is freed stays so.
function limits:retire()
	self.is_retired = true;
	for session, filter in pairs(self.looked_at) do
		filters.remove_filter(session, "stanzas/in", filter);
	end
end

return limits;
