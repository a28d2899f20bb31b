#include "pending.h"

#include <stdlib.h>
#include <string.h>

#include "containers/cells.h"
#include "containers/deadlines.h"
#include "containers/hashtable.h"

enum { HASHED_TOGETHER_MAX = 512 }; /* bytes */

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

/* A service address that pending requests were sent to. Most of them were sent to the same few. */
struct service {
	struct hashtable_node node;
	size_t count; /* of these requests */
	size_t address_len;
	char address[];
};

/* What the caller holds for a request. */
struct kept {
	uint32_t bytes;
	int32_t place;
};

struct pending_entry {
	struct hashtable_node node; /* in `entries`, by its answer */
	struct deadline deadline;
	struct requester *requester;
	struct service *service;
	struct pending_backend *backend;
	struct pending_entry *previous; /* in the backend's ring */
	struct pending_entry *next;
	double added;
	uint32_t id_len : 23;
	uint32_t has_kept : 1; /* whether it had retries when it was added */
	uint32_t retries : 8;
	char rest[]; /* a struct kept if `has_kept`, then the id */
};

struct pending {
	struct hashtable entries;
	struct hashtable backends;
	struct hashtable services;
	struct deadlines deadlines;
	struct requesters *book;
	struct pending_backend *first_abandoned;
	struct cells cells; /* the memory of all entries, backends and services */
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

struct pending *pending_new(const uint8_t seed[PENDING_SEEDBYTES], struct requesters *book)
{
	struct pending *pending = calloc(1, sizeof *pending);

	if (pending == NULL) {
		return NULL;
	}
	if (hashtable_init(&pending->entries, seed) != 0 || hashtable_init(&pending->backends, seed) != 0 ||
	    hashtable_init(&pending->services, seed) != 0) {
		pending_free(pending);
		return NULL;
	}
	pending->book = book;
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
	hashtable_free(&pending->services);
	free(pending);
}

void pending_set_limits(struct pending *pending, size_t max, size_t max_per_requester)
{
	pending->max = max;
	pending->max_per_requester =
		max_per_requester < PENDING_PER_REQUESTER_MAX ? max_per_requester : PENDING_PER_REQUESTER_MAX;
}

static void append(char *end, struct text text)
{
	if (text.length > 0) {
		memcpy(end, text.bytes, text.length);
	}
}

static struct text address_of(const struct service *service)
{
	return (struct text){service->address, service->address_len};
}

static struct service *find_service(const struct pending *pending, struct text address, uint64_t hash)
{
	struct hashtable_node *node = hashtable_find(&pending->services, hash);

	for (; node != NULL; node = hashtable_next(node)) {
		struct service *service = (void *)((char *)node - offsetof(struct service, node));

		if (text_is_equal(address, address_of(service))) {
			return service;
		}
	}
	return NULL;
}

static struct service *get_service(struct pending *pending, struct text address)
{
	uint64_t hash = hashtable_hash(&pending->services, address);
	struct service *service = find_service(pending, address, hash);

