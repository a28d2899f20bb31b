/*
 * By the requester's bare JID, or by the name before the "@" of the service address: consistently,
 * so that all requests with the same one go to one and the same candidate as long as there are the
 * same candidates, and with one less or one more, only what falls to that one moves. See
 * ring.h; the two strategies differ in nothing but in what they look at.
 *
 * The host of a service address is always the proxy's, and so tells no two of them apart. It is left
 * out, as several proxies with the same key and the same candidates are to make the same choice.
 */
#include "jid.h"
#include "strategies/strategy.h"

static void enter(struct chooser *chooser, struct order *order, struct candidate *candidate)
{
	ring_add(&order->ring, &candidate->points, chooser->key, candidate->jid);
}

static void leave(struct order *order, struct candidate *candidate)
{
	ring_remove(&order->ring, &candidate->points);
}

static struct candidate *pick_by(const struct chooser *chooser, const struct choices *choices, struct text text)
{
	const struct ring_member *excepted = choices->excepted != NULL ? &choices->excepted->points : NULL;
	struct ring_member *points = ring_find(&choices->order->ring, chooser->key, text, excepted);

	return (void *)((char *)points - offsetof(struct candidate, points));
}

static struct candidate *pick_by_sender(struct chooser *chooser, const struct choices *choices,
                                        const struct request *request)
{
	return pick_by(chooser, choices, jid_bare(request->requester));
}

static struct candidate *pick_by_recipient(struct chooser *chooser, const struct choices *choices,
                                           const struct request *request)
{
	return pick_by(chooser, choices, jid_node(request->service));
}

const struct strategy strategy_sender = {
	.name = "sender",
	.enter = enter,
	.leave = leave,
	.pick = pick_by_sender,
};

const struct strategy strategy_recipient = {
	.name = "recipient",
	.enter = enter,
	.leave = leave,
	.pick = pick_by_recipient,
};
