/* store_conformance_test.c - what every driver of the store must do, in one suite that runs over all of them.
 * A new driver is a row in `drivers`. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/auto.h"
#include "store/fixture.h"
#include "store/rules.h"

static const struct fixture_driver drivers[] = {
	{"memory", &store_driver_memory, NULL, false},
	{"sqlite", &store_driver_sqlite, NULL, true},
	{"faulty memory", &store_driver_faulty, &store_driver_memory, false},
	{"faulty sqlite", &store_driver_faulty, &store_driver_sqlite, true},
};

/* --- messages --- */

static void assert_text(struct str s, struct str wanted)
{
	if (!str_eq(s, wanted))
		fail_msg("'%.*s', not '%.*s'", STR_ARG(s), STR_ARG(wanted));
}

static void assert_row(const struct store_row *row, const struct store_message *m)
{
	assert_true(uuid_eq(&row->sealed.id, &m->sealed.id));
	assert_text(row->sealed.client_id, m->sealed.client_id);
	assert_text(row->sealed.domain, m->sealed.domain);
	assert_text(row->sealed.traceparent, m->sealed.traceparent);
	assert_text(row->sealed.envelope, m->sealed.envelope);
	assert_int_equal(row->sealed.accepted_at.ms, m->sealed.accepted_at.ms);
	assert_memory_equal(row->sender_index, m->sender_index, STORE_INDEX_BYTES);
	assert_int_equal(row->state, m->state);
	assert_int_equal(row->attempt_count, m->attempt_count);
}

static void test_empty(struct fixture *f)
{
	struct store_counts counts = fixture_counts(f), none = {0};
	assert_memory_equal(&counts, &none, sizeof(counts));

	struct err e = ERR_INIT;
	struct store_row row;
	struct uuid id = fixture_id(1);
	assert_failed(store_read_message(f->store, &id, &f->arena, &row, &e), &e, ERR_NOT_FOUND, NULL);
	struct store_client client;
	assert_failed(store_read_client(f->store, STR("client-1"), &f->arena, &client, &e), &e, ERR_NOT_FOUND,
		NULL);
	struct store_cert cert;
	assert_failed(store_read_cert(f->store, (const uint8_t *)"\1", 1, &f->arena, &cert, &e), &e,
		ERR_NOT_FOUND, NULL);

	struct store_page page;
	struct store_query query = {.state = -1, .max = 10};
	assert_done(store_read_messages(f->store, &query, &f->arena, &page, &e), &e);
	assert_int_equal(page.count, 0);
	assert_int_equal(page.next_sequence, 0);
	assert_int_equal(fixture_status(f, id, MESSAGE_FAILED, 1, "", &e), -1);
	assert_int_equal(e.kind, ERR_NOT_FOUND);
	assert_done(store_check(f->store, true, &e), &e);
	assert_true(strlen(store_description(f->store)) > 0);
}

static void test_messages_are_read_back(struct fixture *f)
{
	struct store_message items[] = {
		fixture_message(1, 1, 1, 1, MESSAGE_DELIVERED),
		fixture_message(2, 2, 1, 0, MESSAGE_QUEUED),
		fixture_message(3, 1, 1, 7, MESSAGE_DELIVERED),
	};
	fixture_store(f, items, ARRAY_LEN(items), NULL);
	fixture_reopen(f);
	for (unsigned i = 0; i < ARRAY_LEN(items); i++) {
		struct store_row row = fixture_read(f, items[i].sealed.id);
		assert_row(&row, &items[i]);
		assert_int_equal(row.sequence, i + 1);
		assert_int_equal(row.error_text.n, 0);
		assert_true(row.stored_at.ms > FIXTURE_START_MS);
		assert_int_equal(row.updated_at.ms, row.stored_at.ms);
		assert_int_equal(
			row.delivered_at.ms, items[i].state == MESSAGE_DELIVERED ? row.stored_at.ms : 0);
	}
	struct store_counts counts = fixture_counts(f);
	assert_int_equal(counts.messages, 3);
	assert_int_equal(counts.by_state[MESSAGE_DELIVERED], 2);
	assert_int_equal(counts.by_state[MESSAGE_QUEUED], 1);
}

static void test_large_envelope(struct fixture *f)
{
	char *bytes = malloc(SEALED_MAX_BYTES);
	assert_non_null(bytes);
	for (unsigned i = 0; i < SEALED_MAX_BYTES; i++)
		bytes[i] = (char)(i * 31);
	struct store_message item = fixture_message(1, 1, 1, 1, MESSAGE_DELIVERED);
	item.sealed.envelope = str_mem(bytes, SEALED_MAX_BYTES);
	fixture_store(f, &item, 1, NULL);
	struct store_row row = fixture_read(f, item.sealed.id);
	assert_row(&row, &item);
	free(bytes);
}

static void test_duplicates_change_nothing(struct fixture *f)
{
	struct store_message first = fixture_message(1, 1, 1, 1, MESSAGE_DELIVERED);
	fixture_store(f, &first, 1, NULL);
	struct store_row before = fixture_read(f, first.sealed.id);

	/* The same ids with everything else different; one of them twice in the batch. */
	struct store_message again[] = {
		fixture_message(1, 2, 2, 2, MESSAGE_DELIVERED),
		fixture_message(2, 1, 1, 1, MESSAGE_DELIVERED),
		fixture_message(2, 2, 2, 2, MESSAGE_DELIVERED),
		fixture_message(1, 2, 2, 2, MESSAGE_QUEUED),
	};
	again[0].attempt_count = 77;
	fixture_store(f, again, ARRAY_LEN(again), NULL);
	static const bool duplicate[] = {true, false, true, true};
	for (unsigned i = 0; i < ARRAY_LEN(again); i++)
		assert_int_equal(again[i].duplicate, duplicate[i]);
	fixture_reopen(f);
	struct store_row after = fixture_read(f, first.sealed.id);
	assert_row(&after, &first);
	assert_int_equal(after.updated_at.ms, before.updated_at.ms);
	after = fixture_read(f, again[1].sealed.id);
	assert_row(&after, &again[1]);
	assert_int_equal(fixture_counts(f).messages, 2);
}

static void test_registered_becomes_delivered(struct fixture *f)
{
	struct store_message registered = fixture_message(1, 1, 1, 0, MESSAGE_QUEUED);
	fixture_store(f, &registered, 1, NULL);
	fixture_status(f, registered.sealed.id, MESSAGE_QUEUED, 3, "main server said 503", NULL);
	struct store_row row = fixture_read(f, registered.sealed.id);
	assert_text(row.error_text, STR("main server said 503"));
	assert_int_equal(row.attempt_count, 3);

	/* Registering again: known already. */
	fixture_store(f, &registered, 1, NULL);
	assert_true(registered.duplicate);

	struct store_message delivered = fixture_message(1, 2, 2, 2, MESSAGE_DELIVERED);
	delivered.sealed.accepted_at.ms += 5;
	delivered.sealed.traceparent = STR("");
	fixture_store(f, &delivered, 1, NULL);
	assert_false(delivered.duplicate);
	fixture_reopen(f);
	struct store_row after = fixture_read(f, delivered.sealed.id);
	assert_row(&after, &delivered);
	assert_int_equal(after.sequence, row.sequence);
	assert_int_equal(after.stored_at.ms, row.stored_at.ms);
	assert_true(after.delivered_at.ms > row.updated_at.ms);
	assert_int_equal(after.error_text.n, 0);
	struct store_counts counts = fixture_counts(f);
	assert_int_equal(counts.by_state[MESSAGE_QUEUED], 0);
	assert_int_equal(counts.by_state[MESSAGE_DELIVERED], 1);
}

static void test_status(struct fixture *f)
{
	struct store_message items[] = {
		fixture_message(1, 1, 1, 1, MESSAGE_QUEUED),
		fixture_message(2, 1, 1, 1, MESSAGE_DELIVERED),
	};
	fixture_store(f, items, ARRAY_LEN(items), NULL);
	static const enum message_state path[] = {
		MESSAGE_PROCESSING, MESSAGE_QUEUED, MESSAGE_FAILED, MESSAGE_QUEUED};
	for (unsigned i = 0; i < ARRAY_LEN(path); i++) {
		assert_int_equal(
			fixture_status(f, items[0].sealed.id, path[i], i, i % 2 ? "refused" : "", NULL), 0);
		struct store_row row = fixture_read(f, items[0].sealed.id);
		assert_int_equal(row.state, path[i]);
		assert_int_equal(row.attempt_count, i);
		assert_text(row.error_text, i % 2 ? STR("refused") : STR(""));
		assert_int_equal(row.delivered_at.ms, 0);
		assert_int_equal(fixture_counts(f).by_state[path[i]], 1);
	}
	assert_int_equal(
		fixture_status(f, items[1].sealed.id, MESSAGE_FAILED, 9, "late", NULL), STORE_UNCHANGED);
	struct store_row row = fixture_read(f, items[1].sealed.id);
	assert_row(&row, &items[1]);
}

/* --- messages whose time is over --- */

struct retention {
	struct str domain;
	int64_t before_ms;
	unsigned asked;
};

static bool is_over(void *arg, struct str domain, struct wall delivered_at)
{
	struct retention *r = arg;
	r->asked++;
	return str_eq(domain, r->domain) && delivered_at.ms < r->before_ms;
}

