/* policy.h - when a failed message is tried again, and when it is given up. Pure: no clock, no state.
 *
 * fixed:        retry_interval, every time.
 * exponential:  full jitter: a random wait in [1 ms, min(max, interval * factor^(attempts - 1))].
 * list:         the waits of retry_list in turn; the last one repeats.
 *
 * A domain may have an interval and a number of attempts of its own.
 *
 * Ownership: policies_new … policies_free.
 * Threads:   immutable once made. */
#ifndef WORKER_POLICY_H
#define WORKER_POLICY_H

#include "base/clock.h"
#include "base/config.h"

/* In the order of the choices of retry_policy. */
enum policy_kind { POLICY_FIXED, POLICY_EXPONENTIAL, POLICY_LIST };

struct policy {
	enum policy_kind kind;
	int64_t interval_ms, interval_max_ms, factor;
	int64_t list_ms[CONFIG_DURATIONS_MAX];
	unsigned list_count;
	unsigned max_attempts;
	int64_t lifetime_ms; /* 0: none */
};

/* Wait before the next attempt, after `attempt_count` failed ones (>= 1). `random` is any 64 bits. */
int64_t policy_wait_ms(const struct policy *p, unsigned attempt_count, uint64_t random);

/* NULL, or why the message is given up after `attempt_count` failed attempts. */
const char *policy_exhausted(
	const struct policy *p, unsigned attempt_count, struct wall accepted_at, struct wall now);

/* The general policy and those of domains with settings of their own. */
struct policies;

MUST_CHECK int policies_new(const struct config *c, struct policies **ret, struct err *e);
void policies_free(struct policies *p);
const struct policy *policies_of(const struct policies *p, struct str domain);

#endif
