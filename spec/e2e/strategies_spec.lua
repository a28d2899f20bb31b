-- Which backend gets a request

local core = require "mod_client_proxy.core";
local known_choices = require "spec.support.known_choices";
local new_prosody = require "spec.support.prosody".new;
local service = require "spec.support.service";
local xmpp = require "spec.support.xmpp";
local st = require "util.stanza";

local PROXY, TARGET = service.proxy, service.target;
local is_iq = xmpp.is_iq;

describe("the strategy", function ()
	local server, requester, backends;

	local function hosts_with(lines)
		return ([[
VirtualHost "some-domain.example"
Component "component.example"
	component_secret = "component.example"
Component "proxy.domain.example" "client_proxy"
	target_address = "some-user@some-domain.example"
	client_proxy_max_pending_per_requester = 1000
	%s
]]):format(lines);
	end

	-- Starts with these lines in the component's section, and these backends, which come in this order.
	local function start(lines, resources)
		server = new_prosody { hosts = hosts_with(lines) }:start();
		requester = service.requester(server);
		backends = {};
		for _, resource in ipairs(resources) do
			backends[resource] = service.backend(server, resource);
		end
	end

	after_each(function ()
		server:remove();
	end);

	local function leave(resource)
		backends[resource]:close();
		backends[resource] = nil;
	end

	-- Sends a request. -> the resource that has got it, the stanza
	local number = 0;
	local function dispatch(iq)
		number = number + 1;
		requester:send(iq or service.request("number-"..number));
		requester:sync();
		for resource, backend in pairs(backends) do
			for _, stanza in ipairs(backend:sync()) do
				if is_iq(stanza) and stanza.attr.from:find(PROXY.."/", 1, true) and stanza.attr.type ~= "error" then
					backend.received = {};
					return resource, stanza;
				end
			end
			backend.received = {};
		end
	end

	-- Sends a request, which is answered. -> the resource that has got it
	local function round_trip(iq)
		local resource, stanza = dispatch(iq);
		backends[resource]:send(st.reply(stanza));
		assert.equal("result", requester:receive(is_iq).attr.type);
		return resource;
	end

	-- (count) -> by resource, how many of so many round trips
	local function share(count)
		local shares = {};
		for _ = 1, count do
			local resource = round_trip();
			shares[resource] = (shares[resource] or 0) + 1;
		end
		return shares;
	end

	it("is shown in the status", function ()
		start([[client_proxy_strategy = "round_robin"]], {});
		assert.truthy(server:client_proxy("status", PROXY):find("Strategy:       round_robin\n", 1, true));
	end);

	describe("round_robin", function ()
		it("gives each backend its turn, also when one goes and one comes", function ()
			start([[client_proxy_strategy = "round_robin"]], { "a", "b", "c" });
			assert.same({ a = 1, b = 1, c = 1 }, share(3));
			assert.same({ a = 3, b = 3, c = 3 }, share(9));
			leave "b";
			assert.same({ a = 4, c = 4 }, share(8));
			backends.d = service.backend(server, "d");
			assert.same({ a = 2, c = 2, d = 2 }, share(6));
		end);
	end);

	describe("least_pending", function ()
		it("spares a backend that is slow", function ()
			start([[client_proxy_strategy = "least_pending"]], { "fast", "slow" });
			local counts = { fast = 0, slow = 0 };
			for _ = 1, 30 do
				local resource, stanza = dispatch();
				counts[resource] = counts[resource] + 1;
				if resource == "fast" then
					backends.fast:send(st.reply(stanza));
					requester:receive(is_iq);
				end
			end
			assert.is_true(counts.slow <= 1, counts.slow); -- the one that it still has
		end);
	end);

	describe("primary", function ()
		it("prefers the highest priority, then who is online longest", function ()
			start([[client_proxy_strategy = "primary"]], { "a", "b", "c" });
			assert.same({ a = 5 }, share(5));
			backends.c:send(st.presence():text_tag("priority", "1"));
			backends.c:sync();
			assert.same({ c = 5 }, share(5));
			leave "c";
			assert.same({ a = 5 }, share(5));
			backends.d = service.backend(server, "d", 7);
			assert.same({ d = 5 }, share(5));
		end);

		it("stays with a standby when the one before returns with equal priority", function ()
			start([[client_proxy_strategy = "primary"]], { "a", "b" });
			leave "a";
			assert.same({ b = 3 }, share(3));
			backends.a = service.backend(server, "a");
			assert.same({ b = 3 }, share(3));
			server:client_proxy("drain", PROXY, "b");
			assert.same({ a = 3 }, share(3));
			server:client_proxy("undrain", PROXY, "b");
			assert.same({ a = 3 }, share(3));
			server:ctl("shell", "module", "reload", "client_proxy", PROXY);
			assert.same({ a = 3 }, share(3));
		end);

		it("takes a standby while the primary hibernates, and after", function ()
			start([[client_proxy_strategy = "primary"]], { "a", "b" });
			backends.a:enable_resumption();
			backends.a:cut();
			server:await("HIBERNATING "..TARGET.."/a");
			local old = backends.a;
			backends.a = nil;
			assert.same({ b = 3 }, share(3));
			backends.a = xmpp.resume(server, old, 0);
			backends.a:sync();
			assert.same({ b = 3 }, share(3));
		end);

		it("takes a standby when the primary lets a request time out and answers no ping either", function ()
			start([[client_proxy_strategy = "primary"
				client_proxy_request_timeout = 1]], { "a", "b" });
			assert.equal("a", (dispatch()));
			assert.equal("remote-server-timeout", (service.error_of(requester:receive(is_iq))));
			backends.a:receive(is_iq);
			backends.a:receive(is_iq); -- the second ping, as the first has not been answered
			assert.equal("b", (dispatch()));
		end);

		it("keeps the primary when it lets a request time out but answers a ping", function ()
			start([[client_proxy_strategy = "primary"
				client_proxy_request_timeout = 1]], { "a", "b" });
			assert.equal("a", (dispatch()));
			assert.equal("remote-server-timeout", (service.error_of(requester:receive(is_iq))));
			backends.a:send(st.reply(backends.a:receive(is_iq)));
			assert.equal("a", (dispatch()));
		end);
	end);

	for strategy, address in pairs { sender = "from", recipient = "to" } do
		describe(strategy, function ()
			local resources = { "a", "b", "c" };
			local component;

			-- By number, the resource that gets requests with this number in their address
			local function choices()
				local chosen = {};
				for index = 1, 60 do
					component:send(st.iq({ type = "get", id = "choice-"..index,
						from = address == "from" and ("user-%d@component.example/%d"):format(index, math.random(1000)) or "component.example",
						to = address == "to" and ("room-%d@%s/%d"):format(index, PROXY, math.random(1000)) or PROXY,
					}):tag("query", { xmlns = "urn:example:service" }));
				end
				component:sync();
				for resource, backend in pairs(backends) do
					for _, stanza in ipairs(backend:sync()) do
						local index = tonumber((stanza.attr.id or ""):match("^choice%-(%d+)$"));
						if index then
							chosen[index] = resource;
							backend:send(st.reply(stanza));
						end
					end
					backend.received = {};
				end
				for _ = 1, 60 do
					assert.equal("result", component:receive(is_iq).attr.type);
				end
				return chosen;
			end

			local function connect()
				component = xmpp.component(server, "component.example", "some-domain.example");
			end

			it("is the same over a reload and a restart, and moves only what it must", function ()
				start(("client_proxy_strategy = %q"):format(strategy), resources);
				connect();
				local chosen = choices();
				assert.same(known_choices[strategy], chosen);
				assert.same(chosen, choices());
				server:ctl("shell", "module", "reload", "client_proxy", PROXY);
				assert.same(chosen, choices());

				leave "b";
				local without_b = choices();
				for index, resource in ipairs(chosen) do
					assert.is_true(resource == "b" or without_b[index] == resource);
				end

				server:stop();
				server:start();
				for _, resource in ipairs { "c", "b", "a" } do
					backends[resource] = service.backend(server, resource);
				end
				connect();
				assert.same(chosen, choices());
			end);
		end);
	end

	describe("whichever it is, with three backends,", function ()
		local COMMANDS = "http://jabber.org/protocol/commands";

		-- A backend's side of a command of two stages (XEP-0050 section 3.2): it knows its own sessions only
		local function answer_command(resource, sessions, stanza)
			local command = stanza:get_child("command", COMMANDS);
			local session = command.attr.sessionid;
			if not session then
				session = resource.."-"..stanza.attr.id;
				sessions[session] = true;
				return st.reply(stanza):tag("command", { xmlns = COMMANDS, node = command.attr.node, sessionid = session, status = "executing" });
			elseif sessions[session] then
				return st.reply(stanza):tag("command", { xmlns = COMMANDS, node = command.attr.node, sessionid = session, status = "completed" });
			end
			return st.error_reply(stanza, "modify", "bad-request");
		end

		local function run_stage(sessions, requester_of_command, id, session)
			requester_of_command:send(st.iq({ type = "set", id = id, to = PROXY })
				:tag("command", { xmlns = COMMANDS, node = "configure", sessionid = session }));
			requester_of_command:sync();
			for resource, backend in pairs(backends) do
				for _, stanza in ipairs(backend:sync()) do
					if stanza:get_child("command", COMMANDS) then
						backend:send(answer_command(resource, sessions[resource], stanza));
					end
				end
				backend.received = {};
			end
			return requester_of_command:receive(is_iq):get_child("command", COMMANDS);
		end

		for _, strategy in ipairs(core.STRATEGIES) do
			it("lets a command of two stages be answered by one of them: "..strategy, function ()
				start(("client_proxy_strategy = %q"):format(strategy), { "a", "b", "c" });
				local sessions = { a = {}, b = {}, c = {} };
				for round = 1, 5 do
					local client = xmpp.client(server, "other-user", "some-domain.example", "round-"..round);
					for _, who in ipairs { client, requester } do
						local first = run_stage(sessions, who, "first");
						assert.equal("executing", first.attr.status);
						local second = run_stage(sessions, who, "second", first.attr.sessionid);
						assert.equal("completed", second.attr.status);
					end
					client:close();
				end
			end);
		end
	end);

	describe("whichever it is", function ()
		for _, strategy in ipairs(core.STRATEGIES) do
			it("serves, and gives a backend none of its own requests: "..strategy, function ()
				start(("client_proxy_strategy = %q"):format(strategy), { "a" });
				assert.equal("a", round_trip());
				assert.equal("service-unavailable", (service.error_of(backends.a:request(service.request("own")))));
				backends.b = service.backend(server, "b");
				for index = 1, 5 do
					backends.a:send(service.request("own-"..index));
					local received = backends.b:receive(is_iq);
					backends.b:send(st.reply(received));
					assert.equal("result", backends.a:receive(is_iq).attr.type);
				end
			end);
		end

		it("can be another after a reload", function ()
			start([[client_proxy_strategy = "primary"]], { "a", "b" });
			assert.same({ a = 4 }, share(4));
			server:configure(hosts_with [[client_proxy_strategy = "round_robin"]]);
			server:ctl("shell", "config", "reload");
			server:ctl("shell", "module", "reload", "client_proxy", PROXY);
			assert.same({ a = 2, b = 2 }, share(4));
		end);
	end);

	describe("leaves out", function ()
		it("resources that are not in client_proxy_resources", function ()
			start([[client_proxy_resources = { "a", "worker-*" }]], { "a", "intruder", "worker-1" });
			local shares = share(40);
			assert.is_nil(shares.intruder);
			assert.is_true(shares.a > 0 and shares["worker-1"] > 0);
			assert.truthy(server:client_proxy("status", PROXY):find("\nintruder +| excluded "));
			local _, count = server:log():gsub('Resource "intruder" of the target is not among client_proxy_resources', "%0");
			assert.equal(1, count);
			leave "a";
			leave "worker-1";
			assert.equal("service-unavailable", (service.error_of(requester:request(service.request("nobody")))));
		end);
	end);

	describe("with a restart of one backend after the other under load", function ()
		local RESOURCES = { "a", "b", "c" };

		-- Sends sets, which the backends have then, unanswered.
		local sent;
		local function send_sets(count)
			for _ = 1, count do
				sent = sent + 1;
				requester:send(service.request("set-"..sent, nil, "set"));
			end
			requester:sync();
		end

		local function answer_all()
			local count = 0;
			for _, backend in pairs(backends) do
				count = count + service.answer_all(backend);
			end
			return count;
		end

		for name, drain in pairs {
			["by the operator"] = function (resource) server:client_proxy("drain", PROXY, resource); end;
			["by its presence"] = function (resource)
				backends[resource]:send(st.presence():text_tag("priority", "-1"));
				backends[resource]:sync();
			end;
		} do
			it("loses nothing and fails nothing, with each drained "..name, function ()
				start("client_proxy_retries = 0", RESOURCES);
				sent = 0;
				local answered = 0;
				for _, resource in ipairs(RESOURCES) do
					send_sets(20);
					drain(resource);
					send_sets(20);
					assert.is_true(#backends[resource]:sync() <= 20);
					answered = answered + answer_all(); -- what it had before, too
					leave(resource);
					send_sets(20);
					backends[resource] = service.backend(server, resource);
					send_sets(20);
					answered = answered + answer_all();
				end
				assert.equal(sent, answered);
				local seen = {};
				for _ = 1, sent do
					local answer = requester:receive(is_iq);
					assert.equal("result", answer.attr.type);
					assert.is_nil(seen[answer.attr.id]);
					seen[answer.attr.id] = true;
				end
				assert.truthy(server:client_proxy("status", PROXY):find(("Answered: %d, with an error: 0; timed out: 0, backend gone: 0, no backend: 0; "
					.."limited: 0, refused: 0, unloaded: 0"):format(sent), 1, true));
			end);
		end
	end);
end);
