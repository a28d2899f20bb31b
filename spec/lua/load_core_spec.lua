local fake_module = require "spec.support.module";

local NAME = "mod_client_proxy.core";
local ENTRY_POINT = "luaopen_mod_client_proxy_core";
local LUA = _VERSION:match("%d+%.%d+");
local VERSION = dofile("mod_client_proxy/version.lua");

local core_so = assert(package.searchpath(NAME, package.cpath));
-- A library that loads, but is not ours: it has no entry point of that name.
local other_so = assert(package.searchpath("util.encodings", package.cpath));

local function read_file(path)
	local file = assert(io.open(path, "rb"));
	local content = file:read("a");
	file:close();
	return content;
end

describe("load_core", function ()
	local tree, saved_core, saved_cpath, loadlib;

	before_each(function ()
		local pipe = assert(io.popen("mktemp -d"));
		tree = pipe:read();
		pipe:close();
		saved_core, saved_cpath = package.loaded[NAME], package.cpath;
		package.loaded[NAME], package.cpath = nil, tree.."/on_cpath/?.so";
		loadlib = spy.on(package, "loadlib");
	end);

	after_each(function ()
		loadlib:revert();
		package.loaded[NAME], package.cpath = saved_core, saved_cpath;
		os.execute("rm -rf '"..tree.."'");
	end);

	local function write_file(path, content)
		assert(os.execute(("mkdir -p '%s'"):format(path:match("^(.*)/"))));
		local file = assert(io.open(path, "wb"));
		assert(file:write(content));
		assert(file:close());
	end

	-- (path) -> core | nil, message; path: where Prosody found mod_client_proxy.lua
	local function load_core(path)
		local module = fake_module.new();
		module.path = path;
		return module:require "load_core";
	end

	local function assert_loads(path, expected)
		local core = assert(load_core(path));
		assert.spy(loadlib).was.called(1);
		assert.spy(loadlib).was.called_with(expected, ENTRY_POINT);
		assert.is_function(core.jat);
		assert.equal(32, core.JAT_KEYBYTES);
		assert.equal(core, package.loaded[NAME]);
		return core;
	end

	local function assert_fails(path, ...)
		local core, message = load_core(path);
		assert.is_nil(core);
		assert.is_string(message);
		for _, part in ipairs { "`make`", "LUA_VERSION="..LUA, ... } do
			assert.truthy(message:find(part, 1, true), ("%q is not in %q"):format(part, message));
		end
		assert.is_nil(package.loaded[NAME]);
	end

	it("finds core.so beside the Lua files", function ()
		write_file(tree.."/plugins/mod_client_proxy/core.so", read_file(core_so));
		assert_loads(tree.."/plugins/mod_client_proxy/mod_client_proxy.lua", tree.."/plugins/mod_client_proxy/core.so");
	end);

	it("finds core.so in the tree of a rock", function ()
		local path = tree.."/a.b-c/lib/lua/"..LUA.."/mod_client_proxy/core.so";
		write_file(path, read_file(core_so));
		assert_loads(tree.."/a.b-c/share/lua/"..LUA.."/mod_client_proxy.lua", path);
	end);

	it("finds core.so in the tree of a rock whose Lua files are in a folder", function ()
		local path = tree.."/lib/lua/"..LUA.."/mod_client_proxy/core.so";
		write_file(path, read_file(core_so));
		assert_loads(tree.."/share/lua/"..LUA.."/mod_client_proxy/mod_client_proxy.lua", path);
	end);

	it("finds core.so on package.cpath", function ()
		write_file(tree.."/on_cpath/mod_client_proxy/core.so", read_file(core_so));
		assert_loads(tree.."/plugins/mod_client_proxy.lua", tree.."/on_cpath/mod_client_proxy/core.so");
	end);

	it("takes the one beside the Lua files first, then the rock's, then package.cpath's", function ()
		local places = {
			tree.."/share/lua/"..LUA.."/core.so",
			tree.."/lib/lua/"..LUA.."/mod_client_proxy/core.so",
			tree.."/on_cpath/mod_client_proxy/core.so",
		};
		for _, path in ipairs(places) do
			write_file(path, read_file(core_so));
		end
		for _, path in ipairs(places) do
			assert_loads(tree.."/share/lua/"..LUA.."/mod_client_proxy.lua", path);
			loadlib:clear();
			package.loaded[NAME] = nil;
			os.remove(path);
		end
	end);

	it("returns the one that is loaded already, without looking for it", function ()
		write_file(tree.."/plugins/core.so", read_file(core_so));
		local core = assert_loads(tree.."/plugins/mod_client_proxy.lua", tree.."/plugins/core.so");
		os.remove(tree.."/plugins/core.so");
		assert.equal(core, (load_core(tree.."/plugins/mod_client_proxy.lua")));
		assert.equal(core, (load_core(tree.."/elsewhere/mod_client_proxy.lua")));
		assert.spy(loadlib).was.called(1);
	end);

	it("says where it looked when core.so is missing", function ()
		assert_fails(tree.."/plugins/mod_client_proxy.lua",
			"core.so is missing", tree.."/plugins/core.so", tree.."/on_cpath/?.so");
		assert_fails(tree.."/share/lua/"..LUA.."/mod_client_proxy.lua",
			"core.so is missing", tree.."/share/lua/"..LUA.."/core.so", tree.."/lib/lua/"..LUA.."/?.so", tree.."/on_cpath/?.so");
		assert_fails("mod_client_proxy.lua", "core.so is missing", "./core.so");
		assert.spy(loadlib).was_not.called();
	end);

	it("sees no rock's tree where the Lua files are for another Lua version", function ()
		for _, version in ipairs { "5.1", LUA } do
			write_file(tree.."/lib/lua/"..version.."/mod_client_proxy/core.so", read_file(core_so));
		end
		assert_fails(tree.."/share/lua/5.1/mod_client_proxy.lua", "core.so is missing");
	end);

	it("refuses a file that is no library, naming it", function ()
		for n, content in ipairs { "", "no library", read_file(core_so):sub(1, 40) } do
			local path = ("%s/%d/core.so"):format(tree, n);
			write_file(path, content);
			assert_fails(("%s/%d/mod_client_proxy.lua"):format(tree, n), path.." cannot be loaded");
		end
	end);

	it("refuses a library that is not ours, naming it and what it lacks", function ()
		write_file(tree.."/core.so", read_file(other_so));
		assert_fails(tree.."/mod_client_proxy.lua", tree.."/core.so cannot be loaded", ENTRY_POINT);
	end);

	-- What is found is ours, but for its version.
	local function load_version(version)
		write_file(tree.."/core.so", read_file(core_so));
		loadlib:revert();
		loadlib = stub(package, "loadlib", function ()
			return function () return { VERSION = version }; end;
		end);
		return load_core(tree.."/mod_client_proxy.lua");
	end

	it("refuses a library of another version, naming it and both versions: it is to be built, and Prosody restarted", function ()
		load_version("0.9");
		assert_fails(tree.."/mod_client_proxy.lua",
			tree.."/core.so is of version 0.9", "the Lua files are of version "..VERSION, "restart Prosody");
		load_version(nil); -- there was no version to ask for in 1.0
		assert_fails(tree.."/mod_client_proxy.lua", tree.."/core.so is of version 1.0", "restart Prosody");
		assert.is_table((load_version(VERSION)));
	end);

	it("refuses another version that is loaded already: Prosody is to be restarted, as it will not load another", function ()
		write_file(tree.."/core.so", read_file(core_so));
		for shown, loaded in pairs { ["0.9"] = { VERSION = "0.9" }, ["1.0"] = {} } do
			package.loaded[NAME] = loaded;
			local core, message = load_core(tree.."/mod_client_proxy.lua");
			assert.is_nil(core);
			for _, part in ipairs { "restart Prosody", "of version "..shown, "the Lua files are of version "..VERSION } do
				assert.truthy(message:find(part, 1, true), message);
			end
			assert.equal(loaded, package.loaded[NAME]);
		end
		assert.spy(loadlib).was_not.called();
	end);

	it("refuses a library that refuses this Lua, naming it and its reason", function ()
		write_file(tree.."/core.so", read_file(core_so));
		loadlib:revert();
		loadlib = stub(package, "loadlib", function ()
			return function () error("version mismatch", 0); end;
		end);
		assert_fails(tree.."/mod_client_proxy.lua", tree.."/core.so cannot be used", "version mismatch");
	end);
end);
