/* metrics_test.c - the table is one for the process: each test uses rows that the others leave alone. */
#include "base/metrics.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/auto.h"

/* All that is written, NUL-terminated. */
static char *output(void)
{
	struct buf b;
	buf_init(&b, 1 << 20);
	metrics_write(&b);
	buf_add_char(&b, 0);
	assert_int_equal(buf_check(&b, NULL), 0);
	return b.p;
}

static void expect_lines(const char *lines)
{
	AUTO(free_auto) char *text = output();
	if (!strstr(text, lines))
		fail_msg("missing:\n%s\nin:\n%s", lines, text);
}

static unsigned occurrences(const char *text, const char *what)
{
	unsigned n = 0;
	for (const char *p = text; (p = strstr(p, what)); p += strlen(what))
		n++;
	return n;
}

static void rows_without_labels_start_at_zero(void **state)
{
	expect_lines("# HELP sealpost_leases_lost_total Messages in delivery whose lease was found "
		     "to have passed to somebody else\n"
		     "# TYPE sealpost_leases_lost_total counter\n"
		     "sealpost_leases_lost_total 0\n");
	expect_lines("\nsealpost_disk_free_bytes 0\n");
	expect_lines("\nsealpost_delivery_batch_messages_bucket{le=\"+Inf\"} 0\n"
		     "sealpost_delivery_batch_messages_sum 0\n"
		     "sealpost_delivery_batch_messages_count 0\n");
}

static void rows_without_series_are_left_out(void **state)
{
	AUTO(free_auto) char *text = output();
	assert_null(strstr(text, "sealpost_messages_rejected_total"));
}

static void counts(void **state)
{
	static const char *const labels[] = {"ingest", "ok", NULL};
	series_t s = metric_series(METRIC_TLS_HANDSHAKES, labels);
	assert_int_equal(metric_series(METRIC_TLS_HANDSHAKES, labels), s);
	assert_int_not_equal(
		metric_series(METRIC_TLS_HANDSHAKES, (const char *const[]){"server", "ok", NULL}), s);
	series_add(s, 40);
	series_add(s, 2);
	assert_int_equal(series_value(s), 42);
	metric_add(METRIC_ACCEPTED, 1ull << 60);
	expect_lines("\nsealpost_tls_handshakes_total{listener=\"ingest\",outcome=\"ok\"} 42\n"
		     "sealpost_tls_handshakes_total{listener=\"server\",outcome=\"ok\"} 0\n");
	expect_lines("\nsealpost_messages_accepted_total 1152921504606846976\n");
}

static void sets(void **state)
{
	metric_set(METRIC_QUEUE_OLDEST, 0.1);
	metric_set(METRIC_QUEUE_WAITING, -3);
	metric_set(METRIC_START_TIME, 1795339800.123);
	expect_lines("\nsealpost_queue_oldest_age_seconds 0.1\n");
	expect_lines("\nsealpost_queue_operations_waiting -3\n");
	expect_lines("\nsealpost_start_time_seconds 1795339800.123\n");
	metric_set(METRIC_QUEUE_OLDEST, 0);
	expect_lines("\nsealpost_queue_oldest_age_seconds 0\n");
}

static void observes_counts(void **state)
{
	static const uint64_t values[] = {0, 1, 2, 3, 4, 5, 4096, 4097, 1000000};
	for (size_t i = 0; i < ARRAY_LEN(values); i++)
		metric_observe(METRIC_GROUP_SIZE, values[i]);
	expect_lines("# TYPE sealpost_queue_group_operations histogram\n"
		     "sealpost_queue_group_operations_bucket{le=\"1\"} 2\n"
		     "sealpost_queue_group_operations_bucket{le=\"2\"} 3\n"
		     "sealpost_queue_group_operations_bucket{le=\"4\"} 5\n"
		     "sealpost_queue_group_operations_bucket{le=\"8\"} 6\n");
	expect_lines("sealpost_queue_group_operations_bucket{le=\"2048\"} 6\n"
		     "sealpost_queue_group_operations_bucket{le=\"4096\"} 7\n"
		     "sealpost_queue_group_operations_bucket{le=\"+Inf\"} 9\n"
		     "sealpost_queue_group_operations_sum 1008208\n"
		     "sealpost_queue_group_operations_count 9\n");
	assert_int_equal(series_value(metric_series(METRIC_GROUP_SIZE, (const char *const[]){NULL})), 9);
}

static void observes_seconds(void **state)
{
	series_t s = metric_series(METRIC_HTTP_SECONDS, (const char *const[]){"ingest", "/livez", NULL});
	static const uint64_t values_ns[] = {100000, 100001, 2500000, 60000000000, 60000000001};
	for (size_t i = 0; i < ARRAY_LEN(values_ns); i++)
		series_observe(s, values_ns[i]);
#define NAME   "sealpost_http_request_duration_seconds"
#define LABELS "listener=\"ingest\",route=\"/livez\""
	expect_lines(
		NAME "_bucket{" LABELS ",le=\"0.0001\"} 1\n" NAME "_bucket{" LABELS ",le=\"0.00025\"} 2\n");
	expect_lines(NAME "_bucket{" LABELS ",le=\"0.0025\"} 3\n");
	expect_lines(NAME "_bucket{" LABELS ",le=\"60\"} 4\n" NAME "_bucket{" LABELS ",le=\"+Inf\"} 5\n" NAME
			  "_sum{" LABELS "} 120.002700002\n" NAME "_count{" LABELS "} 5\n");
#undef NAME
#undef LABELS
}

static void escapes_label_values(void **state)
{
	metric_series1(METRIC_CERT_EXPIRY, "a\"b\\c\nd\xc3\xa9");
	expect_lines("{certificate=\"a\\\"b\\\\c\\nd\xc3\xa9\"} 0\n");
}

