/* policy.h - when a failed message is tried again, and when it is given up. Pure: no clock, no state.
 *
 * fixed:        retry_interval, every time.
 * exponential:  full jitter: a random wait in [0, min(max, interval * 2^attempts)], at least 1 ms. */
#ifndef WORKER_POLICY_H
#define WORKER_POLICY_H

#include "base/clock.h"
#include "base/config.h"

struct policy {
	bool exponential;
	int64_t interval_ms, interval_max_ms;
	unsigned max_attempts;
	int64_t lifetime_ms; /* 0: none */
};

void policy_from_config(const struct config *c, struct policy *ret);

/* Wait before the next attempt, after `attempt_count` failed ones (>= 1). `random` is any 64 bits. */
int64_t policy_wait_ms(const struct policy *p, unsigned attempt_count, uint64_t random);

/* NULL, or why the message is given up after `attempt_count` failed attempts. */
const char *policy_exhausted(
	const struct policy *p, unsigned attempt_count, struct wall accepted_at, struct wall now);

#endif
