-- A throwaway Prosody: its own folder, loopback only, gone when stopped.

local http = require "socket.http";
local process = require "spec.support.process";
local throwaway = require "spec.support.throwaway";

local read_command, quote, checkout = throwaway.read_command, throwaway.quote, throwaway.checkout;
local read_file, write_file, free_port = throwaway.read_file, throwaway.write_file, throwaway.free_port;

local root = assert(os.getenv("PROSODY_ROOT"), "PROSODY_ROOT is not set, run the specs with make test");

local prosody = throwaway.class("Prosody");
prosody.root = root;

-- -> where each Prosody is that tools/setup has unpacked, the one that the specs run on first
function prosody.roots()
	local roots = { root };
	local list = io.open(checkout.."/.build/prosody/list");
	for other in list and list:lines() or function () end do
		if other ~= root then
			table.insert(roots, other);
		end
	end
	return roots;
end

local function file_name(text)
	return (text:gsub("[^%w]", function (c) return ("%%%02x"):format(c:byte()); end));
end

-- Accounts as mod_auth_internal_plain stores them; the password is the name.
local function write_account(data, user, host)
	local folder = data.."/"..file_name(host).."/accounts";
	assert(os.execute("mkdir -p "..quote(folder)));
	write_file(folder.."/"..file_name(user)..".dat", ("return { password = %q }"):format(user));
end

