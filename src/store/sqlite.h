/* sqlite.h - options of the SQLite driver (store_options.driver_arg); what is 0 takes its default.
 *
 * The location is a directory that exists; the driver keeps store.db, its -wal and -shm, and store.lock in
 * it. */
#ifndef STORE_SQLITE_H
#define STORE_SQLITE_H

struct store_sqlite_options {
	unsigned segment_rows;     /* messages per index segment; default 8192 (doc/decisions/0006) */
	unsigned checkpoint_pages; /* size of the write-ahead log that starts a checkpoint; default 4096 */
	unsigned readers;          /* read connections at most; default 4 */
};

#endif
