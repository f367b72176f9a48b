/* rate.c - see rate.h. Tokens are kept in billionths, so that no rate is too small for a nanosecond clock. */
#include "proxy/rate.h"

#include <pthread.h>
#include <search.h>
#include <stdlib.h>

#include "base/auto.h"

enum { NAME_BYTES = 72 };

#define TOKEN INT64_C(1000000000)

struct bucket {
	char name[NAME_BYTES];
	int64_t tokens;  /* in billionths; negative: debt */
	int64_t ceiling; /* when last used */
	int64_t per_second;
	struct mono at;
};

struct rate {
	const struct clock *clock;
	pthread_mutex_t lock;
	void *by_name; /* a tree of the C library's (tsearch(3)) */
	size_t count;
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
	if (!r)
		return;
	tdestroy(r->by_name, free);
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

static int compare(const void *a, const void *b)
{
	return strcmp(((const struct bucket *)a)->name, ((const struct bucket *)b)->name);
}

/* All buckets, gathered before any is taken out of the tree. */
struct gathering {
	struct bucket **all;
	size_t count;
};

static void gather(const void *node, VISIT when, void *arg)
{
	struct gathering *g = arg;
	if (when == postorder || when == leaf)
		g->all[g->count++] = *(struct bucket *const *)node;
}

/* Forgets every bucket that has filled up by now; none when there is no memory to look at them. */
static void forget_full(struct rate *r, struct mono now)
{
	struct gathering g = {.all = calloc(r->count, sizeof(struct bucket *))};
	if (!g.all)
		return;
	twalk_r(r->by_name, gather, &g);
	for (size_t i = 0; i < g.count; i++) {
		struct bucket *b = g.all[i];
		refill(b, &(struct rate_limit){b->per_second, b->ceiling / TOKEN}, now);
		if (b->tokens < b->ceiling)
			continue;
		tdelete(b, &r->by_name, compare);
		r->count--;
		free(b);
	}
	free(g.all);
}

static struct bucket *find_or_add(
	struct rate *r, struct str name, const struct rate_limit *limit, struct mono now)
{
	struct bucket key = {.tokens = 0};
	if (name.n >= sizeof(key.name))
		return &r->shared;
	memcpy(key.name, name.p, name.n);
	struct bucket *const *found = tfind(&key, &r->by_name, compare);
	if (found)
		return *found;
	if (r->count >= RATE_NAMES)
		forget_full(r, now);
	struct bucket *fresh = r->count < RATE_NAMES ? malloc(sizeof(*fresh)) : NULL;
	if (!fresh)
		return &r->shared;
	*fresh = key;
	fresh->tokens = burst_of(limit) * TOKEN;
	fresh->at = now;
	if (!tsearch(fresh, &r->by_name, compare)) {
		free(fresh);
		return &r->shared;
	}
	r->count++;
	return fresh;
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
