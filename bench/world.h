/*
 * A proxy's core with many backends and requesters, driven as the Lua files drive it: each request goes through the
 * exchange, and is in flight until its answer comes or its backend goes.
 */
#ifndef WORLD_H
#define WORLD_H

#include <sodium.h>

#include "containers/splitmix.h"
#include "exchange.h"
#include "measure.h"

enum {
	JID_SIZE = 96,
	ADDRESS_SIZE = 128,
	ID_SIZE = 48,
	KEPT_BYTES = 400, /* a get that may be sent again */
	WORLD_KEY = 2,    /* the first byte of the key of choices, of which all others are 0 */
	FAR = 7919,       /* a prime: what is taken in steps of it does not lie side by side in memory */
};

static const double NEVER = 1e12;

/* A request in flight: what its answer is going to say. */
struct flight {
	int is_pending;
	char backend[JID_SIZE], address[ADDRESS_SIZE], id[ID_SIZE];
};

struct world {
	struct jat *jat;
	struct requesters *book;
	struct pool *pool;
	struct pending *pending;
	struct exchange *exchange;
	struct flight *flights;
	size_t flight_count;
	size_t request_count; /* so many have been sent */
	size_t room_count;    /* service addresses in use */
	uint64_t random_state;
};

static inline void *must(void *made)
{
	if (made == NULL) {
		abort();
	}
	return made;
}

/* None is pending, and all are in memory before any is measured; of what is all zero, the system has no memory yet. */
static inline void occupy_flights(struct world *world)
{
	size_t i;

	memset(world->flights, 1, world->flight_count * sizeof *world->flights);
	for (i = 0; i < world->flight_count; i++) {
		world->flights[i].is_pending = 0;
	}
}

/* A core with one key, `strategy`, and room for so many requests in flight */
static inline void world_open(struct world *world, const struct strategy *strategy, size_t flight_count)
{
	static const uint8_t seed[POOL_SEEDBYTES] = {1}, choice_key[POOL_KEYBYTES] = {WORLD_KEY},
						 master[JAT_KEYBYTES] = {3};

	*world = (struct world){.flight_count = flight_count, .room_count = 1000};
	world->flights = must(malloc(flight_count * sizeof *world->flights));
	occupy_flights(world);
	world->jat = must(jat_new(text("service.some-domain.example"), JAT_SHORT));
	jat_add_key(world->jat, 1, master);
	world->book = must(requesters_new(seed));
	world->pool = must(pool_new(seed));
	pool_set_strategy(world->pool, strategy, choice_key);
	world->pending = must(pending_new(seed, world->book));
	world->exchange = must(exchange_new(world->jat, world->book, world->pool, world->pending));
}

static inline void world_close(struct world *world)
{
	exchange_free(world->exchange);
	pending_free(world->pending);
	pool_free(world->pool);
	requesters_free(world->book);
	jat_free(world->jat);
	free(world->flights);
}

static inline size_t random_below(struct world *world, size_t count)
{
	return splitmix64_below(&world->random_state, count);
}

/* The backend with that number, as it is after so many deploys */
static inline void write_backend(char jid[JID_SIZE], size_t number, size_t deploy)
{
	snprintf(jid, JID_SIZE, "some-user@some-domain.example/worker-%03zu-%08zx", deploy, number);
}

/* Its number */
static inline size_t number_of(struct text backend)
{
	char digits[9] = {0};

	memcpy(digits, backend.bytes + backend.length - 8, 8);
	return strtoul(digits, NULL, 16);
}

/* As clients choose them: short and long ones */
static inline void write_requester(char jid[JID_SIZE], size_t number)
{
	static const char *const formats[] = {
		"7d1f0c52-9b1e-4d5a-8c0a-%012zx@guest.meet.some-domain.example/k3jH8s9d",
		"user%zu@some-domain.example/Conversations.xK3d",
		"firstname.lastname-%zu@company.example/gajim.Q7PTK2XM",
		"%zu@xmpp.example/phone",
	};

	snprintf(jid, JID_SIZE, formats[number % 4], number);
}

/*
 * Who sends the next request: each power of two up to 2^bits is as likely, so that most requests are of few requesters,
 * and many send but one (Zipf's law with an exponent of 1, in steps).
 */
static inline size_t skewed_number(struct world *world, unsigned bits)
{
	size_t power = (size_t)1 << random_below(world, bits);

	return power + random_below(world, power);
}

/* A request, and what has become of it */
struct outgoing {
	char requester[JID_SIZE], service[ADDRESS_SIZE], id[ID_SIZE];
	struct exchange_request request;
	struct exchange_sent sent;
};

/* Writes a request that this requester sends now, and that is to become that flight. */
static inline void world_write(struct world *world, struct outgoing *out, size_t requester, size_t flight)
{
	size_t count = ++world->request_count;

	write_requester(out->requester, requester);
	snprintf(out->service, sizeof out->service, "room-%03zu@service.some-domain.example",
	         requester % world->room_count);
	snprintf(out->id, sizeof out->id, "3f2a8c44-77aa-4c11-9d3e-%012zx:sendIQ", count);
	out->request = (struct exchange_request){
		.requester = text(out->requester),
		.service = text(out->service),
		.id = text(out->id),
		.time = (double)count,
		.deadline = (double)count + NEVER,
		.retries = 1,
		.kept_bytes = KEPT_BYTES,
		.kept = (int32_t)flight,
	};
}

/* What the exchange does to a request */
static inline enum exchange_status send_out(struct world *world, struct outgoing *out)
{
	enum exchange_status status = exchange_prepare(world->exchange, &out->request, &out->sent);

	return status == EXCHANGE_OK ? exchange_record(world->exchange, &out->request, &out->sent) : status;
}

/* It is in flight from now on. */
static inline void take_off(struct world *world, const struct outgoing *out)
{
	struct flight *flight = &world->flights[out->request.kept];

	flight->is_pending = 1;
	snprintf(flight->backend, sizeof flight->backend, "%.*s", (int)out->sent.backend.length, out->sent.backend.bytes);
	snprintf(flight->address, sizeof flight->address, "%.*s", (int)out->sent.address_len, out->sent.address);
	memcpy(flight->id, out->id, sizeof flight->id);
}

/* Its answer comes. */
static inline void settle(struct world *world, struct flight *flight)
{
	struct pending_answer answer = {text(flight->backend), text(flight->address), text(flight->id)};

	exchange_settle(world->exchange, must(exchange_find(world->exchange, &answer)), 1);
}

#endif
