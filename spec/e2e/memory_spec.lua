-- What one account can make the proxy hold, with requests of every shape that nobody answers

local new_prosody = require "spec.support.prosody".new;
local service = require "spec.support.service";

local REQUESTS = 256; -- as many as one account may have pending
local MEGABYTE = 1024 * 1024;
local usual_hosts = require "spec.support.prosody".usual_hosts;

-- (count) -> as many attributes, with names as short as can be
local function attributes(count)
	local letters, list = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", {};
	for first in ("_"..letters):gmatch "." do
		for second in letters:gmatch "." do
			table.insert(list, ("%s%s=''"):format(first, second));
		end
	end
	return table.concat(list, " ", 1, count);
end

-- Each: the type, the id (with a number in it) and the payload
local shapes = {
	["of an ordinary size"] = { "get", "%d", "<q xmlns='urn:example:service'><item>text</item></q>" },
	["with ids of 200 kB"] = { "set", "%d"..("i"):rep(200000), "<q xmlns='urn:example:service'/>" },
	["with ids of 200 kB that are gets"] = { "get", "%d"..("i"):rep(200000), "<q xmlns='urn:example:service'/>" },
	["with 2,700 attributes"] = { "get", "%d", ("<q xmlns='urn:example:service' %s/>"):format(attributes(2700)) },
	["with 80 attributes"] = { "get", "%d", ("<q xmlns='urn:example:service' %s/>"):format(attributes(80)) },
	["with 5,000 elements"] = { "get", "%d", "<q xmlns='urn:example:service'>"..("<x/>"):rep(5000).."</q>" },
	["with 20 elements"] = { "get", "%d", "<q xmlns='urn:example:service'>"..("<x/>"):rep(20).."</q>" },
	["with elements 200 deep"] = { "get", "%d", "<q xmlns='urn:example:service'>"..("<x>"):rep(200)..("</x>"):rep(200).."</q>" },
	["with elements 15 deep"] = { "get", "%d", "<q xmlns='urn:example:service'>"..("<x>"):rep(15)..("</x>"):rep(15).."</q>" },
	["with a text of 100 kB"] = { "get", "%d", "<q xmlns='urn:example:service'>"..("t"):rep(100000).."</q>" },
	["with a text of 6 kB"] = { "get", "%d", "<q xmlns='urn:example:service'>"..("t"):rep(6000).."</q>" },
};

describe("requests of one account that nobody answers", function ()
	local server, backend, requester;

	before_each(function ()
		server = new_prosody({ hosts = usual_hosts, log_level = "info" }):start();
		backend = service.backend(server, "a");
		requester = service.requester(server);
	end);

	after_each(function ()
		server:remove();
	end);

	-- Everything is sent, and either with the backend or refused. -> how many were refused
	local function send_all(shape)
		local type, id, payload = table.unpack(shape);
		local refused = 0;
		for number = 1, REQUESTS do
			requester:send_large(("<iq type='%s' id='%s' to='%s'>%s</iq>"):format(type, id:format(number), service.proxy, payload));
			for _, stanza in ipairs(requester:sync()) do
				assert.same({ "resource-constraint", "wait" }, { service.error_of(stanza) });
				refused = refused + 1;
			end
			requester.received = {};
			backend:sync();
			backend.received = {};
		end
		return refused;
	end

	for name, shape in pairs(shapes) do
		it("hold at most 16 MB more than nothing does: "..name, function ()
			local lua_before, before = server:lua_memory(), server:resident_memory();
			local refused = send_all(shape);
			local lua_grown, grown = (server:lua_memory() - lua_before) * 1024, server:resident_memory() - before;
			print(("e2e memory: %s: %d refused, %.1f MB more, of which %.1f MB Lua's"):format(name, refused, grown / MEGABYTE, lua_grown / MEGABYTE));
			assert.is_true(lua_grown < 16 * MEGABYTE);
			assert.is_true(grown < 16 * MEGABYTE);
			assert.equal(name == "of an ordinary size" and 0 or refused, refused);
		end);
	end
end);
