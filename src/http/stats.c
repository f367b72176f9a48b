/* stats.c - see stats.h. A request's series is found in an array by (route, HEAD or not, status); a slot is
 * filled when it is first needed, and filling it twice does no harm, so no lock is needed here. */
#include "http/stats.h"

#include <stdatomic.h>
#include <stdlib.h>

static const struct {
	int status;
	const char *name;
	struct str line;
} statuses[] = {
#define STATUS(code, reason)                                                                                 \
	{code, #code, {"HTTP/1.1 " #code " " reason "\r\n", sizeof("HTTP/1.1 " #code " " reason "\r\n") - 1}},
#include "http/statuses.def"
#undef STATUS
};

static const char *const reject_reasons[] = {
#define REJECT(id, reason) reason,
#include "http/rejects.def"
#undef REJECT
};

enum { STATUS_SLOTS = ARRAY_LEN(statuses), METHODS = 2 /* the route's own, and HEAD */ };

struct stats {
	const char *listener;
	const struct http_route *routes;
	unsigned route_count;
	series_t rejected[REJECT_COUNT];
	series_t handshake_ok, connections, in_flight;
	series_t *seconds;                                    /* by route */
	_Atomic(series_t) (*requests)[METHODS][STATUS_SLOTS]; /* by route; plus one, 0: not looked up yet */
};

static unsigned status_slot(int status)
{
	unsigned i = 0;
	while (i < STATUS_SLOTS && statuses[i].status != status)
		i++;
	require(i < STATUS_SLOTS);
	return i;
}

struct str status_line(int status)
{
	return statuses[status_slot(status)].line;
}

static const char *route_label(const struct stats *s, unsigned route)
{
	return route < s->route_count ? s->routes[route].pattern : "none";
}

static const char *method_label(const struct stats *s, unsigned route, bool head)
{
	if (head)
		return "HEAD";
	return route < s->route_count ? s->routes[route].method : "other";
}

int stats_new(const char *listener, const struct http_route *routes, unsigned route_count, struct stats **ret,
	struct err *e)
{
	struct stats *s = calloc(1, sizeof(*s));
	if (!s)
		return err_oom(e);
	*s = (struct stats){.listener = listener, .routes = routes, .route_count = route_count};
	s->seconds = calloc(route_count + 1, sizeof(s->seconds[0]));
	s->requests = calloc(route_count + 1, sizeof(s->requests[0]));
	if (!s->seconds || !s->requests) {
		stats_free(s);
		return err_oom(e);
	}
	for (unsigned i = 0; i < REJECT_COUNT; i++)
		s->rejected[i] = metric_series(
			METRIC_HTTP_REJECTED, (const char *[]){listener, reject_reasons[i], NULL});
	for (unsigned i = 0; i <= route_count; i++)
		s->seconds[i] = metric_series(
			METRIC_HTTP_SECONDS, (const char *[]){listener, route_label(s, i), NULL});
	s->handshake_ok = metric_series(METRIC_TLS_HANDSHAKES, (const char *[]){listener, "ok", NULL});
	s->connections = metric_series1(METRIC_HTTP_CONNECTIONS, listener);
	s->in_flight = metric_series1(METRIC_HTTP_IN_FLIGHT, listener);
	*ret = s;
	return 0;
}

void stats_free(struct stats *s)
{
	if (!s)
		return;
	free(s->seconds);
	free(s->requests);
	free(s);
}

void stats_reject(const struct stats *s, enum reject reason)
{
	series_add(s->rejected[reason], 1);
}

void stats_handshake(const struct stats *s, const char *outcome)
{
	if (strcmp(outcome, "ok") == 0)
		series_add(s->handshake_ok, 1);
	else
		series_add(metric_series(METRIC_TLS_HANDSHAKES, (const char *[]){s->listener, outcome, NULL}),
			1);
}

void stats_certificate_refused(const struct stats *s, const char *reason)
{
	series_add(metric_series(METRIC_TLS_REFUSED, (const char *[]){s->listener, reason, NULL}), 1);
}

static series_t requests_series(struct stats *s, unsigned route, bool head, unsigned slot)
{
	_Atomic(series_t) *cached = &s->requests[route][head][slot];
	series_t plus_one = atomic_load_explicit(cached, memory_order_relaxed);
	if (plus_one)
		return plus_one - 1;
	series_t series = metric_series(
		METRIC_HTTP_REQUESTS, (const char *[]){s->listener, route_label(s, route),
					      method_label(s, route, head), statuses[slot].name, NULL});
	atomic_store_explicit(cached, series + 1, memory_order_relaxed);
	return series;
}

void stats_answered(struct stats *s, unsigned route, bool head, int status, int64_t duration_ns)
{
	series_add(requests_series(s, route, head, status_slot(status)), 1);
	series_observe(s->seconds[route], duration_ns > 0 ? (uint64_t)duration_ns : 0);
}

void stats_gauges(const struct stats *s, unsigned connections, unsigned in_flight)
{
	series_set(s->connections, connections);
	series_set(s->in_flight, in_flight);
}
