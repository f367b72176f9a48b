/* rate_test.c - token buckets under a fake clock. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "proxy/rate.h"

struct fixture {
	struct clock_fake clock;
	struct rate *rate;
};

static void open_fixture(struct fixture *f)
{
	struct err e = ERR_INIT;
	clock_fake_init(&f->clock, (struct wall){1000000});
	assert_int_equal(rate_new(&f->clock.clock, &f->rate, &e), 0);
}

static void a_burst_passes_and_then_the_rate_holds(void **state)
{
	(void)state;
	struct fixture f;
	struct rate_limit limit = {10, 20};
	struct rate_state s;
	open_fixture(&f);
	for (int i = 0; i < 20; i++)
		assert_true(rate_take(f.rate, STR("a"), &limit, 1, &s));
	assert_false(rate_take(f.rate, STR("a"), &limit, 1, &s));
	assert_int_equal(s.retry_after_s, 1);
	assert_int_equal(s.quota, 20);
	assert_int_equal(s.window_s, 2);
	clock_fake_advance_ms(&f.clock, 100);
	assert_true(rate_take(f.rate, STR("a"), &limit, 1, &s));
	assert_false(rate_take(f.rate, STR("a"), &limit, 1, &s));
	assert_true(rate_take(f.rate, STR("b"), &limit, 1, &s));
	rate_free(f.rate);
}

static void a_batch_larger_than_the_bucket_leaves_a_debt(void **state)
{
	(void)state;
	struct fixture f;
	struct rate_limit limit = {10, 10};
	struct rate_state s;
	open_fixture(&f);
	assert_true(rate_take(f.rate, STR("a"), &limit, 100, &s));
	assert_int_equal(s.left, 0);
	assert_false(rate_take(f.rate, STR("a"), &limit, 1, &s));
	assert_int_equal(s.retry_after_s, 10);
	clock_fake_advance_ms(&f.clock, 9000);
	assert_false(rate_take(f.rate, STR("a"), &limit, 1, &s));
	clock_fake_advance_ms(&f.clock, 1000 + 100);
	assert_true(rate_take(f.rate, STR("a"), &limit, 1, &s));
	rate_free(f.rate);
}

static void what_is_given_back_can_be_taken_again(void **state)
{
	(void)state;
	struct fixture f;
	struct rate_limit limit = {5, 5};
	struct rate_state s;
	open_fixture(&f);
	assert_true(rate_take(f.rate, STR("a"), &limit, 5, &s));
	rate_give_back(f.rate, STR("a"), &limit, 5);
	assert_true(rate_take(f.rate, STR("a"), &limit, 5, &s));
	assert_false(rate_take(f.rate, STR("a"), &limit, 5, &s));
	rate_free(f.rate);
}

static void a_long_rest_does_not_overflow(void **state)
{
	(void)state;
	struct fixture f;
	struct rate_limit limit = {10000000, 10000000};
	struct rate_state s;
	open_fixture(&f);
	assert_true(rate_take(f.rate, STR("a"), &limit, 10000000, &s));
	clock_fake_advance_ms(&f.clock, INT64_C(1000) * 86400 * 365);
	assert_true(rate_take(f.rate, STR("a"), &limit, 10000000, &s));
	rate_free(f.rate);
}

static void more_names_than_the_bound_share_a_bucket(void **state)
{
	(void)state;
	struct fixture f;
	struct rate_limit limit = {1, 2};
	struct rate_state s;
	open_fixture(&f);
	for (int i = 0; i < RATE_NAMES; i++) {
		char name[16];
		snprintf(name, sizeof(name), "n%d", i);
		assert_true(rate_take(f.rate, str_of(name), &limit, 1, &s));
	}
	/* No bucket is full, so these two share one. */
	assert_true(rate_take(f.rate, STR("w"), &limit, 2, &s));
	assert_false(rate_take(f.rate, STR("x"), &limit, 2, &s));
	clock_fake_advance_ms(&f.clock, 2000);
	/* All are full again and forgotten: new names have buckets of their own. */
	assert_true(rate_take(f.rate, STR("y"), &limit, 2, &s));
	assert_true(rate_take(f.rate, STR("z"), &limit, 2, &s));
	rate_free(f.rate);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_burst_passes_and_then_the_rate_holds),
		cmocka_unit_test(a_batch_larger_than_the_bucket_leaves_a_debt),
		cmocka_unit_test(what_is_given_back_can_be_taken_again),
		cmocka_unit_test(a_long_rest_does_not_overflow),
		cmocka_unit_test(more_names_than_the_bound_share_a_bucket),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
