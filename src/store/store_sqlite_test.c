/* store_sqlite_test.c - what only the SQLite driver can get wrong: files that are not its own, damage, a disk
 * that fails, and the promises about syncs and checkpoints. The common contract is in
 * store_conformance_test.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/auto.h"
#include "base/file.h"
#include "store/fault_vfs.h"
#include "store/fixture.h"

static const struct fixture_driver sqlite_row = {"sqlite", &store_driver_sqlite, NULL, true};

static int set_up(void **state)
{
	static struct fixture fixture;
	fault_vfs_arm(0, 0, 0);
	fixture_init(&fixture, &sqlite_row);
	*state = &fixture;
	return 0;
}

static int tear_down(void **state)
{
	fault_vfs_arm(0, 0, 0);
	fixture_clear(*state);
	return 0;
}

static char *path_in(const struct fixture *f, const char *name)
{
	char *path = path_join(f->dir, name);
	assert_non_null(path);
	return path;
}

/* Runs SQL on the closed store. */
static void meddle(const struct fixture *f, const char *sql)
{
	AUTO(free_auto) char *path = path_in(f, "store.db");
	sqlite3 *db;
	char *trouble = NULL;
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	if (sqlite3_exec(db, sql, NULL, NULL, &trouble) != SQLITE_OK)
		fail_msg("%s: %s", sql, trouble);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

/* 40 messages of three clients, two full segments and a tail; clients, certificates, audit rows. */
static void fill(struct fixture *f)
{
	struct store_message items[40];
	for (unsigned i = 0; i < ARRAY_LEN(items); i++)
		items[i] = fixture_message(i, i % 3, 0, i % 4, i % 5 ? MESSAGE_DELIVERED : MESSAGE_QUEUED);
	fixture_store(f, items, ARRAY_LEN(items), NULL);
	struct store_cert certs[] = {
		fixture_cert(1, 0, "client", "alpha", "north"),
		fixture_cert(2, 0, "client", "bravo", "north"),
	};
	for (unsigned i = 0; i < ARRAY_LEN(certs); i++)
		fixture_put_cert(f, &certs[i], true, NULL);
	for (unsigned i = 0; i < 5; i++)
		fixture_audit(f, "admin", "cert.issue", NULL);
}

/* --- opening --- */

static void test_files_that_are_refused(void **state)
{
	struct fixture *f = *state;
	static const struct {
		const char *sql, *text;
	} cases[] = {
		{"PRAGMA user_version = 99",
			"schema 99 is newer than this program, which knows versions up to 2"},
		{"PRAGMA user_version = -1", "schema version -1"},
		{"PRAGMA user_version = 2; PRAGMA application_id = 7", "belongs to another program"},
		{"PRAGMA application_id = 0", "belongs to another program"},
		{"PRAGMA application_id = 1587654743; DROP TABLE origins", "no such table"},
	};
	struct err e = ERR_INIT;
	fixture_open(f);
	fixture_close(f);
	for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
		meddle(f, cases[i].sql);
		assert_failed(fixture_try_open(f, &e), &e, ERR_FATAL, cases[i].text);
	}

	AUTO(free_auto) char *path = path_in(f, "store.db");
	assert_done(file_replace(path, 0600, STR("this is a text file, and not even a long one"), &e), &e);
	assert_failed(fixture_try_open(f, &e), &e, ERR_FATAL, "not a database");
}

static void test_places_that_are_refused(void **state)
{
	struct fixture *f = *state;
	struct err e = ERR_INIT;
	struct store *other = NULL;
	struct store_options options = {
		.driver = &store_driver_sqlite, .clock = &f->clock, .write_limit = 1, .group_max = 1};
	assert_failed(store_open(&options, &other, &e), &e, ERR_REJECT, "needs a directory");
	options.location = "/nonexistent/store";
	assert_int_equal(store_open(&options, &other, &e), -1);
	assert_non_null(strstr(e.text, "/nonexistent/store"));

	fixture_open(f);
	options.location = f->dir;
	assert_failed(store_open(&options, &other, &e), &e, ERR_CONFLICT, "store.lock");
	fixture_close(f);
	assert_done(store_open(&options, &other, &e), &e);
	store_close(other);
}

