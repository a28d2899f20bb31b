-- The alert rules of examples/prometheus, checked by promtool on what a Prosody has shown while all that they are about
-- happened on it, each on a proxy host of its own

local new_prosody = require "spec.support.prosody".new;
local promtool = require "spec.support.prometheus".promtool;
local recording = require "spec.support.recording";
local service = require "spec.support.service";
local st = require "util.stanza";
local throwaway = require "spec.support.throwaway";
local xmpp = require "spec.support.xmpp";

local is_iq, request = xmpp.is_iq, service.request;
local read_file, write_file = throwaway.read_file, throwaway.write_file;

local EXAMPLES = throwaway.checkout.."/examples/prometheus/";
local RULES = EXAMPLES.."client_proxy_alerts.yml";
local MINUTES = 4; -- scrapes in one
local ROUNDS = 4;

local HEALTHY = service.proxy;
-- The others are named for what the spec does to them.
local GONE, FLAPPING, SILENT, BUSY, FULL, UNWRITTEN =
	"gone.example", "flapping.example", "silent.example", "busy.example", "full.example", "unwritten.example";

local HOSTS = require "spec.support.prosody".usual_hosts..[[
Component "gone.example" "client_proxy"
	target_address = "leaver@some-domain.example"
Component "flapping.example" "client_proxy"
	target_address = "flapper@some-domain.example"
Component "silent.example" "client_proxy"
	target_address = "some-user@some-domain.example"
	client_proxy_request_timeout = 1
Component "busy.example" "client_proxy"
	target_address = "some-user@some-domain.example"
	client_proxy_max_pending = 10
Component "full.example" "client_proxy"
	target_address = "some-user@some-domain.example"
	client_proxy_max_requesters = 3
Component "unwritten.example" "client_proxy"
	target_address = "some-user@some-domain.example"
]];
local ACCOUNTS = {};
for name in ("user some-user leaver flapper"):gmatch "%S+" do
	table.insert(ACCOUNTS, name.."@some-domain.example");
end

