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
#include "base/metrics.h"
#include "message/uuid.h"
#include "queue/faulty.h"
#include "worker/worker.h"

/* A destination that says the same of every message, and counts. */
struct fake {
	enum delivery_outcome outcome;
	bool away;
	const struct uuid *refused; /* refuses requests that hold it */
	const struct uuid *deadly;  /* dies of requests that hold it */
	atomic_bool hangs;          /* answers when it does not any more, or when cancelled */
	atomic_bool cancelled;
	atomic_uint batches, messages, failed_reports, queued_reports;
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
	while (atomic_load(&fake->hangs) && !atomic_load(&fake->cancelled))
		sched_yield();
	if (fake->away || atomic_load(&fake->cancelled))
		return err_set(e, ERR_RETRY, "away");
	for (unsigned i = 0; fake->refused && i < count; i++)
		if (uuid_eq(&items[i].sealed->id, fake->refused))
			return err_set(e, ERR_REJECT, "malformed");
	for (unsigned i = 0; fake->deadly && i < count; i++)
		if (uuid_eq(&items[i].sealed->id, fake->deadly)) {
			err_set(e, ERR_RETRY, "broken off");
			e->unanswered = true;
			return -1;
		}
	for (unsigned i = 0; i < count; i++) {
		items[i].outcome = fake->outcome;
		items[i].reason = "test_reason";
	}
	atomic_fetch_add(&fake->messages, count);
	return 0;
}

static int fake_report(void *session, const struct delivery_report *report, struct err *e)
{
	struct fake *fake = session;
	(void)e;
	atomic_fetch_add(report->state == MESSAGE_FAILED ? &fake->failed_reports : &fake->queued_reports, 1);
	return 0;
}

static void fake_cancel(void *session)
{
	struct fake *fake = session;
	atomic_store(&fake->cancelled, true);
}

struct fixture {
	struct faulty faulty;
	struct uuid_source ids;
	struct queue *queue;
	struct fake fake;
	struct destination destination;
	struct config *config;
	struct worker *worker;
	struct uuid id;
};

/* Its id is f->id. */
static void put_one(struct fixture *f)
{
	struct err e = ERR_INIT;
	assert_int_equal(uuid_next(&f->ids, &f->id, &e), 0);
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
	struct queue_options o = {.driver = &queue_driver_faulty,
		.driver_arg = &f->faulty,
		.clock = &clock_system,
		.put_limit = 64,
		.group_max = 64,
		.idempotency_ms = 1000};
	struct config_source source = {.sets = sets, .set_count = set_count};
	struct err e = ERR_INIT;
	f->faulty = (struct faulty){.inner = &queue_driver_memory, .kind = ERR_RETRY};
	uuid_source_init(&f->ids, &clock_system, 0);
	assert_int_equal(queue_open(&o, &f->queue, &e), 0);
	assert_int_equal(config_load(&source, &f->config, &e), 0);
	f->destination = (struct destination){.name = "fake",
		.arg = &f->fake,
		.open = fake_open,
		.close = fake_close,
		.deliver = fake_deliver,
		.report = fake_report,
		.cancel = fake_cancel};
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
	worker_stop(f->worker, 10000);
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
		/* May be in a group that a test lets fail. */
		if (queue_wait(f->queue, QUEUE_STATS, &stats.op, &e) < 0)
			stats.processing = 1;
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
	while (atomic_load(&f.fake.failed_reports) < 1)
		sched_yield();
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
	/* An attempt may be told of when another thread is through with the next one. */
	while (atomic_load(&f.fake.queued_reports) < 2)
		sched_yield();
	assert_int_equal(atomic_load(&f.fake.queued_reports), 2);
	assert_true(str_eq(entry.last_reason, STR("attempts_exhausted: test_reason")));
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

/* Among others, of which none is lost, none waits for it, and none costs an attempt. */
static void what_the_destination_dies_of_makes_way_and_is_given_up(void **state)
{
	(void)state;
	static const char *const once[] = {
		"breaker_pause=10ms", "breaker_pause_max=10ms", "retry_interval=1h"};
	static const char *const for_good[] = {
		"breaker_pause=10ms", "breaker_pause_max=10ms", "max_attempts=1", "lost_answers_max=1"};
	const struct {
		const char *const *sets;
		size_t count;
		uint64_t queued, failed;
	} cases[] = {{once, ARRAY_LEN(once), 1, 0}, {for_good, ARRAY_LEN(for_good), 0, 1}};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct fixture f = {.fake = {.outcome = DELIVERY_STORED}};
		AUTO(arena_auto) struct arena arena;
		arena_init(&arena, 65536);
		open_fixture(&f, cases[i].sets, cases[i].count);
		put_one(&f);
		struct uuid deadly = f.id;
		f.fake.deadly = &deadly;
		put_one(&f);
		start(&f);
		wait_for(&f, cases[i].queued, cases[i].failed);
		f.id = deadly;
		assert_int_equal(find(&f, &arena).attempt_count, 1);
		assert_true(atomic_load(&f.fake.batches) >= (i == 0 ? 3 + 2 : 1 + 2));
		assert_int_equal(atomic_load(&f.fake.messages), 2);
		close_fixture(&f);
	}
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
	while (atomic_load(&f.fake.failed_reports) < 1)
		sched_yield();
	assert_true(str_eq(find(&f, &arena).last_reason, STR("attempts_exhausted")));
	close_fixture(&f);
}

