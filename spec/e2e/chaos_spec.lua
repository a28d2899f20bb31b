local chaos = require "spec.support.chaos";
local prosody = require "spec.support.prosody";

local WARM_UP = 20000; -- until Prosody's own caches have found their size
local REQUESTS = 100000;

describe("chaos", function ()
	it("loses, doubles and misdelivers nothing in a hundred thousand requests, and memory is back afterwards", function ()
		local seed = tonumber(os.getenv("SPEC_SEED")) or os.time();
		print("chaos_spec: SPEC_SEED="..seed);
		math.randomseed(seed);
		local server = prosody.new { hosts = chaos.hosts }:start();
		finally(function () server:remove(); end);

		local function run(count)
			local ledger = chaos.new(server, { reload = true }):run(function (ledger) return ledger.requests < count; end);
			print("chaos_spec: "..chaos.describe(ledger));
			assert.same({ 0, 0, 0, 0 }, { ledger.lost, ledger.doubled, ledger.misdelivered, ledger.wrong_address });
			assert.is_true(ledger.requests >= count);
		end

		run(WARM_UP);
		local lua_memory, memory = server:lua_memory(), server:resident_memory();
		run(REQUESTS);
		-- What is left of one request in a hundred would be more than this, in either.
		assert.is_true(server:lua_memory() < lua_memory + 1024);
		assert.is_true(server:resident_memory() < memory + 8 * 1024 * 1024);
		assert.falsy(server:log():find("traceback", 1, true));
	end);
end);
