#include "hashtable.h"

#include <sodium.h>
#include <string.h>

enum {
	BUCKETS_MIN = 8,
	/* Removing shrinks faster than adding grows, so that an emptied table is small again. */
	SHRINK_STEPS = 4,
};

int hashtable_init(struct hashtable *table, const uint8_t seed[HASHTABLE_SEEDBYTES])
{
	*table = (struct hashtable){.bucket_count = BUCKETS_MIN};
	memcpy(table->seed, seed, HASHTABLE_SEEDBYTES);
	if (slots_reserve(&table->buckets, BUCKETS_MIN) != 0) {
		hashtable_free(table);
		return -1;
	}
	return 0;
}

void hashtable_free(struct hashtable *table)
{
	slots_free(&table->buckets);
	sodium_memzero(table->seed, sizeof table->seed);
}

void hashtable_hash(const struct hashtable *table, const void *data, size_t len, uint8_t hash[HASHTABLE_HASHBYTES])
{
	crypto_shorthash_siphashx24(hash, data, len, table->seed);
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
static size_t bucket_number(const struct hashtable *table, const uint8_t hash[HASHTABLE_HASHBYTES])
{
	size_t mask = bucket_mask(table->bucket_count);
	size_t number;

	memcpy(&number, hash, sizeof number);
	number &= mask;
	return number < table->bucket_count ? number : number & (mask >> 1);
}

static struct hashtable_node **bucket_at(const struct hashtable *table, size_t number)
{
	return (struct hashtable_node **)slots_at(&table->buckets, number);
}

/* The pointer that points to the node with that hash, or to the chain's NULL. */
static struct hashtable_node **find_link(const struct hashtable *table, const uint8_t hash[HASHTABLE_HASHBYTES])
{
	struct hashtable_node **link = bucket_at(table, bucket_number(table, hash));

	while (*link != NULL && memcmp((*link)->hash, hash, HASHTABLE_HASHBYTES) != 0) {
		link = &(*link)->next;
	}
	return link;
}

static void push(struct hashtable *table, struct hashtable_node *node)
{
	struct hashtable_node **bucket = bucket_at(table, bucket_number(table, node->hash));

	node->next = *bucket;
	*bucket = node;
}

/* Deals the nodes of one bucket out again. */
static void redeal(struct hashtable *table, struct hashtable_node **bucket)
{
	struct hashtable_node *node = *bucket;

	*bucket = NULL;
	while (node != NULL) {
		struct hashtable_node *next = node->next;

		push(table, node);
		node = next;
	}
}

static void grow(struct hashtable *table)
{
	size_t fresh = table->bucket_count;

	if (slots_reserve(&table->buckets, fresh + 1) != 0) {
		return;
	}
	table->bucket_count++;
	redeal(table, bucket_at(table, fresh & (bucket_mask(table->bucket_count) >> 1)));
}

static void shrink(struct hashtable *table)
{
	size_t last = --table->bucket_count;

	redeal(table, bucket_at(table, last));
	slots_trim(&table->buckets, table->bucket_count);
}

struct hashtable_node *hashtable_find(const struct hashtable *table, const uint8_t hash[HASHTABLE_HASHBYTES])
{
	return *find_link(table, hash);
}

void hashtable_add(struct hashtable *table, struct hashtable_node *node)
{
	push(table, node);
	table->node_count++;
	if (table->node_count > table->bucket_count) {
		grow(table);
	}
}

void hashtable_remove(struct hashtable *table, struct hashtable_node *node)
{
	int step;

	*find_link(table, node->hash) = node->next;
	table->node_count--;
	for (step = 0; step < SHRINK_STEPS; step++) {
		if (table->bucket_count > BUCKETS_MIN && table->node_count < table->bucket_count / 2) {
			shrink(table);
		}
	}
}

void hashtable_replace(struct hashtable *table, struct hashtable_node *node, struct hashtable_node *fresh)
{
	*find_link(table, node->hash) = fresh;
	*fresh = *node;
}
