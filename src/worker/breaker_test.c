/* breaker_test.c - the breaker's moves, with time given by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "worker/breaker.h"

static const struct mono start = {1000000000};

static void opens_once_and_says_so_once(void **state)
{
	(void)state;
	struct breaker b;
	int64_t wait_ms;
	breaker_init(&b);
	assert_true(breaker_allow(&b, start, &wait_ms));
	assert_true(breaker_failure(&b, start, 0, "away"));
	assert_false(breaker_failure(&b, start, 0, "away"));
	assert_false(breaker_allow(&b, start, &wait_ms));
	assert_in_range(wait_ms, 50, 101);
	char trouble[32];
	assert_int_equal(breaker_state(&b, trouble, sizeof(trouble)), BREAKER_OPEN);
	assert_string_equal(trouble, "away");
	assert_int_equal(b.opened_count, 1);
	breaker_clear(&b);
}

static void half_open_lets_one_probe_through(void **state)
{
	(void)state;
	struct breaker b;
	int64_t wait_ms;
	breaker_init(&b);
	(void)breaker_failure(&b, start, 0, "away");
	struct mono later = mono_add_ms(start, 1000);
	assert_true(breaker_allow(&b, later, &wait_ms));
	assert_false(breaker_allow(&b, later, &wait_ms));
	assert_true(wait_ms > 0);
	assert_true(breaker_success(&b));
	assert_true(breaker_allow(&b, later, &wait_ms));
	assert_true(breaker_allow(&b, later, &wait_ms));
	breaker_clear(&b);
}

static void pauses_grow_to_their_ceiling_and_start_over(void **state)
{
	(void)state;
	struct breaker b;
	int64_t wait_ms, last_ms = 0;
	struct mono now = start;
	breaker_init(&b);
	for (int i = 0; i < 12; i++) {
		assert_true(breaker_allow(&b, now, &wait_ms));
		(void)breaker_failure(&b, now, UINT64_MAX, "away");
		assert_false(breaker_allow(&b, now, &wait_ms));
		assert_true(wait_ms >= last_ms / 2);
		assert_true(wait_ms <= 10001);
		last_ms = wait_ms;
		now = mono_add_ms(now, wait_ms);
	}
	assert_true(last_ms >= 5000);
	assert_true(breaker_allow(&b, now, &wait_ms));
	(void)breaker_success(&b);
	(void)breaker_failure(&b, now, 0, "away");
	assert_false(breaker_allow(&b, now, &wait_ms));
	assert_true(wait_ms <= 101);
	breaker_clear(&b);
}

static void an_unused_probe_may_be_asked_for_again(void **state)
{
	(void)state;
	struct breaker b;
	int64_t wait_ms;
	breaker_init(&b);
	(void)breaker_failure(&b, start, 0, "away");
	struct mono later = mono_add_ms(start, 1000);
	assert_true(breaker_allow(&b, later, &wait_ms));
	breaker_unused(&b);
	assert_true(breaker_allow(&b, later, &wait_ms));
	breaker_clear(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(opens_once_and_says_so_once),
		cmocka_unit_test(half_open_lets_one_probe_through),
		cmocka_unit_test(pauses_grow_to_their_ceiling_and_start_over),
		cmocka_unit_test(an_unused_probe_may_be_asked_for_again),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
