/*
 * Each of these adds what its unit has to the table at the top of the stack, which
 * becomes core: the function that makes an object, and constants.
 */
#ifndef LUA_CORE_H
#define LUA_CORE_H

#include <lua.h>

void lua_open_jat(lua_State *L);
void lua_open_pool(lua_State *L);
void lua_open_pending(lua_State *L);
void lua_open_requesters(lua_State *L);

#endif
