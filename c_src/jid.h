/*
 * The parts of a JID (RFC 7622 section 3.1): node@host/resource, of which the node and the
 * resource, with what sets them off, can be missing. The first "/" is where the resource
 * begins, and may be followed by any others, and by any "@".
 */
#ifndef JID_H
#define JID_H

#include "text.h"

/* The JID without its resource; what is returned lies in `jid`. */
static inline struct text jid_bare(struct text jid)
{
	const char *slash = jid.length > 0 ? memchr(jid.bytes, '/', jid.length) : NULL;

	return (struct text){jid.bytes, slash == NULL ? jid.length : (size_t)(slash - jid.bytes)};
}

/* What is before its "@", nothing if there is none; what is returned lies in `jid`. */
static inline struct text jid_node(struct text jid)
{
	struct text bare = jid_bare(jid);
	const char *at = bare.length > 0 ? memchr(bare.bytes, '@', bare.length) : NULL;

	return (struct text){bare.bytes, at == NULL ? 0 : (size_t)(at - bare.bytes)};
}

/* Whether it is node@host or node@host/resource, with something in each part and one "@" before the resource. */
static inline int jid_has_node(struct text jid)
{
	struct text bare = jid_bare(jid);
	const char *at = bare.length > 0 ? memchr(bare.bytes, '@', bare.length) : NULL, *host, *end;

	if (at == NULL) {
		return 0;
	}
	host = at + 1;
	end = bare.bytes + bare.length;
	return at > bare.bytes && host < end && memchr(host, '@', (size_t)(end - host)) == NULL &&
	       jid.length != bare.length + 1;
}

#endif
