#include "message/json_reader.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "base/auto.h"
#include "message/json_yardstick.h"

#define TEXT(lit)                                                                                            \
	{                                                                                                    \
		lit, sizeof(lit) - 1                                                                         \
	}

/* Texts that RFC 8259 allows. */
static const struct str valid[] = {
	TEXT("{}"),
	TEXT("[]"),
	TEXT("\"\""),
	TEXT("0"),
	TEXT("true"),
	TEXT("false"),
	TEXT("null"),
	TEXT(" \t\r\n[ \t\r\n1 \t\r\n, \t\r\n2 \t\r\n] \t\r\n"),
	TEXT(" { \"a\" : 1 , \"b\" : 2 } "),
	TEXT("[[],[[]],{}]"),
	TEXT("{\"a\":{\"b\":{\"c\":[]}}}"),
	TEXT("[{},{\"a\":[{}]},[]]"),
	/* one name in different objects is not a duplicate */
	TEXT("{\"a\":{\"a\":{\"a\":1}},\"b\":{\"a\":2}}"),
	TEXT("[{\"a\":1},{\"a\":1}]"),
	TEXT("{\"a\":1,\"A\":2,\"\":3,\" \":4}"),
	TEXT("{\"a\":1,\"\\u0062\":2}"),
	/* numbers */
	TEXT("-0"),
	TEXT("-1"),
	TEXT("12345"),
	TEXT("0.0"),
	TEXT("-0.0"),
	TEXT("1.5"),
	TEXT("0.00001"),
	TEXT("1e5"),
	TEXT("1E5"),
	TEXT("1e+5"),
	TEXT("1e-5"),
	TEXT("1E+05"),
	TEXT("0e0"),
	TEXT("0e+0"),
	TEXT("-0e-0"),
	TEXT("1.5e10"),
	TEXT("123.456E-78"),
	TEXT("[0,1,-2,3.0]"),
	TEXT("9223372036854775807"),
	TEXT("1e-400"),
	TEXT("20000000000000000000000000000000"),
	TEXT("1e400"),
	TEXT("-1e400"),
	/* escapes */
	TEXT("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\""),
	TEXT("\"\\u0041\\u00e4\\u20AC\\ud83d\\ude00\""),
	TEXT("\"\\uD800\\uDC00\\uDBFF\\uDFFF\""),
	TEXT("\"\\uFFFF\\uFFFE\\uFDD0\""),
	TEXT("\"\\u0000\""),
	TEXT("{\"\\u0000\":1}"),
	TEXT("\"a\\u0000b\""),
	TEXT("\"\\\\u0041\""),
	TEXT("\"\\\\\""),
	TEXT("\"/\""),
	TEXT("\"\\u001f\\u007f\""),
	TEXT("\"\\uABCD\\uabcd\""),
	/* raw characters */
	TEXT("\"\x7f\""),
	TEXT("\"\xc2\x80\""),
	TEXT("\"\xdf\xbf\""),
	TEXT("\"\xe0\xa0\x80\""),
	TEXT("\"\xed\x9f\xbf\""),
	TEXT("\"\xee\x80\x80\""),
	TEXT("\"\xef\xbf\xbf\""),
	TEXT("\"\xf0\x90\x80\x80\""),
	TEXT("\"\xf4\x8f\xbf\xbf\""),
	TEXT("\"\xef\xbb\xbf\""),
	TEXT("\"\xe2\x80\xa8\xe2\x80\xa9\""),
	TEXT("{\"\xc3\xa4\":\"\xf0\x9f\x98\x80\"}"),
	/* around the eight-byte steps of the string scanner */
	TEXT("\"1234567\""),
	TEXT("\"12345678\""),
	TEXT("\"123456789\""),
	TEXT("\"1234567\\n\""),
	TEXT("\"12345678\\n\""),
	TEXT("\"123456\\u00e4789\""),
	TEXT("\"1234567\xc3\xa4\""),
	TEXT("\"123456789012345\xe2\x82\xac\""),
};

/* Texts that it does not allow, or that have a name twice, and how the reader puts it (READER_OK: the
 * duplicate). */
