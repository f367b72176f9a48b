/* health.c - see health.h. Checks are evaluated when asked: there is no cached state that could go stale.
 * Parts of a role come and go while a listener already, or still, answers: hence the lock. */
#include "role/health.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/auto.h"
#include "base/json.h"
#include "base/metrics.h"
#include "role/version.h"

enum { CHECKS_MAX = 16, ANSWER_BYTES = 16 * 1024, METRICS_BYTES = 4 * 1024 * 1024 };

struct check {
	const char *name;
	bool ready;
	void (*fn)(void *arg, struct health_report *ret);
	void *arg;
};

struct health {
	const struct clock *clock;
	struct mono started;
	atomic_bool draining;
	pthread_rwlock_t lock; /* guards the rest; held for reading while checks run */
	struct check checks[CHECKS_MAX];
	unsigned count;
};

int health_new(const struct clock *clock, struct health **ret, struct err *e)
{
	struct health *h = calloc(1, sizeof(*h));
	if (!h)
		return err_oom(e);
	h->clock = clock;
	h->started = clock_mono(clock);
	pthread_rwlock_init(&h->lock, NULL);
	*ret = h;
	return 0;
}

void health_free(struct health *h)
{
	if (!h)
		return;
	pthread_rwlock_destroy(&h->lock);
	free(h);
}

void health_add(struct health *h, const char *name, bool ready,
	void (*check)(void *arg, struct health_report *ret), void *arg)
{
	pthread_rwlock_wrlock(&h->lock);
	require(h->count < CHECKS_MAX);
	h->checks[h->count++] = (struct check){name, ready, check, arg};
	pthread_rwlock_unlock(&h->lock);
}

void health_remove(struct health *h, const void *arg)
{
	unsigned kept = 0;
	pthread_rwlock_wrlock(&h->lock);
	for (unsigned i = 0; i < h->count; i++)
		if (h->checks[i].arg != arg)
			h->checks[kept++] = h->checks[i];
	h->count = kept;
	pthread_rwlock_unlock(&h->lock);
}

void health_set_draining(struct health *h)
{
	atomic_store(&h->draining, true);
}

bool health_ready(struct health *h, struct health_report *ret_why)
{
	struct health_report report = {HEALTH_OK, ""};
	if (atomic_load(&h->draining))
		report = (struct health_report){HEALTH_FAILED, "shutting down"};
	pthread_rwlock_rdlock(&h->lock);
	for (unsigned i = 0; i < h->count && report.status != HEALTH_FAILED; i++)
		if (h->checks[i].ready)
			h->checks[i].fn(h->checks[i].arg, &report);
	pthread_rwlock_unlock(&h->lock);
	if (report.status == HEALTH_FAILED && ret_why)
		*ret_why = report;
	return report.status != HEALTH_FAILED;
}

static const char *status_name(enum health_status s)
{
	static const char *const names[] = {"healthy", "degraded", "unhealthy"};
	return names[s];
}

static const char *check_name(enum health_status s)
{
	static const char *const names[] = {"ok", "degraded", "failed"};
	return names[s];
}

static const struct role_context *context_of(const struct http_request *r)
{
	return r->context;
}

/* Reasons name hosts, paths and how much is queued: nothing for strangers. */
static bool may_know_why(const struct http_request *r)
{
	return r->peer_local || r->peer->role != ROLE_NONE;
}

