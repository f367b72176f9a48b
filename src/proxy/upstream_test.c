/* upstream_test.c - registering is batched, bounded and waits for nobody; uses of certificates are told until they are
 * heard; questions get their answer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sched.h>
#include <semaphore.h>
#include <string.h>

#include "base/auto.h"
#include "base/metrics.h"
#include "proxy/upstream.h"
#include "role/fake_main_server.h"

static struct fake_main_server *server;
static struct upstream *upstream;
static struct registry *registry;
static struct uuid_source ids;
static struct buf envelope;

static int setup(void **state)
{
	struct err e = ERR_INIT;
	(void)state;
	if (fake_open(FAKE_GOOD, &server, &e) < 0)
		fail_msg("%s", e.text);
	struct client_options o = fake_client_options(server);
	assert_int_equal(registry_new(&registry, &e), 0);
	assert_int_equal(upstream_new(&o, registry, &upstream, &e), 0);
	uuid_source_init(&ids, &clock_system, 0);
	buf_init(&envelope, SEALED_MAX_BYTES);
	envelope_encode(&(struct envelope){.ciphertext = STR("sixteen bytes and more")}, &envelope);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	upstream_free(upstream);
	registry_free(registry);
	fake_close(server);
	buf_clear(&envelope);
	return 0;
}

static struct sealed next_sealed(void)
{
	struct sealed s = {.accepted_at = clock_wall(&clock_system),
		.client_id = STR("client"),
		.domain = STR("example.com"),
		.traceparent = STR(""),
		.envelope = buf_str(&envelope)};
	struct err e = ERR_INIT;
	assert_int_equal(uuid_next(&ids, &s.id, &e), 0);
	return s;
}

static uint64_t counted(const char *result)
{
	return series_value(metric_series1(METRIC_REGISTERED, result));
}

static unsigned messages_in(const char *body)
{
	unsigned count = 0;
	for (const char *p = body; (p = strstr(p, "\"message_id\"")); p++)
		count++;
	return count;
}

/* While the first request is under way, what comes is collected, and sent as one. */
static void registers_in_batches(void **state)
{
	static char body[64 * 1024];
	struct sealed s = next_sealed();
	uint64_t sent = counted("sent");
	(void)state;
	upstream_register(upstream, &s, 1);
	assert_true(fake_wait(server, FAKE_REGISTER, 1, NULL, body, sizeof(body)));
	assert_int_equal(messages_in(body), 1);
	for (int i = 0; i < 50; i++) {
		s = next_sealed();
		upstream_register(upstream, &s, 1);
	}
	fake_push(server, FAKE_REGISTER, 200, NULL, "{\"registered\":1,\"skipped\":0}");
	assert_true(fake_wait(server, FAKE_REGISTER, 2, NULL, body, sizeof(body)));
	assert_int_equal(messages_in(body), 50);
	fake_push(server, FAKE_REGISTER, 200, NULL, "{\"registered\":50,\"skipped\":0}");
	s = next_sealed();
	upstream_register(upstream, &s, 1);
	assert_true(fake_wait(server, FAKE_REGISTER, 3, NULL, NULL, 0));
	assert_int_equal(counted("sent"), sent + 51);
}

/* With the main server deaf the buffer fills up, and more is dropped: nobody waits. */
static void is_bounded_when_nobody_listens(void **state)
{
	static struct sealed many[500];
	uint64_t dropped = counted("dropped");
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(many); i++)
		many[i] = next_sealed();
	for (int i = 0; counted("dropped") == dropped && i < 2000; i++)
		upstream_register(upstream, many, ARRAY_LEN(many));
	assert_true(counted("dropped") > dropped);
}

static void what_fails_is_counted_and_forgotten(void **state)
{
	struct sealed s = next_sealed();
	uint64_t failed = counted("failed");
	(void)state;
	fake_push(server, FAKE_REGISTER, 503, NULL, "{}");
	upstream_register(upstream, &s, 1);
	assert_true(fake_wait(server, FAKE_REGISTER, 1, NULL, NULL, 0));
	s = next_sealed();
	upstream_register(upstream, &s, 1);
	assert_true(fake_wait(server, FAKE_REGISTER, 2, NULL, NULL, 0));
	assert_int_equal(counted("failed"), failed + 1);
}

