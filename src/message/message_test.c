#include "message/message.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "base/auto.h"

#define TEXT(lit)                                                                                            \
	{                                                                                                    \
		lit, sizeof(lit) - 1                                                                         \
	}

#define NUMBER "\"sender_number\":\"+4915112345678\""
#define BODY   "\"message_body\":\"hello\""

static void test_accepted(void **state)
{
	(void)state;
	static const struct {
		struct str json, number, body, metadata;
	} cases[] = {
		{TEXT("{" NUMBER "," BODY "}"), TEXT("+4915112345678"), TEXT("hello"), TEXT("")},
		{TEXT(" \n{ " BODY " ,\t" NUMBER " }\r\n"), TEXT("+4915112345678"), TEXT("hello"), TEXT("")},
		{TEXT("{" NUMBER "," BODY ",\"metadata\": { \"a\" : [ 1 , {} ] } }"), TEXT("+4915112345678"),
			TEXT("hello"), TEXT("{ \"a\" : [ 1 , {} ] }")},
		{TEXT("{" NUMBER "," BODY ",\"metadata\":{}}"), TEXT("+4915112345678"), TEXT("hello"),
			TEXT("{}")},
		{TEXT("{\"\\u0073ender_number\":\"\\u002b12\",\"message\\u005fbody\":\"\\t\\ud83d\\ude00\"}"),
			TEXT("+12"), TEXT("\t\xf0\x9f\x98\x80"), TEXT("")},
		{TEXT("{\"sender_number\":\"+123456789012345\",\"message_body\":\" \"}"),
			TEXT("+123456789012345"), TEXT(" "), TEXT("")},
		/* kept byte for byte: no trimming, no normal form */
		{TEXT("{" NUMBER ",\"message_body\":\" e\xcc\x81\\r\\n\xc3\xa9 \"}"), TEXT("+4915112345678"),
			TEXT(" e\xcc\x81\r\n\xc3\xa9 "), TEXT("")},
		/* U+0000 is refused in the body only */
		{TEXT("{" NUMBER "," BODY ",\"metadata\":{\"a\":\"\\u0000\"}}"), TEXT("+4915112345678"),
			TEXT("hello"), TEXT("{\"a\":\"\\u0000\"}")},
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		AUTO(arena_auto) struct arena arena;
		struct message m;
		struct message_problems problems;
		struct err e = ERR_INIT;
		arena_init(&arena, 1 << 20);
		assert_int_equal(message_parse(cases[i].json, &arena, &m, &problems, &e), 0);
		assert_int_equal(problems.count, 0);
		assert_true(str_eq(m.sender_number, cases[i].number));
		assert_true(str_eq(m.body, cases[i].body));
		assert_true(str_eq(m.metadata, cases[i].metadata));
	}
}

