-- Finds and loads core.so: beside the Lua files when the folder was dropped into
-- a plugin path, in lib/lua/5.4 when the Lua files are in a rock's share/lua/5.4.
-- Neither place has to be on package.cpath, and Prosody does not put it there.
-- Returns core, or nil and what the operator has to do: nobody else has to ask whether
-- core is of the Lua files' version.

local version = module:require "version";

local name = "mod_client_proxy.core";

local loaded = package.loaded[name];
if loaded then
	if loaded.VERSION == version then
		return loaded;
	end
	return nil, ("restart Prosody: until then it keeps the core.so that it has loaded, of version %s, and the Lua files are of version %s")
		:format(loaded.VERSION or "1.0", version);
end

local directory = module.path:match("^(.*)/[^/]*$") or ".";
local lua_version = _VERSION:match("%d+%.%d+$");
local tree = directory:match("^(.*)/share/lua/"..lua_version:gsub("%.", "%%.").."/?.-$");

local templates = { directory.."/core.so" };
if tree then
	table.insert(templates, tree.."/lib/lua/"..lua_version.."/?.so");
end
table.insert(templates, package.cpath);

local advice = ("Build it for Lua %s with `make` in the folder of mod_client_proxy's Makefile (LUA_VERSION=%s), "
	.."or install the module with `prosodyctl install`."):format(lua_version, lua_version);

local path = package.searchpath(name, table.concat(templates, ";"));
if not path then
	return nil, ("core.so is missing, looked for in %s. %s"):format(table.concat(templates, ";"), advice);
end

local open, load_error = package.loadlib(path, "luaopen_mod_client_proxy_core");
if not open then
	return nil, ("%s cannot be loaded, it may be for another version of Lua: %s. %s"):format(path, load_error, advice);
end

local ok, core = pcall(open, name, path);
if not ok then
	return nil, ("%s cannot be used: %s. %s"):format(path, core, advice);
end

if core.VERSION ~= version then
	return nil, ("%s is of version %s, and the Lua files are of version %s. %s Then restart Prosody, which keeps what it has loaded.")
		:format(path, core.VERSION or "1.0", version, advice);
end

package.loaded[name] = core;
return core;
