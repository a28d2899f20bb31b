local core = require "mod_client_proxy.core";
local fake_module = require "spec.support.module";

local TARGET = "focus@auth.meet.example";
local FOCUS, OTHER = TARGET.."/focus", TARGET.."/other";

-- A stand-in for core.pool that remembers by JID which format a backend sees, "own" if that is the module's own
local function new_pool(...)
	local pool = { seen = {} };
	for _, jid in ipairs { ... } do
		pool.seen[jid] = "own";
	end
	function pool:set_format(jid, format)
		assert(self.seen[jid], jid.." is no backend");
		self.seen[jid] = format or "own";
		return true;
	end
	return pool;
end

describe("formats", function ()
	local module, pool;

	before_each(function ()
		module = fake_module.new();
		pool = new_pool(FOCUS, OTHER);
	end);

	local function new(address_format, saved)
		return module:require "formats".new { address_format = address_format, pool = pool, saved = saved };
	end

	local DEFAULT = fake_module.new():require "formats".DEFAULT;

	it("have a default, which is one of the core's and none that a Jicofo can read", function ()
		local is_known = false;
		for _, format in ipairs(core.FORMATS) do
			is_known = is_known or format == DEFAULT;
		end
		assert.is_true(is_known);
		assert.not_equal("plain", DEFAULT);
	end);

	describe("where none is asked for", function ()
		it("are plain for a Jicofo, and the module's own for others", function ()
			local formats = new();
			formats:set(FOCUS, true);
			formats:set(OTHER, false);
			assert.same({ [FOCUS] = "plain", [OTHER] = "own" }, pool.seen);
		end);

		it("are the module's own for who says nothing of what it is", function ()
			new():set(FOCUS, nil);
			assert.equal("own", pool.seen[FOCUS]);
		end);

		it("change when a backend says that it is something else, and not when it does not say what", function ()
			local formats = new();
			formats:set(FOCUS, true);
			formats:set(FOCUS, nil);
			assert.equal("plain", pool.seen[FOCUS]);
			formats:set(FOCUS, false);
			assert.equal("own", pool.seen[FOCUS]);
			formats:set(FOCUS, nil);
			assert.equal("own", pool.seen[FOCUS]);
			formats:set(FOCUS, true);
			assert.equal("plain", pool.seen[FOCUS]);
		end);

		it("are forgotten with the backend, whose address another client may get", function ()
			local formats = new();
			formats:set(FOCUS, true);
			pool.seen[FOCUS] = nil;
			formats:forget(FOCUS);
			assert.equal(DEFAULT, formats:describe());
			pool.seen[FOCUS] = "own";
			formats:set(FOCUS, nil);
			assert.equal("own", pool.seen[FOCUS]);
		end);

		it("are told to an operator", function ()
			local formats = new();
			assert.equal(DEFAULT, formats:describe());
			assert.same({ "info", "" }, { formats:remark() });
			formats:set(FOCUS, true);
			assert.equal(DEFAULT..[[; plain for "focus", which is a Jicofo]], formats:describe());
			assert.same({ "info", [[; "focus", which is a Jicofo, sees plain addresses]] }, { formats:remark() });
		end);

		it("are told to an operator with the names of no more than three", function ()
			local formats = new();
			for number, expected in ipairs {
				[["r1", which is a Jicofo]], [["r1" and "r2", which are Jicofos]], [["r1", "r2" and "r3", which are Jicofos]],
				[["r1", "r2", "r3" and 1 more, which are Jicofos]], [["r1", "r2", "r3" and 2 more, which are Jicofos]],
			} do
				local jid = TARGET.."/r"..number;
				pool.seen[jid] = "own";
				formats:set(jid, true);
				assert.equal(DEFAULT.."; plain for "..expected, formats:describe());
			end
		end);
	end);

	for _, format in ipairs(core.FORMATS) do
		describe(("where %s is asked for"):format(format), function ()
			it("are that, whoever it is", function ()
				local formats = new(format);
				formats:set(FOCUS, true);
				formats:set(OTHER, false);
				assert.same({ [FOCUS] = "own", [OTHER] = "own" }, pool.seen);
			end);

			it("are told to an operator, with a warning if a Jicofo cannot read them", function ()
				local formats = new(format);
				assert.equal(format, formats:describe());
				assert.same({ "info", "" }, { formats:remark() });
				formats:set(FOCUS, true);
				local level, remark = formats:remark();
				if format == "plain" then
					assert.same({ "plain", "info", "" }, { formats:describe(), level, remark });
					return;
				end
				assert.equal(format..[[, which cannot be read by "focus", which is a Jicofo]], formats:describe());
				assert.equal("warn", level);
				for _, words in ipairs {
					("client_proxy_address_format = %q"):format(format), [["focus", which is a Jicofo]], "of a wrong sender", [[Write "plain"]],
				} do
					assert.truthy(remark:find(words, 1, true), remark);
				end
				formats:forget(FOCUS);
				assert.same({ format, "info", "" }, { formats:describe(), formats:remark() });
			end);
		end);
	end

	describe("over a reload", function ()
		it("stay what they were, without a presence", function ()
			local before = new();
			before:set(FOCUS, true);
			before:set(OTHER, false);
			local after = new(nil, before:save());
			assert.same({ [FOCUS] = "plain", [OTHER] = "own" }, pool.seen);
			assert.equal(before:describe(), after:describe());
			after:set(FOCUS, nil);
			assert.equal("plain", pool.seen[FOCUS]);
		end);

		it("are what is asked for from then on, and back", function ()
			local before = new();
			before:set(FOCUS, true);
			local asked_for = new("signed", before:save());
			assert.equal("own", pool.seen[FOCUS]);
			assert.equal("warn", (asked_for:remark()));
			new(nil, asked_for:save());
			assert.equal("plain", pool.seen[FOCUS]);
		end);
	end);
end);
