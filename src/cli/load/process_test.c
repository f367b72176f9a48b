/* process_test.c - usage of this process, of a child, and of none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cli/load/process.h"

/* Uses CPU until this process's clock says that it has used `ns`. */
static void burn(int64_t ns)
{
	struct timespec t;
	do
		clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	while ((int64_t)t.tv_sec * 1000000000 + t.tv_nsec < ns);
}

static void test_self(void **state)
{
	struct process_usage before, after;
	struct err e = ERR_INIT;
	assert_int_equal(process_usage(getpid(), &before, &e), 0);
	assert_true(before.rss_bytes > 0);
	assert_true(before.peak_rss_bytes >= before.rss_bytes);
	burn(before.cpu_ns + 2000000);
	assert_int_equal(process_usage(getpid(), &after, &e), 0);
	assert_true(after.cpu_ns >= before.cpu_ns + 2000000);
}

/* A living child's CPU counts as its parent's. */
static void test_child(void **state)
{
	static const int64_t burnt_ns = 5000000;
	struct process_usage before, after;
	struct err e = ERR_INIT;
	int ready[2];
	char c;
	assert_int_equal(pipe(ready), 0);
	assert_int_equal(process_usage(getpid(), &before, &e), 0);
	pid_t child = fork();
	if (child == 0) {
		burn(burnt_ns);
		if (write(ready[1], "x", 1) == 1)
			pause();
		_exit(1);
	}
	assert_int_equal(read(ready[0], &c, 1), 1);
	assert_int_equal(process_usage(getpid(), &after, &e), 0);
	assert_true(after.cpu_ns - before.cpu_ns >= burnt_ns);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	close(ready[0]);
	close(ready[1]);
}

static void test_none(void **state)
{
	struct process_usage usage;
	struct err e = ERR_INIT;
	pid_t gone = fork();
	if (gone == 0)
		_exit(0);
	waitpid(gone, NULL, 0);
	assert_true(process_usage(gone, &usage, &e) < 0);
	assert_int_equal(e.kind, ERR_NOT_FOUND);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_self),
		cmocka_unit_test(test_child),
		cmocka_unit_test(test_none),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
