-- For bench/: many who ask, and many who answer, in one process: epoll knows them all, as select() knows no more than
-- 1024. As in load.lua, patterns do for XML.

require "spec.support.paths";
local new_poll = require "util.poll".new;
local socket = require "socket";

local now = socket.gettime;

local PATIENCE = 20; -- seconds
-- A parser in a server may not look at the end of what has come until more comes. Another request makes more.
local NUDGE_AFTER = 0.1; -- seconds in which nothing has come
local PIECE = 65536; -- bytes that are read at a time

local REQUEST = "<iq type='get' id='%d' to='%s'><ping xmlns='urn:xmpp:ping'/></iq>";
local ANSWER = "<iq type='result' id='%s' to='%s'/>";

-- requesters: who asks, a list that may be replaced while nobody does; answered: how many requests have been, since the
-- beginning; counted: how many IQs have come to counters, and last: when the last of them did
local crowd = {};
crowd.__index = crowd;

function crowd.new()
	return setmetatable({
		poll = new_poll(), by_fd = {}, requesters = {}, count = 0, open = 0, answered = 0, counted = 0, is_asking = false;
	}, crowd);
end

-- (client) -> the attributes of each IQ that has come in whole, one with each call
local function read(client)
	client.socket:settimeout(0);
	local data, failure, partial = client.socket:receive(PIECE);
	assert(failure ~= "closed", "a server has closed a connection");
	data = client.unread..(data or partial);
	local rest = 1;
	return function ()
		local _, last, attributes = data:find("<iq ([^>]*)>", rest);
		rest = last and last + 1 or rest;
		if not last then -- of what is no IQ, presence say, only the last bytes can be the beginning of one
			client.unread = data:sub(math.max(rest, data:find("<[^<]*$") or #data + 1));
		end
		return attributes;
	end
end

local function attribute(attributes, name)
	return attributes:match("%f[%a]"..name.."=['\"]([^'\"]*)");
end

local function send(client, pieces)
	if #pieces > 0 then
		client.socket:settimeout(PATIENCE);
		assert(client.socket:send(table.concat(pieces)));
	end
end

local function add(self, connection, on_readable)
	local fd = connection.socket:getfd();
	local client = { socket = connection.socket, unread = connection.unread, on_readable = on_readable };
	self.by_fd[fd] = client;
	assert(self.poll:add(fd, true, false));
	return client;
end

-- It answers all that it is asked; whatever else comes to it is gone.
local function answer_all(_, client)
	local answers = {};
	for attributes in read(client) do
		local kind = attribute(attributes, "type");
		if kind == "get" or kind == "set" then
			table.insert(answers, ANSWER:format(attribute(attributes, "id"), attribute(attributes, "from")));
		end
	end
	send(client, answers);
end

local function request_of(self, requester)
	self.count, self.open = self.count + 1, self.open + 1;
	return REQUEST:format(self.count, requester.address);
end

-- For each answer that has come, it asks again.
local function ask_again(self, requester)
	local requests = {};
	for attributes in read(requester) do
		assert(attribute(attributes, "type") == "result", "a request failed: "..attributes);
		self.answered, self.open = self.answered + 1, self.open - 1;
		if self.is_asking then
			table.insert(requests, request_of(self, requester));
		end
	end
	send(requester, requests);
end

-- It counts the IQs that come.
local function count_all(self, client)
	for _ in read(client) do
		self.counted, self.last = self.counted + 1, now();
	end
end

-- (connection): from now on, the IQs that come to it are counted, and nothing else happens to them.
function crowd:add_counter(connection)
	add(self, connection, count_all);
end

-- (connection): of a backend (spec/support/xmpp.lua), to which this belongs from now on
function crowd:add_backend(connection)
	add(self, connection, answer_all);
end

-- (connection, address) -> requester, likewise, and whom it asks if it is among `requesters`
function crowd:new_requester(connection, address)
	local requester = add(self, connection, ask_again);
	requester.address = address;
	return requester;
end

-- Handles what has come, waiting for it no longer than `seconds`. -> whether anything had
function crowd:turn(seconds)
	local fd = self.poll:wait(seconds);
	if type(fd) ~= "number" then
		return false;
	end
	local client = self.by_fd[fd];
	client.on_readable(self, client);
	return true;
end

local function ask_some(self, in_flight)
	for number = 1, in_flight do
		local requester = self.requesters[(number - 1) % #self.requesters + 1];
		send(requester, { request_of(self, requester) });
	end
end

-- Goes on until `deadline` or, if that comes first, until is_done() is true.
local function go_on(self, deadline, is_done)
	local last = now();
	repeat
		if self:turn(NUDGE_AFTER) then
			last = now();
		elseif self.open > 0 then
			assert(now() - last < PATIENCE, "no answers come");
			ask_some(self, #self.requesters);
		end
	until now() >= deadline or is_done and is_done();
end

-- From now on, so many requests are under way all the time, which the requesters share.
function crowd:ask(in_flight)
	self.is_asking = true;
	ask_some(self, in_flight);
end

-- (seconds) -> how many requests were answered meanwhile
function crowd:work(seconds)
	local before = self.answered;
	go_on(self, now() + seconds);
	return self.answered - before;
end

-- Waits until everything has been answered; nobody asks any more.
function crowd:finish()
	self.is_asking = false;
	go_on(self, math.huge, function () return self.open == 0; end);
end

-- (is_done): works until that is true, which is looked at whenever nothing has come for a while
function crowd:await(is_done)
	local deadline = now() + 10 * PATIENCE;
	repeat
		assert(now() < deadline, "what was awaited has not happened in time");
		while self:turn(NUDGE_AFTER) do end
	until is_done();
end

return crowd;
