/*
 * What bindings of other units need of that of the codec.
 */
#ifndef LUA_JAT_H
#define LUA_JAT_H

#include <lua.h>

#include "jat.h"

/* The format whose name is the string at `arg`; raises if that is none. */
enum jat_format check_format(lua_State *L, int arg);

/* What Lua gets instead of JAT_OK's result */
const char *jat_code(enum jat_status status);

#endif
