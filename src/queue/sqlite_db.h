/* sqlite_db.h - the SQLite driver's file: opening and checking it, its statements, what its errors mean.
 *
 * Durability: WAL with synchronous=FULL: a commit has synced the log when it returns. Both are read back at
 * open. Ownership:  one connection holds the file's exclusive lock from open to close; a second open is
 * ERR_CONFLICT. Errors:     ERR_RETRY for what may pass (disk full, I/O error, memory), ERR_CONFLICT for a
 * broken constraint, ERR_FATAL for a damaged or foreign file, or one made by a newer program. Threads:    one
 * at a time. Security:   the file is created with mode 0600; triggers and views of a tampered schema are not
 * trusted. */
#ifndef QUEUE_SQLITE_DB_H
#define QUEUE_SQLITE_DB_H

#include <sqlite3.h>

#include "base/err.h"
#include "base/str.h"

enum statement {
#define STATEMENT(id, sql) SQL_##id,
#include "queue/sqlite_statements.def"
#undef STATEMENT
	STATEMENTS
};

struct sqlite_db {
	sqlite3 *handle;
	sqlite3_stmt *statements[STATEMENTS];
	int log_pages;     /* in the WAL, after the last commit */
	int checkpoint_at; /* pages at which it wants a checkpoint */
};

/* The pages of the log at which a checkpoint is made between two groups, and when the queue is idle. */
enum { LOG_PAGES_BUSY = 4096, LOG_PAGES_IDLE = 64 };

MUST_CHECK int sqlite_db_open(const char *dir, struct sqlite_db *ret, struct err *e);
void sqlite_db_close(struct sqlite_db *db);

/* A value for a statement's parameter. */
struct sqlite_value {
	enum { SQLITE_VALUE_INT, SQLITE_VALUE_BLOB, SQLITE_VALUE_NULL } type;
	int64_t number;
	struct str bytes;
};

#define V_INT(v)     ((struct sqlite_value){.type = SQLITE_VALUE_INT, .number = (int64_t)(v)})
#define V_BLOB(s)    ((struct sqlite_value){.type = SQLITE_VALUE_BLOB, .bytes = (s)})
#define V_NULL       ((struct sqlite_value){.type = SQLITE_VALUE_NULL})
#define V_COUNT(...) (sizeof((struct sqlite_value[]){__VA_ARGS__}) / sizeof(struct sqlite_value))
#define V_LIST(...)  (struct sqlite_value[]){__VA_ARGS__}, V_COUNT(__VA_ARGS__)

/* Runs a statement that gives no rows. */
#define sqlite_run(db, which, e, ...) sqlite_run_values(db, which, e, V_LIST(__VA_ARGS__))
MUST_CHECK int sqlite_run_values(struct sqlite_db *db, enum statement which, struct err *e,
	const struct sqlite_value *values, size_t count);
MUST_CHECK int sqlite_run_plain(struct sqlite_db *db, enum statement which, struct err *e);

/* Where a failure changes nothing for the caller. */
void sqlite_run_if_possible(struct sqlite_db *db, enum statement which);

/* Starts a query and goes to its first row: 1 with *ret_row, 0 without, <0. A query that gave 1 is ended by
 * sqlite_done, or by sqlite_next when it returns something else. */
#define sqlite_query(db, which, e, ret_row, ...)                                                             \
	sqlite_query_values(db, which, e, ret_row, V_LIST(__VA_ARGS__))
MUST_CHECK int sqlite_query_values(struct sqlite_db *db, enum statement which, struct err *e,
	sqlite3_stmt **ret_row, const struct sqlite_value *values, size_t count);
MUST_CHECK int sqlite_query_plain(
	struct sqlite_db *db, enum statement which, struct err *e, sqlite3_stmt **ret_row);
MUST_CHECK int sqlite_next(struct sqlite_db *db, sqlite3_stmt *row, struct err *e);
void sqlite_done(sqlite3_stmt *row);

/* A column as bytes, good until the query goes on. */
struct str sqlite_bytes(sqlite3_stmt *row, int column);

/* Ends a transaction that may be open, after a failure. */
void sqlite_rollback(struct sqlite_db *db);

/* Moves the log into the database. A failure is tried again after as many pages more. */
void sqlite_checkpoint(struct sqlite_db *db);

#endif
