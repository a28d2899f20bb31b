-- Two fronts, of each Prosody that there is, before a target on a cluster of two nodes. Nodes and fronts stop, die, lose sight of
-- each other and come back, one after the other, while requests and messages go both ways. Each request has one answer, no set
-- and no message is repeated, and each case says what else may become of them meanwhile.

local fronts_of_spec = require "spec.support.fronts";
local new_traffic = require "spec.support.traffic".new;
local prosody = require "spec.support.prosody";
local throwaway = require "spec.support.throwaway";
local xmpp = require "spec.support.xmpp";
local socket = require "socket";
local st = require "util.stanza";

local now = socket.gettime;

local USERS = { "user-1", "user-2", "user-3" }; -- at each front
local RETRIES = 3;
local PATIENCE = 60; -- seconds: ejabberd gives a stream that is not authenticated up after 30
local STEADY = 1; -- seconds

local own, another = table.unpack(prosody.roots());

-- (list, ...) -> by name: true, of all names in these lists
local function any_of(...)
	local names = {};
	for _, list in ipairs { ... } do
		for _, name in ipairs(list) do
			names[name] = true;
		end
	end
	return names;
end

-- What a stream had taken that ends with its node is lost, whichever backend it was for or from. Only gets are sent again.
local IN_A_BROKEN_STREAM = { "refused sets", "failed sets", "lost asks", "lost messages" };

-- Until the proxy knows that a session has ended, the server refuses what is for it, in its name: that can be the backend's own
-- word, so it is passed on. A message the server gives to the other backends (RFC 6121 section 8.5.3.2.1), or the proxy, once it
-- knows. A set that the session had got is not sent again.
local OF_AN_ENDED_SESSION = { "refused gets", "refused sets", "failed sets", "shared messages", "diverted messages" };

-- Where no backend is left, there is nobody to whom a get could be sent again.
local OF_NOBODY = { "refused gets", "failed gets", "refused sets", "failed sets", "refused messages" };

-- A front that stops refuses what backends have asked its users, and what was under way to them is lost. When it is back, its users
-- are so before it has found the backends.
local OF_A_STOPPED_FRONT = { "failed asks", "lost asks", "lost messages", "refused gets", "refused sets", "refused messages" };

