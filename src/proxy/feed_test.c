/* feed_test.c - a proxy that follows a main server: what it asks, what it keeps, what it works with while the
 * main server is away or has gone back to a backup. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/metrics.h"
#include "proxy/feed.h"
#include "role/fake_main_server.h"

#define KEY_ID "0102030405060708"
#define KEY    "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
#define EPOCH  "0123456789abcdef0123456789abcdef"
#define OTHER  "fedcba9876543210fedcba9876543210"

struct fixture {
	struct fake_main_server *server;
	struct registry *registry;
	struct health *health;
	struct feed *feed;
	char dir[80];
	atomic_uint keys; /* how often a key was set */
};

static void count_key(void *arg, const struct sealing_public *key)
{
	struct fixture *f = arg;
	(void)key;
	atomic_fetch_add(&f->keys, 1);
}

static void push_key(struct fixture *f)
{
	fake_push(f->server, FAKE_SEALING_KEYS, 200, NULL,
		"{\"active\":{\"key_id\":\"" KEY_ID "\",\"public_key\":\"" KEY "\"},\"keys\":[]}");
}

static void push_page(struct fixture *f, const char *epoch, unsigned serial, const char *status, int change)
{
	char body[512];
	snprintf(body, sizeof(body),
		"{\"certificates\":[{\"serial\":\"%02x\",\"issuer_key_id\":"
		"\"0000000000000000000000000000000000000000\",\"status\":\"%s\",\"role\":\"client\","
		"\"name\":\"client_1\",\"domain\":\"example.com\",\"not_after\":\"2100-01-01T00:00:00.000Z\","
		"\"change\":%d}],\"epoch\":\"%s\",\"change\":%d,\"more\":false}",
		serial, status, change, epoch, change);
	fake_push(f->server, FAKE_REVOCATIONS, 200, NULL, body);
}

static enum registry_status status_of(struct fixture *f, uint8_t serial)
{
	struct identity id = {.serial = {serial},
		.serial_bytes = 1,
		.role = ROLE_CLIENT,
		.name = "client_1",
		.domain = "example.com"};
	return registry_check(f->registry, &id);
}

static void open_feed(struct fixture *f)
{
	struct err e = ERR_INIT;
	struct feed_options o = {.client = fake_client_options(f->server), .dir = f->dir};
	assert_int_equal(registry_new(&f->registry, &e), 0);
	assert_int_equal(health_new(&clock_system, &f->health, &e), 0);
	o.registry = f->registry;
	o.health = f->health;
	if (feed_open(&o, &f->feed, &e) < 0)
		fail_msg("%s", e.text);
}

static void follow(struct fixture *f)
{
	struct err e = ERR_INIT;
	assert_int_equal(feed_follow(f->feed, count_key, f, &e), 0);
}

static void close_feed(struct fixture *f)
{
	feed_close(f->feed);
	registry_free(f->registry);
	health_free(f->health);
}

static void open_fixture(struct fixture *f)
{
	struct err e = ERR_INIT;
	*f = (struct fixture){.feed = NULL};
	if (fake_open(FAKE_GOOD, &f->server, &e) < 0)
		fail_msg("%s", e.text);
	snprintf(f->dir, sizeof(f->dir), "%s/cache", fake_dir(f->server));
	open_feed(f);
}

static void close_fixture(struct fixture *f)
{
	char path[128];
	close_feed(f);
	snprintf(path, sizeof(path), "%s/registry.log", f->dir);
	unlink(path);
	snprintf(path, sizeof(path), "%s/sealing.json", f->dir);
	unlink(path);
	rmdir(f->dir);
	fake_close(f->server);
}

static void wait_poll(struct fixture *f, unsigned count, const char *expected_target)
{
	char target[256];
	assert_true(fake_wait(f->server, FAKE_REVOCATIONS, count, target, NULL, sizeof(target)));
	assert_string_equal(target, expected_target);
}

