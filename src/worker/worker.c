/* worker.c - see worker.h. Each delivery thread is a plain blocking loop: lease, deliver, settle. Throughput
 * comes from batches and from several such threads, latency from the queue's parked leases: a waiting lease
 * is answered by the commit that brings the next message. */
#include "worker/worker.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

#include "base/auto.h"
#include "base/log.h"
#include "base/metrics.h"
#include "worker/breaker.h"
#include "worker/policy.h"

enum {
	LEASE_WAIT_MS = 1000, /* how long an idle thread sits in one lease; also bounds a stop */
	BATCH_MAX = 500,
	ARENA_BYTES = 64 * 1024 * 1024,
};

struct worker {
	const struct clock *clock;
	struct queue *queue;
	const struct destination *destination;
	struct health *health;
	char name[65];
	unsigned batch, thread_count;
	int64_t lease_ms;
	struct breaker breaker;
	pthread_mutex_t lock; /* guards policy, stopping */
	pthread_cond_t wakeup;
	struct policy policy;
	bool stopping;
	pthread_t *threads;
	series_t results[DELIVERY_OUTCOMES];
	atomic_uint in_flight; /* messages with the destination */
};

/* What one delivery thread keeps between batches. */
struct delivery {
	struct worker *worker;
	void *session;
	struct arena arena;
	struct delivery_item items[BATCH_MAX];
	struct queue_settlement settlements[BATCH_MAX];
};

static uint64_t random_u64(void)
{
	uint64_t v = 0;
	if (getrandom(&v, sizeof(v), 0) != (ssize_t)sizeof(v))
		v = (uint64_t)clock_mono(&clock_system).ns; /* jitter only */
	return v;
}

static bool stopping(struct worker *w)
{
	pthread_mutex_lock(&w->lock);
	bool yes = w->stopping;
	pthread_mutex_unlock(&w->lock);
	return yes;
}

/* Sleeps up to `ms`, less when told to stop. */
static void pause_for(struct worker *w, int64_t ms)
{
	struct timespec until;
	clock_gettime(CLOCK_MONOTONIC, &until);
	int64_t ns = until.tv_nsec + ms * 1000000;
	until.tv_sec += ns / 1000000000;
	until.tv_nsec = ns % 1000000000;
	pthread_mutex_lock(&w->lock);
	while (!w->stopping && pthread_cond_timedwait(&w->wakeup, &w->lock, &until) == 0)
		;
	pthread_mutex_unlock(&w->lock);
}

static struct policy policy_now(struct worker *w)
{
	pthread_mutex_lock(&w->lock);
	struct policy policy = w->policy;
	pthread_mutex_unlock(&w->lock);
	return policy;
}

/* One message's verdict, by what the destination said and by policy. */
static void judge(const struct worker *w, const struct policy *policy, const struct delivery_item *item,
	struct queue_settlement *ret)
{
	struct wall now = clock_wall(w->clock);
	const char *exhausted;
	ret->reason = str_of(item->reason);
	switch (item->outcome) {
	case DELIVERY_STORED:
	case DELIVERY_DUPLICATE:
		ret->verdict = QUEUE_DONE;
		return;
	case DELIVERY_REJECTED:
		ret->verdict = QUEUE_DEAD;
		return;
	case DELIVERY_RETRY:
	case DELIVERY_OUTCOMES:
		break;
	}
	exhausted = policy_exhausted(policy, item->attempt_count + 1, item->sealed->accepted_at, now);
	if (exhausted) {
		ret->verdict = QUEUE_DEAD;
		ret->reason = str_of(exhausted);
		return;
	}
	ret->verdict = QUEUE_RETRY;
	ret->due_at.ms = now.ms + policy_wait_ms(policy, item->attempt_count + 1, random_u64());
}

static void settle(struct delivery *d, unsigned count)
{
	struct worker *w = d->worker;
	struct queue_settle op = {.worker = w->name, .items = d->settlements, .count = count};
	struct err e = ERR_INIT;
	/* Until it is settled a message stays leased; if the queue cannot now, the lease's end does it. */
	if (queue_wait(w->queue, QUEUE_SETTLE, &op.op, &e) < 0)
		log_event(LOG_WARN, "worker.settle_failed", LF_UINT("messages", count), LF_ERR(&e));
	if (op.stale_count)
		metric_add(METRIC_LEASE_LOST, op.stale_count);
}

