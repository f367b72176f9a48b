/* watch_test.c - when a change is reported: once, and a look after the last one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/scratch_test.h"
#include "base/str.h"
#include "cli/watch.h"

static void write_file(const char *path, const char *text)
{
	struct err e = ERR_INIT;
	assert_int_equal(file_replace(path, 0600, str_of(text), &e), 0);
}

/* What happens before each look, and whether that look reports a change. */
static void a_change_is_reported_once_it_is_over(void **state)
{
	static const struct {
		const char *cert, *key;
		bool report;
	} looks[] = {
		{NULL, NULL, false},
		{"two", NULL, false},
		{NULL, "two", false}, /* the pair is complete now */
		{NULL, NULL, true},
		{NULL, NULL, false},
		{"two", NULL, false}, /* the same text in another file */
		{NULL, NULL, true},
	};
	struct watch w = {.count = 0};
	write_file("cert", "one");
	write_file("key", "one");
	watch_add(&w, "cert");
	watch_add(&w, "key");
	watch_add(&w, NULL);
	for (size_t i = 0; i < ARRAY_LEN(looks); i++) {
		if (looks[i].cert)
			write_file("cert", looks[i].cert);
		if (looks[i].key)
			write_file("key", looks[i].key);
		assert_int_equal(watch_changed(&w), looks[i].report);
	}
}

static void a_file_may_come_and_go(void **state)
{
	struct watch w = {.count = 0};
	watch_add(&w, "config");
	assert_false(watch_changed(&w));
	write_file("config", "there");
	assert_false(watch_changed(&w));
	assert_true(watch_changed(&w));
	assert_int_equal(unlink("config"), 0);
	assert_false(watch_changed(&w));
	assert_true(watch_changed(&w));
	assert_false(watch_changed(&w));
}

static void a_symbolic_link_is_followed(void **state)
{
	struct watch w = {.count = 0};
	write_file("first", "1");
	write_file("second", "2");
	assert_int_equal(symlink("first", "current"), 0);
	watch_add(&w, "current");
	assert_int_equal(symlink("second", "next") | rename("next", "current"), 0);
	assert_false(watch_changed(&w));
	assert_true(watch_changed(&w));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			a_change_is_reported_once_it_is_over, scratch_enter, scratch_leave),
		cmocka_unit_test_setup_teardown(a_file_may_come_and_go, scratch_enter, scratch_leave),
		cmocka_unit_test_setup_teardown(a_symbolic_link_is_followed, scratch_enter, scratch_leave),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
