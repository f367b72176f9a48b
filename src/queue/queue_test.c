/* queue_test.c - what queue.c adds to a driver: parking, pauses, the glance, trouble and recovery, closing.
 * The clock is moved by hand and any thread may read it; the committer looks at it when an operation wakes
 * it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "queue/faulty.h"
#include "queue/queue.h"
#include "queue/row.h"

enum { START_MS = 1000000000, LEASE_MS = 60000, WAIT_MS = 5000, PUT_LIMIT = 64, ARENA_BYTES = 32 << 20 };

struct steady_clock {
	struct clock clock;
	_Atomic int64_t ms;
};

static struct wall steady_wall(const struct clock *c)
{
	return (struct wall){START_MS + container_of(c, const struct steady_clock, clock)->ms};
}

static struct mono steady_mono(const struct clock *c)
{
	return (struct mono){(container_of(c, const struct steady_clock, clock)->ms + 1) * 1000000};
}

struct bed {
	struct queue *queue;
	struct steady_clock clock;
	struct faulty faulty;
	struct uuid_source ids;
	struct arena arena;
};

static struct queue_options options_of(struct bed *b)
{
	return (struct queue_options){
		.driver = &queue_driver_faulty,
		.clock = &b->clock.clock,
		.put_limit = PUT_LIMIT,
		.group_max = 16,
		.idempotency_ms = 1000,
		.driver_arg = &b->faulty,
	};
}

static int set_up(void **state)
{
	struct bed *b = calloc(1, sizeof(*b));
	struct err e = ERR_INIT;
	assert_non_null(b);
	b->clock.clock = (struct clock){steady_wall, steady_mono};
	b->faulty = (struct faulty){.inner = &queue_driver_memory, .kind = ERR_RETRY};
	uuid_source_init(&b->ids, &b->clock.clock, 0);
	arena_init(&b->arena, ARENA_BYTES);
	struct queue_options o = options_of(b);
	assert_int_equal(queue_open(&o, &b->queue, &e), 0);
	*state = b;
	return 0;
}

static int tear_down(void **state)
{
	struct bed *b = *state;
	queue_close(b->queue);
	arena_clear(&b->arena);
	free(b);
	return 0;
}

/* --- operations --- */

static struct sealed new_message(struct bed *b)
{
	static char bytes[ENVELOPE_HEADER_BYTES + ENVELOPE_TAG_BYTES] = {ENVELOPE_VERSION};
	struct sealed m = {.client_id = STR("alpha"),
		.domain = STR("example"),
		.accepted_at = {START_MS},
		.envelope = {bytes, sizeof(bytes)}};
	assert_int_equal(uuid_next(&b->ids, &m.id, NULL), 0);
	return m;
}

static int put_one(struct bed *b, struct err *e)
{
	struct sealed m = new_message(b);
	struct queue_put put = {.messages = &m, .count = 1};
	return queue_wait(b->queue, QUEUE_PUT, &put.op, e);
}

static struct queue_lease lease_for(struct bed *b, unsigned max, int64_t wait_ms)
{
	return (struct queue_lease){
		.worker = "w", .max = max, .lease_ms = LEASE_MS, .wait_ms = wait_ms, .arena = &b->arena};
}

static struct queue_lease lease_now(struct bed *b, unsigned max)
{
	struct queue_lease lease = lease_for(b, max, 0);
	assert_int_equal(queue_wait(b->queue, QUEUE_LEASE, &lease.op, NULL), 0);
	return lease;
}

static int settle_all(
	struct bed *b, const struct queue_lease *lease, enum queue_verdict verdict, int64_t in_ms)
{
	AUTO(free_auto) struct queue_settlement *items = calloc(lease->count + 1, sizeof(*items));
	for (unsigned i = 0; i < lease->count; i++)
		items[i] = (struct queue_settlement){.ref = lease->messages[i].ref,
			.verdict = verdict,
			.due_at = {START_MS + b->clock.ms + in_ms},
			.reason = STR("test")};
	struct queue_settle settle = {.worker = "w", .items = items, .count = lease->count};
	return queue_wait(b->queue, QUEUE_SETTLE, &settle.op, NULL);
}

static struct queue_stats stats_now(struct bed *b)
{
	struct queue_stats stats = {0};
	assert_int_equal(queue_wait(b->queue, QUEUE_STATS, &stats.op, NULL), 0);
	return stats;
}

/* Moves the clock, and wakes the committer by an operation. */
static void advance(struct bed *b, int64_t ms)
{
	b->clock.ms += ms;
	struct queue_stats stats = {0};
	int seen = queue_wait(b->queue, QUEUE_STATS, &stats.op, NULL);
	(void)seen;
}

