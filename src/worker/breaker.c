/* breaker.c - see breaker.h. */
#include "worker/breaker.h"

#include <stdio.h>

enum { PAUSE_FIRST_MS = 100, PAUSE_MAX_MS = 10000, PROBE_WAIT_MS = 50 };

void breaker_init(struct breaker *b)
{
	*b = (struct breaker){.state = BREAKER_CLOSED};
	pthread_mutex_init(&b->lock, NULL);
}

void breaker_clear(struct breaker *b)
{
	pthread_mutex_destroy(&b->lock);
}

bool breaker_allow(struct breaker *b, struct mono now, int64_t *ret_wait_ms)
{
	pthread_mutex_lock(&b->lock);
	bool allowed = b->state == BREAKER_CLOSED;
	*ret_wait_ms = 0;
	if (b->state == BREAKER_HALF_OPEN) {
		*ret_wait_ms = PROBE_WAIT_MS;
	} else if (b->state == BREAKER_OPEN) {
		allowed = mono_reached(now, b->until);
		if (allowed)
			b->state = BREAKER_HALF_OPEN;
		else
			*ret_wait_ms = mono_diff_ms(b->until, now) + 1;
	}
	pthread_mutex_unlock(&b->lock);
	return allowed;
}

bool breaker_success(struct breaker *b)
{
	pthread_mutex_lock(&b->lock);
	bool changed = b->state != BREAKER_CLOSED;
	b->state = BREAKER_CLOSED;
	b->pause_ms = 0;
	b->trouble[0] = 0;
	pthread_mutex_unlock(&b->lock);
	return changed;
}

bool breaker_failure(struct breaker *b, struct mono now, uint64_t random, const char *trouble)
{
	pthread_mutex_lock(&b->lock);
	bool changed = b->state == BREAKER_CLOSED;
	/* Batches that were under way when it opened do not lengthen the pause. */
	if (b->state != BREAKER_OPEN) {
		b->pause_ms = b->pause_ms ? b->pause_ms * 2 : PAUSE_FIRST_MS;
		if (b->pause_ms > PAUSE_MAX_MS)
			b->pause_ms = PAUSE_MAX_MS;
		int64_t half = b->pause_ms / 2;
		b->until = mono_add_ms(now, half + (int64_t)(random % (uint64_t)(half + 1)));
		b->state = BREAKER_OPEN;
		b->opened_count += changed;
	}
	snprintf(b->trouble, sizeof(b->trouble), "%s", trouble);
	pthread_mutex_unlock(&b->lock);
	return changed;
}

void breaker_unused(struct breaker *b)
{
	pthread_mutex_lock(&b->lock);
	if (b->state == BREAKER_HALF_OPEN)
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
