-- For chaos: what the owner of a target does meanwhile, who blocks one of the requesters for a while (XEP-0191),
-- as it is seen there.

local socket = require "socket";

local now, random = socket.gettime, math.random;

local blocking = {};
blocking.__index = blocking;

-- (chaos) -> blocking
function blocking.new(chaos)
	return setmetatable({ chaos = chaos, next_at = now() + 2 }, blocking);
end

local function addresses_of(requester)
	local list = {};
	for _, address in pairs(requester.seen_as) do
		table.insert(list, address);
	end
	table.sort(list);
	return list;
end

function blocking:block()
	local requester, party = self.chaos.requesters:any(), self.chaos.operator:serving();
	local addresses = addresses_of(requester);
	if addresses[1] and party:block(addresses, function () end) then
		requester.is_blocked = true;
		self.chaos.ledger.messages:excuse("blocked", requester.writer);
		self.chaos.ledger.backend_requests:excuse("blocked", requester.writer);
		self.chaos.ledger.presence:block(requester.writer, addresses);
		self.requester, self.party = requester, party;
		self.next_at = now() + 1 + random() * 3;
	end
end

function blocking:unblock()
	self.is_asked = self.party:unblock_all(function (ok)
		self.is_asked = false;
		if ok then
			self.requester.is_blocked, self.requester.last_blocked = false, now();
			self.requester = nil;
			self.next_at = now() + 2 + random() * 5;
		end
	end);
end

-- to be called ten times a second
function blocking:something_happens()
	if now() < self.next_at or self.is_asked or self.chaos.without.blocking then
		return;
	elseif self.requester then
		self:unblock();
	else
		self:block();
	end
end

-- to be called before the end, until it returns whether nobody is blocked any more
function blocking:finish()
	if self.requester and not self.is_asked then
		self:unblock();
	end
	return not self.requester;
end

return blocking;