describe("the alert rules", function ()
	local server, backend, leaver, flapper, requester, recorded;
	local times = {}; -- by name: seconds after the first scrape

	-- The proxies whose target this is have its presence, and the session has been told so.
	local function present(session, type)
		session:send(st.presence { type = type });
		session:sync();
		session.received = {};
	end

	local function log_in(name)
		local session = xmpp.client(server, name, "some-domain.example", "a");
		present(session);
		return session;
	end

	local function start()
		server:start();
		backend, leaver, flapper = log_in "some-user", log_in "leaver", log_in "flapper";
		requester = service.requester(server);
	end

	-- (proxy, from) -> the request, as the backend has got it
	local function ask(proxy, from)
		(from or requester):send(request("asked", proxy));
		return backend:receive(is_iq);
	end

	-- -> from which address the backend has been asked
	local function be_answered(proxy, from)
		local asked = ask(proxy, from);
		backend:send(st.reply(asked));
		assert.equal("result", (from or requester):receive(is_iq).attr.type);
		return asked.attr.from;
	end

	-- (count): so many requests, to a token
	local function be_refused(count)
		local token = be_answered(SILENT);
		for number = 1, count do
			requester:send(request("refused-"..number, token));
		end
		for _ = 1, count do
			assert.equal("service-unavailable", (service.error_of(requester:receive(is_iq))));
		end
	end

	-- The backend leaves a request unanswered, but not the ping that comes of it.
	local function time_out()
		be_refused(150); -- so that it is less than a hundredth of all
		ask(SILENT);
		assert.equal("remote-server-timeout", (service.error_of(requester:receive(is_iq))));
		backend:send(st.reply(backend:receive(is_iq)));
	end

	local function flap()
		present(flapper, "unavailable");
		present(flapper);
	end

	-- More requesters than may be remembered
	local function fill_book()
		for number = 1, 4 do
			be_answered(FULL, service.requester(server, "r"..number));
		end
	end

	-- There is a file where the watchers' folder is to be.
	local function obstacle()
		return server.dir.."/data/unwritten%2eexample/client_proxy_watchers";
	end

	local function fail_to_write_watchers()
		requester:send(st.presence { type = "subscribe", to = UNWRITTEN });
		requester:sync();
		assert.equal(1, server:metrics()[('prosody_mod_client_proxy__watchers{host=%q}'):format(UNWRITTEN)]);
		assert(os.execute("mkdir -p "..throwaway.quote(server.dir.."/data/unwritten%2eexample")));
		write_file(obstacle(), "");
		server:ctl("shell", "module", "reload", "client_proxy", UNWRITTEN); -- writes what has changed
		backend:sync();
		backend.received = {};
	end

	local function be_well(minutes)
		local time = recorded:scrape(server:metrics(), minutes * MINUTES);
		for _, proxy in ipairs { HEALTHY, SILENT, BUSY, FULL, UNWRITTEN } do
			be_answered(proxy);
		end
		return time;
	end

	-- Once in two minutes
	local function go_wrong()
		be_answered(HEALTHY);
		time_out();
		flap();
		flap();
		return recorded:scrape(server:metrics(), 2 * MINUTES);
	end

	local function be_in_trouble()
		present(leaver, "unavailable");
		for _ = 1, 9 do
			ask(BUSY);
		end
		fill_book();
		fail_to_write_watchers();
		times.trouble = go_wrong();
		for _ = 2, ROUNDS do
			go_wrong();
		end
	end

	-- What was counted begins anew, what was remembered is forgotten.
	local function be_restarted()
		server:stop();
		os.remove(obstacle());
		times.restart = recorded:scrape({}, 2);
		start();
	end

	lazy_setup(function ()
		server = new_prosody { hosts = HOSTS, accounts = ACCOUNTS, interval = 600 }; -- the scrapes do not depend on it
		recorded = recording.new();
		start();
		be_well(5);
		flap(); -- once, as in a restart
		be_well(12);
		be_in_trouble();
		be_restarted();
		times.recovery = be_well(6);
		be_well(6);
	end);

	lazy_teardown(function ()
		server:remove();
	end);

	-- (expected): by time, a list of { name, proxy host, severity }
	local function fire(expected)
		local moments = {};
		for time, alerts in pairs(expected) do
			local moment = { time = time, alerts = {} };
			for _, alert in ipairs(alerts) do
				table.insert(moment.alerts, { name = "ClientProxy"..alert[1], host = alert[2], severity = alert[3] or "warning" });
			end
			table.insert(moments, moment);
		end
		local output, as_expected = recorded:test(RULES, moments);
		assert.is_true(as_expected, output);
	end

	it("are valid, and the job finds them", function ()
		for _, arguments in ipairs { { "check", "rules", RULES }, { "check", "config", EXAMPLES.."prometheus.yml" } } do
			local output, code = promtool(table.unpack(arguments));
			assert.equal(0, code, output);
			assert.truthy(output:find("SUCCESS: 6 rules found", 1, true), output);
		end
	end);

	it("alert of nothing while all is well", function ()
		fire { [0] = {}, [times.trouble - 15] = {} };
	end);

	local NO_BACKEND, BUSY_ONE, FULL_ONE, UNWRITTEN_ONE, FLAPPING_ONE, SILENT_ONE =
		{ "NoBackendReady", GONE, "critical" }, { "PendingNearLimit", BUSY }, { "BookFull", FULL },
		{ "WatchersFailing", UNWRITTEN }, { "BackendsFlapping", FLAPPING }, { "Timeouts", SILENT };

	it("alert of what has lasted for a minute, and not before", function ()
		fire {
			[times.trouble + 45] = {};
			[times.trouble + 60] = { NO_BACKEND, BUSY_ONE, FULL_ONE, UNWRITTEN_ONE };
		};
	end);

	it("alert of what happens again and again, each of the proxy that it happens to, and of no other", function ()
		fire { [times.restart - 15] = { NO_BACKEND, BUSY_ONE, FULL_ONE, UNWRITTEN_ONE, FLAPPING_ONE, SILENT_ONE } };
	end);

	it("alert of nothing that is over, and not of a restart", function ()
		fire {
			[times.recovery] = { FLAPPING_ONE, SILENT_ONE }; -- as they look back
			[times.recovery + 5 * 60] = { FLAPPING_ONE };
			[times.recovery + 11 * 60] = {};
		};
	end);

	it("name options that there are, and fill in what they say", function ()
		local rules, options = read_file(RULES), read_file "mod_client_proxy/options.lua";
		for name in rules:gmatch "%f[%w_]client_proxy_[%w_]+" do
			assert.truthy(options:find(('%q'):format(name), 1, true), name);
		end
		local known = { ["$labels.host"] = true, ['$value | printf "%.0f"'] = true, ["$value | humanizePercentage"] = true };
		for inserted in rules:gmatch "{{ (.-) }}" do
			assert.is_true(known[inserted], inserted);
		end
	end);
end);
