#include "requesters.h"

#include <stdlib.h>
#include <string.h>

#include "containers/cells.h"
#include "containers/hashtable.h"
#include "jid.h"

_Static_assert(sizeof(uint8_t[HASHTABLE_SEEDBYTES]) == REQUESTERS_SEEDBYTES, "the seed is the tables'");

enum {
	HASHED = sizeof(uint64_t), /* bytes of a token that are its hash */
	TOKENS_PER_BUCKET = 2,     /* tokens are looked for less often than JIDs */
};

_Static_assert(sizeof(uint64_t) <= REQUESTERS_TOKEN_MIN, "a token is at least as long as its hash");

/* A bare JID with something pending, known by its hash alone, which takes less memory. */
struct account {
	struct hashtable_node node;
	uint64_t count : 24; /* at most REQUESTERS_COUNT_MAX */
	uint64_t bytes : 40; /* at most REQUESTERS_BYTES_MAX */
};

/* A place in the ring of those that are idle. */
struct idle {
	struct idle *previous;
	struct idle *next;
};

/* What somebody has pending. */
struct held {
	struct account *account;
	uint32_t count;
};

struct requester {
	struct hashtable_node by_jid;
	struct hashtable_node by_token; /* its hash is the first bytes of the token; in no table if it has none */
	union {
		struct idle idle;
		struct held held; /* if `is_held` */
	};
	uint16_t generation;
	uint16_t jid_len;
	uint8_t token_len;
	uint8_t is_held; /* whether it has something pending */
	char rest[];     /* what the token has behind its hash, then the JID */
};

struct requesters {
	struct hashtable by_jid;
	struct hashtable by_token;
	struct hashtable accounts;
	struct cells cells; /* the memory of all requesters and accounts */
	struct idle idle;   /* its next one has been idle for the longest, its previous one for the shortest time */
	const struct requester *hashed; /* whose bare JID has been hashed last, or NULL */
	uint64_t hash_of_bare;          /* that hash */
	size_t max;
	size_t text_bytes;   /* of all JIDs and tokens */
	uint16_t generation; /* after 65536 of them, they begin anew, and who was not forgotten since then is found again */
	int counts_each;     /* whether accounts are those of whole JIDs */
};

static struct requester *requester_by_jid(struct hashtable_node *node)
{
	return (void *)((char *)node - offsetof(struct requester, by_jid));
}

static struct requester *requester_by_token(struct hashtable_node *node)
{
	return (void *)((char *)node - offsetof(struct requester, by_token));
}

static struct requester *requester_of_idle(struct idle *idle)
{
	return (void *)((char *)idle - offsetof(struct requester, idle));
}

struct requesters *requesters_new(const uint8_t seed[REQUESTERS_SEEDBYTES])
{
	struct requesters *book = calloc(1, sizeof *book);

	if (book == NULL) {
		return NULL;
	}
	if (hashtable_init(&book->by_jid, seed) != 0 || hashtable_init(&book->by_token, seed) != 0 ||
	    hashtable_init(&book->accounts, seed) != 0) {
		requesters_free(book);
		return NULL;
	}
	hashtable_set_load(&book->by_token, TOKENS_PER_BUCKET);
	book->idle.previous = book->idle.next = &book->idle;
	requesters_set_max(book, SIZE_MAX);
	return book;
}

static size_t requester_size(size_t token_len, size_t jid_len)
{
	return offsetof(struct requester, rest) + (token_len > 0 ? token_len - HASHED : 0) + jid_len;
}

static void free_requester(struct requesters *book, struct requester *requester)
{
	if (book->hashed == requester) {
		book->hashed = NULL;
	}
	cells_free(&book->cells, requester, requester_size(requester->token_len, requester->jid_len));
}

static void put_account(struct requesters *book, struct account *account)
{
	if (account->count == 0) {
		hashtable_remove(&book->accounts, &account->node);
		cells_free(&book->cells, account, sizeof *account);
	}
}

static void leave_account(struct requesters *book, const struct held *held)
{
	held->account->count = (held->account->count - held->count) & REQUESTERS_COUNT_MAX;
	put_account(book, held->account);
}

/* Frees what is in the bucket of that hash, and leaves it there: the table is of no more use. */
static void free_bucket(struct requesters *book, uint64_t hash)
{
	uint64_t mask;
	struct hashtable_node *node = hashtable_bucket(&book->by_jid, hash, &mask);

	while (node != NULL) {
		struct requester *requester = requester_by_jid(node);

		node = node->next;
		if (requester->is_held) {
			leave_account(book, &requester->held);
		}
		free_requester(book, requester);
	}
}

void requesters_free(struct requesters *book)
{
	size_t number;

	if (book == NULL) {
		return;
	}
	for (number = 0; number < book->by_jid.bucket_count; number++) {
		free_bucket(book, number);
	}
	cells_release(&book->cells);
	hashtable_free(&book->by_jid);
	hashtable_free(&book->by_token);
	hashtable_free(&book->accounts);
	free(book);
}

void requesters_set_max(struct requesters *book, size_t max)
{
	book->max = max;
}

