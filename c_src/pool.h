/*
 * The pool: the set of backends, and the choice among them.
 *
 * Every call is O(1), but for pool_free.
 *
 * sodium_init() must have succeeded before any of this is called.
 */
#ifndef POOL_H
#define POOL_H

#include <stddef.h>
#include <stdint.h>

enum { POOL_SEEDBYTES = 24 };

/* Whether a backend is chosen for new requests. What it has, it may answer in any state. */
enum pool_state {
	POOL_READY,
	POOL_SUSPENDED, /* only while no backend is ready */
	POOL_AWAY,      /* never */
	POOL_STATES,
};

struct pool;

/*
 * An empty pool; `seed` (copied) keys its hash and starts its random choices.
 * NULL if there is no memory. The caller owns it: pool_free.
 */
struct pool *pool_new(const uint8_t seed[POOL_SEEDBYTES]);

/* Frees the pool and its backends; NULL is harmless. */
void pool_free(struct pool *pool);

/*
 * 1 if `jid` is a backend now, a ready one, and was none before; 0 if it was one
 * already, whose state stays; -1 if there is no memory.
 */
int pool_add(struct pool *pool, const char *jid, size_t jid_len);

/* 1 if `jid` was a backend, 0 if not; it is none now. */
int pool_remove(struct pool *pool, const char *jid, size_t jid_len);

/* Gives the backend `jid` a state. 1 if that is another than before, 0 if not or if it is no backend. */
int pool_set(struct pool *pool, const char *jid, size_t jid_len, enum pool_state state);

/* The JID of some backend, and its length; NULL if there is none. Valid until that backend is removed. */
const char *pool_any(const struct pool *pool, size_t *jid_len);

/* The state of the backend `jid`; POOL_STATES if it is none. */
enum pool_state pool_state(const struct pool *pool, const char *jid, size_t jid_len);

/* How many backends there are. */
size_t pool_count(const struct pool *pool);

/*
 * The JID of one of the ready backends, each as likely as the next, or else of
 * one of the suspended ones, and its length; NULL if there is none of either.
 * `except`, unless NULL, is a JID never to return. Valid until that backend is
 * removed.
 */
const char *pool_pick(struct pool *pool, const char *except, size_t except_len, size_t *jid_len);

#endif
