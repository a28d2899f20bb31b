#include "containers/hashtable.h"

#include <sodium.h>
#include <string.h>

enum {
	BUCKETS_MIN = 8,
	/* Removing shrinks faster than adding grows, so that an emptied table is small again. */
	SHRINK_STEPS = 4,
	AHEAD = 3, /* how many buckets ahead of where the table grows nodes are fetched */
};

int hashtable_init(struct hashtable *table, const uint8_t seed[HASHTABLE_SEEDBYTES])
{
	*table = (struct hashtable){0};
	memcpy(table->seed, seed, HASHTABLE_SEEDBYTES);
	if (slots_reserve(&table->buckets, BUCKETS_MIN) != 0) {
		hashtable_free(table);
		return -1;
	}
	table->bucket_count = BUCKETS_MIN;
	table->load = 1;
	return 0;
}

void hashtable_set_load(struct hashtable *table, size_t load)
{
	table->load = load;
}

void hashtable_free(struct hashtable *table)
{
	slots_free(&table->buckets);
	sodium_memzero(table->seed, sizeof table->seed);
}

uint64_t hashtable_hash(const struct hashtable *table, struct text data)
{
	uint64_t hash;
	unsigned char bytes[crypto_shorthash_BYTES];

	crypto_shorthash(bytes, (const unsigned char *)data.bytes, data.length, table->seed);
	memcpy(&hash, bytes, sizeof hash);
	return hash;
}

/* The least 2^k - 1 that covers every bucket's number. */
static size_t bucket_mask(size_t bucket_count)
{
	size_t mask = bucket_count - 1;
	unsigned shift;

	for (shift = 1; shift < sizeof mask * 8; shift *= 2) {
		mask |= mask >> shift;
	}
	return mask;
}

/*
 * Linear hashing: the buckets from bucket_count up to the mask have not been
 * split off yet, their nodes are still where the next smaller mask puts them.
 */
static size_t mask_of(const struct hashtable *table, uint64_t hash)
{
	size_t mask = bucket_mask(table->bucket_count);
	size_t upper_half = (mask >> 1) + 1;

	return (((size_t)hash | upper_half) & mask) < table->bucket_count ? mask : mask >> 1;
}

static size_t bucket_number(const struct hashtable *table, uint64_t hash)
{
	return (size_t)hash & mask_of(table, hash);
}

static struct hashtable_node **bucket_at(const struct hashtable *table, size_t number)
{
	return (struct hashtable_node **)slots_at(&table->buckets, number);
}

static struct hashtable_node **bucket_of(const struct hashtable *table, uint64_t hash)
{
	return bucket_at(table, bucket_number(table, hash));
}

static struct hashtable_node *first_with(struct hashtable_node *node, uint64_t hash)
{
	while (node != NULL && node->hash != hash) {
		node = node->next;
	}
	return node;
}

static struct hashtable_node **end_of(struct hashtable_node **link)
{
	while (*link != NULL) {
		link = &(*link)->next;
	}
	return link;
}

/* Moves the nodes that belong into the newest bucket there; all keep their order. */
static void split(struct hashtable *table, size_t from, size_t newest)
{
	struct hashtable_node **kept = bucket_at(table, from);
	struct hashtable_node **moved = bucket_at(table, newest);
	struct hashtable_node *node = *kept;

	*moved = NULL;
	for (; node != NULL; node = node->next) {
		struct hashtable_node ***end = bucket_number(table, node->hash) == newest ? &moved : &kept;

		**end = node;
		*end = &node->next;
	}
	*kept = NULL;
	*moved = NULL;
}

/* The bucket that has the nodes of bucket `number` until that is split off. */
static size_t origin_of(size_t number)
{
	return number & (bucket_mask(number + 1) >> 1);
}

/*
 * Has the memory fetched that the next calls need which split buckets. These come one after the other, but their nodes
 * are all over the memory, and each in a chain is to be had from the one before it. So the first node is fetched AHEAD
 * buckets before its turn, the second one a bucket later, and so on.
 */
static void fetch_next_splits(const struct hashtable *table)
{
	size_t ahead, passed;

	for (ahead = 0; ahead < AHEAD; ahead++) {
		const struct hashtable_node *node = *bucket_at(table, origin_of(table->bucket_count + ahead));

		for (passed = ahead + 1; passed < AHEAD && node != NULL; passed++) {
			node = node->next;
		}
		__builtin_prefetch(node);
	}
}

static void grow(struct hashtable *table)
{
	size_t newest = table->bucket_count;

	if (slots_reserve(&table->buckets, newest + 1) != 0) {
		return;
	}
	table->bucket_count++;
	split(table, origin_of(newest), newest);
	fetch_next_splits(table);
}

static void shrink(struct hashtable *table)
{
	size_t last = --table->bucket_count;
	struct hashtable_node **bucket = bucket_at(table, last);

	/* All other nodes there have other hashes. */
	*end_of(bucket_at(table, origin_of(last))) = *bucket;
	*bucket = NULL;
	slots_trim(&table->buckets, table->bucket_count);
}

void hashtable_fetch(const struct hashtable *table, uint64_t hash)
{
	__builtin_prefetch(bucket_of(table, hash));
}

void hashtable_fetch_first(const struct hashtable *table, uint64_t hash)
{
	__builtin_prefetch(*bucket_of(table, hash));
}

struct hashtable_node *hashtable_find(const struct hashtable *table, uint64_t hash)
{
	return first_with(*bucket_of(table, hash), hash);
}

struct hashtable_node *hashtable_next(const struct hashtable_node *node)
{
	return first_with(node->next, node->hash);
}

struct hashtable_node *hashtable_bucket(const struct hashtable *table, uint64_t hash, uint64_t *mask)
{
	*mask = mask_of(table, hash);
	return *bucket_at(table, (size_t)(hash & *mask));
}

/* Puts `node` where that link is. */
static void add_at(struct hashtable *table, struct hashtable_node **link, struct hashtable_node *node)
{
	node->next = *link;
	*link = node;
	table->node_count++;
	if (table->node_count > table->bucket_count * table->load) {
		grow(table);
	}
}

void hashtable_add(struct hashtable *table, struct hashtable_node *node)
{
	add_at(table, end_of(bucket_of(table, node->hash)), node);
}

void hashtable_add_first(struct hashtable *table, struct hashtable_node *node)
{
	add_at(table, bucket_of(table, node->hash), node);
}

void hashtable_remove(struct hashtable *table, struct hashtable_node *node)
{
	struct hashtable_node **link = bucket_of(table, node->hash);
	int step;

	while (*link != node) {
		link = &(*link)->next;
	}
	*link = node->next;
	table->node_count--;
	for (step = 0; step < SHRINK_STEPS; step++) {
		if (table->bucket_count > BUCKETS_MIN && table->node_count < table->bucket_count * table->load / 2) {
			shrink(table);
		}
	}
}