/* The destination as a whole could not take the batch: nothing of it counts as tried. */
static void release(struct delivery *d, unsigned tried, unsigned count, const struct err *why)
{
	struct worker *w = d->worker;
	for (unsigned i = 0; i < tried; i++)
		d->settlements[i].verdict = QUEUE_RELEASE;
	settle(d, count);
	if (!breaker_failure(&w->breaker, clock_mono(w->clock), random_u64(), why->text))
		return;
	metric_add(METRIC_BREAKER_OPENED, 1);
	log_event(LOG_WARN, "worker.destination_away", LF_STR("destination", w->destination->name),
		LF_ERR(why));
}

static void record_results(struct worker *w, const struct delivery_item *items, unsigned count)
{
	unsigned by_outcome[DELIVERY_OUTCOMES] = {0};
	struct wall now = clock_wall(w->clock);
	for (unsigned i = 0; i < count; i++) {
		by_outcome[items[i].outcome]++;
		if (items[i].outcome == DELIVERY_STORED) {
			int64_t age_ms = now.ms - items[i].sealed->accepted_at.ms;
			metric_observe(METRIC_STORED_SECONDS, (uint64_t)(age_ms > 0 ? age_ms : 0) * 1000000);
		}
	}
	for (unsigned o = 0; o < DELIVERY_OUTCOMES; o++)
		if (by_outcome[o])
			series_add(w->results[o], by_outcome[o]);
}

/* Puts those to be tried first; behind them, as dead letters, those whose attempts or lifetime are used up
 * already: a message that kills its worker is judged here, because nobody was left to judge it then. How many
 * are to be tried. */
static unsigned sort_out(struct delivery *d, const struct queue_lease *lease, const struct policy *policy)
{
	struct wall now = clock_wall(d->worker->clock);
	unsigned tried = 0, given_up = lease->count;
	for (unsigned i = 0; i < lease->count; i++) {
		const struct queue_message *m = &lease->messages[i];
		const char *exhausted =
			policy_exhausted(policy, m->attempt_count, m->sealed.accepted_at, now);
		if (exhausted) {
			d->settlements[--given_up] = (struct queue_settlement){
				.ref = m->ref, .verdict = QUEUE_DEAD, .reason = str_of(exhausted)};
			continue;
		}
		d->items[tried] =
			(struct delivery_item){.sealed = &m->sealed, .attempt_count = m->attempt_count};
		d->settlements[tried++] = (struct queue_settlement){.ref = m->ref};
	}
	return tried;
}

/* Hands the batch over; <0: the destination as a whole could not take it. */
static int hand_over(struct delivery *d, unsigned count, struct err *e)
{
	struct worker *w = d->worker;
	struct mono before = clock_mono(w->clock);
	atomic_fetch_add(&w->in_flight, count);
	int rc = d->session ? 0 : w->destination->open(w->destination->arg, &d->session, e);
	if (rc >= 0)
		rc = w->destination->deliver(d->session, d->items, count, e);
	atomic_fetch_sub(&w->in_flight, count);
	if (rc < 0)
		return -1;
	metric_observe(METRIC_DELIVERY_SECONDS, (uint64_t)(clock_mono(w->clock).ns - before.ns));
	metric_observe(METRIC_DELIVERY_BATCH, count);
	if (breaker_success(&w->breaker))
		log_event(LOG_INFO, "worker.destination_back", LF_STR("destination", w->destination->name));
	return 0;
}

static void deliver(struct delivery *d, const struct queue_lease *lease)
{
	struct worker *w = d->worker;
	struct err e = ERR_INIT;
	struct policy policy = policy_now(w);
	unsigned tried = sort_out(d, lease, &policy);
	if (!tried) {
		breaker_unused(&w->breaker);
	} else if (hand_over(d, tried, &e) < 0) {
		release(d, tried, lease->count, &e);
		return;
	}
	for (unsigned i = 0; i < tried; i++)
		judge(w, &policy, &d->items[i], &d->settlements[i]);
	record_results(w, d->items, tried);
	settle(d, lease->count);
}

static void run_once(struct delivery *d)
{
	struct worker *w = d->worker;
	struct err e = ERR_INIT;
	int64_t wait_ms;
	if (!breaker_allow(&w->breaker, clock_mono(w->clock), &wait_ms)) {
		pause_for(w, wait_ms);
		return;
	}
	arena_reset(&d->arena);
	struct queue_lease lease = {
		.worker = w->name,
		.max = w->batch,
		.lease_ms = w->lease_ms,
		.wait_ms = LEASE_WAIT_MS,
		.arena = &d->arena,
	};
	if (queue_wait(w->queue, QUEUE_LEASE, &lease.op, &e) < 0) {
		breaker_unused(&w->breaker);
		log_event(LOG_WARN, "worker.lease_failed", LF_ERR(&e));
		pause_for(w, LEASE_WAIT_MS);
	} else if (lease.count == 0) {
		breaker_unused(&w->breaker);
	} else {
		deliver(d, &lease);
	}
}

