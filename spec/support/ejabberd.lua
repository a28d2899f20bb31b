-- A throwaway ejabberd, for specs with a second server that is not a Prosody.

local socket = require "socket";
local throwaway = require "spec.support.throwaway";

local quote = throwaway.quote;

local root = throwaway.unpacked "ejabberd";

local START_LIMIT = 30; -- seconds
local STOP_LIMIT = 10; -- seconds
local RUN_LIMIT = 15; -- seconds

local ejabberd = throwaway.class("ejabberd");
ejabberd.root = root;

-- YAML
local configuration = [[
hosts: ["$HOST"]
listen:
  - { module: ejabberd_c2s, ip: "127.0.0.1", port: $C2S_PORT }
  - { module: ejabberd_s2s_in, ip: "127.0.0.1", port: $S2S_PORT }
acme: { auto: false }
s2s_max_retry_delay: $RETRY_DELAY # seconds that it may wait after it could not reach a server, 300 if nobody says so
net_ticktime: $TICK
shaper_rules: { max_user_sessions: infinity, max_s2s_connections: $STREAMS }
modules: { mod_roster: {}, mod_s2s_dialback: {}$MODULES }
]];

-- Erlang. There is no DNS, but where the other servers' domains are is in its resolver's cache.
-- A connection to the control port brings a line of Erlang, and gets what it comes to.
local before_start = [==[
register(watchdog, spawn(fun() ->
	receive started -> ok after $START_LIMIT * 1000 -> io:format("NOT STARTED: ~p~n", [init:get_status()]), erlang:halt(1) end
end)),
inet_db:set_resolv_conf(""),
lists:foreach(fun({Domain, Port}) ->
	inet_db:add_rr("_xmpp-server._tcp." ++ Domain, in, srv, 86400, {0, 0, Port, "127.0.0.1"})
end, [$PEERS]),
Answer = fun(Connection) ->
	{ok, Line} = gen_tcp:recv(Connection, 0),
	{ok, Tokens, _} = erl_scan:string(Line),
	{ok, Expressions} = erl_parse:parse_exprs(Tokens),
	Result = (catch element(2, erl_eval:exprs(Expressions, []))),
	gen_tcp:send(Connection, io_lib:format("~0p~n", [Result])),
	gen_tcp:close(Connection)
end,
Listen = fun(Self, Socket) ->
	{ok, Connection} = gen_tcp:accept(Socket),
	Pid = spawn(fun() -> receive go -> Answer(Connection) end end),
	gen_tcp:controlling_process(Connection, Pid),
	Pid ! go,
	Self(Self, Socket)
end,
spawn(fun() ->
	{ok, Socket} = gen_tcp:listen($CONTROL_PORT, [{ip, {127, 0, 0, 1}}, {packet, line}, {buffer, 65536}, {active, false}, {reuseaddr, true}]),
	Listen(Listen, Socket)
end).
]==];

-- Erlang. The password is the name.
local after_start = [==[
$JOIN
lists:foreach(fun(Account) ->
	{User, Host, _} = jid:split(jid:decode(Account)),
	ejabberd_auth:try_register(User, Host, User)
end, [$ACCOUNTS]),
watchdog ! started,
io:format("STARTED~n").
]==];

-- What goes between the brackets of a list in Erlang
local function erlang_list(format, items)
	local quoted = {};
	for index, item in ipairs(items) do
		quoted[index] = format:format(item);
	end
	return table.concat(quoted, ", ");
end

-- (s2s) -> what goes between the brackets of a list of the other servers' domains and their ports
local function erlang_peers(s2s)
	local peers = {};
	for _, domain in ipairs(s2s.peer_domains or {}) do
		table.insert(peers, ('{"%s", %d}'):format(domain, s2s.peer_port));
	end
	for domain, ports in pairs(s2s.peers or {}) do
		for _, port in ipairs(ports) do
			table.insert(peers, ('{"%s", %d}'):format(domain, port));
		end
	end
	return table.concat(peers, ", ");
end

