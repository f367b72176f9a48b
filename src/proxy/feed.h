/* feed.h - what a proxy on a machine of its own learns from the main server: the certificate registry, by
 * long poll, and the sealing key. Both are kept on disk, so that a proxy starts and works while the main
 * server is away.
 *
 * The registry on disk is a log of changes, one JSON object a line, written through before a change counts as
 * seen, and written anew when it has grown to twice what it holds, or when it could not be written: a change
 * that is missing there must not be followed by a later one. A torn last line (power loss) is dropped: the
 * change number before it makes the feed send that change again.
 *
 * Ownership: feed_start … feed_stop; proxy and registry outlive the feed.
 * Threads:   one of its own, which blocks in the long poll; feed_stop cancels it. */
#ifndef PROXY_FEED_H
#define PROXY_FEED_H

#include "proxy/proxy.h"
#include "role/client.h"

struct feed;

struct feed_options {
	struct client_options client;
	const char *dir; /* holds registry.log and sealing.json */
	struct registry *registry;
	struct health *health; /* gets the check "main_server" */
};

/* Reads what is on disk into the registry; nothing there is fine. Before the listeners start. */
MUST_CHECK int feed_open(const struct feed_options *o, struct feed **ret, struct err *e);

/* Starts to follow the main server; `proxy` gets the sealing key from disk now and every new one. */
MUST_CHECK int feed_follow(struct feed *f, struct proxy *proxy, struct err *e);
/* The next question to the main server makes a connection of its own, with the files as they are then. */
void feed_reload(struct feed *f);
void feed_close(struct feed *f);

#endif
