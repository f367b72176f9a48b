/* json_test.c - what the reader refuses and says about it, and what the writer makes of odd values. */
#include "base/json.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static int setup(void **state)
{
	json_init();
	return 0;
}

static void accepts_documents(void **state)
{
	static const char *const texts[] = {
		"{}", "[]",
		" {\"a\":1,\"b\":[true,false,null,-0.5e3],\"c\":{\"a\":\"\\u00e9\\ud83d\\ude00\"}}\r\n\t",
		"{\"quotes\":\"\\\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\\\\\"}",
		"[\"{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{\"]",
		"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]", /* 32 levels */
	};
	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		struct err e = ERR_INIT;
		json_t *j = NULL;
		if (json_read(str_of(texts[i]), &j, &e) < 0)
			fail_msg("%s: %s", texts[i], e.text);
		json_decref(j);
	}
}

static void refuses_documents(void **state)
{
	static const struct {
		struct str text;
		const char *error;
	} rows[] = {
		{{NULL, 0}, "line 1 column 0: ends too early"},
		{STR("   "), "line 1 column 3: ends too early"},
		{STR("17"), "line 1 column 2: not valid JSON"},
		{STR("\"text\""), "line 1 column 6: not valid JSON"},
		{STR("{"), "line 1 column 1: ends too early"},
		{STR("{\"secret\":\"+49151"), "line 1 column 17: ends too early"},
		{STR("{\"a\":1,\n\"a\":2}"), "line 2 column 3: the same member twice in one object"},
		{STR("{\"a\":1} x"), "line 1 column 9: text after the end of the document"},
		{STR("{}{}"), "line 1 column 3: text after the end of the document"},
		{STR("[\"\\u0000\"]"), "line 1 column 9: NUL character in a string"},
		{STR("{\"\\u0000\":1}"), "line 1 column 9: NUL character in a string"},
		{STR("[\"a\0b\"]"), "line 1 column 4: a NUL byte"},
		{STR("{}\0x"), "line 1 column 3: a NUL byte"},
		{STR("[\"\xff\"]"), "line 1 column 2: invalid UTF-8"},
		{STR("[\"\xc0\x80\"]"), "line 1 column 2: invalid UTF-8"},
		{STR("[\"\xed\xa0\x80\"]"), "line 1 column 2: invalid UTF-8"},
		{STR("[\"\\ud800\"]"), "line 1 column 9: not valid JSON"},
		{STR("[99999999999999999999]"), "line 1 column 21: number out of range"},
		{STR("[1e999]"), "line 1 column 6: number out of range"},
		{STR("[01]"), "line 1 column 2: not valid JSON"},
		{STR("[1,]"), "line 1 column 4: not valid JSON"},
		{STR("[NaN]"), "line 1 column 4: not valid JSON"},
		{STR("\xef\xbb\xbf{}"), "line 1 column 1: not valid JSON"},
		{STR("[\n [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["), "line 2 column 33: nested too deeply"},
		{STR("]]]]{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{"), "line 1 column 37: nested too deeply"},
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct err e = ERR_INIT;
		json_t *j = NULL;
		assert_int_equal(json_read(rows[i].text, &j, &e), -1);
		assert_null(j);
		assert_int_equal(e.kind, ERR_REJECT);
		assert_string_equal(e.text, rows[i].error);
	}
}

/* As deep as memory allows: neither our scan nor jansson may recurse into it. */
static void survives_deep_nesting(void **state)
{
	enum { LEVELS = 1 << 20 };
	struct buf b;
	buf_init(&b, LEVELS);
	char *p = buf_reserve(&b, LEVELS);
	assert_non_null(p);
	memset(p, '[', LEVELS);
	buf_commit(&b, LEVELS);
	json_t *j;
	assert_int_equal(json_read(buf_str(&b), &j, NULL), -1);
	buf_clear(&b);
}

