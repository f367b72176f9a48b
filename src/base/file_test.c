/* file_test.c - on a real directory, made for each test and removed after it. */
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/auto.h"
#include "base/scratch_test.h"

static mode_t mode_of(const char *path)
{
	struct stat st;
	assert_int_equal(stat(path, &st), 0);
	return st.st_mode & 07777;
}

static size_t names_like(const char *pattern)
{
	glob_t found;
	size_t n = glob(pattern, 0, NULL, &found) == 0 ? found.gl_pathc : 0;
	globfree(&found);
	return n;
}

static void replaces_and_reads(void **state)
{
	struct err e = ERR_INIT;
	AUTO(buf_auto) struct buf b;
	buf_init(&b, 100000);
	assert_int_equal(file_replace("f", 0600, STR("first"), &e), 0);
	assert_int_equal(file_replace("f", 0640, STR("second"), &e), 0);
	assert_int_equal(file_read("f", 6, &b, &e), 0);
	assert_true(str_eq(buf_str(&b), STR("second")));
	assert_int_equal(mode_of("f"), 0640);
	assert_int_equal(file_replace("f", 0444, (struct str){NULL, 0}, &e), 0);
	assert_int_equal(file_read("f", 0, &b, &e), 0);
	assert_true(str_eq(buf_str(&b), STR("second"))); /* appended nothing */
	assert_int_equal(mode_of("f"), 0444);
	assert_int_equal(names_like("f*"), 1);
}

static void mode_does_not_depend_on_umask(void **state)
{
	mode_t before = umask(0);
	assert_int_equal(file_replace("key", 0600, STR("k"), NULL), 0);
	umask(0077);
	assert_int_equal(file_replace("cert", 0644, STR("c"), NULL), 0);
	umask(before);
	assert_int_equal(mode_of("key"), 0600);
	assert_int_equal(mode_of("cert"), 0644);
}

static void failed_replace_leaves_nothing(void **state)
{
	struct err e = ERR_INIT;
	assert_int_equal(mkdir("dir", 0700), 0);
	assert_int_equal(file_replace("dir", 0600, STR("x"), &e), -1);
	assert_int_equal(e.sys_errno, EISDIR);
	assert_non_null(strstr(e.text, "replace 'dir': "));
	assert_int_equal(names_like("dir.*"), 0);
	assert_int_equal(file_replace("missing/f", 0600, STR("x"), &e), -1);
	assert_int_equal(e.kind, ERR_NOT_FOUND);
}

static void read_has_a_ceiling(void **state)
{
	struct err e = ERR_INIT;
	AUTO(buf_auto) struct buf b;
	buf_init(&b, 8);
	buf_add_str(&b, STR("12"));
	assert_int_equal(file_replace("six", 0600, STR("abcdef"), &e), 0);
	assert_int_equal(file_read("six", 5, &b, &e), -1);
	assert_int_equal(e.kind, ERR_REJECT);
	assert_string_equal(e.text, "'six' is larger than 5 bytes");
	assert_true(str_eq(buf_str(&b), STR("12")));
	assert_int_equal(file_read("six", 1000, &b, &e), 0);
	assert_true(str_eq(buf_str(&b), STR("12abcdef")));
	assert_int_equal(file_read("six", 1000, &b, &e), -1); /* the buffer's own ceiling */
	assert_true(str_eq(buf_str(&b), STR("12abcdef")));
}

/* Files without a size, and reads that come in pieces. */
static void reads_what_has_no_size(void **state)
{
	AUTO(buf_auto) struct buf b;
	buf_init(&b, 1 << 20);
	assert_int_equal(file_read("/proc/self/maps", 1 << 20, &b, NULL), 0);
	assert_true(b.n > 100);

	assert_int_equal(mkfifo("pipe", 0600), 0);
	pid_t writer = fork();
	if (writer == 0) {
		int fd = open("pipe", O_WRONLY);
		static char block[40000];
		_exit(write(fd, block, sizeof(block)) == (ssize_t)sizeof(block) ? 0 : 1);
	}
	buf_reset(&b);
	assert_int_equal(file_read("pipe", 50000, &b, NULL), 0);
	assert_int_equal(b.n, 40000);
	int status;
	assert_int_equal(waitpid(writer, &status, 0), writer);
	assert_int_equal(status, 0);
}

static void read_errors_have_kinds(void **state)
{
	static const struct {
		const char *path;
		enum err_kind kind;
		const char *text;
	} rows[] = {
		{"none", ERR_NOT_FOUND, "open 'none': No such file or directory"},
		{"file/below", ERR_NOT_FOUND, "open 'file/below': Not a directory"},
		{".", ERR_FATAL, "read '.': Is a directory"},
	};
	assert_int_equal(file_replace("file", 0600, STR(""), NULL), 0);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct err e = ERR_INIT;
		AUTO(buf_auto) struct buf b;
		buf_init(&b, 100);
		assert_int_equal(file_read(rows[i].path, 100, &b, &e), -1);
		assert_int_equal(e.kind, rows[i].kind);
		assert_string_equal(e.text, rows[i].text);
	}
}

