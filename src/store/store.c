/* store.c - see store.h.
 *
 * A thin layer over a driver: the writer thread is a group (base/group.h) whose backend checks each operation
 * against the rules and hands it to the driver; reads go to the driver directly. What must be the same
 * whatever the engine is done here: the rules, the audit chain, the account of the store's health. */
#include "store/store.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/auto.h"
#include "store/audit.h"
#include "store/driver.h"
#include "store/rules.h"

enum {
	DEFAULT_PROBE_MS = 1000,
	AUDIT_PAGE_ROWS = 256, /* rows that the audit check reads at once */
	AUDIT_ROW_BYTES =
		sizeof(struct store_audit_row) + (size_t)5 * STORE_TEXT_BYTES + STORE_DETAIL_BYTES + 256,
};

struct store {
	const struct store_driver *driver;
	void *state;
	const struct clock *clock;
	struct group *group;
	unsigned probe_ms;
	struct mono next_probe; /* writer thread only */

	pthread_mutex_t lock; /* guards trouble */
	char trouble[ERR_TEXT_BYTES];
};

static const struct store_driver *const drivers[] = {
	&store_driver_sqlite,
	&store_driver_memory,
};

const struct store_driver *store_driver_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(drivers); i++)
		if (strcmp(drivers[i]->name, name) == 0)
			return drivers[i];
	return NULL;
}

/* --- health --- */

static void set_trouble(struct store *s, const char *text)
{
	pthread_mutex_lock(&s->lock);
	snprintf(s->trouble, sizeof(s->trouble), "%s", text);
	pthread_mutex_unlock(&s->lock);
}

static bool in_trouble(struct store *s)
{
	pthread_mutex_lock(&s->lock);
	bool trouble = s->trouble[0] != 0;
	pthread_mutex_unlock(&s->lock);
	return trouble;
}

/* Passes the result of a driver call on; a failure that ends the group is remembered for store_glance. */
static int noted(struct store *s, int result, const struct err *e)
{
	if (result < 0 && (e->kind == ERR_RETRY || e->kind == ERR_FATAL)) {
		set_trouble(s, e->text);
		s->next_probe = mono_add_ms(clock_mono(s->clock), s->probe_ms);
	}
	return result;
}

void store_glance(struct store *s, struct store_glance *ret)
{
	pthread_mutex_lock(&s->lock);
	memcpy(ret->trouble, s->trouble, sizeof(ret->trouble));
	pthread_mutex_unlock(&s->lock);
	ret->healthy = ret->trouble[0] == 0;
	group_stats(s->group, &ret->group);
}

/* --- operations, on the writer thread --- */

static int refuse(const char *what, const char *fault, struct err *e)
{
	return err_set(e, ERR_REJECT, "%s is not acceptable: %s", what, fault);
}

static int apply_messages(struct store *s, struct group_op *op, struct err *e)
{
	struct store_messages *put = container_of(op, struct store_messages, op);
	if (put->count == 0 || put->count > STORE_MESSAGES_MAX)
		return err_set(
			e, ERR_REJECT, "%u messages at once, not 1 to %d", put->count, STORE_MESSAGES_MAX);
	for (unsigned i = 0; i < put->count; i++) {
		const char *fault = rules_message(&put->items[i]);
		if (fault)
			return err_set(e, ERR_REJECT, "message %u of %u is not acceptable: %s", i + 1,
				put->count, fault);
		put->items[i].duplicate = false;
	}
	put->stored_count = 0;
	return s->driver->put_messages(s->state, put, e);
}

static int apply_status(struct store *s, struct group_op *op, struct err *e)
{
	struct store_status *put = container_of(op, struct store_status, op);
	const char *fault = rules_status(put);
	return fault ? refuse("status", fault, e) : s->driver->put_status(s->state, put, e);
}

static int apply_client(struct store *s, struct group_op *op, struct err *e)
{
	struct store_client_put *put = container_of(op, struct store_client_put, op);
	const char *fault = rules_client(&put->client);
	put->change = 0;
	return fault ? refuse("client", fault, e) : s->driver->put_client(s->state, put, e);
}

static int apply_cert(struct store *s, struct group_op *op, struct err *e)
{
	struct store_cert_put *put = container_of(op, struct store_cert_put, op);
	const char *fault = rules_cert(&put->cert);
	put->change = 0;
	return fault ? refuse("certificate", fault, e) : s->driver->put_cert(s->state, put, e);
}

