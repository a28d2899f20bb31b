/*
 * core.pool: the set of backends, and the choice among them
 */
#include <string.h>

#include "lua/lua_core.h"
#include "lua/lua_jat.h"
#include "lua/lua_object.h"
#include "pending.h"
#include "pool.h"
#include "strategies/strategy.h"

/* core.pool(seed) -> pool | nil, "no-memory": empty, chooses at random; `seed`: POOL_SEEDBYTES random bytes */
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

/*
 * pool:add(jid[, token]) -> true | false | nil, "no-memory" | "taken"
 * false: it was a backend already; "taken": another one has that token
 */
static int l_pool_add(lua_State *L)
{
	struct pool *pool = check_object(L, POOL_TYPE);
	struct text jid = check_text(L, 2), token = opt_text(L, 3);
	int added;

	if (token.length > 0 && pool_find(pool, jid) == NULL && pool_resolve(pool, token) != NULL) {
		return fail(L, "taken");
	}
	added = pool_add(pool, jid, token);
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

	lua_pushboolean(L, pool_remove(pool, check_text(L, 2)));
	return 1;
}

static const char *const pool_states[] = {"ready", "suspended", "away", NULL};

/*
 * pool:set_state(jid, state) -> boolean: whether it is a backend and had another state before
 * state: "ready"; "suspended", chosen only while no backend is ready; "away", never chosen
 */
static int l_pool_set_state(lua_State *L)
{
	struct pool *pool = check_object(L, POOL_TYPE);
	struct text jid = check_text(L, 2);
	enum pool_state state = (enum pool_state)luaL_checkoption(L, 3, NULL, pool_states);

	lua_pushboolean(L, pool_set_state(pool, jid, state));
	return 1;
}

/* pool:state(jid) -> state | nil if it is no backend */
static int l_pool_state(lua_State *L)
{
	const struct pool *pool = check_object(L, POOL_TYPE);
	struct text jid = check_text(L, 2);

	lua_pushstring(L, pool_states[pool_state(pool, jid)]); /* of NULL: nil */
	return 1;
}

/* pool:token(jid) -> token | nil if it is no backend; "" if it has none */
static int l_pool_token(lua_State *L)
{
	const struct pool *pool = check_object(L, POOL_TYPE);
	const struct pool_backend *backend = pool_find(pool, check_text(L, 2));

	return push_text(L, backend == NULL ? (struct text){NULL, 0} : pool_token(backend));
}

/* pool:resolve(token) -> jid | nil */
static int l_pool_resolve(lua_State *L)
{
	const struct pool *pool = check_object(L, POOL_TYPE);
	const struct pool_backend *backend = pool_resolve(pool, check_text(L, 2));

	return push_text(L, backend == NULL ? (struct text){NULL, 0} : pool_jid(backend));
}

/*
 * pool:set_priority(jid, priority) -> boolean: whether it is a backend and had another priority before
 * priority: -128 to 127, as in a presence; it counts for some strategies
 */
static int l_pool_set_priority(lua_State *L)
{
	struct pool *pool = check_object(L, POOL_TYPE);
	struct text jid = check_text(L, 2);
	lua_Integer priority = luaL_checkinteger(L, 3);

	luaL_argcheck(L, priority >= INT8_MIN && priority <= INT8_MAX, 3, "-128 to 127 expected");
	lua_pushboolean(L, pool_set_priority(pool, jid, (int8_t)priority));
	return 1;
}

/*
 * pool:set_format(jid[, format]) -> boolean: whether it is a backend and saw another format before
 * format: one of core.FORMATS, in which it sees tokens from now on; nil: that of all
 */
static int l_pool_set_format(lua_State *L)
{
	struct pool *pool = check_object(L, POOL_TYPE);
	struct text jid = check_text(L, 2);
	int8_t format = lua_isnoneornil(L, 3) ? POOL_NO_FORMAT : (int8_t)check_format(L, 3);

	lua_pushboolean(L, pool_set_format(pool, jid, format));
	return 1;
}

static const struct strategy *check_strategy(lua_State *L, int arg)
{
	const char *name = luaL_checkstring(L, arg);
	size_t i = 0;

	while (strategies[i] != NULL && strcmp(strategies[i]->name, name) != 0) {
		i++;
	}
	if (strategies[i] == NULL) {
		luaL_argerror(L, arg, lua_pushfstring(L, "invalid option '%s'", name));
	}
	return strategies[i];
}

