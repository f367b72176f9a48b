/* breaker_test.c - the breaker's moves, with time given by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "worker/breaker.h"

static const struct mono start = {1000000000};
static const struct breaker_options options = {
	.pause_ms = 100, .pause_max_ms = 10000, .retry_after_max_ms = 60000, .batch = 8};
static const struct err away = {.kind = ERR_RETRY, .text = "away"};

static bool go_away(struct breaker *b, struct mono now, uint64_t random)
{
	struct breaker_grant g = breaker_allow(b, now);
	assert_true(g.max > 0);
	return breaker_failure(b, &g, now, random, &away);
}

static bool come_back(struct breaker *b, struct mono now, unsigned expected_max)
{
	struct breaker_grant g = breaker_allow(b, now);
	assert_int_equal(g.max, expected_max);
	return breaker_success(b, &g);
}

static void opens_once_and_says_so_once(void **state)
{
	(void)state;
	struct breaker b;
	breaker_init(&b, &options);
	struct breaker_grant first = breaker_allow(&b, start), second = breaker_allow(&b, start);
	assert_int_equal(first.max, 8);
	assert_int_equal(second.max, 8);
	assert_true(breaker_failure(&b, &first, start, 0, &away));
	assert_false(breaker_failure(&b, &second, start, 0, &away));
	struct breaker_grant g = breaker_allow(&b, start);
	assert_int_equal(g.max, 0);
	assert_in_range(g.wait_ms, 50, 101);
	char trouble[32];
	assert_int_equal(breaker_state(&b, trouble, sizeof(trouble)), BREAKER_OPEN);
	assert_string_equal(trouble, "away");
	breaker_clear(&b);
}

static void half_open_lets_one_message_through(void **state)
{
	(void)state;
	struct breaker b;
	breaker_init(&b, &options);
	go_away(&b, start, 0);
	struct mono later = mono_add_ms(start, 1000);
	struct breaker_grant probe = breaker_allow(&b, later), other = breaker_allow(&b, later);
	assert_int_equal(probe.max, 1);
	assert_int_equal(other.max, 0);
	assert_true(other.wait_ms > 0);
	assert_int_equal(breaker_state(&b, NULL, 0), BREAKER_HALF_OPEN);
	assert_true(breaker_success(&b, &probe));
	assert_int_equal(breaker_state(&b, NULL, 0), BREAKER_CLOSED);
	breaker_clear(&b);
}

static void comes_back_slowly_and_one_at_a_time(void **state)
{
	(void)state;
	struct breaker b;
	breaker_init(&b, &options);
	go_away(&b, start, 0);
	struct mono later = mono_add_ms(start, 1000);
	assert_true(come_back(&b, later, 1));
	assert_false(come_back(&b, later, 2));
	struct breaker_grant g = breaker_allow(&b, later);
	assert_int_equal(g.max, 4);
	assert_int_equal(breaker_allow(&b, later).max, 0);
	breaker_unused(&b, &g);
	assert_false(come_back(&b, later, 4));
	/* At full size nobody waits for anybody. */
	assert_int_equal(breaker_allow(&b, later).max, 8);
	assert_int_equal(breaker_allow(&b, later).max, 8);
	breaker_clear(&b);
}

static void a_failure_in_the_slow_start_starts_over(void **state)
{
	(void)state;
	struct breaker b;
	breaker_init(&b, &options);
	go_away(&b, start, 0);
	struct mono later = mono_add_ms(start, 1000);
	come_back(&b, later, 1);
	come_back(&b, later, 2);
	assert_true(go_away(&b, later, 0));
	assert_int_equal(breaker_allow(&b, later).max, 0);
	later = mono_add_ms(later, 1000);
	assert_true(come_back(&b, later, 1));
	assert_false(come_back(&b, later, 2));
	breaker_clear(&b);
}

static void pauses_grow_to_their_ceiling_and_start_over(void **state)
{
	(void)state;
	struct breaker b;
	struct mono now = start;
	int64_t last_ms = 0;
	breaker_init(&b, &options);
	for (int i = 0; i < 12; i++) {
		go_away(&b, now, UINT64_MAX);
		struct breaker_grant g = breaker_allow(&b, now);
		assert_int_equal(g.max, 0);
		assert_true(g.wait_ms >= last_ms / 2);
		assert_true(g.wait_ms <= 10001);
		last_ms = g.wait_ms;
		now = mono_add_ms(now, g.wait_ms);
	}
	assert_true(last_ms >= 5000);
	come_back(&b, now, 1);
	go_away(&b, now, 0);
	assert_true(breaker_allow(&b, now).wait_ms <= 101);
	breaker_clear(&b);
}

static void a_pause_asked_for_is_kept_within_its_bound(void **state)
{
	(void)state;
	static const struct {
		int64_t asked_ms, least_ms, most_ms;
	} cases[] = {{0, 50, 101}, {40, 50, 101}, {5000, 5000, 5101}, {60000, 60000, 60101},
		{INT64_MAX, 60000, 60101}};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct breaker b;
		struct err busy = {.kind = ERR_RETRY, .retry_after_ms = cases[i].asked_ms, .text = "busy"};
		breaker_init(&b, &options);
		struct breaker_grant g = breaker_allow(&b, start);
		assert_true(breaker_failure(&b, &g, start, 25, &busy));
		assert_in_range(breaker_allow(&b, start).wait_ms, cases[i].least_ms, cases[i].most_ms);
		breaker_clear(&b);
	}
}

static void an_unused_probe_may_be_asked_for_again(void **state)
{
	(void)state;
	struct breaker b;
	breaker_init(&b, &options);
	go_away(&b, start, 0);
	struct mono later = mono_add_ms(start, 1000);
	struct breaker_grant g = breaker_allow(&b, later);
	assert_int_equal(g.max, 1);
	breaker_unused(&b, &g);
	assert_int_equal(breaker_state(&b, NULL, 0), BREAKER_OPEN);
	assert_int_equal(breaker_allow(&b, later).max, 1);
	breaker_clear(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(opens_once_and_says_so_once),
		cmocka_unit_test(half_open_lets_one_message_through),
		cmocka_unit_test(comes_back_slowly_and_one_at_a_time),
		cmocka_unit_test(a_failure_in_the_slow_start_starts_over),
		cmocka_unit_test(pauses_grow_to_their_ceiling_and_start_over),
		cmocka_unit_test(a_pause_asked_for_is_kept_within_its_bound),
		cmocka_unit_test(an_unused_probe_may_be_asked_for_again),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
