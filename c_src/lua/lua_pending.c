/*
 * core.pending: the pending-request table. Times are seconds on any one clock that
 * does not run backwards.
 *
 * What is kept of a request to be sent again is a Lua value. It belongs to the
 * request's entry and comes back with it: it lies in the userdata's user value, a
 * table, at a place that the entry alone knows, and is taken out when the entry is.
 */
#include "lua/lua_pending.h"
#include "lua/lua_core.h"
#include "lua/lua_object.h"
#include "lua/lua_weight.h"
#include "pending.h"

enum {
	KEPT_BYTES_MAX = 8192, /* of one request */
};

double check_time(lua_State *L, int arg)
{
	double time = luaL_checknumber(L, arg);

	luaL_argcheck(L, time == time, arg, "not a time");
	return time;
}

struct pending_answer check_answer(lua_State *L)
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

uint8_t check_retries(lua_State *L, int arg, int stanza)
{
	lua_Integer retries = luaL_optinteger(L, arg, 0);

	luaL_argcheck(L, retries >= 0 && retries <= UINT8_MAX, arg, "0 to 255 expected");
	if (retries > 0) {
		luaL_checktype(L, stanza, LUA_TTABLE);
	}
	return (uint8_t)retries;
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

/*
 * core.pending(seed, book) -> pending | nil, "no-memory": an empty table for requests of those in `book`
 * seed: PENDING_SEEDBYTES secret random bytes
 */
static int l_pending_new(lua_State *L)
{
	const uint8_t *seed = check_bytes(L, 1, PENDING_SEEDBYTES);
	struct requesters *book = check_object_at(L, 2, REQUESTERS_TYPE);
	void **object = new_object(L, PENDING_TYPE, PENDING_USER_VALUES);

	lua_newtable(L);
	lua_setiuservalue(L, -2, PENDING_KEPT);
	lua_pushvalue(L, 2); /* as the book has to last as long as the table */
	lua_setiuservalue(L, -2, PENDING_BOOK);
	*object = pending_new(seed, book);
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

uint8_t weigh(lua_State *L, int stanza, uint8_t retries, uint32_t *bytes)
{
	size_t weight = retries > 0 ? lua_weight(L, stanza, KEPT_BYTES_MAX) : 0;

	if (retries == 0 || weight > KEPT_BYTES_MAX) {
		return 0;
	}
	*bytes = (uint32_t)weight;
	return retries;
}

int32_t keep(lua_State *L, int pending, int stanza, uint8_t retries)
{
	int32_t place = LUA_NOREF;

	if (retries > 0) {
		lua_getiuservalue(L, pending, PENDING_KEPT);
		lua_pushvalue(L, stanza);
		place = luaL_ref(L, -2);
		lua_pop(L, 1);
	}
	return place;
}

void push_kept(lua_State *L, int pending, uint8_t retries, int32_t place)
{
	if (retries == 0) {
		lua_pushnil(L);
		return;
	}
	lua_getiuservalue(L, pending, PENDING_KEPT);
	lua_rawgeti(L, -1, place);
	luaL_unref(L, -2, place);
	lua_remove(L, -2);
}

/* The requester with the JID `jid`, added to the table's book without a token if it was not there; NULL if it cannot
 * be. */
static struct requester *get_requester(lua_State *L, struct text jid)
{
	struct requesters *book;
	struct requester *requester;

	lua_getiuservalue(L, 1, PENDING_BOOK);
	book = check_object_at(L, -1, REQUESTERS_TYPE);
	lua_pop(L, 1);
	requester = requesters_find(book, jid);
	if (requester == NULL && requesters_add(book, jid, (struct text){NULL, 0}, &requester) != REQUESTERS_OK) {
		return NULL;
	}
	return requester;
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
	struct text requester = check_text(L, 5);
	struct pending_request request = {
		.service = check_text(L, 6),
		.id = answer.id,
		.added = check_time(L, 7),
		.deadline = check_time(L, 8),
		.retries = check_retries(L, 9, 10),
	};
	struct pending_entry *entry;
	enum pending_status status;

	luaL_argcheck(L, requester.length <= REQUESTERS_JID_MAX, 5, "too long");
	request.retries = weigh(L, 10, request.retries, &request.kept_bytes);
	request.requester = get_requester(L, requester);
	if (request.requester == NULL) {
		return no_memory(L);
	}
	request.kept = keep(L, 1, 10, request.retries);
	status = pending_add(pending, &answer, &request, &entry);
	if (status != PENDING_OK) {
		push_kept(L, 1, request.retries, request.kept);
		return fail(L, pending_code(status));
	}
	lua_pushboolean(L, 1);
	return 1;
}

/* Pushes a text of an entry that was found when there had been so many calls; raises if there was another one since. */
static void push_of_entry(lua_State *L, struct text text, unsigned long calls)
{
	push_text(L, text);
	if (object_calls != calls) {
		luaL_error(L, "a finalizer has called a method of the core");
	}
}

/*
 * Pushes an entry's requester, service, id, backend, when it was added, its deadline, how many
 * retries it has left and the stanza that is kept, nil if none is; or nil for NULL. Removes it.
 */
static int take_entry(lua_State *L, struct pending *pending, struct pending_entry *entry)
{
	unsigned long calls = object_calls;
	struct pending_request request;

	if (entry == NULL) {
		lua_pushnil(L);
		return 1;
	}
	request = pending_read(entry);
	push_of_entry(L, requester_jid(request.requester), calls);
	push_of_entry(L, request.service, calls);
	push_of_entry(L, request.id, calls);
	push_of_entry(L, request.backend, calls);
	lua_pushnumber(L, request.added);
	lua_pushnumber(L, request.deadline);
	lua_pushinteger(L, request.retries);
	push_kept(L, 1, request.retries, request.kept);
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
	unsigned long calls = object_calls;

	if (entry == NULL) {
		lua_pushnil(L);
		return 1;
	}
	push_of_entry(L, requester_jid(pending_read(entry).requester), calls);
	push_of_entry(L, pending_read(entry).service, calls);
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

		push_kept(L, 1, request.retries, request.kept);
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

/* pending:count_answered(from, to, id) -> integer: how many requests this can answer; take() takes the oldest */
static int l_pending_count_answered(lua_State *L)
{
	const struct pending *pending = check_object(L, PENDING_TYPE);
	struct pending_answer answer = check_answer(L);

	lua_pushinteger(L, (lua_Integer)pending_count_answered(pending, &answer));
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
	{"count_answered", l_pending_count_answered},
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
