/* scrape_test.c - Prometheus text taken apart; histograms subtracted and read off. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cli/load/scrape.h"

static const char text[] = "# HELP a_total what\n"
			   "# TYPE a_total counter\n"
			   "a_total{result=\"stored\",part=\"1\"} 5\n"
			   "a_total{part=\"2\",result=\"stored\"} 7\n"
			   "a_total{result=\"duplicate\"} 100\n"
			   "a_total_of_another 1000\n"
			   "plain 1.5e3\n"
			   "broken{x=\"1\" 3\n"
			   "broken\n"
			   "broken x\n"
			   "\n"
			   "h_seconds_bucket{le=\"0.1\"} 10\n"
			   "h_seconds_bucket{le=\"0.2\"} 30\n"
			   "h_seconds_bucket{le=\"+Inf\"} 40\n"
			   "h_seconds_sum 4\n"
			   "h_seconds_count 40";

static void test_sums(void **state)
{
	static const struct {
		const char *name, *label, *value;
		double sum;
	} cases[] = {
		{"a_total", NULL, NULL, 112},
		{"a_total", "result", "stored", 12},
		{"a_total", "part", "2", 7},
		{"a_total", "part", "3", 0},
		{"a_total", "nothing", "", 112}, /* as Prometheus has it: no label is an empty one */
		{"plain", NULL, NULL, 1500},
		{"broken", NULL, NULL, 0},
		{"h_seconds_count", NULL, NULL, 40},
	};
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		assert_true(scrape_sum(str_of(text), cases[i].name, cases[i].label, cases[i].value) ==
			    cases[i].sum);
}

static bool about(double a, double b)
{
	return a > b - 1e-9 && a < b + 1e-9;
}

static void test_percentiles(void **state)
{
	struct scrape_histogram h = {.count = 0};
	(void)state;
	assert_true(about(scrape_percentile(&h, 50), 0));
	scrape_histogram_add(&h, str_of(text), "h_seconds", 1);
	assert_int_equal(h.count, 3);
	assert_true(about(scrape_percentile(&h, 25), 0.1));
	assert_true(about(scrape_percentile(&h, 12.5), 0.05));
	assert_true(about(scrape_percentile(&h, 50), 0.15));
	assert_true(about(scrape_percentile(&h, 75), 0.2));
	assert_true(about(scrape_percentile(&h, 99), 0.2)); /* past the last bound nothing is known */
	scrape_histogram_add(&h,
		str_of("h_seconds_bucket{le=\"0.1\"} 10\nh_seconds_bucket{le=\"0.2\"} 10\n"
		       "h_seconds_bucket{le=\"+Inf\"} 10\n"),
		"h_seconds", -1);
	assert_true(about(scrape_percentile(&h, 1), 0.1 + 0.1 * 0.3 / 20));
	assert_true(about(scrape_percentile(&h, 50), 0.175));
}

static void test_two_of_a_kind_add_up(void **state)
{
	struct scrape_histogram h = {.count = 0};
	(void)state;
	for (int i = 0; i < 2; i++)
		scrape_histogram_add(&h, str_of(text), "h_seconds", 1);
	assert_int_equal(h.count, 3);
	assert_true(about(h.upto[2], 80));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sums),
		cmocka_unit_test(test_percentiles),
		cmocka_unit_test(test_two_of_a_kind_add_up),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