void requesters_count_each(struct requesters *book)
{
	book->counts_each = 1;
}

void requesters_new_generation(struct requesters *book)
{
	book->generation++;
}

/* The hash of a token, which has at least so many bytes */
static uint64_t hash_of_token(struct text token)
{
	uint64_t hash;

	memcpy(&hash, token.bytes, sizeof hash);
	return hash;
}

static size_t rest_of_token_len(const struct requester *requester)
{
	return requester->token_len > 0 ? (size_t)requester->token_len - HASHED : 0;
}

struct text requester_jid(const struct requester *requester)
{
	return (struct text){requester->rest + rest_of_token_len(requester), requester->jid_len};
}

size_t requester_token(const struct requester *requester, uint8_t token[REQUESTERS_TOKEN_MAX])
{
	if (requester->token_len > 0) {
		memcpy(token, &requester->by_token.hash, HASHED);
		memcpy(token + HASHED, requester->rest, rest_of_token_len(requester));
	}
	return requester->token_len;
}

/* How many generations have begun since that of the requester */
static uint16_t age_of(const struct requesters *book, const struct requester *requester)
{
	return (uint16_t)(book->generation - requester->generation);
}

/* The requester with that JID and at most that age that was added last, or NULL */
static struct requester *find(const struct requesters *book, struct text jid, uint16_t age)
{
	uint64_t hash = hashtable_hash(&book->by_jid, jid);
	struct hashtable_node *node = hashtable_find(&book->by_jid, hash);

	for (; node != NULL; node = hashtable_next(node)) {
		struct requester *requester = requester_by_jid(node);

		if (age_of(book, requester) <= age && text_is_equal(jid, requester_jid(requester))) {
			return requester;
		}
	}
	return NULL;
}

struct requester *requesters_find(const struct requesters *book, struct text jid)
{
	return find(book, jid, 0);
}

struct requester *requesters_find_either(const struct requesters *book, struct text jid)
{
	return find(book, jid, 1);
}

/* For a requester whose token has the same hash */
static int has_token(const struct requester *requester, struct text token)
{
	return token.length == requester->token_len &&
	       memcmp(token.bytes + HASHED, requester->rest, rest_of_token_len(requester)) == 0;
}

struct requester *requesters_resolve(const struct requesters *book, struct text token)
{
	struct hashtable_node *node;

	if (token.length < REQUESTERS_TOKEN_MIN) {
		return NULL;
	}
	node = hashtable_find(&book->by_token, hash_of_token(token));
	for (; node != NULL; node = hashtable_next(node)) {
		struct requester *requester = requester_by_token(node);

		if (age_of(book, requester) <= 1 && has_token(requester, token)) {
			return requester;
		}
	}
	return NULL;
}

/* Makes the requester the one that has been idle for the shortest time. */
static void join_idle(struct requesters *book, struct requester *requester)
{
	requester->is_held = 0;
	requester->idle.previous = book->idle.previous;
	requester->idle.next = &book->idle;
	requester->idle.previous->next = &requester->idle;
	requester->idle.next->previous = &requester->idle;
}

static void leave_idle(struct requester *requester)
{
	requester->idle.previous->next = requester->idle.next;
	requester->idle.next->previous = requester->idle.previous;
}

void requesters_use(struct requesters *book, struct requester *requester)
{
	if (!requester->is_held) {
		leave_idle(requester);
		join_idle(book, requester);
	}
}

static void forget(struct requesters *book, struct requester *requester)
{
	leave_idle(requester);
	hashtable_remove(&book->by_jid, &requester->by_jid);
	if (requester->token_len > 0) {
		hashtable_remove(&book->by_token, &requester->by_token);
	}
	book->text_bytes -= (size_t)requester->jid_len + requester->token_len;
	free_requester(book, requester);
}

/* Whether there is room for one more, whose JID and token have so many bytes */
static int has_room(const struct requesters *book, size_t bytes)
{
	size_t count = requesters_count(book);

	return count < book->max && (count == 0 || (book->text_bytes + bytes) / REQUESTERS_BYTES_EACH < book->max);
}

/* Forgets idle requesters as long as there is no room for one more with so many bytes. Whether it may be added then. */
static int make_room(struct requesters *book, size_t bytes)
{
	int forgotten = 0;

	while (!has_room(book, bytes) && forgotten < REQUESTERS_FORGOTTEN_MAX && book->idle.next != &book->idle) {
		forget(book, requester_of_idle(book->idle.next));
		forgotten++;
	}
	return forgotten > 0 || has_room(book, bytes);
}

/*
 * Has the processor fetch what it takes to forget the one whose turn is next. Where there are many requesters, it
 * lies far away, and would be waited for one piece after the other. Somebody is idle.
 */
static void prefetch_next(const struct requesters *book)
{
	const struct requester *next = requester_of_idle(book->idle.next);

	if (requesters_count(book) < book->max) {
		return;
	}
	__builtin_prefetch(next->idle.next);
	hashtable_fetch(&book->by_jid, next->by_jid.hash);
	if (next->token_len > 0) {
		hashtable_fetch(&book->by_token, next->by_token.hash);
	}
}

