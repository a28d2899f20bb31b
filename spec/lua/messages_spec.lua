local desk = require "spec.support.desk";
local st = require "util.stanza";

local PROXY, TARGET, BACKEND, OTHER_BACKEND, REQUESTER = desk.PROXY, desk.TARGET, desk.BACKEND, desk.OTHER_BACKEND, desk.REQUESTER;
local HOST = "some-domain.example";
local assert_error = desk.assert_error;

describe("messages", function ()
	local run, module, prosody;

	before_each(function ()
		run = desk.new();
		module, prosody = run.module, run.module.prosody;
	end);

	-- (attr[, origin]) -> the stanzas that leave
	local function receive(attr, origin)
		local event = run:event_of(st.message(attr, "hello"));
		event.origin = origin or event.origin;
		assert.is_true(run.messages.on_message(event));
		return module:take_sent();
	end

	local function to_service(attr)
		return receive { type = "chat", id = "1", from = attr and attr.from or REQUESTER, to = attr and attr.to or PROXY };
	end

	-- The stream by which the target's server speaks
	local function stream()
		return { type = "s2sin", send = function (answer) module:send(answer); end };
	end

	local function error_from(backend, id, to, condition)
		local stanza = st.message({ type = "error", id = id, from = backend, to = to })
			:tag("error", { type = "cancel" }):tag(condition, { xmlns = "urn:ietf:params:xml:ns:xmpp-stanzas" });
		assert.is_true(run.messages.on_message { origin = stream(), stanza = stanza });
		return module:take_sent();
	end

	it("to the service go to a backend, and back from its token", function ()
		local sent = to_service();
		assert.equal(1, #sent);
		assert.same({ type = "chat", id = "1", from = PROXY.."/"..run.jat:encode(REQUESTER), to = BACKEND }, sent[1].attr);
		local back = receive { type = "chat", id = "2", from = BACKEND, to = sent[1].attr.from };
		assert.same({ type = "chat", id = "2", from = PROXY.."/"..run.pool:token(BACKEND), to = REQUESTER }, back[1].attr);
		assert.equal(1, #back[1].tags);
		assert.same({ messages_to_backend_sent = 1, messages_to_requester_sent = 1 }, run.counts);
	end);

	it("find a requester whose JID looks like the token of a backend", function ()
		run:use_format "plain";
		run.exchange:admit(OTHER_BACKEND);
		local host = "backendserver";
		local sent = to_service { from = host }[1];
		local back = receive { type = "chat", id = "2", from = sent.attr.to, to = sent.attr.from };
		assert.equal(host, back[1].attr.to);
	end);

	it("are refused to those who may not use the service", function ()
		run:load { is_allowed = function (jid) return jid ~= REQUESTER; end };
		assert_error(to_service()[1], PROXY, REQUESTER, "1", "auth", "forbidden");
		assert.equal(BACKEND, to_service { from = "other@some-domain.example/x" }[1].attr.to);
		assert.same({}, receive { type = "headline", from = REQUESTER, to = PROXY });
		assert.same({}, receive { type = "error", from = REQUESTER, to = PROXY });
		assert.equal(1, run.counts.messages_to_backend_refused);
		assert.equal(2, run.counts.messages_to_backend_dropped);
	end);

	it("for a client of this Prosody whose session has gone go to another one, which is told of it", function ()
		prosody.hosts[HOST] = { type = "local" };
		run.exchange:admit(OTHER_BACKEND);
		local first = run.pool:pick_lasting(REQUESTER, PROXY);
		local second = first == BACKEND and OTHER_BACKEND or BACKEND;
		local token = run.pool:token(first);
		prosody.full_sessions[second] = {};
		assert.equal(second, to_service { to = PROXY.."/"..token }[1].attr.to);
		assert.same({ first }, run.lost);
		prosody.full_sessions[second] = nil;
		assert_error(to_service()[1], PROXY, REQUESTER, "1", "cancel", "service-unavailable");
		assert.same({ first, second }, run.lost);
	end);

	describe("that bounce", function ()
		it("come from the service address that was used, once for each", function ()
			local token = PROXY.."/"..run.jat:encode(REQUESTER);
			for _, address in ipairs { PROXY, PROXY.."/thing", PROXY.."/"..run.pool:token(BACKEND), PROXY.."/bAAAAAAAAAAAA" } do
				assert.equal(BACKEND, to_service { to = address }[1].attr.to);
				local sent = error_from(BACKEND, "1", token, "service-unavailable");
				assert.equal(1, #sent);
				assert.same({ type = "error", id = "1", from = address, to = REQUESTER }, sent[1].attr);
			end
			-- what is not remembered comes from the bare one
			assert.equal(PROXY, error_from(BACKEND, "1", token, "service-unavailable")[1].attr.from);
			assert.equal(5, run.counts.messages_to_requester_error);
		end);

		it("come from there after a reload, too", function ()
			to_service { to = PROXY.."/thing" };
			run.messages:retire();
			run:load();
			local token = PROXY.."/"..run.jat:encode(REQUESTER);
			assert.equal(PROXY.."/thing", error_from(BACKEND, "1", token, "service-unavailable")[1].attr.from);
		end);

		it("leave no more behind than a thousand addresses, whatever strangers send", function ()
			local token = PROXY.."/"..run.jat:encode(REQUESTER);
			for number = 1, 1001 do
				receive { type = "chat", id = "n"..number, from = REQUESTER, to = PROXY.."/thing" };
			end
			assert.equal(PROXY, error_from(BACKEND, "n1", token, "service-unavailable")[1].attr.from);
			assert.equal(PROXY.."/thing", error_from(BACKEND, "n2", token, "service-unavailable")[1].attr.from);
			assert.equal(PROXY.."/thing", error_from(BACKEND, "n1001", token, "service-unavailable")[1].attr.from);
		end);

		it("leave no more behind than a small piece for each, however large their ids are", function ()
			collectgarbage();
			local before = collectgarbage "count";
			for number = 1, 100 do
				receive { type = "chat", id = number..("i"):rep(100000), from = REQUESTER, to = PROXY.."/thing" };
			end
			run.module:take_sent();
			collectgarbage();
			assert.is_true(collectgarbage "count" - before < 1000); -- kB, of 10,000
			local id = 100 ..("i"):rep(100000);
			assert.equal(PROXY.."/thing", error_from(BACKEND, id, PROXY.."/"..run.jat:encode(REQUESTER), "service-unavailable")[1].attr.from);
		end);

		it("come from the address of the last one under that id, and never from another bare address", function ()
			local token = run.jat:encode(REQUESTER);
			for _, address in ipairs { PROXY, "room@"..PROXY } do
				to_service { to = PROXY.."/thing" };
				to_service { to = address };
				assert.equal(address, error_from(BACKEND, "1", address.."/"..token, "service-unavailable")[1].attr.from);
			end
		end);

		it("of those without an id come from the bare address", function ()
			receive { type = "chat", from = REQUESTER, to = PROXY.."/thing" };
			local token = PROXY.."/"..run.jat:encode(REQUESTER);
			assert.equal(PROXY, error_from(BACKEND, nil, token, "service-unavailable")[1].attr.from);
		end);

		it("as only the client itself can have said come from the backend's token", function ()
			local token = PROXY.."/"..run.jat:encode(REQUESTER);
			to_service();
			local sent = error_from(BACKEND, "1", token, "not-acceptable");
			assert.equal(PROXY.."/"..run.pool:token(BACKEND), sent[1].attr.from);
			assert.same({}, run.lost);
			assert.same({}, run.suspected);
		end);

		it("say what they say of the backend", function ()
			local token = PROXY.."/"..run.jat:encode(REQUESTER);
			error_from(BACKEND, "1", token, "recipient-unavailable");
			assert.same({ BACKEND }, run.suspected);
			assert.same({}, run.lost);
			run.pool:remove(BACKEND);
			local sent = error_from(BACKEND, "1", token, "recipient-unavailable");
			assert.same({ BACKEND }, run.lost);
			assert.equal(PROXY, sent[1].attr.from);
			assert.equal(PROXY, error_from(TARGET, "1", token, "item-not-found")[1].attr.from);
		end);

		it("say nothing any more when the module was reloaded meanwhile", function ()
			local token = PROXY.."/"..run.jat:encode(REQUESTER);
			local send = module.send;
			function module.send(...)
				module.send = send;
				run.messages:retire();
				return send(...);
			end
			assert.equal(1, #error_from(BACKEND, "1", token, "recipient-unavailable"));
			assert.same({}, run.suspected);
		end);
	end);

	describe("about what a backend has sent", function ()
		it("reach it, if the book knows who sends them, and leave the book as it is otherwise", function ()
			local address = PROXY.."/"..run.pool:token(BACKEND);
			assert.same({}, receive { type = "error", id = "1", from = REQUESTER, to = address });
			assert.equal(0, #run.book);
			to_service();
			local sent = receive { type = "error", id = "1", from = REQUESTER, to = address };
			assert.same({ type = "error", id = "1", from = PROXY.."/"..run.jat:encode(REQUESTER), to = BACKEND }, sent[1].attr);
			assert.same({}, receive { type = "error", id = "1", from = REQUESTER.."x", to = address });
			assert.equal(1, #run.book);
			assert.equal(1, run.counts.messages_to_backend_error);
			assert.equal(2, run.counts.messages_to_backend_dropped);
		end);
	end);

	it("are refused when the module goes, and headlines and errors dropped", function ()
		run.messages:stop();
		assert_error(to_service()[1], PROXY, REQUESTER, "1", "wait", "service-unavailable");
		assert.same({}, receive { type = "headline", from = REQUESTER, to = PROXY });
		assert.same({}, receive { type = "error", from = REQUESTER, to = PROXY });
		assert.equal(1, run.counts.messages_to_backend_unloaded);
	end);

	it("are refused to resources of the target that are no backends", function ()
		to_service();
		local address = PROXY.."/"..run.jat:encode(REQUESTER);
		for _, from in ipairs { TARGET, TARGET.."/other" } do
			assert_error(receive({ type = "chat", id = "1", from = from, to = address })[1], address, from, "1", "cancel", "service-unavailable");
		end
		assert.equal(2, run.counts.messages_to_requester_refused);
	end);

	it("to somebody who is not known are refused to a backend, headlines, too", function ()
		local address = PROXY.."/d"..("A"):rep(32);
		for number, type in ipairs { "chat", "normal", "headline", "groupchat" } do
			assert_error(receive({ type = type, id = "1", from = BACKEND, to = address })[1], address, BACKEND, "1", "cancel", "item-not-found");
			assert.equal(number, run.counts.messages_to_requester_refused);
		end
		assert.same({}, receive { type = "error", id = "1", from = BACKEND, to = address });
	end);

	it("count before they are sent, so that whoever throws on the way changes nothing", function ()
		function module.send()
			error("another module's handler");
		end
		assert.is_false(pcall(to_service));
		assert.equal(1, run.counts.messages_to_backend_sent);
	end);
end);
