-- Messages, both ways (RFC 6121 section 5). A message to a service address goes to one backend: to the one whose token is in
-- the address, or else to the one to which all go that come from the same account. What a backend sends to a requester
-- comes from the backend's token, so that a reply finds the same backend.
--
-- Nothing is kept of a message once it is sent: each is given to at most one backend, and nobody else gets it
-- after that.

local addresses = module:require "addresses";
local bounces = module:require "bounces";
local delivery = module:require "delivery";
local failures = module:require "failures";
local kinds = module:require "kinds";

local new_cache = require "util.cache".new;
local sha256 = require "util.hashes".sha256;
local st = require "util.stanza";

local send = delivery.send;

-- How many service addresses are remembered that are not bare, each as the one that some message was sent to, so that
-- an error about it can come from there
local REMEMBERED = 1000;

-- What tells the backend's server to give a message to that backend alone, and to keep it nowhere. All messages have these
-- same elements in them, as those have that are cloned by Prosody without their children: to make new ones, or clones,
-- would take more than all else that is done for a message. Nobody may change what is in a stanza that others have, too.
local HINTS = {
	st.stanza("private", { xmlns = "urn:xmpp:carbons:2" }); -- XEP-0280 section 6.1
	st.stanza("no-copy", { xmlns = "urn:xmpp:hints" }); -- XEP-0334 section 4
	st.stanza("no-store", { xmlns = "urn:xmpp:hints" });
};

local messages = {};
messages.__index = messages;

-- By type: whether nobody is told that a message to a backend fails (RFC 6121 sections 5.2.2 and 8.3.1)
local IS_DROPPED = { headline = true, error = true };

-- (stanza, name): it fails.
local function fail_to_backend(self, origin, stanza, name)
	if IS_DROPPED[stanza.attr.type] then
		self.metrics:count("messages_to_backend_dropped");
	else
		self.to_backend_failures:refuse(origin, stanza, name);
	end
end

-- Which of its messages this is, as an error about it tells: nothing but the id. Whatever its length, it takes 32 bytes.
local function key_of(requester, id)
	return id and sha256(requester.."\n"..id);
end

-- The last message under an id is the one that counts, also if its address is bare.
local function remember(self, stanza)
	local attr, services = stanza.attr, self.services;
	local service = self.addresses.resource(attr.to) and attr.to;
	if attr.id and (service or services:count() > 0) then
		services:set(key_of(attr.from, attr.id), service);
	end
end

-- -> the service address to which the message was sent that an error is about; the error has come to the address `to`
local function recall(self, requester, id, to)
	local key, bare = key_of(requester, id), self.addresses.bare(to);
	local service = key and self.services:get(key);
	if service and self.addresses.bare(service) == bare then
		self.services:set(key, nil);
		return service;
	end
	return bare;
end

local function add_hints(stanza)
	for _, hint in ipairs(HINTS) do
		if not stanza:get_child(hint.name, hint.attr.xmlns) then
			stanza:add_direct_child(hint);
		end
	end
end

-- Whether this is a client of a host of this Prosody that has no session any more. Its host would give the message to
-- others (RFC 6121 section 8.5.3.2.1), which is as it should be but for resources of the target.
local function has_no_session(resource)
	if prosody.full_sessions[resource] then
		return false;
	end
	local host = prosody.hosts[addresses.host(resource)];
	return host ~= nil and host.type == "local";
end

-- (self, requester, service, backend) -> backend, address | nil, a name of failures.lua
-- backend: the one that the message is for, or nil: one is chosen
local function choose(self, requester, service, backend)
	local chosen, address = self.exchange:address(requester, service, backend);
	for _ = 1, #self.pool do
		if not chosen or not has_no_session(chosen) then
			break;
		end
		self.backends:lose_unreachable(chosen);
		chosen, address = self.exchange:address(requester, service);
	end
	return chosen, address;
end

local function to_backend(self, origin, stanza, backend)
	local attr = stanza.attr;
	if self.is_allowed and not self.is_allowed(attr.from) then
		return fail_to_backend(self, origin, stanza, "forbidden");
	end
	local chosen, address = choose(self, attr.from, attr.to, backend);
	if not chosen then
		return fail_to_backend(self, origin, stanza, address);
	end
	remember(self, stanza);
	add_hints(stanza);
	self.metrics:count("messages_to_backend_sent");
	attr.from, attr.to = address, chosen;
	send(stanza, chosen);
