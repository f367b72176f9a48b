/* err_test.c */
#include "base/err.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/str.h"

static void describes(void **state)
{
	struct err e = ERR_INIT;
	assert_int_equal(e.kind, ERR_NONE);
	assert_int_equal(err_set(&e, ERR_CONFLICT, "%s is %d", "x", 5), -1);
	assert_int_equal(e.kind, ERR_CONFLICT);
	assert_int_equal(e.sys_errno, 0);
	assert_string_equal(e.text, "x is 5");

	errno = ENOSPC;
	assert_int_equal(err_sys(&e, ERR_RETRY, "write '%s'", "f"), -1);
	assert_int_equal(errno, ENOSPC);
	assert_int_equal(e.sys_errno, ENOSPC);
	assert_string_equal(e.text, "write 'f': No space left on device");

	assert_int_equal(err_context(&e, "open %s", "queue"), -1);
	assert_int_equal(e.kind, ERR_RETRY);
	assert_int_equal(e.sys_errno, ENOSPC);
	assert_string_equal(e.text, "open queue: write 'f': No space left on device");

	assert_int_equal(err_oom(&e), -1);
	assert_int_equal(e.kind, ERR_RETRY);
	assert_int_equal(e.sys_errno, ENOMEM);
	assert_string_equal(e.text, "out of memory");
}

static void takes_null(void **state)
{
	assert_int_equal(err_set(NULL, ERR_FATAL, "x"), -1);
	assert_int_equal(err_sys(NULL, ERR_FATAL, "x"), -1);
	assert_int_equal(err_context(NULL, "x"), -1);
	assert_int_equal(err_oom(NULL), -1);
}

static void names_kinds(void **state)
{
	assert_string_equal(err_kind_name(ERR_NONE), "none");
	assert_string_equal(err_kind_name(ERR_FATAL), "fatal");
	assert_string_equal(err_kind_name(ERR_KINDS), "unknown");
	for (enum err_kind k = 0; k < ERR_KINDS; k++)
		assert_non_null(err_kind_name(k));
}

static void check_cut(const struct err *e)
{
	size_t n = strlen(e->text);
	assert_int_equal(n, ERR_TEXT_BYTES - 1);
	assert_string_equal(e->text + n - 3, "...");
	assert_true(utf8_valid(str_of(e->text), NULL));
}

/* Whatever is cut, and wherever a character of two to four bytes falls. */
static void cuts_long_text(void **state)
{
	static const char *const characters[] = {"x", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80"};
	for (size_t i = 0; i < ARRAY_LEN(characters); i++) {
		for (int shift = 0; shift < 4; shift++) {
			char text[600] = "";
			size_t n = (size_t)shift;
			memset(text, '-', n);
			for (; n < 500; n += strlen(characters[i]))
				memcpy(text + n, characters[i], strlen(characters[i]));
			struct err e;
			err_set(&e, ERR_REJECT, "%s", text);
			check_cut(&e);
			assert_memory_equal(e.text, text, ERR_TEXT_BYTES - 8);
			err_context(&e, "outer");
			check_cut(&e);
			assert_memory_equal(e.text, "outer: ", 7);
			errno = EIO;
			err_sys(&e, ERR_RETRY, "%s", text);
			check_cut(&e);
			err_set(&e, ERR_REJECT, "inner");
			err_context(&e, "%s", text);
			check_cut(&e);
		}
	}
}

static void fits_exactly(void **state)
{
	char text[ERR_TEXT_BYTES];
	memset(text, 'x', sizeof(text));
	text[ERR_TEXT_BYTES - 1] = 0;
	struct err e;
	err_set(&e, ERR_REJECT, "%s", text);
	assert_string_equal(e.text, text);
	err_set(&e, ERR_REJECT, "%s", text + 3);
	err_context(&e, "c");
	assert_int_equal(strlen(e.text), ERR_TEXT_BYTES - 1);
	assert_memory_equal(e.text, "c: xxx", 6);
	assert_string_equal(e.text + ERR_TEXT_BYTES - 4, "xxx");
}

/* In a child: a broken promise ends the process, in release builds too. */
static void require_aborts(void **state)
{
	pid_t child = fork();
	if (child == 0) {
		close(STDERR_FILENO);
		require(getpid() == 0);
		_exit(0);
	}
	int status;
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(describes),
		cmocka_unit_test(takes_null),
		cmocka_unit_test(names_kinds),
		cmocka_unit_test(cuts_long_text),
		cmocka_unit_test(fits_exactly),
		cmocka_unit_test(require_aborts),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
