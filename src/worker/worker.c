/* worker.c - see worker.h. Each delivery thread is a plain blocking loop (delivery.c). Throughput comes from
 * batches and from several such threads, latency from the queue's parked leases: a waiting lease is answered
 * by the commit that brings the next message. */
#include "worker/worker.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/auto.h"
#include "base/log.h"
#include "worker/internal.h"

enum { ARENA_BYTES = 64 * 1024 * 1024 };

bool worker_is_stopping(struct worker *w)
{
	pthread_mutex_lock(&w->lock);
	bool yes = w->stopping;
	pthread_mutex_unlock(&w->lock);
	return yes;
}

bool worker_suspects(struct worker *w, const struct uuid *id)
{
	pthread_mutex_lock(&w->lock);
	if (!uuid_eq(&w->suspect, id))
		w->lost_answers = 0;
	w->suspect = *id;
	bool too_often = ++w->lost_answers >= w->lost_answers_max;
	pthread_mutex_unlock(&w->lock);
	return too_often;
}

bool worker_pause(struct worker *w, int64_t ms)
{
	struct timespec until = mono_timespec(mono_add_ms(clock_mono(&clock_system), ms));
	pthread_mutex_lock(&w->lock);
	while (!w->stopping && pthread_cond_timedwait(&w->wakeup, &w->lock, &until) == 0)
		;
	bool go_on = !w->stopping;
	pthread_mutex_unlock(&w->lock);
	return go_on;
}

/* --- delivery threads --- */

int worker_open_session(struct delivery *d, struct err *e)
{
	struct worker *w = d->worker;
	void *session = NULL;
	if (d->session)
		return 0;
	if (w->destination->open(w->destination->arg, &session, e) < 0)
		return -1;
	pthread_mutex_lock(&w->lock);
	d->session = session;
	if (w->cancelled && w->destination->cancel)
		w->destination->cancel(session);
	pthread_mutex_unlock(&w->lock);
	return 0;
}

static void close_session(struct delivery *d)
{
	struct worker *w = d->worker;
	pthread_mutex_lock(&w->lock);
	void *session = TAKE(d->session);
	w->running--;
	pthread_cond_broadcast(&w->wakeup);
	pthread_mutex_unlock(&w->lock);
	if (session)
		w->destination->close(session);
}

static void *delivery_thread(void *arg)
{
	struct delivery *d = arg;
	while (!worker_is_stopping(d->worker))
		delivery_run(d);
	close_session(d);
	arena_clear(&d->arena);
	return NULL;
}

static int start_thread(struct worker *w, struct err *e)
{
	unsigned number = w->thread_count;
	struct delivery *d = calloc(1, sizeof(*d));
	if (!d)
		return err_oom(e);
	d->worker = w;
	arena_init(&d->arena, ARENA_BYTES);
	w->running++;
	errno = pthread_create(&w->threads[number], NULL, delivery_thread, d);
	if (errno) {
		w->running--;
		free(d);
		return err_sys(e, ERR_RETRY, "start a delivery thread");
	}
	char name[16];
	snprintf(name, sizeof(name), "deliver-%u", number % 1000);
	pthread_setname_np(w->threads[number], name);
	w->deliveries[number] = d;
	w->thread_count++;
	return 0;
}

static int start_threads(struct worker *w, unsigned want, struct err *e)
{
	w->threads = calloc(want, sizeof(*w->threads));
	w->deliveries = calloc(want, sizeof(struct delivery *));
	if (!w->threads || !w->deliveries)
		return err_oom(e);
	int rc = 0;
	pthread_mutex_lock(&w->lock); /* the threads look at `running` only when all are counted */
	while (rc >= 0 && w->thread_count < want)
		rc = start_thread(w, e);
	pthread_mutex_unlock(&w->lock);
	return rc;
}

/* --- what others see --- */

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

static void check_queue(void *arg, struct health_report *ret)
{
	const struct worker *w = arg;
	struct queue_glance glance;
	queue_glance(w->queue, &glance);
	if (!glance.healthy) {
		ret->status = HEALTH_FAILED;
		snprintf(ret->detail, sizeof(ret->detail), "%s", glance.trouble);
	} else if (glance.delivery_paused) {
		ret->status = HEALTH_DEGRADED;
		snprintf(ret->detail, sizeof(ret->detail), "delivery is paused: %s", glance.delivery_reason);
	} else {
		snprintf(ret->detail, sizeof(ret->detail), "%s", queue_durability(w->queue));
	}
}

