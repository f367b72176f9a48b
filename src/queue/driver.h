/* driver.h - what a queue engine supplies. Contract of every function, for those who write one.
 *
 * All functions run on the queue's committer thread, one at a time; a driver needs no locks. `begin` … `commit`
 * brackets a group of operations: put, settle, redrive, purge, pause take effect, durably and together, at
 * commit; after `abort` it is as if none had been called, in memory too. lease, renew, find, list, stats may be
 * called inside or outside a group and change nothing on disk that a crash would have to undo.
 *
 * Errors: <0 with ERR_RETRY when the engine cannot now (disk full, away), ERR_FATAL when it is broken,
 *         ERR_NOT_FOUND/ERR_REJECT/ERR_CONFLICT for the single operation.
 * The conformance suite (test in queue_conformance.c) runs over every driver. */
#ifndef QUEUE_DRIVER_H
#define QUEUE_DRIVER_H

#include "queue/queue.h"

struct queue_driver_options {
	const char *location;
	const struct clock *clock;
	int64_t idempotency_ms;
};

struct queue_driver {
	const char *name; /* as the configuration names it */

	MUST_CHECK int (*open)(const struct queue_driver_options *o, void **ret_state, struct err *e);
	void (*close)(void *state); /* takes NULL */

	/* What a commit survives, one line, static or owned by the state. */
	const char *(*durability)(void *state);
	uint64_t (*floor_key)(void *state);

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

	/* Outside a group: expires leases, forgets old idempotency keys, reconnects. Sets *ret_next to the next
	 * moment at which it or a due message wants attention ({INT64_MAX}: none), and returns whether messages
	 * became due (parked leases are then tried again). */
	bool (*tick)(void *state, struct mono now, struct mono *ret_next);
};

extern const struct queue_driver queue_driver_memory;
extern const struct queue_driver queue_driver_sqlite;

/* Wraps another driver and fails calls as told; see faulty.h. */
extern const struct queue_driver queue_driver_faulty;

/* By the configuration's name; NULL when this build does not have it. */
const struct queue_driver *queue_driver_find(const char *name);

#endif
