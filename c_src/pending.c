#include "pending.h"

#include <stdlib.h>
#include <string.h>

#include "containers/cells.h"
#include "containers/deadlines.h"
#include "containers/hashtable.h"
#include "jid.h"

enum { FIXED, MOVABLE, KINDS }; /* requests without, and with retries left */

/* A backend with pending requests. */
struct pending_backend {
	struct hashtable_node node;       /* in `backends`, unless it is abandoned */
	struct pending_backend *previous; /* in the list of those that are abandoned */
	struct pending_backend *next;
	struct pending_entry *first[KINDS]; /* of its requests: for each kind a ring, which begins with the oldest */
	size_t count;
	int is_abandoned;
	size_t jid_len;
	char jid[];
};

#define REQUESTER_BYTES_MASK ((UINT64_C(1) << 40) - 1)

/* A requester's bare JID with pending requests, known by its hash alone, which takes less memory. */
struct requester {
	struct hashtable_node node;
	uint64_t count : 24; /* at most PENDING_PER_REQUESTER_MAX */
	uint64_t bytes : 40; /* at most PENDING_BYTES_EACH for each that may be, or what a single request holds */
};

_Static_assert(REQUESTER_BYTES_MASK / PENDING_BYTES_EACH >= PENDING_PER_REQUESTER_MAX,
               "what the requests of one bare JID may hold does not fit");

/* What the caller holds for a request. */
struct kept {
	uint32_t bytes;
	int32_t place;
};

struct pending_entry {
	struct hashtable_node node; /* in `entries`, by its answer */
	struct deadline deadline;
	struct pending_backend *backend;
	struct pending_entry *previous; /* in the backend's ring */
	struct pending_entry *next;
	double added;
	uint16_t requester_len;
	uint16_t service_len;
	uint32_t id_len : 23;
	uint32_t has_kept : 1; /* whether it had retries when it was added */
	uint32_t retries : 8;
	char rest[]; /* a struct kept if `has_kept`, then requester, service and id */
};

struct pending {
	struct hashtable entries;
	struct hashtable backends;
	struct hashtable requesters;
	struct deadlines deadlines;
	struct pending_backend *first_abandoned;
	struct cells cells; /* the memory of all entries, backends and requesters */
	size_t bytes;
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

static struct text jid_of(const struct pending_backend *backend)
{
	return (struct text){backend->jid, backend->jid_len};
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
	pending_set_limits(pending, SIZE_MAX, SIZE_MAX);
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

void pending_set_limits(struct pending *pending, size_t max, size_t max_per_requester)
{
	pending->max = max;
	pending->max_per_requester =
		max_per_requester < PENDING_PER_REQUESTER_MAX ? max_per_requester : PENDING_PER_REQUESTER_MAX;
}

static uint64_t hash_bare(const struct pending *pending, struct text jid)
{
	return hashtable_hash(&pending->requesters, jid_bare(jid));
}

static struct requester *find_requester(const struct pending *pending, uint64_t hash)
{
	struct hashtable_node *node = hashtable_find(&pending->requesters, hash);

	return node == NULL ? NULL : (void *)((char *)node - offsetof(struct requester, node));
}

static struct requester *get_requester(struct pending *pending, struct text jid)
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

static struct pending_backend *find_backend(const struct pending *pending, struct text jid)
{
	uint64_t hash = hashtable_hash(&pending->backends, jid);
	struct hashtable_node *node = hashtable_find(&pending->backends, hash);

	for (; node != NULL; node = hashtable_next(node)) {
		struct pending_backend *backend = (void *)((char *)node - offsetof(struct pending_backend, node));

		if (text_is_equal(jid, jid_of(backend))) {
			return backend;
		}
	}
	return NULL;
}

static struct pending_backend *get_backend(struct pending *pending, struct text jid)
{
	struct pending_backend *backend = find_backend(pending, jid);

