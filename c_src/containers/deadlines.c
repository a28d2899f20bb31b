#include "containers/deadlines.h"

void deadlines_free(struct deadlines *queue)
{
	slots_free(&queue->heap);
	*queue = (struct deadlines){0};
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

	while ((child = 2 * position + 1) < queue->heap_count) {
		if (child + 1 < queue->heap_count && get(queue, child + 1)->at < get(queue, child)->at) {
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

static int heap_add(struct deadlines *queue, struct deadline *deadline)
{
	if (slots_reserve(&queue->heap, queue->heap_count + 1) != 0) {
		return -1;
	}
	deadline->next = deadline;
	sift_up(queue, queue->heap_count++, deadline);
	return 0;
}

static void heap_remove(struct deadlines *queue, struct deadline *deadline)
{
	struct deadline *last = get(queue, --queue->heap_count);

	if (last != deadline) {
		sift_up(queue, deadline->position, last);
		sift_down(queue, last->position, last);
	}
	slots_trim(&queue->heap, queue->heap_count);
}

static void row_add(struct deadlines *queue, struct deadline *deadline)
{
	deadline->previous = queue->last;
	deadline->next = NULL;
	*(queue->last == NULL ? &queue->first : &queue->last->next) = deadline;
	queue->last = deadline;
}

static void row_remove(struct deadlines *queue, struct deadline *deadline)
{
	*(deadline->previous == NULL ? &queue->first : &deadline->previous->next) = deadline->next;
	*(deadline->next == NULL ? &queue->last : &deadline->next->previous) = deadline->previous;
}

int deadlines_add(struct deadlines *queue, struct deadline *deadline)
{
	if (queue->last == NULL || queue->last->at <= deadline->at) {
		row_add(queue, deadline);
	} else if (heap_add(queue, deadline) != 0) {
		return -1;
	}
	queue->count++;
	return 0;
}

void deadlines_remove(struct deadlines *queue, struct deadline *deadline)
{
	if (deadline->next == deadline) {
		heap_remove(queue, deadline);
	} else {
		row_remove(queue, deadline);
	}
	queue->count--;
}

struct deadline *deadlines_first(const struct deadlines *queue)
{
	struct deadline *top = queue->heap_count > 0 ? get(queue, 0) : NULL;

	if (queue->first == NULL || top == NULL) {
		return top == NULL ? queue->first : top;
	}
	return top->at < queue->first->at ? top : queue->first;
}