/* Problems as "pointer code", in the order in which they are reported. */
static void test_refused(void **state)
{
	(void)state;
	static const struct {
		struct str json;
		const char *problems[6];
	} cases[] = {
		/* members */
		{TEXT("{}"), {"/sender_number required", "/message_body required"}},
		{TEXT("{" BODY "}"), {"/sender_number required"}},
		{TEXT("{" NUMBER "}"), {"/message_body required"}},
		{TEXT("{" NUMBER "," BODY ",\"colour\":1}"), {"/colour unknown_member"}},
		{TEXT("{" NUMBER "," BODY ",\"Message_body\":\"x\"}"), {"/Message_body unknown_member"}},
		{TEXT("{" NUMBER "," BODY ",\"a/b\":{\"x\":[1]},\"\":1,\"a~b\":2,\"caf\xc3\xa9\":3}"),
			{" unknown_member", " unknown_member", " unknown_member", " unknown_member"}},
		{TEXT("{" NUMBER "," BODY "," BODY "}"), {"/message_body duplicate_member"}},
		{TEXT("{" NUMBER "," BODY ",\"\\u006dessage_body\":7}"), {"/message_body duplicate_member"}},
		{TEXT("{" NUMBER "," NUMBER "," BODY "," NUMBER "}"),
			{"/sender_number duplicate_member", "/sender_number duplicate_member"}},
		/* types */
		{TEXT("{\"sender_number\":4915112345678," BODY "}"), {"/sender_number wrong_type"}},
		{TEXT("{\"sender_number\":null,\"message_body\":[\"x\"],\"metadata\":\"{}\"}"),
			{"/sender_number wrong_type", "/message_body wrong_type", "/metadata wrong_type"}},
		{TEXT("{" NUMBER "," BODY ",\"metadata\":null}"), {"/metadata wrong_type"}},
		{TEXT("{" NUMBER "," BODY ",\"metadata\":[]}"), {"/metadata wrong_type"}},
		{TEXT("[]"), {" wrong_type"}},
		{TEXT("\"x\""), {" wrong_type"}},
		{TEXT("null"), {" wrong_type"}},
		{TEXT("-1.5e3"), {" wrong_type"}},
		/* values */
		{TEXT("{\"sender_number\":\"\",\"message_body\":\"\"}"),
			{"/sender_number not_e164", "/message_body empty"}},
		{TEXT("{" NUMBER ",\"message_body\":\"a\\u0000\"}"), {"/message_body nul"}},
		{TEXT("{" NUMBER "," BODY ",\"metadata\":{\"a\":1,\"b\":{\"c\":1,\"c\":2}}}"),
			{"/metadata duplicate_member"}},
		{TEXT("{\"x\":1,\"sender_number\":\"12\",\"metadata\":7}"),
			{"/x unknown_member", "/sender_number not_e164", "/metadata wrong_type",
				"/message_body required"}},
		/* not JSON: the only problem, whatever came before */
		{TEXT(""), {" malformed_json"}},
		{TEXT("{\"x\":1,\"sender_number\":\"12\""), {" malformed_json"}},
		{TEXT("{\"x\":1,\"sender_number\":12,}"), {" malformed_json"}},
		{TEXT("{\"sender_number\":+49}"), {"/sender_number malformed_json"}},
		{TEXT("{" NUMBER "," BODY "}}"), {" trailing_data"}},
		{TEXT("{" NUMBER "," BODY "} {}"), {" trailing_data"}},
		{TEXT("[1,2"), {" malformed_json"}},
		{TEXT("[] []"), {" trailing_data"}},
		{TEXT("\xef\xbb\xbf{" NUMBER "," BODY "}"), {" malformed_json"}},
		/* text that is no text */
		{TEXT("{" NUMBER ",\"message_body\":\"\xff\"}"), {"/message_body invalid_utf8"}},
		{TEXT("{" NUMBER ",\"message_body\":\"\xed\xa0\x80\"}"), {"/message_body invalid_utf8"}},
		{TEXT("{" NUMBER "," BODY ",\"metadata\":{\"a\":\"\xc0\xaf\"}}"), {"/metadata invalid_utf8"}},
		{TEXT("{" NUMBER "," BODY ",\"m\xff\":1}"), {" invalid_utf8"}},
		{TEXT("{" NUMBER "," BODY "}\xff"), {" invalid_utf8"}},
		{TEXT("{" NUMBER ",\"message_body\":\"\\ud83d\"}"), {"/message_body lone_surrogate"}},
		{TEXT("{" NUMBER ",\"message_body\":\"\\ude00\\ud83d\"}"), {"/message_body lone_surrogate"}},
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		AUTO(arena_auto) struct arena arena;
		struct message m;
		struct message_problems problems;
		struct err e = ERR_INIT;
		arena_init(&arena, 1 << 20);
		assert_int_equal(message_parse(cases[i].json, &arena, &m, &problems, &e), MESSAGE_INVALID);
		unsigned count = 0;
		for (; cases[i].problems[count]; count++) {
			char got[128];
			assert_true(count < problems.count);
			snprintf(got, sizeof(got), "%s %s", problems.items[count].pointer,
				problems.items[count].code);
			if (strcmp(got, cases[i].problems[count]) != 0)
				fail_msg("%.*s: '%s' instead of '%s'", STR_ARG(cases[i].json), got,
					cases[i].problems[count]);
			assert_true(problems.items[count].detail[0]);
		}
		assert_int_equal(problems.count, count);
	}
}

