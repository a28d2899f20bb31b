local core = require "mod_client_proxy.core";
local expect = require "spec.support.expect";
local new_pending = require "spec.support.pending".new;
local process = require "spec.support.process";
local random = require "spec.support.random";

local PROXY = "proxy.domain.example";
local TARGET = "some-user@some-domain.example";
local REQUESTER = "user@some-domain.example/abc";
local JID_MAX = 3071;
local BARE_MAX = 2048; -- bytes in the longest bare service address
local NAN = 0 / 0;

local ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

random.announce("exchange_spec");

local function bare(jid)
	return jid:match("^[^/]*");
end

-- (text) -> the bytes that it is the base64url of; whole groups only, and what is left of the last one is dropped
local function read_base64url(text)
	local bytes = {};
	for group in text:gmatch("....") do
		local bits = 0;
		for letter in group:gmatch(".") do
			bits = bits << 6 | ALPHABET:find(letter, 1, true) - 1;
		end
		table.insert(bytes, (string.pack(">I3", bits)));
	end
	return table.concat(bytes);
end

-- (bytes, in threes) -> their base64url
local function write_base64url(bytes)
	return (bytes:gsub("...", function (three)
		local bits = string.unpack(">I3", three);
		local letters = {};
		for shift = 18, 0, -6 do
			table.insert(letters, ALPHABET:sub((bits >> shift & 63) + 1, (bits >> shift & 63) + 1));
		end
		return table.concat(letters);
	end));
end

local function is_short(token)
	return #token == 13 and token:find("^q[%w_-]+$") ~= nil;
end

local function is_digest(token)
	return #token == 33 and token:find("^d[%w_-]+$") ~= nil;
end

