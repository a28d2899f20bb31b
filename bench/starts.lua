-- How many of so many starts of Prosody serve: each time it is started, a backend
-- logs in and a request is sent. Nobody approves anything.
--
--     lua5.4 bench/starts.lua STARTS [PLUGIN_PATH [ROSTER]]
--
-- PLUGIN_PATH: where another module of this name is; ROSTER: "subscribed" puts the
-- subscription into the target's roster before the first start.

require "spec.support.paths";
local prosody = require "spec.support.prosody";
local service = require "spec.support.service";
local xmpp = require "spec.support.xmpp";

local starts, plugin_path, roster = tonumber(arg[1]), arg[2], arg[3];

local function serves(server)
	local backend = service.backend(server, "a");
	local requester = service.requester(server);
	requester:send(service.request("served"));
	requester:sync();
	service.answer_all(backend);
	local answer = requester:receive(xmpp.is_iq);
	backend:close();
	requester:close();
	return answer.attr.type == "result";
end

-- As mod_roster stores it
local function subscribe(server)
	local folder = server.dir.."/data/some%2ddomain%2eexample/roster";
	assert(os.execute(("mkdir -p '%s'"):format(folder)));
	local file = assert(io.open(folder.."/some%2duser.dat", "w"));
	assert(file:write(([[return { [false] = { pending = {} }, [%q] = { subscription = "from", groups = {} } }]]):format(service.proxy)));
	assert(file:close());
end

local function count(server)
	local served = 0;
	if roster == "subscribed" then
		subscribe(server);
	end
	for _ = 1, starts do
		server:start();
		local ok, did = pcall(serves, server);
		served = served + (ok and did and 1 or 0);
		server:stop();
	end
	print(("Prosody %s: %d of %d starts serve"):format(server:version(), served, starts));
end

local server = prosody.new { plugin_path = plugin_path };
local ok, failure = xpcall(count, debug.traceback, server);
server:remove();
if not ok then
	io.stderr:write(failure, "\n");
	os.exit(false);
end
