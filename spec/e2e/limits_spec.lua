-- Prosody's rate limits (mod_limits): a target on this Prosody is freed of them, and of one elsewhere it is said what to
-- write.

local admin_shell = require "spec.support.admin_shell";
local new_played_target = require "spec.support.played_target".new;
local new_prosody = require "spec.support.prosody".new;
local service = require "spec.support.service";
local web = require "spec.support.web";
local xmpp = require "spec.support.xmpp";
local gettime = require "socket".gettime;
local st = require "util.stanza";

local PROXY = service.proxy;
local RATE = 10000; -- bytes a second
local BYTES, SECONDS = 60000, 3; -- so much takes twice as long with the limit, and hundredths of a second without it

local LIMITS = [[
limits = { c2s = { rate = "10kb/s" }, s2sin = { rate = "10kb/s" } }
]];

local here = LIMITS..[[
VirtualHost "some-domain.example"
	modules_enabled = { "ping", "bosh", "websocket" }
Component "proxy.domain.example" "client_proxy"
	target_address = "some-user@some-domain.example"
]];

local TRANSPORTS = {
	{ name = "TCP", connect = xmpp.client },
	{ name = "BOSH", connect = web.bosh },
	{ name = "WebSocket", connect = web.websocket },
};

describe("the limit of a client", function ()
	local server, shell;

	local function start(hosts)
		server = new_prosody { hosts = hosts or here, modules = "limits" }:start();
		shell = admin_shell.new(server);
	end

	after_each(function ()
		server:remove();
	end);

	local function run(command)
		local ok, result = shell:run(command);
		assert(ok, result);
		return result;
	end

	local function module_command(command)
		run(("module:%s(%q, %q)"):format(command, "client_proxy", PROXY));
	end

	-- From now on, what no module refers to is gone as soon as one is loaded.
	local function collect_garbage_often()
		run "> (function () local load = require; function _G.require(name) collectgarbage(); return load(name); end return true; end)()";
	end

	-- The session goes by the connection that has the limit: with BOSH, that by which it began.
	local function limited_connection(client)
		if client.first then
			client:use(client.first);
			client.first = nil;
			client:request(st.iq({ type = "get", id = "first", to = "some-domain.example" }):tag("ping", { xmlns = "urn:xmpp:ping" }));
		end
		return client;
	end

	local function connect(transport, user, resource)
		return limited_connection(transport.connect(server, user, "some-domain.example", resource or "a"));
	end

	-- -> bytes a second that Prosody reads from its connection, 0 if all
	local function limit_of(client)
		return tonumber(run(([[> (function ()
			local session = prosody.full_sessions[%q];
			local throttle, limit = session.throttle, session.conn._limit;
			local rate = throttle and not throttle:peek(1e9) and throttle.rate or limit and 1 / limit or 0;
			return math.floor(rate + 0.5);
		end)()]]):gsub("%s+", " "):format(client.jid)):match("%d+"));
	end

	-- Seconds until something large has been read and answered
	local function time_for(client)
		local began = gettime();
		client:request(st.iq({ type = "get", id = "large", to = "some-domain.example" })
			:tag("query", { xmlns = "urn:example:large" }):text((" "):rep(BYTES)));
		return gettime() - began;
	end

	for _, transport in ipairs(TRANSPORTS) do
		describe("by "..transport.name, function ()
			it("does not hold the target, and holds another account", function ()
				start();
				local target, other = connect(transport, "some-user"), connect(transport, "user");
				assert.same({ 0, RATE }, { limit_of(target), limit_of(other) });
				assert.is_true(time_for(target) < SECONDS);
				assert.is_true(time_for(other) > SECONDS);
				assert.same({ 0, RATE }, { limit_of(target), limit_of(other) });
			end);

			it("is taken from who is online when the module is loaded, stays so over reloads, and is given back", function ()
				start();
				module_command "unload";
				local target, other = connect(transport, "some-user"), connect(transport, "user");
				local function assert_limit(limit)
					assert.same({ limit, RATE }, { limit_of(target), limit_of(other) });
				end
				assert_limit(RATE);
				module_command "load";
				assert_limit(0);
				collect_garbage_often();
				for _ = 1, 2 do
					module_command "reload";
					assert_limit(0);
				end
				assert.is_true(time_for(target) < SECONDS);
				module_command "unload";
				assert_limit(RATE);
				assert.is_true(time_for(target) > SECONDS);
				assert.equal(RATE, limit_of(connect(transport, "some-user", "later")));
				module_command "load";
				assert_limit(0);
			end);

			it("stays where the configuration does not consent", function ()
				start(here.."client_proxy_auto_approve = false");
				assert.equal(RATE, limit_of(connect(transport, "some-user")));
			end);
		end);
	end

	it("is taken from the connection by which a session is resumed", function ()
		start();
		local target = connect(TRANSPORTS[1], "some-user");
		target:enable_resumption();
		target:cut();
		server:await("HIBERNATING "..target.jid);
		target = xmpp.resume(server, target, 0);
		assert.equal(0, limit_of(target));
	end);

	it("is taken of a session by BOSH by whatever connection it comes", function ()
		start();
		local target = web.bosh(server, "some-user", "some-domain.example", "a");
		for _ = 1, 2 do
			local other = web.bosh(server, "user", "some-domain.example", "a");
			target:use(other.first); -- as when a reverse proxy has connections for all
			time_for(target);
			assert.equal(0, limit_of(target));
		end
		module_command "unload";
		assert.equal(RATE, limit_of(target));
		target:use(target.first);
		time_for(target);
		assert.equal(RATE, limit_of(target));
	end);

	it("goes by the new target after a reload that changes it, or that takes back the consent", function ()
		start();
		local old, new = connect(TRANSPORTS[1], "some-user"), connect(TRANSPORTS[1], "user");
		local function assert_after(hosts, ...)
			server:configure(hosts);
			run "config:reload()";
			module_command "reload";
			assert.same({ ... }, { limit_of(old), limit_of(new) });
		end
		assert.same({ 0, RATE }, { limit_of(old), limit_of(new) });
		assert_after(here:gsub("some%-user@", "user@"), RATE, 0);
		assert_after(here:gsub("some%-user@", "user@").."client_proxy_auto_approve = false", RATE, RATE);
		assert_after(here, 0, RATE);
	end);

	it("is given back by a reload that is refused", function ()
		start();
		local target = connect(TRANSPORTS[1], "some-user");
		server:configure(here.."client_proxy_retries = 'many'");
		run "config:reload()";
		shell:run(("module:reload(%q, %q)"):format("client_proxy", PROXY));
		assert.equal(RATE, limit_of(target));
	end);

	it("is not given back as long as another proxy has the same target", function ()
		start(here..[[
Component "other-proxy.domain.example" "client_proxy"
	target_address = "some-user@some-domain.example"
]]);
		local target = connect(TRANSPORTS[1], "some-user");
		module_command "unload";
		assert.equal(0, limit_of(target));
		run [[module:unload("client_proxy", "other-proxy.domain.example")]];
		assert.equal(RATE, limit_of(target));
	end);

	it("is taken from the sessions where connections have none", function ()
		start([[network_backend = "select"]].."\n"..here);
		module_command "unload";
		local before = connect(TRANSPORTS[1], "some-user", "before");
		assert.equal(RATE, limit_of(before));
		before:send((" "):rep(BYTES)); -- it is paused for these
		module_command "load";
		local after, other = connect(TRANSPORTS[1], "some-user", "after"), connect(TRANSPORTS[1], "user");
		assert.same({ 0, 0, RATE }, { limit_of(before), limit_of(after), limit_of(other) });
		assert.is_true(time_for(before) < SECONDS);
		assert.is_true(time_for(after) < SECONDS);
		assert.is_true(time_for(other) > SECONDS);
		module_command "unload";
		assert.same({ RATE, RATE, RATE }, { limit_of(before), limit_of(after), limit_of(other) });
	end);
end);

