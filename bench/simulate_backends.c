/*
 * The core with very many backends: how long its calls take with each strategy, how long the longest of them, what
 * memory a backend takes, and how evenly requests and senders are spread.
 *
 *     make .build/simulate_backends
 *     .build/simulate_backends [BACKENDS [STRATEGY ...]]
 *
 * With primary, each backend in turn has all requests, and is replaced: that takes longer than all others.
 */
#include <math.h>

#include "calls.h"

enum {
	BACKENDS = 100000,
	PENDING_EACH = 5,  /* requests that are in flight for each backend */
	SENDERS_EACH = 10, /* senders for each backend, where it is counted who gets whom */
	LEAVING = 10,      /* percent of the backends, which go at once */
	STRATEGIES_MAX = 16,
};

static void leave(struct world *world, size_t number, size_t deploy, struct times *times)
{
	char jid[JID_SIZE];
	double begun;

	write_backend(jid, number, deploy);
	begun = nanoseconds();
	if (pool_remove(world->pool, text(jid)) != 1) {
		abort();
	}
	pending_abandon(world->pending, text(jid));
	times_add(times, begun);
}

/* What was with backends that have gone is sent to others, see retries.lua. */
static void retry_all(struct world *world, struct times *times)
{
	struct pending_entry *entry;

	while ((entry = pending_first_abandoned(world->pending)) != NULL) {
		struct pending_request abandoned = pending_read(entry);
		struct outgoing out;
		double begun;

		out.request = (struct exchange_request){
			.requester = {out.requester, requester_jid(abandoned.requester).length},
			.service = {out.service, abandoned.service.length},
			.id = {out.id, abandoned.id.length},
			.time = abandoned.added,
			.deadline = abandoned.deadline,
			.retries = 1,
			.kept_bytes = abandoned.kept_bytes,
			.kept = abandoned.kept,
		};
		snprintf(out.requester, sizeof out.requester, "%.*s", (int)out.request.requester.length,
		         requester_jid(abandoned.requester).bytes);
		snprintf(out.service, sizeof out.service, "%.*s", (int)out.request.service.length, abandoned.service.bytes);
		snprintf(out.id, sizeof out.id, "%.*s", (int)out.request.id.length, abandoned.id.bytes);
		begun = nanoseconds();
		pending_remove(world->pending, entry);
		if (send_out(world, &out) != EXCHANGE_OK) {
			abort();
		}
		times_add(times, begun);
		take_off(world, &out);
	}
}

/* How evenly something is spread over the backends that are there */
struct spread {
	double mean, least, most;
	double uneven; /* standard deviation as a share of the mean, without what chance makes of it */
};

static struct spread spread_of(const uint32_t *counts, size_t count)
{
	struct spread spread = {0, UINT32_MAX, 0, 0};
	double squares = 0, excess;
	size_t i;

	for (i = 0; i < count; i++) {
		double n = counts[i];

		spread.mean += n / (double)count;
		squares += n * n / (double)count;
		spread.least = n < spread.least ? n : spread.least;
		spread.most = n > spread.most ? n : spread.most;
	}
	excess = squares / spread.mean / spread.mean - 1 - 1 / spread.mean;
	spread.uneven = excess > 0 ? sqrt(excess) : 0;
	return spread;
}

static void print_spread_titles(void)
{
	printf("# How evenly that is spread over the backends: the least and the most as a multiple of the mean, and the\n"
	       "# standard deviation as a share of it, without what chance makes of it\n");
	printf("# %-13s %-34s %8s %9s %9s %9s %9s\n", "strategy", "what", "backends", "mean", "least", "most", "uneven");
}

static void print_spread(const char *strategy, const char *what, const uint32_t *counts, size_t count)
{
	struct spread spread = spread_of(counts, count);

	printf("  %-13s %-34s %8zu %9.1f %9.2f %9.2f %9.3f\n", strategy, what, count, spread.mean,
	       spread.least / spread.mean, spread.most / spread.mean, spread.uneven);
	fflush(stdout);
}

enum timed { JOIN, REQUEST, PRIORITY, AWAY, BACK, SUSPEND, RESUME, LEAVE, RETRY, ANSWER, STRATEGY, KEY, TIMED };

