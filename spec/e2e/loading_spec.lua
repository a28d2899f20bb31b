-- The ways to install the module, and what is said when core.so is not as it should be

local copy_checkout = require "spec.support.checkout".copy;
local prosody = require "spec.support.prosody";
local service = require "spec.support.service";
local write_file = require "spec.support.throwaway".write_file;

local VERSION = dofile("mod_client_proxy/version.lua");
local OTHER_VERSION = "9.9";
-- luarocks makes no rock of a file that says another version than its name
local ROCKSPEC = ("rockspec/mod_client_proxy-%s-1.rockspec"):format(VERSION);

describe("the module", function ()
	local dir, server;

	-- By itself luarocks asks public servers as well as that of --server, and keeps what they answer, in
	-- /var/cache if root runs it. Here it knows a folder only, and there would be no way out.
	local ENVIRONMENT = "export HOME=%s LUAROCKS_CONFIG_5_4=%s/luarocks.lua "
		.."http_proxy=http://127.0.0.1:1 https_proxy=http://127.0.0.1:1; ";

	-- Runs a command with dir as its home
	local function run(command, ...)
		local pipe = io.popen(ENVIRONMENT:format(dir, dir).."exec 2>&1; "..command:format(...));
		local output = pipe:read("a");
		assert(pipe:close(), output);
		return output;
	end

	before_each(function ()
		dir = os.tmpname();
		os.remove(dir);
		assert(os.execute("mkdir "..dir));
		write_file(dir.."/luarocks.lua", ("rocks_servers = { %q }"):format(dir.."/rocks"));
	end);

	after_each(function ()
		server:remove();
		assert(os.execute("rm -r "..dir));
	end);

	local function serves()
		local backend = service.backend(server, "a");
		local requester = service.requester(server);
		requester:send(service.request("served"));
		requester:sync();
		assert.equal(1, service.answer_all(backend));
		assert.equal("result", requester:receive().attr.type);
	end

	-- The file that the process has mapped is the one meant, not another that is lying about
	local function runs_core_in(folder)
		for line in io.lines(("/proc/%d/maps"):format(server.pid)) do
			local path = line:match("(/%S*/mod_client_proxy/core%.so)$");
			if path then
				assert.equal(folder.."/mod_client_proxy/core.so", path);
				return;
			end
		end
		error("no core.so is in use");
	end

	-- The log and the status say which version it is and, in these words, from where.
	local function says_it_is_from(text)
		local words = ("%s, from %s\n"):format(VERSION, text);
		for _, output in ipairs { server:log(), server:client_proxy("status", service.proxy) } do
			assert.truthy(output:find(words, 1, true), output);
		end
	end

	-- In a copy, as it builds core.so with other flags
	local function make_rock()
		copy_checkout(dir.."/checkout");
		local output = run("cd %s/checkout && luarocks --lua-version=5.4 make --tree %s/tree %s", dir, dir, ROCKSPEC);
		assert.falsy(output:find("Warning", 1, true), output);
	end

	-- A folder with the rock in it, as `prosodyctl install --server=` takes it
	local function make_rock_server()
		make_rock();
		run("mkdir %s/rocks && cd %s/rocks && luarocks --lua-version=5.4 --tree %s/tree pack mod_client_proxy && "
			.."luarocks-admin --lua-version=5.4 make-manifest .", dir, dir, dir);
		return dir.."/rocks";
	end

	it("works dropped into a plugin path", function ()
		run("cp -r mod_client_proxy %s/", dir);
		server = prosody.new { plugin_path = dir }:start();
		serves();
		runs_core_in(dir);
		says_it_is_from(dir.."/mod_client_proxy/mod_client_proxy.lua");
	end);

	it("names one that is not loaded, as another comes first", function ()
		server = prosody.new { plugin_path = dir };
		run("cp -r mod_client_proxy %s/ && mkdir %s/custom_plugins && cp -r mod_client_proxy %s/custom_plugins/", dir, server.dir, server.dir);
		server:start();
		serves();
		runs_core_in(server.dir.."/custom_plugins");
		says_it_is_from(("%s/custom_plugins/mod_client_proxy/mod_client_proxy.lua, "
			.."not from %s/mod_client_proxy/mod_client_proxy.lua (later in plugin_paths)"):format(server.dir, dir));
	end);

	it("works after make install", function ()
		copy_checkout(dir.."/checkout");
		run("make --silent --directory=%s/checkout install DESTDIR=%s MODULES=/modules", dir, dir);
		server = prosody.new { plugin_path = dir.."/modules" }:start();
		serves();
		runs_core_in(dir.."/modules");
	end);

	it("works after luarocks make, in the tree", function ()
		make_rock();
		server = prosody.new { plugin_path = dir.."/tree" }:start();
		serves();
		runs_core_in(dir.."/tree/lib/lua/5.4");
		says_it_is_from(dir.."/tree/share/lua/5.4/mod_client_proxy.lua");
	end);

	it("works after luarocks install, in another tree", function ()
		local rocks = make_rock_server();
		run("luarocks --lua-version=5.4 install --tree %s/installed --only-server=%s mod_client_proxy", dir, rocks);
		server = prosody.new { plugin_path = dir.."/installed" }:start();
		serves();
		runs_core_in(dir.."/installed/lib/lua/5.4");
	end);

	it("works after prosodyctl install", function ()
		local rocks = make_rock_server();
		server = prosody.new { plugin_path = dir };
		local output = run("%s", server:ctl_command("install", "--server="..rocks, "mod_client_proxy"));
		assert.falsy(output:find("Failed searching manifest", 1, true), output);
		server:start();
		serves();
		runs_core_in(server.dir.."/custom_plugins/lib/lua/5.4");
		says_it_is_from(server.dir.."/custom_plugins/share/lua/5.4/mod_client_proxy.lua");
	end);

	it("names libsodium's package when a rock cannot be made without", function ()
		copy_checkout(dir.."/checkout");
		server = prosody.new { plugin_path = dir };
		local made, output = pcall(run, "cd %s/checkout && luarocks --lua-version=5.4 make --tree %s/tree %s "
			.."SODIUM_INCDIR='%s -nostdinc'", dir, dir, ROCKSPEC, dir);
		assert.is_false(made);
		output = tostring(output);
		assert.truthy(output:find("libsodium-dev", 1, true), output);
	end);

	-- The module is not loaded, and says this, each time that it is tried
	local function says_why_it_does_not_serve(...)
		local requester = service.requester(server);
		assert.equal("service-unavailable", service.error_of(requester:request(service.request("refused"))));
		local log = server:log();
		local message = log:match(".*(\n[^\n]*Error initializing module 'client_proxy'[^\n]*)");
		for _, part in ipairs { ... } do
			assert.truthy(message:find(part, 1, true), message);
		end
		assert.falsy(log:find("traceback", 1, true));
	end

	local function refuses(...)
		server = prosody.new { plugin_path = dir }:start();
		says_why_it_does_not_serve(...);
	end

	-- Prosody goes on with the core.so that it has loaded.
	it("refuses to be reloaded as another version, answers what is pending, and serves after a restart", function ()
		run("cp -r mod_client_proxy %s/", dir);
		server = prosody.new { plugin_path = dir }:start();
		local backend = service.backend(server, "a");
		local requester = service.requester(server);
		requester:send(service.request("pending"));
		requester:sync();
		backend:sync();

		copy_checkout(dir.."/upgrade");
		run("sed -i 's/^return .*/return %q;/' %s/upgrade/mod_client_proxy/version.lua", OTHER_VERSION, dir);
		run("make --silent --directory=%s/upgrade install DESTDIR= MODULES=%s", dir, dir);
		says_it_is_from(dir.."/mod_client_proxy/mod_client_proxy.lua"); -- as long as that is what runs
		server:ctl("shell", "module", "reload", "client_proxy", "proxy.domain.example");
		local answer = requester:receive();
		assert.equal("pending", answer.attr.id);
		assert.same({ "service-unavailable", "wait" }, { service.error_of(answer) });
		says_why_it_does_not_serve("restart Prosody", "of version "..VERSION, "the Lua files are of version "..OTHER_VERSION);
		server:ctl("shell", "module", "load", "client_proxy", "proxy.domain.example");
		says_why_it_does_not_serve("restart Prosody");

		server:stop();
		server:start();
		serves();
		runs_core_in(dir);
	end);

	it("says how to build core.so when it is of another version, and that a restart is needed then", function ()
		run("cp -r mod_client_proxy %s/", dir);
		run("sed -i 's/^return .*/return %q;/' %s/mod_client_proxy/version.lua", OTHER_VERSION, dir);
		refuses(dir.."/mod_client_proxy/core.so is of version "..VERSION, "the Lua files are of version "..OTHER_VERSION,
			"make", "restart Prosody");
	end);

	it("says how to build core.so when it is missing", function ()
		run("cp -r mod_client_proxy %s/ && rm %s/mod_client_proxy/core.so", dir, dir);
		refuses("core.so is missing", "make");
	end);

	it("says how to build core.so when it is for another Lua", function ()
		-- what Lua 5.1 calls lua_newuserdata is not in 5.4, nor would 5.4's names be in 5.1
		run("cp -r mod_client_proxy %s/ && printf 'void lua_newuserdata(void); void luaopen_mod_client_proxy_core(void) "
			.."{ lua_newuserdata(); }' | gcc -x c -shared -fPIC -o %s/mod_client_proxy/core.so -", dir, dir);
		refuses(dir.."/mod_client_proxy/core.so cannot be loaded", "another version of Lua", "make");
	end);

	it("says how to build core.so when it is damaged", function ()
		run("cp -r mod_client_proxy %s/ && printf damaged >%s/mod_client_proxy/core.so", dir, dir);
		refuses(dir.."/mod_client_proxy/core.so cannot be loaded", "make");
	end);
end);
