local fake_module = require "spec.support.module";
local st = require "util.stanza";

local PROXY = "proxy.domain.example";
local HOST = "some-domain.example";
local BACKEND = "some-user@some-domain.example/a";

describe("an answer in a backend's name", function ()
	local module, bounces, is_backend;
	local pool = { state = function (_, jid) return jid == BACKEND and is_backend and "ready" or nil; end };

	before_each(function ()
		module = fake_module.new();
		bounces = module:require "bounces";
		is_backend = true;
	end);

	local function error_of(condition)
		local request = st.iq({ type = "get", id = "1", from = PROXY.."/token", to = BACKEND }):tag("query", { xmlns = "x:y" });
		return st.error_reply(request, "cancel", condition or "service-unavailable");
	end

	-- (origin, stanza) -> what it is
	local function kind(origin, stanza)
		return bounces.kind(origin, stanza or error_of(), pool);
	end

	-- -> the origin of what a host of ours says
	local function our_host(type)
		local host = { type = type or "local", host = HOST };
		module.prosody.hosts[HOST] = host;
		return host;
	end

	local function log_in()
		module.prosody.full_sessions[BACKEND] = {};
	end

	it("is its own when it is a result, wherever it comes from", function ()
		local result = st.iq { type = "result", id = "1", from = BACKEND, to = PROXY.."/token" };
		is_backend = false;
		for _, origin in ipairs { {}, { dummy = true }, our_host() } do
			assert.is_nil(kind(origin, result));
		end
	end);

	it("is its own when it is an error of its session, whatever it says", function ()
		our_host();
		log_in();
		for _, condition in ipairs { "service-unavailable", "recipient-unavailable", "gone", "remote-server-timeout", "forbidden" } do
			assert.is_nil(kind({ host = HOST, full_jid = BACKEND }, error_of(condition)));
		end
	end);

	it("is its own when a stream brings it that no server would say in its place, as long as it is a backend", function ()
		local stream = { from_host = HOST, to_host = PROXY };
		for _, condition in ipairs { "feature-not-implemented", "bad-request", "forbidden", "not-allowed", "not-acceptable", "conflict" } do
			is_backend = true;
			assert.is_nil(kind(stream, error_of(condition)));
			is_backend = false;
			assert.equal("unreachable", kind(stream, error_of(condition)));
		end
	end);

	for _, condition in ipairs {
		"service-unavailable", "recipient-unavailable", "item-not-found", "gone", "remote-server-not-found", "remote-server-timeout",
		"internal-server-error", "resource-constraint",
	} do
		it("is doubtful when a stream brings "..condition..", which a server may say in its place", function ()
			for _, stream in ipairs { { from_host = HOST, to_host = PROXY }, { type = "component", host = HOST } } do
				is_backend = true;
				assert.equal("doubtful", kind(stream, error_of(condition)));
				is_backend = false;
				assert.equal("unreachable", kind(stream, error_of(condition)));
			end
		end);
	end

	it("says that it is unreachable when our own server cannot reach the target's", function ()
		assert.equal("unreachable", kind({ dummy = true }, error_of "remote-server-not-found"));
		assert.equal("unreachable", kind({ dummy = true }, error_of "forbidden"));
		assert.equal("unreachable", kind { dummy = true, host = HOST });
	end);

	it("says that it is unreachable when a host of ours says so and it is not logged in", function ()
		local host = our_host();
		assert.equal("unreachable", kind(host));
		assert.equal("unreachable", kind(host, error_of "forbidden"));
	end);

	for _, condition in ipairs { "recipient-unavailable", "gone", "remote-server-not-found", "remote-server-timeout" } do
		it("says that it is unreachable, though it is logged in, when a host of ours says "..condition, function ()
			local host = our_host();
			log_in();
			assert.equal("unreachable", kind(host, error_of(condition)));
		end);
	end

	for _, condition in ipairs { "service-unavailable", "forbidden", "not-acceptable", "not-allowed", "item-not-found" } do
		it("is a refusal when it is logged in and a host of ours says "..condition, function ()
			local host = our_host();
			log_in();
			assert.equal("refusal", kind(host, error_of(condition)));
		end);
	end

	it("is a refusal when a host of ours says it of an address that is none of a client's here", function ()
		local host = our_host "component";
		assert.equal("refusal", kind(host, error_of "not-allowed"));
		assert.equal("unreachable", kind(host, error_of "gone"));
		module.prosody.hosts[HOST] = nil;
		local other = { type = "local", host = "other.example" };
		module.prosody.hosts["other.example"] = other;
		assert.equal("refusal", kind(other, error_of "not-allowed"));
	end);

	it("is not a host's word when it comes by a session that names that host", function ()
		our_host();
		log_in();
		assert.is_nil(kind({ type = "local", host = HOST }));
	end);

	it("may say nothing of an error at all", function ()
		local bare = st.iq { type = "error", id = "1", from = BACKEND, to = PROXY.."/token" };
		local host = our_host();
		assert.is_nil(kind({}, bare));
		assert.equal("unreachable", kind(host, bare));
		log_in();
		assert.equal("refusal", kind(host, bare));
		bare:tag("error"):up();
		assert.equal("refusal", kind(host, bare));
	end);
end);
