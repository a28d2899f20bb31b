/*
 * What has to be installed to build core.so, and the Debian package that has it. The
 * Makefile has this read before it compiles anything, so that what is missing is said
 * once and by its name.
 */
#ifndef REQUIREMENTS_H
#define REQUIREMENTS_H

#if !__has_include(<sodium.h>)
#error "The headers of libsodium are missing. On Debian: apt-get install libsodium-dev"
#elif !__has_include(<lua.h>)
#error "The headers of Lua 5.4 are missing. On Debian: apt-get install liblua5.4-dev; elsewhere: make LUA_CFLAGS=..."
#else
#include <lua.h>
#if LUA_VERSION_NUM != 504
#error "These are not the headers of Lua 5.4. On Debian: apt-get install liblua5.4-dev; elsewhere: make LUA_CFLAGS=..."
#endif
#endif

#endif