	if (backend == NULL) {
		backend = cells_alloc(&pending->cells, sizeof *backend + jid.length);
		if (backend == NULL) {
			return NULL;
		}
		*backend = (struct pending_backend){.jid_len = jid.length};
		backend->node.hash = hashtable_hash(&pending->backends, jid);
		memcpy(backend->jid, jid.bytes, jid.length);
		hashtable_add(&pending->backends, &backend->node);
	}
	return backend;
}

static void join_abandoned(struct pending *pending, struct pending_backend *backend)
{
	backend->is_abandoned = 1;
	backend->previous = NULL;
	backend->next = pending->first_abandoned;
	if (backend->next != NULL) {
		backend->next->previous = backend;
	}
	pending->first_abandoned = backend;
}

static void leave_abandoned(struct pending *pending, struct pending_backend *backend)
{
	*(backend->previous == NULL ? &pending->first_abandoned : &backend->previous->next) = backend->next;
	if (backend->next != NULL) {
		backend->next->previous = backend->previous;
	}
}

static void put_backend(struct pending *pending, struct pending_backend *backend)
{
	if (backend->count > 0) {
		return;
	}
	if (backend->is_abandoned) {
		leave_abandoned(pending, backend);
	} else {
		hashtable_remove(&pending->backends, &backend->node);
	}
	cells_free(&pending->cells, backend, sizeof *backend + backend->jid_len);
}

static struct pending_entry **first_of_kind(struct pending_entry *entry)
{
	return &entry->backend->first[entry->retries > 0 ? MOVABLE : FIXED];
}

/* Makes `entry` the youngest of its backend's. */
static void join_backend(struct pending_entry *entry, struct pending_backend *backend)
{
	struct pending_entry **first;

	entry->backend = backend;
	backend->count++;
	first = first_of_kind(entry);
	if (*first == NULL) {
		entry->previous = entry->next = *first = entry;
		return;
	}
	entry->previous = (*first)->previous;
	entry->next = *first;
	entry->previous->next = entry;
	entry->next->previous = entry;
}

static void leave_backend(struct pending_entry *entry)
{
	struct pending_entry **first = first_of_kind(entry);

	if (*first == entry) {
		*first = entry->next == entry ? NULL : entry->next;
	}
	entry->previous->next = entry->next;
	entry->next->previous = entry->previous;
	entry->backend->count--;
}

static char *append(char *end, struct text text)
{
	if (text.length > 0) {
		memcpy(end, text.bytes, text.length);
	}
	return end + text.length;
}

/* For an entry with `has_kept` only */
static struct kept *kept_of(struct pending_entry *entry)
{
	return (void *)entry->rest;
}

static size_t texts_len(const struct pending_request *request)
{
	return request->requester.length + request->service.length + request->id.length;
}

static size_t entry_size(const struct pending_request *request, int has_kept)
{
	return offsetof(struct pending_entry, rest) + (has_kept ? sizeof(struct kept) : 0) + texts_len(request);
}

/*
 * What the request counts as towards the limits. Room for a struct kept is counted even where
 * there is none, so that only kept_bytes makes a difference when the retries are taken away.
 */
static size_t held_bytes(const struct pending_request *request)
{
	return entry_size(request, 1) + request->kept_bytes;
}

static void fill_entry(struct pending_entry *entry, const struct pending_request *request)
{
	char *texts = entry->rest;

	entry->deadline.at = request->deadline;
	entry->added = request->added;
	entry->requester_len = (uint16_t)request->requester.length;
	entry->service_len = (uint16_t)request->service.length;
	entry->id_len = request->id.length & PENDING_ID_MAX;
	entry->has_kept = request->retries > 0;
	entry->retries = request->retries;
	if (entry->has_kept) {
		*kept_of(entry) = (struct kept){request->kept_bytes, request->kept};
		texts += sizeof(struct kept);
	}
	append(append(append(texts, request->requester), request->service), request->id);
}

static struct pending_entry *new_entry(struct pending *pending, const struct pending_request *request)
{
	size_t size = entry_size(request, request->retries > 0);
	struct pending_entry *entry = cells_alloc(&pending->cells, size);

