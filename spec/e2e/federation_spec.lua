-- The target is on another server, which the proxy's reaches over s2s: two real servers
-- with real streams between them, each of which is stopped and started again.

local new_ejabberd = require "spec.support.ejabberd".new;
local new_prosody = require "spec.support.prosody".new;
local service = require "spec.support.service";
local throwaway = require "spec.support.throwaway";
local xmpp = require "spec.support.xmpp";
local gettime = require "socket".gettime;
local st = require "util.stanza";

local PROXY, TARGET = service.proxy, service.target;
local TIMEOUT = 2; -- seconds, of a request
local PATIENCE = 10; -- seconds

local proxy_hosts = [[
VirtualHost "domain.example"
Component "proxy.domain.example" "client_proxy"
	target_address = "some-user@some-domain.example"
	client_proxy_request_timeout = 2
	modules_enabled = { "copy_presence" }
	copy_presence_to = "observer@domain.example/observer"
]];

-- (options) -> server, not yet running
local new_other = {
	Prosody = function (options)
		options.hosts = 'VirtualHost "some-domain.example"';
		return new_prosody(options);
	end,
	ejabberd = function (options)
		options.host = "some-domain.example";
		return new_ejabberd(options);
	end,
};

for _, name in ipairs { "Prosody", "ejabberd" } do
	describe("a target on another server, "..name..",", function ()
		local server, other, requester, observer;

		before_each(function ()
			local port, other_port = throwaway.free_port(), throwaway.free_port();
			server = new_prosody {
				hosts = proxy_hosts;
				accounts = { "user@domain.example", "observer@domain.example" };
				s2s = { port = port, peer_port = other_port };
			};
			other = new_other[name] {
				accounts = { TARGET, "user@some-domain.example" };
				s2s = { port = other_port, peer_port = port, peer_domains = { "domain.example", PROXY } };
			};
		end);

		after_each(function ()
			server:remove();
			other:remove();
		end);

		local function start()
			server:start();
			requester = xmpp.client(server, "user", "domain.example", "abc");
			observer = xmpp.client(server, "observer", "domain.example", "observer");
		end

		-- Waits until the proxy has got presence of that type from each of these resources
		local function await_presence(type, ...)
			local awaited, count = {}, select("#", ...);
			for _, resource in ipairs { ... } do
				awaited[TARGET.."/"..resource] = true;
			end
			while count > 0 do
				local attr = observer:receive(xmpp.is_message).tags[1].attr;
				if awaited[attr.from] and (attr.type or "available") == type then
					awaited[attr.from], count = nil, count - 1;
				end
			end
		end

		-- Backends of these resources, by name, which the proxy knows. Nobody asks them for approval.
		local function log_in(...)
			local backends = {};
			observer:sync();
			observer.received = {}; -- of earlier ones
			for _, resource in ipairs { ... } do
				backends[resource] = xmpp.client(other, "some-user", "some-domain.example", resource);
				backends[resource]:send(st.presence());
			end
			await_presence("available", ...);
			for _, backend in pairs(backends) do
				for _, stanza in ipairs(backend:sync()) do
					assert.not_equal("subscribe", stanza.attr.type);
				end
				backend.received = {};
			end
			return backends;
		end

		-- The owner of the account waits for the proxy's question. -> the owner, having answered it
		local function owner_answers(answer)
			local owner = xmpp.client(other, "some-user", "some-domain.example", "owner");
			owner:send(st.presence());
			owner:receive(xmpp.presence_from(PROXY, "subscribe"));
			owner:send(st.presence({ to = PROXY, type = answer }));
			return owner;
		end

		local function approve()
			local owner = owner_answers("subscribed");
			await_presence("available", "owner");
			owner:close();
			await_presence("unavailable", "owner");
		end

		local function send_requests(count, asking)
			for number = 1, count do
				(asking or requester):send(service.request("request-"..number));
			end
		end

		local function is_request(stanza)
			return stanza.name == "iq" and (stanza.attr.from or ""):find(PROXY.."/", 1, true) == 1;
		end

		-- Waits until these backends have got as many requests.
		local function await_requests(count, backends)
			local deadline = gettime() + PATIENCE;
			repeat
				local arrived = 0;
				for _, backend in pairs(backends) do
					for _, stanza in ipairs(backend:sync()) do
						arrived = arrived + (is_request(stanza) and 1 or 0);
					end
				end
				assert(gettime() < deadline, ("%d requests have arrived, not %d"):format(arrived, count));
			until arrived == count;
		end

		-- The backends answer what they have got, which is what the requester awaits.
		-- -> how many requests each backend had
		local function answer_requests(count, backends, asking)
			local shares, answered = {}, {};
			for resource, backend in pairs(backends) do
				shares[resource] = service.answer_all(backend);
			end
			for _ = 1, count do
				local answer = (asking or requester):receive(xmpp.is_iq);
				assert.same({ "result", PROXY }, { answer.attr.type, answer.attr.from });
				answered[answer.attr.id] = true;
			end
			for number = 1, count do
				assert.is_true(answered["request-"..number]);
			end
			return shares;
		end

		local function assert_served_by_all(backends, asking)
			send_requests(40, asking);
			await_requests(40, backends);
			for _, share in pairs(answer_requests(40, backends, asking)) do
				assert.is_true(share > 0);
			end
		end

		local function assert_refused()
			local answer = requester:request(service.request("refused"));
			assert.same({ "service-unavailable", "cancel" }, { service.error_of(answer) });
		end

		-- Each of the requests under way gets one error, in time
		local function assert_given_up(count)
			local deadline = gettime() + TIMEOUT + 1;
			for _ = 1, count do
				local condition = service.error_of(requester:receive(xmpp.is_iq));
				assert.is_true(condition == "service-unavailable" or condition == "remote-server-timeout");
			end
			assert.is_true(gettime() < deadline);
			assert.same({}, requester:sync());
		end

		-- Sends requests until all of them are answered by these backends
		local function await_service(backends)
			local deadline = gettime() + PATIENCE;
			repeat
				local results = 0;
				send_requests(40);
				repeat
					for _, backend in pairs(backends) do
						results = results + service.answer_all(backend);
					end
					assert(gettime() < deadline, "some requests still go elsewhere");
				until #requester:sync() == 40;
				requester.received = {};
			until results == 40;
		end

		it("is served by all its backends, for requesters here and there", function ()
			other:start();
			start();
			approve();
			assert_refused();
			local backends = log_in("a", "b", "c");
			assert_served_by_all(backends);
			assert_served_by_all(backends, xmpp.client(other, "user", "some-domain.example", "abc"));

			-- what one has goes to the others when it leaves
			send_requests(30);
			await_requests(30, backends);
			backends.a:close();
			backends.a = nil;
			await_requests(30, backends);
			answer_requests(30, backends);
			backends.b:close();
			backends.c:close();
			await_presence("unavailable", "b", "c");
			assert_refused();
		end);

		it("is served again when that server stops and starts, with no approval", function ()
			other:start();
			start();
			approve();
			local backends = log_in("a", "b");
			for _, signal in ipairs { "TERM", "KILL" } do
				send_requests(20);
				await_requests(20, backends);
				other:stop(signal);
				assert_given_up(20);
				assert_refused();
				other:start();
				backends = log_in("a", "b");
				assert_served_by_all(backends);
			end
		end);

		it("does not miss backends that did not come back when that server died", function ()
			other:start();
			start();
			approve();
			other:stop(); -- with what it knows on its disk
			other:start();
			log_in("a", "b", "c");
			other:stop("KILL");
			other:start();
			await_service(log_in("a", "b"));
		end);

		it("does not miss a backend that logs in again under the same resource", function ()
			other:start();
			start();
			approve();
			log_in("a");
			await_service(log_in("a"));
			await_service(log_in("a"));
		end);

		it("is not doubted because somebody else opened a stream in that server's name", function ()
			other:start();
			start();
			approve();
			local backends = log_in("a", "b");
			other:signal("STOP"); -- so that no presence comes
			xmpp.stranger(server, "some-domain.example", PROXY):close();
			local status = server:client_proxy("status", PROXY);
			other:signal("CONT");
			assert.falsy(status:find("suspended", 1, true));
			assert.equal(2, select(2, status:gsub("%f[%w]ready%f[%W]", "")));
			assert_served_by_all(backends);
		end);

		it("is asked as soon as that server has been started", function ()
			start();
			assert_refused();
			other:start();
			approve();
			assert_served_by_all(log_in("a", "b"));
		end);

		it("is asked again when that server died before it read the question", function ()
			other:start();
			start();
			owner_answers("unsubscribed"):sync();
			server:ctl("shell", "module", "unload", "client_proxy", PROXY);
			other:signal("STOP");
			server:ctl("shell", "module", "load", "client_proxy", PROXY);
			other:stop("KILL");
			other:start();
			approve();
			assert_served_by_all(log_in("a", "b"));
		end);

		it("is said not to authenticate the proxy's stream as long as it cannot do so, and not to have been asked", function ()
			server.s2s.requires_encryption = true; -- its question whose stream that is comes without
			server:configure(proxy_hosts);
			other:start();
			start();
			local function is_told()
				return server:client_proxy("status", PROXY):find("The stream to the server of "..TARGET.." is not authenticated", 1, true);
			end
			local deadline = gettime() + PATIENCE;
			repeat
				assert(gettime() < deadline, "that was not told");
			until is_told();
			assert_refused();
			assert.falsy(server:log():find("has not approved yet", 1, true));
			server:stop();
			server.s2s.requires_encryption = false;
			server:configure(proxy_hosts);
			start();
			approve();
			assert.falsy(is_told());
			assert_served_by_all(log_in("a", "b"));
		end);

		it("is asked as soon as the proxy may speak to other servers", function ()
			server:configure(proxy_hosts..'modules_disabled = { "s2s" }');
			other:start();
			start();
			assert_refused();
			server:ctl("shell", "module", "load", "s2s", PROXY);
			approve();
			assert_served_by_all(log_in("a", "b"));
		end);

		it("is found again when the proxy's server stops and starts, with no approval", function ()
			other:start();
			start();
			approve();
			local backends = log_in("a", "b");
			server:stop();
			service.await_unreachable(backends.a);
			start();
			await_presence("available", "a", "b");
			assert_served_by_all(backends);
		end);
	end);
end