static void replaces_a_link_not_its_target(void **state)
{
	struct err e = ERR_INIT;
	assert_int_equal(file_replace("target", 0600, STR("old"), &e), 0);
	assert_int_equal(symlink("target", "link"), 0);
	assert_int_equal(file_replace("link", 0600, STR("new"), &e), 0);
	AUTO(buf_auto) struct buf b;
	buf_init(&b, 100);
	assert_int_equal(file_read("target", 100, &b, &e), 0);
	assert_true(str_eq(buf_str(&b), STR("old")));
}

static void makes_directories(void **state)
{
	struct err e = ERR_INIT;
	static const char *const paths[] = {"a/b/c", "a/b/c", "a//b/d/", "./e", "."};
	for (size_t i = 0; i < ARRAY_LEN(paths); i++)
		if (dir_make(paths[i], 0700, &e) < 0)
			fail_msg("%s: %s", paths[i], e.text);
	assert_int_equal(mode_of("a"), 0700);
	assert_int_equal(mode_of("a/b/d"), 0700);

	assert_int_equal(file_replace("file", 0600, STR(""), &e), 0);
	assert_int_equal(dir_make("file", 0700, &e), -1);
	assert_int_equal(e.kind, ERR_CONFLICT);
	assert_string_equal(e.text, "'file' exists and is not a directory");
	assert_int_equal(dir_make("file/below", 0700, &e), -1);
	assert_int_equal(dir_make("", 0700, &e), -1);
}

static void lock_excludes(void **state)
{
	struct err e = ERR_INIT;
	int fd = -1, second = -1;
	assert_int_equal(file_lock("lock", &fd, &e), 0);
	assert_int_equal(mode_of("lock"), 0600);

	assert_int_equal(file_lock("lock", &second, &e), -1);
	assert_int_equal(second, -1);
	assert_int_equal(e.kind, ERR_CONFLICT);
	char text[64];
	snprintf(text, sizeof(text), "'lock' is in use by process %d", getpid());
	assert_string_equal(e.text, text);

	assert_int_equal(ftruncate(fd, 0), 0);
	assert_int_equal(file_lock("lock", &second, &e), -1);
	assert_string_equal(e.text, "'lock' is in use by another process");

	close(fd);
	assert_int_equal(file_lock("lock", &second, &e), 0);
	close(second);
	assert_int_equal(file_lock("none/lock", &second, &e), -1);
	assert_int_equal(e.kind, ERR_NOT_FOUND);
}

/* A shorter id over a longer one that an earlier holder left behind. */
static void lock_names_the_current_holder(void **state)
{
	assert_int_equal(file_replace("lock", 0600, STR("123456789012\n"), NULL), 0);
	int fd, second;
	assert_int_equal(file_lock("lock", &fd, NULL), 0);
	struct err e = ERR_INIT;
	assert_int_equal(file_lock("lock", &second, &e), -1);
	char text[64];
	snprintf(text, sizeof(text), "'lock' is in use by process %d", getpid());
	assert_string_equal(e.text, text);
	close(fd);
}

static void *let_go(void *fd)
{
	close(*(int *)fd);
	return NULL;
}

/* Whoever lets go in time is no conflict. */
static void lock_waits(void **state)
{
	int fd, second = -1;
	pthread_t holder;
	assert_int_equal(file_lock("lock", &fd, NULL), 0);
	assert_int_equal(file_lock_wait("lock", 20, &second, NULL), -1);
	assert_int_equal(pthread_create(&holder, NULL, let_go, &fd), 0);
	assert_int_equal(file_lock_wait("lock", 10000, &second, NULL), 0);
	pthread_join(holder, NULL);
	close(second);
}

static void joins_paths(void **state)
{
	static const struct {
		const char *dir, *name, *path;
	} rows[] = {{"/a", "b", "/a/b"}, {"/a/", "b", "/a/b"}, {"/", "b", "/b"}, {".", "b", "./b"}};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		AUTO(free_auto) char *path = path_join(rows[i].dir, rows[i].name);
		assert_string_equal(path, rows[i].path);
	}
}

static void syncs_the_parent(void **state)
{
	static const char *const there[] = {"f", "./f", "/f", "/", "/tmp/f"};
	for (size_t i = 0; i < ARRAY_LEN(there); i++)
		assert_int_equal(dir_sync_parent(there[i], NULL), 0);
	assert_int_equal(dir_sync_parent("missing/f", NULL), -1);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, scratch_enter, scratch_leave)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(replaces_and_reads),
		TEST(mode_does_not_depend_on_umask),
		TEST(failed_replace_leaves_nothing),
		TEST(read_has_a_ceiling),
		TEST(reads_what_has_no_size),
		TEST(read_errors_have_kinds),
		TEST(replaces_a_link_not_its_target),
		TEST(makes_directories),
		TEST(lock_excludes),
		TEST(lock_names_the_current_holder),
		TEST(lock_waits),
		TEST(joins_paths),
		TEST(syncs_the_parent),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
