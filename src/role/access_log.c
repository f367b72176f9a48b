/* access_log.c - see access_log.h. Route and method are labelled as in the metrics, so that the two can be
 * laid side by side. */
#include "role/access_log.h"

#include <stdatomic.h>

#include "base/log.h"

static atomic_bool enabled;

void access_log_switch(bool on)
{
	atomic_store_explicit(&enabled, on, memory_order_relaxed);
}

static void write_event(const char *listener, const struct http_request *r, int status, size_t body_bytes,
	int64_t duration_ns)
{
	const struct http_route *route = r->route;
	bool known = r->peer && r->peer->role != ROLE_NONE;
	log_event(LOG_INFO, "http.request", LF_STR("listener", listener),
		LF_VIEW("method", route ? r->method : STR("other")),
		LF_STR("route", route ? route->pattern : "none"), LF_INT("status", status),
		LF_UINT("bytes", body_bytes), LF_INT("duration_us", duration_ns / 1000),
		LF_STR("request_id", r->request_id), LF_STR("client", known ? r->peer->name : "-"),
		LF_STR("address", r->peer_address));
}

#define LISTENER(name)                                                                                       \
	void access_log_##name(                                                                              \
		const struct http_request *r, int status, size_t body_bytes, int64_t duration_ns)            \
	{                                                                                                    \
		if (atomic_load_explicit(&enabled, memory_order_relaxed))                                    \
			write_event(#name, r, status, body_bytes, duration_ns);                              \
	}

LISTENER(ingest)
LISTENER(server)
LISTENER(admin)
LISTENER(metrics)
LISTENER(crl)
