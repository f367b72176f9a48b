#include "message/batch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/auto.h"

static struct message_batch batch;

struct split_case {
	struct str text;
	const char *items[5]; /* NULL ends; none: refused with `code` */
	const char *code;
};

#define TEXT(lit)                                                                                            \
	{                                                                                                    \
		lit, sizeof(lit) - 1                                                                         \
	}

static void check(const struct split_case *c, enum batch_form form)
{
	struct message_problem problem = {0};
	int r = message_batch_split(c->text, form, &batch, &problem);
	if (!c->items[0]) {
		assert_int_equal(r, MESSAGE_INVALID);
		assert_string_equal(problem.code, c->code);
		assert_string_equal(problem.pointer, "");
		assert_true(problem.detail[0]);
		return;
	}
	assert_int_equal(r, 0);
	unsigned count = 0;
	for (; c->items[count]; count++) {
		assert_true(count < batch.count);
		if (!str_eq(batch.items[count], str_of(c->items[count])))
			fail_msg("%.*s: item %u is %.*s", STR_ARG(c->text), count,
				STR_ARG(batch.items[count]));
	}
	assert_int_equal(batch.count, count);
}

static void test_array(void **state)
{
	(void)state;
	static const struct split_case cases[] = {
		{TEXT("[{}]"), {"{}"}, NULL},
		{TEXT(" [ { \"a\" : [1,2] } ,\n 7 , \"x\" ] \n"), {"{ \"a\" : [1,2] }", "7", "\"x\""}, NULL},
		/* what is wrong within an item is its own affair */
		{TEXT("[{\"a\":1,\"a\":2},{\"b\":\"\\ud800\"},{\"c\":\"\xff\"}]"),
			{"{\"a\":1,\"a\":2}", "{\"b\":\"\\ud800\"}", "{\"c\":\"\xff\"}"}, NULL},
		{TEXT("[]"), {0}, "empty"},
		{TEXT(" [ ] "), {0}, "empty"},
		{TEXT("{}"), {0}, "wrong_type"},
		{TEXT("\"[]\""), {0}, "wrong_type"},
		{TEXT("null"), {0}, "wrong_type"},
		{TEXT(""), {0}, "malformed_json"},
		{TEXT("["), {0}, "malformed_json"},
		{TEXT("[{}"), {0}, "malformed_json"},
		{TEXT("[{},]"), {0}, "malformed_json"},
		{TEXT("[,{}]"), {0}, "malformed_json"},
		{TEXT("[{} {}]"), {0}, "malformed_json"},
		{TEXT("[{\"a\":}]"), {0}, "malformed_json"},
		{TEXT("[{}]x"), {0}, "trailing_data"},
		{TEXT("[{}][{}]"), {0}, "trailing_data"},
		{TEXT("\xef\xbb\xbf[{}]"), {0}, "malformed_json"},
		{TEXT("[{}\xff]"), {0}, "invalid_utf8"},
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		check(&cases[i], BATCH_ARRAY);
}

static void test_lines(void **state)
{
	(void)state;
	static const struct split_case cases[] = {
		{TEXT("{}"), {"{}"}, NULL},
		{TEXT("{}\n"), {"{}"}, NULL},
		{TEXT("{\"a\":1}\n{\"b\":2}\n"), {"{\"a\":1}", "{\"b\":2}"}, NULL},
		{TEXT("{\"a\":1}\r\n{\"b\":2}\r\n"), {"{\"a\":1}", "{\"b\":2}"}, NULL},
		{TEXT("\n\n{}\n \t \n\r\n{} \n\n"), {"{}", "{}"}, NULL},
		{TEXT("{}\n{}"), {"{}", "{}"}, NULL},
		/* any line is an item: message_parse says what is wrong with it */
		{TEXT("{\n}\n"), {"{", "}"}, NULL},
		{TEXT("[]\nx\n\xff\n"), {"[]", "x", "\xff"}, NULL},
		{TEXT("{}\r{}\n"), {"{}\r{}"}, NULL},
		{TEXT(""), {0}, "empty"},
		{TEXT("\n\n"), {0}, "empty"},
		{TEXT("  \r\n"), {0}, "empty"},
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		check(&cases[i], BATCH_LINES);
}

static void fill(struct buf *out, unsigned count, enum batch_form form)
{
	buf_reset(out);
	if (form == BATCH_ARRAY)
		buf_add_char(out, '[');
	for (unsigned i = 0; i < count; i++)
		buf_addf(out, "%s{\"n\":%u}", i == 0 ? "" : form == BATCH_ARRAY ? "," : "\n", i);
	if (form == BATCH_ARRAY)
		buf_add_char(out, ']');
}

static void test_limit(void **state)
{
	(void)state;
	static const enum batch_form forms[] = {BATCH_ARRAY, BATCH_LINES};
	AUTO(buf_auto) struct buf text;
	buf_init(&text, 1 << 20);
	struct message_problem problem;
	for (size_t i = 0; i < ARRAY_LEN(forms); i++) {
		fill(&text, BATCH_ITEMS, forms[i]);
		assert_int_equal(message_batch_split(buf_str(&text), forms[i], &batch, &problem), 0);
		assert_int_equal(batch.count, BATCH_ITEMS);
		assert_true(str_eq(batch.items[BATCH_ITEMS - 1], STR("{\"n\":999}")));
		fill(&text, BATCH_ITEMS + 1, forms[i]);
		assert_int_equal(
			message_batch_split(buf_str(&text), forms[i], &batch, &problem), MESSAGE_INVALID);
		assert_string_equal(problem.code, "too_many");
	}
}

/* An item as deep as a message may be passes; one deeper hides where it ends. */
static void test_depth(void **state)
{
	(void)state;
	AUTO(buf_auto) struct buf text;
	buf_init(&text, 1 << 20);
	struct message_problem problem;
	for (unsigned deeper = 0; deeper < 2; deeper++) {
		unsigned depth = MESSAGE_METADATA_DEPTH + 1 + deeper;
		buf_reset(&text);
		for (unsigned i = 0; i < depth + 1; i++)
			buf_add_char(&text, '[');
		for (unsigned i = 0; i < depth + 1; i++)
			buf_add_char(&text, ']');
		int r = message_batch_split(buf_str(&text), BATCH_ARRAY, &batch, &problem);
		assert_int_equal(r, deeper ? MESSAGE_INVALID : 0);
	}
	assert_string_equal(problem.code, "too_deep");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_array),
		cmocka_unit_test(test_lines),
		cmocka_unit_test(test_limit),
		cmocka_unit_test(test_depth),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
