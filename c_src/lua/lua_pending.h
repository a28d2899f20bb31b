/*
 * What bindings of other units need of that of the pending table.
 */
#ifndef LUA_PENDING_H
#define LUA_PENDING_H

#include <lua.h>
#include <stdint.h>

#include "pending.h"

/* The user values of a pending table's userdata. */
enum {
	PENDING_KEPT = 1, /* a table of what is kept of requests */
	PENDING_BOOK,
};
enum { PENDING_USER_VALUES = PENDING_BOOK };

/* A time, which is not NaN */
double check_time(lua_State *L, int arg);

/* What an answer carries, in the arguments 2 to 4 */
struct pending_answer check_answer(lua_State *L);

/* How many retries there are at `arg`, none if there is nothing or nil; if there are, the stanza is a table. */
uint8_t check_retries(lua_State *L, int arg, int stanza);

/*
 * Weighs the stanza at the index `stanza`, which is to be kept for a request with retries. Writes how many bytes it
 * counts as. Returns how many retries the request has from now on: none if it is too large, and then nothing is
 * written.
 */
uint8_t weigh(lua_State *L, int stanza, uint8_t retries, uint32_t *bytes);

/*
 * Keeps the stanza at the index `stanza` for a request with so many retries, as long as that is pending in the table
 * whose userdata is at the index `pending`. Returns its place there, any number if there are no retries. Runs no
 * finalizers.
 */
int32_t keep(lua_State *L, int pending, int stanza, uint8_t retries);

/* Pushes the stanza that is kept at that place for a request with retries, and forgets it; else nil. That needs no
 * memory. */
void push_kept(lua_State *L, int pending, uint8_t retries, int32_t place);

#endif
