/* mender.c - see mender.h. */
#include "queue/mender.h"

#include <errno.h>

#include "base/clock.h"

/* Waits so long, or until told to stop; the lock is held. */
static void rest(struct mender *m, int64_t ms)
{
	struct timespec until = mono_timespec(mono_add_ms(clock_mono(&clock_system), ms));
	while (!m->stopping && pthread_cond_timedwait(&m->changed, &m->lock, &until) != ETIMEDOUT)
		;
}

/* Tries until it works; the lock is held, but not while trying. */
static void mend(struct mender *m)
{
	for (int64_t wait_ms = m->wait_min_ms; !m->stopping; wait_ms *= 2) {
		struct err e = ERR_INIT;
		pthread_mutex_unlock(&m->lock);
		int rc = m->try(m->arg, &e);
		pthread_mutex_lock(&m->lock);
		m->trouble = e;
		if (rc >= 0)
			break;
		if (wait_ms > m->wait_max_ms)
			wait_ms = m->wait_max_ms;
		rest(m, wait_ms);
	}
	m->busy = false;
}

static void *mender_thread(void *arg)
{
	struct mender *m = arg;
	pthread_mutex_lock(&m->lock);
	while (!m->stopping) {
		if (m->busy)
			mend(m);
		else
			pthread_cond_wait(&m->changed, &m->lock);
	}
	pthread_mutex_unlock(&m->lock);
	return NULL;
}

void mender_init(struct mender *m, int (*try)(void *arg, struct err *e), void *arg, int64_t wait_min_ms,
	int64_t wait_max_ms)
{
	*m = (struct mender){.try = try, .arg = arg, .wait_min_ms = wait_min_ms, .wait_max_ms = wait_max_ms};
	pthread_condattr_t attr;
	pthread_mutex_init(&m->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&m->changed, &attr);
	pthread_condattr_destroy(&attr);
}

int mender_start(struct mender *m, const char *name, struct err *e)
{
	int rc = pthread_create(&m->thread, NULL, mender_thread, m);
	if (rc) {
		errno = rc;
		return err_sys(e, ERR_RETRY, "start a thread");
	}
	pthread_setname_np(m->thread, name);
	m->started = true;
	return 0;
}

void mender_clear(struct mender *m)
{
	if (m->started) {
		pthread_mutex_lock(&m->lock);
		m->stopping = true;
		pthread_cond_signal(&m->changed);
		pthread_mutex_unlock(&m->lock);
		pthread_join(m->thread, NULL);
	}
	pthread_cond_destroy(&m->changed);
	pthread_mutex_destroy(&m->lock);
}

void mender_hand(struct mender *m)
{
	pthread_mutex_lock(&m->lock);
	m->busy = true;
	m->trouble = ERR_INIT;
	pthread_cond_signal(&m->changed);
	pthread_mutex_unlock(&m->lock);
}

bool mender_done(struct mender *m, struct err *ret_trouble)
{
	pthread_mutex_lock(&m->lock);
	bool done = !m->busy;
	if (!done && m->trouble.kind != ERR_NONE)
		*ret_trouble = m->trouble;
	pthread_mutex_unlock(&m->lock);
	return done;
}
