#include "jat.h"

#include <sodium.h>
#include <string.h>

#include "jid.h"

enum {
	SIVBYTES = crypto_stream_xchacha20_NONCEBYTES,
	TAGBYTES = crypto_generichash_BYTES_MIN,
	TAG_LEN = (TAGBYTES * 4 + 2) / 3, /* in base64url */
	PADBLOCK = 32,
	/* The longest P, a JID of JAT_JID_MAX bytes with its padding. */
	PADDED_MAX = 1 + (JAT_JID_MAX / PADBLOCK + 1) * PADBLOCK,
	/* As many bytes as fit into a token behind the format's letter, in base64url. */
	RAW_MAX = (JAT_TOKEN_MAX - 1) / 4 * 3 + (JAT_TOKEN_MAX - 1) % 4 * 3 / 4,
	HEADBYTES = 1 + SIVBYTES,
	/* A JID is padded by one byte or more. */
	SEALED_JID_MAX = (RAW_MAX - HEADBYTES - 1) / PADBLOCK * PADBLOCK - 1,
	SIGNED_JID_MAX = JAT_TOKEN_MAX - 1 - TAG_LEN,
	/* More of the stack than any function of libsodium uses that is called here. */
	STACKBYTES = 1536,
};

_Static_assert(sizeof(uint8_t[SIVBYTES]) == JAT_DIGESTBYTES, "a digest is a siv");

/* How many bytes of a short token's name are not 0: fewer only for specs, so that two JIDs have the same one. */
#ifndef JAT_HASHBYTES
#define JAT_HASHBYTES JAT_SHORTBYTES
#endif

static const char KDF_CONTEXT[crypto_kdf_CONTEXTBYTES] = {'J', 'A', 'T', 't', 'o', 'k', 'e', 'n'};

struct generation {
	int present;
	uint8_t key_id;
	uint8_t k_enc[crypto_stream_xchacha20_KEYBYTES];
	uint8_t k_mac[crypto_generichash_KEYBYTES];
	uint8_t k_sign[crypto_generichash_KEYBYTES];
	uint8_t k_name[crypto_generichash_KEYBYTES];
};

struct jat {
	enum jat_format format;
	struct generation current;
	struct generation previous;
	size_t host_len;
	char host[];
};

struct jat *jat_new(struct text host, enum jat_format format)
{
	/* sodium_malloc has memory end where a page ends, so it is aligned only if its size is a multiple of that. */
	size_t units = 1 + (sizeof(struct jat) + host.length) / _Alignof(struct jat);
	struct jat *jat = sodium_allocarray(units, _Alignof(struct jat));

	if (jat == NULL) {
		return NULL;
	}
	sodium_memzero(jat, sizeof *jat);
	jat->format = format;
	jat->host_len = host.length;
	memcpy(jat->host, host.bytes, host.length);
	return jat;
}

enum jat_format jat_format(const struct jat *jat)
{
	return jat->format;
}

void jat_free(struct jat *jat)
{
	sodium_free(jat); /* wipes */
}

/* libsodium wipes its states, but leaves what it computed from them on the stack: derived keys, and hashes. */
static void wipe_stack(void)
{
	sodium_stackzero(STACKBYTES);
}

void jat_add_key(struct jat *jat, uint8_t key_id, const uint8_t master[JAT_KEYBYTES])
{
	struct generation *fresh = &jat->current;

	jat->previous = jat->current;
	fresh->present = 1;
	fresh->key_id = key_id;
	crypto_kdf_derive_from_key(fresh->k_enc, sizeof fresh->k_enc, 1, KDF_CONTEXT, master);
	crypto_kdf_derive_from_key(fresh->k_mac, sizeof fresh->k_mac, 2, KDF_CONTEXT, master);
	crypto_kdf_derive_from_key(fresh->k_sign, sizeof fresh->k_sign, 3, KDF_CONTEXT, master);
	crypto_kdf_derive_from_key(fresh->k_name, sizeof fresh->k_name, 4, KDF_CONTEXT, master);
	wipe_stack();
}

