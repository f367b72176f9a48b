/* log_test.c - standard error is put into a file for each test; time is a fake clock. */
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/scratch_test.h"

static int real_stderr;
static struct clock_fake fake;
static const struct wall start = {1795339800123}; /* 2026-11-22T09:30:00.123Z */

static int setup(void **state)
{
	if (scratch_enter(state) < 0)
		return -1;
	clock_fake_init(&fake, start);
	real_stderr = dup(STDERR_FILENO);
	int fd = open("stderr", O_WRONLY | O_CREAT | O_APPEND, 0600);
	dup2(fd, STDERR_FILENO);
	return close(fd);
}

static int teardown(void **state)
{
	log_close();
	dup2(real_stderr, STDERR_FILENO);
	close(real_stderr);
	return scratch_leave(state);
}

/* The whole file as a string, valid until the next call. */
static const char *contents(const char *path)
{
	static char text[1 << 20];
	struct buf b = {.p = text, .room = sizeof(text), .ceiling_bytes = sizeof(text) - 1};
	assert_int_equal(file_read(path, sizeof(text), &b, NULL), 0);
	text[b.n] = 0;
	return text;
}

static bool exists(const char *path)
{
	return access(path, F_OK) == 0;
}

static struct log_options options(enum log_format format)
{
	return (struct log_options){
		.level = LOG_INFO, .format = format, .to_stderr = true, .keep_days = 7, .clock = &fake.clock};
}

static void open_log(struct log_options o)
{
	struct err e = ERR_INIT;
	if (log_open(&o, &e) < 0)
		fail_msg("%s", e.text);
}

static void before_open_only_warnings(void **state)
{
	log_event(LOG_INFO, "not.this");
	log_event(LOG_WARN, "but.this", LF_INT("n", -1));
	const char *text = contents("stderr");
	assert_non_null(strstr(text, "Z warn  but.this n=-1\n"));
	assert_null(strstr(text, "not.this"));
}

static void text_lines(void **state)
{
	open_log(options(LOG_FORMAT_TEXT));
	struct err e = ERR_INIT;
	err_set(&e, ERR_RETRY, "disk \"a\" is full");
	log_event(LOG_INFO, "plain");
	log_event(LOG_ERROR, "store.failed", LF_ERR(&e));
	log_event(LOG_DEBUG, "below.the.level");
	log_event(LOG_WARN, "fields", LF_STR("path", "/var/lib"), LF_UINT("u", UINT64_MAX),
		LF_BOOL("b", true), LF_STR("empty", ""), LF_STR("null", NULL), LF_STR("lines", "a\nb\x1b[2J"),
		LF_STR("eq", "a=b"), LF_STR("utf8", "caf\xc3\xa9"), LF_VIEW("bad", STR("\xff")));
	assert_string_equal(contents("stderr"),
		"2026-11-22T09:30:00.123Z info  plain\n"
		"2026-11-22T09:30:00.123Z error store.failed kind=retry error=\"disk \\\"a\\\" is full\"\n"
		"2026-11-22T09:30:00.123Z warn  fields path=/var/lib u=18446744073709551615 b=true empty=\"\" "
		"null=\"\" lines=\"a\\nb\\u001b[2J\" eq=\"a=b\" utf8=\"caf\xc3\xa9\" bad=\"\xef\xbf\xbd\"\n");
}

static void json_lines(void **state)
{
	open_log(options(LOG_FORMAT_JSON));
	log_event(LOG_INFO, "plain");
	log_event(LOG_INFO, "fields", LF_STR("s", "a\n\"b\""), LF_INT("i", INT64_MIN),
		LF_UINT("u", UINT64_MAX), LF_BOOL("b", false));
	assert_string_equal(contents("stderr"),
		"{\"time\":\"2026-11-22T09:30:00.123Z\",\"level\":\"info\",\"event\":\"plain\"}\n"
		"{\"time\":\"2026-11-22T09:30:00.123Z\",\"level\":\"info\",\"event\":\"fields\","
		"\"s\":\"a\\n\\\"b\\\"\",\"i\":-9223372036854775808,\"u\":18446744073709551615,\"b\":false}\n");
}

