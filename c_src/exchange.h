/*
 * What one request does to all the other units: the book tells its requester, the pool chooses a
 * backend, the codec writes the address that this one sees, and the table of what is pending
 * records it. What the answer does is counted here, with the time that it took.
 *
 * It also says to whom a message, or anything else that is not recorded, is to be sent and from which address, whom
 * a backend writes to, and by which token a backend is known to requesters.
 *
 * sodium_init() must have succeeded before any of this is called.
 */
#ifndef EXCHANGE_H
#define EXCHANGE_H

#include <stddef.h>
#include <stdint.h>

#include "jat.h"
#include "pending.h"
#include "pool.h"
#include "requesters.h"
#include "text.h"

enum {
	EXCHANGE_TIMES = 11,         /* how many bounds of times there are */
	EXCHANGE_ADDRESS_MAX = 3072, /* bytes: a bare JID, "/" and a token */
	EXCHANGE_BARE_MAX = EXCHANGE_ADDRESS_MAX - 1 - JAT_TOKEN_MAX,
};

/* Seconds, ascending: the bounds between which times are counted */
extern const double exchange_times[EXCHANGE_TIMES];

enum exchange_status {
	EXCHANGE_OK = 0,
	EXCHANGE_NO_MEMORY,
	EXCHANGE_NO_BACKEND,
	EXCHANGE_NONE_READY,  /* there are backends, but none is to be chosen for anything new */
	EXCHANGE_BAD_ADDRESS, /* the requester's JID, or the service address, cannot be translated */
	EXCHANGE_FULL,        /* these four as in pending.h; also: everybody in the book has something pending */
	EXCHANGE_REQUESTER_FULL,
	EXCHANGE_CONFLICT,
	EXCHANGE_BAD_ID,
};

/* A request that has come in. */
struct exchange_request {
	struct text requester; /* a full JID */
	struct text service;   /* the address that it was sent to */
	struct text id;
	double time;     /* now; not NaN */
	double deadline; /* these four as in struct pending_request */
	uint8_t retries;
	uint32_t kept_bytes;
	int32_t kept;
	struct text backend; /* the one that it is for, or no text: one is chosen */
	struct text avoided; /* none if not: the one that exchange_record has found a conflict at */
	int is_lasting;      /* whether the choice is that for what belongs together; then none is avoided */
};

/* What is to be sent. */
struct exchange_sent {
	struct requester *requester;        /* valid until another one is added to the book */
	struct text backend;                /* to whom; valid until that backend is removed from the pool */
	char address[EXCHANGE_ADDRESS_MAX]; /* from where */
	size_t address_len;
};

/* What has been counted since the exchange was made. */
struct exchange_counts {
	uint64_t results;
	uint64_t errors;
	double seconds;                     /* that all of these took */
	uint64_t times[EXCHANGE_TIMES + 1]; /* how many took at most so long, but longer than the bound before */
};

struct exchange;

/*
 * An exchange among these, which stay the caller's and are freed after it. NULL if there is no memory. The caller
 * owns it: exchange_free.
 */
struct exchange *exchange_new(const struct jat *jat, struct requesters *book, struct pool *pool,
                              struct pending *pending);

/* From now on, it writes addresses by `jat`, and chooses from `pool`. */
void exchange_use(struct exchange *exchange, const struct jat *jat, struct pool *pool);

/* Frees it, and none of those that it was made for; NULL is harmless. */
void exchange_free(struct exchange *exchange);

/*
 * Makes `jid` a backend of the pool, with a token that no other one there has. 1, 0 or -1 as pool_add says. A JID that
 * no codec takes has none.
 */
int exchange_admit(struct exchange *exchange, struct text jid);

/* The backend that a resource stands for by its token, or NULL; valid until it is removed from the pool. */
const struct pool_backend *exchange_backend(const struct exchange *exchange, struct text resource);

/*
 * Says to whom what is not recorded is to be sent, and from which address: as exchange_prepare, of `request` only
 * the requester, the service and the backend count, and the choice is that for what belongs together. The requester
 * has been used.
 */
enum exchange_status exchange_address(struct exchange *exchange, const struct exchange_request *request,
                                      struct exchange_sent *sent);

/*
 * Says to whom a request is to be sent, and from which address. Only the book can have changed, by a requester
 * more and idle ones less. If there is no backend, that is EXCHANGE_CONFLICT where one is avoided.
 */
enum exchange_status exchange_prepare(struct exchange *exchange, const struct exchange_request *request,
                                      struct exchange_sent *sent);

/*
 * Records a request as pending, for which exchange_prepare has just written `sent`. Nothing has changed unless
 * EXCHANGE_OK. If EXCHANGE_CONFLICT, another backend may do: the one that was chosen is to be avoided then.
 */
enum exchange_status exchange_record(struct exchange *exchange, const struct exchange_request *request,
                                     const struct exchange_sent *sent);

/* The oldest request that `answer` can be for, or NULL. */
struct pending_entry *exchange_find(const struct exchange *exchange, const struct pending_answer *answer);

/* That request was answered at that time by a result, which is counted: it is pending no longer. */
void exchange_settle(struct exchange *exchange, struct pending_entry *entry, double time);

/* A request that was answered by an error, after that many seconds, is counted. */
void exchange_count_error(struct exchange *exchange, double seconds);

/* What has been counted, valid as long as the exchange. */
const struct exchange_counts *exchange_counts(const struct exchange *exchange);

/*
 * Whom a resource stands for as a token of any format, and JAT_OK. All else writes nothing, and says what it
 * looks like, as jat_decode does. What looks like a short token or a digest is one of somebody in the book, or
 * else JAT_SHORT_TOKEN or JAT_DIGEST.
 */
enum jat_status exchange_resolve(const struct exchange *exchange, struct text resource, char jid[JAT_JID_MAX],
                                 size_t *jid_len);

/*
 * Whom a backend, `sender`, reaches at a resource: as exchange_resolve says, but that for one that sees plain
 * tokens, such a token stands for somebody in the book or else for nobody. Whoever it is has been used, and is in
 * the book from now on, unless there is no room or no memory for that.
 */
enum jat_status exchange_reach(struct exchange *exchange, struct text sender, struct text resource,
                               char jid[JAT_JID_MAX], size_t *jid_len);

#endif