static void series_are_bounded(void **state)
{
	char value[16];
	series_t first = metric_series1(METRIC_DELIVERIES, "0"), last = first;
	for (int i = 0; i < 400; i++) {
		snprintf(value, sizeof(value), "%d", i);
		last = metric_series1(METRIC_DELIVERIES, value);
		series_add(last, 1);
	}
	assert_int_equal(series_value(last), 400 - 256);
	assert_int_equal(series_value(first), 1);
	assert_int_equal(metric_series1(METRIC_DELIVERIES, "0"), first);
	AUTO(free_auto) char *text = output();
	assert_int_equal(occurrences(text, "\nsealpost_deliveries_total{"), 257);
	expect_lines("\nsealpost_deliveries_total{result=\"255\"} 1\n"
		     "sealpost_deliveries_total{result=\"other\"} 144\n");
}

static void overlong_labels_are_other(void **state)
{
	char value[2000];
	memset(value, 'x', sizeof(value) - 1);
	value[sizeof(value) - 1] = 0;
	series_add(metric_series1(METRIC_CERTS_ISSUED, value), 5);
	expect_lines("# TYPE sealpost_certificates_issued_total counter\n"
		     "sealpost_certificates_issued_total{role=\"other\"} 5\n");
}

enum { THREADS = 20, ROUNDS = 2000 };

static void *update(void *arg)
{
	const char *result = (uintptr_t)arg % 2 ? "stored" : "duplicate";
	for (int i = 0; i < ROUNDS; i++) {
		series_t s = metric_series1(METRIC_STORED, result);
		series_add(s, 1);
		metric_observe(METRIC_STORE_GROUP_SIZE, 3);
		metric_set(METRIC_DISK_FREE, 7);
	}
	return NULL;
}

/* More threads than shards, while the output is written. */
static void threads_lose_no_update(void **state)
{
	pthread_t threads[THREADS];
	for (uintptr_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, update, (void *)i), 0);
	free(output());
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(series_value(metric_series1(METRIC_STORED, "stored")), THREADS / 2 * ROUNDS);
	assert_int_equal(series_value(metric_series1(METRIC_STORED, "duplicate")), THREADS / 2 * ROUNDS);
	expect_lines("sealpost_store_group_operations_sum 120000\n"
		     "sealpost_store_group_operations_count 40000\n");
}

static void collect_state(void *arg)
{
	series_set(metric_series1(METRIC_QUEUE_MESSAGES, "queued"), ++*(int *)arg);
}

static void collectors_run_before_the_read(void **state)
{
	int runs = 0;
	metrics_on_collect(collect_state, &runs);
	expect_lines("\nsealpost_queue_messages{state=\"queued\"} 1\n");
	expect_lines("\nsealpost_queue_messages{state=\"queued\"} 2\n");
	metrics_off_collect(collect_state, &runs);
	metrics_off_collect(collect_state, &runs);
	expect_lines("\nsealpost_queue_messages{state=\"queued\"} 2\n");
	assert_int_equal(runs, 2);
}

static void reference_has_every_row(void **state)
{
	struct buf b;
	buf_init(&b, 1 << 20);
	metrics_reference(&b);
	buf_add_char(&b, 0);
	assert_int_equal(occurrences(b.p, "\n| `"), METRIC_COUNT);
	assert_non_null(strstr(b.p, "\n| `sealpost_tls_handshakes_total` | counter | `listener`, `outcome` | "
				    "TLS handshakes by outcome |\n"));
	assert_non_null(strstr(b.p, "\n| `sealpost_leases_lost_total` | counter |  | Messages"));
	buf_clear(&b);
}

/* Runs `promtool check metrics` on the text; its status, and what it said. 127: not installed. */
static int run_promtool(const char *text, char *ret_said, size_t size)
{
	AUTO(file_auto) FILE *in = tmpfile(), *out = tmpfile();
	assert_true(in && out && fputs(text, in) >= 0 && fflush(in) == 0 && fseek(in, 0, SEEK_SET) == 0);
	pid_t child = fork();
	if (child == 0) {
		dup2(fileno(in), STDIN_FILENO);
		dup2(fileno(out), STDOUT_FILENO);
		dup2(fileno(out), STDERR_FILENO);
		execlp("promtool", "promtool", "check", "metrics", NULL);
		_exit(127);
	}
	int status;
	assert_int_equal(waitpid(child, &status, 0), child);
	ssize_t n = pread(fileno(out), ret_said, size - 1, 0);
	ret_said[n > 0 ? n : 0] = 0;
	return WEXITSTATUS(status);
}

/* Prometheus' own opinion on the whole output; last, so that it sees what the other tests left. */
static void promtool_accepts(void **state)
{
	AUTO(free_auto) char *text = output();
	char said[2048];
	int status = run_promtool(text, said, sizeof(said));
	if (status == 127)
		skip();
	if (status)
		fail_msg("promtool check metrics (status %d):\n%s", status, said);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rows_without_labels_start_at_zero),
		cmocka_unit_test(rows_without_series_are_left_out),
		cmocka_unit_test(counts),
		cmocka_unit_test(sets),
		cmocka_unit_test(observes_counts),
		cmocka_unit_test(observes_seconds),
		cmocka_unit_test(escapes_label_values),
		cmocka_unit_test(series_are_bounded),
		cmocka_unit_test(overlong_labels_are_other),
		cmocka_unit_test(threads_lose_no_update),
		cmocka_unit_test(collectors_run_before_the_read),
		cmocka_unit_test(reference_has_every_row),
		cmocka_unit_test(promtool_accepts),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
