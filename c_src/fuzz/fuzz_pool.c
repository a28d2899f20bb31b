/*
 * The pool has to do what an array does: any calls are made in any order, and each result
 * compared with that of a model. Where chance chooses, the choice has to be one of those
 * that are possible; else, it has to be the right one.
 */
#include <sodium.h>
#include <stdio.h>

#include "input.h"
#include "pool.h"
#include "strategies/strategy.h"

enum {
	BACKENDS = 64, /* JIDs that can be backends; a set of them is 64 bits */
	JIDS = 128,    /* JIDs of requesters and services; the first are those of backends */
	KEYS = 2,
	TOKENS = 16,       /* backends' tokens; number 0 is none */
	NOBODY = BACKENDS, /* the number of no backend; as a requester or service, there is none */
	JID_SIZE = 32,
};

struct backend {
	int8_t priority;
	unsigned since; /* when it got its state */
	unsigned turn;  /* who has the lowest is next; of several with the same, any may be */
	unsigned token;
};

struct model {
	uint64_t states[POOL_STATES]; /* for each state, the set of backends that have it */
	struct backend backends[BACKENDS];
	unsigned now;
	unsigned last; /* who had the last turn */
	const struct strategy *strategy;
	unsigned key;
	size_t loads[BACKENDS];
	/* By strategy, key, bare JID or node, and backend: the set of backends to which it was preferred so far. */
	uint64_t preferred[2][KEYS][JIDS][BACKENDS];
};

static char jids[JIDS][JID_SIZE];
static unsigned bare[JIDS]; /* the lowest number of a JID with the same bare JID */
static unsigned node[JIDS]; /* the lowest number of a JID with the same node, or with none, too */

static struct model model;
static struct pool *pool;
static uint64_t asked; /* the set of backends whose load has been asked for */

static struct text bare_text(size_t number)
{
	return (struct text){jids[number], strcspn(jids[number], "/")};
}

static struct text node_text(size_t number)
{
	struct text text = bare_text(number);
	size_t length = strcspn(jids[number], "@");

	return (struct text){text.bytes, length < text.length ? length : 0};
}

static unsigned lowest_with_same(struct text (*part)(size_t), size_t number)
{
	unsigned lowest = 0;

	while (!text_is_equal(part(lowest), part(number))) {
		lowest++;
	}
	return lowest;
}

/* The first are for backends, most of one account; of the others, each account has two, and each node two accounts. */
static void write_jids(void)
{
	static const char *const strange[] = {"", "/", "b", "b/", "c"};
	size_t i;

	for (i = 0; i < JIDS; i++) {
		if (i < sizeof strange / sizeof *strange) {
			strcpy(jids[i], strange[i]);
		} else if (i < BACKENDS) {
			snprintf(jids[i], JID_SIZE, "b/%zu", i);
		} else if (i > NOBODY) {
			snprintf(jids[i], JID_SIZE, i % 2 == 0 ? "u%zu@h%zu" : "u%zu@h%zu/r", i / 4, i / 2 % 2);
		}
		bare[i] = lowest_with_same(bare_text, i);
		node[i] = lowest_with_same(node_text, i);
	}
}

/* The JID as an argument of a call. The caller frees it. */
static struct text text_of(unsigned number)
{
	return text_copy((struct text){jids[number], strlen(jids[number])});
}

/* A backend's token as an argument of a call: it has so many letters, or is a JID. The caller frees it. */
static struct text token_of(unsigned number)
{
	static const char letters[] = "tokentokentoken";

	if (number % 2 == 0) {
		return text_copy((struct text){letters, number});
	}
	return text_of(number);
}

/* The number of a backend, whose JID the pool has returned. */
static unsigned number_of(struct text jid)
{
	unsigned number = 0;

	while (number < BACKENDS && !text_is_equal(jid, (struct text){jids[number], strlen(jids[number])})) {
		number++;
	}
	assert(number < BACKENDS);
	return number;
}

static uint64_t bit(unsigned number)
{
	return UINT64_C(1) << number;
}

static int is_in(uint64_t set, unsigned number)
{
	return (set & bit(number)) != 0;
}

static int count_in(uint64_t set)
{
	return __builtin_popcountll(set);
}

/*
 * The model
 */

/* POOL_STATES if it is no backend */
static enum pool_state state_of(unsigned number)
{
	enum pool_state state = POOL_READY;

	while (state < POOL_STATES && !is_in(model.states[state], number)) {
		state++;
	}
	return state;
}

/* The backend that has the token, or NOBODY */
static unsigned owner_of(unsigned token)
{
	unsigned i = 0;

	while (i < BACKENDS && (token == 0 || state_of(i) == POOL_STATES || model.backends[i].token != token)) {
		i++;
	}
	return i;
}

