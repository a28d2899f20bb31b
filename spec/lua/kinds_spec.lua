local fake_module = require "spec.support.module";
local st = require "util.stanza";

describe("the kind", function ()
	local kinds = fake_module.new():require "kinds";

	describe("of an IQ", function ()
		local address; -- what the address is
		local addresses = {};

		local function kind_of_address(given, from, to)
			assert.equal(addresses, given);
			assert.same({ "a@b.example/c", "proxy.domain.example" }, { from, to });
			return address, "whose";
		end

		local function kind(type, id, children)
			local stanza = st.stanza("iq", { type = type, id = id, from = "a@b.example/c", to = "proxy.domain.example" });
			for _ = 1, children do
				stanza:tag("query", { xmlns = "x:y" }):up();
			end
			return { kinds.of_iq(stanza, kind_of_address, addresses) };
		end

		before_each(function ()
			address = "service";
		end);

		it("is a request when it has an id and one child element", function ()
			assert.same({ "request" }, kind("get", "1", 1));
			assert.same({ "request" }, kind("set", "", 1));
		end);

		it("is refused when it is malformed, whatever its address is", function ()
			for _, other in ipairs { "service", "token", "requester" } do
				address = other;
				for _, stanza in ipairs { { "get", "1", 0 }, { "set", "1", 2 }, { "get", nil, 1 }, { "GET", "1", 1 }, { nil, "1", 1 } } do
					assert.same({ "refused", "malformed" }, kind(stanza[1], stanza[2], stanza[3]));
				end
			end
		end);

		it("is refused when its address takes no requests", function ()
			for other, failure in pairs {
				token = "no-such-resource", ["no-backend"] = "no-such-backend", ["no-requester"] = "no-such-requester",
			} do
				address = other;
				assert.same({ "refused", failure }, kind("get", "1", 1));
			end
		end);

		it("is a request when it is for one backend, and a backend's when it is for a requester", function ()
			address = "backend";
			assert.same({ "request-to-one" }, kind("get", "1", 1));
			address = "requester";
			assert.same({ "backends-request", "whose" }, kind("set", "1", 1));
		end);

		it("is an answer, with or without an id, whatever is in it", function ()
			address = "token";
			for _, type in ipairs { "result", "error" } do
				assert.same({ "answer" }, kind(type, "1", 2));
				assert.same({ "answer-without-id" }, kind(type, nil, 0));
			end
		end);
	end);

	describe("of a message", function ()
		-- (type, address) -> the kind of a message of that type to an address of that kind
		local function kind(type, address)
			local stanza = st.message({ type = type, from = "a@b.example/c", to = "proxy.domain.example" });
			return { kinds.of_message(stanza, {
				kind = function (_, from, to)
					assert.same({ "a@b.example/c", "proxy.domain.example" }, { from, to });
					return address, (address == "backend" or address == "requester") and "whose" or nil;
				end;
			}) };
		end

		local expected = { -- by the kind of the address: of an ordinary one, of one for a room, of an error
			["service"] = { { "to-backend" }, { "refused", "no-rooms" }, { "stray-error" } };
			["backend"] = { { "to-backend", "whose" }, { "refused", "no-rooms" }, { "error-to-backend", "whose" } };
			["no-backend"] = { { "to-backend" }, { "refused", "no-rooms" }, { "stray-error" } };
			["requester"] = { { "to-requester", "whose" }, { "to-requester", "whose" }, { "bounce", "whose" } };
			["no-requester"] = { { "to-nobody" }, { "to-nobody" }, { "stray-error" } };
			["token"] = { { "refused", "no-such-resource" }, { "refused", "no-such-resource" }, { "stray-error" } };
		};
		for address, of in pairs(expected) do
			it("follows from its type, where the address is: "..address, function ()
				for _, type in ipairs { false, "normal", "chat", "headline", "anything" } do
					assert.same(of[1], kind(type or nil, address));
				end
				assert.same(of[2], kind("groupchat", address));
				assert.same(of[3], kind("error", address));
			end);
		end
	end);

	it("of a command is told by its first child", function ()
		local function is_command(name, xmlns)
			return kinds.is_command(st.iq({ type = "set", id = "1" }):tag(name, { xmlns = xmlns }));
		end
		assert.is_true(is_command("command", "http://jabber.org/protocol/commands"));
		assert.is_false(is_command("command", "urn:example"));
		assert.is_false(is_command("query", "http://jabber.org/protocol/commands"));
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
