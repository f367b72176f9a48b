/* redis_test.c - what only the Redis engine does: several processes on one queue, URLs, errors by name, a message
 * that somebody has damaged, connections that break. The rest is in queue_conformance_test.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>

#include "base/arena.h"
#include "queue/driver.h"
#include "queue/redis.h"
#include "queue/redis_answer.h"
#include "queue/redis_link.h"
#include "queue/redis_server_test.h"
#include "queue/redis_url.h"

enum { LEASE_MS = 60000, ARENA_BYTES = 1 << 20, PROCESSES = 2, START_MS = 1000000000 };

/* Two processes with a clock each. */
struct bed {
	void *state[PROCESSES];
	struct clock_fake clock;
	struct uuid_source ids;
	struct arena arena;
};

static const struct queue_driver *const driver = &queue_driver_redis;

static void open_in_partitions(struct bed *b, unsigned partitions, void **ret)
{
	struct err e = ERR_INIT;
	struct redis_options redis = {.own_clock = true, .partitions = partitions, .prefix = "test"};
	struct queue_driver_options o = {redis_server_url(), &b->clock.clock, 1000, 0, &redis};
	if (driver->open(&o, ret, &e) < 0)
		fail_msg("%s", e.text);
}

static void open_process(struct bed *b, unsigned n)
{
	open_in_partitions(b, 2, &b->state[n]);
}

static int set_up(void **state)
{
	struct bed *b = calloc(1, sizeof(*b));
	assert_non_null(b);
	if (!redis_server_exists()) {
		*state = NULL;
		free(b);
		return 0;
	}
	clock_fake_init(&b->clock, (struct wall){START_MS});
	uuid_source_init(&b->ids, &b->clock.clock, 0);
	arena_init(&b->arena, ARENA_BYTES);
	redis_server_url();
	assert_true(REDIS_SERVER_DO("FLUSHALL"));
	for (unsigned n = 0; n < PROCESSES; n++)
		open_process(b, n);
	*state = b;
	return 0;
}

static int tear_down(void **state)
{
	struct bed *b = *state;
	if (!b)
		return 0;
	for (unsigned n = 0; n < PROCESSES; n++)
		driver->close(b->state[n]);
	arena_clear(&b->arena);
	free(b);
	return 0;
}

/* Skips a test that needs the server where there is none. */
static struct bed *bed_of(void **state)
{
	if (!*state) {
		print_message("redis-server is not installed (scripts/deps test)\n");
		skip();
	}
	return *state;
}

static void begin(struct bed *b, unsigned n)
{
	struct err e = ERR_INIT;
	if (driver->begin(b->state[n], &e) < 0)
		fail_msg("begin: %s", e.text);
}

static void commit(struct bed *b, unsigned n)
{
	struct err e = ERR_INIT;
	if (driver->commit(b->state[n], &e) < 0)
		fail_msg("commit: %s", e.text);
}

static struct sealed message_of(struct bed *b)
{
	static struct buf envelope;
	struct envelope env = {.ciphertext = STR("ciphertext and its authentication tag")};
	struct uuid id;
	buf_init(&envelope, 1024);
	envelope_encode(&env, &envelope);
	assert_int_equal(uuid_next(&b->ids, &id, NULL), 0);
	return (struct sealed){.id = id,
		.accepted_at = b->clock.now,
		.client_id = STR("alpha"),
		.domain = STR("example"),
		.envelope = buf_str(&envelope)};
}

static struct uuid put(struct bed *b, unsigned n)
{
	struct sealed m = message_of(b);
	struct queue_put put = {.messages = &m, .count = 1};
	begin(b, n);
	assert_int_equal(driver->put(b->state[n], &put, NULL), QUEUE_AT_COMMIT);
	commit(b, n);
	assert_int_equal(put.op.result, QUEUE_STORED);
	free((void *)(uintptr_t)m.envelope.p);
	return m.id;
}

