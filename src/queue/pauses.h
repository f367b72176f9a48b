/* pauses.h - what an operator has paused, and why, as drivers keep it. */
#ifndef QUEUE_PAUSES_H
#define QUEUE_PAUSES_H

#include <assert.h>
#include <string.h>

#include "queue/queue.h"

struct pauses {
	bool accept_on, delivery_on;
	char accept_reason[sizeof(((struct queue_stats *)NULL)->accept_reason)];
	char delivery_reason[sizeof(((struct queue_stats *)NULL)->delivery_reason)];
};

static inline void pauses_set(struct pauses *p, const struct queue_pause *pause)
{
	static_assert(sizeof(p->accept_reason) == sizeof(pause->reason), "one size of reasons");
	static_assert(sizeof(p->delivery_reason) == sizeof(pause->reason), "one size of reasons");
	*(pause->accept ? &p->accept_on : &p->delivery_on) = pause->on;
	memcpy(pause->accept ? p->accept_reason : p->delivery_reason, pause->reason, sizeof(pause->reason));
}

static inline void pauses_report(const struct pauses *p, struct queue_stats *stats)
{
	stats->accept_paused = p->accept_on;
	stats->delivery_paused = p->delivery_on;
	memcpy(stats->accept_reason, p->accept_reason, sizeof(stats->accept_reason));
	memcpy(stats->delivery_reason, p->delivery_reason, sizeof(stats->delivery_reason));
}

#endif
