/* inbox.h - how work moves from one thread to another: a lock-free list that many fill and one empties.
 *
 * A task is embedded in the thing that moves; whoever takes it runs task->run(task) on its own thread.
 * A push wakes the owner only when the inbox was empty, and a whole chain is one push: under load a wake-up
 * serves many tasks (wake-ups cost more than the work they announce).
 *
 * Ownership: a task belongs to the inbox from push until it is taken. The inbox never allocates.
 * Bounds:    none here; whoever hands over bounds what it has outstanding (see group.h).
 * Threads:   inbox_push from any thread; inbox_take from the owner only. The inbox must outlive the wake of
 *            the last push, which may still run when the task has been taken. */
#ifndef BASE_INBOX_H
#define BASE_INBOX_H

#include <stdatomic.h>

#include "base/macros.h"

struct task {
	struct task *next;
	void (*run)(struct task *task);
};

struct inbox {
	_Atomic(struct task *) head;       /* newest first */
	void (*wake)(struct inbox *inbox); /* called by the pusher; must be safe from any thread */
};

static inline void inbox_init(struct inbox *inbox, void (*wake)(struct inbox *))
{
	atomic_init(&inbox->head, NULL);
	inbox->wake = wake;
}

/* A chain of tasks, linked by next from the newest to the oldest. */
static inline void inbox_push_chain(struct inbox *inbox, struct task *newest, struct task *oldest)
{
	struct task *old = atomic_load_explicit(&inbox->head, memory_order_relaxed);
	do {
		oldest->next = old;
	} while (!atomic_compare_exchange_weak_explicit(
		&inbox->head, &old, newest, memory_order_release, memory_order_relaxed));
	if (!old)
		inbox->wake(inbox);
}

static inline void inbox_push(struct inbox *inbox, struct task *task)
{
	inbox_push_chain(inbox, task, task);
}

/* Everything that is there, oldest first, linked by next; NULL when empty. */
static inline struct task *inbox_take(struct inbox *inbox)
{
	struct task *newest = atomic_exchange_explicit(&inbox->head, NULL, memory_order_acquire);
	struct task *oldest = NULL;
	while (newest) {
		struct task *next = newest->next;
		newest->next = oldest;
		oldest = newest;
		newest = next;
	}
	return oldest;
}

/* Runs all that is there; returns how many. Each task may free itself. */
static inline unsigned inbox_run(struct inbox *inbox)
{
	unsigned count = 0;
	for (struct task *t = inbox_take(inbox), *next; t; t = next, count++) {
		next = t->next;
		t->run(t);
	}
	return count;
}

#endif
