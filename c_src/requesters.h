/*
 * The book: the requesters that the proxy remembers. It finds one by its JID and, as a token need not
 * say by itself whose it is, by its token; and it counts what each bare JID has pending.
 *
 * There are at most as many as requesters_set_max says, and their JIDs and tokens have at most
 * REQUESTERS_BYTES_EACH times as many bytes: a stranger can make up JIDs of 3 kB. For a new one, whoever has
 * been idle for the longest is forgotten. Idle is who has nothing pending, since it was added or used, or since the
 * last thing that it had pending has ended; to be found does not make it less idle. Nobody is forgotten who has
 * something pending.
 *
 * Tokens are made under a key, and keys have generations (see jat.h). A requester belongs to the
 * generation in which it was added. From requesters_new_generation on, those of before are not found by
 * their JID any more, so that they are added anew, with a token of the new key. By their tokens, those of
 * the last generation are still found. (After 65536 generations the count begins anew, and who has not
 * been forgotten in all that time is found as if it were of the new one.)
 *
 * Bare JIDs are told apart by a keyed hash of 64 bits alone: two with the same one would share a limit.
 * JIDs and tokens are compared byte by byte.
 *
 * Every call is O(1) (expected, and growth included), but for requesters_free.
 *
 * sodium_init() must have succeeded before any of this is called.
 */
#ifndef REQUESTERS_H
#define REQUESTERS_H

#include <stddef.h>
#include <stdint.h>

#include "text.h"

enum {
	REQUESTERS_SEEDBYTES = 16,
	REQUESTERS_TOKEN_MIN = 8,   /* bytes of a token, if it has one */
	REQUESTERS_TOKEN_MAX = 255, /* likewise */
	REQUESTERS_JID_MAX = UINT16_MAX,
	REQUESTERS_BYTES_EACH = 512,          /* of JID and token, for each that may be remembered, on average */
	REQUESTERS_FORGOTTEN_MAX = 64,        /* idle ones that one call of requesters_add forgets at most */
	REQUESTERS_COUNT_MAX = (1 << 24) - 1, /* things that one bare JID can have pending */
};

/* What these can hold together */
#define REQUESTERS_BYTES_MAX ((UINT64_C(1) << 40) - 1)

enum requesters_status {
	REQUESTERS_OK = 0,
	REQUESTERS_NO_MEMORY,
	REQUESTERS_FULL, /* as many are remembered as may be, and all of them have something pending */
};

struct requesters;
struct requester;

/*
 * An empty book without a bound; `seed` (secret, copied) keys its hashes. NULL if there is no memory. The
 * caller owns it: requesters_free.
 */
struct requesters *requesters_new(const uint8_t seed[REQUESTERS_SEEDBYTES]);

/* Frees the book and all requesters, whatever they have pending, and wipes the seed; NULL is harmless. */
void requesters_free(struct requesters *book);

/*
 * From now on, no requester is added beyond `max` (at least 1), or beyond the bytes that follow from it, unless
 * another one is forgotten. A call of requesters_add forgets at most REQUESTERS_FORGOTTEN_MAX, so a book that is
 * too large becomes smaller with each.
 */
void requesters_set_max(struct requesters *book, size_t max);

/*
 * What is said of bare JIDs here holds for whole ones from now on. To be called before the first requesters_add or not
 * at all.
 */
void requesters_count_each(struct requesters *book);

/* See above. */
void requesters_new_generation(struct requesters *book);

/* The requester of this generation with that JID, or NULL. */
struct requester *requesters_find(const struct requesters *book, struct text jid);

/* A requester of this or the last generation with that JID, or NULL. */
struct requester *requesters_find_either(const struct requesters *book, struct text jid);

/* The requester of this or the last generation with that token (of any length), or NULL. */
struct requester *requesters_resolve(const struct requesters *book, struct text token);

/*
 * Adds an idle requester with the JID `jid` and the token `token`, and writes it. Both are copied, and may have any
 * bytes; the token is an empty text, or none, if it has none. requesters_find(jid) has said NULL, and so has
 * requesters_resolve(token), unless it is one of the last generation with the same JID: then it is either of them. No
 * stranger may be able to choose tokens: their first 8 bytes are their hash as they are.
 *
 * Unless REQUESTERS_OK, nothing has changed but that idle ones can have been forgotten. What is written is valid
 * until the next call of requesters_add, and as long as it has something pending.
 */
enum requesters_status requesters_add(struct requesters *book, struct text jid, struct text token,
                                      struct requester **added);

/* If it is idle, it has been so since now. */
void requesters_use(struct requesters *book, struct requester *requester);

/* Its JID, valid as long as it is. */
struct text requester_jid(const struct requester *requester);

/* Writes its token, and returns how long that is; 0 if it has none. */
size_t requester_token(const struct requester *requester, uint8_t token[REQUESTERS_TOKEN_MAX]);

/*
 * The requester has one thing more pending, which holds so many bytes. 0, or -1 if there is no memory: then all
 * is as before. With it, its bare JID has no more than REQUESTERS_COUNT_MAX, with REQUESTERS_BYTES_MAX.
 */
int requesters_hold(struct requesters *book, struct requester *requester, size_t bytes);

/* A thing that it has pending holds so many bytes less than before. */
void requesters_lighten(struct requesters *book, struct requester *requester, size_t bytes);

/* One thing that it had pending has ended, which held so many bytes. */
void requesters_release(struct requesters *book, struct requester *requester, size_t bytes);

/* How many things its bare JID has pending, and writes how many bytes these hold. */
size_t requesters_pending(struct requesters *book, const struct requester *requester, size_t *bytes);

/*
 * Have the memory fetched that the calls before this one need for the requester, while the caller does something else:
 * first some, then, by the second one, what is to be had from that. Neither changes anything.
 */
void requesters_fetch(struct requesters *book, const struct requester *requester);
void requesters_fetch_first(struct requesters *book, const struct requester *requester);

/* How many of these are its own. */
size_t requester_pending(const struct requester *requester);

/* How many requesters are remembered. */
size_t requesters_count(const struct requesters *book);

#endif
