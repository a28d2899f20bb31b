/*
 * The pending-request table has to do what a list does: any calls are made in any order,
 * and each result and all counts compared with those of a model, which is a list.
 */
#include <math.h>
#include <sodium.h>

#include "input.h"
#include "pending.h"

enum {
	REQUESTS_MAX = 700, /* more than a segment of the heap and of the hash table's buckets */
	MANY_MAX = 100,
	ID_MAX = 602,
	ID_LENGTHS = 7,
};

/* clang-format off */
#define TEXT(literal) {literal, sizeof literal - 1}
/* clang-format on */

static const struct text BACKENDS[] = {TEXT(""), TEXT("f"), TEXT("g"), TEXT("f\0")};
static const struct text ADDRESSES[] = {TEXT(""), TEXT("t"), TEXT("f")};

static char longest[UINT16_MAX] = "a@b/"; /* see fill_longest */

/* clang-format off */
static const struct text REQUESTERS[] = {
	TEXT(""), TEXT("/"),
	TEXT("a"), TEXT("a/"), TEXT("a/r"), TEXT("a/r/s"),
	TEXT("a@b"), TEXT("a@b/r"), {longest, sizeof longest},
};
/* clang-format on */
static const unsigned BARE[] = {0, 0, 1, 1, 1, 1, 2, 2, 2};

static const uint32_t KEPT_BYTES[] = {0, 1, 500, 4096, 8192, 60000, UINT32_MAX};

static const double DEADLINES[] = {-INFINITY, -1e308, -1, -0.0, 0, 5e-324, 1, 1e308, INFINITY};

enum {
	BACKEND_COUNT = sizeof BACKENDS / sizeof *BACKENDS,
	ADDRESS_COUNT = sizeof ADDRESSES / sizeof *ADDRESSES,
	REQUESTER_COUNT = sizeof REQUESTERS / sizeof *REQUESTERS,
	KEPT_COUNT = sizeof KEPT_BYTES / sizeof *KEPT_BYTES,
	DEADLINE_COUNT = sizeof DEADLINES / sizeof *DEADLINES,
};

struct request {
	unsigned from, to, id; /* numbers of texts, as are the next two */
	unsigned requester, service;
	double added, deadline;
	uint8_t retries;
	uint32_t kept_bytes;
	int32_t kept;
	int is_abandoned;
	size_t fixed_since; /* for one without retries: a number that is the higher the later it lost them */
	struct pending_entry *entry;
};

/* The oldest first */
struct model {
	struct request list[REQUESTS_MAX];
	size_t count;
	size_t max, max_per_requester;
	size_t fixed_count; /* the last number that was given as fixed_since */
};

static struct model model;
static struct requesters *book;
static struct pending *pending;
static size_t entry_bytes; /* what a request counts as, besides its texts and what is kept */

/*
 * The id with that number. Numbers below 50176 have different ids, and number 0 the
 * empty one. With one of the lengths, an entry is about as large as a cell can be, and
 * with the last one larger.
 */
static struct text id_text(unsigned number, char id[ID_MAX])
{
	static const size_t lengths[ID_LENGTHS] = {2, 3, 2 + 8, 2 + 64, 2 + 380, 2 + 444, ID_MAX};

	memset(id, 'i', ID_MAX);
	id[0] = (char)(0x20 + number % 0xE0);
	id[1] = (char)(0x20 + number / 0xE0);
	return (struct text){id, number == 0 ? 0 : lengths[number % ID_LENGTHS]};
}

static struct pending_answer answer_copy(unsigned from, unsigned to, unsigned id)
{
	char bytes[ID_MAX];

	return (struct pending_answer){
		.from = text_copy(BACKENDS[from]),
		.to = text_copy(ADDRESSES[to]),
		.id = text_copy(id_text(id, bytes)),
	};
}

static void free_answer(struct pending_answer answer)
{
	free_text(answer.from);
	free_text(answer.to);
	free_text(answer.id);
}

/*
 * The model: what is found is a position in the list, or its count if nothing is found
 */

