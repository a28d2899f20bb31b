#include "pending.h"

#include <stdlib.h>
#include <string.h>

#include "cells.h"
#include "deadlines.h"
#include "hashtable.h"

/*
 * Entries with equal answers form a ring in the order they came in. The oldest
 * one stands for the ring in the hash table.
 */
struct pending_entry {
	struct hashtable_node node;
	struct deadline deadline;
	struct pending_entry *older;   /* of the oldest: the youngest */
	struct pending_entry *younger; /* of the youngest: the oldest */
	size_t requester_len;
	size_t service_len;
	size_t id_len;
	char texts[]; /* requester, service, id */
};

struct pending {
	struct hashtable oldest;
	struct deadlines deadlines;
	struct cells cells; /* where the entries are */
};

static struct pending_entry *entry_of_node(struct hashtable_node *node)
{
	return node == NULL ? NULL : (void *)((char *)node - offsetof(struct pending_entry, node));
}

static struct pending_entry *entry_of_deadline(struct deadline *deadline)
{
	return deadline == NULL ? NULL : (void *)((char *)deadline - offsetof(struct pending_entry, deadline));
}

struct pending *pending_new(const uint8_t seed[PENDING_SEEDBYTES])
{
	struct pending *pending = calloc(1, sizeof *pending);

	if (pending != NULL && hashtable_init(&pending->oldest, seed) != 0) {
		free(pending);
		pending = NULL;
	}
	return pending;
}

void pending_free(struct pending *pending)
{
	struct pending_entry *entry;

	if (pending == NULL) {
		return;
	}
	while ((entry = pending_first(pending)) != NULL) {
		pending_remove(pending, entry);
	}
	cells_release(&pending->cells);
	deadlines_free(&pending->deadlines);
	hashtable_free(&pending->oldest);
	free(pending);
}

/* Hashes the parts one by one, so that none can pass for the end of another. */
static void hash_answer(const struct pending *pending, const struct pending_answer *answer,
                        uint8_t hash[HASHTABLE_HASHBYTES])
{
	uint8_t parts[3][HASHTABLE_HASHBYTES];

	hashtable_hash(&pending->oldest, answer->from.bytes, answer->from.len, parts[0]);
	hashtable_hash(&pending->oldest, answer->to.bytes, answer->to.len, parts[1]);
	hashtable_hash(&pending->oldest, answer->id.bytes, answer->id.len, parts[2]);
	hashtable_hash(&pending->oldest, parts, sizeof parts, hash);
}

static char *append(char *end, struct pending_text text)
{
	if (text.len > 0) {
		memcpy(end, text.bytes, text.len);
	}
	return end + text.len;
}

static struct pending_entry *new_entry(struct pending *pending, const struct pending_request *request)
{
	size_t texts_len = request->requester.len + request->service.len + request->id.len;
	struct pending_entry *entry = cells_alloc(&pending->cells, sizeof *entry + texts_len);

	if (entry == NULL) {
		return NULL;
	}
	entry->deadline.at = request->deadline;
	entry->requester_len = request->requester.len;
	entry->service_len = request->service.len;
	entry->id_len = request->id.len;
	append(append(append(entry->texts, request->requester), request->service), request->id);
	return entry;
}

static void free_entry(struct pending *pending, struct pending_entry *entry)
{
	cells_free(&pending->cells, entry, sizeof *entry + entry->requester_len + entry->service_len + entry->id_len);
}

/* Makes `entry` the youngest of those with its hash. */
static void join_ring(struct pending *pending, struct pending_entry *entry)
{
	struct pending_entry *oldest = entry_of_node(hashtable_find(&pending->oldest, entry->node.hash));

	if (oldest == NULL) {
		entry->older = entry->younger = entry;
		hashtable_add(&pending->oldest, &entry->node);
		return;
	}
	entry->older = oldest->older;
	entry->younger = oldest;
	entry->older->younger = entry;
	entry->younger->older = entry;
}

static void leave_ring(struct pending *pending, struct pending_entry *entry)
{
	if (entry->younger == entry) {
		hashtable_remove(&pending->oldest, &entry->node);
		return;
	}
	if (hashtable_find(&pending->oldest, entry->node.hash) == &entry->node) {
		hashtable_replace(&pending->oldest, &entry->node, &entry->younger->node);
	}
	entry->older->younger = entry->younger;
	entry->younger->older = entry->older;
}

int pending_add(struct pending *pending, const struct pending_answer *answer, const struct pending_request *request)
{
	struct pending_entry *entry = new_entry(pending, request);

	if (entry == NULL) {
		return -1;
	}
	if (deadlines_add(&pending->deadlines, &entry->deadline) != 0) {
		free_entry(pending, entry);
		return -1;
	}
	hash_answer(pending, answer, entry->node.hash);
	join_ring(pending, entry);
	return 0;
}

struct pending_entry *pending_find(const struct pending *pending, const struct pending_answer *answer)
{
	uint8_t hash[HASHTABLE_HASHBYTES];

	hash_answer(pending, answer, hash);
	return entry_of_node(hashtable_find(&pending->oldest, hash));
}

struct pending_entry *pending_first(const struct pending *pending)
{
	return entry_of_deadline(deadlines_first(&pending->deadlines));
}

struct pending_request pending_read(const struct pending_entry *entry)
{
	const char *service = entry->texts + entry->requester_len;

	return (struct pending_request){
		.requester = {entry->texts, entry->requester_len},
		.service = {service, entry->service_len},
		.id = {service + entry->service_len, entry->id_len},
		.deadline = entry->deadline.at,
	};
}

void pending_remove(struct pending *pending, struct pending_entry *entry)
{
	leave_ring(pending, entry);
	deadlines_remove(&pending->deadlines, &entry->deadline);
	free_entry(pending, entry);
}

size_t pending_count(const struct pending *pending)
{
	return pending->deadlines.count;
}
