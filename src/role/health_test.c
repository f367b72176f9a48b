/* health_test.c - what makes a role ready or not, and that parts of it may come and go. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>

#include "base/macros.h"
#include "role/health.h"

/* A check that says what it was told to say. */
static void say(void *arg, struct health_report *ret)
{
	const struct health_report *told = arg;
	*ret = *told;
}

static struct health *fresh(void)
{
	struct health *h = NULL;
	assert_int_equal(health_new(&clock_system, &h, NULL), 0);
	return h;
}

static void readiness(void **state)
{
	static const struct {
		enum health_status status;
		bool decides, ready;
	} cases[] = {
		{HEALTH_OK, true, true},
		{HEALTH_DEGRADED, true, true},
		{HEALTH_FAILED, true, false},
		{HEALTH_FAILED, false, true},
	};
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct health_report told = {cases[i].status, "told"}, why = {HEALTH_OK, ""};
		struct health *h = fresh();
		health_add(h, "queue", cases[i].decides, say, &told);
		assert_int_equal(health_ready(h, &why), cases[i].ready);
		assert_string_equal(why.detail, cases[i].ready ? "" : "told");
		health_free(h);
	}
}

static void first_failure_is_named(void **state)
{
	struct health_report good = {HEALTH_OK, ""}, bad = {HEALTH_FAILED, "first"},
			     worse = {HEALTH_FAILED, "second"}, why;
	struct health *h = fresh();
	(void)state;
	health_add(h, "a", true, say, &good);
	health_add(h, "b", true, say, &bad);
	health_add(h, "c", true, say, &worse);
	assert_false(health_ready(h, &why));
	assert_string_equal(why.detail, "first");
	health_free(h);
}

static void removed_checks_are_not_asked(void **state)
{
	struct health_report good = {HEALTH_OK, ""}, bad = {HEALTH_FAILED, "gone"};
	struct health *h = fresh();
	(void)state;
	health_add(h, "a", true, say, &bad);
	health_add(h, "b", true, say, &good);
	health_add(h, "c", true, say, &bad);
	health_remove(h, &bad);
	assert_true(health_ready(h, NULL));
	health_remove(h, &bad);
	health_add(h, "a", true, say, &bad);
	assert_false(health_ready(h, NULL));
	health_free(h);
}

static void draining_is_not_ready(void **state)
{
	struct health_report why;
	struct health *h = fresh();
	(void)state;
	assert_true(health_ready(h, &why));
	health_set_draining(h);
	assert_false(health_ready(h, &why));
	assert_string_equal(why.detail, "shutting down");
	health_free(h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(readiness),
		cmocka_unit_test(first_failure_is_named),
		cmocka_unit_test(removed_checks_are_not_asked),
		cmocka_unit_test(draining_is_not_ready),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
