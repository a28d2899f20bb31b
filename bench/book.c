/*
 * How the book grows: memory per requester, time per call, and the longest single call, with
 * 10^3 to 10^6 requesters.
 *
 *     make bench
 */
#include <sodium.h>

#include "growing.h"
#include "requesters.h"

enum { FAR = 7919 }; /* a prime: requesters are not asked for in the order in which they lie in memory */

static struct requester *find(struct requesters *book, const struct texts *texts)
{
	struct requester *requester = requesters_find(book, text(texts->requester));

	if (requester == NULL) {
		abort();
	}
	return requester;
}

/* A requester's first request */
static void add(void *book, const struct texts *texts, size_t number)
{
	struct text jid = text(texts->requester), token = {(const char *)texts->token, sizeof texts->token};
	struct requester *requester;

	(void)number;
	if (requesters_find(book, jid) != NULL || requesters_add(book, jid, token, &requester) != REQUESTERS_OK) {
		abort();
	}
}

/* Any other request of its, from its beginning to its end */
static void use(void *book, const struct texts *texts, size_t number)
{
	struct requester *requester = find(book, texts);

	(void)number;
	if (requesters_hold(book, requester, 1000) != 0) {
		abort();
	}
	requesters_release(book, requester, 1000);
}

static void resolve(void *book, const struct texts *texts, size_t number)
{
	struct text token = {(const char *)texts->token, sizeof texts->token};

	(void)number;
	if (requesters_resolve(book, token) == NULL) {
		abort();
	}
}

enum { ADD, USE, RESOLVE, EVICT, NOTHING, OPERATIONS };

/* Those that are added at last are as many others, so that all of the first ones are forgotten. */
static void time_operations(size_t count, size_t together, struct timing timings[], double *bytes)
{
	static const uint8_t seed[REQUESTERS_SEEDBYTES] = {1};
	struct requesters *book = requesters_new(seed);
	double before = resident();

	timings[ADD] = time_calls(book, count, add, together);
	*bytes = resident() - before;
	timings[USE] = time_numbers(book, (struct numbers){0, count, FAR}, use, together);
	timings[RESOLVE] = time_numbers(book, (struct numbers){0, count, FAR}, resolve, together);
	timings[NOTHING] = time_calls(book, count, do_nothing, together);
	requesters_set_max(book, count);
	timings[EVICT] = time_numbers(book, (struct numbers){count, count, 1}, add, together);
	requesters_free(book);
}

static void print_titles(void)
{
	puts("# The book as it grows: bytes per requester, CPU time (ns) and its ratio to that with the fewest, and the "
	     "longest");
	puts("# single call (us). add: the first request of a requester; use: any other one, found, held and released; "
	     "resolve: by");
	puts("# a token; evict: add, where another requester has to be forgotten for it; none: nothing, for comparison.");
	puts("# Goals: ratios at most 3, the longest call at most 1000 us.");
	printf("# %6s %6s %6s %6s %8s %6s %9s %9s %13s %11s %8s %8s %12s %10s %9s\n", "count", "bytes", "add", "use",
	       "resolve", "evict", "add_ratio", "use_ratio", "resolve_ratio", "evict_ratio", "max_add", "max_use",
	       "max_resolve", "max_evict", "max_none");
}

static void print_figures(size_t count, const struct figures *figures, const struct figures *first, size_t first_count)
{
	double means[OPERATIONS], ratios[OPERATIONS], longest[OPERATIONS];
	int i;

	for (i = 0; i < OPERATIONS; i++) {
		means[i] = figures->timings[i].total / (double)count;
		ratios[i] = means[i] / first->timings[i].total * (double)first_count;
		longest[i] = figures->timings[i].longest / 1e3;
	}
	printf("%8zu %6.0f %6.0f %6.0f %8.0f %6.0f %9.2f %9.2f %13.2f %11.2f %8.0f %8.0f %12.0f %10.0f %9.0f\n", count,
	       figures->bytes / (double)count, means[ADD], means[USE], means[RESOLVE], means[EVICT], ratios[ADD],
	       ratios[USE], ratios[RESOLVE], ratios[EVICT], longest[ADD], longest[USE], longest[RESOLVE], longest[EVICT],
	       longest[NOTHING]);
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
		figures = measure(time_operations, OPERATIONS, count);
		first = count == LEAST ? figures : first;
		print_figures(count, &figures, &first, LEAST);
		fflush(stdout);
	}
	return 0;
}
