/* sqlite_writer.h - inside the writer thread's half of the SQLite driver: its statements. */
#ifndef STORE_SQLITE_WRITER_H
#define STORE_SQLITE_WRITER_H

#include "store/sqlite_store.h"

enum {
#define STATEMENT(id, what, sql) SQL_##id,
#include "store/sqlite_writes.def"
#undef STATEMENT
	WRITES
};

static inline struct sqlite_writer *sqlite_writer_of(void *state)
{
	return &((struct sqlite_store *)state)->writer;
}

#endif
