/*
 * The book has to do what a list does: any calls are made in any order, and each result and all
 * that can be known of each requester compared with a model, which is a list.
 */
#include <sodium.h>

#include "input.h"
#include "requesters.h"

enum {
	REQUESTERS_MAX = 700, /* more than a segment of the hash table's buckets */
	MANY_MAX = 100,
	JID_MAX = 602,
	JID_LENGTHS = 6,
	BARES = 3,
	TOKEN_LENGTHS = 4,
	TOKEN_HEADS = 5, /* how many have different first bytes */
};

/* A requester with the JID and the token of these numbers. */
struct expected {
	unsigned jid, token;
	uint16_t generation;
	uint32_t count; /* how many things it has pending, and how many bytes these hold */
	uint64_t bytes;
	struct requester *requester;
};

/* Of those that are idle, whoever has been so for the longest comes first. */
struct model {
	struct expected list[REQUESTERS_MAX];
	size_t count, max;
	uint16_t generation;
	int counts_each;
};

static struct model model;
static struct requesters *book;

static unsigned bare_of(unsigned jid)
{
	return jid % BARES;
}

/* Those that have the same count together. */
static unsigned account_of(unsigned jid)
{
	return model.counts_each ? jid : bare_of(jid);
}

/* The JID with that number. With one of the lengths, a requester is larger than any cell. */
static struct text jid_copy(unsigned number)
{
	static const char bares[BARES] = {'a', 'b', '\0'};
	static const size_t lengths[JID_LENGTHS] = {4, 5, 4 + 8, 4 + 64, 4 + 380, JID_MAX};
	char jid[JID_MAX];

	memset(jid, 'r', sizeof jid);
	jid[0] = bares[bare_of(number)];
	jid[1] = '/';
	jid[2] = (char)(number & UINT8_MAX);
	jid[3] = (char)(number >> 8);
	return text_copy((struct text){jid, lengths[number % JID_LENGTHS]});
}

/* The token with that number: none for number 0, for the next ones 8 bytes with which longer ones begin, too. */
static struct text token_copy(unsigned number)
{
	static const size_t lengths[TOKEN_LENGTHS] = {10, 11, 24, REQUESTERS_TOKEN_MAX};
	char token[REQUESTERS_TOKEN_MAX];
	size_t length = number <= TOKEN_HEADS ? REQUESTERS_TOKEN_MIN : lengths[number % TOKEN_LENGTHS];

	memset(token, 't', sizeof token);
	token[0] = (char)(number % TOKEN_HEADS);
	token[REQUESTERS_TOKEN_MIN] = (char)(number & UINT8_MAX);
	token[REQUESTERS_TOKEN_MIN + 1] = (char)(number >> 8);
	return text_copy((struct text){token, number == 0 ? 0 : length});
}

/*
 * The model: what is found is a position in the list, or its count if nothing is found
 */

static size_t find_jid(unsigned jid)
{
	size_t i = 0;

	while (i < model.count && (model.list[i].jid != jid || model.list[i].generation != model.generation)) {
		i++;
	}
	return i;
}

static size_t find_either(unsigned jid)
{
	size_t i, found = find_jid(jid);

	for (i = 0; i < model.count && found == model.count; i++) {
		if (model.list[i].jid == jid && (uint16_t)(model.generation - model.list[i].generation) == 1) {
			found = i;
		}
	}
	return found;
}

static size_t find_token(unsigned token)
{
	size_t i = 0;

	while (i < model.count && (token == 0 || model.list[i].token != token ||
	                           (uint16_t)(model.generation - model.list[i].generation) > 1)) {
		i++;
	}
	return i;
}

static size_t find_idle(void)
{
	size_t i = 0;

	while (i < model.count && model.list[i].count > 0) {
		i++;
	}
	return i;
}

static void remove_at(size_t position)
{
	memmove(&model.list[position], &model.list[position + 1],
	        (model.count - position - 1) * sizeof model.list[position]);
	model.count--;
}

static void move_to_end(size_t position)
{
	struct expected moved = model.list[position];

	remove_at(position);
	model.list[model.count++] = moved;
}

static size_t length_of(unsigned jid, unsigned token)
{
	struct text jid_text = jid_copy(jid), token_text = token_copy(token);
	size_t length = jid_text.length + token_text.length;

	free_text(jid_text);
	free_text(token_text);
	return length;
}

