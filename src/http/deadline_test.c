/* Time is whatever the test says; nothing here reads a clock. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/macros.h"
#include "http/deadline.h"

struct watched {
	struct deadline deadline;
	unsigned expired_count;
	struct watched *clears; /* when it expires */
};

static void on_expired(struct deadline *d)
{
	struct watched *w = container_of(d, struct watched, deadline);
	assert_false(deadline_is_set(d));
	w->expired_count++;
	if (w->clears)
		deadline_clear(&w->clears->deadline);
}

static struct mono at_ms(int64_t ms)
{
	return mono_add_ms((struct mono){0}, ms);
}

static void expire_in_time(void **state)
{
	/* Not in order, as when a limit was lowered in between. */
	static const int64_t times_ms[] = {100, 300, 200, 50, 300};
	struct deadlines ds;
	struct watched w[ARRAY_LEN(times_ms)] = {{.expired_count = 0}};
	deadlines_init(&ds);
	for (size_t i = 0; i < ARRAY_LEN(w); i++) {
		deadline_init(&w[i].deadline, on_expired);
		deadline_set(&ds, &w[i].deadline, i % 2 ? DEADLINE_IDLE : DEADLINE_BODY, at_ms(times_ms[i]));
	}
	for (int64_t now = 0; now <= 300; now += 10) {
		deadlines_run(&ds, at_ms(now));
		for (size_t i = 0; i < ARRAY_LEN(w); i++)
			assert_int_equal(w[i].expired_count, now >= times_ms[i]);
	}
}

static void moved_and_cleared(void **state)
{
	struct deadlines ds;
	struct watched moved = {.expired_count = 0}, cleared = moved, first = {.clears = &cleared};
	deadlines_init(&ds);
	deadline_init(&moved.deadline, on_expired);
	deadline_init(&cleared.deadline, on_expired);
	deadline_init(&first.deadline, on_expired);
	deadline_clear(&moved.deadline); /* was never set */
	deadline_set(&ds, &first.deadline, DEADLINE_HEAD, at_ms(10));
	deadline_set(&ds, &moved.deadline, DEADLINE_HEAD, at_ms(10));
	deadline_set(&ds, &cleared.deadline, DEADLINE_HEAD, at_ms(10));
	deadline_set(&ds, &moved.deadline, DEADLINE_WRITE, at_ms(20));
	deadlines_run(&ds, at_ms(10));
	assert_int_equal(first.expired_count, 1);
	assert_int_equal(moved.expired_count, 0);
	assert_int_equal(cleared.expired_count, 0);
	deadlines_run(&ds, at_ms(20));
	assert_int_equal(moved.expired_count, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(expire_in_time),
		cmocka_unit_test(moved_and_cleared),
	};
	return cmocka_run_group_tests_name("http_deadline", tests, NULL, NULL);
}
