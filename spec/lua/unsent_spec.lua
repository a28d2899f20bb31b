local desk = require "spec.support.desk";
local new_queue = require "util.queue".new;
local st = require "util.stanza";

local PROXY, BACKEND, OTHER_BACKEND, REQUESTER = desk.PROXY, desk.BACKEND, desk.OTHER_BACKEND, desk.REQUESTER;
local HOST = "some-domain.example"; -- the target's
local PAUSE = 5; -- seconds

local text_of = setmetatable({}, { __mode = "k" }); -- by a clone: the text of the stanza; its own may have another order

-- How each Prosody keeps what waits for a stream: { name, new() -> queue, add(queue, stanza), texts(queue) -> a list }
local KINDS = {
	{
		name = "0.12";
		new = function () return {}; end;
		add = function (queue, stanza)
			local type = stanza.attr.type;
			table.insert(queue, { tostring(stanza), type ~= "error" and type ~= "result" and st.reply(stanza) });
		end;
		texts = function (queue)
			local texts = {};
			for position, element in ipairs(queue) do
				texts[position] = element[1];
			end
			return texts;
		end;
	},
	{
		name = "13";
		new = function () return new_queue(6000); end;
		add = function (queue, stanza)
			local clone = st.clone(stanza);
			text_of[clone] = tostring(stanza);
			assert(queue:push(clone));
		end;
		texts = function (queue)
			local texts = {};
			for position, stanza in queue:items() do
				texts[position] = text_of[stanza];
			end
			return texts;
		end;
	},
};

