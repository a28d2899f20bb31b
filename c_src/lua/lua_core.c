/*
 * require "mod_client_proxy.core": the three units as Lua objects. Each
 * function checks its arguments, calls the unit, pushes what it returned. A
 * caller's mistake raises; a failure to be expected returns nil and a code.
 *
 * A unit's object lives in a userdata that holds one pointer, NULL until the
 * object is made, so that a collection at any moment finds nothing half made.
 */
#include <lauxlib.h>
#include <lua.h>
#include <sodium.h>

#include "jat.h"
#include "lua/lua_weight.h"
#include "pending.h"
#include "pool.h"

#define JAT_TYPE "mod_client_proxy.jat"
#define POOL_TYPE "mod_client_proxy.pool"
#define PENDING_TYPE "mod_client_proxy.pending"

/* `user_values`: how many Lua values go with it */
static void **new_object(lua_State *L, const char *type, int user_values)
{
	void **object = lua_newuserdatauv(L, sizeof *object, user_values);

	*object = NULL;
	luaL_setmetatable(L, type);
	return object;
}

static void *check_object_at(lua_State *L, int arg, const char *type)
{
	void *object = *(void **)luaL_checkudata(L, arg, type);

	luaL_argcheck(L, object != NULL, arg, "already collected");
	return object;
}

static void *check_object(lua_State *L, const char *type)
{
	return check_object_at(L, 1, type);
}

static const uint8_t *check_bytes(lua_State *L, int arg, size_t expected)
{
	size_t len;
	const char *bytes = luaL_checklstring(L, arg, &len);

	if (len != expected) {
		luaL_argerror(L, arg, lua_pushfstring(L, "%d bytes expected, got %d", (int)expected, (int)len));
	}
	return (const uint8_t *)bytes;
}

static int fail(lua_State *L, const char *code)
{
	lua_pushnil(L);
	lua_pushstring(L, code);
	return 2;
}

/* nil, "no-memory": the one failure every object can meet. */
static int no_memory(lua_State *L)
{
	return fail(L, "no-memory");
}

/*
 * jat: the token codec
 */

static const char *jat_code(enum jat_status status)
{
	switch (status) {
	case JAT_DIGEST:
		return "digest";
	case JAT_PLAIN_TOKEN:
		return "plain";
	case JAT_NO_KEY:
		return "no-key";
	case JAT_BAD_JID:
		return "bad-jid";
	case JAT_UNKNOWN_KEY:
		return "unknown-key";
	case JAT_FORGED:
		return "forged";
	case JAT_OK:
	case JAT_BAD_TOKEN:
		break;
	}
	return "bad-token";
}

static const char *const jat_formats[] = {"sealed", "signed", "plain", NULL};

/*
 * core.jat(host, format) -> jat | nil, "no-memory": a codec for the proxy host `host`, without a key
 * format: "sealed", "signed" or "plain"
 */
static int l_jat_new(lua_State *L)
{
	size_t host_len;
	const char *host = luaL_checklstring(L, 1, &host_len);
	enum jat_format format = (enum jat_format)luaL_checkoption(L, 2, NULL, jat_formats);
	void **object = new_object(L, JAT_TYPE, 0);

	*object = jat_new(host, host_len, format);
	return *object == NULL ? no_memory(L) : 1;
}

static int l_jat_gc(lua_State *L)
{
	void **object = luaL_checkudata(L, 1, JAT_TYPE);

	jat_free(*object);
	*object = NULL;
	return 0;
}

/*
 * jat:add_key(key_id, key): the 32 bytes of `key` are the current key from now
 * on, under the name `key_id` (0 to 255); the current one is the previous one
 */
static int l_jat_add_key(lua_State *L)
{
	struct jat *jat = check_object(L, JAT_TYPE);
	lua_Integer key_id = luaL_checkinteger(L, 2);
	const uint8_t *key = check_bytes(L, 3, JAT_KEYBYTES);

	luaL_argcheck(L, key_id >= 0 && key_id <= UINT8_MAX, 2, "0 to 255 expected");
	jat_add_key(jat, (uint8_t)key_id, key);
	return 0;
}

/* jat:encode(jid) -> token | nil, "no-key" | "bad-jid": the requester's token */
static int l_jat_encode(lua_State *L)
{
	const struct jat *jat = check_object(L, JAT_TYPE);
	size_t jid_len;
	const char *jid = luaL_checklstring(L, 2, &jid_len);
	char token[JAT_TOKEN_MAX];
	size_t token_len;
	enum jat_status status = jat_encode(jat, JAT_REQUESTER, jid, jid_len, token, &token_len);

	if (status != JAT_OK) {
		return fail(L, jat_code(status));
	}
	lua_pushlstring(L, token, token_len);
	return 1;
}

