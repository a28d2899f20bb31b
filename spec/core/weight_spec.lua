-- What a kept stanza counts as, with tables made by hand; spec/lua/weight_spec.lua has the parser's.

local core = require "mod_client_proxy.core";
local new_pending = require "spec.support.pending".new;
local expect = require "spec.support.expect";
local process = require "spec.support.process";
local random = require "spec.support.random";
local weigh = require "spec.support.weigh";

local KEPT_BYTES_MAX = 8192;

random.announce("weight_spec");

local function element(name, attr, ...)
	local children = { ... };
	local tags = {};
	for _, child in ipairs(children) do
		if type(child) == "table" then
			table.insert(tags, child);
		end
	end
	children.name, children.attr, children.tags = name, attr or {}, tags;
	return children;
end

-- (f) -> a table whose every metamethod is f
local function hostile(t, f)
	local meta = {};
	for _, event in ipairs { "__index", "__newindex", "__len", "__pairs", "__eq", "__call", "__concat", "__close" } do
		meta[event] = f;
	end
	return setmetatable(t, meta);
end

-- About what Lua takes for `count` tables that make() returns, each, besides their places in a list
local function bytes_each(count, make)
	local list = table.move({}, 1, count, 1, {});
	for i = 1, count do
		list[i] = false;
	end
	collectgarbage();
	collectgarbage();
	local before = collectgarbage("count");
	for i = 1, count do
		list[i] = make(i);
	end
	collectgarbage();
	collectgarbage();
	return (collectgarbage("count") - before) * 1024 / count, list[count];
end

