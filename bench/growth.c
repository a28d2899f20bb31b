/*
 * How the table of what is pending and the book grow together, as a request goes through both of them:
 * memory per request, time per call, and the longest single call, with 10^3 to 10^6 requests pending,
 * each of another requester.
 *
 *     make bench
 */
#include <sodium.h>

#include "growing.h"
#include "pending.h"

enum { FAR = 7919 }; /* a prime: answers do not come in the order in which the requests lie in memory */

struct both {
	struct requesters *book;
	struct pending *pending;
};

/* The requester is found in the book, or added, and its request is pending then: what exchange.c does. */
static void add(void *subject, const struct texts *texts, size_t number)
{
	const struct both *both = subject;
	struct text jid = text(texts->requester), token = {(const char *)texts->token, sizeof texts->token};
	struct pending_answer answer = {text(BACKEND), text(texts->to), text(texts->id)};
	struct pending_request request = {
		.requester = requesters_find(both->book, jid),
		.service = text(SERVICE),
		.id = answer.id,
		.added = (double)number,
		.deadline = (double)number,
	};
	struct pending_entry *entry;

	if (request.requester == NULL && requesters_add(both->book, jid, token, &request.requester) != REQUESTERS_OK) {
		abort();
	}
	if (pending_add(both->pending, &answer, &request, &entry) != PENDING_OK) {
		abort();
	}
}

static void take(void *subject, const struct texts *texts, size_t number)
{
	const struct both *both = subject;
	struct pending_answer answer = {text(BACKEND), text(texts->to), text(texts->id)};
	struct pending_entry *entry = pending_find(both->pending, &answer);

	(void)number;
	if (entry == NULL) {
		abort();
	}
	pending_remove(both->pending, entry);
}

static void expire(void *subject, const struct texts *texts, size_t number)
{
	const struct both *both = subject;

	(void)texts;
	(void)number;
	pending_remove(both->pending, pending_first(both->pending));
}

enum { FIRST, ADD, TAKE, SCATTERED, EXPIRE, NOTHING, OPERATIONS };

static const char *const names[OPERATIONS] = {"first", "add", "take", "scattered", "expire", "nothing"};

/*
 * Each operation that removes requests comes after one that adds them. `bytes` becomes what the first ones take, with
 * their requesters.
 */
static void time_operations(size_t count, size_t together, struct timing timings[], double *bytes)
{
	static const uint8_t seed[PENDING_SEEDBYTES] = {1};
	struct requesters *book = requesters_new(seed);
	struct both both = {book, pending_new(seed, book)};
	struct numbers in_order = {0, count, 1}, scattered = {0, count, FAR};
	double before = resident();

	timings[FIRST] = time_numbers(&both, in_order, add, together);
	*bytes = resident() - before;
	timings[TAKE] = time_numbers(&both, in_order, take, together);
	timings[ADD] = time_numbers(&both, scattered, add, together);
	timings[EXPIRE] = time_numbers(&both, in_order, expire, together);
	time_numbers(&both, in_order, add, together);
	timings[SCATTERED] = time_numbers(&both, scattered, take, together);
	timings[NOTHING] = time_numbers(&both, in_order, do_nothing, together);
	pending_free(both.pending);
	requesters_free(book);
}

static void print_titles(void)
{
	int i;

	puts("# The table of what is pending and the book as they grow together: bytes per request with its requester, "
	     "CPU time");
	puts("# per call (ns), its ratio to that with the fewest (_r), and the longest single call (_max, us). first: the "
	     "first");
	puts("# request of a requester; add: any other one, of requesters all over the book; take: answered, in the order "
	     "in "
	     "which");
	puts("# they came; scattered: answered in any order; expire: the next one whose time is over; nothing, for "
	     "comparison.");
	printf("# Means are the least of %d rounds, with %d calls between two looks at the clock; the longest, with one.\n",
	       ROUNDS, BATCH);
	puts("# Goals: ratios at most 3, the longest call at most 1000 us.");
	printf("# %6s %6s", "count", "bytes");
	for (i = 0; i < NOTHING; i++) {
		printf(" %9s", names[i]);
	}
	for (i = 0; i < NOTHING; i++) {
		printf(" %9s_r", names[i]);
	}
	for (i = 0; i < OPERATIONS; i++) {
		printf(" %9s_max", names[i]);
	}
	puts("");
}

static void print_figures(size_t count, const struct figures *figures, const struct figures *first, size_t first_count)
{
	const struct timing *timings = figures->timings;
	double calls = (double)count, first_calls = (double)first_count;
	int i;

	printf("%8zu %6.0f", count, figures->bytes / calls);
	for (i = 0; i < NOTHING; i++) {
		printf(" %9.0f", timings[i].total / calls);
	}
	for (i = 0; i < NOTHING; i++) {
		printf(" %11.2f", timings[i].total / calls / (first->timings[i].total / first_calls));
	}
	for (i = 0; i < OPERATIONS; i++) {
		printf(" %13.0f", timings[i].longest / 1e3);
	}
	puts("");
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