local elsewhere = [[
VirtualHost "domain.example"
Component "proxy.domain.example" "client_proxy"
	target_address = "some-user@some-domain.example"
]];

describe("the limit of another server's stream", function ()
	local server, played, account;

	before_each(function ()
		server, played, account = new_played_target { hosts = elsewhere, accounts = {} };
	end);

	after_each(function ()
		server:remove();
		played:remove();
	end);

	-- The target is online, with these lines of the server's configuration and of the component's.
	local function start(globals, options)
		server.modules = globals == "" and "" or "limits"; -- which has limits of its own where there are none
		server:configure(globals..elsewhere..'modules_enabled = { "ping" }\n'..(options or ""));
		server:start();
		account:add("a");
		played:receive(function (stanza) return stanza.attr.type == "probe"; end);
		played:sync();
	end

	local function status()
		return server:client_proxy("status", PROXY);
	end

	local function time_for()
		local began = gettime();
		played:send((" "):rep(BYTES));
		played:sync();
		return gettime() - began;
	end

	-- -> how often the log says it
	local function lines(words)
		local _, count = server:log():gsub(words, "");
		return count;
	end

	-- What the status tells to write, and nothing else
	local function advice()
		return status():match('below Component "proxy.domain.example" "client_proxy": (.-), and restart Prosody');
	end

	it("is named once in the log, and in the status, with lines that lift it", function ()
		start(LIMITS);
		assert.is_true(time_for() > SECONDS);
		local told = advice();
		assert.truthy(told);
		assert.truthy(status():find("Prosody reads 10000 bytes a second at most from the server of some-domain.example", 1, true));
		played:open();
		played:sync();
		assert.equal(1, lines("info%s+Prosody reads 10000 bytes a second at most"));

		server:stop();
		played:cut();
		played.received = {};
		server:configure(LIMITS..elsewhere..told:gsub('"limits"', '"ping"; "limits"'));
		server:start();
		played:receive(function (stanza) return stanza.attr.type == "probe"; end);
		played:sync();
		assert.is_true(time_for() < SECONDS);
		assert.is_nil(advice());
		assert.equal(1, lines("Prosody reads 10000 bytes a second at most"));
	end);

	it("stays where the option is in the global section alone", function ()
		start(LIMITS..'unlimited_jids = { "some-domain.example" }\n');
		assert.truthy(advice());
		assert.is_true(time_for() > SECONDS);
	end);

	it("is not named where there is none", function ()
		start("");
		assert.is_true(time_for() < SECONDS);
		assert.is_nil(advice());
		assert.equal(0, lines("Prosody reads"));
	end);
end);