/*
 * jat:decode(token) -> jid | nil, "digest" | "plain" | "bad-token" | "unknown-key" | "forged"
 * A digest is a token, too, but does not tell its requester. A plain one does, but anybody could have made it.
 */
static int l_jat_decode(lua_State *L)
{
	const struct jat *jat = check_object(L, JAT_TYPE);
	size_t token_len;
	const char *token = luaL_checklstring(L, 2, &token_len);
	enum jat_kind kind;
	char jid[JAT_JID_MAX];
	size_t jid_len;
	enum jat_status status = jat_decode(jat, token, token_len, &kind, jid, &jid_len);

	if (status != JAT_OK) {
		return fail(L, jat_code(status));
	}
	lua_pushlstring(L, jid, jid_len);
	return 1;
}

/*
 * pool: the set of backends, and the choice among them
 */

/* core.pool(seed) -> pool | nil, "no-memory": empty, its strategy is "random"; `seed`: POOL_SEEDBYTES random bytes */
static int l_pool_new(lua_State *L)
{
	const uint8_t *seed = check_bytes(L, 1, POOL_SEEDBYTES);
	void **object = new_object(L, POOL_TYPE, 0);

	*object = pool_new(seed);
	return *object == NULL ? no_memory(L) : 1;
}

static int l_pool_gc(lua_State *L)
{
	void **object = luaL_checkudata(L, 1, POOL_TYPE);

	pool_free(*object);
	*object = NULL;
	return 0;
}

/* pool:add(jid) -> true | false | nil, "no-memory": false if it was a backend already */
static int l_pool_add(lua_State *L)
{
	struct pool *pool = check_object(L, POOL_TYPE);
	size_t jid_len;
	const char *jid = luaL_checklstring(L, 2, &jid_len);
	int added = pool_add(pool, jid, jid_len);

	if (added < 0) {
		return no_memory(L);
	}
	lua_pushboolean(L, added);
	return 1;
}

/* pool:remove(jid) -> boolean: whether it was a backend */
static int l_pool_remove(lua_State *L)
{
	struct pool *pool = check_object(L, POOL_TYPE);
	size_t jid_len;
	const char *jid = luaL_checklstring(L, 2, &jid_len);

	lua_pushboolean(L, pool_remove(pool, jid, jid_len));
	return 1;
}

static const char *const pool_states[] = {"ready", "suspended", "away", NULL};

/*
 * pool:set(jid, state) -> boolean: whether it is a backend whose state was another
 * state: "ready"; "suspended", chosen only while no backend is ready; "away", never chosen
 */
static int l_pool_set(lua_State *L)
{
	struct pool *pool = check_object(L, POOL_TYPE);
	size_t jid_len;
	const char *jid = luaL_checklstring(L, 2, &jid_len);
	enum pool_state state = (enum pool_state)luaL_checkoption(L, 3, NULL, pool_states);

	lua_pushboolean(L, pool_set(pool, jid, jid_len, state));
	return 1;
}

/* pool:state(jid) -> state | nil if it is no backend */
static int l_pool_state(lua_State *L)
{
	const struct pool *pool = check_object(L, POOL_TYPE);
	size_t jid_len;
	const char *jid = luaL_checklstring(L, 2, &jid_len);

	lua_pushstring(L, pool_states[pool_state(pool, jid, jid_len)]); /* of NULL: nil */
	return 1;
}

/*
 * pool:priority(jid, priority) -> boolean: whether it is a backend whose priority was another
 * priority: -128 to 127, as in a presence; it counts for the strategy "primary" alone
 */
static int l_pool_priority(lua_State *L)
{
	struct pool *pool = check_object(L, POOL_TYPE);
	size_t jid_len;
	const char *jid = luaL_checklstring(L, 2, &jid_len);
	lua_Integer priority = luaL_checkinteger(L, 3);

	luaL_argcheck(L, priority >= INT8_MIN && priority <= INT8_MAX, 3, "-128 to 127 expected");
	lua_pushboolean(L, pool_set_priority(pool, jid, jid_len, (int8_t)priority));
	return 1;
}

static const char *const pool_strategies[] = {
	"random", "round_robin", "least_pending", "primary", "sender", "recipient", NULL,
};