/* Walks in steps of `max`; how many went. */
static unsigned expire(struct fixture *f, struct retention *r, struct wall stored_until, unsigned max)
{
	struct store_expire op = {.stored_until = stored_until, .max = max, .is_over = is_over, .arg = r};
	unsigned removed = 0;
	do {
		struct err e = ERR_INIT;
		op.after_sequence = op.next_sequence;
		assert_int_equal(store_wait(f->store, STORE_EXPIRE, &op.op, &e), 0);
		removed += op.removed_count;
	} while (op.next_sequence);
	return removed;
}

enum { EXPIRE_ROWS = 60 };

/* Domains 0 and 1 in turn; every tenth only registered. */
static void put_for_expiry(struct fixture *f, unsigned from)
{
	for (unsigned i = from; i < from + EXPIRE_ROWS; i++) {
		struct store_message m =
			fixture_message(i, i % 5, i % 2, i % 3, i % 10 ? MESSAGE_DELIVERED : MESSAGE_QUEUED);
		fixture_store(f, &m, 1, NULL);
	}
}

static void test_expire(struct fixture *f)
{
	const struct wall never = {INT64_MAX};
	put_for_expiry(f, 0);
	struct store_message one = fixture_message(1, 1, 1, 1, MESSAGE_DELIVERED);
	struct store_row row = fixture_read(f, one.sealed.id);
	struct retention r = {.domain = row.sealed.domain, .before_ms = INT64_MAX};
	/* Not what was stored later, nor what only another domain's rule covers, nor what is not delivered. */
	assert_int_equal(expire(f, &r, row.stored_at, 7), 0);
	assert_int_equal(r.asked, 0);
	r.before_ms = 0;
	assert_int_equal(expire(f, &r, never, 7), 0);
	assert_int_equal(r.asked, EXPIRE_ROWS - EXPIRE_ROWS / 10);
	r.before_ms = INT64_MAX;
	assert_int_equal(expire(f, &r, never, 7), EXPIRE_ROWS / 2);
	struct store_counts counts = fixture_counts(f);
	assert_int_equal(counts.messages, EXPIRE_ROWS / 2);
	assert_int_equal(counts.by_state[MESSAGE_DELIVERED], EXPIRE_ROWS / 2 - EXPIRE_ROWS / 10);
	assert_int_equal(counts.by_state[MESSAGE_QUEUED], EXPIRE_ROWS / 10);
	struct err e = ERR_INIT;
	assert_int_equal(store_read_message(f->store, &one.sealed.id, &f->arena, &row, &e), -1);
	assert_int_equal(e.kind, ERR_NOT_FOUND);
	assert_int_equal(store_check(f->store, true, &e), 0);

	/* Sequences are not used again, and an id that is gone is new. */
	fixture_store(f, &one, 1, NULL);
	assert_false(one.duplicate);
	assert_int_equal(fixture_read(f, one.sealed.id).sequence, EXPIRE_ROWS + 1);
	fixture_reopen(f);
	assert_int_equal(fixture_counts(f).messages, EXPIRE_ROWS / 2 + 1);
	put_for_expiry(f, EXPIRE_ROWS);
	assert_int_equal(store_check(f->store, true, &e), 0);
}

/* All of a stretch that is indexed later, or was indexed before. */
static void test_expire_everything(struct fixture *f)
{
	const struct wall never = {INT64_MAX};
	struct err e = ERR_INIT;
	for (unsigned round = 0; round < 4; round++) {
		struct store_message m = fixture_message(round, 1, 1, 1, MESSAGE_DELIVERED);
		for (unsigned i = 0; i < EXPIRE_ROWS; i++) {
			m = fixture_message(round * EXPIRE_ROWS + i, 1, 1, 1, MESSAGE_DELIVERED);
			fixture_store(f, &m, 1, NULL);
		}
		struct retention r = {
			.domain = fixture_read(f, m.sealed.id).sealed.domain, .before_ms = INT64_MAX};
		assert_int_equal(expire(f, &r, never, 1 + 20 * round), EXPIRE_ROWS);
		assert_int_equal(fixture_counts(f).messages, 0);
		assert_int_equal(store_check(f->store, true, &e), 0);
	}
}

/* --- paging, against a model --- */

enum { MODEL_ROWS = 400 };

struct model {
	struct store_message rows[MODEL_ROWS]; /* sequence is index + 1 */
	unsigned count;
	uint64_t random;
};

static struct store_message random_message(struct model *model, unsigned n, enum message_state state)
{
	unsigned client = fixture_below(&model->random, 5);
	/* Domains follow clients, but for one client that is in two. */
	unsigned domain = client == 4 ? fixture_below(&model->random, 2) : client % 2;
	struct store_message m = fixture_message(n, client, domain, fixture_below(&model->random, 7), state);
	m.sealed.accepted_at.ms += fixture_below(&model->random, 40);
	return m;
}

/* A batch of new messages, registered or delivered, and deliveries of registered ones. */
static void model_store(struct fixture *f, struct model *model)
{
	struct store_message items[20];
	unsigned count = 1 + fixture_below(&model->random, ARRAY_LEN(items));
	for (unsigned i = 0; i < count; i++) {
		bool known = model->count && fixture_below(&model->random, 3) == 0;
		unsigned n = known ? fixture_below(&model->random, model->count) : model->count;
		if (n == MODEL_ROWS)
			n--;
		enum message_state state =
			fixture_below(&model->random, 3) ? MESSAGE_DELIVERED : MESSAGE_QUEUED;
		items[i] = random_message(model, n, state);
		struct store_message *row = &model->rows[n];
		if (n == model->count)
			model->count++;
		else if (row->state == MESSAGE_DELIVERED || state != MESSAGE_DELIVERED)
			continue;
		*row = items[i];
	}
	fixture_store(f, items, count, NULL);
}

static void model_status(struct fixture *f, struct model *model)
{
	struct store_message *row = &model->rows[fixture_below(&model->random, model->count)];
	enum message_state state = fixture_below(&model->random, 2) ? MESSAGE_FAILED : MESSAGE_PROCESSING;
	int result = fixture_status(f, row->sealed.id, state, 4, "", NULL);
	assert_int_equal(result, row->state == MESSAGE_DELIVERED ? STORE_UNCHANGED : 0);
	if (result == STORE_UNCHANGED)
		return;
	row->state = state;
	row->attempt_count = 4;
}

static bool model_wants(const struct store_message *m, const struct store_query *q)
{
	int64_t at = m->sealed.accepted_at.ms;
	return (!q->client_id.n || str_eq(q->client_id, m->sealed.client_id)) &&
	       (!q->domain.n || str_eq(q->domain, m->sealed.domain)) &&
	       (q->state < 0 || (int)m->state == q->state) &&
	       (!q->sender_index || memcmp(q->sender_index, m->sender_index, STORE_INDEX_BYTES) == 0) &&
	       (!q->since.ms || at >= q->since.ms) && (!q->until.ms || at < q->until.ms);
}

/* Pages through the query's answer and compares every row. */
static void model_compare(struct fixture *f, const struct model *model, struct store_query query)
{
	unsigned n = query.before_sequence ? (unsigned)query.before_sequence - 1 : model->count;
	for (bool more = true; more;) {
		struct store_page page;
		struct err e = ERR_INIT;
		arena_reset(&f->arena);
		assert_done(store_read_messages(f->store, &query, &f->arena, &page, &e), &e);
		for (unsigned i = 0; i < page.count; i++) {
			while (n > 0 && !model_wants(&model->rows[n - 1], &query))
				n--;
			assert_true(n > 0);
			assert_int_equal(page.rows[i].sequence, n);
			assert_row(&page.rows[i], &model->rows[--n]);
		}
		more = page.next_sequence != 0;
		assert_true(!more || page.count == query.max);
		assert_true(!more || page.next_sequence == page.rows[page.count - 1].sequence);
		query.before_sequence = page.next_sequence;
	}
	while (n > 0)
		assert_false(model_wants(&model->rows[--n], &query));
}

static struct store_query random_query(struct model *model, const struct store_message *like)
{
	struct store_query query = {.state = -1, .max = 1 + fixture_below(&model->random, 30)};
	unsigned conditions = fixture_below(&model->random, 64);
	if (conditions & 1)
		query.client_id = like->sealed.client_id;
	if (conditions & 2)
		query.domain = like->sealed.domain;
	if (conditions & 4)
		query.state = like->state;
	if (conditions & 8 && rules_index_known(like->sender_index))
		query.sender_index = like->sender_index;
	if (conditions & 16)
		query.since.ms = like->sealed.accepted_at.ms;
	if (conditions & 32)
		query.until.ms = like->sealed.accepted_at.ms + 60;
	if (fixture_below(&model->random, 3) == 0)
		query.before_sequence = 1 + fixture_below(&model->random, model->count + 1);
	return query;
}

static void model_compare_some(struct fixture *f, struct model *model, unsigned queries)
{
	for (unsigned i = 0; i < queries; i++) {
		struct store_message like =
			random_message(model, fixture_below(&model->random, MODEL_ROWS), MESSAGE_DELIVERED);
		if (fixture_below(&model->random, 4))
			like = model->rows[fixture_below(&model->random, model->count)];
		model_compare(f, model, random_query(model, &like));
	}
}

