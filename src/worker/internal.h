/* internal.h - what the files of worker/ share. */
#ifndef WORKER_INTERNAL_H
#define WORKER_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/metrics.h"
#include "worker/breaker.h"
#include "worker/keeper.h"
#include "worker/policy.h"
#include "worker/worker.h"

enum {
	BATCH_MAX = KEEPER_BATCH_MAX,
	DEAD_REASONS = 3, /* rejected, attempts_exhausted, expired */
};

struct delivery;

struct worker {
	const struct clock *clock;
	struct queue *queue;
	const struct destination *destination;
	struct health *health;
	char name[65];
	int64_t lease_ms;
	struct breaker breaker;
	struct keeper *keeper;
	series_t results[DELIVERY_OUTCOMES], released;
	series_t dead[DEAD_REASONS];
	atomic_uint in_flight;    /* messages with the destination */
	atomic_bool lease_failed; /* the last one did, and the log has said so */

	pthread_rwlock_t policies_lock; /* guards the next */
	struct policies *policies;

	unsigned lost_answers_max;
	pthread_mutex_t lock; /* guards the next six, and every delivery's session */
	pthread_cond_t wakeup;
	bool stopping;
	bool cancelled;        /* the drain is over: sessions end, those opened from now on too */
	unsigned running;      /* threads that have not ended */
	struct uuid suspect;   /* the message over which, sent alone, the destination broke off last */
	unsigned lost_answers; /* how often it did */

	struct delivery **deliveries;
	pthread_t *threads;
	unsigned thread_count;
};

/* What one delivery thread keeps between batches. */
struct delivery {
	struct worker *worker;
	void *session;
	struct arena arena; /* of the batch under way */
	/* The batch: those to be tried, then those given up without. */
	struct delivery_item items[BATCH_MAX];
	struct queue_settlement settlements[BATCH_MAX]; /* of items[i] */
	unsigned count, tried;
	struct keeper_hold hold;
};

/* --- worker.c --- */

bool worker_is_stopping(struct worker *w);

/* Sleeps up to `ms`, less when told to stop. False: told to stop. */
bool worker_pause(struct worker *w, int64_t ms);

/* Opens the delivery's session if it has none. <0: as the destination's open. */
MUST_CHECK int worker_open_session(struct delivery *d, struct err *e);

/* The destination broke off over this message, sent alone. True: too often for that to be chance. */
bool worker_suspects(struct worker *w, const struct uuid *id);

/* --- delivery.c --- */

/* Looks the worker's metric series up. */
void delivery_name_series(struct worker *w);

/* One round: asks the breaker, leases, delivers, settles; or waits a while. */
void delivery_run(struct delivery *d);

#endif
