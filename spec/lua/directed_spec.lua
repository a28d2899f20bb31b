-- Directed presence, on the desk: what comes in, and what everybody sees who gets what leaves

local desk = require "spec.support.desk";
local fake_module = require "spec.support.module";
local random = require "spec.support.random";
local st = require "util.stanza";

local PROXY, TARGET, REQUESTER = desk.PROXY, desk.TARGET, desk.REQUESTER;
local A, B = desk.BACKEND, desk.OTHER_BACKEND;
local OTHER = "other@elsewhere.example/1";

describe("directed presence", function ()
	local here, directed;
	local views; -- by who has got it: by address: whether that one is available
	local sessions; -- by backend: how often one has gone; what is on its way to one that goes is lost
	local sent; -- stanzas that have left since take() was called
	local on_send; -- what another module does when it sees one: (stanza) -> what it throws, or nil; or nil
	local max, is_allowed;
	local is_strict; -- whether nobody may get an `unavailable` that says nothing new

	local function deliver(stanza)
		local attr = stanza.attr;
		assert.equal("presence", stanza.name);
		assert.is_true(attr.type == nil or attr.type == "unavailable");
		local view = views[attr.to] or {};
		views[attr.to] = view;
		assert(not is_strict or attr.type == nil or view[attr.from], "nobody was there: "..tostring(stanza));
		view[attr.from] = attr.type == nil or nil;
		table.insert(sent, stanza);
	end

	local function load(saved, keeps_target)
		here:load();
		function here.module.send(_, stanza)
			stanza = st.clone(stanza);
			local to = stanza.attr.to;
			local session = sessions[to];
			local problem = on_send and on_send(stanza);
			if sessions[to] == session then
				deliver(stanza);
			end
			if problem then
				error(problem, 0);
			end
		end
		directed = here.module:require "directed".new {
			target = TARGET, max = max, addresses = here.addresses, exchange = here.exchange, pool = here.pool, events = here.events;
			is_allowed = is_allowed, saved = saved, keeps_target = keeps_target;
		};
	end

	-- The module is loaded anew; keeps_target: false if it has another target now
	local function reload(keeps_target)
		local saved = directed:save();
		directed:retire();
		assert.same({}, here.module:running_timers());
		here.module = fake_module.new({}, here.module);
		load(saved, keeps_target ~= false);
	end

	local function unload()
		directed:retire();
		directed:stop();
		assert.same({}, here.module:running_timers());
	end

	local function take()
		here.module:pass(0);
		local taken = sent;
		sent = {};
		return taken;
	end

	local function receive_stanza(stanza)
		directed.on_presence { stanza = stanza };
	end

	-- (from, to, type) -> the stanzas that leave
	local function receive(from, to, type)
		receive_stanza(st.presence { from = from, to = to, type = type });
		return take();
	end

	-- (stanzas, ...): they are these: { from, to, type or nil }
	local function assert_sent(stanzas, ...)
		assert.equal(select("#", ...), #stanzas);
		for index, expected in ipairs { ... } do
			local attr = stanzas[index].attr;
			assert.same({ expected[1], expected[2], expected[3] }, { attr.from, attr.to, attr.type });
		end
	end

	local function address_of(requester, service)
		return (select(2, assert(here.exchange:address(requester, service))));
	end

	local function backend_address(backend, service)
		return service.."/"..here.pool:token(backend);
	end

	local function lose(backend)
		assert.is_true(here.pool:remove(backend));
		here:tell("backend-gone", backend);
	end

	local function go(backend)
		sessions[backend] = (sessions[backend] or 0) + 1;
		lose(backend);
		here:tell("backend-went", backend);
	end

	local function new_key(id)
		here.jat:add_key(id, ("%032d"):format(id));
		here.book:new_generation();
	end

	before_each(function ()
		random.restart();
		here = desk.new();
		views, sessions, sent, on_send, max, is_allowed, is_strict = {}, {}, {}, nil, 1000, nil, true;
		load();
	end);

	describe("of a requester", function ()
		it("goes to a backend as it is, and so does its end", function ()
			local from = address_of(REQUESTER, PROXY);
			local stanza = st.presence({ from = REQUESTER, to = PROXY, id = "1", ["xml:lang"] = "he" }):text_tag("status", "<&> \u{5d0}");
			local copy = st.clone(stanza);
			receive_stanza(stanza);
			assert.equal(desk.canonical(copy), desk.canonical(stanza)); -- whoever has sent it may go on to use it
			copy.attr.from, copy.attr.to = from, A;
			assert.equal(desk.canonical(copy), desk.canonical(take()[1]));
			stanza.attr.type = "unavailable";
			receive_stanza(stanza);
			copy.attr.type = "unavailable";
			assert.equal(desk.canonical(copy), desk.canonical(take()[1]));
		end);

		for _, service in ipairs { PROXY, PROXY.."/x", "node@"..PROXY, "node@"..PROXY.."/x" } do
			it("finds its backend again, at "..service, function ()
				local address = address_of(REQUESTER, service);
				here.exchange:admit(B);
				local chosen = receive(REQUESTER, service)[1].attr.to;
				go(chosen == A and B or A);
				here.exchange:admit(A);
				here.exchange:admit(B);
				assert_sent(receive(REQUESTER, service), { address, chosen });
				assert_sent(receive(REQUESTER, service, "unavailable"), { address, chosen, "unavailable" });
				assert_sent(receive(REQUESTER, service, "unavailable"));
			end);
		end

		it("goes to the backend whose token is in the address, or else where its messages go", function ()
			here.exchange:admit(B);
			local address = address_of(REQUESTER, PROXY);
			for _, backend in ipairs { A, B } do
				local to = backend_address(backend, PROXY);
				assert_sent(receive(REQUESTER, to), { address, backend });
				assert_sent(receive(REQUESTER, to, "unavailable"), { address, backend, "unavailable" });
			end
			local of_a = backend_address(A, PROXY);
			go(A);
			assert_sent(receive(REQUESTER, of_a), { address, B });
			here.exchange:admit(A);
			-- it is that backend's again
			assert_sent(receive(REQUESTER, of_a), { address, B, "unavailable" }, { address, A });
			assert_sent(receive(REQUESTER, of_a, "unavailable"), { address, A, "unavailable" });
		end);

		it("moves when its backend has gone, which is seen no more", function ()
			here.exchange:admit(B);
			local chosen = receive(REQUESTER, PROXY)[1].attr.to;
			local other = chosen == A and B or A;
			go(chosen);
			assert_sent(take());
			assert_sent(receive(REQUESTER, PROXY), { address_of(REQUESTER, PROXY), other });
			here.exchange:admit(chosen);
			assert_sent(receive(REQUESTER, PROXY, "unavailable"), { address_of(REQUESTER, PROXY), other, "unavailable" });
		end);

		it("ends with its backend, of which the next session has not seen it", function ()
			receive(REQUESTER, PROXY);
			go(A);
			here.exchange:admit(A);
			assert_sent(receive(REQUESTER, PROXY, "unavailable"));
		end);

		it("ends where a backend has been lost that may come back", function ()
			here.exchange:admit(B);
			local from = address_of(REQUESTER, PROXY);
			local chosen = receive(REQUESTER, PROXY)[1].attr.to;
			lose(chosen);
			assert_sent(take());
			assert_sent(receive(REQUESTER, PROXY), { from, chosen, "unavailable" }, { from, chosen == A and B or A });

			local left, address = chosen == A and B or A, address_of(OTHER, PROXY);
			local at = backend_address(left, PROXY);
			assert_sent(receive(OTHER, at), { address, left });
			lose(left);
			assert_sent(receive(OTHER, at, "unavailable"), { address, left, "unavailable" });
			assert_sent(receive(OTHER, at, "unavailable"));
		end);

		it("is forgotten where a backend has been lost, as soon as its server says that it has gone", function ()
			receive(REQUESTER, PROXY);
			lose(A);
			here:tell("backend-went", A);
			assert_sent(receive(REQUESTER, PROXY, "unavailable"));
		end);

		it("is dropped where there is no backend, and its end where nobody has seen it", function ()
			assert_sent(receive(REQUESTER, PROXY, "unavailable"));
			go(A);
			assert_sent(receive(REQUESTER, PROXY));
			assert_sent(receive(REQUESTER, PROXY.."/x", "unavailable"));
		end);

		it("is not sent to the resource that it is of", function ()
			assert_sent(receive(A, "node@"..PROXY));
			here.exchange:admit(B);
			assert_sent(receive(A, "node@"..PROXY), { address_of(A, "node@"..PROXY), B });
			assert_sent(receive(A, backend_address(A, "node@"..PROXY)), { address_of(A, "node@"..PROXY), B });
		end);

		it("does not go to who has not been told the address", function ()
			assert_sent(receive(OTHER, address_of(REQUESTER, PROXY)));
			assert_sent(receive(OTHER, address_of(REQUESTER, PROXY), "unavailable"));
		end);

		it("is dropped if that one may not use the service, but not the end of what was sent before", function ()
			receive(REQUESTER, PROXY);
			function is_allowed(jid)
				return jid == OTHER;
			end
			reload();
			assert_sent(receive(REQUESTER, PROXY));
			assert_sent(receive(OTHER, PROXY), { address_of(OTHER, PROXY), A });
			assert_sent(receive(REQUESTER, PROXY, "unavailable"), { address_of(REQUESTER, PROXY), A, "unavailable" });
		end);

		for _, order in ipairs { { 1, 2, 3 }, { 3, 2, 1 }, { 2, 3, 1 } } do
			it(("ends once for each backend, as servers tell it at several addresses: %d %d %d"):format(table.unpack(order)), function ()
				here.exchange:admit(B);
				local at = { PROXY, backend_address(A, PROXY), backend_address(B, PROXY) };
				for _, address in ipairs(at) do
					receive(REQUESTER, address);
				end
				local ends = {};
				for _, number in ipairs(order) do
					for _, stanza in ipairs(receive(REQUESTER, at[number], "unavailable")) do
						assert.equal("unavailable", stanza.attr.type);
						ends[stanza.attr.to] = (ends[stanza.attr.to] or 0) + 1;
					end
				end
				assert.same({ [A] = 1, [B] = 1 }, ends);
			end);
		end

		it("ends at all addresses of the service when it ends at the bare one, as for who is in the roster", function ()
			here.exchange:admit(B);
			receive(REQUESTER, backend_address(A, PROXY));
			receive(REQUESTER, backend_address(B, PROXY));
			receive(REQUESTER, "node@"..PROXY.."/x");
			assert.equal(2, #receive(REQUESTER, PROXY, "unavailable"));
			assert_sent(receive(REQUESTER, backend_address(A, PROXY), "unavailable"));
			assert_sent(receive(REQUESTER, backend_address(B, PROXY), "unavailable"));
			assert.equal(1, #receive(REQUESTER, "node@"..PROXY, "unavailable"));
		end);

		it("ends with the address that it had, whatever the key is now", function ()
			local before = address_of(REQUESTER, PROXY);
			receive(REQUESTER, PROXY);
			for id = 8, 10 do
				new_key(id);
			end
			assert.not_equal(before, address_of(REQUESTER, PROXY));
			assert_sent(receive(REQUESTER, PROXY, "unavailable"), { before, A, "unavailable" });
			assert_sent(receive(REQUESTER, PROXY), { address_of(REQUESTER, PROXY), A });
			before = address_of(REQUESTER, PROXY);
			new_key(11);
			local after = address_of(REQUESTER, PROXY);
			assert_sent(receive(REQUESTER, PROXY), { before, A, "unavailable" }, { after, A });
			assert_sent(receive(REQUESTER, PROXY, "unavailable"), { after, A, "unavailable" });
		end);

		it("is seen of 32 resources of an account, and no more", function ()
			for number = 1, 40 do
				assert.equal(number <= 32 and 1 or 0, #receive("user@some-domain.example/"..number, PROXY));
			end
			assert.equal(1, #receive("user@some-domain.example/1", PROXY));
			assert.equal(1, #receive(OTHER, PROXY));
			receive("user@some-domain.example/1", PROXY, "unavailable");
			assert.equal(1, #receive("user@some-domain.example/40", PROXY));
			assert.equal(0, #receive("user@some-domain.example/39", PROXY));
			go(A);
			here.exchange:admit(A);
			assert.equal(1, #receive("user@some-domain.example/2", PROXY)); -- again, before it is all forgotten
			take();
			for number = 3, 40 do
				assert.equal(number <= 33 and 1 or 0, #receive("user@some-domain.example/"..number, PROXY));
			end
		end);
	end);

	describe("of a backend", function ()
		local token;

		before_each(function ()
			token = address_of(REQUESTER, PROXY);
		end);

		it("goes to a requester as it is, from the backend's token, and so does its end", function ()
			local from = backend_address(A, PROXY);
			for _, type in ipairs { false, false, "unavailable" } do
				local stanza = st.presence({ from = A, to = token, type = type or nil, id = "1" }):text_tag("show", "dnd");
				local copy = st.clone(stanza);
				receive_stanza(stanza);
				assert.equal(desk.canonical(copy), desk.canonical(stanza));
				copy.attr.from, copy.attr.to = from, REQUESTER;
				assert.equal(desk.canonical(copy), desk.canonical(take()[1]));
			end
			assert_sent(receive(A, token, "unavailable"));
		end);

		it("comes from the service address that the requester had used", function ()
			local at = address_of(REQUESTER, "node@"..PROXY);
			assert_sent(receive(A, at), { backend_address(A, "node@"..PROXY), REQUESTER });
			assert_sent(receive(A, token), { backend_address(A, PROXY), REQUESTER });
			assert_sent(receive(A, token, "unavailable"), { backend_address(A, PROXY), REQUESTER, "unavailable" });
			assert_sent(receive(A, at, "unavailable"), { backend_address(A, "node@"..PROXY), REQUESTER, "unavailable" });
		end);

		it("goes to nobody where the token is nobody's, or the sender no backend", function ()
			assert_sent(receive(A, PROXY.."/s"..("A"):rep(70)));
			assert_sent(receive(B, token));
			assert_sent(receive(TARGET, token));
			assert_sent(receive(A, token, "unavailable"));
		end);

		for _, order in ipairs { "before", "after" } do
			it("ends once when it goes, whether its server says so to each "..order.." to all", function ()
				local from, node = backend_address(A, PROXY), address_of(REQUESTER, "node@"..PROXY);
				receive(A, token);
				receive(A, node);
				local count = order == "before" and #receive(A, token, "unavailable") or 0;
				go(A);
				receive_stanza(st.presence { from = A, to = token, type = "unavailable" });
				receive_stanza(st.presence { from = A, to = node, type = "unavailable" });
				assert.equal(2, count + #take());
				assert.same({}, views[REQUESTER]);
				assert.is_nil(views[REQUESTER][from]);
			end);
		end

		it("ends though nobody knows any more whose the token is", function ()
			here:use_format("short");
			max = 1000;
			load();
			token = address_of(REQUESTER, PROXY);
			local from = backend_address(A, PROXY);
			receive(A, token);
			for id = 8, 10 do
				new_key(id);
			end
			assert.equal("no-requester", (here.addresses:kind(A, token)));
			assert_sent(receive(A, token)); -- it reaches nobody
			assert_sent(receive(A, token, "unavailable"), { from, REQUESTER, "unavailable" });
			assert_sent(receive(A, token, "unavailable"));
		end);

		it("does not end when it has come back before that was told", function ()
			local from = backend_address(A, PROXY);
			receive(A, token);
			go(A);
			here.exchange:admit(A);
			assert_sent(receive(A, token), { from, REQUESTER });
			go(A);
			assert_sent(take(), { from, REQUESTER, "unavailable" });
		end);

		it("is forgotten by who cannot be reached, but not because of others, or elsewhere", function ()
			receive(A, token);
			local from = backend_address(A, PROXY);
			receive(OTHER, from, "error");
			receive(REQUESTER, backend_address(A, "node@"..PROXY), "error");
			receive(REQUESTER, PROXY.."/thing", "error");
			receive(A, token);
			assert_sent(receive(A, token, "unavailable"), { from, REQUESTER, "unavailable" });
			receive(A, token);
			receive(REQUESTER, from, "error");
			go(A);
			assert_sent(take());
		end);

		it("ends for who had it before a server could not reach that one for a while", function ()
			local from = backend_address(A, PROXY);
			receive(A, token);
			receive_stanza(st.presence({ from = REQUESTER, to = from, type = "error" }):tag("error", { type = "wait" })
				:tag("remote-server-timeout", { xmlns = "urn:ietf:params:xml:ns:xmpp-stanzas" }):reset());
			go(A);
			assert_sent(take(), { from, REQUESTER, "unavailable" });
		end);

		it("ends for each of many requesters, in slices", function ()
			local from = backend_address(A, PROXY);
			for number = 1, 250 do
				receive(A, address_of("user@some-domain.example/"..number, PROXY));
			end
			go(A);
			assert.equal(0, #sent);
			here.module:fire_slice();
			assert.is_true(#sent <= 100 and #sent > 0);
			reload();
			assert.equal(250, #take());
			for number = 1, 250 do
				assert.is_nil(views["user@some-domain.example/"..number][from]);
			end
			assert.same({}, here.module:running_timers());
		end);
	end);

	it("of other types is ignored", function ()
		receive(REQUESTER, PROXY);
		local token = address_of(REQUESTER, PROXY);
		receive(A, token);
		for _, type in ipairs { "subscribe", "subscribed", "unsubscribe", "unsubscribed", "probe", "error", "thing" } do
			assert_sent(receive(A, token, type));
			assert_sent(receive(REQUESTER, PROXY, type));
			assert_sent(receive(OTHER, backend_address(A, PROXY), type));
		end
		unload();
		assert.equal(2, #take());
	end);

	describe("is limited:", function ()
		before_each(function ()
			max = 3;
			reload();
		end);

		it("the requester who has not been seen for longest is seen to go", function ()
			local names = {};
			for number = 1, 4 do
				names[number] = ("user%d@some-domain.example/x"):format(number);
			end
			for _, number in ipairs { 1, 2, 1, 3 } do
				receive(names[number], PROXY);
			end
			assert_sent(receive(names[4], PROXY),
				{ address_of(names[2], PROXY), A, "unavailable" }, { address_of(names[4], PROXY), A });
			assert_sent(receive(names[2], PROXY, "unavailable"));
			assert_sent(receive(names[1], PROXY, "unavailable"), { address_of(names[1], PROXY), A, "unavailable" });
		end);

		it("a requester no longer sees the backend that has not been seen for longest", function ()
			local names, at = {}, {};
			for number = 1, 4 do
				names[number] = ("user@some-domain.example/%d"):format(number);
				at[number] = address_of(names[number], PROXY);
			end
			for number = 1, 3 do
				receive(A, at[number]);
			end
			local from = backend_address(A, PROXY);
			assert_sent(receive(A, at[4]), { from, names[1], "unavailable" }, { from, names[4] });
			assert_sent(receive(A, at[1], "unavailable"));
		end);

		it("whichever backend it is whom they see, for ever", function ()
			here.pool:add(B);
			local tokens = { [A] = backend_address(A, PROXY), [B] = backend_address(B, PROXY) };
			local seen = {}; -- in this order
			for number = 1, 200 do
				local requester, backend = ("user@some-domain.example/%d"):format(number), number % 3 == 0 and A or B;
				local first = seen[3] and table.remove(seen, 1);
				local stanzas = receive(backend, address_of(requester, PROXY));
				if first then
					assert_sent(stanzas, { tokens[first.backend], first.requester, "unavailable" }, { tokens[backend], requester });
				end
				table.insert(seen, { backend = backend, requester = requester });
				if number % 7 == 0 then -- a hole
					local gone = table.remove(seen, 2);
					receive(gone.backend, address_of(gone.requester, PROXY), "unavailable");
				end
			end
		end);

		it("long addresses count as several", function ()
			local long = "user@some-domain.example/"..("x"):rep(1000);
			for number = 1, 2 do
				receive(("user@some-domain.example/%d"):format(number), PROXY);
			end
			local at = PROXY.."/"..("x"):rep(1000);
			receive(long.."1", at);
			assert.equal(3, directed.to_backends.count);
			receive(long.."2", at);
			assert.equal(1, directed.to_backends.count);
			assert.same({ [address_of(long.."2", PROXY)] = true }, views[A]);
			unload();
			assert.same({}, views[A]);
		end);

		it("a reload to a lower limit ends what is too much", function ()
			for number = 1, 3 do
				receive(("user@some-domain.example/%d"):format(number), PROXY);
			end
			max = 1;
			reload();
			assert_sent(take(), { address_of("user@some-domain.example/1", PROXY), A, "unavailable" },
				{ address_of("user@some-domain.example/2", PROXY), A, "unavailable" });
		end);

		it("a reload to a lower limit ends what is too much in slices, though somebody comes meanwhile", function ()
			max = 500;
			reload();
			for number = 1, 500 do
				receive(("user-%d@some-domain.example"):format(number), PROXY);
			end
			max = 1;
			reload();
			receive_stanza(st.presence { from = REQUESTER, to = PROXY });
			assert.equal(100 + 1, #sent);
			take();
			assert.same({ [address_of(REQUESTER, PROXY)] = true }, views[A]);
		end);

		it("nothing is left of many who have come and gone", function ()
			for number = 1, 300 do
				local name = ("user%d@some-domain.example/x"):format(number);
				receive(name, PROXY.."/"..number);
				receive(A, address_of(name, PROXY));
			end
			unload();
			assert.same({}, directed.being_sent);
			for _, list in ipairs { directed.to_backends, directed.to_requesters } do
				assert.equal(0, list.count);
				assert.equal(0, list.bytes);
				for _, name in ipairs { "sessions", "over", "by_requester", "by_sent", "by_bare", "in_order" } do
					assert.same({}, list[name]);
				end
			end
		end);
	end);

	describe("when the module", function ()
		local token;

		before_each(function ()
			token = address_of(REQUESTER, PROXY);
			receive(REQUESTER, PROXY);
			receive(A, token);
		end);

		it("is unloaded, ends for all, and none is taken any more", function ()
			unload();
			assert.equal(2, #take());
			assert.same({}, views[A]);
			assert.same({}, views[REQUESTER]);
			assert_sent(receive(REQUESTER, PROXY));
			assert_sent(receive(A, token));
			assert_sent(receive(A, token, "unavailable"));
		end);

		it("is reloaded, goes on", function ()
			reload();
			assert_sent(take());
			assert_sent(receive(REQUESTER, PROXY, "unavailable"), { token, A, "unavailable" });
			local from = backend_address(A, PROXY);
			go(A);
			assert_sent(take(), { from, REQUESTER, "unavailable" });
		end);

		it("is reloaded to another target, ends for all", function ()
			here.pool:remove(A);
			reload(false);
			assert.equal(2, #take());
			assert.same({}, views[A]);
			assert.same({}, views[REQUESTER]);
		end);

		it("is reloaded to another target, what its requesters say in the end is for nobody of the one before", function ()
			reload(false);
			receive_stanza(st.presence({ from = REQUESTER, to = PROXY, type = "unavailable" }):text_tag("status", "Bye"));
			for _, stanza in ipairs(take()) do
				assert.is_nil(stanza:get_child("status"));
			end
			assert.same({}, views[A]);
		end);

		it("cannot be loaded any more, ends for all", function ()
			here.module:require "directed".give_up(directed:save());
			assert.equal(2, #take());
			assert.same({}, views[A]);
			assert.same({}, views[REQUESTER]);
		end);

		it("is reloaded as a backend goes, ends for who has seen that", function ()
			here.pool:remove(A);
			reload();
			assert.equal(1, #take());
			assert.same({}, views[REQUESTER]);
		end);

		it("has been reloaded, is told by the instance before what ends, but not what begins", function ()
			local old = directed;
			reload();
			old.on_presence { stanza = st.presence { from = OTHER, to = PROXY } };
			assert_sent(take());
			old.on_presence { stanza = st.presence { from = REQUESTER, to = PROXY, type = "unavailable" } };
			assert_sent(take(), { token, A, "unavailable" });
			assert_sent(receive(REQUESTER, PROXY, "unavailable"));
		end);
	end);

	describe("while it is being sent:", function ()
		-- Does this as the next stanza is on its way, or all of that type.
		local function meanwhile(type, f)
			function on_send(stanza)
				if stanza.attr.type == type then
					on_send = nil;
					f();
				end
			end
		end

		it("a handler that throws loses no end", function ()
			for number = 1, 3 do
				receive(A, address_of("user@some-domain.example/"..number, PROXY));
			end
			local count = 0;
			function on_send()
				count = count + 1;
				return "on purpose";
			end
			receive(REQUESTER, PROXY);
			go(A);
			take();
			assert.equal(4, count);
			assert.equal(4, #here.module.log_lines);
			for _, line in ipairs(here.module.log_lines) do
				assert.same({ "error", "Another module's handler has failed on a presence: on purpose" }, { line.level, line.text });
			end
			on_send = nil;
			assert_sent(receive(REQUESTER, PROXY, "unavailable"));
		end);

		it("a requester who goes is seen to come first", function ()
			meanwhile(nil, function () receive_stanza(st.presence { from = REQUESTER, to = PROXY, type = "unavailable" }); end);
			local token = address_of(REQUESTER, PROXY);
			assert_sent(receive(REQUESTER, PROXY), { token, A }, { token, A, "unavailable" });
		end);

		it("a requester who goes and comes is seen", function ()
			meanwhile(nil, function ()
				receive_stanza(st.presence { from = REQUESTER, to = PROXY, type = "unavailable" });
				receive_stanza(st.presence { from = REQUESTER, to = PROXY });
			end);
			receive(REQUESTER, PROXY);
			assert.same({ [address_of(REQUESTER, PROXY)] = true }, views[A]);
		end);

		it("a backend that goes is seen to come first", function ()
			local token, from = address_of(REQUESTER, PROXY), backend_address(A, PROXY);
			meanwhile(nil, function () go(A); end);
			assert_sent(receive(A, token), { from, REQUESTER }, { from, REQUESTER, "unavailable" });
		end);

		for name, f in pairs { unload = function () unload(); end, ["a reload to another target"] = function () here.pool:remove(A); reload(false); end } do
			it(name.." lets it end after that", function ()
				local token = address_of(REQUESTER, PROXY);
				meanwhile(nil, f);
				assert_sent(receive(REQUESTER, PROXY), { token, A }, { token, A, "unavailable" });
			end);
		end

		it("a reload goes on with it", function ()
			local token = address_of(REQUESTER, PROXY);
			meanwhile(nil, reload);
			assert_sent(receive(REQUESTER, PROXY), { token, A });
			assert_sent(receive(REQUESTER, PROXY, "unavailable"), { token, A, "unavailable" });
		end);

		it("who goes while another is seen to go is not seen to come", function ()
			max = 1;
			reload();
			receive(OTHER, PROXY);
			is_strict = false;
			meanwhile("unavailable", function ()
				receive_stanza(st.presence { from = REQUESTER, to = PROXY, type = "unavailable" });
			end);
			receive(REQUESTER, PROXY);
			assert.same({}, views[A]);
		end);
	end);

	-- A walk of random steps. Beside it, what is to be seen is kept in the most simple way: a list for each direction, in the
	-- order of use, of { requester, service, backend, from, sender, at }.
	describe("over comes and goes", function ()
		local STEPS = tonumber(os.getenv("SPEC_STEPS")) or 4000;
		local backends = { A, B, TARGET.."/c" };
		local requesters, services = {}, { PROXY, "node@"..PROXY };
		for number = 1, 3 do
			table.insert(requesters, "user@some-domain.example/"..number);
			table.insert(requesters, ("user%d@elsewhere.example/x"):format(number));
		end
		local seen; -- by direction: that list
		local known; -- tokens that backends have been given
		local keys;
		local depth; -- how many stanzas are on their way

		local function bare(address)
			return (address:match("^[^/]+"));
		end

		-- Takes those out of a list for which this is true.
		local function drop(list, is_dropped)
			for index = #list, 1, -1 do
				if is_dropped(list[index]) then
					table.remove(list, index);
				end
			end
		end

		local function note(list, entry)
			drop(list, function (other)
				return other.sender == entry.sender and other.at == entry.at
					or other.requester == entry.requester and other.service == entry.service and other.backend == entry.backend;
			end);
			table.insert(list, entry);
			while #list > max do
				table.remove(list, 1);
			end
		end

		local function backend_for(requester, at)
			local addressed = here.exchange:backend(at:match("/(.*)") or "");
			for _, entry in ipairs(seen.to_backends) do
				if not addressed and entry.sender == requester and entry.at == at and here.pool:state(entry.backend) then
					return entry.backend;
				end
			end
			return addressed;
		end

		local function requester_comes()
			local requester, service = random.element(requesters), random.element(services);
			local backend = random.element(backends);
			local at = random.element { service, service.."/x", here.pool:state(backend) and backend_address(backend, service) or service };
			local chosen, from = here.exchange:address(requester, at, backend_for(requester, at));
			if chosen then
				note(seen.to_backends, { requester = requester, service = service, backend = chosen, from = from, sender = requester, at = at });
				table.insert(known, from);
			end
			receive_stanza(st.presence { from = requester, to = at });
		end

		local function requester_goes()
			local entry = random.element(seen.to_backends);
			local at = math.random(2) == 1 and entry.at or entry.service;
			drop(seen.to_backends, function (other)
				return other.sender == entry.sender and other.service == entry.service and (at == entry.service or other.at == at);
			end);
			receive_stanza(st.presence { from = entry.sender, to = at, type = "unavailable" });
		end

		local function backend_writes()
			local backend, at = random.element(backends), random.element(known);
			local kind, requester = here.addresses:kind(backend, at);
			if kind == "requester" and here.pool:state(backend) then
				note(seen.to_requesters, {
					requester = requester, service = bare(at), backend = backend, from = backend_address(backend, bare(at));
					sender = backend, at = at;
				});
			end
			receive_stanza(st.presence { from = backend, to = at });
		end

		local function backend_writes_of_its_end()
			local entry = random.element(seen.to_requesters);
			local at = math.random(2) == 1 and entry.at or random.element(known);
			local kind, requester = here.addresses:kind(entry.backend, at);
			drop(seen.to_requesters, function (other)
				return other.backend == entry.backend
					and (other.at == at or kind == "requester" and other.requester == requester and other.service == bare(at));
			end);
			receive_stanza(st.presence { from = entry.backend, to = at, type = "unavailable" });
		end

		local function requester_is_unreachable()
			local entry = random.element(seen.to_requesters);
			drop(seen.to_requesters, function (other) return other == entry; end);
			if views[entry.requester] then
				views[entry.requester][entry.from] = nil;
			end
			receive_stanza(st.presence { from = entry.requester, to = entry.from, type = "error" });
		end

		local function backend_comes()
			here.exchange:admit(random.element(backends));
		end

		local function backend_goes()
			local backend, is_lost = random.element(backends), math.random(3) == 1;
			if not here.pool:state(backend) then
				return;
			end
			drop(seen.to_requesters, function (entry) return entry.backend == backend; end);
			if not is_lost then
				drop(seen.to_backends, function (entry) return entry.backend == backend; end);
				views[backend] = nil; -- its next session has seen nobody
			end
			(is_lost and lose or go)(backend);
		end

		local function take_another_key()
			keys = (keys + 1) % 256;
			new_key(keys);
		end

		local function load_anew()
			local has_same_target = math.random(4) > 1;
			max = random.element { 2, 5, 1000 };
			if not has_same_target then
				for _, backend in ipairs(backends) do
					here.pool:remove(backend);
				end
				seen = { to_backends = {}, to_requesters = {} };
			end
			for _, list in pairs(seen) do
				for _ = max + 1, #list do
					table.remove(list, 1);
				end
			end
			reload(has_same_target);
			here.module:pass(0); -- as another reload may come next, to a higher limit
		end

		local STEPS_OF_BACKENDS = { backend_comes, backend_goes };

		local function step()
			local choice = math.random(100);
			if choice <= 35 then
				requester_comes();
			elseif choice <= 45 and seen.to_backends[1] then
				requester_goes();
			elseif choice <= 70 and known[1] then
				backend_writes();
			elseif choice <= 78 and seen.to_requesters[1] then
				backend_writes_of_its_end();
			elseif choice <= 80 and seen.to_requesters[1] and depth == 0 then -- else it is about what has not come yet
				requester_is_unreachable();
			elseif choice <= 95 then
				random.element(STEPS_OF_BACKENDS)();
			elseif choice <= 97 then
				take_another_key();
			else
				load_anew();
			end
		end

		-- Everybody thinks those available, and no others, who are so.
		local function check()
			local expected, actual = {}, {};
			for _, list in pairs(seen) do
				for _, entry in ipairs(list) do
					local to = list == seen.to_backends and entry.backend or entry.requester;
					expected[to] = expected[to] or {};
					expected[to][entry.from] = true;
				end
			end
			for to, view in pairs(views) do
				actual[to] = next(view) and view;
			end
			assert.same(expected, actual);
		end

		-- Whoever is available for somebody is remembered.
		local function assert_remembered()
			local remembered = {};
			for _, list in ipairs { directed.to_backends, directed.to_requesters } do
				for _, sighting in pairs(list.by_sent) do
					remembered[sighting.from.." "..sighting.to] = true;
				end
			end
			for to, view in pairs(views) do
				for from in pairs(view) do
					assert.is_true(remembered[from.." "..to]);
				end
			end
		end

		before_each(function ()
			seen, known, keys = { to_backends = {}, to_requesters = {} }, {}, 100;
			depth = 0;
		end);

		it("is seen by who is to see it, and nobody is told of an end twice", function ()
			random.announce("directed_spec");
			for number = 1, STEPS do
				local ok, problem = pcall(function ()
					step();
					if math.random(4) > 1 then
						take();
						check();
					end
				end);
				if not ok then
					error(("step %d: %s"):format(number, tostring(problem)), 0);
				end
			end
			take();
			check();
			unload();
			for to, view in pairs(views) do
				assert.is_nil(next(view), to);
			end
		end);

		-- All that another module's handler does is done right away, so an end can be told twice here.
		it("ends for everybody, whatever another module does meanwhile", function ()
			is_strict = false;
			function on_send()
				if math.random(4) > 1 or depth == 2 then
					return;
				end
				depth = depth + 1;
				step();
				depth = depth - 1;
				return math.random(4) == 1 and "on purpose" or nil;
			end
			for _ = 1, STEPS do
				local ok, problem = pcall(step);
				assert(ok, problem);
				take();
				assert_remembered();
			end
			on_send = nil;
			unload();
			for to, view in pairs(views) do
				assert.is_nil(next(view), to);
			end
		end);
	end);
end);
