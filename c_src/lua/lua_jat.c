/*
 * core.jat: the token codec
 */
#include "lua/lua_jat.h"
#include "jat.h"
#include "lua/lua_core.h"
#include "lua/lua_object.h"

const char *jat_code(enum jat_status status)
{
	switch (status) {
	case JAT_SHORT_TOKEN:
		return "short";
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

/* In the order of enum jat_format */
static const char *const jat_formats[] = {"short", "sealed", "signed", "plain", NULL};

enum jat_format check_format(lua_State *L, int arg)
{
	return (enum jat_format)luaL_checkoption(L, arg, NULL, jat_formats);
}

/*
 * core.jat(host, format) -> jat | nil, "no-memory": a codec for the proxy host `host`, without a key
 * format: one of core.FORMATS
 */
static int l_jat_new(lua_State *L)
{
	struct text host = check_text(L, 1);
	enum jat_format format = check_format(L, 2);
	void **object = new_object(L, JAT_TYPE, 0);

	*object = jat_new(host, format);
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
	char token[JAT_TOKEN_MAX];
	size_t token_len;
	enum jat_status status = jat_encode(jat, jat_format(jat), JAT_REQUESTER, check_text(L, 2), token, &token_len);

	if (status != JAT_OK) {
		return fail(L, jat_code(status));
	}
	lua_pushlstring(L, token, token_len);
	return 1;
}

/*
 * jat:decode(token) -> jid | nil, "short" | "digest" | "plain" | "bad-token" | "unknown-key" | "forged"
 * A short token or a digest is a name, which does not tell by itself whose it is. A plain one does, but anybody could
 * have made it.
 */
static int l_jat_decode(lua_State *L)
{
	const struct jat *jat = check_object(L, JAT_TYPE);
	enum jat_kind kind;
	char jid[JAT_JID_MAX];
	size_t jid_len;
	enum jat_status status = jat_decode(jat, jat_format(jat), check_text(L, 2), &kind, jid, &jid_len);

	if (status != JAT_OK) {
		return fail(L, jat_code(status));
	}
	lua_pushlstring(L, jid, jid_len);
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

/* clang-format on */

/* Pushes core.FORMATS, the list of the formats' names. */
static void push_formats(lua_State *L)
{
	size_t i;

	lua_newtable(L);
	for (i = 0; jat_formats[i] != NULL; i++) {
		lua_pushstring(L, jat_formats[i]);
		lua_rawseti(L, -2, (lua_Integer)i + 1);
	}
}

void lua_open_jat(lua_State *L)
{
	register_type(L, JAT_TYPE, jat_methods, jat_metamethods);
	lua_pushcfunction(L, l_jat_new);
	lua_setfield(L, -2, "jat");
	set_integer(L, "JAT_KEYBYTES", JAT_KEYBYTES);
	push_formats(L);
	lua_setfield(L, -2, "FORMATS");
}