static struct queue_lease lease(struct bed *b, unsigned n)
{
	struct queue_lease lease = {.worker = "w", .max = 10, .lease_ms = LEASE_MS, .arena = &b->arena};
	begin(b, n);
	assert_int_equal(driver->lease(b->state[n], &lease, NULL), 0);
	commit(b, n);
	return lease;
}

static bool settle(struct bed *b, unsigned n, struct queue_ref ref, enum queue_verdict verdict)
{
	struct queue_settlement item = {.ref = ref, .verdict = verdict, .reason = STR("no")};
	struct queue_settle settle = {.worker = "w", .items = &item, .count = 1};
	begin(b, n);
	assert_int_equal(driver->settle(b->state[n], &settle, NULL), 0);
	commit(b, n);
	return !item.stale;
}

static struct queue_stats stats_of(struct bed *b, unsigned n)
{
	struct queue_stats stats = {0};
	assert_int_equal(driver->stats(b->state[n], &stats, NULL), 0);
	return stats;
}

static bool tick(struct bed *b, unsigned n)
{
	struct mono next;
	return driver->tick(b->state[n], b->clock.ticks, &next);
}

/* --- several processes --- */

static void test_what_one_puts_another_leases_once(void **state)
{
	struct bed *b = bed_of(state);
	struct uuid id = put(b, 0);
	clock_fake_advance_ms(&b->clock, 1000);
	assert_true(tick(b, 1));
	struct queue_lease got = lease(b, 1);
	assert_int_equal(got.count, 1);
	assert_true(uuid_eq(&got.messages[0].sealed.id, &id));
	assert_int_equal(lease(b, 0).count, 0);
	assert_int_equal(stats_of(b, 0).processing, 1);
	/* Whoever has the reference may settle, once. */
	assert_true(settle(b, 0, got.messages[0].ref, QUEUE_DONE));
	assert_false(settle(b, 1, got.messages[0].ref, QUEUE_DONE));
}

static void test_a_dead_process_loses_its_leases(void **state)
{
	struct bed *b = bed_of(state);
	put(b, 0);
	struct queue_ref ref = lease(b, 0).messages[0].ref;
	clock_fake_advance_ms(&b->clock, LEASE_MS);
	assert_true(tick(b, 1));
	struct queue_lease again = lease(b, 1);
	assert_int_equal(again.count, 1);
	assert_int_equal(again.messages[0].attempt_count, 1);
	assert_false(settle(b, 0, ref, QUEUE_DONE));
	assert_true(settle(b, 1, again.messages[0].ref, QUEUE_DONE));
}

static void test_a_process_that_ends_gives_back(void **state)
{
	struct bed *b = bed_of(state);
	put(b, 0);
	assert_int_equal(lease(b, 0).count, 1);
	driver->close(b->state[0]);
	struct queue_lease again = lease(b, 1);
	assert_int_equal(again.count, 1);
	assert_int_equal(again.messages[0].attempt_count, 0);
	open_process(b, 0);
}

static void test_pauses_are_everybody_s(void **state)
{
	struct bed *b = bed_of(state);
	struct queue_pause pause = {.on = true, .reason = "maintenance"};
	put(b, 0);
	begin(b, 0);
	assert_int_equal(driver->pause(b->state[0], &pause, NULL), 0);
	commit(b, 0);
	assert_int_equal(lease(b, 1).count, 0); /* before it has heard of it */
	clock_fake_advance_ms(&b->clock, 1000);
	assert_true(stats_of(b, 1).delivery_paused);
	assert_string_equal(stats_of(b, 1).delivery_reason, "maintenance");
}

