local alerts = require "spec.support.chaos.alerts";
local array = require "util.array";
local chaos = require "spec.support.chaos";
local keys = require "util.iterators".keys;
local ledger = require "spec.support.chaos.ledger";
local prosody = require "spec.support.prosody";
local gettime = require "socket".gettime;

local WARM_UP = 20000; -- until Prosody's own caches have found their size
local STANZAS = 100000; -- of each kind
local SECONDS = 45; -- with targets elsewhere

local function set_seed()
	local seed = tonumber(os.getenv("SPEC_SEED")) or os.time();
	print("chaos_spec: SPEC_SEED="..seed);
	math.randomseed(seed);
end

local function start(place)
	local server = prosody.new(chaos.server_options(place)):start();
	finally(function () server:remove(); end);
	return server;
end

-- (chaos, goes_on, progress) -> the ledger of a run in which nothing must have happened that must never happen
local function run(one, goes_on, progress)
	local result = one:run(goes_on, progress);
	print("chaos_spec: "..result:describe());
	for _, column in ipairs(ledger.never) do
		assert.equal(0, result[column[1]], table.concat(result.told, "\n"));
	end
	return result;
end

describe("chaos", function ()
	it("brings about nothing that must never happen in a hundred thousand stanzas of each kind, memory is back, and alerts were right", function ()
		set_seed();
		local server, noticed = start("here"), alerts.new();

		local function run_for(count)
			local result = run(chaos.new(server, "here", true), function (so_far) return so_far:least() < count; end,
				function () noticed:look(server:metrics()); end);
			assert.is_true(result:least() >= count);
		end

		run_for(WARM_UP);
		local lua_memory, memory = server:lua_memory(), server:resident_memory();
		run_for(STANZAS);
		-- What is left of one stanza in a hundred would be more than this, in either.
		assert.is_true(server:lua_memory() < lua_memory + 1024);
		assert.is_true(server:resident_memory() < memory + 8 * 1024 * 1024);
		assert.equal(0, chaos.count_tracebacks(server:log()));
		local are_right, output, fired = noticed:judge();
		assert.is_true(are_right, output);
		print("chaos_spec: alerts: "..table.concat(array.collect(keys(fired)), " "));
		assert.truthy(next(fired));
	end);

	it("brings about nothing that must never happen when the target's server breaks and lies", function ()
		set_seed();
		local server = start("elsewhere");
		local last = gettime() + SECONDS;
		run(chaos.new(server, "elsewhere"), function () return gettime() < last; end);
		assert.equal(0, chaos.count_tracebacks(server:log()));
	end);
end);
