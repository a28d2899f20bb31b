-- Records which events the IQ stanzas of a spec go through, on each host that it is loaded on and on none: those whose id
-- begins with "rec-". What is recorded is told, and forgotten, when a client asks for it:
--
--     <iq type='get' to='HOST'><take xmlns='urn:example:record'/></iq>
--     <iq type='result'><record>TEXT</record><ways delivery='1' router='0'/><tag is_cheap='true'>TEXT</tag>...</iq>
--
-- record: a line for each event and each handler, in order. ways: how often iq/full was fired for what mod_client_proxy has
-- sent, by itself and by Prosody's router. tag: the text of the first tag, by Prosody's own means, of each IQ, and whether
-- the stanza has means of its own.
--
-- An IQ whose payload has the attribute `unhandled` is dealt with by no handler of iq/full.

local st = require "util.stanza";

local XMLNS = "urn:example:record";
local TO = { "host", "bare", "full", "self" };
local PRIORITIES = { 1000, -1000 };

local recorded = module:shared "/*/record_events/recorded";

local function clear()
	recorded.lines, recorded.ways, recorded.tags = {}, { delivery = 0, router = 0 }, {};
end

if not recorded.lines then
	clear();
end

local function is_wanted(event)
	local stanza = type(event) == "table" and event.stanza;
	return stanza and stanza.name == "iq" and tostring(stanza.attr.id):sub(1, 4) == "rec-";
end

local function names(event)
	local list = {};
	for name in pairs(event) do
		table.insert(list, name);
	end
	table.sort(list);
	return table.concat(list, ",");
end

local function record(what, where, name, event)
	local attr, origin = event.stanza.attr, event.origin or {};
	table.insert(recorded.lines, ("%s %s on %s: %s %s from %s to %s, %d children, to_self %s, origin %s %s, with %s"):format(
		what, name, where, attr.type, attr.id, attr.from, attr.to, #event.stanza.tags, event.to_self,
		origin.type, origin.full_jid or origin.host, names(event)));
end

-- Who has called fire_event for mod_client_proxy, if it is that which sends something
local function find_way()
	local has_router = false;
	for level = 3, math.huge do
		local info = debug.getinfo(level, "S");
		if not info then
			return nil;
		elseif info.source:find("core/stanza_router.lua", 1, true) then
			has_router = true;
		elseif info.source:find("mod_client_proxy/delivery.lua", 1, true) then
			return has_router and "router" or "delivery";
		end
	end
end

local function hook(add, where, name)
	for _, priority in ipairs(PRIORITIES) do
		add(module, name, function (event)
			if is_wanted(event) then
				record(priority, where, name, event);
			end
		end, priority);
	end
end

local function hook_all(add, where)
	for _, to in ipairs(TO) do
		hook(add, where, "iq/"..to);
		hook(add, where, "pre-iq/"..to);
		for _, type in ipairs { "get", "set" } do
			hook(add, where, ("iq-%s/%s/urn:example:service:query"):format(type, to));
		end
		hook(add, where, ("iq/%s/urn:example:service:query"):format(to));
	end
	hook(add, where, "pre-stanza");
	hook(add, where, "route/remote");
	hook(add, where, "stanza/iq");
end

local function wrap(events, where)
	module:wrap_object_event(events, false, function (fire, name, event)
		if not is_wanted(event) then
			return fire(name, event);
		end
		record("fired", where, name, event);
		local result = fire(name, event);
		table.insert(recorded.lines, ("%s %s on %s"):format(result, name, where));
		return result;
	end);
end

hook_all(module.hook, module.host);
hook_all(module.hook_global, "none, as seen from "..module.host);
wrap(prosody.hosts[module.host].events, module.host);
wrap(prosody.events, "none, as seen from "..module.host);

-- As the first of all that come for a host, and before anything is changed in them
local function look_at(event)
	if is_wanted(event) then
		local stanza = event.stanza;
		table.insert(recorded.tags, { is_cheap = rawget(stanza, "top_tag") ~= nil, text = st.stanza_mt.top_tag(stanza) });
	end
end

for _, to in ipairs(TO) do
	module:hook("iq/"..to, look_at, 2000);
end

module:hook("iq/full", function (event)
	local way = is_wanted(event) and find_way();
	if way then
		recorded.ways[way] = recorded.ways[way] + 1;
	end
end, 2000);

module:hook("iq/full", function (event)
	local query = event.stanza:get_child("query", "urn:example:service");
	if query and query.attr.unhandled then
		return false;
	end
end, 500);

module:hook("iq-get/host/"..XMLNS..":take", function (event)
	local answer = st.reply(event.stanza):text_tag("record", table.concat(recorded.lines, "\n"));
	answer:tag("ways", { delivery = tostring(recorded.ways.delivery), router = tostring(recorded.ways.router) }):up();
	for _, tag in ipairs(recorded.tags) do
		answer:text_tag("tag", tag.text, { is_cheap = tostring(tag.is_cheap) });
	end
	clear();
	event.origin.send(answer);
	return true;
end);
