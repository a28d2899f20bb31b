-- A throwaway ejabberd, for specs with a second server that is not a Prosody.

local throwaway = require "spec.support.throwaway";

local quote = throwaway.quote;

local root = throwaway.checkout.."/.build/ejabberd";

local ejabberd = throwaway.class("ejabberd");

-- YAML
local configuration = [[
hosts: ["$HOST"]
listen:
  - { module: ejabberd_c2s, ip: "127.0.0.1", port: $C2S_PORT }
  - { module: ejabberd_s2s_in, ip: "127.0.0.1", port: $S2S_PORT }
acme: { auto: false }
s2s_max_retry_delay: 3 # seconds that it may wait after it could not reach a server, 300 if nobody says so
modules: { mod_roster: {}, mod_s2s_dialback: {} }
]];

-- Erlang. There is no DNS, but where the other server's domains are is in its resolver's cache.
local before_start = [==[
inet_db:set_resolv_conf(""),
lists:foreach(fun(Domain) ->
	inet_db:add_rr("_xmpp-server._tcp." ++ Domain, in, srv, 86400, {0, 0, $PEER_PORT, "127.0.0.1"})
end, [$PEER_DOMAINS]).
]==];

-- Erlang. The password is the name.
local after_start = [==[
lists:foreach(fun(Account) ->
	{User, Host, _} = jid:split(jid:decode(Account)),
	ejabberd_auth:try_register(User, Host, User)
end, [$ACCOUNTS]),
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

-- (options) -> ejabberd, not yet running
-- options: host
--          accounts, a list of bare JIDs there
--          s2s, the one other server: { port (ejabberd's own), peer_port, peer_domains }
function ejabberd.new(options)
	local self = throwaway.new(ejabberd);
	self.connections = {}; -- the open ones of spec/support/xmpp.lua
	self.c2s_port = throwaway.free_port();
	self.values = {
		HOST = options.host, ACCOUNTS = erlang_list('<<"%s">>', options.accounts),
		C2S_PORT = self.c2s_port, S2S_PORT = options.s2s.port,
		PEER_PORT = options.s2s.peer_port, PEER_DOMAINS = erlang_list('"%s"', options.s2s.peer_domains),
	};
	throwaway.write_file(self.dir.."/ejabberd.yml", self:fill_in(configuration));
	return self;
end

-- Puts values in the place of their names.
function ejabberd:fill_in(template)
	return (template:gsub("%$([%u%d_]+)", self.values));
end

-- Starts, without the daemon of distributed Erlang, and waits until everything is up.
function ejabberd:start()
	local command = "env -u LD_LIBRARY_PATH ERL_CRASH_DUMP_SECONDS=0 EJABBERD_CONFIG_PATH=%s EJABBERD_LOG_PATH=%s "
		.."%s -noinput -mnesia dir %s -ejabberd quiet true -eval %s -s ejabberd -eval %s";
	self:launch(command:format(quote(self.dir.."/ejabberd.yml"), quote(self.dir.."/log"),
		quote(root.."/ejabberd"), quote(('"%s/data"'):format(self.dir)),
		quote(self:fill_in(before_start)), quote(self:fill_in(after_start))));
	self:await_line(function (line) return line == "STARTED"; end, "STARTED");
	return self;
end

return ejabberd;
