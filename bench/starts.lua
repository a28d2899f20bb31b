-- How many of so many first starts of Prosody serve: each has no data but the
-- accounts, a backend logs in, and a request is sent.
--
--     lua5.4 bench/starts.lua STARTS [PLUGIN_PATH]
--
-- PLUGIN_PATH: where another module of this name is. If that asks for a
-- subscription, the backend accepts it; ours has no need to ask.

require "spec.support.paths";
local prosody = require "spec.support.prosody";
local service = require "spec.support.service";
local xmpp = require "spec.support.xmpp";
local st = require "util.stanza";

local starts, plugin_path = tonumber(arg[1]), arg[2];
local version;

local function accept_subscription(backend)
	for _, stanza in ipairs(backend:sync()) do
		if stanza.attr.type == "subscribe" then
			backend:send(st.presence({ to = stanza.attr.from, type = "subscribed" }));
			backend:sync();
		end
	end
	backend.received = {};
end

local function serves(server)
	server:start();
	version = server:version();
	local backend = xmpp.client(server, "some-user", "some-domain.example", "a");
	backend:send(st.presence());
	accept_subscription(backend);
	local requester = service.requester(server);
	requester:send(service.request("served"));
	requester:sync();
	service.answer_all(backend);
	return requester:receive(xmpp.is_iq).attr.type == "result";
end

local served = 0;
for _ = 1, starts do
	served = served + (prosody.use({ plugin_path = plugin_path }, serves) and 1 or 0);
end
print(("Prosody %s: %d of %d first starts serve"):format(version, served, starts));
