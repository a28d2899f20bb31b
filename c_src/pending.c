#include "pending.h"

#include <stdlib.h>
#include <string.h>

#include "cells.h"
#include "deadlines.h"
#include "hashtable.h"

/* A backend with pending requests. */
struct backend {
	struct hashtable_node node;
	struct pending_entry *first; /* of its requests, a ring */
	size_t count;
	size_t jid_len;
	char jid[];
};

/* A requester's bare JID with pending requests, known by its hash alone: two in 2^64 would share a limit. */
struct requester {
	struct hashtable_node node;
	size_t count;
};

struct pending_entry {
	struct hashtable_node node; /* by the answer */
	struct deadline deadline;
	struct backend *backend;
	struct pending_entry *previous; /* of the backend's */
	struct pending_entry *next;
	uint32_t id_len;
	uint16_t requester_len;
	uint16_t service_len;
	char texts[]; /* requester, service, id */
};

struct pending {
	struct hashtable entries;
	struct hashtable backends;
	struct hashtable requesters;
	struct deadlines deadlines;
	struct cells cells; /* where all of these are */
	size_t max;
	size_t max_per_requester;
};

static struct pending_entry *entry_of_node(struct hashtable_node *node)
{
	return node == NULL ? NULL : (void *)((char *)node - offsetof(struct pending_entry, node));
}

static struct pending_entry *entry_of_deadline(struct deadline *deadline)
{
	return deadline == NULL ? NULL : (void *)((char *)deadline - offsetof(struct pending_entry, deadline));
}

static int is_same(struct pending_text text, const char *bytes, size_t len)
{
	return text.len == len && (len == 0 || memcmp(text.bytes, bytes, len) == 0);
}

struct pending *pending_new(const uint8_t seed[PENDING_SEEDBYTES])
{
	struct pending *pending = calloc(1, sizeof *pending);

	if (pending == NULL) {
		return NULL;
	}
	if (hashtable_init(&pending->entries, seed) != 0 || hashtable_init(&pending->backends, seed) != 0 ||
	    hashtable_init(&pending->requesters, seed) != 0) {
		pending_free(pending);
		return NULL;
	}
	pending_limit(pending, SIZE_MAX, SIZE_MAX);
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
	hashtable_free(&pending->entries);
	hashtable_free(&pending->backends);
	hashtable_free(&pending->requesters);
	free(pending);
}

void pending_limit(struct pending *pending, size_t max, size_t max_per_requester)
{
	pending->max = max;
	pending->max_per_requester = max_per_requester;
}

/* RFC 7622 section 3.1: the first "/" of a JID is where its resource begins. */
static uint64_t hash_bare(const struct pending *pending, struct pending_text jid)
{
	const char *slash = jid.len > 0 ? memchr(jid.bytes, '/', jid.len) : NULL;

	return hashtable_hash(&pending->requesters, jid.bytes, slash == NULL ? jid.len : (size_t)(slash - jid.bytes));
}

static struct requester *find_requester(const struct pending *pending, uint64_t hash)
{
	struct hashtable_node *node = hashtable_find(&pending->requesters, hash);

	return node == NULL ? NULL : (void *)((char *)node - offsetof(struct requester, node));
}

static struct requester *get_requester(struct pending *pending, struct pending_text jid)
{
	uint64_t hash = hash_bare(pending, jid);
	struct requester *requester = find_requester(pending, hash);

	if (requester == NULL) {
		requester = cells_alloc(&pending->cells, sizeof *requester);
		if (requester == NULL) {
			return NULL;
		}
		*requester = (struct requester){.node.hash = hash};
		hashtable_add(&pending->requesters, &requester->node);
	}
	return requester;
}

static void put_requester(struct pending *pending, struct requester *requester)
{
	if (requester->count == 0) {
		hashtable_remove(&pending->requesters, &requester->node);
		cells_free(&pending->cells, requester, sizeof *requester);
	}
}

static struct backend *find_backend(const struct pending *pending, struct pending_text jid)
{
	uint64_t hash = hashtable_hash(&pending->backends, jid.bytes, jid.len);
	struct hashtable_node *node = hashtable_find(&pending->backends, hash);

	for (; node != NULL; node = hashtable_next(node)) {
		struct backend *backend = (void *)((char *)node - offsetof(struct backend, node));

		if (is_same(jid, backend->jid, backend->jid_len)) {
			return backend;
		}
	}
	return NULL;
}

static struct backend *get_backend(struct pending *pending, struct pending_text jid)
{
	struct backend *backend = find_backend(pending, jid);

	if (backend == NULL) {
		backend = cells_alloc(&pending->cells, sizeof *backend + jid.len);
		if (backend == NULL) {
			return NULL;
		}
		*backend = (struct backend){.jid_len = jid.len};
		backend->node.hash = hashtable_hash(&pending->backends, jid.bytes, jid.len);
		memcpy(backend->jid, jid.bytes, jid.len);
		hashtable_add(&pending->backends, &backend->node);
	}
	return backend;
}

static void put_backend(struct pending *pending, struct backend *backend)
{
	if (backend->first == NULL) {
		hashtable_remove(&pending->backends, &backend->node);
		cells_free(&pending->cells, backend, sizeof *backend + backend->jid_len);
	}
}

/* Makes `entry` the youngest of its backend's. */
static void join_backend(struct pending_entry *entry, struct backend *backend)
{
	struct pending_entry *first = backend->first;

	entry->backend = backend;
	backend->count++;
	if (first == NULL) {
		entry->previous = entry->next = backend->first = entry;
		return;
	}
	entry->previous = first->previous;
	entry->next = first;
	entry->previous->next = entry;
	entry->next->previous = entry;
}

