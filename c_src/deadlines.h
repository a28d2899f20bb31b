/*
 * A queue of deadlines: a binary heap that knows where each element is, so that
 * the earliest is at hand and any other can be taken out, in O(log n).
 *
 * A deadline lives inside the caller's structure, which the queue never
 * allocates, copies or frees.
 */
#ifndef DEADLINES_H
#define DEADLINES_H

#include <stddef.h>

#include "slots.h"

struct deadline {
	double at; /* seconds on the caller's clock; never NaN */
	size_t position;
};

/* All zero is an empty queue. */
struct deadlines {
	struct slots heap;
	size_t count;
};

/* Frees the queue's memory; the deadlines are the caller's. */
void deadlines_free(struct deadlines *queue);

/* Adds `deadline`, whose `at` is set. 0, or -1 if there is no memory. */
int deadlines_add(struct deadlines *queue, struct deadline *deadline);

/* Takes `deadline`, which is in the queue, out of it. */
void deadlines_remove(struct deadlines *queue, struct deadline *deadline);

/* The earliest deadline, or NULL if there is none. */
struct deadline *deadlines_first(const struct deadlines *queue);

#endif
