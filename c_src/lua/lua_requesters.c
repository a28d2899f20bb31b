/*
 * core.requesters: the book. A requester is named by its JID, and then is one of this generation; or by its JID
 * and its token, and then can be one of the last generation, too. Whoever is asked to end what nobody began
 * raises, as the unit takes for granted that it was begun.
 */
#include "lua/lua_core.h"
#include "lua/lua_object.h"
#include "requesters.h"

static struct text check_jid(lua_State *L)
{
	struct text jid = check_text(L, 2);

	luaL_argcheck(L, jid.length <= REQUESTERS_JID_MAX, 2, "too long");
	return jid;
}

static struct text check_token(lua_State *L)
{
	struct text token = check_text(L, 3);

	luaL_argcheck(L, token.length == 0 || token.length >= REQUESTERS_TOKEN_MIN, 3, "too short");
	luaL_argcheck(L, token.length <= REQUESTERS_TOKEN_MAX, 3, "too long");
	return token;
}

/* The requester with the JID at 2 and, if there is one, the token at `token_arg`; NULL if there is none */
static struct requester *named_requester(lua_State *L, const struct requesters *book, int token_arg)
{
	struct text jid = check_text(L, 2), token = opt_text(L, token_arg);
	struct requester *requester = token.bytes == NULL ? requesters_find(book, jid) : requesters_resolve(book, token);

	return requester != NULL && text_is_equal(jid, requester_jid(requester)) ? requester : NULL;
}

/* Likewise, the token being at 4; raises if there is none */
static struct requester *check_requester(lua_State *L, const struct requesters *book)
{
	struct requester *requester = named_requester(L, book, 4);

	luaL_argcheck(L, requester != NULL, 2, "no such requester");
	return requester;
}

/* The same; raises, too, if it has nothing pending. */
static struct requester *check_held(lua_State *L, const struct requesters *book)
{
	struct requester *requester = check_requester(L, book);

	luaL_argcheck(L, requester_pending(requester) > 0, 2, "has nothing pending");
	return requester;
}

/* The number of bytes at 3, which is at most `max` */
static size_t check_held_bytes(lua_State *L, size_t max)
{
	lua_Integer bytes = luaL_checkinteger(L, 3);

	luaL_argcheck(L, bytes >= 0, 3, "negative");
	luaL_argcheck(L, (size_t)bytes <= max, 3, "too many");
	return (size_t)bytes;
}

static const char *const counted[] = {"bare", "full", NULL};

/*
 * core.requesters(seed[, counted]) -> book | nil, "no-memory": an empty one
 * seed: REQUESTERS_SEEDBYTES secret random bytes; counted: whether what is pending is counted for each "bare" JID, as
 * it is if that is nil, or for each "full" one
 */
static int l_requesters_new(lua_State *L)
{
	const uint8_t *seed = check_bytes(L, 1, REQUESTERS_SEEDBYTES);
	int is_full = luaL_checkoption(L, 2, counted[0], counted);
	void **object = new_object(L, REQUESTERS_TYPE, 0);

	*object = requesters_new(seed);
	if (*object == NULL) {
		return no_memory(L);
	}
	if (is_full) {
		requesters_count_each(*object);
	}
	return 1;
}

static int l_requesters_gc(lua_State *L)
{
	void **object = luaL_checkudata(L, 1, REQUESTERS_TYPE);

	requesters_free(*object);
	*object = NULL;
	return 0;
}

/* book:set_max(max): for one requester more than that, another one is forgotten */
static int l_requesters_set_max(lua_State *L)
{
	struct requesters *book = check_object(L, REQUESTERS_TYPE);
	lua_Integer max = luaL_checkinteger(L, 2);

	luaL_argcheck(L, max >= 1, 2, "1 or more expected");
	requesters_set_max(book, (size_t)max);
	return 0;
}

/*
 * book:new_generation(): find() does not find those of before any more, and resolve() those of the last
 * generation only
 */
static int l_requesters_new_generation(lua_State *L)
{
	requesters_new_generation(check_object(L, REQUESTERS_TYPE));
	return 0;
}

/* book:find(jid) -> token | nil: "" if the requester has none */
static int l_requesters_find(lua_State *L)
{
	const struct requesters *book = check_object(L, REQUESTERS_TYPE);
	const struct requester *requester = requesters_find(book, check_text(L, 2));
	uint8_t token[REQUESTERS_TOKEN_MAX];

	if (requester == NULL) {
		lua_pushnil(L);
	} else {
		size_t length = requester_token(requester, token);

		lua_pushlstring(L, (const char *)token, length);
	}
	return 1;
}

/* book:knows(jid) -> boolean: whether it is the JID of one of this or of the last generation */
static int l_requesters_knows(lua_State *L)
{
	const struct requesters *book = check_object(L, REQUESTERS_TYPE);

	lua_pushboolean(L, requesters_find_either(book, check_text(L, 2)) != NULL);
	return 1;
}

