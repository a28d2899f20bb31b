/*
 * What the benchmarks of the C core have in common.
 */
#ifndef MEASURE_H
#define MEASURE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "text.h"

/* CPU time of this thread, so that what else a busy machine does is not counted. */
static inline double nanoseconds(void)
{
	struct timespec time;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
	return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

/* Other programs can only add to what a call costs, more in one round than in another: so the least counts. */
static inline double least(double a, double b)
{
	return a < b ? a : b;
}

static inline struct text text(const char *bytes)
{
	return (struct text){bytes, strlen(bytes)};
}

/* Bytes of memory that the process has in use. */
static inline double resident(void)
{
	long pages = 0;
	FILE *file = fopen("/proc/self/statm", "r");

	if (file == NULL || fscanf(file, "%*d %ld", &pages) != 1) {
		abort();
	}
	fclose(file);
	return (double)pages * 4096;
}

#endif
