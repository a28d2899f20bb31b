-- Who has somebody's `available`: one list for each direction, of requesters whom backends see or of backends whom requesters
-- see. Whoever sent it has to be seen to go one day, so each is here until that has been told. Nothing here sends anything.
--
-- A sighting: {
--   requester, service (bare), backend   of each three, there is one at most
--   from, to        of the presence as it has been sent on
--   sender, at      as it had come in: who had sent it, and the address that it had been sent to
--   used, session, and others of this file's own
-- }
-- A session is all that is there of one backend, the last used first, from its coming to its going. When the backend has
-- gone, its session waits among those that are over until each sighting of it has been taken.

local addresses = module:require "addresses";

local new_cache = require "util.cache".new;
local sha256 = require "util.hashes".sha256;

-- How many bytes of addresses each sighting may hold on average
local BYTES_EACH = 1024;

local sightings = {};
sightings.__index = sightings;

-- The same for equal texts alone, and short, as JIDs can be long
local function key_of(one, other)
	return sha256(one.."\0"..other);
end

-- (max_per_bare, saved) -> sightings
-- max_per_bare: how many there should be of one bare JID's requesters, for whoever adds some
-- saved: the sightings of the instance before, which are the same as these from now on, or nil
function sightings.new(max_per_bare, saved)
	local self = saved or {
		sessions = {}; -- by backend: { backend, list (of sightings, by requester and service), is_silent }
		over = {}; -- sessions, in the order in which they ended
		by_requester = {}; -- by requester and service: { by_backend (of sightings), count }
		by_sent = {}; -- by sender and the address that it has sent presence to: a sighting
		by_bare = {}; -- by a requester's bare JID: how many
		in_order = {}; -- by `used`: a sighting, from `first`, or later, to `last`
		count = 0, bytes = 0, first = 1, last = 0;
	};
	self.max_per_bare = max_per_bare;
	return setmetatable(self, sightings);
end

-- (requester, service, backend) -> sighting | nil, be that session over or not
function sightings:find(requester, service, backend)
	local mine = self.by_requester[key_of(requester, service)];
	return mine and mine.by_backend[backend];
end

-- (requester, service) -> a list of them, for each backend whose session is not over
function sightings:of_requester(requester, service)
	local mine, found = self.by_requester[key_of(requester, service)], {};
	for backend, sighting in pairs(mine and mine.by_backend or found) do
		if self.sessions[backend] == sighting.session then
			table.insert(found, sighting);
		end
	end
	return found;
end

-- (sender, at) -> the sighting by what that one has sent to this address the last time | nil
function sightings:find_sent(sender, at)
	return self.by_sent[key_of(sender, at)];
end

-- (requester) -> how many there are of the same bare JID
function sightings:count_of(requester)
	return self.by_bare[addresses.bare(requester)] or 0;
end

-- (sighting) -> whether its end is to be told: it is here, and not in a session that is over in silence
function sightings.is_due(_, sighting)
	return sighting.session ~= nil and not sighting.session.is_silent;
end

local function add_up(self, sighting, sign)
	local bare = addresses.bare(sighting.requester);
	local of_bare = (self.by_bare[bare] or 0) + sign;
	self.by_bare[bare] = of_bare > 0 and of_bare or nil;
	self.count = self.count + sign;
	self.bytes = self.bytes + sign * (#sighting.requester + #sighting.service + #sighting.from + #sighting.at);
end

-- It is one of its requester's from now on.
local function join(self, sighting)
	local mine = self.by_requester[sighting.key] or { by_backend = {}, count = 0 };
	self.by_requester[sighting.key] = mine;
	mine.by_backend[sighting.backend], mine.count = sighting, mine.count + 1;
end

local function leave(self, sighting)
	local mine = self.by_requester[sighting.key];
	mine.by_backend[sighting.backend], mine.count = nil, mine.count - 1;
	if mine.count == 0 then
		self.by_requester[sighting.key] = nil;
	end
end

-- (sighting): there is none of the same three, nor of the same sender and address.
function sightings:add(sighting)
	local backend = sighting.backend;
	local session = self.sessions[backend] or { backend = backend, list = new_cache(math.huge), is_silent = false };
	self.sessions[backend], self.last = session, self.last + 1;
	sighting.session, sighting.used = session, self.last;
	sighting.key, sighting.sent = key_of(sighting.requester, sighting.service), key_of(sighting.sender, sighting.at);
	session.list:set(sighting.key, sighting);
	self.by_sent[sighting.sent], self.in_order[sighting.used] = sighting, sighting;
	join(self, sighting);
	add_up(self, sighting, 1);
end

-- (sighting) -> whether its end is to be told, which is so once at most
function sightings:remove(sighting)
	local session, is_due = sighting.session, self:is_due(sighting);
	if not session then
		return false;
	end
	sighting.session = nil;
	session.list:set(sighting.key, nil);
	self.by_sent[sighting.sent], self.in_order[sighting.used] = nil, nil;
	leave(self, sighting);
	add_up(self, sighting, -1);
	if self.sessions[session.backend] == session and session.list:count() == 0 then
		self.sessions[session.backend] = nil;
	end
	return is_due;
end

-- (backend, is_silent): its session is over. is_silent: nobody is to be told of that
function sightings:finish(backend, is_silent)
	local session = self.sessions[backend];
	if session then
		self.sessions[backend], session.is_silent = nil, is_silent;
		table.insert(self.over, session);
	end
end

-- All sessions are over.
function sightings:finish_all()
	for backend in pairs(self.sessions) do
		self:finish(backend, false);
	end
end

-- -> a sighting of a session that is over, the oldest one of that | nil: there is none
function sightings:next_over()
	while self.over[1] do
		local _, sighting = self.over[1].list:tail();
		if sighting then
			return sighting;
		end
		table.remove(self.over, 1);
	end
	return nil;
end

-- -> the sighting that has not been used for longest; there has to be one
local function oldest(self)
	while not self.in_order[self.first] do
		self.first = self.first + 1;
	end
	return self.in_order[self.first];
end

-- (max) -> a sighting of a session that is over, else the one that has not been used for longest, if there are more than
-- `max` or they hold too much | nil
function sightings:excess(max)
	if self.count <= max and self.bytes <= max * BYTES_EACH then
		return nil;
	end
	return self:next_over() or oldest(self);
end

return sightings;
