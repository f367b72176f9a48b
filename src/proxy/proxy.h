/* proxy.h - the role that strangers can reach: takes messages from clients, seals them, queues them durably.
 *
 *	HTTP handler (I/O loop) → validate → seal → queue_put → … commit … → 202 (same loop)
 *
 * A 202 leaves only after the commit that holds the message. Nothing that was accepted is kept in plaintext:
 *the request's arena is wiped when it is answered.
 *
 * Ownership: proxy_start … proxy_drain … proxy_free; the queue, the registry and the loops outlive the proxy.
 * Threads:   start, drain, free, reload, set_* from the owner's thread; handlers on the I/O loops.
 * Errors:    as http_server_start and tls_server_new. */
#ifndef PROXY_PROXY_H
#define PROXY_PROXY_H

#include "base/config.h"
#include "crypto/keyring.h"
#include "http/server.h"
#include "message/uuid.h"
#include "proxy/upstream.h"
#include "queue/queue.h"
#include "role/health.h"
#include "role/lookup.h"

struct proxy;

struct proxy_options {
	const struct config *config; /* read at start and by proxy_reload; not kept */
	const struct clock *clock;
	struct queue *queue;
	struct registry *registry;
	struct health *health;
	const char *cert_file, *key_file, *ca_file; /* of the ingest listener */
	const char *issuers_file;                   /* more issuing CAs, as in tls_server_options */
	int listen_fd; /* a socket that listens already and is taken over; -1: `ingest_listen` is bound */
	struct loop *const *loops;
	unsigned loop_count;
	struct loop *const *handshake_loops;
	unsigned handshake_loop_count;
	lookup_fn *lookup; /* asks the main server what became of a message; NULL: only the queue is asked */
	void *lookup_arg;
	struct upstream *upstream; /* gets what was accepted; NULL: nobody does */
};

MUST_CHECK int proxy_start(const struct proxy_options *o, struct proxy **ret, struct err *e);

/* Address of the ingest listener, "127.0.0.1:8001". */
const char *proxy_address(const struct proxy *p);

/* The key to seal with from now on; before the first one messages are answered 503. */
void proxy_set_sealing_key(struct proxy *p, const struct sealing_public *key);

/* `free_bytes` on the queue's file system; below the configured minimum new messages are answered 503. */
void proxy_set_disk_free(struct proxy *p, int64_t free_bytes);

/* Limits and rates anew; connections stay. */
MUST_CHECK int proxy_reload(struct proxy *p, const struct config *config, struct err *e);

/* The listener's files anew, for connections to come; when that fails the old ones stay. */
MUST_CHECK int proxy_reload_certs(struct proxy *p, struct err *e);

/* When the ingest listener's certificate ends. */
struct wall proxy_cert_not_after(const struct proxy *p);

/* Stops accepting and answers what was accepted. Blocks, at most drain_ms and a little. */
void proxy_drain(struct proxy *p, int64_t drain_ms);
void proxy_free(struct proxy *p);

#endif
