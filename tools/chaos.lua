-- make chaos: tools/chaos.lua SECONDS [PLUGIN_PATH]
-- PLUGIN_PATH: where another mod_client_proxy is, to compare it with

require "spec.support.paths";
local chaos = require "spec.support.chaos";
local prosody = require "spec.support.prosody";

local seconds, plugin_path = tonumber(arg[1]), arg[2];
local seed = tonumber(os.getenv("SPEC_SEED")) or os.time();
math.randomseed(seed);

local function run(server)
	server:start();
	print(("Prosody %s, %d seconds, SPEC_SEED=%d"):format(server:version(), seconds, seed));
	local stop_at = os.time() + seconds;
	local ledger = chaos.new(server, { reload = true }):run(function ()
		return os.time() < stop_at;
	end, function (so_far)
		io.write(("\r%4d s  %s, %d open "):format(stop_at - os.time(), chaos.describe(so_far), so_far.open));
		io.flush();
	end);
	print("\n"..chaos.describe(ledger));
	return ledger.lost + ledger.doubled + ledger.misdelivered + ledger.wrong_address == 0;
end

os.exit(prosody.use({ hosts = chaos.hosts, plugin_path = plugin_path }, run));
