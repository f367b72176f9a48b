/* policy.c - see policy.h. */
#include "worker/policy.h"

void policy_from_config(const struct config *c, struct policy *ret)
{
	*ret = (struct policy){
		.exponential = c->retry_policy == 1,
		.interval_ms = c->retry_interval,
		.interval_max_ms = c->retry_interval_max,
		.max_attempts = (unsigned)c->max_attempts,
		.lifetime_ms = c->message_lifetime,
	};
}

int64_t policy_wait_ms(const struct policy *p, unsigned attempt_count, uint64_t random)
{
	if (!p->exponential)
		return p->interval_ms;
	int64_t ceiling = p->interval_ms;
	for (unsigned i = 1; i < attempt_count && ceiling < p->interval_max_ms; i++)
		if (__builtin_mul_overflow(ceiling, 2, &ceiling))
			ceiling = p->interval_max_ms;
	if (ceiling > p->interval_max_ms)
		ceiling = p->interval_max_ms;
	return 1 + (int64_t)(random % (uint64_t)(ceiling > 0 ? ceiling : 1));
}

const char *policy_exhausted(
	const struct policy *p, unsigned attempt_count, struct wall accepted_at, struct wall now)
{
	if (attempt_count >= p->max_attempts)
		return "attempts_exhausted";
	if (p->lifetime_ms && now.ms - accepted_at.ms >= p->lifetime_ms)
		return "lifetime_exceeded";
	return NULL;
}
