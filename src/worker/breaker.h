/* breaker.h - circuit breaker for a destination that cannot be reached.
 *
 *	closed ──failure──▶ open (pause) ──pause over──▶ half open (one probe) ──success──▶ closed
 *	                     ▲                                 └──failure──▶ open, longer pause
 *
 * Pauses grow from 100 ms to 10 s by doubling, each jittered by half, so that many workers do not return in
 *step. Threads: any; one mutex, taken once a batch. */
#ifndef WORKER_BREAKER_H
#define WORKER_BREAKER_H

#include <pthread.h>
#include <stdbool.h>

#include "base/clock.h"

enum breaker_state { BREAKER_CLOSED, BREAKER_HALF_OPEN, BREAKER_OPEN };

struct breaker {
	pthread_mutex_t lock;
	enum breaker_state state;
	struct mono until; /* open: when a probe may go out */
	int64_t pause_ms;
	uint64_t opened_count;
	char trouble[200]; /* why it is open */
};

void breaker_init(struct breaker *b);
void breaker_clear(struct breaker *b);

/* Whether a batch may go out now; if not, *ret_wait_ms says when to ask again. Half open: one caller gets
 * true. */
bool breaker_allow(struct breaker *b, struct mono now, int64_t *ret_wait_ms);

/* How the batch went. True when the state changed by it (for one log line, not one per message). */
bool breaker_success(struct breaker *b);
bool breaker_failure(struct breaker *b, struct mono now, uint64_t random, const char *trouble);

/* A batch that was allowed but not sent after all (nothing to deliver). */
void breaker_unused(struct breaker *b);

enum breaker_state breaker_state(struct breaker *b, char *ret_trouble, size_t room);
const char *breaker_state_name(enum breaker_state s);

#endif
