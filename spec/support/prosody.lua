-- A throwaway Prosody: its own folder, loopback only, gone when stopped.

local http = require "socket.http";
local process = require "spec.support.process";
local socket = require "socket";

local root = assert(os.getenv("PROSODY_ROOT"), "PROSODY_ROOT is not set, run the specs with make test");

local prosody = { root = root };
prosody.__index = prosody;

local function read_command(command)
	local pipe = assert(io.popen(command));
	local output = pipe:read("a");
	local ok, _, code = pipe:close();
	return output, ok and 0 or code;
end

local checkout = read_command("pwd"):gsub("\n", "");

local function quote(text)
	return "'"..text:gsub("'", "'\\''").."'";
end

local function read_file(path)
	local file = assert(io.open(path));
	local content = file:read("a");
	file:close();
	return content;
end

local function write_file(path, content)
	local file = assert(io.open(path, "w"));
	assert(file:write(content));
	assert(file:close());
end

local function free_port()
	local server = assert(socket.bind("127.0.0.1", 0));
	local _, port = server:getsockname();
	server:close();
	return tonumber(port);
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
log = { { levels = { min = "debug" }, to = "file", filename = DIR.."/log" } }
statistics = "internal"
interfaces = { "127.0.0.1" }
local_interfaces = { "127.0.0.1" }
c2s_ports = { C2S_PORT }
c2s_direct_tls_ports = {}
legacy_ssl_ports = {}
component_ports = { COMPONENT_PORT }
http_ports = { HTTP_PORT }
https_ports = {}
modules_enabled = { "roster", "saslauth", "admin_shell", "http_openmetrics", "smacks", "announce" }
modules_disabled = { "s2s", "tls" }
c2s_require_encryption = false
allow_unencrypted_plain_auth = true
authentication = "internal_plain"
plugin_paths = { PLUGIN_PATH, CHECKOUT.."/spec/support/modules" }
installer_plugin_path = DIR.."/custom_plugins"
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
function prosody.new(options)
	options = options or {};
	local self = setmetatable({}, prosody);
	self.dir = read_command("mktemp -d"):gsub("\n", "");
	self.c2s_port, self.component_port, self.http_port = free_port(), free_port(), free_port();
	self.plugin_path = options.plugin_path or checkout;
	for _, account in ipairs(options.accounts or usual_accounts) do
		write_account(self.dir.."/data", account:match("^(.*)@(.*)$"));
	end
	self:configure(options.hosts or prosody.usual_hosts);
	return self;
end

function prosody:configure(hosts)
	local values = {
		DIR = self.dir, CHECKOUT = checkout, PLUGIN_PATH = self.plugin_path,
		C2S_PORT = self.c2s_port, COMPONENT_PORT = self.component_port, HTTP_PORT = self.http_port,
	};
	local lines = {};
	for name, value in pairs(values) do
		table.insert(lines, ("local %s = %q\n"):format(name, value));
	end
	write_file(self.dir.."/prosody.cfg.lua", table.concat(lines)..head..hosts);
end

-- Starts and waits until everything is up: spec/support/modules/mod_announce.lua says so.
function prosody:start()
	local command = ("cd / && echo $$ && exec %s --config %s 2>&1"):format(
		quote(root.."/prosody"), quote(self.dir.."/prosody.cfg.lua"));
	self.output = assert(io.popen(command));
	self.pid = assert(tonumber(self.output:read()));
	write_file(self.dir.."/pid", ("%d\n"):format(self.pid)); -- for tools/with_scratch
	self:await("STARTED");
	return self;
end

-- Waits until spec/support/modules/mod_announce.lua tells this.
function prosody:await(news)
	local lines = {};
	repeat
		local line = self.output:read();
		table.insert(lines, line);
		if not line then
			self.output:close();
			self.pid = nil;
			error(("Prosody has ended, %s was awaited: %s"):format(news, table.concat(lines, "\n")));
		end
	until line == "SPEC: "..news;
end

function prosody:signal(name)
	return os.execute(("kill -%s %d"):format(name, self.pid));
end

-- Stops, and waits until the process is gone. What it printed since it started.
function prosody:stop()
	self:signal("TERM");
	local rest = self.output:read("a");
	self.output:close();
	os.remove(self.dir.."/pid");
	self.pid = nil;
	return rest;
end

function prosody:remove()
	if self.pid then
		self:stop();
	end
	os.execute("rm -rf "..quote(self.dir));
end

function prosody:log()
	return read_file(self.dir.."/log");
end

function prosody:version()
	return (read_file(self.root.."/usr/lib/prosody/prosody.version"):gsub("%s", ""));
end

function prosody:ctl_command(...)
	local words = { quote(root.."/prosodyctl"), "--config", quote(self.dir.."/prosody.cfg.lua") };
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

-- (code) -> output: runs Lua code inside Prosody
function prosody:run_lua(code)
	return (self:ctl("shell", "> "..code));
end

-- Kilobytes that Prosody's Lua has in use, garbage aside
function prosody:lua_memory()
	return tonumber(self:run_lua("(collectgarbage() and nil) or collectgarbage('count')"):match("[%d.]+"));
end

-- (name) -> number: the value of a counter of the component, as mod_http_openmetrics tells it
function prosody:counter(name)
	local page = assert(http.request(("http://127.0.0.1:%d/metrics"):format(self.http_port)));
	return tonumber(page:match("\nprosody_mod_client_proxy__"..name.."_total{[^}]*} (%d+)"));
end

-- Bytes of memory that the server has in use
function prosody:resident_memory()
	return process.resident_bytes(self.pid);
end

return prosody;
