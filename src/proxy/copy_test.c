/* copy_test.c - what is left of the registry on disk after a restart, a torn write, a damaged line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/file.h"
#include "proxy/copy.h"

static const struct copy_mark first = {"aaaa", 2}, second = {"bbbb", 1};

static struct registry_row row_of(uint8_t number, enum registry_status status)
{
	return (struct registry_row){.serial = {number},
		.serial_bytes = 1,
		.status = status,
		.role = ROLE_CLIENT,
		.name = STR("client_1"),
		.domain = STR("example.com"),
		.not_after = {4102444800000},
		.change = number};
}

static enum registry_status status_of(struct registry *r, uint8_t number)
{
	struct identity id = {.serial = {number},
		.serial_bytes = 1,
		.role = ROLE_CLIENT,
		.name = "client_1",
		.domain = "example.com"};
	return registry_check(r, &id);
}

struct fixture {
	char path[64];
	struct registry *registry;
	struct copy *copy;
	size_t damaged;
};

static void reopen(struct fixture *f)
{
	struct err e = ERR_INIT;
	copy_close(f->copy);
	registry_free(f->registry);
	f->copy = NULL;
	assert_int_equal(registry_new(&f->registry, &e), 0);
	if (copy_open(f->path, f->registry, &f->copy, &f->damaged, &e) < 0)
		fail_msg("%s", e.text);
}

/* Rows 1 and 2, of which 2 is revoked, up to `first`. */
static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct err e = ERR_INIT;
	snprintf(f->path, sizeof(f->path), "/tmp/sealpost-copy-XXXXXX");
	close(mkstemp(f->path));
	reopen(f);
	assert_string_equal(copy_mark(f->copy)->epoch, "");
	assert_int_equal(copy_confirmed_at(f->copy).ms, 0);
	struct registry_row rows[] = {row_of(1, REGISTRY_ACTIVE), row_of(2, REGISTRY_REVOKED)};
	assert_int_equal(registry_merge(f->registry, rows, 2, &e), 0);
	assert_int_equal(copy_add(f->copy, rows, 2, &first, &e), 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	copy_close(f->copy);
	registry_free(f->registry);
	unlink(f->path);
	free(f);
	return 0;
}

static void assert_first(struct fixture *f)
{
	assert_string_equal(copy_mark(f->copy)->epoch, "aaaa");
	assert_int_equal(copy_mark(f->copy)->change, 2);
	assert_int_equal(status_of(f->registry, 1), REGISTRY_ACTIVE);
	assert_int_equal(status_of(f->registry, 2), REGISTRY_REVOKED);
	assert_int_equal(registry_count(f->registry), 2);
}

static void add_text(const struct fixture *f, const char *text)
{
	FILE *file = fopen(f->path, "a");
	fputs(text, file);
	fclose(file);
}

static void survives_a_restart(void **state)
{
	struct fixture *f = *state;
	const struct timespec then[] = {{1000, 0}, {1000, 0}};
	assert_true(copy_confirmed_at(f->copy).ms > 1000 * 1000L);
	assert_int_equal(utimensat(AT_FDCWD, f->path, then, 0), 0);
	reopen(f);
	assert_int_equal(f->damaged, 0);
	assert_first(f);
	assert_int_equal(copy_confirmed_at(f->copy).ms, 1000 * 1000L);
}

static void a_torn_line_is_cut_off(void **state)
{
	struct fixture *f = *state;
	struct err e = ERR_INIT;
	add_text(f, "{\"serial\":\"03\",\"issu");
	reopen(f);
	assert_int_equal(f->damaged, 0);
	assert_first(f);
	struct registry_row row = row_of(3, REGISTRY_ACTIVE);
	assert_int_equal(registry_merge(f->registry, &row, 1, &e), 0);
	assert_int_equal(copy_add(f->copy, &row, 1, &(struct copy_mark){"aaaa", 3}, &e), 0);
	reopen(f);
	assert_int_equal(f->damaged, 0);
	assert_int_equal(copy_mark(f->copy)->change, 3);
	assert_int_equal(status_of(f->registry, 3), REGISTRY_ACTIVE);
}

static void a_damaged_line_is_skipped_and_all_asked_for_again(void **state)
{
	struct fixture *f = *state;
	struct err e = ERR_INIT;
	add_text(f, "not json at all\n{\"serial\":\"zz\"}\n");
	struct registry_row row = row_of(3, REGISTRY_ACTIVE);
	assert_int_equal(copy_add(f->copy, &row, 1, &(struct copy_mark){"aaaa", 3}, &e), 0);
	reopen(f);
	assert_int_equal(f->damaged, 2);
	assert_int_equal(registry_count(f->registry), 3);
	assert_string_equal(copy_mark(f->copy)->epoch, "");
	assert_int_equal(copy_mark(f->copy)->change, 0);
	/* The next page writes it anew. */
	assert_int_equal(copy_add(f->copy, NULL, 0, &(struct copy_mark){"aaaa", 3}, &e), 0);
	reopen(f);
	assert_int_equal(f->damaged, 0);
	assert_int_equal(copy_mark(f->copy)->change, 3);
	assert_int_equal(registry_count(f->registry), 3);
}

static void rows_behind_the_mark_count_but_are_asked_for_again(void **state)
{
	struct fixture *f = *state;
	AUTO(buf_auto) struct buf text;
	struct err e = ERR_INIT;
	buf_init(&text, 65536);
	assert_int_equal(file_read(f->path, 65536, &text, &e), 0);
	char *line = strstr(text.p, "\n") + 1;
	*(strstr(line, "\n") + 1) = 0; /* the mark is gone */
	struct registry_row row = row_of(1, REGISTRY_ACTIVE);
	assert_int_equal(registry_merge(f->registry, &row, 1, &e), 0);
	assert_int_equal(truncate(f->path, 0), 0);
	add_text(f, text.p);
	reopen(f);
	assert_int_equal(f->damaged, 0);
	assert_string_equal(copy_mark(f->copy)->epoch, "");
	assert_int_equal(status_of(f->registry, 2), REGISTRY_REVOKED);
}

static void another_history_does_not_bring_back_what_is_revoked(void **state)
{
	struct fixture *f = *state;
	struct err e = ERR_INIT;
	struct registry_row row = row_of(2, REGISTRY_ACTIVE);
	assert_int_equal(registry_merge(f->registry, &row, 1, &e), 0);
	assert_int_equal(copy_add(f->copy, &row, 1, &second, &e), 0);
	reopen(f);
	assert_string_equal(copy_mark(f->copy)->epoch, "bbbb");
	assert_int_equal(copy_mark(f->copy)->change, 1);
	assert_int_equal(status_of(f->registry, 2), REGISTRY_REVOKED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(survives_a_restart, setup, teardown),
		cmocka_unit_test_setup_teardown(a_torn_line_is_cut_off, setup, teardown),
		cmocka_unit_test_setup_teardown(
			a_damaged_line_is_skipped_and_all_asked_for_again, setup, teardown),
		cmocka_unit_test_setup_teardown(
			rows_behind_the_mark_count_but_are_asked_for_again, setup, teardown),
		cmocka_unit_test_setup_teardown(
			another_history_does_not_bring_back_what_is_revoked, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
