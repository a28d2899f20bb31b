-- For chaos: the directed presence of requesters to the service and to backends that have written to them, and of backends
-- to requesters. Each is available at a few addresses at a time, says so again, and says at times that it is so no more.

local requesters = require "spec.support.chaos.requesters";
local socket = require "socket";

local now, random = socket.gettime, math.random;

local MOST_SHOWN = 3; -- addresses at which each is available at the same time; of one account, backends see 32 at most
local REQUESTS_EACH = 5; -- as many requests there are for each presence
local MOST_AT_ONCE = 2; -- presences of requesters in a turn, and of backends
local MOST_AT_ONCE_BRISK = 6;

local showing = {};
showing.__index = showing;

-- (chaos) -> showing
function showing.new(chaos)
	return setmetatable({ chaos = chaos, ledger = chaos.ledger.presence }, showing);
end

-- -> the addresses at which that writer is available, in an order that chance alone decides
local function shown_by(writer)
	local list = {};
	for at, one in pairs(writer.shown) do
		if one.is_on then
			table.insert(list, at);
		end
	end
	table.sort(list);
	return list;
end

-- (writer, at, token): what that writer says next, to that address where it may be available at one more
function showing:next_of(writer, at, token)
	local list, time = shown_by(writer), now();
	if list[1] and (random(3) == 1 or #list >= MOST_SHOWN and not writer.shown[at]) then
		return self.ledger:ended(writer, list[random(#list)], time);
	elseif at then
		return self.ledger:shown(writer, at, time, token);
	end
end

function showing:may_show()
	return self.chaos:may_have_more(self.ledger.count, REQUESTS_EACH) and now() >= self.chaos.requesters.rests_until
		and not self.chaos.without.presence;
end

-- At a service address, or that of a backend that has written
local function any_address(requester)
	local heard = random(4) == 1 and requester.heard[random(#requester.heard + 1)];
	return heard or requesters.ADDRESSES[random(#requesters.ADDRESSES)];
end

function showing:show_requester(requester)
	local stanza = self:may_show() and self:next_of(requester.writer, any_address(requester));
	if stanza then
		requester.connection:send(tostring(stanza));
	end
end

-- To one of the tokens that it knows
function showing:show_backend(party, backend)
	local _, token = next(backend.tokens);
	token = backend.tokens[random(8)] or token;
	local stanza = token and party:can_answer(backend) and self:may_show() and self:next_of(backend.writer, token.address, token);
	if stanza then
		party:send(backend, stanza);
	end
end

-- (is_sending): to be called in each turn
function showing:step(is_sending)
	local count = self.chaos.is_brisk and MOST_AT_ONCE_BRISK or MOST_AT_ONCE;
	for _ = 1, is_sending and count or 0 do
		self:show_requester(self.chaos.requesters:any());
		local party = self.chaos.parties[random(10) == 1 and 2 or 1];
		local backend = party:any();
		if backend and not backend.hung then
			self:show_backend(party, backend);
		end
	end
end

function showing:backends()
	local list = self.chaos.parties[1]:all();
	return table.move(self.chaos.parties[2]:all(), 1, #self.chaos.parties[2]:all(), #list + 1, list);
end

-- to be called once a second
function showing:judge()
	self.ledger:judge(self:backends(), self.chaos.requesters.list, now());
end

-- to be called at the end: nobody is available any more.
function showing:finish()
	for _, requester in ipairs(self.chaos.requesters.list) do
		for _, at in ipairs(shown_by(requester.writer)) do
			requester.connection:send(tostring(self.ledger:ended(requester.writer, at, now())));
		end
	end
	for _, party in ipairs(self.chaos.parties) do
		for _, backend in ipairs(party:all()) do
			for _, at in ipairs(party:can_answer(backend) and shown_by(backend.writer) or {}) do
				party:send(backend, self.ledger:ended(backend.writer, at, now()));
			end
		end
	end
end

-- -> whether, after that, nobody believes it any more
function showing:has_finished()
	local writers = {};
	for _, list in ipairs { self:backends(), self.chaos.requesters.list } do
		for _, one in ipairs(list) do
			table.insert(writers, one.writer);
		end
	end
	return not self.ledger:is_believed_in_vain(writers);
end

return showing;
