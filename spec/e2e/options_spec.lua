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
end);
