/* scratch_test.h - for tests that need files: an empty directory to be in, removed with all that is in it.
 * As setup and teardown of a test: cmocka_unit_test_setup_teardown(f, scratch_enter, scratch_leave). cmocka.h
 * comes first. */
#ifndef BASE_SCRATCH_TEST_H
#define BASE_SCRATCH_TEST_H

#include <dirent.h>
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

/* Removes a directory with its files, but for those whose names begin with a dot: what was written aside and left
 * behind is to be found, because the directory stays. */
static inline void scratch_remove_plain(const char *path)
{
	DIR *dir = opendir(path);
	assert_non_null(dir);
	for (const struct dirent *entry; (entry = readdir(dir)) != NULL;)
		if (entry->d_name[0] != '.')
			assert_int_equal(unlinkat(dirfd(dir), entry->d_name, 0), 0);
	closedir(dir);
	assert_int_equal(rmdir(path), 0);
}

#endif
