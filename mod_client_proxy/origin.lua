-- Which version of the module this is, and which file it has been loaded from: a text for the log and the shell.
--
-- Prosody takes the first mod_client_proxy that it finds in its plugin paths, and says nothing of others. They are told
-- here, for whoever has put one there.

local version = module:require "version";

-- Where Prosody looks in each of its plugin paths (util.pluginloader)
local PLACES = {
	"mod_client_proxy/client_proxy/mod_client_proxy.lua";
	"mod_client_proxy/mod_client_proxy.lua";
	"client_proxy/mod_client_proxy.lua";
	"mod_client_proxy.lua";
	("share/lua/%s/mod_client_proxy.lua"):format(_VERSION:match("%d+%.%d+$"));
	("share/lua/%s/mod_client_proxy/mod_client_proxy.lua"):format(_VERSION:match("%d+%.%d+$"));
};

local function exists(path)
	local file = io.open(path);
	if file then
		file:close();
	end
	return file ~= nil;
end

-- -> list of paths: the other files of that name that are there
local function others()
	local list, seen = {}, { [module.path] = true };
	for folder in prosody.paths.plugins:gmatch("[^"..package.config:sub(3, 3).."]+") do
		for _, place in ipairs(PLACES) do
			local path = (folder.."/"..place):gsub("//+", "/");
			if not seen[path] and exists(path) then
				table.insert(list, path);
			end
			seen[path] = true;
		end
	end
	return list;
end

local remark = table.concat(others(), " and ");
return ("%s, from %s%s"):format(version, module.path, remark ~= "" and ", not from "..remark.." (later in plugin_paths)" or "");
