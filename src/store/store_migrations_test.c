/* store_migrations_test.c - which migrations run, in which order, and what stops them; against an engine that
 * only keeps a record. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "store/migrations.h"
#include "store/sqlite_schema.h"

struct record {
	unsigned version;
	unsigned fail_number; /* this migration fails */
	char applied[64];
};

static int record_version(void *db, unsigned *ret, struct err *e)
{
	struct record *record = db;
	if (record->version == UINT32_MAX)
		return err_set(e, ERR_RETRY, "engine away");
	*ret = record->version;
	return 0;
}

static int record_apply(void *db, const struct migration *m, struct err *e)
{
	struct record *record = db;
	if (m->number == record->fail_number)
		return err_set(e, ERR_RETRY, "disk full");
	size_t n = strlen(record->applied);
	snprintf(record->applied + n, sizeof(record->applied) - n, "%s", m->sql);
	record->version = m->number;
	return 0;
}

static const struct migration_engine engine = {record_version, record_apply};
static const struct migration table[] = {{1, "first", "a"}, {2, "second", "b"}, {3, "third", "c"}};

static void test_cases(void **state)
{
	(void)state;
	static const struct {
		unsigned version, fail_number;
		const char *applied;
		unsigned version_after;
		enum err_kind kind;
		const char *text;
	} cases[] = {
		{0, 0, "abc", 3, ERR_NONE, ""},
		{1, 0, "bc", 3, ERR_NONE, ""},
		{3, 0, "", 3, ERR_NONE, ""},
		{0, 2, "a", 1, ERR_RETRY, "schema change 2 (second): disk full"},
		{UINT32_MAX, 0, "", UINT32_MAX, ERR_RETRY, "read the schema's version: engine away"},
		{4, 0, "", 4, ERR_FATAL, "schema 4 is newer than this program, which knows versions up to 3"},
	};
	for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
		struct record record = {.version = cases[i].version, .fail_number = cases[i].fail_number};
		struct err e = ERR_INIT;
		int result = migrations_run(table, ARRAY_LEN(table), &engine, &record, &e);
		assert_int_equal(result, cases[i].kind == ERR_NONE ? 0 : -1);
		assert_int_equal(e.kind, cases[i].kind);
		assert_non_null(strstr(e.text, cases[i].text));
		assert_string_equal(record.applied, cases[i].applied);
		assert_int_equal(record.version, cases[i].version_after);
	}
}

/* A driver's own table, run against the record: numbers without gaps (or migrations_run aborts), a title for
 * each. */
static void test_sqlite_table(void **state)
{
	(void)state;
	struct err e = ERR_INIT;
	struct record record = {0};
	assert_int_equal(migrations_run(sqlite_migrations, sqlite_migration_count, &engine, &record, &e), 0);
	assert_int_equal(record.version, sqlite_migration_count);
	for (unsigned i = 0; i < sqlite_migration_count; i++)
		assert_true(strlen(sqlite_migrations[i].title) > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cases),
		cmocka_unit_test(test_sqlite_table),
	};
	return cmocka_run_group_tests_name("store migrations", tests, NULL, NULL);
}
