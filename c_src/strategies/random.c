/*
 * Each is as likely as the next.
 */
#include "strategies/strategy.h"

static struct candidate *pick(struct chooser *chooser, const struct choices *choices, const struct request *request)
{
	(void)request;
	return choices_at(choices, splitmix64_below(&chooser->random_state, choices_count(choices)));
}

const struct strategy strategy_random = {.name = "random", .lasting = &strategy_sender, .pick = pick};
