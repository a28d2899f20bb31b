local desk = require "spec.support.desk";
local fake_module = require "spec.support.module";
local parse_xml = require "util.xml".parse;
local st = require "util.stanza";

local PROXY, REQUESTER, BACKEND = desk.PROXY, desk.REQUESTER, desk.BACKEND;

describe("access", function ()
	local new = fake_module.new():require "access".new;

	it("is for anybody if there is no list", function ()
		local is_allowed = new(nil);
		assert.is_true(is_allowed "user@some-domain.example/abc");
		assert.is_true(is_allowed "component.example");
	end);

	for entry, jids in pairs {
		["some-domain.example"] = {
			yes = { "some-domain.example", "some-domain.example/r", "a@some-domain.example", "a@some-domain.example/r/s@t" };
			no = { "x.some-domain.example", "some-domain.example.evil.example", "a@evil.example/some-domain.example",
				"a@evil.example/b@some-domain.example", "evil.example/some-domain.example", "evil.example/a@some-domain.example",
				"some-domain.example@evil.example", "asome-domain.example" };
		};
		["user@third.example"] = {
			yes = { "user@third.example", "user@third.example/r", "user@third.example/r/s@t" };
			no = { "third.example", "user2@third.example", "auser@third.example", "user@third.example.evil.example/r",
				"evil.example/user@third.example", "a@evil.example/user@third.example", "user@x.third.example" };
		};
		["*.other.example"] = {
			yes = { "x.other.example", "a@x.other.example", "a@x.y.other.example/r", "x.other.example/r" };
			no = { "other.example", "a@other.example/r", "a@x.other.example.evil.example", "a@evil.example/x.other.example",
				"evil.example/x.other.example", "xother.example", "a.other.example@evil.example" };
		};
		["bot-*@third.example"] = {
			yes = { "bot-1@third.example", "bot-@third.example/r" };
			no = { "bot@third.example", "third.example", "a@third.example", "bot-1@evil.example/bot-1@third.example", "bot-1@third.example.evil.example",
				"x.bot-1@third.example" };
		};
		["*@third.example"] = { yes = { "a@third.example", "a@third.example/r" }, no = { "third.example", "third.example/r", "a@evil.example" } };
		["*@*"] = { yes = { "a@b", "a@b/r" }, no = { "b", "b/r", "b/a@b" } };
		["node?.example"] = { yes = { "node1.example", "a@node\u{e9}.example/r" }, no = { "node.example", "node12.example" } };
		["*"] = { yes = { "a", "a@b/r", "a/b" }, no = {} };
	} do
		it(("is as %q says"):format(entry), function ()
			local is_allowed = new { "nobody@nowhere.example", entry, "?.nowhere.example" };
			for _, jid in ipairs(jids.yes) do
				assert.is_true(is_allowed(jid), jid);
			end
			for _, jid in ipairs(jids.no) do
				assert.is_false(is_allowed(jid), jid);
			end
		end);
	end

	it("by exact entries takes no longer if there are many of them", function ()
		local list = {};
		for number = 1, 100000 do
			list[number] = number.."@some-domain.example";
		end
		local is_allowed = new(list);
		local began = os.clock();
		for number = 1, 10000 do
			assert(is_allowed(number.."@some-domain.example/r") and not is_allowed(number.."@other.example/r"));
		end
		assert.is_true(os.clock() - began < 1);
	end);
end);

describe("a request", function ()
	local run;

	before_each(function ()
		run = desk.new();
		run:load { is_allowed = run.module:require "access".new { "some-domain.example" } };
	end);

	it("is dispatched if its sender may use the service", function ()
		assert.equal(BACKEND, run:request().attr.to);
	end);

	it("is forbidden if not, counted as refused, and nothing of it stays", function ()
		for _, type in ipairs { "get", "set" } do
			desk.assert_error(run:request { type = type, from = "user@other.example/abc", to = "node@"..PROXY.."/thing" },
				"node@"..PROXY.."/thing", "user@other.example/abc", "1234", "auth", "forbidden");
		end
		assert.same({ refused = 2 }, run:all_counts());
		assert.same({ 0, 0 }, { #run.pending, #run.book });
		assert.same({}, run.module.log_lines);
	end);

	it("of a backend is like anybody's", function ()
		assert.equal(BACKEND, run:request({ from = desk.OTHER_BACKEND }).attr.to);
		run:load { is_allowed = run.module:require "access".new { "other.example" } };
		desk.assert_error(run:request { from = BACKEND }, PROXY, BACKEND, "1234", "auth", "forbidden");
	end);

	it("that other modules answer is left to them", function ()
		local event = run:event_of(desk.iq { type = "get", id = "1", from = "user@other.example/abc", to = PROXY });
		assert.is_nil(run.requests.on_iq_first(event));
		assert.same({}, run.module:take_sent());
	end);

	it("is answered though its sender may use the service no more", function ()
		local result, failure = run:request { id = "result" }, run:request { id = "failure" };
		run:load { is_allowed = run.module:require "access".new { "other.example" } };
		for _, answer in ipairs { desk.answer_to(result), st.error_reply(failure, "cancel", "not-acceptable") } do
			local sent = run:receive(answer);
			assert.equal(1, #sent);
			assert.equal(REQUESTER, sent[1].attr.to);
		end
	end);

	it("is sent again though its sender may use the service no more", function ()
		run:request();
		run:load { is_allowed = run.module:require "access".new { "other.example" } };
		run.pool:remove(BACKEND);
		run.pool:add(desk.OTHER_BACKEND);
		run:tell("backend-gone", BACKEND);
		assert.same({}, run.module:pass(0));
		assert.equal(desk.OTHER_BACKEND, run.module:take_sent()[1].attr.to);
	end);

	it("that is malformed is told so", function ()
		local stanza = parse_xml("<iq type='get' id='1' from='user@other.example/abc' to='"..PROXY.."'/>");
		desk.assert_error(run:receive(stanza)[1], PROXY, "user@other.example/abc", "1", "modify", "bad-request");
	end);
end);
