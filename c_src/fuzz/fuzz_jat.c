/*
 * Tokens of all formats, of two hosts and several keys, are made, tampered with and
 * decoded. What decoding says has to be what a model says, which knows the forms of
 * tokens, and all tokens that have been made.
 */
#include <sodium.h>

#include "input.h"
#include "jat.h"

enum {
	FORMATS = JAT_PLAIN + 1,
	HOSTS = 2,
	CODECS = FORMATS * HOSTS,
	MASTERS = 3,
	MADE_MAX = 32,
	ROOM = JAT_TOKEN_MAX + 64, /* bytes, also for what is too long to be a token */
	SIVBYTES = 24,
	HEADBYTES = 1 + SIVBYTES,
	PADBLOCK = 32,
	TAG_LEN = 22,
	TAGBYTES = 16,
};

/* A kind that decoders do not know: they refuse tokens of it, even those made with the right key. */
static const enum jat_kind OTHER_KIND = (enum jat_kind)(JAT_BACKEND + 1);

static const struct text HOST_NAMES[HOSTS] = {{"proxy", 5}, {"prox", 4}};
static const char ALPHABET[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

struct key {
	int is_present;
	unsigned id;
	unsigned master;
};

struct codec {
	struct jat *jat; /* NULL until it is used for the first time */
	enum jat_format format;
	unsigned host;
	struct key current, previous;
};

struct token {
	char bytes[ROOM];
	size_t len;
};

static struct text text_of(const struct token *token)
{
	return (struct text){token->bytes, token->len};
}

static int is_same_token(const struct token *a, const struct token *b)
{
	return text_is_equal(text_of(a), text_of(b));
}

struct made {
	struct token token;
	char jid[JAT_JID_MAX];
	size_t jid_len;
	enum jat_kind kind;
	const struct codec *codec;
	struct key key;
};

static struct text jid_of(const struct made *made)
{
	return (struct text){made->jid, made->jid_len};
}

/* What decoding has to say. `made` is the token that was decoded; NULL unless JAT_OK. */
struct verdict {
	enum jat_status status;
	const struct made *made;
};

static struct codec codecs[CODECS];
static struct made made[MADE_MAX];
static size_t made_count;

/*
 * The model: the forms of tokens
 */

/* Decodes up to ROOM bytes of base64url, and returns how many bytes they stand for; -1 if it is not canonical. */
static int read_base64url(const char *text, size_t text_len, uint8_t raw[ROOM])
{
	unsigned bits = 0, bit_count = 0;
	int len = 0;
	size_t i;

	for (i = 0; i < text_len; i++) {
		const char *letter = memchr(ALPHABET, text[i], 64);

		if (letter == NULL) {
			return -1;
		}
		bits = (bits << 6 | (unsigned)(letter - ALPHABET)) & 0xFFF;
		bit_count += 6;
		if (bit_count >= 8) {
			bit_count -= 8;
			raw[len++] = (uint8_t)(bits >> bit_count);
		}
	}
	return bit_count < 6 && (bits & ((1U << bit_count) - 1)) == 0 ? len : -1;
}

static int is_base64url_of(const char *text, size_t text_len, int raw_len)
{
	uint8_t raw[ROOM];

	return read_base64url(text, text_len, raw) == raw_len;
}

static int is_digest(const char *text, size_t len)
{
	return len == 33 && text[0] == 'd' && is_base64url_of(text + 1, 32, SIVBYTES);
}

static int is_short(const char *text, size_t len)
{
	return len == 13 && text[0] == 'q' && is_base64url_of(text + 1, 12, JAT_SHORTBYTES);
}

static int is_backend_token(const char *text, size_t len)
{
	return (len == 13 && text[0] == 'b' && is_base64url_of(text + 1, 12, JAT_SHORTBYTES)) ||
	       (len == 33 && text[0] == 'b' && is_base64url_of(text + 1, 32, SIVBYTES));
}

static int is_printable(const char *text, size_t len)
{
	size_t i;

	for (i = 0; i < len; i++) {
		if (text[i] < ' ' || text[i] > '~') {
			return 0;
		}
	}
	return 1;
}

/* Whether it is node@host or node@host/resource, and no part is empty. */
static int has_node(const char *jid, size_t len)
{
	const char *end = jid + len, *slash = memchr(jid, '/', len);
	const char *bare_end = slash == NULL ? end : slash;
	const char *at = memchr(jid, '@', (size_t)(bare_end - jid));

	return at != NULL && at > jid && at + 1 < bare_end && memchr(at + 1, '@', (size_t)(bare_end - at - 1)) == NULL &&
	       (slash == NULL || slash + 1 < end);
}

/* The length of a sealed token for a JID of that length. */
static size_t sealed_len(size_t jid_len)
{
	size_t raw_len = HEADBYTES + 1 + (jid_len / PADBLOCK + 1) * PADBLOCK;

	return 1 + (raw_len * 8 + 5) / 6;
}

/* Whether the JID has a token of that format, and not a digest. */
static int fits(enum jat_format format, const char *jid, size_t jid_len)
{
	switch (format) {
	case JAT_SHORT:
		return 1;
	case JAT_SEALED:
		return sealed_len(jid_len) <= JAT_TOKEN_MAX;
	case JAT_SIGNED:
		return jid_len + 1 + TAG_LEN <= JAT_TOKEN_MAX && is_printable(jid, jid_len);
	case JAT_PLAIN:
		break;
	}
	return jid_len <= JAT_TOKEN_MAX && is_printable(jid, jid_len) && !is_digest(jid, jid_len) &&
	       !is_backend_token(jid, jid_len);
}

/*
 * The model: what decoding has to say
 */

static const struct key *find_key(const struct codec *codec, unsigned id)
{
	if (codec->current.is_present && codec->current.id == id) {
		return &codec->current;
	}
	if (codec->previous.is_present && codec->previous.id == id) {
		return &codec->previous;
	}
	return NULL;
}

static int is_master(const struct key *key, unsigned master)
{
	return key->is_present && key->master == master;
}

static int is_same_codec(const struct codec *a, const struct codec *b)
{
	return a->format == b->format && a->host == b->host;
}

/* Whether these bytes are what the candidate sealed. The first byte, the key's name, is not part of that. */
static int is_seal_of(const struct made *candidate, const uint8_t *raw, int raw_len)
{
	uint8_t sealed[ROOM];

	return candidate->token.bytes[0] == 's' &&
	       read_base64url(candidate->token.bytes + 1, candidate->token.len - 1, sealed) == raw_len &&
	       memcmp(sealed + 1, raw + 1, (size_t)raw_len - 1) == 0;
}

static struct verdict refusal(enum jat_status status)
{
	return (struct verdict){status, NULL};
}

static struct verdict success(const struct made *one)
{
	return (struct verdict){JAT_OK, one};
}

static struct verdict judge_sealed(const struct codec *codec, const struct token *token)
{
	uint8_t raw[ROOM];
	int raw_len = read_base64url(token->bytes + 1, token->len - 1, raw);
	const struct key *key;
	size_t i;

	if (token->bytes[0] != 's' || raw_len < HEADBYTES + 1 + PADBLOCK || (raw_len - HEADBYTES - 1) % PADBLOCK != 0) {
		return refusal(JAT_BAD_TOKEN);
	}
	key = find_key(codec, raw[0]);
	if (key == NULL) {
		return refusal(JAT_UNKNOWN_KEY);
	}
	for (i = 0; i < made_count; i++) {
		if (is_same_codec(made[i].codec, codec) && made[i].key.master == key->master &&
		    is_seal_of(&made[i], raw, raw_len)) {
			return made[i].kind == JAT_REQUESTER ? success(&made[i]) : refusal(JAT_BAD_TOKEN);
		}
	}
	return refusal(JAT_FORGED);
}

static struct verdict judge_signed(const struct codec *codec, const struct token *token)
{
	size_t i, jid_len = token->len - 1 - TAG_LEN;

	if (token->len < 1 + 1 + TAG_LEN || token->bytes[jid_len] != '#' ||
	    !is_base64url_of(token->bytes + jid_len + 1, TAG_LEN, TAGBYTES)) {
		return refusal(JAT_BAD_TOKEN);
	}
	for (i = 0; i < made_count; i++) {
		if (is_same_codec(made[i].codec, codec) && made[i].kind == JAT_REQUESTER &&
		    (is_master(&codec->current, made[i].key.master) || is_master(&codec->previous, made[i].key.master)) &&
		    is_same_token(&made[i].token, token)) {
			return success(&made[i]);
		}
	}
	return refusal(JAT_FORGED);
}

static struct verdict judge(const struct codec *codec, const struct token *token)
{
	if (token->len == 0 || token->len > JAT_TOKEN_MAX) {
		return refusal(JAT_BAD_TOKEN);
	}
	if (is_digest(token->bytes, token->len)) {
		return refusal(JAT_DIGEST);
	}
	switch (codec->format) {
	case JAT_SHORT:
		return refusal(is_short(token->bytes, token->len) ? JAT_SHORT_TOKEN : JAT_BAD_TOKEN);
	case JAT_SEALED:
		return judge_sealed(codec, token);
	case JAT_SIGNED:
		return judge_signed(codec, token);
	case JAT_PLAIN:
		break;
	}
	if (is_printable(token->bytes, token->len) && has_node(token->bytes, token->len)) {
		return refusal(JAT_PLAIN_TOKEN);
	}
	return refusal(JAT_BAD_TOKEN);
}

/*
 * The codec, compared with the model
 */

static enum jat_status encode(const struct codec *codec, enum jat_kind kind, const char *jid, size_t jid_len,
                              struct token *token)
{
	char *bytes = malloc(JAT_TOKEN_MAX);
	struct text copy = text_copy((struct text){jid, jid_len});
	enum jat_status status;

	assert(bytes != NULL);
	status = jat_encode(codec->jat, codec->format, kind, copy, bytes, &token->len);
	if (status == JAT_OK) {
		assert(token->len <= JAT_TOKEN_MAX);
		memcpy(token->bytes, bytes, token->len);
	}
	free_text(copy);
	free(bytes);
	return status;
}

/* Two requesters never share a token, and one requester has only one token under one key. */
static void expect_own(const struct made *one)
{
	size_t i;

	for (i = 0; i < made_count; i++) {
		const struct made *other = &made[i];
		int is_shared = is_same_token(&one->token, &other->token);

		if (!is_same_codec(one->codec, other->codec)) {
			continue;
		}
		if (!text_is_equal(jid_of(one), jid_of(other))) {
			assert(!is_shared);
		} else if (one->kind == other->kind && one->key.master == other->key.master && one->key.id == other->key.id) {
			assert(is_shared);
		}
	}
}

static void expect_form(const struct made *one)
{
	const struct token *token = &one->token;
	enum jat_format format = one->codec->format;

	assert(is_printable(token->bytes, token->len));
	if (!fits(format, one->jid, one->jid_len)) {
		assert(is_digest(token->bytes, token->len));
	} else if (format == JAT_SHORT) {
		assert(is_short(token->bytes, token->len));
	} else if (format == JAT_SEALED) {
		uint8_t raw[ROOM];

		assert(token->bytes[0] == 's' && token->len == sealed_len(one->jid_len));
		assert(read_base64url(token->bytes + 1, token->len - 1, raw) > 0 && raw[0] == one->key.id);
	} else {
		assert(memcmp(token->bytes, one->jid, one->jid_len) == 0);
		assert(token->len == one->jid_len + (format == JAT_SIGNED ? 1 + TAG_LEN : 0));
	}
}

/* A name is what jat_name says, and a token is written of it and read again. */
static void expect_name(const struct made *one)
{
	const struct codec *codec = one->codec;
	uint8_t name[JAT_NAME_MAX], digest[JAT_DIGESTBYTES], read[JAT_NAME_MAX];
	size_t name_len, read_len = jat_read_name(text_of(&one->token), codec->format, read);
	struct token written;

	assert(jat_name(codec->jat, codec->format, one->kind, jid_of(one), name, &name_len) == JAT_OK);
	assert(jat_digest(codec->jat, one->kind, jid_of(one), digest) == JAT_OK);
	if (!fits(codec->format, one->jid, one->jid_len)) {
		assert(name_len == JAT_DIGESTBYTES && memcmp(name, digest, sizeof digest) == 0);
	} else {
		assert(name_len == (codec->format == JAT_SHORT ? JAT_SHORTBYTES : 0));
	}
	assert(read_len == name_len && memcmp(read, name, name_len) == 0);
	if (name_len > 0) {
		written.len = jat_write_name(JAT_REQUESTER, name, name_len, written.bytes);
		assert(is_same_token(&written, &one->token));
	}
}

/* The token of a backend with that JID, made of a name of that length */
static struct token backend_token(const struct made *one, size_t name_len)
{
	const struct jat *jat = one->codec->jat;
	uint8_t name[JAT_NAME_MAX];
	struct token token;
	size_t len;

	if (name_len == JAT_SHORTBYTES) {
		assert(jat_name(jat, JAT_SHORT, JAT_BACKEND, jid_of(one), name, &len) == JAT_OK && len == name_len);
	} else {
		assert(jat_digest(jat, JAT_BACKEND, jid_of(one), name) == JAT_OK);
	}
	token.len = jat_write_name(JAT_BACKEND, name, name_len, token.bytes);
	assert(token.len == (name_len == JAT_SHORTBYTES ? 13 : 33));
	assert(is_backend_token(token.bytes, token.len) && jat_is_backend_token(text_of(&token)));
	return token;
}

/* A backend's token is another one than that of a backend with another JID, or of a requester with the same. */
static void expect_backend_token(const struct made *one, size_t name_len)
{
	struct token token = backend_token(one, name_len);
	size_t i;

	for (i = 0; i < made_count; i++) {
		const struct made *other = &made[i];
		struct token theirs = backend_token(other, name_len);

		if (is_same_codec(one->codec, other->codec)) {
			assert(is_same_token(&token, &theirs) == text_is_equal(jid_of(one), jid_of(other)));
		}
	}
	if (one->token.len == token.len) {
		assert(memcmp(one->token.bytes + 1, token.bytes + 1, token.len - 1) != 0);
	}
}

/* If the key of a token that was decoded is still the current one, encoding makes the same token again. */
static void expect_again(const struct codec *codec, const struct made *one)
{
	struct token again;

	if (one->key.master == codec->current.master && one->key.id == codec->current.id) {
		assert(encode(codec, one->kind, one->jid, one->jid_len, &again) == JAT_OK);
		assert(is_same_token(&again, &one->token));
	}
}

static void decode(const struct codec *codec, const struct token *token)
{
	static const char untouched[JAT_JID_MAX];
	struct verdict verdict = judge(codec, token);
	struct text copy = text_copy(text_of(token));
	char *jid = malloc(sizeof untouched);
	enum jat_kind kind = OTHER_KIND;
	size_t jid_len = SIZE_MAX;

	assert(jid != NULL);
	memcpy(jid, untouched, sizeof untouched);
	assert(jat_decode(codec->jat, codec->format, copy, &kind, jid, &jid_len) == verdict.status);
	assert(jat_is_backend_token(copy) == is_backend_token(token->bytes, token->len));
	assert(jat_needs_digest(codec->format, copy) == !fits(codec->format, token->bytes, token->len));
	if (verdict.status == JAT_OK) {
		assert(kind == JAT_REQUESTER);
		assert(text_is_equal((struct text){jid, jid_len}, jid_of(verdict.made)));
		expect_again(codec, verdict.made);
	} else {
		assert(kind == OTHER_KIND && jid_len == SIZE_MAX && memcmp(jid, untouched, sizeof untouched) == 0);
	}
	free(jid);
	free_text(copy);
}

/*
 * The operations
 */

static struct codec *read_codec(struct input *input)
{
	unsigned number = read_below(input, CODECS);
	struct codec *codec = &codecs[number];

	if (codec->jat == NULL) {
		codec->format = (enum jat_format)(number % FORMATS);
		codec->host = number / FORMATS;
		codec->jat = jat_new(HOST_NAMES[codec->host], codec->format);
		assert(codec->jat != NULL);
	}
	return codec;
}

static void do_add_key(struct input *input)
{
	static const unsigned ids[] = {0, 1, 7, 255};
	struct codec *codec = read_codec(input);
	struct key key = {1, ids[read_below(input, sizeof ids / sizeof *ids)], read_below(input, MASTERS)};
	uint8_t master[JAT_KEYBYTES];

	memset(master, 'k', sizeof master);
	master[JAT_KEYBYTES - 1] = (uint8_t)key.master;
	jat_add_key(codec->jat, (uint8_t)key.id, master);
	codec->previous = codec->current;
	codec->current = key;
}

/* Any byte, but more often one of those that matter in a JID or a token. */
static char read_char(struct input *input)
{
	static const char special[] = "@/@/#\x1F\x7F~";
	unsigned byte = read_byte(input);

	return byte < 128 || byte >= 192 ? (char)byte : special[byte % (sizeof special - 1)];
}

/*
 * A few bytes of the input, filled up to the length of some limit, or one byte more or less; or a token, taken
 * for a JID.
 */
static size_t read_jid(struct input *input, char jid[JAT_JID_MAX + 1])
{
	static const size_t lengths[] = {1, 31, 63, 735, 1000, 1023, 3071};
	unsigned shape = read_byte(input);
	size_t i, explicit_len = shape % 8, len = lengths[shape / 8 % 7] - 1 + read_below(input, 3);

	if (shape >= 224 && made_count > 0) {
		const struct token *token = &made[shape % made_count].token;

		memcpy(jid, token->bytes, token->len);
		return token->len;
	}
	memset(jid, 'j', len);
	for (i = 0; i < explicit_len && i < len; i++) {
		jid[i] = read_char(input);
	}
	return len;
}

static void do_encode(struct input *input)
{
	const struct codec *codec = read_codec(input);
	enum jat_kind kind = read_below(input, 8) == 7 ? OTHER_KIND : JAT_REQUESTER;
	char jid[JAT_JID_MAX + 1];
	size_t jid_len = read_jid(input, jid);
	struct made *one = &made[made_count];
	enum jat_status status, expected = jid_len == 0 || jid_len > JAT_JID_MAX ? JAT_BAD_JID : JAT_OK;

	if (made_count == MADE_MAX) {
		return;
	}
	status = encode(codec, kind, jid, jid_len, &one->token);
	assert(status == (codec->current.is_present ? expected : JAT_NO_KEY));
	if (status == JAT_OK) {
		memcpy(one->jid, jid, jid_len);
		one->jid_len = jid_len;
		one->kind = kind;
		one->codec = codec;
		one->key = codec->current;
		expect_form(one);
		expect_name(one);
		expect_own(one);
		expect_backend_token(one, JAT_SHORTBYTES);
		expect_backend_token(one, JAT_DIGESTBYTES);
		made_count++;
		decode(codec, &one->token);
	}
}

/* Replaces a part of a token by other bytes; if there is no room for them, what follows goes, too. */
static void replace(struct token *token, size_t at, size_t len, const char *bytes, size_t bytes_len)
{
	size_t rest = token->len - at - len;

	if (at + bytes_len + rest > ROOM) {
		rest = 0;
		bytes_len = 0;
	}
	memmove(token->bytes + at + bytes_len, token->bytes + at + len, rest);
	memcpy(token->bytes + at, bytes, bytes_len);
	token->len = at + bytes_len + rest;
}

static void flip_bit(struct token *token, size_t at, unsigned number)
{
	token->bytes[at] = (char)(token->bytes[at] ^ 1 << number % 8);
}

/* The position counts from the start, or, from 32768 on, from the end. */
static size_t read_position(struct input *input, const struct token *token)
{
	size_t number = read_pair(input);

	if (token->len == 0) {
		return 0;
	}
	return number < 0x8000 ? number % token->len : token->len - 1 - (0xFFFF - number) % token->len;
}

static void edit(struct input *input, struct token *token)
{
	unsigned what = read_below(input, 7), value = read_byte(input);
	size_t at = read_position(input, token), is_one = token->len > 0;
	const struct token *other = &made[value % made_count].token;
	const char byte = (char)value;

	switch (what) {
	case 0: /* any byte in the place of one */
		replace(token, at, is_one, &byte, is_one);
		break;
	case 1: /* a letter of base64url in the place of a byte */
		replace(token, at, is_one, &ALPHABET[value % 64], is_one);
		break;
	case 2:
		if (is_one) {
			flip_bit(token, at, value);
		}
		break;
	case 3: /* a byte more */
		replace(token, at, 0, &byte, 1);
		break;
	case 4: /* a byte less, or all that follows it */
		replace(token, at, value == 0 ? token->len - at : is_one, "", 0);
		break;
	case 5: /* more letters at the end */
		replace(token, token->len, 0, ALPHABET, value % 65);
		break;
	case 6: /* the end of another token */
		if (at < other->len) {
			replace(token, at, token->len - at, other->bytes + at, other->len - at);
		}
		break;
	}
}

static void do_decode_made(struct input *input)
{
	const struct codec *codec = read_codec(input);
	unsigned number = read_byte(input), edits = read_below(input, 4);
	struct token token;

	if (made_count == 0) {
		return;
	}
	token = made[number % made_count].token;
	if (number >= 128) {
		codec = made[number % made_count].codec;
	}
	for (; edits > 0; edits--) {
		edit(input, &token);
	}
	decode(codec, &token);
}

/* Some bytes of the input, alone or followed by one and the same letter up to some length. */
static void do_decode_raw(struct input *input)
{
	const struct codec *codec = read_codec(input);
	unsigned explicit_len = read_below(input, 40);
	struct token token;
	size_t i;

	memset(token.bytes, 'A', ROOM);
	token.len = explicit_len + (read_below(input, 2) == 0 ? 0 : read_pair(input) % (ROOM - explicit_len));
	for (i = 0; i < explicit_len; i++) {
		token.bytes[i] = read_char(input);
	}
	decode(codec, &token);
}

static void (*const operations[])(struct input *) = {do_add_key, do_encode, do_decode_made, do_decode_raw};

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	return sodium_init() < 0 ? -1 : 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input input = {data, size};
	size_t i;

	memset(codecs, 0, sizeof codecs);
	made_count = 0;
	while (input.len > 0) {
		operations[read_below(&input, sizeof operations / sizeof *operations)](&input);
	}
	for (i = 0; i < CODECS; i++) {
		jat_free(codecs[i].jat);
	}
	return 0;
}
