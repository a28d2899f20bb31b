-- For chaos: the server of targets that are elsewhere, played: a cluster of nodes, each of which speaks by a stream of its
-- own. Now and then, for a while, streams break, it hangs, nodes lose sight of each other, or probes are answered
-- badly; meanwhile, nothing is expected of the component but that each request ends, once.

local new_played_server = require "spec.support.played_server".new;
local service = require "spec.support.service";
local socket = require "socket";
local st = require "util.stanza";

local now, random = socket.gettime, math.random;

local NODES = 3;
local FIRST_AT, PAUSE = 10, 10; -- seconds in which nothing of that kind happens
local OPENS_WITHIN = 3; -- seconds that a new stream may take, before another one is tried
local SETTLES_WITHIN = 6; -- seconds, in which all streams are there again

local played_cluster = {};
played_cluster.__index = played_cluster;

played_cluster.domain = "elsewhere.example";

-- (chaos) -> played_cluster, of a running Prosody whose streams lead to it
function played_cluster.new(chaos)
	local s2s = chaos.server.s2s;
	local self = setmetatable({ chaos = chaos, parties = {}, nodes = {}, next_at = now() + FIRST_AT }, played_cluster);
	self.played = new_played_server { domain = played_cluster.domain, port = s2s.peer_port, peer_port = s2s.port };
	self.played.answers_pings = false; -- the cluster does
	self.played.accounts[played_cluster.domain] = self;
	for position = 1, NODES do
		self.nodes[position] = { opens_at = 0, queue = {}, keeps = true };
	end
	return self;
end

-- (party): what comes for its target is for it
function played_cluster:serve(party)
	table.insert(self.parties, party);
	self.played.accounts[party.target] = party;
end

--
-- Nodes, and their streams
--