static size_t find_answered(unsigned from, unsigned to, unsigned id)
{
	size_t i = 0;

	while (i < model.count && (model.list[i].is_abandoned || model.list[i].from != from || model.list[i].to != to ||
	                           model.list[i].id != id)) {
		i++;
	}
	return i;
}

static size_t count_answered(unsigned from, unsigned to, unsigned id)
{
	size_t i, count = 0;

	for (i = 0; i < model.count; i++) {
		count += !model.list[i].is_abandoned && model.list[i].from == from && model.list[i].to == to &&
		         model.list[i].id == id;
	}
	return count;
}

static size_t find_movable(unsigned from)
{
	size_t i = 0;

	while (i < model.count &&
	       (model.list[i].is_abandoned || model.list[i].from != from || model.list[i].retries == 0)) {
		i++;
	}
	return i;
}

/* Of the backend's, the one that has been without retries the longest, which need not be the oldest. */
static size_t find_fixed(unsigned from)
{
	size_t i, first = model.count;

	for (i = 0; i < model.count; i++) {
		const struct request *request = &model.list[i];

		if (!request->is_abandoned && request->from == from && request->retries == 0 &&
		    (first == model.count || request->fixed_since < model.list[first].fixed_since)) {
			first = i;
		}
	}
	return first;
}

static size_t find_entry(const struct pending_entry *entry)
{
	size_t i = 0;

	while (i < model.count && model.list[i].entry != entry) {
		i++;
	}
	return i;
}

static size_t count_of_backend(unsigned from)
{
	size_t i, count = 0;

	for (i = 0; i < model.count; i++) {
		count += !model.list[i].is_abandoned && model.list[i].from == from;
	}
	return count;
}

static size_t count_of_bare(unsigned bare)
{
	size_t i, count = 0;

	for (i = 0; i < model.count; i++) {
		count += BARE[model.list[i].requester] == bare;
	}
	return count;
}

static size_t count_abandoned(void)
{
	size_t i, count = 0;

	for (i = 0; i < model.count; i++) {
		count += model.list[i].is_abandoned != 0;
	}
	return count;
}

static size_t bytes_of(const struct request *request)
{
	char bytes[ID_MAX];

	return entry_bytes + REQUESTERS[request->requester].length + ADDRESSES[request->service].length +
	       id_text(request->id, bytes).length + request->kept_bytes;
}

static size_t bytes_of_all(void)
{
	size_t i, bytes = 0;

	for (i = 0; i < model.count; i++) {
		bytes += bytes_of(&model.list[i]);
	}
	return bytes;
}

static size_t bytes_of_bare(unsigned bare)
{
	size_t i, bytes = 0;

	for (i = 0; i < model.count; i++) {
		bytes += BARE[model.list[i].requester] == bare ? bytes_of(&model.list[i]) : 0;
	}
	return bytes;
}

/* Computed in floating point, which is exact for these numbers and cannot overflow. */
static int is_full(size_t count, size_t bytes, size_t max)
{
	return count >= max || (count > 0 && (double)bytes > (double)max * (double)PENDING_BYTES_EACH);
}

static enum pending_status expected_status(const struct request *request)
{
	unsigned bare = BARE[request->requester];
	size_t bytes = bytes_of(request), same = find_answered(request->from, request->to, request->id);

	if (is_full(model.count, bytes_of_all() + bytes, model.max)) {
		return PENDING_FULL;
	}
	if (is_full(count_of_bare(bare), bytes_of_bare(bare) + bytes, model.max_per_requester)) {
		return PENDING_REQUESTER_FULL;
	}
	return same < model.count && model.list[same].service != request->service ? PENDING_CONFLICT : PENDING_OK;
}

/*
 * The table, compared with the model
 */

