-- Requests and messages between requesters and backends, at a steady rate, whatever becomes of them, and a record of what
-- does. For specs in which servers go and come meanwhile.
--
-- A requester asks, and every now and then writes, which begins a conversation: a backend replies, to that the requester, at the
-- address that the reply came from, and to that a backend once more. Now and then a backend that has got a request asks its
-- requester something. Each of these has an id of its own, by which it is known wherever it comes.

local service = require "spec.support.service";
local socket = require "socket";
local st = require "util.stanza";

local now = socket.gettime;

local RATE = 100; -- requests a second, of all requesters together
local SET_EACH = 5; -- requests, of which one is a set
local WRITE_EACH = 5; -- requests, for each of which there is a conversation
local ASK_EACH = 10; -- requests that backends get, for each of which a backend asks something
local ANSWER_AFTER = 0.3; -- seconds, so that some are always under way
local TURN = 0.01; -- seconds, at most
local LAST = 4; -- the number of a conversation's last message
local PATIENCE = 40; -- seconds

local traffic = {};
traffic.__index = traffic;

function traffic.new()
	return setmetatable({
		requesters = {}, backends = {}; -- lists of those who are connected
		requests = {}; -- those of requesters, in the order in which they were sent
		items = {}; -- by id
		count = 0; -- how many items there are
		arrived = 0; -- how many requests backends have got
		due = {}; -- what has to be answered: { at, party, stanza }
		violations = {}; -- what must never happen, in words
		due_before = 0; -- how many requests were due until the last pause
		on_presence = nil; -- (party, stanza), called with what comes, if it is set
	}, traffic);
end

local function violation(self, what, ...)
	table.insert(self.violations, what:format(...));
end

--
-- Who takes part
--

-- (connection, front, addresses) -> requester of that front, which asks at these addresses in turn
function traffic:add_requester(connection, front, addresses)
	local requester = { connection = connection, jid = connection.jid, front = front, addresses = addresses, count = 0 };
	table.insert(self.requesters, requester);
	return requester;
end

-- (connection, node) -> backend; `asked` in it is when it has got a request the last time
function traffic:add_backend(connection, node)
	local backend = { connection = connection, jid = connection.jid, node = node, is_backend = true, asked = 0 };
	table.insert(self.backends, backend);
	return backend;
end

-- Nothing comes from there any more, and nothing is sent there.
local function leave(self, party)
	party.is_gone = true;
	local list = party.is_backend and self.backends or self.requesters;
	for index = #list, 1, -1 do
		if list[index] == party then
			table.remove(list, index);
		end
	end
end

-- (party, stanza): a server that has just ended does not get it.
local function send(party, stanza)
	if not party.is_gone then
		pcall(party.connection.send, party.connection, stanza);
	end
end

--
-- Items: what somebody has sent
--

-- kind: "get", "set" (of a requester), "ask" (a get of a backend), "message"
-- receiver: the JID of the one who has that address, nil: whoever is chosen
local function new_item(self, sender, kind, address, receiver)
	self.count = self.count + 1;
	local item = {
		id = ("%s-%d"):format(kind, self.count), kind = kind, sender = sender, address = address, receiver = receiver;
		sent = now(), arrivals = {};
	};
	self.items[item.id] = item;
	return item;
end

