/*
 * What the pool costs: the CPU time of each kind of call by each strategy, with
 * 10, 1,000 and 100,000 backends, and that of a flood of 100,000 changes.
 *
 *     make bench
 */
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>

#include "containers/splitmix.h"
#include "measure.h"
#include "pending.h"
#include "pool.h"

enum {
	NAME_SIZE = 64,
	NAMES = 100000,
	FLOOD = 100000,
	BATCH = 100, /* calls between two looks at the clock, each of another backend */
	PASSES = 200,
	ROUNDS = 3,
};

static char backends[NAMES][NAME_SIZE], requesters[NAMES][NAME_SIZE], services[NAMES][NAME_SIZE];
static struct requesters *book;
static struct pending *pending;
static uint64_t random_state;

static void write_names(void)
{
	size_t i;

	for (i = 0; i < NAMES; i++) {
		snprintf(backends[i], NAME_SIZE, "some-user@some-domain.example/%016zx", i);
		snprintf(requesters[i], NAME_SIZE, "%016zx@some-domain.example/k3jH8s9d", i);
		snprintf(services[i], NAME_SIZE, "room-%08zx@proxy.domain.example", i);
	}
}

/* A request to each backend */
static void fill_pending(void)
{
	static const uint8_t seed[PENDING_SEEDBYTES] = {1}, book_seed[REQUESTERS_SEEDBYTES] = {1};
	size_t i;

	book = requesters_new(book_seed);
	pending = pending_new(seed, book);
	for (i = 0; i < NAMES; i++) {
		struct pending_answer answer = {text(backends[i]), text(services[i]), text("id")};
		struct pending_request request = {.service = text(services[i]), .id = text("id"), .deadline = (double)i};
		struct pending_entry *entry;

		if (requesters_add(book, text(requesters[i]), (struct text){NULL, 0}, &request.requester) != REQUESTERS_OK ||
		    pending_add(pending, &answer, &request, &entry) != PENDING_OK) {
			abort();
		}
	}
}

static size_t load(void *context, struct text jid)
{
	return pending_count_of(context, jid);
}

typedef void operation(struct pool *pool, const char *jid, size_t number);

static void add(struct pool *pool, const char *jid, size_t number)
{
	(void)number;
	if (pool_add(pool, text(jid), (struct text){NULL, 0}) != 1) {
		abort();
	}
}

static void take_out(struct pool *pool, const char *jid, size_t number)
{
	(void)number;
	if (pool_remove(pool, text(jid)) != 1) {
		abort();
	}
}

static void prioritise(struct pool *pool, const char *jid, size_t number)
{
	pool_set_priority(pool, text(jid), (int8_t)(number % 128));
}

static void suspend(struct pool *pool, const char *jid, size_t number)
{
	(void)number;
	pool_set_state(pool, text(jid), POOL_SUSPENDED);
}

static void resume(struct pool *pool, const char *jid, size_t number)
{
	(void)number;
	pool_set_state(pool, text(jid), POOL_READY);
}

static void pick(struct pool *pool, const char *jid, size_t number)
{
	struct request request = {
		.requester = text(requesters[number % NAMES]),
		.service = text(services[number % NAMES]),
		.load = load,
		.context = pending,
	};

	(void)jid;
	if (pool_pick(pool, &request, (struct text){NULL, 0}) == NULL) {
		abort();
	}
}

static void leave_and_join(struct pool *pool, const char *jid, size_t number)
{
	take_out(pool, jid, number);
	add(pool, jid, number);
}

/* Pools with the same backends: so many that no call of a batch meets a backend of the same pool again. */
struct pools {
	struct pool *pools[BATCH];
	size_t pool_count;
	size_t backend_count;
};

static void fill(struct pools *pools, const struct strategy *strategy, size_t count)
{
	static const uint8_t seed[POOL_SEEDBYTES] = {2}, key[POOL_KEYBYTES] = {3};
	size_t i, number;

	pools->pool_count = count < BATCH ? BATCH : 1;
	pools->backend_count = count;
	for (i = 0; i < pools->pool_count; i++) {
		pools->pools[i] = pool_new(seed);
		pool_set_strategy(pools->pools[i], strategy, key);
		for (number = 0; number < count; number++) {
			add(pools->pools[i], backends[number], number);
		}
	}
}

static void empty(struct pools *pools)
{
	size_t i;

	for (i = 0; i < pools->pool_count; i++) {
		pool_free(pools->pools[i]);
	}
}

/* The time of a call, in nanoseconds. */
static double batch(const struct pools *pools, size_t start, operation *call)
{
	double elapsed = nanoseconds();
	size_t i;

	for (i = 0; i < BATCH; i++) {
		/* a prime, so that no backend of a pool comes twice */
		call(pools->pools[i % pools->pool_count], backends[(start + i * 7919) % pools->backend_count], start + i);
	}
	return (nanoseconds() - elapsed) / BATCH;
}

static double flood(const struct pools *pools)
{
	static operation *const changes[] = {prioritise, suspend, resume, leave_and_join};
	double elapsed = nanoseconds();
	size_t i;

	for (i = 0; i < FLOOD; i++) {
		uint64_t random = splitmix64(&random_state);

		changes[random % 4](pools->pools[0], backends[(random >> 2) % pools->backend_count], i);
	}
	return (nanoseconds() - elapsed) / 1e6;
}

static void measure(const struct strategy *strategy, size_t count)
{
	static operation *const calls[] = {pick, take_out, add, prioritise, suspend, resume};
	enum { CALLS = sizeof calls / sizeof *calls };
	double times[CALLS], flood_time = 1e9;
	struct pools pools;
	size_t round, pass, i;

	for (i = 0; i < CALLS; i++) {
		times[i] = 1e9;
	}
	for (round = 0; round < ROUNDS; round++) {
		double sums[CALLS] = {0};

		fill(&pools, strategy, count);
		for (pass = 0; pass < PASSES; pass++) {
			size_t start = splitmix64(&random_state) % NAMES;

			for (i = 0; i < CALLS; i++) {
				sums[i] += batch(&pools, start, calls[i]);
			}
		}
		for (i = 0; i < CALLS; i++) {
			times[i] = least(times[i], sums[i] / PASSES);
		}
		flood_time = least(flood_time, flood(&pools));
		empty(&pools);
	}
	printf("%-14s %8zu", strategy->name, count);
	for (i = 0; i < CALLS; i++) {
		printf(" %8.0f", times[i]);
	}
	printf(" %9.1f\n", flood_time);
}

int main(void)
{
	size_t i, count;

	if (sodium_init() < 0) {
		return 1;
	}
	write_names();
	fill_pending();
	puts("# The pool: CPU time per call (ns), and that of a flood of 100,000 changes (ms), by strategy and number of "
	     "backends");
	printf("# The least of %d rounds, each the mean of %d calls.\n", ROUNDS, PASSES * BATCH);
	printf("# %-12s %8s %8s %8s %8s %8s %8s %8s %9s\n", "strategy", "backends", "pick", "remove", "add", "priority",
	       "suspend", "resume", "flood");
	for (i = 0; strategies[i] != NULL; i++) {
		for (count = 10; count <= NAMES; count *= 100) {
			measure(strategies[i], count);
		}
	}
	pending_free(pending);
	requesters_free(book);
	return 0;
}
