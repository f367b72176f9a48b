/* worker_test.c - what becomes of a message, by what the destination says: a real worker on a queue in
 * memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>

#include "base/auto.h"
#include "message/uuid.h"
#include "queue/driver.h"
#include "worker/worker.h"

/* A destination that says the same of every message, and counts. */
struct fake {
	enum delivery_outcome outcome;
	bool away;
	atomic_uint batches, messages;
};

static int fake_open(void *arg, void **ret_session, struct err *e)
{
	(void)e;
	*ret_session = arg;
	return 0;
}

static void fake_close(void *session)
{
	(void)session;
}

static int fake_deliver(void *session, struct delivery_item *items, unsigned count, struct err *e)
{
	struct fake *fake = session;
	atomic_fetch_add(&fake->batches, 1);
	if (fake->away)
		return err_set(e, ERR_RETRY, "away");
	for (unsigned i = 0; i < count; i++) {
		items[i].outcome = fake->outcome;
		items[i].reason = "test_reason";
	}
	atomic_fetch_add(&fake->messages, count);
	return 0;
}

struct fixture {
	struct queue *queue;
	struct fake fake;
	struct destination destination;
	struct config *config;
	struct worker *worker;
	struct uuid id;
};

static void put_one(struct fixture *f)
{
	struct uuid_source ids;
	struct err e = ERR_INIT;
	uuid_source_init(&ids, &clock_system, 0);
	assert_int_equal(uuid_next(&ids, &f->id, &e), 0);
	AUTO(buf_auto) struct buf envelope;
	buf_init(&envelope, SEALED_MAX_BYTES);
	envelope_encode(&(struct envelope){.ciphertext = STR("sixteen bytes and more")}, &envelope);
	struct sealed sealed = {.id = f->id,
		.accepted_at = clock_wall(&clock_system),
		.client_id = STR("client"),
		.domain = STR("example.com"),
		.traceparent = STR(""),
		.envelope = buf_str(&envelope)};
	struct queue_put put = {.messages = &sealed, .count = 1};
	assert_int_equal(queue_wait(f->queue, QUEUE_PUT, &put.op, &e), QUEUE_STORED);
}

static void open_fixture(struct fixture *f, const char *const *sets, size_t set_count)
{
	struct queue_options o = {.driver = &queue_driver_memory,
		.clock = &clock_system,
		.put_limit = 64,
		.group_max = 64,
		.idempotency_ms = 1000};
	struct config_source source = {.sets = sets, .set_count = set_count};
	struct err e = ERR_INIT;
	assert_int_equal(queue_open(&o, &f->queue, &e), 0);
	assert_int_equal(config_load(&source, &f->config, &e), 0);
	f->destination = (struct destination){"fake", &f->fake, fake_open, fake_close, fake_deliver};
	put_one(f);
}

static void start(struct fixture *f)
{
	struct worker_options o = {.config = f->config,
		.clock = &clock_system,
		.queue = f->queue,
		.destination = &f->destination,
		.name = "test"};
	struct err e = ERR_INIT;
	assert_int_equal(worker_start(&o, &f->worker, &e), 0);
}

static void close_fixture(struct fixture *f)
{
	worker_stop(f->worker);
	queue_close(f->queue);
	config_free(f->config);
}

/* Waits until the queue holds so many queued and failed messages and none in delivery. */
static void wait_for(struct fixture *f, uint64_t queued, uint64_t failed)
{
	struct queue_stats stats;
	struct err e = ERR_INIT;
	do {
		stats = (struct queue_stats){0};
		assert_int_equal(queue_wait(f->queue, QUEUE_STATS, &stats.op, &e), 0);
	} while (stats.queued != queued || stats.failed != failed || stats.processing);
}

static struct queue_entry find(struct fixture *f, struct arena *arena)
{
	struct queue_find op = {.id = f->id, .arena = arena};
	struct err e = ERR_INIT;
	assert_int_equal(queue_wait(f->queue, QUEUE_FIND, &op.op, &e), 0);
	return op.entry;
}

static void what_is_stored_is_forgotten(void **state)
{
	(void)state;
	static const enum delivery_outcome outcomes[] = {DELIVERY_STORED, DELIVERY_DUPLICATE};
	for (size_t i = 0; i < ARRAY_LEN(outcomes); i++) {
		struct fixture f = {.fake = {.outcome = outcomes[i]}};
		open_fixture(&f, NULL, 0);
		start(&f);
		wait_for(&f, 0, 0);
		assert_int_equal(atomic_load(&f.fake.messages), 1);
		close_fixture(&f);
	}
}