static void leave_backend(struct pending_entry *entry)
{
	struct backend *backend = entry->backend;

	if (backend->first == entry) {
		backend->first = entry->next == entry ? NULL : entry->next;
	}
	entry->previous->next = entry->next;
	entry->next->previous = entry->previous;
	backend->count--;
}

static char *append(char *end, struct pending_text text)
{
	if (text.len > 0) {
		memcpy(end, text.bytes, text.len);
	}
	return end + text.len;
}

static size_t entry_size(size_t requester_len, size_t service_len, size_t id_len)
{
	return offsetof(struct pending_entry, texts) + requester_len + service_len + id_len;
}

static struct pending_entry *new_entry(struct pending *pending, const struct pending_request *request)
{
	struct pending_entry *entry =
		cells_alloc(&pending->cells, entry_size(request->requester.len, request->service.len, request->id.len));

	if (entry == NULL) {
		return NULL;
	}
	entry->deadline.at = request->deadline;
	entry->requester_len = (uint16_t)request->requester.len;
	entry->service_len = (uint16_t)request->service.len;
	entry->id_len = (uint32_t)request->id.len;
	append(append(append(entry->texts, request->requester), request->service), request->id);
	if (deadlines_add(&pending->deadlines, &entry->deadline) != 0) {
		cells_free(&pending->cells, entry, entry_size(entry->requester_len, entry->service_len, entry->id_len));
		return NULL;
	}
	return entry;
}

static void free_entry(struct pending *pending, struct pending_entry *entry)
{
	deadlines_remove(&pending->deadlines, &entry->deadline);
	cells_free(&pending->cells, entry, entry_size(entry->requester_len, entry->service_len, entry->id_len));
}

/* Hashes the parts one by one, so that none can pass for the end of another. */
static uint64_t hash_answer(const struct pending *pending, const struct pending_answer *answer)
{
	uint64_t parts[] = {
		hashtable_hash(&pending->entries, answer->from.bytes, answer->from.len),
		hashtable_hash(&pending->entries, answer->to.bytes, answer->to.len),
		hashtable_hash(&pending->entries, answer->id.bytes, answer->id.len),
	};

	return hashtable_hash(&pending->entries, parts, sizeof parts);
}

/* `to` is not kept: of what the hash stands for, it alone is left to the odds. */
static int is_answered_by(const struct pending_entry *entry, const struct pending_answer *answer)
{
	return is_same(answer->id, pending_read(entry).id.bytes, entry->id_len) &&
	       is_same(answer->from, entry->backend->jid, entry->backend->jid_len);
}

enum pending_status pending_add(struct pending *pending, const struct pending_answer *answer,
                                const struct pending_request *request, struct pending_entry **added)
{
	enum pending_status status = PENDING_NO_MEMORY;
	struct requester *requester;
	struct backend *backend;
	struct pending_entry *entry;

	if (pending_count(pending) >= pending->max) {
		return PENDING_FULL;
	}
	requester = get_requester(pending, request->requester);
	if (requester == NULL) {
		return PENDING_NO_MEMORY;
	}
	if (requester->count >= pending->max_per_requester) {
		status = PENDING_REQUESTER_FULL;
		goto no_backend;
	}
	backend = get_backend(pending, answer->from);
	if (backend == NULL) {
		goto no_backend;
	}
	entry = new_entry(pending, request);
	if (entry == NULL) {
		goto no_entry;
	}
	requester->count++;
	join_backend(entry, backend);
	entry->node.hash = hash_answer(pending, answer);
	hashtable_add(&pending->entries, &entry->node);
	*added = entry;
	return PENDING_OK;

no_entry:
	put_backend(pending, backend);
no_backend:
	put_requester(pending, requester);
	return status;
}

struct pending_entry *pending_find(const struct pending *pending, const struct pending_answer *answer)
{
	struct hashtable_node *node = hashtable_find(&pending->entries, hash_answer(pending, answer));

	while (node != NULL && !is_answered_by(entry_of_node(node), answer)) {
		node = hashtable_next(node);
	}
	return entry_of_node(node);
}

struct pending_entry *pending_first(const struct pending *pending)
{
	return entry_of_deadline(deadlines_first(&pending->deadlines));
}

struct pending_entry *pending_first_of(const struct pending *pending, struct pending_text jid)
{
	const struct backend *backend = find_backend(pending, jid);

	return backend == NULL ? NULL : backend->first;
}

struct pending_request pending_read(const struct pending_entry *entry)
{
	const char *service = entry->texts + entry->requester_len;

	return (struct pending_request){
		.requester = {entry->texts, entry->requester_len},
		.service = {service, entry->service_len},
		.id = {service + entry->service_len, entry->id_len},
		.deadline = entry->deadline.at,
		.backend = {entry->backend->jid, entry->backend->jid_len},
	};
}

void pending_remove(struct pending *pending, struct pending_entry *entry)
{
	struct requester *requester = find_requester(pending, hash_bare(pending, pending_read(entry).requester));

	requester->count--;
	put_requester(pending, requester);
	leave_backend(entry);
	put_backend(pending, entry->backend);
	hashtable_remove(&pending->entries, &entry->node);
	free_entry(pending, entry);
}

size_t pending_count(const struct pending *pending)
{
	return pending->deadlines.count;
}

size_t pending_count_of(const struct pending *pending, struct pending_text jid)
{
	const struct backend *backend = find_backend(pending, jid);

	return backend == NULL ? 0 : backend->count;
}
