/* schedule_test.c - due from two thirds on, spread over devices, patient after failures. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/macros.h"
#include "cli/schedule.h"

enum { START = 1000000, LIFE = 900000, END = START + LIFE };

static const struct wall from = {START}, to = {END};

static void due_from_two_thirds_on(void **state)
{
	(void)state;
	assert_int_equal(renewal_due(from, to).ms, START + LIFE / 3 * 2);
	assert_int_equal(renewal_start(from, to, 0).ms, START + LIFE / 3 * 2);
	for (uint64_t random = 0; random < 1000; random++) {
		int64_t at = renewal_start(from, to, random * 0x9e3779b97f4a7c15u).ms;
		assert_true(at >= START + LIFE / 3 * 2 && at < START + LIFE / 3 * 2 + LIFE / 30);
	}
	assert_int_equal(renewal_start(from, from, 7).ms, START); /* a lifetime of nothing */
}

static void patient_after_failures(void **state)
{
	(void)state;
	static const struct {
		unsigned failures;
		int64_t minutes;
	} cases[] = {{1, 1}, {2, 2}, {3, 4}, {6, 32}, {7, 60}, {8, 60}, {1000000, 60}};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		int64_t least = cases[i].minutes * 60 * 1000;
		assert_int_equal(renewal_retry_ms(cases[i].failures, 0), least);
		int64_t most = renewal_retry_ms(cases[i].failures, UINT64_MAX);
		assert_true(most >= least && most < least + least / 2);
	}
}

static void urgent_in_the_last_sixth(void **state)
{
	(void)state;
	assert_false(renewal_urgent(from, to, (struct wall){END - LIFE / 6 - 1}));
	assert_true(renewal_urgent(from, to, (struct wall){END - LIFE / 6}));
	assert_true(renewal_urgent(from, to, (struct wall){END + 1}));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(due_from_two_thirds_on),
		cmocka_unit_test(patient_after_failures),
		cmocka_unit_test(urgent_in_the_last_sixth),
	};
	return cmocka_run_group_tests_name("renewal schedule", tests, NULL, NULL);
}