/*
 * pool:strategy(name, key) -> true | nil, "no-memory": how pick() chooses from now on
 * name: "random", each as likely as the next; "round_robin", in turn; "least_pending", the one of
 * two at random with fewer pending requests; "primary", the one with the highest priority, of these
 * the one that has been ready for longest; "sender" or "recipient", by the requester's bare JID or
 * the bare service address, consistently: the same from the same backends, and with one less or one
 * more, nothing moves but what was or will be that one's
 * key: POOL_KEYBYTES bytes, with which "sender" and "recipient" choose: another key, another choice
 */
static int l_pool_strategy(lua_State *L)
{
	struct pool *pool = check_object(L, POOL_TYPE);
	enum pool_strategy strategy = (enum pool_strategy)luaL_checkoption(L, 2, NULL, pool_strategies);

	if (pool_set_strategy(pool, strategy, check_bytes(L, 3, POOL_KEYBYTES)) != 0) {
		return no_memory(L);
	}
	lua_pushboolean(L, 1);
	return 1;
}

static int push_jid(lua_State *L, const char *jid, size_t jid_len)
{
	if (jid == NULL) {
		lua_pushnil(L);
	} else {
		lua_pushlstring(L, jid, jid_len);
	}
	return 1;
}

/* pool:any() -> jid | nil: some backend, whichever */
static int l_pool_any(lua_State *L)
{
	size_t jid_len = 0;
	const char *jid = pool_any(check_object(L, POOL_TYPE), &jid_len);

	return push_jid(L, jid, jid_len);
}

/* pool:serves() -> boolean: whether a backend is ready or suspended, so that pick() has one, but takes no turn */
static int l_pool_serves(lua_State *L)
{
	lua_pushboolean(L, pool_serves(check_object(L, POOL_TYPE)));
	return 1;
}

static size_t count_pending(void *pending, const char *jid, size_t jid_len)
{
	return pending_count_of(pending, (struct pending_text){jid, jid_len});
}

/*
 * pool:pick([requester[, service[, pending[, avoided]]]]) -> jid | nil
 * The ready backend that the strategy chooses for a request of `requester` to `service`, or else a
 * suspended one; never `requester` itself, nor the backend `avoided`. `pending`, which
 * "least_pending" cannot do without, tells how many requests each has.
 */
static int l_pool_pick(lua_State *L)
{
	struct pool *pool = check_object(L, POOL_TYPE);
	struct pool_request request = {.load = count_pending};
	size_t jid_len = 0;
	const char *jid;

	request.requester = luaL_optlstring(L, 2, NULL, &request.requester_len);
	request.service = luaL_optlstring(L, 3, NULL, &request.service_len);
	request.avoided = luaL_optlstring(L, 5, NULL, &request.avoided_len);
	if (!lua_isnoneornil(L, 4) || pool_strategy(pool) == POOL_LEAST_PENDING) {
		request.context = check_object_at(L, 4, PENDING_TYPE);
	}
	jid = pool_pick(pool, &request, &jid_len);
	return push_jid(L, jid, jid_len);
}

/* #pool -> integer: how many backends there are */
static int l_pool_len(lua_State *L)
{
	lua_pushinteger(L, (lua_Integer)pool_count(check_object(L, POOL_TYPE)));
	return 1;
}

/*
 * pending: the pending-request table. Times are seconds on any one clock that
 * does not run backwards.
 *
 * What is kept of a request to be sent again is a Lua value. It belongs to the
 * request's entry and comes back with it: it lies in the userdata's user value, a
 * table, at a place that the entry alone knows, and is taken out when the entry is.
 */

enum {
	KEPT_BYTES_MAX = 8192, /* of one request */
};

static struct pending_text check_text(lua_State *L, int arg, size_t max)
{
	struct pending_text text;

	text.bytes = luaL_checklstring(L, arg, &text.len);
	luaL_argcheck(L, text.len <= max, arg, "too long");
	return text;
}

static double check_time(lua_State *L, int arg)
{
	double time = luaL_checknumber(L, arg);

	luaL_argcheck(L, time == time, arg, "not a time");
	return time;
}

static struct pending_answer check_answer(lua_State *L)
{
	return (struct pending_answer){
		.from = check_text(L, 2, SIZE_MAX),
		.to = check_text(L, 3, SIZE_MAX),
		.id = check_text(L, 4, SIZE_MAX),
	};
}