/* The set of backends that may be chosen when `excepted` may not. */
static uint64_t choices(unsigned excepted)
{
	uint64_t others = excepted < BACKENDS ? ~bit(excepted) : UINT64_MAX;
	uint64_t ready = model.states[POOL_READY] & others;

	return ready != 0 ? ready : model.states[POOL_SUSPENDED] & others;
}

/* The backend of the set whose turn is the last; NOBODY if the set is empty. */
static unsigned hindmost(uint64_t set)
{
	unsigned i, latest = NOBODY;

	for (i = 0; i < BACKENDS; i++) {
		if (is_in(set, i) && (latest == NOBODY || model.backends[i].turn > model.backends[latest].turn)) {
			latest = i;
		}
	}
	return latest;
}

static void leave_state(unsigned number)
{
	enum pool_state state = state_of(number);

	if (state != POOL_STATES) {
		model.states[state] &= ~bit(number);
	}
}

/* It comes to the end of the queue, but ahead of whoever had the last turn of all. */
static void set_state(unsigned number, enum pool_state state)
{
	struct backend *backend = &model.backends[number];
	unsigned end = hindmost(model.states[state]);

	leave_state(number);
	model.states[state] |= bit(number);
	backend->since = backend->turn = ++model.now;
	if (end == model.last && end != NOBODY) {
		backend->turn = model.backends[end].turn;
		model.backends[end].turn = ++model.now;
	}
}

/* The queue is made anew in an order that is not known, but whoever had the last turn of all is at the end. */
static void queue_anew(void)
{
	unsigned i;

	model.now++;
	for (i = 0; i < BACKENDS; i++) {
		model.backends[i].turn = model.now;
	}
	if (model.last != NOBODY) {
		model.backends[model.last].turn = ++model.now;
	}
}

/*
 * The model: whether a choice is one that the strategy may make; `set` is all there is to choose from
 */

static void expect_turn(uint64_t set, unsigned picked)
{
	unsigned i;

	for (i = 0; i < BACKENDS; i++) {
		assert(!is_in(set, i) || model.backends[picked].turn <= model.backends[i].turn);
	}
	assert(picked != model.last || count_in(set) == 1);
	model.backends[picked].turn = ++model.now;
	model.last = picked;
}

static void expect_lower_load(uint64_t set, unsigned picked)
{
	unsigned i;

	assert((asked & ~set) == 0);
	assert(count_in(set) == 1 || (count_in(asked) == 2 && is_in(asked, picked)));
	for (i = 0; i < BACKENDS; i++) {
		assert(!is_in(asked, i) || model.loads[picked] <= model.loads[i]);
	}
}

static int outranks(const struct backend *a, const struct backend *b)
{
	return a->priority != b->priority ? a->priority > b->priority : a->since < b->since;
}

static void expect_primary(uint64_t set, unsigned picked)
{
	unsigned i;

	for (i = 0; i < BACKENDS; i++) {
		assert(!is_in(set, i) || !outranks(&model.backends[i], &model.backends[picked]));
	}
}

/*
 * Of any two backends, always the same one is preferred, whoever else is there. So the
 * same set always leads to the same choice, and if one comes or goes, only what falls
 * to that one moves.
 */
static void expect_preferred(uint64_t preferred[BACKENDS], uint64_t set, unsigned picked)
{
	unsigned i;

	for (i = 0; i < BACKENDS; i++) {
		assert(!is_in(set, i) || !is_in(preferred[i], picked));
	}
	preferred[picked] |= set & ~bit(picked);
}

static void expect_picked(uint64_t set, unsigned picked, unsigned requester, unsigned service)
{
	assert(is_in(set, picked));
	if (model.strategy == &strategy_round_robin) {
		expect_turn(set, picked);
	} else if (model.strategy == &strategy_least_pending) {
		expect_lower_load(set, picked);
	} else if (model.strategy == &strategy_primary) {
		expect_primary(set, picked);
	} else if (model.strategy == &strategy_sender) {
		expect_preferred(model.preferred[0][model.key][bare[requester]], set, picked);
	} else if (model.strategy == &strategy_recipient) {
		expect_preferred(model.preferred[1][model.key][node[service]], set, picked);
	} else {
		assert(model.strategy == &strategy_random); /* which may choose any */
	}
}

/*
 * The pool, compared with the model
 */

static void compare_backend(unsigned number)
{
	struct text jid = text_of(number);

	assert(pool_state(pool, jid) == state_of(number));
	if (state_of(number) != POOL_STATES) {
		struct text token = token_of(model.backends[number].token);

		assert(text_is_equal(pool_token(pool_find(pool, jid)), token));
		free_text(token);
	}
	free_text(jid);
}

