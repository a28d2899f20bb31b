-- For bench/: requests from one client, answered by another, with as little work on this side as can be:
-- what is read was written here or by Prosody, so that patterns do for XML.

local socket = require "socket";

local PATIENCE = 10; -- seconds
-- Expat in the server may not look at the end of what has come until more comes.
local NUDGE_AFTER, NUDGE = 0.05, (" "):rep(2048);

local load = {};
load.__index = load;

-- (requester, backend, address) -> load
-- requester, backend: connections of spec/support/xmpp.lua; address: whom to ask
function load.new(requester, backend, address)
	return setmetatable({
		requester = { socket = requester.socket, unread = "" },
		backend = { socket = backend.socket, unread = "" },
		address = address, count = 0, sent_at = {},
	}, load);
end

local function send(client, data)
	client.socket:settimeout(PATIENCE);
	assert(client.socket:send(data));
end

-- The attributes of each IQ that has come in whole
local function read(client)
	client.socket:settimeout(0);
	local data, failure, partial = client.socket:receive(65536);
	assert(failure ~= "closed", "Prosody has closed the connection");
	data = client.unread..(data or partial);
	local rest = 1;
	local function next_iq()
		local _, last, attributes = data:find("<iq([^>]*)>", rest);
		rest = last and last + 1 or rest;
		client.unread = data:sub(rest);
		return attributes;
	end
	return next_iq;
end

local function attribute(attributes, name)
	return attributes:match(" "..name.."='([^']*)'");
end

-- Sends one more request.
function load:ask()
	self.count = self.count + 1;
	local id = ("%d"):format(self.count);
	self.sent_at[id] = socket.gettime();
	send(self.requester, ("<iq type='get' id='%s' to='%s'><ping xmlns='urn:xmpp:ping'/></iq>"):format(id, self.address));
end

-- The backend answers what has come to it.
function load:answer()
	local answers = {};
	for request in read(self.backend) do
		table.insert(answers, ("<iq type='result' id='%s' to='%s'/>"):format(attribute(request, "id"), attribute(request, "from")));
	end
	send(self.backend, table.concat(answers));
end

-- (times): appends the seconds that each request took whose answer has come, which is to be a result
function load:collect(times)
	for answer in read(self.requester) do
		local id = attribute(answer, "id");
		assert(attribute(answer, "type") == "result", "a request failed");
		table.insert(times, socket.gettime() - self.sent_at[id]);
		self.sent_at[id] = nil;
	end
end

-- Answers and collects what has come, waiting for it no longer than `timeout` seconds. -> whether anything had
function load:work(times, timeout)
	local readable = socket.select({ self.requester.socket, self.backend.socket }, nil, timeout);
	if readable[self.backend.socket] then
		self:answer();
	end
	if readable[self.requester.socket] then
		self:collect(times);
	end
	return #readable > 0;
end

-- Likewise, but waits until something has come.
function load:await(times)
	local deadline = socket.gettime() + PATIENCE;
	while not self:work(times, NUDGE_AFTER) do
		assert(socket.gettime() < deadline, "no answers come");
		send(self.requester, NUDGE);
		send(self.backend, NUDGE);
	end
end

-- (count, in_flight) -> the seconds that each of so many requests took, and that all took;
-- there are always so many under way, as long as there are as many left
function load:run(count, in_flight)
	local times, asked, started = {}, 0, socket.gettime();
	while #times < count do
		while asked < count and asked - #times < in_flight do
			self:ask();
			asked = asked + 1;
		end
		self:await(times);
	end
	return times, socket.gettime() - started;
end

return load;
