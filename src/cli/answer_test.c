/* answer_test.c - lists as tables: every kind of cell, what is absent, and what is too much. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "base/json.h"
#include "cli/answer.h"

static void fill_share(struct term_table *t, const json_t *row)
{
	term_table_cell(t, "%lld of 9", (long long)json_number(row, "count"));
}

static const struct answer_column columns[] = {
	{"NAME", "name"},
	{"COUNT", "count", ANSWER_NUMBER},
	{"SHARE", NULL, ANSWER_NUMBER, .fill = fill_share},
	{"DAY", "at", ANSWER_DAY},
	{"MINUTE", "at", ANSWER_MINUTE},
	{"STATUS", "status", .good = "valid"},
	{0},
};

static void test_members(void **state)
{
	AUTO(json_auto) json_t *object = json_pack("{s:s, s:i}", "name", "a", "count", 7);
	assert_string_equal(json_text(object, "name"), "a");
	assert_string_equal(json_text(object, "count"), "");
	assert_string_equal(json_text(object, "absent"), "");
	assert_string_equal(json_text(NULL, "name"), "");
	assert_int_equal(json_number(object, "count"), 7);
	assert_int_equal(json_number(object, "name"), 0);
	assert_int_equal(json_number(NULL, "count"), 0);
}

static void test_table(void **state)
{
	AUTO(json_auto)
	json_t *rows = json_pack("[{s:s, s:i, s:s, s:s}, {s:s}]", "name", "a", "count", 7, "at",
		"2026-01-31T12:30:45.678Z", "status", "valid", "name", "longer");
	char text[512] = "";
	struct err e = ERR_INIT;
	FILE *f = fmemopen(text, sizeof(text), "w");
	assert_non_null(f);
	assert_int_equal(print_table(rows, columns, f, &e), 0);
	fclose(f);
	assert_string_equal(text, "NAME    COUNT   SHARE  DAY         MINUTE            STATUS\n"
				  "a           7  7 of 9  2026-01-31  2026-01-31T12:30  valid\n"
				  "longer      0  0 of 9  -\n");
}

/* Half a list must not pass for a whole one. */
static void test_too_much(void **state)
{
	static const struct answer_column column[] = {{"TEXT", "text"}, {0}};
	enum { CELL_BYTES = 1 << 20, CELLS = 80 };
	AUTO(free_auto) char *text = malloc(CELL_BYTES);
	AUTO(json_auto) json_t *rows = json_array();
	assert_non_null(text);
	memset(text, 'x', CELL_BYTES);
	AUTO(json_auto) json_t *row = json_object();
	assert_int_equal(json_object_set_new(row, "text", json_stringn(text, CELL_BYTES)), 0);
	for (int i = 0; i < CELLS; i++)
		assert_int_equal(json_array_append(rows, row), 0);
	struct err e = ERR_INIT;
	assert_int_equal(print_table(rows, column, stdout, &e), -1);
	assert_non_null(strstr(e.text, "print a table"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_members),
		cmocka_unit_test(test_table),
		cmocka_unit_test(test_too_much),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