static void test_defaults_and_description(void **state)
{
	struct fixture *f = *state;
	f->sqlite = (struct store_sqlite_options){0};
	fixture_open(f);
	fill(f);
	struct err e = ERR_INIT;
	assert_done(store_check(f->store, true, &e), &e);
	char wanted[64];
	snprintf(wanted, sizeof(wanted), "sqlite %s, schema 2", sqlite3_libversion());
	assert_string_equal(store_description(f->store), wanted);
	assert_ptr_equal(store_driver_find("sqlite"), &store_driver_sqlite);
	assert_ptr_equal(store_driver_find("memory"), &store_driver_memory);
	assert_null(store_driver_find("faulty"));
}

static void test_files_are_private(void **state)
{
	struct fixture *f = *state;
	fixture_open(f);
	fill(f);
	static const char *const names[] = {"store.db", "store.db-wal", "store.db-shm", "store.lock"};
	for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
		AUTO(free_auto) char *path = path_in(f, names[i]);
		struct stat st;
		assert_int_equal(stat(path, &st), 0);
		assert_int_equal(st.st_mode & 0777, 0600);
	}
}

/* --- damage --- */

/* Reads all there is; -1 for the first failure. */
static int read_all(struct fixture *f, struct err *e)
{
	struct store_query query = {.state = -1, .max = 7};
	struct store_page page;
	do {
		arena_reset(&f->arena);
		if (store_read_messages(f->store, &query, &f->arena, &page, e) < 0)
			return -1;
		query.before_sequence = page.next_sequence;
	} while (page.next_sequence);

	struct store_client *clients;
	struct store_cert_query cert_query = {.max = 100};
	struct store_cert *certs;
	struct store_audit_row *audit;
	struct store_counts counts;
	unsigned count;
	if (store_read_clients(f->store, STR(""), STR(""), 100, &f->arena, &clients, &count, e) < 0 ||
		store_read_certs(f->store, &cert_query, &f->arena, &certs, &count, e) < 0 ||
		store_read_audit(f->store, 0, 100, &f->arena, &audit, &count, e) < 0)
		return -1;
	return store_read_counts(f->store, &counts, e);
}

static void test_damaged_rows_are_reported(void **state)
{
	struct fixture *f = *state;
	static const struct {
		const char *damage, *text, *repair;
	} cases[] = {
		{"UPDATE messages SET id = x'00' WHERE seq = 5", "message 5 is damaged",
			"UPDATE messages SET id = x'018bcfe5680070008000000400000000' WHERE seq = 5"},
		{"UPDATE messages SET state = 9 WHERE seq = 6", "message 6 is damaged: state",
			"UPDATE messages SET state = 0 WHERE seq = 6"},
		{"UPDATE messages SET delivered_ms = NULL WHERE seq = 7",
			"message 7 is damaged: time of delivery",
			"UPDATE messages SET delivered_ms = 1 WHERE seq = 7"},
		{"UPDATE messages SET sender = x'0102' WHERE seq = 8", "message 8 is damaged",
			"UPDATE messages SET sender = NULL WHERE seq = 8"},
		{"UPDATE messages SET attempts = -1 WHERE seq = 9", "message 9 is damaged",
			"UPDATE messages SET attempts = 0 WHERE seq = 9"},
		{"UPDATE messages SET envelope = x'' WHERE seq = 10",
			"message 10 is damaged: size of the envelope",
			"UPDATE messages SET envelope = x'00' WHERE seq = 10"},
		{"UPDATE messages SET accepted_ms = 0 WHERE seq = 11",
			"message 11 is damaged: time of acceptance",
			"UPDATE messages SET accepted_ms = 1 WHERE seq = 11"},
		{"UPDATE origins SET client = 'a b' WHERE ref = 1", "is damaged: client id",
			"UPDATE origins SET client = 'client-0' WHERE ref = 1"},
		{"UPDATE clients SET status = 5 WHERE name = 'alpha'", "is damaged: status",
			"UPDATE clients SET status = 0 WHERE name = 'alpha'"},
		{"UPDATE certs SET serial = zeroblob(21) WHERE ref = 1",
			"certificate with change 1 is damaged",
			"UPDATE certs SET serial = x'5e0001' WHERE ref = 1"},
		{"UPDATE certs SET issuer = x'00' WHERE ref = 2", "certificate with change 2 is damaged",
			"UPDATE certs SET issuer = zeroblob(20) WHERE ref = 2"},
		{"UPDATE audit SET hash = x'00' WHERE sequence = 3", "audit row 3 is damaged",
			"UPDATE audit SET hash = zeroblob(32) WHERE sequence = 3"},
	};
	fixture_open(f);
	fill(f);
	for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
		struct err e = ERR_INIT;
		fixture_close(f);
		meddle(f, cases[i].damage);
		fixture_open(f);
		assert_failed(read_all(f, &e), &e, ERR_FATAL, cases[i].text);
		fixture_close(f);
		meddle(f, cases[i].repair);
		fixture_open(f);
		assert_done(read_all(f, &e), &e);
	}
}