static const struct {
	struct str text;
	enum reader_error error;
} invalid[] = {
	/* nothing, not enough, too much */
	{TEXT(""), READER_MALFORMED},
	{TEXT(" "), READER_MALFORMED},
	{TEXT("\n"), READER_MALFORMED},
	{TEXT("1 2"), READER_TRAILING},
	{TEXT("{}{}"), READER_TRAILING},
	{TEXT("[]]"), READER_TRAILING},
	{TEXT("{}}"), READER_TRAILING},
	{TEXT("null\0"), READER_TRAILING},
	{TEXT("[],"), READER_TRAILING},
	{TEXT("\"\"\"\""), READER_TRAILING},
	{TEXT("{} x"), READER_TRAILING},
	{TEXT("truefalse"), READER_TRAILING},
	{TEXT("{}\xff"), READER_INVALID_UTF8},
	{TEXT("[]#"), READER_TRAILING},
	{TEXT("[]//"), READER_TRAILING},
	/* arrays */
	{TEXT("["), READER_MALFORMED},
	{TEXT("]"), READER_MALFORMED},
	{TEXT("[1"), READER_MALFORMED},
	{TEXT("[1,"), READER_MALFORMED},
	{TEXT("[1,]"), READER_MALFORMED},
	{TEXT("[,1]"), READER_MALFORMED},
	{TEXT("[,]"), READER_MALFORMED},
	{TEXT("[1,,2]"), READER_MALFORMED},
	{TEXT("[1 2]"), READER_MALFORMED},
	{TEXT("[1:2]"), READER_MALFORMED},
	{TEXT("[1}"), READER_MALFORMED},
	{TEXT("[1;2]"), READER_MALFORMED},
	{TEXT("[\"a\":1]"), READER_MALFORMED},
	{TEXT("[[]"), READER_MALFORMED},
	{TEXT("[\0]"), READER_MALFORMED},
	{TEXT("[1\f]"), READER_MALFORMED},
	{TEXT("[\v1]"), READER_MALFORMED},
	{TEXT("[\xc2\xa0]"), READER_MALFORMED},
	/* objects */
	{TEXT("{"), READER_MALFORMED},
	{TEXT("}"), READER_MALFORMED},
	{TEXT("{\"a\""), READER_MALFORMED},
	{TEXT("{\"a\":"), READER_MALFORMED},
	{TEXT("{\"a\":1"), READER_MALFORMED},
	{TEXT("{\"a\":1,"), READER_MALFORMED},
	{TEXT("{\"a\":1,}"), READER_MALFORMED},
	{TEXT("{,}"), READER_MALFORMED},
	{TEXT("{\"a\"}"), READER_MALFORMED},
	{TEXT("{\"a\" 1}"), READER_MALFORMED},
	{TEXT("{\"a\"::1}"), READER_MALFORMED},
	{TEXT("{\"a\":}"), READER_MALFORMED},
	{TEXT("{a:1}"), READER_MALFORMED},
	{TEXT("{'a':1}"), READER_MALFORMED},
	{TEXT("{1:1}"), READER_MALFORMED},
	{TEXT("{null:1}"), READER_MALFORMED},
	{TEXT("{[]:1}"), READER_MALFORMED},
	{TEXT("{\"a\":1 \"b\":2}"), READER_MALFORMED},
	{TEXT("{\"a\":1]"), READER_MALFORMED},
	{TEXT("{\"a\",\"b\"}"), READER_MALFORMED},
	{TEXT("{\"a\":1,,\"b\":2}"), READER_MALFORMED},
	{TEXT("{\"a\":/**/1}"), READER_MALFORMED},
	{TEXT("{\"a\":1//\n}"), READER_MALFORMED},
	{TEXT("{\"a\"=1}"), READER_MALFORMED},
	/* duplicates */
	{TEXT("{\"a\":1,\"a\":1}"), READER_OK},
	{TEXT("{\"a\":1,\"\\u0061\":2}"), READER_OK},
	{TEXT("{\"\":1,\"\":2}"), READER_OK},
	{TEXT("[{\"b\":{\"a\":1,\"c\":2,\"a\":3}}]"), READER_OK},
	{TEXT("{\"a\":{},\"b\":1,\"a\":{}}"), READER_OK},
	{TEXT("{\"\\ud83d\\ude00\":1,\"\xf0\x9f\x98\x80\":1}"), READER_OK},
	{TEXT("{\"/\":1,\"\\/\":1}"), READER_OK},
	/* literals */
	{TEXT("tru"), READER_MALFORMED},
	{TEXT("t"), READER_MALFORMED},
	{TEXT("nul"), READER_MALFORMED},
	{TEXT("True"), READER_MALFORMED},
	{TEXT("TRUE"), READER_MALFORMED},
	{TEXT("undefined"), READER_MALFORMED},
	{TEXT("[trux]"), READER_MALFORMED},
	{TEXT("[truee]"), READER_MALFORMED},
	{TEXT("nan"), READER_MALFORMED},
	{TEXT("NaN"), READER_MALFORMED},
	{TEXT("Infinity"), READER_MALFORMED},
	{TEXT("-Infinity"), READER_MALFORMED},
	{TEXT("'a'"), READER_MALFORMED},
	{TEXT("a"), READER_MALFORMED},
	{TEXT("\xe2\x80\x9cx\xe2\x80\x9d"), READER_MALFORMED},
	/* numbers */
	{TEXT("-"), READER_MALFORMED},
	{TEXT("+1"), READER_MALFORMED},
	{TEXT("01"), READER_TRAILING},
	{TEXT("-01"), READER_TRAILING},
	{TEXT("00"), READER_TRAILING},
	{TEXT("1."), READER_MALFORMED},
	{TEXT(".5"), READER_MALFORMED},
	{TEXT("-.5"), READER_MALFORMED},
	{TEXT("1.e5"), READER_MALFORMED},
	{TEXT("1e"), READER_MALFORMED},
	{TEXT("1e+"), READER_MALFORMED},
	{TEXT("1E-"), READER_MALFORMED},
	{TEXT("1e5.5"), READER_TRAILING},
	{TEXT("1.2.3"), READER_TRAILING},
	{TEXT("0x10"), READER_TRAILING},
	{TEXT("1_000"), READER_TRAILING},
	{TEXT("--1"), READER_MALFORMED},
	{TEXT("[-]"), READER_MALFORMED},
	{TEXT("[01]"), READER_MALFORMED},
	{TEXT("[1a]"), READER_MALFORMED},
	{TEXT("[1e]"), READER_MALFORMED},
	{TEXT("- 1"), READER_MALFORMED},
	{TEXT("1 e5"), READER_TRAILING},
	{TEXT("\xef\xbc\x91"), READER_MALFORMED},
	{TEXT("1\xff"), READER_INVALID_UTF8},
	{TEXT("[1\xe5]"), READER_INVALID_UTF8},
	/* strings */
	{TEXT("\""), READER_MALFORMED},
	{TEXT("\"a"), READER_MALFORMED},
	{TEXT("\"a\\\""), READER_MALFORMED},
	{TEXT("\"\\"), READER_MALFORMED},
	{TEXT("\"\\x41\""), READER_MALFORMED},
	{TEXT("\"\\'\""), READER_MALFORMED},
	{TEXT("\"\\0\""), READER_MALFORMED},
	{TEXT("\"\\a\""), READER_MALFORMED},
	{TEXT("\"\\U0041\""), READER_MALFORMED},
	{TEXT("\"\\u\""), READER_MALFORMED},
	{TEXT("\"\\u004\""), READER_MALFORMED},
	{TEXT("\"\\u004g\""), READER_MALFORMED},
	{TEXT("\"\\u 041\""), READER_MALFORMED},
	{TEXT("\"\\u+041\""), READER_MALFORMED},
	{TEXT("\"\\u004"), READER_MALFORMED},
	{TEXT("\"\\\n\""), READER_MALFORMED},
	{TEXT("\"\n\""), READER_MALFORMED},
	{TEXT("\"\t\""), READER_MALFORMED},
	{TEXT("\"\0\""), READER_MALFORMED},
	{TEXT("\"\x1f\""), READER_MALFORMED},
	{TEXT("\"12345678\x01\""), READER_MALFORMED},
	{TEXT("\"1234567\r\""), READER_MALFORMED},
	{TEXT("\"\\\0\""), READER_MALFORMED},
	/* surrogates */
	{TEXT("\"\\ud800\""), READER_LONE_SURROGATE},
	{TEXT("\"\\udc00\""), READER_LONE_SURROGATE},
	{TEXT("\"\\udbff x\""), READER_LONE_SURROGATE},
	{TEXT("\"\\ud800\\ud800\""), READER_LONE_SURROGATE},
	{TEXT("\"\\udc00\\ud800\""), READER_LONE_SURROGATE},
	{TEXT("\"\\ud800\\n\""), READER_LONE_SURROGATE},
	{TEXT("\"\\ud800\\u0041\""), READER_LONE_SURROGATE},
	{TEXT("\"\\ud83dde00\""), READER_LONE_SURROGATE},
	{TEXT("{\"\\udfff\":1}"), READER_LONE_SURROGATE},
	/* UTF-8: stray, overlong, surrogate, too high, cut short */
	{TEXT("\"\x80\""), READER_INVALID_UTF8},
	{TEXT("\"\xbf\""), READER_INVALID_UTF8},
	{TEXT("\"\xff\""), READER_INVALID_UTF8},
	{TEXT("\"\xc0\x80\""), READER_INVALID_UTF8},
	{TEXT("\"\xc1\xbf\""), READER_INVALID_UTF8},
	{TEXT("\"\xe0\x9f\xbf\""), READER_INVALID_UTF8},
	{TEXT("\"\xf0\x8f\xbf\xbf\""), READER_INVALID_UTF8},
	{TEXT("\"\xed\xa0\x80\""), READER_INVALID_UTF8},
	{TEXT("\"\xed\xbf\xbf\""), READER_INVALID_UTF8},
	{TEXT("\"\xf4\x90\x80\x80\""), READER_INVALID_UTF8},
	{TEXT("\"\xf8\x88\x80\x80\x80\""), READER_INVALID_UTF8},
	{TEXT("\"\xc3\""), READER_INVALID_UTF8},
	{TEXT("\"\xe2\x82\""), READER_INVALID_UTF8},
	{TEXT("\"\xf0\x9f\x98\""), READER_INVALID_UTF8},
	{TEXT("\"12345678\xff\""), READER_INVALID_UTF8},
	{TEXT("{\"\xff\":1}"), READER_INVALID_UTF8},
	{TEXT("\"\\n\xff\""), READER_INVALID_UTF8},
	{TEXT("\xff"), READER_INVALID_UTF8},
	/* byte order marks and other encodings */
	{TEXT("\xef\xbb\xbf{}"), READER_MALFORMED},
	{TEXT("\xff\xfe{\0}\0"), READER_INVALID_UTF8},
	{TEXT("[\0]\0"), READER_MALFORMED},
};

