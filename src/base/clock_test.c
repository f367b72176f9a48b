/* clock_test.c - dates are checked against the C library's calendar. */
#include "base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

#include <cmocka.h>

static void formats(void **state)
{
	static const struct {
		int64_t ms;
		const char *text;
	} rows[] = {
		{0, "1970-01-01T00:00:00.000Z"},
		{-1, "1969-12-31T23:59:59.999Z"},
		{1795339800123, "2026-11-22T09:30:00.123Z"},
		{951782400000, "2000-02-29T00:00:00.000Z"},
		{-2203891200000, "1900-03-01T00:00:00.000Z"},
		{253402300799999, "9999-12-31T23:59:59.999Z"},
		{253402300800000, "9999-12-31T23:59:59.999Z"},
		{INT64_MAX, "9999-12-31T23:59:59.999Z"},
		{-62167219200000, "0000-01-01T00:00:00.000Z"},
		{-62167219200001, "0000-01-01T00:00:00.000Z"},
		{INT64_MIN, "0000-01-01T00:00:00.000Z"},
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		char text[RFC3339_BYTES];
		wall_format((struct wall){rows[i].ms}, text);
		assert_string_equal(text, rows[i].text);
	}
}

static void agrees_with_the_c_library(void **state)
{
	for (int64_t s = -62167219200; s < 253402300800; s += 86400 * 97 + 12345) {
		char ours[RFC3339_BYTES], theirs[64];
		struct tm tm;
		time_t t = s;
		assert_non_null(gmtime_r(&t, &tm));
		snprintf(theirs, sizeof(theirs), "%04d-%02d-%02dT%02d:%02d:%02d.000Z", tm.tm_year + 1900,
			tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec);
		wall_format((struct wall){s * 1000}, ours);
		assert_string_equal(ours, theirs);
		struct wall back;
		assert_true(wall_parse(str_of(ours), &back));
		assert_true(back.ms == s * 1000);
	}
}

static void parses(void **state)
{
	static const struct {
		const char *text;
		int64_t ms;
	} rows[] = {
		{"2026-11-22T09:30:00Z", 1795339800000},
		{"2026-11-22t09:30:00z", 1795339800000},
		{"2026-11-22 09:30:00Z", 1795339800000},
		{"2026-11-22T09:30:00.1Z", 1795339800100},
		{"2026-11-22T09:30:00.123999999999Z", 1795339800123},
		{"2026-11-22T10:30:00+01:00", 1795339800000},
		{"2026-11-22T04:00:00-05:30", 1795339800000},
		{"2026-11-22T09:30:00-00:00", 1795339800000},
		{"2024-02-29T00:00:00Z", 1709164800000},
		{"2000-02-29T00:00:00Z", 951782400000},
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct wall t;
		if (!wall_parse(str_of(rows[i].text), &t))
			fail_msg("%s is refused", rows[i].text);
		assert_true(t.ms == rows[i].ms);
	}
}

static void refuses(void **state)
{
	static const char *const texts[] = {"", "2026-11-22", "2026-11-22T09:30Z", "2026-11-22T09:30:00",
		"2026-11-22T09:30:00.Z", "2026-11-22T09:30:00,1Z", "2026-11-22T09:30:00Zx",
		"2026-11-22T09:30:00 Z", " 2026-11-22T09:30:00Z", "2026-00-22T09:30:00Z",
		"2026-13-22T09:30:00Z", "2026-11-00T09:30:00Z", "2026-11-31T09:30:00Z",
		"2023-02-29T09:30:00Z", "1900-02-29T09:30:00Z", "2026-11-22T24:00:00Z",
		"2026-11-22T09:60:00Z", "2026-11-22T09:30:60Z", "2026-11-22T09:30:00+24:00",
		"2026-11-22T09:30:00+01:60", "2026-11-22T09:30:00+0100", "2026-11-22T09:30:00+1:00",
		"26-11-22T09:30:00Z", "2026/11/22T09:30:00Z", "2026-11-22T9:30:00Z", "-026-11-22T09:30:00Z"};
	struct wall t = {42};
	for (size_t i = 0; i < ARRAY_LEN(texts); i++)
		if (wall_parse(str_of(texts[i]), &t))
			fail_msg("%s is taken", texts[i]);
	assert_false(wall_parse(STR("2026-11-22T09:30:00\0"), &t));
	assert_false(wall_parse(STR("2026-11-22\00009:30:00Z"), &t));
	assert_int_equal(t.ms, 42);
}

static void counts_durations(void **state)
{
	struct mono t = {5000000000};
	assert_int_equal(mono_add_ms(t, 1500).ns, 6500000000);
	assert_int_equal(mono_diff_ms((struct mono){1999999}, (struct mono){0}), 1);
	assert_int_equal(mono_diff_ms((struct mono){0}, (struct mono){1}), -1);
	assert_int_equal(mono_diff_ms((struct mono){0}, (struct mono){1000000}), -1);
	assert_int_equal(mono_diff_ms((struct mono){0}, (struct mono){1000001}), -2);
	assert_true(mono_reached(t, t));
	assert_false(mono_reached(t, mono_add_ms(t, 1)));
}

static void fake_moves_by_hand(void **state)
{
	struct clock_fake fake;
	clock_fake_init(&fake, (struct wall){1000});
	struct mono start = clock_mono(&fake.clock);
	assert_int_equal(clock_wall(&fake.clock).ms, 1000);
	clock_fake_advance_ms(&fake, 250);
	assert_int_equal(clock_wall(&fake.clock).ms, 1250);
	assert_int_equal(mono_diff_ms(clock_mono(&fake.clock), start), 250);
	fake.now.ms = 5; /* somebody sets the clock back */
	assert_int_equal(mono_diff_ms(clock_mono(&fake.clock), start), 250);
}

static void system_goes_on(void **state)
{
	struct mono a = clock_mono(&clock_system), b = clock_mono(&clock_system);
	assert_true(mono_reached(b, a));
	assert_true(clock_wall(&clock_system).ms > 1700000000000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(formats),
		cmocka_unit_test(agrees_with_the_c_library),
		cmocka_unit_test(parses),
		cmocka_unit_test(refuses),
		cmocka_unit_test(counts_durations),
		cmocka_unit_test(fake_moves_by_hand),
		cmocka_unit_test(system_goes_on),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
