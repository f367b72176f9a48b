/* sqlite_schema.h - the SQLite driver's migrations; the tables are explained there. */
#ifndef STORE_SQLITE_SCHEMA_H
#define STORE_SQLITE_SCHEMA_H

#include "store/migrations.h"

extern const struct migration sqlite_migrations[];
extern const unsigned sqlite_migration_count;

#endif
