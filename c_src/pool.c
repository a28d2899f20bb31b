#include "pool.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "containers/hashtable.h"
#include "containers/ring.h"
#include "containers/slots.h"
#include "containers/splitmix.h"
#include "containers/tree.h"
#include "containers/turns.h"
#include "jid.h"

struct pool_backend {
	struct hashtable_node node;
	enum pool_state state;
	int8_t priority;
	uint64_t since;  /* which change of a state brought it into its own */
	size_t position; /* among the backends */
	union {          /* its place in the strategy's order, while it is eligible */
		struct turn turn;
		struct tree_node rank;
		struct ring_member points;
	};
	size_t jid_len;
	char jid[];
};

/* The orders that strategies keep of the backends of one state. Only that of the pool's own is in use. */
struct orders {
	struct turns turns;
	struct tree ranks;
	struct ring ring;
};

struct pool {
	struct hashtable by_jid;
	struct slots backends; /* those of one state side by side, in the order of the states */
	size_t counts[POOL_STATES];
	uint64_t changes; /* how many times a backend got a state */
	uint64_t random_state;
	enum pool_strategy strategy;
	uint8_t key[POOL_KEYBYTES];
	struct orders orders[POOL_AWAY]; /* of each state that is eligible */
	const struct turn *last_turn;
};

struct strategy {
	/* A backend gets a place in the order, and gives it up; NULL: there is no order. */
	void (*enter)(struct pool *pool, struct orders *orders, struct pool_backend *backend);
	void (*leave)(struct orders *orders, struct pool_backend *backend);
	/* There is a backend with that state other than `excepted`, which has it, too, or is NULL. */
	struct pool_backend *(*pick)(struct pool *pool, enum pool_state state, struct pool_backend *excepted,
	                             const struct pool_request *request);
};

static struct text jid_of(const struct pool_backend *backend)
{
	return (struct text){backend->jid, backend->jid_len};
}

static uint64_t next_random(struct pool *pool)
{
	return splitmix64(&pool->random_state);
}

/* Below `bound` (not 0), without the bias of a bare remainder. */
static size_t random_below(struct pool *pool, size_t bound)
{
	uint64_t unbiased = UINT64_MAX - UINT64_MAX % bound;
	uint64_t random;

	do {
		random = next_random(pool);
	} while (random >= unbiased);
	return random % bound;
}

static void init_orders(struct pool *pool)
{
	enum pool_state state;

	for (state = POOL_READY; state < POOL_AWAY; state++) {
		turns_init(&pool->orders[state].turns);
		tree_init(&pool->orders[state].ranks, next_random(pool));
	}
}

struct pool *pool_new(const uint8_t seed[POOL_SEEDBYTES])
{
	struct pool *pool = calloc(1, sizeof *pool);

	if (pool != NULL && hashtable_init(&pool->by_jid, seed) != 0) {
		free(pool);
		return NULL;
	}
	if (pool != NULL) {
		memcpy(&pool->random_state, seed + HASHTABLE_SEEDBYTES, sizeof pool->random_state);
		init_orders(pool);
	}
	return pool;
}

static struct pool_backend *backend_at(const struct pool *pool, size_t position)
{
	return *slots_at(&pool->backends, position);
}