/* Values that are too long, and more of them than a line holds: the line stays whole and says so. */
static void long_lines_are_cut(void **state)
{
	static char value[5000], controls[1000];
	memset(value, 'x', sizeof(value) - 1);
	value[1023] = '\xc3', value[1024] = '\xa9'; /* a sequence across the limit of a value */
	memset(controls, 1, sizeof(controls) - 1);
	static const enum log_format formats[] = {LOG_FORMAT_TEXT, LOG_FORMAT_JSON};
	for (size_t i = 0; i < ARRAY_LEN(formats); i++) {
		open_log(options(formats[i]));
		assert_int_equal(truncate("stderr", 0), 0);
		log_event(LOG_INFO, "long", LF_STR("a", value), LF_STR("b", controls), LF_STR("c", value),
			LF_STR("d", value), LF_STR("e", value), LF_INT("last", 1));
		const char *line = contents("stderr");
		size_t n = strlen(line);
		assert_true(n <= 4096 && line[n - 1] == '\n');
		assert_ptr_equal(strchr(line, '\n'), line + n - 1);
		assert_true(utf8_valid(str_of(line), NULL));
		assert_null(strstr(line, "\xc3"));
		assert_null(strstr(line, "u0001"));
		if (formats[i] == LOG_FORMAT_TEXT) {
			assert_non_null(strstr(line, " last=1 cut=true\n"));
			continue;
		}
		json_t *j = json_loads(line, JSON_REJECT_DUPLICATES, NULL);
		assert_non_null(j);
		assert_int_equal(json_string_length(json_object_get(j, "a")), 1023);
		assert_true(json_is_true(json_object_get(j, "cut")));
		json_decref(j);
	}
}

static void turns_over_at_midnight(void **state)
{
	struct log_options o = options(LOG_FORMAT_TEXT);
	o.to_stderr = false;
	o.file = "seal.log";
	o.keep_days = 2;
	static const char *const old[] = {"seal-2026-11-19.log", "seal-2026-11-20.log", "seal-2026-11-21.log",
		"seal-2026-13-01.log", "seal-2020-01-01.log.gz", "seal-2020-01-01xlog",
		"other-2020-01-01.log", "seal2-2020-01-01.log", "seal-notes.log"};
	for (size_t i = 0; i < ARRAY_LEN(old); i++)
		assert_int_equal(file_replace(old[i], 0600, STR(""), NULL), 0);
	open_log(o);
	assert_false(exists(old[0])); /* three days ago */
	for (size_t i = 1; i < ARRAY_LEN(old); i++)
		assert_true(exists(old[i]));

	log_event(LOG_INFO, "first");
	fake.now = (struct wall){1795391999999};
	log_event(LOG_INFO, "last.of.the.day");
	clock_fake_advance_ms(&fake, 1);
	log_event(LOG_INFO, "next.day");
	assert_string_equal(contents("seal-2026-11-22.log"),
		"2026-11-22T09:30:00.123Z info  first\n"
		"2026-11-22T23:59:59.999Z info  last.of.the.day\n");
	assert_string_equal(contents("seal-2026-11-23.log"), "2026-11-23T00:00:00.000Z info  next.day\n");
	assert_false(exists(old[1]));
	assert_true(exists(old[2]));
	assert_string_equal(contents("stderr"), "");

	/* Nothing for ten days, and a clock that is set back. */
	clock_fake_advance_ms(&fake, 10LL * 86400000);
	log_event(LOG_INFO, "later");
	assert_string_equal(contents("seal-2026-12-03.log"), "2026-12-03T00:00:00.000Z info  later\n");
	assert_false(exists("seal-2026-11-22.log"));
	fake.now = start;
	log_event(LOG_INFO, "back");
	assert_false(exists("seal-2026-11-22.log"));
}

static void reopens(void **state)
{
	struct log_options o = options(LOG_FORMAT_TEXT);
	struct err e = ERR_INIT;
	o.file = "seal.log";
	open_log(o);
	log_event(LOG_INFO, "before");
	assert_int_equal(rename("seal-2026-11-22.log", "moved"), 0);
	log_event(LOG_INFO, "into.moved");
	o.format = LOG_FORMAT_JSON;
	o.to_stderr = false;
	assert_int_equal(log_reopen(&o, &e), 0);
	log_event(LOG_INFO, "after");
	assert_non_null(strstr(contents("moved"), "into.moved\n"));
	assert_non_null(strstr(contents("seal-2026-11-22.log"), "\"event\":\"after\"}\n"));
	assert_null(strstr(contents("stderr"), "after"));

	/* Another file, in a directory that is not there: all stays as it was. */
	o.file = "none/seal.log";
	o.format = LOG_FORMAT_TEXT;
	assert_int_equal(log_reopen(&o, &e), -1);
	assert_non_null(strstr(e.text, "open log file 'none/seal-2026-11-22.log': "));
	log_event(LOG_INFO, "still");
	assert_non_null(strstr(contents("seal-2026-11-22.log"), "\"event\":\"still\"}\n"));

	o.file = NULL;
	o.to_stderr = true;
	assert_int_equal(log_reopen(&o, &e), 0);
	log_event(LOG_INFO, "no.file");
	assert_null(strstr(contents("seal-2026-11-22.log"), "no.file"));
	assert_non_null(strstr(contents("stderr"), "no.file"));

	o.file = "seal.log";
	o.level = LOG_ERROR;
	assert_int_equal(log_reopen(&o, &e), 0);
	log_event(LOG_WARN, "below");
	log_event(LOG_ERROR, "file.again");
	assert_non_null(strstr(contents("seal-2026-11-22.log"), "file.again"));
	assert_null(strstr(contents("seal-2026-11-22.log"), "below"));
}

