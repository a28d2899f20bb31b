-- For bench/: what the module of 2018 does for an IQ, in pure Lua, with our own words. The
-- requester's JID is the resource of the translated address, so nothing is kept in mind: no
-- pending requests, no deadlines, no limits.

local array = require "util.array";
local jid_bare = require "util.jid".bare;
local jid_prep = require "util.jid".prep;
local jid_split = require "util.jid".split;
local st = require "util.stanza";

local target = module:get_option_string("target_address");
local resources = array();

local function from_target(stanza, resource)
	local attr = stanza.attr;
	if attr.type ~= "result" and attr.type ~= "error" then
		return module:send(st.error_reply(stanza, "cancel", "feature-not-implemented"));
	end
	local requester = jid_prep(resource);
	if requester then
		module:log("debug", "Answer from %s for %s", attr.from, requester);
		attr.from, attr.to = module.host, requester;
		module:send(stanza);
	end
end

local function to_target(stanza)
	local attr = stanza.attr;
	if attr.type ~= "get" and attr.type ~= "set" then
		return;
	elseif #resources == 0 then
		return module:send(st.error_reply(stanza, "cancel", "service-unavailable"));
	end
	local backend = target.."/"..resources:random();
	local translated = module.host.."/"..attr.from;
	module:log("debug", "Request from %s (%s) for %s", attr.from, translated, backend);
	attr.from, attr.to = translated, backend;
	module:send(stanza);
end

local function on_iq(event)
	local origin, stanza = event.origin, event.stanza;
	module:log("debug", "IQ from a %s session, type %s", origin.type, stanza.attr.type);
	local sender = jid_bare(stanza.attr.from);
	local _, _, resource = jid_split(stanza.attr.to);
	if sender == target and resource then
		from_target(stanza, resource);
	else
		to_target(stanza);
	end
	return true;
end

local function on_presence(event)
	local attr = event.stanza.attr;
	local _, _, resource = jid_split(attr.from);
	if jid_bare(attr.from) == target and resource and not attr.type then
		resources:push(resource);
	end
	return true;
end

for _, address in ipairs { "bare", "full", "host" } do
	module:hook("iq/"..address, on_iq, -1);
	module:hook("presence/"..address, on_presence, -1);
end
