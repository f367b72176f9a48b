/* sqlite_test.c - what is particular to the SQLite driver: that a commit is synced, what it does when the
 * disk fails or is full, files that are foreign, damaged or edited, and the log's size.
 *
 * A VFS of our own stands between SQLite and the disk: it counts syncs and fails the k-th write or sync. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/file.h"
#include "queue/driver.h"
#include "queue/sqlite_db.h"

enum { START_MS = 1000000000, ARENA_BYTES = 8 << 20, IDEMPOTENCY_MS = 24 * 3600 * 1000 };

/* --- the disk --- */

static struct {
	sqlite3_vfs vfs, *real;
	unsigned log_syncs, log_writes; /* so far */
	unsigned fail_at, fail_count; /* of the writes, truncations and syncs of all files, from 1; 0: none */
	unsigned calls;
	int code; /* what a failure is */
	bool fail_reads;
} disk;

struct disk_file {
	sqlite3_file base;
	bool is_log;
	sqlite3_file *real;
};

static sqlite3_file *real_of(sqlite3_file *f)
{
	return ((struct disk_file *)f)->real;
}

static bool disk_fails(void)
{
	disk.calls++;
	return disk.fail_at && disk.calls >= disk.fail_at && disk.calls - disk.fail_at < disk.fail_count;
}

static int disk_close(sqlite3_file *f)
{
	int code = real_of(f)->pMethods->xClose(real_of(f));
	free(real_of(f));
	return code;
}

static int disk_read(sqlite3_file *f, void *out, int n, sqlite3_int64 at)
{
	/* As SQLite's own layer answers EIO. */
	return disk.fail_reads ? SQLITE_IOERR_CORRUPTFS : real_of(f)->pMethods->xRead(real_of(f), out, n, at);
}

static int disk_write(sqlite3_file *f, const void *bytes, int n, sqlite3_int64 at)
{
	disk.log_writes += ((struct disk_file *)f)->is_log;
	if (disk_fails())
		return disk.code == SQLITE_FULL ? SQLITE_FULL : SQLITE_IOERR_WRITE;
	return real_of(f)->pMethods->xWrite(real_of(f), bytes, n, at);
}

static int disk_truncate(sqlite3_file *f, sqlite3_int64 size)
{
	return disk_fails() ? SQLITE_IOERR_TRUNCATE : real_of(f)->pMethods->xTruncate(real_of(f), size);
}

static int disk_sync(sqlite3_file *f, int flags)
{
	disk.log_syncs += ((struct disk_file *)f)->is_log;
	return disk_fails() ? SQLITE_IOERR_FSYNC : real_of(f)->pMethods->xSync(real_of(f), flags);
}

static int disk_size(sqlite3_file *f, sqlite3_int64 *ret)
{
	return real_of(f)->pMethods->xFileSize(real_of(f), ret);
}

static int disk_lock(sqlite3_file *f, int lock)
{
	return real_of(f)->pMethods->xLock(real_of(f), lock);
}

static int disk_unlock(sqlite3_file *f, int lock)
{
	return real_of(f)->pMethods->xUnlock(real_of(f), lock);
}

static int disk_reserved(sqlite3_file *f, int *ret)
{
	return real_of(f)->pMethods->xCheckReservedLock(real_of(f), ret);
}

static int disk_control(sqlite3_file *f, int op, void *arg)
{
	return real_of(f)->pMethods->xFileControl(real_of(f), op, arg);
}

static int disk_sector(sqlite3_file *f)
{
	return real_of(f)->pMethods->xSectorSize(real_of(f));
}

static int disk_traits(sqlite3_file *f)
{
	return real_of(f)->pMethods->xDeviceCharacteristics(real_of(f));
}

static const sqlite3_io_methods disk_methods = {
	.iVersion = 1,
	.xClose = disk_close,
	.xRead = disk_read,
	.xWrite = disk_write,
	.xTruncate = disk_truncate,
	.xSync = disk_sync,
	.xFileSize = disk_size,
	.xLock = disk_lock,
	.xUnlock = disk_unlock,
	.xCheckReservedLock = disk_reserved,
	.xFileControl = disk_control,
	.xSectorSize = disk_sector,
	.xDeviceCharacteristics = disk_traits,
};

