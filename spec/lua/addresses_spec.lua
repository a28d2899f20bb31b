local core = require "mod_client_proxy.core";
local desk = require "spec.support.desk";

local PROXY, TARGET, BACKEND, OTHER_BACKEND, REQUESTER = desk.PROXY, desk.TARGET, desk.BACKEND, desk.OTHER_BACKEND, desk.REQUESTER;
local iq, answer_to, assert_error = desk.iq, desk.answer_to, desk.assert_error;

describe("requests to a token", function ()
	local run, module;

	before_each(function ()
		run = desk.new();
		module = run.module;
	end);

	describe("to a token", function ()
		local function assert_refused(from, to, condition)
			for _, type in ipairs { "get", "set" } do
				local stanza = iq { type = type, id = "1234", from = from, to = to };
				assert.is_true(run.requests.on_iq_first(run:event_of(stanza)));
				local sent = module:take_sent();
				assert.equal(1, #sent);
				assert_error(sent[1], to, from, "1234", "cancel", condition);
			end
			assert.equal(0, #run.pending);
		end

		local function assert_dispatched(from, to)
			run.pool:add(OTHER_BACKEND);
			local dispatched = run:request { from = from, to = to };
			assert.equal(to:match("^[^/]*").."/"..run.jat:encode(from), dispatched.attr.from);
			assert.equal(to, run:receive(answer_to(dispatched))[1].attr.from);
		end

		local DIGEST = "d"..("A-_z"):rep(8);
		local token;
		before_each(function ()
			token = run.jat:encode(REQUESTER);
		end);

		for _, service in ipairs { PROXY, "node@"..PROXY } do
			for _, from in ipairs { BACKEND, OTHER_BACKEND, TARGET } do
				it(("are not implemented from %s, at %s"):format(from, service), function ()
					assert_refused(from, service.."/"..token, "feature-not-implemented");
					assert_refused(from, service.."/"..DIGEST, "feature-not-implemented");
				end);
			end

			for _, from in ipairs { REQUESTER, "x"..BACKEND, TARGET..".example/a", "some-domain.example" } do
				it(("are refused from the stranger %s, at %s"):format(from, service), function ()
					assert_refused(from, service.."/"..token, "service-unavailable");
				end);

				it(("are dispatched from the stranger %s when it only looks like a digest, at %s"):format(from, service), function ()
					assert_dispatched(from, service.."/"..DIGEST);
				end);
			end

			it("are dispatched when it is none after all, at "..service, function ()
				local forged = token:sub(1, 39)..(token:sub(40, 40) == "A" and "B" or "A")..token:sub(41);
				local others = core.jat(PROXY, "sealed");
				others:add_key(8, ("o"):rep(core.JAT_KEYBYTES));
				for _, resource in ipairs { forged, others:encode(REQUESTER), token.."AAAA", token:sub(2), DIGEST:sub(1, -2), DIGEST.."A", "s", "d", "thing" } do
					for _, from in ipairs { REQUESTER, BACKEND } do
						assert_dispatched(from, service.."/"..resource);
					end
				end
			end);
		end

		describe("in the short format", function ()
			before_each(function ()
				run:use_format("short");
				token = run.jat:encode(REQUESTER);
			end);

			-- Only then it is in the book.
			local function let_it_be_used()
				run:receive(answer_to(run:request()));
			end

			it("are not implemented from a backend, whether the book remembers whose it is or not", function ()
				for _, from in ipairs { BACKEND, OTHER_BACKEND, TARGET } do
					assert_refused(from, PROXY.."/"..token, "feature-not-implemented");
				end
				let_it_be_used();
				for _, from in ipairs { BACKEND, OTHER_BACKEND, TARGET } do
					assert_refused(from, PROXY.."/"..token, "feature-not-implemented");
					assert_refused(from, "node@"..PROXY.."/"..token, "feature-not-implemented");
					assert_refused(from, PROXY.."/"..DIGEST, "feature-not-implemented");
				end
			end);

			it("are refused from a stranger if the book remembers whose it is, else dispatched", function ()
				assert_dispatched("some-domain.example", PROXY.."/"..token);
				let_it_be_used();
				for _, from in ipairs { "some-domain.example", REQUESTER } do
					assert_refused(from, PROXY.."/"..token, "service-unavailable");
					assert_refused(from, "node@"..PROXY.."/"..token, "service-unavailable");
				end
				run.book:new_generation(); -- the last one's are known still
				assert_refused("some-domain.example", PROXY.."/"..token, "service-unavailable");
				run.book:new_generation();
				assert_dispatched("some-domain.example", PROXY.."/"..token);
			end);

			it("are dispatched when it is none after all", function ()
				let_it_be_used();
				for _, resource in ipairs { token:sub(1, -2), token.."A", "x"..token:sub(2), "q"..("+"):rep(12), REQUESTER, "thing" } do
					assert_dispatched(REQUESTER, PROXY.."/"..resource);
					assert_dispatched(BACKEND, PROXY.."/"..resource);
				end
			end);

			it("are judged by the format that the backend sees", function ()
				run.pool:add(OTHER_BACKEND);
				run.pool:set_format(BACKEND, "plain");
				assert_refused(BACKEND, PROXY.."/"..REQUESTER, "feature-not-implemented");
				run.pool:set_format(OTHER_BACKEND, "plain"); -- who gets it
				local answered = run:request { from = BACKEND, to = PROXY.."/"..token };
				assert.equal(PROXY.."/"..BACKEND, answered.attr.from);
				run:receive(answer_to(answered));
				run.pool:set_format(OTHER_BACKEND);
				run.pool:set_format(BACKEND);
				assert_dispatched(BACKEND, PROXY.."/"..REQUESTER);
			end);
		end);

		describe("in the signed format", function ()
			before_each(function ()
				run:use_format("signed");
				token = run.jat:encode(REQUESTER);
			end);

			it("are not implemented from a backend", function ()
				assert_refused(BACKEND, PROXY.."/"..token, "feature-not-implemented");
				assert_refused(BACKEND, PROXY.."/"..DIGEST, "feature-not-implemented");
			end);

			it("are refused from a stranger", function ()
				assert_refused("some-domain.example", PROXY.."/"..token, "service-unavailable");
			end);

			it("are dispatched when it is none after all", function ()
				for _, resource in ipairs { token:sub(1, -2), "x"..token, "x@y", "x@y#"..("A"):rep(22), "thing" } do
					assert_dispatched(REQUESTER, PROXY.."/"..resource);
					assert_dispatched(BACKEND, PROXY.."/"..resource);
				end
			end);
		end);

		describe("in the plain format", function ()
			before_each(function ()
				run:use_format("plain");
			end);

			for _, resource in ipairs { "x@y", REQUESTER, DIGEST } do
				it("are not implemented from a backend: "..resource, function ()
					for _, from in ipairs { BACKEND, OTHER_BACKEND, TARGET } do
						assert_refused(from, PROXY.."/"..resource, "feature-not-implemented");
						assert_refused(from, "node@"..PROXY.."/"..resource, "feature-not-implemented");
					end
				end);

				it("are dispatched from anybody else: "..resource, function ()
					for _, from in ipairs { REQUESTER, "some-domain.example" } do
						assert_dispatched(from, PROXY.."/"..resource);
						assert_dispatched(from, "node@"..PROXY.."/"..resource);
					end
				end);
			end

			it("are dispatched when it could be anything", function ()
				for _, resource in ipairs { "thing", "some-domain.example", "@", "x@", "@y" } do
					assert_dispatched(REQUESTER, PROXY.."/"..resource);
					assert_dispatched(BACKEND, PROXY.."/"..resource);
				end
			end);
		end);

		it("are malformed first of all", function ()
			local sent = run:receive(iq({ type = "get", id = "1234", from = BACKEND, to = PROXY.."/"..token }, false));
			assert.equal(1, #sent);
			assert_error(sent[1], PROXY.."/"..token, BACKEND, "1234", "modify", "bad-request");
		end);
	end);
end);
