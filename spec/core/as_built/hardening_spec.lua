-- What the compiler and the linker were to put into core.so against whoever finds a fault in it

local CORE = assert(package.searchpath("mod_client_proxy.core", package.cpath));

local function output_of(tool)
	local output = assert(io.popen(("LC_ALL=C %s '%s'"):format(tool, CORE)));
	local text = output:read("a");
	assert(output:close());
	return text;
end

-- (pattern, text) -> its first captures, sorted
local function all(pattern, text)
	local found = {};
	for capture in text:gmatch(pattern) do
		table.insert(found, capture);
	end
	table.sort(found);
	return found;
end

describe("core.so", function ()
	it("can be loaded anywhere: its code needs no changes for that", function ()
		local header = output_of("readelf --wide --file-header");
		assert.truthy(header:find("Type:%s+DYN"));
		assert.falsy(output_of("readelf --wide --dynamic"):find("TEXTREL"));
	end);

	it("is linked when it is loaded, and what points to functions is read-only from then on", function ()
		assert.truthy(output_of("readelf --wide --dynamic"):find("%(FLAGS%)%s+[^\n]*BIND_NOW"));
		assert.truthy(output_of("readelf --wide --segments"):find("\n%s+GNU_RELRO%s"));
	end);

	it("has no memory that can be both written and executed, nor such a stack", function ()
		local segments = output_of("readelf --wide --segments");
		assert.same({ "RW " }, all("\n%s+GNU_STACK%s+0x%x+ 0x%x+ 0x%x+ 0x%x+ 0x%x+ ([R ][W ][E ])", segments));
		local loaded = all("\n%s+LOAD%s+0x%x+ 0x%x+ 0x%x+ 0x%x+ 0x%x+ ([R ][W ][E ])", segments);
		assert.truthy(#loaded > 1);
		for _, flags in ipairs(loaded) do
			assert.not_equal("RWE", flags);
		end
	end);

	it("finds a stack that was written beyond an array", function ()
		assert.truthy(output_of("nm --dynamic --undefined-only"):find(" U __stack_chk_fail[@\n]"));
	end);

	it("finds copies beyond what the compiler knows the size of", function ()
		assert.truthy(output_of("nm --dynamic --undefined-only"):find(" U __mem%a+_chk[@\n]"));
	end);

	it("has one function for others to call", function ()
		local exported = output_of("nm --dynamic --defined-only --format=posix");
		assert.same({ "luaopen_mod_client_proxy_core" }, all("([^\n ]+) %a [^\n]*", exported));
	end);
end);