static int disk_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *f, int flags, int *ret_flags)
{
	struct disk_file *file = (struct disk_file *)f;
	(void)vfs;
	*file = (struct disk_file){.is_log = flags & SQLITE_OPEN_WAL};
	file->real = calloc(1, (size_t)disk.real->szOsFile);
	if (!file->real)
		return SQLITE_NOMEM;
	int code = disk.real->xOpen(disk.real, name, file->real, flags, ret_flags);
	if (code == SQLITE_OK)
		file->base.pMethods = &disk_methods;
	else
		free(file->real);
	return code;
}

static int disk_install(void **state)
{
	(void)state;
	disk.real = sqlite3_vfs_find(NULL);
	disk.vfs = *disk.real;
	disk.vfs.zName = "test disk";
	disk.vfs.szOsFile = sizeof(struct disk_file);
	disk.vfs.xOpen = disk_open;
	return sqlite3_vfs_register(&disk.vfs, 1);
}

/* --- the bed --- */

static const struct queue_driver *const driver = &queue_driver_sqlite;

struct bed {
	char dir[64];
	void *state;
	struct clock_fake clock;
	struct uuid_source ids;
	struct arena arena;
};

static int try_open(struct bed *b, struct err *e)
{
	struct queue_driver_options o = {b->dir, &b->clock.clock, IDEMPOTENCY_MS, 0, NULL};
	*e = ERR_INIT;
	return driver->open(&o, &b->state, e);
}

static void bed_open(struct bed *b)
{
	struct err e;
	if (try_open(b, &e) < 0)
		fail_msg("open: %s", e.text);
}

static void bed_close(struct bed *b)
{
	driver->close(b->state);
	b->state = NULL;
}

static void path_of(const struct bed *b, const char *name, char out[96])
{
	snprintf(out, 96, "%s/%s", b->dir, name);
}

static off_t size_of(const struct bed *b, const char *name)
{
	char path[96];
	struct stat st;
	path_of(b, name, path);
	return stat(path, &st) < 0 ? -1 : st.st_size;
}

static int set_up(void **state)
{
	struct bed *b = calloc(1, sizeof(*b));
	assert_non_null(b);
	snprintf(b->dir, sizeof(b->dir), "%s/sealpost-sqlite-XXXXXX",
		access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
	assert_non_null(mkdtemp(b->dir));
	clock_fake_init(&b->clock, (struct wall){START_MS});
	uuid_source_init(&b->ids, &b->clock.clock, 0);
	arena_init(&b->arena, ARENA_BYTES);
	bed_open(b);
	*state = b;
	return 0;
}

static int tear_down(void **state)
{
	struct bed *b = *state;
	disk.fail_at = 0;
	bed_close(b);
	static const char *const names[] = {"queue.db", "queue.db-wal", "queue.db-journal"};
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		char path[96];
		path_of(b, names[i], path);
		unlink(path);
	}
	assert_int_equal(rmdir(b->dir), 0);
	arena_clear(&b->arena);
	free(b);
	return 0;
}

/* --- operations --- */

static struct sealed new_message(struct bed *b, size_t bytes)
{
	static char envelope[SEALED_MAX_BYTES] = {ENVELOPE_VERSION};
	struct sealed m = {.client_id = STR("alpha"),
		.domain = STR("example"),
		.accepted_at = b->clock.now,
		.envelope = {envelope, ENVELOPE_HEADER_BYTES + ENVELOPE_TAG_BYTES + bytes}};
	assert_int_equal(uuid_next(&b->ids, &m.id, NULL), 0);
	return m;
}

/* A group with one put, as the committer runs it. */
static int put_message(struct bed *b, struct sealed *m, struct err *e)
{
	struct queue_put put = {.messages = m, .count = 1};
	if (driver->begin(b->state, e) < 0)
		return -1;
	int rc = driver->put(b->state, &put, e);
	if (rc >= 0 && driver->commit(b->state, e) == 0)
		return 0;
	driver->abort(b->state);
	return -1;
}

