/* driver.h - what a queue engine supplies. Contract of every function, for those who write one.
 *
 * All functions run on the queue's committer thread, one at a time; a driver needs no locks (open and close
 * run before and after that thread). `begin` … `commit` brackets a group of operations: their effects come,
 * durably and together, with commit; after `abort` it is as if none had been called, in memory too. put,
 * lease, settle, renew, redrive, purge and pause are called inside a group only; find, list and stats inside
 * or outside.
 *
 * A lease is a change too: it is committed before the messages are handed out, so that a message which kills
 * its worker's process has been counted. A lease that no one ended when the process died counts as one
 * attempt at the next open, and the messages are due at once; close ends all leases without counting.
 *
 * An engine that several processes share cannot know who died: there a lease that no one ended goes on until
 * it runs out, and is counted then, by whichever process ticks first; close ends only the leases of this
 * process. Its times are those of one clock, the engine's, wherever the processes run.
 *
 * An engine may gather a group and send it with commit. Then the answers to put, settle and renew come with
 * commit (put returns QUEUE_AT_COMMIT, and commit sets op.result and op.err), operations and what they point
 * to have to stay until then, and a lease sees what was committed before its group only.
 *
 * Pauses are kept by the driver and obeyed by queue.c.
 *
 * Errors: <0 with ERR_RETRY when the engine cannot now (disk full, away), ERR_FATAL when it is broken: the
 * group is aborted. ERR_NOT_FOUND, ERR_REJECT, ERR_CONFLICT concern the single operation, which changed
 * nothing. The conformance suite (queue_conformance_test.c) runs over every driver. */
#ifndef QUEUE_DRIVER_H
#define QUEUE_DRIVER_H

#include "queue/queue.h"

struct queue_driver_options {
	const char *location;
	const struct clock *clock;
	int64_t idempotency_ms;
	uint64_t keys_max; /* 0: any number */
	void *arg;         /* queue_options.driver_arg */
};

/* list, redrive, purge: a part is done, and op.progress says how far; call again with the same operation, in
 * this group or a later one. So that no group waits for a long scan. */
enum { QUEUE_UNFINISHED = 1 };

/* put: the answer comes with commit. */
enum { QUEUE_AT_COMMIT = 1 << 19 };

/* Whether a failure concerns one operation only, and leaves the group as it was. */
static inline bool queue_is_single(const struct err *e)
{
	return e->kind != ERR_RETRY && e->kind != ERR_FATAL && e->kind != ERR_NONE;
}

struct queue_driver {
	const char *name; /* as the configuration names it */

	MUST_CHECK int (*open)(const struct queue_driver_options *o, void **ret_state, struct err *e);
	void (*close)(void *state); /* takes NULL */

	/* What a commit survives, one line, static or owned by the state. */
	const char *(*durability)(void *state);
	uint64_t (*floor_key)(void *state);

	/* begin may tidy up first, outside the transaction. */
	MUST_CHECK int (*begin)(void *state, struct err *e);
	MUST_CHECK int (*commit)(void *state, struct err *e);
	void (*abort)(void *state);

	/* Each fills the results of its operation struct and returns what op.result shall be. */
	MUST_CHECK int (*put)(void *state, struct queue_put *put, struct err *e);
	MUST_CHECK int (*lease)(void *state, struct queue_lease *lease, struct err *e); /* never waits */
	MUST_CHECK int (*settle)(void *state, struct queue_settle *settle, struct err *e);
	MUST_CHECK int (*renew)(void *state, struct queue_renew *renew, struct err *e);
	MUST_CHECK int (*find)(void *state, struct queue_find *find, struct err *e);
	MUST_CHECK int (*list)(void *state, struct queue_list *list, struct err *e);
	MUST_CHECK int (*stats)(void *state, struct queue_stats *stats, struct err *e);
	MUST_CHECK int (*redrive)(void *state, struct queue_redrive *redrive, struct err *e);
	MUST_CHECK int (*purge)(void *state, struct queue_purge *purge, struct err *e);
	MUST_CHECK int (*pause)(void *state, struct queue_pause *pause, struct err *e);

	/* Outside a group: ends leases that have run out (each counts as an attempt), forgets old idempotency
	 * keys, reconnects. Sets *ret_next to the next moment at which it or a message that falls due wants
	 * attention
	 * ({INT64_MAX}: none). Returns whether messages are due now. */
	bool (*tick)(void *state, struct mono now, struct mono *ret_next);

	/* Outside a group, after a failed commit: a small durable write, to find out whether the engine works
	 * again. */
	MUST_CHECK int (*probe)(void *state, struct err *e);
};

extern const struct queue_driver queue_driver_memory;
extern const struct queue_driver queue_driver_sqlite;
extern const struct queue_driver queue_driver_redis; /* without functions in builds without hiredis */

/* Wraps another driver and fails calls as told; see faulty.h. */
extern const struct queue_driver queue_driver_faulty;

/* By the configuration's name; NULL when this build does not have it. */
const struct queue_driver *queue_driver_find(const char *name);

#endif
