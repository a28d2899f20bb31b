/*
 * JAT, Jabber Address Translation: a requester's JID to a token, and back.
 *
 * A token is the resource that stands behind the proxy in the `from` a backend
 * sees. What every server leaves as it is (RFC 7622 section 3.4; Prosody's
 * resourceprep), and thus all that is used: at most 1023 bytes, ASCII, 0x20 to
 * 0x7E.
 *
 *     short    "q" || base64url( pseudonym(9) )
 *     sealed   "s" || base64url( key_id(1) || siv(24) || XChaCha20(k_enc, siv, P) )
 *     signed   JID || "#" || base64url( tag(16) )
 *     plain    JID
 *     digest   "d" || base64url( siv(24) )
 *     backend  "b" || base64url( pseudonym(9) ), where two share that "b" || base64url( siv(24) )
 *
 *     P      = kind(1) || JID, padded to a multiple of 32 bytes as in ISO/IEC 7816-4
 *     siv    = BLAKE2b-192(k_mac, proxy host || 0x00 || P)
 *     tag    = BLAKE2b-128(k_sign, proxy host || 0x00 || kind(1) || JID)
 *     pseudonym = the first 9 bytes of BLAKE2b-128(k_name, proxy host || 0x00 || kind(1) || JID)
 *     k_enc  = crypto_kdf(master key, 1, "JATtoken"), k_mac likewise with 2, k_sign with 3, k_name with 4
 *
 * The base64url is that of RFC 4648 section 5, without padding and canonical.
 * A codec makes and takes tokens of one format, and digests; whoever has it can ask for
 * those of another format. In every format, one requester has one token for the life of a
 * key, and two requesters never share one, but for short ones: these are so by chance alone,
 * and whoever hands them out has to see to it that a second requester with the same one gets
 * a digest.
 *
 * A backend's token stands for a backend, and is the same in every format. Whoever hands these out has to
 * see to it that no two backends share one, likewise.
 *
 * Nobody without the key can make a backend's, a short, a sealed or a signed token, or read a short or a
 * sealed one (the construction of these is a SIV one). A plain token can be made by anybody.
 *
 * A JID gets a digest where its token would be too long or have other bytes
 * than these, or where a plain one would look like a digest or a backend's token. Short tokens
 * and digests do not decode: they are names, which mean something only to whoever remembers (in
 * a book) for whom they were made.
 *
 * sodium_init() must have succeeded before any of this is called.
 */
#ifndef JAT_H
#define JAT_H

#include <stddef.h>
#include <stdint.h>

#include "text.h"

enum {
	JAT_KEYBYTES = 32,    /* a master key */
	JAT_TOKEN_MAX = 1023, /* bytes in the longest token */
	JAT_JID_MAX = 3071,   /* bytes in the longest JID: three parts, "@" and "/" */
	JAT_SHORTBYTES = 9,   /* in the name that a short token consists of */
	JAT_DIGESTBYTES = 24, /* in that of a digest */
	JAT_NAME_MAX = JAT_DIGESTBYTES,
};

/* What the tokens of a codec look like. */
enum jat_format {
	JAT_SHORT,
	JAT_SEALED,
	JAT_SIGNED,
	JAT_PLAIN,
};

/* What a token stands for. */
enum jat_kind {
	JAT_REQUESTER = 1,
	JAT_BACKEND = 2, /* only in names */
};

enum jat_status {
	JAT_OK = 0,
	JAT_SHORT_TOKEN, /* a well-formed short token: it says no more than that */
	JAT_DIGEST,      /* a well-formed digest, likewise */
	JAT_PLAIN_TOKEN, /* what a plain token of a JID with a node looks like, whoever made it */
	JAT_NO_KEY,      /* encode before the first jat_add_key */
	JAT_BAD_JID,     /* an empty JID, or one longer than JAT_JID_MAX */
	JAT_BAD_TOKEN,   /* no token of this format by its form */
	JAT_UNKNOWN_KEY, /* sealed under a key that is neither current nor previous */
	JAT_FORGED,      /* not sealed by this proxy host's key of that name, not signed by any it has */
};

struct jat;

/*
 * A codec for tokens of `format` at the proxy host `host` (copied), still without a
 * key. NULL if there is no memory. The caller owns it: jat_free.
 */
struct jat *jat_new(struct text host, enum jat_format format);

/* The format that was given to jat_new. */
enum jat_format jat_format(const struct jat *jat);

/* Wipes the keys and frees; NULL is harmless. */
void jat_free(struct jat *jat);

/*
 * Makes `master` the current key under the name `key_id`. The current key so
 * far becomes the previous one, which still decodes; the previous one is wiped.
 * `master` is not kept.
 */
void jat_add_key(struct jat *jat, uint8_t key_id, const uint8_t master[JAT_KEYBYTES]);

/*
 * Writes the token of that format for `jid`, whose bytes are taken as they are, and its
 * length; no terminating NUL. JAT_OK, JAT_NO_KEY or JAT_BAD_JID; what is written is undefined
 * unless JAT_OK.
 */
enum jat_status jat_encode(const struct jat *jat, enum jat_format format, enum jat_kind kind, struct text jid,
                           char token[JAT_TOKEN_MAX], size_t *token_len);

/*
 * Writes the name that the token of that format for `jid` consists of, if it is a short one or a
 * digest, and how many bytes that has: JAT_SHORTBYTES or JAT_DIGESTBYTES, or 0 for any other token.
 * JAT_OK, JAT_NO_KEY or JAT_BAD_JID, as jat_encode.
 */
enum jat_status jat_name(const struct jat *jat, enum jat_format format, enum jat_kind kind, struct text jid,
                         uint8_t name[JAT_NAME_MAX], size_t *name_len);

/* Writes the name that the digest for `jid` consists of, likewise. */
enum jat_status jat_digest(const struct jat *jat, enum jat_kind kind, struct text jid, uint8_t name[JAT_DIGESTBYTES]);

/* Writes the token that consists of such a name, of JAT_SHORTBYTES or JAT_DIGESTBYTES, and returns its length. */
size_t jat_write_name(enum jat_kind kind, const uint8_t *name, size_t name_len, char token[JAT_TOKEN_MAX]);

/* Whether it is a backend's token by its form, whoever made it. */
int jat_is_backend_token(struct text token);

/* Whether the token of that format is a digest for `jid`. */
int jat_needs_digest(enum jat_format format, struct text jid);

/*
 * Writes the name that a requester's short token or digest consists of, and returns how many bytes that has; 0
 * if `token` is neither. Only digests are looked for unless `format` is JAT_SHORT.
 */
size_t jat_read_name(struct text token, enum jat_format format, uint8_t name[JAT_NAME_MAX]);

/*
 * Writes the JID and the kind a sealed or signed token of that format stands for, and JAT_OK.
 * All else writes nothing: JAT_SHORT_TOKEN, JAT_DIGEST, JAT_BAD_TOKEN; of a sealed token
 * JAT_UNKNOWN_KEY, JAT_FORGED; of a signed one JAT_FORGED; of a plain one
 * JAT_PLAIN_TOKEN, or JAT_BAD_TOKEN where its JID has no node and could be
 * anything. The comparison takes a time that does not depend on the secret.
 */
enum jat_status jat_decode(const struct jat *jat, enum jat_format format, struct text token, enum jat_kind *kind,
                           char jid[JAT_JID_MAX], size_t *jid_len);

#endif
