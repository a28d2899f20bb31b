local fake_module = require "spec.support.module";

local VERSION = dofile("mod_client_proxy/version.lua");
local LUA = _VERSION:match("%d+%.%d+$");

describe("the module's origin", function ()
	local dir, module;

	before_each(function ()
		local pipe = assert(io.popen("mktemp -d"));
		dir = pipe:read();
		pipe:close();
		module = fake_module.new();
	end);

	after_each(function ()
		os.execute("rm -rf '"..dir.."'");
	end);

	-- (place) -> its path: an empty file there, below dir
	local function put(place)
		local path = dir.."/"..place;
		assert(os.execute(("mkdir -p '%s' && touch '%s'"):format(path:match("^(.*)/"), path)));
		return path;
	end

	-- (path, plugin paths...) -> what is said when the module has been loaded from that path
	local function origin(path, ...)
		module.path, module.prosody.paths.plugins = path, table.concat({ ... }, ";");
		return module:require "origin";
	end

	it("is its version and its file", function ()
		local path = put "a/mod_client_proxy/mod_client_proxy.lua";
		put "a/mod_client_proxy/version.lua";
		assert.equal(VERSION..", from "..path, origin(path, dir.."/a", dir.."/b"));
	end);

	for _, place in ipairs {
		"mod_client_proxy.lua", "mod_client_proxy/mod_client_proxy.lua", "client_proxy/mod_client_proxy.lua",
		"mod_client_proxy/client_proxy/mod_client_proxy.lua", "share/lua/"..LUA.."/mod_client_proxy.lua",
		"share/lua/"..LUA.."/mod_client_proxy/mod_client_proxy.lua",
	} do
		it("names another that is not loaded, "..place, function ()
			local path = put "a/mod_client_proxy.lua";
			local other = put("b/"..place);
			assert.equal(VERSION..", from "..path..", not from "..other.." (later in plugin_paths)", origin(path, dir.."/a", dir.."/b"));
		end);
	end

	it("names several, each once, however the plugin paths are written", function ()
		local path, second, third = put "a/mod_client_proxy.lua", put "b/mod_client_proxy.lua", put "c/mod_client_proxy.lua";
		assert.equal(VERSION..", from "..path..", not from "..second.." and "..third.." (later in plugin_paths)",
			origin(path, dir.."/a/", dir.."//b/", dir.."/b", dir.."/a", dir.."/c"));
	end);
end);
