#include "exchange.h"

#include <stdlib.h>
#include <string.h>

#include "jid.h"

const double exchange_times[EXCHANGE_TIMES] = {0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 60};

struct exchange {
	const struct jat *jat;
	struct requesters *book;
	struct pool *pool;
	struct pending *pending;
	struct exchange_counts counts;
};

struct exchange *exchange_new(const struct jat *jat, struct requesters *book, struct pool *pool,
                              struct pending *pending)
{
	struct exchange *exchange = calloc(1, sizeof *exchange);

	if (exchange != NULL) {
		exchange->jat = jat;
		exchange->book = book;
		exchange->pool = pool;
		exchange->pending = pending;
	}
	return exchange;
}

void exchange_use(struct exchange *exchange, const struct jat *jat, struct pool *pool)
{
	exchange->jat = jat;
	exchange->pool = pool;
}

void exchange_free(struct exchange *exchange)
{
	free(exchange);
}

static enum exchange_status of_pending(enum pending_status status)
{
	switch (status) {
	case PENDING_OK:
		return EXCHANGE_OK;
	case PENDING_FULL:
		return EXCHANGE_FULL;
	case PENDING_REQUESTER_FULL:
		return EXCHANGE_REQUESTER_FULL;
	case PENDING_CONFLICT:
		return EXCHANGE_CONFLICT;
	case PENDING_BAD_ID:
		return EXCHANGE_BAD_ID;
	case PENDING_NO_MEMORY:
		break;
	}
	return EXCHANGE_NO_MEMORY;
}

/* Whether somebody else than `jid` has that name. Who was in the last generation can have it under the same key. */
static int is_anothers(const struct exchange *exchange, struct text name, struct text jid)
{
	const struct requester *requester = requesters_resolve(exchange->book, name);

	return requester != NULL && !text_is_equal(requester_jid(requester), jid);
}

/* The name by which the book is to know a requester who is not in it yet: no other one has the same. */
static enum exchange_status make_name(const struct exchange *exchange, struct text jid, uint8_t name[JAT_NAME_MAX],
                                      size_t *name_len)
{
	enum jat_status status = jat_name(exchange->jat, jat_format(exchange->jat), JAT_REQUESTER, jid, name, name_len);

	if (status != JAT_OK) {
		return EXCHANGE_BAD_ADDRESS;
	}
	if (*name_len == JAT_SHORTBYTES && is_anothers(exchange, (struct text){(const char *)name, *name_len}, jid)) {
		*name_len = JAT_DIGESTBYTES;
		jat_digest(exchange->jat, JAT_REQUESTER, jid, name);
	}
	return EXCHANGE_OK;
}

static enum exchange_status add_requester(struct exchange *exchange, struct text jid, struct requester **requester)
{
	uint8_t name[JAT_NAME_MAX];
	size_t name_len;
	enum exchange_status status = make_name(exchange, jid, name, &name_len);

	if (status != EXCHANGE_OK) {
		return status;
	}
	switch (requesters_add(exchange->book, jid, (struct text){(const char *)name, name_len}, requester)) {
	case REQUESTERS_OK:
		return EXCHANGE_OK;
	case REQUESTERS_FULL:
		return EXCHANGE_FULL;
	case REQUESTERS_NO_MEMORY:
		break;
	}
	return EXCHANGE_NO_MEMORY;
}

static enum exchange_status find_requester(struct exchange *exchange, struct text jid, struct requester **requester)
{
	*requester = requesters_find(exchange->book, jid);
	return *requester != NULL ? EXCHANGE_OK : add_requester(exchange, jid, requester);
}

/* The format in which a backend, or anybody else, sees tokens */
static enum jat_format format_of(const struct exchange *exchange, const struct pool_backend *backend)
{
	if (backend == NULL || pool_format(backend) == POOL_NO_FORMAT) {
		return jat_format(exchange->jat);
	}
	return (enum jat_format)pool_format(backend);
}

/*
 * Writes the token of that format by which a requester is known, and its length. Where that format has but a digest for
 * it, that is its name in the book, by which it is found again.
 */
static enum exchange_status write_token(const struct exchange *exchange, const struct requester *requester,
                                        enum jat_format format, char token[JAT_TOKEN_MAX], size_t *token_len)
{
	uint8_t name[REQUESTERS_TOKEN_MAX];
	int is_name = format == jat_format(exchange->jat) || jat_needs_digest(format, requester_jid(requester));
	size_t name_len = is_name ? requester_token(requester, name) : 0;
	enum jat_status status = JAT_OK;

