/*
 * core.exchange: what one request, and its answer, do to all other units
 */
#include "exchange.h"
#include "lua/lua_core.h"
#include "lua/lua_jat.h"
#include "lua/lua_object.h"
#include "lua/lua_pending.h"

/* The user values of its userdata: those that it was made for, which have to last as long. */
enum { JAT = 1, BOOK, POOL, PENDING };
enum { USER_VALUES = PENDING };

static const char *exchange_code(enum exchange_status status)
{
	switch (status) {
	case EXCHANGE_NO_BACKEND:
		return "no-backend";
	case EXCHANGE_NONE_READY:
		return "none-ready";
	case EXCHANGE_BAD_ADDRESS:
		return "bad-address";
	case EXCHANGE_FULL:
		return "full";
	case EXCHANGE_REQUESTER_FULL:
		return "requester-full";
	case EXCHANGE_CONFLICT:
		return "conflict";
	case EXCHANGE_BAD_ID:
		return "bad-id";
	case EXCHANGE_OK:
	case EXCHANGE_NO_MEMORY:
		break;
	}
	return "no-memory";
}

/* core.exchange(jat, book, pool, pending) -> exchange | nil, "no-memory"; `pending` is a table for those in `book` */
static int l_exchange_new(lua_State *L)
{
	struct jat *jat = check_object_at(L, JAT, JAT_TYPE);
	struct requesters *book = check_object_at(L, BOOK, REQUESTERS_TYPE);
	struct pool *pool = check_object_at(L, POOL, POOL_TYPE);
	struct pending *pending = check_object_at(L, PENDING, PENDING_TYPE);
	void **object;
	int i;

	lua_getiuservalue(L, PENDING, PENDING_BOOK);
	luaL_argcheck(L, lua_rawequal(L, -1, BOOK), PENDING, "a table for those in this book expected");
	object = new_object(L, EXCHANGE_TYPE, USER_VALUES);
	for (i = 1; i <= USER_VALUES; i++) {
		lua_pushvalue(L, i);
		lua_setiuservalue(L, -2, i);
	}
	*object = exchange_new(jat, book, pool, pending);
	return *object == NULL ? no_memory(L) : 1;
}

static int l_exchange_gc(lua_State *L)
{
	void **object = luaL_checkudata(L, 1, EXCHANGE_TYPE);

	exchange_free(*object);
	*object = NULL;
	return 0;
}

/*
 * exchange:use(jat, pool): it takes these in the place of those it had. Whoever has the exchange uses them from then
 * on, so that all tokens in the book are of one format and key.
 */
static int l_exchange_use(lua_State *L)
{
	struct exchange *exchange = check_object(L, EXCHANGE_TYPE);
	struct jat *jat = check_object_at(L, 2, JAT_TYPE);
	struct pool *pool = check_object_at(L, 3, POOL_TYPE);

	exchange_use(exchange, jat, pool);
	lua_settop(L, 3);
	lua_setiuservalue(L, 1, POOL);
	lua_setiuservalue(L, 1, JAT);
	return 0;
}

/* Prepares a request, and pushes the backend's JID and the address. What is told of the backend lies there then. */
static enum exchange_status prepare(lua_State *L, struct exchange *exchange, const struct exchange_request *request,
                                    struct exchange_sent *sent)
{
	int top = lua_gettop(L);
	enum exchange_status status;
	unsigned long calls;

	do {
		lua_settop(L, top);
		calls = object_calls;
		status = exchange_prepare(exchange, request, sent);
		if (status != EXCHANGE_OK) {
			return status;
		}
		push_text(L, sent->backend);
		sent->backend.bytes = lua_tostring(L, -1);
		lua_pushlstring(L, sent->address, sent->address_len);
	} while (object_calls != calls); /* the requester may have been forgotten meanwhile */
	return EXCHANGE_OK;
}

/*
 * Pushes what Lua has to know to send the request, and records it as pending; what is to be kept of it is at 8.
 * That is pushed first, as it can raise for want of memory, and then nothing is to be pending.
 */
static enum exchange_status record(lua_State *L, struct exchange *exchange, struct exchange_request request,
                                   struct exchange_sent *sent)
{
	int pending = lua_gettop(L) + 1;
	enum exchange_status status;

	lua_getiuservalue(L, 1, PENDING);
	status = prepare(L, exchange, &request, sent);
	if (status != EXCHANGE_OK) {
		return status;
	}
	request.kept = keep(L, pending, 8, request.retries);
	status = exchange_record(exchange, &request, sent);
	if (status != EXCHANGE_OK) {
		push_kept(L, pending, request.retries, request.kept);
	}
	return status;
}

