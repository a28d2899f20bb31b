local base64 = require "util.encodings".base64;
local core = require "mod_client_proxy.core";
local fake_module = require "spec.support.module";

local HOUR = 60 * 60;
local DAY = 24 * HOUR;
local LIFETIME = 30 * DAY;
local REQUESTER = "user@some-domain.example/abc";

local copy = fake_module.copy;

describe("keys", function ()
	local module, clock, jat;
	local driver; -- of the storage, by name
	local directory; -- where the storage "internal" has its files
	local seen; -- all contents that a store had or was asked to write
	local told; -- every message that came back instead of keys

	before_each(function ()
		module, clock = fake_module.new(), 1700000000;
		seen, told = {}, {};
		driver, directory = "sql", "";
		module.libraries["core.storagemanager"] = {
			get_driver = function (host, store)
				assert.same({ module.host, module.name }, { host, store });
				return {}, driver;
			end;
		};
		module.libraries["util.datamanager"] = {
			getpath = function (user, host, store)
				assert(user == nil, "the keys belong to the host, not to an account");
				return directory.."/"..host.."-"..store..".dat";
			end;
		};
	end);

	local function read_clock()
		return clock;
	end

	-- A keyval store that, like Prosody's, keeps no reference to what it is given.
	-- read_error, write_error: what to fail with; writes: all it was asked to write
	local function fake_store(content)
		local store = { content = content, writes = {} };
		table.insert(seen, copy(content));
		function store:get(user)
			assert(user == nil, "the keys belong to the host, not to an account");
			if self.read_error then
				return nil, self.read_error;
			end
			return copy(self.content);
		end
		function store:set(user, data)
			assert(user == nil, "the keys belong to the host, not to an account");
			table.insert(self.writes, copy(data));
			table.insert(seen, copy(data));
			if self.write_error then
				return nil, self.write_error;
			end
			self.content = copy(data);
			return true;
		end
		return store;
	end

	after_each(function ()
		for _, line in ipairs(module.log_lines) do
			table.insert(told, line.text);
		end
		local all_told = table.concat(told, "\n");
		for _, content in ipairs(seen) do
			for _, generation in pairs(type(content) == "table" and content or {}) do
				local key = type(generation) == "table" and generation.key;
				if type(key) == "string" and key ~= "" then
					assert.is_nil(all_told:find(key, 1, true), "a key is told, in base64");
					assert.is_nil(all_told:find(base64.decode(key) or key, 1, true), "a key is told, raw");
				end
			end
		end
	end);

	-- A start of the module: a codec without keys, and the keys of the store
	-- saved: after a reload, what was saved before it
	local function open(store, saved)
		jat = core.jat(module.host, "sealed");
		local opened, message = module:require "keys".open(jat, store, LIFETIME, saved, read_clock);
		if message then
			table.insert(told, message);
		end
		return opened, message;
	end

	-- The texts of the lines at that level
	local function told_at(level)
		local lines = {};
		for _, line in ipairs(module.log_lines) do
			table.insert(lines, line.level == level and line.text or nil);
		end
		return lines;
	end

	local function generation(id, letter, created)
		return { id = id, key = base64.encode(letter:rep(core.JAT_KEYBYTES)), created = created };
	end

	-- What the stored generation makes of the requester, by a codec of its own
	local function token_of(stored_generation)
		local codec = core.jat(module.host, "sealed");
		codec:add_key(stored_generation.id, base64.decode(stored_generation.key));
		return codec:encode(REQUESTER);
	end

	describe("at the first start", function ()
		it("are made and stored", function ()
			local store = fake_store();
			assert(open(store));
			assert.equal(1, #store.writes);
			local current = store.content.current;
			assert.equal(0, current.id);
			assert.equal(clock, current.created);
			assert.equal(32, #base64.decode(current.key));
			assert.is_nil(store.content.previous);
			assert.equal(token_of(current), jat:encode(REQUESTER));
			assert.equal(1, #module.log_lines);
			assert.equal("info", module.log_lines[1].level);
			assert.truthy(module.log_lines[1].text:find("as at a first start", 1, true));
		end);

		it("are not the same twice", function ()
			local one, other = fake_store(), fake_store();
			assert(open(one));
			assert(open(other));
			assert.not_equal(one.content.current.key, other.content.current.key);
		end);

		it("are made, too, where storage none tells of an empty table", function ()
			local store = fake_store({});
			store.write_error = "Storage disabled";
			assert(open(store));
			assert.equal(1, #store.writes);
			assert.equal(token_of(store.writes[1].current), jat:encode(REQUESTER));
		end);

		it("take the wall clock's time when they are given no clock", function ()
			local store, before = fake_store(), os.time();
			jat = core.jat(module.host, "sealed");
			assert(module:require "keys".open(jat, store, LIFETIME, nil));
			local created = store.content.current.created;
			assert.truthy(before <= created and created <= os.time());
		end);
	end);

	describe("at a restart", function ()
		it("make the tokens they made before", function ()
			local store = fake_store();
			assert(open(store));
			local token = jat:encode(REQUESTER);
			assert(open(store));
			assert.equal(token, jat:encode(REQUESTER));
			assert.equal(REQUESTER, jat:decode(token));
			assert.equal(1, #store.writes);
		end);

		it("decode the previous generation's tokens, and make the current one's", function ()
			local store = fake_store { current = generation(5, "c", clock), previous = generation(4, "p", clock - LIFETIME) };
			assert(open(store));
			assert.equal(token_of(store.content.current), jat:encode(REQUESTER));
			assert.equal(REQUESTER, jat:decode(token_of(store.content.previous)));
			assert.same({}, store.writes);
		end);

		it("start a new generation when the lifetime has passed meanwhile", function ()
			local store = fake_store { current = generation(5, "c", clock - LIFETIME), previous = generation(4, "p", 0) };
			local old = copy(store.content);
			assert(open(store));
			assert.equal(6, store.content.current.id);
			assert.equal(clock, store.content.current.created);
			assert.same(old.current, store.content.previous);
			assert.equal(REQUESTER, jat:decode(token_of(old.current)));
			assert.same({ nil, "unknown-key" }, { jat:decode(token_of(old.previous)) });
		end);
	end);

	describe("in time", function ()
		local store, opened;

		before_each(function ()
			store = fake_store();
			opened = assert(open(store));
		end);

		it("are left alone before their lifetime, to be looked at again when it ends but after a day at most", function ()
			local content, token = copy(store.content), jat:encode(REQUESTER);
			assert.equal(DAY, opened.rotate());
			clock = clock + LIFETIME - DAY - 1;
			assert.equal(DAY, opened.rotate());
			clock = clock + 1;
			assert.equal(DAY, opened.rotate());
			clock = clock + 1;
			assert.equal(DAY - 1, opened.rotate());
			clock = clock + DAY - 2;
			assert.equal(1, opened.rotate());
			assert.equal(1, #store.writes);
			assert.same(content, store.content);
			assert.equal(token, jat:encode(REQUESTER));
		end);

		it("are replaced at their lifetime, and the old ones kept as the previous generation", function ()
			local old, token = store.content.current, jat:encode(REQUESTER);
			clock = clock + LIFETIME;
			assert.equal(DAY, opened.rotate());
			assert.equal(2, #store.writes);
			assert.equal(1, store.content.current.id);
			assert.equal(clock, store.content.current.created);
			assert.not_equal(old.key, store.content.current.key);
			assert.same(old, store.content.previous);
			assert.equal(token_of(store.content.current), jat:encode(REQUESTER));
			assert.equal(REQUESTER, jat:decode(token));
		end);

		it("are forgotten after the second rotation", function ()
			local token = jat:encode(REQUESTER);
			for _ = 1, 2 do
				assert.equal(REQUESTER, jat:decode(token));
				clock = clock + LIFETIME;
				opened.rotate();
			end
			assert.equal(2, store.content.current.id);
			assert.equal(1, store.content.previous.id);
			assert.same({ nil, "unknown-key" }, { jat:decode(token) });
		end);

		it("live on when the wall clock is set back a little, looked at again after a day at most", function ()
			clock = clock - 10 * DAY;
			assert.equal(DAY, opened.rotate());
			assert.equal(1, #store.writes);
		end);

		it("do not live on when they seem to come out of a far future", function ()
			clock = clock - 365 * DAY;
			opened.rotate();
			assert.equal(2, #store.writes);
			assert.equal(clock, store.content.current.created);
		end);

		it("are in use, and an error is logged, when they cannot be written", function ()
			local content, token = copy(store.content), jat:encode(REQUESTER);
			store.write_error = "disk full";
			clock = clock + LIFETIME;
			assert.equal(HOUR, opened.rotate());
			local unwritten = store.writes[2];
			assert.same(content, store.content);
			assert.equal(token_of(unwritten.current), jat:encode(REQUESTER));
			assert.equal(REQUESTER, jat:decode(token));
			local errors = told_at "error";
			assert.equal(1, #errors);
			assert.truthy(errors[1]:find("disk full", 1, true));
		end);

		it("that could not be written are written when storage works again", function ()
			store.write_error = "disk full";
			clock = clock + LIFETIME;
			opened.rotate();
			local token = jat:encode(REQUESTER);
			store.write_error = nil;
			clock = clock + HOUR;
			assert.equal(DAY, opened.rotate());
			assert.equal(token, token_of(store.content.current));
			assert.equal(DAY, opened.rotate());
			assert.equal(3, #store.writes);
		end);
	end);

	it("are due when they want to be looked at again", function ()
		local store = fake_store { current = generation(5, "c", clock - LIFETIME + 100) };
		assert.equal(100, assert(open(store)).due);
		assert.equal(DAY, assert(open(fake_store())).due);
		store = fake_store();
		store.write_error = "disk full";
		assert.equal(HOUR, assert(open(store)).due);
	end);

	describe("that could not be stored", function ()
		local store, opened, token;

		before_each(function ()
			store = fake_store();
			store.write_error = "disk full";
			opened = assert(open(store));
			token = jat:encode(REQUESTER);
		end);

		it("are the same after a reload, and written when storage works again", function ()
			opened = assert(open(store, opened.save()));
			assert.equal(token, jat:encode(REQUESTER));
			store.write_error = nil;
			opened = assert(open(store, opened.save()));
			assert.equal(token, jat:encode(REQUESTER));
			assert.equal(token, token_of(store.content.current));
			local writes = #store.writes;
			assert(open(store, opened.save()));
			assert.equal(writes, #store.writes);
		end);

		it("are the same after a reload, though storage has older ones", function ()
			store.write_error = nil;
			opened.rotate();
			store.write_error = "disk full";
			clock = clock + LIFETIME;
			opened.rotate();
			local newer = jat:encode(REQUESTER);
			assert(open(store, opened.save()));
			assert.equal(newer, jat:encode(REQUESTER));
			assert.equal(REQUESTER, jat:decode(token));
		end);

		it("are not the same after a restart, which saves nothing", function ()
			assert(open(store));
			assert.not_equal(token, jat:encode(REQUESTER));
		end);

		it("are told of once, also over a reload, and again when storage has worked meanwhile", function ()
			for _ = 1, 3 do
				opened.rotate();
				opened = assert(open(store, opened.save()));
			end
			assert.equal(1, #told_at "error");
			store.write_error = nil;
			opened.rotate();
			store.write_error = "disk full";
			clock = clock + LIFETIME;
			opened.rotate();
			opened.rotate();
			assert.equal(2, #told_at "error");
		end);
	end);

	it("are those of the store after a reload when they could be stored", function ()
		local store = fake_store();
		local saved = assert(open(store)).save();
		store.content = { current = generation(9, "r", clock) }; -- restored by the operator
		assert(open(store, saved));
		assert.equal(token_of(store.content.current), jat:encode(REQUESTER));
	end);

	for what, break_store in pairs {
		["have gone"] = function (store) store.content = nil; end;
		["cannot be read"] = function (store) store.read_error = "disk on fire"; end;
		["are damaged"] = function (store) store.content.current.key = "no base64!"; end;
	} do
		it("are those in use after a reload when the stored ones "..what..", and stored again", function ()
			local store = fake_store();
			local opened = assert(open(store));
			clock = clock + LIFETIME;
			opened.rotate();
			local in_use, saved = copy(store.content), opened.save();
			break_store(store);
			opened = assert(open(store, saved));
			assert.equal(token_of(in_use.current), jat:encode(REQUESTER));
			assert.equal(REQUESTER, jat:decode(token_of(in_use.previous)));
			assert.same(in_use, store.content);
			assert.equal(1, #told_at "warn");
			store.read_error = nil;
			assert(open(store, opened.save()));
			assert.equal(1, #told_at "warn");
		end);
	end

	it("count their generations from 255 on to 0", function ()
		local store = fake_store { current = generation(254, "c", clock) };
		local opened = assert(open(store));
		for _, id in ipairs { 255, 0, 1 } do
			clock = clock + LIFETIME;
			opened.rotate();
			assert.equal(id, store.content.current.id);
			assert.equal((id - 1) % 256, store.content.previous.id);
			assert.equal(REQUESTER, jat:decode(token_of(store.content.current)));
		end
		assert(open(store));
		assert.equal(token_of(store.content.current), jat:encode(REQUESTER));
	end);

	local function assert_refused(store)
		local opened, message = open(store);
		assert.is_nil(opened);
		assert.is_string(message);
		assert.truthy(message:find(module.host, 1, true), message);
		assert.same({}, store.writes);
		assert.same({ nil, "no-key" }, { jat:encode(REQUESTER) });
		return message;
	end

	it("are not overwritten when the storage cannot be read", function ()
		local store = fake_store { current = generation(5, "c", clock) };
		store.read_error = "disk on fire";
		assert.truthy(assert_refused(store):find("disk on fire", 1, true));
	end);

	describe("that are damaged", function ()
		local MISSING = {};
		local damages = {
			id = {
				["is missing"] = MISSING, ["is negative"] = -1, ["is above 255"] = 256, ["is no integer"] = 0.5,
				["is infinite"] = 1/0, ["is a text"] = "a", ["is a boolean"] = true, ["is a table"] = {},
			};
			created = {
				["is missing"] = MISSING, ["is a text"] = "a", ["is a boolean"] = true, ["is a table"] = {},
			};
			key = {
				["is missing"] = MISSING, ["is empty"] = "", ["is a number"] = 32, ["is a boolean"] = true, ["is a table"] = {},
				["is no base64"] = "no base64!", ["has 31 bytes"] = base64.encode(("k"):rep(31)),
				["has 33 bytes"] = base64.encode(("k"):rep(33)), ["is raw"] = ("k"):rep(32),
			};
		};

		local function two_generations()
			return fake_store { current = generation(5, "c", clock), previous = generation(4, "p", clock - LIFETIME) };
		end

		it("are refused only for their damage", function ()
			assert(open(two_generations()));
		end);

		for _, which in ipairs { "current", "previous" } do
			for field, cases in pairs(damages) do
				for damage, value in pairs(cases) do
					it(("are refused: the %s of the %s generation %s"):format(field, which, damage), function ()
						local store = two_generations();
						if value == MISSING then
							value = nil;
						end
						store.content[which][field] = value;
						local message = assert_refused(store);
						assert.truthy(message:find("damaged", 1, true), message);
						assert.truthy(message:find(module.name, 1, true), message);
					end);
				end
			end

			for _, value in ipairs { "text", 1, true, false } do
				it(("are refused: the %s generation is %s"):format(which, value), function ()
					local store = two_generations();
					store.content[which] = value;
					assert_refused(store);
				end);
			end
		end

		it("are refused: two generations with one id", function ()
			local store = two_generations();
			store.content.previous.id = store.content.current.id;
			assert_refused(store);
		end);

		for _, content in ipairs { "text", 1, true } do
			it("are refused: a "..type(content).." in the place of all", function ()
				assert.truthy(assert_refused(fake_store(content)):find("damaged", 1, true));
			end);
		end

		describe("with a file that is", function ()
			before_each(function ()
				directory = os.tmpname();
				assert(os.remove(directory));
				assert(require "lfs".mkdir(directory));
			end);

			after_each(function ()
				os.remove(directory.."/"..module.host.."-"..module.name..".dat");
				assert(require "lfs".rmdir(directory));
			end);

			local function make_empty_file()
				assert(io.open(directory.."/"..module.host.."-"..module.name..".dat", "w")):close();
			end

			it("empty, are refused where storage is internal, which reads it like none", function ()
				driver = "internal";
				make_empty_file();
				assert.truthy(assert_refused(fake_store()):find("damaged", 1, true));
			end);

			it("missing, are made where storage is internal", function ()
				driver = "internal";
				assert(open(fake_store()));
			end);

			it("empty, are made where storage is another: it is nobody's", function ()
				make_empty_file();
				assert(open(fake_store()));
			end);
		end);

		it("are refused: no current generation", function ()
			assert_refused(fake_store { previous = generation(4, "p", clock) });
			assert_refused(fake_store { something = "else" });
		end);
	end);
end);
