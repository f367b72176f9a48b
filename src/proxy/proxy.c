/* proxy.c - wiring of the proxy: listener, route table, sealing key, health checks. Handlers: ingest.c. */
#include "proxy/proxy.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/metrics.h"
#include "proxy/internal.h"
#include "role/access_log.h"
#include "role/listener_limits.h"
#include "role/routes.h"

enum {
	ENVELOPE_BYTES = SEALED_MAX_BYTES,
	ANSWER_BYTES = 64 * 1024,
	MESSAGE_REQUEST_BYTES = 64 * 1024,
	BATCH_REQUEST_BYTES = 4 * 1024 * 1024,
	CERT_SOON_DAYS = 14,
};

#define DAY_MS INT64_C(86400000)

const struct http_route proxy_routes[] = {
	{"POST", "/api/v1/messages", ROLE_BIT(ROLE_CLIENT), false, proxy_post_message, "Send one message",
		MESSAGE_REQUEST_BYTES},
	{"POST", "/api/v1/messages/batch", ROLE_BIT(ROLE_CLIENT), false, proxy_post_batch,
		"Send up to 1000 messages", BATCH_REQUEST_BYTES},
	{"GET", "/api/v1/messages/{id}", ROLE_BIT(ROLE_CLIENT), false, proxy_get_message,
		"What became of a message", 0},
	{0},
};

static void check_queue(void *arg, struct health_report *ret)
{
	const struct proxy *p = arg;
	struct queue_glance glance;
	queue_glance(p->queue, &glance);
	if (!glance.healthy) {
		ret->status = HEALTH_FAILED;
		snprintf(ret->detail, sizeof(ret->detail), "%s", glance.trouble);
	} else if (glance.accept_paused) {
		ret->status = HEALTH_FAILED;
		snprintf(ret->detail, sizeof(ret->detail), "accepting is paused: %s", glance.accept_reason);
	} else if (glance.spooling) {
		ret->status = HEALTH_DEGRADED;
		snprintf(ret->detail, sizeof(ret->detail), "accepting into the spool, %llu there; %s",
			(unsigned long long)glance.spooled, glance.spool_reason);
	} else if (glance.delivery_paused) {
		ret->status = HEALTH_DEGRADED;
		snprintf(ret->detail, sizeof(ret->detail), "delivery is paused, %llu queued: %s",
			(unsigned long long)glance.queued, glance.delivery_reason);
	} else {
		snprintf(ret->detail, sizeof(ret->detail), "%llu queued, %llu processing, %llu failed; %s",
			(unsigned long long)glance.queued, (unsigned long long)glance.processing,
			(unsigned long long)glance.failed, queue_durability(p->queue));
	}
}

/* Room for idempotency keys runs out slowly, and costs the requests that have one: nothing that makes unready. */
static void check_idempotency(void *arg, struct health_report *ret)
{
	const struct proxy *p = arg;
	struct queue_glance glance;
	queue_glance(p->queue, &glance);
	if (queue_keys_scarce(&glance))
		ret->status = HEALTH_DEGRADED;
	snprintf(ret->detail, sizeof(ret->detail),
		"%llu of %llu idempotency keys (idempotency_max) are remembered",
		(unsigned long long)glance.keys, (unsigned long long)glance.keys_max);
}

static void check_disk(void *arg, struct health_report *ret)
{
	const struct proxy *p = arg;
	int64_t left = atomic_load(&p->disk_free_bytes), min = atomic_load(&p->disk_free_min_bytes);
	if (left < min)
		ret->status = HEALTH_FAILED;
	else if (left < 4 * min)
		ret->status = HEALTH_DEGRADED;
	snprintf(ret->detail, sizeof(ret->detail), "%lld MiB free, %lld MiB needed", (long long)(left >> 20),
		(long long)(min >> 20));
}

static void check_certificate(void *arg, struct health_report *ret)
{
	const struct proxy *p = arg;
	int64_t left_ms = tls_server_not_after(p->tls).ms - clock_wall(p->clock).ms;
	if (left_ms <= 0) {
		ret->status = HEALTH_FAILED;
		snprintf(ret->detail, sizeof(ret->detail), "the listener's certificate has expired");
		return;
	}
	if (left_ms < CERT_SOON_DAYS * DAY_MS)
		ret->status = HEALTH_DEGRADED;
	snprintf(ret->detail, sizeof(ret->detail), "the listener's certificate ends in %lld days",
		(long long)(left_ms / DAY_MS));
}