static void expect_request(const struct pending_entry *entry, const struct request *expected)
{
	struct pending_request request = pending_read(entry);
	char bytes[ID_MAX];

	assert(entry == expected->entry);
	assert(text_is_equal(requester_jid(request.requester), REQUESTERS[expected->requester]));
	assert(text_is_equal(request.service, ADDRESSES[expected->service]));
	assert(text_is_equal(request.id, id_text(expected->id, bytes)));
	assert(text_is_equal(request.backend, BACKENDS[expected->from]));
	assert(request.added == expected->added);
	assert(request.deadline == expected->deadline);
	assert(request.retries == expected->retries);
	assert(request.kept_bytes == expected->kept_bytes);
	assert(request.retries == 0 || request.kept == expected->kept);
}

static void expect_at(const struct pending_entry *entry, size_t position)
{
	if (position == model.count) {
		assert(entry == NULL);
	} else {
		assert(entry != NULL);
		expect_request(entry, &model.list[position]);
	}
}

/* If several have the earliest deadline, any of them may be the first. */
static void expect_first(const struct pending_entry *entry)
{
	size_t i, position = find_entry(entry);

	assert((entry == NULL) == (model.count == 0));
	expect_at(entry, position);
	for (i = 0; i < model.count; i++) {
		assert(model.list[position].deadline <= model.list[i].deadline);
	}
}

/* The first may be any of those that are abandoned. */
static void expect_abandoned(const struct pending_entry *entry)
{
	size_t position = find_entry(entry);

	assert((entry == NULL) == (count_abandoned() == 0));
	expect_at(entry, position);
	assert(entry == NULL || model.list[position].is_abandoned);
}

static void compare(void)
{
	unsigned from;

	assert(pending_count(pending) == model.count);
	assert(pending_bytes(pending) == bytes_of_all());
	expect_abandoned(pending_first_abandoned(pending));
	expect_first(pending_first(pending));
	for (from = 0; from < BACKEND_COUNT; from++) {
		struct text backend = text_copy(BACKENDS[from]);

		assert(pending_count_of(pending, backend) == count_of_backend(from));
		expect_at(pending_first_movable(pending, backend), find_movable(from));
		expect_at(pending_first_fixed(pending, backend), find_fixed(from));
		free_text(backend);
	}
}

/* The requester with that number in the book, added if it was not there. */
static struct requester *requester(unsigned number)
{
	struct text jid = text_copy(REQUESTERS[number]);
	struct requester *found = requesters_find(book, jid);

	if (found == NULL) {
		assert(requesters_add(book, jid, (struct text){NULL, 0}, &found) == REQUESTERS_OK);
	}
	free_text(jid);
	return found;
}

/* Adds the request, unless it has to be refused. */
static void add(struct request request)
{
	struct pending_answer answer = answer_copy(request.from, request.to, request.id);
	struct pending_request added = {
		.requester = requester(request.requester),
		.service = text_copy(ADDRESSES[request.service]),
		.id = answer.id,
		.added = request.added,
		.deadline = request.deadline,
		.retries = request.retries,
		.kept_bytes = request.kept_bytes,
		.kept = request.kept,
	};
	enum pending_status status = pending_add(pending, &answer, &added, &request.entry);

	assert(status == expected_status(&request));
	if (status == PENDING_OK) {
		assert(find_entry(request.entry) == model.count);
		request.fixed_since = ++model.fixed_count; /* does not count while it has retries */
		model.list[model.count++] = request;
		expect_request(request.entry, &request);
	}
	free_text(added.service);
	free_answer(answer);
}

static void remove_at(size_t position)
{
	if (position == model.count) {
		return;
	}
	pending_remove(pending, model.list[position].entry);
	memmove(&model.list[position], &model.list[position + 1],
	        (model.count - position - 1) * sizeof model.list[position]);
	model.count--;
}

/* The position of the request that this answer is for. */
static size_t find(unsigned from, unsigned to, unsigned id)
{
	struct pending_answer answer = answer_copy(from, to, id);
	size_t position = find_answered(from, to, id);

	expect_at(pending_find(pending, &answer), position);
	assert(pending_count_answered(pending, &answer) == count_answered(from, to, id));
	free_answer(answer);
	return position;
}

/*
 * The operations
 */

static double read_deadline(struct input *input)
{
	unsigned number = read_byte(input);

	return number < DEADLINE_COUNT ? DEADLINES[number] : number;
}

