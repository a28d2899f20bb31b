/*
 * Takes two at random and chooses the one with the lower load; if it is the same, the first.
 */
#include "strategies/strategy.h"

static size_t load_of(const struct request *request, const struct candidate *candidate)
{
	return request->load(request->context, candidate->jid);
}

static struct candidate *pick(struct chooser *chooser, const struct choices *choices, const struct request *request)
{
	size_t count = choices_count(choices), number = splitmix64_below(&chooser->random_state, count);
	struct candidate *candidate = choices_at(choices, number), *other;

	if (count == 1) {
		return candidate;
	}
	number += 1 + splitmix64_below(&chooser->random_state, count - 1);
	other = choices_at(choices, number % count);
	return load_of(request, other) < load_of(request, candidate) ? other : candidate;
}

const struct strategy strategy_least_pending = {
	.name = "least_pending",
	.needs_load = 1,
	.lasting = &strategy_sender,
	.pick = pick,
};