describe("The weight of a stanza", function ()
	before_each(random.restart);

	it("grows by each letter of its texts, wherever they are", function ()
		local function with(name, key, value, text)
			return weigh(element("iq", {}, element(name, { [key] = value }, text)));
		end
		local least = with("n", "k", "v", "t");
		for letters = 1, 100 do
			local more = ("x"):rep(letters);
			expect.equal(least + letters, with("n"..more, "k", "v", "t"), "%d in a name", letters);
			expect.equal(least + letters, with("n", "k"..more, "v", "t"), "%d in an attribute's name", letters);
			expect.equal(least + letters, with("n", "k", "v"..more, "t"), "%d in an attribute's value", letters);
			expect.equal(least + letters, with("n", "k", "v", "t"..more), "%d in a text", letters);
		end
	end);

	it("is the same for the same shape", function ()
		local function build(depth)
			local children, attr = {}, {};
			for i = 1, math.random(0, 3) do
				children[i] = depth > 0 and math.random(2) == 1 and build(depth - 1) or "text";
			end
			for i = 1, math.random(0, 4) do
				attr["name"..i] = "value";
			end
			return element("name", attr, table.unpack(children));
		end
		local function copy(value)
			if type(value) ~= "table" then
				return value;
			end
			local copied = {};
			for key, inner in pairs(value) do
				copied[key] = copy(inner);
			end
			return copied;
		end
		for round = 1, 200 do
			local stanza = build(3);
			expect.equal(weigh(stanza), weigh(copy(stanza)), "round %d", round);
		end
	end);

	if not os.getenv("SPEC_LIGHT") then -- where a collection takes no time
		for _, case in ipairs {
			{ "one element", function (i) return element("iq"..i, {}); end };
			{ "many attributes", function (i)
				local attr = {};
				for number = 1, 20 do
					attr[i.."-"..number] = number.."-"..i;
				end
				return element("iq"..i, attr);
			end };
			{ "many elements", function (i)
				local children = {};
				for number = 1, 15 do
					children[number] = element(i.."="..number, {});
				end
				return element("iq"..i, {}, table.unpack(children));
			end };
			{ "a long text", function (i) return element("iq"..i, {}, ("x"):rep(5000)..i); end };
		} do
			local what, make = table.unpack(case);
			it("is not below what Lua takes for "..what, function ()
				local bytes, stanza = bytes_each(200, make);
				local weight = weigh(stanza);
				expect.that(weight and weight >= bytes, "%s, but %s", weight, bytes);
			end);
		end
	end

	it("is no more than a kept one may have, to the byte", function ()
		local least = weigh(element("iq", {}, ""));
		assert.equal(KEPT_BYTES_MAX, weigh(element("iq", {}, ("x"):rep(KEPT_BYTES_MAX - least))));
		assert.is_nil(weigh(element("iq", {}, ("x"):rep(KEPT_BYTES_MAX - least + 1))));
		for _, letters in ipairs { 10000, process.turns(10000000, 100000) } do
			local long = ("x"):rep(letters);
			assert.is_nil(weigh(element("iq", {}, long)));
			assert.is_nil(weigh(element(long, {})));
			assert.is_nil(weigh(element("iq", { id = long })));
			assert.is_nil(weigh(element("iq", { [long] = "id" })));
			assert.is_nil(weigh(element("iq", {}, element("query", {}, element("item", { jid = long })))));
			assert.is_nil(weigh(element("iq", {}, "text", element("query", {}), long)));
		end
	end);

	it("is found of a cyclic one, a deep one and a huge one", function ()
		local cyclic = element("iq", {});
		cyclic[1] = cyclic;
		assert.is_nil(weigh(cyclic));
		local one, other = element("a", {}), element("b", {});
		one[1], other[1], other[2] = other, one, one;
		assert.is_nil(weigh(one));
		local own_attributes = element("iq", {});
		own_attributes.attr, own_attributes.name = own_attributes, own_attributes;
		assert.is_number(weigh(own_attributes));
		local deep = element("leaf", {});
		for _ = 1, process.turns(1000000, 10000) do
			deep = { name = "q", deep };
		end
		assert.is_nil(weigh(deep));
		local huge, attr = {}, {};
		for i = 1, process.turns(1000000, 10000) do
			huge[i] = i % 2 == 0;
			attr[i] = true;
		end
		assert.is_nil(weigh(huge));
		assert.is_nil(weigh { name = "iq", attr = attr });
		assert.is_nil(weigh { name = "iq", attr = huge });
	end);

	it("is found of one whose list has no end that can be counted to", function ()
		local endless = { name = "iq", attr = {} };
		for number = 1, 150 do -- with these, there is room for all others outside of what Lua knows as a list
			endless["field"..number] = true;
		end
		for exponent = 0, 62 do
			endless[1 << exponent] = "x";
		end
		endless[math.maxinteger] = "x";
		assert.equal(math.maxinteger, rawlen(endless));
		assert.is_nil(weigh(endless));
		for exponent = 20, 62 do -- where it ends differs
			endless[math.maxinteger], endless[1 << exponent] = nil, nil;
			expect.that(rawlen(endless) >= 1 << exponent - 1, "length %d", exponent);
			assert.is_nil(weigh(endless));
			endless[1 << exponent] = "x";
		end
	end);

	it("is found of whatever is no stanza", function ()
		local thread, userdata = coroutine.create(print), new_pending(("s"):rep(core.PENDING_SEEDBYTES));
		local odd = { true, false, 1, 0.5, math.huge, print, thread, userdata, {}, { {} }, "text" };
		for _, value in ipairs(odd) do
			for _, stanza in ipairs {
				{}, { value }, { name = value }, { attr = value }, { tags = value }, { name = "iq", attr = { value } },
				{ name = "iq", attr = { [value] = value } }, { name = "iq", attr = {}, tags = {}, { name = value, attr = value, value } },
				{ [value] = value }, { nil, value }, { name = value, attr = value, tags = value, value, value, nil, value },
			} do
				assert.is_number(weigh(stanza));
			end
		end
	end);

	it("calls no metamethod", function ()
		local called = 0;
		local function f()
			called = called + 1;
			error("called");
		end
		for _, stanza in ipairs {
			hostile({}, f), hostile({ name = "iq" }, f), hostile({ name = "iq", attr = hostile({ id = "i" }, f) }, f),
			hostile({ name = hostile({}, f), attr = hostile({}, f), tags = hostile({}, f), hostile({}, f) }, f),
			element("iq", {}, hostile({ hostile({ "text" }, f) }, f), "text"),
		} do
			assert.is_number(weigh(stanza));
		end
		local endless = hostile({}, function (t) return t; end);
		assert.is_number(weigh(endless));
		assert.equal(0, called);
	end);
end);
