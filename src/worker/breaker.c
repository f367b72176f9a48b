/* breaker.c - see breaker.h. */
#include "worker/breaker.h"

#include <stdio.h>

enum { ALONE_WAIT_MS = 50 }; /* how soon those ask again who wait for the one that is out alone */

void breaker_init(struct breaker *b, const struct breaker_options *o)
{
	*b = (struct breaker){.options = *o, .state = BREAKER_CLOSED, .batch = o->batch};
	pthread_mutex_init(&b->lock, NULL);
}

void breaker_clear(struct breaker *b)
{
	pthread_mutex_destroy(&b->lock);
}

static struct breaker_grant grant(struct breaker *b, struct mono now)
{
	if (b->state == BREAKER_OPEN && !mono_reached(now, b->until))
		return (struct breaker_grant){.wait_ms = mono_diff_ms(b->until, now) + 1};
	if (b->state == BREAKER_CLOSED && b->batch >= b->options.batch)
		return (struct breaker_grant){.max = b->options.batch};
	if (b->busy)
		return (struct breaker_grant){.wait_ms = ALONE_WAIT_MS};
	b->busy = true;
	if (b->state == BREAKER_OPEN)
		b->state = BREAKER_HALF_OPEN;
	return (struct breaker_grant){.max = b->batch, .alone = true};
}

struct breaker_grant breaker_allow(struct breaker *b, struct mono now)
{
	pthread_mutex_lock(&b->lock);
	struct breaker_grant g = grant(b, now);
	pthread_mutex_unlock(&b->lock);
	return g;
}

/* Under the lock. */
static void take_back(struct breaker *b, const struct breaker_grant *g)
{
	if (g->alone)
		b->busy = false;
}

bool breaker_success(struct breaker *b, const struct breaker_grant *g)
{
	pthread_mutex_lock(&b->lock);
	take_back(b, g);
	bool changed = b->state != BREAKER_CLOSED;
	b->state = BREAKER_CLOSED;
	b->pause_ms = 0;
	b->trouble[0] = 0;
	b->batch = b->batch > b->options.batch / 2 ? b->options.batch : 2 * b->batch;
	pthread_mutex_unlock(&b->lock);
	return changed;
}

/* How long to leave the destination alone: by doubling, or as long as it asks for; `random` adds to either,
 * never takes away from what was asked for. */
static int64_t pause_ms(struct breaker *b, uint64_t random, const struct err *why)
{
	const struct breaker_options *o = &b->options;
	b->pause_ms = b->pause_ms ? b->pause_ms * 2 : o->pause_ms;
	if (b->pause_ms > o->pause_max_ms)
		b->pause_ms = o->pause_max_ms;
	int64_t half_ms = b->pause_ms / 2, jitter_ms = (int64_t)(random % (uint64_t)(half_ms + 1));
	int64_t asked_ms =
		why->retry_after_ms < o->retry_after_max_ms ? why->retry_after_ms : o->retry_after_max_ms;
	return (asked_ms > half_ms ? asked_ms : half_ms) + jitter_ms;
}

bool breaker_failure(struct breaker *b, const struct breaker_grant *g, struct mono now, uint64_t random,
	const struct err *why)
{
	pthread_mutex_lock(&b->lock);
	take_back(b, g);
	bool changed = b->state == BREAKER_CLOSED;
	/* Batches that were under way when it opened do not lengthen the pause. */
	if (b->state != BREAKER_OPEN) {
		b->until = mono_add_ms(now, pause_ms(b, random, why));
		b->state = BREAKER_OPEN;
		b->batch = 1;
	}
	snprintf(b->trouble, sizeof(b->trouble), "%.*s", (int)sizeof(b->trouble) - 1, why->text);
	pthread_mutex_unlock(&b->lock);
	return changed;
}

void breaker_unused(struct breaker *b, const struct breaker_grant *g)
{
	pthread_mutex_lock(&b->lock);
	take_back(b, g);
	if (g->alone && b->state == BREAKER_HALF_OPEN)
		b->state = BREAKER_OPEN;
	pthread_mutex_unlock(&b->lock);
}

enum breaker_state breaker_state(struct breaker *b, char *ret_trouble, size_t room)
{
	pthread_mutex_lock(&b->lock);
	enum breaker_state state = b->state;
	if (ret_trouble && room)
		snprintf(ret_trouble, room, "%s", b->trouble);
	pthread_mutex_unlock(&b->lock);
	return state;
}

const char *breaker_state_name(enum breaker_state s)
{
	static const char *const names[] = {"closed", "half_open", "open"};
	return names[s];
}
