#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>

#include "http/tally.h"

static struct tally *new_tally(void)
{
	struct tally *t;
	assert_int_equal(tally_new(&t, NULL), 0);
	return t;
}

static void keys_are_counted_up_to_a_limit(void **state)
{
	struct tally *t = new_tally();
	struct tally_entry *a = tally_add(t, STR("a"), 2);
	assert_non_null(a);
	assert_ptr_equal(tally_add(t, STR("a"), 2), a);
	assert_null(tally_add(t, STR("a"), 2));
	struct tally_entry *b = tally_add(t, STR("b"), 1);
	assert_non_null(b);
	assert_null(tally_add(t, STR("b"), 1));
	tally_remove(t, a);
	assert_ptr_equal(tally_add(t, STR("a"), 2), a);
	tally_remove(t, b);
	assert_non_null(tally_add(t, STR("b"), 1));
	assert_null(tally_add(t, STR("c"), 0));
	tally_remove(t, NULL);
	tally_free(t);
	tally_free(NULL);
}

static void many_keys(void **state)
{
	enum { KEYS = 1000 };
	struct tally *t = new_tally();
	struct tally_entry *entries[KEYS];
	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i < KEYS; i++) {
			char key[16];
			int n = snprintf(key, sizeof(key), "%u", i);
			entries[i] = tally_add(t, str_mem(key, (size_t)n), 1);
			assert_non_null(entries[i]);
			assert_null(tally_add(t, str_mem(key, (size_t)n), 1));
		}
		for (unsigned i = 0; i < KEYS; i++)
			tally_remove(t, entries[i]);
	}
	tally_free(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(keys_are_counted_up_to_a_limit),
		cmocka_unit_test(many_keys),
	};
	return cmocka_run_group_tests_name("http_tally", tests, NULL, NULL);
}
