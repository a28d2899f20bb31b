-- The metrics: on Prosody's page, in a Prometheus that scrapes it with the job of
-- examples/prometheus, and on the console page and the dashboard there

local json = require "util.json";
local new_prosody = require "spec.support.prosody".new;
local prometheus = require "spec.support.prometheus";
local socket = require "socket";
local service = require "spec.support.service";
local st = require "util.stanza";
local throwaway = require "spec.support.throwaway";
local xmpp = require "spec.support.xmpp";

local checkout, read_file = throwaway.checkout, throwaway.read_file;
local usual_hosts = require "spec.support.prosody".usual_hosts;
local is_iq, request = xmpp.is_iq, service.request;

local PREFIX = "prosody_mod_client_proxy__";
local PROXY, HASTY = service.proxy, "hasty.domain.example";
local HOSTS = usual_hosts..[[
client_proxy_max_pending_per_requester = 3
Component "hasty.domain.example" "client_proxy"
	target_address = "some-user@some-domain.example"
	client_proxy_request_timeout = 1
]];

describe("the metrics", function ()
	local server, requester, backend, monitor;

	-- A request that the backend gets -> what it gets
	local function hand_over(to, type)
		requester:send(request("counted", to, type));
		return backend:receive(is_iq);
	end

	-- Requests that stay pending
	local function hold(count, type)
		for _ = 1, count do
			hand_over(nil, type);
		end
	end

	-- A request that the component answers itself -> the error's condition
	local function refused()
		return (service.error_of(requester:request(request("counted"))));
	end

	local function receive_errors(count, condition)
		for _ = 1, count do
			assert.equal(condition, service.error_of(requester:receive(is_iq)));
		end
	end

	-- What Prosody's page says of a metric that has this label besides: { [the label's value] = value }
	local function by_label(name, label, host)
		local values = {};
		for series, value in pairs(server:metrics()) do
			local label_value = series:match(("^%s%s{host=%q,%s=\"(.*)\"}$"):format(PREFIX, name, host or PROXY, label));
			if label_value then
				values[label_value] = value;
			end
		end
		return values;
	end

	-- What Prosody's page says of a metric that has only the host
	local function value(name, host)
		return server:metrics()[("%s%s{host=%q}"):format(PREFIX, name, host or PROXY)];
	end

	-- What Prometheus has, in the form of server:metrics()
	local function stored()
		local values = {};
		for _, sample in ipairs(monitor:query('{__name__=~"'..PREFIX..'.*"}')) do
			local labels = {};
			for name, label_value in pairs(sample.metric) do
				if name ~= "__name__" and name ~= "instance" and name ~= "job" then
					table.insert(labels, ("%s=%q"):format(name, label_value));
				end
			end
			table.sort(labels);
			values[sample.metric.__name__.."{"..table.concat(labels, ",").."}"] = tonumber(sample.value[2]);
		end
		return values;
	end

	local function be_answered()
		for _ = 1, 7 do
			backend:send(st.reply(hand_over()));
			requester:receive(is_iq);
		end
		for _ = 1, 6 do
			backend:send(st.error_reply(hand_over(), "cancel", "item-not-found"));
			requester:receive(is_iq);
		end
		for _ = 1, 5 do
			backend:send(st.iq({ type = "result", id = "unmatched", to = PROXY }));
		end
	end

	local function be_limited()
		hold(3);
		for _ = 1, 4 do
			assert.equal("resource-constraint", refused());
		end
	end

	local function be_retried()
		local another = service.backend(server, "another");
		backend:close();
		backend = another;
		for _ = 1, 3 do
			backend:send(st.reply(backend:receive(is_iq)));
			requester:receive(is_iq);
		end
	end

	local function lose_backend()
		hold(2, "set");
		backend:close();
		receive_errors(2, "service-unavailable");
	end

	local function be_refused()
		local token = hand_over().attr.from;
		for _ = 1, 8 do
			requester:request(request("to-a-token", token));
		end
	end

	local function be_unloaded()
		hold(2);
		server:ctl("shell", "module", "unload", "client_proxy", PROXY);
		receive_errors(3, "service-unavailable"); -- with be_refused's
		server:ctl("shell", "module", "load", "client_proxy", PROXY);
		backend:sync();
		backend.received = {};
	end

	local function time_out()
		hand_over(HASTY);
		receive_errors(1, "remote-server-timeout");
		backend:receive(is_iq);
		local ping = backend:receive(is_iq); -- the second, as the first has not been answered
		assert.same({ ready = 0, suspended = 1, hibernating = 0, draining = 0, excluded = 0 }, by_label("backends", "state", HASTY));
		backend:send(st.reply(ping));
	end

	local function log_in_others()
		service.backend(server, "draining", -1);
		local hibernating = service.backend(server, "hibernating");
		hibernating:enable_resumption();
		hibernating:cut();
		server:await("HIBERNATING "..hibernating.jid);
	end

	local function let_everything_happen()
		assert.equal("service-unavailable", refused());
		backend = service.backend(server, "one");
		be_answered();
		be_limited();
		be_retried();
		lose_backend();
		backend = service.backend(server, "ready");
		be_refused();
		be_unloaded();
		time_out();
		hold(3);
		log_in_others();
	end

	lazy_setup(function ()
		server = new_prosody { hosts = HOSTS }:start();
		requester = service.requester(server);
		local job = "global:\n  evaluation_interval: 500ms\n"..read_file("examples/prometheus/prometheus.yml")
			:gsub("localhost:5280", "127.0.0.1:"..server.http_port):gsub("15s", "500ms")
			:gsub("client_proxy_alerts.yml\n", checkout.."/examples/prometheus/%0");
		monitor = prometheus.start(job, checkout.."/examples/prometheus");
		monitor:await_scrape(); -- what is counted from now on, it sees as an increase
		let_everything_happen();
		monitor:await_scrape();
	end);

	lazy_teardown(function ()
		server:remove();
		monitor:remove();
	end);

	it("count each request once, by how it ended", function ()
		assert.same({
			no_backend = 1, answered = 10, error = 6, limited = 4, backend_gone = 2, refused = 8, unloaded = 3, timeout = 0,
		}, by_label("requests_total", "outcome"));
		assert.same({
			no_backend = 0, answered = 0, error = 0, limited = 0, backend_gone = 0, refused = 0, unloaded = 0, timeout = 1,
		}, by_label("requests_total", "outcome", HASTY));
	end);

	it("count retries, and answers that no request was waiting for", function ()
		assert.same({ 3, 5 }, { value("retries_total"), value("unmatched_answers_total") });
		assert.same({ 0, 0 }, { value("retries_total", HASTY), value("unmatched_answers_total", HASTY) });
	end);

	it("count each time that a backend has ceased to be ready", function ()
		-- for both, two went and one hibernated; for one, another was suspended
		assert.same({ 3, 4 }, { value("backends_interrupted_total"), value("backends_interrupted_total", HASTY) });
	end);

	it("measure the time that backends take to answer", function ()
		local buckets = by_label("answer_time_seconds_bucket", "le");
		assert.same({ 16, 16, 16 }, { value("answer_time_seconds_count"), buckets["+Inf"], buckets["60"] });
		assert.is_true(value("answer_time_seconds_sum") > 0);
		assert.equal(0, value("answer_time_seconds_count", HASTY));
	end);

	it("tell what is pending, and the backends' states", function ()
		assert.same({ 3, 0 }, { value("pending"), value("pending", HASTY) });
		assert.same({ ready = 1, suspended = 0, hibernating = 1, draining = 1, excluded = 0 }, by_label("backends", "state"));
		assert.same({ ready = 1, suspended = 0, hibernating = 1, draining = 1, excluded = 0 }, by_label("backends", "state", HASTY));
	end);

	it("tell the limits, and of what fails", function ()
		assert.same({ 100000, 100000, 0 }, { value("max_pending"), value("max_requesters"), value("watchers_failing") });
	end);

	it("reach Prometheus as they are, which finds no fault", function ()
		assert.same(server:metrics(), stored());
		local target = monitor:api("targets").activeTargets[1];
		assert.same({ "up", "" }, { target.health, target.lastError });
	end);

	it("have types and units that Prometheus understands", function ()
		local types = {};
		for _, family in ipairs(monitor:api("targets/metadata")) do
			local name = family.metric:match("^"..PREFIX.."(.*)$");
			if name then
				types[name] = family.type.." "..family.unit;
			end
		end
		assert.same({
			requests = "counter ", retries = "counter ", unmatched_answers = "counter ",
			messages = "counter ", backend_requests = "counter ", backends_interrupted = "counter ";
			answer_time_seconds = "histogram seconds", pending = "gauge ", backends = "gauge ", requesters = "gauge ", watchers = "gauge ",
			max_pending = "gauge ", max_requesters = "gauge ", watchers_failing = "gauge ",
		}, types);
	end);

	it("make alerts, which say whom they are about", function ()
		local alert = monitor:await_alert("ClientProxyTimeouts", HASTY);
		assert.equal("Backends of "..HASTY.." leave 100% of their requests unanswered", alert.annotations.summary);
		for _, group in ipairs(monitor:api("rules").groups) do
			for _, rule in ipairs(group.rules) do
				assert.same({ "ok" }, { rule.health, rule.lastError });
			end
		end
	end);

	local function console_page(parameters)
		local page, status = monitor:get("/consoles/client_proxy.html"..parameters);
		assert.equal(200, status);
		return page;
	end

	-- -> the graphs of a console page: a list of { title, unit (or nil), lines (a list of { expression, name }) }
	local function graphs_of(page)
		local graphs = {};
		for title, script in page:gmatch("<h2>(.-)</h2>(.-)</script>") do
			local names, lines = json.decode(script:match("name: (%b[]),") or '['..script:match('name: (".-"),')..']'), {};
			for expression in script:gmatch('"[^\n]*'..PREFIX..'[^\n]*"') do
				table.insert(lines, { json.decode(expression), names[#lines + 1] });
			end
			table.insert(graphs, { title = title, unit = script:match('yUnits: "(.-)"'), lines = lines });
		end
		return graphs;
	end

	-- -> the expressions of a console page's graphs
	local function expressions_of(page)
		local expressions = {};
		for _, graph in ipairs(graphs_of(page)) do
			for _, line in ipairs(graph.lines) do
				table.insert(expressions, line[1]);
			end
		end
		return expressions;
	end

	it("are all on the console page, whose expressions Prometheus has data for", function ()
		local expressions = expressions_of(console_page("?host="..PROXY));
		for _, expression in ipairs(expressions) do
			assert.truthy(expression:find(("{host=%q"):format(PROXY), 1, true));
			local result = monitor:query(expression);
			assert.is_true(#result > 0, expression);
			for _, sample in ipairs(result) do
				assert.truthy(tonumber(sample.value[2]), expression); -- not NaN
			end
		end
		local all = table.concat(expressions, "\n");
		for _, name in ipairs {
			"requests_total", "retries_total", "unmatched_answers_total", "answer_time_seconds_bucket", "pending", "backends",
			"messages_total", "backend_requests_total", "requesters", "watchers", "backends_interrupted_total",
		} do
			assert.truthy(all:find(PREFIX..name.."{", 1, true), name);
		end
	end);

	it("are on the console page of the first host, which leads to the others", function ()
		local page = console_page("");
		assert.truthy(expressions_of(page)[1]:find(("{host=%q"):format(HASTY), 1, true));
		for _, host in ipairs { PROXY, HASTY } do
			assert.truthy(page:find(('href="?host=%s"'):format(host), 1, true));
		end
	end);

	it("are on a console page that loads nothing from elsewhere", function ()
		local page = console_page("");
		assert.is_nil(page:find("%w+://"));
		for address in page:gmatch("%f[%w]src=\"(.-)\"") do
			assert.truthy(address:find("^/[^/]"), address);
		end
		for address in page:gmatch("%f[%w]href=\"(.-)\"") do
			assert.truthy(address:find("^/[^/]") or address:find("^%?"), address);
		end
	end);

	local UNITS = { ["suffix: /s"] = "/s", ["s"] = "s" }; -- of Grafana: by its name, what the console page has for it

	-- (dashboard, host) -> what Grafana draws of it for this host, in the form of graphs_of()
	local function panels_of(dashboard, host)
		local graphs = {};
		for _, panel in ipairs(dashboard.panels) do
			local lines = {};
			for _, target in ipairs(panel.targets) do
				table.insert(lines, { (target.expr:gsub("$host", host)), (target.legendFormat:gsub("{{(.-)}}", "[[%1]]")) });
			end
			table.insert(graphs, { title = panel.title, unit = UNITS[panel.fieldConfig.defaults.unit], lines = lines });
		end
		return graphs;
	end

	describe("on Grafana's dashboard", function ()
		local dashboard = json.decode(read_file "examples/prometheus/client_proxy_grafana.json");

		it("are what is on the console page", function ()
			local graphs = graphs_of(console_page("?host="..PROXY));
			assert.is_true(#graphs > 10);
			assert.same(graphs, panels_of(dashboard, PROXY));
		end);

		it("are of the host and the Prometheus that one chooses", function ()
			local by_name = {};
			for _, variable in ipairs(dashboard.templating.list) do
				by_name[variable.name] = variable;
			end
			assert.same({ "datasource", "prometheus" }, { by_name.datasource.type, by_name.datasource.query });
			assert.equal("query", by_name.host.type);
			local series, label = by_name.host.query.query:match("^label_values%((.-), (.-)%)$");
			local hosts = {};
			for _, sample in ipairs(monitor:query(("group by (%s) (%s)"):format(label, series))) do
				hosts[sample.metric[label]] = true;
			end
			assert.same({ [PROXY] = true, [HASTY] = true }, hosts);
			for _, user in ipairs { by_name.host, table.unpack(dashboard.panels) } do
				assert.same({ type = "prometheus", uid = "${datasource}" }, user.datasource);
			end
			assert.is_nil(read_file("examples/prometheus/client_proxy_grafana.json"):find("%w+://"));
		end);

		it("stand side by side, none on another", function ()
			assert.same({ "string", "string", "number" }, { type(dashboard.uid), type(dashboard.title), type(dashboard.schemaVersion) });
			local taken, ids = {}, {};
			for _, panel in ipairs(dashboard.panels) do
				local place = panel.gridPos;
				assert.equal("timeseries", panel.type);
				assert.is_nil(ids[panel.id]);
				ids[panel.id] = true;
				assert.is_true(place.x >= 0 and place.x + place.w <= 24);
				for x = place.x, place.x + place.w - 1 do
					for y = place.y, place.y + place.h - 1 do
						assert.is_nil(taken[x..","..y]);
						taken[x..","..y] = true;
					end
				end
			end
		end);
	end);

	it("are as many series as before when strangers vary what they send", function ()
		local before = server:metrics();
		local component = xmpp.component(server, "component.example", "some-domain.example");
		for number = 1, 50 do
			local iq = request("series-"..number, ("room%d@%s/thing%d"):format(number, PROXY, number));
			iq.attr.from = ("user%d@component.example/%d"):format(number, number);
			component:send(iq);
			backend:send(st.reply(backend:receive(is_iq)));
			assert.equal("result", component:receive(is_iq).attr.type);
		end
		local after = server:metrics();
		assert.equal(60, after[('%srequests_total{host=%q,outcome="answered"}'):format(PREFIX, PROXY)]);
		for _, values in ipairs { before, after } do
			for series in pairs(values) do
				values[series] = true;
			end
		end
		assert.same(before, after);
		monitor:await_scrape();
		assert.same(server:metrics(), stored());
	end);
end);

describe("the metrics of one proxy", function ()
	local server, requester, backend;

	local function start(options)
		server = new_prosody { hosts = usual_hosts..options }:start();
		requester = service.requester(server);
		backend = service.backend(server, "a");
	end

	local function reload(hosts)
		server:configure(hosts);
		server:ctl("shell", "config", "reload");
		server:ctl("shell", "module", "reload", "client_proxy", PROXY);
	end

	local function value(name)
		return server:metrics()[("%s%s{host=%q}"):format(PREFIX, name, PROXY)];
	end

	local function no_backend_is_told_of()
		local metrics = server:metrics();
		for _, state in ipairs { "ready", "suspended", "hibernating", "draining", "excluded" } do
			assert.equal(0, metrics[("%sbackends{host=%q,state=%q}"):format(PREFIX, PROXY, state)]);
		end
	end

	after_each(function ()
		server:remove();
	end);

	it("measure the time to an answer though a reload has changed the timeout meanwhile", function ()
		start "client_proxy_request_timeout = 600";
		requester:send(request("reloaded"));
		local received = backend:receive(is_iq);
		reload(usual_hosts.."client_proxy_request_timeout = 1");
		backend:send(st.reply(received));
		assert.equal("result", requester:receive(is_iq).attr.type);
		assert.equal(1, value "answer_time_seconds_count");
		local sum = value "answer_time_seconds_sum";
		assert.is_true(sum > 0 and sum < 300, sum);
	end);

	it("tell of no backends and nothing pending after a reload that is refused", function ()
		start "";
		requester:send(request("refused"));
		backend:receive(is_iq);
		assert.same({ 1, 1 }, { value "pending", server:metrics()[("%sbackends{host=%q,state=%q}"):format(PREFIX, PROXY, "ready")] });
		reload(usual_hosts.."client_proxy_retries = 'many'");
		assert.equal("service-unavailable", (service.error_of(requester:receive(is_iq))));
		no_backend_is_told_of();
		assert.equal(0, value "pending");
		assert.equal(1, server:metrics()[("%srequests_total{host=%q,outcome=%q}"):format(PREFIX, PROXY, "unloaded")]);
	end);

	it("tell of no backends when the module could not be loaded", function ()
		start "client_proxy_retries = 'many'";
		no_backend_is_told_of();
	end);
end);

describe("the metrics of one proxy", function ()
	local server, requester, backend, receiver;

	-- (interval, global_options, statistics): see spec/support/prosody.lua; global_options: lines, none if nil
	local function start(interval, global_options, statistics)
		server = new_prosody {
			hosts = (global_options or "").."\n"..usual_hosts, interval = interval, statistics = statistics;
		}:start();
		requester = service.requester(server);
		backend = service.backend(server, "a");
	end

	local function be_answered(count)
		for n = 1, count do
			requester:send(request("answered-"..n));
			backend:send(st.reply(backend:receive(is_iq)));
			assert.equal("result", requester:receive(is_iq).attr.type);
		end
	end

	-- A request that stays pending
	local function hold()
		requester:send(request("held"));
		backend:receive(is_iq);
	end

	local function control(command)
		server:ctl("shell", "module", command, "client_proxy", PROXY);
	end

	after_each(function ()
		server:remove();
		if receiver then
			receiver:close();
			receiver = nil;
		end
	end);

	for page, paths in pairs { metrics = "", ["of/metrics"] = 'http_paths = { openmetrics = "/of/metrics" }' } do
		it("are on the page /"..page.." as soon as they can be, though Prosody collects them once in ten minutes", function ()
			start(600, paths);
			local function check(answered, pending)
				local values = server:metrics(page);
				assert.same({ answered, answered, pending, 1 }, {
					values[("%srequests_total{host=%q,outcome=%q}"):format(PREFIX, PROXY, "answered")],
					values[("%sanswer_time_seconds_count{host=%q}"):format(PREFIX, PROXY)],
					values[("%spending{host=%q}"):format(PREFIX, PROXY)],
					values[("%sbackends{host=%q,state=%q}"):format(PREFIX, PROXY, "ready")],
				});
			end
			be_answered(2);
			hold();
			check(2, 1);
			be_answered(1);
			check(3, 1);
		end);
	end

	it("are neither lost nor told twice when the module is reloaded, unloaded and loaded, and when that is refused", function ()
		start(600);
		local function check(answered, unloaded)
			local values = server:metrics();
			assert.same({ answered, answered, answered, unloaded }, {
				values[("%srequests_total{host=%q,outcome=%q}"):format(PREFIX, PROXY, "answered")],
				values[("%sanswer_time_seconds_count{host=%q}"):format(PREFIX, PROXY)],
				values[("%sanswer_time_seconds_bucket{host=%q,le=%q}"):format(PREFIX, PROXY, "60")],
				values[("%srequests_total{host=%q,outcome=%q}"):format(PREFIX, PROXY, "unloaded")],
			});
		end
		be_answered(2);
		control "reload";
		be_answered(1);
		control "reload";
		assert.truthy(server:client_proxy("status", PROXY):find("Answered: 3,", 1, true));
		check(3, 0);
		be_answered(1);
		hold();
		control "unload";
		assert.equal("service-unavailable", (service.error_of(requester:receive(is_iq))));
		check(4, 1);
		control "load";
		backend:sync();
		backend.received = {};
		check(4, 1);
		be_answered(1);
		hold();
		server:configure(usual_hosts.."client_proxy_retries = 'many'");
		server:ctl("shell", "config", "reload");
		control "reload";
		check(5, 2);
	end);

	it("are sent to a statsd, each once, the times as they come", function ()
		receiver = socket.udp();
		assert(receiver:setsockname("127.0.0.1", 0));
		receiver:settimeout(10);
		local _, port = receiver:getsockname();
		start(1, ("statistics_config = { statsd_server = '127.0.0.1', statsd_port = %d }"):format(port), "statsd");

		local sums, last = {}, {};
		local function add(line)
			local name, number, kind = line:match("^prosody%.prosody_mod_client_proxy%.(.*):(.*)|(.)$");
			if name then
				sums[name], last[name] = (sums[name] or 0) + (kind == "c" and tonumber(number) or 0), tonumber(number);
			end
		end
		local function read_all()
			receiver:settimeout(0);
			for line in function () return receiver:receive(); end do
				add(line);
			end
		end
		-- Reads until the sum of what has been sent under this name is that.
		local function await_sum(name, sum)
			receiver:settimeout(10);
			while sums[name] ~= sum do
				add(assert(receiver:receive()));
			end
		end
		local times, answered = "answer_time_seconds.proxy_domain_example.", "requests.proxy_domain_example.answered";
		be_answered(3);
		await_sum(times.."count", 3);
		await_sum(answered, 3);
		be_answered(2);
		control "reload";
		read_all();
		be_answered(1);
		hold();
		control "unload"; -- which has sent everything when it returns
		read_all();
		assert.same({ 6, 6, 6 }, { sums[times.."count"], sums[times.."bucket.60"], sums[answered] });
		assert.equal(1, sums["requests.proxy_domain_example.unloaded"]);
		assert.is_true(last[times.."sum"] > 0 and last[times.."sum"] < 60);
	end);

	it("are in the status alone when Prosody keeps no statistics", function ()
		start("manual", nil, false);
		be_answered(2);
		control "reload";
		be_answered(1);
		assert.truthy(server:client_proxy("status", PROXY):find("Answered: 3,", 1, true));
		assert.same({}, server:metrics());
		hold();
		control "unload";
		assert.equal("service-unavailable", (service.error_of(requester:receive(is_iq))));
	end);
end);
