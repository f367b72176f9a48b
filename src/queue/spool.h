/* spool.h - a driver that keeps accepting while another one, which is somewhere else, cannot be reached.
 *
 * It wraps two drivers: the remote one (redis), where messages belong, and a local one (sqlite), where they wait
 * while the remote one fails. queue_options.driver_arg points to a struct spool_options, which stays the
 * caller's; queue_options.location is the remote driver's.
 *
 *	REMOTE ── the remote engine fails ──▶ LOCAL ── it works again ──▶ DRAINING ── the spool is empty ──▶ REMOTE
 *
 * Promises:  a put is durable in one of the two before it completes, also in the group in which the remote
 *            engine fails. What is in the spool moves in the order in which it was accepted, and whatever comes
 *            meanwhile goes behind it. A crash at any step loses nothing; a message whose move was under way may
 *            come to the remote queue twice, under one id, which the store reports as a duplicate.
 *            Idempotency keys move with their messages. A key that only the remote engine knows is not known
 *            while it is away.
 * Meanwhile: put, find and stats work as ever (find does not see what is in the remote engine); lease hands out
 *            nothing; everything else is refused with ERR_CONFLICT. The pause that was last seen goes on.
 * Starting:  the remote driver has to open also while its engine is away.
 * Bounds:    messages_max in the spool, more get ERR_RETRY.
 * Threads:   as drivers, and one that tries to reach the remote engine while it is away: then that engine's state
 *            is this thread's alone. */
#ifndef QUEUE_SPOOL_H
#define QUEUE_SPOOL_H

#include "queue/driver.h"

struct spool_options {
	const struct queue_driver *remote, *local;
	void *remote_arg, *local_arg;
	const char *local_location;
	uint64_t messages_max;
	int64_t retry_min_ms, retry_max_ms; /* between two tries to reach the remote engine; doubles */
};

extern const struct queue_driver queue_driver_spool;

#endif
