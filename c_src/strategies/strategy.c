#include "strategies/strategy.h"

const struct strategy *const strategies[] = {
	&strategy_random,
	&strategy_round_robin,
	&strategy_least_pending,
	&strategy_primary,
	&strategy_sender,
	&strategy_recipient,
	NULL,
};

int order_init(struct order *order)
{
	return ring_init(&order->ring);
}

void order_free(struct order *order)
{
	ring_free(&order->ring);
}
