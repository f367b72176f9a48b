/* arena_test.c */
#include "base/arena.h"

#include <setjmp.h>
#include <stdalign.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/auto.h"

static void allocates_aligned(void **state)
{
	AUTO(arena_auto) struct arena a;
	arena_init(&a, 1 << 20);
	char *blocks[80];
	for (size_t i = 0; i < ARRAY_LEN(blocks); i++) {
		blocks[i] = arena_alloc(&a, i * 37);
		assert_non_null(blocks[i]);
		assert_int_equal((uintptr_t)blocks[i] % alignof(max_align_t), 0);
		memset(blocks[i], (int)i, i * 37);
	}
	for (size_t i = 0; i < ARRAY_LEN(blocks); i++)
		for (size_t j = 0; j < i * 37; j++)
			assert_int_equal(blocks[i][j], i); /* they do not overlap */
	const char *zeroed = arena_zalloc(&a, 5000);
	assert_non_null(zeroed);
	for (int i = 0; i < 5000; i++)
		assert_int_equal(zeroed[i], 0);
}

static void copies(void **state)
{
	AUTO(arena_auto) struct arena a;
	arena_init(&a, 10000);
	assert_string_equal(arena_strdup(&a, STR("abc")), "abc");
	assert_string_equal(arena_strdup(&a, (struct str){NULL, 0}), "");
	assert_string_equal(arena_printf(&a, "%s-%d", "x", 7), "x-7");
	struct str s = arena_copy(&a, STR("a\0b"));
	assert_true(str_eq(s, STR("a\0b")));
	s = arena_copy(&a, (struct str){NULL, 0});
	assert_true(s.p && s.n == 0);
}

static void stops_at_the_ceiling(void **state)
{
	AUTO(arena_auto) struct arena a;
	arena_init(&a, 8192);
	assert_non_null(arena_alloc(&a, 8000));
	assert_null(arena_alloc(&a, 200));
	assert_null(arena_alloc(&a, SIZE_MAX));
	assert_null(arena_zalloc(&a, 200));
	assert_null(arena_strdup(&a, str_mem("x", 200)));
	assert_null(arena_copy(&a, str_mem("x", 200)).p);
	assert_null(arena_printf(&a, "%200d", 1));
	assert_non_null(arena_alloc(&a, 100));
}

/* The next request starts with the same memory, wiped, and the full ceiling. */
static void resets(void **state)
{
	AUTO(arena_auto) struct arena a;
	arena_init(&a, 20000);
	arena_reset(&a);
	for (int round = 0; round < 3; round++) {
		char *first = arena_alloc(&a, 1000);
		assert_non_null(first);
		for (int i = 0; i < 1000 && round > 0; i++)
			assert_int_equal(first[i], 0);
		memset(first, 0x55, 1000);
		assert_non_null(arena_alloc(&a, 18000));
		assert_null(arena_alloc(&a, 1000));
		arena_reset(&a);
		assert_int_equal(a.used_bytes, 0);
	}
	arena_clear(&a);
	assert_non_null(arena_alloc(&a, 10));
	arena_clear(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(allocates_aligned),
		cmocka_unit_test(copies),
		cmocka_unit_test(stops_at_the_ceiling),
		cmocka_unit_test(resets),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
