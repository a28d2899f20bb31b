/*
 * The core with very many requesters: how long the calls for a request and its answer take, how long the longest of
 * them, and what memory a requester and a pending request take and give back.
 *
 *     make .build/simulate_requesters
 *     .build/simulate_requesters [REQUESTERS [BACKENDS]]
 */
#include "calls.h"

enum {
	REQUESTERS = 10000000,
	BACKENDS = 100000,
	PENDING_EACH = 5, /* requests that are in flight for each backend, at most */
	COLD_CALLS = 300, /* calls before each of which all caches are filled with something else */
	CACHE_BYTES = 1 << 27,
	FEW = 16,            /* requesters who send all there is for a while */
	PER_REQUESTER = 256, /* pending: the default of client_proxy_max_pending_per_requester */
};

/* What the table says of one kind of request */
struct kind {
	const char *name;
	struct times requests, refusals, answers;
};

static void print_kind(const struct kind *kind)
{
	times_print(kind->name, "request", &kind->requests);
	times_print(kind->name, "refused", &kind->refusals);
	times_print(kind->name, "answer", &kind->answers);
}

/* A request of that requester, in the place of any other one of the first so many, which is answered before. */
static void exchange_one(struct world *world, size_t requester, size_t in_flight, struct kind *kind)
{
	size_t flight = random_below(world, in_flight);

	answer(world, flight, &kind->answers);
	request(world, requester, flight, &kind->requests, &kind->refusals);
}

/* Fills all caches with something else. */
static void cool(volatile char *other)
{
	size_t i;

	for (i = 0; i < CACHE_BYTES; i += 64) {
		other[i]++;
	}
}

struct simulation {
	struct world world;
	size_t backends, requesters; /* so many */
	size_t in_flight;            /* usually */
	size_t newcomer;             /* the number of the next one who has never been here */
	unsigned bits;               /* of the numbers of those who may come at all: four times as many as are remembered */
	size_t digests;              /* how many of the requesters did not get a short token */
	struct kind *kind;           /* what is being timed */
};

static void begin(struct simulation *simulation, const char *name)
{
	*simulation->kind = (struct kind){.name = name};
}

/* All come for the first time. */
static void let_all_come(struct simulation *simulation)
{
	struct world *world = &simulation->world;
	uint8_t token[REQUESTERS_TOKEN_MAX];
	char jid[JID_SIZE];

	begin(simulation, "first");
	for (simulation->newcomer = 0; simulation->newcomer < simulation->requesters; simulation->newcomer++) {
		exchange_one(world, simulation->newcomer, simulation->in_flight, simulation->kind);
		write_requester(jid, simulation->newcomer);
		simulation->digests += requester_token(must(requesters_find(world->book, text(jid))), token) == JAT_DIGESTBYTES;
	}
	print_kind(simulation->kind);
}

static void let_known_ones_ask(struct simulation *simulation, size_t count)
{
	begin(simulation, "any known");
	while (count-- > 0) {
		exchange_one(&simulation->world, random_below(&simulation->world, simulation->requesters),
		             simulation->in_flight, simulation->kind);
	}
	print_kind(simulation->kind);
}

static void let_few_ask(struct simulation *simulation, size_t count)
{
	begin(simulation, "few, warm");
	while (count-- > 0) {
		exchange_one(&simulation->world, count % FEW, FEW, simulation->kind);
	}
	print_kind(simulation->kind);
}

static void let_cold_ones_ask(struct simulation *simulation)
{
	char *other = must(malloc(CACHE_BYTES));
	struct world *world = &simulation->world;
	int i;

	memset(other, 0, CACHE_BYTES);
	begin(simulation, "cold");
	for (i = 0; i < COLD_CALLS; i++) {
		size_t flight = random_below(world, simulation->in_flight);

		cool(other);
		answer(world, flight, &simulation->kind->answers);
		cool(other);
		request(world, random_below(world, simulation->requesters), flight, &simulation->kind->requests,
		        &simulation->kind->refusals);
	}
	print_kind(simulation->kind);
	free(other);
}

