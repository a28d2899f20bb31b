/*
 * What the units' bindings have in common. Each function that Lua calls checks
 * its arguments, calls the unit once, and pushes what that returned. A caller's
 * mistake raises; a failure to be expected returns nil and a code.
 *
 * A unit's object lives in a userdata that holds one pointer, NULL until the
 * object is made, so that a collection at any moment finds nothing half made.
 */
#ifndef LUA_OBJECT_H
#define LUA_OBJECT_H

#include <lauxlib.h>
#include <lua.h>
#include <stddef.h>
#include <stdint.h>

#include "text.h"

/* The types of the objects, as luaL_checkudata knows them. */
#define JAT_TYPE "mod_client_proxy.jat"
#define POOL_TYPE "mod_client_proxy.pool"
#define PENDING_TYPE "mod_client_proxy.pending"
#define REQUESTERS_TYPE "mod_client_proxy.requesters"
#define EXCHANGE_TYPE "mod_client_proxy.exchange"

/* Gives a type its methods and metamethods. */
void register_type(lua_State *L, const char *type, const luaL_Reg *methods, const luaL_Reg *metamethods);

/* Pushes a userdata of that type with that many user values, and returns where its pointer is, still NULL. */
void **new_object(lua_State *L, const char *type, int user_values);

/*
 * How often a method, or a function that makes an object, was called with one. Whenever Lua is asked for memory, its
 * garbage collector can run finalizers, which can call any of these. Who holds on to a part of an object meanwhile
 * sees by this number whether that has happened: then the part may be there no longer.
 */
extern unsigned long object_calls;

/* The object in the userdata of that type at `arg`; raises if it is another value, or was collected already. */
static inline void *check_object_at(lua_State *L, int arg, const char *type)
{
	void *object = *(void **)luaL_checkudata(L, arg, type);

	luaL_argcheck(L, object != NULL, arg, "already collected");
	object_calls++;
	return object;
}

/* The same of a method's first argument. */
static inline void *check_object(lua_State *L, const char *type)
{
	return check_object_at(L, 1, type);
}

/* The bytes of the string at `arg`, which raises unless there are as many as expected. */
const uint8_t *check_bytes(lua_State *L, int arg, size_t expected);

/* The string at `arg`, valid as long as that is. */
static inline struct text check_text(lua_State *L, int arg)
{
	struct text text;

	text.bytes = luaL_checklstring(L, arg, &text.length);
	return text;
}

/* The same, or no text (whose bytes are NULL) where there is nothing or nil. */
static inline struct text opt_text(lua_State *L, int arg)
{
	struct text text;

	text.bytes = luaL_optlstring(L, arg, NULL, &text.length);
	return text;
}

/* Pushes the text, or nil if it is none. Returns 1, how many values that is. */
static inline int push_text(lua_State *L, struct text text)
{
	if (text.bytes == NULL) {
		lua_pushnil(L);
	} else {
		lua_pushlstring(L, text.bytes, text.length);
	}
	return 1;
}

/* Pushes nil and the code; how many values that are. */
int fail(lua_State *L, const char *code);

/* fail() with the one code that every object has: "no-memory". */
int no_memory(lua_State *L);

/* Sets a field of the table at the top of the stack. */
void set_integer(lua_State *L, const char *name, lua_Integer value);

#endif
