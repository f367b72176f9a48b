/* spool_test.c - the spool around engines that fail as told: nothing that was taken is lost, whatever fails.
 *
 * The remote engine is the memory driver behind faulty, which keeps its state while it "is away". The mender's
 * thread runs in real time: tests turn the wheel (tick) until what they wait for is there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/file.h"
#include "queue/faulty.h"
#include "queue/spool.h"

enum {
	START_MS = 1000000000,
	IDEMPOTENCY_MS = 24 * 3600 * 1000,
	LEASE_MS = 60000,
	LEASE_OVER_MS = 3600 * 1000,
	ARENA_BYTES = 64 << 20,
	WAIT_S = 60,
	MESSAGES_MAX = 5000,
	FOR_GOOD = 1 << 30,
};

static const struct queue_driver *const spool = &queue_driver_spool;

struct bed {
	void *state;
	struct clock_fake clock;
	struct faulty remote, local;
	struct spool_options options;
	uint64_t keys_max;
	char directory[64]; /* of a local engine that is a file; else empty */
	struct uuid_source ids;
	struct arena arena;
};

/* --- the bed --- */

static void bed_open(struct bed *b)
{
	struct err e = ERR_INIT;
	struct queue_driver_options o = {"", &b->clock.clock, IDEMPOTENCY_MS, b->keys_max, &b->options};
	if (spool->open(&o, &b->state, &e) < 0)
		fail_msg("open: %s", e.text);
}

static struct bed *bed_new(const struct queue_driver *local)
{
	struct bed *b = calloc(1, sizeof(*b));
	assert_non_null(b);
	clock_fake_init(&b->clock, (struct wall){START_MS});
	uuid_source_init(&b->ids, &b->clock.clock, 0);
	arena_init(&b->arena, ARENA_BYTES);
	b->remote = (struct faulty){.inner = &queue_driver_memory, .kind = ERR_RETRY};
	b->local = (struct faulty){.inner = local, .kind = ERR_RETRY};
	b->options = (struct spool_options){
		.remote = &queue_driver_faulty,
		.local = &queue_driver_faulty,
		.remote_arg = &b->remote,
		.local_arg = &b->local,
		.local_location = b->directory,
		.messages_max = MESSAGES_MAX,
		.retry_min_ms = 1,
		.retry_max_ms = 2,
	};
	if (local == &queue_driver_sqlite) {
		const char *place = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
		snprintf(b->directory, sizeof(b->directory), "%s/sealpost-spool-XXXXXX", place);
		assert_non_null(mkdtemp(b->directory));
	}
	return b;
}

static struct bed *bed_open_new(const struct queue_driver *local)
{
	struct bed *b = bed_new(local);
	bed_open(b);
	return b;
}

static void bed_free(struct bed *b)
{
	static const char *const files[] = {"queue.db", "queue.db-wal"};
	spool->close(b->state);
	for (size_t i = 0; *b->directory && i < ARRAY_LEN(files); i++) {
		AUTO(free_auto) char *path = path_join(b->directory, files[i]);
		unlink(path);
	}
	if (*b->directory)
		assert_int_equal(rmdir(b->directory), 0);
	arena_clear(&b->arena);
	free(b);
}

static void remote_goes(struct bed *b)
{
	faulty_fail(&b->remote, NULL, 1, FOR_GOOD);
}

static void remote_returns(struct bed *b)
{
	faulty_fail(&b->remote, NULL, 0, 0);
}

static void turn(struct bed *b)
{
	struct mono next;
	(void)spool->tick(b->state, b->clock.ticks, &next);
}

static struct queue_stats stats_of(struct bed *b)
{
	struct queue_stats stats = {0};
	assert_int_equal(spool->stats(b->state, &stats, &stats.op.err), 0);
	return stats;
}

static bool is_settled(struct bed *b)
{
	struct queue_stats stats = stats_of(b);
	return !stats.spooling && !stats.spooled;
}

/* Turns the wheel until the spool is empty and the remote engine in use. */
static void settle_down(struct bed *b)
{
	time_t end = time(NULL) + WAIT_S;
	while (turn(b), !is_settled(b)) {
		if (time(NULL) > end)
			fail_msg("the spool is not drained: %s", stats_of(b).spool_reason);
		sched_yield();
	}
}

/* --- operations --- */