static void takes_changes_and_key_and_keeps_them(void **state)
{
	struct fixture f;
	(void)state;
	open_fixture(&f);
	push_key(&f);
	push_page(&f, EPOCH, 7, "active", 41);
	follow(&f);
	wait_poll(&f, 2, "/internal/revocations?after=41&epoch=" EPOCH);
	assert_int_equal(status_of(&f, 7), REGISTRY_ACTIVE);
	assert_int_equal(atomic_load(&f.keys), 1);
	push_page(&f, EPOCH, 7, "revoked", 42);
	wait_poll(&f, 3, "/internal/revocations?after=42&epoch=" EPOCH);
	assert_int_equal(status_of(&f, 7), REGISTRY_REVOKED);

	/* A restart with the main server away: nothing is answered. */
	close_feed(&f);
	open_feed(&f);
	assert_int_equal(status_of(&f, 7), REGISTRY_REVOKED);
	follow(&f);
	assert_int_equal(atomic_load(&f.keys), 2);
	close_fixture(&f);
}

static void a_restored_backup_is_followed_and_revokes_nothing_less(void **state)
{
	struct fixture f;
	(void)state;
	open_fixture(&f);
	push_key(&f);
	push_page(&f, EPOCH, 7, "revoked", 42);
	follow(&f);
	wait_poll(&f, 2, "/internal/revocations?after=42&epoch=" EPOCH);
	push_page(&f, OTHER, 7, "active", 12);
	wait_poll(&f, 3, "/internal/revocations?after=12&epoch=" OTHER);
	assert_int_equal(status_of(&f, 7), REGISTRY_REVOKED);
	push_page(&f, OTHER, 8, "active", 13);
	wait_poll(&f, 4, "/internal/revocations?after=13&epoch=" OTHER);
	assert_int_equal(status_of(&f, 8), REGISTRY_ACTIVE);
	close_fixture(&f);
}

static void health_says_how_old_the_list_is(void **state)
{
	struct fixture f;
	struct health_report why;
	(void)state;
	open_fixture(&f);
	assert_true(health_ready(f.health, &why)); /* it degrades only */
	AUTO(buf_auto) struct buf metrics;
	buf_init(&metrics, 1 << 20);
	metrics_write(&metrics);
	assert_non_null(memmem(metrics.p, metrics.n, "sealpost_feed_age_seconds -1", 28));
	push_key(&f);
	push_page(&f, EPOCH, 7, "active", 1);
	follow(&f);
	wait_poll(&f, 2, "/internal/revocations?after=1&epoch=" EPOCH);
	buf_reset(&metrics);
	metrics_write(&metrics);
	assert_null(memmem(metrics.p, metrics.n, "sealpost_feed_age_seconds -1", 28));
	close_fixture(&f);
}

static void an_answer_without_sense_changes_nothing(void **state)
{
	static const char *const bodies[] = {
		"{}",
		"{\"certificates\":[],\"epoch\":\"\",\"change\":1}",
		"{\"certificates\":[],\"epoch\":\"" EPOCH "0\",\"change\":1}",
		"{\"certificates\":[],\"epoch\":\"" EPOCH "\",\"change\":-1}",
		"{\"certificates\":[{\"serial\":\"07\"}],\"epoch\":\"" EPOCH "\",\"change\":1}",
		"[]",
		"nonsense",
	};
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bodies); i++) {
		struct fixture f;
		open_fixture(&f);
		push_key(&f);
		fake_push(f.server, FAKE_REVOCATIONS, 200, NULL, bodies[i]);
		follow(&f);
		wait_poll(&f, 2, "/internal/revocations?after=0");
		assert_int_equal(registry_count(f.registry), 0);
		close_fixture(&f);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(takes_changes_and_key_and_keeps_them),
		cmocka_unit_test(a_restored_backup_is_followed_and_revokes_nothing_less),
		cmocka_unit_test(health_says_how_old_the_list_is),
		cmocka_unit_test(an_answer_without_sense_changes_nothing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
