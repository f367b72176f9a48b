/* server.h - listeners and connections: HTTP/1.1 (RFC 9112, a strict subset) and HTTP/2 (RFC 9113, libnghttp2
 * through ALPN) over TLS 1.3, or plain on loopback and unix sockets.
 *
 * acceptor → handshake threads → I/O loops. A connection stays on one loop. Every deadline is absolute
 * (handshake, head, body, idle, write), so a dripping peer is cut. Everything a peer can make grow is bounded
 * before it is allocated, each bound an option below and a metric.
 *
 * Strictness: one digits-only Content-Length or chunked, never both; duplicates, obs-fold, bare LF, NUL, space
 * before the colon, missing or repeated Host: 400 and close. Nothing after such a request is answered.
 *
 * Threads:  start, stop, reload from the owner; handlers on the I/O loops.
 * Errors:   ERR_CONFLICT address in use, ERR_FATAL for the rest. */
#ifndef HTTP_SERVER_H
#define HTTP_SERVER_H

#include "http/http.h"
#include "tls/context.h"

struct http_limits {
	unsigned connections, connections_per_address, connections_per_client;
	size_t head_bytes; /* request line and headers together; 431 */
	unsigned header_count;
	size_t target_bytes;
	int64_t handshake_ms, head_ms, body_ms, idle_ms, write_ms;
	int64_t linger_ms;           /* after our last word, for the peer to hear it and to stop sending */
	unsigned requests_in_flight; /* over all connections of this server; past it 503 */
	size_t body_bytes;           /* request bodies in memory, the same */
	size_t answer_bytes;         /* answers that were not read yet, the same */
	unsigned streams;            /* HTTP/2: concurrent streams a connection */
};

void http_limits_default(struct http_limits *l);

struct http_listen {
	const char *address;    /* "ADDRESS:PORT", "unix:PATH", or NULL */
	int fd;                 /* an already listening socket (socket activation), -1: none */
	struct tls_server *tls; /* NULL: plain; only loopback or unix unless allow_plain */
	bool allow_plain;
};

struct http_server_options {
	const char *name; /* label of its metrics: "ingest", "server", "portal", "metrics", "admin" */
	const struct http_listen *listens;
	unsigned listen_count;
	struct loop *const *loops; /* I/O loops, shared between servers */
	unsigned loop_count;
	struct loop *const
		*handshake_loops; /* where TLS handshakes run, at lower priority; NULL: on the I/O loops */
	unsigned handshake_loop_count;
	const struct http_route *routes; /* ends with method NULL */
	void *context;
	struct http_limits limits;
	const struct registry *registry; /* re-checked at every request; NULL: not */
	int64_t grace_ms; /* a certificate may have ended this long ago, on routes that are marked `late` */
	const struct clock *clock;
	/* Called for each answered request (access log); may be NULL. */
	void (*answered)(const struct http_request *r, int status, size_t body_bytes, int64_t duration_ns);
};

MUST_CHECK int http_server_start(
	const struct http_server_options *o, struct http_server **ret, struct err *e);

/* The address bound by listen number i, "127.0.0.1:43121". */
const char *http_server_address(const struct http_server *s, unsigned i);

/* Stops accepting, answers what was accepted (Connection: close, GOAWAY), at most drain_ms; then cuts. Blocks. */
void http_server_drain(struct http_server *s, int64_t drain_ms);

/* After drain, frees. Takes NULL. */
void http_server_free(struct http_server *s);

/* New limits for connections to come. */
void http_server_set_limits(struct http_server *s, const struct http_limits *l);

unsigned http_server_connections(const struct http_server *s);

/* The current per-loop slot (0 .. loop_count-1) of a request, for handlers with per-thread state. */
unsigned http_loop_index(const struct http_request *r);

#endif
