/* group.c - see group.h.
 *
 * The thread sleeps on a condition variable; inbox_push wakes it only when its inbox was empty. While a
 * commit is in the kernel the next group gathers by itself, so group size follows load without any timer.
 * Completions are gathered per reply inbox and pushed as chains after the commit; callers that share an inbox
 * (an I/O loop) are woken once. */
#include "base/group.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

struct group {
	struct inbox inbox;
	pthread_t thread;
	pthread_mutex_t lock; /* guards woken, stopping */
	pthread_cond_t wakeup;
	bool woken, stopping;
	struct group_options o;
	_Atomic unsigned waiting;
	_Atomic uint64_t group_count, op_count, failed_count;
};

static void group_wake(struct inbox *inbox)
{
	struct group *g = container_of(inbox, struct group, inbox);
	pthread_mutex_lock(&g->lock);
	g->woken = true;
	pthread_cond_signal(&g->wakeup);
	pthread_mutex_unlock(&g->lock);
}

static void run_completion(struct task *task)
{
	struct group_op *op = container_of(task, struct group_op, task);
	op->complete(op);
}

static void add_reply(struct outbox *replies, struct group_op *op)
{
	if (!op->reply) {
		op->complete(op);
		return;
	}
	op->task.run = run_completion;
	outbox_add(replies, op->reply, &op->task);
}

void group_finish(struct group *g, struct group_op *op, int result)
{
	struct outbox replies = {.count = 0};
	op->result = result;
	atomic_fetch_sub_explicit(&g->waiting, 1, memory_order_relaxed);
	add_reply(&replies, op);
	outbox_send(&replies);
}

static struct group_op *op_of(struct task *task)
{
	return container_of(task, struct group_op, task);
}

/* Whether a failed apply concerns only its own operation. */
static bool only_this_operation(enum err_kind kind)
{
	return kind != ERR_RETRY && kind != ERR_FATAL && kind != ERR_NONE;
}

/* Applies the chain from `first` to `end` (exclusive) and commits it. */
static int make_durable(struct group *g, struct task *first, struct task *end, unsigned count, struct err *e)
{
	const struct group_backend *backend = g->o.backend;
	if (backend->begin(g->o.backend_state, e) < 0)
		return -1;
	int rc = 0;
	for (struct task *t = first; t != end && rc == 0; t = t->next) {
		struct group_op *op = op_of(t);
		op->result = backend->apply(g->o.backend_state, op, &op->err);
		if (op->result < 0 && !only_this_operation(op->err.kind)) {
			*e = op->err;
			rc = -1;
		}
	}
	struct mono before = clock_mono(g->o.clock);
	if (rc < 0 || backend->commit(g->o.backend_state, e) < 0) {
		backend->abort(g->o.backend_state);
		return -1;
	}
	if (g->o.observe)
		g->o.observe(g->o.observe_arg, count, clock_mono(g->o.clock).ns - before.ns);
	return 0;
}

/* Gives every operation of a failed group its error, except those that were refused on their own account. */
static void fail_all(struct task *first, struct task *end, const struct err *e)
{
	for (struct task *t = first; t != end; t = t->next) {
		struct group_op *op = op_of(t);
		bool refused = op->result < 0 && only_this_operation(op->err.kind);
		if (refused || op->result == GROUP_PARKED)
			continue;
		op->result = -1;
		op->err = *e;
	}
}

static void reply_all(struct group *g, struct task *first, struct task *end)
{
	struct outbox replies = {.count = 0};
	unsigned answered = 0;
	for (struct task *t = first; t != end; t = t->next)
		answered += op_of(t)->result != GROUP_PARKED;
	/* Before anyone hears of it: who is told of a completion may submit again. */
	atomic_fetch_sub_explicit(&g->waiting, answered, memory_order_relaxed);
	for (struct task *t = first, *next; t != end; t = next) {
		next = t->next;
		if (op_of(t)->result != GROUP_PARKED)
			add_reply(&replies, op_of(t));
	}
	outbox_send(&replies);
}

/* Runs a group of at most group_max operations from the chain; returns the rest of it. */
static struct task *run_group(struct group *g, struct task *first)
{
	unsigned count = 0;
	struct task *end = first;
	while (end && count < g->o.group_max)
		end = end->next, count++;
	struct err e = ERR_INIT;
	if (make_durable(g, first, end, count, &e) < 0) {
		atomic_fetch_add_explicit(&g->failed_count, 1, memory_order_relaxed);
		fail_all(first, end, &e);
	}
	atomic_fetch_add_explicit(&g->group_count, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&g->op_count, count, memory_order_relaxed);
	reply_all(g, first, end);
	return end;
}

/* Runs what is in the inbox, with a tick after every group; returns when the backend wants the next. */
static struct mono run_inbox(struct group *g)
{
	struct mono next = {INT64_MAX};
	struct task *left = inbox_take(&g->inbox);
	do {
		if (left)
			left = run_group(g, left);
		if (g->o.backend->tick)
			next = g->o.backend->tick(g->o.backend_state, clock_mono(g->o.clock));
	} while (left);
	return next;
}

