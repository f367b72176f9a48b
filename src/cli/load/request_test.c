/* request_test.c - what the load generator sends is what the contract asks for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "cli/load/request.h"

static const struct load_options single = {.authority = (char[]){"h:1"}, .body_bytes = 40};

static void check_message(const char *text, size_t n, const char *number, size_t body_bytes)
{
	json_t *m = json_loadb(text, n, JSON_REJECT_DUPLICATES, NULL);
	assert_non_null(m);
	assert_int_equal(json_object_size(m), 2);
	assert_string_equal(json_string_value(json_object_get(m, "sender_number")), number);
	assert_int_equal(json_string_length(json_object_get(m, "message_body")), body_bytes);
	json_decref(m);
}

static void test_single(void **state)
{
	struct request r;
	struct err e = ERR_INIT;
	assert_int_equal(request_init_ingest(&r, &single, 41, &e), 0);
	request_vary(&r);
	struct str body = request_body(&r);
	check_message(body.p, body.n, "+4915100000042", 40);
	request_vary(&r);
	check_message(body.p, body.n, "+4915100000043", 40);
	char length[64];
	snprintf(length, sizeof(length), "Content-Length: %zu\r\n\r\n{", body.n);
	assert_true(str_starts(buf_str(&r.bytes), STR("POST /api/v1/messages HTTP/1.1\r\nHost: h:1\r\n")));
	assert_non_null(memmem(r.bytes.p, r.bytes.n, length, strlen(length)));
	request_clear(&r);
}

static void test_batch(void **state)
{
	struct load_options o = single;
	struct request r;
	struct err e = ERR_INIT;
	char number[32];
	o.batch = 3;
	assert_int_equal(request_init_ingest(&r, &o, 99999998, &e), 0);
	request_vary(&r);
	struct str body = request_body(&r), line;
	static const unsigned numbers[] = {99999999, 0, 1};
	for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
		assert_true(str_cut(&body, '\n', &line));
		snprintf(number, sizeof(number), "+49151%08u", numbers[i]);
		check_message(line.p, line.n, number, 40);
	}
	assert_int_equal(body.n, 0);
	request_clear(&r);
}

static void test_get(void **state)
{
	struct request r;
	struct err e = ERR_INIT;
	assert_int_equal(request_init_get(&r, &single, "/livez", &e), 0);
	assert_true(str_eq(buf_str(&r.bytes), STR("GET /livez HTTP/1.1\r\nHost: h:1\r\n\r\n")));
	assert_int_equal(request_body(&r).n, 0);
	request_vary(&r);
	request_clear(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_single),
		cmocka_unit_test(test_batch),
		cmocka_unit_test(test_get),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