	if (service == NULL) {
		service = cells_alloc(&pending->cells, sizeof *service + address.length);
		if (service == NULL) {
			return NULL;
		}
		*service = (struct service){.node.hash = hash, .address_len = address.length};
		append(service->address, address);
		hashtable_add(&pending->services, &service->node);
	}
	return service;
}

static void put_service(struct pending *pending, struct service *service)
{
	if (service->count == 0) {
		hashtable_remove(&pending->services, &service->node);
		cells_free(&pending->cells, service, sizeof *service + service->address_len);
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

/* For an entry with `has_kept` only */
static struct kept *kept_of(struct pending_entry *entry)
{
	return (void *)entry->rest;
}

static size_t entry_size(const struct pending_request *request, int has_kept)
{
	return offsetof(struct pending_entry, rest) + (has_kept ? sizeof(struct kept) : 0) + request->id.length;
}

/*
 * What the request counts as towards the limits. Room for a struct kept is counted even where
 * there is none, so that only kept_bytes makes a difference when the retries are taken away.
 */
static size_t held_bytes(const struct pending_request *request)
{
	return entry_size(request, 1) + requester_jid(request->requester).length + request->service.length +
	       request->kept_bytes;
}

static void fill_entry(struct pending_entry *entry, const struct pending_request *request)
{
	char *id = entry->rest;

	entry->deadline.at = request->deadline;
	entry->added = request->added;
	entry->requester = request->requester;
	entry->id_len = request->id.length & PENDING_ID_MAX;
	entry->has_kept = request->retries > 0;
	entry->retries = request->retries;
	if (entry->has_kept) {
		*kept_of(entry) = (struct kept){request->kept_bytes, request->kept};
		id += sizeof(struct kept);
	}
	append(id, request->id);
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

/*
 * One hash of both, as that is what every request and every answer costs. No address has a NUL in it, so that "ab"
 * and "c" are not the same as "a" and "bc"; where they are too long for that, each is hashed for itself.
 */
static uint64_t hash_answer(const struct pending *pending, const struct pending_answer *answer)
{
	char joined[HASHED_TOGETHER_MAX];
	size_t length = answer->to.length + 1 + answer->id.length;

	if (length > sizeof joined) {
		uint64_t parts[] = {
			hashtable_hash(&pending->entries, answer->to),
			hashtable_hash(&pending->entries, answer->id),
		};

		return hashtable_hash(&pending->entries, (struct text){(const char *)parts, sizeof parts});
	}
	append(joined, answer->to);
	joined[answer->to.length] = '\0';
	append(joined + answer->to.length + 1, answer->id);
	return hashtable_hash(&pending->entries, (struct text){joined, length});
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

/* Why the request, whose answer has that hash, may not be added, or PENDING_OK */
static enum pending_status check_request(const struct pending *pending, const struct pending_request *request,
                                         const struct pending_answer *answer, uint64_t hash)
{
	size_t bytes = held_bytes(request), held;
	size_t count = requesters_pending(pending->book, request->requester, &held);

	if (is_bad_id(request->id)) {
		return PENDING_BAD_ID;
	}
	if (is_full(pending_count(pending), pending->bytes, bytes, pending->max)) {
		return PENDING_FULL;
	}
	if (is_full(count, held, bytes, pending->max_per_requester)) {
		return PENDING_REQUESTER_FULL;
	}
	return is_in_conflict(find_by_hash(pending, answer, hash), request) ? PENDING_CONFLICT : PENDING_OK;
}

/* Makes an entry, which is not yet to be found. PENDING_OK or PENDING_NO_MEMORY */
static enum pending_status make_entry(struct pending *pending, const struct pending_request *request,
                                      struct text backend_jid, struct pending_entry **made)
{
	struct pending_backend *backend = get_backend(pending, backend_jid);
	struct service *service = get_service(pending, request->service);
	struct pending_entry *entry = NULL;

	if (backend != NULL && service != NULL) {
		entry = new_entry(pending, request);
	}
	if (entry != NULL && requesters_hold(pending->book, request->requester, held_bytes(request)) != 0) {
		free_entry(pending, entry, request);
		entry = NULL;
	}
	if (entry != NULL) {
		entry->service = service;
		service->count++;
		join_backend(entry, backend);
		*made = entry;
		return PENDING_OK;
	}
	if (service != NULL) {
		put_service(pending, service);
	}
	if (backend != NULL) {
		put_backend(pending, backend);
	}
	return PENDING_NO_MEMORY;
}

enum pending_status pending_add(struct pending *pending, const struct pending_answer *answer,
                                const struct pending_request *request, struct pending_entry **added)
{
	enum pending_status status;
	uint64_t hash;

	/* What is far apart in memory is fetched at the same time, and while hashes are computed. */
	requesters_fetch(pending->book, request->requester);
	hash = hash_answer(pending, answer);
	hashtable_fetch(&pending->entries, hash);
	requesters_fetch_first(pending->book, request->requester);
	status = check_request(pending, request, answer, hash);
	if (status == PENDING_OK) {
		status = make_entry(pending, request, answer->from, added);
	}
	if (status == PENDING_OK) {
		pending->bytes += held_bytes(request);
		(*added)->node.hash = hash;
		hashtable_add(&pending->entries, &(*added)->node);
	}
	return status;
}

struct pending_entry *pending_find(const struct pending *pending, const struct pending_answer *answer)
{
	return find_by_hash(pending, answer, hash_answer(pending, answer));
}

size_t pending_count_answered(const struct pending *pending, const struct pending_answer *answer)
{
	struct hashtable_node *node = hashtable_find(&pending->entries, hash_answer(pending, answer));
	size_t count = 0;

	while (node != NULL) {
		count += is_answered_by(entry_of_node(node), answer) != 0;
		node = hashtable_next(node);
	}
	return count;
}

/* Has the memory fetched that the removal of the entry behind this one needs: it is likely to be the first one next. */
static void fetch_next(const struct pending *pending, struct pending_entry *entry)
{
	const struct pending_entry *next = entry_of_deadline(entry->deadline.next); /* itself if it is in the heap */

	if (next != NULL) {
		hashtable_fetch(&pending->entries, next->node.hash);
		__builtin_prefetch(next->requester);
	}
}

struct pending_entry *pending_first(const struct pending *pending)
{
	struct pending_entry *first = entry_of_deadline(deadlines_first(&pending->deadlines));

	if (first != NULL) {
		fetch_next(pending, first);
	}
	return first;
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

	requesters_lighten(pending->book, entry->requester, kept->bytes);
	pending->bytes -= kept->bytes;
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
	const char *id = entry->rest;

	if (entry->has_kept) {
		memcpy(&kept, entry->rest, sizeof kept);
		id += sizeof kept;
	}
	return (struct pending_request){
		.requester = entry->requester,
		.service = address_of(entry->service),
		.id = {id, entry->id_len},
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
	size_t bytes;

	requesters_fetch(pending->book, entry->requester);
	hashtable_remove(&pending->entries, &entry->node);
	requesters_fetch_first(pending->book, entry->requester);
	leave_backend(entry);
	bytes = held_bytes(&request);
	pending->bytes -= bytes;
	requesters_release(pending->book, entry->requester, bytes);
	put_backend(pending, entry->backend);
	entry->service->count--;
	put_service(pending, entry->service);
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
