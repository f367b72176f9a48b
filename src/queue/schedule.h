/* schedule.h - which message is handed out next, and who holds which: shared by the drivers that keep
 * messages in key order (memory, sqlite). It knows keys, due times and attempts; records stay with the
 * driver.
 *
 * Two lanes wait to be leased: fresh messages in order of acceptance, and messages with attempts behind them
 * in order of their due time. Leases take from them in turn. A lane holds only the front of what the driver
 * keeps, a window; the driver's load function supplies what comes next. So memory does not grow with the
 * backlog.
 *
 * Groups:    every change belongs to the group under way; schedule_commit keeps them, schedule_abort takes
 * all of them back: leases as they were, the counts, and the lanes are read again from the driver. Durable:
 * nothing here. The driver writes what has to survive, before it calls the function that says so. Errors:
 * ERR_RETRY when memory runs out or load fails; the group has to be aborted then. Threads:   one at a time.
 */
#ifndef QUEUE_SCHEDULE_H
#define QUEUE_SCHEDULE_H

#include "base/clock.h"
#include "base/err.h"
#include "base/str.h"
#include "queue/lane.h"
#include "queue/row.h"

struct schedule;

/* Supplies what a lane wants to read, by schedule_offer, in the lane's order: up to `max` entries
 * behind `after`, leased ones and such as were supplied before too. Returns SCHEDULE_ALL when these were the last, SCHEDULE_MORE when there
 * may be more. */
enum { SCHEDULE_ALL = 0, SCHEDULE_MORE = 1 };
typedef int schedule_load(void *source, struct schedule *s, enum schedule_lane lane,
	const struct schedule_entry *after, unsigned max, struct err *e);

struct schedule_counts {
	uint64_t waiting;  /* not failed: queued or leased */
	uint64_t retrying; /* of these, with at least one attempt */
	uint64_t failed;
	uint64_t floor_key; /* the highest key there ever was */
};

/* `window` entries of a lane are kept in memory, plus those that come back from leases. */
MUST_CHECK int schedule_new(schedule_load *load, void *source, unsigned window,
	const struct schedule_counts *counts, struct schedule **ret, struct err *e);
void schedule_free(struct schedule *s);

void schedule_commit(struct schedule *s);
void schedule_abort(struct schedule *s);

const struct schedule_counts *schedule_counts(const struct schedule *s);

/* For the load function only. */
MUST_CHECK int schedule_offer(struct schedule *s, const struct schedule_entry *entry, struct err *e);

/* --- leases --- */

/* The messages of one lease operation: they share token and worker. */
struct schedule_batch {
	uint64_t token; /* 1 .. INT64_MAX, never used before, also not before a restart */
	unsigned held;  /* of its messages, still leased */
	unsigned refs;
	char worker[HISTORY_WORKER_BYTES + 1];
};

struct schedule_lease {
	struct schedule_entry entry;
	struct mono deadline;
	struct schedule_batch *batch;
};

/* token 0: a new one. */
MUST_CHECK int schedule_batch_new(
	struct schedule *s, uint64_t token, struct str worker, struct schedule_batch **ret, struct err *e);
void schedule_batch_unref(struct schedule_batch *batch); /* takes NULL */

/* Takes the next due entry out of its lane: 1, or 0 when nothing is due. It has to go somewhere: to a lease,
 * back (schedule_return), or to the dead letters (schedule_bury). */
MUST_CHECK int schedule_next(struct schedule *s, struct wall now, struct schedule_entry *ret, struct err *e);
void schedule_return(struct schedule *s, const struct schedule_entry *entry);
void schedule_bury(struct schedule *s, const struct schedule_entry *entry);

MUST_CHECK int schedule_lease(struct schedule *s, struct schedule_batch *batch,
	const struct schedule_entry *entry, struct mono deadline, struct err *e);

/* The lease on this message; NULL when there is none, or when `token` is not 0 and not its own. Good until
 * the next change. */
struct schedule_lease *schedule_find(const struct schedule *s, uint64_t key, uint64_t token);

/* The leases of a batch, one a call, NULL after the last; *cursor starts at 0. */
const struct schedule_lease *schedule_member(
	const struct schedule *s, const struct schedule_batch *batch, size_t *cursor);

/* One lease that has run out by now, or NULL. *cursor starts at 0 and carries the search on; the lease found
 * has to be ended before the next call. */
struct schedule_lease *schedule_expired(struct schedule *s, struct mono now, unsigned *cursor);

MUST_CHECK int schedule_renew(
	struct schedule *s, struct schedule_lease *lease, struct mono deadline, struct err *e);

/* How a lease ends. The batch stays valid until the group ends, so that its `held` can be looked at. */
MUST_CHECK int schedule_done(struct schedule *s, struct schedule_lease *lease, struct err *e);
MUST_CHECK int schedule_retry(
	struct schedule *s, struct schedule_lease *lease, struct wall due_at, struct err *e);
MUST_CHECK int schedule_dead(struct schedule *s, struct schedule_lease *lease, struct err *e);
MUST_CHECK int schedule_release(struct schedule *s, struct schedule_lease *lease, struct err *e);

/* --- messages come and go --- */

void schedule_accept(struct schedule *s, uint64_t key, uint32_t client);
void schedule_redrive(struct schedule *s, uint64_t key, uint32_t client, struct wall now);
void schedule_purge(struct schedule *s);

/* --- for stats and tick --- */

/* The moment at which the first queued message is, or was, due; INT64_MAX for none. */
MUST_CHECK int schedule_oldest_due(struct schedule *s, struct wall now, int64_t *ret_ms, struct err *e);

/* The earliest moment at which a lease may run out; {INT64_MAX}: none is held. */
struct mono schedule_earliest(const struct schedule *s);

unsigned schedule_leased(const struct schedule *s);

/* Reads a little of what the lanes want, so that no lease has to wait for it and every client that has messages
 * gets a turn soon. Between groups; what fails is read again. */
void schedule_look_ahead(struct schedule *s);

/* Whether messages are due, and if not, in *ret_next when to ask again: {INT64_MAX} when nothing is queued.
 */
bool schedule_attention(struct schedule *s, struct wall wall, struct mono now, struct mono *ret_next);

/* All but the pauses. oldest_key: of what waits, 0 for nothing. */
MUST_CHECK int schedule_stats(
	struct schedule *s, struct wall now, uint64_t oldest_key, struct queue_stats *stats, struct err *e);

#endif
