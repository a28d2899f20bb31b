-- A shell in which a spec types what the documentation says to type, in a copy of the checkout, on a machine where Prosody
-- runs: prosodyctl is that Prosody's, examples find it whatever the domain, and nothing is installed outside of its folder.

local throwaway = require "spec.support.throwaway";

local quote, checkout = throwaway.quote, throwaway.checkout;

local typist = {};
typist.__index = typist;

local SECONDS = 120; -- in which all has to be done
local DONE = "What was typed has been done";

local function shell(command, ...)
	assert(os.execute(command:format(...)));
end

-- A copy of the checkout, which has what is built, and the Prosodys that tools/setup has unpacked
local function copy_checkout(folder)
	shell("mkdir -p %s/.build/prosody && cd %s && cp -a [!.]* %s && cp -a .build/built_with %s/.build",
		folder, quote(checkout), folder, folder);
	shell("ln -s %s/.build/prosody/* %s/.build/prosody && rm %s/.build/prosody/list", quote(checkout), folder, folder);
end

-- Programs in the place of others. By its environment, a program of examples/ finds the server whatever the domain, and can
-- verify its certificate. apt only says what it would do, and systemctl does what can be done without a systemd that runs.
local COMMANDS = {
	prosodyctl = [[cd / && LD_LIBRARY_PATH="$PROSODY_LIBRARIES" exec "$PROSODY_ROOT"/prosodyctl --config "$PROSODY_CONFIG" "$@"]];
	python3 = [[SSL_CERT_FILE="$CERTIFICATE" PYTHONPATH="$CHECKOUT"/spec/support/python PYTHONDONTWRITEBYTECODE=1 exec /usr/bin/python3 "$@"]];
	node = [[test "$1" != backend.js || export NODE_EXTRA_CA_CERTS="$CERTIFICATE" NODE_OPTIONS=--require="$CHECKOUT"/spec/support/node/preload.cjs
		exec "$NODE" "$@"]];
	npm = [[exec "$NPM" --prefer-offline --no-audit --no-fund "$@"]];
	apt = [[exec apt-get --simulate "$@"]];
	systemctl = [[verb=$1; shift
		test "$1" != --now || shift
		test "$verb" != restart || verb=is-enabled
		exec /usr/bin/systemctl --root="$DESTDIR" "$verb" "$@"]];
};

-- What of the machine is meant by these is below DESTDIR.
local FOLDERS = { "/path/to/", "/usr/local/", "/etc/" };

local function write_commands(folder)
	shell("mkdir %s", folder);
	for name, script in pairs(COMMANDS) do
		throwaway.write_file(folder.."/"..name, "#!/bin/sh\n"..script.."\n");
		shell("chmod +x %s/%s", folder, name);
	end
end

-- (command) -> its path
local function find(command)
	return (throwaway.read_command("command -v "..command):gsub("\n", ""));
end

-- (server, certificate) -> typist
-- server: a Prosody that runs; certificate: the path of its certificate
function typist.new(server, certificate)
	local self = setmetatable({ dir = server.dir.."/typist" }, typist);
	local environment = {
		DESTDIR = self.dir, CHECKOUT = checkout, CERTIFICATE = certificate, XMPP_PORT = server.c2s_port, NODE = find "node", NPM = find "npm";
		PROSODY_ROOT = server.root, PROSODY_CONFIG = server.dir.."/prosody.cfg.lua", PROSODY_LIBRARIES = os.getenv "LD_LIBRARY_PATH";
	};
	local words = {};
	for name, value in pairs(environment) do
		table.insert(words, name.."="..quote(tostring(value)));
	end
	copy_checkout(self.dir.."/path/to/the/checkout");
	write_commands(self.dir.."/bin");
	shell("mkfifo %s/input", self.dir);
	self.output = assert(io.popen(("cd %s/path/to/the/checkout && exec setsid env -u LD_LIBRARY_PATH PATH=%s/bin:\"$PATH\" %s "
		.."timeout %d bash -e <%s/input 2>&1"):format(self.dir, self.dir, table.concat(words, " "), SECONDS, self.dir)));
	self.input = assert(io.open(self.dir.."/input", "w"));
	self.pid = tonumber((self:type("echo $PPID")));
	return self;
end

-- (text) -> what is printed until all of it has been done. Errors if a command fails.
function typist:type(text)
	for _, folder in ipairs(FOLDERS) do
		text = text:gsub("([^%w])"..folder, "%1"..self.dir..folder);
	end
	self.input:write(text, "\necho; echo ", DONE, "\n");
	self.input:flush();
	local lines = {};
	for line in self.output:lines() do
		if line == DONE then
			return table.concat(lines, "\n");
		end
		table.insert(lines, line);
	end
	error(("this has failed:\n%s\n%s"):format(text, table.concat(lines, "\n")), 2);
end

-- Ends the shell, and all that it has left running: those whose process group is timeout's.
function typist:close()
	os.execute(("kill -KILL -%d"):format(self.pid));
	self.output:close();
	self.input:close();
end

return typist;