static int push_text(lua_State *L, struct pending_text text)
{
	lua_pushlstring(L, text.bytes, text.len);
	return 1;
}

static size_t check_size(lua_State *L, int arg)
{
	lua_Integer size = luaL_checkinteger(L, arg);

	luaL_argcheck(L, size >= 0, arg, "negative");
	return (size_t)size;
}

static const char *pending_code(enum pending_status status)
{
	switch (status) {
	case PENDING_FULL:
		return "full";
	case PENDING_REQUESTER_FULL:
		return "requester-full";
	case PENDING_CONFLICT:
		return "conflict";
	case PENDING_BAD_ID:
		return "bad-id";
	case PENDING_OK:
	case PENDING_NO_MEMORY:
		break;
	}
	return "no-memory";
}

/* core.pending(seed) -> pending | nil, "no-memory": an empty table; `seed`: PENDING_SEEDBYTES secret random bytes */
static int l_pending_new(lua_State *L)
{
	const uint8_t *seed = check_bytes(L, 1, PENDING_SEEDBYTES);
	void **object = new_object(L, PENDING_TYPE, 1);

	lua_newtable(L);
	lua_setiuservalue(L, -2, 1);
	*object = pending_new(seed);
	return *object == NULL ? no_memory(L) : 1;
}

static int l_pending_gc(lua_State *L)
{
	void **object = luaL_checkudata(L, 1, PENDING_TYPE);

	pending_free(*object);
	*object = NULL;
	return 0;
}

/*
 * pending:set_limits(max, max_per_requester): nothing is added beyond that many, in all and by one
 * bare JID, nor beyond core.PENDING_BYTES_EACH times as many bytes, texts and what is kept included
 */
static int l_pending_set_limits(lua_State *L)
{
	struct pending *pending = check_object(L, PENDING_TYPE);

	pending_set_limits(pending, check_size(L, 2), check_size(L, 3));
	return 0;
}

/* Puts the stanza at `index` among what is kept if there are retries; there are none if it is too large. */
static void keep(lua_State *L, int index, struct pending_request *request)
{
	size_t bytes = request->retries > 0 ? lua_weight(L, index, KEPT_BYTES_MAX) : 0;

	if (bytes > KEPT_BYTES_MAX) {
		request->retries = 0;
	}
	if (request->retries > 0) {
		lua_getiuservalue(L, 1, 1);
		lua_pushvalue(L, index);
		request->kept = luaL_ref(L, -2);
		request->kept_bytes = (uint32_t)bytes;
		lua_pop(L, 1);
	}
}

/* Pushes what is kept of the request, or nil, and takes it out, which needs no memory. */
static void push_kept(lua_State *L, const struct pending_request *request)
{
	if (request->retries == 0) {
		lua_pushnil(L);
		return;
	}
	lua_getiuservalue(L, 1, 1);
	lua_rawgeti(L, -1, request->kept);
	luaL_unref(L, -2, request->kept);
	lua_remove(L, -2);
}

/*
 * pending:add(backend, to, id, requester, service, added, deadline[, retries, stanza])
 *     -> true | nil, "no-memory" | "full" | "requester-full" | "conflict" | "bad-id"
 * The answer will come from `backend` to `to`, the address the request is sent
 * from. `stanza` (util.stanza's, not copied) is kept as long as the request is
 * pending, so that it can be sent again up to `retries` times (0 to 255, 0 if
 * nil); one that takes too much memory is not, and has no retries.
 */
static int l_pending_add(lua_State *L)
{
	struct pending *pending = check_object(L, PENDING_TYPE);
	struct pending_answer answer = check_answer(L);
	struct pending_request request = {
		.requester = check_text(L, 5, UINT16_MAX),
		.service = check_text(L, 6, UINT16_MAX),
		.id = answer.id,
		.added = check_time(L, 7),
		.deadline = check_time(L, 8),
	};
	lua_Integer retries = luaL_optinteger(L, 9, 0);
	struct pending_entry *entry;
	enum pending_status status;

	luaL_argcheck(L, retries >= 0 && retries <= UINT8_MAX, 9, "0 to 255 expected");
	if (retries > 0) {
		luaL_checktype(L, 10, LUA_TTABLE);
	}
	request.retries = (uint8_t)retries;
	keep(L, 10, &request);
	status = pending_add(pending, &answer, &request, &entry);
	if (status != PENDING_OK) {
		push_kept(L, &request);
		return fail(L, pending_code(status));
	}
	lua_pushboolean(L, 1);
	return 1;
}

