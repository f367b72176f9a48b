/* mender.h - a thread that tries what has failed, ever less often, until it works again.
 *
 * Ownership: what `try` works on belongs to the mender from mender_hand until mender_done says so, else to the
 *            owner.
 * Threads:   `try` runs on the mender's thread, all functions here on the owner's. */
#ifndef QUEUE_MENDER_H
#define QUEUE_MENDER_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct mender {
	int (*try)(void *arg, struct err *e);
	void *arg;
	int64_t wait_min_ms, wait_max_ms; /* after the first failure; doubled by each one more, up to */
	pthread_t thread;
	bool started;
	pthread_mutex_t lock; /* guards what follows */
	pthread_cond_t changed;
	bool busy, stopping;
	struct err trouble; /* of the last try */
};

void mender_init(struct mender *m, int (*try)(void *arg, struct err *e), void *arg, int64_t wait_min_ms,
	int64_t wait_max_ms);

/* Starts the thread, which rests until something is handed to it. */
MUST_CHECK int mender_start(struct mender *m, const char *name, struct err *e);

/* Begins to try. */
void mender_hand(struct mender *m);

/* Whether a try has worked, so that all is the owner's again; else *ret_trouble is why the last one failed, left
 * alone while the first is under way. */
bool mender_done(struct mender *m, struct err *ret_trouble);

/* Waits for a try under way; after mender_init, started or not. */
void mender_clear(struct mender *m);

#endif