/* As the group would run it; what failed is aborted. */
#define RUN(b, name, operation)                                                                              \
	({                                                                                                   \
		struct err *e_ = &(operation)->op.err;                                                       \
		*e_ = ERR_INIT;                                                                              \
		int rc_ = spool->begin((b)->state, e_);                                                      \
		if (rc_ >= 0) {                                                                              \
			rc_ = spool->name((b)->state, operation, e_);                                        \
			if (rc_ < 0 && (e_->kind == ERR_RETRY || e_->kind == ERR_FATAL))                     \
				spool->abort((b)->state);                                                    \
			else if (spool->commit((b)->state, e_) < 0)                                          \
				spool->abort((b)->state), rc_ = -1;                                          \
		}                                                                                            \
		rc_;                                                                                         \
	})

enum { BATCH_MAX = 1000 };

struct request {
	struct queue_put put;
	struct sealed messages[BATCH_MAX];
	struct buf envelopes;
};

/* `count` messages with consecutive ids; `key` 0: none. */
static struct request *request_new(struct bed *b, unsigned count, uint8_t key, uint8_t payload)
{
	struct request *r = calloc(1, sizeof(*r));
	struct uuid first;
	assert_non_null(r);
	assert_int_equal(uuid_next_run(&b->ids, count, &first, NULL), 0);
	buf_init(&r->envelopes, 1024);
	envelope_encode(&(struct envelope){.ciphertext = STR("ciphertext and its authentication tag")},
		&r->envelopes);
	for (unsigned i = 0; i < count; i++)
		r->messages[i] = (struct sealed){.id = uuid_in_run(&first, i),
			.accepted_at = b->clock.now,
			.client_id = STR("alpha"),
			.domain = STR("example"),
			.envelope = buf_str(&r->envelopes)};
	r->put = (struct queue_put){.messages = r->messages, .count = count, .has_key = key != 0};
	memset(r->put.key_hash, key, sizeof(r->put.key_hash));
	memset(r->put.payload_hash, payload, sizeof(r->put.payload_hash));
	return r;
}

static void request_free(struct request *r)
{
	buf_clear(&r->envelopes);
	free(r);
}

static int put(struct bed *b, unsigned count, uint8_t key, uint8_t payload, struct uuid *ret_first)
{
	struct request *r = request_new(b, count, key, payload);
	int rc = RUN(b, put, &r->put);
	*ret_first = rc == QUEUE_REPLAYED ? r->put.first_id : r->messages[0].id;
	request_free(r);
	return rc;
}

static struct uuid put_one(struct bed *b)
{
	struct uuid id;
	assert_int_equal(put(b, 1, 0, 0, &id), QUEUE_STORED);
	return id;
}

/* Takes everything out of the remote queue and holds it against what went in, in this order. */
static void assert_remote_holds(struct bed *b, const struct uuid *ids, unsigned count)
{
	unsigned got = 0;
	for (bool more = true; more;) {
		arena_reset(&b->arena);
		struct queue_lease lease = {
			.worker = "w", .max = 500, .lease_ms = LEASE_MS, .arena = &b->arena};
		assert_int_equal(RUN(b, lease, &lease), 0);
		more = lease.count > 0;
		for (unsigned i = 0; i < lease.count; i++, got++) {
			const struct sealed *m = &lease.messages[i].sealed;
			struct envelope env;
			assert_in_range(got, 0, count - 1);
			assert_memory_equal(m->id.b, ids[got].b, sizeof(m->id.b));
			assert_int_equal(envelope_decode(m->envelope, &env, NULL), 0);
			assert_memory_equal(
				env.ciphertext.p, "ciphertext and its authentication tag", env.ciphertext.n);
			struct queue_settlement item = {.ref = lease.messages[i].ref, .verdict = QUEUE_DONE};
			struct queue_settle settle = {.worker = "w", .items = &item, .count = 1};
			assert_int_equal(RUN(b, settle, &settle), 0);
			assert_int_equal(settle.stale_count, 0);
		}
	}
	assert_int_equal(got, count);
}

/* --- cases --- */

static void test_while_all_is_well_it_is_not_there(void **state)
{
	struct bed *b = bed_open_new(&queue_driver_memory);
	struct uuid ids[3];
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(ids); i++)
		ids[i] = put_one(b);
	assert_int_equal(stats_of(b).queued, 3);
	assert_int_equal(stats_of(b).spooled, 0);
	assert_remote_holds(b, ids, 3);
	bed_free(b);
}

