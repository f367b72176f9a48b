/* table.h - items in memory in order of their key, with undo: the memory driver's storage.
 *
 * An item is never changed in place: table_set puts another one there (or none), and the log keeps the old
 * one until the group is over. Insertions near the end and removals near the front, the queue's habit, are
 * cheap.
 *
 * Ownership: items are malloc'ed and belong to the table from table_set on, also when that fails.
 * Threads:   one at a time. */
#ifndef QUEUE_TABLE_H
#define QUEUE_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct table_slot {
	uint64_t key;
	void *item;
};

struct table {
	struct table_slot *slots;
	size_t begin, count, room;
};

struct table_change {
	struct table *table;
	uint64_t key;
	void *old; /* NULL: there was none */
};

struct table_log {
	struct table_change *changes;
	size_t count, room;
};

void table_clear(struct table *t);
void table_log_clear(struct table_log *log);

/* The number of items with a smaller key: the place of `key`, if it is there. */
size_t table_place(const struct table *t, uint64_t key);

static inline const struct table_slot *table_at(const struct table *t, size_t place)
{
	return &t->slots[t->begin + place];
}

/* NULL when there is none. */
void *table_get(const struct table *t, uint64_t key);

/* item NULL removes. */
MUST_CHECK int table_set(struct table *t, struct table_log *log, uint64_t key, void *item, struct err *e);

/* Frees what the changes since then replaced, or undoes them down to the first `keep`. */
void table_commit(struct table_log *log);
void table_undo(struct table_log *log, size_t keep);

#endif
