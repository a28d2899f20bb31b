-- A throwaway Prometheus, the one that tools/setup unpacked, and its tool

local http = require "socket.http";
local json = require "util.json";
local socket = require "socket";
local throwaway = require "spec.support.throwaway";
local url = require "socket.url";

local quote = throwaway.quote;
local root = throwaway.unpacked "prometheus";

local TIMEOUT = 10; -- seconds, for a scrape or an alert

local prometheus = throwaway.class("Prometheus");

-- (configuration, consoles) -> prometheus, running
-- configuration: what is in its prometheus.yml; consoles: the folder of its console pages
function prometheus.start(configuration, consoles)
	local self = throwaway.new(prometheus);
	self.port = throwaway.free_port();
	throwaway.write_file(self.dir.."/prometheus.yml", configuration);
	self:launch(table.concat({ quote(root.."/usr/bin/prometheus"),
		"--config.file="..quote(self.dir.."/prometheus.yml"),
		"--storage.tsdb.path="..quote(self.dir.."/data"),
		"--web.listen-address=127.0.0.1:"..self.port,
		"--web.console.templates="..quote(consoles),
		"--web.console.libraries="..quote(root.."/usr/share/doc/prometheus/examples/console_libraries"),
	}, " "));
	self:await_line(function (line)
		return line:find("Server is ready to receive web requests", 1, true);
	end, "being ready");
	return self;
end

-- (...) -> output, exit code: runs promtool with these arguments
function prometheus.promtool(...)
	local words = { quote(root.."/usr/bin/promtool") };
	for _, word in ipairs { ... } do
		table.insert(words, quote(word));
	end
	return throwaway.read_command(table.concat(words, " ").." 2>&1");
end

-- (path) -> body, status
function prometheus:get(path)
	return http.request(("http://127.0.0.1:%d%s"):format(self.port, path));
end

-- (path) -> what its HTTP API tells; errors if that is an error
function prometheus:api(path)
	local answer = json.decode((assert(self:get("/api/v1/"..path))));
	assert(answer.status == "success", answer.error);
	return answer.data;
end

-- (expression) -> list of { metric = labels, value = { time, value as a string } }
function prometheus:query(expression)
	return self:api("query?query="..url.escape(expression)).result;
end

-- (look, what, path): waits until look() returns something, as Prometheus has no event for it. -> that; if nothing comes:
-- an error with what the API tells under that path
local function await(self, look, what, path)
	local deadline = socket.gettime() + TIMEOUT;
	while socket.gettime() < deadline do
		local found = look();
		if found then
			return found;
		end
		socket.sleep(0.05);
	end
	error(("no %s: %s"):format(what, json.encode(self:api(path))), 3);
end

-- Waits for a successful scrape that begins after now.
function prometheus:await_scrape()
	local expression = ("timestamp(up) > %.3f and up == 1"):format(socket.gettime());
	await(self, function () return #self:query(expression) > 0; end, "scrape", "targets");
end

-- (name, host) -> the alert of that name, when it is about that host; it need not fire yet
function prometheus:await_alert(name, host)
	return await(self, function ()
		for _, alert in ipairs(self:api("alerts").alerts) do
			if alert.labels.alertname == name and alert.labels.host == host then
				return alert;
			end
		end
	end, name, "alerts");
end

return prometheus;