static void what_is_rejected_becomes_a_dead_letter_at_once(void **state)
{
	(void)state;
	struct fixture f = {.fake = {.outcome = DELIVERY_REJECTED}};
	AUTO(arena_auto) struct arena arena;
	arena_init(&arena, 65536);
	open_fixture(&f, NULL, 0);
	start(&f);
	wait_for(&f, 0, 1);
	struct queue_entry entry = find(&f, &arena);
	assert_int_equal(entry.attempt_count, 1);
	assert_true(str_eq(entry.last_reason, STR("test_reason")));
	close_fixture(&f);
}

static void what_fails_is_due_again_after_the_retry_interval(void **state)
{
	(void)state;
	struct fixture f = {.fake = {.outcome = DELIVERY_RETRY}};
	AUTO(arena_auto) struct arena arena;
	arena_init(&arena, 65536);
	open_fixture(&f, (const char *const[]){"retry_interval=1h"}, 1);
	start(&f);
	struct queue_entry entry;
	do {
		arena_reset(&arena);
		entry = find(&f, &arena);
	} while (entry.attempt_count == 0 || entry.state != MESSAGE_QUEUED);
	int64_t wait_ms = entry.due_at.ms - clock_wall(&clock_system).ms;
	assert_in_range(wait_ms, 3500 * 1000, 3600 * 1000);
	assert_int_equal(atomic_load(&f.fake.messages), 1);
	close_fixture(&f);
}

static void attempts_are_used_up(void **state)
{
	(void)state;
	struct fixture f = {.fake = {.outcome = DELIVERY_RETRY}};
	AUTO(arena_auto) struct arena arena;
	arena_init(&arena, 65536);
	open_fixture(&f, (const char *const[]){"retry_interval=10ms", "max_attempts=3"}, 2);
	start(&f);
	wait_for(&f, 0, 1);
	struct queue_entry entry = find(&f, &arena);
	assert_int_equal(entry.attempt_count, 3);
	assert_int_equal(atomic_load(&f.fake.messages), 3);
	assert_true(str_eq(entry.last_reason, STR("attempts_exhausted")));
	close_fixture(&f);
}

static void an_unreachable_destination_costs_no_attempts(void **state)
{
	(void)state;
	struct fixture f = {.fake = {.away = true}};
	AUTO(arena_auto) struct arena arena;
	arena_init(&arena, 65536);
	open_fixture(&f, NULL, 0);
	start(&f);
	while (atomic_load(&f.fake.batches) < 2)
		sched_yield();
	wait_for(&f, 1, 0);
	assert_int_equal(find(&f, &arena).attempt_count, 0);
	close_fixture(&f);
}

/* Takes the message and lets the lease end, as a worker does that dies over it. */
static void die_over_it(struct fixture *f, struct arena *arena)
{
	struct queue_lease lease = {
		.worker = "killed", .max = 1, .lease_ms = 1, .wait_ms = 10000, .arena = arena};
	struct err e = ERR_INIT;
	assert_int_equal(queue_wait(f->queue, QUEUE_LEASE, &lease.op, &e), 0);
	assert_int_equal(lease.count, 1);
}

static void what_kills_its_workers_is_given_up_untried(void **state)
{
	(void)state;
	struct fixture f = {.fake = {.outcome = DELIVERY_STORED}};
	AUTO(arena_auto) struct arena arena;
	arena_init(&arena, 65536);
	open_fixture(&f, (const char *const[]){"max_attempts=2"}, 1);
	die_over_it(&f, &arena);
	die_over_it(&f, &arena);
	wait_for(&f, 1, 0);
	start(&f);
	wait_for(&f, 0, 1);
	assert_int_equal(atomic_load(&f.fake.messages), 0);
	assert_true(str_eq(find(&f, &arena).last_reason, STR("attempts_exhausted")));
	close_fixture(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_stored_is_forgotten),
		cmocka_unit_test(what_is_rejected_becomes_a_dead_letter_at_once),
		cmocka_unit_test(what_fails_is_due_again_after_the_retry_interval),
		cmocka_unit_test(attempts_are_used_up),
		cmocka_unit_test(an_unreachable_destination_costs_no_attempts),
		cmocka_unit_test(what_kills_its_workers_is_given_up_untried),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