local function request(self)
	local number = #self.requests + 1;
	local requester = self.requesters[number % #self.requesters + 1];
	requester.count = requester.count + 1;
	local address = requester.addresses[requester.count % #requester.addresses + 1];
	local item = new_item(self, requester, number % SET_EACH == 0 and "set" or "get", address);
	self.requests[number] = item;
	send(requester, service.request(item.id, address, item.kind));
end

-- A backend asks the requester something whose request it has got.
local function ask(self, backend, stanza, requester)
	local item = new_item(self, backend, "ask", stanza.attr.from, requester.jid);
	send(backend, service.request(item.id, item.address));
end

-- number: of the message in its conversation
local function write(self, sender, address, receiver, number)
	local item = new_item(self, sender, "message", address, receiver);
	item.number = number;
	send(sender, st.message({ type = "chat", id = item.id, to = address }, "hello"));
end

local function begin_conversation(self)
	local requester = self.requesters[math.random(#self.requesters)];
	write(self, requester, requester.addresses[math.random(#requester.addresses)], nil, 1);
end

-- (self, since): when the last pause was over
local function send_what_is_due(self, since)
	local due = self.due_before + (now() - since) * RATE;
	while #self.requests < due and self.requesters[1] do
		request(self);
		if #self.requests % WRITE_EACH == 0 then
			begin_conversation(self);
		end
	end
end

local function answer_what_is_due(self)
	while self.due[1] and self.due[1].at <= now() do
		local answer = table.remove(self.due, 1);
		send(answer.party, answer.stanza);
	end
end

--
-- What comes
--

-- What a backend sends is for one requester, what a requester sends is for a backend.
local function is_for(party, item)
	if item.sender.is_backend then
		return party.jid == item.receiver;
	end
	return party.is_backend;
end

local function arrive(self, party, item, stanza)
	if not is_for(party, item) then
		violation(self, "%s of %s has come to %s", item.id, item.sender.jid, party.jid);
	end
	table.insert(item.arrivals, { party = party, from = stanza.attr.from });
end

-- A request has come to a backend, or a backend's to a requester.
local function take_request(self, party, stanza)
	local item = self.items[stanza.attr.id];
	if item then -- else it is a ping of the proxy's
		arrive(self, party, item, stanza);
		party.asked = now();
		self.arrived = self.arrived + (party.is_backend and 1 or 0);
		if party.is_backend and self.arrived % ASK_EACH == 0 then
			ask(self, party, stanza, item.sender);
		end
	end
	table.insert(self.due, { at = now() + ANSWER_AFTER, party = party, stanza = st.reply(stanza) });
end

-- Whether what has come from there can be about the item: an error about a message may come from the bare address.
local function is_from_its_address(item, from)
	return from == item.address or item.kind == "message" and from == item.address:match("^[^/]*");
end

-- An answer, or an error about a message, has come to who sent what it is about.
local function end_item(self, party, stanza)
	local item = self.items[stanza.attr.id];
	if not item or item.sender.jid ~= party.jid then
		violation(self, "%s has come to %s, who has not asked", stanza:top_tag(), party.jid);
		return;
	end
	local outcome = stanza.attr.type == "result" and "result" or service.error_of(stanza);
	if item.outcome then
		violation(self, "%s has ended with %s, and then with %s", item.id, item.outcome, outcome);
	elseif not is_from_its_address(item, stanza.attr.from) then
		violation(self, "%s to %s was answered from %s", item.id, item.address, stanza.attr.from);
	end
	item.outcome = outcome;
end

local function take_message(self, party, stanza)
	if stanza.attr.type == "error" then
		end_item(self, party, stanza);
		return;
	end
	local item = self.items[stanza.attr.id];
	arrive(self, party, item, stanza);
	if item.number < LAST then
		write(self, party, stanza.attr.from, item.sender.jid, item.number + 1);
	end
end

local function take(self, party, stanza)
	local type = stanza.attr.type;
	if stanza.name == "message" then
		take_message(self, party, stanza);
	elseif stanza.name == "iq" and (type == "get" or type == "set") then
		take_request(self, party, stanza);
	elseif stanza.name == "iq" then
		end_item(self, party, stanza);
	elseif stanza.name == "presence" and self.on_presence then
		self.on_presence(party, stanza);
	end
end

local function take_in(self, party)
	local connection = party.connection;
	local ok = pcall(connection.read, connection, now());
	local received = connection.received;
	connection.received = {};
	for _, stanza in ipairs(received) do
		take(self, party, stanza);
	end
	if connection.closed or not ok then
		leave(self, party);
	end
end

local function read_all(self)
	local sockets, owners = {}, {};
	for _, list in ipairs { self.requesters, self.backends } do
		for _, party in ipairs(list) do
			table.insert(sockets, party.connection.socket);
			owners[party.connection.socket] = party;
		end
	end
	for _, readable in ipairs((socket.select(sockets, nil, TURN))) do
		take_in(self, owners[readable]);
	end
end

--
-- The course of time
--

-- Nothing new is requested, but all that is under way goes on.
local function turn(self)
	read_all(self);
	answer_what_is_due(self);
end

-- (is_over): requests, and lets everything go on, until that is true.
function traffic:flow_until(is_over)
	local since = now();
	repeat
		send_what_is_due(self, since);
		turn(self);
		assert(now() < since + PATIENCE, "it takes too long");
	until is_over();
	self.due_before = #self.requests;
end

-- (seconds): likewise, for so long.
function traffic:flow(seconds)
	local ending = now() + seconds;
	self:flow_until(function () return now() >= ending; end);
end

--
-- What has come of it
--

-- Whether it has been answered, or nobody is there any more to be answered
local function is_answered(item)
	return item.outcome ~= nil or item.sender.is_gone == true;
end

local function are_answered(self, since, asks_since)
	for _, item in pairs(self.items) do
		local must_be = item.kind ~= "message" and item.sent >= (item.kind == "ask" and asks_since or since);
		if must_be and not is_answered(item) then
			return false;
		end
	end
	return true;
end

-- (since, asks_since): everything goes on until the requests are answered that were sent since then, and those of backends that
-- were sent since `asks_since`: of these, one that is lost on its way to the proxy has no answer.
function traffic:settle(since, asks_since)
	local deadline = now() + PATIENCE;
	while not are_answered(self, since, asks_since) and now() < deadline do
		turn(self);
	end
end

local function is_well_answered(item)
	return item.outcome == "result" or item.sender.is_gone;
end

-- By kind: how an item that was not as it should be is called, nil if it was
local names = {};

-- A request that was refused has come to no backend: it has not been carried out.
function names.get(item)
	if not is_answered(item) then
		return "unanswered gets";
	elseif not is_well_answered(item) then
		return item.arrivals[1] and "failed gets" or "refused gets";
	end
end

function names.set(item)
	if not is_answered(item) then
		return "unanswered sets";
	elseif #item.arrivals > 1 then
		return "repeated sets";
	elseif not is_well_answered(item) then
		return item.arrivals[1] and "failed sets" or "refused sets";
	end
end

function names.ask(item)
	if not is_answered(item) then
		return "lost asks";
	elseif #item.arrivals > 1 then
		return "repeated asks";
	end
	return not is_well_answered(item) and "failed asks" or nil;
end

-- Whether nobody has got it twice
local function are_different(arrivals)
	local seen = {};
	for _, arrival in ipairs(arrivals) do
		if seen[arrival.party] then
			return false;
		end
		seen[arrival.party] = true;
	end
	return true;
end

function names.message(item)
	local first = item.arrivals[1];
	if first and item.outcome or not are_different(item.arrivals) then
		return "repeated messages";
	elseif item.arrivals[2] then
		return "shared messages"; -- several have got it, each of them once
	elseif item.outcome then
		return "refused messages";
	elseif first and item.receiver and first.party.jid ~= item.receiver then
		return "diverted messages"; -- another than the receiver has got it
	end
	return not first and not item.sender.is_gone and "lost messages" or nil;
end

-- (since, before) -> by what they are called, how many that were sent then were not as they should be, and how many were ("good");
-- how many gets there was more than one try for
function traffic:judge(since, before)
	local counts, retried = { good = 0 }, 0;
	for _, item in pairs(self.items) do
		if item.sent >= since and item.sent < before then
			local name = names[item.kind](item) or "good";
			counts[name] = (counts[name] or 0) + 1;
			retried = retried + (item.kind == "get" and item.arrivals[2] and 1 or 0);
		end
	end
	return counts, retried;
end

return traffic;
