/* spool_drain.h - the way back of what a spool has taken: from its local engine into the remote one.
 *
 * A step leases some messages locally, makes their puts again from their tags (spool_tag.h) in one remote group,
 * and settles locally what that has taken. Every end of a step leaves each message in one place at least: one
 * that is there already is known by its id.
 *
 * Threads: the queue's committer thread, between two groups. */
#ifndef QUEUE_SPOOL_DRAIN_H
#define QUEUE_SPOOL_DRAIN_H

#include "base/arena.h"
#include "queue/driver.h"

struct drain_ends {
	const struct queue_driver *local, *remote;
	void *local_state, *remote_state;
};

/* Moves about `want` messages, within bounds of its own. *ret_stuck is set when the remote engine would not take
 * them; -1 when the local one failed: the next step tries it again, and a lease that is left behind runs out. */
MUST_CHECK int drain_step(const struct drain_ends *ends, uint64_t want, struct arena *arena,
	struct err *ret_stuck, struct err *e);

#endif