static void compare_token(unsigned number)
{
	struct text token = token_of(number);
	const struct pool_backend *backend = pool_resolve(pool, token);

	assert((backend == NULL ? NOBODY : number_of(pool_jid(backend))) == owner_of(number));
	free_text(token);
}

static void compare(void)
{
	uint64_t backends = model.states[POOL_READY] | model.states[POOL_SUSPENDED] | model.states[POOL_AWAY];

	assert(pool_count(pool) == (size_t)count_in(backends));
	assert((pool_serves(pool) != 0) == (choices(NOBODY) != 0));
	assert((pool_is_ready(pool) != 0) == (model.states[POOL_READY] != 0));
	assert(pool_strategy(pool) == model.strategy);
}

/* Without a token, if that is another one's */
static void add(unsigned number, unsigned token_number)
{
	unsigned given = owner_of(token_number) == NOBODY ? token_number : 0;
	struct text jid = text_of(number), token = token_of(given);
	int is_new = state_of(number) == POOL_STATES;

	assert(pool_add(pool, jid, token) == is_new);
	free_text(jid);
	free_text(token);
	if (is_new) {
		model.backends[number].priority = 0;
		model.backends[number].token = given;
		set_state(number, POOL_READY);
	}
}

static void remove_backend(unsigned number)
{
	struct text jid = text_of(number);

	assert(pool_remove(pool, jid) == (state_of(number) != POOL_STATES));
	free_text(jid);
	leave_state(number);
	if (model.last == number) {
		model.last = NOBODY;
	}
}

static void set(unsigned number, enum pool_state state)
{
	struct text jid = text_of(number);
	enum pool_state before = state_of(number);
	int is_changed = before != POOL_STATES && before != state;

	assert(pool_set_state(pool, jid, state) == is_changed);
	free_text(jid);
	if (is_changed) {
		set_state(number, state);
	}
}

static size_t load_of(void *context, struct text jid)
{
	unsigned number = number_of(jid);

	assert(context == &model);
	asked |= bit(number);
	return model.loads[number];
}

/* The number of the backend that the pool picks for `request`; JIDS if there is none. */
static unsigned pick_number(const struct request *request, struct text avoided)
{
	const struct pool_backend *picked = pool_pick(pool, request, avoided);

	return picked == NULL ? JIDS : number_of(pool_jid(picked));
}

/* If another one is to be avoided, the choice can fall on the requester itself: then the pool returns none. */
static void expect_choice(uint64_t set, unsigned picked, unsigned requester, unsigned service)
{
	assert(set != 0 || picked == JIDS);
	assert(picked != requester);
	if (set != 0) {
		unsigned chosen = picked == JIDS ? requester : picked;

		assert(chosen < BACKENDS);
		expect_picked(set, chosen, requester, service);
	}
}

/* The texts are theirs; NOBODY has none. */
static void write_addresses(struct request *request, unsigned requester, struct text from, unsigned service,
                            struct text to)
{
	if (requester != NOBODY) {
		request->requester = from;
	}
	if (service != NOBODY) {
		request->service = to;
	}
}

static void pick(unsigned requester, unsigned service, unsigned avoided)
{
	struct text from = text_of(requester), to = text_of(service), other = text_of(avoided);
	struct request request = {.load = load_of, .context = &model};
	int is_avoided = avoided < BACKENDS && state_of(avoided) != POOL_STATES;
	unsigned picked;

	write_addresses(&request, requester, from, service, to);
	asked = 0;
	picked = pick_number(&request, avoided == NOBODY ? (struct text){NULL, 0} : other);
	expect_choice(choices(is_avoided ? avoided : requester), picked, requester, service);
	free_text(from);
	free_text(to);
	free_text(other);
}

/* For what belongs together, there is no load; where the strategy chooses otherwise time and again, sender does. */
static void expect_lasting(uint64_t set, unsigned picked, unsigned requester, unsigned service)
{
	if (model.strategy->lasting == NULL) {
		expect_picked(set, picked, requester, service);
		return;
	}
	assert(is_in(set, picked));
	expect_preferred(model.preferred[0][model.key][bare[requester]], set, picked);
}

static void pick_lasting(unsigned requester, unsigned service)
{
	struct text from = text_of(requester), to = text_of(service);
	struct request request = {.load = NULL};
	const struct pool_backend *picked;
	uint64_t set = choices(requester);

	write_addresses(&request, requester, from, service, to);
	picked = pool_pick_lasting(pool, &request);
	assert((picked == NULL) == (set == 0));
	if (picked != NULL) {
		expect_lasting(set, number_of(pool_jid(picked)), requester, service);
	}
	free_text(from);
	free_text(to);
}