static struct uuid put_one(struct bed *b)
{
	struct sealed m = new_message(b, 100);
	struct err e = ERR_INIT;
	assert_int_equal(put_message(b, &m, &e), 0);
	return m.id;
}

static struct queue_lease lease_all(struct bed *b)
{
	struct queue_lease lease = {.worker = "w", .max = 1000, .lease_ms = 60000, .arena = &b->arena};
	arena_reset(&b->arena);
	assert_int_equal(driver->begin(b->state, NULL), 0);
	assert_int_equal(driver->lease(b->state, &lease, NULL), 0);
	assert_int_equal(driver->commit(b->state, NULL), 0);
	return lease;
}

static struct queue_stats stats_of(struct bed *b)
{
	struct queue_stats stats = {0};
	assert_int_equal(driver->stats(b->state, &stats, NULL), 0);
	return stats;
}

static bool is_there(struct bed *b, struct uuid id)
{
	struct queue_find find = {.id = id, .arena = &b->arena};
	arena_reset(&b->arena);
	return driver->find(b->state, &find, NULL) == 0;
}

/* Edits the closed file behind the driver's back. */
static void edit(struct bed *b, const char *sql)
{
	char path[96];
	sqlite3 *db;
	path_of(b, "queue.db", path);
	assert_int_equal(
		sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, "PRAGMA locking_mode = EXCLUSIVE", NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

/* --- durability --- */

static void test_commit_is_synced(void **state)
{
	struct bed *b = *state;
	struct err e = ERR_INIT;
	for (unsigned i = 0; i < 20; i++) {
		struct sealed m = new_message(b, 100);
		struct queue_put put = {.messages = &m, .count = 1};
		assert_int_equal(driver->begin(b->state, &e), 0);
		assert_int_equal(driver->put(b->state, &put, &e), QUEUE_STORED);
		unsigned syncs = disk.log_syncs, writes = disk.log_writes;
		assert_int_equal(driver->commit(b->state, &e), 0);
		assert_true(disk.log_writes > writes);
		assert_true(disk.log_syncs > syncs);
	}
	unsigned syncs = disk.log_syncs;
	lease_all(b);
	assert_true(disk.log_syncs > syncs);
}

static void test_reading_is_not_synced(void **state)
{
	struct bed *b = *state;
	struct uuid id = put_one(b);
	unsigned syncs = disk.log_syncs, writes = disk.log_writes;
	assert_int_equal(driver->begin(b->state, NULL), 0);
	assert_true(is_there(b, id));
	assert_int_equal(driver->commit(b->state, NULL), 0);
	assert_int_equal(disk.log_syncs, syncs);
	assert_int_equal(disk.log_writes, writes);
}

/* Each write and each sync fails in its turn, once or for a while, as an error or as a full disk: what was
 * acknowledged stays, what was refused is not there, and when the disk works again so does the queue. */
static void walk_faults(struct bed *b, unsigned count, int code)
{
	enum { PUTS = 6 };
	for (unsigned k = 1; k < 40; k++) {
		struct uuid ids[PUTS];
		bool stored[PUTS];
		disk.calls = 0;
		disk.fail_at = k;
		disk.fail_count = count;
		disk.code = code;
		for (unsigned i = 0; i < PUTS; i++) {
			struct sealed m = new_message(b, 3000);
			struct err e = ERR_INIT;
			stored[i] = put_message(b, &m, &e) == 0;
			if (!stored[i])
				assert_int_equal(e.kind, ERR_RETRY);
			ids[i] = m.id;
		}
		disk.fail_at = 0;
		assert_int_equal(driver->probe(b->state, NULL), 0);
		for (unsigned i = 0; i < PUTS; i++)
			assert_int_equal(is_there(b, ids[i]), stored[i]);
		struct queue_lease lease = lease_all(b);
		struct queue_settlement items[PUTS];
		for (unsigned i = 0; i < lease.count; i++)
			items[i] = (struct queue_settlement){
				.ref = lease.messages[i].ref, .verdict = QUEUE_DONE};
		struct queue_settle settle = {.worker = "w", .items = items, .count = lease.count};
		assert_int_equal(driver->begin(b->state, NULL), 0);
		assert_int_equal(driver->settle(b->state, &settle, NULL), 0);
		assert_int_equal(driver->commit(b->state, NULL), 0);
		assert_int_equal(stats_of(b).queued + stats_of(b).processing, 0);
	}
}

static void test_disk_errors(void **state)
{
	walk_faults(*state, 1, SQLITE_IOERR);
	walk_faults(*state, 3, SQLITE_IOERR);
}

static void test_full_disk(void **state)
{
	walk_faults(*state, 1, SQLITE_FULL);
	walk_faults(*state, 20, SQLITE_FULL);
}

static void test_error_names_the_cause(void **state)
{
	struct bed *b = *state;
	struct sealed m = new_message(b, 100);
	struct err e = ERR_INIT;
	disk.calls = 0;
	disk.fail_at = 1;
	disk.fail_count = 100;
	disk.code = SQLITE_FULL;
	assert_int_equal(put_message(b, &m, &e), -1);
	assert_int_equal(e.kind, ERR_RETRY);
	assert_non_null(strstr(e.text, "full"));
}

/* A disk that is gone altogether, as after the file system was shut down: it may come back, and nothing is
 * known to be damaged. */
static void test_dead_disk_is_no_damage(void **state)
{
	struct bed *b = *state;
	struct uuid id = put_one(b);
	disk.calls = 0;
	disk.fail_at = 1;
	disk.fail_count = 1000;
	disk.code = SQLITE_IOERR;
	disk.fail_reads = true;
	for (unsigned i = 0; i < 3; i++) {
		struct sealed m = new_message(b, 100);
		struct err e = ERR_INIT;
		assert_int_equal(put_message(b, &m, &e), -1);
		assert_int_equal(e.kind, ERR_RETRY);
	}
	disk.fail_at = 0;
	disk.fail_reads = false;
	assert_int_equal(driver->probe(b->state, NULL), 0);
	assert_true(is_there(b, id));
	put_one(b);
}

/* --- the log --- */

static void put_pages(struct bed *b, unsigned pages)
{
	enum { BYTES = 16000, PAGE = 4096 };
	struct err e = ERR_INIT;
	for (unsigned i = 0; i < pages * (PAGE / 1024) / (BYTES / 1024); i++) {
		struct sealed m = new_message(b, BYTES);
		assert_int_equal(put_message(b, &m, &e), 0);
	}
}

static void test_log_is_bounded(void **state)
{
	struct bed *b = *state;
	put_pages(b, 3 * LOG_PAGES_BUSY);
	off_t bound = (off_t)(LOG_PAGES_BUSY + LOG_PAGES_BUSY / 8) * 4200;
	assert_in_range(size_of(b, "queue.db-wal"), 1, bound);
	assert_true(size_of(b, "queue.db") > (off_t)2 * LOG_PAGES_BUSY * 4096);
}

static void test_failed_checkpoint_is_tried_again(void **state)
{
	struct bed *b = *state;
	put_pages(b, LOG_PAGES_BUSY - 100);
	off_t size = size_of(b, "queue.db");
	disk.calls = 0;
	disk.fail_at = 1;
	disk.fail_count = 1;
	disk.code = SQLITE_IOERR;
	struct mono next;
	clock_fake_advance_ms(&b->clock, 10000);
	driver->tick(b->state, b->clock.ticks, &next);
	assert_true(size_of(b, "queue.db") == size);
	assert_true(next.ns > b->clock.ticks.ns);
	clock_fake_advance_ms(&b->clock, 10000);
	driver->tick(b->state, b->clock.ticks, &next);
	assert_true(size_of(b, "queue.db") > size);
}

static void test_idle_queue_moves_its_log(void **state)
{
	struct bed *b = *state;
	struct mono next;
	put_pages(b, 2 * LOG_PAGES_IDLE);
	off_t size = size_of(b, "queue.db");
	driver->tick(b->state, b->clock.ticks, &next);
	assert_true(size_of(b, "queue.db") == size);
	assert_in_range(next.ns, b->clock.ticks.ns, b->clock.ticks.ns + 2000000000);
	clock_fake_advance_ms(&b->clock, 2000);
	driver->tick(b->state, b->clock.ticks, &next);
	assert_true(size_of(b, "queue.db") > size);
}

/* --- files --- */

static void test_files_are_private(void **state)
{
	struct bed *b = *state;
	static const char *const names[] = {"queue.db", "queue.db-wal"};
	put_one(b);
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		char path[96];
		struct stat st;
		path_of(b, names[i], path);
		assert_int_equal(stat(path, &st), 0);
		assert_int_equal(st.st_mode & 0777, 0600);
	}
	assert_int_equal(size_of(b, "queue.db-shm"), -1);
}

static void assert_not_opened(struct bed *b, enum err_kind kind, const char *says)
{
	struct err e;
	assert_int_equal(try_open(b, &e), -1);
	assert_int_equal(e.kind, kind);
	if (!strstr(e.text, says))
		fail_msg("'%s' does not say '%s'", e.text, says);
	assert_null(b->state);
}

static void write_file(struct bed *b, const char *text)
{
	char path[96];
	path_of(b, "queue.db", path);
	assert_int_equal(file_replace(path, 0600, str_of(text), NULL), 0);
}

static void reset_file(struct bed *b)
{
	write_file(b, "");
	bed_open(b);
}

static void test_foreign_files_are_refused(void **state)
{
	struct bed *b = *state;
	bed_close(b);
	edit(b, "PRAGMA user_version = 99");
	assert_not_opened(b, ERR_FATAL, "newer");
	edit(b, "PRAGMA user_version = 1; PRAGMA application_id = 7");
	assert_not_opened(b, ERR_FATAL, "not a queue");
	write_file(b, "");
	edit(b, "CREATE TABLE other(x)");
	assert_not_opened(b, ERR_FATAL, "not a queue");
	write_file(b,
		"This is a text and no database, long enough to look like one: it is longer than one hundred bytes.");
	assert_not_opened(b, ERR_FATAL, "not a database");
	reset_file(b);
}

static void test_missing_rows_and_tables(void **state)
{
	struct bed *b = *state;
	bed_close(b);
	edit(b, "DELETE FROM state");
	assert_not_opened(b, ERR_FATAL, "state row");
	edit(b, "DROP TABLE fresh");
	assert_not_opened(b, ERR_FATAL, "fresh");
	reset_file(b);
}

static void test_no_place(void **state)
{
	struct bed *b = *state;
	bed_close(b);
	struct bed other = *b;
	snprintf(other.dir, sizeof(other.dir), "/proc/nothing/here");
	struct err e;
	assert_int_equal(try_open(&other, &e), -1);
	assert_non_null(strstr(e.text, "/proc"));
	bed_open(b);
}

static void test_disk_fails_during_open(void **state)
{
	struct bed *b = *state;
	struct uuid id = put_one(b);
	for (unsigned k = 1; k < 30; k++) {
		struct err e;
		disk.fail_at = 0;
		bed_close(b);
		disk.calls = 0;
		disk.fail_at = k;
		disk.fail_count = 1;
		disk.code = SQLITE_IOERR;
		if (try_open(b, &e) < 0) {
			assert_int_equal(e.kind, ERR_RETRY);
			disk.fail_at = 0;
			bed_open(b);
		}
		disk.fail_at = 0;
		assert_true(is_there(b, id));
	}
}

/* --- edits --- */

static void test_counts_are_repaired(void **state)
{
	struct bed *b = *state;
	put_one(b), put_one(b);
	bed_close(b);
	edit(b, "UPDATE state SET waiting = 0, failed = 7");
	bed_open(b);
	assert_int_equal(stats_of(b).queued, 2);
	assert_int_equal(stats_of(b).failed, 0);
	bed_close(b);
	edit(b, "DELETE FROM fresh");
	bed_open(b);
	assert_int_equal(stats_of(b).queued, 0);
	assert_int_equal(lease_all(b).count, 0);
}

static void test_damaged_record_becomes_a_dead_letter(void **state)
{
	struct bed *b = *state;
	put_one(b), put_one(b), put_one(b);
	bed_close(b);
	edit(b, "UPDATE fresh SET record = x'00ff' WHERE key = (SELECT min(key) FROM fresh);"
		"UPDATE fresh SET record = zeroblob(100000) WHERE key = (SELECT max(key) FROM fresh)");
	bed_open(b);
	assert_int_equal(lease_all(b).count, 1);
	struct queue_stats stats = stats_of(b);
	assert_int_equal(stats.failed, 2);
	assert_int_equal(stats.processing, 1);
	struct queue_list list = {.filter = {.state = MESSAGE_FAILED}, .max = 10, .arena = &b->arena};
	arena_reset(&b->arena);
	assert_int_equal(driver->list(b->state, &list, NULL), 0);
	assert_int_equal(list.count, 2);
	assert_true(str_starts(list.entries[0].last_reason, STR("damaged")));
	/* It can be seen and purged by the id that the list shows. */
	struct uuid id = list.entries[0].id;
	struct queue_purge purge = {.ids = &id, .id_count = 1, .max = 1};
	assert_true(is_there(b, id));
	assert_int_equal(driver->begin(b->state, NULL), 0);
	assert_int_equal(driver->purge(b->state, &purge, NULL), 0);
	assert_int_equal(driver->commit(b->state, NULL), 0);
	assert_int_equal(purge.matched, 1);
}

static void test_odd_lease_rows(void **state)
{
	struct bed *b = *state;
	struct uuid id = put_one(b);
	char sql[400], key[17];
	snprintf(key, sizeof(key), "%016llx", (unsigned long long)uuid_order_key(&id));
	bed_close(b);
	/* Named twice, cut short, unknown, nothing. */
	snprintf(sql, sizeof(sql),
		"INSERT INTO leased VALUES(1, x'77', x'%s%s'), (2, x'77', x'%s'), (3, x'77', x'%.6s'),"
		"(4, x'77', x'00000000000000ff'), (5, x'', x'')",
		key, key, key, key);
	edit(b, sql);
	bed_open(b);
	struct queue_lease lease = lease_all(b);
	assert_int_equal(lease.count, 1);
	assert_int_equal(lease.messages[0].attempt_count, 1);
	bed_close(b);
	bed_open(b);
	lease = lease_all(b);
	assert_int_equal(lease.messages[0].attempt_count, 1);
}

static void test_odd_remembered_rows(void **state)
{
	struct bed *b = *state;
	bed_close(b);
	edit(b, "INSERT INTO remembered VALUES(65536000000001, x'00', x'', x'01', 1, 1, 1)");
	bed_open(b);
	struct sealed m = new_message(b, 100);
	struct queue_put put = {.messages = &m, .count = 1, .has_key = true};
	assert_int_equal(driver->begin(b->state, NULL), 0);
	assert_int_equal(driver->put(b->state, &put, NULL), QUEUE_REPLAYED);
	driver->abort(b->state);
}

#define CASE(name) cmocka_unit_test_setup_teardown(test_##name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(commit_is_synced),
		CASE(reading_is_not_synced),
		CASE(disk_errors),
		CASE(full_disk),
		CASE(error_names_the_cause),
		CASE(dead_disk_is_no_damage),
		CASE(log_is_bounded),
		CASE(failed_checkpoint_is_tried_again),
		CASE(idle_queue_moves_its_log),
		CASE(files_are_private),
		CASE(foreign_files_are_refused),
		CASE(missing_rows_and_tables),
		CASE(no_place),
		CASE(disk_fails_during_open),
		CASE(counts_are_repaired),
		CASE(damaged_record_becomes_a_dead_letter),
		CASE(odd_lease_rows),
		CASE(odd_remembered_rows),
	};
	return cmocka_run_group_tests(tests, disk_install, NULL);
}