/* Computed in floating point, which is exact for these numbers and cannot overflow. */
static int has_room(size_t bytes)
{
	size_t i;

	for (i = 0; i < model.count; i++) {
		bytes += length_of(model.list[i].jid, model.list[i].token);
	}
	return model.count < model.max &&
	       (model.count == 0 || (double)bytes < (double)model.max * (double)REQUESTERS_BYTES_EACH);
}

/* Whether one more with so many bytes may be added, once some have been forgotten. */
static int make_room(size_t bytes)
{
	int forgotten = 0;

	for (; forgotten < REQUESTERS_FORGOTTEN_MAX && !has_room(bytes) && find_idle() < model.count; forgotten++) {
		remove_at(find_idle());
	}
	return forgotten > 0 || has_room(bytes);
}

/* What all of that account have pending; how many bytes that holds is written. */
static size_t pending_of(unsigned account, uint64_t *bytes)
{
	size_t i, count = 0;

	*bytes = 0;
	for (i = 0; i < model.count; i++) {
		if (account_of(model.list[i].jid) == account) {
			count += model.list[i].count;
			*bytes += model.list[i].bytes;
		}
	}
	return count;
}

/*
 * The book, compared with the model
 */

static void expect_at(const struct requester *requester, size_t position)
{
	const struct expected *expected = &model.list[position];
	uint8_t bytes[REQUESTERS_TOKEN_MAX];
	struct text jid, token, got;

	if (position == model.count) {
		assert(requester == NULL);
		return;
	}
	assert(requester == expected->requester);
	jid = jid_copy(expected->jid);
	token = token_copy(expected->token);
	got = (struct text){(const char *)bytes, requester_token(requester, bytes)};
	assert(text_is_equal(requester_jid(requester), jid));
	assert(text_is_equal(got, token));
	assert(requester_pending(requester) == expected->count);
	free_text(jid);
	free_text(token);
}

static size_t find(unsigned number)
{
	struct text jid = jid_copy(number);
	size_t position = find_jid(number);

	expect_at(requesters_find(book, jid), position);
	expect_at(requesters_find_either(book, jid), find_either(number));
	free_text(jid);
	return position;
}

static size_t resolve(unsigned number)
{
	struct text token = token_copy(number);
	size_t position = find_token(number);

	expect_at(requesters_resolve(book, token), position);
	free_text(token);
	return position;
}

static void expect_pending(const struct expected *expected)
{
	uint64_t bytes;
	size_t got, count = pending_of(account_of(expected->jid), &bytes);

	assert(requesters_pending(book, expected->requester, &got) == count);
	assert(got == bytes);
}

/* All that are found by JID or by token, and the account of one of each bare JID that has requesters. */
static void compare(void)
{
	int seen[BARES] = {0};
	size_t i;

	assert(requesters_count(book) == model.count);
	for (i = 0; i < model.count; i++) {
		unsigned bare = bare_of(model.list[i].jid);

		expect_at(model.list[i].requester, i);
		if (!seen[bare]) {
			expect_pending(&model.list[i]);
			seen[bare] = 1;
		}
	}
}

static enum requesters_status expected_status(unsigned jid, unsigned token)
{
	return make_room(length_of(jid, token)) ? REQUESTERS_OK : REQUESTERS_FULL;
}

/* Adds the requester, unless its JID or its token is there already. */
static void add(unsigned jid_number, unsigned token_number)
{
	struct text jid = jid_copy(jid_number), token = token_copy(token_number);
	struct expected *expected;
	enum requesters_status status;
	struct requester *requester;

	if (find(jid_number) == model.count && resolve(token_number) == model.count) {
		status = requesters_add(book, jid, token, &requester);
		assert(status == expected_status(jid_number, token_number));
		if (status == REQUESTERS_OK) {
			expected = &model.list[model.count++];
			*expected = (struct expected){
				.jid = jid_number,
				.token = token_number,
				.generation = model.generation,
				.requester = requester,
			};
			expect_pending(expected);
		}
	}
	free_text(jid);
	free_text(token);
}

/* Unless its bare JID would have more than it can. */
static void hold_at(size_t position, size_t bytes)
{
	struct expected *expected = &model.list[position];
	uint64_t held;

	if (position == model.count) {
		return;
	}
	pending_of(account_of(expected->jid), &held);
	if (held + bytes <= REQUESTERS_BYTES_MAX) {
		assert(requesters_hold(book, expected->requester, bytes) == 0);
		expected->count++;
		expected->bytes += bytes;
	}
}

static void use_at(size_t position)
{
	if (position == model.count) {
		return;
	}
	requesters_use(book, model.list[position].requester);
	if (model.list[position].count == 0) {
		move_to_end(position);
	}
}

