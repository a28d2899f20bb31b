/*
 * How much of Lua's memory a stanza takes (util.stanza's tables, as Prosody's
 * parser leaves them), from what Lua 5.4 takes for its tables and strings.
 */
#ifndef LUA_WEIGHT_H
#define LUA_WEIGHT_H

#include <lua.h>
#include <stddef.h>

/*
 * The bytes that the stanza at `index` takes, at most `max`; a number above `max` if it takes
 * more, found without looking further. What is no string, element or list of attributes in it does
 * not count. Calls no metamethod; raises if there is no memory for Lua's stack.
 */
size_t lua_weight(lua_State *L, int index, size_t max);

#endif
