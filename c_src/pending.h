/*
 * The pending-request table: the requests handed to a backend and not yet
 * answered (RFC 6120 section 8.2.3: each has exactly one answer coming).
 *
 * A request is found again by what its answer carries: who answers, to which
 * address, under which id. Requests that agree in all three can be pending at
 * the same time if they were sent to one and the same service address; they are
 * found first in, first out.
 *
 * The table keeps the backend and the id, and compares them byte by byte. It does not
 * keep the address that the answer is sent to, and compares a keyed hash of that and the id in
 * its place: an answer to another address is taken for the right one with a probability
 * of 2^-64, which nobody can raise who does not know the seed. Whoever finds that too
 * much has to compare what the address stands for with the requester that pending_read
 * tells.
 *
 * Who has sent a request stands in the book (requesters.h), which also counts what each bare
 * JID has pending. As long as a request is pending, its requester is not forgotten there.
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

#include "requesters.h"
#include "text.h"

enum {
	PENDING_SEEDBYTES = 16,
	PENDING_BYTES_EACH = 4096, /* what each request that a limit allows may hold, on average: see pending_set_limits */
	PENDING_PER_REQUESTER_MAX = REQUESTERS_COUNT_MAX, /* no limit allows one requester more */
	PENDING_ID_MAX = (1 << 23) - 1,                   /* bytes */
};

enum pending_status {
	PENDING_OK = 0,
	PENDING_NO_MEMORY,
	PENDING_FULL,           /* as many are pending, or they hold as much, as may be */
	PENDING_REQUESTER_FULL, /* those of this requester's bare JID are, or do */
	PENDING_CONFLICT,       /* one with the same answer is pending that was sent to another service address */
	PENDING_BAD_ID,         /* a control character is in the id, or it is too long: see pending_add */
};

/* What the answer to a request carries. */
struct pending_answer {
	struct text from; /* the backend */
	struct text to;   /* the bare service address with the requester's token */
	struct text id;
};

/* What is remembered of a request. */
struct pending_request {
	struct requester *requester; /* in the book */
	struct text service;         /* the service address the requester had used */
	struct text id;
	double added;        /* when it was handed to this backend; not NaN */
	double deadline;     /* not NaN */
	uint8_t retries;     /* how many more times it may be handed to another backend */
	uint32_t kept_bytes; /* memory that the caller holds for it, which counts as if it were the table's */
	int32_t kept;        /* where the caller has that, if `retries` is not 0; any number */
	struct text backend; /* pending_read tells it; pending_add takes it from the answer */
};

struct pending;
struct pending_entry;

/*
 * An empty table without limits but PENDING_PER_REQUESTER_MAX; `seed` (secret, copied) keys its hash. Its
 * requests are those of requesters in `book`, which stays the caller's and is to be freed after the table. NULL
 * if there is no memory. The caller owns it: pending_free.
 */
struct pending *pending_new(const uint8_t seed[PENDING_SEEDBYTES], struct requesters *book);

/* Frees the table and what is left in it, and wipes the seed; NULL is harmless. */
void pending_free(struct pending *pending);

/*
 * From now on, nothing is added beyond `max` requests in all and
 * `max_per_requester` of one requester's bare JID (what is before the "/"), nor
 * beyond PENDING_BYTES_EACH times as many bytes that they hold: their entries,
 * texts, the requester's JID among them, and kept_bytes. A requester's only request may be of any size, and so may
 * the only one in all.
 */
void pending_set_limits(struct pending *pending, size_t max, size_t max_per_requester);

/*
 * Adds a copy of `request`, to be found by `answer`, and writes the entry, which
 * belongs to the table and is valid until pending_remove. Nothing has changed
 * unless PENDING_OK.
 *
 * An id with control characters (below 0x20) is refused: an XML parser gives them
 * back as spaces (XML 1.0 section 3.3.3), so the answer would not be found. So is one
 * longer than PENDING_ID_MAX.
 */
enum pending_status pending_add(struct pending *pending, const struct pending_answer *answer,
                                const struct pending_request *request, struct pending_entry **added);

/*
 * The oldest request that `answer` can be for, or NULL. `to` is compared by its hash alone,
 * as said above. What was abandoned cannot be answered.
 */
struct pending_entry *pending_find(const struct pending *pending, const struct pending_answer *answer);

/* How many requests `answer` can be for, compared in the same way. */
size_t pending_count_answered(const struct pending *pending, const struct pending_answer *answer);

/* The request with the earliest deadline, or NULL. */
struct pending_entry *pending_first(const struct pending *pending);

/* The oldest request with retries left that was handed to the backend `jid`, or NULL. */
struct pending_entry *pending_first_movable(const struct pending *pending, struct text jid);

/*
 * The request without retries that has been with the backend `jid` the longest, or NULL. One whose
 * retries pending_fix took away counts as if it had come then.
 */
struct pending_entry *pending_first_fixed(const struct pending *pending, struct text jid);

/*
 * Takes away the retries of `entry`, which has at least one left. What the caller keeps for it does not count
 * any more.
 */
void pending_fix(struct pending *pending, struct pending_entry *entry);

/*
 * The backend `jid` has gone: what it has is abandoned, and does not belong to a backend
 * that comes with the same JID later. O(1), however many requests that are.
 */
void pending_abandon(struct pending *pending, struct text jid);

/* Some abandoned request, or NULL. */
struct pending_entry *pending_first_abandoned(const struct pending *pending);

/* The request of `entry`; its texts and its requester are valid as long as the entry. */
struct pending_request pending_read(const struct pending_entry *entry);

/* Removes and frees `entry`. */
void pending_remove(struct pending *pending, struct pending_entry *entry);

/* How many requests are pending. */
size_t pending_count(const struct pending *pending);

/* How many bytes they hold, as they count for the limits. */
size_t pending_bytes(const struct pending *pending);

/* How many requests were handed to the backend `jid` and are not abandoned. */
size_t pending_count_of(const struct pending *pending, struct text jid);

#endif
