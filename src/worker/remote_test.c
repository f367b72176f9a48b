/* remote_test.c - what a remote destination sends, what it makes of answers, what it keeps of what it was made
 * from. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "base/auto.h"
#include "base/err.h"
#include "role/fake_main_server.h"
#include "worker/remote.h"

/* A reload frees the configuration; sessions are opened, and the destination is named in logs, long after. */
static void outlives_the_configuration(void **state)
{
	char url[] = "https://localhost:1", trust_domain[] = "example.test", name[] = "worker:1";
	const struct remote_options o = {
		.client = {.url = url,
			.cert_file = "/nonexistent.pem",
			.key_file = "/nonexistent.key",
			.ca_file = "/nonexistent.pem",
			.trust_domain = trust_domain,
			.clock = &clock_system,
			.connect_ms = 100},
		.name = name,
		.timeout_ms = 1000,
	};
	struct remote *r = NULL;
	struct err e = ERR_INIT;
	(void)state;
	assert_int_equal(remote_new(&o, &r, &e), 0);
	memset(url, 'x', sizeof(url) - 1);
	memset(trust_domain, 'x', sizeof(trust_domain) - 1);
	memset(name, 'x', sizeof(name) - 1);
	const struct destination *d = remote_destination(r);
	assert_string_equal(d->name, "https://localhost:1");

	void *session = NULL;
	assert_int_equal(d->open(d->arg, &session, &e), 0);
	assert_true(d->deliver(session, NULL, 0, &e) < 0);
	assert_int_equal(e.kind, ERR_RETRY);
	assert_ptr_equal(strstr(e.text, "https://localhost:1"), e.text);
	d->close(session);
	remote_free(r);
}

/* A session with a fake main server, and two messages. */
struct fixture {
	struct fake_main_server *server;
	struct remote *remote;
	const struct destination *destination;
	void *session;
	struct buf envelope;
	struct sealed sealed[2];
	struct delivery_item items[2];
	char ids[2][UUID_TEXT_BYTES];
};

static void open_fixture(struct fixture *f)
{
	struct uuid_source ids;
	struct err e = ERR_INIT;
	if (fake_open(FAKE_GOOD, &f->server, &e) < 0)
		fail_msg("%s", e.text);
	struct remote_options o = {
		.client = fake_client_options(f->server), .name = "worker:1", .timeout_ms = 60000};
	assert_int_equal(remote_new(&o, &f->remote, &e), 0);
	f->destination = remote_destination(f->remote);
	assert_int_equal(f->destination->open(f->destination->arg, &f->session, &e), 0);
	buf_init(&f->envelope, SEALED_MAX_BYTES);
	envelope_encode(&(struct envelope){.ciphertext = STR("sixteen bytes and more")}, &f->envelope);
	uuid_source_init(&ids, &clock_system, 0);
	for (int i = 0; i < 2; i++) {
		f->sealed[i] = (struct sealed){.accepted_at = clock_wall(&clock_system),
			.client_id = STR("client"),
			.domain = STR("example.com"),
			.traceparent = STR(""),
			.envelope = buf_str(&f->envelope)};
		assert_int_equal(uuid_next(&ids, &f->sealed[i].id, &e), 0);
		uuid_format(&f->sealed[i].id, f->ids[i]);
		f->items[i] = (struct delivery_item){.sealed = &f->sealed[i]};
	}
}

static void close_fixture(struct fixture *f)
{
	f->destination->close(f->session);
	remote_free(f->remote);
	fake_close(f->server);
	buf_clear(&f->envelope);
}

