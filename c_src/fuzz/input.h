/*
 * What libFuzzer hands to a target, read as small numbers; behind its end, all
 * of them are 0.
 *
 * A target fails by assert() or by a sanitizer.
 */
#ifndef INPUT_H
#define INPUT_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "text.h"

struct input {
	const uint8_t *bytes;
	size_t len;
};

/* libFuzzer's, which has no header for them. */
int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static inline unsigned read_byte(struct input *input)
{
	if (input->len == 0) {
		return 0;
	}
	input->len--;
	return *input->bytes++;
}

/* Below `bound`, which is 256 at most. */
static inline unsigned read_below(struct input *input, unsigned bound)
{
	return read_byte(input) % bound;
}

/* Below 65536 */
static inline unsigned read_pair(struct input *input)
{
	unsigned high = read_byte(input);

	return high << 8 | read_byte(input);
}

/* A copy that ends where its memory does, so that AddressSanitizer catches who reads on. The caller frees it. */
static inline struct text text_copy(struct text text)
{
	char *copy = malloc(text.length);

	assert(copy != NULL);
	memcpy(copy, text.bytes, text.length);
	return (struct text){copy, text.length};
}

static inline void free_text(struct text text)
{
	free((char *)text.bytes);
}

#endif