static void *delivery_thread(void *arg)
{
	struct delivery *d = arg;
	while (!stopping(d->worker))
		run_once(d);
	if (d->session)
		d->worker->destination->close(d->session);
	arena_clear(&d->arena);
	free(d);
	return NULL;
}

static void check_destination(void *arg, struct health_report *ret)
{
	struct worker *w = arg;
	char trouble[sizeof(ret->detail) - 32];
	enum breaker_state state = breaker_state(&w->breaker, trouble, sizeof(trouble));
	if (state == BREAKER_CLOSED) {
		snprintf(ret->detail, sizeof(ret->detail), "%s", w->destination->name);
		return;
	}
	ret->status = HEALTH_FAILED;
	snprintf(ret->detail, sizeof(ret->detail), "breaker %s: %s", breaker_state_name(state), trouble);
}

static void collect(void *arg)
{
	struct worker *w = arg;
	enum breaker_state now = breaker_state(&w->breaker, NULL, 0);
	for (enum breaker_state s = BREAKER_CLOSED; s <= BREAKER_OPEN; s++)
		series_set(metric_series1(METRIC_BREAKER, breaker_state_name(s)), s == now);
	metric_set(METRIC_DELIVERY_IN_FLIGHT, atomic_load(&w->in_flight));
}

static int start_thread(struct worker *w, unsigned number, struct err *e)
{
	struct delivery *d = calloc(1, sizeof(*d));
	if (!d)
		return err_oom(e);
	d->worker = w;
	arena_init(&d->arena, ARENA_BYTES);
	errno = pthread_create(&w->threads[number], NULL, delivery_thread, d);
	if (errno) {
		free(d);
		return err_sys(e, ERR_RETRY, "start a delivery thread");
	}
	char name[16];
	snprintf(name, sizeof(name), "deliver-%u", number % 1000);
	pthread_setname_np(w->threads[number], name);
	w->thread_count++;
	return 0;
}

int worker_start(const struct worker_options *o, struct worker **ret, struct err *e)
{
	struct worker *w = calloc(1, sizeof(*w));
	if (!w)
		return err_oom(e);
	w->clock = o->clock;
	w->queue = o->queue;
	w->destination = o->destination;
	w->health = o->health;
	snprintf(w->name, sizeof(w->name), "%s", o->name);
	w->batch = (unsigned)o->config->worker_batch;
	w->lease_ms = o->config->lease_time;
	policy_from_config(o->config, &w->policy);
	breaker_init(&w->breaker);
	pthread_mutex_init(&w->lock, NULL);
	pthread_condattr_t attr;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&w->wakeup, &attr);
	pthread_condattr_destroy(&attr);
	for (unsigned i = 0; i < DELIVERY_OUTCOMES; i++)
		w->results[i] = metric_series1(METRIC_DELIVERIES, delivery_outcome_name(i));
	if (o->health)
		health_add(o->health, "main_server", false, check_destination, w);
	metrics_on_collect(collect, w);

	unsigned want = (unsigned)o->config->worker_concurrency;
	w->threads = calloc(want, sizeof(*w->threads));
	int rc = w->threads ? 0 : err_oom(e);
	for (unsigned i = 0; rc >= 0 && i < want; i++)
		rc = start_thread(w, i, e);
	if (rc < 0) {
		worker_stop(w);
		return -1;
	}
	*ret = w;
	return 0;
}

void worker_reload(struct worker *w, const struct config *config)
{
	pthread_mutex_lock(&w->lock);
	policy_from_config(config, &w->policy);
	pthread_mutex_unlock(&w->lock);
}

void worker_stop(struct worker *w)
{
	if (!w)
		return;
	metrics_off_collect(collect, w);
	if (w->health)
		health_remove(w->health, w);
	pthread_mutex_lock(&w->lock);
	w->stopping = true;
	pthread_cond_broadcast(&w->wakeup);
	pthread_mutex_unlock(&w->lock);
	for (unsigned i = 0; i < w->thread_count; i++)
		pthread_join(w->threads[i], NULL);
	free(w->threads);
	breaker_clear(&w->breaker);
	pthread_cond_destroy(&w->wakeup);
	pthread_mutex_destroy(&w->lock);
	free(w);
}
