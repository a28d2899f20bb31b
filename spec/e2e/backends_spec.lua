local new_prosody = require "spec.support.prosody".new;
local service = require "spec.support.service";
local xmpp = require "spec.support.xmpp";
local st = require "util.stanza";

local is_iq, request = xmpp.is_iq, service.request;

describe("the backends", function ()
	local server, requester;

	before_each(function ()
		server = new_prosody():start();
		requester = service.requester(server);
	end);

	after_each(function ()
		server:remove();
	end);

	local function assert_nobody_serves()
		local answer = requester:request(request("nobody"));
		assert.same({ "cancel", "service-unavailable", "No resource of the target is online" }, { answer:get_error() });
		assert.equal("proxy.domain.example", answer.attr.from);
	end

	-- How many of `count` requests each backend gets. Every one is answered.
	local function share_out(count, backends)
		local shares = {};
		for number = 1, count do
			requester:send(request("share-"..number));
		end
		requester:sync();
		for name, backend in pairs(backends) do
			shares[name] = service.answer_all(backend);
		end
		local answered = {};
		for _ = 1, count do
			local answer = requester:receive(is_iq);
			assert.equal("result", answer.attr.type);
			answered[answer.attr.id] = true;
		end
		for number = 1, count do
			assert.is_true(answered["share-"..number]);
		end
		return shares;
	end

	it("are none before one is online, and requests are refused", function ()
		assert_nobody_serves();
	end);

	it("are chosen uniformly at random", function ()
		local backends = service.backends(server, { "a", "b", "c", "d" });
		local first, second = share_out(200, backends), share_out(200, backends);
		for name, share in pairs(first) do
			-- 100 are expected; outside of these bounds once in ten million runs
			assert.is_true(share + second[name] > 50 and share + second[name] < 150);
		end
	end);

	it("leave no hole when they go, one after the other", function ()
		local backends = service.backends(server, { "a", "b", "c", "d" });
		for _, name in ipairs { "b", "a", "d" } do
			backends[name]:close();
			backends[name] = nil;
			share_out(40, backends);
		end
		assert.same({ c = 40 }, share_out(40, backends));
		backends.c:close();
		assert_nobody_serves();
		backends = service.backends(server, { "b" });
		assert.same({ b = 40 }, share_out(40, backends));
	end);

	it("are gone when they say that they are unavailable", function ()
		local backends = service.backends(server, { "a", "b" });
		backends.a:send(st.presence({ type = "unavailable" }));
		backends.a:sync();
		assert.same({ a = 0, b = 40 }, share_out(40, backends));
	end);

	it("are gone when their connection is lost", function ()
		local backends = service.backends(server, { "a", "b" });
		backends.a:cut();
		backends.b:receive(xmpp.presence_from("some-user@some-domain.example/a", "unavailable"));
		backends.b:sync();
		backends.a = nil;
		assert.same({ b = 40 }, share_out(40, backends));
	end);

	it("are one each, however often their presence changes", function ()
		local backends = service.backends(server, { "a", "b" });
		for number = 1, 20 do
			backends.a:send(st.presence():text_tag("status", "change "..number));
		end
		backends.a:sync();
		backends.a.received = {};
		backends.a:close();
		backends.b:sync();
		backends.b.received = {};
		backends.a = nil;
		assert.same({ b = 40 }, share_out(40, backends));
	end);

	it("are found when the module is loaded while they are online", function ()
		local backends = service.backends(server, { "a", "b" });
		server:ctl("shell", "module", "unload", "client_proxy", "proxy.domain.example");
		assert.equal("service-unavailable", service.error_of(requester:request(request("unloaded"))));
		server:ctl("shell", "module", "load", "client_proxy", "proxy.domain.example");
		share_out(40, backends);
	end);

	it("never get their own requests back", function ()
		local backends = service.backends(server, { "a", "b" });
		for number = 1, 20 do
			backends.a:send(request("own-"..number));
			local received = backends.b:receive(is_iq);
			backends.b:send(st.reply(received));
			local answer = backends.a:receive(is_iq);
			assert.equal("own-"..number, answer.attr.id);
			assert.equal("result", answer.attr.type);
		end
		backends.b:close();
		local answer = backends.a:request(request("alone"));
		assert.equal("service-unavailable", service.error_of(answer));
	end);
end);
