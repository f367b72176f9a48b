/* scratch_test.h - for tests that need files: an empty directory to be in, removed with all that is in it.
 * As setup and teardown of a test: cmocka_unit_test_setup_teardown(f, scratch_enter, scratch_leave). */
#ifndef BASE_SCRATCH_TEST_H
#define BASE_SCRATCH_TEST_H

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static inline int scratch_enter(void **state)
{
	(void)state;
	char path[] = "/tmp/sealpost-test-XXXXXX";
	return mkdtemp(path) && chdir(path) == 0 ? 0 : -1;
}

static inline int scratch_remove(const char *path, const struct stat *st, int kind, struct FTW *at)
{
	(void)st, (void)kind, (void)at;
	return remove(path);
}

static inline int scratch_leave(void **state)
{
	(void)state;
	char path[4096];
	if (!getcwd(path, sizeof(path)) || chdir("/") < 0)
		return -1;
	return nftw(path, scratch_remove, 8, FTW_DEPTH | FTW_PHYS);
}

#endif