static void test_valid(void **state)
{
	(void)state;
	AUTO(arena_auto) struct arena arena;
	arena_init(&arena, 1 << 20);
	for (size_t i = 0; i < ARRAY_LEN(valid); i++) {
		struct json_reader r;
		struct str source;
		bool unique;
		reader_init(&r, valid[i], 10, &arena);
		if (!reader_skip_unique(&r, &source, &unique) || !reader_finish(&r) || !unique)
			fail_msg("refused: %.*s", STR_ARG(valid[i]));
		if (!verdicts_agree(valid[i], &arena))
			fail_msg("jansson refuses: %.*s", STR_ARG(valid[i]));
	}
}

static void test_invalid(void **state)
{
	(void)state;
	AUTO(arena_auto) struct arena arena;
	arena_init(&arena, 1 << 20);
	for (size_t i = 0; i < ARRAY_LEN(invalid); i++) {
		struct json_reader r;
		struct str source;
		bool unique = false;
		char text[80];
		reader_init(&r, invalid[i].text, 10, &arena);
		if (reader_skip_unique(&r, &source, &unique) && reader_finish(&r) && unique)
			fail_msg("accepted: %.*s", STR_ARG(invalid[i].text));
		if (r.error != invalid[i].error)
			fail_msg("%.*s: %s", STR_ARG(invalid[i].text), reader_error_code(r.error));
		if (r.error)
			reader_describe(&r, text, sizeof(text));
		if (!verdicts_agree(invalid[i].text, &arena))
			fail_msg("jansson accepts: %.*s", STR_ARG(invalid[i].text));
	}
}

