local fake_module = require "spec.support.module";
local st = require "util.stanza";

local PROXY = "proxy.domain.example";
local TARGET = "some-user@some-domain.example";

describe("a presence", function ()
	local presence = fake_module.new():require "presence";

	local function kind(type, from, to)
		return presence.kind(st.presence { type = type or nil, from = from, to = to }, TARGET);
	end

	for type, expected in pairs { [false] = "available", unavailable = "unavailable", error = "unreachable" } do
		it("of a resource of the target is "..expected, function ()
			assert.equal(expected, kind(type, TARGET.."/a", PROXY));
			assert.equal(expected, kind(type, TARGET.."/a/b@c", PROXY));
		end);
	end

	for type, expected in pairs { [false] = "reachable", unavailable = "none-left", error = "target-unreachable" } do
		it("of the account as a whole is "..expected, function ()
			assert.equal(expected, kind(type, TARGET, PROXY));
		end);
	end

	for _, type in ipairs { "subscribed", "unsubscribed", "subscribe", "unsubscribe", "probe" } do
		it("is "..type.." from the target or one of its resources", function ()
			assert.equal(type, kind(type, TARGET, PROXY));
			assert.equal(type, kind(type, TARGET.."/a", PROXY));
		end);
	end

	it("is ignored when it comes from the target and nobody knows what it is", function ()
		assert.equal("ignored", kind("something", TARGET, PROXY));
		assert.equal("ignored", kind("", TARGET.."/a", PROXY));
	end);

	it("is the same from the target to a resource of the proxy host, where that is about the target's subscription, else directed", function ()
		for _, from in ipairs { TARGET, TARGET.."/a" } do
			for _, type in ipairs { "subscribe", "unsubscribe", "probe" } do
				assert.equal(type, kind(type, from, PROXY.."/thing"));
			end
			for _, type in ipairs { "subscribed", "unsubscribed", "something" } do
				assert.equal("ignored", kind(type, from, PROXY.."/thing"));
			end
			assert.equal("directed", kind(false, from, PROXY.."/thing"));
			assert.equal("directed", kind("unavailable", from, PROXY.."/thing"));
			assert.equal("recipient-unreachable", kind("error", from, PROXY.."/thing"));
		end
	end);

	it("is a watcher's, from anybody else, or to any other service address", function ()
		local kinds = { subscribe = "watch", unsubscribe = "unwatch", probe = "watcher-probe" };
		for _, addresses in ipairs {
			{ "user@some-domain.example/a", PROXY }, { "some-domain.example", PROXY }, { TARGET..".example", PROXY },
			{ "user@some-domain.example", PROXY.."/thing" }, { "user@some-domain.example", "node@"..PROXY.."/thing" },
			{ TARGET.."/a", "node@"..PROXY }, { TARGET, "node@"..PROXY.."/thing" },
		} do
			local from, to = addresses[1], addresses[2];
			for type, expected in pairs(kinds) do
				assert.equal(expected, kind(type, from, to));
			end
			assert.equal("directed", kind(false, from, to));
			assert.equal("directed", kind("unavailable", from, to));
			for _, type in ipairs { "subscribed", "unsubscribed", "something" } do
				assert.equal("ignored", kind(type, from, to));
			end
		end
	end);

	it("is an error about what came from an address with a resource", function ()
		assert.equal("recipient-unreachable", kind("error", "user@some-domain.example/a", PROXY.."/thing"));
		assert.equal("recipient-unreachable", kind("error", TARGET.."/a", "node@"..PROXY.."/thing"));
	end);

	it("is an error about what came from a bare address, or from one with a resource, unless it will pass", function ()
		local function kind_of(condition, from, to, error_type)
			return presence.kind(st.presence { type = "error", from = from, to = to }:tag("error", { type = error_type or "cancel" })
				:tag(condition, { xmlns = "urn:ietf:params:xml:ns:xmpp-stanzas" }):reset(), TARGET);
		end
		for to, expected in pairs {
			[PROXY] = "watcher-error", ["node@"..PROXY] = "watcher-error", [PROXY.."/thing"] = "recipient-unreachable";
		} do
			for _, from in ipairs { "user@some-domain.example", "user@some-domain.example/a", to ~= PROXY and TARGET.."/a" or nil } do
				for _, condition in ipairs { "item-not-found", "forbidden", "not-allowed", "service-unavailable", "gone" } do
					assert.equal(expected, kind_of(condition, from, to));
					assert.equal("ignored", kind_of(condition, from, to, "wait"));
				end
				for _, condition in ipairs { "remote-server-not-found", "remote-server-timeout", "internal-server-error", "resource-constraint" } do
					assert.equal("ignored", kind_of(condition, from, to));
				end
			end
		end
		assert.equal("watcher-error", kind("error", "user@some-domain.example/a", PROXY));
	end);

	for _, case in ipairs {
		{ "service", nil, "to-backend" }, { "no-backend", nil, "to-backend" }, { "backend", "a backend", "to-backend" };
		{ "requester", "a requester", "to-requester" }, { "no-requester", nil, "to-requester" };
		{ "token", nil, nil };
	} do
		it("that is directed goes where its address says: "..case[1], function ()
			local addresses = {
				kind = function (_, from, to)
					assert.same({ "from@here", "to@there" }, { from, to });
					return case[1], case[2];
				end;
			};
			local direction, whom = presence.direction(st.presence { from = "from@here", to = "to@there" }, addresses);
			assert.equal(case[3], direction);
			assert.equal(case[2], whom);
		end);
	end

	it("has a priority, within its limits, 0 if it says nothing that can be read", function ()
		for text, expected in pairs {
			["5"] = 5, [" -1\n"] = -1, ["+7"] = 7, ["1000"] = 127, ["-1000"] = -128, [""] = 0, ["high"] = 0, ["1.5"] = 0, ["0x10"] = 0,
			["99999999999999999999"] = 0,
		} do
			assert.equal(expected, presence.priority(st.presence():text_tag("priority", text)));
		end
		assert.equal(0, presence.priority(st.presence()));
	end);

	it("says whether it is a Jicofo's, or does not", function ()
		local function of(node)
			return st.presence():tag("c", { xmlns = "http://jabber.org/protocol/caps", hash = "sha-1", node = node, ver = "abc=" }):reset();
		end
		assert.is_true(presence.names_jicofo(of "http://jitsi.org/jicofo"));
		for _, node in ipairs { "http://jitsi.org/jicofo/", "http://jitsi.org", "http://jitsi.org/jibri", "https://jitsi.org/jicofo", "jicofo", "" } do
			assert.is_false(presence.names_jicofo(of(node)));
		end
		assert.is_false(presence.names_jicofo(of(nil)));
		assert.is_nil(presence.names_jicofo(st.presence()));
		assert.is_nil(presence.names_jicofo(st.presence():tag("c", { xmlns = "urn:example", node = "http://jitsi.org/jicofo" }):reset()));
	end);

	it("was asked for when it says when it was new", function ()
		assert.is_false(presence.was_asked_for(st.presence()));
		assert.is_true(presence.was_asked_for(st.presence():tag("delay", { xmlns = "urn:xmpp:delay" }):reset()));
	end);
end);
