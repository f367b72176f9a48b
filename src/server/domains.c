/* domains.c - see domains.h. A table sorted by name, made anew by every reload. */
#include "server/domains.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/auto.h"
#include "message/message.h"

struct domain {
	char name[DOMAIN_NAME_BYTES + 1];
	char display_name[DOMAINS_DISPLAY_BYTES];
	int64_t retention_ms; /* 0: the general one */
};

struct domains {
	pthread_rwlock_t lock; /* guards what follows */
	struct domain *all;
	size_t count;
	bool open; /* to those that are not listed */
	int64_t retention_ms;
};

/* As options.def has them. */
enum unlisted { UNLISTED_AUTO, UNLISTED_ACCEPT, UNLISTED_REFUSE };

static bool is_open(const struct config *config)
{
	if (config->unlisted_domains == UNLISTED_AUTO)
		return config->domain_count == 0;
	return config->unlisted_domains == UNLISTED_ACCEPT;
}

int domains_reload(struct domains *d, const struct config *config, struct err *e)
{
	struct domain *all = calloc(config->domain_count + 1, sizeof(*all));
	if (!all)
		return err_oom(e);
	for (size_t i = 0; i < config->domain_count; i++) {
		const struct config_domain *from = &config->domains[i];
		all[i].retention_ms = from->retention;
		snprintf(all[i].name, sizeof(all[i].name), "%s", from->name);
		snprintf(all[i].display_name, sizeof(all[i].display_name), "%s",
			from->display_name ? from->display_name : "");
	}
	pthread_rwlock_wrlock(&d->lock);
	struct domain *old = d->all;
	d->all = all;
	d->count = config->domain_count;
	d->open = is_open(config);
	d->retention_ms = config->retention;
	pthread_rwlock_unlock(&d->lock);
	free(old);
	return 0;
}

int domains_new(const struct config *config, struct domains **ret, struct err *e)
{
	struct domains *d = calloc(1, sizeof(*d));
	if (!d)
		return err_oom(e);
	pthread_rwlock_init(&d->lock, NULL);
	if (domains_reload(d, config, e) < 0) {
		domains_free(d);
		return -1;
	}
	*ret = d;
	return 0;
}

void domains_free(struct domains *d)
{
	if (!d)
		return;
	free(d->all);
	pthread_rwlock_destroy(&d->lock);
	free(d);
}

static int by_name(const void *name, const void *domain)
{
	return str_cmp(*(const struct str *)name, str_of(((const struct domain *)domain)->name));
}

/* Under the lock. */
static const struct domain *find(const struct domains *d, struct str name)
{
	return bsearch(&name, d->all, d->count, sizeof(d->all[0]), by_name);
}

/* "a.example, b.example"; cut where an error would be. */
static void list_names(const struct domains *d, char *out, size_t room)
{
	struct buf names = {.p = out, .room = room - 1, .ceiling_bytes = room - 1};
	for (size_t i = 0; i < d->count; i++)
		buf_addf(&names, "%s%s", i ? ", " : "", d->all[i].name);
	out[names.n] = 0;
}

int domains_check(struct domains *d, struct str name, struct err *e)
{
	char known[ERR_TEXT_BYTES / 2];
	pthread_rwlock_rdlock(&d->lock);
	bool good = d->open || find(d, name);
	if (!good)
		list_names(d, known, sizeof(known));
	pthread_rwlock_unlock(&d->lock);
	if (good)
		return 0;
	return err_set(e, ERR_REJECT, "the configuration lists no domain '%.*s', only: %s", STR_ARG(name),
		*known ? known : "none at all");
}

bool domains_listed(struct domains *d, struct str name)
{
	pthread_rwlock_rdlock(&d->lock);
	bool listed = find(d, name);
	pthread_rwlock_unlock(&d->lock);
	return listed;
}

bool domains_display_name(struct domains *d, struct str name, char *out)
{
	*out = 0;
	pthread_rwlock_rdlock(&d->lock);
	const struct domain *domain = find(d, name);
	if (domain)
		snprintf(out, DOMAINS_DISPLAY_BYTES, "%s", domain->display_name);
	pthread_rwlock_unlock(&d->lock);
	return *out;
}

int64_t domains_retention_ms(struct domains *d, struct str name)
{
	pthread_rwlock_rdlock(&d->lock);
	const struct domain *domain = find(d, name);
	int64_t ms = domain && domain->retention_ms ? domain->retention_ms : d->retention_ms;
	pthread_rwlock_unlock(&d->lock);
	return ms;
}

int64_t domains_shortest_retention_ms(struct domains *d)
{
	pthread_rwlock_rdlock(&d->lock);
	int64_t shortest = d->retention_ms;
	for (size_t i = 0; i < d->count; i++) {
		int64_t ms = d->all[i].retention_ms;
		if (ms && (!shortest || ms < shortest))
			shortest = ms;
	}
	pthread_rwlock_unlock(&d->lock);
	return shortest;
}
