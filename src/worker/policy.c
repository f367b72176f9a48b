/* policy.c - see policy.h. */
#include "worker/policy.h"

#include <stdlib.h>

struct own_policy {
	char *domain;
	struct policy policy;
};

struct policies {
	struct policy general;
	struct own_policy *own; /* sorted by domain, as the configuration is */
	size_t own_count;
};

/* --- one policy --- */

static int64_t exponential_ceiling_ms(const struct policy *p, unsigned attempt_count)
{
	int64_t ceiling_ms = p->interval_ms;
	for (unsigned i = 1; i < attempt_count && ceiling_ms < p->interval_max_ms; i++)
		if (__builtin_mul_overflow(ceiling_ms, p->factor, &ceiling_ms))
			ceiling_ms = p->interval_max_ms;
	return ceiling_ms < p->interval_max_ms ? ceiling_ms : p->interval_max_ms;
}

int64_t policy_wait_ms(const struct policy *p, unsigned attempt_count, uint64_t random)
{
	int64_t ceiling_ms;
	switch (p->kind) {
	case POLICY_LIST:
		return p->list_ms[attempt_count < p->list_count ? attempt_count - 1 : p->list_count - 1];
	case POLICY_EXPONENTIAL:
		ceiling_ms = exponential_ceiling_ms(p, attempt_count);
		return 1 + (int64_t)(random % (uint64_t)(ceiling_ms > 0 ? ceiling_ms : 1));
	case POLICY_FIXED:
		break;
	}
	return p->interval_ms;
}

const char *policy_exhausted(
	const struct policy *p, unsigned attempt_count, struct wall accepted_at, struct wall now)
{
	if (attempt_count >= p->max_attempts)
		return "attempts_exhausted";
	if (p->lifetime_ms && now.ms - accepted_at.ms >= p->lifetime_ms)
		return "expired";
	return NULL;
}

/* --- all of them --- */

static struct policy general_policy(const struct config *c)
{
	struct policy p = {
		.kind = (enum policy_kind)c->retry_policy,
		.interval_ms = c->retry_interval,
		.interval_max_ms = c->retry_interval_max,
		.factor = c->retry_factor,
		.max_attempts = (unsigned)c->max_attempts,
		.lifetime_ms = c->message_lifetime,
	};
	p.list_count = config_durations(c->retry_list, p.list_ms);
	return p;
}

int policies_new(const struct config *c, struct policies **ret, struct err *e)
{
	struct policies *p = calloc(1, sizeof(*p));
	if (!p)
		return err_oom(e);
	p->general = general_policy(c);
	p->own = calloc(c->domain_count ? c->domain_count : 1, sizeof(*p->own));
	bool whole = p->own != NULL;
	for (size_t i = 0; whole && i < c->domain_count; i++) {
		const struct config_domain *d = &c->domains[i];
		if (!d->retry_interval && !d->max_attempts)
			continue;
		struct own_policy *own = &p->own[p->own_count++];
		own->domain = strdup(d->name);
		own->policy = p->general;
		if (d->retry_interval)
			own->policy.interval_ms = d->retry_interval;
		if (d->max_attempts)
			own->policy.max_attempts = (unsigned)d->max_attempts;
		whole = own->domain != NULL;
	}
	if (!whole) {
		policies_free(p);
		return err_oom(e);
	}
	*ret = p;
	return 0;
}

void policies_free(struct policies *p)
{
	if (!p)
		return;
	for (size_t i = 0; i < p->own_count; i++)
		free(p->own[i].domain);
	free(p->own);
	free(p);
}

static int compare_domain(const void *key, const void *entry)
{
	const struct str *domain = key;
	const struct own_policy *own = entry;
	return str_cmp(*domain, str_of(own->domain));
}

const struct policy *policies_of(const struct policies *p, struct str domain)
{
	const struct own_policy *own =
		bsearch(&domain, p->own, p->own_count, sizeof(*p->own), compare_domain);
	return own ? &own->policy : &p->general;
}
