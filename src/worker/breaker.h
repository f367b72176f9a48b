/* breaker.h - circuit breaker for a destination that cannot be reached.
 *
 *	closed ──failure──▶ open (pause) ──pause over──▶ half open (one probe) ──success──▶ closed, slow start
 *	                     ▲                                 └──failure──▶ open, longer pause
 *
 * Pauses double from their first value to their longest, each jittered by half, so that many workers do not
 * return in step; a destination that says how long it wants to be left alone (Retry-After) is left alone that
 * long, within a bound, and a little longer.
 *
 * Slow start: the probe is one message. Each batch that succeeds doubles the next one, and until the full
 * size is reached one batch is under way at a time: a destination that comes back with a long queue waiting
 * sets the pace by how fast it answers.
 *
 * Threads: any; one mutex, taken once a batch. */
#ifndef WORKER_BREAKER_H
#define WORKER_BREAKER_H

#include <pthread.h>
#include <stdbool.h>

#include "base/clock.h"
#include "base/err.h"

enum breaker_state { BREAKER_CLOSED, BREAKER_HALF_OPEN, BREAKER_OPEN };

struct breaker_options {
	int64_t pause_ms, pause_max_ms;
	int64_t retry_after_max_ms;
	unsigned batch; /* a full batch */
};

struct breaker {
	struct breaker_options options;
	pthread_mutex_t lock;
	enum breaker_state state;
	struct mono until; /* open: when a probe may go out */
	int64_t pause_ms;
	unsigned batch;    /* what may go out at once now: options.batch but in a slow start */
	bool busy;         /* somebody has a grant for himself alone */
	char trouble[200]; /* why it is open */
};

/* Leave to send, to be handed back with one of success, failure, unused. */
struct breaker_grant {
	unsigned max;    /* messages in the batch; 0: none may go out now */
	bool alone;      /* nobody else gets leave until it is back */
	int64_t wait_ms; /* max 0: when to ask again */
};

void breaker_init(struct breaker *b, const struct breaker_options *o);
void breaker_clear(struct breaker *b);

struct breaker_grant breaker_allow(struct breaker *b, struct mono now);

/* How the batch went. True when the destination came back, or went away, by it: for one line in the log, not
 * one a message. */
bool breaker_success(struct breaker *b, const struct breaker_grant *g);
bool breaker_failure(struct breaker *b, const struct breaker_grant *g, struct mono now, uint64_t random,
	const struct err *why);

/* Nothing was sent after all: there was nothing to deliver. */
void breaker_unused(struct breaker *b, const struct breaker_grant *g);

/* ret_trouble, of `room` bytes, may be NULL. */
enum breaker_state breaker_state(struct breaker *b, char *ret_trouble, size_t room);
const char *breaker_state_name(enum breaker_state s);

#endif