/* The directory is gone at midnight: the old file goes on, and a minute later it works again. */
static void failed_turn_over_is_tried_again(void **state)
{
	struct log_options o = options(LOG_FORMAT_TEXT);
	o.file = "dir/seal";
	assert_int_equal(mkdir("dir", 0700), 0);
	open_log(o);
	assert_int_equal(rename("dir", "gone"), 0);
	fake.now = (struct wall){1795392000000};
	log_event(LOG_INFO, "one");
	log_event(LOG_INFO, "two");
	assert_string_equal(contents("gone/seal-2026-11-22.log"),
		"2026-11-23T00:00:00.000Z error log.turn_over_failed kind=fatal error=\"open log file "
		"'dir/seal-2026-11-23.log': No such file or directory\"\n"
		"2026-11-23T00:00:00.000Z info  one\n"
		"2026-11-23T00:00:00.000Z info  two\n");
	assert_int_equal(rename("gone", "dir"), 0);
	clock_fake_advance_ms(&fake, 60000);
	log_event(LOG_INFO, "three");
	assert_string_equal(contents("dir/seal-2026-11-23.log"), "2026-11-23T00:01:00.000Z info  three\n");
}

static void full_disk_is_counted(void **state)
{
	open_log(options(LOG_FORMAT_TEXT));
	uint64_t before = log_dropped_count();
	int fd = open("/dev/full", O_WRONLY);
	dup2(fd, STDERR_FILENO);
	close(fd);
	errno = EXDEV;
	log_event(LOG_INFO, "lost");
	log_event(LOG_INFO, "lost");
	assert_int_equal(errno, EXDEV);
	assert_int_equal(log_dropped_count(), before + 2);
}

/* A file that takes only part of a line: the next line that gets through starts on its own. */
static void torn_line_is_ended(void **state)
{
	open_log(options(LOG_FORMAT_TEXT));
	uint64_t before = log_dropped_count();
	struct rlimit old, tight;
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	tight = (struct rlimit){.rlim_cur = 10, .rlim_max = old.rlim_max};
	struct sigaction ignore = {.sa_handler = SIG_IGN}, before_action;
	assert_int_equal(sigaction(SIGXFSZ, &ignore, &before_action), 0);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
	log_event(LOG_INFO, "torn");
	log_event(LOG_INFO, "refused");
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	sigaction(SIGXFSZ, &before_action, NULL);
	log_event(LOG_INFO, "whole");
	log_event(LOG_INFO, "next");
	assert_int_equal(log_dropped_count(), before + 2);
	assert_string_equal(contents("stderr"), "2026-11-22\n"
						"2026-11-22T09:30:00.123Z info  whole\n"
						"2026-11-22T09:30:00.123Z info  next\n");
}

enum { THREADS = 4, LINES = 300 };

static void *log_lines(void *arg)
{
	for (int i = 0; i < LINES; i++)
		log_event(LOG_INFO, "line", LF_STR("text", "0123456789012345678901234567890123456789"),
			LF_INT("thread", (int64_t)(uintptr_t)arg));
	return NULL;
}

/* While others write, the file is turned over, reopened and switched off and on. */
static void threads_do_not_interleave(void **state)
{
	struct log_options o = options(LOG_FORMAT_TEXT);
	o.clock = &clock_system;
	o.file = "seal.log";
	open_log(o);
	pthread_t threads[THREADS];
	for (uintptr_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, log_lines, (void *)i), 0);
	for (int i = 0; i < 20; i++) {
		o.file = i % 2 ? "seal.log" : NULL;
		open_log(o);
	}
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	unsigned lines = 0;
	const char *tail = " info  line text=0123456789012345678901234567890123456789 thread=";
	for (const char *p = contents("stderr"); *p; lines++) {
		assert_memory_equal(p + RFC3339_BYTES - 1, tail, strlen(tail));
		p = strchr(p, '\n') + 1;
	}
	assert_int_equal(lines, THREADS * LINES);
}

static void parses_levels(void **state)
{
	enum log_level level;
	assert_true(log_level_parse(STR("debug"), &level));
	assert_int_equal(level, LOG_DEBUG);
	assert_true(log_level_parse(STR("error"), &level));
	assert_int_equal(level, LOG_ERROR);
	assert_false(log_level_parse(STR("Error"), &level));
	assert_false(log_level_parse(STR(""), &level));
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(before_open_only_warnings),
		TEST(text_lines),
		TEST(json_lines),
		TEST(long_lines_are_cut),
		TEST(turns_over_at_midnight),
		TEST(reopens),
		TEST(failed_turn_over_is_tried_again),
		TEST(full_disk_is_counted),
		TEST(torn_line_is_ended),
		TEST(threads_do_not_interleave),
		TEST(parses_levels),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
