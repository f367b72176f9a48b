/* loop.h - an event loop on a thread of its own (libuv), timers on it, and an inbox that wakes it.
 *
 * Threads:   loop_start makes the thread; everything registered on the loop runs there. loop_inbox may be
 *            pushed to from any thread. Nothing that runs on a loop may block.
 * Ownership: handles belong to who made them and are closed on the loop's thread. */
#ifndef LOOP_LOOP_H
#define LOOP_LOOP_H

#include <stdbool.h>
#include <uv.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/outbox.h"

struct loop;

/* `name` at most 15 characters. */
MUST_CHECK int loop_start(const char *name, struct loop **ret, struct err *e);

/* Runs what is in the inbox, closes what is still open, ends the thread. Nobody may push to the inbox once this
 * was called, except what runs on the loop. Takes NULL. */
void loop_stop(struct loop *l);

uv_loop_t *loop_uv(struct loop *l);
struct inbox *loop_inbox(struct loop *l);

/* What is added here is sent at the end of the loop's turn; on its thread only. */
struct outbox *loop_outbox(struct loop *l);

/* Runs fn(arg) on the loop's thread soon; allocates; ERR_RETRY when out of memory. */
MUST_CHECK int loop_run(struct loop *l, void (*fn)(void *arg), void *arg, struct err *e);

/* The same, and waits until it has run; needs no memory. Not from the loop itself. */
void loop_call(struct loop *l, void (*fn)(void *arg), void *arg);

/* The nice value of the loop's thread, for work that should give way to others; not from the loop itself. May fail to
 * go down again without privileges, which does no harm. */
void loop_set_nice(struct loop *l, int nice);

/* Whether the caller runs on the loop's thread. */
bool loop_is_current(const struct loop *l);

/* Monotonic time (clock_system), read once per turn of the loop; on its thread only. */
struct mono loop_now(struct loop *l);

/* A pool for work that may block (database reads, signing): `work` runs on a pool thread, then `done` on the
 * loop that asked, where it may free the struct work. At most `limit` pieces are outstanding, waiting or
 * running; past it work_submit returns LOOP_WORK_FULL and nothing runs. The loop must outlive its pieces:
 * stop pools before loops. work_pool_stop finishes what was submitted. */
struct work_pool;
struct work {
	struct task task;
	struct loop *loop;
	void (*work)(struct work *w);
	void (*done)(struct work *w);
};
enum { LOOP_WORK_FULL = 1 };
MUST_CHECK int work_pool_start(
	const char *name, unsigned threads, unsigned limit, struct work_pool **ret, struct err *e);
void work_pool_stop(struct work_pool *p);
MUST_CHECK int work_submit(struct work_pool *p, struct work *w);

#endif