end

local function to_requester(self, origin, stanza, requester)
	local attr = stanza.attr;
	local address = self.addresses:of_backend(attr.from, attr.to);
	if not address then
		return self.to_requester_failures:refuse(origin, stanza, "no-such-resource");
	elseif self.addresses:is_of_target(requester) and has_no_session(requester) then
		return self.to_requester_failures:refuse(origin, stanza, "no-such-requester");
	end
	self.metrics:count("messages_to_requester_sent");
	attr.from, attr.to = address, requester;
	send(stanza, requester);
end

-- bounce: what bounces.lua says of the error that has been sent on
local function heed(self, bounce, backend)
	if self.is_retired then -- by a reload while the error was sent
		return;
	elseif bounce == "unreachable" then
		self.backends:lose_unreachable(backend);
	elseif bounce == "doubtful" then
		self.backends:suspect(backend);
	end
end

-- An error in the name of a resource of the target: its own comes from its token, its server's from where the message went.
local function bounce_to_requester(self, origin, stanza, requester)
	local attr = stanza.attr;
	local backend, bounce = attr.from, bounces.kind(origin, stanza, self.pool);
	local service = recall(self, requester, attr.id, attr.to);
	self.metrics:count("messages_to_requester_error");
	attr.from = not bounce and self.addresses:of_backend(backend, attr.to) or service;
	attr.to = requester;
	send(stanza, requester);
	heed(self, bounce, backend);
end

local function drop_error(self, stanza)
	module:log("debug", "Dropped an error that is about nothing: %s", stanza:top_tag());
	self.metrics:count("messages_to_backend_dropped");
end

-- An error about what a backend has sent. It cannot have sent anything to somebody whom the book does not know.
local function error_to_backend(self, _, stanza, backend)
	local attr = stanza.attr;
	local known, address = self.book:knows(attr.from), nil;
	if known then
		known, address = self.exchange:address(attr.from, attr.to, backend);
	end
	if not known then
		return drop_error(self, stanza);
	end
	self.metrics:count("messages_to_backend_error");
	attr.from, attr.to = address, backend;
	send(stanza, backend);
end

-- By the kind of a message: (self, origin, stanza, whom it is for), see kinds.lua. The last thing that each does is to
-- send something, as that can have any consequences.
local carry_out = {
	["to-backend"] = to_backend;
	["to-requester"] = to_requester;
	["to-nobody"] = function (self, origin, stanza) self.to_requester_failures:refuse(origin, stanza, "no-such-requester"); end;
	["bounce"] = bounce_to_requester;
	["error-to-backend"] = error_to_backend;
	["stray-error"] = function (self, _, stanza) drop_error(self, stanza); end;
	["refused"] = function (self, origin, stanza, name) self.to_backend_failures:refuse(origin, stanza, name); end;
};

-- (setup) -> messages, with the handler for message events
-- setup: { addresses, exchange, book, pool, metrics, backends, is_allowed(jid): whether that one may use the service, nil:
--          anybody may; saved (what save() returned before a reload, or nil) }
function messages.new(setup)
	local self = setmetatable({
		addresses = setup.addresses, exchange = setup.exchange, book = setup.book, pool = setup.pool;
		metrics = setup.metrics, backends = setup.backends, is_allowed = setup.is_allowed;
		to_backend_failures = failures.new(setup.metrics, "messages_to_backend_");
		to_requester_failures = failures.new(setup.metrics, "messages_to_requester_");
		services = setup.saved or new_cache(REMEMBERED); -- by requester and id, see key_of(): the service address that was used
		is_stopped = false, is_retired = false;
	}, messages);

	-- For message events, after all other modules
	function self.on_message(event)
		local origin, stanza = event.origin, event.stanza;
		if self.is_stopped or self.is_retired then
			fail_to_backend(self, origin, stanza, "unloaded");
		else
			local kind, whom = kinds.of_message(stanza, self.addresses);
			carry_out[kind](self, origin, stanza, whom);
		end
		return true;
	end

	return self;
end

-- -> what a reload has to carry over
function messages:save()
	return self.services;
end

-- Refuses what still comes.
function messages:stop()
	self.is_stopped = true;
end

-- To be called when the module goes, whether it is reloaded or not.
function messages:retire()
	self.is_retired = true;
end

return messages;
