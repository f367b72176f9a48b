/* config_secret_test.c - what is special about secrets. The sources of config are built into this test with
 * a table that has one: see meson.build. */
#include "base/config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/scratch_test.h"

static int load(char *first, char *second, const char *set, struct config **ret, struct err *e)
{
	char *env[] = {first, second, NULL};
	const char *sets[] = {set};
	struct config_source source = {.env = env, .sets = sets, .set_count = set ? 1 : 0};
	return config_load(&source, ret, e);
}

static void expect_password(char *variable, const char *password)
{
	struct err e = ERR_INIT;
	struct config *c;
	if (load(variable, NULL, NULL, &c, &e) < 0)
		fail_msg("%s", e.text);
	if (password)
		assert_string_equal(c->test_password, password);
	else
		assert_null(c->test_password);
	config_free(c);
}

static void comes_from_a_variable_or_its_file(void **state)
{
	char direct[] = "SEALPOST_TEST_PASSWORD=swordfish", by_file[] = "SEALPOST_TEST_PASSWORD_FILE=secret";
	expect_password(direct, "swordfish");
	assert_int_equal(file_replace("secret", 0600, STR("from file\n"), NULL), 0);
	expect_password(by_file, "from file");
	assert_int_equal(file_replace("secret", 0600, STR(" exact "), NULL), 0);
	expect_password(by_file, " exact ");
	assert_int_equal(file_replace("secret", 0600, STR("\n"), NULL), 0);
	expect_password(by_file, NULL);
}

static void is_never_in_an_error(void **state)
{
	static struct {
		char first[48], second[48];
		const char *set, *error;
	} rows[] = {
		{"SEALPOST_TEST_PASSWORD=sword\tfish", "", NULL,
			"environment SEALPOST_TEST_PASSWORD: the value is not text on one line"},
		{"SEALPOST_TEST_PASSWORD_FILE=secret", "", NULL,
			"environment SEALPOST_TEST_PASSWORD_FILE: the value is not text on one line"},
		{"SEALPOST_TEST_PASSWORD_FILE=none", "", NULL,
			"environment SEALPOST_TEST_PASSWORD_FILE: open 'none': No such file or directory"},
		{"SEALPOST_TEST_PASSWORD=a", "SEALPOST_TEST_PASSWORD_FILE=secret", NULL,
			"environment SEALPOST_TEST_PASSWORD_FILE: another variable gives the same option"},
		{"", "", "test_password=swordfish",
			"--set test_password: a secret on the command line can be seen by every user of this "
			"machine; use the configuration file, or SEALPOST_TEST_PASSWORD_FILE in the "
			"environment"},
		{"", "", "test_passwort=swordfish",
			"--set: unknown option 'test_passwort'; did you mean 'test_password'?"},
	};
	assert_int_equal(file_replace("secret", 0600, STR("two\nlines\n"), NULL), 0);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct err e = ERR_INIT;
		struct config *c;
		assert_int_equal(load(rows[i].first, rows[i].second, rows[i].set, &c, &e), -1);
		assert_string_equal(e.text, rows[i].error);
	}
}

static void is_never_shown(void **state)
{
	char variable[] = "SEALPOST_TEST_PASSWORD=swordfish";
	struct config *with, *without;
	assert_int_equal(load(variable, NULL, NULL, &with, NULL), 0);
	assert_int_equal(load(NULL, NULL, NULL, &without, NULL), 0);
	struct buf b;
	buf_init(&b, 1 << 20);
	assert_int_equal(config_show(with, &b, NULL), 0);
	assert_int_equal(config_show_json(with, &b, NULL), 0);
	assert_int_equal(config_show(without, &b, NULL), 0);
	buf_add_char(&b, 0);
	assert_non_null(strstr(b.p, "\ntest_password: \"[secret]\"  # environment SEALPOST_TEST_PASSWORD\n"));
	assert_non_null(strstr(b.p, "\"test_password\":\"[secret]\""));
	assert_non_null(strstr(b.p, "\ntest_password: \"\"  # default\n"));
	assert_null(strstr(b.p, "swordfish"));

	buf_reset(&b);
	assert_int_equal(config_changed_restart(with, without, &b), 1);
	assert_true(str_eq(buf_str(&b), STR("test_password")));
	buf_clear(&b);
	config_free(with);
	config_free(without);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, scratch_enter, scratch_leave)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(comes_from_a_variable_or_its_file),
		TEST(is_never_in_an_error),
		TEST(is_never_shown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
