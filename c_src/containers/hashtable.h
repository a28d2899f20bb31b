/*
 * A hash table whose keys come from strangers: SipHash under a secret seed, so
 * that nobody can aim at a bucket, and linear hashing, so that each call grows
 * or shrinks the table by a few buckets at most and none has to rehash it all.
 *
 * The table knows its nodes by their hash alone. Two keys have the same hash with
 * a probability of 2^-64, if whoever chooses them does not know the seed: a caller
 * for whom that is too much compares the keys of the nodes it gets. Nodes with the
 * same hash stay in the order they were added (but see hashtable_add_first).
 *
 * Nodes live inside the caller's structures, which the table never allocates,
 * copies or frees.
 */
#ifndef HASHTABLE_H
#define HASHTABLE_H

#include <stddef.h>
#include <stdint.h>

#include "containers/slots.h"
#include "text.h"

enum { HASHTABLE_SEEDBYTES = 16 };

struct hashtable_node {
	struct hashtable_node *next;
	uint64_t hash;
};

struct hashtable {
	struct slots buckets;
	size_t bucket_count;
	size_t node_count;
	size_t load; /* how many nodes there may be for each bucket */
	uint8_t seed[HASHTABLE_SEEDBYTES];
};

/* 0, or -1 if there is no memory; then there is nothing to free. */
int hashtable_init(struct hashtable *table, const uint8_t seed[HASHTABLE_SEEDBYTES]);

/*
 * From now on, the table grows where there are more than `load` (at least 1) nodes for each bucket, which is 1
 * else: it takes 8 bytes for each node, divided by that, and a call looks at so many times as many nodes. The
 * table is empty.
 */
void hashtable_set_load(struct hashtable *table, size_t load);

/*
 * Frees the buckets and wipes the seed; the nodes are the caller's. The table must not be
 * used any more. Harmless if it is all zero.
 */
void hashtable_free(struct hashtable *table);

/* The keyed hash of `data`. */
uint64_t hashtable_hash(const struct hashtable *table, struct text data);

/*
 * Has the memory fetched that a call with that hash is going to need, while the caller does something else: first
 * the bucket, then, by a second call, the first node in there. Neither changes anything.
 */
void hashtable_fetch(const struct hashtable *table, uint64_t hash);
void hashtable_fetch_first(const struct hashtable *table, uint64_t hash);

/* The first node with that hash, or NULL. */
struct hashtable_node *hashtable_find(const struct hashtable *table, uint64_t hash);

/* The node with the same hash that was added after `node`, or NULL. */
struct hashtable_node *hashtable_next(const struct hashtable_node *node);

/*
 * The first of all nodes whose hash has those bits in common with `hash` that are
 * written to `mask`, or NULL; the others follow by `next`. The mask is 2^k - 1,
 * and there are on average fewer than two such nodes (times the load). Each number
 * below `bucket_count`, taken as a hash, has others: all together, these are all nodes.
 */
struct hashtable_node *hashtable_bucket(const struct hashtable *table, uint64_t hash, uint64_t *mask);

/*
 * Adds `node`, whose `hash` is set. Cannot fail: where there is no memory to
 * grow, the chains get longer instead.
 */
void hashtable_add(struct hashtable *table, struct hashtable_node *node);

/* The same, but `node` comes before all others with its hash, so that no other node has to be looked at. */
void hashtable_add_first(struct hashtable *table, struct hashtable_node *node);

/* Takes `node`, which is in the table, out of it. */
void hashtable_remove(struct hashtable *table, struct hashtable_node *node);

#endif
