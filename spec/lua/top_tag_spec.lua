-- The cheap top tag against Prosody's own

local fake_module = require "spec.support.module";
local expect = require "spec.support.expect";
local random = require "spec.support.random";
local st = require "util.stanza";

local COUNT = 10000; -- stanzas

local USUAL = { "from", "to", "id", "type", "xml:lang" };
local ODD = { "xmlns", "urn:x:y\1name", "urn:'&<>\"\1other", "\1bare", "a", "from ", "fro", "From", "order", "name", "attr", "n\u{e9}" };
local PIECES = { "'", '"', "&", "<", ">", "&amp;", "<!--", "]]>", "\u{5e9}\u{5dc}", "\u{20ac}", "\u{1f600}", " ", "=", "/", "%", "\\", "\n" };

random.announce("top_tag_spec");

local function plain()
	return ("%x@some-domain.example/%x"):format(math.random(0, 0xffffff), math.random(0));
end

local function odd()
	local pieces = {};
	for i = 1, math.random(0, 4) do
		pieces[i] = random.element(PIECES);
	end
	table.insert(pieces, math.random(0, #pieces) + 1, math.random(2) == 1 and plain() or "");
	return table.concat(pieces);
end

local function value(is_odd)
	return is_odd and odd() or plain();
end

-- As the parser makes the table: first with a list of the names, which leaves room behind
local function parsed(names, is_odd)
	local attr = table.move(names, 1, #names, 1, {});
	for _, name in ipairs(names) do
		attr[name] = value(is_odd);
	end
	for i = 1, #names do
		attr[i] = nil;
	end
	return attr;
end

-- Some are put in and taken out again: what the table has been through decides about its order.
local function changed(names, is_odd)
	local attr = {};
	for _, name in ipairs(USUAL) do
		attr[name] = math.random(2) == 1 and "x" or nil;
	end
	for name in pairs(attr) do
		attr[name] = nil;
	end
	for _, name in ipairs(names) do
		attr[name] = value(is_odd);
	end
	return attr;
end

-- (is_odd) -> a list of names in any order: a few of the usual ones, and now and then others, if is_odd
local function some_names(is_odd)
	local names, count = random.shuffle { table.unpack(USUAL) }, math.random(-2, #USUAL);
	for i = #names, count < 0 and #USUAL + 1 or count + 1, -1 do
		names[i] = nil;
	end
	for _ = 1, is_odd and math.random(3) == 1 and math.random(3) or 0 do
		table.insert(names, math.random(1, #names + 1), random.element(ODD));
	end
	return names;
end

local function own(stanza)
	return st.stanza_mt.top_tag(stanza);
end

describe("the cheap top tag", function ()
	local cheapen;

	before_each(function ()
		random.restart();
		cheapen = fake_module.new():require "top_tag".cheapen;
	end);

	local function random_stanza()
		local is_odd = math.random(2) == 1;
		local make = math.random(2) == 1 and parsed or changed;
		local stanza = st.stanza(math.random(10) == 1 and "stream:odd" or "iq");
		stanza.attr = make(some_names(is_odd), is_odd);
		return stanza;
	end

	it("is the same text as Prosody's own", function ()
		for _ = 1, COUNT do
			local stanza = random_stanza();
			local text = own(stanza);
			cheapen(stanza);
			for _ = 1, 2 do -- the second time, the order is known
				expect.equal(text, stanza:top_tag(), "the text");
			end
		end
	end);

	it("is that of the stanza as it is when it is asked for", function ()
		for _ = 1, 1000 do
			local stanza = random_stanza();
			cheapen(stanza);
			stanza:top_tag();
			for _ = 1, math.random(3) do
				stanza.attr[random.element(USUAL)] = math.random(3) > 1 and value(true) or nil;
			end
			stanza:tag(random.element { "query", "error" }, { xmlns = odd() }):text("<&>"):up();
			stanza.name = random.element { "iq", "message" };
			assert.equal(own(stanza), stanza:top_tag());
		end
	end);

	it("is the stanza's alone, and leaves the rest of it as it is", function ()
		local stanza = st.iq({ type = "get", id = "1", to = "a@b.example/c" }):tag("query", { xmlns = "x:y" });
		local text, serialized, frozen = tostring(stanza), st.preserialize(stanza), st.stanza_mt.__freeze(stanza);
		cheapen(stanza);
		assert.not_equal(st.stanza_mt.top_tag, stanza.top_tag);
		assert.equal(text, tostring(stanza));
		assert.same(serialized, st.preserialize(stanza));
		assert.same(frozen, st.stanza_mt.__freeze(stanza));
		assert.is_true(st.is_stanza(stanza));
		for _, other in ipairs { st.clone(stanza), st.clone(stanza, true), st.reply(stanza),
			st.error_reply(stanza, "cancel", "item-not-found"), st.deserialize(st.preserialize(stanza)), stanza.tags[1] } do
			assert.equal(st.stanza_mt.top_tag, other.top_tag);
		end
	end);

	it("writes values that are no texts as Prosody does, or raises where that does", function ()
		for _, odd_value in ipairs { 1, 1.5, -0.0, 2^63, true, false, {} } do
			for _, name in ipairs { "id", "type", "to" } do
				local stanza = st.iq { type = "get", id = "1", to = "a@b.example/c" };
				cheapen(stanza);
				stanza:top_tag(); -- the order is known from now on
				stanza.attr[name] = odd_value;
				local can_own, expected = pcall(own, stanza);
				local can, actual = pcall(stanza.top_tag, stanza);
				assert.equal(can_own, can);
				if can then
					assert.equal(expected, actual);
				end
			end
		end
	end);

	it("does not remember what strangers invent", function ()
		local function ask(count)
			for _ = 1, count do
				local names = some_names(false);
				table.insert(names, math.random(1, #names + 1), plain());
				local stanza = st.stanza("iq");
				stanza.attr = parsed(names, false);
				cheapen(stanza);
				stanza:top_tag();
			end
			collectgarbage();
			collectgarbage();
			return collectgarbage("count");
		end
		local before = ask(100);
		assert.is_true(ask(2000) - before < 10); -- kilobytes
	end);

	it("takes half of the time at most", function ()
		local stanza = st.stanza("iq");
		stanza.attr = parsed({ "type", "id", "to", "xml:lang", "from" }, false);
		cheapen(stanza);
		stanza:top_tag();
		local function time(top_tag)
			local best = math.huge;
			for _ = 1, 10 do
				local start = os.clock();
				for _ = 1, 2000 do
					top_tag(stanza);
				end
				best = math.min(best, os.clock() - start);
			end
			return best;
		end
		assert.is_true(time(stanza.top_tag) * 2 < time(own));
	end);
end);
