-- An account of a played server, with resources that are available, have gone or are silent: what
-- its clients do, and what their server says in their place.

local st = require "util.stanza";

local PING_NS = "urn:xmpp:ping";
local WAIT = { ["recipient-unavailable"] = true, ["remote-server-timeout"] = true };

-- What a spec may set:
--   is_approving       whether it grants who asks to see its presence, at once
--   answers_probes     true, false, or after how many seconds
--   says_of_the_gone   the condition of the error that its server answers with in the name of a resource that is not
--                      there, as ejabberd does; nil if it says nothing
--   on_request(resource, stanza): what a resource does about a request that is no ping
-- A resource is { name, jid, priority,
--   stream             what its server sends by, for this one: the usual one if nil,
--   answers_pings      true, false, or the condition of the error that its client answers with }
local played_account = {};
played_account.__index = played_account;

-- (server, jid) -> played_account of that played server, with no resource
function played_account.new(server, jid)
	local self = setmetatable({
		server = server, jid = jid, resources = {};
		is_approving = true, answers_probes = true, says_of_the_gone = "service-unavailable";
	}, played_account);
	self.on_request = function (resource, stanza)
		self:answer(resource, st.reply(stanza));
	end;
	server.accounts[jid] = self;
	return self;
end

-- A stanza of that resource
function played_account:answer(resource, stanza)
	self.server:send(stanza, resource.stream);
end

-- Tells the presence of a resource, or of one that is not there, in its name.
function played_account:tell(name, type)
	local resource = self.resources[name] or {};
	local presence = st.presence({ from = self.jid.."/"..name, to = self.server.peer, type = type });
	if not type then
		presence:text_tag("priority", tostring(resource.priority or 0));
	end
	self.server:send(presence, resource.stream);
end

-- (name, fields) -> resource, of which nobody has been told yet
function played_account:add(name, fields)
	local resource = { name = name, jid = self.jid.."/"..name, priority = 0, answers_pings = true };
	for field, value in pairs(fields or {}) do
		resource[field] = value;
	end
	self.resources[name] = resource;
	return resource;
end

-- (name, fields) -> resource, whose presence is told
function played_account:log_in(name, fields)
	local resource = self:add(name, fields);
	self:tell(name);
	return resource;
end

function played_account:log_out(name)
	self:tell(name, "unavailable");
	self.resources[name] = nil;
end

-- It has gone without a word.
function played_account:vanish(name)
	self.resources[name] = nil;
end

-- Tells all presence there is, as the answer to a probe does.
function played_account:tell_all()
	local names = {};
	for name in pairs(self.resources) do
		table.insert(names, name);
	end
	table.sort(names);
	for _, name in ipairs(names) do
		self:tell(name);
	end
	if not names[1] then
		self.server:send(st.presence({ from = self.jid, to = self.server.peer, type = "unavailable" }));
	end
end

function played_account:on_probe()
	if self.answers_probes == true then
		self:tell_all();
	elseif self.answers_probes then
		self.server:after(self.answers_probes, function () self:tell_all(); end);
	end
end

-- (stanza, condition) -> the error that answers it
local function error_reply(stanza, condition)
	return st.error_reply(stanza, WAIT[condition] and "wait" or "cancel", condition);
end

local function on_ping(self, resource, stanza)
	if resource.answers_pings == true then
		self:answer(resource, st.reply(stanza));
	elseif resource.answers_pings then
		self:answer(resource, error_reply(stanza, resource.answers_pings));
	end
end

local function on_iq_to_the_gone(self, stanza)
	if self.says_of_the_gone then
		self.server:send(error_reply(stanza, self.says_of_the_gone));
	end
end

local function on_iq(self, stanza)
	local resource = self.resources[stanza.attr.to:match("/(.*)") or ""];
	if stanza.attr.type ~= "get" and stanza.attr.type ~= "set" then
		return;
	elseif not resource then
		on_iq_to_the_gone(self, stanza);
	elseif stanza:get_child("ping", PING_NS) then
		on_ping(self, resource, stanza);
	else
		self.on_request(resource, stanza);
	end
end

-- to be called with what comes for it
function played_account:on_stanza(stanza)
	if stanza.name == "iq" then
		on_iq(self, stanza);
	elseif stanza.attr.type == "probe" then
		self:on_probe();
	elseif stanza.attr.type == "subscribe" and self.is_approving then
		self.server:send(st.presence({ from = self.jid, to = stanza.attr.from, type = "subscribed" }));
	end
end

return played_account;
