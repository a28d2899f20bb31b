#include "pool.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "containers/hashtable.h"
#include "containers/slots.h"
#include "containers/splitmix.h"

struct pool_backend {
	struct hashtable_node node;
	struct hashtable_node by_token; /* in no table if it has no token */
	enum pool_state state;
	int8_t format;
	struct candidate candidate;
	size_t token_len;
	char texts[]; /* the JID, then the token */
};

struct pool {
	struct hashtable by_jid;
	struct hashtable by_token;
	struct slots candidates; /* those of one state side by side, in the order of the states */
	size_t counts[POOL_STATES];
	uint64_t changes; /* how many times a backend got a state */
	const struct strategy *strategy;
	struct chooser chooser;
	struct order orders[POOL_AWAY]; /* of each state in which a backend can be chosen */
};

static struct pool_backend *backend_of(struct candidate *candidate)
{
	return (void *)((char *)candidate - offsetof(struct pool_backend, candidate));
}

static struct pool_backend *backend_at(const struct pool *pool, size_t position)
{
	return backend_of(*slots_at(&pool->candidates, position));
}

static void place(struct pool *pool, size_t position, struct pool_backend *backend)
{
	*slots_at(&pool->candidates, position) = &backend->candidate;
	backend->candidate.position = position;
}

static void swap(struct pool *pool, size_t a, size_t b)
{
	struct pool_backend *moved = backend_at(pool, a);

	place(pool, a, backend_at(pool, b));
	place(pool, b, moved);
}

/* Where the backends of a state begin. */
static size_t start_of(const struct pool *pool, enum pool_state state)
{
	size_t start = 0;
	enum pool_state before;

	for (before = POOL_READY; before < state; before++) {
		start += pool->counts[before];
	}
	return start;
}

/*
 * Moves a backend state by state: it changes places with the one at the border to the
 * next state, and the border then moves past it.
 */
static void move(struct pool *pool, struct pool_backend *backend, enum pool_state state)
{
	while (backend->state < state) {
		swap(pool, backend->candidate.position, start_of(pool, backend->state + 1) - 1);
		pool->counts[backend->state++]--;
		pool->counts[backend->state]++;
	}
	while (backend->state > state) {
		swap(pool, backend->candidate.position, start_of(pool, backend->state));
		pool->counts[backend->state--]--;
		pool->counts[backend->state]++;
	}
}

/* What chooses for what belongs together */
static const struct strategy *lasting(const struct strategy *strategy)
{
	return strategy->lasting != NULL ? strategy->lasting : strategy;
}

typedef void order_change(struct pool *pool, const struct strategy *strategy, struct pool_backend *backend);

static void enter_order_of(struct pool *pool, const struct strategy *strategy, struct pool_backend *backend)
{
	if (strategy->enter != NULL) {
		strategy->enter(&pool->chooser, &pool->orders[backend->state], &backend->candidate);
	}
}

static void leave_order_of(struct pool *pool, const struct strategy *strategy, struct pool_backend *backend)
{
	if (strategy->leave != NULL) {
		strategy->leave(&pool->orders[backend->state], &backend->candidate);
	}
}

/* Whether `a` keeps the same order as `b` does, for itself or for what belongs together */
static int has_order_of(const struct strategy *a, const struct strategy *b)
{
	return a->enter == b->enter || lasting(a)->enter == b->enter;
}

/* Changes each order that a backend is in, or is to be in, but for those that `but` has as well (NULL: for none). */
static void change_orders(struct pool *pool, struct pool_backend *backend, const struct strategy *but,
                          order_change *change)
{
	const struct strategy *strategy;

	if (backend->state >= POOL_AWAY) {
		return;
	}
	for (strategy = pool->strategy; strategy != NULL; strategy = strategy->lasting) {
		if (but == NULL || !has_order_of(but, strategy)) {
			change(pool, strategy, backend);
		}
	}
}

static void reprioritise(struct pool *pool, struct pool_backend *backend)
{
	if (pool->strategy->reprioritise != NULL && backend->state < POOL_AWAY) {
		pool->strategy->reprioritise(&pool->orders[backend->state], &backend->candidate);
	}
}

static void set_state(struct pool *pool, struct pool_backend *backend, enum pool_state state)
{
	change_orders(pool, backend, NULL, leave_order_of);
	move(pool, backend, state);
	backend->candidate.since = ++pool->changes;
	change_orders(pool, backend, NULL, enter_order_of);
}

static struct pool_backend *find(const struct pool *pool, struct text jid)
{
	struct hashtable_node *node = hashtable_find(&pool->by_jid, hashtable_hash(&pool->by_jid, jid));