static void what_is_too_old_is_given_up(void **state)
{
	(void)state;
	struct fixture f = {.fake = {.outcome = DELIVERY_RETRY}};
	AUTO(arena_auto) struct arena arena;
	arena_init(&arena, 65536);
	open_fixture(&f, (const char *const[]){"retry_interval=10ms", "message_lifetime=50ms"}, 2);
	start(&f);
	wait_for(&f, 0, 1);
	assert_true(str_starts(find(&f, &arena).last_reason, STR("expired")));
	close_fixture(&f);
}

/* Of a batch that is refused as a whole, only the message at fault has an attempt more. */
static void a_refused_batch_fails_for_the_one_at_fault_alone(void **state)
{
	(void)state;
	struct fixture f = {.fake = {.outcome = DELIVERY_STORED}};
	AUTO(arena_auto) struct arena arena;
	arena_init(&arena, 65536);
	open_fixture(&f, (const char *const[]){"retry_interval=1h", "worker_concurrency=1"}, 2);
	for (int i = 0; i < 20; i++)
		put_one(&f);
	struct uuid poison = f.id;
	for (int i = 0; i < 20; i++)
		put_one(&f);
	f.fake.refused = &poison;
	start(&f);
	wait_for(&f, 1, 0);
	assert_int_equal(atomic_load(&f.fake.messages), 40);
	f.id = poison;
	struct queue_entry entry = find(&f, &arena);
	assert_int_equal(entry.attempt_count, 1);
	assert_true(str_eq(entry.last_reason, STR("malformed")));
	close_fixture(&f);
}

/* The lease is a second; the delivery lasts until it has been renewed. False: this machine stood still for longer, and the
 * message went to another thread, as it should. */
static bool is_kept_while_delivered(void)
{
	struct fixture f = {.fake = {.outcome = DELIVERY_STORED, .hangs = true}};
	series_t renewed = metric_series(METRIC_LEASE_RENEWED, (const char *const[]){NULL});
	series_t lost = metric_series(METRIC_LEASE_LOST, (const char *const[]){NULL});
	uint64_t before = series_value(renewed), lost_before = series_value(lost);
	open_fixture(&f, (const char *const[]){"lease_time=1s"}, 1);
	start(&f);
	while (series_value(renewed) < before + 3)
		sched_yield();
	atomic_store(&f.fake.hangs, false);
	wait_for(&f, 0, 0);
	close_fixture(&f);
	if (series_value(lost) != lost_before)
		return false;
	assert_int_equal(atomic_load(&f.fake.messages), 1);
	return true;
}

static void a_long_delivery_keeps_its_lease(void **state)
{
	(void)state;
	while (!is_kept_while_delivered())
		;
}

static void a_hung_destination_does_not_keep_the_worker(void **state)
{
	(void)state;
	struct fixture f = {.fake = {.outcome = DELIVERY_STORED, .hangs = true}};
	AUTO(arena_auto) struct arena arena;
	arena_init(&arena, 65536);
	open_fixture(&f, NULL, 0);
	start(&f);
	while (atomic_load(&f.fake.batches) < 1)
		sched_yield();
	worker_stop(f.worker, 1);
	f.worker = NULL;
	struct queue_entry entry = find(&f, &arena);
	assert_int_equal(entry.state, MESSAGE_QUEUED);
	assert_int_equal(entry.attempt_count, 0);
	close_fixture(&f);
}

static void verdicts_are_offered_again(void **state)
{
	(void)state;
	struct fixture f = {.fake = {.outcome = DELIVERY_STORED}};
	open_fixture(&f, NULL, 0);
	faulty_fail(&f.faulty, "settle", 1, 2);
	start(&f);
	wait_for(&f, 0, 0);
	assert_int_equal(atomic_load(&f.fake.messages), 1);
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
		cmocka_unit_test(what_the_destination_dies_of_makes_way_and_is_given_up),
		cmocka_unit_test(what_kills_its_workers_is_given_up_untried),
		cmocka_unit_test(what_is_too_old_is_given_up),
		cmocka_unit_test(a_refused_batch_fails_for_the_one_at_fault_alone),
		cmocka_unit_test(a_long_delivery_keeps_its_lease),
		cmocka_unit_test(a_hung_destination_does_not_keep_the_worker),
		cmocka_unit_test(verdicts_are_offered_again),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