static void test_accepts_while_the_engine_is_away(void **state)
{
	struct bed *b = bed_open_new(&queue_driver_memory);
	struct uuid ids[20];
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(ids); i++) {
		if (i == 5)
			remote_goes(b);
		ids[i] = put_one(b);
		assert_int_equal(stats_of(b).queued, i + 1);
	}
	struct queue_stats stats = stats_of(b);
	assert_true(stats.spooling);
	assert_int_equal(stats.spooled, 15);
	assert_int_equal(stats.spooled_accepted_at.ms, START_MS);
	assert_non_null(strstr(stats.spool_reason, "injected fault"));
	remote_returns(b);
	settle_down(b);
	assert_remote_holds(b, ids, ARRAY_LEN(ids));
	bed_free(b);
}

static void test_what_comes_while_draining_goes_behind(void **state)
{
	struct bed *b = bed_open_new(&queue_driver_memory);
	enum { COUNT = 3000 };
	struct uuid *ids = calloc(COUNT, sizeof(*ids));
	(void)state;
	remote_goes(b);
	for (size_t i = 0; i < COUNT - 10; i++)
		ids[i] = put_one(b);
	remote_returns(b);
	while (stats_of(b).spooling)
		turn(b), sched_yield();
	assert_true(stats_of(b).spooled > 0);
	for (size_t i = COUNT - 10; i < COUNT; i++)
		ids[i] = put_one(b);
	settle_down(b);
	assert_remote_holds(b, ids, COUNT);
	free(ids);
	bed_free(b);
}

static void test_bounded(void **state)
{
	struct bed *b = bed_open_new(&queue_driver_memory);
	struct uuid id;
	struct err e = ERR_INIT;
	(void)state;
	remote_goes(b);
	assert_int_equal(put(b, BATCH_MAX, 0, 0, &id), QUEUE_STORED);
	assert_int_equal(spool->probe(b->state, &e), 0);
	for (unsigned n = BATCH_MAX; n < MESSAGES_MAX; n += BATCH_MAX)
		assert_int_equal(put(b, BATCH_MAX, 0, 0, &id), QUEUE_STORED);
	struct request *r = request_new(b, 1, 0, 0);
	assert_int_equal(RUN(b, put, &r->put), -1);
	assert_int_equal(r->put.op.err.kind, ERR_RETRY);
	assert_non_null(strstr(r->put.op.err.text, "full"));
	assert_int_equal(spool->probe(b->state, &e), -1);
	remote_returns(b);
	settle_down(b);
	assert_int_equal(RUN(b, put, &r->put), QUEUE_STORED);
	request_free(r);
	bed_free(b);
}

static void test_keys_hold_in_the_spool_and_after_it(void **state)
{
	struct bed *b = bed_open_new(&queue_driver_memory);
	struct uuid one, batch, again;
	(void)state;
	remote_goes(b);
	assert_int_equal(put(b, 1, 1, 1, &one), QUEUE_STORED);
	assert_int_equal(put(b, 700, 2, 1, &batch), QUEUE_STORED);
	for (int round = 0; round < 2; round++) {
		assert_int_equal(put(b, 1, 1, 1, &again), QUEUE_REPLAYED);
		assert_memory_equal(again.b, one.b, sizeof(one.b));
		assert_int_equal(put(b, 700, 2, 1, &again), QUEUE_REPLAYED);
		assert_memory_equal(again.b, batch.b, sizeof(one.b));
		assert_int_equal(put(b, 1, 1, 9, &again), QUEUE_MISMATCH);
		remote_returns(b);
		settle_down(b);
	}
	assert_int_equal(stats_of(b).queued, 701);
	bed_free(b);
}

/* The spool has room of its own for keys; those move along even where there is none any more. */
static void test_keys_of_the_spool_move_past_the_bound(void **state)
{
	struct bed *b = bed_new(&queue_driver_memory);
	struct uuid id, spooled, again;
	(void)state;
	b->keys_max = 2;
	bed_open(b);
	assert_int_equal(put(b, 1, 1, 1, &id), QUEUE_STORED);
	assert_int_equal(put(b, 1, 2, 1, &id), QUEUE_STORED);
	remote_goes(b);
	assert_int_equal(put(b, 1, 3, 1, &spooled), QUEUE_STORED);
	assert_int_equal(put(b, 1, 4, 1, &id), QUEUE_STORED);
	assert_int_equal(put(b, 1, 5, 1, &id), QUEUE_KEYS_FULL);
	assert_int_equal(stats_of(b).keys, 2);
	remote_returns(b);
	settle_down(b);
	assert_int_equal(stats_of(b).keys, 4);
	assert_int_equal(put(b, 1, 3, 1, &again), QUEUE_REPLAYED);
	assert_memory_equal(again.b, spooled.b, sizeof(spooled.b));
	assert_int_equal(put(b, 1, 5, 1, &id), QUEUE_KEYS_FULL);
	bed_free(b);
}

