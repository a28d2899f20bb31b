-- A server with a certificate, and the programs of examples/ as they are, which have to verify it

local prosody = require "spec.support.prosody";
local service = require "spec.support.service";
local throwaway = require "spec.support.throwaway";
local xmpp = require "spec.support.xmpp";
local st = require "util.stanza";

local quote, checkout = throwaway.quote, throwaway.checkout;

-- What the other specs do without
local hosts = prosody.usual_hosts:gsub('VirtualHost "some%-domain.example"\n', '%0\tmodules_enabled = { "tls" }\n');

local examples = { password = "some-user" }; -- of the target
examples.__index = examples;

-- So many users that each of two copies is the one that some of them get answers from
local accounts = { "user@some-domain.example", "other-user@some-domain.example", service.target };
for number = 1, 40 do
	table.insert(accounts, ("user-%d@some-domain.example"):format(number));
end

-- (command) runs it, and throws what it says if it fails
local function shell(command)
	local output, code = throwaway.read_command(command.." 2>&1");
	assert(code == 0, output);
end

-- (dir) -> the path of a new certificate, where Prosody looks for the host's by itself
function examples.make_certificate(dir)
	local certificate = dir.."/some-domain.example.crt";
	shell(("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=some-domain.example "
		.."-addext subjectAltName=DNS:some-domain.example -keyout %s/some-domain.example.key -out %s"):format(dir, certificate));
	return certificate;
end

-- (options) -> a started server, with a watcher and a requester
-- options: hosts, as spec/support/prosody.lua takes them, with TLS if nil
function examples.new(options)
	local server = prosody.new { hosts = options and options.hosts or hosts, accounts = accounts };
	local self = setmetatable({ server = server, copies = {} }, examples);
	self.certificate = examples.make_certificate(server.dir);
	server:start();
	self:subscribe_watcher();
	self:connect();
	return self;
end

function examples:remove()
	for copy in pairs(self.copies) do
		self:signal(copy, "KILL");
		self:wait_for(copy);
	end
	self.server:remove();
end

-- A contact of the target sees the backends come and go when the component does.
function examples:subscribe_watcher()
	local target = service.backend(self.server, "first-login");
	local contact = xmpp.client(self.server, "other-user", "some-domain.example", "contact");
	contact:send(st.presence());
	contact:send(st.presence({ to = service.target, type = "subscribe" }));
	target:receive(xmpp.presence_from(contact.bare, "subscribe"));
	target:send(st.presence({ to = contact.bare, type = "subscribed" }));
	contact:receive(xmpp.presence_from(target.jid));
	target:close();
	contact:receive(xmpp.presence_from(target.jid, "unavailable"));
	contact:close();
end

-- The watcher and the requester log in, as they have to when the server has been away.
function examples:connect()
	self.watcher = xmpp.client(self.server, "other-user", "some-domain.example", "watcher");
	self.watcher:send(st.presence());
	self.requester = service.requester(self.server);
end

-- (name) -> the path of a program in Node, copied beside client.js and what npm has installed
function examples:node_program(name)
	local modules, folder = throwaway.unpacked("node").."/node_modules", self.server.dir.."/node";
	shell(("mkdir -p %s && cp examples/node/*.js* spec/support/node/slow.js %s"):format(folder, folder));
	shell(("ln -sfn %s %s/node_modules"):format(quote(modules), folder));
	return folder.."/"..name;
end

-- (command, environment) -> copy: runs a program, which an alarm ends if it does not end
-- environment: more of it, such as XMPP_PASSWORD=some-user
function examples:run(command, environment)
	local pipe = self.server.dir.."/input";
	shell("mkfifo "..pipe);
	local output = assert(io.popen(("exec <%s; echo $$; exec env PYTHONPATH=spec/support/python PYTHONDONTWRITEBYTECODE=1 "
		.."NODE_OPTIONS=--require=%s XMPP_PORT=%d %s perl -e 'alarm 60; exec @ARGV' %s 2>&1"):format(pipe,
		quote(checkout.."/spec/support/node/preload.cjs"), self.server.c2s_port, environment, command)));
	local copy = { output = output, input = assert(io.open(pipe, "w")) };
	copy.pid = tonumber(copy.output:read());
	assert(os.remove(pipe));
	self.copies[copy] = true;
	return copy;
end

-- Waits until it has ended by itself, or by a signal. What it printed, and its exit code
function examples:wait_for(copy)
	local text = copy.output:read("a");
	local _, _, code = copy.output:close();
	copy.input:close();
	self.copies[copy] = nil;
	return text, code or 0;
end

function examples.signal(_, copy, name)
	shell(("kill -%s %d"):format(name, copy.pid));
end

-- Ends a copy, which must have printed nothing but what the spec has read.
function examples:stop(copy)
	self:signal(copy, "TERM");
	local text, code = self:wait_for(copy);
	if text ~= "" or code ~= 0 then
		error(("it ended with %d and said: %s"):format(code, text), 2);
	end
end

-- Waits until a backend is available, and returns its JID.
function examples:await_backend()
	return self.watcher:receive(function (stanza)
		return stanza.name == "presence" and stanza.attr.type == nil and stanza.attr.from:sub(1, #service.target + 1) == service.target.."/";
	end).attr.from;
end

-- (command, environment) -> copy, when the component knows it
function examples:start(command, environment)
	local copy = self:run(command, environment);
	copy.jid = self:await_backend();
	return copy;
end

return examples;
