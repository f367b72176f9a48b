/* keeper_test.c - a lease that is lost is found out, counted once, and left alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sched.h>

#include "base/auto.h"
#include "base/metrics.h"
#include "message/uuid.h"
#include "queue/driver.h"
#include "worker/keeper.h"

static struct queue *open_queue(void)
{
	struct queue_options o = {.driver = &queue_driver_memory,
		.clock = &clock_system,
		.put_limit = 64,
		.group_max = 64,
		.idempotency_ms = 1000};
	struct queue *queue;
	struct err e = ERR_INIT;
	assert_int_equal(queue_open(&o, &queue, &e), 0);
	return queue;
}

static void put_one(struct queue *queue)
{
	struct uuid_source ids;
	struct uuid id;
	struct err e = ERR_INIT;
	uuid_source_init(&ids, &clock_system, 0);
	assert_int_equal(uuid_next(&ids, &id, &e), 0);
	AUTO(buf_auto) struct buf envelope;
	buf_init(&envelope, SEALED_MAX_BYTES);
	envelope_encode(&(struct envelope){.ciphertext = STR("sixteen bytes and more")}, &envelope);
	struct sealed sealed = {.id = id,
		.accepted_at = clock_wall(&clock_system),
		.client_id = STR("client"),
		.domain = STR("example.com"),
		.traceparent = STR(""),
		.envelope = buf_str(&envelope)};
	struct queue_put put = {.messages = &sealed, .count = 1};
	assert_int_equal(queue_wait(queue, QUEUE_PUT, &put.op, &e), QUEUE_STORED);
}

static uint64_t counted(enum metric m)
{
	return series_value(metric_series(m, (const char *const[]){NULL}));
}

static void lease_one(struct queue *queue, struct arena *arena, int64_t lease_ms, struct keeper_hold *ret)
{
	struct queue_lease lease = {
		.worker = "test", .max = 1, .lease_ms = lease_ms, .wait_ms = 10000, .arena = arena};
	struct err e = ERR_INIT;
	assert_int_equal(queue_wait(queue, QUEUE_LEASE, &lease.op, &e), 0);
	assert_int_equal(lease.count, 1);
	*ret = (struct keeper_hold){.count = 1};
	ret->refs[0] = lease.messages[0].ref;
}

static void a_lost_lease_is_counted_once(void **state)
{
	(void)state;
	struct queue *queue = open_queue();
	struct keeper *keeper;
	static struct keeper_hold lost, kept;
	AUTO(arena_auto) struct arena arena;
	struct err e = ERR_INIT;
	arena_init(&arena, 65536);
	uint64_t lost_before = counted(METRIC_LEASE_LOST), renewed_before = counted(METRIC_LEASE_RENEWED);
	put_one(queue);
	lease_one(queue, &arena, 1, &lost);
	lease_one(queue, &arena, 60000, &kept); /* the same message: the first lease has ended */
	assert_int_equal(keeper_start(queue, &clock_system, 900, &keeper, &e), 0);
	keeper_hold(keeper, &lost);
	while (counted(METRIC_LEASE_LOST) == lost_before)
		sched_yield();
	keeper_hold(keeper, &kept);
	while (counted(METRIC_LEASE_RENEWED) < renewed_before + 2)
		sched_yield();
	keeper_drop(keeper, &lost);
	keeper_drop(keeper, &kept);
	assert_int_equal(lost.lost, 1);
	assert_int_equal(kept.lost, 0);
	assert_int_equal(counted(METRIC_LEASE_LOST), lost_before + 1);
	keeper_stop(keeper);
	queue_close(queue);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(a_lost_lease_is_counted_once)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