local head = [[
run_as_root = true
daemonize = false
pidfile = DIR.."/prosody.pid"
data_path = DIR.."/data"
admin_socket = DIR.."/admin.sock"
certificates = DIR
log = { { levels = { min = LOG_LEVEL }, to = "file", filename = DIR.."/log" } }
statistics = STATISTICS
statistics_interval = INTERVAL
interfaces = { "127.0.0.1" }
local_interfaces = { "127.0.0.1" }
c2s_ports = { C2S_PORT }
c2s_direct_tls_ports = {}
legacy_ssl_ports = {}
component_ports = { COMPONENT_PORT }
http_ports = { HTTP_PORT }
https_ports = {}
local modules_of_all = { "roster", "saslauth", "dialback", "admin_shell", "http_openmetrics", "smacks", "announce", "shuffle" }
for name in MODULES:gmatch("%S+") do
	modules_of_all[#modules_of_all + 1] = name
end
modules_enabled = modules_of_all
c2s_require_encryption = false
allow_unencrypted_plain_auth = true
authentication = "internal_plain"
plugin_paths = { PLUGIN_PATH, CHECKOUT.."/spec/support/modules" }
installer_plugin_path = DIR.."/custom_plugins"
]]

-- There is no other server.
local alone = [[
modules_disabled = { "s2s", "tls" }
]]

-- There are other servers, on this machine: each domain that is not here leads to one of them, by any of its ports.
-- To unbound, a name ends at a NUL, so that each domain and each port can have an option of the same name.
local federated = [[
modules_disabled = { "tls" }
s2s_ports = { S2S_PORT }
s2s_require_encryption = S2S_ENCRYPTION
local unbound_options = {}
for domain, port in PEERS:gmatch("(%S+)=(%d+)") do
	unbound_options["local-zone:\0"..domain] = domain.." redirect"
	unbound_options["local-data:\0"..domain..port] = domain.." SRV 0 0 "..port.." localhost."
end
unbound = { resolvconf = false, options = unbound_options }
]]

-- The configuration of the README's example, with hosts for two requesters.
prosody.usual_hosts = [[
VirtualHost "some-domain.example"
Component "component.example"
	component_secret = "component.example"
Component "proxy.domain.example" "client_proxy"
	target_address = "some-user@some-domain.example"
]];

local usual_accounts = { "user@some-domain.example", "other-user@some-domain.example", "some-user@some-domain.example" };

-- (options) -> prosody, not yet running
-- options: hosts, the configuration's second half, usual_hosts if nil
--          accounts, a list of bare JIDs, usual_accounts if nil
--          plugin_path, where mod_client_proxy is, the checkout if nil
--          log_level, from which on things are logged, "debug" if nil
--          statistics, which Prosody is to keep, "internal" if nil, false for none
--          interval, in which it collects them, "manual" if nil
--          modules, names of more modules for all hosts, with blanks between them, none if nil
--          run_by, a command to run Prosody by, none if nil
--          root, which Prosody it is, one of prosody.roots(), the first if nil
--          s2s, if there is to be another server: { port (this one's own), peer_port, or peer_ports, a list }; if there are
--          to be several: { port, peers (by domain, a list of the ports of its server) }; requires_encryption (whether
--          streams have to be encrypted)
function prosody.new(options)
	options = options or {};
	local self = throwaway.new(prosody);
	self.connections = {}; -- the open ones of spec/support/xmpp.lua
	self.c2s_port, self.component_port, self.http_port = free_port(), free_port(), free_port();
	self.plugin_path = options.plugin_path or checkout;
	self.s2s = options.s2s;
	self.log_level = options.log_level or "debug";
	self.statistics = options.statistics == nil and "internal" or options.statistics;
	self.interval, self.modules = options.interval or "manual", options.modules or "";
	self.run_by = options.run_by or "";
	self.root = options.root or root;
	for _, account in ipairs(options.accounts or usual_accounts) do
		write_account(self.dir.."/data", account:match("^(.*)@(.*)$"));
	end
	self:configure(options.hosts or prosody.usual_hosts);
	return self;
end

-- (s2s) -> text: which domain leads to which port; the root is every domain
local function list_peers(s2s)
	local list = {};
	for domain, ports in pairs(s2s.peers or {}) do
		for _, port in ipairs(ports) do
			table.insert(list, domain.."="..port);
		end
	end
	for _, port in ipairs(s2s.peer_ports or { s2s.peer_port }) do
		table.insert(list, ".="..port);
	end
	return table.concat(list, " ");
end

-- (hosts): the configuration's second half, which sets no option again that the first half has set
function prosody:configure(hosts)
	local s2s = self.s2s or {};
	local values = {
		DIR = self.dir, CHECKOUT = checkout, PLUGIN_PATH = self.plugin_path,
		C2S_PORT = self.c2s_port, COMPONENT_PORT = self.component_port, HTTP_PORT = self.http_port,
		LOG_LEVEL = self.log_level, STATISTICS = self.statistics, INTERVAL = self.interval, MODULES = self.modules;
		S2S_PORT = s2s.port, PEERS = list_peers(s2s), S2S_ENCRYPTION = s2s.requires_encryption or false;
	};
	local lines = {};
	for name, value in pairs(values) do
		table.insert(lines, ("local %s = %q\n"):format(name, value));
	end
	write_file(self.dir.."/prosody.cfg.lua", table.concat(lines)..head..(self.s2s and federated or alone)..hosts);
end

-- -> the beginning of a command, which runs the rest of it with the libraries of this Prosody: they need not be those that the
-- specs run with
local function on_its_libraries(self)
	return quote(checkout.."/tools/on_prosody").." "..quote(self.root);
end

-- Starts, without waiting until everything is up.
function prosody:begin_start()
	self:launch(("%s %s %s --config %s"):format(on_its_libraries(self), self.run_by, quote(self.root.."/prosody"),
		quote(self.dir.."/prosody.cfg.lua")));
end

-- Waits until everything is up: spec/support/modules/mod_announce.lua says so.
function prosody:await_started()
	self:await("STARTED");
end

function prosody:start()
	self:begin_start();
	self:await_started();
	return self;
end

-- Waits until spec/support/modules/mod_announce.lua tells this.
function prosody:await(news)
	self:await_line(function (line) return line == "SPEC: "..news; end, news);
end

function prosody:log()
	return read_file(self.dir.."/log");
end

function prosody:version()
	return (read_file(self.root.."/usr/lib/prosody/prosody.version"):gsub("%s", ""));
end

function prosody:ctl_command(...)
	local words = { on_its_libraries(self), quote(self.root.."/prosodyctl"), "--config", quote(self.dir.."/prosody.cfg.lua") };
	for _, word in ipairs { ... } do
		table.insert(words, quote(word));
	end
	return "cd / && "..table.concat(words, " ").." 2>&1 </dev/null";
end

-- (...) -> output, exit code: runs prosodyctl with these arguments
function prosody:ctl(...)
	return read_command(self:ctl_command(...));
end

-- (...) -> function: runs prosodyctl meanwhile; the function waits for its end
function prosody:start_ctl(...)
	local pipe = assert(io.popen(self:ctl_command(...)));
	return function ()
		pipe:read("a");
		pipe:close();
	end
end

-- (options, f) -> what f(server) returns; for scripts: what it throws is printed, and ends the process
function prosody.use(options, f)
	local server = prosody.new(options);
	local results = table.pack(xpcall(f, debug.traceback, server));
	server:remove();
	if not results[1] then
		io.stderr:write(results[2], "\n");
		os.exit(false);
	end
	return table.unpack(results, 2, results.n);
end

-- (command, ...) -> output: runs a shell command of the module's, which must succeed; the status may be a bad one
function prosody:client_proxy(command, ...)
	local output, code = self:ctl("shell", "client_proxy", command, ...);
	return (code == 0 or command == "status") and output or error(output, 2);
end

-- (code) -> output: runs Lua code inside Prosody
function prosody:run_lua(code)
	return (self:ctl("shell", "> "..code));
end

-- Kilobytes that Prosody's Lua has in use, garbage aside
function prosody:lua_memory()
	return tonumber(self:run_lua("(collectgarbage() and nil) or collectgarbage('count')"):match("[%d.]+"));
end

-- (path) -> the page of mod_http_openmetrics, which is there or, if that is nil, where it is usually
function prosody:metrics_page(path)
	return assert(http.request(("http://127.0.0.1:%d/%s"):format(self.http_port, path or "metrics")));
end

-- (labels) -> the same, between commas, in the order of their names
local function sort_labels(labels)
	local list = {};
	for label in labels:gmatch('[%w_]+="[^"]*"') do
		table.insert(list, label);
	end
	table.sort(list);
	return table.concat(list, ",");
end

-- (path) -> the values of the module's metrics, as that page tells them, by series, the labels in the order of their
-- names, such as prosody_mod_client_proxy__requests_total{host="proxy.domain.example",outcome="answered"}
function prosody:metrics(path)
	local values = {};
	for series, value in self:metrics_page(path):gmatch("%f[^\n](prosody_mod_client_proxy__%S+) (%S+)") do
		series = series:gsub("{(.*)}", function (labels) return "{"..sort_labels(labels).."}"; end);
		assert(not values[series], series);
		values[series] = tonumber(value);
	end
	return values;
end

-- (name) -> number: the value of a counter of the component
function prosody:counter(name)
	return self:metrics()[("prosody_mod_client_proxy__%s_total{host=%q}"):format(name, "proxy.domain.example")];
end

-- Bytes of memory that the server has in use
function prosody:resident_memory()
	return process.resident_bytes(self.pid);
end

return prosody;
