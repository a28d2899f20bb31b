/*
 * JAT, Jabber Address Translation: a requester's JID to a token, and back.
 *
 * A token is the resource that stands behind the proxy in the `from` a
 * backend sees (RFC 7622 section 3.4: at most 1023 bytes; only [A-Za-z0-9_-]
 * is used, which Prosody's resourceprep leaves alone).
 *
 *     sealed   "s" || base64url( key_id(1) || siv(24) || XChaCha20(k_enc, siv, P) )
 *     digest   "d" || base64url( siv(24) )
 *
 *     P     = kind(1) || JID, padded to a multiple of 32 bytes as in ISO/IEC 7816-4
 *     siv   = BLAKE2b-192(k_mac, proxy host || 0x00 || P)
 *     k_enc = crypto_kdf(master key, 1, "JATtoken"), k_mac likewise with 2
 *
 * The base64url is that of RFC 4648 section 5, without padding and canonical.
 * The construction is a SIV one: one requester has one token for the life of a
 * key, two requesters never share one, and nobody without the key can make one.
 * A JID too long for a sealed token gets a digest, which does not decode: it
 * can only be recognised by whoever remembers having sent it.
 *
 * sodium_init() must have succeeded before any of this is called.
 */
#ifndef JAT_H
#define JAT_H

#include <stddef.h>
#include <stdint.h>

enum {
	JAT_KEYBYTES = 32,    /* a master key */
	JAT_TOKEN_MAX = 1023, /* bytes in the longest token */
	JAT_JID_MAX = 3071,   /* bytes in the longest JID: three parts, "@" and "/" */
};

/* What a token stands for. */
enum jat_kind {
	JAT_REQUESTER = 1,
};

enum jat_status {
	JAT_OK = 0,
	JAT_DIGEST,      /* a well-formed digest: the token says no more than that */
	JAT_NO_KEY,      /* encode before the first jat_add_key */
	JAT_BAD_JID,     /* an empty JID, or one longer than JAT_JID_MAX */
	JAT_BAD_TOKEN,   /* no token by its form */
	JAT_UNKNOWN_KEY, /* sealed under a key that is neither current nor previous */
	JAT_FORGED,      /* not sealed by this proxy host's key */
};

struct jat;

/*
 * A codec for the proxy host `host` (`host_len` bytes, copied), still without a
 * key. NULL if there is no memory. The caller owns it: jat_free.
 */
struct jat *jat_new(const char *host, size_t host_len);

/* Wipes the keys and frees; NULL is harmless. */
void jat_free(struct jat *jat);

/*
 * Makes `master` the current key under the name `key_id`. The current key so
 * far becomes the previous one, which still decodes; the previous one is wiped.
 * `master` is not kept.
 */
void jat_add_key(struct jat *jat, uint8_t key_id, const uint8_t master[JAT_KEYBYTES]);

/*
 * Writes the token for `jid` (any `jid_len` bytes, taken as they are) and its
 * length; no terminating NUL. JAT_OK, JAT_NO_KEY or JAT_BAD_JID; what is
 * written is undefined unless JAT_OK.
 */
enum jat_status jat_encode(const struct jat *jat, enum jat_kind kind, const char *jid, size_t jid_len,
                           char token[JAT_TOKEN_MAX], size_t *token_len);

/*
 * Writes the JID and the kind a sealed token stands for, and JAT_OK. JAT_DIGEST,
 * JAT_BAD_TOKEN, JAT_UNKNOWN_KEY and JAT_FORGED write nothing. The comparison
 * takes a time that does not depend on the secret.
 */
enum jat_status jat_decode(const struct jat *jat, const char *token, size_t token_len, enum jat_kind *kind,
                           char jid[JAT_JID_MAX], size_t *jid_len);

#endif
