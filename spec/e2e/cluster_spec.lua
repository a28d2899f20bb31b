-- The target's server is a cluster of two nodes, which stop, are killed, hang and lose sight of each
-- other. What it tells Prosody then is not always true; requests must go to who can answer them.

local clustered = require "spec.support.clustered";
local service = require "spec.support.service";
local socket = require "socket";
local st = require "util.stanza";

local SOON = 5; -- seconds
local PATIENCE = 10; -- seconds
local PAUSE = 6; -- seconds that a server waits before it speaks to another one again

describe("a target on a cluster of two nodes", function ()
	local parties;

	local function start(options)
		parties = clustered.new(options);
		parties:start();
	end

	after_each(function ()
		parties:remove();
	end);

	local function assert_served_by(backends)
		assert.is_true(parties:are_served_by(backends));
	end

	it("is served by backends at both nodes", function ()
		start();
		local backends = parties:log_in_one_each();
		assert_served_by(backends);
	end);

	it("is served by those at the other node when one stops, and by both when it is back", function ()
		start();
		local backends = parties:log_in_one_each();
		assert_served_by(backends);
		for index, resource in ipairs { "a", "b" } do
			parties.nodes[index]:stop();
			backends[resource] = nil;
			parties:await_service(backends, SOON);
			parties.nodes[index]:start();
			backends[resource] = parties:log_in(index, resource)[resource];
			parties:await_service(backends, SOON);
		end
	end);

	for _, strategy in ipairs { "random", "primary" } do
		for _, place in ipairs { { 1, 1 }, { 2, 2 }, { 1, 2 }, { 2, 1 } } do
			local to, from = place[1], place[2];
			it(("with the strategy %s, is served by those at the other node when one is killed, with the stream to node %d, and that from %d")
				:format(strategy, to, from), function ()
				start { component = ("client_proxy_strategy = %q"):format(strategy) };
				parties:place_streams(to, from);
				local b = parties:log_in(2, "b").b; -- first of all, so that it is the primary
				local a = parties:log_in(1, "a").a;
				parties:await_service(strategy == "primary" and { b } or { a, b });

				parties.nodes[2]:kill();
				local seconds, failed = parties:await_service({ a });
				assert.is_true(seconds < SOON, ("%.1f s, %d failed"):format(seconds, failed));
				assert.same({ "a" }, parties:resources("ready"));

				parties.nodes[2]:start();
				b = parties:log_in(2, "b").b;
				parties:await_service(strategy == "primary" and { a } or { a, b }, SOON);
				parties:await_ready({ "a", "b" }, { a, b });
			end);
		end
	end

	it("gives gets that were under way at a node that is killed to the other, and sets back to their requester, soon", function ()
		start();
		parties:place_streams(1, 1);
		local b = parties:log_in(2, "b").b;
		parties:send_requests(20);
		parties:send_requests(20, "set");
		parties.await_requests(b, 40);
		local a = parties:log_in(1, "a").a;
		parties.nodes[2]:kill();
		local deadline = socket.gettime() + SOON;
		local results, errors = {}, {};
		repeat -- What is sent in the moment of its death is lost without a sign. By the next it can be seen that b has gone.
			assert.is_true(socket.gettime() < deadline);
			parties:send_requests(1);
			parties:work({ a }, 0.1, results, errors);
		until not next(parties.open);
		for number = 1, 20 do
			assert.is_true(results["get-"..number]);
			assert.equal("service-unavailable", errors["set-"..number + 20]);
		end
	end);

	it("gives gets that were under way to the other node when the streams end with the node", function ()
		start();
		parties:place_streams(2, 2);
		local b = parties:log_in(2, "b").b;
		parties:send_requests(20);
		parties:send_requests(20, "set");
		parties.await_requests(b, 40);
		local a = parties:log_in(1, "a").a;
		local start_time = socket.gettime();
		parties.nodes[2]:kill();
		local results, errors = parties:await_answers({ a });
		assert.is_true(socket.gettime() - start_time < SOON);
		for number = 1, 20 do
			assert.is_true(results["get-"..number]);
			assert.equal("service-unavailable", errors["set-"..number + 20]);
		end
	end);

	for _, from in ipairs { 1, 2 } do
		it(("is served by those at the node that can be reached when the nodes lose sight of each other, with the stream from node %d")
			:format(from), function ()
			start();
			parties:place_streams(1, from);
			local backends = parties:log_in_one_each();
			assert_served_by(backends);

			parties.cluster:split();
			local a, b = backends.a, backends.b;
			local seconds = parties:await_service({ a });
			assert.is_true(seconds < SOON, ("%.1f s"):format(seconds));
			assert.same({ "a" }, parties:resources("ready"));

			-- its presence still comes, but nothing reaches it
			b:send(st.presence():text_tag("status", "Here I am"));
			parties:await_presence("available", "b");
			assert.is_true(parties:await_service({ a }) < SOON);

			parties.cluster:heal();
			assert.is_true(parties:await_service({ a }) < SOON);
			b:send(st.presence():text_tag("status", "Here I am again"));
			parties:await_presence("available", "b");
			assert.is_true(parties:await_service({ a }) < SOON);

			parties.nodes[2]:stop();
			parties.nodes[2]:start();
			backends = { a, parties:log_in(2, "b").b };
			parties:await_service(backends, SOON);
		end);
	end

	it("is served by those at the other side when Prosody's stream comes to lead there", function ()
		start();
		parties:place_streams(1, 1);
		local backends = parties:log_in_one_each();
		parties.cluster:split();
		parties:await_service({ backends.a });
		local deadline = socket.gettime() + PATIENCE;
		while parties.nodes[2]:streams() == 0 do
			assert(socket.gettime() < deadline, "no stream leads to the other node");
			parties.nodes[1]:run("ejabberd_s2s:stop_s2s_connections()");
			socket.sleep(0.3); -- for a new one
		end
		assert.is_true(parties:await_service({ backends.b }, 30) < 2 * SOON);
		assert.same({ "b" }, parties:resources("ready"));
	end);

	it("is served by those at the other node when the one that Prosody's stream leads to hangs", function ()
		start();
		parties:place_streams(2, 1);
		local backends = parties:log_in_one_each();
		assert_served_by(backends);
		parties.nodes[2]:hang();
		local seconds = parties:await_service({ backends.a }, 120);
		assert.is_true(seconds < 100, ("%.1f s"):format(seconds)); -- it takes some new streams until one leads to the other
		parties.nodes[2]:continue();
		parties:await_service(backends, 30);
	end);

	it("is served again when the other node has seen that the one with both streams hangs", function ()
		start { tick = 8 };
		parties:place_streams(2, 2);
		local backends = parties:log_in_one_each();
		assert_served_by(backends);
		local log_size = #parties.server:log();
		parties.nodes[2]:hang();
		local seconds = parties:await_service({ backends.a }, 120);
		assert.is_true(seconds < 100, ("%.1f s"):format(seconds)); -- it takes some new streams until one leads to the other
		local log = parties.server:log():sub(log_size);
		assert.truthy(log:find("Nothing comes from the server of", 1, true));
		assert.falsy(log:find("log in a client", 1, true));
	end);

	it("is found again when the proxy's server starts while its own waits before it speaks to it", function ()
		start { retry_delay = 300 };
		local backends = parties:log_in_one_each();
		assert_served_by(backends);
		parties.server:stop("KILL");
		service.await_unreachable(backends.a);
		parties:start_server();
		socket.sleep(PAUSE);
		assert.falsy(parties.server:log():find("has not approved", 1, true));
		for _, node in ipairs(parties.nodes) do
			node:end_pause();
		end
		local seconds = parties:await_service(backends, 60);
		assert.is_true(seconds < 10, ("%.1f s"):format(seconds));
	end);

	it("is found again, with the backends of the node that waits for longer", function ()
		-- By a stream to the node that waits, nobody could be found: it answers there itself, in the name of the account.
		start { retry_delay = 300, streams = 2, reaches = 1 };
		local backends = parties:log_in_one_each();
		assert_served_by(backends);
		parties.server:stop("KILL");
		service.await_unreachable(backends.b);
		parties.nodes[1]:end_pause(); -- if that node has one, too
		parties:start_server();
		parties:await_service({ backends.a }, 30);
		socket.sleep(PAUSE);
		parties.nodes[2]:end_pause();
		local seconds = parties:await_service(backends, 60);
		assert.is_true(seconds < 10, ("%.1f s"):format(seconds));
	end);
end);