/* What is left of its bytes goes with the last thing that it has pending. */
static void release_at(size_t position, uint64_t bytes)
{
	struct expected *expected = &model.list[position];

	if (position == model.count || expected->count == 0) {
		return;
	}
	bytes = expected->count == 1 || bytes > expected->bytes ? expected->bytes : bytes;
	requesters_release(book, expected->requester, bytes);
	expected->count--;
	expected->bytes -= bytes;
	if (expected->count == 0) {
		move_to_end(position);
	}
}

/*
 * The operations
 */

static size_t read_bytes(struct input *input)
{
	static const size_t several[] = {0, 1, 300, 8192, UINT32_MAX};

	return several[read_below(input, sizeof several / sizeof *several)];
}

static void do_add(struct input *input)
{
	unsigned jid = read_byte(input), token = read_byte(input);

	if (model.count < REQUESTERS_MAX) {
		add(jid, token);
	}
}

static void do_add_many(struct input *input)
{
	unsigned jid = read_pair(input), token = read_pair(input), count = read_below(input, MANY_MAX);
	unsigned jid_step = read_below(input, 8), token_step = read_below(input, 8);

	for (; count > 0 && model.count < REQUESTERS_MAX; count--) {
		add(jid, token);
		jid = (jid + jid_step) % (UINT16_MAX + 1);
		token = (token + token_step) % (UINT16_MAX + 1);
	}
}

static void do_find(struct input *input)
{
	find(read_byte(input));
}

static void do_resolve(struct input *input)
{
	resolve(read_byte(input));
}

static void do_find_all(struct input *input)
{
	size_t position = read_byte(input), step = 1 + read_below(input, 32), count = 32;

	for (; position < model.count && count > 0; position += step, count--) {
		find(model.list[position].jid);
		resolve(model.list[position].token);
	}
}

/* One that is found by its JID. */
static void do_hold(struct input *input)
{
	size_t position = find(read_byte(input));

	hold_at(position, read_bytes(input));
}

static void do_hold_many(struct input *input)
{
	size_t position = read_byte(input), step = 1 + read_below(input, 8), bytes = read_bytes(input);

	for (; position < model.count; position += step) {
		hold_at(position, bytes);
	}
}

static void do_lighten(struct input *input)
{
	size_t position = read_byte(input), bytes = read_bytes(input);
	struct expected *expected = &model.list[position];

	if (position < model.count && expected->count > 0) {
		bytes = bytes > expected->bytes ? expected->bytes : bytes;
		requesters_lighten(book, expected->requester, bytes);
		expected->bytes -= bytes;
	}
}

static void do_release(struct input *input)
{
	size_t position = find(read_byte(input));

	release_at(position, read_bytes(input));
}

/* From the end, as whoever is idle then goes there. */
static void do_release_many(struct input *input)
{
	size_t step = 1 + read_below(input, 8), bytes = read_bytes(input), position = model.count;

	for (; position >= step; position -= step) {
		release_at(position - step, bytes);
	}
}

static void do_use(struct input *input)
{
	use_at(find(read_byte(input)));
}

static void do_use_many(struct input *input)
{
	size_t position = read_byte(input), step = 1 + read_below(input, 8);

	for (; position < model.count; position += step) {
		use_at(position);
	}
}

static void do_set_max(struct input *input)
{
	unsigned number = read_byte(input);

	model.max = number < 64 ? number + 1 : number < 192 ? model.count + number - 63 : SIZE_MAX;
	requesters_set_max(book, model.max);
}

static void do_new_generation(struct input *input)
{
	(void)input;
	model.generation++;
	requesters_new_generation(book);
}

/* clang-format off */
static void (*const operations[])(struct input *) = {
	do_add,
	do_add_many,
	do_find,
	do_resolve,
	do_find_all,
	do_hold,
	do_hold_many,
	do_lighten,
	do_release,
	do_release_many,
	do_set_max,
	do_new_generation,
	do_use,
	do_use_many,
};
/* clang-format on */

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	return sodium_init() < 0 ? -1 : 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input input = {data, size};
	uint8_t seed[REQUESTERS_SEEDBYTES] = {(uint8_t)read_byte(&input)};

	book = requesters_new(seed);
	assert(book != NULL);
	model = (struct model){.max = SIZE_MAX, .counts_each = seed[0] >= 128};
	if (model.counts_each) {
		requesters_count_each(book);
	}
	while (input.len > 0) {
		operations[read_below(&input, sizeof operations / sizeof *operations)](&input);
		compare();
	}
	requesters_free(book);
	return 0;
}