static void check_sealing_key(void *arg, struct health_report *ret)
{
	const struct proxy *p = arg;
	if (atomic_load(&p->key_generation) != 0)
		return;
	ret->status = HEALTH_FAILED;
	snprintf(ret->detail, sizeof(ret->detail), "no sealing key yet");
}

static int make_shards(struct proxy *p, unsigned count, struct err *e)
{
	p->shards = aligned_alloc(64, count * sizeof(*p->shards));
	if (!p->shards)
		return err_oom(e);
	memset(p->shards, 0, count * sizeof(*p->shards));
	p->shard_count = count;
	for (unsigned i = 0; i < count; i++) {
		buf_init(&p->shards[i].envelope, ENVELOPE_BYTES);
		buf_init(&p->shards[i].answer, ANSWER_BYTES);
		if (sealer_new(p->clock, &p->shards[i].sealer, e) < 0)
			return -1;
	}
	return 0;
}

static struct proxy_rates *rates_from_config(const struct config *c)
{
	struct proxy_rates *r = calloc(1, sizeof(*r) + c->domain_count * sizeof(r->own[0]));
	if (!r)
		return NULL;
	r->client = (struct rate_limit){c->rate_client, c->rate_client_burst};
	r->domain = (struct rate_limit){c->rate_domain, c->rate_domain_burst};
	r->any = c->rate_client || c->rate_domain;
	for (size_t i = 0; i < c->domain_count; i++) {
		const struct config_domain *d = &c->domains[i];
		if (!d->rate && !d->rate_client)
			continue;
		r->own[r->own_count].client = (struct rate_limit){d->rate_client, 0};
		r->own[r->own_count].whole = (struct rate_limit){d->rate, 0};
		snprintf(r->own[r->own_count].domain, sizeof(r->own[0].domain), "%s", d->name);
		r->own_count++;
		r->any = true;
	}
	return r;
}

static int take_config(struct proxy *p, const struct config *config, struct err *e)
{
	struct proxy_rates *rates = rates_from_config(config);
	if (!rates)
		return err_oom(e);
	rates->older = atomic_load(&p->rates);
	atomic_store(&p->rates, rates);
	p->context.metrics_public = config->metrics_public;
	atomic_store(&p->disk_free_min_bytes, config->disk_free_min);
	return 0;
}

static int listen_for_clients(struct proxy *p, const struct proxy_options *o, struct err *e)
{
	struct tls_server_options tls = {
		.cert_file = o->cert_file,
		.key_file = o->key_file,
		.ca_file = o->ca_file,
		.issuers_file = o->issuers_file,
		.trust_domain = o->config->trust_domain,
		.client_cert = true,
		.http2 = true,
		.roles = ROLE_BIT(ROLE_CLIENT) | ROLE_BIT(ROLE_MONITOR),
		.registry = o->registry,
		.clock = o->clock,
	};
	if (tls_server_new(&tls, &p->tls, e) < 0)
		return err_context(e, "ingest listener");
	p->routes = routes_join((const struct http_route *const[]){proxy_routes, health_routes, NULL}, 0);
	if (!p->routes)
		return err_oom(e);
	struct http_listen listen = {.address = o->config->ingest_listen, .fd = o->listen_fd, .tls = p->tls};
	struct http_server_options http = {
		.name = "ingest",
		.listens = &listen,
		.listen_count = 1,
		.loops = o->loops,
		.loop_count = o->loop_count,
		.handshake_loops = o->handshake_loops,
		.handshake_loop_count = o->handshake_loop_count,
		.routes = p->routes,
		.context = p,
		.registry = o->registry,
		.clock = o->clock,
		.answered = access_log_ingest,
	};
	limits_from_config(o->config, &http.limits);
	return http_server_start(&http, &p->http, e);
}