static void test_paging(struct fixture *f)
{
	struct model *model = calloc(1, sizeof(*model));
	assert_non_null(model);
	model->random = 42;
	for (unsigned round = 0; round < 60; round++) {
		model_store(f, model);
		model_status(f, model);
		if (round % 5 == 0)
			model_compare_some(f, model, 10);
	}
	assert_int_equal(model->count, MODEL_ROWS);
	struct err e = ERR_INIT;
	assert_done(store_check(f->store, true, &e), &e);
	fixture_reopen(f);
	assert_done(store_check(f->store, true, &e), &e);
	model_compare_some(f, model, 200);

	struct store_counts counts = fixture_counts(f);
	uint64_t by_state[MESSAGE_STATES] = {0};
	for (unsigned i = 0; i < model->count; i++)
		by_state[model->rows[i].state]++;
	assert_int_equal(counts.messages, model->count);
	assert_memory_equal(counts.by_state, by_state, sizeof(by_state));
	free(model);
}

/* --- what is refused --- */

static void refused(struct fixture *f, enum store_kind kind, struct group_op *op, const char *text)
{
	struct err e = ERR_INIT;
	assert_failed(store_wait(f->store, kind, op, &e), &e, ERR_REJECT, text);
}

static void refused_message(struct fixture *f, struct store_message bad, const char *text)
{
	struct store_message items[] = {fixture_message(1, 1, 1, 1, MESSAGE_DELIVERED), bad};
	struct store_messages put = {.items = items, .count = 2};
	refused(f, STORE_MESSAGES, &put.op, text);
}

static void test_bad_messages_are_refused(struct fixture *f)
{
	char long_text[STORE_ERROR_TEXT_BYTES + 2];
	memset(long_text, 'x', sizeof(long_text) - 1);
	long_text[sizeof(long_text) - 1] = 0;
	struct store_message good = fixture_message(2, 1, 1, 1, MESSAGE_DELIVERED), bad = good;
	bad.state = MESSAGE_FAILED;
	refused_message(f, bad, "message 2 of 2 is not acceptable: state");
	bad = good, bad.sealed.client_id = STR("no spaces");
	refused_message(f, bad, "client id");
	bad = good, bad.sealed.domain = STR("");
	refused_message(f, bad, "domain");
	bad = good, bad.sealed.accepted_at.ms = 0;
	refused_message(f, bad, "time of acceptance");
	bad = good, bad.sealed.traceparent = str_mem(long_text, STORE_TRACEPARENT_BYTES + 1);
	refused_message(f, bad, "trace context");
	bad = good, bad.sealed.envelope.n = 0;
	refused_message(f, bad, "envelope");
	bad = good, bad.sealed.envelope.n = SEALED_MAX_BYTES + 1;
	refused_message(f, bad, "envelope");

	struct store_messages put = {.items = &good, .count = 0};
	refused(f, STORE_MESSAGES, &put.op, "0 messages");
	put.count = STORE_MESSAGES_MAX + 1;
	refused(f, STORE_MESSAGES, &put.op, "501 messages");

	struct store_status status = {.id = good.sealed.id, .state = MESSAGE_DELIVERED};
	refused(f, STORE_STATUS, &status.op, "state");
	status.state = MESSAGE_STATES;
	refused(f, STORE_STATUS, &status.op, "state");
	status.state = MESSAGE_FAILED;
	status.error_text = str_of(long_text);
	refused(f, STORE_STATUS, &status.op, "error text");
	status.error_text = STR("\xff");
	refused(f, STORE_STATUS, &status.op, "error text");
	assert_int_equal(fixture_counts(f).messages, 0);
}

static void refused_cert(struct fixture *f, struct store_cert cert, const char *text)
{
	struct store_cert_put put = {.cert = cert};
	refused(f, STORE_CERT, &put.op, text);
}

static void test_bad_rows_are_refused(struct fixture *f)
{
	char long_text[STORE_DETAIL_BYTES + 1];
	memset(long_text, 'x', sizeof(long_text));
	struct store_client_put client = {.client = {STR("-"), STR("d"), CLIENT_ACTIVE, {0}}};
	refused(f, STORE_CLIENT, &client.op, "name");
	client.client = (struct store_client){STR("c"), STR("\xc3"), CLIENT_ACTIVE, {0}};
	refused(f, STORE_CLIENT, &client.op, "domain");
	client.client = (struct store_client){STR("c"), STR("d"), CLIENT_STATUSES, {0}};
	refused(f, STORE_CLIENT, &client.op, "status");

	struct store_cert good = fixture_cert(1, 0, "client", "c", "d"), bad = good;
	bad.serial_bytes = 0;
	refused_cert(f, bad, "serial");
	bad.serial_bytes = SERIAL_MAX_BYTES + 1;
	refused_cert(f, bad, "serial");
	bad = good, bad.serial[0] = 0;
	refused_cert(f, bad, "serial");
	bad = good, bad.role = STR("");
	refused_cert(f, bad, "role");
	bad = good, bad.name = STR("");
	refused_cert(f, bad, "name");
	bad = good, bad.domain = STR("");
	refused_cert(f, bad, "domain");
	bad = good, bad.der.n = 0;
	refused_cert(f, bad, "size");
	bad = good, bad.der.n = STORE_CERT_BYTES + 1;
	refused_cert(f, bad, "size");

	struct store_revoke revoke = {.name = STR("")};
	refused(f, STORE_REVOKE, &revoke.op, "name");
	revoke = (struct store_revoke){.serial_bytes = 2, .serial = {0, 1}};
	refused(f, STORE_REVOKE, &revoke.op, "serial");
	revoke = (struct store_revoke){.name = STR("c"), .reason = str_mem(long_text, STORE_TEXT_BYTES + 1)};
	refused(f, STORE_REVOKE, &revoke.op, "reason");
	revoke = (struct store_revoke){.name = STR("c"), .role = STR("\xff")};
	refused(f, STORE_REVOKE, &revoke.op, "role");

	struct store_audit audit = {.row.target = str_mem(long_text, STORE_TEXT_BYTES + 1)};
	refused(f, STORE_AUDIT, &audit.op, "text");
	audit = (struct store_audit){.row.detail = str_mem(long_text, STORE_DETAIL_BYTES + 1)};
	refused(f, STORE_AUDIT, &audit.op, "detail");
	struct store_counts counts = fixture_counts(f), none = {0};
	assert_memory_equal(&counts, &none, sizeof(counts));
}

/* --- clients --- */

static void assert_clients(
	struct fixture *f, const char *domain, const char *after, unsigned max, const char *wanted)
{
	struct store_client *rows;
	unsigned count;
	struct err e = ERR_INIT;
	char got[256] = "";
	assert_done(store_read_clients(
			    f->store, str_of(domain), str_of(after), max, &f->arena, &rows, &count, &e),
		&e);
	for (unsigned i = 0; i < count; i++)
		snprintf(got + strlen(got), sizeof(got) - strlen(got), "%s%.*s/%.*s", i ? " " : "",
			STR_ARG(rows[i].name), STR_ARG(rows[i].domain));
	assert_string_equal(got, wanted);
}

static void test_clients(struct fixture *f)
{
	struct err e = ERR_INIT;
	static const char *const names[] = {"delta", "alpha", "charlie", "bravo"};
	for (unsigned i = 0; i < ARRAY_LEN(names); i++)
		assert_int_equal(
			fixture_put_client(f, names[i], i % 2 ? "north" : "south", CLIENT_ACTIVE, NULL), 0);
	assert_clients(f, "", "", 10, "alpha/north bravo/north charlie/south delta/south");
	assert_clients(f, "", "alpha", 2, "bravo/north charlie/south");
	assert_clients(f, "south", "", 10, "charlie/south delta/south");
	assert_clients(f, "south", "charlie", 10, "delta/south");
	assert_clients(f, "east", "", 10, "");

	assert_failed(fixture_put_client(f, "alpha", "south", CLIENT_ACTIVE, &e), &e, ERR_CONFLICT,
		"another domain");
	assert_int_equal(fixture_put_client(f, "alpha", "north", CLIENT_ACTIVE, NULL), STORE_UNCHANGED);
	assert_int_equal(fixture_put_client(f, "alpha", "north", CLIENT_SUSPENDED, NULL), 0);
	fixture_reopen(f);
	struct store_client client;
	assert_done(store_read_client(f->store, STR("alpha"), &f->arena, &client, &e), &e);
	assert_int_equal(client.status, CLIENT_SUSPENDED);
	assert_true(client.created_at.ms > FIXTURE_START_MS);
	assert_int_equal(fixture_counts(f).clients, 4);

	struct store_client_put dated = {.client = {STR("echo"), STR("north"), CLIENT_SUSPENDED, {12345}}};
	assert_done(store_wait(f->store, STORE_CLIENT, &dated.op, &e), &e);
	assert_done(store_read_client(f->store, STR("echo"), &f->arena, &client, &e), &e);
	assert_int_equal(client.created_at.ms, 12345);
}

/* --- certificates --- */

