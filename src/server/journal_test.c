/* journal_test.c - revocations survive in the journal, whatever its last line looks like. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>

#include "base/file.h"
#include "base/scratch_test.h"
#include "server/journal.h"

static struct journal_entry entry_of(uint8_t serial, uint8_t issuer)
{
	struct journal_entry entry = {.cert = {.serial = {serial, 2, 3}, .serial_bytes = 3},
		.at = {1700000000123},
		.reason = "keyCompromise"};
	memset(entry.cert.issuer_key_id, issuer, sizeof(entry.cert.issuer_key_id));
	return entry;
}

static struct journal *open_journal(const char *path, unsigned unreadable)
{
	struct journal *j;
	struct err e = ERR_INIT;
	unsigned count;
	assert_int_equal(journal_open(path, &j, &count, &e), 0);
	assert_int_equal(count, unreadable);
	return j;
}

static void put(struct journal *j, const struct journal_entry *entry)
{
	struct err e = ERR_INIT;
	assert_int_equal(journal_add(j, entry, &e), 0);
	assert_int_equal(journal_sync(j, &e), 0);
}

static void what_was_added_is_there_again(void **state)
{
	static const char path[] = "again";
	(void)state;
	const struct journal_entry one = entry_of(1, 7), other_issuer = entry_of(1, 8), two = entry_of(2, 7);
	struct journal_entry found;
	struct journal *j = open_journal(path, 0);
	put(j, &one);
	put(j, &one);
	put(j, &two);
	journal_close(j);
	j = open_journal(path, 0);
	assert_true(journal_find(j, &one.cert, &found));
	assert_string_equal(found.reason, "keyCompromise");
	assert_int_equal(found.at.ms, one.at.ms);
	assert_true(journal_find(j, &two.cert, &found));
	assert_false(journal_find(j, &other_issuer.cert, &found));
	journal_close(j);
	struct buf text;
	struct err e;
	buf_init(&text, 4096);
	assert_int_equal(file_read(path, 4096, &text, &e), 0);
	size_t lines = 0;
	for (size_t i = 0; i < text.n; i++)
		lines += text.p[i] == '\n';
	assert_int_equal(lines, 2);
	buf_clear(&text);
}

static void a_line_that_was_cut_off_takes_no_other_with_it(void **state)
{
	static const char path[] = "torn";
	(void)state;
	const struct journal_entry one = entry_of(1, 7), two = entry_of(2, 7);
	struct journal_entry found;
	struct journal *j = open_journal(path, 0);
	put(j, &one);
	journal_close(j);
	FILE *f = fopen(path, "a");
	assert_non_null(f);
	fputs("0707070707 0102", f);
	fclose(f);
	j = open_journal(path, 1);
	put(j, &two);
	journal_close(j);
	j = open_journal(path, 1);
	assert_true(journal_find(j, &one.cert, &found));
	assert_true(journal_find(j, &two.cert, &found));
	journal_close(j);
}

static void nonsense_is_passed_over(void **state)
{
	static const char path[] = "nonsense";
	(void)state;
	static const char text[] =
		"\nx\n0 0 0 0\n"
		"0707070707070707070707070707070707070707  2026-01-01T00:00:00.000Z superseded\n"
		"0707070707070707070707070707070707070707 01 yesterday superseded\n"
		"0707070707070707070707070707070707070707 01 2026-01-01T00:00:00.000Z \n"
		"0707070707070707070707070707070707070707 zz 2026-01-01T00:00:00.000Z superseded\n"
		"token\ntoken 01\ntoken 0101010101010101 2026-01-01T00:00:00.000Z\n"
		"token 0101010101010101 2026-01-01T00:00:00.000Z used\n"
		"token 0101010101010101 2026-01-01T00:00:00.000Z used 0\n"
		"token 0101010101010101 2026-01-01T00:00:00.000Z used -1\n"
		"token 0101010101010101 2026-01-01T00:00:00.000Z used 1 \n"
		"token 0101010101010101 2026-01-01T00:00:00.000Z revoked?\n"
		"token 01010101010101 2026-01-01T00:00:00.000Z revoked\n"
		"0707070707070707070707070707070707070707 01 2026-01-01T00:00:00.000Z superseded\n";
	struct err e;
	assert_int_equal(file_replace(path, 0600, str_of(text), &e), 0);
	struct journal *j = open_journal(path, 16);
	struct journal_entry found, wanted = {.cert = {.serial = {1}, .serial_bytes = 1}};
	memset(wanted.cert.issuer_key_id, 7, sizeof(wanted.cert.issuer_key_id));
	assert_true(journal_find(j, &wanted.cert, &found));
	assert_string_equal(found.reason, "superseded");
	journal_close(j);
}

static struct journal_token token_of(uint8_t id, unsigned uses, int64_t revoked_ms)
{
	struct journal_token token = {
		.uses = uses, .used_at = {uses ? 1700000000000 + uses : 0}, .revoked_at = {revoked_ms}};
	memset(token.id, id, sizeof(token.id));
	return token;
}

static void put_token(struct journal *j, uint8_t id, unsigned uses, int64_t revoked_ms)
{
	const struct journal_token token = token_of(id, uses, revoked_ms);
	struct err e = ERR_INIT;
	assert_int_equal(journal_add_token(j, &token, &e), 0);
	assert_int_equal(journal_sync(j, &e), 0);
}

static void assert_token(struct journal *j, uint8_t id, unsigned uses, int64_t revoked_ms)
{
	const struct journal_token wanted = token_of(id, uses, revoked_ms);
	struct journal_token found;
	assert_true(journal_find_token(j, wanted.id, &found));
	assert_int_equal(found.uses, uses);
	assert_int_equal(found.used_at.ms, wanted.used_at.ms);
	assert_int_equal(found.revoked_at.ms, revoked_ms);
}

static void uses_of_tokens_only_grow(void **state)
{
	static const char path[] = "tokens";
	(void)state;
	const struct journal_entry cert = entry_of(1, 7);
	const struct journal_token fresh = token_of(3, 0, 0);
	struct journal_entry found;
	struct journal_token none;
	struct err e = ERR_INIT;
	struct journal *j = open_journal(path, 0);
	put_token(j, 1, 1, 0);
	put(j, &cert);
	put_token(j, 2, 3, 0);
	put_token(j, 2, 2, 0);
	put_token(j, 2, 4, 1700000000999);
	put_token(j, 2, 4, 1700000009999);
	assert_int_equal(journal_add_token(j, &fresh, &e), 0); /* nothing to tell */
	for (unsigned round = 0; round < 2; round++) {
		assert_token(j, 1, 1, 0);
		assert_token(j, 2, 4, 1700000000999);
		assert_false(journal_find_token(j, fresh.id, &none));
		assert_true(journal_find(j, &cert.cert, &found));
		journal_close(j);
		j = open_journal(path, 0);
	}
	journal_close(j);
	struct buf text;
	buf_init(&text, 4096);
	assert_int_equal(file_read(path, 4096, &text, &e), 0);
	buf_add_char(&text, 0);
	assert_non_null(strstr(text.p, "token 0101010101010101 2023-11-14T22:13:20.001Z used 1\n"));
	assert_non_null(strstr(text.p, "token 0202020202020202 2023-11-14T22:13:20.999Z revoked\n"));
	assert_null(strstr(text.p, "used 2"));
	buf_clear(&text);
}

