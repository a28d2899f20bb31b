-- What becomes of 300 requests a second when one of the two nodes of the target's server is killed, and
-- comes back: with default options, few fail, and not for long.

local failover = require "spec.support.failover";

describe("300 requests a second, a node killed and back,", function ()
	for _, strategy in ipairs { "random", "primary" } do
		it("with the strategy "..strategy, function ()
			local figures, requests = failover.run { strategy = strategy, place = { 1, 1 } };
			assert.equal(6000, figures.requests);
			assert.equal(0, figures.unanswered);
			assert.is_true(figures.last_failed <= 2, figures.last_failed);
			assert.equal(0, figures.open_gets_failed);
			assert.is_true(figures.open_gets > 0 and figures.open_sets > 0);
			assert.is_true(figures.open_sets_longest <= 5, figures.open_sets_longest);

			local arrivals = {};
			for _, request in ipairs(requests) do
				assert.is_true(request.type == "get" or #request.arrivals <= 1, request.id); -- a set is never repeated
				for _, arrival in ipairs(request.arrivals) do
					arrivals[arrival.node] = math.max(arrivals[arrival.node] or 0, arrival.at - requests[1].sent);
				end
			end
			assert.is_true(arrivals[1] > 19);
			if strategy == "random" then
				assert.is_true(arrivals[2] > 19); -- it serves again
			end
		end);
	end
end);
