-- A connection to the shell of a throwaway Prosody, by its socket: a command takes a
-- millisecond in place of the two hundred that prosodyctl takes, and one can do something
-- else until it has ended.

local socket = require "socket";
local unix = require "socket.unix";
local new_stream = require "util.xmppstream".new;
local st = require "util.stanza";

local TIMEOUT = 10; -- seconds, for what is waited for
local ADMIN_NS = "xmpp:prosody.im/admin";

local admin_shell = {};
admin_shell.__index = admin_shell;

local callbacks = {
	stream_ns = "http://etherx.jabber.org/streams";
	default_ns = ADMIN_NS;
	streamopened = function (session)
		session.notopen = nil;
	end;
	streamclosed = function () end;
	error = function (_, reason, text)
		error(("the shell's stream: %s %s"):format(tostring(reason), tostring(text)));
	end;
	handlestanza = function (session, stanza)
		local shell = session.shell;
		if stanza.name == "repl-output" then
			table.insert(shell.printed, stanza:get_text() or "");
		elseif stanza.name == "repl-result" then
			local printed = table.concat(shell.printed, "\n");
			shell.printed = {};
			table.remove(shell.waiting, 1)(stanza.attr.type ~= "error", stanza:get_text() or "", printed);
		end
	end;
};

-- (prosody) -> admin_shell of that running Prosody
function admin_shell.new(prosody)
	local self = setmetatable({ waiting = {}, printed = {}, unread = "" }, admin_shell);
	self.socket = unix.stream and unix.stream() or unix();
	assert(self.socket:connect(prosody.dir.."/admin.sock"));
	self.stream = new_stream({ shell = self, notopen = true }, callbacks);
	self:send(st.stanza("stream:stream", { xmlns = ADMIN_NS, ["xmlns:stream"] = callbacks.stream_ns }):top_tag());
	return self;
end

function admin_shell:send(data)
	self.socket:settimeout(TIMEOUT);
	assert(self.socket:send(tostring(data)));
end

-- (line, on_end): on_end(ok, result, what it has printed) is called, from step(), when it has ended
function admin_shell:start(line, on_end)
	table.insert(self.waiting, on_end);
	self:send(st.stanza("repl-input"):text(line));
end

-- Takes what has come, without waiting for more.
function admin_shell:step()
	self.socket:settimeout(0);
	local data, failure, partial = self.socket:receive(65536);
	self.unread = self.unread..(data or partial or "");
	if self.unread:sub(-1) == ">" then -- see spec/support/xmpp.lua
		assert(self.stream:feed(self.unread));
		self.unread = "";
	end
	assert(failure ~= "closed", "Prosody has closed the shell");
end

-- (line) -> ok, result, what it has printed: waits until the command has ended
function admin_shell:run(line)
	local ok, result, printed;
	self:start(line, function (...)
		ok, result, printed = ...;
	end);
	local deadline = socket.gettime() + TIMEOUT;
	while ok == nil do
		assert(socket.gettime() < deadline, "the shell does not answer");
		self:step();
		socket.sleep(0.001);
	end
	return ok, result, printed;
end

function admin_shell:close()
	self.socket:close();
end

return admin_shell;