/* Ids that two proxies have made in one moment: no page parts them, no page passes them over. */
static void test_ids_with_one_order_key(void **state)
{
	struct bed *b = bed_of(state);
	struct sealed m[6];
	struct queue_put puts[ARRAY_LEN(m)];
	begin(b, 0);
	for (unsigned i = 0; i < ARRAY_LEN(m); i++) {
		m[i] = message_of(b);
		if (i % 2)
			m[i].id = m[i - 1].id, m[i].id.b[15] ^= 1;
		puts[i] = (struct queue_put){.messages = &m[i], .count = 1};
		assert_int_equal(driver->put(b->state[0], &puts[i], NULL), QUEUE_AT_COMMIT);
	}
	commit(b, 0);
	unsigned seen = 0;
	for (uint64_t after = 0;;) {
		struct queue_list list = {.filter = {.state = -1},
			.after_key = after,
			.progress = after,
			.max = 1,
			.arena = &b->arena};
		assert_int_equal(driver->list(b->state[0], &list, NULL), 0);
		if (!list.count)
			break;
		assert_int_equal(list.count, 2);
		seen += list.count;
		after = uuid_order_key(&list.entries[1].id);
	}
	assert_int_equal(seen, ARRAY_LEN(m));
	for (unsigned i = 0; i < ARRAY_LEN(m); i++) {
		assert_int_equal(puts[i].op.result, QUEUE_STORED);
		free((void *)(uintptr_t)m[i].envelope.p);
	}
}

/* --- breakage --- */

static void test_broken_connections_are_mended(void **state)
{
	struct bed *b = bed_of(state);
	for (unsigned i = 0; i < 5; i++) {
		assert_true(REDIS_SERVER_DO("CLIENT", "KILL", "TYPE", "normal"));
		put(b, 0);
		assert_true(REDIS_SERVER_DO("SCRIPT", "FLUSH"));
		put(b, 0);
	}
	clock_fake_advance_ms(&b->clock, 1000);
	assert_int_equal(stats_of(b, 1).queued, 10);
}

/* It may get nothing, but then the next one gets all, without an attempt counted. */
static void test_a_lease_over_a_broken_connection(void **state)
{
	struct bed *b = bed_of(state);
	put(b, 0);
	assert_true(REDIS_SERVER_DO("CLIENT", "KILL", "TYPE", "normal"));
	struct queue_lease got = lease(b, 0);
	if (!got.count)
		got = lease(b, 0);
	assert_int_equal(got.count, 1);
	assert_int_equal(got.messages[0].attempt_count, 0);
}

/* Else what others have put where it does not look would lie there for good. */
static void test_the_queue_remembers_its_partitions(void **state)
{
	struct bed *b = bed_of(state);
	void *other;
	struct err e = ERR_INIT;
	put(b, 0);
	open_in_partitions(b, 1, &other);
	assert_int_equal(driver->begin(other, &e), -1);
	assert_non_null(strstr(e.text, "redis_partitions is 1 here, but the queue has 2"));
	driver->close(other);

	assert_true(REDIS_SERVER_DO("FLUSHALL"));
	open_in_partitions(b, 1, &other);
	assert_int_equal(driver->begin(other, &e), 0);
	driver->abort(other);
	driver->close(other);
}

static void test_damaged_messages_are_buried(void **state)
{
	struct bed *b = bed_of(state);
	struct uuid id = put(b, 0);
	char key[16];
	for (unsigned part = 0; part < 2; part++) {
		struct buf command;
		snprintf(key, sizeof(key), "test:{%u}:msgs", part);
		buf_init(&command, 1024);
		redis_command(&command, 4);
		redis_word(&command, STR("HSET"));
		redis_word(&command, str_of(key));
		redis_word(&command, str_mem(id.b, sizeof(id.b)));
		redis_word(&command, STR("no record"));
		assert_true(redis_server_run(&command));
		buf_clear(&command);
	}
	assert_int_equal(lease(b, 0).count, 0);
	clock_fake_advance_ms(&b->clock, 1000);
	assert_int_equal(stats_of(b, 0).failed, 1);
	struct queue_purge purge = {.ids = &id, .id_count = 1, .max = 1};
	begin(b, 0);
	assert_int_equal(driver->purge(b->state[0], &purge, NULL), 0);
	commit(b, 0);
	assert_int_equal(purge.matched, 1);
}

