/*
 * The pool: the set of backends, and the choice among them.
 *
 * Every call is O(1), pool_clear and pool_free O(n).
 *
 * sodium_init() must have succeeded before any of this is called.
 */
#ifndef POOL_H
#define POOL_H

#include <stddef.h>
#include <stdint.h>

enum { POOL_SEEDBYTES = 24 };

struct pool;

/*
 * An empty pool; `seed` (copied) keys its hash and starts its random choices.
 * NULL if there is no memory. The caller owns it: pool_free.
 */
struct pool *pool_new(const uint8_t seed[POOL_SEEDBYTES]);

/* Frees the pool and its backends; NULL is harmless. */
void pool_free(struct pool *pool);

/* 1 if `jid` is a backend now and was none before, 0 if it was one already, -1 if there is no memory. */
int pool_add(struct pool *pool, const char *jid, size_t jid_len);

/* 1 if `jid` was a backend, 0 if not; it is none now. */
int pool_remove(struct pool *pool, const char *jid, size_t jid_len);

/* Removes every backend. */
void pool_clear(struct pool *pool);

/* How many backends there are. */
size_t pool_count(const struct pool *pool);

/*
 * The JID of one of the backends, each as likely as the next, and its length;
 * NULL if there is none. `except`, unless NULL, is a JID never to return. Valid
 * until that backend is removed.
 */
const char *pool_pick(struct pool *pool, const char *except, size_t except_len, size_t *jid_len);

#endif
