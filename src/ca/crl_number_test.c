/* crl_number_test.c - numbers grow over restarts, torn writes and restored copies. */
#include "ca/crl_number.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>

#include "base/auto.h"
#include "base/file.h"

static char directory[] = "/tmp/sealpost-number-XXXXXX";
static char path[64];

static int setup(void **state)
{
	if (!mkdtemp(directory))
		return -1;
	snprintf(path, sizeof(path), "%s/crl-number", directory);
	return 0;
}

static int teardown(void **state)
{
	return rmdir(directory);
}

static int fresh(void **state)
{
	return crl_number_init(path, NULL);
}

static int cleanup(void **state)
{
	return unlink(path);
}

/* Opens, takes one number, closes. */
static uint64_t take(struct wall now)
{
	struct crl_number n;
	uint64_t number = 0;
	assert_int_equal(crl_number_open(path, &n, NULL), 0);
	assert_int_equal(crl_number_next(&n, now, &number, NULL), 0);
	crl_number_close(&n);
	return number;
}

static void test_counts(void **state)
{
	for (uint64_t expected = 1; expected < 6; expected++)
		assert_true(take((struct wall){0}) == expected);
	assert_int_equal(crl_number_init(path, NULL), 0);
	assert_true(take((struct wall){0}) == 6);
}

static void test_follows_the_clock(void **state)
{
	assert_true(take((struct wall){5}) == 5);
	assert_true(take((struct wall){5}) == 6);
	assert_true(take((struct wall){1}) == 7);
	assert_true(take((struct wall){100}) == 100);
	assert_true(take((struct wall){-100}) == 101);
}

/* Of the bytes in which the two differ, the second half of `new` becomes what it was: a write cut short. */
static void tear(const char *old, char *new, size_t n)
{
	size_t differing = 0, kept = 0;
	for (size_t i = 0; i < n; i++)
		differing += old[i] != new[i];
	for (size_t i = 0; i < n; i++)
		if (old[i] != new[i] && kept++ >= differing / 2)
			new[i] = old[i];
}

/* A number whose write was cut short was never used; the one before it still counts. */
static void test_torn_write(void **state)
{
	for (int round = 0; round < 30; round++) {
		char old[128] = "", new[128] = "";
		AUTO(fd_auto) int fd = open(path, O_RDWR | O_CLOEXEC);
		ssize_t n = pread(fd, old, sizeof(old), 0);
		uint64_t torn = take((struct wall){0});
		assert_true(n > 0 && pread(fd, new, sizeof(new), 0) == n);
		tear(old, new, (size_t)n);
		assert_true(pwrite(fd, new, (size_t)n, 0) == n);
		assert_true(take((struct wall){0}) == torn);
	}
}

static void test_damage(void **state)
{
	static const char *const texts[] = {"", "7\n",
		"00000000000000000007 00000000000000000008\n00000000000000000001 00000000000000000002\n",
		"0000000000000000000x 0000000000000000000x\n0000000000000000000y 0000000000000000000y\n"};
	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		struct crl_number n;
		struct err e;
		assert_int_equal(file_replace(path, 0600, str_of(texts[i]), NULL), 0);
		assert_int_equal(crl_number_open(path, &n, &e), -1);
		assert_int_equal(e.kind, ERR_FATAL);
	}
}

static void test_missing(void **state)
{
	struct crl_number n;
	struct err e;
	assert_int_equal(crl_number_open("/nonexistent/number", &n, &e), -1);
	assert_int_equal(e.kind, ERR_NOT_FOUND);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, fresh, cleanup)
	const struct CMUnitTest tests[] = {
		TEST(test_counts),
		TEST(test_follows_the_clock),
		TEST(test_torn_write),
		TEST(test_damage),
		cmocka_unit_test(test_missing),
	};
#undef TEST
	return cmocka_run_group_tests(tests, setup, teardown);
}
