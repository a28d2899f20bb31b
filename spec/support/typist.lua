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

local function write_command(path, command)
	throwaway.write_file(path, ("#!/bin/sh\n%s\n"):format(command));
	shell("chmod +x %s", path);
end

-- What is not as on any machine. apt only says what it would do.
local function write_commands(folder, server)
	shell("mkdir %s", folder);
	write_command(folder.."/prosodyctl", ("cd / && LD_LIBRARY_PATH=%s exec %s --config %s \"$@\""):format(
		quote(os.getenv "LD_LIBRARY_PATH"), quote(server.root.."/prosodyctl"), server.dir.."/prosody.cfg.lua"));
	write_command(folder.."/python3", 'exec /usr/bin/python3 "$@"'); -- the one that has slixmpp
	write_command(folder.."/apt", 'exec apt-get --simulate "$@"');
end

-- (server, certificate) -> typist
-- server: a Prosody that runs; certificate: the path of its certificate
function typist.new(server, certificate)
	local self = setmetatable({ dir = server.dir.."/typist" }, typist);
	copy_checkout(self.dir.."/the/checkout");
	write_commands(self.dir.."/bin", server);
	shell("mkfifo %s/input", self.dir);
	self.output = assert(io.popen(("cd %s/the/checkout && exec setsid env -u LD_LIBRARY_PATH PATH=%s/bin:\"$PATH\" DESTDIR=%s XMPP_PORT=%d "
		.."SSL_CERT_FILE=%s PYTHONPATH=spec/support/python PYTHONDONTWRITEBYTECODE=1 timeout %d bash -e <%s/input 2>&1")
		:format(self.dir, self.dir, self.dir, server.c2s_port, certificate, SECONDS, self.dir)));
	self.input = assert(io.open(self.dir.."/input", "w"));
	self.pid = tonumber((self:type("echo $PPID")));
	return self;
end

-- (text) -> what is printed until all of it has been done. Errors if a command fails.
function typist:type(text)
	self.input:write((text:gsub("/path/to/", self.dir.."/")), "\necho; echo ", DONE, "\n");
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