/*
 * Pushes an entry's requester, service, id, backend, when it was added, its deadline, how many
 * retries it has left and the stanza that is kept, nil if none is; or nil for NULL. Removes it.
 */
static int take_entry(lua_State *L, struct pending *pending, struct pending_entry *entry)
{
	struct pending_request request;

	if (entry == NULL) {
		lua_pushnil(L);
		return 1;
	}
	request = pending_read(entry);
	push_text(L, request.requester);
	push_text(L, request.service);
	push_text(L, request.id);
	push_text(L, request.backend);
	lua_pushnumber(L, request.added);
	lua_pushnumber(L, request.deadline);
	lua_pushinteger(L, request.retries);
	push_kept(L, &request);
	pending_remove(pending, entry);
	return 8;
}

/*
 * pending:take(from, to, id) -> requester, service, id, backend, added, deadline, retries, stanza | nil
 * The oldest request this answers; it is pending no longer.
 */
static int l_pending_take(lua_State *L)
{
	struct pending *pending = check_object(L, PENDING_TYPE);
	struct pending_answer answer = check_answer(L);

	return take_entry(L, pending, pending_find(pending, &answer));
}

/* pending:first_movable(backend) -> requester, service | nil: of the oldest one with retries left that `backend` has */
static int l_pending_first_movable(lua_State *L)
{
	const struct pending *pending = check_object(L, PENDING_TYPE);
	const struct pending_entry *entry = pending_first_movable(pending, check_text(L, 2, SIZE_MAX));

	if (entry == NULL) {
		lua_pushnil(L);
		return 1;
	}
	push_text(L, pending_read(entry).requester);
	push_text(L, pending_read(entry).service);
	return 2;
}

/* pending:take_movable(backend) -> as take() | nil: takes first_movable(), which is pending no longer */
static int l_pending_take_movable(lua_State *L)
{
	struct pending *pending = check_object(L, PENDING_TYPE);

	return take_entry(L, pending, pending_first_movable(pending, check_text(L, 2, SIZE_MAX)));
}

/* pending:fix_movable(backend): first_movable(), if there is one, has no retries any more */
static int l_pending_fix_movable(lua_State *L)
{
	struct pending *pending = check_object(L, PENDING_TYPE);
	struct pending_entry *entry = pending_first_movable(pending, check_text(L, 2, SIZE_MAX));

	if (entry != NULL) {
		struct pending_request request = pending_read(entry);

		push_kept(L, &request);
		pending_fix(pending, entry);
	}
	return 0;
}

/*
 * pending:abandon(backend): it has gone; what it has is not to be had by its answers any more, but by
 * take_abandoned() and expire(). Who comes with the same JID has none of it.
 */
static int l_pending_abandon(lua_State *L)
{
	struct pending *pending = check_object(L, PENDING_TYPE);

	pending_abandon(pending, check_text(L, 2, SIZE_MAX));
	return 0;
}

/* pending:has_abandoned() -> boolean: whether take_abandoned() has something to take */
static int l_pending_has_abandoned(lua_State *L)
{
	lua_pushboolean(L, pending_first_abandoned(check_object(L, PENDING_TYPE)) != NULL);
	return 1;
}

/* pending:take_abandoned() -> as take() | nil: some request that was abandoned; it is pending no longer */
static int l_pending_take_abandoned(lua_State *L)
{
	struct pending *pending = check_object(L, PENDING_TYPE);

	return take_entry(L, pending, pending_first_abandoned(pending));
}

/*
 * pending:expire(now) -> as take() | nil
 * The request with the earliest deadline, if that is `now` or before; it is
 * pending no longer.
 */
static int l_pending_expire(lua_State *L)
{
	struct pending *pending = check_object(L, PENDING_TYPE);
	lua_Number now = luaL_checknumber(L, 2);
	struct pending_entry *entry = pending_first(pending);
	int is_due = entry != NULL && pending_read(entry).deadline <= now;

	return take_entry(L, pending, is_due ? entry : NULL);
}

/* pending:deadline() -> number | nil: the earliest one */
static int l_pending_deadline(lua_State *L)
{
	const struct pending_entry *entry = pending_first(check_object(L, PENDING_TYPE));

	if (entry == NULL) {
		lua_pushnil(L);
	} else {
		lua_pushnumber(L, pending_read(entry).deadline);
	}
	return 1;
}

