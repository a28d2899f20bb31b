/*
 * A growable array of pointers that never moves its elements: it grows and
 * shrinks by segments of a fixed size, so that no call takes longer because
 * there are many elements (the directory of segments, one pointer for every
 * SLOTS_PER_SEGMENT elements, is all that is ever copied).
 */
#ifndef SLOTS_H
#define SLOTS_H

#include <stddef.h>

enum { SLOTS_PER_SEGMENT = 512 };

/* All zero is an empty array. */
struct slots {
	void ***segments;
	size_t segment_count;
	size_t segment_capacity;
};

/*
 * Makes the elements 0 .. count-1 usable; those that are new are NULL. 0, or -1
 * if there is no memory: then all is as before.
 */
int slots_reserve(struct slots *slots, size_t count);

/* Gives up the segments that hold no element below `count`. */
void slots_trim(struct slots *slots, size_t count);

/* Frees all; `slots` is an empty array again. The elements are the caller's. */
void slots_free(struct slots *slots);

/* The place of element `i`, valid until a slots_trim to `i` or below. */
static inline void **slots_at(const struct slots *slots, size_t i)
{
	return &slots->segments[i / SLOTS_PER_SEGMENT][i % SLOTS_PER_SEGMENT];
}

#endif
