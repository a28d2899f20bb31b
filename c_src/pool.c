#include "pool.h"

#include <stdlib.h>
#include <string.h>

#include "hashtable.h"
#include "slots.h"

struct backend {
	struct hashtable_node node;
	size_t position; /* among the backends */
	size_t jid_len;
	char jid[];
};

struct pool {
	struct hashtable by_jid;
	struct slots backends;
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

void pool_free(struct pool *pool)
{
	if (pool == NULL) {
		return;
	}
	pool_clear(pool);
	slots_free(&pool->backends);
	hashtable_free(&pool->by_jid);
	free(pool);
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
	place(pool, count, backend);
	backend->node.hash = hashtable_hash(&pool->by_jid, jid, jid_len);
	hashtable_add(&pool->by_jid, &backend->node);
	return 1;
}

/* The last backend takes the place of the one that goes: there are never holes. */
static void take_out(struct pool *pool, struct backend *backend)
{
	size_t last = pool_count(pool) - 1;

	place(pool, backend->position, backend_at(pool, last));
	hashtable_remove(&pool->by_jid, &backend->node);
	slots_trim(&pool->backends, last);
	free(backend);
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

void pool_clear(struct pool *pool)
{
	while (pool_count(pool) > 0) {
		take_out(pool, backend_at(pool, pool_count(pool) - 1));
	}
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

const char *pool_pick(struct pool *pool, const char *except, size_t except_len, size_t *jid_len)
{
	const struct backend *excepted = except == NULL ? NULL : find(pool, except, except_len);
	size_t choices = pool_count(pool) - (excepted != NULL);
	const struct backend *chosen;
	size_t position;

	if (choices == 0) {
		return NULL;
	}
	position = random_below(pool, choices);
	if (excepted != NULL && position >= excepted->position) {
		position++;
	}
	chosen = backend_at(pool, position);
	*jid_len = chosen->jid_len;
	return chosen->jid;
}
