/*
 * A queue of deadlines: the earliest is at hand, and any other can be taken out.
 *
 * As long as all are given the same time, each new deadline is the latest. Such
 * deadlines stand in a row, a linked list, where everything is O(1) and looks at
 * neighbours alone. One that is earlier than the last in the row is put in a binary
 * heap, which knows where each element is: O(log n), most of it waiting for memory
 * if n is large.
 *
 * A deadline lives inside the caller's structure, which the queue never
 * allocates, copies or frees.
 */
#ifndef DEADLINES_H
#define DEADLINES_H

#include <stddef.h>

#include "containers/slots.h"

struct deadline {
	double at;             /* seconds on the caller's clock; never NaN */
	struct deadline *next; /* in the row; itself if it is in the heap */
	union {
		struct deadline *previous; /* in the row */
		size_t position;           /* in the heap */
	};
};

/* All zero is an empty queue. */
struct deadlines {
	size_t count;
	struct deadline *first; /* in the row */
	struct deadline *last;
	struct slots heap;
	size_t heap_count;
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
