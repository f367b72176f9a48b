/* schedule.c - see schedule.h. */
#include "cli/schedule.h"

struct wall renewal_due(struct wall not_before, struct wall not_after)
{
	return (struct wall){not_after.ms - (not_after.ms - not_before.ms) / 3};
}

struct wall renewal_start(struct wall not_before, struct wall not_after, uint64_t random)
{
	int64_t spread = (not_after.ms - not_before.ms) / 30;
	struct wall due = renewal_due(not_before, not_after);
	return (struct wall){due.ms + (spread > 0 ? (int64_t)(random % (uint64_t)spread) : 0)};
}

int64_t renewal_retry_ms(unsigned failures, uint64_t random)
{
	int64_t wait = RENEWAL_RETRY_MIN_MS;
	for (unsigned i = 1; i < failures && wait < RENEWAL_RETRY_MAX_MS; i++)
		wait *= 2;
	if (wait > RENEWAL_RETRY_MAX_MS)
		wait = RENEWAL_RETRY_MAX_MS;
	return wait + (int64_t)(random % (uint64_t)(wait / 2));
}

bool renewal_urgent(struct wall not_before, struct wall not_after, struct wall now)
{
	return now.ms >= not_after.ms - (not_after.ms - not_before.ms) / 6;
}