static void test_a_key_used_elsewhere_meanwhile_loses_nothing(void **state)
{
	struct bed *b = bed_open_new(&queue_driver_memory);
	struct uuid ids[2];
	(void)state;
	assert_int_equal(put(b, 1, 7, 1, &ids[0]), QUEUE_STORED);
	remote_goes(b);
	assert_int_equal(put(b, 1, 7, 2, &ids[1]), QUEUE_STORED);
	remote_returns(b);
	settle_down(b);
	assert_remote_holds(b, ids, 2);
	bed_free(b);
}

/* A pause holds for a process that starts while the remote engine is away, too; and its end does. */
static void test_pauses_over_a_start_without_the_remote_engine(void **state)
{
	struct bed *b = bed_open_new(&queue_driver_sqlite);
	struct queue_pause pause = {.accept = true, .on = true, .reason = "stock-taking"};
	(void)state;
	for (unsigned round = 0; round < 2; round++) {
		assert_int_equal(RUN(b, pause, &pause), 0);
		assert_int_equal(stats_of(b).accept_paused, pause.on);
		turn(b);
		spool->close(b->state);
		faulty_fail(&b->remote, "probe", 1, FOR_GOOD);
		bed_open(b);
		struct queue_stats stats = stats_of(b);
		assert_true(stats.spooling);
		assert_int_equal(stats.accept_paused, pause.on);
		assert_string_equal(stats.accept_reason, pause.on ? "stock-taking" : "");
		remote_returns(b);
		settle_down(b);
		pause = (struct queue_pause){.accept = true, .on = false};
	}
	bed_free(b);
}

static void test_find_and_pauses_while_away(void **state)
{
	struct bed *b = bed_open_new(&queue_driver_memory);
	(void)state;
	struct queue_pause pause = {.accept = false, .on = true, .reason = "maintenance"};
	struct queue_find there = {.id = put_one(b), .arena = &b->arena};
	assert_int_equal(RUN(b, pause, &pause), 0);
	assert_true(stats_of(b).delivery_paused);
	remote_goes(b);
	struct queue_find here = {.id = put_one(b), .arena = &b->arena};
	assert_int_equal(RUN(b, find, &here), 0);
	assert_int_equal(here.entry.state, MESSAGE_QUEUED);
	assert_int_equal(RUN(b, find, &there), -1);
	assert_int_equal(there.op.err.kind, ERR_NOT_FOUND);
	assert_true(stats_of(b).delivery_paused);
	assert_int_equal(RUN(b, pause, &pause), -1);
	assert_int_equal(pause.op.err.kind, ERR_CONFLICT);
	remote_returns(b);
	settle_down(b);
	assert_int_equal(RUN(b, find, &there), 0);
	assert_int_equal(RUN(b, find, &here), 0);
	bed_free(b);
}

static void test_starts_while_the_engine_is_away(void **state)
{
	struct bed *b = bed_new(&queue_driver_memory);
	struct uuid ids[2];
	(void)state;
	faulty_fail(&b->remote, "probe", 1, FOR_GOOD);
	bed_open(b);
	ids[0] = put_one(b);
	assert_int_equal(stats_of(b).spooled, 1);
	remote_returns(b);
	settle_down(b);
	ids[1] = put_one(b);
	assert_remote_holds(b, ids, 2);
	bed_free(b);
}

static void test_an_engine_that_does_not_open_is_said_at_start(void **state)
{
	struct bed *b = bed_new(&queue_driver_memory);
	struct err e = ERR_INIT;
	struct queue_driver_options o = {"", &b->clock.clock, IDEMPOTENCY_MS, b->keys_max, &b->options};
	(void)state;
	b->remote.kind = ERR_FATAL;
	remote_goes(b);
	assert_int_equal(spool->open(&o, &b->state, &e), -1);
	assert_int_equal(e.kind, ERR_FATAL);
	b->state = NULL;
	bed_free(b);
}

static void test_spool_survives_the_process(void **state)
{
	struct bed *b = bed_open_new(&queue_driver_sqlite);
	struct uuid ids[40];
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(ids); i++) {
		if (i % 10 == 0) {
			remote_returns(b);
			spool->close(b->state);
			faulty_fail(&b->remote, "probe", 1, FOR_GOOD);
			bed_open(b);
		}
		ids[i] = put_one(b);
	}
	remote_returns(b);
	spool->close(b->state);
	bed_open(b);
	assert_int_equal(stats_of(b).spooled, 40);
	settle_down(b);
	assert_remote_holds(b, ids, ARRAY_LEN(ids));
	bed_free(b);
}

