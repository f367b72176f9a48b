/* rate.c - see rate.h. Tokens are kept in billionths, so that no rate is too small for a nanosecond clock. */
#include "proxy/rate.h"

#include <pthread.h>
#include <stdlib.h>
#define HASH_FUNCTION HASH_FNV /* the default one falls through in a switch, which we build without */
#include <uthash.h>

#include "base/auto.h"

enum { NAME_BYTES = 72 };

#define TOKEN INT64_C(1000000000)

struct bucket {
	char name[NAME_BYTES];
	int64_t tokens;  /* in billionths; negative: debt */
	int64_t ceiling; /* when last used */
	int64_t per_second;
	struct mono at;
	UT_hash_handle hh;
};

struct rate {
	const struct clock *clock;
	pthread_mutex_t lock;
	struct bucket *by_name;
	struct bucket shared; /* for names past the bound */
};

int rate_new(const struct clock *clock, struct rate **ret, struct err *e)
{
	struct rate *r = calloc(1, sizeof(*r));
	if (!r)
		return err_oom(e);
	r->clock = clock;
	r->shared.tokens = INT64_MAX; /* full, whatever its ceiling turns out to be */
	pthread_mutex_init(&r->lock, NULL);
	*ret = r;
	return 0;
}

void rate_free(struct rate *r)
{
	struct bucket *b, *next;
	if (!r)
		return;
	HASH_ITER (hh, r->by_name, b, next) {
		HASH_DEL(r->by_name, b);
		free(b);
	}
	pthread_mutex_destroy(&r->lock);
	free(r);
}

static int64_t burst_of(const struct rate_limit *limit)
{
	return limit->burst ? limit->burst : limit->per_second;
}

/* What has flowed in since the bucket was last looked at. */
static void refill(struct bucket *b, const struct rate_limit *limit, struct mono now)
{
	int64_t elapsed_ns = now.ns - b->at.ns, gained;
	int64_t ceiling = burst_of(limit) * TOKEN;
	/* tokens in billionths = rate * nanoseconds */
	if (elapsed_ns < 0 || __builtin_mul_overflow(elapsed_ns, limit->per_second, &gained) ||
		__builtin_add_overflow(b->tokens, gained, &b->tokens) || b->tokens > ceiling)
		b->tokens = ceiling;
	b->at = now;
	b->ceiling = ceiling;
	b->per_second = limit->per_second;
}

/* Forgets every bucket that has filled up by now. */
static void forget_full(struct rate *r, struct mono now)
{
	struct bucket *b, *next;
	HASH_ITER (hh, r->by_name, b, next) {
		refill(b, &(struct rate_limit){b->per_second, b->ceiling / TOKEN}, now);
		if (b->tokens < b->ceiling)
			continue;
		HASH_DEL(r->by_name, b);
		free(b);
	}
}

static struct bucket *find_or_add(
	struct rate *r, struct str name, const struct rate_limit *limit, struct mono now)
{
	struct bucket *b;
	HASH_FIND(hh, r->by_name, name.p, name.n, b);
	if (b)
		return b;
	if (HASH_COUNT(r->by_name) >= RATE_NAMES)
		forget_full(r, now);
	if (HASH_COUNT(r->by_name) >= RATE_NAMES || name.n >= NAME_BYTES)
		return &r->shared;
	b = calloc(1, sizeof(*b));
	if (!b)
		return &r->shared;
	memcpy(b->name, name.p, name.n);
	b->tokens = burst_of(limit) * TOKEN;
	b->at = now;
	HASH_ADD_KEYPTR(hh, r->by_name, b->name, name.n, b);
	return b;
}

static int64_t seconds_until(int64_t missing_tokens, int64_t per_second)
{
	if (missing_tokens <= 0)
		return 0;
	return (missing_tokens / per_second + TOKEN - 1) / TOKEN;
}

bool rate_take(struct rate *r, struct str name, const struct rate_limit *limit, int64_t count,
	struct rate_state *ret)
{
	int64_t burst = burst_of(limit), wanted = count < burst ? count : burst;
	pthread_mutex_lock(&r->lock);
	struct mono now = clock_mono(r->clock);
	struct bucket *b = find_or_add(r, name, limit, now);
	refill(b, limit, now);
	bool taken = b->tokens >= wanted * TOKEN;
	if (taken)
		b->tokens -= count * TOKEN;
	*ret = (struct rate_state){
		.quota = burst,
		.window_s = (burst + limit->per_second - 1) / limit->per_second,
		.left = b->tokens > 0 ? b->tokens / TOKEN : 0,
		.reset_s = seconds_until(burst * TOKEN - b->tokens, limit->per_second),
		.retry_after_s = taken ? 0 : seconds_until(wanted * TOKEN - b->tokens, limit->per_second),
	};
	pthread_mutex_unlock(&r->lock);
	return taken;
}

void rate_give_back(struct rate *r, struct str name, const struct rate_limit *limit, int64_t count)
{
	pthread_mutex_lock(&r->lock);
	struct mono now = clock_mono(r->clock);
	struct bucket *b = find_or_add(r, name, limit, now);
	b->tokens += count * TOKEN;
	refill(b, limit, now);
	pthread_mutex_unlock(&r->lock);
}
