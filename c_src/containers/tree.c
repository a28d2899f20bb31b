#include "containers/tree.h"

#include <stddef.h>

#include "containers/splitmix.h"

void tree_init(struct tree *tree, uint64_t seed)
{
	*tree = (struct tree){.random_state = seed};
}

static int precedes(struct tree_key a, struct tree_key b)
{
	return a.high != b.high ? a.high < b.high : a.low < b.low;
}

/* The pointer that leads to `node`, or has to lead there once it is added. */
static struct tree_node **link_of(struct tree *tree, const struct tree_node *node)
{
	struct tree_node **link = &tree->root;

	while (*link != NULL && *link != node && (*link)->height >= node->height) {
		link = precedes((*link)->key, node->key) ? &(*link)->right : &(*link)->left;
	}
	return link;
}

/* Splits the tree below `top` into what precedes `key` and what does not. */
static void split(struct tree_node *top, struct tree_key key, struct tree_node **left, struct tree_node **right)
{
	while (top != NULL) {
		if (precedes(top->key, key)) {
			*left = top;
			left = &top->right;
			top = *left;
		} else {
			*right = top;
			right = &top->left;
			top = *right;
		}
	}
	*left = NULL;
	*right = NULL;
}

/* Makes one tree of two, where all of `left` precedes all of `right`, and hangs it at `link`. */
static void join(struct tree_node **link, struct tree_node *left, struct tree_node *right)
{
	while (left != NULL && right != NULL) {
		if (left->height >= right->height) {
			*link = left;
			link = &left->right;
			left = *link;
		} else {
			*link = right;
			link = &right->left;
			right = *link;
		}
	}
	*link = left != NULL ? left : right;
}

void tree_add(struct tree *tree, struct tree_node *node)
{
	struct tree_node **link;

	node->height = splitmix64(&tree->random_state);
	link = link_of(tree, node);
	split(*link, node->key, &node->left, &node->right);
	*link = node;
	if (tree->first == NULL || precedes(node->key, tree->first->key)) {
		tree->first = node;
	}
}

void tree_remove(struct tree *tree, struct tree_node *node)
{
	if (tree->first == node) {
		tree->first = tree_after(tree, node);
	}
	join(link_of(tree, node), node->left, node->right);
}

struct tree_node *tree_first(const struct tree *tree)
{
	return tree->first;
}

struct tree_node *tree_after(const struct tree *tree, const struct tree_node *node)
{
	struct tree_node *other = tree->root, *after = NULL;

	while (other != NULL) {
		if (precedes(node->key, other->key)) {
			after = other;
			other = other->left;
		} else {
			other = other->right;
		}
	}
	return after;
}