static int apply_revoke(struct store *s, struct group_op *op, struct err *e)
{
	struct store_revoke *revoke = container_of(op, struct store_revoke, op);
	const char *fault = rules_revoke(revoke);
	revoke->revoked_count = 0;
	revoke->change = 0;
	return fault ? refuse("revocation", fault, e) : s->driver->revoke(s->state, revoke, e);
}

static int apply_expire(struct store *s, struct group_op *op, struct err *e)
{
	struct store_expire *expire = container_of(op, struct store_expire, op);
	require(expire->max > 0 && expire->max <= STORE_PAGE_MAX && expire->is_over);
	expire->removed_count = 0;
	expire->next_sequence = 0;
	return s->driver->expire(s->state, expire, e);
}

static int apply_seen(struct store *s, struct group_op *op, struct err *e)
{
	const struct store_seen *seen = container_of(op, struct store_seen, op);
	const char *fault = rules_seen(seen);
	return fault ? refuse("report", fault, e) : s->driver->put_seen(s->state, seen, e);
}

static int apply_supersede(struct store *s, struct group_op *op, struct err *e)
{
	struct store_supersede *supersede = container_of(op, struct store_supersede, op);
	supersede->revoked_count = 0;
	supersede->change = 0;
	return s->driver->supersede(s->state, supersede, e);
}

static int apply_token(struct store *s, struct group_op *op, struct err *e)
{
	struct store_token *token = &container_of(op, struct store_token_put, op)->token;
	if (token->created_at.ms == 0)
		token->created_at = clock_wall(s->clock);
	token->uses = 0;
	const char *fault = rules_token(token);
	return fault ? refuse("token", fault, e) : s->driver->put_token(s->state, token, e);
}

static int apply_token_use(struct store *s, struct group_op *op, struct err *e)
{
	struct store_token_use *use = container_of(op, struct store_token_use, op);
	use->cert = (struct store_cert_id){.serial_bytes = 0};
	return s->driver->use_token(s->state, use, e);
}

static int apply_token_revoke(struct store *s, struct group_op *op, struct err *e)
{
	struct store_token_revoke *revoke = container_of(op, struct store_token_revoke, op);
	revoke->revoked_count = 0;
	return s->driver->revoke_tokens(s->state, revoke, e);
}

static int apply_token_restore(struct store *s, struct group_op *op, struct err *e)
{
	const struct store_token_restore *restore = container_of(op, struct store_token_restore, op);
	return s->driver->restore_token(s->state, restore, e);
}

static int apply_token_purge(struct store *s, struct group_op *op, struct err *e)
{
	struct store_token_purge *purge = container_of(op, struct store_token_purge, op);
	require(purge->max > 0 && purge->max <= STORE_PAGE_MAX);
	purge->removed_count = 0;
	return s->driver->purge_tokens(s->state, purge, e);
}

static int apply_audit(struct store *s, struct group_op *op, struct err *e)
{
	struct store_audit_row *row = &container_of(op, struct store_audit, op)->row;
	const char *fault = rules_audit(row);
	if (fault)
		return refuse("audit row", fault, e);
	int64_t newest;
	uint8_t previous[STORE_HASH_BYTES];
	if (s->driver->audit_head(s->state, &newest, previous, e) < 0)
		return -1;
	row->sequence = newest + 1;
	row->at = clock_wall(s->clock);
	if (audit_hash(previous, row, row->hash, e) < 0)
		return -1;
	return s->driver->put_audit(s->state, row, e);
}

static int (*const appliers[STORE_KINDS])(struct store *s, struct group_op *op, struct err *e) = {
	[STORE_MESSAGES] = apply_messages,
	[STORE_STATUS] = apply_status,
	[STORE_CLIENT] = apply_client,
	[STORE_CERT] = apply_cert,
	[STORE_REVOKE] = apply_revoke,
	[STORE_AUDIT] = apply_audit,
	[STORE_SEEN] = apply_seen,
	[STORE_SUPERSEDE] = apply_supersede,
	[STORE_TOKEN] = apply_token,
	[STORE_TOKEN_USE] = apply_token_use,
	[STORE_TOKEN_REVOKE] = apply_token_revoke,
	[STORE_TOKEN_RESTORE] = apply_token_restore,
	[STORE_TOKEN_PURGE] = apply_token_purge,
	[STORE_EXPIRE] = apply_expire,
};

