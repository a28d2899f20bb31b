/*
 * A text: any bytes at all, NUL bytes included, and how many they are. It does not
 * own them, so whoever is given one copies what has to outlive the call.
 */
#ifndef TEXT_H
#define TEXT_H

#include <stddef.h>
#include <string.h>

/* With `bytes` NULL, and a length of 0, there is none; an empty text has some address. */
struct text {
	const char *bytes;
	size_t length;
};

static inline int text_is_equal(struct text a, struct text b)
{
	return a.length == b.length && (a.length == 0 || memcmp(a.bytes, b.bytes, a.length) == 0);
}

/* What is behind its first `count` bytes; it has at least as many. */
static inline struct text text_behind(struct text text, size_t count)
{
	return (struct text){text.bytes + count, text.length - count};
}

#endif
