/* row.h - one message as a driver keeps it, and what people may see of it.
 *
 * Ownership: a struct row and the entry made from it are views; entry_copy copies into an arena.
 * Threads:   none of its own.
 * Security:  an entry never holds the envelope. */
#ifndef QUEUE_ROW_H
#define QUEUE_ROW_H

#include "base/buf.h"
#include "queue/queue.h"

enum {
	HISTORY_ATTEMPTS = 32, /* kept: the newest */
	HISTORY_WORKER_BYTES = 64,
	HISTORY_REASON_BYTES = 256,
	HISTORY_MAX_BYTES = HISTORY_ATTEMPTS * (8 + 1 + HISTORY_WORKER_BYTES + 2 + HISTORY_REASON_BYTES),
	LIST_SIBLINGS =
		64,       /* entries beyond `max` in a list: ids of several proxies may share an order key */
	SCAN_ROWS = 2048, /* rows that one call of list, redrive or purge looks at: a group waits no longer */
};

struct row {
	uint64_t key;
	const struct uuid *id; /* NULL: the record has it */
	bool failed;
	int64_t due_ms; /* 0: since it was accepted */
	unsigned attempts;
	struct str history; /* see history_append */
	struct str record;  /* sealed_encode */
};

/* When the message of this order key was accepted: see uuid.h. */
static inline struct wall key_time(uint64_t key)
{
	return (struct wall){(int64_t)(key >> 16)};
}

/* The history with one more attempt at its end, and the oldest dropped when it was full. Worker and reason
 * are cut to their limits. */
void history_append(struct str history, const struct queue_attempt *attempt, struct buf *out);

/* What is known of the row, as views. A record that does not decode gives an entry with the id's order key
 * only, and false. */
bool row_entry(const struct row *row, bool leased, struct queue_entry *ret);

/* Whether the filter lets the entry through; the state only if `any_state` is false. */
MUST_CHECK bool entry_matches(
	const struct queue_entry *entry, const struct queue_filter *filter, bool any_state);

/* Into the operation's arena: the entry for find, with its attempts; and one more entry of a list. */
MUST_CHECK int row_find(const struct row *row, bool leased, struct queue_find *find, struct err *e);
MUST_CHECK int row_list(const struct row *row, bool leased, struct queue_list *list, struct err *e);

/* What redrive and purge have in common: which dead letters they mean. */
struct dead_choice {
	const struct uuid *ids;
	unsigned id_count;
	const struct queue_filter *filter;
	unsigned max;
	bool dry_run;
	uint64_t *matched, *progress;
};

#define DEAD_CHOICE(op)                                                                                      \
	(&(const struct dead_choice){(op)->ids, (op)->id_count, &(op)->filter, (op)->max, (op)->dry_run,     \
		&(op)->matched, &(op)->progress})

/* Whether this dead letter is meant by id number `i`, or by the filter. */
MUST_CHECK bool dead_has_id(const struct row *row, const struct dead_choice *choice, unsigned i);
MUST_CHECK bool dead_matches(const struct row *row, const struct dead_choice *choice);

#endif
