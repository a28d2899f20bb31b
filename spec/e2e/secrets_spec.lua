-- What an operator or a client gets to see says nothing of the keys, and what is
-- for the operator's eyes names no requester.

local base64 = require "util.encodings".base64;
local hex = require "util.hex";
local new_prosody = require "spec.support.prosody".new;
local service = require "spec.support.service";
local throwaway = require "spec.support.throwaway";
local xmpp = require "spec.support.xmpp";
local st = require "util.stanza";

local PROXY = service.proxy;

local hosts = [[
VirtualHost "some-domain.example"
Component "proxy.domain.example" "client_proxy"
	target_address = "some-user@some-domain.example"
	client_proxy_address_format = %q
	client_proxy_request_timeout = 1
	client_proxy_max_pending_per_requester = 1
]];

describe("what can be seen", function ()
	local server, requester, backend, seen;

	local function see(text)
		table.insert(seen, tostring(text));
		return text;
	end

	-- The keys as the store has them, in base64
	local function stored_keys()
		local store = throwaway.read_file(server.dir.."/data/proxy%2edomain%2eexample/client_proxy.dat");
		local keys = {};
		for key in store:gmatch('"([%w+/]+=)"') do
			table.insert(keys, key);
		end
		return keys, store;
	end

	-- Ways to write a key
	local function spellings(key)
		local bytes = base64.decode(key);
		local first_half = bytes:sub(1, 16); -- a part would be too much, too
		return { bytes, key:gsub("=", ""), (key:gsub("[+/=]", { ["+"] = "-", ["/"] = "_", ["="] = "" })),
			hex.to(bytes), hex.to(bytes):upper(), first_half, hex.to(first_half), hex.to(first_half):upper() };
	end

	-- All that can become of a request, and of the module
	local function live(format)
		server = new_prosody { hosts = hosts:format(format) }:start();
		requester, backend = xmpp.client(server, "other-user", "some-domain.example", "abc"), service.backend(server, "a");
		requester:send(service.request("answered"));
		local received = see(backend:receive(xmpp.is_iq));
		backend:send(st.reply(received));
		see(requester:receive(xmpp.is_iq));
		backend:send(st.reply(received)); -- again
		backend:send(st.stanza("iq", { type = "result", id = "forged", to = received.attr.from.."A" }));
		see(requester:request(service.request("to-a-token", received.attr.from)));
		see(backend:request(service.request("back", received.attr.from)));
		requester:send(service.request("late"));
		see(requester:request(service.request("too-many"))); -- while that is pending
		backend:receive(xmpp.is_iq);
		see(requester:receive(xmpp.is_iq)); -- it has timed out, and the backend is pinged
		see(backend:receive(xmpp.is_iq));
		see(backend:receive(xmpp.is_iq)); -- again, as it has not answered, and is suspended
		see(server:client_proxy("status", PROXY));
		see(server:ctl("shell", "module", "info", "client_proxy", PROXY));
		see(server:ctl("shell", "module", "reload", "client_proxy", PROXY));
		see(server:client_proxy("resync", PROXY));
		see(server:metrics_page());
		backend:close();
		see(requester:request(service.request("nobody")));
		see(server:ctl("shell", "module", "unload", "client_proxy", PROXY));
	end

	before_each(function ()
		seen = {};
	end);

	after_each(function ()
		server:remove();
	end);

	for _, format in ipairs { "short", "sealed", "signed", "plain" } do
		it("tells nothing of the keys, with the format "..format, function ()
			live(format);
			local all = table.concat(seen, "\n")..server:log();
			assert.truthy(all:find("Dropped an answer that nobody waits for", 1, true)); -- so debug lines are in it
			local keys, store = stored_keys();
			assert.equal(1, #keys);
			assert.truthy(store:find(spellings(keys[1])[2], 1, true)); -- so it would be found
			for _, key in ipairs(keys) do
				for _, spelling in ipairs(spellings(key)) do
					assert.falsy(all:find(spelling, 1, true));
				end
			end
		end);
	end

	it("names no requester to the operator", function ()
		live "sealed";
		local told = {};
		for line in server:log():gmatch("[^\n]+") do
			if line:find(PROXY..":client_proxy", 1, true) and not line:find("\tdebug\t", 1, true) then
				table.insert(told, line);
			end
		end
		assert.truthy(table.concat(told):find("does not answer a ping", 1, true));
		for _, text in ipairs(seen) do
			if not text:find("^<iq") then
				table.insert(told, text);
			end
		end
		assert.truthy(table.concat(told):find("outcome=\"timeout\"", 1, true));
		assert.falsy(table.concat(told):find(requester.bare, 1, true));
		assert.truthy(server:log():find(requester.bare, 1, true)); -- so it would be found
	end);
end);