static int pause_set(struct bed *b, bool accept, bool on, const char *reason)
{
	struct queue_pause pause = {.accept = accept, .on = on};
	snprintf(pause.reason, sizeof(pause.reason), "%s", reason);
	return queue_wait(b->queue, QUEUE_PAUSE, &pause.op, NULL);
}

/* --- a lease that waits --- */

struct waiting {
	struct queue_lease lease;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool finished;
};

static void waiting_complete(struct group_op *op)
{
	struct waiting *w = container_of(op, struct waiting, lease.op);
	pthread_mutex_lock(&w->lock);
	w->finished = true;
	pthread_cond_signal(&w->changed);
	pthread_mutex_unlock(&w->lock);
}

static void wait_begin(struct bed *b, struct waiting *w, unsigned max)
{
	*w = (struct waiting){.lease = lease_for(b, max, WAIT_MS)};
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->changed, NULL);
	w->lease.op.complete = waiting_complete;
	queue_lease(b->queue, &w->lease);
	/* Operations are applied in their order: after this one the lease is waiting. */
	struct queue_stats stats = {0};
	int seen = queue_wait(b->queue, QUEUE_STATS, &stats.op, NULL);
	(void)seen;
}

static bool is_finished(struct waiting *w)
{
	pthread_mutex_lock(&w->lock);
	bool finished = w->finished;
	pthread_mutex_unlock(&w->lock);
	return finished;
}

/* Returns how many messages came. */
static unsigned wait_end(struct waiting *w)
{
	pthread_mutex_lock(&w->lock);
	while (!w->finished)
		pthread_cond_wait(&w->changed, &w->lock);
	pthread_mutex_unlock(&w->lock);
	pthread_mutex_destroy(&w->lock);
	pthread_cond_destroy(&w->changed);
	return w->lease.count;
}

static void test_put_wakes_a_lease(void **state)
{
	struct bed *b = *state;
	struct waiting w[2];
	wait_begin(b, &w[0], 5);
	wait_begin(b, &w[1], 5);
	stats_now(b);
	assert_false(is_finished(&w[0]));
	assert_int_equal(put_one(b, NULL), QUEUE_STORED);
	assert_int_equal(wait_end(&w[0]), 1);
	assert_false(is_finished(&w[1]));
	assert_int_equal(put_one(b, NULL), QUEUE_STORED);
	assert_int_equal(wait_end(&w[1]), 1);
	assert_int_equal(stats_now(b).processing, 2);
}

static void test_lease_waits_no_longer_than_told(void **state)
{
	struct bed *b = *state;
	struct waiting w;
	wait_begin(b, &w, 5);
	advance(b, WAIT_MS - 1);
	assert_false(is_finished(&w));
	advance(b, 1);
	assert_int_equal(wait_end(&w), 0);
	assert_int_equal(w.lease.op.result, 0);
}

static void test_due_retry_wakes_a_lease(void **state)
{
	struct bed *b = *state;
	struct waiting w;
	assert_int_equal(put_one(b, NULL), QUEUE_STORED);
	struct queue_lease lease = lease_now(b, 1);
	assert_int_equal(settle_all(b, &lease, QUEUE_RETRY, 1000), 0);
	wait_begin(b, &w, 1);
	advance(b, 999);
	stats_now(b);
	assert_false(is_finished(&w));
	advance(b, 1);
	assert_int_equal(wait_end(&w), 1);
	assert_int_equal(w.lease.messages[0].attempt_count, 1);
}

static void test_expired_lease_wakes_a_lease(void **state)
{
	struct bed *b = *state;
	struct waiting w;
	assert_int_equal(put_one(b, NULL), QUEUE_STORED);
	assert_int_equal(lease_now(b, 1).count, 1);
	b->clock.ms += LEASE_MS - 1;
	wait_begin(b, &w, 1);
	advance(b, 1);
	assert_int_equal(wait_end(&w), 1);
}

static void test_closing_ends_waiting(void **state)
{
	struct bed *b = *state;
	struct waiting w;
	wait_begin(b, &w, 1);
	queue_close(b->queue);
	assert_int_equal(wait_end(&w), 0);
	struct queue_options o = options_of(b);
	assert_int_equal(queue_open(&o, &b->queue, NULL), 0);
}