	if (name_len > 0) {
		*token_len = jat_write_name(JAT_REQUESTER, name, name_len, token);
	} else {
		status = jat_encode(exchange->jat, format, JAT_REQUESTER, requester_jid(requester), token, token_len);
	}
	return status == JAT_OK ? EXCHANGE_OK : EXCHANGE_BAD_ADDRESS;
}

static enum exchange_status write_address(const struct exchange *exchange, const struct requester *requester,
                                          struct text service, enum jat_format format, struct exchange_sent *sent)
{
	struct text bare = jid_bare(service);
	size_t token_len;
	enum exchange_status status;

	if (bare.length > EXCHANGE_BARE_MAX) {
		return EXCHANGE_BAD_ADDRESS;
	}
	memcpy(sent->address, bare.bytes, bare.length);
	sent->address[bare.length] = '/';
	status = write_token(exchange, requester, format, sent->address + bare.length + 1, &token_len);
	sent->address_len = bare.length + 1 + token_len;
	return status;
}

/* Writes the token by which a backend is to be known, and its length, 0 if it can have none. */
static void make_backend_token(const struct exchange *exchange, struct text jid, char token[JAT_TOKEN_MAX],
                               size_t *token_len)
{
	uint8_t name[JAT_NAME_MAX];
	size_t name_len;

	*token_len = 0;
	if (jat_name(exchange->jat, JAT_SHORT, JAT_BACKEND, jid, name, &name_len) != JAT_OK) {
		return;
	}
	*token_len = jat_write_name(JAT_BACKEND, name, name_len, token);
	if (pool_resolve(exchange->pool, (struct text){token, *token_len}) != NULL) {
		jat_digest(exchange->jat, JAT_BACKEND, jid, name);
		*token_len = jat_write_name(JAT_BACKEND, name, JAT_DIGESTBYTES, token);
	}
}

int exchange_admit(struct exchange *exchange, struct text jid)
{
	char token[JAT_TOKEN_MAX];
	size_t token_len;

	if (pool_find(exchange->pool, jid) != NULL) {
		return 0;
	}
	make_backend_token(exchange, jid, token, &token_len);
	return pool_add(exchange->pool, jid, (struct text){token, token_len});
}

const struct pool_backend *exchange_backend(const struct exchange *exchange, struct text resource)
{
	return pool_resolve(exchange->pool, resource);
}

static size_t count_pending(void *pending, struct text jid)
{
	return pending_count_of(pending, jid);
}

static const struct pool_backend *choose(const struct exchange *exchange, const struct exchange_request *request)
{
	struct request wanted = {request->requester, request->service, count_pending, exchange->pending};

	if (request->backend.bytes != NULL) {
		return pool_find(exchange->pool, request->backend);
	}
	if (request->is_lasting) {
		return pool_pick_lasting(exchange->pool, &wanted);
	}
	return pool_pick(exchange->pool, &wanted, request->avoided);
}

/* Why choose() has found none */
static enum exchange_status why_none(const struct exchange *exchange, const struct exchange_request *request)
{
	if (request->avoided.bytes != NULL) {
		return EXCHANGE_CONFLICT;
	}
	if (request->backend.bytes == NULL && pool_count(exchange->pool) > 0 && !pool_serves(exchange->pool)) {
		return EXCHANGE_NONE_READY;
	}
	return EXCHANGE_NO_BACKEND;
}

enum exchange_status exchange_prepare(struct exchange *exchange, const struct exchange_request *request,
                                      struct exchange_sent *sent)
{
	const struct pool_backend *backend = choose(exchange, request);
	enum exchange_status status;

	if (backend == NULL) {
		return why_none(exchange, request);
	}
	status = find_requester(exchange, request->requester, &sent->requester);
	if (status != EXCHANGE_OK) {
		return status;
	}
	sent->backend = pool_jid(backend);
	return write_address(exchange, sent->requester, request->service, format_of(exchange, backend), sent);
}

enum exchange_status exchange_address(struct exchange *exchange, const struct exchange_request *request,
                                      struct exchange_sent *sent)
{
	struct exchange_request lasting = {
		.requester = request->requester,
		.service = request->service,
		.backend = request->backend,
		.is_lasting = 1,
	};
	enum exchange_status status = exchange_prepare(exchange, &lasting, sent);

	if (status == EXCHANGE_OK) {
		requesters_use(exchange->book, sent->requester);
	}
	return status;
}

enum exchange_status exchange_record(struct exchange *exchange, const struct exchange_request *request,
                                     const struct exchange_sent *sent)
{
	struct pending_answer answer = {sent->backend, {sent->address, sent->address_len}, request->id};
	struct pending_request pending = {
		.requester = sent->requester,
		.service = request->service,
		.id = request->id,
		.added = request->time,
		.deadline = request->deadline,
		.retries = request->retries,
		.kept_bytes = request->kept_bytes,
		.kept = request->kept,
	};
	struct pending_entry *entry;

	return of_pending(pending_add(exchange->pending, &answer, &pending, &entry));
}