/* If the first byte is below BACKEND_COUNT * ADDRESS_COUNT, it has no retries and there is no conflict. */
static struct request read_request(struct input *input)
{
	static int32_t places;
	unsigned numbers = read_byte(input), variant = numbers / (BACKEND_COUNT * ADDRESS_COUNT);
	struct request request = {
		.from = numbers % BACKEND_COUNT,
		.to = numbers / BACKEND_COUNT % ADDRESS_COUNT,
		.id = read_below(input, ID_LENGTHS + 1),
		.requester = read_below(input, REQUESTER_COUNT),
		.service = (numbers + variant / 3) % ADDRESS_COUNT,
		.deadline = read_deadline(input),
		.retries = (uint8_t)(variant % 3),
	};

	request.added = -request.deadline;
	if (request.retries > 0) {
		request.kept_bytes = KEPT_BYTES[variant % KEPT_COUNT];
		request.kept = ++places;
	}
	return request;
}

static void do_add(struct input *input)
{
	struct request request = read_request(input);

	if (model.count < REQUESTS_MAX) {
		add(request);
	}
}

/* Adds many requests: all with one id, with ids one after the other, or with different ids of one length. */
static void do_add_many(struct input *input)
{
	static const unsigned id_steps[] = {0, 1, ID_LENGTHS};
	struct request request = read_request(input);
	unsigned count = read_below(input, MANY_MAX), step = read_below(input, 4);
	unsigned id_step = id_steps[read_below(input, sizeof id_steps / sizeof *id_steps)];

	request.requester %= REQUESTER_COUNT - 1; /* the last requester's JID is too long for many requests */
	for (; count > 0 && model.count < REQUESTS_MAX; count--) {
		add(request);
		request.id += id_step;
		request.deadline += step;
		request.requester = (request.requester + step) % (REQUESTER_COUNT - 1);
	}
}

static void do_find(struct input *input)
{
	struct request request = read_request(input);

	find(request.from, request.to, request.id);
}

static void do_take(struct input *input)
{
	struct request request = read_request(input);

	remove_at(find(request.from, request.to, request.id));
}

/* Takes the first request of a backend: of those with retries, or of those without. */
static void do_take_first(struct input *input)
{
	unsigned number = read_below(input, 2 * BACKEND_COUNT);

	remove_at(number < BACKEND_COUNT ? find_movable(number) : find_fixed(number - BACKEND_COUNT));
}

static void do_expire(struct input *input)
{
	double now = read_deadline(input);
	struct pending_entry *entry;

	while ((entry = pending_first(pending)) != NULL && pending_read(entry).deadline <= now) {
		expect_first(entry);
		remove_at(find_entry(entry));
	}
}

static void do_remove_many(struct input *input)
{
	size_t position = read_byte(input), step = read_below(input, 8), count = read_byte(input);

	for (; position < model.count && count > 0; count--) {
		remove_at(position);
		position += step;
	}
}

static void do_find_many(struct input *input)
{
	size_t position = read_byte(input), step = 1 + read_below(input, 32), count = 32;

	for (; position < model.count && count > 0; position += step, count--) {
		const struct request *request = &model.list[position];

		expect_request(request->entry, request);
		find(request->from, request->to, request->id);
	}
}

/* A limit: a small one, one close to what there is already, or none. */
static size_t read_limit(struct input *input, size_t count)
{
	unsigned number = read_byte(input);

	return number < 64 ? number : number < 128 ? count + number - 64 : SIZE_MAX;
}

static void do_limit(struct input *input)
{
	model.max = read_limit(input, model.count);
	model.max_per_requester = read_limit(input, count_of_bare(1));
	pending_set_limits(pending, model.max, model.max_per_requester);
	if (model.max_per_requester > PENDING_PER_REQUESTER_MAX) {
		model.max_per_requester = PENDING_PER_REQUESTER_MAX;
	}
}

static void fix_at(size_t position)
{
	struct request *request = &model.list[position];

	if (position < model.count && request->retries > 0) {
		pending_fix(pending, request->entry);
		request->retries = 0;
		request->kept_bytes = 0;
		request->fixed_since = ++model.fixed_count;
		expect_request(request->entry, request);
	}
}