static void test_closing_a_broken_queue(void **state)
{
	struct bed *b = *state;
	struct waiting w;
	wait_begin(b, &w, 1);
	faulty_fail(&b->faulty, NULL, 1, UINT32_MAX);
	queue_close(b->queue);
	assert_int_equal(wait_end(&w), 0);
	faulty_fail(&b->faulty, NULL, 0, 0);
	struct queue_options o = options_of(b);
	assert_int_equal(queue_open(&o, &b->queue, NULL), 0);
}

/* An operation that submits itself again as soon as it is done: the committer never rests. */
struct flood {
	struct queue *queue;
	struct queue_stats stats;
	atomic_bool stop, stopped;
};

static void flood_on(struct group_op *op)
{
	struct flood *f = container_of(op, struct flood, stats.op);
	if (atomic_load(&f->stop))
		atomic_store(&f->stopped, true);
	else
		queue_submit(f->queue, QUEUE_STATS, op);
}

static void test_no_rest_for_the_committer(void **state)
{
	struct bed *b = *state;
	struct flood f = {.queue = b->queue, .stats.op.complete = flood_on};
	struct waiting w;
	assert_int_equal(put_one(b, NULL), QUEUE_STORED);
	assert_int_equal(lease_now(b, 1).count, 1);
	queue_submit(b->queue, QUEUE_STATS, &f.stats.op);
	wait_begin(b, &w, 1);
	advance(b, WAIT_MS);
	assert_int_equal(wait_end(&w), 0);
	b->clock.ms += LEASE_MS;
	wait_begin(b, &w, 1);
	assert_int_equal(wait_end(&w), 1);
	atomic_store(&f.stop, true);
	while (!atomic_load(&f.stopped))
		stats_now(b);
}

/* --- pauses --- */

static void test_accepting_paused(void **state)
{
	struct bed *b = *state;
	struct err e = ERR_INIT;
	struct queue_glance glance;
	assert_int_equal(put_one(b, NULL), QUEUE_STORED);
	assert_int_equal(pause_set(b, true, true, "disk is full"), 0);
	assert_int_equal(put_one(b, &e), -1);
	assert_int_equal(e.kind, ERR_RETRY);
	assert_non_null(strstr(e.text, "disk is full"));
	queue_glance(b->queue, &glance);
	assert_true(glance.accept_paused);
	assert_true(glance.healthy);
	/* Delivery goes on. */
	struct queue_lease lease = lease_now(b, 1);
	assert_int_equal(lease.count, 1);
	assert_int_equal(settle_all(b, &lease, QUEUE_DONE, 0), 0);
	assert_int_equal(pause_set(b, true, false, ""), 0);
	assert_int_equal(put_one(b, &e), QUEUE_STORED);
}

static void test_delivery_paused(void **state)
{
	struct bed *b = *state;
	struct waiting w;
	struct queue_glance glance;
	assert_int_equal(pause_set(b, false, true, "maintenance"), 0);
	assert_int_equal(put_one(b, NULL), QUEUE_STORED);
	assert_int_equal(lease_now(b, 1).count, 0);
	wait_begin(b, &w, 1);
	stats_now(b);
	assert_false(is_finished(&w));
	queue_glance(b->queue, &glance);
	assert_true(glance.delivery_paused);
	assert_int_equal(pause_set(b, false, false, ""), 0);
	assert_int_equal(wait_end(&w), 1);
}

/* --- trouble --- */

static void test_failed_commit_is_told_and_overcome(void **state)
{
	struct bed *b = *state;
	struct queue_glance glance;
	static const struct {
		const char *function;
		enum err_kind kind;
	} cases[] = {
		{"begin", ERR_RETRY},
		{"put", ERR_RETRY},
		{"commit", ERR_RETRY},
		{"commit", ERR_FATAL},
	};
	for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
		struct err e = ERR_INIT;
		b->faulty.kind = cases[i].kind;
		faulty_fail(&b->faulty, cases[i].function, 1, 1);
		assert_int_equal(put_one(b, &e), -1);
		assert_int_equal(e.kind, cases[i].kind);
		queue_glance(b->queue, &glance);
		assert_false(glance.healthy);
		assert_non_null(strstr(glance.trouble, "injected"));
		assert_int_equal(glance.queued, i);
		assert_int_equal(put_one(b, &e), QUEUE_STORED);
		queue_glance(b->queue, &glance);
		assert_true(glance.healthy);
		assert_string_equal(glance.trouble, "");
		assert_int_equal(glance.queued, i + 1);
	}
}

