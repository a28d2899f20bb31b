/*
 * The one with the highest priority while it lasts; of those with the same, the longest in
 * its state. Entering and leaving are O(log n) (expected). Choosing is O(1), but O(log n) if
 * that one is excepted, and the next one has to be found.
 */
#include "strategies/strategy.h"

static void prepare(struct chooser *chooser, struct order *order)
{
	tree_init(&order->ranks, splitmix64(&chooser->random_state));
}

static void add(struct order *order, struct candidate *candidate)
{
	candidate->rank.key = (struct tree_key){(uint64_t)(INT8_MAX - candidate->priority), candidate->since};
	tree_add(&order->ranks, &candidate->rank);
}

static void enter(struct chooser *chooser, struct order *order, struct candidate *candidate)
{
	(void)chooser;
	add(order, candidate);
}

static void leave(struct order *order, struct candidate *candidate)
{
	tree_remove(&order->ranks, &candidate->rank);
}

static void reprioritise(struct order *order, struct candidate *candidate)
{
	leave(order, candidate);
	add(order, candidate);
}

static struct candidate *pick(struct chooser *chooser, const struct choices *choices, const struct request *request)
{
	const struct tree *ranks = &choices->order->ranks;
	struct tree_node *first = tree_first(ranks);

	(void)chooser;
	(void)request;
	if (choices->excepted != NULL && first == &choices->excepted->rank) {
		first = tree_after(ranks, first);
	}
	return (void *)((char *)first - offsetof(struct candidate, rank));
}

const struct strategy strategy_primary = {
	.name = "primary",
	.prepare = prepare,
	.enter = enter,
	.leave = leave,
	.reprioritise = reprioritise,
	.pick = pick,
};
