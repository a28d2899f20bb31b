#include "lua/lua_object.h"

unsigned long object_calls;

void register_type(lua_State *L, const char *type, const luaL_Reg *methods, const luaL_Reg *metamethods)
{
	luaL_newmetatable(L, type);
	luaL_setfuncs(L, metamethods, 0);
	lua_newtable(L);
	luaL_setfuncs(L, methods, 0);
	lua_setfield(L, -2, "__index");
	lua_pop(L, 1);
}

void **new_object(lua_State *L, const char *type, int user_values)
{
	void **object = lua_newuserdatauv(L, sizeof *object, user_values);

	*object = NULL;
	luaL_setmetatable(L, type);
	return object;
}

const uint8_t *check_bytes(lua_State *L, int arg, size_t expected)
{
	size_t len;
	const char *bytes = luaL_checklstring(L, arg, &len);

	if (len != expected) {
		luaL_argerror(L, arg, lua_pushfstring(L, "%d bytes expected, got %d", (int)expected, (int)len));
	}
	return (const uint8_t *)bytes;
}

int fail(lua_State *L, const char *code)
{
	lua_pushnil(L);
	lua_pushstring(L, code);
	return 2;
}

int no_memory(lua_State *L)
{
	return fail(L, "no-memory");
}

void set_integer(lua_State *L, const char *name, lua_Integer value)
{
	lua_pushinteger(L, value);
	lua_setfield(L, -2, name);
}