/*
 * exchange:dispatch(requester, service, id, time, deadline[, retries[, stanza[, backend]]])
 *     -> backend, address
 *      | nil, "no-backend" | "none-ready" | "bad-address" | "full" | "requester-full" | "conflict" | "bad-id"
 *             | "no-memory"
 * A request that `requester` has sent to the address `service` under that id is pending from now on. It is to be
 * sent to the JID `backend` from `address`. time (now), deadline: seconds; retries, stanza: as for pending:add();
 * backend: a JID, to have that backend and no other. If one that is chosen has a request that looks the same, another
 * one is tried.
 */
static int l_exchange_dispatch(lua_State *L)
{
	struct exchange *exchange = check_object(L, EXCHANGE_TYPE);
	struct exchange_request request = {
		.requester = check_text(L, 2),
		.service = check_text(L, 3),
		.id = check_text(L, 4),
		.time = check_time(L, 5),
		.deadline = check_time(L, 6),
		.retries = check_retries(L, 7, 8),
		.backend = opt_text(L, 9),
	};
	struct exchange_sent sent;
	enum exchange_status status;

	request.retries = weigh(L, 8, request.retries, &request.kept_bytes);
	status = record(L, exchange, request, &sent);
	if (status == EXCHANGE_CONFLICT && request.backend.bytes == NULL) {
		request.avoided = sent.backend;
		status = record(L, exchange, request, &sent);
	}
	if (status != EXCHANGE_OK) {
		return fail(L, exchange_code(status));
	}
	return 2;
}

/*
 * exchange:settle(from, to, id, time) -> requester, service, added | nil
 * The oldest request that the backend `from` answers so, with a result that counts as one; it is pending no longer.
 */
static int l_exchange_settle(lua_State *L)
{
	struct exchange *exchange = check_object(L, EXCHANGE_TYPE);
	struct pending_answer answer = check_answer(L);
	double time = check_time(L, 5);
	struct pending_entry *entry;
	struct pending_request request;
	unsigned long calls;

	do {
		lua_settop(L, 5);
		calls = object_calls;
		entry = exchange_find(exchange, &answer);
		if (entry == NULL) {
			lua_pushnil(L);
			return 1;
		}
		request = pending_read(entry);
		push_text(L, requester_jid(request.requester));
		if (object_calls == calls) {
			push_text(L, request.service);
		}
	} while (object_calls != calls); /* the entry may have been removed meanwhile */
	lua_pushnumber(L, request.added);
	if (request.retries > 0) {
		lua_getiuservalue(L, 1, PENDING);
		push_kept(L, lua_gettop(L), request.retries, request.kept);
		lua_pop(L, 2);
	}
	exchange_settle(exchange, entry, time);
	return 3;
}

/*
 * exchange:admit(backend) -> true | false | nil, "no-memory"
 * The JID is a backend in the pool from now on, with a token by which requesters know it: see pool:token(). false: it
 * was one already, and keeps its token.
 */
static int l_exchange_admit(lua_State *L)
{
	struct exchange *exchange = check_object(L, EXCHANGE_TYPE);
	int added = exchange_admit(exchange, check_text(L, 2));

	if (added < 0) {
		return no_memory(L);
	}
	lua_pushboolean(L, added);
	return 1;
}

/*
 * exchange:backend(resource) -> backend | nil, boolean
 * The JID of the backend whose token that is. Otherwise, whether it looks like the token of one.
 */
static int l_exchange_backend(lua_State *L)
{
	const struct exchange *exchange = check_object(L, EXCHANGE_TYPE);
	struct text resource = check_text(L, 2);
	const struct pool_backend *backend = exchange_backend(exchange, resource);

	if (backend != NULL) {
		return push_text(L, pool_jid(backend));
	}
	lua_pushnil(L);
	lua_pushboolean(L, jat_is_backend_token(resource));
	return 2;
}

/*
 * exchange:address(requester, service[, backend])
 *     -> backend, address | nil, "no-backend" | "none-ready" | "bad-address" | "full" | "no-memory"
 * What `requester` has sent to the address `service`, and what is not recorded (a message), is to be sent to the JID
 * `backend` from `address`. backend: a JID, to have that backend and no other; nil: the one that is chosen for what
 * belongs together. The requester has been used.
 */