/* Most requests are of few requesters, and some of new ones. */
static void let_skewed_ones_ask(struct simulation *simulation, const char *name, size_t count)
{
	begin(simulation, name);
	while (count-- > 0) {
		exchange_one(&simulation->world, skewed_number(&simulation->world, simulation->bits), simulation->in_flight,
		             simulation->kind);
	}
	print_kind(simulation->kind);
}

/* Each is new, and another one is forgotten for it. */
static void let_newcomers_ask(struct simulation *simulation, size_t count)
{
	begin(simulation, "newcomers");
	while (count-- > 0) {
		exchange_one(&simulation->world, simulation->newcomer++, simulation->in_flight, simulation->kind);
	}
	print_kind(simulation->kind);
}

/* Until as many requests are pending as there are flights; no bare JID may have more than PER_REQUESTER. */
static void let_all_wait(struct simulation *simulation)
{
	struct world *world = &simulation->world;
	size_t i;

	begin(simulation, "pile up");
	pending_set_limits(world->pending, world->flight_count, PER_REQUESTER);
	for (i = 0; i < world->flight_count; i++) {
		while (!world->flights[i].is_pending) {
			request(world, skewed_number(world, simulation->bits), i, &simulation->kind->requests,
			        &simulation->kind->refusals);
		}
	}
}

/* Half are answered, in any order, and for the others it is too late. */
static void end_all(struct simulation *simulation)
{
	struct world *world = &simulation->world;
	struct times expired = {0};
	struct pending_entry *entry;
	size_t i;

	for (i = 0; i < world->flight_count; i += 2) {
		answer(world, i * FAR % world->flight_count, &simulation->kind->answers);
	}
	while (pending_count(world->pending) > 0) {
		double begun = nanoseconds();

		entry = pending_first(world->pending);
		pending_remove(world->pending, entry);
		times_add(&expired, begun);
	}
	for (i = 0; i < world->flight_count; i++) {
		world->flights[i].is_pending = 0;
	}
	print_kind(simulation->kind);
	times_print(simulation->kind->name, "expire", &expired);
}

/* The limits are too low for those who are here: a new one has others forgotten, as many as one call does, and at last
 * none is idle. */
static void lower_limit(struct simulation *simulation, size_t max, size_t refusals)
{
	struct world *world = &simulation->world;
	struct outgoing out;

	begin(simulation, "lower limit");
	requesters_set_max(world->book, max);
	pending_set_limits(world->pending, SIZE_MAX, PER_REQUESTER);
	while (simulation->kind->refusals.count < refusals) {
		enum exchange_status status;
		double begun;

		world_write(world, &out, simulation->newcomer++, 0);
		begun = nanoseconds();
		status = send_out(world, &out);
		times_add(status == EXCHANGE_OK ? &simulation->kind->requests : &simulation->kind->refusals, begun);
	}
}

static void print_memory(const char *what, size_t count, double bytes)
{
	printf("# memory: %-42s %8zu, %7.1f MiB, %6.1f bytes each\n", what, count, bytes / 1048576, bytes / (double)count);
	fflush(stdout);
}

static void open_simulation(struct simulation *simulation, size_t backends, size_t requesters)
{
	*simulation = (struct simulation){.backends = backends, .requesters = requesters, .in_flight = backends};
	simulation->kind = must(malloc(sizeof *simulation->kind));
	while ((size_t)1 << simulation->bits < 4 * requesters) {
		simulation->bits++;
	}
	world_open(&simulation->world, &strategy_random, backends * PENDING_EACH);
	requesters_set_max(simulation->world.book, requesters);
}

static void close_simulation(struct simulation *simulation)
{
	free(simulation->kind);
	world_close(&simulation->world);
}

