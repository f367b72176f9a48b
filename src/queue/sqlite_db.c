/* sqlite_db.c - see sqlite_db.h.
 *
 * The lock is exclusive, so the index of the log is in our memory and not in a shared file, nobody else can
 * write or make a checkpoint, and a full disk cannot hit us through a memory map.
 *
 * After a failed sync the connection goes on: SQLite has not counted the frames in, and the next transaction
 * writes over them, which makes the kernel try those blocks again. What a failed sync left in the file could
 * however be taken for committed by the next open, while it is in the page cache only and the kernel thinks
 * it clean. So open moves the whole log into the database, by new writes and a new sync, before anything is
 * built upon it.
 *
 * Checkpoints are made between groups and when idle, never inside a commit that callers wait for. The log's
 * file is kept at its size: writing over blocks that exist costs less per sync than extending a file. */
#include "queue/sqlite_db.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "base/file.h"

enum { APPLICATION_ID = 0x5ea190e5, SCHEMA_VERSION = 1 };

/* One step from each version to the next; never changed once released. */
static const char *const migrations[SCHEMA_VERSION] = {
	"CREATE TABLE fresh(key INTEGER PRIMARY KEY, record BLOB NOT NULL) STRICT;"
	"CREATE TABLE tried(key INTEGER PRIMARY KEY, due_ms INTEGER, attempts INTEGER NOT NULL,"
	" history BLOB NOT NULL, record BLOB NOT NULL) STRICT;"
	"CREATE INDEX tried_due ON tried(due_ms, key);"
	"CREATE INDEX tried_waiting ON tried(key) WHERE due_ms IS NOT NULL;"
	"CREATE TABLE leased(token INTEGER PRIMARY KEY, worker BLOB NOT NULL, members BLOB NOT NULL) STRICT;"
	"CREATE TABLE remembered(key INTEGER PRIMARY KEY, key_hash BLOB NOT NULL, payload_hash BLOB NOT NULL,"
	" first_id BLOB NOT NULL, accepted_ms INTEGER NOT NULL, position INTEGER NOT NULL,"
	" count INTEGER NOT NULL) STRICT;"
	"CREATE TABLE state(waiting INTEGER NOT NULL, retrying INTEGER NOT NULL, failed INTEGER NOT NULL,"
	" floor_key INTEGER NOT NULL, accept_paused INTEGER NOT NULL, accept_reason BLOB NOT NULL,"
	" delivery_paused INTEGER NOT NULL, delivery_reason BLOB NOT NULL) STRICT;"
	"INSERT INTO state VALUES(0, 0, 0, 0, 0, x'', 0, x'');",
};

/* Set in this order, and read back: a file system without WAL or a build with other ideas must not go
 * unnoticed. */
static const struct setting {
	const char *name, *value, *reads;
} settings[] = {
	{"journal_mode", "WAL", "wal"},
	{"synchronous", "FULL", "2"},
	{"cell_size_check", "ON", "1"},
	{"trusted_schema", "OFF", "0"},
	{"temp_store", "MEMORY", "2"},
	{"cache_size", "-8192", "-8192"},
	{"wal_autocheckpoint", "0", "0"},
};

static const char *const statement_sql[STATEMENTS] = {
#define STATEMENT(id, sql) [SQL_##id] = sql,
#include "queue/sqlite_statements.def"
#undef STATEMENT
};

/* --- errors --- */

static enum err_kind kind_of(int code)
{
	switch (code & 0xff) {
	case SQLITE_FULL:
	case SQLITE_IOERR:
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
	case SQLITE_NOMEM:
	case SQLITE_READONLY:
	case SQLITE_CANTOPEN:
	case SQLITE_INTERRUPT:
		return ERR_RETRY;
	case SQLITE_CONSTRAINT:
		return ERR_CONFLICT;
	case SQLITE_TOOBIG:
		return ERR_REJECT;
	default:
		return ERR_FATAL;
	}
}