static const struct generation *find_generation(const struct jat *jat, uint8_t key_id)
{
	if (jat->current.present && jat->current.key_id == key_id) {
		return &jat->current;
	}
	if (jat->previous.present && jat->previous.key_id == key_id) {
		return &jat->previous;
	}
	return NULL;
}

/* The hash of proxy host || 0x00 || kind || data */
static void compute_hash(const struct jat *jat, const uint8_t key[crypto_generichash_KEYBYTES], uint8_t kind,
                         const void *data, size_t data_len, uint8_t *hash, size_t hash_len)
{
	const uint8_t separator_and_kind[2] = {0, kind};
	crypto_generichash_state state;

	crypto_generichash_init(&state, key, crypto_generichash_KEYBYTES, hash_len);
	crypto_generichash_update(&state, (const uint8_t *)jat->host, jat->host_len);
	crypto_generichash_update(&state, separator_and_kind, sizeof separator_and_kind);
	crypto_generichash_update(&state, data, data_len);
	crypto_generichash_final(&state, hash, hash_len);
	sodium_memzero(&state, sizeof state);
	wipe_stack();
}

/* Encrypts and decrypts. */
static void apply_stream(const struct generation *generation, const uint8_t siv[SIVBYTES], const uint8_t *in,
                         size_t len, uint8_t *out)
{
	crypto_stream_xchacha20_xor(out, in, len, siv, generation->k_enc);
	wipe_stack();
}

static void compute_siv(const struct jat *jat, const struct generation *generation, const uint8_t *padded,
                        size_t padded_len, uint8_t siv[SIVBYTES])
{
	compute_hash(jat, generation->k_mac, padded[0], padded + 1, padded_len - 1, siv, SIVBYTES);
}

/* Writes P into `padded`, and returns its length. */
static size_t pad(enum jat_kind kind, struct text jid, uint8_t padded[PADDED_MAX])
{
	size_t len = 0;

	padded[0] = (uint8_t)kind;
	memcpy(padded + 1, jid.bytes, jid.length);
	/* Cannot fail: PADDED_MAX has room for the padding of the longest JID. */
	sodium_pad(&len, padded + 1, jid.length, PADBLOCK, PADDED_MAX - 1);
	return 1 + len;
}

