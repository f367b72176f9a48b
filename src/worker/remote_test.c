/* remote_test.c - what a remote destination keeps of what it was made from. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/err.h"
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

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(outlives_the_configuration)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