describe("requests and messages", function ()
	local fronts, traffic;

	local function addresses(front)
		return {
			fronts.proxy("usual", front), fronts.proxy("by-sender", front), fronts.proxy("by-priority", front);
			"room@"..fronts.proxy("by-recipient", front);
		};
	end

	local function log_in_users(front)
		for _, user in ipairs(USERS) do
			local connection = xmpp.client(fronts.servers[front], user, ("front-%d.example"):format(front), "abc");
			traffic:add_requester(connection, front, addresses(front));
		end
	end

	-- All backends of that node, or of all nodes if nil
	local function log_in_backends(node)
		for resource, place in pairs(fronts.places) do
			if place == (node or place) then
				traffic:add_backend(fronts:log_in(resource, place), place);
			end
		end
	end

	local function backends_of(node)
		local list = {};
		for _, backend in ipairs(traffic.backends) do
			if backend.node == node then
				table.insert(list, backend);
			end
		end
		return list;
	end

	-- (only): until all proxies have all backends that there are, and no others; see fronts:are_ready()
	local function flow_until_ready(only)
		local deadline = now() + PATIENCE;
		local ready, failure;
		repeat
			assert(now() < deadline, failure);
			traffic:flow(0.2);
			ready, failure = fronts:are_ready(#traffic.backends, #traffic.backends, only);
		until ready;
	end

	-- Stops a node or a front, in good order or by a signal.
	local function stop(server, signal)
		server:signal(signal or "TERM");
		traffic:flow_until(function () return server:has_ended(); end);
		server:stop("KILL");
	end

	-- Starts them together: a node that has stopped before the other waits for that one.
	local function start(...)
		for _, server in ipairs { ... } do
			server:begin_start();
		end
		for _, server in ipairs { ... } do
			traffic:flow_until(function () return throwaway.is_listening(server.c2s_port); end);
			server:await_started();
		end
	end

	-- Its backends come back when it is known that they have gone: who comes back before, under the same name, is taken for one
	-- that has been there all the time. Where they get nothing, as the strategy prefers others, nobody notices that they go.
	local function start_node(node)
		flow_until_ready "usual";
		start(fronts.nodes[node]);
		log_in_backends(node);
	end

	local function log_out(backend)
		backend.connection:send("</stream:stream>");
		traffic:flow_until(function () return backend.is_gone; end);
	end

	setup(function ()
		fronts = fronts_of_spec.new({ own, another or own }, "a cluster", { users = USERS, log_level = "info", retries = RETRIES });
		fronts:start { "a", "b", "c", "d" }; -- a and c at the first node
		traffic = new_traffic();
		for front in ipairs(fronts.servers) do
			log_in_users(front);
		end
		for resource, backend in pairs(fronts.backends) do
			traffic:add_backend(backend, fronts.places[resource]);
		end
		traffic:flow(STEADY);
	end);

	teardown(function ()
		fronts:remove();
	end);

	local function serve_all(since)
		for _, backend in ipairs(traffic.backends) do
			if backend.asked < since then
				return false;
			end
		end
		return true;
	end

	-- (since): from now on, all that is sent is as it should be, and all backends serve. What was sent since then is settled after that.
	-- -> now, as it was at the beginning
	local function assert_calm(since)
		local calm = now();
		traffic:flow(STEADY);
		traffic:flow_until(function () return serve_all(calm); end);
		local ending = now();
		traffic:settle(since, calm);
		assert.is_nil(traffic.violations[1]);
		local counts = traffic:judge(calm, ending);
		assert.same({ good = counts.good }, counts);
		return calm;
	end

	-- (happen, may_be): while that happens, and until all is well again, what was sent may be what `may_be` has, and nothing
	-- else. -> for how many gets there was more than one try
	local function assert_outlasted(happen, may_be)
		local since = now();
		traffic:flow(STEADY); -- so that something is under way
		happen();
		flow_until_ready();
		local calm = assert_calm(since);
		local counts, retried = traffic:judge(since, calm);
		for name, count in pairs(counts) do
			assert.is_true(name == "good" or may_be[name] or false, ("%d %s, %d good"):format(count, name, counts.good));
		end
		return retried;
	end

	-- The address that a backend sees a requester as, as it was in the last request to the usual proxy
	local function address_of(requester)
		for index = #traffic.requests, 1, -1 do
			local item = traffic.requests[index];
			if item.sender == requester and item.address == requester.addresses[1] and item.arrivals[1] then
				return item.arrivals[1].from;
			end
		end
	end

	-- (node) -> function: all backends of that node show themselves to all requesters. The function, called when they have gone, says
	-- that each requester has seen each of them come, and go once.
	local function show_backends(node)
		local seen, count = {}, 0;
		function traffic.on_presence(party, stanza)
			local key = ("%s %s"):format(party.jid, stanza.attr.from);
			if not party.is_backend then
				seen[key] = (seen[key] or "")..(stanza.attr.type or "available").." ";
			end
		end
		for _, backend in ipairs(backends_of(node)) do
			for _, requester in ipairs(traffic.requesters) do
				backend.connection:send(st.presence({ to = address_of(requester) }));
				count = count + 1;
			end
		end
		return function ()
			traffic.on_presence = nil;
			for key, types in pairs(seen) do
				assert.equal("available unavailable ", types, key);
				count = count - 1;
			end
			assert.equal(0, count);
		end
	end

	-- (node, end_it): that is what brings the node to its end, which is started again. -> see assert_outlasted
	local function assert_node_outlasted(node, end_it, may_be)
		local assert_gone = show_backends(node);
		local retried = assert_outlasted(function ()
			end_it();
			start_node(node);
		end, may_be);
		assert_gone();
		return retried;
	end

	it("find all backends, at both nodes", function ()
		assert_calm(now());
	end);

	it("outlast nodes that stop when their backends have drained and logged out, without a get that fails", function ()
		for node in ipairs(fronts.nodes) do
			assert_node_outlasted(node, function ()
				for _, backend in ipairs(backends_of(node)) do
					backend.connection:send(st.presence():text_tag("priority", "-1"));
				end
				traffic:flow(STEADY); -- they answer what they have
				for _, backend in ipairs(backends_of(node)) do
					log_out(backend);
				end
				stop(fronts.nodes[node]);
			end, any_of(IN_A_BROKEN_STREAM));
		end
	end);

	it("outlast a node that stops", function ()
		local retried = assert_node_outlasted(1, function ()
			stop(fronts.nodes[1]);
		end, any_of(IN_A_BROKEN_STREAM, OF_AN_ENDED_SESSION));
		assert.is_true(retried > 0);
	end);

	it("outlast a node that is killed", function ()
		local retried = assert_node_outlasted(2, function ()
			stop(fronts.nodes[2], "KILL");
		end, any_of(IN_A_BROKEN_STREAM, OF_AN_ENDED_SESSION));
		assert.is_true(retried > 0);
	end);

	it("outlast the end of both nodes", function ()
		assert_outlasted(function ()
			stop(fronts.nodes[1]);
			stop(fronts.nodes[2], "KILL");
			flow_until_ready();
			start(table.unpack(fronts.nodes));
			log_in_backends();
		end, any_of(IN_A_BROKEN_STREAM, OF_AN_ENDED_SESSION, OF_NOBODY));
	end);

	it("outlast that the nodes lose sight of each other, with one resource at both sides, and a front that restarts meanwhile", function ()
		assert_outlasted(function ()
			fronts.target_server:split();
			traffic:flow(STEADY);
			local twin = traffic:add_backend(fronts:log_in("a", 2), 2);
			stop(fronts.servers[2]);
			start(fronts.servers[2]);
			log_in_users(2);
			traffic:flow(STEADY);
			fronts.target_server:heal();
			traffic:flow(STEADY);
			log_out(twin);
			fronts.places.a = 1;
			stop(fronts.nodes[2]); -- until it starts anew, each node knows its own sessions only
			start_node(2);
		end, any_of(IN_A_BROKEN_STREAM, OF_AN_ENDED_SESSION, OF_NOBODY, OF_A_STOPPED_FRONT));
	end);

	it("of one front are not touched by the restart of the other", function ()
		for front, server in ipairs(fronts.servers) do
			local since = now();
			assert_outlasted(function ()
				stop(server);
				start(server);
				log_in_users(front);
			end, any_of(OF_A_STOPPED_FRONT));
			for _, item in ipairs(traffic.requests) do
				if item.sent >= since and item.sender.front ~= front then
					assert.equal("result", item.outcome);
				end
			end
		end
	end);
end);
