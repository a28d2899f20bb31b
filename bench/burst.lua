-- A burst of deadlines: Prosody is stopped (SIGSTOP) while a hundred thousand
-- requests are pending, until all their deadlines have passed. How long is a
-- bystander kept waiting, who pings the server one time after the other, while
-- all of them are answered?
--
--     make bench

require "spec.support.paths";
local prosody = require "spec.support.prosody";
local service = require "spec.support.service";
local socket = require "socket";
local xmpp = require "spec.support.xmpp";

local REQUESTS = 100000;
local REQUESTERS = 4;
local TIMEOUT = 60; -- seconds, enough to send all of them before the first one's deadline

local function measure(server)
	server:start();
	local backend = service.backend(server, "a");
	local bystander = xmpp.client(server, "other-user", "some-domain.example", "bystander");
	local requesters = {};
	for number = 1, REQUESTERS do
		requesters[number] = service.requester(server, "requester-"..number);
	end

	local started = socket.gettime();
	for number = 1, REQUESTS do
		requesters[number % REQUESTERS + 1]:send(("<iq type='set' id='%d' to='%s'><q xmlns='urn:example:burst'/></iq>")
			:format(number, service.proxy));
		if number % 100 == 0 then
			backend:read(socket.gettime()); -- so that Prosody need not keep it
			backend.received = {};
		end
	end
	for _, requester in ipairs(requesters) do
		assert(#requester:sync(TIMEOUT) == 0, "a request was answered too early");
	end
	assert(socket.gettime() - started < TIMEOUT - 5, "the machine is too slow for this many requests");

	server:signal("STOP");
	socket.sleep(TIMEOUT + 1);
	server:signal("CONT");
	local resumed = socket.gettime();
	local pings, longest, answered = 0, 0, 0;
	while answered < REQUESTS do
		local before = socket.gettime();
		bystander:sync(TIMEOUT);
		longest = math.max(longest, socket.gettime() - before);
		pings = pings + 1;
		for _, requester in ipairs(requesters) do
			requester:read(socket.gettime());
			answered = answered + #requester.received;
			requester.received = {};
		end
	end
	print "# A burst of deadlines: seconds until all requests are answered that are due at once, how often a bystander";
	print "# pings the server meanwhile, and the longest of these pings in milliseconds";
	print(("# %9s %8s %8s %10s"):format("deadlines", "seconds", "pings", "longest_ms"));
	print(("  %9d %8.1f %8d %10.0f"):format(REQUESTS, socket.gettime() - resumed, pings, longest * 1000));
end

prosody.use({ hosts = prosody.usual_hosts
	..("client_proxy_max_pending_per_requester = %d; client_proxy_request_timeout = %d"):format(REQUESTS, TIMEOUT) }, measure);