static void get_health(struct http_request *r)
{
	struct health *h = context_of(r)->health;
	struct health_report reports[CHECKS_MAX];
	enum health_status overall = HEALTH_OK;
	pthread_rwlock_rdlock(&h->lock);
	for (unsigned i = 0; i < h->count; i++) {
		reports[i] = (struct health_report){HEALTH_OK, ""};
		h->checks[i].fn(h->checks[i].arg, &reports[i]);
		enum health_status weight = reports[i].status;
		if (weight == HEALTH_FAILED && !h->checks[i].ready)
			weight = HEALTH_DEGRADED;
		if (weight > overall)
			overall = weight;
	}
	if (atomic_load(&h->draining))
		overall = HEALTH_FAILED;

	AUTO(buf_auto) struct buf body;
	buf_init(&body, ANSWER_BYTES);
	struct json_out w = json_out_to(&body);
	json_open_object(&w, NULL);
	json_put_str(&w, "status", str_of(status_name(overall)));
	json_put_str(&w, "version", STR(SEALPOST_VERSION));
	json_put_int(&w, "uptime_seconds", mono_diff_ms(clock_mono(h->clock), h->started) / 1000);
	json_put_time(&w, "timestamp", clock_wall(h->clock));
	json_open_object(&w, "checks");
	for (unsigned i = 0; i < h->count; i++) {
		json_open_object(&w, h->checks[i].name);
		json_put_str(&w, "status", str_of(check_name(reports[i].status)));
		if (reports[i].detail[0] && may_know_why(r))
			json_put_str(&w, "detail", str_of(reports[i].detail));
		json_close_object(&w);
	}
	pthread_rwlock_unlock(&h->lock);
	json_close_object(&w);
	json_close_object(&w);
	http_set_header(r, "Cache-Control", STR("no-store"));
	http_reply(r, overall == HEALTH_FAILED ? 503 : 200, "application/json", buf_str(&body));
}

static void get_livez(struct http_request *r)
{
	http_reply(r, 200, "text/plain; charset=utf-8", STR("ok\n"));
}

static void get_readyz(struct http_request *r)
{
	struct health_report why = {HEALTH_OK, ""};
	if (health_ready(context_of(r)->health, &why)) {
		http_reply(r, 200, "text/plain; charset=utf-8", STR("ok\n"));
		return;
	}
	char text[sizeof(why.detail) + 16];
	bool tell = may_know_why(r) && why.detail[0];
	snprintf(text, sizeof(text), "not ready%s%s\n", tell ? ": " : "", tell ? why.detail : "");
	http_set_header(r, "Retry-After", STR("1"));
	http_reply(r, 503, "text/plain; charset=utf-8", str_of(text));
}

static void get_metrics(struct http_request *r)
{
	bool allowed = r->peer_local || r->peer->role == ROLE_MONITOR || context_of(r)->metrics_public;
	if (!allowed) {
		http_reply_problem(r,
			r->peer->role == ROLE_NONE ? PROBLEM_AUTHENTICATION_REQUIRED : PROBLEM_FORBIDDEN,
			&(struct http_problem_options){
				.detail =
					"metrics are served to loopback and to certificates with role monitor"});
		return;
	}
	AUTO(buf_auto) struct buf body;
	buf_init(&body, METRICS_BYTES);
	metrics_write(&body);
	http_reply(r, 200, "text/plain; version=0.0.4; charset=utf-8", buf_str(&body));
}

static void get_openapi(struct http_request *r)
{
	const char *text = context_of(r)->openapi;
	if (!text) {
		http_reply_problem(r, PROBLEM_NOT_FOUND, NULL);
		return;
	}
	http_reply_lasting(r, 200, "application/yaml", str_of(text));
}

/* metrics is open to all rows of the role check: who may see them is decided by get_metrics. */
#define ANYONE                                                                                               \
	(ROLE_BIT(ROLE_NONE) | ROLE_BIT(ROLE_CLIENT) | ROLE_BIT(ROLE_PROXY) | ROLE_BIT(ROLE_WORKER) |        \
		ROLE_BIT(ROLE_SERVER) | ROLE_BIT(ROLE_MONITOR) | ROLE_BIT(ROLE_ADMIN))

const struct http_route health_routes[] = {
	{"GET", "/livez", ANYONE, true, get_livez, "Whether the process runs", 0},
	{"GET", "/readyz", ANYONE, true, get_readyz, "Whether a message can be durably accepted now", 0},
	{"GET", "/api/v1/health", ANYONE, true, get_health, "Health, check by check", 0},
	{"GET", "/metrics", ANYONE, true, get_metrics, "Metrics as Prometheus text", 0},
	{"GET", "/openapi.yaml", ANYONE, true, get_openapi, "This interface as OpenAPI 3.1", 0},
	{0},
};
