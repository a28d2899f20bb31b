-- A throwaway cluster of two ejabberd nodes that serve one host, for specs in which a node goes and the other stays.

local ejabberd = require "spec.support.ejabberd";
local socket = require "socket";
local throwaway = require "spec.support.throwaway";

local NAMES = { "one@localhost", "two@localhost" };
local COOKIE = "cluster";
local LIMIT = 10; -- seconds
local TICK = 60; -- seconds, ejabberd's default

-- Where distributed Erlang looks for the port of a node
local epmd = throwaway.class("epmd");

function epmd.new()
	local self = throwaway.new(epmd);
	self.port = throwaway.free_port();
	return self;
end

-- It says nothing when it is up.
function epmd:start()
	local command = "env -u LD_LIBRARY_PATH %s -address 127.0.0.1 -port %d";
	self:launch(command:format(throwaway.quote(ejabberd.root.."/usr/lib/erlang/bin/epmd"), self.port));
	local deadline = socket.gettime() + LIMIT;
	while not throwaway.is_listening(self.port) do
		assert(socket.gettime() < deadline, "epmd is not up in time");
		socket.sleep(0.01);
	end
	return self;
end

local cluster = {};
cluster.__index = cluster;

-- Erlang. A new node fetches what the other one knows; one that has been there before finds it by itself.
local join = [==[
lists:member('%s', mnesia:system_info(db_nodes)) orelse (ok = ejabberd_cluster:join('%s')),
]==];

-- The tick is set twice: Erlang applies another one only after the longer of the two has passed.
local function new_node(self, options, index)
	local port = throwaway.free_port();
	local arguments = "-sname %s -start_epmd false -setcookie %s -kernel inet_dist_use_interface '{127,0,0,1}' "
		.."inet_dist_listen_min %d inet_dist_listen_max %d net_ticktime %d";
	return ejabberd.new {
		host = options.host;
		accounts = index == 1 and options.accounts or {};
		s2s = { port = throwaway.free_port(), peers = options.peers };
		arguments = arguments:format(NAMES[index], COOKIE, port, port, options.tick);
		retry_delay = options.retry_delay, tick = options.tick, streams = options.streams;
		environment = ("ERL_EPMD_ADDRESS=127.0.0.1 ERL_EPMD_PORT=%d"):format(self.epmd.port);
		join = index == 2 and join:format(NAMES[1], NAMES[1]) or nil;
	};
end

-- (options) -> cluster, not yet running
-- options: host
--          accounts, a list of bare JIDs there
--          peers, the other servers: by domain, a list of the ports of its server
--          tick, seconds after which a node takes the other one for dead that hangs, a quarter more or less, 60 if nil
--          retry_delay, streams: see spec/support/ejabberd.lua
function cluster.new(options)
	options = setmetatable({ tick = options.tick or TICK }, { __index = options });
	local self = setmetatable({ epmd = epmd.new() }, cluster);
	self.nodes = { new_node(self, options, 1), new_node(self, options, 2) };
	self.s2s_ports = {};
	for index, node in ipairs(self.nodes) do
		node.node_name = NAMES[index];
		self.s2s_ports[index] = node.values.S2S_PORT;
	end
	return self;
end

function cluster:start()
	self.epmd:start();
	for _, node in ipairs(self.nodes) do
		node:start();
	end
	return self;
end

-- (condition): Erlang that becomes true
local function await(node, condition)
	local code = ([[
		Wait = fun(Self, Left) ->
			case %s of
				true -> true;
				_ when Left > 0 -> timer:sleep(10), Self(Self, Left - 1);
				_ -> {nodes(), mnesia:system_info(running_db_nodes)}
			end
		end, Wait(Wait, %d)]]):format(condition, LIMIT * 100);
	local result = node:run(code);
	return result == "true" or error(("%s: it is not so that %s, but %s"):format(node.node_name, condition, result), 3);
end

-- From now on, this node lets the other one in only with this cookie, and shows the other one the same.
local function expect_cookie(node, other, cookie)
	node:run(("erlang:set_cookie('%s', %s)"):format(NAMES[other], cookie));
end

-- The nodes lose sight of each other. What else they are connected to stays so.
function cluster:split()
	for index, node in ipairs(self.nodes) do
		expect_cookie(node, 3 - index, "not_of_"..index);
	end
	self.nodes[1]:run(("erlang:disconnect_node('%s')"):format(NAMES[2]));
	for _, node in ipairs(self.nodes) do
		await(node, "{nodes(), mnesia:system_info(running_db_nodes)} == {[], [node()]}");
	end
end

-- They see each other again, as when a network has been mended. ejabberd leaves it at that: each
-- knows its own sessions only, until one of the nodes has been started anew.
function cluster:heal()
	for index, node in ipairs(self.nodes) do
		expect_cookie(node, 3 - index, COOKIE);
	end
	self.nodes[1]:run(("net_kernel:connect_node('%s')"):format(NAMES[2]));
	for index, node in ipairs(self.nodes) do
		await(node, ("nodes() == ['%s']"):format(NAMES[3 - index]));
	end
end

function cluster:remove()
	for _, node in ipairs(self.nodes) do
		node:remove();
	end
	self.epmd:remove();
end

return cluster;