/* What is in memory at some moments */
struct memory {
	double empty, with_backends, with_requesters, with_others, with_pending, after_pending;
	double counted; /* what counts for the limits of all that is pending */
};

static void print_memories(const struct simulation *simulation, const struct memory *memory)
{
	size_t pending = simulation->world.flight_count, requesters = simulation->requesters;

	print_memory("backends", simulation->backends, memory->with_backends - memory->empty);
	print_memory("requesters", requesters, memory->with_requesters - memory->with_backends);
	print_memory("as many, each for one that is forgotten", requesters, memory->with_others - memory->with_backends);
	print_memory("pending requests besides", pending, memory->with_pending - memory->with_others);
	print_memory("these, as the limits count them", pending, memory->counted);
	print_memory("left of these, when all have ended", pending, memory->after_pending - memory->with_others);
}

/* Requesters ask as they do on a busy day, and are forgotten for others. */
static void let_many_ask(struct simulation *simulation)
{
	size_t requesters = simulation->requesters;

	let_known_ones_ask(simulation, requesters / 10);
	let_cold_ones_ask(simulation);
	let_few_ask(simulation, requesters / 10);
	answer_all(&simulation->world, &simulation->kind->answers);
	let_skewed_ones_ask(simulation, "skewed", requesters / 5);
	let_newcomers_ask(simulation, requesters);
	answer_all(&simulation->world, &simulation->kind->answers);
}

static void simulate(size_t backends, size_t requesters)
{
	struct simulation simulation;
	struct world *world = &simulation.world;
	struct memory memory;
	double begun;

	open_simulation(&simulation, backends, requesters);
	begin(&simulation, "backends");
	memory.empty = resident();
	join_all(world, backends, &simulation.kind->requests);
	memory.with_backends = resident();
	let_all_come(&simulation);
	answer_all(world, &simulation.kind->answers);
	memory.with_requesters = resident();
	let_many_ask(&simulation);
	memory.with_others = resident();
	let_all_wait(&simulation);
	memory.with_pending = resident();
	memory.counted = (double)pending_bytes(world->pending);
	end_all(&simulation);
	memory.after_pending = resident();
	requesters_new_generation(world->book);
	let_skewed_ones_ask(&simulation, "new key", requesters / 10);
	print_memories(&simulation, &memory);
	printf("# short tokens: of %zu requesters, %zu got a digest instead\n", requesters, simulation.digests);
	begun = nanoseconds();
	close_simulation(&simulation);
	printf("# all is freed in %.0f ms\n", (nanoseconds() - begun) / 1e6);
}

/* The operator makes room for a hundredth of those who are remembered, of whom many have something pending. */
static void simulate_lower_limit(size_t backends, size_t requesters)
{
	struct simulation simulation;
	double before, full;

	open_simulation(&simulation, backends, requesters);
	begin(&simulation, "backends");
	join_all(&simulation.world, backends, &simulation.kind->requests);
	before = resident();
	let_all_come(&simulation);
	let_all_wait(&simulation);
	full = resident();
	lower_limit(&simulation, requesters / 100, requesters / 10);
	end_all(&simulation);
	print_memory("requesters, and what all have pending", requesters, full - before);
	print_memory("those that a lower limit has left", requesters_count(simulation.world.book), resident() - before);
	close_simulation(&simulation);
}

static size_t argument(char **argv, int argc, int number, size_t otherwise)
{
	return argc > number ? strtoul(argv[number], NULL, 10) : otherwise;
}

int main(int argc, char **argv)
{
	size_t requesters = argument(argv, argc, 1, REQUESTERS), backends = argument(argv, argc, 2, BACKENDS);

	if (sodium_init() < 0 || backends < 100 || requesters < backends) {
		return 1;
	}
	times_print_titles();
	times_print_clock();
	simulate(backends, requesters);
	simulate_lower_limit(backends, requesters / 10);
	return 0;
}