/* Nobody's operation succeeds, and still the queue finds out that the engine works again. */
static void test_probe_finds_recovery(void **state)
{
	struct bed *b = *state;
	struct queue_glance glance;
	faulty_fail(&b->faulty, NULL, 1, UINT32_MAX);
	assert_int_equal(put_one(b, NULL), -1);
	advance(b, 1000);
	queue_glance(b->queue, &glance);
	assert_false(glance.healthy);
	faulty_fail(&b->faulty, "begin", 1, UINT32_MAX);
	do {
		advance(b, 1000);
		queue_glance(b->queue, &glance);
	} while (!glance.healthy);
	faulty_fail(&b->faulty, NULL, 0, 0);
}

static void test_waiting_lease_gets_the_error_of_its_group(void **state)
{
	struct bed *b = *state;
	struct waiting w;
	wait_begin(b, &w, 1);
	faulty_fail(&b->faulty, "commit", 1, 1);
	assert_int_equal(put_one(b, NULL), -1);
	wait_end(&w);
	assert_int_equal(w.lease.op.result, -1);
	assert_int_equal(w.lease.op.err.kind, ERR_RETRY);
	assert_int_equal(stats_now(b).processing, 0);
	/* It may also be what spoils the group. Then it goes on waiting. */
	wait_begin(b, &w, 1);
	faulty_fail(&b->faulty, "lease", 1, 1);
	assert_int_equal(put_one(b, NULL), -1);
	assert_int_equal(put_one(b, NULL), QUEUE_STORED);
	assert_int_equal(wait_end(&w), 1);
}

static void test_open_fails(void **state)
{
	struct bed *b = *state;
	struct err e = ERR_INIT;
	struct queue *queue = NULL;
	struct faulty faulty = {
		.inner = &queue_driver_memory, .kind = ERR_FATAL, .fail_at = 1, .fail_count = 1};
	struct queue_options o = options_of(b);
	o.driver_arg = &faulty;
	assert_int_equal(queue_open(&o, &queue, &e), -1);
	assert_int_equal(e.kind, ERR_FATAL);
	assert_null(queue);
}

/* --- scans in parts --- */

static void make_dead(struct bed *b, unsigned count)
{
	AUTO(free_auto) struct sealed *m = calloc(count, sizeof(*m));
	for (unsigned i = 0; i < count; i++)
		m[i] = new_message(b);
	struct queue_put put = {.messages = m, .count = count};
	assert_int_equal(queue_wait(b->queue, QUEUE_PUT, &put.op, NULL), QUEUE_STORED);
	struct queue_lease lease = lease_now(b, count);
	assert_int_equal(lease.count, count);
	assert_int_equal(settle_all(b, &lease, QUEUE_DEAD, 0), 0);
}

static void test_long_scans(void **state)
{
	struct bed *b = *state;
	enum { COUNT = 2 * SCAN_ROWS + 1 };
	make_dead(b, COUNT);
	struct queue_list list = {.filter = {.state = -1, .client_id = STR("nobody")},
		.max = 10,
		.arena = &b->arena,
		.count = 7};
	assert_int_equal(queue_wait(b->queue, QUEUE_LIST, &list.op, NULL), 0);
	assert_int_equal(list.count, 0);
	struct queue_redrive redrive = {.max = COUNT, .matched = 99};
	assert_int_equal(queue_wait(b->queue, QUEUE_REDRIVE, &redrive.op, NULL), 0);
	assert_int_equal(redrive.matched, COUNT);
	assert_int_equal(stats_now(b).queued, COUNT);
	assert_int_equal(stats_now(b).failed, 0);
}

static void test_long_scan_fails_half_way(void **state)
{
	struct bed *b = *state;
	struct err e = ERR_INIT;
	make_dead(b, 2 * SCAN_ROWS + 1);
	faulty_fail(&b->faulty, "purge", 2, 1);
	struct queue_purge purge = {.max = UINT32_MAX};
	assert_int_equal(queue_wait(b->queue, QUEUE_PURGE, &purge.op, &e), -1);
	assert_int_equal(e.kind, ERR_RETRY);
	assert_int_equal(stats_now(b).failed, SCAN_ROWS + 1);
	assert_int_equal(queue_wait(b->queue, QUEUE_PURGE, &purge.op, &e), 0);
	assert_int_equal(stats_now(b).failed, 0);
}

/* --- bounds, and all the rest --- */

static void test_bound(void **state)
{
	struct bed *b = *state;
	struct waiting w[PUT_LIMIT];
	struct sealed m = new_message(b);
	struct queue_put put = {.messages = &m, .count = 1};
	for (unsigned i = 0; i < PUT_LIMIT; i++)
		wait_begin(b, &w[i], 1);
	assert_int_equal(queue_put(b->queue, &put, NULL), GROUP_FULL);
	advance(b, WAIT_MS);
	for (unsigned i = 0; i < PUT_LIMIT; i++)
		assert_int_equal(wait_end(&w[i]), 0);
}

