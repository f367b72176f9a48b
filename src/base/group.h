/* group.h - group commit: one thread that owns a resource and makes many callers' changes durable at once.
 *
 * Callers submit operations; the thread takes all that are waiting, applies them inside one transaction of
 * its backend, commits (one sync), and only then hands every operation back to its caller. The queue's
 * committer and the store's writer are both this engine with other backends.
 *
 * Outcome of an operation: op->result as in err.h. >= 0 set by the backend's apply; < 0 described in op->err:
 * either apply refused this one operation (it changed nothing), or the commit failed and nobody's change
 * is there: then every operation of the group carries the commit's error.
 *
 * Bounds:    at most `limit` operations outstanding; past it group_submit refuses at once.
 * Ownership: the caller owns the operation's memory and keeps it alive until its completion runs.
 * Threads:   group_submit and group_call from any thread; backend functions only on the group's thread;
 *            completions on the thread that empties op->reply (see inbox.h), one push per operation chain. */
#ifndef BASE_GROUP_H
#define BASE_GROUP_H

#include <pthread.h>
#include <stdbool.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/outbox.h"

struct group_op {
	struct task task;                      /* the group's, then the reply inbox's */
	void (*complete)(struct group_op *op); /* runs where `reply` is emptied */
	struct inbox *reply;                   /* NULL: complete on the group's thread (must be quick) */
	unsigned kind;                         /* the backend's own operation number */
	int result;
	struct err err; /* valid when result < 0 */
};

enum {
	/* apply: not answered now; the backend does it later, in tick, with group_finish. It stays parked
	 * when its group fails, so it must not have changed anything. */
	GROUP_PARKED = 1 << 20,
};

/* What the backend supplies; `backend` is its own state. All run on the group's thread. */
struct group_backend {
	/* Opens a transaction. <0: the whole group fails with this error. */
	int (*begin)(void *backend, struct err *e);

	/* Applies one operation. >=0: result, kept if the commit succeeds. GROUP_PARKED: see above.
	 * <0 with ERR_REJECT/NOT_FOUND/CONFLICT/FORBIDDEN: this operation alone failed and changed nothing.
	 * <0 with ERR_RETRY/ERR_FATAL: the transaction is spoilt; the group is aborted and all of it fails.
	 */
	int (*apply)(void *backend, struct group_op *op, struct err *e);

	/* Makes the group durable. <0: nothing of it is, and every operation fails with this error. */
	int (*commit)(void *backend, struct err *e);

	/* After a failed apply or commit: undo what the group did, in memory too. */
	void (*abort)(void *backend);

	/* After every group and every timeout, and a last time when the group stops, outside any transaction:
	 * expire leases, finish parked operations, housekeeping. Returns when it wants to run again;
	 * {INT64_MAX} for never. May be NULL. */
	struct mono (*tick)(void *backend, struct mono now);
};

struct group;

struct group_stats {
	uint64_t group_count, op_count, failed_count; /* since start */
	unsigned waiting;                             /* outstanding now */
	unsigned limit;
};

/* Starts the thread, named `name` (at most 15 characters). `observe`, may be NULL, is called on the group's
 * thread after each group with its size and the time its commit took (for metrics). */
struct group_options {
	const char *name;
	const struct group_backend *backend;
	void *backend_state;
	const struct clock *clock;
	unsigned limit;     /* operations outstanding */
	unsigned group_max; /* operations in one transaction */
	void (*observe)(void *arg, unsigned ops, int64_t commit_ns);
	void *observe_arg;
};

MUST_CHECK int group_start(const struct group_options *options, struct group **ret_group, struct err *e);

/* Finishes what was submitted, then ends the thread. Nobody may submit any more; a backend that has parked
 * operations must have been told, by an operation, to finish them. Takes NULL. */
void group_stop(struct group *g);

/* 0: taken, complete() will run exactly once. GROUP_FULL: refused, nothing will run. `via` is the caller's thread's,
 * who sends it soon: what it gathers meanwhile goes into one group. NULL: at once. */
enum { GROUP_FULL = 1 };
MUST_CHECK int group_submit(struct group *g, struct group_op *op, struct outbox *via);

/* As group_submit, but past the limit too: for what must not be refused (acknowledgments, shutdown). The
 * caller bounds these itself. */
void group_submit_always(struct group *g, struct group_op *op);

/* Submits and blocks until done; never refused. Not from an event loop. Returns op->result; *e is a copy. */
MUST_CHECK int group_call(struct group *g, struct group_op *op, struct err *e);

/* Backend's tick only: answers an operation that apply had parked. */
void group_finish(struct group *g, struct group_op *op, int result);

void group_stats(const struct group *g, struct group_stats *ret);

#endif