/* A fixed sequence: the same mutations in every run. */
static uint32_t next_random(uint32_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 17;
	*seed ^= *seed << 5;
	return *seed;
}

/* Changes, inserts, removes or repeats a few bytes; those that matter to JSON come up often. */
static size_t mutate(char *text, size_t n, size_t room, uint32_t *seed)
{
	static const char spice[] =
		"{}[]:,\"\\/bfnrtu0123456789aAdD8cC.eE+- \t\n\r\0\x1f\x7f\x80\xbf\xc3\xa4\xed\xef\xf0\xf4\xff";
	for (uint32_t rounds = 1 + next_random(seed) % 2; rounds > 0; rounds--) {
		size_t at = n ? next_random(seed) % n : 0;
		char c = spice[next_random(seed) % (sizeof(spice) - 1)];
		switch (next_random(seed) % 4) {
		case 0:
			if (n)
				text[at] = c;
			break;
		case 1:
			if (n < room) {
				memmove(text + at + 1, text + at, n - at);
				text[at] = c;
				n++;
			}
			break;
		case 2:
			if (n) {
				memmove(text + at, text + at + 1, n - at - 1);
				n--;
			}
			break;
		case 3: {
			size_t piece = n - at < room - n ? n - at : room - n;
			memmove(text + at + piece, text + at, n - at);
			n += piece;
			break;
		}
		}
	}
	return n;
}