for _, kind in ipairs(KINDS) do
	describe("what waits for a stream to another server in Prosody "..kind.name, function ()
		local run, module, clock, stream, unsent, created, established;

		local function new_unsent()
			unsent = module:require "unsent".new { pending = run.pending, backend_requests = run.backend_requests };
			created, established = module.hooks["s2sout-created"], module.hooks["s2sout-established"];
		end

		before_each(function ()
			run = desk.new();
			module, clock = run.module, run.clock;
			stream = { type = "s2sout_unauthed", to_host = HOST, sendq = kind.new() };
			module.prosody.hosts[PROXY].s2sout[HOST] = stream;
			new_unsent();
		end);

		-- (list of stanzas): they wait from now on, too
		local function wait(stanzas)
			for _, stanza in ipairs(stanzas) do
				kind.add(stream.sendq, stanza);
			end
		end

		local function request(id, type)
			local stanza = run:request { id = id, type = type };
			wait { stanza };
			return tostring(stanza);
		end

		-- -> the texts of the stanzas that wait, in order
		local function waiting()
			return kind.texts(stream.sendq);
		end

		local function expire()
			clock.now = clock.now + desk.TIMEOUT;
			repeat
				local requester = run.pending:expire(clock.now);
			until not requester;
			repeat
				local requester = run.asked:expire(clock.now);
			until not requester;
		end

		it("is sent as long as somebody waits for the answer", function ()
			local first, second = request("1"), request("2", "set");
			established { session = stream };
			assert.same({ first, second }, waiting());
		end);

		it("is not sent if nobody waits for it any more", function ()
			request("1");
			request("2", "set");
			expire();
			local new = request("3");
			established { session = stream };
			assert.same({ new }, waiting());
		end);

		it("is sent in its order, and all of it that is no request", function ()
			local others = {
				st.presence { from = PROXY, to = BACKEND, type = "probe" },
				st.message({ id = "1", from = PROXY.."/token", to = BACKEND }):text_tag("body", "text"),
				st.iq({ type = "get", id = "1", from = PROXY, to = BACKEND }):tag("ping", { xmlns = "urn:xmpp:ping" }):up(),
				st.stanza("iq", { type = "get", from = PROXY.."/another-module", to = BACKEND }), -- which knows no better
				st.iq { type = "result", id = "1", from = PROXY.."/token", to = BACKEND },
				st.iq { type = "error", id = "1", from = PROXY.."/token", to = BACKEND },
			};
			local expected = {};
			for number, other in ipairs(others) do
				request("before-"..number);
				wait { other };
				table.insert(expected, tostring(other));
			end
			expire();
			local new = request("new");
			wait { others[1] };
			established { session = stream };
			table.insert(expected, new);
			table.insert(expected, tostring(others[1]));
			assert.same(expected, waiting());
		end);

		it("is the last of those with the same answer, as many as are waited for", function ()
			local function numbered(number)
				local stanza = run:receive_iq({ type = "get", id = "same", from = REQUESTER, to = PROXY },
					st.stanza("query", { xmlns = "urn:example:number", number = number }));
				wait { stanza };
				return tostring(stanza);
			end
			numbered("1");
			numbered("2");
			clock.now = clock.now + 1;
			numbered("3");
			expire();
			local fourth, fifth = numbered("4"), numbered("5");
			established { session = stream };
			assert.same({ fourth, fifth }, waiting());
		end);

		it("goes to the backend alone that has the request now", function ()
			run.exchange:admit(OTHER_BACKEND);
			local sent = run:request();
			wait { sent };
			local other = sent.attr.to == BACKEND and OTHER_BACKEND or BACKEND;
			run.pool:remove(sent.attr.to);
			run:tell("backend-gone", sent.attr.to);
			module:fire_slice();
			local again = module:take_sent();
			assert.equal(other, again[1].attr.to);
			wait(again);
			established { session = stream };
			assert.same({ tostring(again[1]) }, waiting());
		end);

		describe("of what backends ask", function ()
			local function ask(id)
				local sent = run:receive(desk.iq {
					type = "get", id = id, from = BACKEND, to = PROXY.."/"..run.jat:encode(REQUESTER),
				});
				wait(sent);
				return tostring(sent[1]);
			end

			it("is sent as long as they wait", function ()
				ask("1");
				expire();
				local second = ask("2");
				established { session = stream };
				assert.same({ second }, waiting());
			end);

			it("is not sent when they have gone", function ()
				ask("1");
				run.pool:remove(BACKEND);
				run:tell("backend-gone", BACKEND);
				established { session = stream };
				assert.same({}, waiting());
			end);
		end);

		it("is looked through now and then until the stream can be used", function ()
			local other = { type = "s2sout_unauthed", to_host = "other.example", sendq = kind.new() };
			created { session = other };
			module:pass(1);
			for number = 1, 2 do
				request(tostring(number));
				assert.equal(1, #waiting());
				module:pass(desk.TIMEOUT); -- a multiple of the pause
				assert.equal(1, #module:take_sent()); -- its requester is told
				assert.equal(1, #waiting());
				module:pass(PAUSE - 1.1);
				assert.equal(1, #waiting());
				module:pass(0.1);
				assert.same({}, waiting());
				module:pass(1);
			end
			stream.type, other.type = "s2sout", "s2s_destroyed";
			stream.sendq, other.sendq = nil, nil;
			assert.same({}, module:pass(PAUSE));
			assert.same({}, module:running_timers());
		end);

		it("is looked through less often where it is long", function ()
			for number = 1, 5000 do
				kind.add(stream.sendq, st.message({ from = PROXY, to = "other@"..HOST, id = tostring(number) }));
			end
			module:pass(PAUSE + 1);
			request("1");
			module:pass(desk.TIMEOUT); -- a multiple of the longer pause
			assert.equal(1, #module:take_sent());
			module:pass(2 * PAUSE - 1.1);
			assert.equal(5001, #waiting());
			module:pass(0.1);
			assert.equal(5000, #waiting());
		end);

		it("is looked through by the next instance after a reload", function ()
			unsent:retire();
			new_unsent();
			request("1");
			expire();
			module:pass(PAUSE);
			assert.same({}, waiting());
		end);

		it("is not sent when the module has answered all", function ()
			request("1");
			run.requests:stop();
			unsent:stop();
			assert.same({}, waiting());
		end);

		it("may be nothing", function ()
			stream.sendq = nil;
			established { session = stream };
			assert.is_nil(stream.sendq);
		end);
	end);
end
