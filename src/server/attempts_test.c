/* attempts_test.c - an address is held off after its refusals, and listened to again when its window is over. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "server/attempts.h"

enum { MAX = 3 };

static void held_off_and_let_in_again(void **state)
{
	(void)state;
	struct clock_fake clock;
	struct attempts *a;
	struct err e = ERR_INIT;
	clock_fake_init(&clock, (struct wall){1});
	assert_int_equal(attempts_new(&clock.clock, &a, &e), 0);
	for (unsigned i = 0; i < MAX; i++) {
		assert_true(attempts_allowed(a, "10.0.0.1", MAX));
		attempts_refused(a, "10.0.0.1");
		clock_fake_advance_ms(&clock, 1000);
	}
	assert_false(attempts_allowed(a, "10.0.0.1", MAX));
	assert_true(attempts_allowed(a, "10.0.0.1", MAX + 1));

	/* The window began with the first refusal; what came after does not make it longer. */
	clock_fake_advance_ms(&clock, ATTEMPTS_WINDOW_MS - MAX * 1000 - 1);
	assert_false(attempts_allowed(a, "10.0.0.1", MAX));
	clock_fake_advance_ms(&clock, 1);
	assert_true(attempts_allowed(a, "10.0.0.1", MAX));
	attempts_refused(a, "10.0.0.1");
	assert_true(attempts_allowed(a, "10.0.0.1", 2));
	attempts_free(a);
	attempts_free(NULL);
}

static void addresses_of_one_host_count_together(void **state)
{
	(void)state;
	static const char *const held_off[] = {
		"2001:db8:0:1::1", "2001:db8:0:1:ffff::", "10.0.0.2", "::ffff:10.0.0.2"};
	struct clock_fake clock;
	struct attempts *a;
	struct err e = ERR_INIT;
	clock_fake_init(&clock, (struct wall){1});
	assert_int_equal(attempts_new(&clock.clock, &a, &e), 0);
	for (unsigned i = 0; i < MAX; i++) {
		char address[32];
		snprintf(address, sizeof(address), "2001:db8:0:1::%x", 100 + i);
		attempts_refused(a, address);
		attempts_refused(a, i ? "10.0.0.2" : "::ffff:10.0.0.2");
	}
	for (size_t i = 0; i < ARRAY_LEN(held_off); i++)
		assert_false(attempts_allowed(a, held_off[i], MAX));
	attempts_free(a);
}

/* One address more than there is room for: most of the others are still listened to. */
static void others_are_not_held_off(void **state)
{
	(void)state;
	struct clock_fake clock;
	struct attempts *a;
	struct err e = ERR_INIT;
	clock_fake_init(&clock, (struct wall){1});
	assert_int_equal(attempts_new(&clock.clock, &a, &e), 0);
	for (unsigned i = 0; i < MAX; i++)
		attempts_refused(a, "10.0.0.1");
	unsigned held_off = 0;
	for (unsigned i = 0; i < 256; i++) {
		char address[32];
		snprintf(address, sizeof(address), i % 2 ? "10.1.0.%u" : "2001:db8:0:%x::1", i);
		held_off += !attempts_allowed(a, address, MAX);
	}
	assert_true(held_off < 8);
	attempts_free(a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(held_off_and_let_in_again),
		cmocka_unit_test(addresses_of_one_host_count_together),
		cmocka_unit_test(others_are_not_held_off),
	};
	return cmocka_run_group_tests_name("server attempts", tests, NULL, NULL);
}
