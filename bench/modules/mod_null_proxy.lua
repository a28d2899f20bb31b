-- For bench/: the floor for any component that translates addresses. It rewrites the two
-- addresses of an IQ from a Lua table, and keeps nothing in mind besides. The handlers have
-- the priorities of mod_client_proxy's. With null_proxy_top_tag, the path of its top_tag.lua, the
-- debug lines of what is sent are made as cheaply as there.

local backend = module:get_option_string("null_proxy_backend");
local token = module:get_option_string("null_proxy_token");
local top_tag = module:get_option_string("null_proxy_top_tag");
local cheapen = top_tag and dofile(top_tag).cheapen;

local translated_by_requester, requester_by_translated = {}, {};
local count = 0;

local function send(stanza)
	if cheapen then
		cheapen(stanza);
	end
	module:send(stanza);
end

local function translate(requester)
	count = count + 1;
	local translated = ("%s/%s%d"):format(module.host, token, count);
	translated_by_requester[requester] = translated;
	requester_by_translated[translated] = requester;
	return translated;
end

module:hook("iq/host", function (event)
	local attr = event.stanza.attr;
	local requester = requester_by_translated[attr.to];
	if requester then
		attr.from, attr.to = module.host, requester;
		send(event.stanza);
		return true;
	end
end, 10);

module:hook("iq/host", function (event)
	local attr = event.stanza.attr;
	attr.from, attr.to = translated_by_requester[attr.from] or translate(attr.from), backend;
	send(event.stanza);
	return true;
end, -10);
