local core = require "mod_client_proxy.core";
local fake_module = require "spec.support.module";
local parse_duration = require "util.human.io".parse_duration; -- nil before Prosody 13

local DAY = 24 * 60 * 60;
local TARGET = "some-user@some-domain.example";

-- (configured) -> options | nil, message
local function read(configured)
	return fake_module.new(configured):require "options";
end

local function read_with(name, value)
	local configured = { target_address = TARGET };
	configured[name] = value;
	return read(configured);
end

-- (value) -> how a message shows it, if it is no table
local function show(value)
	return type(value) == "string" and ("%q"):format(value):gsub("\n", "n") or tostring(value);
end

local function assert_contains(message, ...)
	for _, part in ipairs { ... } do
		assert.truthy(message:find(part, 1, true), ("%q is not in %q"):format(part, message));
	end
end

-- The message names the option, the value, and `...`: what to write instead
local function assert_refused(name, value, ...)
	local options, message = read_with(name, value);
	assert.is_nil(options);
	assert.is_string(message);
	local shown = type(value) == "table" and "{" or show(value).." is not possible: ";
	assert_contains(message, ("%s = %s"):format(name, shown), ...);
end

describe("options", function ()
	it("have defaults, but for the target", function ()
		assert.same({
			target = TARGET, strategy = "random", request_timeout = 60, key_lifetime = 30 * DAY,
			retries = 1, max_pending = 100000, max_pending_per_requester = 256, max_requesters = 100000,
			auto_approve = true,
		}, (read { target_address = TARGET }));
	end);

	it("are shown as they are written if they are lists", function ()
		for value, shown in pairs { [{}] = "{ }", [{ TARGET }] = '{ "some-user@some-domain.example" }', [{ 7, { true } }] = "{ 7; { true } }" } do
			local _, message = read_with("target_address", value);
			assert_contains(message, ("target_address = %s is not possible: it is not a JID"):format(shown));
		end
	end);

	it("name every problem in one message", function ()
		local options, message = read { target_address = "@", client_proxy_request_timeout = 0, client_proxy_key_lifetime = "never" };
		assert.is_nil(options);
		assert_contains(message,
			[[target_address = "@"]],
			[[client_proxy_request_timeout = 0]],
			[[client_proxy_key_lifetime = "never"]]);
	end);

	describe("target_address", function ()
		local what_to_write = [[below Component "proxy.domain.example" "client_proxy": target_address = "some-user@some-domain.example"]];

		it("is prepared as the router prepares addresses", function ()
			assert.equal("some-user@some-domain.example", read { target_address = "Some-User@Some-Domain.Example" }.target);
			assert.equal("some-user@some-domain.example", read { target_address = "some-user@some-domain.example." }.target);
			assert.equal("ünser@bücher.example", read { target_address = "Ünser@BÜCHER.example" }.target);
		end);

		it("may be on a parent or a subdomain of the proxy host", function ()
			assert.equal("a@domain.example", read { target_address = "a@domain.example" }.target);
			assert.equal("a@x.proxy.domain.example", read { target_address = "a@x.proxy.domain.example" }.target);
		end);

		it("is required", function ()
			local options, message = read {};
			assert.is_nil(options);
			assert_contains(message, "target_address is missing: ", what_to_write);
		end);

		for _, value in ipairs { 1234, true, false, { TARGET } } do
			it("cannot be a "..type(value)..(type(value) == "boolean" and " such as "..tostring(value) or ""), function ()
				assert_refused("target_address", value, "it is not a JID", what_to_write);
			end);
		end

		for _, value in ipairs {
			"", "@", "a@", "@b", "/", "a b@c d/", "a@b/", "a@/b", "a@b@c", "a b@c", "a\1@b", "a\n@b", "\127@b", "a@b/\1",
			TARGET.." ", " "..TARGET, TARGET.."\n", "a@c d", "a@b\1", "a@b\127",
		} do
			it("cannot be malformed like "..show(value), function ()
				assert_refused("target_address", value, "it is not a JID", what_to_write);
			end);
		end

		it("cannot have a resource", function ()
			assert_refused("target_address", TARGET.."/a", "it has a resource", what_to_write);
			assert_refused("target_address", "some-domain.example/a", "it has a resource", what_to_write);
		end);

		it("cannot be a host only", function ()
			assert_refused("target_address", "some-domain.example", "it is a server", what_to_write);
		end);

		it("cannot be on the proxy host", function ()
			assert_refused("target_address", "a@proxy.domain.example.", "it is on the proxy itself", what_to_write);
			assert_refused("target_address", "a@proxy.domain.example", "it is on the proxy itself", what_to_write);
			assert_refused("target_address", "a@Proxy.Domain.Example", "it is on the proxy itself", what_to_write);
			assert_refused("target_address", "proxy.domain.example", "it is on the proxy itself", what_to_write);
		end);
	end);

	for name, option in pairs {
		client_proxy_retries = { field = "retries", min = 0, max = 10 },
		client_proxy_max_pending = { field = "max_pending", min = 1, max = 10000000 },
		client_proxy_max_pending_per_requester = { field = "max_pending_per_requester", min = 1, max = 10000000 },
		client_proxy_max_requesters = { field = "max_requesters", min = 1, max = 10000000 },
	} do
		describe(name, function ()
			it("can be any whole number of its range", function ()
				for _, value in ipairs { option.min, option.max, 5, 5.0, "5" } do
					assert.equal(math.tointeger(tonumber(value)), read_with(name, value)[option.field]);
				end
			end);

			for _, value in ipairs { option.min - 1, option.max + 1, 1.5, 1/0, "many", "", true, false, {} } do
				it("cannot be "..(type(value) == "table" and "a table" or show(value)), function ()
					assert_refused(name, value, ("a whole number from %d to %d"):format(option.min, option.max));
				end);
			end
		end);
	end

	describe("client_proxy_strategy", function ()
		local allowed = ([[write one of "%s"]]):format(table.concat(core.STRATEGIES, [[", "]]));

		for _, value in ipairs(core.STRATEGIES) do
			it("can be "..value, function ()
				assert.equal(value, read_with("client_proxy_strategy", value).strategy);
			end);
		end

		for _, value in ipairs { "", "Random", "round-robin", "bare_source", 1, true, false } do
			it("cannot be "..show(value), function ()
				assert_refused("client_proxy_strategy", value, allowed);
			end);
		end
	end);

	describe("client_proxy_resources", function ()
		it("can be one name or several, with wildcards, prepared as resources are", function ()
			for value, resources in pairs {
				focus = { "focus" }, [{ "focus" }] = { "focus" }, [{ "a", "b*", "?" }] = { "a", "b*", "?" }, ["\u{2163}"] = { "IV" },
			} do
				assert.same(resources, read_with("client_proxy_resources", value).resources);
			end
		end);

		for _, value in ipairs { "", {}, { "" }, { "a", "" }, { "a", 7 }, { true }, 7, true, false, "\0", { "a\nb" } } do
			it("cannot be "..(type(value) == "table" and "a table" or show(value)), function ()
				assert_refused("client_proxy_resources", value, "write a list of resources", "*", "?");
			end);
		end
	end);

	describe("client_proxy_allow", function ()
		local advice = "write a list of bare JIDs and hosts";

		it("need not be there, and then anybody may use the service", function ()
			assert.is_nil(read({ target_address = TARGET }).allow);
		end);

		it("can be bare JIDs and hosts, with wildcards, prepared as the router prepares addresses", function ()
			for value, allowed in pairs {
				["some-domain.example"] = { "some-domain.example" },
				[{ "some-domain.example", "*.other.example", "user@third.example" }] = { "some-domain.example", "*.other.example", "user@third.example" },
				[{ "Some-Domain.Example.", "USER@Third.example", "*.Other.example.", "Bot-?*@BÜCHER.example", "*@*", "*" }] =
					{ "some-domain.example", "user@third.example", "*.other.example", "bot-?*@bücher.example", "*@*", "*" },
			} do
				assert.same(allowed, read_with("client_proxy_allow", value).allow);
			end
		end);

		for _, value in ipairs {
			"", "@", "@a.example", "a@", "a@b@c", "a b@c.example", "*@a b", "a\n@b.example", "a.example/", "a&b@c.example", "\u{ff20}", "a\0b",
			7, true, false,
		} do
			it("cannot be "..show(value)..", neither alone nor in a list", function ()
				assert_refused("client_proxy_allow", value, "it is neither a bare JID nor a host", advice, "user@third.example");
				local options, message = read_with("client_proxy_allow", { "a.example", value, "b@c.example" });
				assert.is_nil(options);
				assert_contains(message, ("client_proxy_allow = %s is not possible: it is neither"):format(show(value)), advice);
			end);
		end

		for _, value in ipairs { "user@third.example/abc", "some-domain.example/abc", "*@*/*" } do
			it("cannot have a resource, as "..value, function ()
				assert_refused("client_proxy_allow", value, "it has a resource", advice);
				local _, message = read_with("client_proxy_allow", { "a.example", value });
				assert_contains(message, ("client_proxy_allow = %q is not possible: it has a resource; "):format(value), advice);
			end);
		end

		it("cannot be empty, or a list of lists", function ()
			assert_refused("client_proxy_allow", {}, "it is empty", advice);
			assert.is_nil((read_with("client_proxy_allow", { { "a.example" } })));
		end);

		it("names each entry that is wrong", function ()
			local _, message = read_with("client_proxy_allow", { "a@", "b.example", "c.example/r" });
			assert_contains(message, [["a@" is not]], [["c.example/r" is not]]);
			assert.is_nil(message:find([["b.example" is not]], 1, true));
			local _, times = message:gsub("user@third%.example", "");
			assert.equal(1, times, "what to write instead is not said once: "..message);
		end);
	end);

	describe("client_proxy_auto_approve", function ()
		for _, yes in ipairs { true, "true", 1 } do
			it(("can be %s"):format(show(yes)), function ()
				assert.is_true(read_with("client_proxy_auto_approve", yes).auto_approve);
			end);
		end

		for _, no in ipairs { false, "false", 0 } do
			it(("can be %s"):format(show(no)), function ()
				assert.is_false(read_with("client_proxy_auto_approve", no).auto_approve);
			end);
		end

		for _, value in ipairs { "yes", "", "True", 2, -1, 0/0, { true } } do
			it(("cannot be the %s %s"):format(type(value), type(value) == "table" and "{ true }" or show(value)), function ()
				assert_refused("client_proxy_auto_approve", value, "write true or false");
			end);
		end
	end);

	describe("client_proxy_address_format", function ()
		it("need not be there, which is not the same as any of them", function ()
			assert.is_nil(read({ target_address = TARGET }).address_format);
		end);

		for _, value in ipairs { "short", "sealed", "signed", "plain" } do
			it("can be "..value, function ()
				assert.equal(value, read_with("client_proxy_address_format", value).address_format);
			end);
		end

		for _, value in ipairs { "", "Sealed", "plain ", "digest", "plaintext", 0, 1, true, false, {} } do
			it("cannot be "..(type(value) == "table" and "a table" or show(value)), function ()
				assert_refused("client_proxy_address_format", value, [[write one of "short", "sealed", "signed", "plain"]]);
			end);
		end

		it("cannot be a list of them", function ()
			assert_refused("client_proxy_address_format", { "sealed" }, [[write one of "short", "sealed", "signed", "plain"]]);
		end);
	end);

	local periods = {
		client_proxy_request_timeout = {
			field = "request_timeout";
			range = "write a number of seconds from 1 to 3600";
			possible = { [1] = 1, [1.5] = 1.5, [60] = 60, [3600] = 3600, ["60"] = 60, ["3600"] = 3600 };
			impossible = { 0, 0.5, 0.999, 3600.5, 3601, "0", "3601" };
			period = { possible = "2 minutes", seconds = 120, impossible = "2 hours" };
		};
		client_proxy_key_lifetime = {
			field = "key_lifetime";
			range = "write a number of seconds from 60 to 315360000";
			possible = { [60] = 60, [DAY] = DAY, [3650 * DAY] = 3650 * DAY, ["86400"] = DAY };
			impossible = { 0, 1, 59, 59.5, 3650 * DAY + 1, "59", "315360001" };
			period = { possible = "2 weeks", seconds = 14 * DAY, impossible = "11 years" };
		};
	};

	for name, option in pairs(periods) do
		describe(name, function ()
			for value, seconds in pairs(option.possible) do
				it(("can be %s"):format(show(value)), function ()
					local options = assert(read_with(name, value));
					assert.equal(seconds, options[option.field]);
				end);
			end

			for _, value in ipairs(option.impossible) do
				it(("cannot be %s, out of its range"):format(show(value)), function ()
					assert_refused(name, value, option.range);
				end);
			end

			for _, value in ipairs { -1, 1/0, -1/0, 0/0, "", "abc", "-60", "60 apples", "nan", "inf", "1e999", true, false, { 60 } } do
				it(("cannot be the %s %s"):format(type(value), type(value) == "table" and "{ 60 }" or show(value)), function ()
					assert_refused(name, value, option.range);
				end);
			end

			if parse_duration then
				it(("can be the period %q"):format(option.period.possible), function ()
					assert.equal(option.period.seconds, read_with(name, option.period.possible)[option.field]);
				end);

				for _, value in ipairs { "-5 minutes", "about 60 seconds", "60 seconds or more", "1.5 or 2 minutes", "1 minute 30 seconds" } do
					it(("cannot be %q, with a period somewhere in it"):format(value), function ()
						assert_refused(name, value, option.range);
					end);
				end

				it(("cannot be the period %q, out of its range"):format(option.period.impossible), function ()
					assert_refused(name, option.period.impossible, option.range, [[or a period such as "2 minutes"]]);
				end);
			else
				it("cannot be a period, which this Prosody does not know, and proposes none", function ()
					assert_refused(name, option.period.possible, option.range);
					local _, message = read_with(name, option.period.possible);
					assert.is_nil(message:find("a period such as", 1, true));
				end);
			end
		end);
	end
end);
