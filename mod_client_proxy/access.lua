-- Who may use the service: decided here, for IQ, message and presence alike, and carried out by whoever gets the stanza.

local addresses = module:require "addresses";
local globs = module:require "globs";

local host_of, split_resource = addresses.host, addresses.split_resource;

local access = {};

local function anyone()
	return true;
end

-- (list) -> function (jid) -> whether whoever sends from this JID may use the service
-- list: client_proxy_allow as options.lua has prepared it, or nil: anyone may. What has an "@" in it is a bare JID, what
-- has none a host, which stands for the host itself and all accounts there. Either may have wildcards.
function access.new(list)
	if not list then
		return anyone;
	end
	local exact, bare_globs, host_globs = {}, {}, {};
	for _, entry in ipairs(list) do
		if entry:find("[*?]") then
			table.insert(entry:find("@", 1, true) and bare_globs or host_globs, entry);
		else
			exact[entry] = true;
		end
	end
	local is_bare_like, is_host_like = globs.matcher(bare_globs), globs.matcher(host_globs);
	return function (jid)
		local bare = split_resource(jid);
		local host = host_of(bare);
		return exact[bare] or exact[host] or is_host_like(host) or is_bare_like(bare);
	end;
end

return access;
