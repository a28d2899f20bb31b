/*
 * What backends and requesters do to a core, each call timed by itself.
 */
#ifndef CALLS_H
#define CALLS_H

#include "times.h"
#include "world.h"

/* What a backend's first presence does, see backends.lua. */
static inline void join(struct world *world, size_t number, size_t deploy, struct times *times)
{
	char jid[JID_SIZE];
	double begun;

	write_backend(jid, number, deploy);
	begun = nanoseconds();
	if (exchange_admit(world->exchange, text(jid)) != 1) {
		abort();
	}
	pool_set_state(world->pool, text(jid), POOL_AWAY);
	pool_set_priority(world->pool, text(jid), 1);
	pool_set_state(world->pool, text(jid), POOL_READY);
	times_add(times, begun);
}

/* All join. */
static inline void join_all(struct world *world, size_t count, struct times *times)
{
	size_t number;

	for (number = 0; number < count; number++) {
		join(world, number, 0, times);
	}
}

/* The requester sends a request, which is timed among those that are taken, or among those that are refused. */
static inline enum exchange_status request(struct world *world, size_t requester, size_t flight, struct times *taken,
                                           struct times *refused)
{
	struct outgoing out;
	enum exchange_status status;
	double begun;

	world_write(world, &out, requester, flight);
	begun = nanoseconds();
	status = send_out(world, &out);
	times_add(status == EXCHANGE_OK ? taken : refused, begun);
	if (status == EXCHANGE_OK) {
		take_off(world, &out);
	}
	return status;
}

/* The answer to the request in flight with that number, if there is one */
static inline void answer(struct world *world, size_t number, struct times *times)
{
	struct flight *flight = &world->flights[number];
	double begun;

	if (flight->is_pending) {
		begun = nanoseconds();
		settle(world, flight);
		times_add(times, begun);
		flight->is_pending = 0;
	}
}

/* To all, in any order */
static inline void answer_all(struct world *world, struct times *times)
{
	size_t i;

	for (i = 0; i < world->flight_count; i++) {
		answer(world, i * FAR % world->flight_count, times);
	}
}

#endif
