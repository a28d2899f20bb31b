-- Where, inside the servers, the processor time of a request goes: by what the Lua files of a Prosody are for, and by the
-- kinds of processes of an ejabberd.
--
--     lua5.4 bench/inside.lua

local new_fleet = require "bench.fleet".new;
local throwaway = require "spec.support.throwaway";

local BACKENDS, IN_FLIGHT, WARM_UP, SECONDS = 100, 64, 0.5, 5;

local SAMPLER = throwaway.quote(('package.cpath = "%s/.build/?.so;"..package.cpath; require "sampler"'):format(throwaway.checkout));

-- What a file is for, by a pattern of its name; the first that fits
local PARTS = {
	{ "mod_client_proxy/", "the proxy" };
	{ "util/xmppstream%.lua$", "parsing XML" };
	{ "util/stanza%.lua$", "stanzas made and written" }; -- for streams, and for debug lines
	{ "net/", "sockets and timers" }, { "util/indexedbheap%.lua$", "sockets and timers" };
	{ "core/stanza_router%.lua$", "routing" }, { "util/events%.lua$", "routing" }, { "util/jid%.lua$", "routing" };
	{ "core/", "sessions" }, { "modules/", "sessions" }, { "util/async%.lua$", "sessions" }, { "util/filters%.lua$", "sessions" };
	{ "", "all else" };
};

local ORDER = { "parsing XML", "stanzas made and written", "routing", "sockets and timers", "sessions", "the proxy", "all else" };

local function part_of(source)
	for _, part in ipairs(PARTS) do
		if source:find(part[1]) then
			return part[2];
		end
	end
end

-- (text) -> shares by part, in per cent
local function read_samples(text)
	local counts, total = {}, 0;
	for samples, source in text:gmatch("(%d+) (%S+)") do
		local part = part_of(source);
		counts[part], total = (counts[part] or 0) + tonumber(samples), total + tonumber(samples);
	end
	for part, count in pairs(counts) do
		counts[part] = count * 100 / total;
	end
	return counts;
end

-- (what, target, shares)
local function show_shares(what, target, shares)
	for _, part in ipairs(ORDER) do
		print(("  %-9s %-8s %-26s %7.1f"):format(target, what, part, shares[part] or 0));
	end
end

-- (fleet, target): looks into the front, and into the target's server if that is another Prosody
local function show_samples(fleet, target)
	local front, other = fleet.fronts[1], fleet.targets[1];
	local servers = { front, other };
	for _, server in ipairs(servers) do
		server:run_lua("require'sampler'.start()");
	end
	fleet.crowd:work(SECONDS);
	for _, server in ipairs(servers) do
		show_shares(server == front and "front" or "target", target, read_samples(server:run_lua("require'sampler'.stop()")));
	end
end

-- Erlang: reductions so far, by the supervisor of a process
local reductions = [[
	lists:foldl(fun(Pid, Map) ->
		case {erlang:process_info(Pid, dictionary), erlang:process_info(Pid, reductions)} of
			{{_, Dictionary}, {_, Count}} ->
				Parent = case lists:keyfind('$ancestors', 1, Dictionary) of {_, [First | _]} when is_atom(First) -> First; _ -> other end,
				maps:update_with(Parent, fun(Sum) -> Sum + Count end, Count, Map);
			_ -> Map
		end
	end, #{}, erlang:processes())]];

local ERLANG_PARTS = {
	{ "ejabberd_s2s_in_sup", "streams from fronts" }, { "ejabberd_s2s_out_sup", "streams to fronts" };
	{ "ejabberd_c2s_sup", "clients" };
};

-- -> by supervisor
local function count_reductions(node)
	local counts = {};
	for parent, count in node:run(reductions):gmatch("([%w_]+) => (%d+)") do
		counts[parent] = tonumber(count);
	end
	return counts;
end

-- (fleet) -> reductions for one request, by supervisor, and all of them
local function reductions_of_requests(fleet)
	local node = fleet.targets[1];
	local before = count_reductions(node);
	local requests = fleet.crowd:work(SECONDS);
	local each, total = {}, 0;
	for parent, count in pairs(count_reductions(node)) do
		each[parent] = (count - (before[parent] or 0)) / requests;
		total = total + each[parent];
	end
	return each, total;
end

local function show_reductions(fleet, target, backends)
	local each, total = reductions_of_requests(fleet);
	for _, part in ipairs(ERLANG_PARTS) do
		local supervisor, what = table.unpack(part);
		local count = each[supervisor] or 0;
		print(("  %-9s %8d %-26s %7.1f %9.0f"):format(target, backends, what, count * 100 / total, count));
	end
end

-- (target, numbers, look): a front before that target, under load; look(fleet, target, backends), with each of these numbers
local function under_load(target, numbers, look)
	local fleet = new_fleet(1, target, { run_by = "env LUA_INIT="..SAMPLER }):start();
	for _, backends in ipairs(numbers) do
		fleet:log_in(backends);
		fleet:tell_presence();
		fleet:use_fronts(1);
		fleet.crowd:ask(IN_FLIGHT);
		fleet.crowd:work(WARM_UP);
		look(fleet, target, backends);
		fleet.crowd:finish();
	end
	fleet:remove();
end

print(("# Where the processor time of a request goes inside a Prosody, in per cent; one front, %d backends, %d requests under way. By")
	:format(BACKENDS, IN_FLIGHT));
print "# samples of which Lua file it is in: what that calls in C, and the kernel does for it, is in it, and so is the garbage that";
print "# it makes.";
print(("# %-9s %-8s %-26s %7s"):format("target", "server", "part", "share"));
under_load("front", { BACKENDS }, show_samples);
under_load("prosody", { BACKENDS }, show_samples);
print "";
print "# Likewise inside an ejabberd: reductions, which is how Erlang counts work, for a request, by what its processes are for";
print(("# %-9s %8s %-26s %7s %9s"):format("target", "backends", "processes", "share", "each"));
under_load("ejabberd", { 10, BACKENDS, 1000 }, show_reductions);