static void do_fix_movable(struct input *input)
{
	fix_at(find_movable(read_below(input, BACKEND_COUNT)));
}

static void do_fix_many(struct input *input)
{
	size_t position = read_byte(input), step = 1 + read_below(input, 8);

	for (; position < model.count; position += step) {
		fix_at(position);
	}
}

static void do_abandon(struct input *input)
{
	unsigned from = read_below(input, BACKEND_COUNT);
	struct text backend = text_copy(BACKENDS[from]);
	size_t i;

	pending_abandon(pending, backend);
	free_text(backend);
	for (i = 0; i < model.count; i++) {
		model.list[i].is_abandoned |= model.list[i].from == from;
	}
}

static void do_take_abandoned(struct input *input)
{
	unsigned count = read_byte(input);
	struct pending_entry *entry;

	for (; count > 0 && (entry = pending_first_abandoned(pending)) != NULL; count--) {
		expect_abandoned(entry);
		remove_at(find_entry(entry));
	}
}

/* Adds a request whose id has any byte in any place, and removes it at once: the model need not know it. */
static void do_add_byte(struct input *input)
{
	unsigned byte = read_byte(input), position = read_byte(input), len = position + 1 + read_below(input, 8);
	char id[UINT8_MAX + 9];
	struct pending_answer answer = {.from = BACKENDS[0], .to = ADDRESSES[0]};
	struct pending_request request = {.requester = requester(0), .service = ADDRESSES[0]};
	enum pending_status status;
	struct pending_entry *entry;

	memset(id, 'j', len);
	id[position] = (char)byte;
	answer.id = request.id = text_copy((struct text){id, len});
	status = pending_add(pending, &answer, &request, &entry);
	assert((status == PENDING_BAD_ID) == (byte < 0x20));
	if (status == PENDING_OK) {
		assert(pending_find(pending, &answer) == entry);
		pending_remove(pending, entry);
	}
	free_text(answer.id);
}

/* clang-format off */
static void (*const operations[])(struct input *) = {
	do_add,
	do_add_many,
	do_find,
	do_take,
	do_take_first,
	do_expire,
	do_remove_many,
	do_find_many,
	do_limit,
	do_fix_movable,
	do_fix_many,
	do_abandon,
	do_take_abandoned,
	do_add_byte,
};
/* clang-format on */

static void learn_entry_bytes(void)
{
	static const uint8_t seed[PENDING_SEEDBYTES];
	const struct pending_answer answer = {BACKENDS[0], ADDRESSES[0], TEXT("")};
	const struct pending_request request = {.requester = requester(0), .service = ADDRESSES[0], .id = TEXT("")};
	struct pending *scales = pending_new(seed, book);
	struct pending_entry *entry;

	assert(scales != NULL);
	assert(pending_add(scales, &answer, &request, &entry) == PENDING_OK);
	entry_bytes = pending_bytes(scales);
	pending_free(scales);
}

static void fill_longest(void)
{
	size_t i;

	for (i = strlen(longest); i < sizeof longest; i++) {
		longest[i] = 'r';
	}
}

static const uint8_t book_seed[REQUESTERS_SEEDBYTES];

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	fill_longest();
	if (sodium_init() < 0) {
		return -1;
	}
	book = requesters_new(book_seed);
	assert(book != NULL);
	learn_entry_bytes();
	requesters_free(book);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input input = {data, size};
	uint8_t seed[PENDING_SEEDBYTES] = {(uint8_t)read_byte(&input)};

	book = requesters_new(book_seed);
	assert(book != NULL);
	pending = pending_new(seed, book);
	assert(pending != NULL);
	model.count = 0;
	model.max = SIZE_MAX;
	model.max_per_requester = PENDING_PER_REQUESTER_MAX;
	while (input.len > 0) {
		operations[read_below(&input, sizeof operations / sizeof *operations)](&input);
		compare();
	}
	pending_free(pending);
	requesters_free(book);
	return 0;
}
