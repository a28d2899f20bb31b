/*
 * The pool: the set of backends, and the choice among them.
 *
 * Every call is O(1) (expected), but for pool_free and pool_set_strategy, which go
 * through all backends, and with POOL_PRIMARY adding, removing and changing a
 * backend, and choosing one for the primary itself, which are O(log n) (expected).
 *
 * sodium_init() must have succeeded before any of this is called.
 */
#ifndef POOL_H
#define POOL_H

#include <stddef.h>
#include <stdint.h>

#include "text.h"

enum {
	POOL_SEEDBYTES = 24,
	POOL_KEYBYTES = 16,
};

/* Whether a backend is chosen for new requests. What it has, it may answer in any state. */
enum pool_state {
	POOL_READY,
	POOL_SUSPENDED, /* only while no backend is ready */
	POOL_AWAY,      /* never */
	POOL_STATES,
};

/* How a backend is chosen among the ready ones, or else among the suspended ones. */
enum pool_strategy {
	POOL_RANDOM,        /* each is as likely as the next */
	POOL_ROUND_ROBIN,   /* each in turn; whoever becomes ready, after those who wait already */
	POOL_LEAST_PENDING, /* of two at random, the one with the lower load */
	POOL_PRIMARY,       /* the one with the highest priority; of these, the longest in its state */
	POOL_SENDER,        /* by the requester's bare JID, consistently: see ring.h */
	POOL_RECIPIENT,     /* likewise by the bare service address */
};

struct pool;

/*
 * An empty pool, which chooses by POOL_RANDOM; `seed` (copied) keys its hash and
 * starts its random choices. NULL if there is no memory. The caller owns it:
 * pool_free.
 */
struct pool *pool_new(const uint8_t seed[POOL_SEEDBYTES]);

/* Frees the pool and its backends and wipes the seed and the key; NULL is harmless. */
void pool_free(struct pool *pool);

/*
 * 1 if `jid` is a backend now, a ready one with priority 0, and was none before;
 * 0 if it was one already, which stays as it is; -1 if there is no memory.
 */
int pool_add(struct pool *pool, struct text jid);

/* 1 if `jid` was a backend, 0 if not; it is none now. */
int pool_remove(struct pool *pool, struct text jid);

/* Gives the backend `jid` a state. 1 if that is another than before, 0 if not or if it is no backend. */
int pool_set(struct pool *pool, struct text jid, enum pool_state state);

/*
 * Gives the backend `jid` a priority, for POOL_PRIMARY, be it now or later. 1 if
 * that is another than before, 0 if not or if it is no backend.
 */
int pool_set_priority(struct pool *pool, struct text jid, int8_t priority);

/*
 * Chooses by `strategy` from now on; nothing happens if that and `key` (copied)
 * are as before. By POOL_SENDER and POOL_RECIPIENT, who gets what follows from the
 * key and from which backends are ready (or suspended), and from nothing else.
 * 0, or -1 if there is no memory: then all is as before.
 */
int pool_set_strategy(struct pool *pool, enum pool_strategy strategy, const uint8_t key[POOL_KEYBYTES]);

/* What it chooses by. */
enum pool_strategy pool_strategy(const struct pool *pool);

/* The state of the backend `jid`; POOL_STATES if it is none. */
enum pool_state pool_state(const struct pool *pool, struct text jid);

/* How many backends there are. */
size_t pool_count(const struct pool *pool);

/* Whether pool_pick has a backend for a requester that is none itself; it takes no turn of anybody. */
int pool_serves(const struct pool *pool);

/* The load of a backend, by any measure. */
typedef size_t pool_load(void *context, struct text jid);

/* What a backend is wanted for; all zero is nothing in particular. */
struct pool_request {
	struct text requester; /* a JID, which is not chosen for itself, or none */
	struct text avoided;   /* another JID that is not chosen, or none */
	struct text service;   /* the address that was asked, or none */
	pool_load *load;       /* not NULL with POOL_LEAST_PENDING; it leaves the pool alone */
	void *context;         /* of `load` */
};

/*
 * The JID of the backend for `request`, chosen by the strategy as if the requester
 * were no backend; no text if there is none that is ready or suspended. Valid until
 * that backend is removed.
 *
 * If a backend is to be avoided, it is chosen as if that were none; no text, too, if
 * that choice is the requester itself.
 */
struct text pool_pick(struct pool *pool, const struct pool_request *request);

#endif