/* book:use(jid[, token]): if the requester is idle, it has been so since now */
static int l_requesters_use(lua_State *L)
{
	struct requesters *book = check_object(L, REQUESTERS_TYPE);
	struct requester *requester = named_requester(L, book, 3);

	luaL_argcheck(L, requester != NULL, 2, "no such requester");
	requesters_use(book, requester);
	return 0;
}

/* book:resolve(token) -> jid | nil */
static int l_requesters_resolve(lua_State *L)
{
	const struct requesters *book = check_object(L, REQUESTERS_TYPE);
	const struct requester *requester = requesters_resolve(book, check_text(L, 2));

	return push_text(L, requester == NULL ? (struct text){NULL, 0} : requester_jid(requester));
}

/*
 * book:add(jid, token) -> true | nil, "no-memory" | "full" | "taken"
 * The token has 8 to 255 bytes, or none. "taken": find() or resolve() finds somebody by one of the two.
 */
static int l_requesters_add(lua_State *L)
{
	struct requesters *book = check_object(L, REQUESTERS_TYPE);
	struct text jid = check_jid(L), token = check_token(L);
	struct requester *requester;
	enum requesters_status status;

	if (requesters_find(book, jid) != NULL || requesters_resolve(book, token) != NULL) {
		return fail(L, "taken");
	}
	status = requesters_add(book, jid, token, &requester);
	if (status != REQUESTERS_OK) {
		return fail(L, status == REQUESTERS_FULL ? "full" : "no-memory");
	}
	lua_pushboolean(L, 1);
	return 1;
}

/*
 * book:hold(jid, bytes[, token]) -> true | nil, "no-memory"
 * The requester has one thing more pending, and is not forgotten until that has ended.
 */
static int l_requesters_hold(lua_State *L)
{
	struct requesters *book = check_object(L, REQUESTERS_TYPE);
	struct requester *requester = check_requester(L, book);
	size_t held, count = requesters_pending(book, requester, &held);
	size_t bytes = check_held_bytes(L, REQUESTERS_BYTES_MAX - held);

	luaL_argcheck(L, count < REQUESTERS_COUNT_MAX, 2, "has too much pending");
	if (requesters_hold(book, requester, bytes) != 0) {
		return no_memory(L);
	}
	lua_pushboolean(L, 1);
	return 1;
}

/* book:lighten(jid, bytes[, token]): what it has pending holds so many bytes less */
static int l_requesters_lighten(lua_State *L)
{
	struct requesters *book = check_object(L, REQUESTERS_TYPE);
	struct requester *requester = check_held(L, book);
	size_t held;

	requesters_pending(book, requester, &held);
	requesters_lighten(book, requester, check_held_bytes(L, held));
	return 0;
}

/* book:release(jid, bytes[, token]): one thing that it had pending has ended, which held so many bytes */
static int l_requesters_release(lua_State *L)
{
	struct requesters *book = check_object(L, REQUESTERS_TYPE);
	struct requester *requester = check_held(L, book);
	size_t held;

	requesters_pending(book, requester, &held);
	requesters_release(book, requester, check_held_bytes(L, held));
	return 0;
}

/*
 * book:pending(jid[, token]) -> count, bytes, count of its own | nil
 * How many things its bare JID has pending, how many bytes these hold, and how many are its own.
 */
static int l_requesters_pending(lua_State *L)
{
	struct requesters *book = check_object(L, REQUESTERS_TYPE);
	const struct requester *requester = named_requester(L, book, 3);
	size_t bytes;

	if (requester == NULL) {
		lua_pushnil(L);
		return 1;
	}
	lua_pushinteger(L, (lua_Integer)requesters_pending(book, requester, &bytes));
	lua_pushinteger(L, (lua_Integer)bytes);
	lua_pushinteger(L, (lua_Integer)requester_pending(requester));
	return 3;
}

/* #book -> integer: how many requesters are remembered */
static int l_requesters_len(lua_State *L)
{
	lua_pushinteger(L, (lua_Integer)requesters_count(check_object(L, REQUESTERS_TYPE)));
	return 1;
}

/* One method a line: */
/* clang-format off */

static const luaL_Reg requesters_methods[] = {
	{"set_max", l_requesters_set_max},
	{"new_generation", l_requesters_new_generation},
	{"find", l_requesters_find},
	{"knows", l_requesters_knows},
	{"use", l_requesters_use},
	{"resolve", l_requesters_resolve},
	{"add", l_requesters_add},
	{"hold", l_requesters_hold},
	{"lighten", l_requesters_lighten},
	{"release", l_requesters_release},
	{"pending", l_requesters_pending},
	{NULL, NULL},
};

static const luaL_Reg requesters_metamethods[] = {
	{"__len", l_requesters_len},
	{"__gc", l_requesters_gc},
	{NULL, NULL},
};

/* clang-format on */

void lua_open_requesters(lua_State *L)
{
	register_type(L, REQUESTERS_TYPE, requesters_methods, requesters_metamethods);
	lua_pushcfunction(L, l_requesters_new);
	lua_setfield(L, -2, "requesters");
	set_integer(L, "REQUESTERS_SEEDBYTES", REQUESTERS_SEEDBYTES);
}
