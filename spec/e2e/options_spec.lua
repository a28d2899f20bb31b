local core = require "mod_client_proxy.core";
local new_prosody = require "spec.support.prosody".new;
local service = require "spec.support.service";

local knows_periods = require "util.human.io".parse_duration ~= nil;

-- The configuration with these lines in the component's section
local function hosts_with(lines)
	return ([[
VirtualHost "some-domain.example"
Component "proxy.domain.example" "client_proxy"
]])..lines;
end

local function target_and(line)
	return hosts_with('target_address = "some-user@some-domain.example"\n'..line);
end

describe("the configuration", function ()
	local server;

	local function start(hosts)
		server = new_prosody { hosts = hosts }:start();
	end

	after_each(function ()
		server:remove();
	end);

	-- The module is not loaded, says why in one line of the log and in its
	-- status, and requests are refused rather than lost.
	local function refuses(hosts, ...)
		start(hosts);
		local requester = service.requester(server);
		assert.equal("service-unavailable", service.error_of(requester:request(service.request("refused"))));
		local log = server:log();
		local message = log:match("\n[^\n]*Error initializing module 'client_proxy'[^\n]*");
		assert.truthy(message);
		for _, part in ipairs { ... } do
			assert.truthy(message:find(part, 1, true), message);
		end
		assert.falsy(log:find("traceback", 1, true));
	end

	local TARGET_HINT = [[target_address = "some-user@some-domain.example"]];

	it("has to name a target", function ()
		refuses(hosts_with "", "target_address is missing", TARGET_HINT);
	end);

	for value, reason in pairs {
		['""'] = "not a JID",
		['"@some-domain.example"'] = "not a JID",
		['"some user@some-domain.example"'] = "not a JID",
		['"some-user@some-domain.example/a"'] = "has a resource",
		['"some-domain.example"'] = "not an account",
		['"some-user@proxy.domain.example"'] = "on the proxy itself",
		['"proxy.domain.example"'] = "on the proxy itself",
		['7'] = "not a JID",
		['{ "some-user@some-domain.example" }'] = "not a JID",
	} do
		it("refuses target_address = "..value, function ()
			refuses(hosts_with("target_address = "..value), "target_address = ", reason, TARGET_HINT);
		end);
	end

	it("takes a target_address that has to be normalised", function ()
		start(hosts_with [[target_address = "Some-User@SOME-Domain.example"]]);
		local backend = service.backend(server, "a");
		local requester = service.requester(server);
		requester:send(service.request("normalised"));
		requester:sync();
		assert.equal(1, service.answer_all(backend));
	end);

	for _, value in ipairs { '0', '3601', '-1', '"soon"', 'true', '{}', '1/0', '0/0' } do
		it("refuses client_proxy_request_timeout = "..value, function ()
			refuses(target_and("client_proxy_request_timeout = "..value),
				"client_proxy_request_timeout = ", "a number of seconds from 1 to 3600");
		end);
	end

	for _, value in ipairs { '59', '"a while"', '{}' } do
		it("refuses client_proxy_key_lifetime = "..value, function ()
			refuses(target_and("client_proxy_key_lifetime = "..value),
				"client_proxy_key_lifetime = ", "a number of seconds from 60 to 315360000");
		end);
	end

	for _, value in ipairs { '0', '10000001', '1.5', '"all"', 'true', '{}' } do
		it("refuses client_proxy_max_requesters = "..value, function ()
			refuses(target_and("client_proxy_max_requesters = "..value),
				"client_proxy_max_requesters = ", "a whole number from 1 to 10000000");
		end);
	end

	for _, value in ipairs { '"fastest"', '1', 'true', '{ "random", "primary" }' } do
		it("refuses client_proxy_strategy = "..value, function ()
			refuses(target_and("client_proxy_strategy = "..value), "client_proxy_strategy = ",
				([[one of "%s"]]):format(table.concat(core.STRATEGIES, [[", "]])));
		end);
	end

	for _, value in ipairs { '""', '{}', '7', '{ "a", 7 }' } do
		it("refuses client_proxy_resources = "..value, function ()
			refuses(target_and("client_proxy_resources = "..value), "client_proxy_resources = ", "a list of resources");
		end);
	end

	for value, reason in pairs {
		['{}'] = "is empty", ['""'] = "neither a bare JID nor a host", ['7'] = "neither a bare JID nor a host",
		['{ "open.example", "user@third.example/abc" }'] = "has a resource",
	} do
		it("refuses client_proxy_allow = "..value, function ()
			refuses(target_and("client_proxy_allow = "..value), "client_proxy_allow = ", reason, "a list of bare JIDs and hosts");
		end);
	end

	for _, value in ipairs { '"maybe"', '7', '{}' } do
		it("refuses client_proxy_auto_approve = "..value, function ()
			refuses(target_and("client_proxy_auto_approve = "..value), "client_proxy_auto_approve = ", "true or false");
		end);
	end

	for _, value in ipairs { '"Plain"', '1', 'true', '{ "plain" }' } do
		it("refuses client_proxy_address_format = "..value, function ()
			refuses(target_and("client_proxy_address_format = "..value),
				"client_proxy_address_format = ", [[one of "short", "sealed", "signed", "plain"]]);
		end);
	end

	it("takes periods in words where Prosody knows them, and says so", function ()
		if knows_periods then
			start(target_and [[client_proxy_request_timeout = "2 minutes"]]);
			assert.falsy(server:log():find("Error initializing module", 1, true));
		else
			refuses(target_and [[client_proxy_request_timeout = "2 minutes"]],
				[[client_proxy_request_timeout = "2 minutes"]], "a number of seconds from 1 to 3600");
		end
	end);

	it("names all that is wrong at once", function ()
		refuses(hosts_with "client_proxy_request_timeout = 0",
			"target_address is missing", "client_proxy_request_timeout = 0");
	end);

	-- The module is loaded, and warns with these lines each time; of what it is loaded with it says nothing else.
	local function warns(hosts, ...)
		start(hosts);
		for time = 1, 2 do
			local lines = {};
			for line in server:log():gmatch("client_proxy\twarn\t([^\n]*)") do
				table.insert(lines, line);
			end
			local expected = {};
			for _ = 1, time do
				table.move({ ... }, 1, select("#", ...), #expected + 1, expected);
			end
			assert.same(expected, lines);
			assert.falsy(server:log():find("Error initializing module", 1, true));
			server:ctl("shell", "module", "reload", "client_proxy", service.proxy);
		end
	end

	it("is warned of, if an option is misspelt, in the component's section or the global one", function ()
		local hosts = [[
client_proxy_retries = 2
client_proxy_resource = "a"
]]..target_and [[
	client_proxy_stratgy = "round_robin"
	client_proxy_max_pending = 100
	client_proxy_color = "red"
	restrict_room_creation = true
]];
		warns(hosts, "There is no option client_proxy_color, it has no effect. There are: target_address, client_proxy_address_format, "
			.."client_proxy_allow, client_proxy_request_timeout, client_proxy_retries, client_proxy_max_pending, "
			.."client_proxy_max_pending_per_requester, client_proxy_max_requesters, client_proxy_strategy, client_proxy_resources, "
			.."client_proxy_auto_approve, client_proxy_key_lifetime",
			"There is no option client_proxy_resource, it has no effect: client_proxy_resources may be meant",
			"There is no option client_proxy_stratgy, it has no effect: client_proxy_strategy may be meant");
	end);

	it("is not warned of if all are spelt right", function ()
		warns(target_and [[
	client_proxy_address_format = "sealed"
	client_proxy_allow = { "some-domain.example" }
	client_proxy_request_timeout = 10
	client_proxy_retries = 2
	client_proxy_max_pending = 100
	client_proxy_max_pending_per_requester = 10
	client_proxy_max_requesters = 1000
	client_proxy_strategy = "round_robin"
	client_proxy_resources = { "*" }
	client_proxy_auto_approve = true
	client_proxy_key_lifetime = 86400
]]);
	end);

	it("is warned of, too, if the target is missing by a letter", function ()
		refuses(hosts_with [[target_adress = "some-user@some-domain.example"]], "target_address is missing");
		assert.truthy(server:log():find("There is no option target_adress, it has no effect: target_address may be meant", 1, true));
	end);
end);
