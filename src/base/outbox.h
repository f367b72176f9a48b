/* outbox.h - tasks on their way to inboxes, gathered so that each inbox gets one push, and its owner one wake-up.
 *
 * Ownership: a task belongs to the outbox from outbox_add on. The outbox never allocates.
 * Bounds:    a few inboxes; when there are more, what was gathered so far is sent first.
 * Threads:   one at a time. */
#ifndef BASE_OUTBOX_H
#define BASE_OUTBOX_H

#include "base/inbox.h"

enum { OUTBOX_INBOXES = 16 };

struct outbox {
	struct outbox_chain {
		struct inbox *inbox;
		struct task *newest, *oldest;
	} chains[OUTBOX_INBOXES];
	unsigned count;
};

/* Pushes all that was gathered. */
static inline void outbox_send(struct outbox *o)
{
	for (unsigned i = 0; i < o->count; i++)
		inbox_push_chain(o->chains[i].inbox, o->chains[i].newest, o->chains[i].oldest);
	o->count = 0;
}

static inline void outbox_add(struct outbox *o, struct inbox *inbox, struct task *task)
{
	for (unsigned i = 0; i < o->count; i++)
		if (o->chains[i].inbox == inbox) {
			task->next = o->chains[i].newest;
			o->chains[i].newest = task;
			return;
		}
	if (o->count == OUTBOX_INBOXES)
		outbox_send(o);
	task->next = NULL;
	o->chains[o->count++] = (struct outbox_chain){inbox, task, task};
}

#endif
