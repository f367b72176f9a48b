/* keeper.c - see keeper.h. One thread for all deliveries: it sleeps until the first renewal is due, and does
 * one at a time. What it renews is a copy: the delivery may end meanwhile, and then the answer is about
 * nothing. */
#include "worker/keeper.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/metrics.h"

enum { RENEW_PARTS = 3, AGAIN_PARTS = 10 }; /* of the lease: until a renewal, until it is tried again */

struct keeper {
	struct queue *queue;
	const struct clock *clock;
	int64_t lease_ms;
	pthread_t thread;
	bool running;
	pthread_mutex_t lock; /* guards the rest, and the holds */
	pthread_cond_t wakeup;
	struct keeper_hold *holds;
	uint64_t last_number;
	bool stopping;

	struct queue_ref renewing[KEEPER_BATCH_MAX]; /* the thread's */
};

static void renew_in(const struct keeper *k, struct keeper_hold *h, unsigned parts)
{
	h->renew_at = mono_add_ms(clock_mono(k->clock), k->lease_ms / parts);
}

void keeper_hold(struct keeper *k, struct keeper_hold *h)
{
	pthread_mutex_lock(&k->lock);
	h->number = ++k->last_number;
	renew_in(k, h, RENEW_PARTS);
	h->next = k->holds;
	k->holds = h;
	pthread_cond_signal(&k->wakeup);
	pthread_mutex_unlock(&k->lock);
}

void keeper_drop(struct keeper *k, struct keeper_hold *h)
{
	pthread_mutex_lock(&k->lock);
	struct keeper_hold **at = &k->holds;
	while (*at && *at != h)
		at = &(*at)->next;
	if (*at)
		*at = h->next;
	pthread_mutex_unlock(&k->lock);
}

/* --- the thread; all but renew run under the lock --- */

static struct keeper_hold *first_due(const struct keeper *k)
{
	struct keeper_hold *first = NULL;
	for (struct keeper_hold *h = k->holds; h; h = h->next)
		if (h->lost < h->count && (!first || h->renew_at.ns < first->renew_at.ns))
			first = h;
	return first;
}

static void wait_until(struct keeper *k, const struct keeper_hold *first)
{
	if (!first) {
		pthread_cond_wait(&k->wakeup, &k->lock);
		return;
	}
	struct timespec until = mono_timespec(first->renew_at);
	pthread_cond_timedwait(&k->wakeup, &k->lock, &until);
}

static struct keeper_hold *find(const struct keeper *k, uint64_t number)
{
	struct keeper_hold *h = k->holds;
	while (h && h->number != number)
		h = h->next;
	return h;
}

static void take_outcome(struct keeper *k, struct keeper_hold *h, const struct queue_renew *op)
{
	unsigned newly_lost = op->stale_count > h->lost ? op->stale_count - h->lost : 0;
	h->lost += newly_lost;
	renew_in(k, h, RENEW_PARTS);
	metric_add(METRIC_LEASE_RENEWED, h->count - h->lost);
	if (!newly_lost)
		return;
	metric_add(METRIC_LEASE_LOST, newly_lost);
	log_event(LOG_WARN, "worker.lease_lost", LF_UINT("messages", newly_lost));
}

/* Renews without the lock; the hold may be gone when it is back. */
static void renew(struct keeper *k, struct keeper_hold *h)
{
	struct queue_renew op = {.refs = k->renewing, .count = h->count, .lease_ms = k->lease_ms};
	struct err e = ERR_INIT;
	uint64_t number = h->number;
	memcpy(k->renewing, h->refs, h->count * sizeof(h->refs[0]));
	pthread_mutex_unlock(&k->lock);
	int rc = queue_wait(k->queue, QUEUE_RENEW, &op.op, &e);
	if (rc < 0)
		log_event(LOG_WARN, "worker.renew_failed", LF_UINT("messages", op.count), LF_ERR(&e));
	pthread_mutex_lock(&k->lock);
	h = find(k, number);
	if (h && rc < 0)
		renew_in(k, h, AGAIN_PARTS);
	else if (h)
		take_outcome(k, h, &op);
}

static void *keep(void *arg)
{
	struct keeper *k = arg;
	pthread_mutex_lock(&k->lock);
	while (!k->stopping) {
		struct keeper_hold *first = first_due(k);
		if (first && mono_reached(clock_mono(k->clock), first->renew_at))
			renew(k, first);
		else
			wait_until(k, first);
	}
	pthread_mutex_unlock(&k->lock);
	return NULL;
}

int keeper_start(
	struct queue *queue, const struct clock *clock, int64_t lease_ms, struct keeper **ret, struct err *e)
{
	struct keeper *k = calloc(1, sizeof(*k));
	if (!k)
		return err_oom(e);
	k->queue = queue;
	k->clock = clock;
	k->lease_ms = lease_ms;
	pthread_mutex_init(&k->lock, NULL);
	pthread_condattr_t attr;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&k->wakeup, &attr);
	pthread_condattr_destroy(&attr);
	errno = pthread_create(&k->thread, NULL, keep, k);
	if (errno) {
		err_sys(e, ERR_RETRY, "start the thread that renews leases");
		keeper_stop(k);
		return -1;
	}
	pthread_setname_np(k->thread, "keeper");
	k->running = true;
	*ret = k;
	return 0;
}

void keeper_stop(struct keeper *k)
{
	if (!k)
		return;
	pthread_mutex_lock(&k->lock);
	k->stopping = true;
	pthread_cond_signal(&k->wakeup);
	pthread_mutex_unlock(&k->lock);
	if (k->running)
		pthread_join(k->thread, NULL);
	pthread_cond_destroy(&k->wakeup);
	pthread_mutex_destroy(&k->lock);
	free(k);
}
