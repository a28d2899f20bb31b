#include "containers/turns.h"

void turns_init(struct turns *turns)
{
	turns->end.before = &turns->end;
	turns->end.after = &turns->end;
}

static void insert(struct turn *turn, struct turn *after)
{
	turn->before = after->before;
	turn->after = after;
	turn->before->after = turn;
	turn->after->before = turn;
}

void turns_join(struct turns *turns, struct turn *turn, const struct turn *last)
{
	struct turn *hindmost = turns->end.before;

	insert(turn, hindmost == last ? hindmost : &turns->end);
}

void turns_leave(struct turn *turn)
{
	turn->before->after = turn->after;
	turn->after->before = turn->before;
}

struct turn *turns_take(struct turns *turns, const struct turn *except)
{
	struct turn *turn = turns->end.after;

	if (turn == except) {
		turn = turn->after;
	}
	turns_leave(turn);
	insert(turn, &turns->end);
	return turn;
}
