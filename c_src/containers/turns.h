/*
 * In turn: a queue in which whoever has had a turn goes to the end. All is O(1)
 * and nothing can fail: a place in it lives inside the caller's structure, which
 * the queue never allocates, copies or frees.
 */
#ifndef TURNS_H
#define TURNS_H

struct turn {
	struct turn *before, *after;
};

/* A circle, in which `end` is nobody's. */
struct turns {
	struct turn end;
};

/* Makes `turns` an empty queue; it must not be moved after that. */
void turns_init(struct turns *turns);

/*
 * Lets `turn` join at the end, but ahead of `last` if that is there: who had the
 * last turn of all, in whichever queue, does not have the next one when somebody
 * else could. NULL: nobody had one.
 */
void turns_join(struct turns *turns, struct turn *turn, const struct turn *last);

/* Takes `turn` out of its queue. */
void turns_leave(struct turn *turn);

/*
 * Whose turn it is, unless that is `except` (NULL: nobody), which then keeps its
 * place; there has to be another one in the queue.
 */
struct turn *turns_take(struct turns *turns, const struct turn *except);

#endif
