/* sqlite_keys.h - the requests that the SQLite engine remembers by their idempotency keys: a row of the file each,
 * and 16 bytes in memory by which most keys are known to be new without a look at the file.
 *
 * Changes belong to the transaction under way: commit or abort has to follow, after the database's own.
 * Threads: the queue's committer thread. */
#ifndef QUEUE_SQLITE_KEYS_H
#define QUEUE_SQLITE_KEYS_H

#include "queue/driver.h"
#include "queue/map.h"
#include "queue/remembered.h"
#include "queue/sqlite_db.h"

struct sqlite_keys {
	struct sqlite_db *db;
	const struct clock *clock;
	int64_t keep_ms;
	uint64_t max; /* 0: any number */
	struct map key_by_print;
	struct sqlite_print {
		uint64_t print, key;
	} * fresh; /* of the transaction under way */
	size_t fresh_count, fresh_room;
};

void sqlite_keys_init(struct sqlite_keys *k, struct sqlite_db *db, const struct queue_driver_options *o);

/* Reads what the file has; once, after the database was opened. */
MUST_CHECK int sqlite_keys_load(struct sqlite_keys *k, struct err *e);
void sqlite_keys_clear(struct sqlite_keys *k);

/* 1 with *ret when this key is remembered, else 0. */
MUST_CHECK int sqlite_keys_find(struct sqlite_keys *k, const uint8_t key_hash[QUEUE_HASH_BYTES],
	struct remembered *ret, struct err *e);

/* Whether no key may be added to those that are remembered. */
bool sqlite_keys_full(const struct sqlite_keys *k);

/* Remembers a put that has a key. */
MUST_CHECK int sqlite_keys_add(struct sqlite_keys *k, const struct queue_put *put, struct err *e);

/* Forgets some whose time is over; 1: there may be more. */
MUST_CHECK int sqlite_keys_forget(struct sqlite_keys *k, struct err *e);

void sqlite_keys_commit(struct sqlite_keys *k);
void sqlite_keys_abort(struct sqlite_keys *k);

size_t sqlite_keys_count(const struct sqlite_keys *k);

#endif
