#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "http/http.h"

static void assert_written(
	enum http_problem problem, const struct http_problem_options *o, const char *id, const char *want)
{
	struct buf out;
	buf_init(&out, 4096);
	http_problem_write(&out, problem, o, id);
	buf_add_char(&out, 0);
	assert_false(out.failed);
	assert_string_equal(out.p, want);
	buf_clear(&out);
}

static void problems_are_written_as_the_contract_says(void **state)
{
	const struct http_field_problem fields[] = {
		{"/sender_number", "not_e164", "not a number: \"x\""},
		{"/message_body", "required", NULL},
	};
	assert_written(PROBLEM_VALIDATION_ERROR,
		&(struct http_problem_options){.detail = "two members", .fields = fields, .field_count = 2},
		"id-1",
		"{\"type\":\"urn:sealpost:problem:validation-error\","
		"\"title\":\"The request does not meet the contract\",\"status\":400,\"code\":\"validation_error\","
		"\"detail\":\"two members\",\"errors\":["
		"{\"pointer\":\"/sender_number\",\"code\":\"not_e164\",\"detail\":\"not a number: \\\"x\\\"\"},"
		"{\"pointer\":\"/message_body\",\"code\":\"required\"}],\"request_id\":\"id-1\"}");
	assert_written(PROBLEM_NOT_FOUND, NULL, NULL,
		"{\"type\":\"urn:sealpost:problem:not-found\",\"title\":\"There is nothing here\","
		"\"status\":404,\"code\":\"not_found\"}");
}

static void retry_after_where_waiting_helps(void **state)
{
	for (enum http_problem p = 0; p < PROBLEM_COUNT; p++) {
		int status = http_problem_status(p);
		assert_int_equal(http_problem_retry_after_s(p) > 0, status == 429 || status == 503);
	}
	assert_string_equal(http_problem_code(PROBLEM_UNAVAILABLE), "unavailable");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(problems_are_written_as_the_contract_says),
		cmocka_unit_test(retry_after_where_waiting_helps),
	};
	return cmocka_run_group_tests_name("http_problem", tests, NULL, NULL);
}
