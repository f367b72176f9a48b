/* policy_test.c - waits and giving up, by table. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

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
	struct policy p = {
		.kind = POLICY_EXPONENTIAL, .interval_ms = 1000, .interval_max_ms = 60000, .factor = 2};
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
	struct policy p = {.kind = POLICY_EXPONENTIAL,
		.interval_ms = INT64_MAX / 2,
		.interval_max_ms = INT64_MAX,
		.factor = 3};
	assert_true(policy_wait_ms(&p, 50, UINT64_MAX) > 0);
}

static void gives_up_by_attempts_and_by_lifetime(void **state)
{
	(void)state;
	struct policy p = {.max_attempts = 3, .lifetime_ms = 1000};
	struct wall accepted = {1000000};
	assert_null(policy_exhausted(&p, 2, accepted, (struct wall){1000999}));
	assert_string_equal(policy_exhausted(&p, 3, accepted, (struct wall){1000000}), "attempts_exhausted");
	assert_string_equal(policy_exhausted(&p, 1, accepted, (struct wall){1001000}), "expired");
	p.lifetime_ms = 0;
	assert_null(policy_exhausted(&p, 1, accepted, (struct wall){INT64_MAX}));
}

static void a_list_goes_on_with_its_last_wait(void **state)
{
	(void)state;
	struct policy p = {.kind = POLICY_LIST, .list_ms = {10, 20, 40}, .list_count = 3};
	static const struct {
		unsigned attempt;
		int64_t wait_ms;
	} cases[] = {{1, 10}, {2, 20}, {3, 40}, {4, 40}, {10000, 40}};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		assert_int_equal(policy_wait_ms(&p, cases[i].attempt, 0), cases[i].wait_ms);
}

static void comes_from_the_configuration_and_from_the_domain(void **state)
{
	(void)state;
	char path[] = "/tmp/sealpost-policy-XXXXXX";
	FILE *f = fdopen(mkstemp(path), "w");
	fputs("retry_policy: list\nretry_list: 1s, 2m,3h\nretry_interval: 7s\nmax_attempts: 5\n"
	      "domains:\n  b.example: {max_attempts: 2}\n  a.example: {retry_interval: 9s}\n"
	      "  c.example: {display_name: C}\n",
		f);
	fclose(f);
	struct config_source source = {.file = path};
	struct config *config;
	struct policies *policies;
	struct err e = ERR_INIT;
	assert_int_equal(config_load(&source, &config, &e), 0);
	unlink(path);
	assert_int_equal(policies_new(config, &policies, &e), 0);
	config_free(config);
	const struct policy *general = policies_of(policies, STR("other.example"));
	assert_int_equal(general->kind, POLICY_LIST);
	assert_int_equal(general->list_count, 3);
	assert_int_equal(general->list_ms[2], 3 * 3600 * 1000);
	assert_ptr_equal(policies_of(policies, STR("c.example")), general);
	assert_int_equal(policies_of(policies, STR("a.example"))->interval_ms, 9000);
	assert_int_equal(policies_of(policies, STR("a.example"))->max_attempts, 5);
	assert_int_equal(policies_of(policies, STR("b.example"))->interval_ms, 7000);
	assert_int_equal(policies_of(policies, STR("b.example"))->max_attempts, 2);
	policies_free(policies);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fixed_waits_the_same_every_time),
		cmocka_unit_test(exponential_stays_below_its_doubling_ceiling),
		cmocka_unit_test(exponential_does_not_overflow),
		cmocka_unit_test(a_list_goes_on_with_its_last_wait),
		cmocka_unit_test(comes_from_the_configuration_and_from_the_domain),
		cmocka_unit_test(gives_up_by_attempts_and_by_lifetime),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