/* "01 02!": serials in order, '!' revoked, '~' suspended; and change numbers that rise. */
static void assert_certs(struct fixture *f, struct store_cert_query query, const char *wanted)
{
	struct store_cert *rows;
	unsigned count;
	struct err e = ERR_INIT;
	char got[256] = "";
	query.max = query.max ? query.max : 100;
	assert_done(store_read_certs(f->store, &query, &f->arena, &rows, &count, &e), &e);
	for (unsigned i = 0; i < count; i++) {
		snprintf(got + strlen(got), sizeof(got) - strlen(got), "%s%02x%s%s", i ? " " : "",
			rows[i].serial[2], rows[i].revoked_at.ms ? "!" : "", rows[i].suspended ? "~" : "");
		assert_true(rows[i].change > (i ? rows[i - 1].change : query.after_change));
	}
	assert_string_equal(got, wanted);
}

static struct store_revoke revoke_serial(unsigned serial)
{
	return (struct store_revoke){
		.serial = {0x5e, (uint8_t)(serial >> 8), (uint8_t)serial},
		.serial_bytes = 3,
		.reason = STR("keyCompromise"),
		.at = {FIXTURE_START_MS + 5},
	};
}

static void test_cert_is_read_back(struct fixture *f)
{
	struct store_cert cert = fixture_cert(1, 0, "client", "alpha", "north");
	cert.suspended = true;
	cert.revoked_at.ms = 1;
	cert.change = 99;
	struct store_cert_put put = {.cert = cert, .create_client = true};
	struct err e = ERR_INIT;
	assert_done(store_wait(f->store, STORE_CERT, &put.op, &e), &e);
	assert_int_equal(put.change, 1);
	fixture_reopen(f);
	struct store_cert row;
	assert_done(store_read_cert(f->store, cert.serial, cert.serial_bytes, &f->arena, &row, &e), &e);
	assert_int_equal(row.serial_bytes, cert.serial_bytes);
	assert_memory_equal(row.serial, cert.serial, sizeof(row.serial));
	assert_memory_equal(row.issuer_key_id, cert.issuer_key_id, sizeof(row.issuer_key_id));
	assert_text(row.role, cert.role);
	assert_text(row.name, cert.name);
	assert_text(row.domain, cert.domain);
	assert_text(row.der, cert.der);
	assert_int_equal(row.not_before.ms, cert.not_before.ms);
	assert_int_equal(row.not_after.ms, cert.not_after.ms);
	assert_int_equal(row.issued_at.ms, cert.issued_at.ms);
	assert_int_equal(row.revoked_at.ms, 0);
	assert_int_equal(row.revoke_reason.n, 0);
	assert_false(row.suspended);
	assert_int_equal(row.change, 1);
	struct store_client client;
	assert_done(store_read_client(f->store, STR("alpha"), &f->arena, &client, &e), &e);
	assert_text(client.domain, STR("north"));
	assert_int_equal(client.status, CLIENT_ACTIVE);
	assert_true(client.created_at.ms > FIXTURE_START_MS);
}

static void test_cert_conflicts(struct fixture *f)
{
	struct err e = ERR_INIT;
	struct store_cert cert = fixture_cert(1, 0, "client", "alpha", "north");
	fixture_put_cert(f, &cert, true, NULL);
	struct store_cert other = fixture_cert(1, 0, "client", "bravo", "north");
	assert_failed(fixture_put_cert(f, &other, true, &e), &e, ERR_CONFLICT, "serial");
	other = fixture_cert(2, 0, "client", "alpha", "south");
	assert_failed(fixture_put_cert(f, &other, true, &e), &e, ERR_CONFLICT, "another domain");
	/* Neither left anything behind. */
	assert_int_equal(fixture_counts(f).certificates, 1);
	assert_int_equal(fixture_counts(f).clients, 1);

	/* Another issuer may use the serial; then the serial alone names no certificate. */
	other = fixture_cert(1, 1, "proxy", "edge", "");
	fixture_put_cert(f, &other, true, NULL);
	assert_int_equal(fixture_counts(f).clients, 1);
	struct store_cert row;
	assert_failed(
		store_read_cert(f->store, cert.serial, 3, &f->arena, &row, &e), &e, ERR_CONFLICT, "issuer");
	struct store_cert_query query = {
		.serial = other.serial, .serial_bytes = 3, .issuer_key_id = other.issuer_key_id, .max = 2};
	struct store_cert *rows;
	unsigned count;
	assert_done(store_read_certs(f->store, &query, &f->arena, &rows, &count, &e), &e);
	assert_int_equal(count, 1);
	assert_text(rows[0].name, STR("edge"));
}

static struct store_cert_id cert_id(const struct store_cert *cert)
{
	struct store_cert_id id = {.serial_bytes = cert->serial_bytes};
	memcpy(id.serial, cert->serial, sizeof(id.serial));
	memcpy(id.issuer_key_id, cert->issuer_key_id, sizeof(id.issuer_key_id));
	return id;
}

/* A certificate and a revocation of what it stands on, whichever comes first. */
static void test_cert_of_what_ended_meanwhile(struct fixture *f)
{
	struct err e = ERR_INIT;
	struct store_cert old = fixture_cert(1, 0, "client", "alpha", "north");
	struct store_cert_put put = {.cert = fixture_cert(2, 0, "client", "alpha", "north"),
		.create_client = true,
		.while_good = true};
	put.cert.renews = cert_id(&old);
	assert_failed(store_wait(f->store, STORE_CERT, &put.op, &e), &e, ERR_FORBIDDEN, "revoked meanwhile");
	fixture_put_cert(f, &old, true, NULL);
	assert_done(store_wait(f->store, STORE_CERT, &put.op, &e), &e);

	struct store_revoke revoke = {.name = STR("alpha")};
	assert_done(store_wait(f->store, STORE_REVOKE, &revoke.op, &e), &e);
	assert_int_equal(revoke.revoked_count, 2);
	put.cert = fixture_cert(3, 0, "client", "alpha", "north");
	put.cert.renews = cert_id(&old);
	assert_failed(store_wait(f->store, STORE_CERT, &put.op, &e), &e, ERR_FORBIDDEN, "revoked meanwhile");
	put.while_good = false; /* a listener's own certificate stands on nothing but the CA */
	assert_done(store_wait(f->store, STORE_CERT, &put.op, &e), &e);

	struct store_client_put client = {
		.client = {.name = STR("alpha"), .domain = STR("north"), .status = CLIENT_REMOVED}};
	assert_done(store_wait(f->store, STORE_CLIENT, &client.op, &e), &e);
	struct store_cert late = fixture_cert(4, 0, "client", "alpha", "north");
	assert_failed(fixture_put_cert(f, &late, true, &e), &e, ERR_CONFLICT, "removed");
	assert_int_equal(fixture_counts(f).certificates, 3);
}

static void put_some_certs(struct fixture *f)
{
	static const struct {
		const char *role, *name, *domain;
	} rows[] = {
		{"client", "alpha", "north"},
		{"client", "alpha", "north"},
		{"client", "bravo", "south"},
		{"proxy", "alpha", ""},
		{"client", "alpha", "north"},
		{"worker", "drone", ""},
	};
	for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
		struct store_cert cert = fixture_cert(i + 1, 0, rows[i].role, rows[i].name, rows[i].domain);
		fixture_put_cert(f, &cert, true, NULL);
	}
}

static void test_cert_queries(struct fixture *f)
{
	put_some_certs(f);
	assert_certs(f, (struct store_cert_query){0}, "01 02 03 04 05 06");
	assert_certs(f, (struct store_cert_query){.max = 2}, "01 02");
	assert_certs(f, (struct store_cert_query){.after_change = 2, .max = 3}, "03 04 05");
	assert_certs(f, (struct store_cert_query){.name = STR("alpha")}, "01 02 04 05");
	assert_certs(f, (struct store_cert_query){.name = STR("alpha"), .role = STR("client")}, "01 02 05");
	assert_certs(f, (struct store_cert_query){.name = STR("alpha"), .after_change = 2}, "04 05");
	assert_certs(f, (struct store_cert_query){.domain = STR("south")}, "03");
	assert_certs(f, (struct store_cert_query){.role = STR("worker")}, "06");
	assert_certs(f, (struct store_cert_query){.expires_before = {FIXTURE_START_MS + 3000}}, "01 02");
	assert_certs(f, (struct store_cert_query){.revoked_only = true}, "");
	struct store_revoke revoke = revoke_serial(2);
	struct err e = ERR_INIT;
	assert_done(store_wait(f->store, STORE_REVOKE, &revoke.op, &e), &e);
	assert_certs(f, (struct store_cert_query){.revoked_only = true}, "02!");
	assert_certs(f, (struct store_cert_query){0}, "01 03 04 05 06 02!");
}