static void count_time(struct exchange_counts *counts, double seconds)
{
	int i = 0;

	counts->seconds += seconds;
	while (i < EXCHANGE_TIMES && seconds > exchange_times[i]) {
		i++;
	}
	counts->times[i]++;
}

struct pending_entry *exchange_find(const struct exchange *exchange, const struct pending_answer *answer)
{
	return pending_find(exchange->pending, answer);
}

void exchange_settle(struct exchange *exchange, struct pending_entry *entry, double time)
{
	exchange->counts.results++;
	count_time(&exchange->counts, time - pending_read(entry).added);
	pending_remove(exchange->pending, entry);
}

void exchange_count_error(struct exchange *exchange, double seconds)
{
	exchange->counts.errors++;
	count_time(&exchange->counts, seconds);
}

const struct exchange_counts *exchange_counts(const struct exchange *exchange)
{
	return &exchange->counts;
}

static void write_jid(const struct requester *requester, char jid[JAT_JID_MAX], size_t *jid_len)
{
	struct text found = requester_jid(requester);

	*jid_len = found.length;
	memcpy(jid, found.bytes, found.length);
}

/*
 * Whom a resource stands for as a token of any format, or what it looks like. The operator may have asked for another
 * format before, so what a backend remembers can be a token of that one.
 */
static enum jat_status decode_any(const struct exchange *exchange, struct text resource, char jid[JAT_JID_MAX],
                                  size_t *jid_len)
{
	static const enum jat_format formats[] = {JAT_SEALED, JAT_SIGNED, JAT_SHORT, JAT_PLAIN};
	enum jat_status status = JAT_BAD_TOKEN;
	enum jat_kind kind;
	size_t i;

	for (i = 0; i < sizeof formats / sizeof formats[0] && status == JAT_BAD_TOKEN; i++) {
		status = jat_decode(exchange->jat, formats[i], resource, &kind, jid, jid_len);
	}
	return status;
}

/* Whom a resource stands for. If it is a name in the book, `requester` becomes whose it is, and else NULL. */
static enum jat_status resolve(const struct exchange *exchange, struct text resource, char jid[JAT_JID_MAX],
                               size_t *jid_len, struct requester **requester)
{
	uint8_t name[JAT_NAME_MAX];
	size_t name_len = jat_read_name(resource, JAT_SHORT, name);

	*requester = requesters_resolve(exchange->book, (struct text){(const char *)name, name_len});
	/* One with a longer JID was added by somebody else who has the book. */
	if (*requester == NULL || requester_jid(*requester).length > JAT_JID_MAX) {
		*requester = NULL;
		return decode_any(exchange, resource, jid, jid_len);
	}
	write_jid(*requester, jid, jid_len);
	return JAT_OK;
}

enum jat_status exchange_resolve(const struct exchange *exchange, struct text resource, char jid[JAT_JID_MAX],
                                 size_t *jid_len)
{
	struct requester *requester;

	return resolve(exchange, resource, jid, jid_len, &requester);
}

/* The requester in the book whose plain token that is, or NULL */
static struct requester *find_plain(const struct exchange *exchange, struct text token)
{
	return token.length > JAT_TOKEN_MAX ? NULL : requesters_find_either(exchange->book, token);
}

/* Whoever has that JID has been used; it was found by its name, or is NULL. */
static void use_requester(struct exchange *exchange, struct text jid, struct requester *requester)
{
	if (requester == NULL) {
		requester = requesters_find_either(exchange->book, jid);
	}
	if (requester != NULL || add_requester(exchange, jid, &requester) == EXCHANGE_OK) {
		requesters_use(exchange->book, requester);
	}
}

enum jat_status exchange_reach(struct exchange *exchange, struct text sender, struct text resource,
                               char jid[JAT_JID_MAX], size_t *jid_len)
{
	enum jat_format format = format_of(exchange, pool_find(exchange->pool, sender));
	struct requester *requester;
	enum jat_status status = resolve(exchange, resource, jid, jid_len, &requester);

	if (format == JAT_PLAIN && status != JAT_OK && status != JAT_DIGEST) {
		requester = find_plain(exchange, resource);
		if (requester != NULL) {
			write_jid(requester, jid, jid_len);
			status = JAT_OK;
		}
	}
	if (status == JAT_OK) {
		use_requester(exchange, (struct text){jid, *jid_len}, requester);
	}
	return status;
}
