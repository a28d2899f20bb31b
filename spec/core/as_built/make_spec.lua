-- When make builds core.so anew, and what it says when it cannot

local copy_checkout = require "spec.support.checkout".copy;

local COMPILERS = { "gcc", "clang" };

describe("make", function ()
	local dir;

	before_each(function ()
		dir = os.tmpname();
		os.remove(dir);
		copy_checkout(dir);
	end);

	after_each(function ()
		assert(os.execute("rm -r "..dir));
	end);

	-- (arguments) -> output, exit code
	local function make(arguments)
		local pipe = assert(io.popen(("LC_ALL=C make --directory=%s mod_client_proxy/core.so %s 2>&1"):format(dir, arguments)));
		local output = pipe:read("a");
		local ok, _, code = pipe:close();
		return output, ok and 0 or code;
	end

	local function is_up_to_date(arguments)
		local output, code = make("--question "..arguments);
		assert.is_true(code <= 1, output);
		return code == 0;
	end

	local function write_header(name, content)
		assert(os.execute(("mkdir -p %s/headers"):format(dir)));
		local file = assert(io.open(dir.."/headers/"..name, "w"));
		assert(file:write(content or ""));
		assert(file:close());
	end

	it("has nothing to do when core.so was built so", function ()
		assert.is_true(is_up_to_date "");
	end);

	for _, change in ipairs { "LUA_VERSION=5.1", "LUA_CFLAGS=-I/usr/include", "CFLAGS=-O1", "CC=cc", "SODIUM_LIBS=-lother" } do
		it("builds core.so anew with "..change..", and once more without", function ()
			assert.is_false(is_up_to_date(change));
			assert.is_false(is_up_to_date "");
		end);
	end

	it("builds core.so anew for another version", function ()
		assert(os.execute(("sed -i 's/^return .*/return \"9.9\";/' %s/mod_client_proxy/version.lua"):format(dir)));
		assert.is_false(is_up_to_date "");
	end);

	it("does not build what has no version", function ()
		assert(os.execute(("sed -i '/^return/d' %s/mod_client_proxy/version.lua"):format(dir)));
		local output, code = make "";
		assert.equal(2, code);
		assert.truthy(output:find("version.lua", 1, true), output);
	end);

	for _, compiler in ipairs(COMPILERS) do
		-- make ends by saying this once, with no other header there than those that were written
		local function refuses(...)
			local output, code = make(("--silent CC=%s LUA_CFLAGS='-nostdinc -Iheaders'"):format(compiler));
			assert.equal(2, code);
			local _, errors = output:gsub("error: ", "");
			assert.equal(1, errors, output);
			for _, part in ipairs { ... } do
				assert.truthy(output:find(part, 1, true), output);
			end
		end

		it("names the package of libsodium when its headers are missing, with "..compiler, function ()
			write_header("lua.h", "#define LUA_VERSION_NUM 504\n");
			refuses("libsodium", "libsodium-dev");
		end);

		it("names the package of Lua when its headers are missing, with "..compiler, function ()
			write_header("sodium.h");
			refuses("Lua 5.4", "liblua5.4-dev");
		end);

		it("names the Lua it needs when the headers are another's, with "..compiler, function ()
			write_header("sodium.h");
			write_header("lua.h", "#define LUA_VERSION_NUM 503\n");
			refuses("not the headers of Lua 5.4", "liblua5.4-dev");
		end);
	end
end);
