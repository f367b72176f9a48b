/* migrations.h - how a schema gets from any earlier version to this program's.
 *
 * A driver keeps one table of migrations, numbered from 1 without gaps; a row, once released, never changes.
 * The number of the last one applied is the schema's version, kept in the database itself. Each runs in a
 * transaction of its own together with the new version, so that a crash leaves one version or the next,
 * nothing between. */
#ifndef STORE_MIGRATIONS_H
#define STORE_MIGRATIONS_H

#include "base/err.h"

struct migration {
	unsigned number;
	const char *title;
	const char *sql; /* the engine's dialect, several statements */
};

/* What an engine supplies; `db` is its own connection. */
struct migration_engine {
	/* 0 for a new database. */
	MUST_CHECK int (*version)(void *db, unsigned *ret, struct err *e);
	/* The migration and its number as version: both durable, or neither. */
	MUST_CHECK int (*apply)(void *db, const struct migration *m, struct err *e);
};

/* ERR_FATAL, changing nothing, when the database is of a version after the last of the table. */
MUST_CHECK int migrations_run(const struct migration *table, unsigned count,
	const struct migration_engine *engine, void *db, struct err *e);

#endif
