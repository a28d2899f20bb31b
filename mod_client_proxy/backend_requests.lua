-- Requests that backends send to requesters, and their answers. They are never sent again, and each has one answer: the
-- requester's, or an error.
--
-- All that there is of a pending one is in a pending table of their own. There, the backend that has sent it is both the
-- requester, by whose full JID it is limited, and the backend, with which it goes. So an answer is looked up by whom it is for,
-- the address that it came to, and who has sent it.

local deadlines = module:require "deadlines";
local delivery = module:require "delivery";

local now = require "util.time".monotonic;

local send = delivery.send;

local backend_requests = {};
backend_requests.__index = backend_requests;

-- What stands for both the address that a requester answers to, and who that is: neither can have a line break in it.
local function answered_by(requester, address)
	return address.."\n"..requester;
end

-- Nobody waits for the answers any more. All that is done at once, as nobody is told, and nothing is sent: another session may
-- come under the same JID, and what is left in the table till then would end for that one.
local function on_backend_gone(self, backend)
	self.pending:abandon(backend);
	while self.pending:take_abandoned() do
		self.metrics:count("backend_requests_backend_gone");
	end
end

-- (setup) -> backend requests, which go on with what a reload has carried over
-- setup: { timeout (seconds), max_pending, max_pending_per_requester: the options of these names, where each backend is a
--          requester of its own; addresses, pending (a table for them alone, of a book that counts for each full JID),
--          failures, metrics, events (see mod_client_proxy.lua) }
function backend_requests.new(setup)
	local pending = setup.pending;
	pending:set_limits(setup.max_pending, setup.max_pending_per_requester);
	local self = setmetatable({
		timeout = setup.timeout, addresses = setup.addresses, pending = pending;
		failures = setup.failures, metrics = setup.metrics;
		deadlines = deadlines.new { pending = pending, failures = setup.failures };
		is_stopped = false, is_retired = false;
	}, backend_requests);
	setup.events.add_handler("backend-gone", function (backend) on_backend_gone(self, backend); end);
	return self;
end

-- (origin, stanza, requester): a resource of the target has sent a request to an address that stands for this requester.
function backend_requests:ask(origin, stanza, requester)
	local attr = stanza.attr;
	local backend, service, time = attr.from, attr.to, now();
	local address = self.addresses:of_backend(backend, service);
	if self.is_stopped or self.is_retired then
		return self.failures:refuse(origin, stanza, "unloaded");
	elseif not address then
		return self.failures:refuse(origin, stanza, "no-such-resource");
	end
	local deadline = time + self.timeout;
	local ok, failure = self.pending:add(backend, answered_by(requester, address), attr.id, backend, service, time, deadline);
	if not ok then
		return self.failures:refuse(origin, stanza, failure);
	end
	self.deadlines:watch(deadline);
	attr.from, attr.to = address, requester;
	send(stanza, requester);
end

-- (stanza) -> true: it was the answer to a request of a backend, which has got it | nil
function backend_requests:settle(stanza)
	local attr = stanza.attr;
	local backend = self.addresses:backend(attr.to);
	if not backend then
		return nil;
	end
	local _, service = self.pending:take(backend, answered_by(attr.from, attr.to), attr.id);
	if not service then
		return nil;
	end
	self.metrics:count(attr.type == "error" and "backend_requests_error" or "backend_requests_answered");
	attr.from, attr.to = service, backend;
	send(stanza, backend);
	return true;
end

-- (from, to, id) -> how many of them are pending that such an answer is for
function backend_requests:count_answered(from, to, id)
	local backend = self.addresses:backend(to);
	return backend and self.pending:count_answered(backend, answered_by(from, to), id) or 0;
end

-- Answers all that is pending, and refuses what still comes.
function backend_requests:stop()
	self.is_stopped = true;
	self.failures:give_up(self.pending, "unloaded");
end

-- To be called when the module goes, whether it is reloaded or not.
function backend_requests:retire()
	self.is_retired = true;
	self.deadlines:retire();
end

return backend_requests;