/* Writes the base64url of `raw`, and returns its length. */
static size_t write_base64url(const uint8_t *raw, size_t raw_len, char *text)
{
	char terminated[JAT_TOKEN_MAX]; /* sodium_bin2base64 adds a NUL, for which a token has no room */
	size_t text_len = sodium_base64_encoded_len(raw_len, sodium_base64_VARIANT_URLSAFE_NO_PADDING) - 1;

	sodium_bin2base64(terminated, sizeof terminated, raw, raw_len, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
	memcpy(text, terminated, text_len);
	return text_len;
}

/* Decodes base64url. 0, or -1 if it is not canonical, or stands for more than `raw_max` bytes. */
static int read_base64url(struct text text, uint8_t *raw, size_t raw_max, size_t *raw_len)
{
	size_t i;

	for (i = 0; i < text.length; i++) {
		if ((unsigned char)text.bytes[i] > 127) {
			return -1; /* libsodium 1.0.18 takes these for "_" */
		}
	}
	return sodium_base642bin(raw, raw_max, text.bytes, text.length, NULL, raw_len, NULL,
	                         sodium_base64_VARIANT_URLSAFE_NO_PADDING);
}

static int is_printable(struct text text)
{
	size_t i;

	for (i = 0; i < text.length; i++) {
		if (text.bytes[i] < 0x20 || text.bytes[i] > 0x7E) {
			return 0;
		}
	}
	return 1;
}

/* Whether `token` is that letter and the base64url of so many bytes, which are written. */
static int read_name(struct text token, char letter, uint8_t *name, size_t name_len)
{
	size_t len;

	return token.length == 1 + name_len / 3 * 4 && token.bytes[0] == letter &&
	       read_base64url(text_behind(token, 1), name, name_len, &len) == 0;
}

size_t jat_read_name(struct text token, enum jat_format format, uint8_t name[JAT_NAME_MAX])
{
	if (format == JAT_SHORT && read_name(token, 'q', name, JAT_SHORTBYTES)) {
		return JAT_SHORTBYTES;
	}
	return read_name(token, 'd', name, JAT_DIGESTBYTES) ? JAT_DIGESTBYTES : 0;
}

int jat_is_backend_token(struct text token)
{
	uint8_t name[JAT_NAME_MAX];

	return read_name(token, 'b', name, JAT_SHORTBYTES) || read_name(token, 'b', name, JAT_DIGESTBYTES);
}

size_t jat_write_name(enum jat_kind kind, const uint8_t *name, size_t name_len, char token[JAT_TOKEN_MAX])
{
	if (kind == JAT_BACKEND) {
		token[0] = 'b';
	} else {
		token[0] = name_len == JAT_SHORTBYTES ? 'q' : 'd';
	}
	return 1 + write_base64url(name, name_len, token + 1);
}

static int looks_like_digest(struct text token)
{
	uint8_t name[JAT_NAME_MAX];

	return read_name(token, 'd', name, JAT_DIGESTBYTES);
}

int jat_needs_digest(enum jat_format format, struct text jid)
{
	switch (format) {
	case JAT_SHORT:
		return 0;
	case JAT_SEALED:
		return jid.length > SEALED_JID_MAX;
	case JAT_SIGNED:
		return jid.length > SIGNED_JID_MAX || !is_printable(jid);
	case JAT_PLAIN:
		break;
	}
	return jid.length > JAT_TOKEN_MAX || !is_printable(jid) || looks_like_digest(jid) || jat_is_backend_token(jid);
}

static void compute_digest(const struct jat *jat, enum jat_kind kind, struct text jid, uint8_t name[JAT_DIGESTBYTES])
{
	uint8_t padded[PADDED_MAX];
	size_t padded_len = pad(kind, jid, padded);

	compute_siv(jat, &jat->current, padded, padded_len, name);
}

static void compute_short(const struct jat *jat, enum jat_kind kind, struct text jid, uint8_t name[JAT_SHORTBYTES])
{
	uint8_t hash[TAGBYTES];

	compute_hash(jat, jat->current.k_name, (uint8_t)kind, jid.bytes, jid.length, hash, sizeof hash);
	memset(name, 0, JAT_SHORTBYTES);
	memcpy(name, hash, JAT_HASHBYTES);
}

/* Writes the name, and returns how long it is; 0 if the token is none. */
static size_t compute_name(const struct jat *jat, enum jat_format format, enum jat_kind kind, struct text jid,
                           uint8_t name[JAT_NAME_MAX])
{
	if (jat_needs_digest(format, jid)) {
		compute_digest(jat, kind, jid, name);
		return JAT_DIGESTBYTES;
	}
	if (format == JAT_SHORT) {
		compute_short(jat, kind, jid, name);
		return JAT_SHORTBYTES;
	}
	return 0;
}

static size_t write_sealed(const struct jat *jat, enum jat_kind kind, struct text jid, char token[JAT_TOKEN_MAX])
{
	uint8_t padded[PADDED_MAX];
	size_t padded_len = pad(kind, jid, padded);
	uint8_t raw[RAW_MAX];
	uint8_t *siv = raw + 1;

	compute_siv(jat, &jat->current, padded, padded_len, siv);
	raw[0] = jat->current.key_id;
	apply_stream(&jat->current, siv, padded, padded_len, raw + HEADBYTES);
	token[0] = 's';
	return 1 + write_base64url(raw, HEADBYTES + padded_len, token + 1);
}

static size_t write_signed(const struct jat *jat, enum jat_kind kind, struct text jid, char token[JAT_TOKEN_MAX])
{
	uint8_t tag[TAGBYTES];

	compute_hash(jat, jat->current.k_sign, (uint8_t)kind, jid.bytes, jid.length, tag, sizeof tag);
	memcpy(token, jid.bytes, jid.length);
	token[jid.length] = '#';
	return jid.length + 1 + write_base64url(tag, sizeof tag, token + jid.length + 1);
}

static size_t write_plain(struct text jid, char token[JAT_TOKEN_MAX])
{
	memcpy(token, jid.bytes, jid.length);
	return jid.length;
}

static size_t write_token(const struct jat *jat, enum jat_format format, enum jat_kind kind, struct text jid,
                          char token[JAT_TOKEN_MAX])
{
	uint8_t name[JAT_NAME_MAX];
	size_t name_len = compute_name(jat, format, kind, jid, name);

	if (name_len > 0) {
		return jat_write_name(kind, name, name_len, token);
	}
	switch (format) {
	case JAT_SEALED:
		return write_sealed(jat, kind, jid, token);
	case JAT_SIGNED:
		return write_signed(jat, kind, jid, token);
	case JAT_SHORT:
	case JAT_PLAIN:
		break;
	}
	return write_plain(jid, token);
}

/* Whether there can be a token for `jid` */
static enum jat_status check(const struct jat *jat, struct text jid)
{
	if (!jat->current.present) {
		return JAT_NO_KEY;
	}
	return jid.length == 0 || jid.length > JAT_JID_MAX ? JAT_BAD_JID : JAT_OK;
}

enum jat_status jat_encode(const struct jat *jat, enum jat_format format, enum jat_kind kind, struct text jid,
                           char token[JAT_TOKEN_MAX], size_t *token_len)
{
	enum jat_status status = check(jat, jid);

	if (status == JAT_OK) {
		*token_len = write_token(jat, format, kind, jid, token);
	}
	return status;
}

enum jat_status jat_name(const struct jat *jat, enum jat_format format, enum jat_kind kind, struct text jid,
                         uint8_t name[JAT_NAME_MAX], size_t *name_len)
{
	enum jat_status status = check(jat, jid);

	if (status == JAT_OK) {
		*name_len = compute_name(jat, format, kind, jid, name);
	}
	return status;
}

enum jat_status jat_digest(const struct jat *jat, enum jat_kind kind, struct text jid, uint8_t name[JAT_DIGESTBYTES])
{
	enum jat_status status = check(jat, jid);

	/* unreachable: anything but JAT_OK, as those who call this have had a name for the same JID before */
	if (status == JAT_OK) {
		compute_digest(jat, kind, jid, name);
	}
	return status;
}

/* Reads the kind and the JID from P, which is known to be authentic. */
static enum jat_status unpad(const uint8_t *padded, size_t padded_len, enum jat_kind *kind, char jid[JAT_JID_MAX],
                             size_t *jid_len)
{
	if (padded[0] != JAT_REQUESTER || sodium_unpad(jid_len, padded + 1, padded_len - 1, PADBLOCK) != 0) {
		return JAT_BAD_TOKEN;
	}
	*kind = (enum jat_kind)padded[0];
	memcpy(jid, padded + 1, *jid_len);
	return JAT_OK;
}

static enum jat_status unseal(const struct jat *jat, const uint8_t *raw, size_t raw_len, enum jat_kind *kind,
                              char jid[JAT_JID_MAX], size_t *jid_len)
{
	const struct generation *generation;
	const uint8_t *siv = raw + 1;
	uint8_t padded[RAW_MAX];
	uint8_t expected[SIVBYTES];
	size_t padded_len;
	enum jat_status status = JAT_FORGED;

	if (raw_len < HEADBYTES + 1 + PADBLOCK || (raw_len - HEADBYTES - 1) % PADBLOCK != 0) {
		return JAT_BAD_TOKEN;
	}
	generation = find_generation(jat, raw[0]);
	if (generation == NULL) {
		return JAT_UNKNOWN_KEY;
	}
	padded_len = raw_len - HEADBYTES;
	apply_stream(generation, siv, raw + HEADBYTES, padded_len, padded);
	compute_siv(jat, generation, padded, padded_len, expected);
	if (sodium_memcmp(siv, expected, SIVBYTES) == 0) {
		status = unpad(padded, padded_len, kind, jid, jid_len);
	}
	sodium_memzero(padded, sizeof padded);
	sodium_memzero(expected, sizeof expected);
	return status;
}

static enum jat_status read_sealed(const struct jat *jat, struct text token, enum jat_kind *kind, char jid[JAT_JID_MAX],
                                   size_t *jid_len)
{
	uint8_t raw[RAW_MAX];
	size_t raw_len;

	if (token.bytes[0] != 's' || read_base64url(text_behind(token, 1), raw, sizeof raw, &raw_len) != 0) {
		return JAT_BAD_TOKEN;
	}
	return unseal(jat, raw, raw_len, kind, jid, jid_len);
}

static int is_tag_by(const struct jat *jat, const struct generation *generation, struct text jid,
                     const uint8_t tag[TAGBYTES])
{
	uint8_t expected[TAGBYTES];
	int is_equal;

	if (!generation->present) {
		return 0;
	}
	compute_hash(jat, generation->k_sign, JAT_REQUESTER, jid.bytes, jid.length, expected, sizeof expected);
	is_equal = sodium_memcmp(tag, expected, TAGBYTES) == 0;
	sodium_memzero(expected, sizeof expected);
	return is_equal;
}

static enum jat_status read_signed(const struct jat *jat, struct text token, enum jat_kind *kind, char jid[JAT_JID_MAX],
                                   size_t *jid_len)
{
	uint8_t tag[TAGBYTES];
	size_t tag_len;
	struct text claimed = {token.bytes, 0};

	if (token.length < 1 + 1 + TAG_LEN) {
		return JAT_BAD_TOKEN;
	}
	claimed.length = token.length - 1 - TAG_LEN;
	if (token.bytes[claimed.length] != '#' ||
	    read_base64url(text_behind(token, claimed.length + 1), tag, sizeof tag, &tag_len) != 0) {
		return JAT_BAD_TOKEN;
	}
	if (!is_tag_by(jat, &jat->current, claimed, tag) && !is_tag_by(jat, &jat->previous, claimed, tag)) {
		return JAT_FORGED;
	}
	*kind = JAT_REQUESTER;
	memcpy(jid, claimed.bytes, claimed.length);
	*jid_len = claimed.length;
	return JAT_OK;
}

static enum jat_status read_plain(struct text token)
{
	return is_printable(token) && jid_has_node(token) ? JAT_PLAIN_TOKEN : JAT_BAD_TOKEN;
}

enum jat_status jat_decode(const struct jat *jat, enum jat_format format, struct text token, enum jat_kind *kind,
                           char jid[JAT_JID_MAX], size_t *jid_len)
{
	uint8_t name[JAT_NAME_MAX];
	size_t name_len;

	if (token.length < 1 || token.length > JAT_TOKEN_MAX) {
		return JAT_BAD_TOKEN;
	}
	name_len = jat_read_name(token, format, name);
	if (name_len > 0) {
		return name_len == JAT_SHORTBYTES ? JAT_SHORT_TOKEN : JAT_DIGEST;
	}
	switch (format) {
	case JAT_SHORT:
		return JAT_BAD_TOKEN;
	case JAT_SEALED:
		return read_sealed(jat, token, kind, jid, jid_len);
	case JAT_SIGNED:
		return read_signed(jat, token, kind, jid, jid_len);
	case JAT_PLAIN:
		break;
	}
	return read_plain(token);
}