/* A read that the disk answers with EIO is reported as a damaged database (SQLITE_IOERR_CORRUPTFS becomes
 * SQLITE_CORRUPT). So the disk itself is asked: while it does not answer, nobody knows of any damage. */
static bool disk_fails_to_read(const struct sqlite_db *db)
{
	static const int files[] = {SQLITE_FCNTL_FILE_POINTER, SQLITE_FCNTL_JOURNAL_POINTER};
	for (size_t i = 0; i < ARRAY_LEN(files); i++) {
		char byte;
		sqlite3_file *file = NULL;
		if (sqlite3_file_control(db->handle, "main", files[i], &file) != SQLITE_OK || !file ||
			!file->pMethods)
			continue;
		int code = file->pMethods->xRead(file, &byte, sizeof(byte), 0);
		if (code != SQLITE_OK && code != SQLITE_IOERR_SHORT_READ)
			return true;
	}
	return false;
}

static int failed(const struct sqlite_db *db, int code, struct err *e)
{
	if ((code & 0xff) == SQLITE_CORRUPT && disk_fails_to_read(db))
		return err_set(e, ERR_RETRY, "queue.db: the disk fails to read it");
	enum err_kind kind = kind_of(code);
	int sys_errno = sqlite3_system_errno(db->handle);
	bool from_system = kind == ERR_RETRY && sys_errno;
	err_set(e, kind, "queue.db: %s%s%s", sqlite3_errmsg(db->handle), from_system ? ": " : "",
		from_system ? strerrordesc_np(sys_errno) : "");
	if (e && from_system)
		e->sys_errno = sys_errno;
	return -1;
}

/* --- statements --- */

static int bind(sqlite3_stmt *stmt, const struct sqlite_value *values, size_t count)
{
	int code = SQLITE_OK;
	for (size_t i = 0; i < count && code == SQLITE_OK; i++) {
		const struct sqlite_value *v = &values[i];
		int at = (int)i + 1;
		switch (v->type) {
		case SQLITE_VALUE_INT:
			code = sqlite3_bind_int64(stmt, at, v->number);
			break;
		case SQLITE_VALUE_BLOB:
			code = sqlite3_bind_blob64(
				stmt, at, v->bytes.n ? v->bytes.p : "", v->bytes.n, SQLITE_STATIC);
			break;
		case SQLITE_VALUE_NULL:
			code = sqlite3_bind_null(stmt, at);
			break;
		}
	}
	return code;
}

/* 1 at a row, 0 at the end (and reset), <0 (and reset). */
static int step(struct sqlite_db *db, sqlite3_stmt *stmt, struct err *e)
{
	int code = sqlite3_step(stmt);
	if (code == SQLITE_ROW)
		return 1;
	int rc = code == SQLITE_DONE ? 0 : failed(db, code, e);
	sqlite3_reset(stmt);
	return rc;
}

static int start(struct sqlite_db *db, enum statement which, sqlite3_stmt **ret_row, struct err *e)
{
	int rc = step(db, db->statements[which], e);
	if (rc > 0)
		*ret_row = db->statements[which];
	return rc;
}

int sqlite_query_values(struct sqlite_db *db, enum statement which, struct err *e, sqlite3_stmt **ret_row,
	const struct sqlite_value *values, size_t count)
{
	int code = bind(db->statements[which], values, count);
	return code == SQLITE_OK ? start(db, which, ret_row, e) : failed(db, code, e);
}

int sqlite_query_plain(struct sqlite_db *db, enum statement which, struct err *e, sqlite3_stmt **ret_row)
{
	return start(db, which, ret_row, e);
}

int sqlite_next(struct sqlite_db *db, sqlite3_stmt *row, struct err *e)
{
	return step(db, row, e);
}

void sqlite_done(sqlite3_stmt *row)
{
	sqlite3_reset(row);
}

int sqlite_run_values(struct sqlite_db *db, enum statement which, struct err *e,
	const struct sqlite_value *values, size_t count)
{
	sqlite3_stmt *row;
	return sqlite_query_values(db, which, e, &row, values, count);
}