static void test_same_verdicts_as_jansson(void **state)
{
	(void)state;
	static const struct str seeds[] = {
		TEXT("{\"sender_number\":\"+4915112345678\",\"message_body\":\"Gr\xc3\xbc\xc3\x9f\\u00e4 \\ud83d\\ude00\","
		     "\"metadata\":{\"a\":[1,-2.5e3,true,null],\"b\":{\"a\":\"\"}}}"),
		TEXT("[{\"a\":1,\"b\":[[],{}]},\"\\\"\\\\\\/\\b\\f\\n\\r\\t\",0.5,-0,1E+2,false]"),
		TEXT("{\"k\":\"v\",\"K\":{\"k\":{\"k\":[\"\xe2\x82\xac\",\"\xf0\x9f\x98\x80\"]}},\"\":0}"),
		TEXT("\"\\uD834\\uDD1E abcdefgh \\u0041\\u0000\""),
		TEXT("[1,12,0,0.1,1e1,1.5E-7,-3]"),
	};
	enum { ROUNDS = 2000, ROOM = 512 };
	AUTO(arena_auto) struct arena arena;
	arena_init(&arena, 1 << 20);
	unsigned counts[3] = {0};
	uint32_t seed = 20261122;
	for (size_t i = 0; i < ARRAY_LEN(seeds); i++) {
		for (int round = 0; round < ROUNDS; round++) {
			char text[ROOM];
			memcpy(text, seeds[i].p, seeds[i].n);
			size_t n = mutate(text, seeds[i].n, sizeof(text), &seed);
			if (!verdicts_agree(str_mem(text, n), &arena))
				fail_msg("no agreement on: %.*s", (int)n, text);
			counts[reader_verdict(str_mem(text, n), &arena)]++;
			arena_reset(&arena);
		}
	}
	/* The mutations are worth something only if many stay valid and many do not. */
	assert_true(counts[VERDICT_VALID] > 500);
	assert_true(counts[VERDICT_INVALID] > 500);
}

/* Strings as they come out, with their length in characters. */
static void test_strings(void **state)
{
	(void)state;
	static const struct {
		struct str text, value;
		size_t code_points;
		bool has_nul;
	} cases[] = {
		{TEXT("\"\""), TEXT(""), 0, false},
		{TEXT("\"plain\""), TEXT("plain"), 5, false},
		{TEXT("  \"a longer one, over eight bytes\""), TEXT("a longer one, over eight bytes"), 30,
			false},
		{TEXT("\"Gr\xc3\xbc\xc3\x9f"
		      "e\""),
			TEXT("Gr\xc3\xbc\xc3\x9f"
			     "e"),
			5, false},
		{TEXT("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\""), TEXT("\"\\/\b\f\n\r\t"), 8, false},
		{TEXT("\"\\u0041\\u00E4\\u20ac\\uD83D\\uDE00\""),
			TEXT("A\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80"), 4, false},
		{TEXT("\"\\u007f\\u0080\\u07ff\\u0800\\uffff\""),
			TEXT("\x7f\xc2\x80\xdf\xbf\xe0\xa0\x80\xef\xbf\xbf"), 5, false},
		{TEXT("\"\\ud800\\udc00\\udbff\\udfff\""), TEXT("\xf0\x90\x80\x80\xf4\x8f\xbf\xbf"), 2,
			false},
		{TEXT("\"x\\u0000y\""), TEXT("x\0y"), 3, true},
		{TEXT("\"\\n\xe2\x82\xac\\n\""), TEXT("\n\xe2\x82\xac\n"), 3, false},
		{TEXT("\"\\\\u0041\""), TEXT("\\u0041"), 6, false},
	};
	AUTO(arena_auto) struct arena arena;
	arena_init(&arena, 1 << 20);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct json_reader r;
		struct reader_string s;
		reader_init(&r, cases[i].text, 1, &arena);
		assert_int_equal(reader_peek(&r), READER_STRING);
		assert_true(reader_string(&r, &s));
		assert_true(reader_finish(&r));
		assert_true(str_eq(s.text, cases[i].value));
		assert_int_equal(s.code_points, cases[i].code_points);
		assert_int_equal(s.has_nul, cases[i].has_nul);
	}
}

