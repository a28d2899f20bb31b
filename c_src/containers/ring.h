/*
 * Consistent choice: which member a text falls to depends on the text and on the
 * set of members alone. When a member leaves, only what fell to it falls to
 * others; when one joins, only what falls to it from then on moves.
 *
 * Multi-probe consistent hashing (Appleton and O'Reilly, 2015): members have
 * points on a ring of 2^64 positions, a text has some positions there, too, and
 * falls to the member whose point is the nearest after any of these. A member's
 * share is within about 4 per cent of the mean (standard deviation), however few
 * they are; of a million sets of two, of three, and of ten, none had a member with
 * more than 1.25 times the mean. (With one point each, as in the paper, every
 * sixteenth set of two has, and every hundredth of ten.)
 *
 * Everything is O(1) (expected, unless somebody who knows the key chooses the
 * names): the points are in a hash table whose buckets are the parts of the ring.
 * A member lives inside the caller's structure, which the ring never allocates,
 * copies or frees.
 *
 * sodium_init() must have succeeded before any of this is called.
 */
#ifndef RING_H
#define RING_H

#include <stddef.h>
#include <stdint.h>

#include "containers/hashtable.h"
#include "text.h"

/* With another number of points or positions, nearly all texts would fall to another member. */
enum {
	RING_KEYBYTES = 16,
	RING_POINTS = 16,    /* of a member */
	RING_POSITIONS = 21, /* of a text */
};

struct ring_point {
	struct hashtable_node node;
	struct ring_member *member;
};

struct ring_member {
	struct ring_point points[RING_POINTS];
	uint64_t rank; /* of two with a point in the same position, the one with the lower rank comes first */
};

/* All zero is an empty ring, which ring_init has to make ready for use. */
struct ring {
	struct hashtable points;
};

/* Makes `ring` ready for use. 0, or -1 if there is no memory. */
int ring_init(struct ring *ring);

/* Frees the ring's memory; the members are the caller's. Harmless if the ring was never made ready. */
void ring_free(struct ring *ring);

/*
 * Adds `member`, under a name that no other one in the ring has. What falls to whom
 * depends on the key, which is the same in all calls for one ring.
 */
void ring_add(struct ring *ring, struct ring_member *member, const uint8_t key[RING_KEYBYTES], struct text name);

/* Takes `member`, which is in the ring, out of it. */
void ring_remove(struct ring *ring, struct ring_member *member);

/*
 * The member that `text` falls to, or would if `except` (NULL: nobody) were not
 * in the ring; there has to be another one in it.
 */
struct ring_member *ring_find(const struct ring *ring, const uint8_t key[RING_KEYBYTES], struct text text,
                              const struct ring_member *except);

#endif
