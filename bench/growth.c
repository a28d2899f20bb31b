/*
 * How the pending table grows: memory per request, time per call, and the
 * longest single call, at 10^3 to 10^6 pending requests.
 *
 *     make bench
 */
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../c_src/pending.h"

/* CPU time: on a busy machine, the others' turns do not count. */
static double microseconds(void)
{
	struct timespec time;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
	return (double)time.tv_sec * 1e6 + (double)time.tv_nsec / 1e3;
}

/* Bytes of memory that the process has in use. */
static double resident(void)
{
	long pages = 0;
	FILE *file = fopen("/proc/self/statm", "r");

	if (file == NULL || fscanf(file, "%*d %ld", &pages) != 1) {
		abort();
	}
	fclose(file);
	return (double)pages * 4096;
}

struct texts {
	char requester[96], to[160], id[64];
};

/* As long as Jitsi Meet's: the focus' address, a random account, a UUID and a suffix. */
static const char SERVICE[] = "focus.meet.some-domain.example";
static const char BACKEND[] = "focus@auth.meet.some-domain.example/focus123";

static struct pending_text text(const char *bytes)
{
	return (struct pending_text){bytes, strlen(bytes)};
}

static void write_texts(struct texts *texts, size_t number)
{
	snprintf(texts->requester, sizeof texts->requester, "7d1f0c52-9b1e-4d5a-8c0a-%012zx@some-domain.example/k3jH8s9d",
	         number);
	snprintf(texts->to, sizeof texts->to, "%s/s%0120zx", SERVICE, number);
	snprintf(texts->id, sizeof texts->id, "3f2a8c44-77aa-4c11-9d3e-%012zx:sendIQ", number);
}

static int add(struct pending *pending, const struct texts *texts, size_t number)
{
	struct pending_answer answer = {text(BACKEND), text(texts->to), text(texts->id)};
	struct pending_request request = {text(texts->requester), text(SERVICE), answer.id, (double)number, text("")};

	struct pending_entry *entry;

	return pending_add(pending, &answer, &request, &entry);
}

static int take(struct pending *pending, const struct texts *texts, size_t number)
{
	struct pending_answer answer = {text(BACKEND), text(texts->to), text(texts->id)};
	struct pending_entry *entry = pending_find(pending, &answer);

	(void)number;
	if (entry != NULL) {
		pending_remove(pending, entry);
	}
	return entry == NULL;
}

static int expire(struct pending *pending, const struct texts *texts, size_t number)
{
	(void)texts;
	(void)number;
	pending_remove(pending, pending_first(pending));
	return 0;
}

enum { ROUNDS = 5 };

struct timing {
	double mean, longest; /* microseconds */
};

typedef int operation(struct pending *, const struct texts *, size_t);

static struct timing measure_once(struct pending *pending, size_t count, operation *call)
{
	struct timing timing = {0, 0};
	struct texts texts;
	size_t number;

	for (number = 0; number < count; number++) {
		double elapsed;

		write_texts(&texts, number);
		elapsed = microseconds();
		if (call(pending, &texts, number) != 0) {
			abort();
		}
		elapsed = microseconds() - elapsed;
		timing.mean += elapsed / (double)count;
		timing.longest = elapsed > timing.longest ? elapsed : timing.longest;
	}
	return timing;
}

/* What other programs disturb differs from round to round, what a call costs does not: the least of each counts. */
static void keep_least(struct timing *least, struct timing timing)
{
	least->mean = timing.mean < least->mean ? timing.mean : least->mean;
	least->longest = timing.longest < least->longest ? timing.longest : least->longest;
}

static void measure(size_t count)
{
	static const uint8_t seed[PENDING_SEEDBYTES] = {1};
	struct timing adding = {1e9, 1e9}, taking = adding, expiring = adding;
	double bytes = 1e9;
	int round;

	for (round = 0; round < ROUNDS; round++) {
		struct pending *pending = pending_new(seed);
		double before = resident(), used;

		keep_least(&adding, measure_once(pending, count, add));
		used = (resident() - before) / (double)count;
		bytes = round == 0 ? used : bytes; /* later rounds find memory already there */
		keep_least(&taking, measure_once(pending, count, take));
		measure_once(pending, count, add);
		keep_least(&expiring, measure_once(pending, count, expire));
		pending_free(pending);
	}
	printf("%8zu %11.0f   %7.2f %11.0f   %7.2f %11.0f   %9.2f %11.0f\n", count, bytes, adding.mean, adding.longest,
	       taking.mean, taking.longest, expiring.mean, expiring.longest);
}

int main(void)
{
	size_t count;

	if (sodium_init() < 0) {
		return 1;
	}
	printf("%8s %11s   %7s %11s   %7s %11s   %9s %11s\n", "pending", "bytes each", "add us", "longest us", "take us",
	       "longest us", "expire us", "longest us");
	for (count = 1000; count <= 1000000; count *= 10) {
		measure(count);
	}
	return 0;
}
