local fake_module = require "spec.support.module";
local filters = require "util.filters";
local new_throttle = require "util.throttle".create;
local st = require "util.stanza";

local TARGET = "some-user@some-domain.example";
local RATE = 10000; -- bytes a second

-- A connection of a network backend that has limits
local connection = {};
connection.__index = connection;

function connection:setlimit(rate)
	self._limit = rate > 0 and 1 / rate or nil;
end

-- -> bytes a second, 0 if as many as come
local function limit_of(session)
	return session.conn._limit and math.floor(1 / session.conn._limit + 0.5) or 0;
end

local function connect()
	local self = setmetatable({}, connection);
	self:setlimit(RATE);
	return self;
end

describe("the limits", function ()
	local module, host, limits, users;

	-- (fields) -> a session that has just authenticated, or is to do so
	local function new_session(fields)
		local session = { username = "some-user", host = "some-domain.example", type = "c2s", conn = connect() };
		for name, value in pairs(fields or {}) do
			session[name] = value;
		end
		return session;
	end

	local function put_online(session)
		users[session.username] = users[session.username] or { sessions = {} };
		table.insert(users[session.username].sessions, session);
		return session;
	end

	local function fire(event, data)
		module.hooks[event](data);
	end

	local function authenticate(session)
		fire("authentication-success", { session = session });
		return session;
	end

	-- (changes, proxy): from now on, another instance is there, as after a reload, or another proxy
	local function load(changes, proxy)
		changes = changes or {};
		local before = module;
		module = fake_module.new(nil, before);
		module.host = proxy or module.host;
		module.shared_tables = before and before.shared_tables or {};
		module.prosody.hosts["some-domain.example"] = host;
		limits = module:require "limits".new { target = changes.target or TARGET, auto_approve = changes.auto_approve ~= false };
		limits:start();
		return limits;
	end

	local function reload(changes)
		limits:retire();
		return load(changes);
	end

	local function unload(one)
		one = one or limits;
		one:retire();
		one.release();
	end

	before_each(function ()
		users = {};
		host = { type = "local", events = {}, sessions = users };
		module = nil;
	end);

	for _, event in ipairs { "authentication-success", "resource-bind" } do
		it("do not hold a session of the target from its "..event, function ()
			load();
			local session = new_session();
			fire(event, { session = session });
			assert.equal(0, limit_of(session));
			unload();
			assert.equal(RATE, limit_of(session));
		end);
	end

	it("hold all others, and those who are not authenticated", function ()
		load();
		for _, fields in ipairs { { username = "user" }, { host = "other.example" }, { username = false }, { username = "some-user2" } } do
			local session = authenticate(new_session(fields));
			assert.equal(RATE, limit_of(session));
			unload();
			assert.equal(RATE, limit_of(session));
			load();
		end
	end);

	it("do not hold sessions that are there before", function ()
		local session, other = put_online(new_session()), put_online(new_session { username = "user" });
		local hibernating = put_online(new_session());
		hibernating.conn = nil;
		load();
		assert.same({ 0, RATE }, { limit_of(session), limit_of(other) });
		unload();
		assert.same({ RATE, RATE }, { limit_of(session), limit_of(other) });
	end);

	it("do not hold the connection by which a session is resumed", function ()
		load();
		local session = new_session();
		fire("smacks-hibernation-end", { origin = {}, resumed = session });
		assert.equal(0, limit_of(session));
	end);

	it("are given back as they were, and to nobody who had none", function ()
		load();
		local slow, free = new_session(), new_session();
		slow.conn:setlimit(123);
		free.conn:setlimit(0);
		authenticate(slow);
		authenticate(free);
		assert.same({ 0, 0 }, { limit_of(slow), limit_of(free) });
		unload();
		assert.same({ 123, 0 }, { limit_of(slow), limit_of(free) });
	end);

	it("are not given back where there is another one since", function ()
		load();
		local session = authenticate(new_session());
		session.conn:setlimit(77);
		unload();
		assert.equal(77, limit_of(session));
	end);

	it("stay taken while the module is reloaded, and can be given back after that", function ()
		load();
		local session = authenticate(new_session());
		for _ = 1, 2 do
			limits:retire();
			assert.equal(0, limit_of(session));
			reload();
			assert.equal(0, limit_of(session));
		end
		unload();
		assert.equal(RATE, limit_of(session));
	end);

	it("go by the new target after a reload that changes it", function ()
		load();
		local old, new = put_online(authenticate(new_session())), put_online(new_session { username = "user" });
		reload { target = "user@some-domain.example" };
		assert.same({ RATE, 0 }, { limit_of(old), limit_of(new) });
	end);

	it("hold the target without consent, also after a reload that takes it back", function ()
		load { auto_approve = false };
		assert.same({}, module.hooks);
		reload();
		local session = put_online(authenticate(new_session()));
		assert.equal(0, limit_of(session));
		reload { auto_approve = false };
		assert.equal(RATE, limit_of(session));
	end);

	it("have nothing to do with a component of this Prosody, nor with other servers", function ()
		host.type = "component";
		load();
		assert.same({}, module.hooks);
		host = nil;
		load();
		assert.same({}, module.hooks);
	end);

	it("are given back by the last of several proxies that have the same target", function ()
		local session = put_online(new_session());
		local first = load();
		local second = load(nil, "second.example");
		unload(first);
		assert.equal(0, limit_of(session));
		unload(second);
		assert.equal(RATE, limit_of(session));
	end);

	it("are taken by nobody who has gone", function ()
		load();
		unload();
		assert.equal(RATE, limit_of(authenticate(new_session())));
	end);

	it("keep no connection in memory that has gone", function ()
		load();
		local gone = setmetatable({}, { __mode = "k" });
		gone[authenticate(new_session()).conn] = true;
		gone[authenticate(new_session { bosh_wait = 60 })] = true;
		collectgarbage();
		collectgarbage();
		assert.is_nil(next(gone));
	end);

	describe("of a session", function ()
		local function new_throttled(fields)
			local session = new_session(fields);
			session.conn, session.throttle = {}, new_throttle(RATE * 2, 2);
			return session;
		end

		it("are lifted by the throttle that mod_limits asks, and given back", function ()
			load();
			local session, other = authenticate(new_throttled()), authenticate(new_throttled { username = "user" });
			local throttle = session.throttle;
			local function may_send(one)
				return { (one.throttle:poll(1e9, true)), (one.throttle:peek(1e9)) };
			end
			assert.same({ true, true }, may_send(session));
			assert.same({ false, false }, may_send(other));
			reload();
			assert.same({ true, true }, may_send(session));
			unload();
			assert.same({ false, false }, may_send(session));
			assert.equal(throttle, session.throttle);
			assert.equal(RATE, limits.rate_of(session));
		end);
	end);

	describe("of a session by BOSH", function ()
		local session;

		-- A stanza comes by that connection.
		local function receive(conn)
			session.conn = conn or connect();
			assert.equal("message", session.filter("stanzas/in", st.message()).name);
		end

		before_each(function ()
			load();
			session = new_session { bosh_wait = 60 };
			filters.initialize(session);
			put_online(authenticate(session));
		end);

		it("are lifted on each connection by which a stanza comes", function ()
			for _ = 1, 3 do
				receive();
				assert.equal(0, limit_of(session));
			end
			session.conn:setlimit(RATE); -- of another session that has begun there
			receive(session.conn);
			assert.equal(0, limit_of(session));
		end);

		it("are given back on all of them, and stay from then on", function ()
			local before = session.conn;
			receive();
			unload();
			assert.same({ RATE, RATE }, { limit_of(session), limit_of { conn = before } });
			receive();
			assert.equal(RATE, limit_of(session));
			assert.same({}, session.filters["stanzas/in"]);
		end);

		it("are looked at once with each stanza, over reloads and what else happens", function ()
			fire("resource-bind", { session = session });
			reload();
			assert.equal(1, #session.filters["stanzas/in"]);
			receive();
			assert.equal(0, limit_of(session));
		end);
	end);
end);