static int backend_begin(void *backend, struct err *e)
{
	struct store *s = backend;
	return noted(s, s->driver->begin(s->state, clock_wall(s->clock), e), e);
}

static int backend_apply(void *backend, struct group_op *op, struct err *e)
{
	struct store *s = backend;
	return noted(s, appliers[op->kind](s, op, e), e);
}

static int backend_commit(void *backend, struct err *e)
{
	struct store *s = backend;
	int result = s->driver->commit(s->state, e);
	if (result >= 0)
		set_trouble(s, "");
	return noted(s, result, e);
}

static void backend_abort(void *backend)
{
	struct store *s = backend;
	s->driver->abort(s->state);
}

/* A group that writes one thing of its own: does the engine take writes again? */
static void probe(struct store *s)
{
	struct err e = ERR_INIT;
	if (backend_begin(s, &e) < 0)
		return;
	if (noted(s, s->driver->probe(s->state, &e), &e) < 0 || backend_commit(s, &e) < 0)
		s->driver->abort(s->state);
}

static struct mono backend_tick(void *backend, struct mono now)
{
	struct store *s = backend;
	if (in_trouble(s) && mono_reached(now, s->next_probe))
		probe(s);
	return in_trouble(s) ? s->next_probe : (struct mono){INT64_MAX};
}

static const struct group_backend backend = {
	.begin = backend_begin,
	.apply = backend_apply,
	.commit = backend_commit,
	.abort = backend_abort,
	.tick = backend_tick,
};

/* --- opening, closing, submitting --- */