	for (; node != NULL; node = hashtable_next(node)) {
		struct pool_backend *backend = (void *)((char *)node - offsetof(struct pool_backend, node));

		if (text_is_equal(backend->candidate.jid, jid)) {
			return backend;
		}
	}
	return NULL;
}

static struct pool_backend *new_backend(const struct pool *pool, struct text jid, struct text token)
{
	struct pool_backend *backend = malloc(sizeof *backend + jid.length + token.length);

	if (backend == NULL) {
		return NULL;
	}
	memcpy(backend->texts, jid.bytes, jid.length);
	if (token.length > 0) {
		memcpy(backend->texts + jid.length, token.bytes, token.length);
	}
	backend->token_len = token.length;
	backend->candidate = (struct candidate){.jid = {backend->texts, jid.length}};
	backend->state = POOL_STATES - 1;
	backend->format = POOL_NO_FORMAT;
	backend->node.hash = hashtable_hash(&pool->by_jid, jid);
	backend->by_token.hash = hashtable_hash(&pool->by_token, token);
	return backend;
}

int pool_add(struct pool *pool, struct text jid, struct text token)
{
	size_t count = pool_count(pool);
	struct pool_backend *backend;

	if (find(pool, jid) != NULL) {
		return 0;
	}
	if (slots_reserve(&pool->candidates, count + 1) != 0) {
		return -1;
	}
	backend = new_backend(pool, jid, token);
	if (backend == NULL) {
		return -1;
	}
	pool->counts[backend->state]++;
	place(pool, count, backend);
	set_state(pool, backend, POOL_READY);
	hashtable_add(&pool->by_jid, &backend->node);
	if (token.length > 0) {
		hashtable_add(&pool->by_token, &backend->by_token);
	}
	return 1;
}

/* The last backend takes the place of the one that goes: there are never holes. */
static void take_out(struct pool *pool, struct pool_backend *backend)
{
	size_t last = pool_count(pool) - 1;

	set_state(pool, backend, POOL_STATES - 1);
	swap(pool, backend->candidate.position, last);
	pool->counts[backend->state]--;
	hashtable_remove(&pool->by_jid, &backend->node);
	if (backend->token_len > 0) {
		hashtable_remove(&pool->by_token, &backend->by_token);
	}
	slots_trim(&pool->candidates, last);
	free(backend);
}

void pool_free(struct pool *pool)
{
	enum pool_state state;

	if (pool == NULL) {
		return;
	}
	while (pool_count(pool) > 0) {
		take_out(pool, backend_at(pool, pool_count(pool) - 1));
	}
	for (state = POOL_READY; state < POOL_AWAY; state++) {
		order_free(&pool->orders[state]);
	}
	slots_free(&pool->candidates);
	hashtable_free(&pool->by_jid);
	hashtable_free(&pool->by_token);
	sodium_memzero(pool, sizeof *pool);
	free(pool);
}

int pool_remove(struct pool *pool, struct text jid)
{
	struct pool_backend *backend = find(pool, jid);

	if (backend == NULL) {
		return 0;
	}
	take_out(pool, backend);
	return 1;
}

int pool_set_state(struct pool *pool, struct text jid, enum pool_state state)
{
	struct pool_backend *backend = find(pool, jid);

	if (backend == NULL || backend->state == state) {
		return 0;
	}
	set_state(pool, backend, state);
	return 1;
}

int pool_set_priority(struct pool *pool, struct text jid, int8_t priority)
{
	struct pool_backend *backend = find(pool, jid);

	if (backend == NULL || backend->candidate.priority == priority) {
		return 0;
	}
	backend->candidate.priority = priority;
	reprioritise(pool, backend);
	return 1;
}

int pool_set_format(struct pool *pool, struct text jid, int8_t format)
{
	struct pool_backend *backend = find(pool, jid);

	if (backend == NULL || backend->format == format) {
		return 0;
	}
	backend->format = format;
	return 1;
}

static int init_orders(struct pool *pool)
{
	enum pool_state state;

	for (state = POOL_READY; state < POOL_AWAY; state++) {
		if (order_init(&pool->orders[state]) != 0) {
			return -1;
		}
	}
	return 0;
}

struct pool *pool_new(const uint8_t seed[POOL_SEEDBYTES])
{
	struct pool *pool = calloc(1, sizeof *pool);

	if (pool == NULL) {
		return NULL;
	}
	if (hashtable_init(&pool->by_jid, seed) != 0 || hashtable_init(&pool->by_token, seed) != 0 ||
	    init_orders(pool) != 0) {
		pool_free(pool);
		return NULL;
	}
	pool->strategy = &strategy_random;
	memcpy(&pool->chooser.random_state, seed + HASHTABLE_SEEDBYTES, sizeof pool->chooser.random_state);
	return pool;
}

