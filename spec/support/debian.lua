-- A throwaway Debian: a copy of the one that tools/setup has made, with the release's own Prosody installed and nothing
-- running. Whoever uses it has to be root, as everything in there is done by way of chroot.

local throwaway = require "spec.support.throwaway";

local quote, read_command, read_file, write_file = throwaway.quote, throwaway.read_command, throwaway.read_file, throwaway.write_file;

local debian = throwaway.class("Prosody of the throwaway Debian");

-- What an administrator puts beside Debian's own configuration, which stays as it is. As Jitsi Meet does, it puts the
-- folder of Jitsi's modules first.
local CONFIGURATION = [[
plugin_paths = { "/usr/share/jitsi-meet/prosody-plugins/", "/usr/local/lib/prosody/modules" }
modules_disabled = { "s2s", "tls" }
modules_enabled = { "roster", "saslauth", "smacks", "ping", "admin_shell", "announce" }
pidfile = "/tmp/prosody.pid"
log = "/tmp/prosody.log"
interfaces = { "127.0.0.1" }
local_interfaces = { "127.0.0.1" }
c2s_ports = { $C2S_PORT }
c2s_direct_tls_ports = {}
c2s_require_encryption = false
allow_unencrypted_plain_auth = true
authentication = "internal_plain"
VirtualHost "some-domain.example"
Component "proxy.domain.example" "client_proxy"
	target_address = "some-user@some-domain.example"
]];

function debian.new()
	assert(read_command "id -u" == "0\n", "Only root can have a throwaway Debian: it is run by way of chroot");
	local self = throwaway.new(debian);
	self.root = self.dir.."/root";
	self.connections = {}; -- the open ones of spec/support/xmpp.lua
	self.c2s_port = throwaway.free_port();
	assert(os.execute(("cp --archive %s/. %s"):format(quote(throwaway.unpacked "root"), quote(self.root))));
	return self;
end

-- (command) -> output, exit code: runs it in there
function debian:run(command)
	return read_command(("cd / && LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot %s sh -c %s 2>&1 </dev/null")
		:format(quote(self.root), quote(command)));
end

-- (command) -> output; fails if the command does
function debian:must_run(command)
	local output, code = self:run(command);
	return code == 0 and output or error(command..": "..output, 2);
end

-- (path of a package on this machine, how: "--install" if nil) -> output, exit code of dpkg
function debian:install(package, how)
	assert(os.execute(("cp %s %s/tmp/new.deb"):format(quote(package), quote(self.root))));
	return self:run(("dpkg %s /tmp/new.deb"):format(how or "--install"));
end

-- (path in there) -> the content of that file | nil
function debian:content(path)
	local ok, content = pcall(read_file, self.root..path);
	return ok and content or nil;
end

-- Configures Prosody, and makes the accounts that spec/support/service.lua wants.
function debian:configure()
	write_file(self.root.."/etc/prosody/conf.d/spec.cfg.lua", (CONFIGURATION:gsub("%$C2S_PORT", tostring(self.c2s_port))));
	assert(os.execute(("install -D --mode=644 spec/support/modules/mod_announce.lua --target-directory=%s")
		:format(quote(self.root.."/usr/local/lib/prosody/modules"))));
	for _, user in ipairs { "user", "some-user" } do
		self:must_run(("prosodyctl register %s some-domain.example %s"):format(user, user));
	end
end

-- Starts Prosody as Debian does, as a user of its own, and waits until it is up.
function debian:start()
	self:launch(("chroot --userspec=prosody:prosody %s prosody -F"):format(quote(self.root)));
	self:await_line(function (line) return line == "SPEC: STARTED"; end, "its start");
end

return debian;
