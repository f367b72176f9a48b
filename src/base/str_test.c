/* str_test.c */
#include "base/str.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static const struct str nothing = {NULL, 0};

static void compares(void **state)
{
	assert_true(str_eq(nothing, STR("")));
	assert_true(str_eq(STR("a\0b"), STR("a\0b")));
	assert_false(str_eq(STR("a\0b"), STR("a\0c")));
	assert_false(str_eq(STR("a"), STR("ab")));
	assert_true(str_eq_nocase(STR("Content-LENGTH"), STR("content-length")));
	assert_false(str_eq_nocase(STR("@[`{"), STR("`{@[")));
	assert_false(str_eq_nocase(STR("\xc3\x84"), STR("\xc3\xa4")));
	assert_true(str_starts(STR("abc"), STR("ab")));
	assert_true(str_starts(STR("abc"), nothing));
	assert_false(str_starts(STR("ab"), STR("abc")));
	assert_true(str_cmp(STR("a"), STR("b")) < 0);
	assert_true(str_cmp(STR("ab"), STR("a")) > 0);
	assert_true(str_cmp(STR("\xff"), STR("a")) > 0);
	assert_int_equal(str_cmp(nothing, STR("")), 0);
	assert_int_equal(str_of(NULL).n, 0);
}

static void trims(void **state)
{
	assert_true(str_eq(str_trim(STR(" \t a b \t")), STR("a b")));
	assert_true(str_eq(str_trim(STR("\r\na")), STR("\r\na")));
	assert_int_equal(str_trim(STR("  ")).n, 0);
	assert_int_equal(str_trim(nothing).n, 0);
}

static void cuts(void **state)
{
	struct str s = STR("a=b=c"), head = nothing;
	assert_true(str_cut(&s, '=', &head));
	assert_true(str_eq(head, STR("a")) && str_eq(s, STR("b=c")));
	assert_true(str_cut(&s, '=', &head));
	assert_false(str_cut(&s, '=', &head));
	assert_true(str_eq(head, STR("b")) && str_eq(s, STR("c")));
	s = STR("=");
	assert_true(str_cut(&s, '=', &head));
	assert_true(head.n == 0 && s.n == 0);
	assert_false(str_cut(&s, '=', &head));
}

static void parses_unsigned(void **state)
{
	static const struct {
		struct str text;
		bool good;
		uint64_t value;
	} rows[] = {
		{STR("0"), true, 0},
		{STR("007"), true, 7},
		{STR("18446744073709551615"), true, UINT64_MAX},
		{STR("18446744073709551616"), false, 0},
		{STR("99999999999999999999"), false, 0},
		{STR(""), false, 0},
		{STR("+1"), false, 0},
		{STR("-1"), false, 0},
		{STR(" 1"), false, 0},
		{STR("1 "), false, 0},
		{STR("1\0"), false, 0},
		{STR("0x1"), false, 0},
		{STR("1e3"), false, 0},
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		uint64_t value = 42;
		assert_int_equal(str_to_u64(rows[i].text, &value), rows[i].good);
		assert_int_equal(value, rows[i].good ? rows[i].value : 42);
	}
}

static void parses_signed(void **state)
{
	static const struct {
		struct str text;
		bool good;
		int64_t value;
	} rows[] = {
		{STR("-0"), true, 0},
		{STR("9223372036854775807"), true, INT64_MAX},
		{STR("9223372036854775808"), false, 0},
		{STR("-9223372036854775807"), true, -INT64_MAX},
		{STR("-9223372036854775808"), true, INT64_MIN},
		{STR("-9223372036854775809"), false, 0},
		{STR("-"), false, 0},
		{STR("--1"), false, 0},
		{STR(""), false, 0},
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		int64_t value = 42;
		assert_int_equal(str_to_i64(rows[i].text, &value), rows[i].good);
		assert_true(value == (rows[i].good ? rows[i].value : 42));
	}
}

static void converts_hex(void **state)
{
	unsigned char bytes[3] = {1, 2, 3};
	char text[7];
	hex_encode("\x00\xff\x1a", 3, text);
	assert_string_equal(text, "00ff1a");
	assert_true(hex_decode(STR("00fF1A"), bytes, 3));
	assert_memory_equal(bytes, "\x00\xff\x1a", 3);
	static const struct str bad[] = {STR("00ff1"), STR("00ff1a0"), STR("00ff1g"), STR("00ff 1"), STR("")};
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_false(hex_decode(bad[i], bytes, 3));
	assert_memory_equal(bytes, "\x00\xff\x1a", 3);
	assert_true(hex_decode(nothing, bytes, 0));
}

static void compares_in_constant_time(void **state)
{
	assert_true(bytes_eq_consttime("abc", "abc", 3));
	assert_false(bytes_eq_consttime("abc", "abd", 3));
	assert_false(bytes_eq_consttime("\x00", "\x80", 1));
	assert_true(bytes_eq_consttime("a", "b", 0));
}

/* RFC 3629, and the limits of every range in its section 4. */
static void validates_utf8(void **state)
{
	static const struct {
		struct str text;
		int points; /* -1: not valid */
	} rows[] = {
		{STR(""), 0},
		{STR("\0\x7f"), 2},
		{STR("0123456789abcdef"), 16},
		{STR("0123456\xc3\xa9 9"), 10},
		{STR("\xc2\x80\xdf\xbf"), 2},
		{STR("\xe0\xa0\x80\xec\xbf\xbf\xed\x80\x80\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbf"), 6},
		{STR("\xf0\x90\x80\x80\xf3\xbf\xbf\xbf\xf4\x8f\xbf\xbf"), 3},
		{STR("\x80"), -1},
		{STR("\xbf"), -1},
		{STR("\xc0\x80"), -1},
		{STR("\xc1\xbf"), -1},
		{STR("\xc2\x7f"), -1},
		{STR("\xc2\xc0"), -1},
		{STR("\xe0\x9f\xbf"), -1},
		{STR("\xed\xa0\x80"), -1},
		{STR("\xed\xbf\xbf"), -1},
		{STR("\xe1\x80\x7f"), -1},
		{STR("\xf0\x8f\xbf\xbf"), -1},
		{STR("\xf4\x90\x80\x80"), -1},
		{STR("\xf5\x80\x80\x80"), -1},
		{STR("\xff"), -1},
		{STR("12345678\xff"), -1},
		{STR("\xc3"), -1},
		{STR("\xe2\x82"), -1},
		{STR("\xf0\x9f\x98"), -1},
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		size_t points = 1000;
		bool good = utf8_valid(rows[i].text, &points);
		assert_int_equal(good, rows[i].points >= 0);
		assert_int_equal(points, good ? (size_t)rows[i].points : 1000);
		assert_int_equal(utf8_valid(rows[i].text, NULL), good);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(compares),
		cmocka_unit_test(trims),
		cmocka_unit_test(cuts),
		cmocka_unit_test(parses_unsigned),
		cmocka_unit_test(parses_signed),
		cmocka_unit_test(converts_hex),
		cmocka_unit_test(compares_in_constant_time),
		cmocka_unit_test(validates_utf8),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