static void store_free(struct store *s)
{
	s->driver->close(s->state);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

int store_open(const struct store_options *o, struct store **ret, struct err *e)
{
	struct store *s = calloc(1, sizeof(*s));
	if (!s)
		return err_oom(e);
	s->driver = o->driver;
	s->clock = o->clock;
	s->probe_ms = o->probe_ms ? o->probe_ms : DEFAULT_PROBE_MS;
	pthread_mutex_init(&s->lock, NULL);
	struct store_driver_options driver_options = {.location = o->location, .arg = o->driver_arg};
	struct group_options group_options = {
		.name = "store",
		.backend = &backend,
		.backend_state = s,
		.clock = o->clock,
		.limit = o->write_limit,
		.group_max = o->group_max,
		.observe = o->observe,
		.observe_arg = o->observe_arg,
	};
	if (s->driver->open(&driver_options, &s->state, e) < 0 ||
		group_start(&group_options, &s->group, e) < 0) {
		store_free(s);
		return err_context(e, "open store");
	}
	*ret = s;
	return 0;
}

void store_close(struct store *s)
{
	if (!s)
		return;
	group_stop(s->group);
	store_free(s);
}

const char *store_description(const struct store *s)
{
	return s->driver->description(s->state);
}

int store_submit(struct store *s, enum store_kind kind, struct group_op *op)
{
	require((unsigned)kind < STORE_KINDS);
	op->kind = kind;
	return group_submit(s->group, op, NULL);
}

int store_wait(struct store *s, enum store_kind kind, struct group_op *op, struct err *e)
{
	require((unsigned)kind < STORE_KINDS);
	op->kind = kind;
	return group_call(s->group, op, e);
}

/* --- reads --- */

static unsigned page_rows(unsigned max)
{
	require(max > 0);
	return max < STORE_PAGE_MAX ? max : STORE_PAGE_MAX;
}

int store_read_messages(struct store *s, const struct store_query *query, struct arena *arena,
	struct store_page *ret, struct err *e)
{
	struct store_query bounded = *query;
	bounded.max = page_rows(query->max);
	return s->driver->read_messages(s->state, &bounded, arena, ret, e);
}

int store_read_message(
	struct store *s, const struct uuid *id, struct arena *arena, struct store_row *ret, struct err *e)
{
	return s->driver->read_message(s->state, id, arena, ret, e);
}

int store_read_counts(struct store *s, struct store_counts *ret, struct err *e)
{
	return s->driver->read_counts(s->state, ret, e);
}

int store_read_clients(struct store *s, struct str domain, struct str after_name, unsigned max,
	struct arena *arena, struct store_client **ret, unsigned *ret_count, struct err *e)
{
	return s->driver->read_clients(
		s->state, domain, after_name, page_rows(max), arena, ret, ret_count, e);
}

int store_read_client(
	struct store *s, struct str name, struct arena *arena, struct store_client *ret, struct err *e)
{
	return s->driver->read_client(s->state, name, arena, ret, e);
}

int store_read_certs(struct store *s, const struct store_cert_query *query, struct arena *arena,
	struct store_cert **ret, unsigned *ret_count, struct err *e)
{
	struct store_cert_query bounded = *query;
	bounded.max = page_rows(query->max);
	return s->driver->read_certs(s->state, &bounded, arena, ret, ret_count, e);
}

int store_read_cert(struct store *s, const uint8_t *serial, unsigned serial_bytes, struct arena *arena,
	struct store_cert *ret, struct err *e)
{
	struct store_cert_query query = {.serial = serial, .serial_bytes = serial_bytes, .max = 2};
	struct store_cert *rows;
	unsigned count;
	if (s->driver->read_certs(s->state, &query, arena, &rows, &count, e) < 0)
		return -1;
	if (count == 0)
		return err_set(e, ERR_NOT_FOUND, "no certificate has this serial number");
	if (count > 1)
		return err_set(e, ERR_CONFLICT, "more than one issuer used this serial number");
	*ret = rows[0];
	return 0;
}

int store_read_tokens(struct store *s, const struct store_token_query *query, struct arena *arena,
	struct store_token **ret, unsigned *ret_count, struct err *e)
{
	struct store_token_query bounded = *query;
	bounded.max = page_rows(query->max);
	return s->driver->read_tokens(s->state, &bounded, arena, ret, ret_count, e);
}

int store_read_audit(struct store *s, int64_t after_sequence, unsigned max, struct arena *arena,
	struct store_audit_row **ret, unsigned *ret_count, struct err *e)
{
	return s->driver->read_audit(s->state, after_sequence, page_rows(max), arena, ret, ret_count, e);
}

/* --- looking after it --- */

struct chain {
	int64_t sequence;               /* of the last row that fits */
	uint8_t hash[STORE_HASH_BYTES]; /* its hash */
};

/* Follows the chain over rows; *ret_fits tells whether all of them fit. */
static int follow_chain(struct chain *chain, const struct store_audit_row *rows, unsigned count,
	bool *ret_fits, struct err *e)
{
	*ret_fits = true;
	for (unsigned i = 0; i < count && *ret_fits; i++) {
		uint8_t hash[STORE_HASH_BYTES];
		if (audit_hash(chain->hash, &rows[i], hash, e) < 0)
			return -1;
		*ret_fits = rows[i].sequence == chain->sequence + 1 &&
			    memcmp(hash, rows[i].hash, sizeof(hash)) == 0;
		if (*ret_fits) {
			chain->sequence++;
			memcpy(chain->hash, hash, sizeof(hash));
		}
	}
	return 0;
}

int store_audit_check(struct store *s, uint64_t *ret_checked, int64_t *ret_bad_sequence, struct err *e)
{
	/* The count is read first: rows that come while we walk are no news, rows that are missing are. */
	struct store_counts counts;
	if (s->driver->read_counts(s->state, &counts, e) < 0)
		return -1;
	AUTO(arena_auto) struct arena arena;
	arena_init(&arena, (size_t)AUDIT_PAGE_ROWS * AUDIT_ROW_BYTES);
	struct chain chain = {0};
	bool fits = true;
	for (unsigned count = 1; fits && count;) {
		struct store_audit_row *rows;
		arena_reset(&arena);
		if (s->driver->read_audit(
			    s->state, chain.sequence, AUDIT_PAGE_ROWS, &arena, &rows, &count, e) < 0 ||
			follow_chain(&chain, rows, count, &fits, e) < 0)
			return err_context(e, "check the audit trail");
	}
	*ret_checked = (uint64_t)chain.sequence;
	if (fits && *ret_checked >= counts.audit_rows)
		return 0;
	*ret_bad_sequence = chain.sequence + 1;
	return STORE_AUDIT_BROKEN;
}

int store_check(struct store *s, bool full, struct err *e)
{
	return s->driver->check ? s->driver->check(s->state, full, e) : 0;
}
