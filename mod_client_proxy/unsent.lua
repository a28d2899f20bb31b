-- Requests that wait for a stream to another server. Until that is authenticated, mod_s2s keeps what is for it in a queue, and then
-- sends all of it, however long it has been there: a backend would begin what its requester has long been told has failed. So the
-- requests for whose answer nobody waits any more are taken out before; and now and then meanwhile, as they hold memory, and in
-- Prosody 13 keep others out of a queue that is full. All else stays as it is, in its order: messages and presence have no deadline.
--
-- A queue does not say when a request has come. If several are to have the same answer, those that are waited for came last.

local timers = module:require "timers";

local find = string.find;

local PAUSE = 5; -- seconds until a queue is looked through again, and as many more for each
local MANY = 5000; -- elements in it, as that takes time

local UNAUTHENTICATED = "s2sout_unauthed"; -- the type of a stream to another server until it is authenticated

local IS_REQUEST = { get = true, set = true };

local unsent = {};
unsent.__index = unsent;

-- Prosody 13 has its own kind of queue (util.queue) of stanzas. In 0.12, it is a list of { the text of one, the reply to it or false }.

local function elements(queue)
	if queue.items then
		return queue:items();
	end
	return ipairs(queue);
end

-- (element) -> from, to, id of the answer | nil: it is no request
local function answer_to(element)
	local attr = element.attr;
	if attr then
		if element.name == "iq" and IS_REQUEST[attr.type] then
			return attr.to, attr.from, attr.id;
		end
	elseif element[2] and element[2].name == "iq" then
		attr = element[2].attr;
		return attr.from, attr.to, attr.id;
	end
end

-- (element) -> what is the same for all requests with the same answer | nil: it is none that was passed on; and from, to, id
-- of that answer. What the proxy asks itself, a ping say, comes from an address without a resource.
local function key_of(element)
	local from, to, id = answer_to(element);
	if id and find(to, "/", 1, true) then
		return from.."\n"..to.."\n"..id, from, to, id;
	end
end

local function remove_if(queue, is_unwanted)
	if queue.pop then
		for _ = 1, queue:count() do
			local element = queue:pop();
			if not is_unwanted(element) then
				queue:push(element);
			end
		end
		return;
	end
	local kept = 0;
	for position = 1, #queue do
		local element = queue[position];
		queue[position] = nil;
		if not is_unwanted(element) then
			kept = kept + 1;
			queue[kept] = element;
		end
	end
end

-- (self, from, to, id) -> for how many requests somebody waits for that answer. None is both a requester's and a backend's.
local function count_awaited(self, from, to, id)
	local count = self.pending:count_answered(from, to, id);
	return count > 0 and count or self.backend_requests:count_answered(from, to, id);
end

-- -> how many are to be taken out, and how many of those there are by key, where that is above 0
local function count_surplus(self, queue)
	local surplus, sum = {}, 0;
	for _, element in elements(queue) do
		local key, from, to, id = key_of(element);
		if key then
			local count = surplus[key] or -count_awaited(self, from, to, id);
			surplus[key] = count + 1;
			sum = sum + (count >= 0 and 1 or 0);
		end
	end
	return sum, surplus;
end

-- (stream): one of ours to another server
local function sweep(self, stream)
	local queue = stream.sendq;
	if not queue then
		return;
	end
	local sum, surplus = count_surplus(self, queue);
	if sum == 0 then
		return;
	end
	remove_if(queue, function (element)
		local key = key_of(element);
		local count = key and surplus[key] or 0;
		if count > 0 then
			surplus[key] = count - 1;
		end
		return count > 0;
	end);
	module:log("debug", "%d requests to %s are not sent any more: nobody waits for their answers", sum, stream.to_host);
end

local function pause_of(stream)
	local queue = stream.sendq;
	local length = queue and (queue.count and queue:count() or #queue) or 0;
	return PAUSE * (1 + length // MANY);
end

local function watch(self, stream)
	self.timers:set(stream, pause_of(stream), function ()
		if stream.type == UNAUTHENTICATED then
			watch(self, stream);
			sweep(self, stream);
		end
	end);
end

local function streams()
	return pairs(prosody.hosts[module.host].s2sout);
end

-- (setup) -> unsent, which goes on with the streams that a reload has left
-- setup: { pending, backend_requests: both know what is waited for }
function unsent.new(setup)
	local self = setmetatable({ pending = setup.pending, backend_requests = setup.backend_requests, timers = timers.new() }, unsent);
	module:hook("s2sout-created", function (event) watch(self, event.session); end);
	module:hook("s2sout-established", function (event) sweep(self, event.session); end); -- before the queue is sent
	for _, stream in streams() do
		watch(self, stream);
	end
	return self;
end

-- All that was pending has been answered.
function unsent:stop()
	for _, stream in streams() do
		sweep(self, stream);
	end
end

-- To be called when the module goes, whether it is reloaded or not.
function unsent:retire()
	self.timers:retire();
end

return unsent;