/* A damaged row ends the operation that meets it, not the program. */
static void test_writing_to_a_damaged_row(void **state)
{
	struct fixture *f = *state;
	fixture_open(f);
	fill(f);
	fixture_close(f);
	meddle(f, "UPDATE messages SET state = 9 WHERE seq = 6");
	fixture_open(f);
	struct err e = ERR_INIT;
	assert_failed(fixture_status(f, fixture_id(5), MESSAGE_FAILED, 1, "", &e), &e, ERR_FATAL,
		"message 6 is damaged");
	struct store_message item = fixture_message(5, 1, 1, 1, MESSAGE_DELIVERED);
	assert_failed(fixture_store(f, &item, 1, &e), &e, ERR_FATAL, "message 6 is damaged");
	item = fixture_message(1000, 1, 1, 1, MESSAGE_DELIVERED);
	fixture_store(f, &item, 1, NULL);
}

static void test_audit_check_finds_meddling(void **state)
{
	struct fixture *f = *state;
	static const struct {
		const char *sql;
		int64_t bad;
	} cases[] = {
		{"UPDATE audit SET actor = 'nobody' WHERE sequence = 3", 3},
		{"UPDATE audit SET actor = 'adm', origin = 'in127.0.0.1' WHERE sequence = 2", 2},
		{"UPDATE audit SET at_ms = at_ms + 1 WHERE sequence = 1", 1},
		{"UPDATE audit SET hash = (SELECT hash FROM audit WHERE sequence = 1) WHERE sequence = 5", 5},
		{"DELETE FROM audit WHERE sequence = 4", 4},
		{"DELETE FROM audit WHERE sequence >= 4", 4},
		{"DELETE FROM audit", 1},
	};
	for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
		uint64_t checked;
		int64_t bad = 0;
		struct err e = ERR_INIT;
		fixture_open(f);
		fill(f);
		assert_int_equal(store_audit_check(f->store, &checked, &bad, &e), 0);
		fixture_close(f);
		meddle(f, cases[i].sql);
		fixture_open(f);
		assert_int_equal(store_audit_check(f->store, &checked, &bad, &e), STORE_AUDIT_BROKEN);
		assert_int_equal(bad, cases[i].bad);
		assert_int_equal(checked, cases[i].bad - 1);

		/* Writing goes on behind a trail that was cut, and hides nothing. */
		fixture_audit(f, "admin", "cert.issue", NULL);
		assert_int_equal(store_audit_check(f->store, &checked, &bad, &e), STORE_AUDIT_BROKEN);
		assert_int_equal(bad, cases[i].bad);
		fixture_clear(f);
		fixture_init(f, &sqlite_row);
	}
}

static void test_check_finds_wrong_bookkeeping(void **state)
{
	struct fixture *f = *state;
	static const struct {
		const char *damage, *text, *repair;
	} cases[] = {
		{"UPDATE counters SET value = value + 1 WHERE name = 'messages.delivered'",
			"messages by state",
			"UPDATE counters SET value = value - 1 WHERE name = 'messages.delivered'"},
		{"UPDATE counters SET value = value + 1 WHERE name = 'clients'", "counter of clients",
			"UPDATE counters SET value = value - 1 WHERE name = 'clients'"},
		{"UPDATE counters SET value = value + 1 WHERE name = 'certs'", "counter of certificates",
			"UPDATE counters SET value = value - 1 WHERE name = 'certs'"},
		{"UPDATE counters SET value = value - 1 WHERE name = 'change'", "change numbers",
			"UPDATE counters SET value = value + 1 WHERE name = 'change'"},
		{"UPDATE counters SET value = value - 1 WHERE name = 'sequence'",
			"counter of messages is behind",
			"UPDATE counters SET value = value + 1 WHERE name = 'sequence'"},
		{"UPDATE messages SET origin = 9 WHERE seq = 40", "an origin that does not exist",
			"UPDATE messages SET origin = 1 WHERE seq = 40"},
		{"UPDATE segments SET last_seq = 15 WHERE first_seq = 1", "segments have gaps",
			"UPDATE segments SET last_seq = 16 WHERE first_seq = 1"},
		{"UPDATE segments SET min_accepted_ms = max_accepted_ms", "outside its segment's times",
			"UPDATE segments SET min_accepted_ms = 0"},
		{"DELETE FROM by_origin WHERE seq = 3", "index by origin",
			"INSERT INTO by_origin SELECT 1, origin, seq FROM messages WHERE seq = 3"},
		{"UPDATE by_origin SET origin = 3 WHERE seq = 4", "index by origin",
			"UPDATE by_origin SET origin = 1 WHERE seq = 4"},
		{"DELETE FROM by_sender WHERE seq = 20", "index by sender",
			"INSERT INTO by_sender SELECT 17, substr(sender, 1, 8), seq FROM messages WHERE seq = 20"},
		{"UPDATE by_sender SET sender = x'0000000000000000' WHERE seq = 20", "index by sender",
			"UPDATE by_sender SET sender = (SELECT substr(sender, 1, 8) FROM messages m WHERE m.seq = 20)"
			" WHERE seq = 20"},
	};
	struct err e = ERR_INIT;
	fixture_open(f);
	fill(f);
	assert_done(store_check(f->store, true, &e), &e);
	for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
		fixture_close(f);
		meddle(f, cases[i].damage);
		fixture_open(f);
		assert_failed(store_check(f->store, true, &e), &e, ERR_FATAL, cases[i].text);
		assert_done(store_check(f->store, false, &e), &e);
		fixture_close(f);
		meddle(f, cases[i].repair);
		fixture_open(f);
		assert_done(store_check(f->store, true, &e), &e);
	}
}