static int by_bytes(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct uuid));
}

/* What is acknowledged comes out, once, in a group of several operations that fails at its k-th remote call. */
static bool fail_at(const char *which, unsigned k)
{
	struct bed *b = bed_open_new(&queue_driver_memory);
	struct faulty *f = strcmp(which, "remote") == 0 ? &b->remote : &b->local;
	struct uuid ids[64], id;
	unsigned taken = 0;
	if (f == &b->local)
		faulty_fail(&b->remote, "commit", 3, 2);
	faulty_fail(f, NULL, k, 3);
	for (unsigned i = 0; i < 24; i++) {
		unsigned count = i % 5 == 4 ? 3 : 1;
		if (put(b, count, i % 2 ? (uint8_t)(i + 1) : 0, 1, &id) != QUEUE_STORED)
			continue;
		for (unsigned n = 0; n < count; n++)
			ids[taken++] = uuid_in_run(&id, n);
		turn(b);
	}
	bool reached = f->calls >= k;
	remote_returns(b);
	faulty_fail(&b->local, NULL, 0, 0);
	/* The clock may be moved once no other thread looks at it. */
	while (turn(b), stats_of(b).spooling)
		sched_yield();
	clock_fake_advance_ms(&b->clock, LEASE_OVER_MS); /* leases that a failed step left run out */
	settle_down(b);
	qsort(ids, taken, sizeof(*ids), by_bytes);
	struct queue_stats stats = stats_of(b);
	assert_in_range(stats.queued, taken, 64); /* more: not acknowledged, but kept; never fewer */
	for (unsigned i = 0; i < taken; i++) {
		struct queue_find find = {.id = ids[i], .arena = &b->arena};
		arena_reset(&b->arena);
		assert_int_equal(RUN(b, find, &find), 0);
	}
	bed_free(b);
	return reached;
}

static void test_every_call_may_fail(void **state)
{
	static const char *const which[] = {"remote", "local"};
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(which); i++)
		for (unsigned k = 1; fail_at(which[i], k); k++)
			;
}

/* The step of draining that dies between the remote commit and the local one is made again. */
static void test_a_move_that_is_half_done_doubles_nothing(void **state)
{
	struct bed *b = bed_open_new(&queue_driver_sqlite);
	struct uuid ids[6];
	(void)state;
	remote_goes(b);
	for (unsigned i = 0; i < ARRAY_LEN(ids); i++)
		assert_int_equal(put(b, 1, i % 2 ? (uint8_t)(i + 1) : 0, 1, &ids[i]), QUEUE_STORED);
	faulty_fail(&b->local, "settle", 1, FOR_GOOD);
	remote_returns(b);
	for (unsigned calls = b->local.calls; b->local.calls == calls;)
		turn(b), sched_yield();
	assert_int_equal(stats_of(b).spooled, 6);
	/* The lease runs out, as it would when the process had died. */
	faulty_fail(&b->local, NULL, 0, 0);
	clock_fake_advance_ms(&b->clock, LEASE_OVER_MS);
	settle_down(b);
	assert_int_equal(stats_of(b).queued, 6);
	assert_remote_holds(b, ids, 6);
	bed_free(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_while_all_is_well_it_is_not_there),
		cmocka_unit_test(test_accepts_while_the_engine_is_away),
		cmocka_unit_test(test_what_comes_while_draining_goes_behind),
		cmocka_unit_test(test_bounded),
		cmocka_unit_test(test_keys_hold_in_the_spool_and_after_it),
		cmocka_unit_test(test_keys_of_the_spool_move_past_the_bound),
		cmocka_unit_test(test_a_key_used_elsewhere_meanwhile_loses_nothing),
		cmocka_unit_test(test_pauses_over_a_start_without_the_remote_engine),
		cmocka_unit_test(test_find_and_pauses_while_away),
		cmocka_unit_test(test_starts_while_the_engine_is_away),
		cmocka_unit_test(test_an_engine_that_does_not_open_is_said_at_start),
		cmocka_unit_test(test_spool_survives_the_process),
		cmocka_unit_test(test_every_call_may_fail),
		cmocka_unit_test(test_a_move_that_is_half_done_doubles_nothing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
