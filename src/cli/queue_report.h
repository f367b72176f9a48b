/* queue_report.h - what a process says of its queue: metrics when they are read, events when something changes.
 * Threads: metrics any; events one thread. */
#ifndef CLI_QUEUE_REPORT_H
#define CLI_QUEUE_REPORT_H

#include "queue/queue.h"

/* As last seen; starts zeroed. */
struct queue_report {
	bool away, spooling, keys_scarce;
	uint64_t outages;
};

void queue_report_collect(const struct queue *queue);

/* To be called once a second or so. */
void queue_report_log(struct queue_report *r, const struct queue *queue);

#endif
