/* table_test.c - the table at random, against an array indexed by key. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "queue/table.h"

enum { KEYS = 200, GROUPS = 2000 };

struct model {
	int value[KEYS]; /* 0: none */
};

static uint64_t random_state = 88172645463325252;

static unsigned pick(unsigned below)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (unsigned)(random_state % below);
}

static int *item_of(int value)
{
	int *item = value ? malloc(sizeof(*item)) : NULL;
	if (item)
		*item = value;
	return item;
}

static void assert_same(const struct table *t, const struct model *m)
{
	size_t place = 0;
	for (unsigned key = 0; key < KEYS; key++) {
		const int *item = table_get(t, key);
		assert_int_equal(item ? *item : 0, m->value[key]);
		assert_int_equal(table_place(t, key), place);
		if (item)
			assert_int_equal(table_at(t, place++)->key, key);
	}
	assert_int_equal(t->count, place);
}

/* Keys move upwards as in a queue: in at one end, out at the other. */
static void change(struct table *t, struct table_log *log, struct model *m, unsigned group)
{
	unsigned key = (pick(KEYS / 4) + group / 8) % KEYS;
	int value = (int)pick(3);
	assert_int_equal(table_set(t, log, key, item_of(value), NULL), 0);
	m->value[key] = value;
}

static void test_against_an_array(void **state)
{
	(void)state;
	struct table t = {NULL};
	struct table_log log = {NULL};
	struct model m = {{0}};
	for (unsigned group = 0; group < GROUPS; group++) {
		struct model before = m;
		for (unsigned n = pick(12); n; n--)
			change(&t, &log, &m, group);
		size_t kept = log.count;
		struct model middle = m;
		for (unsigned n = pick(4); n; n--)
			change(&t, &log, &m, group);
		table_undo(&log, kept);
		m = middle;
		assert_same(&t, &m);
		if (pick(3)) {
			table_commit(&log);
		} else {
			table_undo(&log, 0);
			m = before;
		}
		assert_same(&t, &m);
	}
	table_clear(&t);
	table_log_clear(&log);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_against_an_array)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
