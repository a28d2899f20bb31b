-- The commands of `prosodyctl shell client_proxy`, for all proxies on this Prosody: each puts its own, or why it could not
-- be loaded, in a table that they share.
--
-- The shell takes them from a table of its own that every module can reach, in Prosody 0.12 as in 13. In 13, its help does
-- so, too; in 0.12, that tells of nothing but its own commands.

local format_table = require "util.human.io".table;
local jid_prep = require "util.jid".prep;
local resourceprep = require "util.encodings".stringprep.resourceprep;

local origin = module:require "origin"; -- as it was loaded, whatever the files say by now

local proxies = module:shared("/*/client_proxy/proxies"); -- by proxy host: { command name = function }
local problems = module:shared("/*/client_proxy/problems"); -- by host: { text (why none is there), session (the host's) }
local shell_env = module:shared("/*/admin_shell/env");

local HOST = { name = "host", type = "string" };
local ANY_HOST = { name = "host", type = "string", is_optional = true };
local RESOURCE = { name = "resource", type = "string" };

local descriptions = {
	status = { desc = "Show the target, its backends and what became of the requests, of this proxy or of all", args = { ANY_HOST } };
	drain = { desc = "Give a backend no new requests until it is undrained or leaves", args = { HOST, RESOURCE } };
	undrain = { desc = "Give a backend new requests again", args = { HOST, RESOURCE } };
	resync = { desc = "Ask the target for its presence anew, and its backends whether they answer", args = { HOST } };
	help = { desc = "Show these commands", args = {} };
};

-- It begins with the name, as the shell's list of sections shows no more than seven letters of that.
local DESCRIPTION = "client_proxy: components that hand requests to the resources of an account";

local LOADING = "an error while it was loaded, which is in Prosody's log";

local shell = {};

local function sorted_keys(...)
	local keys = {};
	for _, by_key in ipairs { ... } do
		for key in pairs(by_key) do
			table.insert(keys, key);
		end
	end
	table.sort(keys);
	return keys;
end

-- -> all hosts that have a proxy, or should have one; a host that has gone, or has come again, is forgotten.
local function known_hosts()
	for host, problem in pairs(problems) do
		if problem.session ~= prosody.hosts[host] then
			problems[host] = nil;
		end
	end
	return sorted_keys(proxies, problems);
end

-- (host) -> its name, prepared | nil, message, if there is no proxy
local function find(host)
	local hosts, prepped = known_hosts(), type(host) == "string" and jid_prep(host);
	if proxies[prepped] or problems[prepped] then
		return prepped;
	end
	return nil, ("%s is no client_proxy, these are: %s"):format(tostring(host), hosts[1] and table.concat(hosts, ", ") or "none");
end

-- (name, given) -> how to write the command; what to say if some of its arguments are not given, or nil
local function usage(name, given)
	local absent, words = {}, { "client_proxy", name };
	for position, argument in ipairs(descriptions[name].args) do
		table.insert(words, (argument.is_optional and "[%s]" or "<%s>"):format(argument.name));
		if given[position] == nil and not argument.is_optional then
			table.insert(absent, "the "..argument.name);
		end
	end
	local line = table.concat(words, " ");
	return line, absent[1] and ("What is missing: %s. Write: %s"):format(table.concat(absent, ", "), line);
end

-- A shell command for one proxy, which it finds by the host that it is given
local function command_of_one(name)
	return function (session, ...)
		local _, what_is_missing = usage(name, { ... });
		if what_is_missing then
			return nil, what_is_missing;
		end
		local host, message = find((...));
		if not host then
			return nil, message;
		elseif not proxies[host] then
			return nil, ("%s could not be loaded: %s"):format(host, problems[host].text);
		end
		return proxies[host][name](session, select(2, ...));
	end;
end

-- (session, host) -> whether requests are served there
local function print_status(session, host)
	session.print(("Proxy:          %s"):format(host));
	if proxies[host] then
		return proxies[host].status(session);
	end
	session.print(("Status:         It could not be loaded: %s"):format(problems[host].text));
	return false;
end

-- By name: (session, the arguments) -> true, what to print | nil, message
local shell_commands = {
	drain = command_of_one "drain", undrain = command_of_one "undrain", resync = command_of_one "resync";
};

function shell_commands.status(session, wanted)
	local hosts, unwell = known_hosts(), {};
	if wanted ~= nil then
		local host, message = find(wanted);
		if not host then
			return nil, message;
		end
		hosts = { host };
	elseif not hosts[1] then
		return nil, "No client_proxy is loaded on this Prosody";
	end
	for position, host in ipairs(hosts) do
		if position > 1 then
			session.print("");
		end
		if not print_status(session, host) then
			table.insert(unwell, host);
		end
	end
	if unwell[1] then
		return nil, ("Requests to %s are not served as they should be, see the status"):format(table.concat(unwell, ", "));
	end
	return true, "Requests are served";
end

function shell_commands.help(session)
	for _, name in ipairs(sorted_keys(descriptions)) do
		session.print((usage(name, {})));
		session.print("    "..descriptions[name].desc);
	end
	return true, "These are the commands of client_proxy";
end

-- What the shell finds in the place of a command that is not there
local function unknown_command(_, name)
	return function ()
		return nil, ("client_proxy has no command %s: see client_proxy help"):format(tostring(name));
	end;
end

-- Prosody 13 takes "help client_proxy" for "help client", as it reads letters and digits only.
local function add_to_help()
	if shell_env.help then
		shell_env.help.client = function (self)
			return shell_env.help.client_proxy(self);
		end;
	end
end

local function add_to_shell()
	local section, help = {}, { desc = DESCRIPTION, commands = descriptions };
	for name, command in pairs(shell_commands) do
		section[name] = function (self, ...)
			local session = rawget(self, "session");
			if not session then
				return nil, "This shell was opened before client_proxy was loaded: open it anew";
			end
			return command(session, ...);
		end;
	end
	shell_env.client_proxy = setmetatable(section, { help = help, __index = unknown_command });
	add_to_help();
	if not prosody.start_time then -- the shell may be loaded later
		module:hook_global("server-started", add_to_help);
	end
end

local function remove_from_shell()
	shell_env.client_proxy = nil;
	if shell_env.help then
		shell_env.help.client = nil;
	end
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

-- -> whether requests are served as they should be
function commands.status(proxy, session)
	local _, line, is_well = proxy.diagnosis:current();
	session.print(("Status:         %s"):format(line));
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
	return is_well;
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
	module:log("info", "Resource %q of the target was drained in the shell: it gets no new requests until it is undrained, "
		.."or leaves", entry.resource);
	return true, ("%s gets no new requests, pending: %d"):format(entry.resource, proxy.pending:count(entry.jid));
end

function commands.undrain(proxy, _, resource)
	local entry, message = drain(proxy, resource, false);
	if not entry then
		return nil, message;
	end
	module:log("info", "Resource %q of the target was undrained in the shell: it is %s", entry.resource, entry.state);
	if entry.state ~= "ready" then
		return true, ("%s still gets no new requests: it is %s, with the presence priority %d"):format(
			entry.resource, entry.state, entry.priority);
	end
	return true, ("%s gets new requests"):format(entry.resource);
end

function commands.resync(proxy)
	proxy.backends:resync();
	return true, ("%s is asked for its presence, and the backends whether they answer"):format(proxy.target);
end

-- To be called first of all: whatever happens while the module is loaded, the shell knows of the proxy.
function shell.begin()
	shell.fail(LOADING);
	add_to_shell();
end

-- (text): the module cannot be loaded, for this reason.
function shell.fail(text)
	problems[module.host] = { text = text, session = prosody.hosts[module.host] };
end

-- (setup): it is loaded. Adds the commands of this proxy.
-- setup: { target, formats, strategy, max_requesters, book, pending, asked (that of backends), backends, subscription,
--          watchers, diagnosis, metrics }
function shell.start(setup)
	local bound = {};
	for name, command in pairs(commands) do
		bound[name] = function (...) return command(setup, ...); end;
	end
	problems[module.host], proxies[module.host] = nil, bound;
end

-- Takes the commands of this proxy away.
function shell.stop()
	proxies[module.host] = nil;
	if not known_hosts()[1] then
		remove_from_shell();
	end
end

return shell;