/* Whatever is on disk: reads and writes end with a result or an error. */
static void test_random_damage_never_crashes(void **state)
{
	struct fixture *f = *state;
	fixture_open(f);
	fill(f);
	fixture_close(f);
	AUTO(free_auto) char *path = path_in(f, "store.db");
	AUTO(buf_auto) struct buf whole, damaged;
	buf_init(&whole, 1 << 20);
	buf_init(&damaged, 1 << 20);
	struct err e = ERR_INIT;
	assert_done(file_read(path, 1 << 20, &whole, &e), &e);
	uint64_t random = 7;
	unsigned opened = 0;
	for (unsigned round = 0; round < 150; round++) {
		buf_reset(&damaged);
		buf_add_str(&damaged, buf_str(&whole));
		for (unsigned i = 0; i < 1 + round % 8; i++)
			damaged.p[fixture_below(&random, (unsigned)damaged.n)] =
				(char)fixture_random(&random);
		assert_done(file_replace(path, 0600, buf_str(&damaged), &e), &e);
		if (fixture_try_open(f, &e) < 0)
			continue;
		opened++;
		int results[] = {
			read_all(f, &e), store_check(f->store, false, &e), store_check(f->store, true, &e)};
		(void)results;
		for (unsigned step = 0; step < HISTORY_STEPS; step++)
			(void)fixture_history_step(f, step, 1 + step);
		fixture_close(f);
	}
	assert_true(opened > 20);
}

/* --- a disk that fails --- */

/* A history for every write, truncation and sync that SQLite makes: that one fails, and all after it until
 * somebody notices or only that one; what failed is repeated. */
static void fail_each_call(struct fixture *f, int rc, unsigned count)
{
	fixture_open(f);
	unsigned rounds = 0;
	bool reached = true;
	while (reached) {
		bool failed = false;
		fault_vfs_arm(++rounds, count, rc);
		for (unsigned step = 0; step < HISTORY_STEPS; step++) {
			if (fixture_history_step(f, step, rounds))
				continue;
			failed = true;
			fault_vfs_arm(0, 0, 0);
			assert_true(fixture_history_step(f, step, rounds));
		}
		reached = failed || atomic_load(&fault_vfs.call_count) >= rounds;
		fault_vfs_arm(0, 0, 0);
		arena_reset(&f->arena);
		fixture_history_check(f, rounds);
	}
	assert_true(rounds > 5 * HISTORY_STEPS);
	fixture_reopen(f);
	fixture_history_check(f, rounds);
}

static void test_one_call_fails(void **state)
{
	fail_each_call(*state, 0, 1);
}

static void test_disk_is_full_for_a_while(void **state)
{
	fail_each_call(*state, SQLITE_FULL, UINT32_MAX);
}