/* Tables and place among the idle ones are still to be had. */
static void fill_requester(struct requester *requester, struct text jid, struct text token)
{
	char *end = requester->rest;

	requester->jid_len = (uint16_t)jid.length;
	requester->token_len = (uint8_t)token.length;
	if (token.length > 0) {
		struct text behind = text_behind(token, HASHED);

		requester->by_token.hash = hash_of_token(token);
		memcpy(end, behind.bytes, behind.length);
		end += behind.length;
	}
	if (jid.length > 0) {
		memcpy(end, jid.bytes, jid.length);
	}
}

enum requesters_status requesters_add(struct requesters *book, struct text jid, struct text token,
                                      struct requester **added)
{
	struct requester *requester;

	if (token.length > 0) {
		hashtable_fetch(&book->by_token, hash_of_token(token));
	}
	if (!make_room(book, jid.length + token.length)) {
		return REQUESTERS_FULL;
	}
	requester = cells_alloc(&book->cells, requester_size(token.length, jid.length));
	if (requester == NULL) {
		return REQUESTERS_NO_MEMORY;
	}
	fill_requester(requester, jid, token);
	requester->generation = book->generation;
	requester->by_jid.hash = hashtable_hash(&book->by_jid, jid);
	hashtable_add_first(&book->by_jid, &requester->by_jid);
	if (token.length > 0) {
		hashtable_add_first(&book->by_token, &requester->by_token);
	}
	join_idle(book, requester);
	book->text_bytes += jid.length + token.length;
	prefetch_next(book);
	*added = requester;
	return REQUESTERS_OK;
}

/* Who gets something pending is asked for this a few times in a row. */
static uint64_t hash_bare(struct requesters *book, const struct requester *requester)
{
	if (book->hashed != requester) {
		struct text jid = requester_jid(requester);

		book->hash_of_bare = hashtable_hash(&book->accounts, book->counts_each ? jid : jid_bare(jid));
		book->hashed = requester;
	}
	return book->hash_of_bare;
}

void requesters_fetch(struct requesters *book, const struct requester *requester)
{
	if (requester->is_held) {
		__builtin_prefetch(requester->held.account);
	} else {
		hashtable_fetch(&book->accounts, hash_bare(book, requester));
	}
}

void requesters_fetch_first(struct requesters *book, const struct requester *requester)
{
	if (requester->is_held) {
		hashtable_fetch(&book->accounts, requester->held.account->node.hash);
	} else {
		hashtable_fetch_first(&book->accounts, hash_bare(book, requester));
	}
}

static struct account *find_account(const struct requesters *book, uint64_t hash)
{
	struct hashtable_node *node = hashtable_find(&book->accounts, hash);

	return node == NULL ? NULL : (void *)((char *)node - offsetof(struct account, node));
}

static struct account *get_account(struct requesters *book, uint64_t hash)
{
	struct account *account = find_account(book, hash);

	if (account == NULL) {
		account = cells_alloc(&book->cells, sizeof *account);
		if (account == NULL) {
			return NULL;
		}
		*account = (struct account){.node.hash = hash};
		hashtable_add(&book->accounts, &account->node);
	}
	return account;
}

int requesters_hold(struct requesters *book, struct requester *requester, size_t bytes)
{
	struct account *account;

	if (!requester->is_held) {
		account = get_account(book, hash_bare(book, requester));
		if (account == NULL) {
			return -1;
		}
		leave_idle(requester);
		requester->is_held = 1;
		requester->held = (struct held){.account = account};
	}
	account = requester->held.account;
	account->count = (account->count + 1u) & REQUESTERS_COUNT_MAX;
	account->bytes = (account->bytes + bytes) & REQUESTERS_BYTES_MAX;
	requester->held.count++;
	return 0;
}

void requesters_lighten(struct requesters *book, struct requester *requester, size_t bytes)
{
	struct account *account = requester->held.account;

	(void)book; /* a requester that has something pending knows its account */
	account->bytes = (account->bytes - bytes) & REQUESTERS_BYTES_MAX;
}

void requesters_release(struct requesters *book, struct requester *requester, size_t bytes)
{
	struct account *account = requester->held.account;

	requesters_lighten(book, requester, bytes);
	account->count = (account->count - 1u) & REQUESTERS_COUNT_MAX;
	requester->held.count--;
	if (requester->held.count == 0) {
		put_account(book, account);
		join_idle(book, requester);
	}
}

size_t requesters_pending(struct requesters *book, const struct requester *requester, size_t *bytes)
{
	const struct account *account =
		requester->is_held ? requester->held.account : find_account(book, hash_bare(book, requester));

	*bytes = account == NULL ? 0 : account->bytes;
	return account == NULL ? 0 : account->count;
}

size_t requester_pending(const struct requester *requester)
{
	return requester->is_held ? requester->held.count : 0;
}

size_t requesters_count(const struct requesters *book)
{
	return book->by_jid.node_count;
}
