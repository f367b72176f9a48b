/* access_log.h - one event for each answered request, as http_server_options.answered.
 *
 *	http.request listener=ingest method=POST route=/api/v1/messages status=202 bytes=214 duration_us=1630
 *	             request_id=… client=client_001 address=127.0.0.1:40112
 *
 * Threads:  any; the switch is the process's, as the log's level is. Off it costs one relaxed load a request.
 * Security: the route's pattern, never the target as sent: no query string, no id, no body. Values from the
 *           network are escaped by the log. */
#ifndef ROLE_ACCESS_LOG_H
#define ROLE_ACCESS_LOG_H

#include "http/http.h"

/* Option access_log; may change at any time. */
void access_log_switch(bool on);

/* One for each listener, which is what tells them apart. */
typedef void access_log_fn(const struct http_request *r, int status, size_t body_bytes, int64_t duration_ns);
access_log_fn access_log_ingest, access_log_server, access_log_admin, access_log_metrics, access_log_crl;

#endif