/* A checkpoint that fails is seen at once: a log that only grows would be seen when the disk is full. */
static void test_checkpoint_fails(void **state)
{
	struct fixture *f = *state;
	f->sqlite.checkpoint_pages = 1;
	fixture_open(f);
	struct store_message items[] = {fixture_message(1, 1, 1, 1, MESSAGE_DELIVERED),
		fixture_message(2, 1, 1, 1, MESSAGE_DELIVERED)};
	fixture_store(f, &items[0], 1, NULL);
	struct err e = ERR_INIT;
	fault_vfs_arm(1, 1, SQLITE_FULL);
	assert_failed(
		fixture_store(f, &items[1], 1, &e), &e, ERR_RETRY, "checkpoint: database or disk is full");
	fixture_store(f, &items[1], 1, NULL);
	assert_false(items[1].duplicate);
}

static void test_opening_fails(void **state)
{
	struct fixture *f = *state;
	bool reached = true;
	for (unsigned call = 1; reached; call++) {
		struct err e = ERR_INIT;
		fault_vfs_arm(call, 1, call % 2 ? SQLITE_FULL : 0);
		int result = fixture_try_open(f, &e);
		reached = atomic_load(&fault_vfs.call_count) >= call;
		fault_vfs_arm(0, 0, 0);
		if (result < 0) {
			assert_failed(result, &e, ERR_RETRY, "store.db");
			fixture_open(f);
		}
		fill(f);
		assert_done(store_check(f->store, true, &e), &e);
		fixture_clear(f);
		fixture_init(f, &sqlite_row);
	}
}

/* --- promises --- */

static void test_every_commit_is_synced(void **state)
{
	struct fixture *f = *state;
	fixture_open(f);
	for (unsigned i = 0; i < 100; i++) {
		unsigned before = atomic_load(&fault_vfs.sync_count);
		struct store_message item = fixture_message(i, 1, 1, 1, MESSAGE_DELIVERED);
		fixture_store(f, &item, 1, NULL);
		assert_true(atomic_load(&fault_vfs.sync_count) > before);
	}
}

/* Copies a file of the store as it is now: what a crash of the process leaves. */
static void copy_to(const struct fixture *f, const char *name, const struct fixture *to)
{
	AUTO(free_auto) char *from_path = path_in(f, name), *to_path = path_in(to, name);
	AUTO(buf_auto) struct buf bytes;
	buf_init(&bytes, 16 << 20);
	struct err e = ERR_INIT;
	assert_done(file_read(from_path, 16 << 20, &bytes, &e), &e);
	assert_done(file_replace(to_path, 0600, buf_str(&bytes), &e), &e);
}

static void test_what_was_answered_survives_a_crash(void **state)
{
	struct fixture *f = *state, crashed;
	fixture_open(f);
	for (unsigned round = 1; round <= 30; round++)
		for (unsigned step = 0; step < HISTORY_STEPS; step++)
			assert_true(fixture_history_step(f, step, round));
	fixture_init(&crashed, &sqlite_row);
	copy_to(f, "store.db", &crashed);
	copy_to(f, "store.db-wal", &crashed);
	fixture_open(&crashed);
	fixture_history_check(&crashed, 30);
	fixture_clear(&crashed);
}

static void test_log_stays_small(void **state)
{
	struct fixture *f = *state;
	AUTO(free_auto) char *path = path_in(f, "store.db-wal");
	struct stat st;
	fixture_open(f);
	for (unsigned i = 0; i < 400; i++) {
		struct store_message item = fixture_message(i, 1, 1, 1, MESSAGE_DELIVERED);
		fixture_store(f, &item, 1, NULL);
		/* A read now and then, whose end the log's reset waits for. */
		if (i % 7 == 0)
			(void)fixture_counts(f);
		assert_int_equal(stat(path, &st), 0);
		assert_true(st.st_size < 2L * 40 * 4096);
	}
	/* Closing leaves one file, with everything in it. */
	fixture_close(f);
	assert_int_equal(stat(path, &st), -1);
	fixture_open(f);
	assert_int_equal(fixture_counts(f).messages, 400);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_files_that_are_refused, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_places_that_are_refused, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_defaults_and_description, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_files_are_private, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_damaged_rows_are_reported, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_writing_to_a_damaged_row, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_audit_check_finds_meddling, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_check_finds_wrong_bookkeeping, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_random_damage_never_crashes, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_one_call_fails, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_disk_is_full_for_a_while, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_checkpoint_fails, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_opening_fails, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_every_commit_is_synced, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_what_was_answered_survives_a_crash, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_log_stays_small, set_up, tear_down),
	};
	fault_vfs_install();
	return cmocka_run_group_tests_name("store sqlite", tests, NULL, NULL);
}
