/* client_test.c - the client of the main server against a real TLS server: whom it trusts, what it makes of
 * answers, how it is stopped. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <string.h>

#include "base/auto.h"
#include "role/fake_main_server.h"

enum { TIMEOUT_MS = 60000, HOUR_MS = 3600 * 1000 };

static const char path[] = "/internal/sealing-keys";
static const struct str no_body = {"", 0};

static void open_both(enum fake_certificate which, struct fake_main_server **ret_server, struct client **ret)
{
	struct err e = ERR_INIT;
	if (fake_open(which, ret_server, &e) < 0)
		fail_msg("%s", e.text);
	struct client_options o = fake_client_options(*ret_server);
	struct wall not_after;
	if (client_check_files(&o, &not_after, &e) < 0 || client_new(&o, ret, &e) < 0)
		fail_msg("%s", e.text);
}

static void refuses_a_server_that_is_not_the_main_server(void **state)
{
	static const struct {
		enum fake_certificate which;
		const char *why;
	} cases[] = {
		{FAKE_WRONG_ROLE, "certificate is refused: role (it is not a main server's)"},
		{FAKE_WRONG_NAME, "subject name matches target host name 'localhost'"},
		{FAKE_EXPIRED, "certificate is refused: expired"},
		{FAKE_OTHER_CA, "certificate is refused: unknown_ca"},
	};
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct fake_main_server *server;
		struct client *client;
		json_t *answer;
		struct err e = ERR_INIT;
		open_both(cases[i].which, &server, &client);
		fake_push(server, FAKE_SEALING_KEYS, 200, NULL, "{}");
		assert_true(client_call(client, "GET", path, no_body, TIMEOUT_MS, &answer, &e) < 0);
		assert_int_equal(e.kind, ERR_RETRY);
		if (!strstr(e.text, cases[i].why))
			fail_msg("'%s' is not in: %s", cases[i].why, e.text);
		assert_false(strstr(e.text, "https://localhost") == NULL);
		client_free(client);
		fake_close(server);
	}
}

static void an_answer_becomes_an_error_of_its_kind(void **state)
{
	static const struct {
		int status;
		const char *retry_after;
		enum err_kind kind;
		int64_t retry_after_ms;
	} cases[] = {
		{302, NULL, ERR_RETRY, 0},
		{400, NULL, ERR_REJECT, 0},
		{401, NULL, ERR_FORBIDDEN, 0},
		{403, NULL, ERR_FORBIDDEN, 0},
		{404, NULL, ERR_NOT_FOUND, 0},
		{413, "5", ERR_REJECT, 0},
		{429, "7", ERR_RETRY, 7000},
		{500, NULL, ERR_RETRY, 0},
		{503, "120", ERR_RETRY, 120000},
		{503, "nonsense", ERR_RETRY, 0},
	};
	struct fake_main_server *server;
	struct client *client;
	(void)state;
	open_both(FAKE_GOOD, &server, &client);
	unsigned before = fake_connections(server);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		json_t *answer;
		struct err e = ERR_INIT;
		fake_push(server, FAKE_SEALING_KEYS, cases[i].status, cases[i].retry_after,
			"{\"detail\":\"in other words\"}");
		assert_true(client_call(client, "GET", path, no_body, TIMEOUT_MS, &answer, &e) < 0);
		assert_int_equal(e.kind, cases[i].kind);
		assert_int_equal(e.retry_after_ms, cases[i].retry_after_ms);
		assert_non_null(strstr(e.text, "in other words"));
	}
	assert_int_equal(fake_connections(server), before + 1);
	client_free(client);
	fake_close(server);
}

/* As an outage, not as the fault of what was sent. */
static void an_answer_that_makes_no_sense_is_no_refusal(void **state)
{
	struct fake_main_server *server;
	struct client *client;
	json_t *answer;
	struct err e = ERR_INIT;
	(void)state;
	open_both(FAKE_GOOD, &server, &client);
	fake_push(server, FAKE_SEALING_KEYS, 200, NULL, "<html>");
	assert_true(client_call(client, "GET", path, no_body, TIMEOUT_MS, &answer, &e) < 0);
	assert_int_equal(e.kind, ERR_RETRY);
	assert_non_null(strstr(e.text, "makes no sense"));
	client_free(client);
	fake_close(server);
}

