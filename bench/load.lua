-- For bench/: requests from one client, or from some in turn, answered by another, with as little work on this side as
-- can be: what is read was written here or by Prosody, so that patterns do for XML.

local socket = require "socket";

local PATIENCE = 10; -- seconds
-- Expat in the server may not look at the end of what has come until more comes.
local NUDGE = (" "):rep(2048);
local NUDGE_AFTER = 0.05; -- seconds in which nothing has come

local load = {};
load.__index = load;

local function new_client(connection)
	return { socket = connection.socket, unread = "" };
end

-- (requesters, backend, address, options) -> load
-- requesters, backend: a list of connections of spec/support/xmpp.lua, and one; address: whom to ask
-- options: payload (of each answer, XML), nudge_after (seconds), patience (likewise); may be nil
function load.new(requesters, backend, address, options)
	options = options or {};
	local self = setmetatable({
		requesters = {}, by_socket = {}, backend = new_client(backend), address = address, count = 0, sent_at = {};
		answer = "<iq type='result' id='%s' to='%s'>"..(options.payload or "").."</iq>";
		nudge_after = options.nudge_after or NUDGE_AFTER, patience = options.patience or PATIENCE;
	}, load);
	self.sockets = { backend.socket };
	for number, requester in ipairs(requesters) do
		self.requesters[number] = new_client(requester);
		self.by_socket[requester.socket] = self.requesters[number];
		table.insert(self.sockets, requester.socket);
	end
	return self;
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
	local requester = self.requesters[self.count % #self.requesters + 1];
	send(requester, ("<iq type='get' id='%s' to='%s'><ping xmlns='urn:xmpp:ping'/></iq>"):format(id, self.address));
end

-- The backend answers what has come to it.
function load:answer_all()
	local answers = {};
	for request in read(self.backend) do
		table.insert(answers, self.answer:format(attribute(request, "id"), attribute(request, "from")));
	end
	send(self.backend, table.concat(answers));
end

-- (requester, times): appends the seconds that each request of its took whose answer has come, which is to be a result
function load:collect(requester, times)
	for answer in read(requester) do
		local id = attribute(answer, "id");
		assert(attribute(answer, "type") == "result", "a request failed");
		table.insert(times, socket.gettime() - self.sent_at[id]);
		self.sent_at[id] = nil;
	end
end

-- Answers and collects what has come, waiting for it no longer than `timeout` seconds. -> whether anything had
function load:work(times, timeout)
	local readable = socket.select(self.sockets, nil, timeout);
	for _, which in ipairs(readable) do
		if which == self.backend.socket then
			self:answer_all();
		else
			self:collect(self.by_socket[which], times);
		end
	end
	return #readable > 0;
end

-- Likewise, but waits until something has come.
function load:await(times)
	local deadline = socket.gettime() + self.patience;
	while not self:work(times, self.nudge_after) do
		assert(socket.gettime() < deadline, "no answers come");
		send(self.backend, NUDGE);
		for _, requester in ipairs(self.requesters) do
			send(requester, NUDGE);
		end
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
