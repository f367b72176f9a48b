/* check_test.c - states and formats of a check's report. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/auto.h"
#include "base/json.h"
#include "cli/check.h"

static void judges_against_thresholds(void **state)
{
	static const struct {
		int64_t value;
		bool falling;
		enum check_state expected;
	} cases[] = {
		{0, false, CHECK_OK},
		{10, false, CHECK_OK},
		{11, false, CHECK_WARNING},
		{20, false, CHECK_WARNING},
		{21, false, CHECK_CRITICAL},
		{21, true, CHECK_OK},
		{20, true, CHECK_OK},
		{19, true, CHECK_WARNING},
		{10, true, CHECK_WARNING},
		{9, true, CHECK_CRITICAL},
		{-1, true, CHECK_CRITICAL},
	};
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		int64_t warning = cases[i].falling ? 20 : 10, critical = cases[i].falling ? 10 : 20;
		assert_int_equal(
			check_judge(cases[i].value, cases[i].falling, warning, critical), cases[i].expected);
	}
}

static const struct check_report age = {
	.check = "age",
	.state = CHECK_WARNING,
	.text = "waits | since\n7 minutes",
	.warning = 300000,
	.critical = 3600000,
	.readings = {{"oldest", CHECK_MS, 420500}, {"overdue", CHECK_MS, 0}},
	.count = 2,
};

static const struct check_report disk = {
	.check = "disk",
	.state = CHECK_OK,
	.text = "enough",
	.falling = true,
	.warning = 2048,
	.critical = 1024,
	.readings = {{"free", CHECK_BYTES, 4096}},
	.count = 1,
};

static const struct check_report unknown = {
	.check = "dead", .state = CHECK_UNKNOWN, .text = "no such directory"};

/* What is printed; free. */
static char *printed(const struct check_report *r, const char *format)
{
	char *text = NULL;
	size_t n;
	enum check_format f;
	assert_true(check_format_parse(format, &f));
	FILE *out = open_memstream(&text, &n);
	assert_non_null(out);
	assert_int_equal(check_print(r, f, out, NULL), 0);
	fclose(out);
	return text;
}

static void prints(void **state)
{
	static const struct {
		const struct check_report *report;
		const char *format, *expected;
	} cases[] = {
		{&age, "nagios",
			"SEALPOST AGE WARNING - waits / since 7 minutes | oldest=420.500s;300.000;3600.000;0 "
			"overdue=0.000s\n"},
		{&disk, "nagios", "SEALPOST DISK OK - enough | free=4096B;2048:;1024:;0\n"},
		{&unknown, "nagios", "SEALPOST DEAD UNKNOWN - no such directory\n"},
		{&disk, "json",
			"{\"check\":\"disk\",\"state\":\"ok\",\"code\":0,\"text\":\"enough\",\"values\":[{\"name\":"
			"\"free\",\"value\":4096,\"unit\":\"bytes\",\"warning\":2048,\"critical\":1024}]}\n"},
		{&unknown, "json",
			"{\"check\":\"dead\",\"state\":\"unknown\",\"code\":3,\"text\":\"no such directory\","
			"\"values\":[]}\n"},
		{&unknown, "prometheus",
			"# HELP sealpost_check_state 0 ok, 1 warning, 2 critical, 3 unknown\n"
			"# TYPE sealpost_check_state gauge\n"
			"sealpost_check_state{check=\"dead\"} 3\n"},
		{&disk, "text",
			"ok  disk: enough\n"
			"  free  4096B  warning below 2048, critical below 1024\n"},
	};
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		AUTO(free_auto) char *text = printed(cases[i].report, cases[i].format);
		assert_string_equal(text, cases[i].expected);
	}
}

static void prometheus_has_every_value(void **state)
{
	(void)state;
	AUTO(free_auto) char *text = printed(&age, "prometheus");
	assert_non_null(strstr(
		text, "\nsealpost_check_value{check=\"age\",value=\"oldest\",unit=\"seconds\"} 420.500\n"));
	assert_non_null(strstr(
		text, "\nsealpost_check_value{check=\"age\",value=\"overdue\",unit=\"seconds\"} 0.000\n"));
}

static void knows_its_formats(void **state)
{
	enum check_format format;
	(void)state;
	assert_false(check_format_parse("xml", &format));
	assert_false(check_format_parse("", &format));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(judges_against_thresholds),
		cmocka_unit_test(prints),
		cmocka_unit_test(prometheus_has_every_value),
		cmocka_unit_test(knows_its_formats),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
