-- Plays what the documentation shows of stanzas, each of which is a line:
--
--     user -> component:     <iq type='get' id='1' to='proxy.domain.example'><query xmlns='urn:example:service'/></iq>
--     component -> backend:  <iq type='get' id='1' from='proxy.domain.example/TOKEN'><query xmlns='urn:example:service'/></iq>
--
-- What goes to the component is sent by a real client; what comes from it has to come, with these attributes and this
-- content. TOKEN and BACKEND stand for the same letters in all lines. A tag that is left open has any content.

local assert = require "luassert";
local service = require "spec.support.service";
local parse = require "util.xml".parse;
local st = require "util.stanza";

local SHAPES = { TOKEN = "q"..("[%w_-]"):rep(12), BACKEND = "b"..("[%w_-]"):rep(12) };

-- What the component adds to messages for backends
local HINTS = { ["urn:xmpp:carbons:2"] = true, ["urn:xmpp:hints"] = true };

local function is_hint(tag)
	return HINTS[tag.attr.xmlns] or false;
end

-- (line) -> { from, to, stanza, is_open }
local function read_line(line)
	local from, to, xml = line:match("^(%w+) %-> (%w+): +(<.+>)$");
	assert(from, "not a line of stanzas: "..line);
	local is_open = not xml:find("/>$") and not xml:find("</%w+>$");
	if is_open then
		xml = xml:gsub(">$", "/>");
	end
	return { from = from, to = to, stanza = assert(parse(xml), "not XML: "..xml), is_open = is_open };
end

-- (text, bound) -> the text, with the letters that TOKEN and BACKEND stand for
local function with_bound(text, bound)
	return (text:gsub("%u+", function (word) return SHAPES[word] and assert(bound[word], word.." stands for nothing yet"); end));
end

-- (expected, actual, bound): what they stand for, if that is told here for the first time
local function bind(expected, actual, bound)
	for name, shape in pairs(SHAPES) do
		local front, back = expected:match("^(.*)"..name.."(.*)$");
		if front and not bound[name] then
			bound[name] = actual:sub(#front + 1, #actual - #back):match("^"..shape.."$");
		end
	end
end

local function send(party, line, bound)
	local stanza = st.clone(line.stanza);
	for name, value in pairs(stanza.attr) do
		stanza.attr[name] = with_bound(value, bound);
	end
	assert.equal(party.jid, stanza.attr.from or party.jid);
	if line.is_open and stanza.name == "iq" and stanza.attr.type ~= "result" then
		stanza:tag("query", { xmlns = "urn:example:service" }):up();
	end
	party:send(stanza);
end

-- (stanza, namespace) -> tables that are alike if the stanzas say the same
local function content_of(stanza, namespace)
	local xmlns = stanza.attr.xmlns or namespace;
	local content = { name = stanza.name, xmlns = xmlns };
	for name, value in pairs(stanza.attr) do
		content["@"..name] = name ~= "xmlns" and value or nil;
	end
	for _, child in ipairs(stanza) do
		table.insert(content, type(child) == "string" and child or content_of(child, xmlns));
	end
	return content;
end

local function check_content(expected, actual)
	local said = {};
	for _, tag in ipairs(actual.tags) do
		if not is_hint(tag) then
			table.insert(said, content_of(tag, "jabber:client"));
		end
	end
	local wanted = {};
	for _, tag in ipairs(expected.tags) do
		table.insert(wanted, content_of(tag, "jabber:client"));
	end
	assert.same(wanted, said);
end

local function receive(party, line, bound)
	local expected = line.stanza;
	local stanza = party:receive(function (stanza)
		return stanza.name == expected.name and stanza.attr.type == expected.attr.type
			and (stanza.attr.id == expected.attr.id or not expected.attr.id);
	end);
	for name, value in pairs(expected.attr) do
		bind(value, stanza.attr[name], bound);
		assert.equal(with_bound(value, bound), stanza.attr[name]);
	end
	assert.equal(party.jid, stanza.attr.to:find("/", 1, true) and stanza.attr.to or party.jid);
	if not line.is_open then
		check_content(expected, stanza);
	end
end

-- (server, text): plays all lines of it
return function (server, text)
	local user, backend = service.requester(server), service.backend(server, "a");
	user:request(st.iq({ type = "get", id = "roster" }):tag("query", { xmlns = "jabber:iq:roster" }));
	user:send(st.presence());
	user:sync();
	local parties, bound = { user = user, backend = backend }, {};
	for each in text:gmatch("[^\n]+") do
		local line = read_line(each);
		if line.to == "component" then
			send(parties[line.from], line, bound);
		else
			assert.equal("component", line.from);
			receive(parties[line.to], line, bound);
		end
	end
	user:close();
	backend:close();
end
