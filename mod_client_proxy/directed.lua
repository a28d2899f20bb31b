-- Directed presence (RFC 6121 section 4.6): of requesters to the backend that their messages go to, and of backends to
-- requesters. Whoever has somebody's `available` gets one `unavailable` in the end, whatever goes: the one who sent it, the
-- module or the room for it.
--
-- Sending can call back anything. So whoever has been seen is recorded before that is told, and forgotten before its end is.

local addresses = module:require "addresses";
local presence = module:require "presence";
local sightings = module:require "sightings";
local send = module:require "send_presence";
local slices = module:require "slices";

local st = require "util.stanza";

-- How many requesters of one bare JID backends see at most
local MAX_PER_BARE = 32;

local directed = {};
directed.__index = directed;

-- -> what is to be sent on: the server that has sent the stanza may go on to send it to others.
local function copy(stanza, sighting)
	local copied = st.clone(stanza);
	copied.attr.from, copied.attr.to = sighting.from, sighting.to;
	return copied;
end

-- (being_sent, sighting, stanza): this is sent. While one is being sent from the same address to the same receiver, the last
-- of those that come in between is sent after it, so that what has come last is what the receiver has last.
local function say(being_sent, sighting, stanza)
	local key = sighting.from.."\0"..sighting.to;
	local current = being_sent[key];
	if current then
		current.following = stanza;
		return;
	end
	current = { following = stanza };
	being_sent[key] = current;
	while current.following do
		stanza, current.following = current.following, nil;
		send(stanza);
	end
	being_sent[key] = nil;
end

local function unavailable(sighting)
	return st.presence({ type = "unavailable", from = sighting.from, to = sighting.to });
end

-- The sighting ends, if it has not ended yet. stanza: what tells that, nil: one of our own
local function finish(being_sent, list, sighting, stanza)
	if list:remove(sighting) then
		say(being_sent, sighting, stanza and copy(stanza, sighting) or unavailable(sighting));
	end
end

-- Ends a sighting if there are too many. -> whether there may be more
local function evict(self, list)
	local sighting = list:excess(self.max);
	if sighting then
		finish(self.being_sent, list, sighting);
	end
	return sighting ~= nil;
end

-- Ends what is too much after one has been added, which is little, unless a reload has lowered the limit: then the rest is
-- left to the slices.
local function make_room(self, list)
	for _ = 1, slices.SIZE do
		if not evict(self, list) then
			return;
		end
	end
	self.working:start();
end

-- Takes the sightings out of the list that a new one takes the place of. -> a list of those whose end is to be told
local function replace(list, sighting, same, before)
	local ended = {};
	if same and list:remove(same) and same.from ~= sighting.from then
		table.insert(ended, same);
	end
	if before and list:remove(before) then
		table.insert(ended, before);
	end
	return ended;
end

-- (self, list, sighting, stanza): somebody is seen, be it anew.
-- sighting: a new one, without what sightings.lua keeps in it; stanza: the `available` that has come
local function see(self, list, sighting, stanza)
	local same = list:find(sighting.requester, sighting.service, sighting.backend);
	local before = list:find_sent(sighting.sender, sighting.at); -- another backend's, unless it is the same one
	if not same and not before and list:count_of(sighting.requester) >= list.max_per_bare then
		return;
	end
	local ended = replace(list, sighting, same, before);
	list:add(sighting);
	for _, other in ipairs(ended) do
		say(self.being_sent, other, unavailable(other));
	end
	make_room(self, list);
	if list:is_due(sighting) then -- all that was sent may have changed that
		say(self.being_sent, sighting, copy(stanza, sighting));
	end
end

-- A requester has become available, or goes on to be, for a service address. It goes to the same backend as before, as long as
-- that is one.
local function available_to_backend(self, stanza, backend)
	local attr = stanza.attr;
	if self.is_allowed and not self.is_allowed(attr.from) then
		return;
	end
	local before = self.to_backends:find_sent(attr.from, attr.to);
	if not backend and before and self.pool:state(before.backend) then
		backend = before.backend;
	end
	local chosen, address = self.exchange:address(attr.from, attr.to, backend);
	if chosen then
		see(self, self.to_backends, {
			requester = attr.from, service = (addresses.split_resource(attr.to)), backend = chosen;
			from = address, to = chosen, sender = attr.from, at = attr.to;
		}, stanza);
	end
end

-- A requester is available no longer: at the address that it says, or if that is bare, at all of that service. There, a
-- server may leave out those that it has told of an account's presence before (RFC 6121 section 4.6.3).
local function unavailable_to_backend(self, stanza)
	local from, at = stanza.attr.from, stanza.attr.to;
	local service, resource = addresses.split_resource(at);
	for _, sighting in ipairs(self.to_backends:of_requester(from, service)) do
		if not resource or sighting.at == at then
			finish(self.being_sent, self.to_backends, sighting, stanza);
		end
	end
end

local function available_to_requester(self, stanza, requester)
	local attr = stanza.attr;
	local address = self.addresses:of_backend(attr.from, attr.to);
	if address and requester then
		see(self, self.to_requesters, {
			requester = requester, service = (addresses.split_resource(attr.to)), backend = attr.from;
			from = address, to = requester, sender = attr.from, at = attr.to;
		}, stanza);
	end
end