static void test_revoke(struct fixture *f)
{
	struct err e = ERR_INIT;
	put_some_certs(f);
	struct store_revoke revoke = revoke_serial(2);
	assert_int_equal(store_wait(f->store, STORE_REVOKE, &revoke.op, &e), 0);
	assert_int_equal(revoke.revoked_count, 1);
	assert_int_equal(revoke.change, 7);

	/* Once more: nothing new, time and reason stay. */
	revoke = revoke_serial(2);
	revoke.reason = STR("superseded");
	revoke.at.ms++;
	assert_int_equal(store_wait(f->store, STORE_REVOKE, &revoke.op, &e), STORE_UNCHANGED);
	assert_int_equal(revoke.revoked_count, 0);
	assert_int_equal(revoke.change, 0);
	struct store_cert row;
	assert_done(store_read_cert(f->store, revoke.serial, 3, &f->arena, &row, &e), &e);
	assert_int_equal(row.revoked_at.ms, FIXTURE_START_MS + 5);
	assert_text(row.revoke_reason, STR("keyCompromise"));

	revoke = revoke_serial(77);
	assert_failed(store_wait(f->store, STORE_REVOKE, &revoke.op, &e), &e, ERR_NOT_FOUND, NULL);
	revoke = revoke_serial(1);
	uint8_t other_issuer[STORE_KEY_ID_BYTES] = {1};
	revoke.issuer_key_id = other_issuer;
	assert_failed(store_wait(f->store, STORE_REVOKE, &revoke.op, &e), &e, ERR_NOT_FOUND, NULL);

	/* All of a name's clients that are left, at a time left to the store; the proxy of that name stays.
	 */
	revoke = (struct store_revoke){.name = STR("alpha"), .role = STR("client")};
	assert_int_equal(store_wait(f->store, STORE_REVOKE, &revoke.op, &e), 0);
	assert_int_equal(revoke.revoked_count, 2);
	assert_int_equal(revoke.change, 9);
	assert_certs(f, (struct store_cert_query){.after_change = 6}, "02! 01! 05!");
	assert_done(store_read_cert(f->store, (const uint8_t *)"\x5e\0\1", 3, &f->arena, &row, &e), &e);
	assert_true(row.revoked_at.ms > FIXTURE_START_MS + 5);
	assert_text(row.revoke_reason, STR("unspecified"));

	revoke = (struct store_revoke){.name = STR("alpha")};
	assert_int_equal(store_wait(f->store, STORE_REVOKE, &revoke.op, &e), 0);
	assert_int_equal(revoke.revoked_count, 1);
	revoke = (struct store_revoke){.name = STR("nobody")};
	assert_failed(store_wait(f->store, STORE_REVOKE, &revoke.op, &e), &e, ERR_NOT_FOUND, NULL);
	fixture_reopen(f);
	assert_certs(f, (struct store_cert_query){0}, "03 06 02! 01! 05! 04!");

	/* Numbers go on after a reopen. */
	struct store_cert cert = fixture_cert(9, 0, "client", "zulu", "north");
	fixture_put_cert(f, &cert, true, NULL);
	assert_certs(f, (struct store_cert_query){.after_change = 10}, "09");
}

static void test_suspended_client_is_in_the_feed(struct fixture *f)
{
	struct err e = ERR_INIT;
	put_some_certs(f);
	struct store_client_put put = {.client = {STR("alpha"), STR("north"), CLIENT_SUSPENDED, {0}}};
	assert_int_equal(store_wait(f->store, STORE_CLIENT, &put.op, &e), 0);
	assert_int_equal(put.change, 9);
	assert_certs(f, (struct store_cert_query){.after_change = 6}, "01~ 02~ 05~");
	assert_certs(f, (struct store_cert_query){.role = STR("proxy")}, "04");
	fixture_reopen(f);
	put.client.status = CLIENT_ACTIVE;
	assert_int_equal(store_wait(f->store, STORE_CLIENT, &put.op, &e), 0);
	assert_certs(f, (struct store_cert_query){.after_change = 9}, "01 02 05");

	/* A client row that comes after its certificates counts too. */
	struct store_cert early = fixture_cert(0x20, 0, "client", "tardy", "north");
	fixture_put_cert(f, &early, false, NULL);
	assert_int_equal(fixture_put_client(f, "tardy", "north", CLIENT_SUSPENDED, NULL), 0);
	assert_certs(f, (struct store_cert_query){.after_change = 13}, "20~");
}

/* --- lineage --- */

/* A certificate that renews the one with serial number `renews`; 0: the first. */
static void put_renewal(struct fixture *f, unsigned serial, unsigned issuer, unsigned renews)
{
	struct store_cert cert = fixture_cert(serial, issuer, "client", "alpha", "north");
	if (renews) {
		struct store_cert old = fixture_cert(renews, 0, "client", "alpha", "north");
		cert.renews = cert_id(&old);
	}
	fixture_put_cert(f, &cert, true, NULL);
}

static void see(struct fixture *f, unsigned serial, unsigned issuer, int64_t at_ms)
{
	struct store_cert cert = fixture_cert(serial, issuer, "client", "alpha", "north");
	struct store_seen_item items[] = {{cert_id(&cert), {at_ms}}, {cert_id(&cert), {at_ms - 1}}};
	items[1].cert.serial[0]++; /* nobody has this one */
	struct store_seen seen = {.items = items, .count = ARRAY_LEN(items)};
	struct err e = ERR_INIT;
	assert_done(store_wait(f->store, STORE_SEEN, &seen.op, &e), &e);
}

static unsigned supersede(struct fixture *f, int64_t after_ms, int64_t until_ms)
{
	struct store_supersede op = {.after = {after_ms}, .until = {until_ms}};
	struct err e = ERR_INIT;
	int result = store_wait(f->store, STORE_SUPERSEDE, &op.op, &e);
	assert_int_equal(result, op.revoked_count ? 0 : STORE_UNCHANGED);
	assert_int_equal(op.change != 0, op.revoked_count != 0);
	return op.revoked_count;
}

static void test_seen(struct fixture *f)
{
	put_renewal(f, 1, 0, 0);
	see(f, 1, 0, 500);
	see(f, 1, 0, 900);
	see(f, 1, 0, 700); /* a report that comes late */
	fixture_reopen(f);
	struct store_cert row;
	struct err e = ERR_INIT;
	assert_done(store_read_cert(f->store, (const uint8_t *)"\x5e\0\1", 3, &f->arena, &row, &e), &e);
	assert_int_equal(row.first_seen_at.ms, 500);
	assert_int_equal(row.seen_at.ms, 900);
	assert_int_equal(row.renews.serial_bytes, 0);
	assert_certs(f, (struct store_cert_query){.after_change = 1}, ""); /* not a change for proxies */

	struct store_seen none = {.count = 0};
	assert_failed(store_wait(f->store, STORE_SEEN, &none.op, &e), &e, ERR_REJECT, "count");
}

/* 1 was renewed as 2, whose answer was lost, then as 3, by another issuer, and again as 4. */
static void test_supersede(struct fixture *f)
{
	put_renewal(f, 1, 0, 0);
	put_renewal(f, 2, 0, 1);
	put_renewal(f, 3, 1, 1);
	put_renewal(f, 4, 0, 1);
	put_renewal(f, 5, 0, 0);
	assert_int_equal(supersede(f, 0, 1000), 0);
	see(f, 1, 0, 100);
	see(f, 5, 0, 100);
	assert_int_equal(supersede(f, 0, 1000), 0);
	see(f, 3, 1, 200);
	assert_int_equal(supersede(f, 0, 199), 0);
	assert_int_equal(supersede(f, 200, 1000), 0);
	assert_int_equal(supersede(f, 199, 200), 2);
	assert_int_equal(supersede(f, 0, 1000), 0);
	assert_certs(f, (struct store_cert_query){0}, "03 04 05 01! 02!");
	fixture_reopen(f);
	struct store_cert row;
	struct err e = ERR_INIT;
	assert_done(store_read_cert(f->store, (const uint8_t *)"\x5e\0\2", 3, &f->arena, &row, &e), &e);
	assert_text(row.revoke_reason, STR("superseded"));
	assert_true(row.revoked_at.ms > 0);
	assert_memory_equal(row.renews.serial, "\x5e\0\1", 3);
	assert_int_equal(row.renews.issuer_key_id[0], 0xa0);
	/* 3 was in use and stays when 4 turns up after all. */
	see(f, 4, 0, 300);
	assert_int_equal(supersede(f, 200, 300), 0);
	assert_done(store_check(f->store, true, &e), &e);
}

/* --- tokens --- */

static struct store_token a_token(unsigned n, const char *name)
{
	struct store_token token = {
		.name = str_of(name),
		.domain = STR("north"),
		.role = STR("client"),
		.names = STR("a.example,10.0.0.1"),
		.days = n,
		.expires_at = {INT64_MAX},
		.uses_max = 1,
	};
	memset(token.hash, (int)n, sizeof(token.hash));
	return token;
}

static int put_token(struct fixture *f, const struct store_token *token, struct err *e)
{
	struct store_token_put put = {.token = *token};
	return store_wait(f->store, STORE_TOKEN, &put.op, e);
}

static struct store_token_use use_of(unsigned token, unsigned key)
{
	struct store_token_use use = {.op.result = -1};
	memset(use.key.id, (int)token, sizeof(use.key.id));
	memset(use.key.key_hash, (int)key, sizeof(use.key.key_hash));
	return use;
}

static int use_token(struct fixture *f, unsigned token, unsigned key, struct err *e)
{
	struct store_token_use use = use_of(token, key);
	return store_wait(f->store, STORE_TOKEN_USE, &use.op, e);
}

