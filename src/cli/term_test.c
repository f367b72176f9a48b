/* term_test.c - tables line up, and nothing that a peer wrote reaches the terminal as a command. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "cli/term.h"

/* What fn writes, as a string; free it. */
static char *written(void (*fn)(FILE *f))
{
	char *text = NULL;
	size_t n;
	FILE *f = tmpfile();
	assert_non_null(f);
	fn(f);
	n = (size_t)ftell(f);
	rewind(f);
	text = calloc(1, n + 1);
	assert_non_null(text);
	assert_int_equal(fread(text, 1, n, f), n);
	fclose(f);
	return text;
}

static void write_table(FILE *f)
{
	static const struct term_column columns[] = {{"NAME", false}, {"COUNT", true}, {"NOTE", false}};
	struct err e = ERR_INIT;
	struct term_table *t = term_table_new(columns, ARRAY_LEN(columns));
	assert_non_null(t);
	term_table_cell(t, "%s", "a");
	term_table_cell(t, "%d", 1234567);
	term_table_style(t, TERM_RED);
	term_table_cell(t, "%s", "");
	term_table_cell(t, "%s", "größer");
	term_table_cell(t, "%d", 5);
	term_table_cell(t, "%s", "x\033[2J");
	term_table_cell(t, "%s", "half a row is not shown");
	assert_int_equal(term_table_print(t, f, &e), 0);
	term_table_free(t);
}

static void test_table(void **state)
{
	AUTO(free_auto) char *text = written(write_table);
	assert_string_equal(text, "NAME      COUNT  NOTE\n"
				  "a       1234567\n"
				  "größer        5  x\\x1b[2J\n");
}

static void write_plain_table(FILE *f)
{
	static const struct term_column columns[] = {{NULL, false}, {NULL, false}};
	struct err e = ERR_INIT;
	struct term_table *t = term_table_new(columns, ARRAY_LEN(columns));
	assert_non_null(t);
	term_table_cell(t, "%s", "key");
	term_table_cell(t, "%s", "value");
	assert_int_equal(term_table_print(t, f, &e), 0);
	term_table_free(t);
}

static void test_no_heading(void **state)
{
	AUTO(free_auto) char *text = written(write_plain_table);
	assert_string_equal(text, "key  value\n");
}

static void write_untrusted(FILE *f)
{
	term_put_untrusted(f, STR("a\nb\t\x7f\xc2\x9b"
				  "31mc \xc3\xa4 \xc2\xa0"));
	term_styled(f, TERM_RED, "%d", 7);
}

/* tmpfile() is no terminal, so there is no colour either. */
static void test_untrusted(void **state)
{
	AUTO(free_auto) char *text = written(write_untrusted);
	assert_string_equal(text, "a\\x0ab\\x09\\x7f\\x9b31mc \xc3\xa4 \xc2\xa0"
				  "7");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_table),
		cmocka_unit_test(test_no_heading),
		cmocka_unit_test(test_untrusted),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