int sqlite_run_plain(struct sqlite_db *db, enum statement which, struct err *e)
{
	sqlite3_stmt *row;
	return start(db, which, &row, e);
}

struct str sqlite_bytes(sqlite3_stmt *row, int column)
{
	const void *p = sqlite3_column_blob(row, column);
	return p ? str_mem(p, (size_t)sqlite3_column_bytes(row, column)) : STR("");
}

void sqlite_run_if_possible(struct sqlite_db *db, enum statement which)
{
	sqlite3_step(db->statements[which]);
	sqlite3_reset(db->statements[which]);
}

void sqlite_rollback(struct sqlite_db *db)
{
	/* Some failures have rolled back already. */
	if (!sqlite3_get_autocommit(db->handle))
		sqlite_run_if_possible(db, SQL_ROLLBACK);
}

/* --- the log --- */

static int note_log(void *arg, sqlite3 *handle, const char *name, int pages)
{
	struct sqlite_db *db = arg;
	(void)handle, (void)name;
	db->log_pages = pages;
	return SQLITE_OK;
}

void sqlite_checkpoint(struct sqlite_db *db)
{
	int code = sqlite3_wal_checkpoint_v2(db->handle, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
	if (code == SQLITE_OK)
		db->log_pages = 0;
	db->checkpoint_at = db->log_pages + LOG_PAGES_BUSY;
}

static int empty_log(struct sqlite_db *db, struct err *e)
{
	int code = sqlite3_wal_checkpoint_v2(db->handle, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
	return code == SQLITE_OK ? 0 : failed(db, code, e);
}

/* --- open and close --- */

static int exec(struct sqlite_db *db, const char *sql, struct err *e)
{
	int code = sqlite3_exec(db->handle, sql, NULL, NULL, NULL);
	return code == SQLITE_OK ? 0 : failed(db, code, e);
}

/* The only value that the SQL gives, as text. */
static int read_text(struct sqlite_db *db, const char *sql, char *ret, size_t room, struct err *e)
{
	sqlite3_stmt *stmt;
	int code = sqlite3_prepare_v2(db->handle, sql, -1, &stmt, NULL);
	if (code != SQLITE_OK)
		return failed(db, code, e);
	int rc = step(db, stmt, e);
	if (rc > 0)
		snprintf(ret, room, "%s", (const char *)sqlite3_column_text(stmt, 0));
	sqlite3_finalize(stmt);
	return rc < 0 ? -1 : 0;
}

static int read_number(struct sqlite_db *db, const char *sql, int64_t *ret, struct err *e)
{
	char text[32] = "";
	if (read_text(db, sql, text, sizeof(text), e) < 0)
		return -1;
	if (!str_to_i64(str_of(text), ret))
		return err_set(e, ERR_FATAL, "queue.db: '%s' gives '%s'", sql, text);
	return 0;
}

/* With mode 0600 from the start; SQLite gives its log the same. */
static int create(const char *path, struct err *e)
{
	/* Not opened when it exists: closing it again would drop this process's locks on it. */
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0 && errno == EEXIST)
		return 0;
	if (fd < 0)
		return err_sys(
			e, errno == ENOSPC || errno == EIO ? ERR_RETRY : ERR_FATAL, "create '%s'", path);
	close(fd);
	return dir_sync_parent(path, e);
}

static int take_lock(struct sqlite_db *db, struct err *e)
{
	struct err why = ERR_INIT;
	if (exec(db, "PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE; COMMIT", &why) == 0)
		return 0;
	if ((sqlite3_errcode(db->handle) & 0xff) == SQLITE_BUSY)
		return err_set(e, ERR_CONFLICT, "queue.db: another process has it open");
	if (e)
		*e = why;
	return -1;
}

/* *ret_version: 0 for a new file. */
static int identify(struct sqlite_db *db, int64_t *ret_version, struct err *e)
{
	int64_t application, objects;
	if (read_number(db, "PRAGMA application_id", &application, e) < 0 ||
		read_number(db, "PRAGMA user_version", ret_version, e) < 0 ||
		read_number(db, "SELECT count(*) FROM sqlite_schema", &objects, e) < 0)
		return -1;
	bool is_new = application == 0 && *ret_version == 0 && objects == 0;
	if (application != APPLICATION_ID && !is_new)
		return err_set(e, ERR_FATAL, "queue.db: not a queue of this program");
	if (*ret_version > SCHEMA_VERSION)
		return err_set(e, ERR_FATAL, "queue.db: schema %lld is newer than this program's %d",
			(long long)*ret_version, SCHEMA_VERSION);
	return 0;
}

static int configure(struct sqlite_db *db, struct err *e)
{
	for (size_t i = 0; i < ARRAY_LEN(settings); i++) {
		const struct setting *s = &settings[i];
		char sql[64], reads[32] = "";
		snprintf(sql, sizeof(sql), "PRAGMA %s = %s", s->name, s->value);
		if (exec(db, sql, e) < 0)
			return -1;
		snprintf(sql, sizeof(sql), "PRAGMA %s", s->name);
		if (read_text(db, sql, reads, sizeof(reads), e) < 0)
			return -1;
		if (strcmp(reads, s->reads) != 0)
			return err_set(
				e, ERR_FATAL, "queue.db: %s is '%s' and not '%s'", s->name, reads, s->reads);
	}
	/* In place of SQLite's own checkpoints. */
	sqlite3_wal_hook(db->handle, note_log, db);
	return 0;
}

static int migrate(struct sqlite_db *db, int64_t version, struct err *e)
{
	for (int64_t v = version; v < SCHEMA_VERSION; v++) {
		char marks[96];
		snprintf(marks, sizeof(marks),
			"PRAGMA application_id = %d; PRAGMA user_version = %lld; COMMIT", APPLICATION_ID,
			(long long)v + 1);
		if (exec(db, "BEGIN IMMEDIATE", e) < 0 || exec(db, migrations[v], e) < 0 ||
			exec(db, marks, e) < 0)
			return err_context(e, "schema %lld", (long long)v + 1);
	}
	return 0;
}

static int prepare(struct sqlite_db *db, struct err *e)
{
	for (unsigned i = 0; i < STATEMENTS; i++) {
		int code = sqlite3_prepare_v3(db->handle, statement_sql[i], -1, SQLITE_PREPARE_PERSISTENT,
			&db->statements[i], NULL);
		if (code != SQLITE_OK)
			return failed(db, code, e);
	}
	return 0;
}

static int set_up(struct sqlite_db *db, struct err *e)
{
	int64_t version;
	if (take_lock(db, e) < 0 || identify(db, &version, e) < 0 || configure(db, e) < 0 ||
		empty_log(db, e) < 0 || migrate(db, version, e) < 0)
		return -1;
	db->log_pages = 0;
	db->checkpoint_at = LOG_PAGES_BUSY;
	return prepare(db, e);
}

int sqlite_db_open(const char *dir, struct sqlite_db *ret, struct err *e)
{
	AUTO(free_auto) char *path = path_join(dir, "queue.db");
	if (!path)
		return err_oom(e);
	if (dir_make(dir, 0700, e) < 0 || create(path, e) < 0)
		return -1;
	*ret = (struct sqlite_db){NULL};
	int code = sqlite3_open_v2(path, &ret->handle, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);
	if (code == SQLITE_OK)
		code = sqlite3_extended_result_codes(ret->handle, 1);
	if (code != SQLITE_OK)
		failed(ret, code, e);
	if (code == SQLITE_OK && set_up(ret, e) == 0)
		return 0;
	sqlite_db_close(ret);
	return err_context(e, "'%s'", dir);
}

void sqlite_db_close(struct sqlite_db *db)
{
	for (unsigned i = 0; i < STATEMENTS; i++)
		sqlite3_finalize(db->statements[i]);
	sqlite3_close(db->handle);
	*db = (struct sqlite_db){NULL};
}
