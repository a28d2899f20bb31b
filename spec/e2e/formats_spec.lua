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

local longest = { signed = 1000, plain = 1023 }; -- bytes in a JID that is not replaced by a digest

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
		for name, resource in pairs {
			["with all that is printable, spaces at both ends"] = table.concat(printable).." ",
			["that looks like a token itself"] = "abc#"..("A"):rep(22),
			["as long as it can be"] = ("r"):rep(longest[format] - #"user@some-domain.example/"),
		} do
			it("stands for a requester with a resource "..name, function ()
				local other = service.requester(server, resource);
				assert.equal("user@some-domain.example/"..resource, other.jid);
				assert.equal(PROXY.."/"..specified_token(other.jid, server), round_trip(other).attr.from);
				other:close();
			end);
		end

		for name, resource in pairs {
			["that is not ASCII"] = "caf\u{e9}",
			["in a right-to-left script"] = "\u{5e9}\u{5dc}\u{5d5}\u{5dd}",
			["of 1023 bytes"] = ("r"):rep(1023),
			["one byte too long"] = ("r"):rep(longest[format] + 1 - #"user@some-domain.example/"),
		} do
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

		it("takes no request of a backend", function ()
			local address = round_trip(requester).attr.from;
			local answer = backend:request(request("backend-to-requester", address));
			assert.same({ "feature-not-implemented", "cancel" }, { service.error_of(answer) });
			requester:sync();
			assert.same({}, requester.received);
		end);
	end);
end

describe("a change of format over a reload", function ()
	it("leaves what is pending to be answered", function ()
		local server = new_prosody { hosts = hosts_with("sealed") }:start();
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

		local before = "sealed";
		for _, format in ipairs { "signed", "plain", "sealed" } do
			local held_before = hold("held as "..before, before);
			server:configure(hosts_with(format));
			server:ctl("shell", "config", "reload");
			server:ctl("shell", "module", "reload", "client_proxy", PROXY);
			local held_since = hold("held as "..format, format);
			answer(held_before);
			answer(held_since);
			before = format;
		end
		assert.equal(0, server:counter("unmatched_answers"));
	end);
end);