	if (entry == NULL) {
		return NULL;
	}
	fill_entry(entry, request);
	if (deadlines_add(&pending->deadlines, &entry->deadline) != 0) {
		cells_free(&pending->cells, entry, size);
		return NULL;
	}
	return entry;
}

/* `request` is what pending_read has told of the entry. */
static void free_entry(struct pending *pending, struct pending_entry *entry, const struct pending_request *request)
{
	deadlines_remove(&pending->deadlines, &entry->deadline);
	cells_free(&pending->cells, entry, entry_size(request, entry->has_kept));
}

/* From now on, a request of `requester` holds so many bytes more. */
static void hold(struct pending *pending, struct requester *requester, size_t bytes)
{
	requester->bytes = (requester->bytes + bytes) & REQUESTER_BYTES_MASK;
	pending->bytes += bytes;
}

static void let_go(struct pending *pending, struct requester *requester, size_t bytes)
{
	requester->bytes = (requester->bytes - bytes) & REQUESTER_BYTES_MASK;
	pending->bytes -= bytes;
}

/* The parts are hashed one by one: joined together, "ab" and "c" would be the same as "a" and "bc". */
static uint64_t hash_answer(const struct pending *pending, const struct pending_answer *answer)
{
	uint64_t parts[] = {
		hashtable_hash(&pending->entries, answer->from),
		hashtable_hash(&pending->entries, answer->to),
		hashtable_hash(&pending->entries, answer->id),
	};

	return hashtable_hash(&pending->entries, (struct text){(const char *)parts, sizeof parts});
}

/* For an entry that has the answer's hash, by which alone `to` is compared: the entry does not keep it. */
static int is_answered_by(const struct pending_entry *entry, const struct pending_answer *answer)
{
	return !entry->backend->is_abandoned && text_is_equal(answer->id, pending_read(entry).id) &&
	       text_is_equal(answer->from, jid_of(entry->backend));
}

static int is_bad_id(struct text id)
{
	size_t i = 0;

	while (i < id.length && (unsigned char)id.bytes[i] >= 0x20) {
		i++;
	}
	return i < id.length || id.length > PENDING_ID_MAX;
}

/* Whether one more request, which holds `bytes`, is too much beside `count` that hold `held` bytes. */
static int is_full(size_t count, size_t held, size_t bytes, size_t max)
{
	size_t max_bytes = max < SIZE_MAX / PENDING_BYTES_EACH ? max * PENDING_BYTES_EACH : SIZE_MAX;

	return count >= max || (count > 0 && held + bytes > max_bytes);
}

/* The oldest request that `answer`, which has that hash, can be for, or NULL. */
static struct pending_entry *find_by_hash(const struct pending *pending, const struct pending_answer *answer,
                                          uint64_t hash)
{
	struct hashtable_node *node = hashtable_find(&pending->entries, hash);

	while (node != NULL && !is_answered_by(entry_of_node(node), answer)) {
		node = hashtable_next(node);
	}
	return entry_of_node(node);
}

/*
 * Whether `request` was sent to another service address than those that have the same answer. It is enough to
 * look at one of these, or NULL if there is none: all were sent to the same, as any other is refused.
 */
static int is_in_conflict(const struct pending_entry *same_answer, const struct pending_request *request)
{
	return same_answer != NULL && !text_is_equal(request->service, pending_read(same_answer).service);
}

/* Why the request may not be added, or PENDING_OK. `requester` is who sends it, `hash` that of its answer. */
static enum pending_status check_request(const struct pending *pending, const struct requester *requester,
                                         const struct pending_request *request, const struct pending_answer *answer,
                                         uint64_t hash)
{
	size_t bytes = held_bytes(request);

	if (is_bad_id(request->id)) {
		return PENDING_BAD_ID;
	}
	if (is_full(pending_count(pending), pending->bytes, bytes, pending->max)) {
		return PENDING_FULL;
	}
	if (is_full(requester->count, requester->bytes, bytes, pending->max_per_requester)) {
		return PENDING_REQUESTER_FULL;
	}
	return is_in_conflict(find_by_hash(pending, answer, hash), request) ? PENDING_CONFLICT : PENDING_OK;
}

enum pending_status pending_add(struct pending *pending, const struct pending_answer *answer,
                                const struct pending_request *request, struct pending_entry **added)
{
	uint64_t hash = hash_answer(pending, answer);
	struct requester *requester = get_requester(pending, request->requester);
	enum pending_status status;
	struct pending_backend *backend;
	struct pending_entry *entry;

	if (requester == NULL) {
		return PENDING_NO_MEMORY;
	}
	status = check_request(pending, requester, request, answer, hash);
	if (status != PENDING_OK) {
		goto no_backend;
	}
	status = PENDING_NO_MEMORY;
	backend = get_backend(pending, answer->from);
	if (backend == NULL) {
		goto no_backend;
	}
	entry = new_entry(pending, request);
	if (entry == NULL) {
		goto no_entry;
	}
	requester->count++;
	hold(pending, requester, held_bytes(request));
	join_backend(entry, backend);
	entry->node.hash = hash;
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
	return find_by_hash(pending, answer, hash_answer(pending, answer));
}

struct pending_entry *pending_first(const struct pending *pending)
{
	return entry_of_deadline(deadlines_first(&pending->deadlines));
}

static struct pending_entry *first_of(const struct pending *pending, struct text jid, int kind)
{
	const struct pending_backend *backend = find_backend(pending, jid);

