/* keeper.h - renews leases of deliveries that take long, so that nobody else is handed the same messages.
 *
 * A hold is one batch that is with the destination. When a third of the lease has passed its messages are
 * renewed, and so on until the hold is dropped, or the lease is found to be lost: then somebody else has the
 * messages, or will have them, and what becomes of this delivery changes nothing any more.
 *
 * Ownership: keeper_start … keeper_stop; holds belong to who delivers and are dropped before they go.
 * Threads:   hold and drop from any thread; one thread of its own blocks on the queue. */
#ifndef WORKER_KEEPER_H
#define WORKER_KEEPER_H

#include "queue/queue.h"

struct keeper;

enum { KEEPER_BATCH_MAX = 500 };

/* Filled by who holds: refs, count, lost = 0. The rest belongs to the keeper. */
struct keeper_hold {
	struct queue_ref refs[KEEPER_BATCH_MAX];
	unsigned count;
	unsigned lost; /* of them, found so far, and counted in METRIC_LEASE_LOST */
	struct keeper_hold *next;
	uint64_t number;
	struct mono renew_at;
};

MUST_CHECK int keeper_start(
	struct queue *queue, const struct clock *clock, int64_t lease_ms, struct keeper **ret, struct err *e);
void keeper_stop(struct keeper *k);

/* Keeps the leases on these messages from now on. */
void keeper_hold(struct keeper *k, struct keeper_hold *h);

/* No more: before they are settled, for a renewal behind that would look like a loss. May be held again. */
void keeper_drop(struct keeper *k, struct keeper_hold *h);

#endif
