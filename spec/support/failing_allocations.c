/*
 * Linked into a core.so for specs, with -Wl,--wrap for each function that allocates: lets
 * a spec choose an allocation that fails, one of the core's, or any that is made in one
 * call, Lua's own included. Those inside of libsodium do not fail.
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

int __real_sodium_init(void);

void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);
void *__wrap_sodium_allocarray(size_t count, size_t size);
void *__wrap_mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset);
int __wrap_sodium_init(void);

static lua_Integer countdown; /* how many allocations there are up to the one that fails; 0: none fails */
static lua_Alloc lua_alloc;   /* what Lua allocates with */

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

int __wrap_sodium_init(void)
{
	return fails() ? -1 : __real_sodium_init();
}

__attribute__((visibility("default"))) int fail_allocation(lua_State *L);

/*
 * fail_allocation(n) -> boolean: lets the n-th allocation from now on fail (0: none). Returns whether the one
 * that was chosen by the call before has failed.
 */
int fail_allocation(lua_State *L)
{
	lua_pushboolean(L, countdown == 0);
	countdown = luaL_checkinteger(L, 1);
	return 1;
}

/*
 * If an allocation fails, Lua collects its garbage and asks once more: then that has to fail, too. What gets no
 * larger must not fail.
 */
static void *fail_lua(void *data, void *old, size_t old_size, size_t size)
{
	static int is_asked_again;

	if (size > (old != NULL ? old_size : 0)) {
		if (is_asked_again) {
			is_asked_again = 0;
			return NULL;
		}
		if (fails()) {
			is_asked_again = 1;
			return NULL;
		}
	}
	return lua_alloc(data, old, old_size, size);
}

__attribute__((visibility("default"))) int call_failing(lua_State *L);

/*
 * call_failing(n, f, ...) -> boolean, ...: calls pcall(f, ...), in which the n-th allocation fails (0: none),
 * be it Lua's or the core's. Returns whether one has failed, and what pcall returned. Lua collects no garbage
 * meanwhile but because of that.
 */
int call_failing(lua_State *L)
{
	lua_Integer number = luaL_checkinteger(L, 1);
	void *data;
	int status;

	lua_alloc = lua_getallocf(L, &data);
	lua_gc(L, LUA_GCSTOP);
	lua_setallocf(L, fail_lua, data);
	countdown = number;
	status = lua_pcall(L, lua_gettop(L) - 2, LUA_MULTRET, 0);
	lua_pushboolean(L, number > 0 && countdown == 0);
	countdown = 0;
	lua_setallocf(L, lua_alloc, data);
	lua_gc(L, LUA_GCRESTART);
	lua_replace(L, 1);
	lua_pushboolean(L, status == LUA_OK);
	lua_insert(L, 2);
	return lua_gettop(L);
}
