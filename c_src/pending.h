/*
 * The pending-request table: the requests handed to a backend and not yet
 * answered (RFC 6120 section 8.2.3: each has exactly one answer coming).
 *
 * A request is found again by what its answer carries: who answers, to which
 * address, under which id. Requests that agree in all three can be pending at
 * the same time; they are found first in, first out.
 *
 * No call does more than O(log n) work, growth included, but for looking through
 * the requests with one and the same answer, of which a limit per requester
 * bounds the number. Time is the caller's: seconds, on a clock that does not run
 * backwards.
 *
 * sodium_init() must have succeeded before any of this is called.
 */
#ifndef PENDING_H
#define PENDING_H

#include <stddef.h>
#include <stdint.h>

enum { PENDING_SEEDBYTES = 16 };

enum pending_status {
	PENDING_OK = 0,
	PENDING_NO_MEMORY,
	PENDING_FULL,           /* as many are pending as may be */
	PENDING_REQUESTER_FULL, /* as many of this requester's bare JID as may be */
};

/* Any bytes at all. */
struct pending_text {
	const char *bytes;
	size_t len;
};

/* What the answer to a request carries. */
struct pending_answer {
	struct pending_text from; /* the backend */
	struct pending_text to;   /* the bare service address with the requester's token */
	struct pending_text id;
};

/* What is remembered of a request. A JID has at most 3071 bytes (RFC 7622 section 3.1). */
struct pending_request {
	struct pending_text requester; /* at most UINT16_MAX bytes */
	struct pending_text service;   /* the service address the requester had used; likewise */
	struct pending_text id;        /* at most UINT32_MAX bytes */
	double deadline;               /* not NaN */
	struct pending_text backend;   /* pending_read tells it; pending_add takes it from the answer */
};

struct pending;
struct pending_entry;

/*
 * An empty table without limits; `seed` (secret, copied) keys its hash. NULL if
 * there is no memory. The caller owns it: pending_free.
 */
struct pending *pending_new(const uint8_t seed[PENDING_SEEDBYTES]);

/* Frees the table and what is left in it, and wipes the seed; NULL is harmless. */
void pending_free(struct pending *pending);

/*
 * From now on, nothing is added beyond `max` requests in all and
 * `max_per_requester` of one requester's bare JID (what is before the "/").
 */
void pending_limit(struct pending *pending, size_t max, size_t max_per_requester);

/*
 * Adds a copy of `request`, to be found by `answer`, and writes the entry, which
 * belongs to the table and is valid until pending_remove. Nothing has changed
 * unless PENDING_OK.
 */
enum pending_status pending_add(struct pending *pending, const struct pending_answer *answer,
                                const struct pending_request *request, struct pending_entry **added);

/* The oldest request that `answer` can be for, or NULL. */
struct pending_entry *pending_find(const struct pending *pending, const struct pending_answer *answer);

/* The request with the earliest deadline, or NULL. */
struct pending_entry *pending_first(const struct pending *pending);

/* The oldest request that was handed to the backend `jid`, or NULL. */
struct pending_entry *pending_first_of(const struct pending *pending, struct pending_text jid);

/* The request of `entry`; its texts are valid as long as the entry. */
struct pending_request pending_read(const struct pending_entry *entry);

/* Removes and frees `entry`. */
void pending_remove(struct pending *pending, struct pending_entry *entry);

/* How many requests are pending. */
size_t pending_count(const struct pending *pending);

/* How many of them were handed to the backend `jid`. */
size_t pending_count_of(const struct pending *pending, struct pending_text jid);

#endif