static void test_find_and_renew(void **state)
{
	struct bed *b = *state;
	assert_int_equal(put_one(b, NULL), QUEUE_STORED);
	struct queue_lease lease = lease_now(b, 1);
	struct queue_renew renew = {
		.refs = &lease.messages[0].ref, .count = 1, .lease_ms = (int64_t)2 * LEASE_MS};
	assert_int_equal(queue_wait(b->queue, QUEUE_RENEW, &renew.op, NULL), 0);
	advance(b, LEASE_MS);
	struct queue_find find = {.id = lease.messages[0].sealed.id, .arena = &b->arena};
	assert_int_equal(queue_wait(b->queue, QUEUE_FIND, &find.op, NULL), 0);
	assert_int_equal(find.entry.state, MESSAGE_PROCESSING);
	find.id.b[15] ^= 1;
	struct err e = ERR_INIT;
	assert_int_equal(queue_wait(b->queue, QUEUE_FIND, &find.op, &e), -1);
	assert_int_equal(e.kind, ERR_NOT_FOUND);
}

static void test_facts(void **state)
{
	struct bed *b = *state;
	struct queue_glance glance;
	assert_non_null(strstr(queue_durability(b->queue), "memory"));
	assert_int_equal(queue_floor_key(b->queue), 0);
	queue_glance(b->queue, &glance);
	assert_int_equal(glance.oldest_accepted_at.ms, 0);
	assert_int_equal(glance.group.limit, PUT_LIMIT);
	assert_int_equal(put_one(b, NULL), QUEUE_STORED);
	queue_glance(b->queue, &glance);
	assert_int_equal(glance.oldest_accepted_at.ms, START_MS);
	assert_int_equal(glance.queued, 1);
	assert_ptr_equal(queue_driver_find("memory"), &queue_driver_memory);
	assert_ptr_equal(queue_driver_find("sqlite"), &queue_driver_sqlite);
	assert_null(queue_driver_find("faulty"));
}

/* --- many threads --- */

enum { PUTTERS = 3, TAKERS = 2, EACH = 300 };

struct crowd {
	struct bed *bed;
	_Atomic unsigned taken;
};

static void *putter(void *arg)
{
	struct crowd *c = arg;
	for (unsigned i = 0; i < EACH; i++)
		assert_int_equal(put_one(c->bed, NULL), QUEUE_STORED);
	return NULL;
}

static void *taker(void *arg)
{
	struct crowd *c = arg;
	struct bed own = {.queue = c->bed->queue};
	arena_init(&own.arena, ARENA_BYTES);
	while (atomic_load(&c->taken) < PUTTERS * EACH) {
		struct queue_glance glance;
		arena_reset(&own.arena);
		struct queue_lease lease = lease_for(&own, 7, 0);
		assert_int_equal(queue_wait(own.queue, QUEUE_LEASE, &lease.op, NULL), 0);
		assert_int_equal(settle_all(&own, &lease, QUEUE_DONE, 0), 0);
		atomic_fetch_add(&c->taken, lease.count);
		queue_glance(own.queue, &glance);
		assert_true(glance.healthy);
	}
	arena_clear(&own.arena);
	return NULL;
}

static void test_many_threads(void **state)
{
	struct crowd c = {.bed = *state};
	pthread_t threads[PUTTERS + TAKERS];
	for (unsigned i = 0; i < PUTTERS + TAKERS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, i < PUTTERS ? putter : taker, &c), 0);
	for (unsigned i = 0; i < PUTTERS + TAKERS; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(c.taken, PUTTERS * EACH);
	struct queue_stats stats = stats_now(c.bed);
	assert_int_equal(stats.queued + stats.processing + stats.failed, 0);
}

#define CASE(name) cmocka_unit_test_setup_teardown(test_##name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(put_wakes_a_lease),
		CASE(lease_waits_no_longer_than_told),
		CASE(due_retry_wakes_a_lease),
		CASE(expired_lease_wakes_a_lease),
		CASE(closing_ends_waiting),
		CASE(closing_a_broken_queue),
		CASE(no_rest_for_the_committer),
		CASE(accepting_paused),
		CASE(delivery_paused),
		CASE(failed_commit_is_told_and_overcome),
		CASE(probe_finds_recovery),
		CASE(waiting_lease_gets_the_error_of_its_group),
		CASE(open_fails),
		CASE(long_scans),
		CASE(long_scan_fails_half_way),
		CASE(bound),
		CASE(find_and_renew),
		CASE(facts),
		CASE(many_threads),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