static const char *const timed_names[TIMED] = {
	"join",   "request", "set_priority", "set_away", "set_ready",    "suspend",
	"resume", "leave",   "retry",        "answer",   "set_strategy", "another_key",
};

/* Each backend gets that state. */
static void set_states(struct world *world, size_t count, enum pool_state state, struct times *times)
{
	size_t i;

	for (i = 0; i < count; i++) {
		char jid[JID_SIZE];
		double begun;

		write_backend(jid, i * FAR % count, 0);
		begun = nanoseconds();
		pool_set_state(world->pool, text(jid), state);
		times_add(times, begun);
	}
}

static void set_priorities(struct world *world, size_t count, struct times *times)
{
	size_t i;

	for (i = 0; i < count; i++) {
		char jid[JID_SIZE];
		double begun;

		write_backend(jid, i * FAR % count, 0);
		begun = nanoseconds();
		pool_set_priority(world->pool, text(jid), (int8_t)(i % 100));
		times_add(times, begun);
	}
}

/* As many requests as there are flights, each of a requester of its own */
static void fill_flights(struct world *world, struct times *times)
{
	size_t i;

	for (i = 0; i < world->flight_count; i++) {
		if (request(world, i, i, times, times) != EXCHANGE_OK) {
			abort();
		}
	}
}

/* Each is replaced by one with another name, as in a rolling deploy; what it has is tried again elsewhere. */
static void deploy(struct world *world, size_t count, struct times times[])
{
	size_t i;

	for (i = 0; i < count; i++) {
		size_t number = i * FAR % count;

		leave(world, number, 0, &times[LEAVE]);
		join(world, number, 1, &times[JOIN]);
		retry_all(world, &times[RETRY]);
	}
}

/* So many percent go at once, and all the others after what these had has been tried again. */
static void go(struct world *world, size_t count, struct times times[])
{
	size_t leaving = count * LEAVING / 100, i;

	for (i = 0; i < leaving; i++) {
		leave(world, i * FAR % count, 1, &times[LEAVE]);
	}
	retry_all(world, &times[RETRY]);
	answer_all(world, &times[ANSWER]);
	for (i = leaving; i < count; i++) {
		leave(world, i * FAR % count, 1, &times[LEAVE]);
	}
}

static void count_pending(struct world *world, size_t count, uint32_t *counts)
{
	size_t i;

	for (i = 0; i < count; i++) {
		char jid[JID_SIZE];

		write_backend(jid, i, 0);
		counts[i] = (uint32_t)pending_count_of(world->pending, text(jid));
	}
}

static void set_strategy(struct world *world, const struct strategy *strategy, uint8_t key, struct times *times)
{
	const uint8_t keys[POOL_KEYBYTES] = {key};
	double begun = nanoseconds();

	pool_set_strategy(world->pool, strategy, keys);
	times_add(times, begun);
}

/* The operator reloads the module with another strategy, comes back to this one, and takes another target. */
static void change_strategy(struct world *world, const struct strategy *strategy, struct times times[])
{
	const struct strategy *other = strategy == strategies[0] ? strategies[1] : strategies[0];

	set_strategy(world, other, WORLD_KEY, &times[STRATEGY]);
	set_strategy(world, strategy, WORLD_KEY, &times[STRATEGY]);
	set_strategy(world, strategy, WORLD_KEY + 1, &times[KEY]);
}

/* `counts` becomes how many requests each backend has. */
static void simulate(const struct strategy *strategy, size_t count, uint32_t *counts)
{
	struct times *times = must(calloc(TIMED, sizeof *times));
	struct world world;
	int i;

	world_open(&world, strategy, count * PENDING_EACH);
	world.room_count = world.flight_count;
	join_all(&world, count, &times[JOIN]);
	fill_flights(&world, &times[REQUEST]);
	count_pending(&world, count, counts);
	set_priorities(&world, count, &times[PRIORITY]);
	set_states(&world, count, POOL_AWAY, &times[AWAY]);
	set_states(&world, count, POOL_READY, &times[BACK]);
	set_states(&world, count, POOL_SUSPENDED, &times[SUSPEND]);
	set_states(&world, count, POOL_READY, &times[RESUME]);
	change_strategy(&world, strategy, times);
	deploy(&world, count, times);
	go(&world, count, times);
	for (i = 0; i < TIMED; i++) {
		times_print(strategy->name, timed_names[i], &times[i]);
	}
	world_close(&world);
	free(times);
}

