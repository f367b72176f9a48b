/* feed.h - what a proxy on a machine of its own learns from the main server: the certificate registry, by
 * long poll, the sealing key, and which issuing CAs there are. All are kept on disk (copy.h, sealing.json, issuers.pem), so
 * that a proxy starts and works while the main server is away; how old the registry is is in health and metrics.
 *
 * What is revoked stays revoked here, also when the main server goes back to a backup in which it was not. A
 * main server that comes with another history (server/feed.c) is followed from the start.
 *
 * Ownership: feed_open … feed_stop; proxy and registry outlive the feed.
 * Threads:   one of its own, which blocks in the long poll; feed_stop cancels it. */
#ifndef PROXY_FEED_H
#define PROXY_FEED_H

#include "crypto/keyring.h"
#include "role/client.h"
#include "role/health.h"
#include "tls/registry.h"

struct feed;

/* In the feed's directory: PEM of the CA's certificates, as the main server has them. */
#define FEED_ISSUERS_FILE "issuers.pem"

struct feed_options {
	struct client_options client;
	const char *dir; /* holds what is kept */
	struct registry *registry;
	struct health *health; /* gets the check "main_server" */
};

/* Reads what is on disk into the registry; nothing there is fine. Before the listeners start. */
MUST_CHECK int feed_open(const struct feed_options *o, struct feed **ret, struct err *e);

/* Starts to follow the main server. `set_key` gets the sealing key from disk now, and every new one later, on
 * the feed's thread. */
typedef void feed_set_key(void *arg, const struct sealing_public *key);
MUST_CHECK int feed_follow(struct feed *f, feed_set_key *set_key, void *arg, struct err *e);
/* The next question to the main server makes a connection of its own, with the files as they are then. */
void feed_reload(struct feed *f);
void feed_close(struct feed *f);

#endif
