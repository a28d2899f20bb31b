/*
 * What the benchmarks have in common that ask how something behaves as it grows: typical
 * texts, and the time and the memory that many calls take.
 */
#ifndef GROWING_H
#define GROWING_H

#include <stdio.h>
#include <stdlib.h>

#include "containers/splitmix.h"
#include "measure.h"

enum {
	ROUNDS = 5,
	BATCH = 100, /* calls between two looks at the clock, which takes as long as a call */
};

/* As long as Jitsi Meet's: the focus' address, a random account, a UUID and a suffix. */
#define SERVICE "focus.meet.some-domain.example"
#define BACKEND "focus@auth.meet.some-domain.example/focus123"

struct texts {
	char requester[96], to[64], id[64];
	uint8_t token[9]; /* a short one */
};

static inline void write_texts(struct texts *texts, size_t number)
{
	uint64_t state = number, random = splitmix64(&state);

	snprintf(texts->requester, sizeof texts->requester, "7d1f0c52-9b1e-4d5a-8c0a-%012zx@some-domain.example/k3jH8s9d",
	         number);
	snprintf(texts->to, sizeof texts->to, "%s/q%012zx", SERVICE, number);
	memcpy(texts->token, &random, sizeof random);
	texts->token[sizeof random] = 0;
	snprintf(texts->id, sizeof texts->id, "3f2a8c44-77aa-4c11-9d3e-%012zx:sendIQ", number);
}

struct timing {
	double total, longest; /* nanoseconds: all calls; the longest of those that were timed together */
};

/* One call, or a few that belong together, on whatever is measured, with the texts of that number */
typedef void operation(void *subject, const struct texts *texts, size_t number);

/* For comparison: what does nothing is interrupted, too. */
static inline void do_nothing(void *subject, const struct texts *texts, size_t number)
{
	(void)subject;
	(void)texts;
	(void)number;
}

/* So many numbers from the first one on: one after the other, or all over the place if the step is a large prime */
struct numbers {
	size_t first, count, step;
};

/* Calls it once with each number, `together` (at most BATCH) times between two looks at the clock. */
static inline struct timing time_numbers(void *subject, struct numbers numbers, operation *call, size_t together)
{
	static struct texts texts[BATCH];
	struct timing timing = {0, 0};
	size_t done, i;

	for (done = 0; done < numbers.count; done += together) {
		double elapsed;

		for (i = 0; i < together; i++) {
			write_texts(&texts[i], numbers.first + (done + i) * numbers.step % numbers.count);
		}
		elapsed = nanoseconds();
		for (i = 0; i < together; i++) {
			call(subject, &texts[i], done + i);
		}
		elapsed = nanoseconds() - elapsed;
		timing.total += elapsed;
		timing.longest = elapsed > timing.longest ? elapsed : timing.longest;
	}
	return timing;
}

static inline struct timing time_calls(void *subject, size_t count, operation *call, size_t together)
{
	return time_numbers(subject, (struct numbers){0, count, 1}, call, together);
}

/* Keeps of two timings of the same calls the one that was disturbed less. */
static inline struct timing least_timing(struct timing a, struct timing b)
{
	return (struct timing){least(a.total, b.total), least(a.longest, b.longest)};
}

enum { OPERATIONS_MAX = 6 };

struct figures {
	struct timing timings[OPERATIONS_MAX];
	double bytes;
};

/* Times each operation with so many of what is measured, and writes how many bytes these take. */
typedef void time_operations_of(size_t count, size_t together, struct timing timings[], double *bytes);

/* The least of ROUNDS: the means with BATCH calls between two looks at the clock, the longest calls with one */
static inline struct figures measure(time_operations_of *time_operations, int operations, size_t count)
{
	struct figures figures;
	int round, i;

	for (round = 0; round < ROUNDS; round++) {
		struct timing means[OPERATIONS_MAX], singles[OPERATIONS_MAX];
		double bytes, again;

		time_operations(count, BATCH, means, &bytes);
		time_operations(count, 1, singles, &again);
		if (round == 0) {
			figures.bytes = bytes; /* in later rounds, the process has that memory already */
		}
		for (i = 0; i < operations; i++) {
			struct timing timing = {means[i].total, singles[i].longest};

			figures.timings[i] = round == 0 ? timing : least_timing(figures.timings[i], timing);
		}
	}
	return figures;
}

#endif
