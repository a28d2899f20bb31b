/*
 * Each in turn: a queue in which whoever has had a turn goes to the end, and whoever
 * becomes ready waits for those who wait already. All is O(1).
 */
#include "strategies/strategy.h"

static struct candidate *candidate_of(struct turn *turn)
{
	return (void *)((char *)turn - offsetof(struct candidate, turn));
}

static void insert(struct turn *turn, struct turn *after)
{
	turn->before = after->before;
	turn->after = after;
	turn->before->after = turn;
	turn->after->before = turn;
}

static void take_out(struct turn *turn)
{
	turn->before->after = turn->after;
	turn->after->before = turn->before;
}

static void prepare(struct chooser *chooser, struct order *order)
{
	(void)chooser;
	order->turns.before = order->turns.after = &order->turns;
}

/* Whether nobody has had a turn since this candidate had one, be it in this order or in the other one. */
static int had_last_turn(const struct chooser *chooser, const struct candidate *candidate)
{
	return candidate->last_turn > 0 && candidate->last_turn == chooser->turns;
}

/* At the end; but if the one there had the last turn of all, ahead of that one, which has waited less. */
static void enter(struct chooser *chooser, struct order *order, struct candidate *candidate)
{
	struct turn *end = &order->turns, *hindmost = end->before;
	int is_ahead = hindmost != end && had_last_turn(chooser, candidate_of(hindmost));

	insert(&candidate->turn, is_ahead ? hindmost : end);
}

static void leave(struct order *order, struct candidate *candidate)
{
	(void)order;
	take_out(&candidate->turn);
}

/* Whoever is excepted keeps its place. */
static struct candidate *pick(struct chooser *chooser, const struct choices *choices, const struct request *request)
{
	struct turn *end = &choices->order->turns, *turn = end->after;
	struct candidate *candidate;

	(void)request;
	if (candidate_of(turn) == choices->excepted) {
		turn = turn->after;
	}
	take_out(turn);
	insert(turn, end);
	candidate = candidate_of(turn);
	candidate->last_turn = ++chooser->turns;
	return candidate;
}

const struct strategy strategy_round_robin = {
	.name = "round_robin",
	.lasting = &strategy_sender,
	.prepare = prepare,
	.enter = enter,
	.leave = leave,
	.pick = pick,
};
