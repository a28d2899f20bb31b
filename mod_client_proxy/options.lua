-- The options: read, checked and normalised once, when the module is loaded.
-- Returns a table of them, or nil and what the operator has to write, or to do, instead.

local core, no_core = module:require "load_core";
if not core then
	return nil, no_core;
end

local jid = require "util.jid";
local resourceprep = require "util.encodings".stringprep.resourceprep;
local parse_duration = require "util.human.io".parse_duration; -- nil before Prosody 13
local serialize = require "util.serialization".new { preset = "oneline", fatal = false };

local DAY = 24 * 60 * 60;

local problems = {};
local names = {}; -- of all options, as soon as they have been read

local function read(name, default)
	table.insert(names, name);
	return module:get_option(name, default);
end

local function show(value)
	if type(value) == "table" then
		return serialize(value);
	end
	return type(value) == "string" and ("%q"):format(value):gsub("\n", "n") or tostring(value);
end

local function reject(name, value, what_to_write)
	table.insert(problems, ("%s = %s is not possible: %s"):format(name, show(value), what_to_write));
end

-- (host) -> whether nameprep has let it pass, and it has nothing in it that nameprep should not have let pass
local function is_host(host)
	return host and not host:find("[%c%s\"&'/:<>@]");
end

-- The bare JID of an account, prepared (RFC 7622 section 3) as the router compares it
local function read_target(name)
	local value = read(name);
	local advice = ([[write the bare JID of the account that serves, like this, below Component %q "client_proxy": ]]
		..[[%s = "some-user@some-domain.example"]]):format(module.host, name);
	if value == nil then
		table.insert(problems, ("%s is missing: %s"):format(name, advice));
		return;
	end
	local node, host, resource;
	if type(value) == "string" then
		node, host, resource = jid.prepped_split(value);
	end
	if not is_host(host) then
		reject(name, value, "it is not a JID; "..advice);
	elseif resource then
		reject(name, value, "it has a resource; "..advice);
	elseif host == module.host then
		reject(name, value, "it is on the proxy itself; "..advice);
	elseif not node then
		reject(name, value, "it is a server, not an account; "..advice);
	else
		return jid.join(node, host);
	end
end

local function to_seconds(value)
	if type(value) ~= "string" then
		return type(value) == "number" and value or nil;
	end
	-- parse_duration() takes any text that has a period somewhere in it
	local is_period = parse_duration and value:find("^%s*%d+%s*%a+%s*$");
	return is_period and parse_duration(value) or tonumber(value);
end

-- Seconds, from a number or, where Prosody knows them, from a period such as "2 minutes"
local function read_period(name, default, min, max)
	local value = read(name, default);
	local seconds = to_seconds(value);
	if seconds and seconds >= min and seconds <= max then
		return seconds;
	end
	reject(name, value, ("write a number of seconds from %d to %d"):format(min, max)
		..(parse_duration and [[, or a period such as "2 minutes"]] or ""));
end

local function read_integer(name, default, min, max)
	local value = read(name, default);
	local integer = math.tointeger((type(value) == "number" or type(value) == "string") and tonumber(value) or nil);
	if integer and integer >= min and integer <= max then
		return integer;
	end
	reject(name, value, ("write a whole number from %d to %d"):format(min, max));
end

local booleans = {
	[true] = true, [false] = false, ["true"] = true, ["false"] = false, [1] = true, [0] = false;
};

-- What Prosody takes for a boolean, too
local function read_boolean(name, default)
	local value = read(name, default);
	if booleans[value] == nil then
		reject(name, value, "write true or false");
	end
	return booleans[value];
end

-- nil if there is no such option, and no default
local function read_choice(name, default, choices)
	local value = read(name, default);
	if value == nil then
		return;
	end
	for _, choice in ipairs(choices) do
		if value == choice then
			return choice;
		end
	end
	reject(name, value, ([[write one of "%s"]]):format(table.concat(choices, [[", "]])));
end

-- Prepared as the resources of JIDs are; nil if there is no such option
local function read_resources(name)
	local value = read(name);
	if value == nil then
		return;
	end
	local list = type(value) == "table" and value or { value };
	local prepped = {};
	for index, resource in ipairs(list) do
		local is_text = type(resource) == "string" and resource ~= "";
		prepped[index] = is_text and resourceprep(resource) or nil;
	end
	if #prepped > 0 and #prepped == #list then
		return prepped;
	end
	reject(name, value, [[write a list of resources, in which * can stand for anything and ? for one character, as in { "focus", "worker-*" }]]);
end

-- (entry) -> the bare JID or the host, prepared | nil, what it is instead
-- Wildcards are preserved, as they can be parts of a JID, too.
local function prepare_entry(entry)
	local node, host, resource;
	if type(entry) == "string" then
		node, host, resource = jid.prepped_split(entry);
	end
	if not is_host(host) then
		return nil, "it is neither a bare JID nor a host";
	elseif resource then
		return nil, "it has a resource";
	end
	return jid.join(node, host);
end

-- Bare JIDs and hosts; nil if there is no such option
local function read_allowed(name)
	local value = read(name);
	if value == nil then
		return;
	end
	local advice = [[write a list of bare JIDs and hosts, in which * can stand for anything and ? for one character, as in ]]
		..[[{ "some-domain.example", "*.other.example", "user@third.example" }]];
	local list = type(value) == "table" and value or { value };
	if #list == 0 then
		reject(name, value, "it is empty; "..advice);
	end
	local prepared, wrong = {}, {};
	for index = 1, #list do
		local entry, problem = prepare_entry(list[index]);
		if not entry then
			table.insert(wrong, { value = list[index], problem = problem });
		end
		prepared[index] = entry;
	end
	for index, entry in ipairs(wrong) do -- what to write is said once
		reject(name, entry.value, entry.problem..(index == #wrong and "; "..advice or ""));
	end
	return prepared;
end

local options = {
	target = read_target("target_address");
	address_format = read_choice("client_proxy_address_format", nil, core.FORMATS); -- see formats.lua
	allow = read_allowed("client_proxy_allow");
	request_timeout = read_period("client_proxy_request_timeout", 60, 1, 3600);
	retries = read_integer("client_proxy_retries", 1, 0, 10);
	max_pending = read_integer("client_proxy_max_pending", 100000, 1, 10000000);
	max_pending_per_requester = read_integer("client_proxy_max_pending_per_requester", 256, 1, 10000000);
	max_requesters = read_integer("client_proxy_max_requesters", 100000, 1, 10000000);
	strategy = read_choice("client_proxy_strategy", "random", core.STRATEGIES);
	resources = read_resources("client_proxy_resources");
	auto_approve = read_boolean("client_proxy_auto_approve", true);
	key_lifetime = read_period("client_proxy_key_lifetime", 30 * DAY, 60, 3650 * DAY);
};

module:require "misspelt".warn(names);

if #problems > 0 then
	return nil, table.concat(problems, "; ");
end
return options;
