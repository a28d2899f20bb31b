-- What Prosody's page of metrics has shown, scrape by scrape, as promtool takes it to test alert rules: so a minute
-- need not pass for one.

local new_array = require "util.array";
local json = require "util.json";
local throwaway = require "spec.support.throwaway";
local promtool = require "spec.support.prometheus".promtool;

local INTERVAL = 15; -- seconds, as in examples/prometheus/prometheus.yml
local TARGET = 'instance="localhost:5280",job="prosody"'; -- the labels that Prometheus adds

local recording = { INTERVAL = INTERVAL };
recording.__index = recording;

function recording.new()
	return setmetatable({
		scrapes = 0;
		series = {}; -- by name and labels: a list of values in promtool's notation
	}, recording);
end

-- (values, count): so many scrapes find these, which are what server:metrics() returns, or nothing. -> how many seconds
-- after the first scrape the first of these was
function recording:scrape(values, count)
	local time = self.scrapes * INTERVAL;
	for name in pairs(values) do
		self.series[name] = self.series[name] or (self.scrapes > 0 and { "_x"..self.scrapes } or {});
	end
	for name, notation in pairs(self.series) do
		local value = values[name];
		table.insert(notation, value and ("%.17g+0x%d"):format(value, count - 1) or "stale _x"..count - 1);
	end
	self.scrapes = self.scrapes + count;
	return time;
end

local function alert_line(alert)
	return ('ALERTS{alertname=%q,alertstate="firing",host=%q,%s,severity=%q}'):format(alert.name, alert.host, TARGET, alert.severity);
end

-- (rules, expected) -> what promtool says, whether it finds it so
-- rules: the path of the file; expected: a list of { time (in seconds), alerts (a list of { name, host, severity }), names },
-- which are all that fire then, of those of these names if there are any
function recording:test(rules, expected)
	local input, expressions = {}, {};
	for name, notation in pairs(self.series) do
		table.insert(input, { series = name:gsub("}$", ","..TARGET.."}"), values = table.concat(notation, " ") });
	end
	for _, moment in ipairs(expected) do
		local samples = new_array();
		for _, alert in ipairs(moment.alerts) do
			samples:push { labels = alert_line(alert), value = 1 };
		end
		local firing = ('ALERTS{alertstate="firing",alertname=~%q}'):format(table.concat(moment.names or { ".*" }, "|"));
		table.insert(expressions, { expr = firing, eval_time = moment.time.."s", exp_samples = samples });
	end
	local path = os.tmpname();
	throwaway.write_file(path, json.encode { -- YAML, too
		rule_files = { rules }, evaluation_interval = INTERVAL.."s";
		tests = { { interval = INTERVAL.."s", input_series = input, promql_expr_test = expressions } };
	});
	local output, code = promtool("test", "rules", path);
	os.remove(path);
	return output, code == 0;
end

return recording;