static void collect(void *arg)
{
	struct worker *w = arg;
	enum breaker_state now = breaker_state(&w->breaker, NULL, 0);
	for (enum breaker_state s = BREAKER_CLOSED; s <= BREAKER_OPEN; s++)
		series_set(metric_series1(METRIC_BREAKER, breaker_state_name(s)), s == now);
	metric_set(METRIC_DELIVERY_IN_FLIGHT, atomic_load(&w->in_flight));
}

/* --- life --- */

static void init(struct worker *w, const struct worker_options *o)
{
	const struct breaker_options breaker = {
		.pause_ms = o->config->breaker_pause,
		.pause_max_ms = o->config->breaker_pause_max,
		.retry_after_max_ms = o->config->retry_after_max,
		.batch = (unsigned)o->config->worker_batch,
	};
	w->clock = o->clock;
	w->queue = o->queue;
	w->destination = o->destination;
	w->health = o->health;
	snprintf(w->name, sizeof(w->name), "%s", o->name);
	w->lease_ms = o->config->lease_time;
	w->lost_answers_max = (unsigned)o->config->lost_answers_max;
	breaker_init(&w->breaker, &breaker);
	pthread_rwlock_init(&w->policies_lock, NULL);
	pthread_mutex_init(&w->lock, NULL);
	pthread_condattr_t attr;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&w->wakeup, &attr);
	pthread_condattr_destroy(&attr);
	delivery_name_series(w);
}

int worker_start(const struct worker_options *o, struct worker **ret, struct err *e)
{
	struct worker *w = calloc(1, sizeof(*w));
	if (!w)
		return err_oom(e);
	init(w, o);
	if (o->health)
		health_add(o->health, "main_server", false, check_destination, w);
	if (o->health && o->watch_queue)
		health_add(o->health, "queue", true, check_queue, w);
	metrics_on_collect(collect, w);
	if (policies_new(o->config, &w->policies, e) < 0 ||
		keeper_start(w->queue, w->clock, w->lease_ms, &w->keeper, e) < 0 ||
		start_threads(w, (unsigned)o->config->worker_concurrency, e) < 0) {
		worker_stop(w, 0);
		return -1;
	}
	*ret = w;
	return 0;
}

int worker_reload(struct worker *w, const struct config *config, struct err *e)
{
	struct policies *policies;
	if (policies_new(config, &policies, e) < 0)
		return -1;
	pthread_rwlock_wrlock(&w->policies_lock);
	struct policies *before = w->policies;
	w->policies = policies;
	pthread_rwlock_unlock(&w->policies_lock);
	policies_free(before);
	return 0;
}

/* Waits for the batches under way; cancels those that are not back in time. */
static void end_deliveries(struct worker *w, int64_t drain_ms)
{
	struct timespec until = mono_timespec(mono_add_ms(clock_mono(&clock_system), drain_ms));
	pthread_mutex_lock(&w->lock);
	w->stopping = true;
	pthread_cond_broadcast(&w->wakeup);
	while (w->running && pthread_cond_timedwait(&w->wakeup, &w->lock, &until) == 0)
		;
	w->cancelled = true;
	for (unsigned i = 0; w->destination->cancel && i < w->thread_count; i++)
		if (w->deliveries[i]->session)
			w->destination->cancel(w->deliveries[i]->session);
	pthread_mutex_unlock(&w->lock);
}

void worker_stop(struct worker *w, int64_t drain_ms)
{
	if (!w)
		return;
	metrics_off_collect(collect, w);
	if (w->health)
		health_remove(w->health, w);
	end_deliveries(w, drain_ms);
	for (unsigned i = 0; i < w->thread_count; i++) {
		pthread_join(w->threads[i], NULL);
		free(w->deliveries[i]);
	}
	keeper_stop(w->keeper);
	policies_free(w->policies);
	free(w->threads);
	free(w->deliveries);
	breaker_clear(&w->breaker);
	pthread_rwlock_destroy(&w->policies_lock);
	pthread_cond_destroy(&w->wakeup);
	pthread_mutex_destroy(&w->lock);
	free(w);
}
