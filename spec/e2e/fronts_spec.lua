-- Several Prosodys, each with proxies of its own before the same target: they make the same choices, and know nothing
-- of each other's requests.

local fronts_of_spec = require "spec.support.fronts";
local known_choices = require "spec.support.known_choices";
local prosody = require "spec.support.prosody";
local service = require "spec.support.service";
local xmpp = require "spec.support.xmpp";
local st = require "util.stanza";

local KINDS, proxy = fronts_of_spec.KINDS, fronts_of_spec.proxy;
local RESOURCES = { "a", "b", "c" };
local is_iq, is_message = xmpp.is_iq, xmpp.is_message;

local known = {
	["requests by sender"] = known_choices.sender;
	["requests by recipient"] = known_choices.recipient;
	["messages"] = known_choices.sender;
};

local own, another = table.unpack(prosody.roots());
another = another or own; -- where only one has been unpacked

for _, arrangement in ipairs {
	{ "two fronts of a target on ejabberd", { own, own }, "ejabberd" };
	{ "three fronts, the first of which is the target's own server,", { own, own, own }, "the first front" };
	{ "a front of each Prosody there is, of a target on a cluster,", { own, another }, "a cluster" };
} do
	local what, roots, target_server = table.unpack(arrangement);
	local count = #roots;

	describe(what, function ()
		local fronts;

		setup(function ()
			fronts = fronts_of_spec.new(roots, target_server):start(RESOURCES);
		end);

		teardown(function ()
			fronts:remove();
		end);

		local function user_of(front)
			return xmpp.client(fronts.servers[front], "user", ("front-%d.example"):format(front), "abc");
		end

		local function is_request(stanza)
			return is_iq(stanza) and stanza:get_child("query", "urn:example:service") ~= nil;
		end

		local function set_priority(resource, priority)
			fronts.backends[resource]:send(st.presence():text_tag("priority", tostring(priority)));
		end

		it("are the Prosodys that they are to be", function ()
			for front, server in ipairs(fronts.servers) do
				assert.equal(roots[front], server.root);
				assert.truthy(server:run_lua("prosody.version"):find(server:version(), 1, true));
			end
		end);

		for _, kind in ipairs(KINDS) do
			it("give the same backend to the same address, "..kind, function ()
				for front = 1, count do
					assert.same(known[kind], fronts:choices(kind, front));
				end
			end);
		end

		it("move the same when a backend goes, and back when it comes", function ()
			fronts:log_out "b";
			fronts:await_ready(2);
			for _, kind in ipairs(KINDS) do
				local without_b = fronts:choices(kind, 1);
				for number, resource in ipairs(known[kind]) do
					assert.is_true(resource == "b" or without_b[number] == resource);
				end
				for front = 2, count do
					assert.same(without_b, fronts:choices(kind, front));
				end
			end
			fronts:log_in "b";
			fronts:await_ready(3);
			for front = 1, count do
				for _, kind in ipairs(KINDS) do
					assert.same(known[kind], fronts:choices(kind, front));
				end
			end
		end);

		it("drain for themselves, by the operator, and all at once by a backend's presence", function ()
			local kind, address = "requests by sender", proxy("by-sender", 2);
			fronts.servers[2]:client_proxy("drain", address, "b");
			local drained = fronts:choices(kind, 2);
			for number, resource in ipairs(known[kind]) do
				assert.is_true(resource == "b" and drained[number] ~= "b" or drained[number] == resource);
			end
			assert.same(known[kind], fronts:choices(kind, 1));
			fronts.servers[2]:client_proxy("undrain", address, "b");
			assert.same(known[kind], fronts:choices(kind, 2));

			set_priority("b", -1);
			fronts:await_ready(2);
			for front = 1, count do
				assert.same(drained, fronts:choices(kind, front));
			end
			set_priority("b", 0);
			fronts:await_ready(3);
		end);

		it("take the same primary, if all priorities are different", function ()
			local requester = user_of(1);
			local function expect_primary(expected)
				for front = 1, count do
					requester:send(service.request("1", proxy("by-priority", front)));
					local got = fronts:collect(is_request, 1)[1];
					got.backend:send(st.reply(got.stanza));
					requester:receive(is_iq);
					assert.equal(expected, got.resource);
				end
			end
			-- away and back, so that each front has heard of the priorities
			for resource, priority in pairs { a = 1, b = 2, c = 3 } do
				set_priority(resource, -1);
				fronts:await_ready(2);
				set_priority(resource, priority);
				fronts:await_ready(3);
			end
			expect_primary "c";
			set_priority("c", -1);
			fronts:await_ready(2);
			expect_primary "b";
			set_priority("c", 0);
			fronts:await_ready(3);
			expect_primary "b";
			requester:close();
		end);

		-- The requests of one client under one id, one by each front. -> by front, { backend, resource, stanza }
		local function ask_by_each(requester)
			local asked = {};
			for front = 1, count do
				requester:send(service.request("1", proxy("by-sender", front)));
			end
			for _, got in ipairs(fronts:collect(is_request, count)) do
				asked[tonumber(got.stanza.attr.from:match("front%-(%d)"))] = got;
			end
			assert.equal(count, #asked);
			return asked;
		end

		local function token(jid)
			return jid:match("/(.*)$");
		end

		local function answer(got, front, to)
			got.backend:send(st.iq({ type = "result", id = "1", to = to }):tag("answer", { xmlns = "urn:example", front = tostring(front) }));
		end

		-- How many answers that front has got that nobody waits for
		local function dropped(front)
			local series = ('prosody_mod_client_proxy__unmatched_answers_total{host="%s"}'):format(proxy("by-sender", front));
			return fronts.servers[front]:metrics()[series];
		end

		it("have tokens of their own, and keep each other's answers apart", function ()
			local requester = user_of(1);
			local asked = ask_by_each(requester);
			local seen, dropped_before = {}, {};
			for front = 1, count do
				dropped_before[front] = dropped(front);
			end
			for front = 1, count do
				local got = asked[front];
				assert.equal(asked[1].backend, got.backend); -- who could take one for the other
				assert.is_nil(seen[token(got.stanza.attr.from)]);
				seen[token(got.stanza.attr.from)] = true;
				for other = 1, count do
					if other ~= front then
						answer(got, "wrong", proxy("by-sender", other).."/"..token(got.stanza.attr.from));
					end
				end
			end
			for front = count, 1, -1 do
				answer(asked[front], front, asked[front].stanza.attr.from);
			end
			for _ = 1, count do
				local came = requester:receive(is_iq);
				assert.same({ "result", "1" }, { came.attr.type, came.attr.id });
				local front = tonumber(came.tags[1].attr.front);
				assert.equal(proxy("by-sender", front), came.attr.from);
				asked[front] = nil;
			end
			assert.is_nil(next(asked));
			for front = 1, count do
				assert.equal(dropped_before[front] + count - 1, dropped(front));
			end
			requester:close();
		end);

		it("do not know the addresses that others have made", function ()
			local requester = user_of(1);
			local asked = ask_by_each(requester);
			local backend, backend_tokens = asked[1].backend, {};
			for front = 1, count do
				answer(asked[front], front, asked[front].stanza.attr.from);
				requester:receive(is_iq);
				backend:send(st.message({ to = asked[front].stanza.attr.from, id = "from-backend" }, "hello"));
				local from = requester:receive(is_message).attr.from;
				assert.equal(proxy("by-sender", front), from:match("^[^/]*"));
				backend_tokens[front] = token(from);
			end
			for front = 1, count do
				local other = front % count + 1;
				assert.not_equal(backend_tokens[front], backend_tokens[other]);
				local refused = requester:request(service.request("2", proxy("by-sender", other).."/"..backend_tokens[front]));
				assert.same({ "item-not-found", "cancel" }, { service.error_of(refused) });
				local address = proxy("by-sender", other).."/"..token(asked[front].stanza.attr.from);
				backend:send(st.message({ to = address, id = "to-nobody" }, "hello"));
				local bounce = backend:receive(is_message);
				assert.same({ address, "error" }, { bounce.attr.from, bounce.attr.type });
				assert.equal("item-not-found", (service.error_of(bounce)));
			end
			requester:sync();
			assert.is_nil(requester:take(is_message));
			requester:close();
		end);

		it("die for their own users alone, and come back with the same choices", function ()
			local users = {};
			for front = 1, count do
				users[front] = user_of(front);
				users[front]:send(service.request("1", proxy("by-sender", front)));
			end
			users[1]:send(service.request("of another's user", proxy("by-sender", count)));
			local requests = fronts:collect(is_request, count + 1);
			fronts.servers[count]:stop("KILL");
			for _, got in ipairs(requests) do
				got.backend:send(st.reply(got.stanza));
			end
			for front = 1, count - 1 do
				assert.equal("result", users[front]:receive(is_iq).attr.type);
				for _, kind in ipairs(KINDS) do
					assert.same(known[kind], fronts:choices(kind, front));
				end
			end
			fronts:await_ready(3);

			fronts.servers[count]:start();
			fronts:await_ready(3);
			users[1]:send(service.request("1", proxy("by-sender", count)));
			local again = fronts:collect(is_request, 1)[1];
			again.backend:send(st.reply(again.stanza));
			assert.equal("1", users[1]:receive(is_iq).attr.id); -- and nothing came before that
			for _, kind in ipairs(KINDS) do
				assert.same(known[kind], fronts:choices(kind, count));
			end
		end);
	end);
end
