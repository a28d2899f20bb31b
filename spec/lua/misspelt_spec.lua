-- By way of options.lua, which alone knows the names of all options

local fake_module = require "spec.support.module";

local TARGET = "some-user@some-domain.example";

local function assert_contains(line, words)
	assert.truthy(line:find(words, 1, true), ("%q is not in %q"):format(words, line));
end

describe("an option that looks like one of ours", function ()
	-- (configured, globally) -> what is said when these options are read
	local function warnings(configured, globally)
		local module = fake_module.new(configured);
		module.configured_globally = globally or {};
		module:require "options";
		local lines = {};
		for _, line in ipairs(module.log_lines) do
			assert.equal("warn", line.level);
			table.insert(lines, line.text);
		end
		return lines;
	end

	local ALL = {
		target_address = TARGET, client_proxy_address_format = "plain", client_proxy_allow = "some-domain.example",
		client_proxy_request_timeout = 1, client_proxy_retries = 1, client_proxy_max_pending = 1,
		client_proxy_max_pending_per_requester = 1, client_proxy_max_requesters = 1, client_proxy_strategy = "random",
		client_proxy_resources = "a", client_proxy_auto_approve = true, client_proxy_key_lifetime = 60,
	};

	it("is none that is one, wherever it stands", function ()
		assert.same({}, warnings(ALL));
		assert.same({}, warnings({ target_address = TARGET }, ALL));
	end);

	for name, meant in pairs {
		client_proxy_stratgy = "client_proxy_strategy", client_proxy_retry = "client_proxy_retries",
		client_proxy_ressources = "client_proxy_resources",
		client_proxy_max_pending_per_user = "client_proxy_max_pending_per_requester", client_proxy_Allow = "client_proxy_allow",
		client_proxi_allow = "client_proxy_allow", clientproxy_retries = "client_proxy_retries", target_adress = "target_address",
		client_proxy_request_timout = "client_proxy_request_timeout", client_proxy_autoapprove = "client_proxy_auto_approve",
		client_proxy_timeout = "client_proxy_request_timeout", client_proxy_target_address = "target_address",
	} do
		it("is said to have no effect, and which may be meant: "..name, function ()
			local line = ("There is no option %s, it has no effect: %s may be meant"):format(name, meant);
			assert.same({ line }, warnings { target_address = TARGET, [name] = "x" });
			assert.same({ line }, warnings({ target_address = TARGET }, { [name] = "x" }));
		end);
	end

	it("is said to have no effect if it is like none of them, and which there are", function ()
		for _, name in ipairs { "client_proxy_max", "client_proxy_port", "client_proxy_", "client_proxy_log_everything_that_comes_by" } do
			local lines = warnings { target_address = TARGET, [name] = "x" };
			assert.equal(1, #lines);
			assert_contains(lines[1], "There is no option "..name..", it has no effect. There are: target_address");
			for known in pairs(ALL) do
				assert_contains(lines[1], known);
			end
		end
	end);

	it("is none of another module", function ()
		assert.same({}, warnings({ target_address = TARGET, modules_enabled = { "ping" }, component_module = "client_proxy", name = "x" },
			{ admins = {}, proxy65_address = "x", http_client_proxy = "x", client_limits = {}, s2s_secure_auth = true }));
	end);

	it("is said even if the module cannot be loaded without, each once, in order", function ()
		local lines = warnings({ target_adress = TARGET, client_proxy_retry = 1 }, { client_proxy_alow = "x" });
		assert.equal(3, #lines);
		for number, name in ipairs { "client_proxy_alow", "client_proxy_retry", "target_adress" } do
			assert_contains(lines[number], "There is no option "..name..",");
		end
	end);
end);