static int l_exchange_address(lua_State *L)
{
	struct exchange *exchange = check_object(L, EXCHANGE_TYPE);
	struct exchange_request request = {
		.requester = check_text(L, 2),
		.service = check_text(L, 3),
		.backend = opt_text(L, 4),
	};
	struct exchange_sent sent;
	enum exchange_status status = exchange_address(exchange, &request, &sent);

	if (status != EXCHANGE_OK) {
		return fail(L, exchange_code(status));
	}
	push_text(L, sent.backend); /* copied before anything else can run */
	lua_pushlstring(L, sent.address, sent.address_len);
	return 2;
}

/* exchange:count_error(seconds): a request that took so long was answered by an error */
static int l_exchange_count_error(lua_State *L)
{
	struct exchange *exchange = check_object(L, EXCHANGE_TYPE);

	exchange_count_error(exchange, check_time(L, 2));
	return 0;
}

/*
 * exchange:counts() -> results, errors, seconds, count, ...
 * How many requests have been answered by results, and by errors; how long all of these took; and how many took at most
 * as long as each of core.ANSWER_TIMES says, but longer than the one before, and longer than all of them.
 */
static int l_exchange_counts(lua_State *L)
{
	const struct exchange_counts *counts = exchange_counts(check_object(L, EXCHANGE_TYPE));
	int i;

	lua_pushinteger(L, (lua_Integer)counts->results);
	lua_pushinteger(L, (lua_Integer)counts->errors);
	lua_pushnumber(L, counts->seconds);
	for (i = 0; i <= EXCHANGE_TIMES; i++) {
		lua_pushinteger(L, (lua_Integer)counts->times[i]);
	}
	return 3 + EXCHANGE_TIMES + 1;
}

/*
 * exchange:resolve(resource) -> jid | nil, reason: whom a token stands for, whatever its format
 * reason: as of jat:decode(); "short" and "digest" are what looks like one, but is of nobody in the book
 */
static int l_exchange_resolve(lua_State *L)
{
	const struct exchange *exchange = check_object(L, EXCHANGE_TYPE);
	char jid[JAT_JID_MAX];
	size_t jid_len;
	enum jat_status status = exchange_resolve(exchange, check_text(L, 2), jid, &jid_len);

	if (status != JAT_OK) {
		return fail(L, jat_code(status));
	}
	lua_pushlstring(L, jid, jid_len);
	return 1;
}

/*
 * exchange:reach(backend, resource) -> jid | nil, reason: whom a backend writes to, as resolve() says, but that for one
 * that sees plain tokens, such a token stands for somebody in the book, or for nobody. Whoever it is has been used.
 */
static int l_exchange_reach(lua_State *L)
{
	struct exchange *exchange = check_object(L, EXCHANGE_TYPE);
	char jid[JAT_JID_MAX];
	size_t jid_len;
	enum jat_status status = exchange_reach(exchange, check_text(L, 2), check_text(L, 3), jid, &jid_len);

	if (status != JAT_OK) {
		return fail(L, jat_code(status));
	}
	lua_pushlstring(L, jid, jid_len);
	return 1;
}

/* One method a line: */
/* clang-format off */

static const luaL_Reg exchange_methods[] = {
	{"use", l_exchange_use},
	{"admit", l_exchange_admit},
	{"backend", l_exchange_backend},
	{"address", l_exchange_address},
	{"reach", l_exchange_reach},
	{"dispatch", l_exchange_dispatch},
	{"settle", l_exchange_settle},
	{"count_error", l_exchange_count_error},
	{"counts", l_exchange_counts},
	{"resolve", l_exchange_resolve},
	{NULL, NULL},
};

static const luaL_Reg exchange_metamethods[] = {
	{"__gc", l_exchange_gc},
	{NULL, NULL},
};

/* clang-format on */

/* Pushes core.ANSWER_TIMES, a list of seconds. */
static void push_times(lua_State *L)
{
	int i;

	lua_newtable(L);
	for (i = 0; i < EXCHANGE_TIMES; i++) {
		lua_pushnumber(L, exchange_times[i]);
		lua_rawseti(L, -2, i + 1);
	}
}

void lua_open_exchange(lua_State *L)
{
	register_type(L, EXCHANGE_TYPE, exchange_methods, exchange_metamethods);
	lua_pushcfunction(L, l_exchange_new);
	lua_setfield(L, -2, "exchange");
	push_times(L);
	lua_setfield(L, -2, "ANSWER_TIMES");
}
