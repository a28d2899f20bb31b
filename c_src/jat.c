#include "jat.h"

#include <sodium.h>
#include <string.h>

enum {
	SIVBYTES = crypto_stream_xchacha20_NONCEBYTES,
	PADBLOCK = 32,
	/* The longest P, a JID of JAT_JID_MAX bytes with its padding. */
	PLAIN_MAX = 1 + (JAT_JID_MAX / PADBLOCK + 1) * PADBLOCK,
	/* What base64url fits into a token behind the format's letter. */
	RAW_MAX = (JAT_TOKEN_MAX - 1) / 4 * 3 + (JAT_TOKEN_MAX - 1) % 4 * 3 / 4,
	HEADBYTES = 1 + SIVBYTES,
	DIGEST_LEN = 1 + SIVBYTES / 3 * 4,
};

static const char KDF_CONTEXT[crypto_kdf_CONTEXTBYTES] = {'J', 'A', 'T', 't', 'o', 'k', 'e', 'n'};

struct generation {
	int present;
	uint8_t key_id;
	uint8_t k_enc[crypto_stream_xchacha20_KEYBYTES];
	uint8_t k_mac[crypto_generichash_KEYBYTES];
};

struct jat {
	struct generation current;
	struct generation previous;
	size_t host_len;
	char host[];
};

struct jat *jat_new(const char *host, size_t host_len)
{
	/* sodium_malloc puts what it returns against a page's end: a multiple of the alignment is aligned. */
	size_t units = 1 + (sizeof(struct jat) + host_len) / _Alignof(struct jat);
	struct jat *jat = sodium_allocarray(units, _Alignof(struct jat));

	if (jat == NULL) {
		return NULL;
	}
	sodium_memzero(jat, sizeof *jat);
	jat->host_len = host_len;
	memcpy(jat->host, host, host_len);
	return jat;
}

void jat_free(struct jat *jat)
{
	sodium_free(jat); /* wipes */
}

