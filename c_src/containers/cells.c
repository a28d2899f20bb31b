#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */

#include "containers/cells.h"

#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#endif

/* A chunk is aligned to its size, so that a cell's address tells its chunk's. */
enum { CHUNK_BYTES = 64 * 1024 };

struct free_cell {
	struct free_cell *next;
};

struct cells_chunk {
	struct cells_chunk *previous; /* among those of its size that have a free cell */
	struct cells_chunk *next;
	struct free_cell *free; /* cells that have been given back */
	size_t untouched;       /* where the cells begin that have never been used */
	size_t used;            /* how many cells are in use */
};

static size_t cell_size(size_t size)
{
	return (size + CELLS_STEP - 1) / CELLS_STEP * CELLS_STEP;
}

static struct cells_chunk **partial_of(struct cells *cells, size_t size)
{
	return &cells->partial[cell_size(size) / CELLS_STEP - 1];
}

static struct cells_chunk *chunk_of(void *cell)
{
	return (struct cells_chunk *)((char *)cell - (uintptr_t)cell % CHUNK_BYTES);
}

static int is_full(const struct cells_chunk *chunk, size_t size)
{
	return chunk->free == NULL && chunk->untouched + cell_size(size) > CHUNK_BYTES;
}

static void link_chunk(struct cells_chunk **partial, struct cells_chunk *chunk)
{
	chunk->previous = NULL;
	chunk->next = *partial;
	if (chunk->next != NULL) {
		chunk->next->previous = chunk;
	}
	*partial = chunk;
}

static void unlink_chunk(struct cells_chunk **partial, struct cells_chunk *chunk)
{
	if (chunk->previous != NULL) {
		chunk->previous->next = chunk->next;
	} else {
		*partial = chunk->next;
	}
	if (chunk->next != NULL) {
		chunk->next->previous = chunk->previous;
	}
}

/* The system aligns to pages only: twice the size is asked for, and what is before and behind the chunk given back. */
static struct cells_chunk *new_chunk(void)
{
	char *mapped = mmap(NULL, (size_t)2 * CHUNK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	size_t before;
	struct cells_chunk *chunk;

	if (mapped == MAP_FAILED) {
		return NULL;
	}
	before = (CHUNK_BYTES - (uintptr_t)mapped % CHUNK_BYTES) % CHUNK_BYTES;
	if (before > 0) {
		munmap(mapped, before);
	}
	munmap(mapped + before + CHUNK_BYTES, CHUNK_BYTES - before);
	chunk = (struct cells_chunk *)(mapped + before);
	chunk->untouched = cell_size(sizeof *chunk);
	ASAN_POISON_MEMORY_REGION((char *)chunk + chunk->untouched, CHUNK_BYTES - chunk->untouched);
	return chunk;
}

static void free_chunk(struct cells_chunk *chunk)
{
	ASAN_UNPOISON_MEMORY_REGION(chunk, CHUNK_BYTES);
	munmap(chunk, CHUNK_BYTES);
}

static void *take_cell(struct cells_chunk *chunk, size_t size)
{
	struct free_cell *cell = chunk->free;

	chunk->used++;
	if (cell == NULL) {
		cell = (struct free_cell *)((char *)chunk + chunk->untouched);
		chunk->untouched += cell_size(size);
		ASAN_UNPOISON_MEMORY_REGION(cell, size);
	} else {
		ASAN_UNPOISON_MEMORY_REGION(cell, size);
		chunk->free = cell->next;
	}
	return cell;
}

void *cells_alloc(struct cells *cells, size_t size)
{
	struct cells_chunk **partial;
	void *cell;

	if (size > CELLS_SIZE_MAX) {
		return malloc(size);
	}
	partial = partial_of(cells, size);
	if (*partial == NULL) {
		struct cells_chunk *chunk = new_chunk();

		if (chunk == NULL) {
			return NULL;
		}
		link_chunk(partial, chunk);
	}
	cell = take_cell(*partial, size);
	if (is_full(*partial, size)) {
		unlink_chunk(partial, *partial);
	}
	return cell;
}

void cells_free(struct cells *cells, void *cell, size_t size)
{
	struct cells_chunk **partial;
	struct cells_chunk *chunk;
	struct free_cell *freed = cell;

	if (size > CELLS_SIZE_MAX) {
		free(cell);
		return;
	}
	partial = partial_of(cells, size);
	chunk = chunk_of(cell);
	if (is_full(chunk, size)) {
		link_chunk(partial, chunk);
	}
	freed->next = chunk->free;
	chunk->free = freed;
	ASAN_POISON_MEMORY_REGION(freed, cell_size(size));
	chunk->used--;
	/* The last chunk of a size stays, else requests that come one by one would map and unmap it each time. */
	if (chunk->used == 0 && (chunk->previous != NULL || chunk->next != NULL)) {
		unlink_chunk(partial, chunk);
		free_chunk(chunk);
	}
}

void cells_release(struct cells *cells)
{
	size_t i;

	for (i = 0; i < CELLS_SIZES; i++) {
		if (cells->partial[i] != NULL) {
			free_chunk(cells->partial[i]);
			cells->partial[i] = NULL;
		}
	}
}
