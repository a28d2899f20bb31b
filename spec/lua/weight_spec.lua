-- What a kept stanza counts as, against what Lua takes for it as Prosody's parser makes it

local expect = require "spec.support.expect";
local new_stream = require "util.xmppstream".new;
local random = require "spec.support.random";
local weigh = require "spec.support.weigh";

local COUNT = 200; -- stanzas that are measured together
local KEPT_BYTES_MAX = 8192;
local SIZES = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 16, 17, 20, 24, 31, 32, 33, 64, 128 };
local STREAM = "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>";

random.announce("weight_spec");

-- Lua's table of strings doubles when it is full, and takes eight bytes for each place. So many strings are held here that it
-- neither grows nor shrinks while stanzas are measured; the places of their strings are counted instead. (They are held as long
-- as parse() looks at them.)
local PLACE_BYTES = 8;
local SHORT_MAX = 40; -- letters of a string that has a place there
local HELD = 66000;
local held = {};
for i = 1, HELD do
	held[i] = "held "..i;
end

-- (stanza) -> the bytes of its strings' places
local function measure_places(stanza)
	local bytes = 0;
	local function count(text)
		bytes = bytes + (#text <= SHORT_MAX and PLACE_BYTES or 0);
	end
	local function count_in(element)
		count(element.name);
		for name, value in pairs(element.attr) do
			count(name);
			count(value);
		end
		for child in element:children() do
			(type(child) == "string" and count or count_in)(child);
		end
	end
	count_in(stanza);
	return bytes;
end

-- (xmls) -> the stanzas, and the bytes that Lua takes for each
local function parse(xmls)
	local stanzas, count = table.move(xmls, 1, #xmls, 1, {}), 0; -- which has places for all
	local function keep(_, stanza)
		count = count + 1;
		stanzas[count] = stanza;
	end
	local stream = new_stream({ notopen = true }, {
		stream_ns = "http://etherx.jabber.org/streams", default_ns = "jabber:client",
		streamopened = function (session) session.notopen = nil; end,
		handlestanza = keep, error = function (_, code) error(code); end,
	}, math.maxinteger);
	assert(stream:feed(STREAM));
	collectgarbage();
	collectgarbage();
	local before = collectgarbage("count");
	for _, xml in ipairs(xmls) do
		assert(stream:feed(xml));
	end
	assert(count == #xmls and #held == HELD);
	collectgarbage();
	collectgarbage();
	return stanzas, (collectgarbage("count") - before) * 1024 / count + measure_places(stanzas[count]);
end

-- ([length]) -> a name that no other stanza has
local last = 0;
local function unique(length)
	last = last + 1;
	local name = ("n%x-%04x"):format(last, math.random(0, 0xffff));
	return name..("x"):rep((length or 0) - #name);
end

-- As short as can be: of three or four letters
local function short()
	last = last + 1;
	local letters, rest = {}, last;
	while rest > 0 do
		table.insert(letters, string.char(97 + rest % 26));
		rest = rest // 26;
	end
	return table.concat(letters);
end

-- (count, part) -> part(1), ... part(count), one after the other
local function times(count, part)
	local parts = {};
	for i = 1, count do
		parts[i] = part(i);
	end
	return table.concat(parts);
end

local function iq(inside, attributes)
	return ("<iq type='get' id='%s' from='%s@some-domain.example/r' to='%s'%s>%s</iq>")
		:format(unique(), unique(), unique(), attributes or "", inside);
end

local function query(inside, attributes)
	return ("<query xmlns='%s'%s>%s</query>"):format(unique(), attributes or "", inside);
end

-- (new_name, new_value) -> function: an attribute, anew each time
local function attribute(new_name, new_value)
	return function (i)
		return (" %s='%s'"):format(new_name(i), new_value(i));
	end
end

local function long()
	return unique(200);
end

local function same(i)
	return "name"..i;
end

-- All strings but those of the protocol differ from stanza to stanza.
local shapes = {};

shapes["attributes"] = function (n) return iq(query("", times(n, attribute(unique, unique)))); end;
shapes["attributes of the iq"] = function (n) return iq("", times(n, attribute(unique, unique))); end;
shapes["short attributes"] = function (n) return iq(query("", times(n, attribute(short, short)))); end;
shapes["long attributes"] = function (n) return iq(query("", times(n, attribute(long, long)))); end;
shapes["long values"] = function (n) return iq(query("", times(n, attribute(same, long)))); end;
shapes["usual attributes"] = function (n) return iq(query("", times(n, attribute(same, unique)))); end;
shapes["namespaced attributes"] = function (n)
	return iq(query("", (" xmlns:p='%s'"):format(unique())..times(n, attribute(function () return "p:"..unique(); end, unique))));
end;
shapes["elements"] = function (n) return iq(query(times(n, function () return "<"..unique().."/>"; end))); end;
shapes["short elements"] = function (n) return iq(times(n, function () return "<"..short().."/>"; end)); end;
shapes["items"] = function (n)
	return iq(query(times(n, function () return ("<item jid='%s' name='%s'/>"):format(unique(30), unique(20)); end)));
end;
shapes["depth"] = function (n)
	return iq(times(n, function () return ("<q xmlns='%s'>"):format(unique()); end)..times(n, function () return "</q>"; end));
end;
shapes["a text"] = function (n) return iq(query(unique(n * 200))); end;
shapes["texts"] = function (n) return iq(query(times(n, function () return "<value>"..unique().."</value>"; end))); end;
shapes["mixed content"] = function (n) return iq(query(times(n, function () return unique().."<"..unique().."/>"; end))); end;
shapes["short mixed content"] = function (n) return iq(times(n, function () return short().."<"..short().."/>"; end)); end;

-- The parser has another name for xml:lang than XML's own.
for where, before in pairs { first = true, last = false } do
	local function attributes(n)
		local language, others = (" xml:lang='%s'"):format(short()), times(n, attribute(short, short));
		return before and language..others or others..language;
	end
	shapes["elements with xml:lang "..where] = function (n)
		return iq(times(4, function () return ("<%s%s/>"):format(short(), attributes(n)); end));
	end;
	shapes["elements with xmlns, and xml:lang "..where] = function (n)
		return iq(times(4, function () return ("<%s xmlns='%s'%s/>"):format(short(), short(), attributes(n)); end));
	end;
end

describe("The weight of a parsed stanza", function ()
	before_each(random.restart);

	for name, shape in pairs(shapes) do
		it("is not below the truth, nor far above: "..name, function ()
			local kept, refused = 0, 0;
			for _, size in ipairs(SIZES) do
				if refused == 2 then -- still larger ones are, too
					break;
				end
				local xmls = {};
				for i = 1, COUNT do
					xmls[i] = shape(size);
				end
				local stanzas, bytes = parse(xmls);
				local weight = weigh(stanzas[COUNT]);
				if weight then
					kept = kept + 1;
					expect.that(weight >= bytes, "size %d: %d, but it takes %.0f", size, weight, bytes);
					expect.that(bytes < 1024 or weight <= 2 * bytes, "size %d: %d, but it takes %.0f", size, weight, bytes);
				else
					refused = refused + 1;
					expect.that(2 * bytes > KEPT_BYTES_MAX, "size %d: not kept, but it takes only %.0f", size, bytes);
				end
				expect.that(bytes <= KEPT_BYTES_MAX or not weight, "size %d: kept, but it takes %.0f", size, bytes);
			end
			expect.that(kept > 5, "%d sizes are kept", kept);
			expect.that(refused > 0, "none is refused");
		end);
	end
end);
