-- What becomes of 300 requests a second, each fifth of them a set, when one of the two nodes of the target's
-- server is killed, and started again 7 s later: for each strategy, with both streams between the servers at
-- the node that stays, and at the one that is killed.
--
--     lua5.4 bench/failover.lua [STRATEGY ...]

dofile("spec/support/paths.lua");

local core = require "mod_client_proxy.core";
local failover = require "spec.support.failover";

local PLACES = { { 1, 1, "stays" }, { 2, 2, "is killed" } };

local function show(strategy, place)
	local figures = failover.run { strategy = strategy, place = place };
	local conditions = {};
	for condition, count in pairs(figures.conditions) do
		table.insert(conditions, ("%s %d"):format(condition, count));
	end
	table.sort(conditions);
	print(("  %-14s %-10s %9d %8d %7d %7.2f %7.2f %9s %9s %9.2f  %s"):format(strategy, place[3], figures.requests, figures.results,
		figures.failed_after, figures.last_failed, figures.longest, ("%d/%d"):format(figures.open_gets_failed, figures.open_gets),
		("%d/%d"):format(figures.open_sets_failed, figures.open_sets), figures.open_sets_longest, table.concat(conditions, ", ")));
	io.stdout:flush();
end

print("# What fails when a node is killed under 300 requests a second: of the requests that no backend had got by then how many,");
print("# and seconds from the kill to the last of them; the longest request; of the gets and sets that one had got how many, and");
print("# seconds until all sets had an answer");
print(("# %-14s %-10s %9s %8s %7s %7s %7s %9s %9s %9s"):format("strategy", "streams at", "requests", "results", "failed", "for", "longest",
	"gets", "sets", "answered"));
for _, strategy in ipairs(arg[1] and arg or core.STRATEGIES) do
	for _, place in ipairs(PLACES) do
		show(strategy, place);
	end
end