/* --- urls, answers --- */

static void test_urls(void **state)
{
	static const struct {
		const char *url, *host, *port, *path, *database;
		bool tls;
	} good[] = {
		{"redis://a", "a", "6379", "", "0", false},
		{"redis://a:1/7", "a", "1", "", "7", false},
		{"rediss://[::1]:2/", "::1", "2", "", "0", true},
		{"redis:///3", "localhost", "6379", "", "3", false},
		{"unix:///run/r.sock", "", "", "/run/r.sock", "0", false},
		{"unix:///r?db=12", "", "", "/r", "12", false},
	};
	static const char *const bad[] = {"", "a:1", "http://a", "redis://a:b", "redis://a:65536",
		"redis://u:p@a", "redis://a/x", "redis://[::1", "redis://[::1]x", "unix://r", "unix:///r?x=1",
		"unix:///r?db=x"};
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		struct redis_url u;
		assert_int_equal(redis_url_parse(str_of(good[i].url), &u, NULL), 0);
		assert_string_equal(u.address.host, good[i].host);
		assert_string_equal(u.address.port, good[i].port);
		assert_string_equal(u.unix_path, good[i].path);
		assert_string_equal(u.database, good[i].database);
		assert_int_equal(u.tls, good[i].tls);
	}
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct redis_url u;
		struct err e = ERR_INIT;
		assert_int_equal(redis_url_parse(str_of(bad[i]), &u, &e), -1);
		assert_int_equal(e.kind, ERR_REJECT);
	}
}

static void test_answers(void **state)
{
	static const struct {
		const char *answer, *says;
		enum redis_remedy remedy;
	} cases[] = {
		{"NOSCRIPT No matching script. Please use EVAL.", "scripts", REDIS_RELOAD},
		{"OOM command not allowed when used memory > 'maxmemory'.", "maxmemory", REDIS_KEEP},
		{"MISCONF Redis is configured to save RDB snapshots", "disk", REDIS_KEEP},
		{"READONLY You can't write against a read only replica.", "replica", REDIS_REOPEN},
		{"LOADING Redis is loading the dataset in memory", "reading", REDIS_REOPEN},
		{"NOAUTH Authentication required.", "redis_password", REDIS_REOPEN},
		{"WRONGPASS invalid username-password pair", "redis_user", REDIS_REOPEN},
		{"NOPERM this user has no permissions", "ACL", REDIS_REOPEN},
		{"ERR The user executing the script can't run this command or subcommand", "ACL",
			REDIS_REOPEN},
		{"CLUSTERDOWN Hash slot not served", "cluster", REDIS_REOPEN},
		{"ERR something else", "something else", REDIS_KEEP},
	};
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct err e = ERR_INIT;
		assert_int_equal(redis_answer(str_of(cases[i].answer), &e), cases[i].remedy);
		assert_int_equal(e.kind, ERR_RETRY);
		assert_non_null(strstr(e.text, cases[i].says));
	}
}

#define ON_SERVER(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		ON_SERVER(test_what_one_puts_another_leases_once),
		ON_SERVER(test_a_dead_process_loses_its_leases),
		ON_SERVER(test_a_process_that_ends_gives_back),
		ON_SERVER(test_pauses_are_everybody_s),
		ON_SERVER(test_ids_with_one_order_key),
		ON_SERVER(test_broken_connections_are_mended),
		ON_SERVER(test_a_lease_over_a_broken_connection),
		ON_SERVER(test_the_queue_remembers_its_partitions),
		ON_SERVER(test_damaged_messages_are_buried),
		cmocka_unit_test(test_urls),
		cmocka_unit_test(test_answers),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