static void each_message_has_its_result(void **state)
{
	struct fixture f;
	char body[512], sent[2048];
	struct err e = ERR_INIT;
	(void)state;
	open_fixture(&f);
	snprintf(body, sizeof(body),
		"{\"results\":[{\"message_id\":\"%s\",\"result\":\"duplicate\"},"
		"{\"message_id\":\"%s\",\"result\":\"rejected\",\"code\":\"unknown_client\"}]}",
		f.ids[0], f.ids[1]);
	fake_push(f.server, FAKE_DELIVER, 200, NULL, body);
	if (f.destination->deliver(f.session, f.items, 2, &e) < 0)
		fail_msg("%s", e.text);
	assert_int_equal(f.items[0].outcome, DELIVERY_DUPLICATE);
	assert_int_equal(f.items[1].outcome, DELIVERY_REJECTED);
	assert_string_equal(f.items[1].reason, "unknown_client");
	assert_true(fake_wait(f.server, FAKE_DELIVER, 1, NULL, sent, sizeof(sent)));
	assert_non_null(strstr(sent, "\"worker_id\":\"worker:1\""));
	assert_true(strstr(sent, f.ids[0]) < strstr(sent, f.ids[1]));
	close_fixture(&f);
}

static void what_does_not_fit_is_an_outage(void **state)
{
	static const struct {
		int status;
		const char *body;
		enum err_kind kind;
	} cases[] = {
		{200, "{\"results\":[]}", ERR_RETRY},
		{200, "{\"results\":[{},{}]}", ERR_RETRY},
		{200,
			"{\"results\":[{\"message_id\":\"x\",\"result\":\"stored\"},"
			"{\"message_id\":\"y\",\"result\":\"stored\"}]}",
			ERR_RETRY},
		{503, "{}", ERR_RETRY},
		{403, "{}", ERR_FORBIDDEN},
		{413, "{}", ERR_REJECT},
	};
	struct fixture f;
	(void)state;
	open_fixture(&f);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct err e = ERR_INIT;
		fake_push(f.server, FAKE_DELIVER, cases[i].status, NULL, cases[i].body);
		assert_true(f.destination->deliver(f.session, f.items, 2, &e) < 0);
		assert_int_equal(e.kind, cases[i].kind);
	}
	close_fixture(&f);
}

static void tells_what_was_not_stored(void **state)
{
	struct fixture f;
	char target[256], body[256], expected[256];
	struct err e = ERR_INIT;
	(void)state;
	open_fixture(&f);
	struct delivery_report report = {
		.id = f.sealed[0].id, .state = MESSAGE_FAILED, .attempt_count = 3, .reason = STR("expired")};
	fake_push(f.server, FAKE_STATUS, 200, NULL, "{\"changed\":true}");
	assert_int_equal(f.destination->report(f.session, &report, &e), 0);
	assert_true(fake_wait(f.server, FAKE_STATUS, 1, target, body, sizeof(target)));
	snprintf(expected, sizeof(expected), "/internal/messages/%s/status", f.ids[0]);
	assert_string_equal(target, expected);
	assert_string_equal(
		body, "{\"status\":\"failed\",\"attempt_count\":3,\"error_message\":\"expired\"}");
	/* One that was not registered is none that could not be told. */
	fake_push(f.server, FAKE_STATUS, 404, NULL, "{}");
	assert_int_equal(f.destination->report(f.session, &report, &e), 0);
	fake_push(f.server, FAKE_STATUS, 503, NULL, "{}");
	assert_true(f.destination->report(f.session, &report, &e) < 0);
	close_fixture(&f);
}

static void a_reload_reaches_open_sessions(void **state)
{
	struct fixture f;
	struct err e = ERR_INIT;
	(void)state;
	open_fixture(&f);
	unsigned before = fake_connections(f.server);
	for (int i = 0; i < 4; i++) {
		fake_push(f.server, FAKE_DELIVER, 503, NULL, "{}");
		assert_true(f.destination->deliver(f.session, f.items, 2, &e) < 0);
		if (i == 1)
			remote_reload(f.remote);
	}
	assert_int_equal(fake_connections(f.server), before + 2);
	close_fixture(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(outlives_the_configuration),
		cmocka_unit_test(each_message_has_its_result),
		cmocka_unit_test(what_does_not_fit_is_an_outage),
		cmocka_unit_test(tells_what_was_not_stored),
		cmocka_unit_test(a_reload_reaches_open_sessions),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