/* Waits for work, a stop, or the deadline. False when told to stop. */
static bool wait_for_work(struct group *g, struct mono deadline)
{
	pthread_mutex_lock(&g->lock);
	while (!g->woken && !g->stopping) {
		if (deadline.ns == INT64_MAX) {
			pthread_cond_wait(&g->wakeup, &g->lock);
			continue;
		}
		int64_t left_ns = deadline.ns - clock_mono(g->o.clock).ns;
		if (left_ns <= 0)
			break;
		/* The deadline is on the caller's clock (maybe a fake one); sleep on the real one. */
		struct timespec until = mono_timespec((struct mono){clock_mono(&clock_system).ns + left_ns});
		if (pthread_cond_timedwait(&g->wakeup, &g->lock, &until) == ETIMEDOUT)
			break;
	}
	g->woken = false;
	bool go_on = !g->stopping;
	pthread_mutex_unlock(&g->lock);
	return go_on;
}

static void *group_thread(void *arg)
{
	struct group *g = arg;
	while (wait_for_work(g, run_inbox(g)))
		;
	/* What came between the last look and the stop, and what its completions submitted on this thread. */
	do
		run_inbox(g);
	while (atomic_load_explicit(&g->inbox.head, memory_order_relaxed));
	return NULL;
}

static void group_free(struct group *g)
{
	pthread_cond_destroy(&g->wakeup);
	pthread_mutex_destroy(&g->lock);
	free(g);
}

int group_start(const struct group_options *options, struct group **ret_group, struct err *e)
{
	require(options->group_max > 0);
	struct group *g = calloc(1, sizeof(*g));
	if (!g)
		return err_oom(e);
	g->o = *options;
	inbox_init(&g->inbox, group_wake);
	pthread_mutex_init(&g->lock, NULL);
	pthread_condattr_t attr;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&g->wakeup, &attr);
	pthread_condattr_destroy(&attr);
	*ret_group = g;
	int rc = pthread_create(&g->thread, NULL, group_thread, g);
	if (rc) {
		*ret_group = NULL;
		group_free(g);
		errno = rc;
		return err_sys(e, ERR_RETRY, "start thread '%s'", options->name);
	}
	pthread_setname_np(g->thread, options->name);
	return 0;
}

void group_stop(struct group *g)
{
	if (!g)
		return;
	pthread_mutex_lock(&g->lock);
	g->stopping = true;
	pthread_cond_signal(&g->wakeup);
	pthread_mutex_unlock(&g->lock);
	pthread_join(g->thread, NULL);
	group_free(g);
}

static void submit(struct group *g, struct group_op *op, struct outbox *via)
{
	op->result = 0;
	if (via)
		outbox_add(via, &g->inbox, &op->task);
	else
		inbox_push(&g->inbox, &op->task);
}

void group_submit_always(struct group *g, struct group_op *op)
{
	atomic_fetch_add_explicit(&g->waiting, 1, memory_order_relaxed);
	submit(g, op, NULL);
}

int group_submit(struct group *g, struct group_op *op, struct outbox *via)
{
	if (atomic_fetch_add_explicit(&g->waiting, 1, memory_order_relaxed) >= g->o.limit) {
		atomic_fetch_sub_explicit(&g->waiting, 1, memory_order_relaxed);
		return GROUP_FULL;
	}
	submit(g, op, via);
	return 0;
}

struct call {
	struct inbox reply;
	pthread_mutex_t lock;
	pthread_cond_t done;
	bool finished;
};

static void call_wake(struct inbox *inbox)
{
	struct call *call = container_of(inbox, struct call, reply);
	pthread_mutex_lock(&call->lock);
	call->finished = true;
	pthread_cond_signal(&call->done);
	pthread_mutex_unlock(&call->lock);
}

static void call_complete(struct group_op *op)
{
	(void)op;
}

int group_call(struct group *g, struct group_op *op, struct err *e)
{
	struct call call = {.finished = false};
	inbox_init(&call.reply, call_wake);
	pthread_mutex_init(&call.lock, NULL);
	pthread_cond_init(&call.done, NULL);
	op->reply = &call.reply;
	op->complete = call_complete;
	group_submit_always(g, op);
	pthread_mutex_lock(&call.lock);
	while (!call.finished)
		pthread_cond_wait(&call.done, &call.lock);
	pthread_mutex_unlock(&call.lock);
	inbox_run(&call.reply);
	op->reply = NULL; /* it was on this stack */
	pthread_cond_destroy(&call.done);
	pthread_mutex_destroy(&call.lock);
	if (op->result < 0 && e)
		*e = op->err;
	return op->result;
}

void group_stats(const struct group *g, struct group_stats *ret)
{
	*ret = (struct group_stats){
		.group_count = atomic_load_explicit(&g->group_count, memory_order_relaxed),
		.op_count = atomic_load_explicit(&g->op_count, memory_order_relaxed),
		.failed_count = atomic_load_explicit(&g->failed_count, memory_order_relaxed),
		.waiting = atomic_load_explicit(&g->waiting, memory_order_relaxed),
		.limit = g->o.limit,
	};
}