local function is_backend_token(token)
	return (#token == 13 or #token == 33) and token:find("^b[%w_-]+$") ~= nil;
end

local function backend_jid(resource)
	return TARGET.."/"..resource;
end

-- The same, slow and obvious, of two others that have specs of their own: the codec, and the pool, of which it has one that
-- makes the same choices. The rest is lists:
--     requesters  { jid, name (the short token or digest, or ""), generation, held (how many are pending) }, of which those
--                 that are idle come first the longer they have been
--     requests    { backend, address, id, requester, service, added, deadline, retries, stanza }, the oldest one first
local oracle = {};
oracle.__index = oracle;

-- (format, key, pool, pending): `pool` makes the same choices as the exchange's; `pending` is the exchange's own, and only
-- counts the requests of a backend here, as a strategy wants to know
function oracle.new(format, key, pool, pending)
	local self = setmetatable({
		pool = pool, pending = pending, formats = {}, requesters = {}, requests = {}, generation = 0;
		max_requesters = math.huge, max = math.huge, max_each = math.huge;
	}, oracle);
	self:begin(format);
	self:set_key(1, key);
	return self;
end

-- An exchange among the same others, with tokens of another format, has counted nothing yet.
function oracle:begin(format)
	self.format = format;
	self.results, self.errors, self.seconds, self.times = 0, 0, 0.0, {};
	for place = 1, #core.ANSWER_TIMES + 1 do
		self.times[place] = 0;
	end
end

function oracle:set_key(key_id, key)
	self.codecs = self.codecs or {};
	for _, format in ipairs(core.FORMATS) do
		self.codecs[format] = self.codecs[format] or core.jat(PROXY, format);
		self.codecs[format]:add_key(key_id, key);
	end
end

-- A digest is the part of a sealed token that depends on all of the JID, unless that is too long to be sealed.
function oracle:digest(jid)
	local sealed = self.codecs.sealed:encode(jid);
	return is_digest(sealed) and sealed or "d"..write_base64url(read_base64url(sealed:sub(2)):sub(2, 25));
end

-- (wanted) -> the first requester for which that is true, its place
function oracle:first(wanted)
	for place, requester in ipairs(self.requesters) do
		if wanted(requester) then
			return requester, place;
		end
	end
end

-- (wanted) -> the requester of this generation, or else of the last one, for which that is true
function oracle:latest(wanted)
	local latest;
	for _, requester in ipairs(self.requesters) do
		if requester.generation >= (latest or { generation = self.generation - 1 }).generation and wanted(requester) then
			latest = requester;
		end
	end
	return latest;
end

function oracle:named(name)
	return self:latest(function (requester) return requester.name == name; end);
end

function oracle:find_either(jid)
	return self:latest(function (requester) return requester.jid == jid; end);
end

function oracle:find(jid)
	return (self:first(function (requester)
		return requester.jid == jid and requester.generation == self.generation;
	end));
end

-- If it is idle, it is the last one to be forgotten.
function oracle:use(requester)
	local _, place = self:first(function (other) return other == requester; end);
	if requester.held == 0 then
		table.insert(self.requesters, table.remove(self.requesters, place));
	end
end

function oracle:forget_one()
	local _, place = self:first(function (requester) return requester.held == 0; end);
	return place and table.remove(self.requesters, place);
end

-- The bytes that the book keeps of somebody with that token, if it is a name
local function book_bytes(jid, name)
	local name_bytes = { [13] = 9, [33] = 24 };
	return #jid + (name and name_bytes[#name] or 0);
end

-- (bytes) -> whether the book has room for one more with so many
function oracle:has_room(bytes)
	for _, requester in ipairs(self.requesters) do
		bytes = bytes + book_bytes(requester.jid, requester.name);
	end
	return #self.requesters < self.max_requesters and (#self.requesters == 0 or bytes < self.max_requesters * 512);
end

-- -> requester | nil, "full"
function oracle:add_requester(jid, name)
	local forgotten, bytes = 0, book_bytes(jid, name);
	while forgotten < 64 and not self:has_room(bytes) and self:forget_one() do
		forgotten = forgotten + 1;
	end
	if not self:has_room(bytes) and forgotten == 0 then
		return nil, "full";
	end
	table.insert(self.requesters, { jid = jid, name = name, generation = self.generation, held = 0 });
	return self.requesters[#self.requesters];
end

-- -> requester | nil, "bad-address" | "full"
function oracle:take_in(jid)
	local token = self.codecs[self.format]:encode(jid);
	if not token then
		return nil, "bad-address";
	end
	local other = self.format == "short" and self:named(token);
	if other and other.jid ~= jid then
		token = self:digest(jid);
	end
	return self:add_requester(jid, (is_short(token) or is_digest(token)) and token or "");
end

function oracle:find_requester(jid)
	local requester = self:find(jid);
	if requester then
		return requester;
	end
	return self:take_in(jid);
end

-- (requester, format) -> what a backend that sees that format sees
function oracle:token(requester, format)
	local token = self.codecs[format]:encode(requester.jid);
	local is_named = requester.name ~= "" and (format == self.format or is_digest(token));
	return is_named and requester.name or token;
end

function oracle:format_of(sender)
	return self.pool:state(sender) and self.formats[sender] or self.format;
end

-- -> how many are pending of everybody with that bare JID
function oracle:held_by(jid)
	local count = 0;
	for _, requester in ipairs(self.requesters) do
		count = count + (bare(requester.jid) == bare(jid) and requester.held or 0);
	end
	return count;
end

-- (backend, address, id) -> the oldest request that this answers, its place
function oracle:request(backend, address, id)
	for place, request in ipairs(self.requests) do
		if request.backend == backend and request.address == address and request.id == id then
			return request, place;
		end
	end
end

-- -> backend, address | nil, code, what the backend that was tried is
function oracle:dispatch_to(backend, jid, service, id, time, deadline, retries, stanza)
	local requester, failure = self:find_requester(jid);
	if not requester then
		return nil, failure, backend;
	elseif #bare(service) > BARE_MAX then
		return nil, "bad-address", backend;
	end
	local address = bare(service).."/"..self:token(requester, self:format_of(backend));
	local other = self:request(backend, address, id);
	if id:find("[\0-\31]") then
		return nil, "bad-id", backend;
	elseif #self.requests >= self.max then
		return nil, "full", backend;
	elseif self:held_by(jid) >= self.max_each then
		return nil, "requester-full", backend;
	elseif other and other.service ~= service then
		return nil, "conflict", backend;
	end
	requester.held = requester.held + 1;
	table.insert(self.requests, {
		backend = backend, address = address, id = id, requester = requester, service = service;
		added = time, deadline = deadline, retries = retries or 0, stanza = (retries or 0) > 0 and stanza or nil;
	});
	return backend, address;
end

-- Why there is no backend
function oracle:none(wanted)
	return not wanted and #self.pool > 0 and not self.pool:serves() and "none-ready" or "no-backend";
end

function oracle:dispatch(jid, service, id, time, deadline, retries, stanza, wanted)
	local backend = wanted;
	if wanted and not self.pool:state(wanted) or not wanted then
		backend = not wanted and self.pool:pick(jid, service, self.pending) or nil;
	end
	if not backend then
		return nil, self:none(wanted);
	end
	local chosen, address = self:dispatch_to(backend, jid, service, id, time, deadline, retries, stanza);
	if not chosen and address == "conflict" and not wanted then
		backend = self.pool:pick(jid, service, self.pending, backend);
		if not backend then
			return nil, "conflict";
		end
		chosen, address = self:dispatch_to(backend, jid, service, id, time, deadline, retries, stanza);
	end
	return chosen, address;
end

-- -> backend, address | nil, code
function oracle:address(jid, service, wanted)
	local backend = not wanted and self.pool:pick_lasting(jid, service) or wanted and self.pool:state(wanted) and wanted;
	if not backend then
		return nil, self:none(wanted);
	end
	local requester, failure = self:find_requester(jid);
	if not requester then
		return nil, failure;
	elseif #bare(service) > BARE_MAX then
		return nil, "bad-address";
	end
	self:use(requester);
	return backend, bare(service).."/"..self:token(requester, self:format_of(backend));
end

-- (place in `requests`) -> the request, which is pending no longer
function oracle:remove(place)
	local request = table.remove(self.requests, place);
	request.requester.held = request.requester.held - 1;
	self:use(request.requester);
	return request;
end

function oracle:count_time(seconds)
	local place = 1;
	while core.ANSWER_TIMES[place] and seconds > core.ANSWER_TIMES[place] do
		place = place + 1;
	end
	self.times[place] = self.times[place] + 1;
	self.seconds = self.seconds + seconds;
end

function oracle:settle(backend, address, id, time)
	local request, place = self:request(backend, address, id);
	if not request then
		return nil;
	end
	self:remove(place);
	self.results = self.results + 1;
	self:count_time(time - request.added);
	return request.requester.jid, request.service, request.added;
end

function oracle:count_error(seconds)
	self.errors = self.errors + 1;
	self:count_time(seconds);
end

function oracle:counts()
	return self.results, self.errors, self.seconds, table.unpack(self.times);
end

-- -> jid, nil, the requester whose name it is, if it is one | nil, why not
function oracle:resolve(resource)
	local requester = (is_digest(resource) or is_short(resource)) and self:named(resource);
	if requester then
		return requester.jid, nil, requester;
	end
	local jid, code;
	for _, format in ipairs { "sealed", "signed", "short", "plain" } do
		jid, code = self.codecs[format]:decode(resource);
		if code ~= "bad-token" then
			break;
		end
	end
	return jid, code;
end

-- -> jid, nil, how | nil, why not
function oracle:reach(sender, resource)
	local jid, code, requester = self:resolve(resource);
	local how = requester and "a name" or "a JID";
	if not jid and self:format_of(sender) == "plain" and code ~= "digest" and #resource <= 1023 then
		requester = self:find_either(resource);
		jid, how = requester and resource, "a plain token";
	end
	if not jid then
		return nil, code;
	end
	requester = requester or self:find_either(jid);
	if not requester then
		requester, how = self:take_in(jid), "a JID of nobody in the book";
	end
	if requester then
		self:use(requester);
	end
	return jid, nil, how;
end

local BACKENDS = {};
for number, resource in ipairs { "a", "b", "c", "d" } do
	BACKENDS[number] = backend_jid(resource);
end

local SERVICES = { PROXY, PROXY.."/r", PROXY.."/s", "node@"..PROXY, "node@"..PROXY.."/r", "", ("s"):rep(BARE_MAX), ("s"):rep(BARE_MAX + 1) };
local IDS = { "", "1234", "1235", "id\n", ("i"):rep(100), "\255 &" };

-- (count) -> JIDs, of which some cannot be translated, some have something of another one, and some need a digest in some formats
local function some_jids(count)
	local jids = {
		"", ("j"):rep(JID_MAX + 1), BACKENDS[1], BACKENDS[2], "d"..("A"):rep(32), "l@h/\u{FC}", "l@h/\t";
		"l@h/"..("r"):rep(732), "l@h/"..("r"):rep(997), "l@h/"..("r"):rep(1020);
	};
	for number = 1, count do
		jids[#jids + 1] = random.element { "a@b", "c@b", "user"..number.."@h" }..random.element { "", "/", "/r", "/r/s", "/"..number };
	end
	return jids;
end

local TIMES = { 0, 0.0005, 0.001, 0.0015, 0.3, 1, 59.5, 100 };

-- What is compared, side by side: the exchange, and all that it was made of, and the oracle
local pair = {};
pair.__index = pair;

function pair.new(jids, strategy)
	local self = setmetatable({ jids = jids, time = 0, dispatched = 0, tokens = {}, codes = {} }, pair);
	self.backend_tokens = {}; -- by backend, of those that are there
	self.all_backend_tokens = {}; -- by the number of the key and the backend
	local seed, key = random.bytes(core.POOL_SEEDBYTES), random.bytes(core.JAT_KEYBYTES);
	self.pool, self.twin = core.pool(seed), core.pool(seed);
	self:both_pools("set_strategy", strategy, ("k"):rep(core.POOL_KEYBYTES));
	self.pending, self.book = new_pending(random.bytes(core.PENDING_SEEDBYTES));
	self.keys = { key };
	self.slow = oracle.new(random.element(core.FORMATS), key, self.twin, self.pending);
	self:begin();
	return self;
end

function pair:both_pools(method, ...)
	self.pool[method](self.pool, ...);
	self.twin[method](self.twin, ...);
end

-- Makes the exchange, with a codec that has the last two keys.
function pair:begin()
	self.jat = core.jat(PROXY, self.slow.format);
	for number = math.max(1, #self.keys - 1), #self.keys do
		self.jat:add_key(number % 256, self.keys[number]);
	end
	self.exchange = core.exchange(self.jat, self.book, self.pool, self.pending);
end

-- What has come of a step
function pair:count(step, code)
	local what = step..": "..code;
	self.codes[what] = (self.codes[what] or 0) + 1;
end

local steps_of = {};

function steps_of.dispatch(self)
	local wanted = math.random(3) == 1 and random.element(BACKENDS) or nil;
	local retries = random.element { false, 0, 1, 255 } or nil;
	local stanza = (retries or 0) > 0 and { name = "iq" } or nil;
	self.dispatched = self.dispatched + 1;
	local deadline = self.time + random.element(TIMES) + self.dispatched / 1024; -- no two have the same
	local jid, service, id = random.element(self.jids), random.element(SERVICES), random.element(IDS);
	if math.random(2) == 1 then -- what looks like another one
		jid, service, id = self.jids[#self.jids], SERVICES[math.random(3)], IDS[2];
	end
	local expected = { self.slow:dispatch(jid, service, id, self.time, deadline, retries, stanza, wanted) };
	local got = { self.exchange:dispatch(jid, service, id, self.time, deadline, retries, stanza, wanted) };
	expect.same({ expected[1], expected[2] }, got, "dispatch");
	expect.equal(2, #got + (got[1] and 0 or 2 - #got), "dispatch: number of what is returned");
	self:count("dispatch", expected[1] and "ok" or expected[2]);
	if expected[1] then
		table.insert(self.tokens, expected[2]:match("/(.*)"));
	end
end

-- -> what an answer carries: mostly that of a request which is pending
local function some_answer(self)
	local request = #self.slow.requests > 0 and math.random(5) > 1 and random.element(self.slow.requests);
	if request then
		return request.backend, request.address, request.id;
	end
	return random.element(BACKENDS), random.element(SERVICES).."/"..(random.element(self.tokens) or ""), random.element(IDS);
end

function steps_of.settle(self)
	local backend, address, id = some_answer(self);
	local expected = { self.slow:settle(backend, address, id, self.time) };
	expect.same(expected, { self.exchange:settle(backend, address, id, self.time) }, "settle");
end

local function expect_taken(request, ...)
	if not request then
		expect.same({}, { ... }, "nothing is taken");
		return;
	end
	expect.same({
		request.requester.jid, request.service, request.id, request.backend, request.added, request.deadline, request.retries, request.stanza;
	}, { ... }, "what is taken");
end

function steps_of.take(self)
	local backend, address, id = some_answer(self);
	local _, place = self.slow:request(backend, address, id);
	local request = place and self.slow:remove(place);
	expect_taken(request, self.pending:take(backend, address, id));
	if request then
		self.slow:count_error(self.time - request.added);
		self.exchange:count_error(self.time - request.added);
	end
end

function steps_of.count_error(self)
	local seconds = random.element(TIMES);
	self.slow:count_error(seconds);
	self.exchange:count_error(seconds);
end

function pair:admit(backend)
	local is_new = self.twin:add(backend);
	expect.equal(is_new, self.exchange:admit(backend), "admit");
	local token, all, name = self.pool:token(backend), self.all_backend_tokens, #self.keys.." "..backend;
	if is_new then
		expect.that(is_backend_token(token), "%q, the token of %s", token, backend);
		expect.equal(all[name] or token, token, "token of %s, as before", backend);
		all[name] = token;
		self.backend_tokens[backend] = token;
	end
	expect.equal(self.backend_tokens[backend], token, "token of %s", backend);
end

function steps_of.come(self)
	self:admit(random.element(BACKENDS));
end

function steps_of.backend(self)
	local _, token = next(self.all_backend_tokens, random.element { next(self.all_backend_tokens), nil });
	token = random.element { token or "b", self.backend_tokens[random.element(BACKENDS)] or "", random.element(self.jids) };
	if math.random(4) == 1 then
		token = token:sub(1, -2);
	end
	local expected;
	for backend, each in pairs(self.backend_tokens) do
		expected = each == token and backend or expected;
	end
	local backend, looks = self.exchange:backend(token);
	expect.equal(expected, backend, "whose backend token that is");
	expect.equal(not expected and is_backend_token(token) or nil, looks or nil, "whether it looks like one");
end

function steps_of.address(self)
	local wanted = math.random(3) == 1 and random.element(BACKENDS) or nil;
	local jid, service = random.element(self.jids), random.element(SERVICES);
	local expected = { self.slow:address(jid, service, wanted) };
	expect.same(expected, { self.exchange:address(jid, service, wanted) }, "address");
	self:count("address", expected[1] and "ok" or expected[2]);
	if expected[1] then
		table.insert(self.tokens, expected[2]:match("/(.*)"));
	end
end

-- A backend goes: what it has is abandoned, and taken out.
function steps_of.go(self)
	local backend = random.element(BACKENDS);
	if math.random(3) > 1 then
		return;
	end
	self:both_pools("remove", backend);
	self.slow.formats[backend], self.backend_tokens[backend] = nil, nil;
	self.pending:abandon(backend);
	while self.pending:has_abandoned() do
		local taken = { self.pending:take_abandoned() };
		for place, request in ipairs(self.slow.requests) do
			if request.deadline == taken[6] then
				expect.equal(backend, request.backend, "whose was abandoned");
				expect_taken(self.slow:remove(place), table.unpack(taken, 1, 8));
				break;
			end
		end
	end
end

function steps_of.set_state(self)
	self:both_pools("set_state", random.element(BACKENDS), random.element { "ready", "ready", "suspended", "away" });
end

function steps_of.set_format(self)
	local backend, format = random.element(BACKENDS), random.element { "short", "sealed", "signed", "plain", false } or nil;
	if self.pool:set_format(backend, format) or self.pool:state(backend) then
		self.slow.formats[backend] = format;
	end
end

function steps_of.set_limits(self)
	if math.random(4) == 1 then
		self.slow.max, self.slow.max_each = math.random(0, 40), math.random(0, 10);
		self.pending:set_limits(self.slow.max, self.slow.max_each);
	end
end

function steps_of.set_max(self)
	if math.random(2) == 1 then
		self.slow.max_requesters = math.random(math.random(20));
		self.book:set_max(self.slow.max_requesters);
	end
end

function steps_of.renew_key(self)
	if math.random(10) == 1 then
		if math.random(3) > 1 then -- else it has only another name
			local key = random.bytes(core.JAT_KEYBYTES);
			table.insert(self.keys, key);
			self.jat:add_key(#self.keys % 256, key);
			self.slow:set_key(#self.keys % 256, key);
		end
		self.book:new_generation();
		self.slow.generation = self.slow.generation + 1;
	end
end

-- As a reload does, with another format
function steps_of.renew_format(self)
	if math.random(10) == 1 then
		local format = random.element(core.FORMATS);
		if format ~= self.slow.format then
			self.book:new_generation();
			self.slow.generation = self.slow.generation + 1;
		end
		self.slow:begin(format);
		self:begin();
	end
end

-- Somebody has the short token of another one, by the chance of 2^-72.
function steps_of.coincide(self)
	local jid = random.element(self.jids);
	local token = self.slow.codecs.short:encode(jid);
	if self.slow.format == "short" and token and not self.slow:named(token) then
		local other = ("coincident%d@h"):format(math.random(1 << 40));
		local expected = { self.slow:add_requester(other, token) };
		expect.equal(expected[2], select(2, self.book:add(other, read_base64url(token:sub(2)))), "add");
	end
end

-- -> who sends something, to which resource
local function some_address(self)
	-- one that was made lately, as older ones are of formats and keys that have gone
	local recent = self.tokens[#self.tokens - math.random(0, math.min(#self.tokens, 20))];
	local token = math.random(3) > 1 and recent or random.element(self.jids);
	local sender = math.random(2) == 1 and random.element(BACKENDS) or random.element(self.jids);
	return sender, token or "";
end

function steps_of.resolve(self)
	local _, token = some_address(self);
	local expected = { self.slow:resolve(token) };
	local got = { self.exchange:resolve(token) };
	expect.equal(expected[1], got[1], "resolve");
	expect.equal(expected[2], got[2], "resolve: why not");
	self:count("resolve", expected[2] or "ok");
end

function steps_of.reach(self)
	local sender, token = some_address(self);
	local jid, code, how = self.slow:reach(sender, token);
	local got = { self.exchange:reach(sender, token) };
	expect.equal(jid, got[1], "reach");
	expect.equal(code, got[2], "reach: why not");
	self:count("reach", code or how);
end

local STEPS = {
	"dispatch", "dispatch", "dispatch", "dispatch", "settle", "settle", "take", "count_error", "come", "go", "set_state";
	"set_format", "set_limits", "set_max", "renew_key", "renew_format", "coincide", "resolve", "resolve", "address";
	"address", "reach", "reach", "reach", "backend";
};

function pair:compare()
	expect.same({ self.slow:counts() }, { self.exchange:counts() }, "counts");
	expect.equal(#self.slow.requests, #self.pending, "number of requests");
	expect.equal(#self.slow.requesters, #self.book, "number of requesters");
	local jid = random.element(self.jids);
	expect.equal((self.slow:find(jid) or {}).name or "none", self.book:find(jid) and self:name_in_book(jid) or "none", "name");
end

function pair:name_in_book(jid)
	local name = self.book:find(jid);
	return name == "" and "" or (#name == 9 and "q" or "d")..write_base64url(name);
end

local function run_sequence(jids, strategy, steps, codes)
	local subject, step, name = pair.new(jids, strategy), 0, nil;
	subject.codes = codes;
	for _, backend in ipairs(BACKENDS) do
		subject:admit(backend);
	end
	local succeeded, failure = pcall(function ()
		while step < steps do
			step = step + 1;
			name = random.element(STEPS);
			steps_of[name](subject);
			subject:compare();
			subject.time = subject.time + (math.random(3) == 1 and random.element(TIMES) or 0);
		end
	end);
	if not succeeded then
		error(("step %d, %s: %s"):format(step, name, failure), 0);
	end
end

describe("core.exchange", function ()
	local jat, book, pool, pending, exchange;

	local function new_exchange(format)
		jat = core.jat(PROXY, format or "short");
		jat:add_key(1, ("k"):rep(core.JAT_KEYBYTES));
		exchange = core.exchange(jat, book, pool, pending);
	end

	before_each(function ()
		random.restart();
		pool = core.pool(("s"):rep(core.POOL_SEEDBYTES));
		pool:add(BACKENDS[1]);
		pending, book = new_pending(("s"):rep(core.PENDING_SEEDBYTES));
		new_exchange();
	end);

	local function ask(requester, service, id, ...)
		return exchange:dispatch(requester or REQUESTER, service or PROXY, id or "1234", 0, 60, ...);
	end

	local function expect_code(code, ...)
		assert.same({ n = 2, nil, code }, table.pack(...));
	end

	describe("does what lists do,", function ()
		local codes = {};

		for number, strategy in ipairs(core.STRATEGIES) do
			it("with the strategy "..strategy, function ()
				random.bytes(64 * number); -- so that each has sequences of its own
				for _ = 1, process.turns(40, 15) do
					run_sequence(some_jids(random.element { 1, 5, 30 }), strategy, process.turns(500, 300), codes);
				end
			end);
		end

		-- What comes of a step that has not come of any yet | nil
		local function missing()
			for step, possible in pairs {
				dispatch = { "ok", "no-backend", "none-ready", "bad-address", "full", "requester-full", "conflict", "bad-id" };
				resolve = { "ok", "short", "digest", "plain", "bad-token" };
				address = { "ok", "no-backend", "none-ready", "bad-address", "full" };
				reach = { "a name", "a JID", "a plain token", "a JID of nobody in the book", "short", "digest", "plain", "bad-token" };
			} do
				for _, code in ipairs(possible) do
					if not codes[step..": "..code] then
						return step..", "..code;
					end
				end
			end
		end

		-- Chance may have left out something that is rare, where there are few turns.
		it("in all that can come of it", function ()
			for _ = 1, 500 do
				if not missing() then
					break;
				end
				run_sequence(some_jids(5), random.element(core.STRATEGIES), 300, codes);
			end
			assert.is_nil(missing());
		end);
	end);

	describe("refuses, and says", function ()
		it("no-backend: there is none to choose, or not the one that is wanted; none-ready: all there are are away", function ()
			pool:set_state(BACKENDS[1], "away");
			expect_code("none-ready", ask());
			expect_code("none-ready", exchange:address(REQUESTER, PROXY));
			expect_code("none-ready", ask(BACKENDS[1]));
			assert.equal(BACKENDS[1], (ask(nil, nil, nil, 0, nil, BACKENDS[1])));
			expect_code("no-backend", ask(nil, nil, nil, 0, nil, BACKENDS[2]));
			expect_code("no-backend", ask(nil, nil, nil, 0, nil, ""));
			pool:remove(BACKENDS[1]);
			expect_code("no-backend", ask(nil, nil, nil, 0, nil, BACKENDS[1]));
			expect_code("no-backend", ask());
		end);

		it("no-backend: the requester is the only one", function ()
			expect_code("no-backend", ask(BACKENDS[1]));
			assert.equal(0, #book);
		end);

		it("bad-address: a requester that has no JID, or too long a one", function ()
			expect_code("bad-address", ask(""));
			expect_code("bad-address", ask(("j"):rep(JID_MAX + 1)));
			assert.equal(BACKENDS[1], (ask(("j"):rep(JID_MAX))));
			assert.equal(1, #book);
		end);

		it("bad-address: no key to translate one by", function ()
			exchange = core.exchange(core.jat(PROXY, "sealed"), book, pool, pending);
			expect_code("bad-address", ask());
		end);

		it("bad-address: no key in the format of the backend", function ()
			ask();
			exchange = core.exchange(core.jat(PROXY, "short"), book, pool, pending);
			pool:set_format(BACKENDS[1], "sealed");
			expect_code("bad-address", ask(nil, nil, "another"));
		end);

		it("bad-address: a bare service address that is too long", function ()
			expect_code("bad-address", ask(nil, ("s"):rep(BARE_MAX + 1)));
			local _, address = ask(nil, ("s"):rep(BARE_MAX).."/"..("r"):rep(1023));
			assert.equal(("s"):rep(BARE_MAX).."/"..jat:encode(REQUESTER), address);
			assert.equal(1, #pending);
		end);

		it("full: as many requests are pending as may be", function ()
			pending:set_limits(1, 10);
			ask();
			expect_code("full", ask("other@h"));
		end);

		it("full: everybody in the book has something pending", function ()
			book:set_max(2);
			local _, first = ask();
			ask("other@h");
			expect_code("full", ask("another@h"));
			assert.equal(2, #pending);
			exchange:settle(BACKENDS[1], first, "1234", 1);
			assert.equal(BACKENDS[1], (ask("another@h")));
			assert.is_nil(book:find(REQUESTER));
		end);

		it("requester-full: one has as many pending as may be, with all its resources", function ()
			pending:set_limits(10, 1);
			ask();
			expect_code("requester-full", ask(bare(REQUESTER).."/other", nil, "1235"));
			assert.equal(BACKENDS[1], (ask("other@h")));
		end);

		it("conflict: all have a request that looks the same and is another one", function ()
			ask(nil, PROXY.."/r");
			expect_code("conflict", ask(nil, PROXY.."/s"));
			assert.equal(BACKENDS[1], (ask(nil, PROXY.."/r")));
			assert.equal(BACKENDS[1], (ask(nil, PROXY.."/s", "1235")));
			assert.equal(BACKENDS[1], (ask(nil, "node@"..PROXY.."/s")));
		end);

		it("bad-id: a control character is in the id", function ()
			expect_code("bad-id", ask(nil, nil, "1\n2"));
			assert.equal(0, #pending);
		end);
	end);

	it("tries another backend where one has a request that looks the same", function ()
		pool:add(BACKENDS[2]);
		local first = ask(nil, PROXY.."/r");
		local second = ask(nil, PROXY.."/s");
		assert.not_equal(first, second);
		assert.truthy(second);
		expect_code("conflict", ask(nil, PROXY.."/t"));
		expect_code("conflict", ask(nil, PROXY.."/s", nil, 0, nil, first));
	end);

	it("tries one that is suspended then, if no other one is ready", function ()
		pool:add(BACKENDS[2]);
		pool:set_state(BACKENDS[2], "suspended");
		assert.equal(BACKENDS[1], (ask(nil, PROXY.."/r")));
		assert.equal(BACKENDS[2], (ask(nil, PROXY.."/s")));
	end);

	it("never tries the requester itself", function ()
		pool:add(BACKENDS[2]);
		for number = 1, 100 do
			assert.equal(BACKENDS[1], (ask(BACKENDS[2], PROXY.."/r", "id"..number)));
			expect_code("conflict", ask(BACKENDS[2], PROXY.."/s", "id"..number));
		end
	end);

	it("sends a requester one address, as long as it is remembered, and each backend sees it in its format", function ()
		pool:add(BACKENDS[2]);
		pool:set_format(BACKENDS[2], "plain");
		for number = 1, 50 do
			local backend, address = ask(nil, PROXY.."/"..number, "id"..number);
			assert.equal(PROXY.."/"..(backend == BACKENDS[2] and REQUESTER or jat:encode(REQUESTER)), address);
			assert.same({ REQUESTER, PROXY.."/"..number, 0 }, { exchange:settle(backend, address, "id"..number, 1) });
		end
		pool:set_format(BACKENDS[2]);
		assert.same({ BACKENDS[2], PROXY.."/"..jat:encode(REQUESTER) }, { ask(nil, nil, nil, 0, nil, BACKENDS[2]) });
	end);

	it("writes tokens of each format", function ()
		for _, format in ipairs(core.FORMATS) do
			book:new_generation();
			new_exchange(format);
			local long, unprintable = "l@h/"..("r"):rep(1020), "l@h/\u{FC}";
			for number, jid in ipairs { REQUESTER, long, unprintable } do
				local _, address = ask(jid, nil, format..number);
				assert.equal(PROXY.."/"..jat:encode(jid), address);
				local resolved, reason = exchange:resolve(address:sub(#PROXY + 2));
				if format == "plain" and number == 1 then
					assert.equal("plain", reason);
				else
					assert.equal(jid, resolved);
				end
			end
		end
	end);

	it("keeps a requester's digest over a change of the format", function ()
		local long = "l@h/"..("r"):rep(1020);
		local digest;
		for _, format in ipairs { "sealed", "signed", "plain", "sealed" } do
			book:new_generation();
			new_exchange(format);
			local _, address = ask(long, nil, format);
			digest = digest or address;
			assert.equal(digest, address);
			assert.equal(long, exchange:resolve(address:sub(#PROXY + 2)));
			assert.equal(long, (exchange:settle(BACKENDS[1], address, format, 1)) or nil);
		end
	end);

	it("tells short tokens of the last key, and no older ones", function ()
		local _, address = ask();
		local token = address:sub(#PROXY + 2);
		exchange:settle(BACKENDS[1], address, "1234", 1);
		jat:add_key(2, ("l"):rep(core.JAT_KEYBYTES));
		book:new_generation();
		local _, second = ask();
		assert.not_equal(address, second);
		assert.equal(REQUESTER, exchange:resolve(token));
		assert.equal(REQUESTER, exchange:resolve(second:sub(#PROXY + 2)));
		jat:add_key(3, ("m"):rep(core.JAT_KEYBYTES));
		book:new_generation();
		expect_code("short", exchange:resolve(token));
		assert.equal(REQUESTER, exchange:resolve(second:sub(#PROXY + 2)));
	end);

	it("keeps a requester's short token in a new generation under the same key", function ()
		local _, address = ask();
		book:new_generation();
		assert.equal(address, (select(2, ask(nil, nil, "another"))));
		assert.equal(REQUESTER, exchange:resolve(address:sub(#PROXY + 2)));
		assert.equal(2, #book);
	end);

	it("gives a digest to a requester whose short token is another one's", function ()
		local token = jat:encode(REQUESTER);
		assert(book:add("other@h", read_base64url(token:sub(2))));
		local _, address = ask();
		assert.is_true(is_digest(address:sub(#PROXY + 2)));
		assert.equal("other@h", exchange:resolve(token));
		assert.equal(REQUESTER, exchange:resolve(address:sub(#PROXY + 2)));
		assert.equal(PROXY.."/"..token, select(2, ask("other@h")));
		assert.equal(REQUESTER, (exchange:settle(BACKENDS[1], address, "1234", 1)));
	end);

	it("forgets who has been idle for the longest, and nobody who has something pending", function ()
		book:set_max(3);
		local addresses = {};
		for number = 1, 3 do
			addresses[number] = select(2, ask("user"..number.."@h"));
		end
		exchange:settle(BACKENDS[1], addresses[2], "1234", 1);
		exchange:settle(BACKENDS[1], addresses[1], "1234", 1);
		ask("user4@h");
		assert.same({ true, false, true, true }, {
			book:find("user1@h") ~= nil, book:find("user2@h") ~= nil, book:find("user3@h") ~= nil, book:find("user4@h") ~= nil;
		});
		expect_code("short", exchange:resolve(addresses[2]:sub(#PROXY + 2)));
		assert.equal(PROXY.."/"..jat:encode("user2@h"), (select(2, ask("user2@h")))); -- for whom user1 goes
		assert.is_nil(book:find("user1@h"));
		assert.equal("user3@h", (exchange:settle(BACKENDS[1], addresses[3], "1234", 1)));
	end);

	describe("admit", function ()
		it("makes a backend with a token of its own, which stays as long as the backend", function ()
			assert.is_true(exchange:admit(BACKENDS[2]));
			local token = pool:token(BACKENDS[2]);
			assert.truthy(token:find("^b[%w_-]+$"));
			assert.equal(13, #token);
			assert.is_false(exchange:admit(BACKENDS[2]));
			jat:add_key(2, ("l"):rep(core.JAT_KEYBYTES));
			assert.is_false(exchange:admit(BACKENDS[2]));
			assert.equal(token, pool:token(BACKENDS[2]));
			assert.equal(BACKENDS[2], exchange:backend(token));
			pool:remove(BACKENDS[2]);
			assert.same({ nil, true }, { exchange:backend(token) });
			exchange:admit(BACKENDS[2]);
			assert.not_equal(token, pool:token(BACKENDS[2])); -- of another key
		end);

		it("makes the same token in every format, which is nobody's as a requester", function ()
			local token;
			for _, format in ipairs(core.FORMATS) do
				book:new_generation();
				new_exchange(format);
				assert.is_true(exchange:admit(BACKENDS[2]));
				token = token or pool:token(BACKENDS[2]);
				assert.equal(token, pool:token(BACKENDS[2]));
				assert.is_nil(exchange:resolve(token));
				assert.is_nil(exchange:reach(BACKENDS[1], token));
				ask(BACKENDS[2], nil, format);
				assert.not_equal(token:sub(2), jat:encode(BACKENDS[2]):sub(2));
				assert.is_nil(exchange:reach(BACKENDS[1], token));
				pool:remove(BACKENDS[2]);
			end
		end);

		it("makes one of a JID that no codec takes, and gives it no token", function ()
			for _, jid in ipairs { "", ("j"):rep(JID_MAX + 1) } do
				assert.is_true(exchange:admit(jid));
				assert.equal("", pool:token(jid));
			end
			assert.same({ nil, false }, { exchange:backend("") });
			assert.is_true(exchange:admit(("j"):rep(JID_MAX)));
			assert.equal(13, #pool:token(("j"):rep(JID_MAX)));
		end);

		it("gives a second token where one is taken", function ()
			exchange:admit(BACKENDS[2]);
			local token = pool:token(BACKENDS[2]);
			pool:remove(BACKENDS[2]);
			assert.is_true(pool:add("other", token));
			assert.is_true(exchange:admit(BACKENDS[2]));
			assert.equal(33, #pool:token(BACKENDS[2]));
			assert.equal("other", exchange:backend(token));
			assert.equal(BACKENDS[2], exchange:backend(pool:token(BACKENDS[2])));
		end);
	end);

	it("tells backends' tokens by their form", function ()
		local twelve = ("A"):rep(12);
		for _, looks in ipairs { "b"..twelve, "b"..("A"):rep(32), "b"..("-_"):rep(6) } do
			assert.same({ nil, true }, { exchange:backend(looks) });
		end
		for _, not_one in ipairs { "", "b", "B"..twelve, "q"..twelve, "d"..("A"):rep(32), "b"..twelve.."A", "b"..("A"):rep(11), "b"..twelve.."\0",
			"b"..("A"):rep(11).."=", "b"..("A"):rep(11).."+", "b"..("A"):rep(11).."\255", "b"..("A"):rep(16), ("b"):rep(4000) } do
			assert.same({ nil, false }, { exchange:backend(not_one) });
		end
	end);

	describe("address", function ()
		it("records nothing, and takes the requester into the book", function ()
			assert.same({ BACKENDS[1], PROXY.."/"..jat:encode(REQUESTER) }, { exchange:address(REQUESTER, PROXY.."/r") });
			assert.equal(0, #pending);
			assert.equal(REQUESTER, exchange:resolve(jat:encode(REQUESTER)));
			expect_code("no-backend", exchange:address(BACKENDS[1], PROXY));
		end);

		it("is at the backend that is wanted, whatever its state", function ()
			exchange:admit(BACKENDS[2]);
			for _, state in ipairs { "suspended", "away", "ready" } do
				pool:set_state(BACKENDS[2], state);
				assert.equal(BACKENDS[2], (exchange:address(REQUESTER, PROXY, BACKENDS[2])));
			end
			expect_code("no-backend", exchange:address(REQUESTER, PROXY, BACKENDS[3]));
		end);

		it("is at the same backend again and again, whatever the strategy, and is no turn", function ()
			for number = 2, 4 do
				exchange:admit(BACKENDS[number]);
			end
			for _, strategy in ipairs(core.STRATEGIES) do
				pool:set_strategy(strategy, ("k"):rep(core.POOL_KEYBYTES));
				local first = exchange:address(REQUESTER, PROXY);
				for number = 1, 20 do
					ask(nil, nil, strategy..number);
					assert.equal(first, (exchange:address(REQUESTER, PROXY)));
				end
			end
		end);

		it("says what is wrong", function ()
			expect_code("bad-address", exchange:address("", PROXY));
			expect_code("bad-address", exchange:address(REQUESTER, ("s"):rep(BARE_MAX + 1)));
			book:set_max(1);
			ask();
			expect_code("full", exchange:address("other@h", PROXY));
			pool:remove(BACKENDS[1]);
			expect_code("no-backend", exchange:address(REQUESTER, PROXY));
		end);
	end);

	it("has who was addressed or reached for the last one to be forgotten", function ()
		for _, how in ipairs {
			function (jid) return exchange:address(jid, PROXY) and jid; end;
			function (jid) return exchange:reach(BACKENDS[1], jat:encode(jid)); end;
		} do
			new_exchange();
			book:new_generation();
			book:set_max(3);
			for number = 1, 3 do
				exchange:address("user"..number.."@h", PROXY);
			end
			assert.equal("user1@h", how("user1@h"));
			exchange:address("user4@h", PROXY);
			assert.same({ true, false, true }, { book:knows("user1@h"), book:knows("user2@h"), book:knows("user3@h") });
			local _, address = ask("user1@h"); -- and who has something pending is not idle
			assert.equal("user1@h", how("user1@h"));
			exchange:address("user5@h", PROXY);
			exchange:address("user6@h", PROXY);
			assert.is_true(book:knows("user1@h"));
			assert.equal("user1@h", (exchange:settle(BACKENDS[1], address, "1234", 1)));
		end
	end);

	describe("reach", function ()
		local function token_in(format)
			local codec = core.jat(PROXY, format);
			codec:add_key(1, ("k"):rep(core.JAT_KEYBYTES));
			return codec:encode(REQUESTER);
		end

		for _, format in ipairs(core.FORMATS) do
			for _, own in ipairs { false, "sealed", "signed", "plain" } do
				it(("in the format %s, by one that sees %s tokens"):format(format, own or "the same"), function ()
					local seen = own or format;
					local needs_book = seen == "short" or seen == "plain";
					new_exchange(format);
					pool:set_format(BACKENDS[1], own or nil);
					local token = token_in(seen);
					if needs_book then
						expect_code(seen, exchange:reach(BACKENDS[1], token));
						assert.equal(0, #book);
						exchange:address(REQUESTER, PROXY);
					end
					assert.equal(REQUESTER, exchange:reach(BACKENDS[1], token));
					assert.is_true(book:knows(REQUESTER));
					book:new_generation();
					assert.equal(REQUESTER, exchange:reach(BACKENDS[1], token));
					book:new_generation();
					if needs_book then
						expect_code(seen, exchange:reach(BACKENDS[1], token));
					end
					assert.equal(not needs_book, exchange:reach(BACKENDS[1], token) == REQUESTER);
					for _, forged in ipairs { token.."A", token:sub(2), token:sub(1, -5).."AAAA" } do
						assert.is_nil(exchange:reach(BACKENDS[1], forged));
					end
				end);
			end
		end

		it("is by digests, too, in every format", function ()
			local long, unprintable = "l@h/"..("r"):rep(1020), "l@h/\u{FC}";
			for _, format in ipairs(core.FORMATS) do
				book:new_generation();
				new_exchange(format);
				for _, jid in ipairs { long, unprintable } do
					local _, address = exchange:address(jid, PROXY);
					local token = address:sub(#PROXY + 2);
					assert.equal(jid, exchange:reach(BACKENDS[1], token));
					book:new_generation();
					assert.equal(jid, exchange:reach(BACKENDS[1], token));
				end
			end
		end);

		-- So does a Jicofo, where nobody asks for a format
		it("is by the name in the book, where a backend that sees another format would see a digest", function ()
			for _, own in ipairs { "plain", "signed", "sealed" } do
				pool:set_format(BACKENDS[1], own);
				for number, jid in ipairs { "l@h/"..("r"):rep(1020), "l@h/\u{FC}"..own, "d"..("A"):rep(32) } do
					local _, address = ask(jid, nil, own..number);
					local token = address:sub(#PROXY + 2);
					assert.equal(jid, exchange:resolve(token));
					assert.equal(jid, exchange:reach(BACKENDS[1], token));
					assert.is_true(#token <= 1023);
					assert.equal(jid, (exchange:settle(BACKENDS[1], address, own..number, 1)));
				end
			end
		end);

		it("takes a plain token for a name only if that is in the book", function ()
			local looks = "qAAAAAAAAAAAA"; -- can be the JID of a host
			pool:set_format(BACKENDS[1], "plain");
			expect_code("short", exchange:reach(BACKENDS[1], looks));
			exchange:address(looks, PROXY);
			assert.equal(looks, exchange:reach(BACKENDS[1], looks));
		end);

		it("finds plain tokens of whoever is in the book, without a node and with any bytes", function ()
			new_exchange("plain");
			for _, jid in ipairs { "h", "h/r@s", "l@h", "l@h/\u{FC}", ("j"):rep(1023) } do
				assert.is_nil(exchange:reach(BACKENDS[1], jid));
				exchange:address(jid, PROXY);
				assert.equal(jid, exchange:reach(BACKENDS[1], jid));
			end
			exchange:address(("j"):rep(1024), PROXY);
			expect_code("bad-token", exchange:reach(BACKENDS[1], ("j"):rep(1024)));
			assert.is_nil(exchange:reach(BACKENDS[1], ""));
			assert.is_nil(exchange:reach(BACKENDS[1], BACKENDS[1]));
		end);

		it("uses the one whose token it is, where the last key's is there, too", function ()
			local old = jat:encode(REQUESTER);
			exchange:address(REQUESTER, PROXY);
			jat:add_key(2, ("l"):rep(core.JAT_KEYBYTES));
			book:new_generation();
			exchange:address(REQUESTER, PROXY);
			exchange:address("other@h", PROXY);
			book:set_max(3);
			assert.equal(REQUESTER, exchange:reach(BACKENDS[1], old));
			exchange:address("another@h", PROXY);
			assert.is_nil(book:find(REQUESTER));
			assert.equal(REQUESTER, exchange:reach(BACKENDS[1], old));
		end);

		it("is as good where the book is full", function ()
			new_exchange("sealed");
			book:set_max(1);
			ask("other@h");
			assert.equal(REQUESTER, exchange:reach(BACKENDS[1], token_in("sealed")));
			assert.is_false(book:knows(REQUESTER));
		end);
	end);

	describe("keeps a stanza", function ()
		local stanzas;

		before_each(function ()
			stanzas = setmetatable({}, { __mode = "v" });
		end);

		local function ask_with(stanza, ...)
			stanzas[1] = stanza;
			return ask(nil, ..., nil, 1, stanza);
		end

		local function is_kept()
			collectgarbage();
			collectgarbage();
			return stanzas[1] ~= nil;
		end

		it("until the result comes", function ()
			local _, address = ask_with({ name = "iq" });
			assert.is_true(is_kept());
			exchange:settle(BACKENDS[1], address, "1234", 1);
			assert.is_false(is_kept());
		end);

		it("and gives it back with an error, or at the deadline", function ()
			do
				local stanza = { name = "iq" };
				local _, address = ask_with(stanza);
				assert.equal(stanza, (select(8, pending:take(BACKENDS[1], address, "1234"))));
				ask_with(stanza);
				assert.equal(stanza, (select(8, pending:expire(60))));
			end
			assert.is_false(is_kept());
		end);

		it("not where there is no retry, or it is too large", function ()
			ask(nil, nil, nil, 0, stanzas);
			assert.is_nil(select(8, pending:expire(60)));
			ask(nil, nil, nil, 1, { ("x"):rep(10000) });
			assert.same({ 0, nil }, { select(7, pending:expire(60)) });
		end);

		it("not of what is refused, nor twice of what a second backend gets", function ()
			local _, first = ask(nil, PROXY.."/r");
			expect_code("conflict", ask_with({ name = "iq" }, PROXY.."/s"));
			assert.is_false(is_kept());
			pool:add(BACKENDS[2]);
			local backend, address = ask_with({ name = "iq" }, PROXY.."/s");
			assert.equal(BACKENDS[2], backend);
			assert.is_true(is_kept());
			exchange:settle(BACKENDS[2], address, "1234", 1);
			assert.is_false(is_kept());
			exchange:settle(BACKENDS[1], first, "1234", 1);
		end);
	end);

	describe("counts", function ()
		it("nothing at first", function ()
			assert.same({ 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }, { exchange:counts() });
		end);

		-- (place, count) -> counts of times, all in that place
		local function all_in(place, count)
			local times = {};
			for each = 1, #core.ANSWER_TIMES + 1 do
				times[each] = each == place and count or 0;
			end
			return times;
		end

		local function answer_after(seconds)
			local _, address = exchange:dispatch(REQUESTER, PROXY, "id", 1000, 2000);
			exchange:settle(BACKENDS[1], address, "id", 1000 + seconds);
		end

		for place, bound in ipairs(core.ANSWER_TIMES) do
			it(("%g s among the times up to that, and what is longer behind it"):format(bound), function ()
				local last = core.ANSWER_TIMES[place - 1] or -1;
				for _, seconds in ipairs { last + (bound - last) * 0.001, bound } do
					new_exchange();
					exchange:count_error(seconds);
					assert.same({ 0, 1, seconds, table.unpack(all_in(place, 1)) }, { exchange:counts() });
				end
				new_exchange();
				exchange:count_error(bound * (1 + 2 ^ -52));
				assert.same(all_in(place + 1, 1), { select(4, exchange:counts()) });
			end);
		end

		it("results with the time from when they were asked for", function ()
			answer_after(2);
			answer_after(0);
			answer_after(100);
			exchange:count_error(0.25);
			local times = all_in(1, 1);
			times[6], times[8], times[12] = 1, 1, 1;
			assert.same({ 3, 1, 102.25, table.unpack(times) }, { exchange:counts() });
		end);

		it("neither what nobody waits for, nor what is taken", function ()
			exchange:settle(BACKENDS[1], PROXY.."/nobody", "id", 1);
			local _, address = ask();
			pending:take(BACKENDS[1], address, "1234");
			assert.same({ 0, 0, 0, table.unpack(all_in(1, 0)) }, { exchange:counts() });
		end);
	end);

	it("has what it was made of for as long as itself", function ()
		pool:add(BACKENDS[2]);
		local weak = setmetatable({ jat, book, pool, pending }, { __mode = "v" });
		jat, book, pool, pending = nil, nil, nil, nil;
		collectgarbage();
		collectgarbage();
		assert.equal(4, #weak);
		local backend, address = ask();
		assert.equal(REQUESTER, (exchange:settle(backend, address, "1234", 1)));
		exchange = nil;
		collectgarbage();
		collectgarbage();
		assert.is_nil(next(weak));
	end);

	it("gives back its memory", function ()
		process.stays_flat(function ()
			for i = 1, process.turns(5000, 100) do
				local _, address = ask("user"..i % 10 .."@h", nil, nil, 1, { name = "iq" });
				exchange:settle(BACKENDS[1], address, "1234", 1);
				new_exchange();
				if i % 100 == 0 then
					collectgarbage();
				end
			end
		end, 2 * 1024 * 1024);
	end);

	describe("mistakes raise:", function ()
		it("arguments of a wrong type, or none", function ()
			local arguments = { REQUESTER, PROXY, "1234", 0, 60, 1, {}, BACKENDS[1] };
			local expected = { "string", "string", "string", "number", "number", "number", "table", "string" };
			for place, type in ipairs(expected) do
				for _, wrong in ipairs { false, print, exchange } do
					local changed = table.pack(table.unpack(arguments));
					changed[place] = wrong;
					expect.raises(type.." expected", exchange.dispatch, exchange, table.unpack(changed));
				end
			end
			for count = 0, 4 do
				expect.raises(expected[count + 1].." expected", exchange.dispatch, exchange, table.unpack(arguments, 1, count));
			end
			expect.raises("table expected", exchange.dispatch, exchange, table.unpack(arguments, 1, 6));
			assert.equal(0, #pending);
			assert.equal(0, #book);
			local answer = { BACKENDS[1], PROXY, "1234", 1 };
			for place = 1, 4 do
				local changed = table.pack(table.unpack(answer));
				changed[place] = false;
				expect.raises(expected[place].." expected", exchange.settle, exchange, table.unpack(changed));
				expect.raises(expected[place].." expected", exchange.settle, exchange, table.unpack(answer, 1, place - 1));
			end
			for _, wrong in ipairs { false, {} } do
				expect.raises("number expected", exchange.count_error, exchange, wrong);
				expect.raises("string expected", exchange.resolve, exchange, wrong);
				for _, method in ipairs { "reach", "address" } do
					expect.raises("string expected", exchange[method], exchange, wrong, "q");
					expect.raises("string expected", exchange[method], exchange, REQUESTER, wrong);
				end
				expect.raises("string expected", exchange.address, exchange, REQUESTER, PROXY, wrong);
				expect.raises("string expected", exchange.admit, exchange, wrong);
				expect.raises("string expected", exchange.backend, exchange, wrong);
			end
			for _, method in ipairs { "reach", "address" } do
				expect.raises("string expected", exchange[method], exchange, REQUESTER);
			end
			expect.raises("string expected", exchange.admit, exchange);
			expect.raises("string expected", exchange.backend, exchange);
			expect.raises("number expected", exchange.count_error, exchange);
			expect.raises("string expected", exchange.resolve, exchange);
		end);

		it("a time that is none", function ()
			expect.raises("not a time", exchange.dispatch, exchange, REQUESTER, PROXY, "1234", NAN, 60);
			expect.raises("not a time", exchange.dispatch, exchange, REQUESTER, PROXY, "1234", 0, NAN);
			local _, address = ask();
			expect.raises("not a time", exchange.settle, exchange, BACKENDS[1], address, "1234", NAN);
			expect.raises("not a time", exchange.count_error, exchange, NAN);
			assert.equal(1, #pending);
		end);

		it("a number of retries that cannot be", function ()
			for _, retries in ipairs { -1, 256, math.mininteger, math.maxinteger } do
				expect.raises("0 to 255 expected", exchange.dispatch, exchange, REQUESTER, PROXY, "1234", 0, 60, retries, {});
			end
			expect.raises("integer", exchange.dispatch, exchange, REQUESTER, PROXY, "1234", 0, 60, 1.5, {});
		end);

		it("an exchange of others than it takes", function ()
			local others = { jat, book, pool, pending };
			for place = 1, 4 do
				for _, wrong in ipairs { others[place % 4 + 1], false, io.stdout } do
					local changed = table.pack(table.unpack(others));
					changed[place] = wrong;
					expect.raises("expected", core.exchange, table.unpack(changed));
				end
				expect.raises("expected", core.exchange, table.unpack(others, 1, place - 1));
			end
		end);

		it("an exchange of what has been collected", function ()
			for place = 1, 4 do
				local own_pending, own_book = new_pending(("t"):rep(core.PENDING_SEEDBYTES));
				local others = { core.jat(PROXY, "short"), own_book, core.pool(("t"):rep(core.POOL_SEEDBYTES)), own_pending };
				getmetatable(others[place]).__gc(others[place]);
				expect.raises("already collected", core.exchange, table.unpack(others));
			end
		end);

		it("an object that is no exchange", function ()
			local methods = { "dispatch", "settle", "count_error", "counts", "resolve", "admit", "backend", "address", "reach" };
			for _, method in ipairs(methods) do
				for _, other in ipairs { pool, pending, io.stdout, {}, "s" } do
					expect.raises("mod_client_proxy.exchange expected", exchange[method], other, 1, 2, 3, 4, 5);
				end
				expect.raises("mod_client_proxy.exchange expected", exchange[method]);
			end
			expect.raises("mod_client_proxy.exchange expected", getmetatable(exchange).__gc, pool);
		end);

		it("an exchange that has been collected", function ()
			local collect = getmetatable(exchange).__gc;
			collect(exchange);
			collect(exchange);
			expect.raises("already collected", ask);
			expect.raises("already collected", exchange.settle, exchange, "a", "b", "c", 1);
			expect.raises("already collected", exchange.count_error, exchange, 1);
			expect.raises("already collected", exchange.counts, exchange);
			for _, method in ipairs { "resolve", "admit", "backend", "address", "reach" } do
				expect.raises("already collected", exchange[method], exchange, "a", "b");
			end
		end);
	end);
end);
