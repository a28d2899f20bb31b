-- What prosodyctl says about the configurations in the documentation

local code_blocks = require "spec.support.code_blocks";
local new_prosody = require "spec.support.prosody".new;

-- A server without faults, which the component belongs to by its domain
local server_config = [[
run_as_root = true
data_path = DIR.."/data"
certificates = DIR
modules_enabled = { "roster", "saslauth", "tls", "disco" }
VirtualHost "domain.example"
]];

-- Those of them that configure the component
local function examples()
	local found = {};
	for _, block in ipairs(code_blocks.all("lua")) do
		if block.text:find('Component "[^"]+" "client_proxy"\n') then
			table.insert(found, "\n"..block.text);
		end
	end
	assert(#found > 0, "the documentation has no example");
	return found;
end

describe("prosodyctl check config", function ()
	local server;

	before_each(function ()
		server = new_prosody();
	end);

	after_each(function ()
		server:remove();
	end);

	-- (rest of the configuration) -> what it says, exit code
	local function check(rest)
		local file = assert(io.open(server.dir.."/prosody.cfg.lua", "w"));
		assert(file:write(("local DIR = %q\n"):format(server.dir), server_config, rest));
		assert(file:close());
		return server:ctl("check", "config");
	end

	-- Prosody 13 always says which of its own features such a small server lacks.
	it("says nothing more with the component than without", function ()
		local without, code = check "";
		assert.equal(0, code, without);
		for _, example in ipairs(examples()) do
			assert.same({ without, 0 }, { check(example) });
		end
	end);

	it("says nothing more where only some may use the service", function ()
		local without = check "";
		for _, example in ipairs(examples()) do
			local restricted = example..[[client_proxy_allow = { "some-domain.example", "*.other.example", "user@third.example" }]].."\n";
			assert.same({ without, 0 }, { check(restricted) });
		end
	end);

	it("says what is wrong with an option that belongs elsewhere", function ()
		for _, example in ipairs(examples()) do
			local output, code = check(example.."client_proxy_port = 5222\n");
			assert.not_equal(0, code);
			assert.truthy(output:find("need to move the following option: client_proxy_port", 1, true), output);
		end
	end);
end);
