-- A shell in which a spec types what the documentation says to type, on a machine where Prosody runs: prosodyctl is that
-- Prosody's, examples find it whatever the domain, and nothing is installed outside of its folder.

local throwaway = require "spec.support.throwaway";

local quote = throwaway.quote;

local typist = {};
typist.__index = typist;

local DONE = "What was typed has been done";

local function write_command(path, command)
	throwaway.write_file(path, ("#!/bin/sh\n%s\n"):format(command));
	assert(os.execute("chmod +x "..quote(path)));
end

-- (server, certificate) -> typist
-- server: a Prosody that runs; certificate: the path of its certificate
function typist.new(server, certificate)
	local dir = server.dir.."/typist";
	assert(os.execute(("mkdir %s && mkfifo %s/input"):format(dir, dir)));
	write_command(dir.."/prosodyctl", ("cd / && exec %s --config %s \"$@\""):format(quote(server.root.."/prosodyctl"), server.dir.."/prosody.cfg.lua"));
	write_command(dir.."/python3", 'exec /usr/bin/python3 "$@"'); -- the one that has slixmpp
	local output = assert(io.popen(("exec setsid env PATH=%s:\"$PATH\" DESTDIR=%s XMPP_PORT=%d SSL_CERT_FILE=%s PYTHONPATH=spec/support/python "
		.."PYTHONDONTWRITEBYTECODE=1 timeout 60 bash -e <%s/input 2>&1"):format(dir, dir, server.c2s_port, certificate, dir)));
	local self = setmetatable({ output = output, input = assert(io.open(dir.."/input", "w")) }, typist);
	self.pid = tonumber((self:type("echo $PPID")));
	return self;
end

-- (text) -> what is printed until all of it has been done. Errors if a command fails.
function typist:type(text)
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
