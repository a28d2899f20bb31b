/*
 * require "mod_client_proxy.core": a table with what each unit adds to it, and with
 * core.VERSION, that of the Lua files it was built with. How many bytes a key or a seed
 * must have is in core.JAT_KEYBYTES, POOL_SEEDBYTES, POOL_KEYBYTES, PENDING_SEEDBYTES and
 * REQUESTERS_SEEDBYTES.
 */
#include "requirements.h"

#include <lauxlib.h>
#include <lua.h>
#include <sodium.h>

#include "lua/lua_core.h"

#define TEXT(word) #word
#define TEXT_OF(macro) TEXT(macro)

__attribute__((visibility("default"))) int luaopen_mod_client_proxy_core(lua_State *L);

int luaopen_mod_client_proxy_core(lua_State *L)
{
	luaL_checkversion(L);
	if (sodium_init() < 0) {
		return luaL_error(L, "libsodium cannot be initialised");
	}
	lua_newtable(L);
	lua_pushliteral(L, TEXT_OF(CLIENT_PROXY_VERSION));
	lua_setfield(L, -2, "VERSION");
	lua_open_jat(L);
	lua_open_pool(L);
	lua_open_pending(L);
	lua_open_requesters(L);
	return 1;
}
