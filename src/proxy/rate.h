/* rate.h - how many messages a second a client or a domain may send: token buckets by name.
 *
 * A bucket holds up to `burst` tokens and gains `rate` a second; a request takes one token a message. A batch
 * larger than what is left is refused, but one larger than the whole bucket passes when the bucket is full
 * and leaves a debt, so that no size is shut out for good.
 *
 * Bounds:   at most RATE_NAMES buckets; when there are more, full ones are forgotten first (a full bucket is
 * the same as none), then new names share one bucket. Threads:  any; one short critical section a request,
 * and none when rates are off. */
#ifndef PROXY_RATE_H
#define PROXY_RATE_H

#include "base/clock.h"
#include "base/err.h"
#include "base/str.h"

struct rate;

enum { RATE_NAMES = 65536 };

struct rate_limit {
	int64_t per_second; /* 0: off */
	int64_t burst;      /* 0: one second's worth */
};

/* What a client is told: RateLimit and RateLimit-Policy headers, and how long to wait when refused. */
struct rate_state {
	int64_t quota, window_s; /* q and w of the policy */
	int64_t left, reset_s;   /* r and t */
	int64_t retry_after_s;   /* when refused */
};

MUST_CHECK int rate_new(const struct clock *clock, struct rate **ret, struct err *e);
void rate_free(struct rate *r);

/* Takes `count` tokens of `name` under `limit`; false when refused (nothing was taken). */
bool rate_take(struct rate *r, struct str name, const struct rate_limit *limit, int64_t count,
	struct rate_state *ret);

/* Gives back what another limit's refusal made void. */
void rate_give_back(struct rate *r, struct str name, const struct rate_limit *limit, int64_t count);

#endif
