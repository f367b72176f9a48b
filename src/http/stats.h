/* stats.h - the metrics of one server, with the look-ups done beforehand or once per combination.
 * Threads: any. */
#ifndef HTTP_STATS_H
#define HTTP_STATS_H

#include "base/metrics.h"
#include "http/http.h"

enum reject {
#define REJECT(id, reason) REJECT_##id,
#include "http/rejects.def"
#undef REJECT
	REJECT_COUNT
};

struct stats;

/* `listener` and the routes must outlive the stats. */
MUST_CHECK int stats_new(const char *listener, const struct http_route *routes, unsigned route_count,
	struct stats **ret, struct err *e);
void stats_free(struct stats *s);

void stats_reject(const struct stats *s, enum reject reason);

/* One TLS handshake; `outcome` is "ok" or a name from tls_failure. */
void stats_handshake(const struct stats *s, const char *outcome);

/* A certificate that was refused, for a reason of verify_reason. */
void stats_certificate_refused(const struct stats *s, const char *reason);

/* One answered request. `route` is its index, or the number of routes for a request that matched none. */
void stats_answered(struct stats *s, unsigned route, bool head, int status, int64_t duration_ns);

void stats_gauges(const struct stats *s, unsigned connections, unsigned in_flight);

/* "HTTP/1.1 202 Accepted\r\n". The status must be in statuses.def. */
struct str status_line(int status);

#endif