/* pending:count(backend) -> integer: how many requests that were handed to `backend` are pending */
static int l_pending_count(lua_State *L)
{
	const struct pending *pending = check_object(L, PENDING_TYPE);

	lua_pushinteger(L, (lua_Integer)pending_count_of(pending, check_text(L, 2, SIZE_MAX)));
	return 1;
}

/* pending:bytes() -> integer: how much memory requests hold, as it counts for the limits */
static int l_pending_bytes(lua_State *L)
{
	lua_pushinteger(L, (lua_Integer)pending_bytes(check_object(L, PENDING_TYPE)));
	return 1;
}

/* #pending -> integer: how many requests are pending */
static int l_pending_len(lua_State *L)
{
	lua_pushinteger(L, (lua_Integer)pending_count(check_object(L, PENDING_TYPE)));
	return 1;
}

/* One method a line: */
/* clang-format off */

static const luaL_Reg jat_methods[] = {
	{"add_key", l_jat_add_key},
	{"encode", l_jat_encode},
	{"decode", l_jat_decode},
	{NULL, NULL},
};

static const luaL_Reg jat_metamethods[] = {
	{"__gc", l_jat_gc},
	{NULL, NULL},
};

static const luaL_Reg pool_methods[] = {
	{"add", l_pool_add},
	{"remove", l_pool_remove},
	{"set", l_pool_set},
	{"state", l_pool_state},
	{"priority", l_pool_priority},
	{"strategy", l_pool_strategy},
	{"any", l_pool_any},
	{"serves", l_pool_serves},
	{"pick", l_pool_pick},
	{NULL, NULL},
};

static const luaL_Reg pool_metamethods[] = {
	{"__len", l_pool_len},
	{"__gc", l_pool_gc},
	{NULL, NULL},
};

static const luaL_Reg pending_methods[] = {
	{"set_limits", l_pending_set_limits},
	{"add", l_pending_add},
	{"take", l_pending_take},
	{"first_movable", l_pending_first_movable},
	{"take_movable", l_pending_take_movable},
	{"fix_movable", l_pending_fix_movable},
	{"abandon", l_pending_abandon},
	{"has_abandoned", l_pending_has_abandoned},
	{"take_abandoned", l_pending_take_abandoned},
	{"expire", l_pending_expire},
	{"deadline", l_pending_deadline},
	{"count", l_pending_count},
	{"bytes", l_pending_bytes},
	{NULL, NULL},
};

static const luaL_Reg pending_metamethods[] = {
	{"__len", l_pending_len},
	{"__gc", l_pending_gc},
	{NULL, NULL},
};

static const luaL_Reg core_functions[] = {
	{"jat", l_jat_new},
	{"pool", l_pool_new},
	{"pending", l_pending_new},
	{NULL, NULL},
};

/* clang-format on */

static void register_type(lua_State *L, const char *type, const luaL_Reg *methods, const luaL_Reg *metamethods)
{
	luaL_newmetatable(L, type);
	luaL_setfuncs(L, metamethods, 0);
	lua_newtable(L);
	luaL_setfuncs(L, methods, 0);
	lua_setfield(L, -2, "__index");
	lua_pop(L, 1);
}

static void push_constant(lua_State *L, const char *name, lua_Integer value)
{
	lua_pushinteger(L, value);
	lua_setfield(L, -2, name);
}

__attribute__((visibility("default"))) int luaopen_mod_client_proxy_core(lua_State *L);

/* What the caller has to bring has core.JAT_KEYBYTES, POOL_SEEDBYTES, POOL_KEYBYTES, PENDING_SEEDBYTES bytes. */
int luaopen_mod_client_proxy_core(lua_State *L)
{
	luaL_checkversion(L);
	if (sodium_init() < 0) {
		return luaL_error(L, "libsodium cannot be initialised");
	}
	register_type(L, JAT_TYPE, jat_methods, jat_metamethods);
	register_type(L, POOL_TYPE, pool_methods, pool_metamethods);
	register_type(L, PENDING_TYPE, pending_methods, pending_metamethods);
	luaL_newlib(L, core_functions);
	push_constant(L, "JAT_KEYBYTES", JAT_KEYBYTES);
	push_constant(L, "POOL_SEEDBYTES", POOL_SEEDBYTES);
	push_constant(L, "POOL_KEYBYTES", POOL_KEYBYTES);
	push_constant(L, "PENDING_SEEDBYTES", PENDING_SEEDBYTES);
	push_constant(L, "PENDING_BYTES_EACH", PENDING_BYTES_EACH);
	return 1;
}
