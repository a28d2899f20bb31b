#include "deadlines.h"

void deadlines_free(struct deadlines *queue)
{
	slots_free(&queue->heap);
	queue->count = 0;
}

static struct deadline *get(const struct deadlines *queue, size_t position)
{
	return *slots_at(&queue->heap, position);
}

static void put(struct deadlines *queue, size_t position, struct deadline *deadline)
{
	*slots_at(&queue->heap, position) = deadline;
	deadline->position = position;
}

/* Moves `deadline` from the hole at `position` towards the root. */
static void sift_up(struct deadlines *queue, size_t position, struct deadline *deadline)
{
	while (position > 0) {
		size_t parent = (position - 1) / 2;

		if (get(queue, parent)->at <= deadline->at) {
			break;
		}
		put(queue, position, get(queue, parent));
		position = parent;
	}
	put(queue, position, deadline);
}

/* Moves `deadline` from the hole at `position` towards the leaves. */
static void sift_down(struct deadlines *queue, size_t position, struct deadline *deadline)
{
	size_t child;

	while ((child = 2 * position + 1) < queue->count) {
		if (child + 1 < queue->count && get(queue, child + 1)->at < get(queue, child)->at) {
			child++;
		}
		if (deadline->at <= get(queue, child)->at) {
			break;
		}
		put(queue, position, get(queue, child));
		position = child;
	}
	put(queue, position, deadline);
}

int deadlines_add(struct deadlines *queue, struct deadline *deadline)
{
	if (slots_reserve(&queue->heap, queue->count + 1) != 0) {
		return -1;
	}
	sift_up(queue, queue->count++, deadline);
	return 0;
}

void deadlines_remove(struct deadlines *queue, struct deadline *deadline)
{
	struct deadline *last = get(queue, --queue->count);

	if (last != deadline) {
		sift_up(queue, deadline->position, last);
		sift_down(queue, last->position, last);
	}
	/* One segment to spare stays, so that one request after the other does not free and allocate it. */
	slots_trim(&queue->heap, queue->count + SLOTS_PER_SEGMENT);
}

struct deadline *deadlines_first(const struct deadlines *queue)
{
	return queue->count > 0 ? get(queue, 0) : NULL;
}