static void what_cannot_be_written_is_not_there(void **state)
{
	(void)state;
	static const char path[] = "full";
	const struct journal_entry one = entry_of(1, 7);
	const struct journal_token token = token_of(1, 1, 0);
	struct journal_entry found;
	struct journal_token known;
	struct err e = ERR_INIT;
	struct rlimit none, before;
	struct journal *j = open_journal(path, 0);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
	none = (struct rlimit){.rlim_cur = 0, .rlim_max = before.rlim_max};
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
	int rc = journal_add(j, &one, &e);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	assert_int_equal(rc, -1);
	assert_false(journal_find(j, &one.cert, &found));
	put(j, &one);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
	rc = journal_add_token(j, &token, &e);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	assert_int_equal(rc, -1);
	assert_false(journal_find_token(j, token.id, &known));
	put_token(j, 1, 1, 0);
	journal_close(j);
	j = open_journal(path, 0);
	assert_true(journal_find(j, &one.cert, &found));
	assert_token(j, 1, 1, 0);
	journal_close(j);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(what_was_added_is_there_again, scratch_enter, scratch_leave),
		cmocka_unit_test_setup_teardown(
			a_line_that_was_cut_off_takes_no_other_with_it, scratch_enter, scratch_leave),
		cmocka_unit_test_setup_teardown(uses_of_tokens_only_grow, scratch_enter, scratch_leave),
		cmocka_unit_test_setup_teardown(nonsense_is_passed_over, scratch_enter, scratch_leave),
		cmocka_unit_test_setup_teardown(
			what_cannot_be_written_is_not_there, scratch_enter, scratch_leave),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
