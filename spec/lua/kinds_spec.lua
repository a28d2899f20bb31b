local fake_module = require "spec.support.module";
local st = require "util.stanza";

describe("the kind", function ()
	local kinds = fake_module.new():require "kinds";

	describe("of an IQ", function ()
		local refused; -- why requests are refused for their address
		local addresses = {};

		local function refused_token(given, from, to)
			assert.equal(addresses, given);
			assert.same({ "a@b.example/c", "proxy.domain.example" }, { from, to });
			return refused;
		end

		local function kind(type, id, children)
			local stanza = st.stanza("iq", { type = type, id = id, from = "a@b.example/c", to = "proxy.domain.example" });
			for _ = 1, children do
				stanza:tag("query", { xmlns = "x:y" }):up();
			end
			return { kinds.of_iq(stanza, refused_token, addresses) };
		end

		before_each(function ()
			refused = nil;
		end);

		it("is a request when it has an id and one child element", function ()
			assert.same({ "request" }, kind("get", "1", 1));
			assert.same({ "request" }, kind("set", "", 1));
		end);

		it("is refused when it is malformed, whatever its address is", function ()
			for _, reason in ipairs { false, "no-such-resource" } do
				refused = reason or nil;
				for _, stanza in ipairs { { "get", "1", 0 }, { "set", "1", 2 }, { "get", nil, 1 }, { "GET", "1", 1 }, { nil, "1", 1 } } do
					assert.same({ "refused", "malformed" }, kind(stanza[1], stanza[2], stanza[3]));
				end
			end
		end);

		it("is refused when its address takes no requests", function ()
			refused = "not-by-backends";
			assert.same({ "refused", "not-by-backends" }, kind("get", "1", 1));
		end);

		it("is an answer, with or without an id, whatever is in it", function ()
			refused = "no-such-resource";
			for _, type in ipairs { "result", "error" } do
				assert.same({ "answer" }, kind(type, "1", 2));
				assert.same({ "answer-without-id" }, kind(type, nil, 0));
			end
		end);
	end);

	describe("of a settlement", function ()
		local BACKEND = "some-user@some-domain.example/a";
		local is_ready, state;
		local pool = { is_ready = function () return is_ready; end, state = function () return state; end };

		local function kind(bounce, can_be_resent)
			return kinds.of_settlement(bounce, can_be_resent, pool, BACKEND);
		end

		before_each(function ()
			is_ready, state = true, "suspended";
		end);

		it("is that the answer is delivered, when it is the backend's, or a refusal", function ()
			assert.equal("deliver", kind(nil, true));
			assert.equal("deliver", kind("refusal", true));
		end);

		it("is that another backend is tried when this one cannot be reached", function ()
			is_ready = false;
			assert.equal("retry", kind("unreachable", true));
			assert.equal("retry", kind("unreachable", false));
		end);

		it("is that another one is tried when a server may have spoken for one that is not ready", function ()
			assert.equal("retry", kind("doubtful", true));
			assert.equal("deliver", kind("doubtful", false));
			is_ready = false;
			assert.equal("deliver", kind("doubtful", true));
			is_ready, state = true, "ready";
			assert.equal("deliver", kind("doubtful", true));
		end);
	end);
end);