static int revoke_token(struct fixture *f, const uint8_t *id, const char *name, struct err *e)
{
	struct store_token_revoke revoke = {.id = id, .name = str_of(name)};
	return store_wait(f->store, STORE_TOKEN_REVOKE, &revoke.op, e);
}

static struct store_token read_token(struct fixture *f, unsigned n)
{
	uint8_t id[STORE_TOKEN_ID_BYTES];
	memset(id, (int)n, sizeof(id));
	struct store_token_query query = {.id = id, .max = 2};
	struct store_token *rows;
	unsigned count;
	struct err e = ERR_INIT;
	assert_done(store_read_tokens(f->store, &query, &f->arena, &rows, &count, &e), &e);
	assert_int_equal(count, 1);
	return rows[0];
}

static void test_token_is_read_back(struct fixture *f)
{
	struct err e = ERR_INIT;
	struct store_token token = a_token(7, "alpha");
	assert_done(put_token(f, &token, &e), &e);
	assert_failed(put_token(f, &token, &e), &e, ERR_CONFLICT, "this id");
	fixture_reopen(f);
	struct store_token row = read_token(f, 7);
	assert_memory_equal(row.hash, token.hash, sizeof(row.hash));
	assert_text(row.name, token.name);
	assert_text(row.domain, token.domain);
	assert_text(row.role, token.role);
	assert_text(row.names, token.names);
	assert_int_equal(row.days, 7);
	assert_true(row.created_at.ms > 0);
	assert_int_equal(row.expires_at.ms, INT64_MAX);
	assert_int_equal(row.uses_max, 1);
	assert_int_equal(row.uses + row.used_at.ms + row.revoked_at.ms, 0);

	struct store_token bad[] = {token, token, token, token};
	bad[0].name = STR("");
	bad[1].domain = STR("a b");
	bad[2].uses_max = STORE_TOKEN_USES_MAX + 1;
	bad[3].expires_at.ms = 0;
	for (unsigned i = 0; i < ARRAY_LEN(bad); i++)
		assert_failed(put_token(f, &bad[i], &e), &e, ERR_REJECT, "token is not acceptable");
}

static void test_token_queries(struct fixture *f)
{
	struct err e = ERR_INIT;
	for (unsigned i = 1; i <= 5; i++) {
		struct store_token token = a_token(i, i % 2 ? "alpha" : "bravo");
		assert_done(put_token(f, &token, &e), &e);
	}
	static const struct {
		struct store_token_query query;
		const char *wanted;
	} cases[] = {
		{{.max = 10}, "54321"},
		{{.max = 2}, "54"},
		{{.max = 2, .before_sequence = 4}, "32"},
		{{.name = STR("alpha"), .max = 10}, "531"},
		{{.name = STR("alpha"), .before_sequence = 5, .max = 1}, "3"},
		{{.name = STR("zulu"), .max = 1}, ""},
	};
	for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
		struct store_token *rows;
		unsigned count;
		assert_done(store_read_tokens(f->store, &cases[i].query, &f->arena, &rows, &count, &e), &e);
		char got[8] = "";
		for (unsigned n = 0; n < count; n++)
			got[n] = (char)('0' + rows[n].hash[0]);
		assert_string_equal(got, cases[i].wanted);
	}
}

static void test_token_use(struct fixture *f)
{
	struct err e = ERR_INIT;
	struct store_token tokens[] = {a_token(1, "alpha"), a_token(2, "alpha"), a_token(3, "alpha")};
	tokens[1].expires_at.ms = 1;
	tokens[2].uses_max = 2;
	for (unsigned i = 0; i < ARRAY_LEN(tokens); i++)
		assert_done(put_token(f, &tokens[i], &e), &e);
	assert_int_equal(use_token(f, 1, 10, &e), STORE_TOKEN_CONSUMED);
	assert_int_equal(use_token(f, 1, 10, &e), STORE_TOKEN_AGAIN);
	assert_int_equal(use_token(f, 1, 11, &e), STORE_TOKEN_USED_UP);
	assert_int_equal(use_token(f, 2, 10, &e), STORE_TOKEN_EXPIRED);
	assert_int_equal(use_token(f, 3, 10, &e), STORE_TOKEN_CONSUMED);
	fixture_reopen(f);
	assert_int_equal(use_token(f, 3, 10, &e), STORE_TOKEN_AGAIN);
	assert_int_equal(use_token(f, 3, 11, &e), STORE_TOKEN_CONSUMED);
	assert_int_equal(use_token(f, 3, 12, &e), STORE_TOKEN_USED_UP);
	assert_failed(use_token(f, 9, 10, &e), &e, ERR_NOT_FOUND, "no such token");
	assert_int_equal(read_token(f, 1).uses, 1);
	assert_int_equal(read_token(f, 2).uses, 0);
	assert_int_equal(read_token(f, 3).uses, 2);
	assert_true(read_token(f, 3).used_at.ms > 0);
}

/* However often signing is tried, one use leads to one registered certificate. */
static void test_token_gets_one_certificate(struct fixture *f)
{
	struct err e = ERR_INIT;
	struct store_token token = a_token(1, "alpha");
	assert_done(put_token(f, &token, &e), &e);
	struct store_token_use use = use_of(1, 10), other = use_of(1, 11);
	assert_int_equal(store_wait(f->store, STORE_TOKEN_USE, &use.op, &e), STORE_TOKEN_CONSUMED);
	struct store_cert_put put = {
		.cert = fixture_cert(1, 0, "client", "alpha", "north"), .create_client = true};
	put.token = &other.key;
	assert_failed(store_wait(f->store, STORE_CERT, &put.op, &e), &e, ERR_CONFLICT, "token");
	put.token = &use.key;
	assert_done(store_wait(f->store, STORE_CERT, &put.op, &e), &e);
	put.cert = fixture_cert(2, 0, "client", "alpha", "north");
	assert_failed(store_wait(f->store, STORE_CERT, &put.op, &e), &e, ERR_CONFLICT, "token");
	fixture_reopen(f);
	assert_int_equal(store_wait(f->store, STORE_TOKEN_USE, &use.op, &e), STORE_TOKEN_AGAIN);
	assert_int_equal(use.cert.serial_bytes, 3);
	assert_memory_equal(use.cert.serial, "\x5e\0\1", 3);
	assert_int_equal(use.cert.issuer_key_id[0], 0xa0);
	assert_certs(f, (struct store_cert_query){0}, "01");
}

static void test_token_revoke(struct fixture *f)
{
	struct err e = ERR_INIT;
	for (unsigned i = 1; i <= 4; i++) {
		struct store_token token = a_token(i, i == 4 ? "bravo" : "alpha");
		assert_done(put_token(f, &token, &e), &e);
	}
	uint8_t id[STORE_TOKEN_ID_BYTES];
	memset(id, 1, sizeof(id));
	assert_int_equal(revoke_token(f, id, "", &e), 0);
	assert_int_equal(revoke_token(f, id, "", &e), STORE_UNCHANGED);
	assert_int_equal(use_token(f, 1, 10, &e), STORE_TOKEN_REVOKED);
	assert_int_equal(use_token(f, 2, 10, &e), STORE_TOKEN_CONSUMED);
	memset(id, 9, sizeof(id));
	assert_failed(revoke_token(f, id, "", &e), &e, ERR_NOT_FOUND, "no such token");
	assert_int_equal(revoke_token(f, NULL, "alpha", &e), 0);
	assert_int_equal(revoke_token(f, NULL, "alpha", &e), STORE_UNCHANGED);
	assert_int_equal(use_token(f, 2, 10, &e), STORE_TOKEN_AGAIN); /* used before, and left alone */
	assert_int_equal(use_token(f, 3, 10, &e), STORE_TOKEN_REVOKED);
	assert_int_equal(use_token(f, 4, 10, &e), STORE_TOKEN_CONSUMED);
}

static int restore_token(struct fixture *f, unsigned n, unsigned uses, int64_t revoked_ms, struct err *e)
{
	struct store_token_restore restore = {.uses = uses, .used_at = {500}, .revoked_at = {revoked_ms}};
	memset(restore.id, (int)n, sizeof(restore.id));
	return store_wait(f->store, STORE_TOKEN_RESTORE, &restore.op, e);
}

/* A store that is older than what is known of its tokens. */
static void test_token_restore(struct fixture *f)
{
	struct err e = ERR_INIT;
	for (unsigned i = 1; i <= 3; i++) {
		struct store_token token = a_token(i, "alpha");
		token.uses_max = i == 2 ? 3 : 1;
		assert_done(put_token(f, &token, &e), &e);
	}
	assert_int_equal(restore_token(f, 1, 1, 0, &e), 0);
	assert_int_equal(restore_token(f, 1, 1, 0, &e), STORE_UNCHANGED);
	assert_int_equal(restore_token(f, 1, 9, 0, &e), STORE_UNCHANGED); /* more than it allows */
	assert_int_equal(restore_token(f, 2, 2, 0, &e), 0);
	assert_int_equal(restore_token(f, 2, 1, 0, &e), STORE_UNCHANGED); /* never back */
	assert_int_equal(restore_token(f, 3, 0, 700, &e), 0);
	assert_int_equal(restore_token(f, 3, 0, 800, &e), STORE_UNCHANGED);
	assert_failed(restore_token(f, 9, 1, 0, &e), &e, ERR_NOT_FOUND, "no such token");
	fixture_reopen(f);
	assert_int_equal(read_token(f, 1).used_at.ms, 500);
	assert_int_equal(read_token(f, 3).revoked_at.ms, 700);
	assert_int_equal(use_token(f, 1, 10, &e), STORE_TOKEN_USED_UP);
	assert_int_equal(use_token(f, 2, 10, &e), STORE_TOKEN_CONSUMED);
	assert_int_equal(use_token(f, 2, 11, &e), STORE_TOKEN_USED_UP);
	assert_int_equal(use_token(f, 3, 10, &e), STORE_TOKEN_REVOKED);
}

