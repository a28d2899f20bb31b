-- The tokens that client_proxy_address_format asks for, as a backend sees them

local core = require "mod_client_proxy.core";
local new_prosody = require "spec.support.prosody".new;
local service = require "spec.support.service";
local xmpp = require "spec.support.xmpp";
local base64 = require "util.encodings".base64;
local st = require "util.stanza";

local is_iq, request = xmpp.is_iq, service.request;

local usual_hosts = require "spec.support.prosody".usual_hosts;

local PROXY = service.proxy;

local function hosts_with(format)
	return usual_hosts..("client_proxy_address_format = %q\n"):format(format);
end

-- The codec that has the server's key
local function codec_of(server, format)
	local file = assert(io.open(server.dir.."/data/proxy%2edomain%2eexample/client_proxy.dat"));
	local content = file:read("a");
	file:close();
	local codec = core.jat(PROXY, format);
	codec:add_key(tonumber(content:match('%["id"%] = (%d+)')), base64.decode(content:match('%["key"%] = "([^"]+)"')));
	return codec;
end

-- What the token of a JID is to be, by its format
local specified = {
	short = function (jid, server)
		local token = codec_of(server, "short"):encode(jid);
		assert.truthy(token:find("^q[%w_-]+$"));
		assert.equal(13, #token);
		return token;
	end;
	signed = function (jid, server)
		local token = codec_of(server, "signed"):encode(jid);
		assert.equal(jid.."#", token:sub(1, -23));
		assert.truthy(token:find("^[%w_-]+$", -22));
		return token;
	end;
	plain = function (jid)
		return jid;
	end;
};

local longest = { signed = 1000, plain = 1023 }; -- bytes in a JID that is not replaced by a digest, if any is

local ODD_RESOURCES = {
	["that is not ASCII"] = "caf\u{e9}",
	["in a right-to-left script"] = "\u{5e9}\u{5dc}\u{5d5}\u{5dd}",
	["of 1023 bytes"] = ("r"):rep(1023),
};

for format, specified_token in pairs(specified) do
	describe("a token that is "..format, function ()
		local server, backend, requester;

		lazy_setup(function ()
			server = new_prosody { hosts = hosts_with(format) }:start();
			backend = service.backend(server, "a");
			requester = service.requester(server);
		end);

		lazy_teardown(function ()
			server:remove();
		end);

		-- The request as the backend gets it; the answer gets to the requester
		local function round_trip(from, address)
			local iq = request("round-trip", address);
			from:send(iq);
			local received = backend:receive(is_iq);
			backend:send(st.reply(received):text_tag("answer", "yes"));
			local answer = from:receive(is_iq);
			assert.same({ "result", iq.attr.to, from.jid }, { answer.attr.type, answer.attr.from, answer.attr.to });
			assert.equal("yes", answer:get_child_text("answer"));
			return received;
		end

		it("is what is specified, at every service address", function ()
			local token = specified_token(requester.jid, server);
			for _, address in ipairs { PROXY, PROXY.."/thing", "room@"..PROXY, "room@"..PROXY.."/thing" } do
				local received = round_trip(requester, address);
				assert.equal(address:match("^[^/]+").."/"..token, received.attr.from);
			end
		end);

		local printable = {};
		for value = 0x20, 0x7E do
			table.insert(printable, string.char(value));
		end
		local resources = {
			["with all that is printable, spaces at both ends"] = table.concat(printable).." ",
			["that looks like a token itself"] = "abc#"..("A"):rep(22),
		};
		local digested = {};
		for name, resource in pairs(ODD_RESOURCES) do
			(longest[format] and digested or resources)[name] = resource;
		end
		if longest[format] then
			resources["as long as it can be"] = ("r"):rep(longest[format] - #"user@some-domain.example/");
			digested["one byte too long"] = resources["as long as it can be"].."r";
		end

		for name, resource in pairs(resources) do
			it("stands for a requester with a resource "..name, function ()
				local other = service.requester(server, resource);
				assert.equal("user@some-domain.example/"..resource, other.jid);
				assert.equal(PROXY.."/"..specified_token(other.jid, server), round_trip(other).attr.from);
				other:close();
			end);
		end

		for name, resource in pairs(digested) do
			it("is replaced by a digest for a requester with a resource "..name, function ()
				local other = service.requester(server, resource);
				assert.equal("user@some-domain.example/"..resource, other.jid);
				local token = round_trip(other).attr.from:match("^proxy%.domain%.example/(d[%w_-]+)$");
				assert.equal(codec_of(server, format):encode(other.jid), token);
				assert.equal(33, #token);
				other:close();
			end);
		end

		it("reaches nobody when the backend changes a byte of it", function ()
			local neighbour = service.requester(server, "abd"); -- one byte away
			requester:send(request("changed"));
			local received = backend:receive(is_iq);
			local address = received.attr.from;
			local before = server:counter("unmatched_answers");
			for position = #PROXY + 2, #address do
				local changed = address:sub(position, position) == "d" and "e" or "d";
				backend:send(st.iq({ type = "result", id = "changed",
					to = address:sub(1, position - 1)..changed..address:sub(position + 1) }));
			end
			for _, connection in ipairs { backend, requester, neighbour } do
				connection:sync();
				assert.same({}, connection.received);
			end
			assert.equal(before + #address - #PROXY - 1, server:counter("unmatched_answers"));

			backend:send(st.reply(received));
			assert.equal("result", requester:receive(is_iq).attr.type);
			neighbour:close();
		end);

		it("takes a request of a backend to the requester, and its answer back", function ()
			local address = round_trip(requester).attr.from;
			backend:send(request("backend-to-requester", address));
			requester:send(st.reply(requester:receive(is_iq)));
			local answer = backend:receive(is_iq);
			assert.same({ "result", address }, { answer.attr.type, answer.attr.from });
		end);
	end);
end

describe("a change of format over a reload", function ()
	it("leaves what is pending to be answered", function ()
		local server = new_prosody():start();
		finally(function () server:remove(); end);
		local backend = service.backend(server, "a");
		local requester = service.requester(server);

		-- A request that the backend has got, under a token of this format
		local function hold(id, format)
			requester:send(request(id));
			local received = backend:receive(is_iq);
			assert.equal(PROXY.."/"..codec_of(server, format):encode(requester.jid), received.attr.from);
			return received;
		end

		local function answer(received)
			backend:send(st.reply(received));
			local answered = requester:receive(is_iq).attr;
			assert.same({ "result", received.attr.id, PROXY }, { answered.type, answered.id, answered.from });
		end

		local before, held_to_the_end = "short", {}; -- which is the default
		for number, format in ipairs { "signed", "plain", "short", "sealed", "short", "sealed" } do
			local held_before = hold("held as "..before, before);
			table.insert(held_to_the_end, hold("held to the end "..number, before));
			server:configure(hosts_with(format));
			server:ctl("shell", "config", "reload");
			server:ctl("shell", "module", "reload", "client_proxy", PROXY);
			local held_since = hold("held as "..format, format);
			answer(held_before);
			answer(held_since);
			before = format;
		end
		for _, received in ipairs(held_to_the_end) do
			answer(received);
		end
		assert.equal(0, server:counter("unmatched_answers"));
	end);
end);

describe("a full book", function ()
	local server, backend, requesters;

	before_each(function ()
		server = new_prosody { hosts = usual_hosts.."client_proxy_max_requesters = 2\n" }:start();
		backend = service.backend(server, "a");
		requesters = {};
		for number = 1, 3 do
			requesters[number] = service.requester(server, "requester-"..number);
		end
	end);

	after_each(function ()
		server:remove();
	end);

	-- The request of a requester as the backend gets it, which is answered
	local function round_trip(requester, address)
		requester:send(request("round-trip", address));
		local received = backend:receive(is_iq);
		backend:send(st.reply(received));
		local answer = requester:receive(is_iq);
		assert.same({ "result", address or PROXY, requester.jid }, { answer.attr.type, answer.attr.from, answer.attr.to });
		return received.attr.from;
	end

	it("forgets who has been idle for the longest, whose token takes requests as any service address does", function ()
		local first, second = round_trip(requesters[1]), round_trip(requesters[2]);
		assert.equal(first, round_trip(requesters[1]));
		for _, known in ipairs { first, second } do
			assert.same({ "service-unavailable", "cancel" }, { service.error_of(requesters[1]:request(request("known", known))) });
		end
		local third = round_trip(requesters[3]); -- for whom the second one is forgotten
		assert.equal(third, round_trip(requesters[3], second));
		for _, known in ipairs { first, third } do
			assert.same({ "service-unavailable", "cancel" }, { service.error_of(requesters[1]:request(request("known", known))) });
		end
		assert.equal(second, round_trip(requesters[2])); -- the same key, the same token
		assert.equal(third, round_trip(requesters[3], first)); -- the first one is forgotten by now
	end);

	it("refuses whoever is new while everybody has something pending, and serves those that it knows", function ()
		local held = {};
		for number = 1, 2 do
			requesters[number]:send(request("held"));
			held[number] = backend:receive(is_iq);
		end
		assert.same({ "resource-constraint", "wait" }, { service.error_of(requesters[3]:request(request("refused"))) });
		assert.equal(held[1].attr.from, round_trip(requesters[1]));
		backend:send(st.reply(held[2]));
		assert.equal("result", requesters[2]:receive(is_iq).attr.type);
		round_trip(requesters[3]);
		backend:send(st.reply(held[1]));
		assert.equal("result", requesters[1]:receive(is_iq).attr.type);
		round_trip(requesters[2]);
	end);
end);