static void test_strings_without_escapes_are_views(void **state)
{
	(void)state;
	struct str text = STR("\"as it stands\"");
	struct json_reader r;
	struct reader_string s;
	reader_init(&r, text, 1, NULL);
	assert_int_equal(reader_peek(&r), READER_STRING);
	assert_true(reader_string(&r, &s));
	assert_ptr_equal(s.text.p, text.p + 1);
}

static void test_members_and_items(void **state)
{
	(void)state;
	AUTO(arena_auto) struct arena arena;
	arena_init(&arena, 1 << 20);
	struct json_reader r;
	struct str name, source;
	reader_init(&r, STR(" { \"\\u0061\" : [ 1 , {\"x\":2} ,\"s\" ] , \"b\" : { } } "), 3, &arena);
	assert_int_equal(reader_peek(&r), READER_OBJECT);
	assert_true(reader_enter(&r));
	assert_true(reader_next_member(&r, &name));
	assert_true(str_eq(name, STR("a")));
	assert_int_equal(reader_peek(&r), READER_ARRAY);
	assert_true(reader_enter(&r));
	static const struct str items[] = {TEXT("1"), TEXT("{\"x\":2}"), TEXT("\"s\"")};
	for (size_t i = 0; i < ARRAY_LEN(items); i++) {
		assert_true(reader_next_item(&r));
		assert_true(reader_skip(&r, &source));
		assert_true(str_eq(source, items[i]));
	}
	assert_false(reader_next_item(&r));
	assert_true(reader_next_member(&r, &name));
	assert_true(str_eq(name, STR("b")));
	assert_true(reader_skip(&r, &source));
	assert_true(str_eq(source, STR("{ }")));
	assert_false(reader_next_member(&r, &name));
	assert_true(reader_finish(&r));
}

static void test_depth(void **state)
{
	(void)state;
	static const struct {
		struct str text;
		unsigned limit;
		bool fits;
	} cases[] = {
		{TEXT("1"), 0, true},
		{TEXT("[]"), 0, false},
		{TEXT("[]"), 1, true},
		{TEXT("[[],[[]]]"), 2, false},
		{TEXT("[[],[[]]]"), 3, true},
		{TEXT("{\"a\":[{}]}"), 2, false},
		{TEXT("{\"a\":[{}]}"), 3, true},
		{TEXT("[[],[],[],[],{},{}]"), 2, true},
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct json_reader r;
		struct str source;
		reader_init(&r, cases[i].text, cases[i].limit, NULL);
		assert_int_equal(reader_skip(&r, &source) && reader_finish(&r), cases[i].fits);
		assert_int_equal(r.error, cases[i].fits ? READER_OK : READER_TOO_DEEP);
	}
}

static void test_errors_are_sticky(void **state)
{
	(void)state;
	struct json_reader r;
	struct str s;
	reader_init(&r, STR("[1,x,2]"), 3, NULL);
	assert_int_equal(reader_peek(&r), READER_ARRAY);
	assert_true(reader_enter(&r));
	assert_true(reader_next_item(&r));
	assert_true(reader_skip(&r, &s));
	assert_true(reader_next_item(&r));
	assert_false(reader_skip(&r, &s));
	assert_int_equal(reader_peek(&r), READER_NOTHING);
	assert_false(reader_next_item(&r));
	assert_false(reader_next_member(&r, &s));
	assert_false(reader_skip(&r, &s));
	assert_false(reader_finish(&r));
	assert_int_equal(r.error, READER_MALFORMED);
}

