#include "containers/ring.h"

#include <sodium.h>
#include <string.h>

#include "containers/splitmix.h"

int ring_init(struct ring *ring)
{
	static const uint8_t no_seed[HASHTABLE_SEEDBYTES]; /* the table computes no hashes: they are made here */

	return hashtable_init(&ring->points, no_seed);
}

void ring_free(struct ring *ring)
{
	hashtable_free(&ring->points);
}

/* The number that these bytes are, the lowest first: the same on every machine. */
static uint64_t load64(const unsigned char bytes[8])
{
	uint64_t number = 0;
	int i;

	for (i = 7; i >= 0; i--) {
		number = number << 8 | bytes[i];
	}
	return number;
}

/*
 * Makes a position a hash, or a hash a position, by reversing the order of its bits.
 * Positions that are next to each other on the ring agree in their highest bits,
 * hashes that are in the same bucket in their lowest.
 */
static uint64_t reverse(uint64_t bits)
{
	bits = (bits >> 1 & UINT64_C(0x5555555555555555)) | (bits & UINT64_C(0x5555555555555555)) << 1;
	bits = (bits >> 2 & UINT64_C(0x3333333333333333)) | (bits & UINT64_C(0x3333333333333333)) << 2;
	bits = (bits >> 4 & UINT64_C(0x0f0f0f0f0f0f0f0f)) | (bits & UINT64_C(0x0f0f0f0f0f0f0f0f)) << 4;
	bits = (bits >> 8 & UINT64_C(0x00ff00ff00ff00ff)) | (bits & UINT64_C(0x00ff00ff00ff00ff)) << 8;
	bits = (bits >> 16 & UINT64_C(0x0000ffff0000ffff)) | (bits & UINT64_C(0x0000ffff0000ffff)) << 16;
	return bits >> 32 | bits << 32;
}

enum { CACHED_MAX = 1 << 16 }; /* points that are in a cache anyway, where to fetch them takes longer than it saves */

/*
 * The points of a member, and the positions of a text, are all over the ring, and so all over the memory if there are
 * many members. So what is needed for all of them is fetched at the same time, before it is waited for.
 */
static void fetch(const struct ring *ring, const uint64_t hashes[], int count)
{
	int i;

	for (i = 0; i < count; i++) {
		hashtable_fetch(&ring->points, hashes[i]);
	}
	for (i = 0; i < count; i++) {
		hashtable_fetch_first(&ring->points, hashes[i]);
	}
}

static void fetch_points(const struct ring *ring, const struct ring_member *member)
{
	uint64_t hashes[RING_POINTS];
	int i;

	for (i = 0; i < RING_POINTS; i++) {
		hashes[i] = member->points[i].node.hash;
	}
	fetch(ring, hashes, RING_POINTS);
}

static void fetch_positions(const struct ring *ring, const uint64_t positions[RING_POSITIONS])
{
	uint64_t hashes[RING_POSITIONS];
	int i;

	for (i = 0; i < RING_POSITIONS; i++) {
		hashes[i] = reverse(positions[i]);
	}
	fetch(ring, hashes, RING_POSITIONS);
}

static int is_too_large_for_caches(const struct ring *ring)
{
	return ring->points.node_count > CACHED_MAX;
}

/* SipHash with 128 bits: half for the points, half for the rank. */
void ring_add(struct ring *ring, struct ring_member *member, const uint8_t key[RING_KEYBYTES], struct text name)
{
	unsigned char hash[crypto_shorthash_siphashx24_BYTES];
	uint64_t state;
	int i;

	crypto_shorthash_siphashx24(hash, (const unsigned char *)name.bytes, name.length, key);
	state = load64(hash);
	member->rank = load64(hash + 8);
	for (i = 0; i < RING_POINTS; i++) {
		member->points[i].member = member;
		member->points[i].node.hash = reverse(splitmix64(&state));
	}
	if (is_too_large_for_caches(ring)) {
		fetch_points(ring, member);
	}
	for (i = 0; i < RING_POINTS; i++) {
		hashtable_add(&ring->points, &member->points[i].node);
	}
}

void ring_remove(struct ring *ring, struct ring_member *member)
{
	int i;

	if (is_too_large_for_caches(ring)) {
		fetch_points(ring, member);
	}
	for (i = 0; i < RING_POINTS; i++) {
		hashtable_remove(&ring->points, &member->points[i].node);
	}
}

struct candidate {
	struct ring_member *member;
	uint64_t distance;
};

static int is_nearer(struct candidate a, struct candidate b)
{
	return a.distance != b.distance ? a.distance < b.distance : a.member->rank < b.member->rank;
}

/* Looks in one bucket for a point that comes after `position` and is nearer to it than `nearest` is. */
static void look_at(const struct hashtable_node *node, uint64_t position, const struct ring_member *except,
                    struct candidate *nearest)
{
	for (; node != NULL; node = node->next) {
		const struct ring_point *point = (const void *)((const char *)node - offsetof(struct ring_point, node));
		struct candidate found = {point->member, reverse(node->hash) - position};

		if (found.member != except && (nearest->member == NULL || is_nearer(found, *nearest))) {
			*nearest = found;
		}
	}
}

/* Looks in bucket after bucket, until what is left cannot be nearer than `nearest`, or nothing is left. */
static void look_from(const struct ring *ring, uint64_t position, const struct ring_member *except,
                      struct candidate *nearest)
{
	uint64_t there = position, mask, last;
	size_t count;

	/* unreachable: the end of this loop, unless all points are in the bucket of `position`, and ahead of it */
	for (count = 0; count < ring->points.bucket_count; count++) {
		look_at(hashtable_bucket(&ring->points, reverse(there), &mask), position, except, nearest);
		last = there | ~reverse(mask); /* position in this bucket */
		if (last - position >= nearest->distance) {
			return;
		}
		there = last + 1;
	}
}

struct ring_member *ring_find(const struct ring *ring, const uint8_t key[RING_KEYBYTES], struct text text,
                              const struct ring_member *except)
{
	unsigned char hash[crypto_shorthash_siphash24_BYTES];
	struct candidate nearest = {NULL, UINT64_MAX};
	uint64_t positions[RING_POSITIONS], state;
	int i;

	crypto_shorthash_siphash24(hash, (const unsigned char *)text.bytes, text.length, key);
	state = load64(hash);
	for (i = 0; i < RING_POSITIONS; i++) {
		positions[i] = splitmix64(&state);
	}
	if (is_too_large_for_caches(ring)) {
		fetch_positions(ring, positions);
	}
	for (i = 0; i < RING_POSITIONS; i++) {
		look_from(ring, positions[i], except, &nearest);
	}
	return nearest.member;
}
