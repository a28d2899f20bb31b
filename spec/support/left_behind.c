/*
 * Linked into a core.so for specs, with -Wl,--wrap for each function that gives memory
 * back: looks for a secret in the memory that is given back, and in what calls have left
 * on the stack. sodium_free is not among them, as it wipes by itself.
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

/* Each byte has one bit changed, so that the secret is not found right here. */
static unsigned char secret[SECRET_MAX];
static size_t secret_len;
static int is_left; /* whether it was in memory that was given back */

/* Reads memory that it has no right to read, which AddressSanitizer has to let pass. */
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

/* look_for(bytes): these are the secret from now on. */
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

/*
 * left_behind() -> boolean, boolean: whether the secret was in memory that has been given back since look_for(),
 * and whether it is in what earlier calls have left on the stack
 */
__attribute__((no_sanitize("address", "undefined"))) int left_behind(lua_State *L)
{
	const volatile unsigned char here = 0;

	lua_pushboolean(L, is_left);
	lua_pushboolean(L, holds_secret(&here - STACK_BYTES, STACK_BYTES));
	return 2;
}
