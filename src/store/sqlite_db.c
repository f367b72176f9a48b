/* sqlite_db.c - see sqlite_db.h. */
#include "store/sqlite_db.h"

#include <limits.h>
#include <stdlib.h>

static enum err_kind kind_of(int rc)
{
	switch (rc & 0xff) {
	case SQLITE_FULL:
	case SQLITE_IOERR:
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
	case SQLITE_PROTOCOL:
	case SQLITE_CANTOPEN:
		return ERR_RETRY;
	default:
		return ERR_FATAL;
	}
}

int sq_fail(const struct sq *s, int rc, const char *what, struct err *e)
{
	if ((rc & 0xff) == SQLITE_NOMEM)
		return err_oom(e);
	int extended = sqlite3_extended_errcode(s->db), sys_errno = sqlite3_system_errno(s->db);
	enum err_kind kind = kind_of(rc);
	bool from_system = kind == ERR_RETRY && sys_errno;
	return err_set(e, kind, "%s: %s%s%s (sqlite code %d)", what, sqlite3_errmsg(s->db),
		from_system ? ": " : "", from_system ? strerrordesc_np(sys_errno) : "", extended);
}

int sq_open(struct sq *s, const char *path, int flags, struct err *e)
{
	int rc = sqlite3_open_v2(path, &s->db, flags | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE, NULL);
	if (rc != SQLITE_OK)
		return s->db ? sq_fail(s, rc, path, e) : err_oom(e);
	sqlite3_db_config(s->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
	return sq_exec(
		s, "PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON; PRAGMA temp_store = MEMORY", e);
}

void sq_close(struct sq *s)
{
	for (unsigned i = 0; i < s->statement_count; i++)
		sqlite3_finalize(s->statements[i]);
	free(s->statements);
	sqlite3_close(s->db);
	*s = (struct sq){NULL, NULL, NULL, 0};
}

int sq_prepare(struct sq *s, const struct sq_text *texts, unsigned count, struct err *e)
{
	s->texts = texts;
	s->statements = calloc(count, sizeof(sqlite3_stmt *));
	if (!s->statements)
		return err_oom(e);
	s->statement_count = count;
	for (unsigned i = 0; i < count; i++) {
		int rc = sqlite3_prepare_v3(
			s->db, texts[i].sql, -1, SQLITE_PREPARE_PERSISTENT, &s->statements[i], NULL);
		if (rc != SQLITE_OK)
			return sq_fail(s, rc, texts[i].name, e);
	}
	return 0;
}

int sq_exec(const struct sq *s, const char *sql, struct err *e)
{
	int rc = sqlite3_exec(s->db, sql, NULL, NULL, NULL);
	return rc == SQLITE_OK ? 0 : sq_fail(s, rc, sql, e);
}

static void finalize_auto(sqlite3_stmt **statement)
{
	sqlite3_finalize(*statement);
}

/* Runs up to the first row; *ret is that row, to be finalized. */
static int first_row(const struct sq *s, const char *sql, sqlite3_stmt **ret, struct err *e)
{
	int rc = sqlite3_prepare_v2(s->db, sql, -1, ret, NULL);
	if (rc == SQLITE_OK)
		rc = sqlite3_step(*ret);
	return rc == SQLITE_ROW ? 0 : sq_fail(s, rc, sql, e);
}

int sq_exec_int(const struct sq *s, const char *sql, int64_t *ret, struct err *e)
{
	__attribute__((cleanup(finalize_auto))) sqlite3_stmt *statement = NULL;
	if (first_row(s, sql, &statement, e) < 0)
		return -1;
	*ret = sqlite3_column_int64(statement, 0);
	return 0;
}

int sq_exec_expect(const struct sq *s, const char *sql, const char *wanted, struct err *e)
{
	__attribute__((cleanup(finalize_auto))) sqlite3_stmt *statement = NULL;
	if (first_row(s, sql, &statement, e) < 0)
		return -1;
	const char *got = (const char *)sqlite3_column_text(statement, 0);
	if (!got)
		return err_oom(e);
	return strcmp(got, wanted) == 0 ? 0 : err_set(e, ERR_FATAL, "%s: %s, not %s", sql, got, wanted);
}

/* --- binding --- */

static void keep_first(struct sq_args *a, int rc)
{
	if (a->rc == SQLITE_OK)
		a->rc = rc;
}

bool sq_bind_at(struct sq_args *a, const char *name)
{
	int at = sqlite3_bind_parameter_index(a->statement, name);
	if (at)
		a->n = at - 1;
	return at != 0;
}

void sq_bind_int(struct sq_args *a, int64_t v)
{
	keep_first(a, sqlite3_bind_int64(a->statement, ++a->n, v));
}

void sq_bind_text(struct sq_args *a, struct str v)
{
	keep_first(a,
		sqlite3_bind_text64(a->statement, ++a->n, v.n ? v.p : "", v.n, SQLITE_STATIC, SQLITE_UTF8));
}

void sq_bind_blob(struct sq_args *a, const void *p, size_t n)
{
	keep_first(a, sqlite3_bind_blob64(a->statement, ++a->n, p, n, SQLITE_STATIC));
}

void sq_bind_null(struct sq_args *a)
{
	keep_first(a, sqlite3_bind_null(a->statement, ++a->n));
}

void sq_bind_int_or_null(struct sq_args *a, int64_t v)
{
	if (v)
		sq_bind_int(a, v);
	else
		sq_bind_null(a);
}

void sq_bind_text_or_null(struct sq_args *a, struct str v)
{
	if (v.n)
		sq_bind_text(a, v);
	else
		sq_bind_null(a);
}

/* --- running --- */

int sq_next(const struct sq *s, const struct sq_args *a, struct err *e)
{
	int rc = a->rc == SQLITE_OK ? sqlite3_step(a->statement) : a->rc;
	if (rc == SQLITE_ROW)
		return SQ_ROW;
	int result = rc == SQLITE_DONE ? SQ_END : sq_fail(s, rc, a->name, e);
	sqlite3_reset(a->statement);
	return result;
}

int sq_run(const struct sq *s, const struct sq_args *a, int64_t *ret_changed, struct err *e)
{
	int result;
	while ((result = sq_next(s, a, e)) == SQ_ROW)
		;
	if (result == SQ_END && ret_changed)
		*ret_changed = sqlite3_changes64(s->db);
	return result;
}

/* --- columns --- */

int64_t sq_column_int(struct sq_columns *c)
{
	return sqlite3_column_int64(c->statement, c->n++);
}

unsigned sq_column_unsigned(struct sq_columns *c)
{
	int64_t v = sq_column_int(c);
	if (v >= 0 && v <= UINT_MAX)
		return (unsigned)v;
	c->damaged = true;
	return 0;
}

/* The bytes of the next column, the statement's own; .p is NULL for none. */
static struct str peek(struct sq_columns *c)
{
	const void *p = sqlite3_column_blob(c->statement, c->n);
	int n = sqlite3_column_bytes(c->statement, c->n);
	c->n++;
	if (n && !p)
		c->no_memory = true;
	return (struct str){p, p ? (size_t)n : 0};
}

struct str sq_column_str(struct sq_columns *c)
{
	struct str copy = arena_copy(c->arena, peek(c));
	if (!copy.p)
		c->no_memory = true;
	return copy;
}

void sq_column_exact(struct sq_columns *c, void *ret, size_t n)
{
	struct str s = peek(c);
	if (s.p && s.n == n)
		memcpy(ret, s.p, n);
	else
		c->damaged = true;
}

void sq_column_exact_or_null(struct sq_columns *c, void *ret, size_t n)
{
	if (sqlite3_column_type(c->statement, c->n) != SQLITE_NULL) {
		sq_column_exact(c, ret, n);
		return;
	}
	memset(ret, 0, n);
	c->n++;
}

unsigned sq_column_upto(struct sq_columns *c, void *ret, size_t room)
{
	struct str s = peek(c);
	if (s.n > room) {
		c->damaged = true;
		return 0;
	}
	if (s.n)
		memcpy(ret, s.p, s.n);
	return (unsigned)s.n;
}

int sq_columns_check(
	const struct sq_columns *c, const char *fault, const char *what, int64_t number, struct err *e)
{
	if (c->no_memory)
		return err_oom(e);
	if (c->damaged)
		fault = "length or range of a column";
	if (!fault)
		return 0;
	return err_set(e, ERR_FATAL, "store: %s %lld is damaged: %s", what, (long long)number, fault);
}
