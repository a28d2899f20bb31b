-- The parties of the README's example on a started Prosody: backends of the target
-- some-user@some-domain.example behind proxy.domain.example, and requesters.

local socket = require "socket";
local xmpp = require "spec.support.xmpp";
local st = require "util.stanza";

local service = {
	proxy = "proxy.domain.example";
	target = "some-user@some-domain.example";
};

local PATIENCE = 10; -- seconds

-- Logs in as the target, and returns when the proxy has the presence.
function service.backend(server, resource, priority)
	local backend = xmpp.client(server, "some-user", "some-domain.example", resource);
	backend:send(st.presence():text_tag("priority", tostring(priority or 0)));
	backend:sync();
	backend.received = {};
	return backend;
end

function service.backends(server, resources)
	local backends = {};
	for _, resource in ipairs(resources) do
		backends[resource] = service.backend(server, resource);
	end
	for _, backend in pairs(backends) do
		backend:sync();
		backend.received = {};
	end
	return backends;
end

-- The backend answers every request it has got with a result, and returns how many there were.
function service.answer_all(backend)
	local count = 0;
	for _, stanza in ipairs(backend:sync()) do
		if stanza.attr.type == "get" or stanza.attr.type == "set" then
			backend:send(st.reply(stanza));
			count = count + 1;
		end
	end
	backend.received = {};
	return count;
end

-- Prosody has stopped. Returns when the backend's server has found that out, which then may wait before it tries again.
function service.await_unreachable(backend)
	local deadline = socket.gettime() + PATIENCE;
	repeat -- what it sends before its server knows that the stream has ended is lost
		assert(socket.gettime() < deadline, "the server does not notice that Prosody has gone");
		backend:send(st.presence());
	until pcall(backend.receive, backend, xmpp.presence_from(service.proxy, "error"), 0.3);
end

function service.requester(server, resource)
	return xmpp.client(server, "user", "some-domain.example", resource or "abc");
end

-- (id, to, type) -> a request with a payload of its own
function service.request(id, to, type)
	return st.iq({ type = type or "get", id = id, to = to or service.proxy })
		:tag("query", { xmlns = "urn:example:service", number = id }):text_tag("item", "<&> \u{5d0}");
end

-- The condition and the type of an error answer
function service.error_of(stanza)
	local type, condition = stanza:get_error();
	return condition, type;
end

return service;
