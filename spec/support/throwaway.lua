-- What is common to the servers that specs start: each has a folder of its own,
-- listens on loopback only, and is gone when it is stopped.

local socket = require "socket";

local throwaway = {};
throwaway.__index = throwaway;

-- (command) -> output, exit code
function throwaway.read_command(command)
	local pipe = assert(io.popen(command));
	local output = pipe:read("a");
	local ok, _, code = pipe:close();
	return output, ok and 0 or code;
end

throwaway.checkout = throwaway.read_command("pwd"):gsub("\n", "");

-- (text) -> a word for the shell
function throwaway.quote(text)
	return "'"..text:gsub("'", "'\\''").."'";
end

function throwaway.read_file(path)
	local file = assert(io.open(path));
	local content = file:read("a");
	file:close();
	return content;
end

function throwaway.write_file(path, content)
	local file = assert(io.open(path, "w"));
	assert(file:write(content));
	assert(file:close());
end

-- (name) -> the folder where tools/setup has unpacked the server of that name
function throwaway.unpacked(name)
	local folder = throwaway.checkout.."/.build/"..name;
	return os.execute("test -d "..throwaway.quote(folder)) and folder
		or error(("There is no %s: as root, get it with tools/setup %s"):format(folder, name), 0);
end

-- Specs that run side by side take their ports from ranges of their own, all of them below those that
-- the system gives to clients: nobody else is likely to take one until its server does.
local first_port, PORTS = tonumber(os.getenv("SPEC_FIRST_PORT")) or 10000, 4000;
local next_port = math.floor(socket.gettime() * 1000) % PORTS; -- others can be at it in the same range

function throwaway.free_port()
	local port, server;
	repeat
		port, next_port = first_port + next_port, (next_port + 1) % PORTS;
		server = socket.bind("127.0.0.1", port);
	until server;
	server:close();
	return port;
end

-- (port) -> whether a server has it
function throwaway.is_listening(port)
	local connection = socket.connect("127.0.0.1", port);
	if connection then
		connection:close();
	end
	return connection ~= nil;
end

-- (name) -> a class of servers
function throwaway.class(name)
	local class = setmetatable({ name = name }, throwaway);
	class.__index = class;
	return class;
end

-- (class) -> server, not yet running
function throwaway.new(class)
	return setmetatable({ dir = throwaway.read_command("mktemp -d"):gsub("\n", "") }, class);
end

-- Starts the command, without waiting until it is up.
function throwaway:launch(command)
	self.output = assert(io.popen(("cd / && echo $$ && exec %s 2>&1"):format(command)));
	self.pid = assert(tonumber(self.output:read()));
	throwaway.write_file(self.dir.."/pid", ("%d\n"):format(self.pid)); -- for tools/with_scratch
end

-- Waits until it prints a line for which `is_awaited` is true.
function throwaway:await_line(is_awaited, what)
	local lines = {};
	repeat
		local line = self.output:read();
		table.insert(lines, line);
		if not line then
			self.output:close();
			self.pid = nil;
			error(("%s has ended, %s was awaited: %s"):format(self.name, what, table.concat(lines, "\n")));
		end
	until is_awaited(line);
end

function throwaway:signal(name)
	return os.execute(("kill -%s %d"):format(name, self.pid));
end

-- Whether the process has ended of which stop() would wait for the end
function throwaway:has_ended()
	return throwaway.read_file(("/proc/%d/stat"):format(self.pid)):find("%) Z ") ~= nil;
end

-- Stops it by a signal, TERM if nil, and waits until the process is gone. Returns what it printed since the last await().
function throwaway:stop(signal)
	self:signal(signal or "TERM");
	local rest = self.output:read("a");
	self.output:close();
	os.remove(self.dir.."/pid");
	self.pid = nil;
	return rest;
end

function throwaway:remove()
	if self.pid then
		self:stop("KILL"); -- TERM can take a second
	end
	os.execute("rm -rf "..throwaway.quote(self.dir));
end

return throwaway;