static void place(struct pool *pool, size_t position, struct pool_backend *backend)
{
	*slots_at(&pool->backends, position) = backend;
	backend->position = position;
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

/* From state to state, the backend goes to the edge, which then moves past it. */
static void move(struct pool *pool, struct pool_backend *backend, enum pool_state state)
{
	while (backend->state < state) {
		swap(pool, backend->position, start_of(pool, backend->state + 1) - 1);
		pool->counts[backend->state++]--;
		pool->counts[backend->state]++;
	}
	while (backend->state > state) {
		swap(pool, backend->position, start_of(pool, backend->state));
		pool->counts[backend->state--]--;
		pool->counts[backend->state]++;
	}
}

/* How many backends of a state there are to choose among; `excepted`, unless NULL, is one of that state. */
static size_t choices(const struct pool *pool, enum pool_state state, const struct pool_backend *excepted)
{
	return pool->counts[state] - (excepted != NULL ? 1 : 0);
}

static struct pool_backend *choice_at(const struct pool *pool, enum pool_state state,
                                      const struct pool_backend *excepted, size_t number)
{
	size_t position = start_of(pool, state) + number;

	return backend_at(pool, excepted != NULL && position >= excepted->position ? position + 1 : position);
}

/*
 * random
 */

static struct pool_backend *pick_random(struct pool *pool, enum pool_state state, struct pool_backend *excepted,
                                        const struct pool_request *request)
{
	(void)request;
	return choice_at(pool, state, excepted, random_below(pool, choices(pool, state, excepted)));
}

/*
 * least_pending
 */

static size_t load_of(const struct pool_request *request, const struct pool_backend *backend)
{
	return request->load(request->context, jid_of(backend));
}

static struct pool_backend *pick_least_pending(struct pool *pool, enum pool_state state, struct pool_backend *excepted,
                                               const struct pool_request *request)
{
	size_t count = choices(pool, state, excepted), number = random_below(pool, count);
	struct pool_backend *backend = choice_at(pool, state, excepted, number), *other;

	if (count == 1) {
		return backend;
	}
	other = choice_at(pool, state, excepted, (number + 1 + random_below(pool, count - 1)) % count);
	return load_of(request, other) < load_of(request, backend) ? other : backend;
}

/*
 * round_robin
 */

static void enter_turns(struct pool *pool, struct orders *orders, struct pool_backend *backend)
{
	turns_join(&orders->turns, &backend->turn, pool->last_turn);
}

static void leave_turns(struct orders *orders, struct pool_backend *backend)
{
	(void)orders;
	turns_leave(&backend->turn);
}

static struct pool_backend *pick_turn(struct pool *pool, enum pool_state state, struct pool_backend *excepted,
                                      const struct pool_request *request)
{
	struct turn *turn = turns_take(&pool->orders[state].turns, excepted != NULL ? &excepted->turn : NULL);

	(void)request;
	pool->last_turn = turn;
	return (void *)((char *)turn - offsetof(struct pool_backend, turn));
}

/*
 * primary
 */

static void enter_ranks(struct pool *pool, struct orders *orders, struct pool_backend *backend)
{
	(void)pool;
	backend->rank.key = (struct tree_key){(uint64_t)(INT8_MAX - backend->priority), backend->since};
	tree_add(&orders->ranks, &backend->rank);
}

static void leave_ranks(struct orders *orders, struct pool_backend *backend)
{
	tree_remove(&orders->ranks, &backend->rank);
}

static struct pool_backend *pick_first(struct pool *pool, enum pool_state state, struct pool_backend *excepted,
                                       const struct pool_request *request)
{
	struct tree *ranks = &pool->orders[state].ranks;
	struct tree_node *first = tree_first(ranks);

	(void)request;
	if (excepted != NULL && first == &excepted->rank) {
		first = tree_after(ranks, first);
	}
	return (void *)((char *)first - offsetof(struct pool_backend, rank));
}

/*
 * sender and recipient
 */

static void enter_ring(struct pool *pool, struct orders *orders, struct pool_backend *backend)
{
	ring_add(&orders->ring, &backend->points, pool->key, jid_of(backend));
}

static void leave_ring(struct orders *orders, struct pool_backend *backend)
{
	ring_remove(&orders->ring, &backend->points);
}

static struct pool_backend *pick_by_bare(struct pool *pool, enum pool_state state, struct pool_backend *excepted,
                                         struct text jid)
{
	struct ring_member *points =
		ring_find(&pool->orders[state].ring, pool->key, jid_bare(jid), excepted != NULL ? &excepted->points : NULL);

	return (void *)((char *)points - offsetof(struct pool_backend, points));
}

static struct pool_backend *pick_by_sender(struct pool *pool, enum pool_state state, struct pool_backend *excepted,
                                           const struct pool_request *request)
{
	return pick_by_bare(pool, state, excepted, request->requester);
}

static struct pool_backend *pick_by_recipient(struct pool *pool, enum pool_state state, struct pool_backend *excepted,
                                              const struct pool_request *request)
{
	return pick_by_bare(pool, state, excepted, request->service);
}

static const struct strategy strategies[] = {
	[POOL_RANDOM] = {.pick = pick_random},
	[POOL_ROUND_ROBIN] = {enter_turns, leave_turns, pick_turn},
	[POOL_LEAST_PENDING] = {.pick = pick_least_pending},
	[POOL_PRIMARY] = {enter_ranks, leave_ranks, pick_first},
	[POOL_SENDER] = {enter_ring, leave_ring, pick_by_sender},
	[POOL_RECIPIENT] = {enter_ring, leave_ring, pick_by_recipient},
};

static void enter_order(struct pool *pool, struct pool_backend *backend)
{
	const struct strategy *strategy = &strategies[pool->strategy];

	if (strategy->enter != NULL && backend->state < POOL_AWAY) {
		strategy->enter(pool, &pool->orders[backend->state], backend);
	}
}

static void leave_order(struct pool *pool, struct pool_backend *backend)
{
	const struct strategy *strategy = &strategies[pool->strategy];

	if (strategy->leave != NULL && backend->state < POOL_AWAY) {
		strategy->leave(&pool->orders[backend->state], backend);
	}
}

static void set_state(struct pool *pool, struct pool_backend *backend, enum pool_state state)
{
	leave_order(pool, backend);
	move(pool, backend, state);
	backend->since = ++pool->changes;
	enter_order(pool, backend);
}

static struct pool_backend *find(const struct pool *pool, struct text jid)
{
	struct hashtable_node *node = hashtable_find(&pool->by_jid, hashtable_hash(&pool->by_jid, jid));

	for (; node != NULL; node = hashtable_next(node)) {
		struct pool_backend *backend = (void *)((char *)node - offsetof(struct pool_backend, node));

		if (text_is_equal(jid_of(backend), jid)) {
			return backend;
		}
	}
	return NULL;
}

int pool_add(struct pool *pool, struct text jid)
{
	size_t count = pool_count(pool);
	struct pool_backend *backend;

	if (find(pool, jid) != NULL) {
		return 0;
	}
	if (slots_reserve(&pool->backends, count + 1) != 0) {
		return -1;
	}
	backend = malloc(sizeof *backend + jid.length);
	if (backend == NULL) {
		return -1;
	}
	backend->priority = 0;
	backend->jid_len = jid.length;
	memcpy(backend->jid, jid.bytes, jid.length);
	backend->state = POOL_STATES - 1;
	pool->counts[backend->state]++;
	place(pool, count, backend);
	set_state(pool, backend, POOL_READY);
	backend->node.hash = hashtable_hash(&pool->by_jid, jid);
	hashtable_add(&pool->by_jid, &backend->node);
	return 1;
}

/* The last backend takes the place of the one that goes: there are never holes. */
static void take_out(struct pool *pool, struct pool_backend *backend)
{
	size_t last = pool_count(pool) - 1;

	set_state(pool, backend, POOL_STATES - 1);
	if (pool->last_turn == &backend->turn) {
		pool->last_turn = NULL;
	}
	swap(pool, backend->position, last);
	pool->counts[backend->state]--;
	hashtable_remove(&pool->by_jid, &backend->node);
	slots_trim(&pool->backends, last);
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
		ring_free(&pool->orders[state].ring);
	}
	slots_free(&pool->backends);
	hashtable_free(&pool->by_jid);
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

int pool_set(struct pool *pool, struct text jid, enum pool_state state)
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

	if (backend == NULL || backend->priority == priority) {
		return 0;
	}
	backend->priority = priority;
	if (pool->strategy == POOL_PRIMARY) {
		leave_order(pool, backend);
		enter_order(pool, backend);
	}
	return 1;
}