-- (options) -> ejabberd, not yet running
-- options: host
--          accounts, a list of bare JIDs there
--          s2s, the one other server: { port (ejabberd's own), peer_port, peer_domains }; or several others:
--          { port, peers (by domain, a list of the ports of its server) }
--          retry_delay, seconds, 3 if nil; it waits for a random part of it
--          tick, its net_ticktime in seconds, 60 if nil
--          streams, how many all nodes together may have to another server at a time, 1 if nil
--          arguments, what else Erlang is to be started with, in the shell's words, none if nil
--          environment, what is to be in its environment, likewise
--          modules, names of more modules, none if nil
--          join, Erlang that is run once it is up, ending in a comma, none if nil
function ejabberd.new(options)
	local self = throwaway.new(ejabberd);
	self.connections = {}; -- the open ones of spec/support/xmpp.lua
	self.c2s_port, self.control_port = throwaway.free_port(), throwaway.free_port();
	self.arguments, self.environment = options.arguments or "", options.environment or "";
	local modules = {};
	for index, name in ipairs(options.modules or {}) do
		modules[index] = (", %s: {}"):format(name);
	end
	self.values = {
		MODULES = table.concat(modules);
		HOST = options.host, ACCOUNTS = erlang_list('<<"%s">>', options.accounts), JOIN = options.join or "",
		C2S_PORT = self.c2s_port, S2S_PORT = options.s2s.port, CONTROL_PORT = self.control_port,
		PEERS = erlang_peers(options.s2s),
		RETRY_DELAY = options.retry_delay or 3, STREAMS = options.streams or 1, TICK = options.tick or 60, START_LIMIT = START_LIMIT,
	};
	throwaway.write_file(self.dir.."/ejabberd.yml", self:fill_in(configuration));
	return self;
end

-- Puts values in the place of their names.
function ejabberd:fill_in(template)
	return (template:gsub("%$([%u%d_]+)", self.values));
end

-- Starts, without the daemon of distributed Erlang.
function ejabberd:begin_start()
	local command = "env -u LD_LIBRARY_PATH ERL_CRASH_DUMP_SECONDS=0 EJABBERD_CONFIG_PATH=%s EJABBERD_LOG_PATH=%s %s "
		.."%s -noinput -shutdown_time %d %s -mnesia dir %s -ejabberd quiet true -eval %s -s ejabberd -eval %s";
	self:launch(command:format(quote(self.dir.."/ejabberd.yml"), quote(self.dir.."/log"), self.environment,
		quote(root.."/ejabberd"), STOP_LIMIT * 1000, self.arguments, quote(('"%s/data"'):format(self.dir)),
		quote(self:fill_in(before_start)), quote(self:fill_in(after_start))));
end

-- Waits until everything is up.
function ejabberd:await_started()
	self:await_line(function (line) return line == "STARTED"; end, "STARTED");
end

-- Starts and waits until everything is up.
function ejabberd:start()
	self:begin_start();
	self:await_started();
	return self;
end

-- (expressions) -> what the last of these Erlang expressions comes to, as Erlang writes it
function ejabberd:run(expressions)
	local connection = assert(socket.connect("127.0.0.1", self.control_port));
	connection:settimeout(RUN_LIMIT);
	assert(connection:send(expressions:gsub("%s+", " ")..".\n"));
	local result, failure = connection:receive();
	connection:close();
	return result or error(("%s: %s"):format(expressions, failure), 2);
end

-- If it waits because it could not reach the other server, it waits no longer.
function ejabberd:end_pause()
	self:run("[ejabberd_s2s_out:stop_async(Pid) || {_, Pid, _, _} <- supervisor:which_children(ejabberd_s2s_out_sup)]");
end

-- -> how many streams come from the other server, and how many go there
function ejabberd:streams()
	local incoming, outgoing = self:run("{ejabberd_s2s:incoming_s2s_number(), ejabberd_s2s:outgoing_s2s_number()}"):match("(%d+),(%d+)");
	return tonumber(incoming), tonumber(outgoing);
end

-- It does nothing at all until it continues, but its connections stay open.
function ejabberd:hang()
	self:signal("STOP");
end

function ejabberd:continue()
	self:signal("CONT");
end

-- It ends at once, with no word to anybody.
function ejabberd:kill()
	return self:stop("KILL");
end

return ejabberd;
