#include "pool.h"

#include <stdlib.h>
#include <string.h>

#include "hashtable.h"
#include "slots.h"

struct backend {
	struct hashtable_node node;
	enum pool_state state;
	size_t position; /* among the backends */
	size_t jid_len;
	char jid[];
};

struct pool {
	struct hashtable by_jid;
	struct slots backends; /* those of one state side by side, in the order of the states */
	size_t counts[POOL_STATES];
	uint64_t random_state;
};

struct pool *pool_new(const uint8_t seed[POOL_SEEDBYTES])
{
	struct pool *pool = calloc(1, sizeof *pool);

	if (pool != NULL && hashtable_init(&pool->by_jid, seed) != 0) {
		free(pool);
		return NULL;
	}
	if (pool != NULL) {
		memcpy(&pool->random_state, seed + HASHTABLE_SEEDBYTES, sizeof pool->random_state);
	}
	return pool;
}

static struct backend *backend_at(const struct pool *pool, size_t position)
{
	return *slots_at(&pool->backends, position);
}

static void place(struct pool *pool, size_t position, struct backend *backend)
{
	*slots_at(&pool->backends, position) = backend;
	backend->position = position;
}

static void swap(struct pool *pool, size_t a, size_t b)
{
	struct backend *moved = backend_at(pool, a);

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
static void set_state(struct pool *pool, struct backend *backend, enum pool_state state)
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

static struct backend *find(const struct pool *pool, const char *jid, size_t jid_len)
{
	struct hashtable_node *node = hashtable_find(&pool->by_jid, hashtable_hash(&pool->by_jid, jid, jid_len));

	for (; node != NULL; node = hashtable_next(node)) {
		struct backend *backend = (void *)((char *)node - offsetof(struct backend, node));

		if (backend->jid_len == jid_len && memcmp(backend->jid, jid, jid_len) == 0) {
			return backend;
		}
	}
	return NULL;
}

int pool_add(struct pool *pool, const char *jid, size_t jid_len)
{
	size_t count = pool_count(pool);
	struct backend *backend;

	if (find(pool, jid, jid_len) != NULL) {
		return 0;
	}
	if (slots_reserve(&pool->backends, count + 1) != 0) {
		return -1;
	}
	backend = malloc(sizeof *backend + jid_len);
	if (backend == NULL) {
		return -1;
	}
	backend->jid_len = jid_len;
	memcpy(backend->jid, jid, jid_len);
	backend->state = POOL_STATES - 1;
	pool->counts[backend->state]++;
	place(pool, count, backend);
	set_state(pool, backend, POOL_READY);
	backend->node.hash = hashtable_hash(&pool->by_jid, jid, jid_len);
	hashtable_add(&pool->by_jid, &backend->node);
	return 1;
}

/* The last backend takes the place of the one that goes: there are never holes. */
static void take_out(struct pool *pool, struct backend *backend)
{
	size_t last = pool_count(pool) - 1;

	set_state(pool, backend, POOL_STATES - 1);
	swap(pool, backend->position, last);
	pool->counts[backend->state]--;
	hashtable_remove(&pool->by_jid, &backend->node);
	slots_trim(&pool->backends, last);
	free(backend);
}

void pool_free(struct pool *pool)
{
	if (pool == NULL) {
		return;
	}
	while (pool_count(pool) > 0) {
		take_out(pool, backend_at(pool, pool_count(pool) - 1));
	}
	slots_free(&pool->backends);
	hashtable_free(&pool->by_jid);
	free(pool);
}

int pool_remove(struct pool *pool, const char *jid, size_t jid_len)
{
	struct backend *backend = find(pool, jid, jid_len);

	if (backend == NULL) {
		return 0;
	}
	take_out(pool, backend);
	return 1;
}

const char *pool_any(const struct pool *pool, size_t *jid_len)
{
	const struct backend *backend;

	if (pool_count(pool) == 0) {
		return NULL;
	}
	backend = backend_at(pool, pool_count(pool) - 1);
	*jid_len = backend->jid_len;
	return backend->jid;
}

int pool_set(struct pool *pool, const char *jid, size_t jid_len, enum pool_state state)
{
	struct backend *backend = find(pool, jid, jid_len);

	if (backend == NULL || backend->state == state) {
		return 0;
	}
	set_state(pool, backend, state);
	return 1;
}

enum pool_state pool_state(const struct pool *pool, const char *jid, size_t jid_len)
{
	const struct backend *backend = find(pool, jid, jid_len);

	return backend == NULL ? POOL_STATES : backend->state;
}

size_t pool_count(const struct pool *pool)
{
	return pool->by_jid.node_count;
}

/* SplitMix64: evenly spread, and a seed is all it needs. It keeps no secret. */
static uint64_t next_random(struct pool *pool)
{
	uint64_t z = pool->random_state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
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

/* One of the backends of a state other than `excepted`, or NULL. */
static const struct backend *pick_of(struct pool *pool, enum pool_state state, const struct backend *excepted)
{
	int is_excepted = excepted != NULL && excepted->state == state;
	size_t choices = pool->counts[state] - (is_excepted ? 1 : 0);
	size_t position;

	if (choices == 0) {
		return NULL;
	}
	position = start_of(pool, state) + random_below(pool, choices);
	if (is_excepted && position >= excepted->position) {
		position++;
	}
	return backend_at(pool, position);
}

const char *pool_pick(struct pool *pool, const char *except, size_t except_len, size_t *jid_len)
{
	const struct backend *excepted = except == NULL ? NULL : find(pool, except, except_len);
	const struct backend *picked = pick_of(pool, POOL_READY, excepted);

	if (picked == NULL) {
		picked = pick_of(pool, POOL_SUSPENDED, excepted);
	}
	if (picked == NULL) {
		return NULL;
	}
	*jid_len = picked->jid_len;
	return picked->jid;
}
