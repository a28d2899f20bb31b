local chaos = require "spec.support.chaos";
local ledger = require "spec.support.chaos.ledger";
local prosody = require "spec.support.prosody";

local WARM_UP = 20000; -- until Prosody's own caches have found their size
local REQUESTS = 100000;

describe("chaos", function ()
	it("brings about nothing that must never happen in a hundred thousand requests, and memory is back afterwards", function ()
		local seed = tonumber(os.getenv("SPEC_SEED")) or os.time();
		print("chaos_spec: SPEC_SEED="..seed);
		math.randomseed(seed);
		local server = prosody.new(chaos.server_options()):start();
		finally(function () server:remove(); end);

		local function run(count)
			local result = chaos.new(server, true):run(function (so_far) return so_far.requests < count; end);
			print("chaos_spec: "..result:describe());
			for _, column in ipairs(ledger.never) do
				assert.equal(0, result[column[1]], table.concat(result.told, "\n"));
			end
			assert.is_true(result.requests >= count);
		end

		run(WARM_UP);
		local lua_memory, memory = server:lua_memory(), server:resident_memory();
		run(REQUESTS);
		-- What is left of one request in a hundred would be more than this, in either.
		assert.is_true(server:lua_memory() < lua_memory + 1024);
		assert.is_true(server:resident_memory() < memory + 8 * 1024 * 1024);
		assert.equal(0, chaos.count_tracebacks(server:log()));
	end);
end);