	return backend == NULL ? NULL : backend->first[kind];
}

struct pending_entry *pending_first_movable(const struct pending *pending, struct text jid)
{
	return first_of(pending, jid, MOVABLE);
}

struct pending_entry *pending_first_fixed(const struct pending *pending, struct text jid)
{
	return first_of(pending, jid, FIXED);
}

void pending_fix(struct pending *pending, struct pending_entry *entry)
{
	struct kept *kept = kept_of(entry);

	let_go(pending, find_requester(pending, hash_bare(pending, pending_read(entry).requester)), kept->bytes);
	leave_backend(entry);
	entry->retries = 0;
	kept->bytes = 0;
	join_backend(entry, entry->backend);
}

void pending_abandon(struct pending *pending, struct text jid)
{
	struct pending_backend *backend = find_backend(pending, jid);

	if (backend != NULL) {
		hashtable_remove(&pending->backends, &backend->node);
		join_abandoned(pending, backend);
	}
}

struct pending_entry *pending_first_abandoned(const struct pending *pending)
{
	const struct pending_backend *backend = pending->first_abandoned;

	if (backend == NULL) {
		return NULL;
	}
	return backend->first[MOVABLE] != NULL ? backend->first[MOVABLE] : backend->first[FIXED];
}

struct pending_request pending_read(const struct pending_entry *entry)
{
	struct kept kept = {0};
	const char *requester = entry->rest, *service;

	if (entry->has_kept) {
		memcpy(&kept, entry->rest, sizeof kept);
		requester += sizeof kept;
	}
	service = requester + entry->requester_len;
	return (struct pending_request){
		.requester = {requester, entry->requester_len},
		.service = {service, entry->service_len},
		.id = {service + entry->service_len, entry->id_len},
		.added = entry->added,
		.deadline = entry->deadline.at,
		.retries = entry->retries,
		.kept_bytes = kept.bytes,
		.kept = kept.place,
		.backend = jid_of(entry->backend),
	};
}

void pending_remove(struct pending *pending, struct pending_entry *entry)
{
	struct pending_request request = pending_read(entry);
	struct requester *requester = find_requester(pending, hash_bare(pending, request.requester));

	let_go(pending, requester, held_bytes(&request));
	requester->count--;
	put_requester(pending, requester);
	leave_backend(entry);
	put_backend(pending, entry->backend);
	hashtable_remove(&pending->entries, &entry->node);
	free_entry(pending, entry, &request);
}

size_t pending_count(const struct pending *pending)
{
	return pending->deadlines.count;
}

size_t pending_bytes(const struct pending *pending)
{
	return pending->bytes;
}

size_t pending_count_of(const struct pending *pending, struct text jid)
{
	const struct pending_backend *backend = find_backend(pending, jid);

	return backend == NULL ? 0 : backend->count;
}
