-- Prosody is started for the first time, many times: with no data but the accounts. A
-- backend logs in, and a request is sent. In how many of these starts is it answered?
--
--     lua5.4 bench/starts.lua STARTS [PLUGIN_PATH]
--
-- PLUGIN_PATH: where the module of 2018 is, to be measured in place of this one. When
-- that asks for a subscription, the backend accepts it; ours has no need to ask.

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
print(("# First starts of Prosody %s, and how many of them serve, with %s"):format(version,
	plugin_path and "the module of 2018" or "this module"));
print(("# %6s %7s"):format("starts", "serving"));
print(("  %6d %7d"):format(starts, served));