static void test_numbers(void **state)
{
	(void)state;
	static const struct {
		struct str text;
		bool valid;
	} cases[] = {
		{TEXT("+12"), true}, {TEXT("+123456789012345"), true}, {TEXT("+99"), true},
		{TEXT("+1"), false}, {TEXT("+1234567890123456"), false}, {TEXT("+012345678"), false},
		{TEXT("4915112345678"), false}, {TEXT("004915112345678"), false}, {TEXT("+49 151"), false},
		{TEXT("+49-151"), false}, {TEXT("+49151a"), false}, {TEXT(" +49151"), false},
		{TEXT("+49151 "), false}, {TEXT("+49151\n"), false}, {TEXT("+49151\0"), false},
		{TEXT("++49151"), false}, {TEXT("+"), false}, {TEXT(""), false},
		{TEXT("+4\xd9\xa1\xd9\xa2"), false}, /* Arabic-Indic digits */
		{TEXT("\xef\xbc\x8b"
		      "491"),
			false}, /* full-width plus */
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		assert_int_equal(message_number_valid(cases[i].text), cases[i].valid);
}

static void test_names(void **state)
{
	(void)state;
	static const struct {
		struct str text;
		bool valid;
	} cases[] = {
		{TEXT("a"), true},
		{TEXT("7"), true},
		{TEXT("Till-7.shop_A"), true},
		{TEXT("a..b"), true},
		{TEXT("a123456789012345678901234567890123456789012345678901234567890123"), true},
		{TEXT("a1234567890123456789012345678901234567890123456789012345678901234"), false},
		{TEXT(""), false},
		{TEXT(".a"), false},
		{TEXT("-a"), false},
		{TEXT("_a"), false},
		{TEXT("a b"), false},
		{TEXT("a/b"), false},
		{TEXT("a\0"), false},
		{TEXT("a\n"), false},
		{TEXT("\xc3\xa4"), false},
		{TEXT("a\xff"), false},
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		assert_int_equal(message_name_valid(cases[i].text), cases[i].valid);
}

/* A message whose body is `unit` repeated. */
static void put_body(struct buf *out, const char *unit, unsigned count)
{
	buf_reset(out);
	buf_addf(out, "{" NUMBER ",\"message_body\":\"");
	for (unsigned i = 0; i < count; i++)
		buf_add_str(out, str_of(unit));
	buf_add_str(out, STR("\"}"));
}

/* The limit counts code points, not bytes, escapes or UTF-16 units. */
static void test_body_length(void **state)
{
	(void)state;
	static const struct {
		const char *unit;
		unsigned code_points;
	} cases[] = {
		{"x", 1},
		{"\xc3\xa4", 1},
		{"\xf0\x9f\x98\x80", 1},
		{"\\n", 1},
		{"\\u00e4", 1},
		{"\\ud83d\\ude00", 1},
		{"e\xcc\x81", 2},
	};
	AUTO(buf_auto) struct buf json;
	buf_init(&json, 1 << 20);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		for (unsigned more = 0; more < 2; more++) {
			AUTO(arena_auto) struct arena arena;
			struct message m;
			struct message_problems problems;
			struct err e = ERR_INIT;
			arena_init(&arena, 1 << 20);
			put_body(
				&json, cases[i].unit, MESSAGE_BODY_CODE_POINTS / cases[i].code_points + more);
			assert_int_equal(message_parse(buf_str(&json), &arena, &m, &problems, &e), more);
			if (more)
				assert_string_equal(problems.items[0].code, "too_long");
		}
	}
}

/* Metadata counts in bytes of its source. */
static void test_metadata_length(void **state)
{
	(void)state;
	AUTO(buf_auto) struct buf json;
	buf_init(&json, 1 << 20);
	for (unsigned more = 0; more < 2; more++) {
		AUTO(arena_auto) struct arena arena;
		struct message m;
		struct message_problems problems;
		struct err e = ERR_INIT;
		arena_init(&arena, 1 << 20);
		buf_reset(&json);
		buf_addf(&json, "{" NUMBER "," BODY ",\"metadata\":{%*s}}",
			MESSAGE_METADATA_BYTES - 2 + (int)more, "");
		assert_int_equal(message_parse(buf_str(&json), &arena, &m, &problems, &e), more);
		if (more)
			assert_string_equal(problems.items[0].code, "too_long");
		else
			assert_int_equal(m.metadata.n, MESSAGE_METADATA_BYTES);
	}
}

static void test_metadata_depth(void **state)
{
	(void)state;
	AUTO(buf_auto) struct buf json;
	buf_init(&json, 1 << 20);
	for (unsigned more = 0; more < 2; more++) {
		AUTO(arena_auto) struct arena arena;
		struct message m;
		struct message_problems problems;
		struct err e = ERR_INIT;
		unsigned arrays = MESSAGE_METADATA_DEPTH - 1 + more;
		arena_init(&arena, 1 << 20);
		buf_reset(&json);
		buf_addf(&json, "{" NUMBER "," BODY ",\"metadata\":{\"a\":");
		for (unsigned i = 0; i < arrays; i++)
			buf_add_char(&json, '[');
		for (unsigned i = 0; i < arrays; i++)
			buf_add_char(&json, ']');
		buf_add_str(&json, STR("}}"));
		assert_int_equal(message_parse(buf_str(&json), &arena, &m, &problems, &e), more);
		if (more) {
			assert_string_equal(problems.items[0].code, "too_deep");
			assert_string_equal(problems.items[0].pointer, "/metadata");
		}
	}
}

static void test_many_problems(void **state)
{
	(void)state;
	AUTO(arena_auto) struct arena arena;
	AUTO(buf_auto) struct buf json;
	struct message m;
	struct message_problems problems;
	struct err e = ERR_INIT;
	arena_init(&arena, 1 << 20);
	buf_init(&json, 1 << 20);
	for (unsigned i = 0; i < 100; i++)
		buf_addf(&json, "%s\"member%u\":%u", i ? "," : "{", i, i);
	buf_add_char(&json, '}');
	assert_int_equal(message_parse(buf_str(&json), &arena, &m, &problems, &e), MESSAGE_INVALID);
	assert_int_equal(problems.count, MESSAGE_PROBLEMS);
	assert_string_equal(problems.items[MESSAGE_PROBLEMS - 1].pointer, "/member15");
}

/* Nothing of what was sent may come back in a problem, whatever is wrong with it. */
static void test_problems_do_not_quote(void **state)
{
	(void)state;
	static const struct str cases[] = {
		TEXT("{\"sender_number\":\"SECRET\",\"message_body\":7,\"metadata\":\"SECRET\"}"),
		TEXT("{\"message_body\":\"SECRET\" SECRET}"),
		TEXT("{\"SECRET SECRET\":1}"),
		TEXT("{\"message_body\":\"SECRET\xff\"}"),
		TEXT("{\"message_body\":\"SECRET\\q\"}"),
		TEXT("SECRET"),
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		AUTO(arena_auto) struct arena arena;
		struct message m;
		struct message_problems problems;
		struct err e = ERR_INIT;
		arena_init(&arena, 1 << 20);
		assert_int_equal(message_parse(cases[i], &arena, &m, &problems, &e), MESSAGE_INVALID);
		for (unsigned k = 0; k < problems.count; k++) {
			assert_null(strstr(problems.items[k].pointer, "SECRET"));
			assert_null(strstr(problems.items[k].detail, "SECRET"));
		}
	}
}

static void test_arena_runs_out(void **state)
{
	(void)state;
	static const struct str cases[] = {
		TEXT("{\"\\u0061\":1}"),
		TEXT("{" NUMBER ",\"message_body\":\"\\n\"}"),
		TEXT("{" NUMBER "," BODY ",\"metadata\":{\"a\":1}}"),
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		AUTO(arena_auto) struct arena arena;
		struct message m;
		struct message_problems problems;
		struct err e = ERR_INIT;
		arena_init(&arena, 0);
		assert_int_equal(message_parse(cases[i], &arena, &m, &problems, &e), -1);
		assert_int_equal(e.kind, ERR_RETRY);
	}
}

/* As many members as fit into metadata, all with an escape: the arena the header asks for is enough, and so
 * is the one that message_decode makes. */
static void test_arena_promise(void **state)
{
	(void)state;
	AUTO(buf_auto) struct buf json;
	AUTO(buf_auto) struct buf payload;
	AUTO(arena_auto) struct arena arena;
	struct message m, back;
	struct message_problems problems;
	struct err e = ERR_INIT;
	buf_init(&json, 1 << 20);
	buf_init(&payload, 1 << 20);
	buf_addf(&json, "{" NUMBER "," BODY ",\"metadata\":{\"\":0");
	for (size_t start = json.n - 5, i = 1; json.n - start < MESSAGE_METADATA_BYTES - 16; i++)
		buf_addf(&json, ",\"\\/%zx\":0", i);
	buf_add_str(&json, STR("}}"));
	arena_init(&arena, 4 * json.n + 65536);
	assert_int_equal(message_parse(buf_str(&json), &arena, &m, &problems, &e), 0);
	assert_true(m.metadata.n > MESSAGE_METADATA_BYTES - 32);
	message_encode(&m, &payload);
	assert_int_equal(message_decode(buf_str(&payload), &back, &e), 0);
}

static const struct message sample = {
	TEXT("+4915112345678"), TEXT("Gr\xc3\xbc\xc3\x9f."), TEXT("{\"a\":{\"b\":1}}")};

static void test_payload(void **state)
{
	(void)state;
	AUTO(buf_auto) struct buf payload;
	struct message m;
	struct err e = ERR_INIT;
	buf_init(&payload, MESSAGE_PAYLOAD_BYTES);
	message_encode(&sample, &payload);
	assert_int_equal(payload.n, 1 + 1 + 14 + 2 + 7 + 2 + 13);
	assert_memory_equal(payload.p, "\x01\x0e+4915112345678\x00\x07Gr", 20);
	assert_int_equal(message_decode(buf_str(&payload), &m, &e), 0);
	assert_true(str_eq(m.sender_number, sample.sender_number));
	assert_true(str_eq(m.body, sample.body));
	assert_true(str_eq(m.metadata, sample.metadata));
	for (size_t n = 0; n < payload.n; n++) {
		assert_int_equal(message_decode(str_mem(payload.p, n), &m, &e), -1);
		assert_int_equal(e.kind, ERR_REJECT);
	}
	payload.p[0] = 2;
	assert_int_equal(message_decode(buf_str(&payload), &m, &e), -1);
	payload.p[0] = 1;
	buf_add_char(&payload, 'x');
	assert_int_equal(message_decode(buf_str(&payload), &m, &e), -1);
}

/* The receiver refuses what message_parse refuses: it does not have to trust the proxy. */
static void test_bad_payloads(void **state)
{
	(void)state;
	static char long_body[MESSAGE_BODY_CODE_POINTS + 1], long_metadata[MESSAGE_METADATA_BYTES + 1];
	memset(long_body, 'x', sizeof(long_body));
	memset(long_metadata, ' ', sizeof(long_metadata));
	long_metadata[0] = '{', long_metadata[sizeof(long_metadata) - 1] = '}';
	const struct message cases[] = {
		{STR("4915112345678"), sample.body, sample.metadata},
		{STR(""), sample.body, sample.metadata},
		{sample.sender_number, STR(""), sample.metadata},
		{sample.sender_number, STR("a\0"), sample.metadata},
		{sample.sender_number, STR("\xff"), sample.metadata},
		{sample.sender_number, str_mem(long_body, sizeof(long_body)), sample.metadata},
		{sample.sender_number, sample.body, str_mem(long_metadata, sizeof(long_metadata))},
		{sample.sender_number, sample.body, STR("[]")},
		{sample.sender_number, sample.body, STR("null")},
		{sample.sender_number, sample.body, STR("{")},
		{sample.sender_number, sample.body, STR("{}{}")},
		{sample.sender_number, sample.body, STR(" {}")},
		{sample.sender_number, sample.body, STR("{} ")},
		{sample.sender_number, sample.body, STR("{\"a\":1,\"a\":2}")},
		{sample.sender_number, sample.body, STR("{\"a\":\"\xff\"}")},
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		AUTO(buf_auto) struct buf payload;
		struct message m;
		struct err e = ERR_INIT;
		buf_init(&payload, 1 << 20);
		message_encode(&cases[i], &payload);
		assert_int_equal(message_decode(buf_str(&payload), &m, &e), -1);
		assert_int_equal(e.kind, ERR_REJECT);
	}
}

static void test_largest_payload(void **state)
{
	(void)state;
	static char body[4 * MESSAGE_BODY_CODE_POINTS], metadata[MESSAGE_METADATA_BYTES];
	AUTO(buf_auto) struct buf payload;
	struct message m;
	struct err e = ERR_INIT;
	for (size_t i = 0; i < sizeof(body); i++)
		body[i] = "\xf0\x9f\x98\x80"[i % 4];
	memset(metadata, ' ', sizeof(metadata));
	metadata[0] = '{', metadata[sizeof(metadata) - 1] = '}';
	buf_init(&payload, MESSAGE_PAYLOAD_BYTES);
	message_encode(&(struct message){STR("+123456789012345"), str_mem(body, sizeof(body)),
			       str_mem(metadata, sizeof(metadata))},
		&payload);
	assert_int_equal(buf_check(&payload, &e), 0);
	assert_int_equal(payload.n, MESSAGE_PAYLOAD_BYTES);
	assert_int_equal(message_decode(buf_str(&payload), &m, &e), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_accepted),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_numbers),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_body_length),
		cmocka_unit_test(test_metadata_length),
		cmocka_unit_test(test_metadata_depth),
		cmocka_unit_test(test_many_problems),
		cmocka_unit_test(test_problems_do_not_quote),
		cmocka_unit_test(test_arena_runs_out),
		cmocka_unit_test(test_arena_promise),
		cmocka_unit_test(test_payload),
		cmocka_unit_test(test_bad_payloads),
		cmocka_unit_test(test_largest_payload),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