static int init_rings(struct pool *pool)
{
	enum pool_state state;

	for (state = POOL_READY; state < POOL_AWAY; state++) {
		if (ring_init(&pool->orders[state].ring) != 0) {
			return -1;
		}
	}
	return 0;
}

static void for_each(struct pool *pool, void (*call)(struct pool *, struct pool_backend *))
{
	size_t position;

	for (position = 0; position < pool_count(pool); position++) {
		call(pool, backend_at(pool, position));
	}
}

int pool_set_strategy(struct pool *pool, enum pool_strategy strategy, const uint8_t key[POOL_KEYBYTES])
{
	int is_by_ring = strategies[strategy].enter == enter_ring;

	if (pool->strategy == strategy && sodium_memcmp(pool->key, key, POOL_KEYBYTES) == 0) {
		return 0;
	}
	if (is_by_ring && init_rings(pool) != 0) {
		return -1;
	}
	for_each(pool, leave_order);
	pool->strategy = strategy;
	memcpy(pool->key, key, POOL_KEYBYTES);
	for_each(pool, enter_order);
	return 0;
}

enum pool_strategy pool_strategy(const struct pool *pool)
{
	return pool->strategy;
}

enum pool_state pool_state(const struct pool *pool, struct text jid)
{
	const struct pool_backend *backend = find(pool, jid);

	return backend == NULL ? POOL_STATES : backend->state;
}

size_t pool_count(const struct pool *pool)
{
	return pool->by_jid.node_count;
}

int pool_serves(const struct pool *pool)
{
	return start_of(pool, POOL_AWAY) > 0;
}

/* One of the backends of a state other than `excepted`, or NULL. */
static struct pool_backend *pick_of(struct pool *pool, enum pool_state state, struct pool_backend *excepted,
                                    const struct pool_request *request)
{
	if (excepted != NULL && excepted->state != state) {
		excepted = NULL;
	}
	if (choices(pool, state, excepted) == 0) {
		return NULL;
	}
	return strategies[pool->strategy].pick(pool, state, excepted, request);
}

static struct pool_backend *find_optional(const struct pool *pool, struct text jid)
{
	return jid.bytes == NULL ? NULL : find(pool, jid);
}

struct text pool_pick(struct pool *pool, const struct pool_request *request)
{
	struct pool_backend *requester = find_optional(pool, request->requester);
	struct pool_backend *avoided = find_optional(pool, request->avoided);
	struct pool_backend *excepted = avoided != NULL ? avoided : requester, *picked;

	picked = pick_of(pool, POOL_READY, excepted, request);
	if (picked == NULL) {
		picked = pick_of(pool, POOL_SUSPENDED, excepted, request);
	}
	if (picked == NULL || picked == requester) {
		return (struct text){NULL, 0};
	}
	return jid_of(picked);
}
