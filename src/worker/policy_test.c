/* policy_test.c - waits and giving up, by table. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "worker/policy.h"

static void fixed_waits_the_same_every_time(void **state)
{
	(void)state;
	struct policy p = {.interval_ms = 30000, .interval_max_ms = 3600000};
	for (unsigned attempt = 1; attempt < 100; attempt++)
		assert_int_equal(policy_wait_ms(&p, attempt, attempt * UINT64_C(7919)), 30000);
}

static void exponential_stays_below_its_doubling_ceiling(void **state)
{
	(void)state;
	struct policy p = {.exponential = true, .interval_ms = 1000, .interval_max_ms = 60000};
	static const struct {
		unsigned attempt;
		int64_t ceiling_ms;
	} cases[] = {{1, 1000}, {2, 2000}, {3, 4000}, {6, 32000}, {7, 60000}, {8, 60000}, {1000000, 60000}};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		assert_int_equal(policy_wait_ms(&p, cases[i].attempt, 0), 1);
		assert_int_equal(policy_wait_ms(&p, cases[i].attempt, (uint64_t)cases[i].ceiling_ms - 1),
			cases[i].ceiling_ms);
	}
}

static void exponential_does_not_overflow(void **state)
{
	(void)state;
	struct policy p = {.exponential = true, .interval_ms = INT64_MAX / 2, .interval_max_ms = INT64_MAX};
	assert_true(policy_wait_ms(&p, 50, UINT64_MAX) > 0);
}

static void gives_up_by_attempts_and_by_lifetime(void **state)
{
	(void)state;
	struct policy p = {.max_attempts = 3, .lifetime_ms = 1000};
	struct wall accepted = {1000000};
	assert_null(policy_exhausted(&p, 2, accepted, (struct wall){1000999}));
	assert_string_equal(policy_exhausted(&p, 3, accepted, (struct wall){1000000}), "attempts_exhausted");
	assert_string_equal(policy_exhausted(&p, 1, accepted, (struct wall){1001000}), "lifetime_exceeded");
	p.lifetime_ms = 0;
	assert_null(policy_exhausted(&p, 1, accepted, (struct wall){INT64_MAX}));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fixed_waits_the_same_every_time),
		cmocka_unit_test(exponential_stays_below_its_doubling_ceiling),
		cmocka_unit_test(exponential_does_not_overflow),
		cmocka_unit_test(gives_up_by_attempts_and_by_lifetime),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