/*
 * The operations
 */

static void do_add(struct input *input)
{
	unsigned number = read_below(input, BACKENDS);

	add(number, read_below(input, TOKENS));
}

static void do_add_many(struct input *input)
{
	unsigned number = read_below(input, BACKENDS), count = read_below(input, BACKENDS);

	for (; count > 0; count--) {
		add(number % BACKENDS, number % TOKENS);
		number++;
	}
}

static void do_remove(struct input *input)
{
	remove_backend(read_below(input, BACKENDS));
}

static void do_remove_many(struct input *input)
{
	unsigned number = read_below(input, BACKENDS), count = read_below(input, BACKENDS);

	for (; count > 0; count--) {
		remove_backend(number++ % BACKENDS);
	}
}

static void do_set(struct input *input)
{
	unsigned number = read_below(input, BACKENDS);

	set(number, (enum pool_state)read_below(input, POOL_STATES));
}

static void do_set_priority(struct input *input)
{
	unsigned number = read_below(input, BACKENDS);
	struct text jid = text_of(number);
	struct backend *backend = &model.backends[number];
	int8_t priority = (int8_t)((int)read_byte(input) - 128);
	int is_changed = state_of(number) != POOL_STATES && backend->priority != priority;

	assert(pool_set_priority(pool, jid, priority) == is_changed);
	free_text(jid);
	if (is_changed) {
		backend->priority = priority;
	}
}

static unsigned count_strategies(void)
{
	unsigned count = 0;

	while (strategies[count] != NULL) {
		count++;
	}
	return count;
}

static void do_set_strategy(struct input *input)
{
	const struct strategy *strategy = strategies[read_below(input, count_strategies())];
	unsigned number = read_below(input, KEYS);
	const uint8_t key[POOL_KEYBYTES] = {[POOL_KEYBYTES - 1] = (uint8_t)number};

	pool_set_strategy(pool, strategy, key);
	if (strategy != model.strategy || number != model.key) {
		model.strategy = strategy;
		model.key = number;
		queue_anew();
	}
}

static void do_load(struct input *input)
{
	unsigned number = read_below(input, BACKENDS);

	model.loads[number] = read_below(input, 4);
}

static void do_pick(struct input *input)
{
	unsigned requester = read_below(input, JIDS);

	pick(requester, read_below(input, JIDS), NOBODY);
}

/* Picks for one requester and service after the other. */
static void do_pick_many(struct input *input)
{
	unsigned requester = read_below(input, JIDS), service = read_below(input, JIDS);
	unsigned count = read_below(input, BACKENDS + 1);

	for (; count > 0; count--) {
		pick(requester++ % JIDS, service++ % JIDS, NOBODY);
	}
}

static void do_pick_avoiding(struct input *input)
{
	unsigned requester = read_below(input, JIDS), service = read_below(input, JIDS);

	pick(requester, service, read_below(input, JIDS));
}

static void do_pick_lasting(struct input *input)
{
	unsigned requester = read_below(input, JIDS), service = read_below(input, JIDS);
	unsigned count = read_below(input, BACKENDS + 1);

	for (; count > 0; count--) {
		pick_lasting(requester++ % JIDS, service++ % JIDS);
	}
}

static void do_resolve(struct input *input)
{
	compare_token(read_below(input, TOKENS));
}

/* clang-format off */
static void (*const operations[])(struct input *) = {
	do_add,
	do_add_many,
	do_remove,
	do_remove_many,
	do_set,
	do_set_priority,
	do_set_strategy,
	do_load,
	do_pick,
	do_pick_many,
	do_pick_avoiding,
	do_pick_lasting,
	do_resolve,
};
/* clang-format on */

static void init_model(void)
{
	memset(&model, 0, sizeof model);
	model.last = NOBODY;
	model.strategy = pool_strategy(pool);
	assert(model.strategy == &strategy_random);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	write_jids();
	return sodium_init() < 0 ? -1 : 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input input = {data, size};
	uint8_t seed[POOL_SEEDBYTES] = {(uint8_t)read_byte(&input)};
	unsigned i;

	seed[POOL_SEEDBYTES - 1] = seed[0];
	pool = pool_new(seed);
	assert(pool != NULL);
	init_model();
	while (input.len > 0) {
		operations[read_below(&input, sizeof operations / sizeof *operations)](&input);
		compare();
	}
	for (i = 0; i < BACKENDS; i++) {
		compare_backend(i);
	}
	for (i = 0; i < TOKENS; i++) {
		compare_token(i);
	}
	pool_free(pool);
	return 0;
}
