/*
 * Memory for many small things of about the same size that come and go: cells,
 * cut from chunks that are asked of the system and given back to it one by one.
 *
 * malloc keeps what was freed and gives it back to the system all at once: freeing
 * the last of a million requests then takes it ten milliseconds. Here, no call does
 * more than ask for one chunk, or give one back.
 */
#ifndef CELLS_H
#define CELLS_H

#include <stddef.h>

enum {
	CELLS_STEP = 8, /* cells come in multiples of this, and are aligned to it */
	CELLS_SIZE_MAX = 512,
	CELLS_SIZES = CELLS_SIZE_MAX / CELLS_STEP,
};

struct cells_chunk;

/* All zero is empty. */
struct cells {
	struct cells_chunk *partial[CELLS_SIZES]; /* for each size, the chunks that have a free cell */
};

/*
 * `size` bytes, at least CELLS_STEP, uninitialised; NULL if there is no memory. What is larger
 * than CELLS_SIZE_MAX comes from malloc.
 */
void *cells_alloc(struct cells *cells, size_t size);

/* Gives back what cells_alloc returned for the same `size`. */
void cells_free(struct cells *cells, void *cell, size_t size);

/* Gives back the chunks that are kept in reserve. Every cell has been freed before. */
void cells_release(struct cells *cells);

#endif
