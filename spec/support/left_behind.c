/*
 * Linked into a core.so of the specs with -Wl,--wrap for each function that gives
 * memory back: looks for a secret in what is given back, and in what is left of
 * the stack. What sodium_free gets, it wipes itself.
 */
#include <lauxlib.h>
#include <lua.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
	SECRET_MAX = 64,
	STACK_BYTES = 32 * 1024, /* far more than the core's deepest call takes */
};

void __real_free(void *memory);
int __real_munmap(void *address, size_t size);

void __wrap_free(void *memory);
int __wrap_munmap(void *address, size_t size);

/* Changed by one, lest it be found where it was put to be looked for */
static unsigned char secret[SECRET_MAX];
static size_t secret_len;
static int is_left; /* in memory given back */

/* Nobody has given that memory to this function, AddressSanitizer least of all. */
__attribute__((no_sanitize("address", "undefined"))) static int holds_secret(const volatile unsigned char *memory,
                                                                             size_t size)
{
	size_t start, i;

	for (start = 0; secret_len > 0 && start + secret_len <= size; start++) {
		for (i = 0; i < secret_len && memory[start + i] == (secret[i] ^ 1); i++) {
		}
		if (i == secret_len) {
			return 1;
		}
	}
	return 0;
}

void __wrap_free(void *memory)
{
	is_left |= memory != NULL && holds_secret(memory, malloc_usable_size(memory));
	__real_free(memory);
}

int __wrap_munmap(void *address, size_t size)
{
	is_left |= holds_secret(address, size);
	return __real_munmap(address, size);
}

__attribute__((visibility("default"))) int look_for(lua_State *L);

/* look_for(bytes): what is looked for from now on */
int look_for(lua_State *L)
{
	const char *bytes = luaL_checklstring(L, 1, &secret_len);
	size_t i;

	luaL_argcheck(L, secret_len <= SECRET_MAX, 1, "too long");
	for (i = 0; i < secret_len; i++) {
		secret[i] = (unsigned char)bytes[i] ^ 1;
	}
	is_left = 0;
	return 0;
}

__attribute__((visibility("default"))) int left_behind(lua_State *L);

/* left_behind() -> boolean, boolean: whether it was in memory given back since, and is in what calls before have left of the stack */
__attribute__((no_sanitize("address", "undefined"))) int left_behind(lua_State *L)
{
	const volatile unsigned char here = 0;

	lua_pushboolean(L, is_left);
	lua_pushboolean(L, holds_secret(&here - STACK_BYTES, STACK_BYTES));
	return 2;
}