static unsigned purge_tokens(struct fixture *f, int64_t before_ms, unsigned max)
{
	struct store_token_purge purge = {.ended_before = {before_ms}, .max = max};
	struct err e = ERR_INIT;
	assert_done(store_wait(f->store, STORE_TOKEN_PURGE, &purge.op, &e), &e);
	return purge.removed_count;
}

static void assert_tokens(struct fixture *f, const char *wanted)
{
	struct store_token_query query = {.max = 10};
	struct store_token *rows;
	struct err e = ERR_INIT;
	unsigned count;
	char got[11] = "";
	assert_done(store_read_tokens(f->store, &query, &f->arena, &rows, &count, &e), &e);
	for (unsigned n = 0; n < count; n++)
		got[n] = (char)('0' + rows[n].hash[0]);
	assert_string_equal(got, wanted);
}

/* What ended goes, whatever ended it, and its uses with it. */
static void test_token_purge(struct fixture *f)
{
	struct err e = ERR_INIT;
	for (unsigned i = 1; i <= 6; i++) {
		struct store_token token = a_token(i, "alpha");
		token.expires_at.ms = i == 1 ? 100 : INT64_MAX;
		token.uses_max = i == 5 ? 2 : 1;
		assert_done(put_token(f, &token, &e), &e);
	}
	assert_int_equal(restore_token(f, 2, 1, 0, &e), 0);   /* used for the last time at 500 */
	assert_int_equal(restore_token(f, 3, 0, 700, &e), 0); /* revoked */
	assert_int_equal(restore_token(f, 5, 1, 0, &e), 0);   /* one use is left */
	assert_int_equal(use_token(f, 6, 10, &e), STORE_TOKEN_CONSUMED);
	assert_int_equal(purge_tokens(f, 100, 10), 0);
	assert_int_equal(purge_tokens(f, 101, 10), 1);
	assert_tokens(f, "65432");
	assert_int_equal(purge_tokens(f, 701, 1), 1);
	assert_int_equal(purge_tokens(f, 701, 1), 1);
	assert_int_equal(purge_tokens(f, 701, 1), 0);
	assert_tokens(f, "654");
	assert_int_equal(purge_tokens(f, read_token(f, 6).used_at.ms + 1, 10), 1);
	fixture_reopen(f);
	assert_tokens(f, "54");
	assert_failed(use_token(f, 6, 10, &e), &e, ERR_NOT_FOUND, "no such token");
	struct store_token token = a_token(6, "alpha");
	assert_done(put_token(f, &token, &e), &e);
	assert_int_equal(use_token(f, 6, 10, &e), STORE_TOKEN_CONSUMED); /* not again */
	assert_tokens(f, "654");
	assert_done(store_check(f->store, true, &e), &e);
}

/* --- audit --- */

static void test_audit(struct fixture *f)
{
	uint64_t checked;
	int64_t bad;
	struct err e = ERR_INIT;
	assert_int_equal(store_audit_check(f->store, &checked, &bad, &e), 0);
	assert_int_equal(checked, 0);
	for (unsigned i = 0; i < 300; i++) {
		char actor[16];
		snprintf(actor, sizeof(actor), "admin-%u", i);
		fixture_audit(f, actor, "cert.revoke", NULL);
		if (i == 100)
			fixture_reopen(f);
	}
	assert_int_equal(store_audit_check(f->store, &checked, &bad, &e), 0);
	assert_int_equal(checked, 300);
	assert_int_equal(fixture_counts(f).audit_rows, 300);

	struct store_audit_row *rows;
	unsigned count;
	assert_done(store_read_audit(f->store, 298, 10, &f->arena, &rows, &count, &e), &e);
	assert_int_equal(count, 2);
	assert_int_equal(rows[0].sequence, 299);
	assert_int_equal(rows[1].sequence, 300);
	assert_true(rows[1].at.ms > rows[0].at.ms);
	assert_text(rows[1].actor, STR("admin-299"));
	assert_text(rows[1].origin, STR("127.0.0.1"));
	assert_text(rows[1].action, STR("cert.revoke"));
	assert_text(rows[1].target, STR("client-1"));
	assert_text(rows[1].result, STR("ok"));
	assert_text(rows[1].detail, STR("{\"serial\":\"5e0001\"}"));
	assert_memory_not_equal(rows[0].hash, rows[1].hash, STORE_HASH_BYTES);
}

/* --- threads --- */

enum { WRITERS = 4, READERS = 3, BATCHES = 12, BATCH = 9 };

struct worker {
	struct fixture *f;
	unsigned index;
	unsigned stored;
	_Atomic bool *stop;
};

/* Every batch has ids of its own and one that all writers send. */
static void *write_batches(void *arg)
{
	struct worker *w = arg;
	for (unsigned b = 0; b < BATCHES; b++) {
		struct store_message items[BATCH];
		for (unsigned i = 0; i < BATCH; i++) {
			unsigned n = i ? (w->index + 1) * 1000 + b * BATCH + i : 10 + b;
			items[i] = fixture_message(n, w->index, 0, 1 + b % 3, MESSAGE_DELIVERED);
		}
		struct store_messages put = {.items = items, .count = BATCH};
		struct err e = ERR_INIT;
		if (store_wait(w->f->store, STORE_MESSAGES, &put.op, &e) < 0)
			abort();
		w->stored += put.stored_count;
	}
	return NULL;
}

static void *read_pages(void *arg)
{
	struct worker *w = arg;
	AUTO(arena_auto) struct arena arena;
	arena_init(&arena, 8 << 20);
	while (!atomic_load(w->stop)) {
		struct store_query query = {.state = -1, .client_id = STR("client-1"), .max = 20};
		struct store_page page;
		struct store_counts counts;
		struct err e = ERR_INIT;
		arena_reset(&arena);
		if (store_read_messages(w->f->store, &query, &arena, &page, &e) < 0 ||
			store_read_counts(w->f->store, &counts, &e) < 0)
			abort();
		for (unsigned i = 1; i < page.count; i++)
			if (page.rows[i].sequence >= page.rows[i - 1].sequence)
				abort();
	}
	return NULL;
}

static void test_threads(struct fixture *f)
{
	_Atomic bool stop = false;
	struct worker workers[WRITERS + READERS];
	pthread_t threads[WRITERS + READERS];
	for (unsigned i = 0; i < WRITERS + READERS; i++) {
		workers[i] = (struct worker){f, i, 0, &stop};
		assert_int_equal(pthread_create(&threads[i], NULL, i < WRITERS ? write_batches : read_pages,
					 &workers[i]),
			0);
	}
	unsigned stored = 0;
	for (unsigned i = 0; i < WRITERS + READERS; i++) {
		if (i == WRITERS)
			atomic_store(&stop, true);
		pthread_join(threads[i], NULL);
		stored += workers[i].stored;
	}
	unsigned distinct = WRITERS * BATCHES * (BATCH - 1) + BATCHES;
	assert_int_equal(stored, distinct);
	assert_int_equal(fixture_counts(f).messages, distinct);
	struct err e = ERR_INIT;
	assert_done(store_check(f->store, true, &e), &e);
}

/* --- groups: several operations in one commit --- */

struct flight {
	struct store_messages put;
	struct store_message item;
	sem_t *landed;
};

static void landed(struct group_op *op)
{
	sem_post(container_of(op, struct flight, put.op)->landed);
}

/* Submits messages `from` … `from + count - 1`, one each, all at once, and waits for all. */
static void fly(struct fixture *f, struct flight *flights, unsigned from, unsigned count)
{
	sem_t all;
	sem_init(&all, 0, 0);
	for (unsigned i = 0; i < count; i++) {
		flights[i] = (struct flight){
			.item = fixture_message(from + i, 1, 1, 1, MESSAGE_DELIVERED), .landed = &all};
		flights[i].put.items = &flights[i].item;
		flights[i].put.count = 1;
		flights[i].put.op.complete = landed;
	}
	flights[count / 2].item.sealed.domain = STR(""); /* one that is refused */
	for (unsigned i = 0; i < count; i++)
		assert_int_equal(store_submit(f->store, STORE_MESSAGES, &flights[i].put.op), 0);
	for (unsigned i = 0; i < count; i++)
		assert_int_equal(sem_wait(&all), 0);
	sem_destroy(&all);
}

/* What an operation reported is what is there. */
static unsigned assert_flights(struct fixture *f, const struct flight *flights, unsigned count)
{
	unsigned failures = 0;
	for (unsigned i = 0; i < count; i++) {
		struct store_row row;
		struct err e = ERR_INIT;
		int found = store_read_message(f->store, &flights[i].item.sealed.id, &f->arena, &row, &e);
		assert_int_equal(found, flights[i].put.op.result);
		assert_true(found == 0 || e.kind == ERR_NOT_FOUND);
		failures += found < 0;
	}
	return failures;
}