void jat_add_key(struct jat *jat, uint8_t key_id, const uint8_t master[JAT_KEYBYTES])
{
	struct generation *fresh = &jat->current;

	jat->previous = jat->current;
	fresh->present = 1;
	fresh->key_id = key_id;
	crypto_kdf_derive_from_key(fresh->k_enc, sizeof fresh->k_enc, 1, KDF_CONTEXT, master);
	crypto_kdf_derive_from_key(fresh->k_mac, sizeof fresh->k_mac, 2, KDF_CONTEXT, master);
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

static void compute_siv(const struct jat *jat, const struct generation *generation, const uint8_t *plain,
                        size_t plain_len, uint8_t siv[SIVBYTES])
{
	static const uint8_t separator = 0;
	crypto_generichash_state state;

	crypto_generichash_init(&state, generation->k_mac, sizeof generation->k_mac, SIVBYTES);
	crypto_generichash_update(&state, (const uint8_t *)jat->host, jat->host_len);
	crypto_generichash_update(&state, &separator, 1);
	crypto_generichash_update(&state, plain, plain_len);
	crypto_generichash_final(&state, siv, SIVBYTES);
	sodium_memzero(&state, sizeof state);
}

/* P into `plain`; its length. */
static size_t write_plain(enum jat_kind kind, const char *jid, size_t jid_len, uint8_t plain[PLAIN_MAX])
{
	size_t padded_len = 0;

	plain[0] = (uint8_t)kind;
	memcpy(plain + 1, jid, jid_len);
	/* Cannot fail: PLAIN_MAX has room for the padding of the longest JID. */
	sodium_pad(&padded_len, plain + 1, jid_len, PADBLOCK, PLAIN_MAX - 1);
	return 1 + padded_len;
}

/* The letter and the base64url of `raw`; the token's length. */
static size_t write_token(char letter, const uint8_t *raw, size_t raw_len, char token[JAT_TOKEN_MAX])
{
	char text[JAT_TOKEN_MAX]; /* sodium_bin2base64 adds a NUL, for which a token has no room */
	size_t text_len = sodium_base64_encoded_len(raw_len, sodium_base64_VARIANT_URLSAFE_NO_PADDING) - 1;

	sodium_bin2base64(text, sizeof text, raw, raw_len, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
	token[0] = letter;
	memcpy(token + 1, text, text_len);
	return 1 + text_len;
}

enum jat_status jat_encode(const struct jat *jat, enum jat_kind kind, const char *jid, size_t jid_len,
                           char token[JAT_TOKEN_MAX], size_t *token_len)
{
	uint8_t plain[PLAIN_MAX];
	uint8_t raw[RAW_MAX];
	uint8_t *siv = raw + 1;
	size_t plain_len;

	if (!jat->current.present) {
		return JAT_NO_KEY;
	}
	if (jid_len == 0 || jid_len > JAT_JID_MAX) {
		return JAT_BAD_JID;
	}
	plain_len = write_plain(kind, jid, jid_len, plain);
	compute_siv(jat, &jat->current, plain, plain_len, siv);
	if (HEADBYTES + plain_len > RAW_MAX) {
		*token_len = write_token('d', siv, SIVBYTES, token);
	} else {
		raw[0] = jat->current.key_id;
		crypto_stream_xchacha20_xor(raw + HEADBYTES, plain, plain_len, siv, jat->current.k_enc);
		*token_len = write_token('s', raw, HEADBYTES + plain_len, token);
	}
	return JAT_OK;
}

/* Undoes the base64url behind the token's letter; -1 if it is not canonical. */
static int read_raw(const char *token, size_t token_len, uint8_t raw[RAW_MAX], size_t *raw_len)
{
	size_t i;

	for (i = 1; i < token_len; i++) {
		if ((unsigned char)token[i] > 127) {
			return -1; /* libsodium 1.0.18 takes these for "_" */
		}
	}
	return sodium_base642bin(raw, RAW_MAX, token + 1, token_len - 1, NULL, raw_len, NULL,
	                         sodium_base64_VARIANT_URLSAFE_NO_PADDING);
}

/* The kind and the JID out of an authentic P. */
static enum jat_status read_plain(const uint8_t *plain, size_t plain_len, enum jat_kind *kind, char jid[JAT_JID_MAX],
                                  size_t *jid_len)
{
	if (plain[0] != JAT_REQUESTER || sodium_unpad(jid_len, plain + 1, plain_len - 1, PADBLOCK) != 0) {
		return JAT_BAD_TOKEN;
	}
	*kind = (enum jat_kind)plain[0];
	memcpy(jid, plain + 1, *jid_len);
	return JAT_OK;
}

static enum jat_status open_sealed(const struct jat *jat, const uint8_t *raw, size_t raw_len, enum jat_kind *kind,
                                   char jid[JAT_JID_MAX], size_t *jid_len)
{
	const struct generation *generation;
	const uint8_t *siv = raw + 1;
	uint8_t plain[RAW_MAX];
	uint8_t expected[SIVBYTES];
	size_t plain_len;
	enum jat_status status = JAT_FORGED;

	if (raw_len < HEADBYTES + 1 + PADBLOCK || (raw_len - HEADBYTES - 1) % PADBLOCK != 0) {
		return JAT_BAD_TOKEN;
	}
	generation = find_generation(jat, raw[0]);
	if (generation == NULL) {
		return JAT_UNKNOWN_KEY;
	}
	plain_len = raw_len - HEADBYTES;
	crypto_stream_xchacha20_xor(plain, raw + HEADBYTES, plain_len, siv, generation->k_enc);
	compute_siv(jat, generation, plain, plain_len, expected);
	if (sodium_memcmp(siv, expected, SIVBYTES) == 0) {
		status = read_plain(plain, plain_len, kind, jid, jid_len);
	}
	sodium_memzero(plain, sizeof plain);
	sodium_memzero(expected, sizeof expected);
	return status;
}

enum jat_status jat_decode(const struct jat *jat, const char *token, size_t token_len, enum jat_kind *kind,
                           char jid[JAT_JID_MAX], size_t *jid_len)
{
	uint8_t raw[RAW_MAX];
	size_t raw_len;

	if (token_len < 1 || token_len > JAT_TOKEN_MAX || read_raw(token, token_len, raw, &raw_len) != 0) {
		return JAT_BAD_TOKEN;
	}
	if (token[0] == 's') {
		return open_sealed(jat, raw, raw_len, kind, jid, jid_len);
	}
	if (token[0] == 'd' && token_len == DIGEST_LEN) {
		return JAT_DIGEST;
	}
	return JAT_BAD_TOKEN;
}