int proxy_start(const struct proxy_options *o, struct proxy **ret, struct err *e)
{
	struct proxy *p = aligned_alloc(64, (sizeof(*p) + 63) & ~(size_t)63);
	if (!p)
		return err_oom(e);
	memset(p, 0, sizeof(*p));
	p->context.health = o->health;
	p->context.openapi = proxy_openapi;
	p->clock = o->clock;
	p->queue = o->queue;
	p->registry = o->registry;
	pthread_mutex_init(&p->key_lock, NULL);
	atomic_store(&p->disk_free_bytes, INT64_MAX);
	uuid_source_init(&p->ids, o->clock, queue_floor_key(o->queue));
	p->lookup = o->lookup;
	p->lookup_arg = o->lookup_arg;
	p->upstream = o->upstream;
	health_add(o->health, "queue", true, check_queue, p);
	health_add(o->health, "idempotency", false, check_idempotency, p);
	health_add(o->health, "disk", true, check_disk, p);
	health_add(o->health, "sealing_key", true, check_sealing_key, p);
	if (take_config(p, o->config, e) < 0 || rate_new(o->clock, &p->client_rates, e) < 0 ||
		rate_new(o->clock, &p->domain_rates, e) < 0 || make_shards(p, o->loop_count, e) < 0 ||
		listen_for_clients(p, o, e) < 0) {
		proxy_free(p);
		return -1;
	}
	health_add(o->health, "certificate", false, check_certificate, p);
	*ret = p;
	return 0;
}

const char *proxy_address(const struct proxy *p)
{
	return http_server_address(p->http, 0);
}

void proxy_set_sealing_key(struct proxy *p, const struct sealing_public *key)
{
	pthread_mutex_lock(&p->key_lock);
	p->sealing_key = *key;
	atomic_fetch_add(&p->key_generation, 1);
	pthread_mutex_unlock(&p->key_lock);
}

struct proxy_shard *proxy_shard_of(struct proxy *p, struct http_request *r)
{
	struct proxy_shard *shard = &p->shards[http_loop_index(r)];
	uint64_t newest = atomic_load_explicit(&p->key_generation, memory_order_acquire);
	if (newest == 0)
		return NULL;
	if (unlikely(newest != shard->key_generation)) {
		pthread_mutex_lock(&p->key_lock);
		sealer_set_key(shard->sealer, &p->sealing_key);
		shard->key_generation = atomic_load(&p->key_generation);
		pthread_mutex_unlock(&p->key_lock);
	}
	return shard;
}

void proxy_set_disk_free(struct proxy *p, int64_t free_bytes)
{
	atomic_store(&p->disk_free_bytes, free_bytes);
}

int proxy_reload(struct proxy *p, const struct config *config, struct err *e)
{
	if (take_config(p, config, e) < 0)
		return -1;
	struct http_limits limits;
	limits_from_config(config, &limits);
	http_server_set_limits(p->http, &limits);
	return 0;
}

int proxy_reload_certs(struct proxy *p, struct err *e)
{
	return tls_server_reload(p->tls, e) < 0 ? err_context(e, "ingest listener") : 0;
}

struct wall proxy_cert_not_after(const struct proxy *p)
{
	return tls_server_not_after(p->tls);
}

void proxy_drain(struct proxy *p, int64_t drain_ms)
{
	http_server_drain(p->http, drain_ms);
	/* What is still asked of the main server has no time left. */
	if (p->upstream)
		upstream_cancel(p->upstream);
}

void proxy_free(struct proxy *p)
{
	if (!p)
		return;
	http_server_free(p->http);
	health_remove(p->context.health, p);
	free(p->routes);
	tls_server_free(p->tls);
	for (unsigned i = 0; i < p->shard_count; i++) {
		sealer_free(p->shards[i].sealer);
		buf_clear(&p->shards[i].envelope);
		buf_clear(&p->shards[i].answer);
	}
	free(p->shards);
	for (struct proxy_rates *r = atomic_load(&p->rates), *older; r; r = older) {
		older = r->older;
		free(r);
	}
	rate_free(p->client_rates);
	rate_free(p->domain_rates);
	pthread_mutex_destroy(&p->key_lock);
	free(p);
}
