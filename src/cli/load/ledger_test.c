/* ledger_test.c - which ids an answer holds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <unistd.h>

#include "base/auto.h"
#include "cli/load/ledger.h"

static void test_note(void **state)
{
	static const struct {
		const char *body, *lines;
	} cases[] = {
		{"", ""},
		{"{\"message_id\":\"a-1\",\"status\":\"queued\"}", "a-1\n"},
		{"{\"results\":[{\"index\":0,\"message_id\":\"a\"},{\"index\":1,\"problem\":{}},{\"message_id\":\"b\"}]}",
			"a\nb\n"},
		{"{\"message_id\":\"cut off", ""},
		{"{\"message_id\":null}", ""},
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		AUTO(buf_auto) struct buf lines;
		buf_init(&lines, 1024);
		ledger_note(&lines, str_of(cases[i].body));
		assert_true(str_eq(buf_str(&lines), str_of(cases[i].lines)));
	}
}

static void test_write(void **state)
{
	struct err e = ERR_INIT;
	char got[32] = "";
	AUTO(file_auto) FILE *f = tmpfile();
	AUTO(buf_auto) struct buf lines;
	assert_non_null(f);
	buf_init(&lines, 1024);
	assert_int_equal(ledger_write(fileno(f), &lines, &e), 0);
	for (int i = 0; i < 2; i++) {
		ledger_note(&lines, STR("{\"message_id\":\"x\"}"));
		assert_int_equal(ledger_write(fileno(f), &lines, &e), 0);
		assert_int_equal(lines.n, 0);
	}
	assert_int_equal(pread(fileno(f), got, sizeof(got), 0), 4);
	assert_string_equal(got, "x\nx\n");
	ledger_note(&lines, STR("{\"message_id\":\"x\"}"));
	assert_true(ledger_write(-1, &lines, &e) < 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_note), cmocka_unit_test(test_write)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