static void print_memory(size_t count)
{
	struct times times = {0};
	struct world world;
	double before;

	world_open(&world, &strategy_random, 1);
	before = resident();
	join_all(&world, count, &times);
	printf("# memory: %zu backends take %.1f MiB, %.0f bytes each\n", count, (resident() - before) / 1048576,
	       (resident() - before) / (double)count);
	world_close(&world);
}

/* Which backend each sender's requests go to */
static void choose_all(struct world *world, uint32_t *chosen, size_t count)
{
	size_t i;

	for (i = 0; i < count; i++) {
		char jid[JID_SIZE];
		struct request wanted = {0};

		write_requester(jid, i);
		wanted.requester = text(jid);
		chosen[i] = (uint32_t)number_of(pool_jid(must((void *)pool_pick(world->pool, &wanted, (struct text){0}))));
	}
}

static void count_chosen(const uint32_t *chosen, size_t count, uint32_t *counts, size_t backends)
{
	size_t i;

	memset(counts, 0, backends * sizeof *counts);
	for (i = 0; i < count; i++) {
		counts[chosen[i]]++;
	}
}

/* Senders whose backend is another one than before, and those of them whose backend has not left */
struct moves {
	size_t all, needless;
};

static struct moves count_moves(const uint32_t *before, const uint32_t *after, size_t senders, size_t leaving)
{
	struct moves moves = {0, 0};
	size_t i;

	for (i = 0; i < senders; i++) {
		moves.all += before[i] != after[i];
		moves.needless += before[i] != after[i] && before[i] >= leaving;
	}
	return moves;
}

/* What moves when the first backends leave, and whether all comes back with them. */
static void simulate_moves(size_t backends, uint32_t *counts)
{
	size_t senders = backends * SENDERS_EACH, leaving = backends * LEAVING / 100, i;
	uint32_t *before = must(malloc(senders * sizeof *before)), *after = must(malloc(senders * sizeof *after));
	struct times times = {0};
	struct moves moves;
	struct world world;

	world_open(&world, &strategy_sender, 1);
	join_all(&world, backends, &times);
	choose_all(&world, before, senders);
	count_chosen(before, senders, counts, backends);
	print_spread("sender", "senders of each", counts, backends);
	for (i = 0; i < leaving; i++) {
		leave(&world, i, 0, &times);
	}
	choose_all(&world, after, senders);
	count_chosen(after, senders, counts, backends);
	print_spread("sender", "the same, when some have left", counts + leaving, backends - leaving);
	moves = count_moves(before, after, senders, leaving);
	printf("# of %zu senders, %zu move when %zu of %zu backends leave, of whom %zu had one that stays;\n", senders,
	       moves.all, leaving, backends, moves.needless);
	join_all(&world, leaving, &times);
	choose_all(&world, after, senders);
	printf("# when these backends are there again, %zu senders have another one than in the beginning\n",
	       count_moves(before, after, senders, leaving).all);
	world_close(&world);
	free(before);
	free(after);
}

static int is_wanted(const char *strategy, int argc, char **argv)
{
	int i;

	for (i = 2; i < argc; i++) {
		if (strcmp(argv[i], strategy) == 0) {
			return 1;
		}
	}
	return argc <= 2;
}

int main(int argc, char **argv)
{
	size_t count = argc > 1 ? strtoul(argv[1], NULL, 10) : BACKENDS, i;
	uint32_t *counts[STRATEGIES_MAX] = {NULL};

	if (sodium_init() < 0 || count < 100) {
		return 1;
	}
	print_memory(count);
	times_print_titles();
	times_print_clock();
	for (i = 0; strategies[i] != NULL; i++) {
		counts[i] = must(malloc(count * sizeof **counts));
		if (is_wanted(strategies[i]->name, argc, argv)) {
			simulate(strategies[i], count, counts[i]);
		}
	}
	print_spread_titles();
	for (i = 0; strategies[i] != NULL; i++) {
		if (is_wanted(strategies[i]->name, argc, argv)) {
			print_spread(strategies[i]->name, "pending requests of each", counts[i], count);
		}
	}
	simulate_moves(count, counts[0]);
	while (i-- > 0) {
		free(counts[i]);
	}
	return 0;
}
