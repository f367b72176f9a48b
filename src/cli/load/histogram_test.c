/* histogram_test.c - percentiles against exact ones, over the whole range of durations. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cli/load/histogram.h"

static struct histogram first, second;

static struct histogram *fresh(struct histogram *h)
{
	*h = (struct histogram){.count = 0};
	return h;
}

static void test_empty(void **state)
{
	struct histogram *h = fresh(&first);
	assert_int_equal(histogram_percentile(h, 50), 0);
	assert_int_equal(histogram_percentile(h, 100), 0);
}

/* Whatever the value, what is reported lies at most 1/64 above it. */
static void test_precision(void **state)
{
	for (int64_t v = 1; v < (int64_t)1 << HISTOGRAM_VALUE_BITS; v = v * 9 / 8 + 1) {
		struct histogram *h = fresh(&first);
		histogram_add(h, v);
		histogram_add(h, INT64_MAX);
		int64_t p50 = histogram_percentile(h, 50);
		assert_true(p50 >= v);
		assert_true(p50 - v <= v / 64);
	}
}

static void test_percentiles(void **state)
{
	struct histogram *h = fresh(&first);
	for (int64_t v = 1; v <= 10000; v++)
		histogram_add(h, v * 1000);
	const struct {
		double percent;
		int64_t exact;
	} cases[] = {{50, 5000000}, {90, 9000000}, {99, 9900000}, {99.9, 9990000}, {100, 10000000}};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		int64_t got = histogram_percentile(h, cases[i].percent);
		assert_true(got >= cases[i].exact);
		assert_true(got - cases[i].exact <= cases[i].exact / 64);
	}
	assert_int_equal(h->max_ns, 10000000);
}

static void test_edges(void **state)
{
	struct histogram *h = fresh(&first);
	histogram_add(h, -5);
	assert_int_equal(histogram_percentile(h, 100), 0);
	histogram_add(h, 0);
	histogram_add(h, INT64_MAX);
	assert_int_equal(h->count, 3);
	assert_int_equal(histogram_percentile(h, 50), 0);
	assert_int_equal(h->max_ns, INT64_MAX);
}

static void test_merge(void **state)
{
	struct histogram *a = fresh(&first);
	struct histogram *b = fresh(&second);
	histogram_add(a, 10);
	histogram_add(b, 20);
	histogram_add(b, 30);
	histogram_merge(a, b);
	assert_int_equal(a->count, 3);
	assert_int_equal(histogram_percentile(a, 50), 20);
	assert_int_equal(histogram_percentile(a, 100), 30);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_empty),
		cmocka_unit_test(test_precision),
		cmocka_unit_test(test_percentiles),
		cmocka_unit_test(test_edges),
		cmocka_unit_test(test_merge),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
