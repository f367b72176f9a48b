/* leasing.h - handing messages out and taking verdicts back, for drivers that keep messages in key order: the
 * rules are here, once; the rows are the driver's (struct leasing_shelf).
 *
 * Groups:  everything here belongs to the group under way; the driver brackets it, and calls schedule_commit
 * or schedule_abort itself. Errors:  as in driver.h. Threads: one at a time. */
#ifndef QUEUE_LEASING_H
#define QUEUE_LEASING_H

#include "base/buf.h"
#include "queue/schedule.h"

/* How rows are reached; `state` is the driver's. Views returned are good until the next call. */
struct leasing_shelf {
	MUST_CHECK int (*record)(
		void *state, const struct schedule_entry *entry, struct str *ret_record, struct err *e);

	/* Asked for messages with attempts only. */
	MUST_CHECK int (*history)(void *state, uint64_t key, struct str *ret_history, struct err *e);

	MUST_CHECK int (*erase)(void *state, const struct schedule_entry *entry, struct err *e);

	/* The message at `entry` becomes what `row` says, all but the record: to be retried, or failed. */
	MUST_CHECK int (*rewrite)(
		void *state, const struct schedule_entry *entry, const struct row *row, struct err *e);

	/* These messages of a batch are held, for leasing_restore; none: it has ended. NULL when leases end
	 * with the process anyway. */
	MUST_CHECK int (*batch_held)(
		void *state, const struct schedule_batch *batch, struct str members, struct err *e);

	/* For leasing_restore: fills *ret for a message that waits: 1, else 0. */
	MUST_CHECK int (*waiting)(void *state, uint64_t key, struct schedule_entry *ret, struct err *e);
};

struct leasing {
	const struct leasing_shelf *shelf;
	void *state;
	const struct clock *clock;
	struct schedule *schedule;
	struct buf history, members; /* scratch */
};

void leasing_init(struct leasing *l, const struct leasing_shelf *shelf, void *state,
	const struct clock *clock, struct schedule *schedule);
void leasing_clear(struct leasing *l);

/* The driver's operations. */
MUST_CHECK int leasing_lease(struct leasing *l, struct queue_lease *lease, struct err *e);
MUST_CHECK int leasing_settle(struct leasing *l, struct queue_settle *settle, struct err *e);
MUST_CHECK int leasing_renew(struct leasing *l, struct queue_renew *renew, struct err *e);

/* Ends up to `max` leases that have run out, each with an attempt. Returns how many. */
MUST_CHECK int leasing_expire(struct leasing *l, unsigned max, struct err *e);

/* A batch that a process held when it died: leased again, and run out, for leasing_expire to count. */
MUST_CHECK int leasing_restore(
	struct leasing *l, uint64_t token, struct str worker, struct str members, struct err *e);

#endif