function played_cluster:any_node()
	return self.nodes[random(#self.nodes)];
end

local function is_open(node)
	local stream = node.stream;
	return stream and stream.is_authenticated and not stream.is_closed and not stream.is_hung;
end

-- Sends it, or keeps it for later, or it is lost.
function played_cluster:send(node, stanza) -- luacheck: ignore 212/self
	if is_open(node) then
		pcall(node.stream.send, node.stream, stanza); -- the other side may have closed it
	elseif node.keeps then
		table.insert(node.queue, tostring(stanza));
	end
end

function played_cluster:send_by_any(stanza)
	for _, node in ipairs(self.nodes) do
		if is_open(node) then
			return self:send(node, stanza);
		end
	end
	self:send(self:any_node(), stanza);
end

-- to be called with what comes for the server itself
function played_cluster:on_stanza(stanza)
	if stanza.name == "iq" and stanza.attr.type == "get" then
		self:send_by_any(st.reply(stanza));
	end
end

local function open(self, node)
	node.begun_at = now();
	node.stream = self.played:begin_to_open();
end

local function look_after(self, node)
	local stream = node.stream;
	if not stream or stream.is_closed then
		if now() >= node.opens_at then
			open(self, node);
		end
	elseif is_open(node) then
		if node.queue[1] then
			local queue = node.queue;
			node.queue = {};
			self:send(node, table.concat(queue));
		end
	elseif not stream.is_authenticated and now() > node.begun_at + OPENS_WITHIN then
		stream:cut();
		node.opens_at = now() + random();
	end
end

-- Ends a stream, in good order or not.
local function break_stream(stream)
	if random(2) == 1 then
		stream:cut();
	else
		pcall(stream.send, stream, "</stream:stream>");
	end
end

local function break_node(node)
	if is_open(node) then
		break_stream(node.stream);
		node.opens_at = now() + random() * 2;
		node.keeps = random(2) == 1;
	end
end

local function break_theirs(self)
	for _, stream in ipairs(self.played:open_streams(false)) do
		break_stream(stream);
	end
end

--
-- What happens for a while
--

-- Each returns how many seconds it takes, what is to be done at its end, if anything, and whether those
-- that it is not about are served all the time.
local episodes = {};

function episodes:streams_end()
	local dice = random(3);
	if dice < 3 then
		break_node(self:any_node());
	end
	if dice > 1 then
		break_theirs(self);
	end
	return random() * 2;
end

function episodes:everything_is_cut()
	for _, node in ipairs(self.nodes) do
		break_node(node);
	end
	break_theirs(self);
	return random() * 2;
end

function episodes:it_refuses()
	episodes.everything_is_cut(self);
	self.played:refuse();
	return random() * 3, function () self.played:listen(); end;
end

-- The whole cluster, or as much of it as has been connected so far
function episodes:it_hangs()
	self.played:hang();
	self.played.is_mute = random(2) == 1;
	return 1 + random() * 5, function () self.played:go_on(); end;
end

function episodes:no_probe_is_answered()
	self.answer_probe = function () end;
	return 1 + random() * 4;
end

function episodes:probes_are_answered_in_part()
	self.answer_probe = function (party)
		local list = {};
		for _, backend in ipairs(party:all()) do
			if random(2) == 1 then
				table.insert(list, backend);
			end
		end
		party:tell_all(list);
	end;
	return 1 + random() * 4;
end

-- The answer tells what was the case when the probe came.
function episodes:probes_are_answered_late()
	self.answer_probe = function (party)
		local list = party:all();
		self.chaos:after(random() * 3, function ()
			party:tell_all(list);
			for _, backend in ipairs(list) do
				if backend.death then
					self.chaos.ledger:told_alive(backend);
				end
			end
		end);
	end;
	return 1 + random() * 4;
end

function episodes:nobody_is_there()
	for _, party in ipairs(self.parties) do
		self:send_by_any(st.presence({ from = party.target, to = service.proxy, type = "unavailable" }));
	end
	return 0.5;
end

-- Those at one of the nodes cannot be reached from the others.
function episodes:a_node_is_cut_off()
	local node, members = self:any_node(), {};
	for _, party in ipairs(self.parties) do
		for _, backend in ipairs(party:all()) do
			if backend.node == node then
				party:cut_off(backend);
				table.insert(members, { party, backend });
			end
		end
	end
	return 1 + random() * 5, function ()
		for _, member in ipairs(members) do
			member[1]:come_back(member[2]);
		end
	end, true;
end

local names = {};
for name in pairs(episodes) do
	table.insert(names, name);
end
table.sort(names);

-- Whether the component can know what there is to know
function played_cluster:is_calm()
	return not self.settles_by and (not self.episode or self.episode.is_mild);
end

-- -> what a party does about a probe, nil if nothing special: answer(party)
function played_cluster:way_to_answer_probes()
	return self.answer_probe;
end

local function all_backends(self)
	local list = {};
	for _, party in ipairs(self.parties) do
		for _, backend in ipairs(party:all()) do
			table.insert(list, backend);
		end
	end
	return list;
end

-- What has been said in the name of the dead, or was not answered by them, may have been lost.
local function forget_the_dead(self)
	for _, party in ipairs(self.parties) do
		for _, backend in pairs(party.dead) do
			self.chaos.ledger:told_alive(backend);
		end
	end
end

-- What is under way, or sent until then, may be lost.
local function excuse_until(self, last)
	self.chaos.ledger.messages:excuse_until("cut", last);
	self.chaos.ledger.backend_requests:excuse_until("cut", last);
end

local function begin_episode(self)
	local seconds, finish, is_mild = episodes[names[random(#names)]](self);
	self.episode = { ends_at = now() + seconds, finish = finish or function () end, is_mild = is_mild };
	if not is_mild then
		excuse_until(self, math.huge);
		forget_the_dead(self);
		for _, backend in ipairs(all_backends(self)) do
			backend.online_since = nil; -- the ledger expects nothing of it
		end
	end
end

local function end_episode(self)
	self.answer_probe = nil;
	self.episode.finish();
	if self.episode.is_mild then
		self.next_at = now() + PAUSE;
	else
		self.settles_by = now() + SETTLES_WITHIN;
	end
	self.episode = nil;
end

local function all_have_spoken(self)
	for _, node in ipairs(self.nodes) do
		if not is_open(node) or node.queue[1] then
			return false;
		end
	end
	return true;
end

-- All is well again: sometimes all presence is told then, and at other times the component has to ask for it.
local function settle(self)
	self.settles_by = nil;
	forget_the_dead(self);
	excuse_until(self, now() + 1);
	self.next_at = now() + PAUSE + random() * 6;
	if random(2) == 1 then
		for _, party in ipairs(self.parties) do
			party:tell_all(party:all());
		end
		for _, backend in ipairs(all_backends(self)) do
			backend.online_since = now() + 1;
		end
	end
end

-- to be called ten times a second
function played_cluster:something_happens()
	local time = now();
	if self.episode then
		if time >= self.episode.ends_at then
			end_episode(self);
		end
	elseif self.settles_by then
		if all_have_spoken(self) or time >= self.settles_by then
			settle(self);
		end
	elseif time >= self.next_at and not self.chaos.without.episodes then
		begin_episode(self);
	end
end

--
-- Its turns
--

function played_cluster:readers()
	return self.played:readers();
end

-- to be called in each turn, when what has come has been read
function played_cluster:step()
	self.played.received = {};
	for _, node in ipairs(self.nodes) do
		look_after(self, node);
	end
end

-- to be called when nothing more is to happen
function played_cluster:calm_down()
	if self.episode then
		end_episode(self);
	end
end

-- to be called at the end
function played_cluster:close()
	self.played:remove();
end

return played_cluster;
