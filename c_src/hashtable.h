/*
 * A hash table whose keys come from strangers: SipHash under a secret seed, so
 * that nobody can aim at a bucket, and linear hashing, so that each call grows
 * or shrinks the table by a few buckets at most and none has to rehash it all.
 *
 * A key is known by its 128-bit keyed hash alone. Finding two keys with the
 * same hash is out of reach without the seed, so the keys are not kept.
 *
 * Nodes live inside the caller's structures, which the table never allocates,
 * copies or frees.
 */
#ifndef HASHTABLE_H
#define HASHTABLE_H

#include <stddef.h>
#include <stdint.h>

#include "slots.h"

enum {
	HASHTABLE_SEEDBYTES = 16,
	HASHTABLE_HASHBYTES = 16,
};

struct hashtable_node {
	struct hashtable_node *next;
	uint8_t hash[HASHTABLE_HASHBYTES];
};

struct hashtable {
	struct slots buckets;
	size_t bucket_count;
	size_t node_count;
	uint8_t seed[HASHTABLE_SEEDBYTES];
};

/* 0, or -1 if there is no memory; then there is nothing to free. */
int hashtable_init(struct hashtable *table, const uint8_t seed[HASHTABLE_SEEDBYTES]);

/* Frees the buckets and wipes the seed; the nodes are the caller's. */
void hashtable_free(struct hashtable *table);

/* The keyed hash of `data`. */
void hashtable_hash(const struct hashtable *table, const void *data, size_t len, uint8_t hash[HASHTABLE_HASHBYTES]);

/* The node with that hash, or NULL. */
struct hashtable_node *hashtable_find(const struct hashtable *table, const uint8_t hash[HASHTABLE_HASHBYTES]);

/*
 * Adds `node`, whose `hash` is set and not in the table yet. Cannot fail: where
 * there is no memory to grow, the chains get longer instead.
 */
void hashtable_add(struct hashtable *table, struct hashtable_node *node);

/* Takes `node`, which is in the table, out of it. */
void hashtable_remove(struct hashtable *table, struct hashtable_node *node);

/* Puts `fresh`, which gets the hash of `node`, in the place of `node`. */
void hashtable_replace(struct hashtable *table, struct hashtable_node *node, struct hashtable_node *fresh);

#endif
