/* map_test.c - the map against a plain list of pairs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "queue/map.h"

enum { PAIRS = 3000 };

static size_t count_values(const struct map *m, uint64_t key)
{
	size_t count = 0;
	for (size_t cursor = 0; map_next(m, key, &cursor);)
		count++;
	return count;
}

static void test_empty(void **state)
{
	(void)state;
	struct map m;
	map_init(&m, 12345);
	assert_int_equal(map_get(&m, 7), 0);
	assert_false(map_remove(&m, 7, 1));
	assert_false(map_replace(&m, 7, 1, 2));
	map_clear(&m);
}

static void test_several_values_of_a_key(void **state)
{
	(void)state;
	struct map m;
	map_init(&m, 12345);
	for (uint64_t v = 1; v <= 3; v++)
		assert_int_equal(map_add(&m, 7, v, NULL), 0);
	assert_int_equal(count_values(&m, 7), 3);
	assert_true(map_remove(&m, 7, 2));
	assert_false(map_remove(&m, 7, 2));
	assert_true(map_replace(&m, 7, 3, 9));
	assert_int_equal(count_values(&m, 7), 2);
	size_t cursor = 0;
	uint64_t sum = map_next(&m, 7, &cursor) + map_next(&m, 7, &cursor);
	assert_int_equal(sum, 1 + 9);
	assert_int_equal(map_next(&m, 7, &cursor), 0);
	map_clear(&m);
}

/* Keys that follow each other, and every seed from hostile to fair. */
static void test_against_a_list(void **state)
{
	(void)state;
	static const uint64_t seeds[] = {0, UINT64_MAX, 1ull << 63, 0x9e3779b97f4a7c15};
	for (size_t s = 0; s < sizeof(seeds) / sizeof(seeds[0]); s++) {
		struct map m;
		map_init(&m, seeds[s]);
		for (uint64_t i = 0; i < PAIRS; i++)
			assert_int_equal(map_add(&m, i << (s * 8), i + 1, NULL), 0);
		for (uint64_t i = 0; i < PAIRS; i += 3)
			assert_true(map_remove(&m, i << (s * 8), i + 1));
		assert_int_equal(m.count, PAIRS - PAIRS / 3);
		for (uint64_t i = 0; i < PAIRS; i++)
			assert_int_equal(map_get(&m, i << (s * 8)), i % 3 ? i + 1 : 0);
		map_clear(&m);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_empty),
		cmocka_unit_test(test_several_values_of_a_key),
		cmocka_unit_test(test_against_a_list),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
