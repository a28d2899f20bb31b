/*
 * How the pending table grows: memory per request, time per call, and the
 * longest single call, at 10^3 to 10^6 pending requests.
 *
 *     make bench
 */
#include <sodium.h>

#include "growing.h"
#include "pending.h"

static void add(void *pending, const struct texts *texts, size_t number)
{
	struct pending_answer answer = {text(BACKEND), text(texts->to), text(texts->id)};
	struct pending_request request = {
		.requester = text(texts->requester),
		.service = text(SERVICE),
		.id = answer.id,
		.added = (double)number,
		.deadline = (double)number,
	};
	struct pending_entry *entry;

	if (pending_add(pending, &answer, &request, &entry) != PENDING_OK) {
		abort();
	}
}

static void take(void *pending, const struct texts *texts, size_t number)
{
	struct pending_answer answer = {text(BACKEND), text(texts->to), text(texts->id)};
	struct pending_entry *entry = pending_find(pending, &answer);

	(void)number;
	if (entry == NULL) {
		abort();
	}
	pending_remove(pending, entry);
}

static void expire(void *pending, const struct texts *texts, size_t number)
{
	(void)texts;
	(void)number;
	pending_remove(pending, pending_first(pending));
}

enum { ADD, TAKE, EXPIRE, NOTHING, OPERATIONS };

/* Each operation that removes requests comes after one that adds them. `bytes` becomes what the first ones take. */
static void time_operations(size_t count, size_t together, struct timing timings[OPERATIONS], double *bytes)
{
	static const uint8_t seed[PENDING_SEEDBYTES] = {1};
	struct pending *pending = pending_new(seed);
	double before = resident();

	timings[ADD] = time_calls(pending, count, add, together);
	*bytes = resident() - before;
	timings[TAKE] = time_calls(pending, count, take, together);
	time_calls(pending, count, add, together);
	timings[EXPIRE] = time_calls(pending, count, expire, together);
	timings[NOTHING] = time_calls(pending, count, do_nothing, together);
	pending_free(pending);
}

struct figures {
	struct timing timings[OPERATIONS];
	double bytes;
};

static struct figures measure(size_t count)
{
	struct figures figures;
	int round, i;

	for (round = 0; round < ROUNDS; round++) {
		struct timing means[OPERATIONS], singles[OPERATIONS];
		double bytes, again;

		time_operations(count, BATCH, means, &bytes);
		time_operations(count, 1, singles, &again);
		if (round == 0) {
			figures.bytes = bytes; /* in later rounds, the process has that memory already */
		}
		for (i = 0; i < OPERATIONS; i++) {
			struct timing timing = {means[i].total, singles[i].longest};

			figures.timings[i] = round == 0 ? timing : least_timing(figures.timings[i], timing);
		}
	}
	return figures;
}

static void print_titles(void)
{
	puts("# The pending table as it grows: bytes per request, CPU time per call (ns) and its ratio to that with the "
	     "fewest,");
	puts("# CPU time to expire all (ms), and the longest single call (us), for comparison also of one that does "
	     "nothing");
	printf("# Means are the least of %d rounds, with %d calls between two looks at the clock; the longest, with one.\n",
	       ROUNDS, BATCH);
	puts("# Goals: ratios of add and take at most 2, the longest call at most 1000 us.");
	printf("# %6s %6s %6s %6s %7s %9s %10s %9s %9s %8s %9s %8s %9s\n", "count", "bytes", "add", "take", "expire",
	       "add_ratio", "take_ratio", "exp_ratio", "exp_all", "max_add", "max_take", "max_exp", "max_none");
}

static void print_figures(size_t count, const struct figures *figures, const struct figures *first, size_t first_count)
{
	const struct timing *timings = figures->timings;
	double means[OPERATIONS], ratios[OPERATIONS];
	int i;

	for (i = 0; i < OPERATIONS; i++) {
		means[i] = timings[i].total / (double)count;
		ratios[i] = means[i] / first->timings[i].total * (double)first_count;
	}
	printf("%8zu %6.0f %6.0f %6.0f %7.0f %9.2f %10.2f %9.2f %9.1f %8.0f %9.0f %8.0f %9.0f\n", count,
	       figures->bytes / (double)count, means[ADD], means[TAKE], means[EXPIRE], ratios[ADD], ratios[TAKE],
	       ratios[EXPIRE], timings[EXPIRE].total / 1e6, timings[ADD].longest / 1e3, timings[TAKE].longest / 1e3,
	       timings[EXPIRE].longest / 1e3, timings[NOTHING].longest / 1e3);
}

int main(void)
{
	enum { LEAST = 1000, MOST = 1000000 };
	struct figures first = {0}, figures;
	size_t count;

	if (sodium_init() < 0) {
		return 1;
	}
	print_titles();
	for (count = LEAST; count <= MOST; count *= 10) {
		figures = measure(count);
		first = count == LEAST ? figures : first;
		print_figures(count, &figures, &first, LEAST);
		fflush(stdout);
	}
	return 0;
}
