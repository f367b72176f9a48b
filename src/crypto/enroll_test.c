/* enroll_test.c - what a token carries comes out of it again, and what is no token is said to be none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "base/auto.h"
#include "base/json.h"
#include "crypto/enroll.h"

static struct enroll_token a_token(void)
{
	struct enroll_token token = {
		.url = "https://main.example:8000",
		.send = "https://edge.example:8001",
		.name = "client_001",
		.pin = {1, 2, 0xff},
	};
	struct err e = ERR_INIT;
	assert_int_equal(enroll_secret_new(token.secret, &e), 0);
	return token;
}

static void comes_out_as_it_went_in(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 8; i++) { /* every remainder of the length by 3 */
		struct enroll_token token = a_token(), got;
		token.name[i + 1] = 0;
		if (i == 7)
			token.send[0] = 0;
		struct err e = ERR_INIT;
		AUTO(buf_wipe_auto) struct buf text;
		buf_init(&text, ENROLL_TOKEN_BYTES);
		buf_add_char(&text, ' ');
		assert_int_equal(enroll_token_write(&token, &text, &e), 0);
		buf_add_char(&text, '\n');
		if (enroll_token_read(buf_str(&text), &got, &e) < 0)
			fail_msg("%s", e.text);
		assert_string_equal(got.url, token.url);
		assert_string_equal(got.send, token.send);
		assert_string_equal(got.name, token.name);
		assert_string_equal(got.secret, token.secret);
		assert_memory_equal(got.pin, token.pin, sizeof(token.pin));
	}
}

static void secrets_differ_and_hash(void **state)
{
	(void)state;
	struct err e = ERR_INIT;
	char one[ENROLL_SECRET_CHARS + 1], other[ENROLL_SECRET_CHARS + 1];
	uint8_t hashes[2][ENROLL_HASH_BYTES];
	assert_int_equal(enroll_secret_new(one, &e), 0);
	assert_int_equal(enroll_secret_new(other, &e), 0);
	assert_string_not_equal(one, other);
	assert_true(enroll_secret_hash(str_of(one), hashes[0]));
	assert_true(enroll_secret_hash(str_of(other), hashes[1]));
	assert_memory_not_equal(hashes[0], hashes[1], ENROLL_HASH_BYTES);
	assert_false(enroll_secret_hash(STR(""), hashes[0]));
	assert_false(enroll_secret_hash(STR("short"), hashes[0]));
	one[3] = '+';
	assert_false(enroll_secret_hash(str_of(one), hashes[0]));
}

/* A token cut off anywhere is refused, and the error says nothing of it. */
static void cut_tokens_are_refused(void **state)
{
	(void)state;
	struct enroll_token token = a_token(), got;
	struct err e = ERR_INIT;
	AUTO(buf_wipe_auto) struct buf text;
	buf_init(&text, ENROLL_TOKEN_BYTES);
	assert_int_equal(enroll_token_write(&token, &text, &e), 0);
	for (size_t n = 0; n < text.n; n++) {
		e = ERR_INIT;
		assert_int_equal(enroll_token_read(str_mem(text.p, n), &got, &e), -1);
		assert_int_equal(e.kind, ERR_REJECT);
		assert_null(strstr(e.text, token.secret));
	}
}

static void other_texts_are_refused(void **state)
{
	(void)state;
	static const struct {
		const char *text, *error;
	} cases[] = {
		{"", "starts with 'sealpost-enroll:'"}, {"client_001", "starts with 'sealpost-enroll:'"},
		{"sealpost-enroll:", "not a whole"}, {"sealpost-enroll:a", "not a whole"},
		{"sealpost-enroll:a+b/", "not a whole"}, {"sealpost-enroll:e30=", "not a whole"},
		{"sealpost-enroll:W10", "not a whole"},                      /* [] */
		{"sealpost-enroll:e30", "another version"},                  /* {} */
		{"sealpost-enroll:eyJ2IjoyfQ", "another version"},           /* {"v":2} */
		{"sealpost-enroll:eyJ2IjoxfQ", "lacks something"},           /* {"v":1} */
		{"sealpost-enroll:eyJ2IjoxLCJ1cmwiOjF9", "lacks something"}, /* a url that is a number */
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct enroll_token got;
		struct err e = ERR_INIT;
		assert_int_equal(enroll_token_read(str_of(cases[i].text), &got, &e), -1);
		if (!strstr(e.text, cases[i].error))
			fail_msg("%s: %s", cases[i].text, e.text);
	}
}

int main(void)
{
	json_init();
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(comes_out_as_it_went_in),
		cmocka_unit_test(secrets_differ_and_hash),
		cmocka_unit_test(cut_tokens_are_refused),
		cmocka_unit_test(other_texts_are_refused),
	};
	return cmocka_run_group_tests_name("crypto enroll", tests, NULL, NULL);
}
