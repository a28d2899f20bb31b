/*
 * core.pending: the pending-request table. Times are seconds on any one clock that
 * does not run backwards.
 *
 * What is kept of a request to be sent again is a Lua value. It belongs to the
 * request's entry and comes back with it: it lies in the userdata's user value, a
 * table, at a place that the entry alone knows, and is taken out when the entry is.
 */
#include "lua/lua_core.h"
#include "lua/lua_object.h"
#include "lua/lua_weight.h"
#include "pending.h"

enum {
	KEPT_BYTES_MAX = 8192, /* of one request */
};

/* A text that is no longer than pending_request has room for */
static struct text check_address(lua_State *L, int arg)
{
	struct text text = check_text(L, arg);

	luaL_argcheck(L, text.length <= UINT16_MAX, arg, "too long");
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
		.from = check_text(L, 2),
		.to = check_text(L, 3),
		.id = check_text(L, 4),
	};
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

/* Keeps the stanza at `index` if the request has retries. If that is too large, it has none from now on. */
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

/* Pushes the stanza that is kept for the request, or nil, and forgets it. That needs no memory. */
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
		.requester = check_address(L, 5),
		.service = check_address(L, 6),
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

/*
 * pending:first_movable(backend) -> requester, service, added | nil: of the oldest one with retries
 * left that `backend` has
 */
static int l_pending_first_movable(lua_State *L)
{
	const struct pending *pending = check_object(L, PENDING_TYPE);
	const struct pending_entry *entry = pending_first_movable(pending, check_text(L, 2));

	if (entry == NULL) {
		lua_pushnil(L);
		return 1;
	}
	push_text(L, pending_read(entry).requester);
	push_text(L, pending_read(entry).service);
	lua_pushnumber(L, pending_read(entry).added);
	return 3;
}

/* pending:take_movable(backend) -> as take() | nil: takes first_movable(), which is pending no longer */
static int l_pending_take_movable(lua_State *L)
{
	struct pending *pending = check_object(L, PENDING_TYPE);

	return take_entry(L, pending, pending_first_movable(pending, check_text(L, 2)));
}

/*
 * pending:take_fixed(backend, time) -> as take() | nil
 * The request without retries that has been with `backend` the longest, if it was added before
 * that time; it is pending no longer.
 */
static int l_pending_take_fixed(lua_State *L)
{
	struct pending *pending = check_object(L, PENDING_TYPE);
	struct pending_entry *entry = pending_first_fixed(pending, check_text(L, 2));
	lua_Number time = luaL_checknumber(L, 3);

	return take_entry(L, pending, entry != NULL && pending_read(entry).added < time ? entry : NULL);
}

/* pending:fix_movable(backend): first_movable(), if there is one, has no retries any more */
static int l_pending_fix_movable(lua_State *L)
{
	struct pending *pending = check_object(L, PENDING_TYPE);
	struct pending_entry *entry = pending_first_movable(pending, check_text(L, 2));

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

	pending_abandon(pending, check_text(L, 2));
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

	lua_pushinteger(L, (lua_Integer)pending_count_of(pending, check_text(L, 2)));
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

static const luaL_Reg pending_methods[] = {
	{"set_limits", l_pending_set_limits},
	{"add", l_pending_add},
	{"take", l_pending_take},
	{"first_movable", l_pending_first_movable},
	{"take_movable", l_pending_take_movable},
	{"take_fixed", l_pending_take_fixed},
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

/* clang-format on */

void lua_open_pending(lua_State *L)
{
	register_type(L, PENDING_TYPE, pending_methods, pending_metamethods);
	lua_pushcfunction(L, l_pending_new);
	lua_setfield(L, -2, "pending");
	set_integer(L, "PENDING_SEEDBYTES", PENDING_SEEDBYTES);
	set_integer(L, "PENDING_BYTES_EACH", PENDING_BYTES_EACH);
}
