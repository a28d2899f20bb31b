-- For chaos: what the alert rules of examples/prometheus must make of what the page of metrics has shown meanwhile. That
-- is worked out here from the numbers themselves, and compared with what promtool says.

local recording = require "spec.support.recording";
local service = require "spec.support.service";
local throwaway = require "spec.support.throwaway";

local RULES = throwaway.checkout.."/examples/prometheus/client_proxy_alerts.yml";
local LASTING = 4; -- scrapes after the first one at which something is so: a minute, after which it alerts
local LOOK_BACK = 40; -- scrapes in the ten minutes in which flapping is counted
local FOR_SURE = 1.5; -- how far from its limit flapping is that is judged: how Prometheus extrapolates is not worked out here

local alerts = {};
alerts.__index = alerts;

-- () -> alerts, before the first scrape
function alerts.new()
	return setmetatable({ recorded = recording.new(), scrapes = {}, fired = {} }, alerts);
end

local function value_of(values, name, labels)
	return values[("prosody_mod_client_proxy__%s{host=%q%s}"):format(name, service.proxy, labels or "")];
end

-- Those that alert of what lasts: by name, (values) -> whether it is so; severity
local lasting = {
	NoBackendReady = { function (values) return value_of(values, "backends", ',state="ready"') == 0; end, "critical" };
	PendingNearLimit = { function (values) return value_of(values, "pending") > 0.8 * value_of(values, "max_pending"); end, "warning" };
	BookFull = { function (values) return value_of(values, "requesters") >= value_of(values, "max_requesters"); end, "warning" };
	WatchersFailing = { function (values) return value_of(values, "watchers_failing") > 0; end, "warning" };
};

-- (values): what server:metrics() has returned. To be called in equal intervals, which count as those of prometheus.yml.
function alerts:look(values)
	self.recorded:scrape(values, 1);
	table.insert(self.scrapes, values);
end

local function has_lasted(self, position, is_so)
	for before = position - LASTING, position do
		local values = self.scrapes[before];
		if not values or not is_so(values) then
			return false;
		end
	end
	return true;
end

local function alert(self, name, severity)
	self.fired[name] = true;
	return { name = "ClientProxy"..name, host = service.proxy, severity = severity };
end

-- -> what must fire at that scrape of those that alert of what lasts, and nothing else of these
local function judge_lasting(self, position)
	local moment = { time = (position - 1) * recording.INTERVAL, alerts = {}, names = {} };
	for name, rule in pairs(lasting) do
		table.insert(moment.names, "ClientProxy"..name);
		if has_lasted(self, position, rule[1]) then
			table.insert(moment.alerts, alert(self, name, rule[2]));
		end
	end
	return moment;
end

-- -> likewise of flapping | nil: it is near the limit
local function judge_flapping(self, position)
	local first, last = self.scrapes[position - LOOK_BACK], self.scrapes[position];
	if not first then
		return nil;
	end
	local ready = 1;
	for before = position - LOOK_BACK, position do
		ready = math.max(ready, value_of(self.scrapes[before], "backends", ',state="ready"'));
	end
	local ratio = (value_of(last, "backends_interrupted_total") - value_of(first, "backends_interrupted_total")) / (3 * ready);
	if ratio > 1 / FOR_SURE and ratio < FOR_SURE then
		return nil;
	end
	local fires = ratio > 1 and alert(self, "BackendsFlapping", "warning") or nil;
	return { time = (position - 1) * recording.INTERVAL, alerts = { fires }, names = { "ClientProxyBackendsFlapping" } };
end

-- -> whether promtool finds it so at each scrape, what it says; the names of those that have fired, as keys
function alerts:judge()
	local moments = {};
	for position = 1, #self.scrapes do
		table.insert(moments, judge_lasting(self, position));
		table.insert(moments, judge_flapping(self, position));
	end
	local output, is_so = self.recorded:test(RULES, moments);
	return is_so, output, self.fired;
end

return alerts;