static void test_positions(void **state)
{
	(void)state;
	static const struct {
		struct str text;
		const char *description;
	} cases[] = {
		{TEXT("[1,x]"), "line 1, column 4: expected a value"},
		{TEXT("{\"a\" 1}"), "line 1, column 6: expected a colon"},
		{TEXT("{\n \"\xc3\xa4\": 1\n 2}"),
			"line 3, column 2: expected a comma or the end of the object"},
		{TEXT("[\"\xf0\x9f\x98\x80\",]"), "line 1, column 6: expected a value"},
		{TEXT(""), "line 1, column 1: expected a value"},
		{TEXT("\"abc"), "line 1, column 5: the text ends within a string"},
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct json_reader r;
		struct str source;
		char text[80];
		reader_init(&r, cases[i].text, 3, NULL);
		assert_false(reader_skip(&r, &source));
		reader_describe(&r, text, sizeof(text));
		assert_string_equal(text, cases[i].description);
	}
}

static void test_arena_runs_out(void **state)
{
	(void)state;
	for (size_t ceiling = 0; ceiling < 96; ceiling += 16) {
		AUTO(arena_auto) struct arena arena;
		struct json_reader r;
		struct str source;
		bool unique;
		arena_init(&arena, ceiling);
		reader_init(&r, STR("{\"\\u0061\":1,\"\\u0062\":2}"), 3, &arena);
		assert_false(reader_skip_unique(&r, &source, &unique));
		assert_int_equal(r.error, READER_NO_MEMORY);
	}
}

/* Hundreds of names, one of them twice: first and last, neighbours, far apart. */
static void test_many_names(void **state)
{
	(void)state;
	enum { NAMES = 700 };
	static const struct {
		int a, b;
	} twins[] = {{0, 0}, {0, NAMES - 1}, {349, 350}, {100, 600}};
	for (size_t i = 0; i < ARRAY_LEN(twins); i++) {
		AUTO(arena_auto) struct arena arena;
		AUTO(buf_auto) struct buf text;
		arena_init(&arena, 1 << 20);
		buf_init(&text, 1 << 20);
		for (int k = 0; k < NAMES; k++)
			buf_addf(&text, "%s\"%d\":0", k ? "," : "{", k == twins[i].b ? twins[i].a : k);
		buf_add_char(&text, '}');
		struct json_reader r;
		struct str source;
		bool unique;
		reader_init(&r, buf_str(&text), 1, &arena);
		assert_true(reader_skip_unique(&r, &source, &unique));
		assert_int_equal(unique, twins[i].a == twins[i].b);
	}
}

/* For a caller that only looks for ends: text errors pass, syntax errors do not. */
static void test_text_unchecked(void **state)
{
	(void)state;
	static const struct {
		struct str text;
		bool passes;
	} cases[] = {
		{TEXT("\"\xff\""), true},
		{TEXT("\"\\ud800\""), true},
		{TEXT("\"\\udc00\\ud800\""), true},
		{TEXT("{\"\xff\":1}"), true},
		{TEXT("\"\\q\""), false},
		{TEXT("\"\n\""), false},
		{TEXT("[\xff]"), false},
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct json_reader r;
		struct str source;
		reader_init(&r, cases[i].text, 3, NULL);
		r.text_unchecked = true;
		assert_int_equal(reader_skip(&r, &source) && reader_finish(&r), cases[i].passes);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_valid),
		cmocka_unit_test(test_invalid),
		cmocka_unit_test(test_same_verdicts_as_jansson),
		cmocka_unit_test(test_strings),
		cmocka_unit_test(test_strings_without_escapes_are_views),
		cmocka_unit_test(test_members_and_items),
		cmocka_unit_test(test_depth),
		cmocka_unit_test(test_errors_are_sticky),
		cmocka_unit_test(test_positions),
		cmocka_unit_test(test_arena_runs_out),
		cmocka_unit_test(test_many_names),
		cmocka_unit_test(test_text_unchecked),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