/*
 * pool:set_strategy(name, key) -> true: how pick() chooses from now on
 * name: one of core.STRATEGIES
 * key: POOL_KEYBYTES bytes, with which a strategy that is consistent chooses: another key, another choice
 */
static int l_pool_set_strategy(lua_State *L)
{
	struct pool *pool = check_object(L, POOL_TYPE);
	const struct strategy *strategy = check_strategy(L, 2);

	pool_set_strategy(pool, strategy, check_bytes(L, 3, POOL_KEYBYTES));
	lua_pushboolean(L, 1);
	return 1;
}

/* pool:serves() -> boolean: whether a backend is ready or suspended, so that pick() has one; asking changes nothing */
static int l_pool_serves(lua_State *L)
{
	lua_pushboolean(L, pool_serves(check_object(L, POOL_TYPE)));
	return 1;
}

static size_t count_pending(void *pending, struct text jid)
{
	return pending_count_of(pending, jid);
}

/* pool:is_ready() -> boolean: whether some backend is ready */
static int l_pool_is_ready(lua_State *L)
{
	lua_pushboolean(L, pool_is_ready(check_object(L, POOL_TYPE)));
	return 1;
}

/*
 * pool:pick([requester[, service[, pending[, avoided]]]]) -> jid | nil
 * The ready backend that the strategy chooses for a request of `requester` to `service`, or else a
 * suspended one; never `requester` itself, nor the backend `avoided`. `pending`, which some
 * strategies cannot do without, tells how many requests each has.
 */
static int l_pool_pick(lua_State *L)
{
	struct pool *pool = check_object(L, POOL_TYPE);
	struct request request = {.requester = opt_text(L, 2), .service = opt_text(L, 3), .load = count_pending};
	struct text avoided = opt_text(L, 5);
	const struct pool_backend *backend;

	if (!lua_isnoneornil(L, 4) || pool_strategy(pool)->needs_load) {
		request.context = check_object_at(L, 4, PENDING_TYPE);
	}
	backend = pool_pick(pool, &request, avoided);
	return push_text(L, backend == NULL ? (struct text){NULL, 0} : pool_jid(backend));
}

/*
 * pool:pick_lasting(requester, service) -> jid | nil
 * Likewise for what belongs together, as a conversation does: the same backend again, as long as it is ready and no
 * other one comes to which it falls.
 */
static int l_pool_pick_lasting(lua_State *L)
{
	struct pool *pool = check_object(L, POOL_TYPE);
	struct request request = {.requester = check_text(L, 2), .service = check_text(L, 3)};
	const struct pool_backend *backend = pool_pick_lasting(pool, &request);

	return push_text(L, backend == NULL ? (struct text){NULL, 0} : pool_jid(backend));
}

/* #pool -> integer: how many backends there are */
static int l_pool_len(lua_State *L)
{
	lua_pushinteger(L, (lua_Integer)pool_count(check_object(L, POOL_TYPE)));
	return 1;
}

/* One method a line: */
/* clang-format off */

static const luaL_Reg pool_methods[] = {
	{"add", l_pool_add},
	{"remove", l_pool_remove},
	{"set_state", l_pool_set_state},
	{"state", l_pool_state},
	{"set_priority", l_pool_set_priority},
	{"set_format", l_pool_set_format},
	{"set_strategy", l_pool_set_strategy},
	{"serves", l_pool_serves},
	{"is_ready", l_pool_is_ready},
	{"pick", l_pool_pick},
	{"pick_lasting", l_pool_pick_lasting},
	{"token", l_pool_token},
	{"resolve", l_pool_resolve},
	{NULL, NULL},
};

static const luaL_Reg pool_metamethods[] = {
	{"__len", l_pool_len},
	{"__gc", l_pool_gc},
	{NULL, NULL},
};

/* clang-format on */

static void push_strategies(lua_State *L)
{
	size_t i;

	lua_newtable(L);
	for (i = 0; strategies[i] != NULL; i++) {
		lua_pushstring(L, strategies[i]->name);
		lua_rawseti(L, -2, (lua_Integer)i + 1);
	}
}

void lua_open_pool(lua_State *L)
{
	register_type(L, POOL_TYPE, pool_methods, pool_metamethods);
	lua_pushcfunction(L, l_pool_new);
	lua_setfield(L, -2, "pool");
	set_integer(L, "POOL_SEEDBYTES", POOL_SEEDBYTES);
	set_integer(L, "POOL_KEYBYTES", POOL_KEYBYTES);
	push_strategies(L);
	lua_setfield(L, -2, "STRATEGIES");
}