static void test_one_bad_operation_fails_alone(struct fixture *f)
{
	struct flight flights[40];
	fly(f, flights, 1, ARRAY_LEN(flights));
	assert_int_equal(assert_flights(f, flights, ARRAY_LEN(flights)), 1);
	assert_int_equal(flights[20].put.op.err.kind, ERR_REJECT);
	assert_int_equal(fixture_counts(f).messages, ARRAY_LEN(flights) - 1);
}

/* --- failures --- */

static void fail_calls(struct fixture *f, unsigned from, unsigned count, enum err_kind kind)
{
	atomic_store(&f->plan.kind, kind);
	atomic_store(&f->plan.fail_count, 0);
	atomic_store(&f->plan.call_count, 0);
	atomic_store(&f->plan.fail_from, from);
	atomic_store(&f->plan.fail_count, count);
}

/* A history per call that can fail: that call fails, the step is repeated, and nothing is missing or double.
 */
static void test_every_call_fails_once(struct fixture *f)
{
	bool failed = true;
	unsigned rounds = 0;
	while (failed) {
		failed = false;
		rounds++;
		fail_calls(f, rounds, 1, rounds % 2 ? ERR_RETRY : ERR_FATAL);
		for (unsigned step = 0; step < HISTORY_STEPS; step++) {
			if (fixture_history_step(f, step, rounds))
				continue;
			failed = true;
			assert_true(fixture_history_step(f, step, rounds));
		}
		fail_calls(f, 0, 0, ERR_RETRY);
		arena_reset(&f->arena);
		fixture_history_check(f, rounds);
	}
	assert_true(rounds > 3 * HISTORY_STEPS); /* begin, one call or more, commit for each */
	fixture_reopen(f);
	fixture_history_check(f, rounds);
}

static void test_a_failed_group_leaves_nothing(struct fixture *f)
{
	unsigned failures = 1, n = 1;
	for (unsigned call = 1; failures; call++, n += 20) {
		struct flight flights[20];
		fail_calls(f, call, 1, ERR_RETRY);
		fly(f, flights, n, ARRAY_LEN(flights));
		fail_calls(f, 0, 0, ERR_RETRY);
		arena_reset(&f->arena);
		failures = assert_flights(f, flights, ARRAY_LEN(flights)) - 1;
	}
	struct err e = ERR_INIT;
	assert_done(store_check(f->store, true, &e), &e);
}

static void test_reads_pass_failures_on(struct fixture *f)
{
	struct store_message item = fixture_message(1, 1, 1, 1, MESSAGE_DELIVERED);
	fixture_store(f, &item, 1, NULL);
	fail_calls(f, 1, 1000, ERR_RETRY);
	struct err e = ERR_INIT;
	struct store_row row;
	struct store_page page;
	struct store_counts counts;
	struct store_client client, *clients;
	struct store_cert cert, *certs;
	struct store_audit_row *audit;
	uint64_t checked;
	int64_t bad;
	unsigned count;
	struct store_query query = {.state = -1, .max = 1};
	struct store_cert_query cert_query = {.max = 1};
	struct store_token_query token_query = {.max = 1};
	struct store_token *tokens;
	int results[] = {
		store_read_message(f->store, &item.sealed.id, &f->arena, &row, &e),
		store_read_messages(f->store, &query, &f->arena, &page, &e),
		store_read_counts(f->store, &counts, &e),
		store_read_client(f->store, STR("a"), &f->arena, &client, &e),
		store_read_clients(f->store, STR(""), STR(""), 1, &f->arena, &clients, &count, &e),
		store_read_cert(f->store, (const uint8_t *)"\1", 1, &f->arena, &cert, &e),
		store_read_certs(f->store, &cert_query, &f->arena, &certs, &count, &e),
		store_read_tokens(f->store, &token_query, &f->arena, &tokens, &count, &e),
		store_read_audit(f->store, 0, 1, &f->arena, &audit, &count, &e),
		store_audit_check(f->store, &checked, &bad, &e),
		store_check(f->store, false, &e),
	};
	for (unsigned i = 0; i < ARRAY_LEN(results); i++)
		assert_int_equal(results[i], -1);
	assert_int_equal(e.kind, ERR_RETRY);
	fail_calls(f, 0, 0, ERR_RETRY);
}

/* Looks until the store is as healthy as wanted. */
static void wait_for_health(struct fixture *f, bool healthy)
{
	struct store_glance glance;
	for (store_glance(f->store, &glance); glance.healthy != healthy; store_glance(f->store, &glance))
		nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
	assert_int_equal(glance.trouble[0] == 0, healthy);
}

static void test_trouble_shows_and_passes(struct fixture *f)
{
	wait_for_health(f, true);
	fail_calls(f, 3, 1000000000, ERR_RETRY); /* begin, put_messages, commit */
	struct store_message item = fixture_message(1, 1, 1, 1, MESSAGE_DELIVERED);
	struct err e = ERR_INIT;
	assert_failed(fixture_store(f, &item, 1, &e), &e, ERR_RETRY, "injected failure in commit");
	struct store_glance glance;
	store_glance(f->store, &glance);
	assert_false(glance.healthy);
	assert_non_null(strstr(glance.trouble, "injected failure"));
	assert_int_equal(glance.group.limit, 1024);
	fail_calls(f, 0, 0, ERR_RETRY);
	wait_for_health(f, true);
	assert_int_equal(fixture_counts(f).messages, 0);
}

static void test_open_fails(struct fixture *f)
{
	fixture_close(f);
	fail_calls(f, 1, 1, ERR_RETRY);
	struct err e = ERR_INIT;
	assert_failed(fixture_try_open(f, &e), &e, ERR_RETRY, "open store: injected failure in open");
	assert_null(f->store);
	fixture_open(f);
}

/* --- the suite --- */

static const struct {
	const char *name;
	void (*run)(struct fixture *f);
	bool needs_faults; /* runs on drivers that can be told to fail */
} tests[] = {
	{"empty", test_empty},
	{"messages are read back", test_messages_are_read_back},
	{"large envelope", test_large_envelope},
	{"duplicates change nothing", test_duplicates_change_nothing},
	{"registered becomes delivered", test_registered_becomes_delivered},
	{"status", test_status},
	{"expire", test_expire},
	{"expire everything", test_expire_everything},
	{"paging", test_paging},
	{"bad messages are refused", test_bad_messages_are_refused},
	{"bad rows are refused", test_bad_rows_are_refused},
	{"clients", test_clients},
	{"certificate is read back", test_cert_is_read_back},
	{"certificate conflicts", test_cert_conflicts},
	{"certificate of what ended meanwhile", test_cert_of_what_ended_meanwhile},
	{"certificate queries", test_cert_queries},
	{"revoke", test_revoke},
	{"suspended client is in the feed", test_suspended_client_is_in_the_feed},
	{"seen", test_seen},
	{"supersede", test_supersede},
	{"token is read back", test_token_is_read_back},
	{"token queries", test_token_queries},
	{"token use", test_token_use},
	{"token gets one certificate", test_token_gets_one_certificate},
	{"token revoke", test_token_revoke},
	{"token restore", test_token_restore},
	{"token purge", test_token_purge},
	{"audit", test_audit},
	{"threads", test_threads},
	{"one bad operation fails alone", test_one_bad_operation_fails_alone},
	{"every call fails once", test_every_call_fails_once, true},
	{"a failed group leaves nothing", test_a_failed_group_leaves_nothing, true},
	{"reads pass failures on", test_reads_pass_failures_on, true},
	{"trouble shows and passes", test_trouble_shows_and_passes, true},
	{"open fails", test_open_fails, true},
};

enum { CASES = ARRAY_LEN(drivers) * ARRAY_LEN(tests) };

struct test_case {
	const struct fixture_driver *driver;
	void (*run)(struct fixture *f);
	char name[80];
	struct fixture fixture;
};

static int set_up(void **state)
{
	struct test_case *c = *state;
	fixture_init(&c->fixture, c->driver);
	fixture_open(&c->fixture);
	return 0;
}

static void run_case(void **state)
{
	struct test_case *c = *state;
	c->run(&c->fixture);
}

static int tear_down(void **state)
{
	struct test_case *c = *state;
	fixture_clear(&c->fixture);
	return 0;
}

int main(void)
{
	static struct test_case cases[CASES];
	static struct CMUnitTest units[CASES];
	unsigned n = 0;
	for (unsigned i = 0; i < CASES; i++) {
		const struct fixture_driver *driver = &drivers[i / ARRAY_LEN(tests)];
		unsigned t = i % ARRAY_LEN(tests);
		if (tests[t].needs_faults && !driver->inner)
			continue;
		struct test_case *c = &cases[n];
		c->driver = driver;
		c->run = tests[t].run;
		snprintf(c->name, sizeof(c->name), "%s: %s", driver->name, tests[t].name);
		units[n++] = (struct CMUnitTest){c->name, run_case, set_up, tear_down, c};
	}
	return _cmocka_run_group_tests("store conformance", units, n, NULL, NULL);
}