static void call_ok(struct fake_main_server *server, struct client *client)
{
	AUTO(json_auto) json_t *answer = NULL;
	struct err e = ERR_INIT;
	fake_push(server, FAKE_SEALING_KEYS, 200, NULL, "{\"a\":1}");
	if (client_call(client, "GET", path, no_body, TIMEOUT_MS, &answer, &e) < 0)
		fail_msg("%s", e.text);
	assert_int_equal(json_integer_value(json_object_get(answer, "a")), 1);
}

static void a_reload_makes_one_new_connection(void **state)
{
	struct fake_main_server *server;
	struct client *client;
	(void)state;
	open_both(FAKE_GOOD, &server, &client);
	unsigned before = fake_connections(server);
	call_ok(server, client);
	call_ok(server, client);
	assert_int_equal(fake_connections(server), before + 1);
	client_reload(client);
	call_ok(server, client);
	call_ok(server, client);
	call_ok(server, client);
	assert_int_equal(fake_connections(server), before + 2);
	client_free(client);
	fake_close(server);
}

static void *cancel_when_it_waits(void *arg)
{
	void **both = arg;
	bool came = fake_wait(both[0], FAKE_SEALING_KEYS, 1, NULL, NULL, 0);
	client_cancel(both[1]);
	return came ? both : NULL;
}

static void a_cancelled_call_ends_at_once(void **state)
{
	struct fake_main_server *server;
	struct client *client;
	pthread_t thread;
	void *came;
	json_t *answer;
	struct err e = ERR_INIT;
	(void)state;
	open_both(FAKE_GOOD, &server, &client);
	void *both[] = {server, client};
	assert_int_equal(pthread_create(&thread, NULL, cancel_when_it_waits, both), 0);
	assert_true(client_call(client, "GET", path, no_body, HOUR_MS, &answer, &e) < 0);
	assert_non_null(strstr(e.text, "cancelled"));
	assert_false(e.unanswered);
	assert_int_equal(pthread_join(thread, &came), 0);
	assert_non_null(came);
	assert_true(client_call(client, "GET", path, no_body, TIMEOUT_MS, &answer, &e) < 0);
	client_free(client);
	fake_close(server);
}

static void a_call_has_an_end(void **state)
{
	struct fake_main_server *server;
	struct client *client;
	json_t *answer;
	struct err e = ERR_INIT;
	(void)state;
	open_both(FAKE_GOOD, &server, &client);
	assert_true(client_call(client, "GET", path, no_body, 50, &answer, &e) < 0);
	assert_int_equal(e.kind, ERR_RETRY);
	assert_false(e.unanswered);
	client_free(client);
	fake_close(server);
}

static void files_that_do_not_fit_are_told_before(void **state)
{
	struct fake_main_server *server;
	struct client *client;
	struct wall not_after = {0};
	struct err e = ERR_INIT;
	(void)state;
	open_both(FAKE_GOOD, &server, &client);
	struct client_options o = fake_client_options(server);
	assert_int_equal(client_check_files(&o, &not_after, &e), 0);
	assert_true(not_after.ms > clock_wall(&clock_system).ms);
	o.cert_file = o.ca_file;
	assert_true(client_check_files(&o, &not_after, &e) < 0);
	assert_non_null(strstr(e.text, "is not the key of"));
	o.cert_file = "/nonexistent.pem";
	assert_true(client_check_files(&o, &not_after, &e) < 0);
	assert_non_null(strstr(e.text, "/nonexistent.pem"));
	client_free(client);
	fake_close(server);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(refuses_a_server_that_is_not_the_main_server),
		cmocka_unit_test(an_answer_becomes_an_error_of_its_kind),
		cmocka_unit_test(an_answer_that_makes_no_sense_is_no_refusal),
		cmocka_unit_test(a_reload_makes_one_new_connection),
		cmocka_unit_test(a_cancelled_call_ends_at_once),
		cmocka_unit_test(a_call_has_an_end),
		cmocka_unit_test(files_that_do_not_fit_are_told_before),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
