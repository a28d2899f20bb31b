/*
 * Linked into a core.so of the specs with -Wl,--wrap for each allocator: makes
 * a chosen allocation of the core fail. Lua's own and libsodium's inner ones
 * are untouched.
 */
#include <lauxlib.h>
#include <lua.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/types.h>

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void *__real_sodium_allocarray(size_t count, size_t size);
void *__real_mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset);

void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);
void *__wrap_sodium_allocarray(size_t count, size_t size);
void *__wrap_mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset);

static lua_Integer countdown; /* 0: nothing is going to fail */

static int fails(void)
{
	return countdown > 0 && --countdown == 0;
}

void *__wrap_malloc(size_t size)
{
	return fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
	return fails() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *old, size_t size)
{
	return fails() ? NULL : __real_realloc(old, size);
}

void *__wrap_sodium_allocarray(size_t count, size_t size)
{
	return fails() ? NULL : __real_sodium_allocarray(count, size);
}

void *__wrap_mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset)
{
	return fails() ? MAP_FAILED : __real_mmap(address, size, protection, flags, fd, offset);
}

__attribute__((visibility("default"))) int fail_allocation(lua_State *L);

/* fail_allocation(n) -> boolean: lets the n-th allocation from now on fail (0: none); whether an earlier call's did */
int fail_allocation(lua_State *L)
{
	lua_pushboolean(L, countdown == 0);
	countdown = luaL_checkinteger(L, 1);
	return 1;
}
