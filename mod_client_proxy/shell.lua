-- The commands of `prosodyctl shell client_proxy`, for all proxies on this Prosody:
-- each puts its own in a table that they share.
--
-- The shell takes them from a table of its own that every module can reach, in
-- Prosody 0.12 as in 13; the help is for 13.

local format_table = require "util.human.io".table;
local jid_prep = require "util.jid".prep;
local resourceprep = require "util.encodings".stringprep.resourceprep;

local origin = module:require "origin"; -- as it was loaded, whatever the files say by now

local proxies = module:shared("/*/client_proxy/proxies"); -- by proxy host: { command name = function }
local shell_env = module:shared("/*/admin_shell/env");

local HOST = { name = "host", type = "string" };
local RESOURCE = { name = "resource", type = "string" };

local descriptions = {
	status = { desc = "Show the target, its backends and what became of the requests", args = { HOST } };
	drain = { desc = "Give a backend no new requests until it is undrained or leaves", args = { HOST, RESOURCE } };
	undrain = { desc = "Give a backend new requests again", args = { HOST, RESOURCE } };
	resync = { desc = "Ask the target for its presence anew, and its backends whether they answer", args = { HOST } };
};

local shell = {};

local function known_hosts()
	local hosts = {};
	for host in pairs(proxies) do
		table.insert(hosts, host);
	end
	table.sort(hosts);
	return table.concat(hosts, ", ");
end

-- A shell command that finds the proxy whose host it is given
local function command_of_all(name)
	return function (self, host, ...)
		local proxy = type(host) == "string" and proxies[jid_prep(host)];
		if not proxy then
			return nil, ("%s is no client_proxy, these are: %s"):format(tostring(host), known_hosts());
		end
		return proxy[name](self.session, ...);
	end;
end

local function add_to_shell()
	local section, help = {}, { desc = "Components that hand requests to the resources of an account", commands = descriptions };
	for name in pairs(descriptions) do
		section[name] = command_of_all(name);
	end
	shell_env.client_proxy = setmetatable(section, { help = help });
end

local function print_backends(proxy, session)
	local list = proxy.backends:list();
	local longest = 0;
	for _, entry in ipairs(list) do
		longest = math.max(longest, utf8.len(entry.resource));
	end
	local row = format_table {
		{ title = "Resource", width = longest };
		{ title = "State", width = 11 };
		{ title = "Priority", align = "right" };
		{ title = "Pending", align = "right" };
		{ title = "Online since", width = 19 };
	};
	session.print(row());
	for _, entry in ipairs(list) do
		session.print(row { entry.resource, entry.state, entry.priority, proxy.pending:count(entry.jid),
			os.date("%Y-%m-%d %H:%M:%S", entry.since) });
	end
end

-- What there is to say of requests and of messages; where a line names a counter of metrics.lua in braces, its value
-- is filled in.
local REQUESTS = "Answered: {answered}, with an error: {error}; timed out: {timeout}, backend gone: {backend_gone}, "
	.."no backend: {no_backend}; limited: {limited}, refused: {refused}, unloaded: {unloaded}";
local MORE = "Retries: {retries}; unmatched answers: {unmatched_answers}; pending now: %d";
local OF_BACKENDS = "Requests of backends: answered: {backend_requests_answered}, with an error: {backend_requests_error}; "
	.."timed out: {backend_requests_timeout}, backend gone: {backend_requests_backend_gone}; limited: {backend_requests_limited}, "
	.."refused: {backend_requests_refused}, unloaded: {backend_requests_unloaded}; pending now: %d";
local TO_BACKENDS = "Messages to backends: {messages_to_backend_sent}, errors: {messages_to_backend_error}; no backend: "
	.."{messages_to_backend_no_backend}, limited: {messages_to_backend_limited}, refused: {messages_to_backend_refused}, "
	.."dropped: {messages_to_backend_dropped}, unloaded: {messages_to_backend_unloaded}";
local TO_REQUESTERS = "Messages to requesters: {messages_to_requester_sent}, errors: {messages_to_requester_error}; refused: "
	.."{messages_to_requester_refused}";

local function print_totals(proxy, session)
	local totals = proxy.metrics:publish();
	for _, line in ipairs {
		REQUESTS, MORE:format(#proxy.pending), OF_BACKENDS:format(#proxy.asked), TO_BACKENDS, TO_REQUESTERS;
	} do
		session.print((line:gsub("{([%l_]+)}", totals)));
	end
end

-- By name: (proxy, session, the arguments after the host) -> true, what to print | nil, message
-- proxy: the setup that start() got
local commands = {};

function commands.status(proxy, session)
	local _, line = proxy.diagnosis:current();
	session.print(("Version:        %s"):format(origin));
	session.print(("Target:         %s"):format(proxy.target));
	session.print(("Subscription:   %s"):format((proxy.subscription:state())));
	session.print(("Address format: %s"):format(proxy.formats:describe()));
	session.print(("Strategy:       %s"):format(proxy.strategy));
	session.print(("Requesters:     %d of at most %d are remembered"):format(#proxy.book, proxy.max_requesters));
	session.print(("Watchers:       %d"):format(#proxy.watchers));
	local limit = proxy.diagnosis:limit();
	if limit then
		session.print(("Limit:          %s"):format(limit));
	end
	session.print("");
	print_backends(proxy, session);
	session.print("");
	print_totals(proxy, session);
	return true, line;
end

-- (proxy, resource, is_drained): drains or undrains it -> the backend's entry in the list after that | nil, message
local function drain(proxy, resource, is_drained)
	local prepped = type(resource) == "string" and resourceprep(resource);
	if prepped and proxy.backends:drain(prepped, is_drained) then
		for _, entry in ipairs(proxy.backends:list()) do
			if entry.resource == prepped then
				return entry;
			end
		end
	end
	return nil, ("%s has no backend %s: see client_proxy status"):format(module.host, tostring(resource));
end

function commands.drain(proxy, _, resource)
	local entry, message = drain(proxy, resource, true);
	if not entry then
		return nil, message;
	end
	return true, ("%s gets no new requests, %d are pending"):format(entry.resource, proxy.pending:count(entry.jid));
end

function commands.undrain(proxy, _, resource)
	local entry, message = drain(proxy, resource, false);
	if not entry then
		return nil, message;
	elseif entry.state ~= "ready" then
		return true, ("%s still gets no new requests: it is %s, with the presence priority %d"):format(
			entry.resource, entry.state, entry.priority);
	end
	return true, ("%s gets new requests"):format(entry.resource);
end

function commands.resync(proxy)
	proxy.backends:resync();
	return true, ("%s is asked for its presence, and the backends whether they answer"):format(proxy.target);
end

-- (setup): adds the commands of this proxy.
-- setup: { target, formats, strategy, max_requesters, book, pending, asked (that of backends), backends, subscription,
--          watchers, diagnosis, metrics }
function shell.start(setup)
	local bound = {};
	for name, command in pairs(commands) do
		bound[name] = function (...) return command(setup, ...); end;
	end
	proxies[module.host] = bound;
	add_to_shell();
end

-- Takes the commands of this proxy away.
function shell.stop()
	proxies[module.host] = nil;
	if not next(proxies) then
		shell_env.client_proxy = nil;
	end
end

return shell;