static void prepare_orders(struct pool *pool, const struct strategy *strategy)
{
	enum pool_state state;

	for (state = POOL_READY; strategy->prepare != NULL && state < POOL_AWAY; state++) {
		strategy->prepare(&pool->chooser, &pool->orders[state]);
	}
}

static void change_all_orders(struct pool *pool, const struct strategy *but, order_change *change)
{
	size_t position;

	for (position = 0; position < pool_count(pool); position++) {
		change_orders(pool, backend_at(pool, position), but, change);
	}
}

void pool_set_strategy(struct pool *pool, const struct strategy *strategy, const uint8_t key[POOL_KEYBYTES])
{
	const struct strategy *before = pool->strategy;
	int has_same_key = sodium_memcmp(pool->chooser.key, key, POOL_KEYBYTES) == 0;

	if (before == strategy && has_same_key) {
		return;
	}
	change_all_orders(pool, has_same_key ? strategy : NULL, leave_order_of);
	if (!has_order_of(before, strategy)) {
		prepare_orders(pool, strategy);
	}
	pool->strategy = strategy;
	memcpy(pool->chooser.key, key, POOL_KEYBYTES);
	change_all_orders(pool, has_same_key ? before : NULL, enter_order_of);
}

const struct strategy *pool_strategy(const struct pool *pool)
{
	return pool->strategy;
}

enum pool_state pool_state(const struct pool *pool, struct text jid)
{
	const struct pool_backend *backend = find(pool, jid);

	return backend == NULL ? POOL_STATES : backend->state;
}

const struct pool_backend *pool_find(const struct pool *pool, struct text jid)
{
	return find(pool, jid);
}

const struct pool_backend *pool_resolve(const struct pool *pool, struct text token)
{
	struct hashtable_node *node = hashtable_find(&pool->by_token, hashtable_hash(&pool->by_token, token));

	for (; node != NULL; node = hashtable_next(node)) {
		const struct pool_backend *backend = (void *)((char *)node - offsetof(struct pool_backend, by_token));

		if (text_is_equal(token, pool_token(backend))) {
			return backend;
		}
	}
	return NULL;
}

struct text pool_jid(const struct pool_backend *backend)
{
	return backend->candidate.jid;
}

struct text pool_token(const struct pool_backend *backend)
{
	return (struct text){backend->texts + backend->candidate.jid.length, backend->token_len};
}

int8_t pool_format(const struct pool_backend *backend)
{
	return backend->format;
}

size_t pool_count(const struct pool *pool)
{
	return pool->by_jid.node_count;
}

int pool_serves(const struct pool *pool)
{
	return start_of(pool, POOL_AWAY) > 0;
}

int pool_is_ready(const struct pool *pool)
{
	return start_of(pool, POOL_SUSPENDED) > 0;
}

/* Chooses by `strategy` among the backends of a state, but for `excepted`; NULL if there is none. */
static struct pool_backend *pick_of(struct pool *pool, const struct strategy *strategy, enum pool_state state,
                                    struct pool_backend *excepted, const struct request *request)
{
	struct choices choices = {
		.candidates = &pool->candidates,
		.start = start_of(pool, state),
		.count = pool->counts[state],
		.excepted = excepted != NULL && excepted->state == state ? &excepted->candidate : NULL,
		.order = &pool->orders[state],
	};

	if (choices_count(&choices) == 0) {
		return NULL;
	}
	return backend_of(strategy->pick(&pool->chooser, &choices, request));
}

static struct pool_backend *find_optional(const struct pool *pool, struct text jid)
{
	return jid.bytes == NULL ? NULL : find(pool, jid);
}

static const struct pool_backend *pick(struct pool *pool, const struct strategy *strategy,
                                       const struct request *request, struct text avoided)
{
	struct pool_backend *requester = find_optional(pool, request->requester);
	struct pool_backend *other = find_optional(pool, avoided);
	struct pool_backend *excepted = other != NULL ? other : requester, *picked = NULL;
	enum pool_state state;

	for (state = POOL_READY; state < POOL_AWAY && picked == NULL; state++) {
		picked = pick_of(pool, strategy, state, excepted, request);
	}
	return picked == requester ? NULL : picked;
}

const struct pool_backend *pool_pick(struct pool *pool, const struct request *request, struct text avoided)
{
	return pick(pool, pool->strategy, request, avoided);
}

const struct pool_backend *pool_pick_lasting(struct pool *pool, const struct request *request)
{
	return pick(pool, lasting(pool->strategy), request, (struct text){NULL, 0});
}
