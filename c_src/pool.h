/*
 * The pool: the set of backends and their states. It knows which of them there are to
 * choose among; the choice is a strategy's: see strategies/strategy.h. It also finds a
 * backend by its token, by which those know it who are not to see its JID.
 *
 * Every call is O(1) (expected), but for pool_free and pool_set_strategy, which go
 * through all backends (and put them in order anew if the two strategies keep different
 * orders, or the key changes), and for what a strategy takes longer for, O(log n) at most.
 *
 * sodium_init() must have succeeded before any of this is called.
 */
#ifndef POOL_H
#define POOL_H

#include <stddef.h>
#include <stdint.h>

#include "strategies/strategy.h"
#include "text.h"

enum {
	POOL_SEEDBYTES = 24,
	POOL_KEYBYTES = STRATEGY_KEYBYTES,
	POOL_NO_FORMAT = -1,
};

/* Whether a backend is chosen for new requests. What it has, it may answer in any state. */
enum pool_state {
	POOL_READY,
	POOL_SUSPENDED, /* only while no backend is ready */
	POOL_AWAY,      /* never */
	POOL_STATES,
};

struct pool;
struct pool_backend;

/*
 * An empty pool, which chooses by strategy_random; `seed` (copied) keys its hash and
 * starts its random choices. NULL if there is no memory. The caller owns it:
 * pool_free.
 */
struct pool *pool_new(const uint8_t seed[POOL_SEEDBYTES]);

/* Frees the pool and its backends and wipes the seed and the key; NULL is harmless. */
void pool_free(struct pool *pool);

/*
 * 1 if `jid` (copied) is a backend now, a ready one with priority 0, and was none
 * before; 0 if it was one already, which stays as it is; -1 if there is no memory.
 * `token` (copied) is any text that no other backend has for its token, or an empty one, or no text: it has none then.
 */
int pool_add(struct pool *pool, struct text jid, struct text token);

/* 1 if `jid` was a backend, 0 if not; it is none now. */
int pool_remove(struct pool *pool, struct text jid);

/* Gives the backend `jid` a state. 1 if that is another than before, 0 if not or if it is no backend. */
int pool_set_state(struct pool *pool, struct text jid, enum pool_state state);

/*
 * Gives the backend `jid` a priority, which a strategy may go by, be it now or when it is
 * the pool's later. 1 if that is another than before, 0 if not or if it is no backend.
 */
int pool_set_priority(struct pool *pool, struct text jid, int8_t priority);

/*
 * Gives the backend `jid` a format, in which its caller writes it addresses: any number from 0 on, or POOL_NO_FORMAT,
 * as it has at first. 1 if that is another than before, 0 if not or if it is no backend.
 */
int pool_set_format(struct pool *pool, struct text jid, int8_t format);

/*
 * Chooses by `strategy` from now on; nothing happens if that and `key` (copied) are as
 * before. By a strategy that chooses consistently, who gets what follows from the key
 * and from which backends are ready (or suspended), and from nothing else.
 */
void pool_set_strategy(struct pool *pool, const struct strategy *strategy, const uint8_t key[POOL_KEYBYTES]);

/* What it chooses by. */
const struct strategy *pool_strategy(const struct pool *pool);

/* The state of the backend `jid`; POOL_STATES if it is none. */
enum pool_state pool_state(const struct pool *pool, struct text jid);

/* The backend `jid`, or NULL; valid until it is removed, as are its JID and what else is asked of it below. */
const struct pool_backend *pool_find(const struct pool *pool, struct text jid);

/* The backend with that token, or NULL; valid likewise. */
const struct pool_backend *pool_resolve(const struct pool *pool, struct text token);

/* The JID of a backend */
struct text pool_jid(const struct pool_backend *backend);

/* The token of a backend, or an empty text */
struct text pool_token(const struct pool_backend *backend);

/* The format of a backend, or POOL_NO_FORMAT */
int8_t pool_format(const struct pool_backend *backend);

/* How many backends there are. */
size_t pool_count(const struct pool *pool);

/*
 * Whether a backend is ready or suspended, so that pool_pick has one for a requester that
 * is no backend itself. To ask is no choice, and changes nothing.
 */
int pool_serves(const struct pool *pool);

/* Whether some backend is ready. */
int pool_is_ready(const struct pool *pool);

/*
 * The backend for `request`, chosen by the strategy among those that are ready,
 * or else among those that are suspended; NULL if there is none. Valid until it is removed.
 *
 * A requester that is a backend itself does not get its own request: it is left out of
 * the choice. If `avoided` (a JID, or no text) is a backend, that one is left out instead.
 * Should the choice then fall on the requester, NULL is returned.
 */
const struct pool_backend *pool_pick(struct pool *pool, const struct request *request, struct text avoided);

/*
 * Likewise for what belongs together, a conversation for example: chosen by what the strategy has for that, see
 * `lasting` in strategies/strategy.h. It is the same one again as long as it is ready, and no other one comes to which
 * it falls.
 */
const struct pool_backend *pool_pick_lasting(struct pool *pool, const struct request *request);

#endif
