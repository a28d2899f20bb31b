local core = require "mod_client_proxy.core";
local desk = require "spec.support.desk";

local PROXY, TARGET, BACKEND, OTHER_BACKEND, REQUESTER = desk.PROXY, desk.TARGET, desk.BACKEND, desk.OTHER_BACKEND, desk.REQUESTER;

local OF_TARGET = { BACKEND, OTHER_BACKEND, TARGET, TARGET.."/no-backend" };
local STRANGERS = { REQUESTER, "x"..BACKEND, TARGET..".example/a", "some-domain.example", "x/"..TARGET };
local SERVICES = { PROXY, "node@"..PROXY };
local DIGEST = "d"..("A-_z"):rep(8);
local SHORT = "q"..("A-_z"):rep(3);

describe("an address", function ()
	local run, addresses;

	before_each(function ()
		run = desk.new();
		run.exchange:admit(OTHER_BACKEND);
		addresses = run.addresses;
	end);

	local function use(format)
		run:use_format(format);
		addresses = run.addresses;
		return run.jat:encode(REQUESTER);
	end

	-- The requester is in the book from now on.
	local function introduce()
		assert(run.exchange:address(REQUESTER, PROXY));
	end

	-- For each of these senders, at each service, it is of that kind.
	local function assert_kind(senders, resource, ...)
		for _, from in ipairs(senders) do
			for _, service in ipairs(SERVICES) do
				assert.same({ ... }, { addresses:kind(from, service.."/"..resource) }, from.." to "..resource);
			end
		end
	end

	it("without a resource is a service address for everybody", function ()
		for _, senders in ipairs { OF_TARGET, STRANGERS } do
			for _, from in ipairs(senders) do
				assert.same({ "service" }, { addresses:kind(from, PROXY) });
				assert.same({ "service" }, { addresses:kind(from, "node@"..PROXY) });
			end
		end
	end);

	describe("with a backend's token", function ()
		it("is that backend's for everybody else, and nobody's for itself", function ()
			local token = run.pool:token(BACKEND);
			assert_kind(STRANGERS, token, "backend", BACKEND);
			assert_kind({ OTHER_BACKEND, TARGET, TARGET.."/x" }, token, "backend", BACKEND);
			assert_kind({ BACKEND }, token, "no-backend");
		end);

		it("is nobody's when it has gone, and when it has never been there", function ()
			local token = run.pool:token(BACKEND);
			run.pool:remove(BACKEND);
			for _, senders in ipairs { OF_TARGET, STRANGERS } do
				assert_kind(senders, token, "no-backend");
				assert_kind(senders, "b"..("A"):rep(12), "no-backend");
				assert_kind(senders, "b"..("A"):rep(32), "no-backend");
			end
		end);

		it("that does not look like one is any service address", function ()
			for _, resource in ipairs { "b", "b"..("A"):rep(11), "b"..("A"):rep(13), "b"..("+"):rep(12), "B"..("A"):rep(12), "bot" } do
				assert_kind(STRANGERS, resource, "service");
				assert_kind(OF_TARGET, resource, "service");
			end
		end);
	end);

	for _, format in ipairs(core.FORMATS) do
		describe("in the format "..format, function ()
			it("with a token is the requester's for all of the target, if the requester is in the book", function ()
				local token = use(format);
				introduce();
				assert_kind(OF_TARGET, token, "requester", REQUESTER);
			end);

			it("with a token is not for strangers, but a plain one says nothing of who is known", function ()
				local token = use(format);
				introduce();
				assert_kind(STRANGERS, token, format == "plain" and "service" or "token");
			end);

			it("with a token of the last key is the requester's still, one of the key before is nobody's", function ()
				local token = use(format);
				introduce();
				run.book:new_generation();
				run.jat:add_key(8, ("l"):rep(core.JAT_KEYBYTES));
				assert_kind(OF_TARGET, token, "requester", REQUESTER);
				if format ~= "plain" then -- which is found in the book again by being reached
					run.book:new_generation();
					run.book:new_generation();
					run.jat:add_key(9, ("m"):rep(core.JAT_KEYBYTES));
					assert_kind({ BACKEND }, token, "no-requester");
				end
			end);

			it("with the token of somebody whom the book does not know is the requester's if it tells that by itself", function ()
				local token = use(format);
				if format == "sealed" or format == "signed" then
					assert_kind(OF_TARGET, token, "requester", REQUESTER);
				else
					assert_kind(OF_TARGET, token, "no-requester");
				end
			end);

			it("with what looks like a digest that nobody has is nobody's for the target, and any for others", function ()
				use(format);
				assert_kind(OF_TARGET, DIGEST, "no-requester");
				assert_kind(STRANGERS, DIGEST, "service");
				assert_kind(OF_TARGET, SHORT, "no-requester");
				assert_kind(STRANGERS, SHORT, "service");
			end);

			it("with anything else is a service address", function ()
				use(format);
				for _, resource in ipairs { "thing", "s", "d", "q", "@", "x@", "@y", "some-domain.example" } do
					assert_kind(OF_TARGET, resource, "service");
					assert_kind(STRANGERS, resource, "service");
				end
			end);
		end);
	end

	it("with a token that somebody has tampered with is nobody's for the target, and any for others", function ()
		local token = run.jat:encode(REQUESTER);
		local forged = token:sub(1, 39)..(token:sub(40, 40) == "A" and "B" or "A")..token:sub(41);
		local others = core.jat(PROXY, "sealed");
		others:add_key(8, ("o"):rep(core.JAT_KEYBYTES));
		for _, resource in ipairs { forged, others:encode(REQUESTER) } do
			assert_kind(OF_TARGET, resource, "no-requester");
			assert_kind(STRANGERS, resource, "service");
		end
	end);

	for _, before in ipairs(core.FORMATS) do
		for _, format in ipairs(core.FORMATS) do
			it(("with a token in the format %s is no other backend's when the format is %s"):format(before, format), function ()
				local token = use(before);
				introduce();
				use(format);
				introduce();
				if before == "plain" and format ~= "plain" then -- else backends could ask whether somebody is in the book
					assert_kind(OF_TARGET, token, "no-requester");
					assert_kind(STRANGERS, token, "service");
				else
					assert_kind(OF_TARGET, token, "requester", REQUESTER);
				end
			end);
		end
	end

	it("is judged by the format that the backend sees", function ()
		use "short";
		introduce();
		run.pool:set_format(BACKEND, "plain");
		assert_kind({ BACKEND }, REQUESTER, "requester", REQUESTER);
		assert_kind({ BACKEND }, "somebody@else.example/x", "no-requester");
		assert_kind({ OTHER_BACKEND, TARGET }, REQUESTER, "no-requester");
		assert_kind({ BACKEND }, (run.jat:encode(REQUESTER)), "requester", REQUESTER); -- by which the book knows it
	end);

	it("from which a backend's stanzas come has its token, at the service that it wrote to", function ()
		local token = run.pool:token(BACKEND);
		assert.equal(PROXY.."/"..token, addresses:of_backend(BACKEND, PROXY.."/anything"));
		assert.equal("node@"..PROXY.."/"..token, addresses:of_backend(BACKEND, "node@"..PROXY));
		assert.is_nil(addresses:of_backend(TARGET, PROXY));
		assert.is_nil(addresses:of_backend(TARGET.."/no-backend", PROXY));
	end);

	it("tells its backend, if there is one in it", function ()
		local token = run.pool:token(BACKEND);
		assert.equal(BACKEND, addresses:backend(PROXY.."/"..token));
		assert.equal(BACKEND, addresses:backend("node@"..PROXY.."/"..token));
		for _, address in ipairs { PROXY, "node@"..PROXY, PROXY.."/thing", token, PROXY.."/b"..("A"):rep(12) } do
			assert.is_nil(addresses:backend(address));
		end
	end);

	it("of the target is known with a resource and without, however it is written", function ()
		for _, address in ipairs { TARGET, BACKEND, TARGET:upper() } do
			assert.is_true(addresses:names_target(address));
		end
		for _, address in ipairs { "x"..TARGET, TARGET..".example", "some-domain.example", "", "@" } do
			assert.is_false(addresses:names_target(address));
		end
	end);
end);
