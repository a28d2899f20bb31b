-- What Prosody's debug lines show of a stanza: its first tag. Prosody asks each stanza for that text, stanza:top_tag(),
-- whenever one comes or goes, whether debug lines are logged or not, and its own way to make it takes longer than all that
-- the module does for a request. A stanza that is cheapened gives the same text for a fraction of that.
--
-- The field that is set for this is the stanza's own: no other stanza has it, nor has a copy (st.clone), and nothing else
-- reads it.

local st = require "util.stanza";
local find, pairs = string.find, pairs;

-- What IQ stanzas carry. The orders in which these can come are few enough to be remembered. Any other name may be a
-- stranger's invention.
local NAMES = { "from", "to", "id", "type", "xml:lang" };

local IS_KNOWN = {};
for _, name in ipairs(NAMES) do
	IS_KNOWN[name] = true;
end

-- Prosody shows the attributes of a copy, in the order in which pairs() goes through it. That order depends on the one in
-- which the copy was made, that is, in which pairs() goes through the original, and on nothing else. So it is learned once
-- for each: this is a tree whose branches are names, in the order of the original.
local root = {};

-- The key by which a node has the form of the text, in the order of the copy: a list of what is before an attribute's value,
-- and the attribute's name, for as many attributes as there are in NAMES ("" and false for one that is missing), and of
-- what is at the end.
local FORM = {};

local function prosodys_own(stanza)
	return st.stanza_mt.top_tag(stanza);
end

local function new_form(stanza)
	local form, before = {}, " ";
	for name in pairs(st.clone(stanza, true).attr) do
		table.insert(form, before..name.."='");
		table.insert(form, name);
		before = "' ";
	end
	local ending = form[1] and "'>" or ">";
	while #form < 2 * #NAMES do
		table.insert(form, "");
		table.insert(form, false);
	end
	table.insert(form, ending);
	return form;
end

-- Learns the order of the stanza's attributes if only known ones are there.
local function learn(stanza)
	for name in pairs(stanza.attr) do
		if not IS_KNOWN[name] then
			return;
		end
	end
	local node = root;
	for name in pairs(stanza.attr) do
		node[name] = node[name] or {};
		node = node[name];
	end
	node[FORM] = new_form(stanza);
end

-- Where nothing needs to be escaped, the text is put together at once. To look for each of the five letters that do is
-- quicker than to look for any of them, which Lua would do letter by letter. A value that is no text raises, as in Prosody.
local function write(form, name, attr)
	local a, b, c, d, e = attr[form[2]], attr[form[4]], attr[form[6]], attr[form[8]], attr[form[10]];
	if a == nil then a = ""; end
	if b == nil then b = ""; end
	if c == nil then c = ""; end
	if d == nil then d = ""; end
	if e == nil then e = ""; end
	if find(a, "'", 1, true) or find(b, "'", 1, true) or find(c, "'", 1, true) or find(d, "'", 1, true) or find(e, "'", 1, true) then
		return nil;
	end
	local text = "<"..name..form[1]..a..form[3]..b..form[5]..c..form[7]..d..form[9]..e..form[11];
	if find(text, "&", 1, true) or find(text, '"', 1, true) or find(text, "<", 2, true) or find(text, ">", 1, true) ~= #text then
		return nil;
	end
	return text;
end

local function cheap_top_tag(stanza)
	local attr, node = stanza.attr, root;
	for name in pairs(attr) do
		node = node[name];
		if not node then
			learn(stanza);
			return prosodys_own(stanza);
		end
	end
	local form = node[FORM];
	if not form then
		learn(stanza);
		return prosodys_own(stanza);
	end
	return write(form, stanza.name, attr) or prosodys_own(stanza);
end

local top_tag = {};

-- (stanza): from now on, stanza:top_tag() gives the same text as before, but sooner
function top_tag.cheapen(stanza)
	stanza.top_tag = cheap_top_tag;
end

return top_tag;
