/* options_test.c - command lines of `sealpost bench ingest`, taken and refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/str.h"
#include "cli/cli.h"
#include "cli/load/options.h"

enum { WORDS_MAX = 32 };

/* The four that are always needed, then `more`, split at spaces. */
static bool parse(const char *more, struct load_options *o, int *code)
{
	static char text[512];
	char *argv[WORDS_MAX] = {NULL};
	int argc = 0;
	snprintf(text, sizeof(text), "ingest --cert c --key k --ca a %s", more);
	for (char *word = text, *space; word && argc < WORDS_MAX - 1; word = space) {
		space = strchr(word, ' ');
		if (space)
			*space++ = 0;
		argv[argc++] = word;
	}
	static const struct arg none[] = {{0}};
	static const struct load_command ingest = {"bench ingest", "", "", "", none};
	return load_options_read(&ingest, argc, argv, o, code);
}

static void test_defaults(void **state)
{
	struct load_options o;
	int code;
	assert_true(parse("--url https://localhost:8001", &o, &code));
	assert_string_equal(o.host, "localhost");
	assert_string_equal(o.port, "8001");
	assert_string_equal(o.authority, "localhost:8001");
	assert_int_equal(o.connections, 64);
	assert_int_equal(o.depth, 1);
	assert_int_equal(o.duration_ns, 10000000000);
	assert_int_equal(o.warmup_ns, 1000000000);
	assert_int_equal(o.messages, 0);
	assert_int_equal(load_messages_per_request(&o), 1);
	load_options_clear(&o);
}

static void test_values(void **state)
{
	struct load_options o;
	int code;
	assert_true(parse(
		"--url https://[::1]:1 --duration 250ms --warmup 2m --rate 2.5 --batch 100 --http2 --streams 8 "
		"--churn 300 --server-pid 7 --json",
		&o, &code));
	assert_string_equal(o.host, "::1");
	assert_string_equal(o.authority, "[::1]:1");
	assert_int_equal(o.duration_ns, 250000000);
	assert_int_equal(o.warmup_ns, 120000000000);
	assert_true(o.rate > 2.4 && o.rate < 2.6);
	assert_int_equal(o.depth, 8);
	assert_true(o.http2);
	assert_int_equal(o.server_pid, 7);
	assert_int_equal(o.format, LOAD_JSON);
	assert_int_equal(load_messages_per_request(&o), 100);
	load_options_clear(&o);
	assert_true(parse("--url https://h --messages 5", &o, &code));
	assert_string_equal(o.port, "443");
	assert_int_equal(o.warmup_ns, 0);
	load_options_clear(&o);
}

/* The errors go to standard error, which would clutter the test's output. */
static void test_refused(void **state)
{
	static const char *const cases[] = {
		"",
		"--url http://localhost:1",
		"--url localhost",
		"--url https://h --rate 0",
		"--url https://h --rate -1",
		"--url https://h --rate 1e5",
		"--url https://h --rate 1.",
		"--url https://h --rate .5",
		"--url https://h --rate 1.2.3",
		"--url https://h --rate 999999999999",
		"--url https://h --rate 5x",
		"--url https://h --duration 5",
		"--url https://h --duration 5y",
		"--url https://h --duration 999999h",
		"--url https://h --messages 0",
		"--url https://h --messages 5 --duration 5s",
		"--url https://h --connections 0",
		"--url https://h --connections 1 --threads 2",
		"--url https://h --streams 2",
		"--url https://h --http2 --pipeline 2",
		"--url https://h --json --csv",
		"--url https://h --batch 1001",
		"--url https://h surplus",
		"--url https://h --nonsense",
	};
	struct load_options o;
	int saved = dup(STDERR_FILENO), null = open("/dev/null", O_WRONLY | O_CLOEXEC);
	assert_true(saved >= 0 && null >= 0);
	dup2(null, STDERR_FILENO);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		int code = -1;
		bool taken = parse(cases[i], &o, &code);
		if (taken || code != EXIT_USAGE) {
			dup2(saved, STDERR_FILENO);
			fail_msg("'%s': code %d", cases[i], code);
		}
	}
	dup2(saved, STDERR_FILENO);
	close(saved);
	close(null);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_values),
		cmocka_unit_test(test_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
