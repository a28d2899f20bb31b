/*
 * An ordered set: a treap, that is a search tree which random heights keep as
 * shallow as one whose nodes were added in a random order, whatever the keys.
 *
 * Adding, removing and going on to the next are O(log n) (expected), the first
 * is O(1).
 * Nothing can fail: a node lives inside the caller's structure, which the tree
 * never allocates, copies or frees.
 */
#ifndef TREE_H
#define TREE_H

#include <stdint.h>

/* Ordered by `high`, then by `low`. No two nodes in a tree have the same. */
struct tree_key {
	uint64_t high, low;
};

struct tree_node {
	struct tree_key key;
	uint64_t height; /* no node is higher than the one above it */
	struct tree_node *left, *right;
};

struct tree {
	struct tree_node *root;
	struct tree_node *first;
	uint64_t random_state;
};

/* Makes `tree` an empty one; its heights follow from `seed`. */
void tree_init(struct tree *tree, uint64_t seed);

/* Adds `node`, whose `key` is set and is not in the tree yet. */
void tree_add(struct tree *tree, struct tree_node *node);

/* Takes `node`, which is in the tree, out of it. */
void tree_remove(struct tree *tree, struct tree_node *node);

/* The node with the lowest key, or NULL. */
struct tree_node *tree_first(const struct tree *tree);

/* The first node whose key is higher than that of `node`, or NULL. */
struct tree_node *tree_after(const struct tree *tree, const struct tree_node *node);

#endif
