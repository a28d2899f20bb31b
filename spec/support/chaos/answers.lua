-- For chaos: what a backend does about a request: it answers at once, mostly; or late, twice, never, in a wrong way.

local service = require "spec.support.service";
local socket = require "socket";
local st = require "util.stanza";

local now, random = socket.gettime, math.random;

local NS = "urn:example:chaos";

local answers = {};

-- changed: what is not as it should be: { type, id, to, from }
local function answer(party, backend, stanza, changed)
	changed = changed or {};
	if not party:can_answer(backend) then
		return; -- it has gone meanwhile
	end
	local reply = st.stanza("iq", {
		type = changed.type or "result", id = changed.id or stanza.attr.id, to = changed.to or stanza.attr.from, from = changed.from;
	});
	local query = stanza.tags[1];
	reply:tag("query", { xmlns = NS, who = query.attr.who, what = query.attr.what, ask = query.attr.ask }):up();
	if changed.type then
		reply:tag("error", { type = "cancel" }):tag("item-not-found", { xmlns = "urn:ietf:params:xml:ns:xmpp-stanzas" });
	end
	party:send(backend, reply);
end

-- Each is done to some out of a thousand requests; to the rest an answer at once.
local misbehaviours = {
	{ 20, function (party, backend, stanza) -- twice
		answer(party, backend, stanza);
		answer(party, backend, stanza);
	end };
	{ 10, function (party, backend, stanza)
		answer(party, backend, stanza, { id = "unknown"..random(1000000) });
		answer(party, backend, stanza);
	end };
	{ 10, function (party, backend, stanza) -- with a token changed in one place
		local to = stanza.attr.from;
		local position = #to - random(0, math.min(40, #to - to:find("/", 1, true) - 1));
		if to:byte(position) < 128 then
			answer(party, backend, stanza, { to = to:sub(1, position - 1)..(to:byte(position) == 65 and "B" or "A")..to:sub(position + 1) });
		end
		answer(party, backend, stanza);
	end };
	{ 10, function (party, backend, stanza) -- from another address, or to the proxy itself
		answer(party, backend, stanza, { to = "other@"..service.proxy..stanza.attr.from:match("/.*") });
		answer(party, backend, stanza, { to = service.proxy });
		answer(party, backend, stanza);
	end };
	{ 20, function (party, backend, stanza)
		backend.last_doubted = now();
		answer(party, backend, stanza, { type = "error" });
	end };
	{ 10, function (party, backend, stanza) -- in another one's name, where its server lets it
		local other = party:any() or backend;
		other.last_doubted = now();
		answer(party, backend, stanza, { from = other.jid });
		answer(party, backend, stanza, { from = other.jid, type = "error" });
		answer(party, backend, stanza);
	end };
};

-- Likewise, but of those only that are not sound
local delays = {
	{ 60, function (party, backend, stanza) -- late, so out of order
		party.chaos:after(random() * 0.5, function () answer(party, backend, stanza); end);
	end };
	{ 2, function () end }; -- never
	{ 4, function (party, backend, stanza) -- too late
		party.chaos:after(2.2, function () answer(party, backend, stanza); end);
	end };
};

local function pick(list)
	local dice = random(1000);
	for _, entry in ipairs(list) do
		dice = dice - entry[1];
		if dice <= 0 then
			return entry[2];
		end
	end
end

-- (party, backend, stanza): the backend does something about this request.
function answers.give(party, backend, stanza)
	local misbehave = not backend.is_sound and pick(delays) or pick(misbehaviours) or answer;
	misbehave(party, backend, stanza);
end

return answers;
