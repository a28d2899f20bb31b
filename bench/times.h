/*
 * How long calls take, each timed by itself: of many, the median, the 99th of a hundred, and the longest.
 *
 * They are counted by their length, and one length is told from another by a sixteenth: so a thousand million calls
 * take as much memory as one.
 */
#ifndef TIMES_H
#define TIMES_H

#include <stdint.h>

#include "measure.h"

enum { TIMES_STEPS = 16, TIMES_STEP_BITS = 4, TIMES_BINS = 64 * TIMES_STEPS };

/* All zero is none yet. */
struct times {
	size_t bins[TIMES_BINS];
	size_t count;
	size_t stalls; /* how many of them took longer than STALL */
	double sum;    /* nanoseconds */
	double longest;
};

static const double STALL = 1e6; /* nanoseconds: a call that takes longer is to be looked into */

/* Bins are one apart up to TIMES_STEPS, then TIMES_STEPS for each power of two. */
static inline size_t times_bin(uint64_t length)
{
	int power = 63 - __builtin_clzll(length | 1);
	int shift = power - TIMES_STEP_BITS;

	return shift <= 0 ? (size_t)length : (size_t)shift * TIMES_STEPS + (size_t)(length >> shift);
}

/* The greatest length in that bin */
static inline double times_length(size_t bin)
{
	size_t shift = bin < 2 * TIMES_STEPS ? 0 : bin / TIMES_STEPS - 1;

	return (double)(((bin - shift * TIMES_STEPS + 1) << shift) - 1);
}

/* A call has begun when nanoseconds() said that. */
static inline void times_add(struct times *times, double begun)
{
	double length = nanoseconds() - begun;

	times->bins[times_bin((uint64_t)length)]++;
	times->count++;
	times->stalls += length > STALL;
	times->sum += length;
	times->longest = length > times->longest ? length : times->longest;
}

/* The length that so many of a hundred calls do not exceed */
static inline double times_percentile(const struct times *times, double percent)
{
	size_t bin = 0, seen = times->bins[0];

	while ((double)seen < (double)times->count * percent / 100) {
		seen += times->bins[++bin];
	}
	return times_length(bin);
}

static inline void times_print_titles(void)
{
	printf("# CPU time of each call in ns, that of the longest in us; how many took more than a millisecond\n");
	printf("# %-13s %-14s %10s %9s %9s %9s %11s %7s\n", "with", "call", "calls", "mean", "median", "p99", "longest_us",
	       "over_ms");
}

/* Prints nothing of what has not been called. */
static inline void times_print(const char *group, const char *call, const struct times *times)
{
	if (times->count > 0) {
		printf("  %-13s %-14s %10zu %9.0f %9.0f %9.0f %11.0f %7zu\n", group, call, times->count,
		       times->sum / (double)times->count, times_percentile(times, 50), times_percentile(times, 99),
		       times->longest / 1e3, times->stalls);
		fflush(stdout);
	}
}

/* What all lengths have in them: to look at the clock takes some time itself. */
static inline void times_print_clock(void)
{
	struct times times = {0};
	int i;

	for (i = 0; i < 1000000; i++) {
		times_add(&times, nanoseconds());
	}
	times_print("-", "nothing", &times);
}

#endif