static void writes_structure(void **state)
{
	struct buf b;
	buf_init(&b, 4096);
	struct json_out w = json_out_to(&b);
	json_open_object(&w, NULL);
	json_put_int(&w, "min", INT64_MIN);
	json_put_int(&w, "max", INT64_MAX);
	json_open_array(&w, "list");
	json_put_bool(&w, NULL, true);
	json_put_null(&w, NULL);
	json_open_object(&w, NULL);
	json_close_object(&w);
	json_open_array(&w, NULL);
	json_close_array(&w);
	json_close_array(&w);
	json_put_raw(&w, "raw", STR("[1]"));
	json_put_time(&w, "time", (struct wall){1795339800123});
	json_put_double(&w, "tenth", 0.1);
	json_put_double(&w, "third", 1.0 / 3);
	json_put_double(&w, "big", 1e300);
	json_put_double(&w, "whole", 3);
	json_put_double(&w, "nan", NAN);
	json_put_double(&w, "inf", INFINITY);
	json_close_object(&w);
	buf_add_char(&b, 0);
	assert_int_equal(buf_check(&b, NULL), 0);
	assert_string_equal(b.p,
		"{\"min\":-9223372036854775808,\"max\":9223372036854775807,\"list\":[true,null,{},[]],"
		"\"raw\":[1],\"time\":\"2026-11-22T09:30:00.123Z\",\"tenth\":0.1,\"third\":0.333333333333333,"
		"\"big\":1e+300,\"whole\":3,\"nan\":null,\"inf\":null}");
	buf_clear(&b);
}

static void escapes_strings(void **state)
{
	static const struct {
		struct str value;
		const char *json;
	} rows[] = {
		{{NULL, 0}, "\"\""},
		{STR("plain /text"), "\"plain /text\""},
		{STR("\"\\\b\f\n\r\t"), "\"\\\"\\\\\\b\\f\\n\\r\\t\""},
		{STR("a\0b\x1b[0m\x7f"), "\"a\\u0000b\\u001b[0m\\u007f\""},
		{STR("caf\xc3\xa9 \xf0\x9f\x98\x80"), "\"caf\xc3\xa9 \xf0\x9f\x98\x80\""},
		{STR("\xc2\x80\xc2\x9b\xc2\x9f\xc2\xa0\xc2\xbf"),
			"\"\\u0080\\u009b\\u009f\xc2\xa0\xc2\xbf\""},
		{STR("\xff"), "\"\xef\xbf\xbd\""},
		{STR("a\xc3"), "\"a\xef\xbf\xbd\""},
		{STR("\xe2\x82 \n\xe2\x82\xac\xc2\x85"),
			"\"\xef\xbf\xbd\xef\xbf\xbd \\n\xe2\x82\xac\\u0085\""},
		{STR("\xed\xa0\x80"), "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""},
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct buf b;
		buf_init(&b, 4096);
		struct json_out w = json_out_to(&b);
		json_put_str(&w, NULL, rows[i].value);
		buf_add_char(&b, 0);
		assert_string_equal(b.p, rows[i].json);
		buf_clear(&b);
	}
}

/* Every pair of bytes, valid or not: what comes out is JSON, and valid input comes back unchanged. */
static void written_strings_read_back(void **state)
{
	struct buf b;
	buf_init(&b, 4096);
	for (unsigned pair = 0; pair < 65536; pair += 7) {
		char text[] = {'x', (char)(pair >> 8), (char)pair, 'y'};
		struct str value = str_mem(text, sizeof(text));
		buf_reset(&b);
		struct json_out w = json_out_to(&b);
		json_open_array(&w, NULL);
		json_put_str(&w, NULL, value);
		json_close_array(&w);
		json_error_t error;
		json_t *j = json_loadb(b.p, b.n, JSON_ALLOW_NUL, &error);
		assert_non_null(j);
		json_t *s = json_array_get(j, 0);
		if (utf8_valid(value, NULL))
			assert_true(str_eq(str_mem(json_string_value(s), json_string_length(s)), value));
		json_decref(j);
	}
	buf_clear(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(accepts_documents),
		cmocka_unit_test(refuses_documents),
		cmocka_unit_test(survives_deep_nesting),
		cmocka_unit_test(writes_structure),
		cmocka_unit_test(escapes_strings),
		cmocka_unit_test(written_strings_read_back),
	};
	return cmocka_run_group_tests(tests, setup, NULL);
}
