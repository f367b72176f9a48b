/* worker.h - the role that delivers: takes leases from the queue, hands batches to a destination, settles.
 *
 *	lease → deliver → settle (done, retry, dead)      per delivery thread, one batch at a time
 *
 * An unreachable destination opens the circuit breaker: the batch is released untouched, attempts are not
 * counted, and a single probe goes out after a growing, jittered pause. What the destination says of one
 * message is counted: retry by policy, dead letter when rejected or when attempts or lifetime are used up.
 * A batch that is refused as a whole is delivered in halves. Leases of long deliveries are renewed.
 *
 * Bounds:    worker_concurrency batches of worker_batch messages are in flight at most.
 * Ownership: the queue and the destination outlive the worker.
 * Threads:   worker_start makes `worker_concurrency` delivery threads and one that keeps leases; the rest
 *            from the owner's thread. */
#ifndef WORKER_WORKER_H
#define WORKER_WORKER_H

#include "base/config.h"
#include "queue/queue.h"
#include "role/destination.h"
#include "role/health.h"

struct worker;

struct worker_options {
	const struct config *config; /* read at start and by worker_reload; not kept */
	const struct clock *clock;
	struct queue *queue;
	const struct destination *destination;
	struct health *health; /* gets the check "main_server"; may be NULL */
	bool watch_queue; /* and the check "queue", which decides whether it is ready: no proxy is here */
	const char *name; /* at most 64 bytes; in leases and in the attempt history */
};

MUST_CHECK int worker_start(const struct worker_options *o, struct worker **ret, struct err *e);

/* New retry policy for the next settlements; without memory for it the old one stays. */
MUST_CHECK int worker_reload(struct worker *w, const struct config *config, struct err *e);

/* Takes no more; lets the batches under way finish for up to drain_ms, then cancels them; releases what was
 * not tried; ends the threads. Takes NULL. */
void worker_stop(struct worker *w, int64_t drain_ms);

#endif