/* A certificate that the registry knows, and whose bearer comes. */
static void use_certificate(void)
{
	const struct registry_row row = {.serial = {0xab},
		.serial_bytes = 1,
		.status = REGISTRY_ACTIVE,
		.role = ROLE_CLIENT,
		.name = STR("client"),
		.domain = STR("example.com"),
		.not_after = {INT64_MAX},
		.change = 1};
	const struct identity id = {.serial = {0xab}, .serial_bytes = 1};
	struct err e = ERR_INIT;
	assert_int_equal(registry_apply(registry, &row, 1, &e), 0);
	registry_note_seen(registry, &id, (struct wall){1000});
}

static void uses_of_certificates_are_told(void **state)
{
	char body[512];
	(void)state;
	use_certificate();
	assert_true(fake_wait(server, FAKE_SEEN, 1, NULL, body, sizeof(body)));
	assert_non_null(strstr(body, "\"serial\":\"ab\""));
	assert_non_null(strstr(body, "1970-01-01T00:00:01.000Z"));
	assert_false(registry_any_seen(registry));
}

static void what_could_not_be_told_is_noted_again(void **state)
{
	struct registry_seen seen;
	(void)state;
	fake_push(server, FAKE_SEEN, 503, NULL, "{}");
	use_certificate();
	assert_true(fake_wait(server, FAKE_SEEN, 1, NULL, NULL, 0));
	while (!registry_any_seen(registry))
		sched_yield();
	assert_int_equal(registry_take_seen(registry, &seen, 1), 1);
	assert_int_equal(seen.at.ms, 1000);
}

static sem_t answered;

static void done(struct lookup *l)
{
	(void)l;
	sem_post(&answered);
}

static struct lookup ask(const char *body, int status)
{
	struct loop *loop;
	struct err e = ERR_INIT;
	struct lookup l = {.done = done, .client_id = "client"};
	assert_int_equal(loop_start("test", &loop, &e), 0);
	assert_int_equal(sem_init(&answered, 0, 0), 0);
	l.loop = loop;
	assert_int_equal(uuid_next(&ids, &l.id, &e), 0);
	fake_push(server, FAKE_MESSAGE, status, NULL, body);
	upstream_lookup(upstream, &l);
	sem_wait(&answered);
	loop_stop(loop);
	sem_destroy(&answered);
	return l;
}

static void a_question_is_answered(void **state)
{
	(void)state;
	struct lookup l = ask("{\"client_id\":\"client\",\"domain\":\"example.com\",\"status\":\"failed\","
			      "\"queued_at\":\"2026-01-01T00:00:00.000Z\",\"attempt_count\":3,"
			      "\"error_message\":\"rejected\"}",
		200);
	assert_int_equal(l.result, 0);
	assert_int_equal(l.state, MESSAGE_FAILED);
	assert_int_equal(l.attempt_count, 3);
	assert_string_equal(l.error_text, "rejected");
}

static void anothers_message_is_not_there(void **state)
{
	(void)state;
	struct lookup l = ask("{\"client_id\":\"other\",\"domain\":\"example.com\",\"status\":\"failed\","
			      "\"queued_at\":\"2026-01-01T00:00:00.000Z\",\"attempt_count\":3}",
		200);
	assert_int_equal(l.err.kind, ERR_NOT_FOUND);
	l = ask("{}", 404);
	assert_int_equal(l.err.kind, ERR_NOT_FOUND);
	l = ask("{}", 503);
	assert_int_equal(l.err.kind, ERR_RETRY);
	l = ask("{\"client_id\":\"client\",\"status\":\"lost\",\"queued_at\":\"2026-01-01T00:00:00.000Z\"}",
		200);
	assert_int_equal(l.err.kind, ERR_RETRY);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(registers_in_batches, setup, teardown),
		cmocka_unit_test_setup_teardown(is_bounded_when_nobody_listens, setup, teardown),
		cmocka_unit_test_setup_teardown(what_fails_is_counted_and_forgotten, setup, teardown),
		cmocka_unit_test_setup_teardown(uses_of_certificates_are_told, setup, teardown),
		cmocka_unit_test_setup_teardown(what_could_not_be_told_is_noted_again, setup, teardown),
		cmocka_unit_test_setup_teardown(a_question_is_answered, setup, teardown),
		cmocka_unit_test_setup_teardown(anothers_message_is_not_there, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
