/* sqlite_db.h - one SQLite connection with its prepared statements, and the few wrappers that keep the
 * driver's code about messages instead of about bind calls.
 *
 * Errors:  ERR_RETRY for what the disk or memory refused now, ERR_FATAL for the rest (kind_of in
 * sqlite_db.c). Threads: a connection is used by one thread at a time. */
#ifndef STORE_SQLITE_DB_H
#define STORE_SQLITE_DB_H

#include <sqlite3.h>
#include <stdbool.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/str.h"

/* What a connection is to run; a connection's statements are a table of these, named by an enum. */
struct sq_text {
	const char *name; /* for errors: "insert message" */
	const char *sql;
};

struct sq {
	sqlite3 *db;
	const struct sq_text *texts;
	sqlite3_stmt **statements; /* in the order of texts */
	unsigned statement_count;
};

/* `flags` as sqlite3_open_v2; the connection refuses what a crafted file could make it do. */
MUST_CHECK int sq_open(struct sq *s, const char *path, int flags, struct err *e);
void sq_close(struct sq *s);

MUST_CHECK int sq_prepare(struct sq *s, const struct sq_text *texts, unsigned count, struct err *e);

/* -1 with the connection's error in *e. */
int sq_fail(const struct sq *s, int rc, const char *what, struct err *e);

/* Runs statements without parameters or results. */
MUST_CHECK int sq_exec(const struct sq *s, const char *sql, struct err *e);

/* Runs one statement and reads the first column of its first row: as an integer, or as text compared with
 * `wanted`. */
MUST_CHECK int sq_exec_int(const struct sq *s, const char *sql, int64_t *ret, struct err *e);
MUST_CHECK int sq_exec_expect(const struct sq *s, const char *sql, const char *wanted, struct err *e);

/* --- binding: in the order of the parameters ?1, ?2, … or by name; values must live until the statement is
 * reset --- */

struct sq_args {
	sqlite3_stmt *statement;
	const char *name;
	int n;
	int rc; /* first failure, reported by sq_run and sq_next */
};

static inline struct sq_args sq_args(const struct sq *s, unsigned statement)
{
	return (struct sq_args){s->statements[statement], s->texts[statement].name, 0, SQLITE_OK};
}

/* Lets the next sq_bind_… set the parameter of that name (":client"); false when the statement has none such.
 */
bool sq_bind_at(struct sq_args *a, const char *name);

void sq_bind_int(struct sq_args *a, int64_t v);
void sq_bind_text(struct sq_args *a, struct str v);
void sq_bind_blob(struct sq_args *a, const void *p, size_t n);
void sq_bind_null(struct sq_args *a);

/* NULL for zero or for nothing. */
void sq_bind_int_or_null(struct sq_args *a, int64_t v);
void sq_bind_text_or_null(struct sq_args *a, struct str v);

/* --- running --- */

/* Runs to the end and resets; *ret_changed (may be NULL) is the number of rows changed. */
MUST_CHECK int sq_run(const struct sq *s, const struct sq_args *a, int64_t *ret_changed, struct err *e);

/* SQ_ROW: a row is there; SQ_END: no more. The statement is reset after SQ_END and on failure; a caller that
 * stops early resets it (sq_reset_auto). */
enum { SQ_END = 0, SQ_ROW = 1 };
MUST_CHECK int sq_next(const struct sq *s, const struct sq_args *a, struct err *e);

static inline void sq_reset_auto(struct sq_args *a)
{
	sqlite3_reset(a->statement);
}

/* --- reading the columns of a row, in order; sticky: check once at the end --- */

struct sq_columns {
	sqlite3_stmt *statement;
	int n;
	struct arena *arena;
	bool damaged; /* a value that this column cannot have */
	bool no_memory;
};

static inline struct sq_columns sq_columns(const struct sq_args *a, struct arena *arena)
{
	return (struct sq_columns){a->statement, 0, arena, false, false};
}

int64_t sq_column_int(struct sq_columns *c);                             /* NULL reads as 0 */
unsigned sq_column_unsigned(struct sq_columns *c);                       /* damaged: outside 0 .. UINT_MAX */
struct str sq_column_str(struct sq_columns *c);                          /* text or blob, in the arena */
void sq_column_exact(struct sq_columns *c, void *ret, size_t n);         /* damaged: other length */
void sq_column_exact_or_null(struct sq_columns *c, void *ret, size_t n); /* NULL: zero bytes */
unsigned sq_column_upto(struct sq_columns *c, void *ret, size_t room);   /* damaged: longer */

/* 0, or ERR_RETRY without memory, or ERR_FATAL "store: WHAT NUMBER is damaged: FAULT" when a column was
 * damaged or `fault` (from rules.h) is not NULL. */
MUST_CHECK int sq_columns_check(
	const struct sq_columns *c, const char *fault, const char *what, int64_t number, struct err *e);

#endif