-- A backend is available no longer for a requester, who may be forgotten: then the address tells who it was.
local function unavailable_to_requester(self, stanza, requester)
	local attr = stanza.attr;
	local list = self.to_requesters;
	local sighting = requester and list:find(requester, (addresses.split_resource(attr.to)), attr.from)
		or list:find_sent(attr.from, attr.to);
	if sighting then
		finish(self.being_sent, list, sighting, stanza);
	end
end

-- By the direction, and the type ("available" where there is none): (self, stanza, whom it is for), see presence.lua
local carry_out = {
	["to-backend"] = { available = available_to_backend, unavailable = unavailable_to_backend };
	["to-requester"] = { available = available_to_requester, unavailable = unavailable_to_requester };
};

-- Of an instance that has been stopped, or that a reload has interrupted, nobody is seen any more: it could be that nobody would
-- tell the end of that. But whatever ends goes on to be told.
local function pass_on(self, stanza)
	local type = stanza.attr.type or "available";
	local direction, whom = presence.direction(stanza, self.addresses);
	if direction and not (type == "available" and (self.is_stopped or self.is_retired)) then
		carry_out[direction][type](self, stanza, whom);
	end
end

-- An error has come to an address from which a requester has had presence: it sees nobody there, so no end is due.
local function on_unreachable(self, stanza)
	local attr = stanza.attr;
	local backend = self.addresses:backend(attr.to);
	local sighting = backend and self.to_requesters:find(attr.from, (addresses.split_resource(attr.to)), backend);
	if sighting then
		self.to_requesters:remove(sighting);
	end
end

local function lists_of(self)
	return ipairs { self.to_backends, self.to_requesters };
end

-- Does a slice: ends what is over, or too much. -> whether there is more
local function work(self)
	for _ = 1, slices.SIZE do
		local has_more = false;
		for _, list in lists_of(self) do
			local sighting = list:next_over();
			if sighting then
				finish(self.being_sent, list, sighting);
			end
			has_more = sighting or evict(self, list) or has_more;
		end
		if not has_more then
			return false;
		end
	end
	return true;
end

-- Requesters who have seen it see it go. If nobody says that its session is over, it may come back and have seen
-- requesters itself: they are remembered until they go, or until on_went.
local function on_gone(self, backend)
	self.to_requesters:finish(backend, false);
	self.working:start();
end

-- Its session is over: it has seen nobody any more.
local function on_went(self, backend)
	self.to_backends:finish(backend, true);
	self.working:start();
end

local function add_handlers(self, events)
	events.add_handler("backend-gone", function (backend) on_gone(self, backend); end);
	events.add_handler("backend-went", function (backend) on_went(self, backend); end);

	-- For presence/host, presence/bare, presence/full
	function self.on_presence(event)
		local kind = presence.kind(event.stanza, self.target);
		if kind == "directed" then
			pass_on(self, event.stanza);
		elseif kind == "recipient-unreachable" then
			on_unreachable(self, event.stanza);
		else
			return;
		end
		return true;
	end
end

-- What a reload has carried over goes on, but what is of the account that was the target before: they are other people's
-- clients now. The reload may also have interrupted somebody who was about to tell that a backend has gone.
local function take_over(self, keeps_target)
	if not keeps_target then
		self.to_backends:finish_all();
	end
	for backend in pairs(self.to_requesters.sessions) do
		if not self.pool:state(backend) then
			self.to_requesters:finish(backend, false);
		end
	end
	self.working:start();
end

-- (setup) -> directed, with the handler for presence events
-- setup: { target (the prepared bare JID), max (how many are seen, at most, in each direction), addresses, exchange, pool,
--          events (see mod_client_proxy.lua),
--          is_allowed(jid): whether that one may use the service, nil: anybody may;
--          saved (what save() returned before a reload, or nil), keeps_target (whether that was of the same target) }
function directed.new(setup)
	local saved = setup.saved or {};
	local self = setmetatable({
		target = setup.target, max = setup.max;
		addresses = setup.addresses, exchange = setup.exchange, pool = setup.pool, is_allowed = setup.is_allowed;
		to_backends = sightings.new(MAX_PER_BARE, saved.to_backends); -- requesters whom backends see
		to_requesters = sightings.new(math.huge, saved.to_requesters); -- backends whom requesters see
		being_sent = saved.being_sent or {}; -- by address and receiver: { following (what is to be sent after it, or nil) }
		is_stopped = false, is_retired = false;
	}, directed);
	self.working = slices.new(function () return work(self); end);
	add_handlers(self, setup.events);
	take_over(self, setup.keeps_target);
	return self;
end

-- (saved): what save() has returned ends at once, as nobody takes it over.
function directed.give_up(saved)
	for _, list in ipairs { saved.to_backends, saved.to_requesters } do
		list:finish_all();
		local sighting = list:next_over();
		while sighting do
			finish(saved.being_sent, list, sighting);
			sighting = list:next_over();
		end
	end
end

-- Everybody who has been seen is seen to go, and nobody is seen any more. To be called when the module goes for good.
function directed:stop()
	self.is_stopped = true;
	directed.give_up(self:save());
end

-- To be called when the module goes, whether it is reloaded or not.
function directed:retire()
	self.is_retired = true;
	self.working:retire();
end

-- -> what a reload has to carry over
function directed:save()
	return { to_backends = self.to_backends, to_requesters = self.to_requesters, being_sent = self.being_sent };
end

return directed;
