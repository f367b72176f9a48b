/* upstream.h - what a proxy on a machine of its own tells and asks the main server besides the feed: which
 * messages it has accepted (so that they can be seen before they are delivered), whose certificates were used (so
 * that those before them end), and what became of a message.
 *
 * Registering is best effort and never in a client's way: accepted messages are copied into a bounded buffer,
 * sent in batches by a thread, and dropped (counted) when the buffer is full or the server is away. Delivery
 * makes good for it. Uses of certificates are told within a second or two, and kept in the registry while the
 * main server is away.
 *
 * Ownership: upstream_new … upstream_free; the proxy is drained first; the registry outlives it.
 * Threads:   upstream_register and upstream_lookup from any I/O loop; they never block on the network. */
#ifndef PROXY_UPSTREAM_H
#define PROXY_UPSTREAM_H

#include "message/sealed.h"
#include "role/client.h"
#include "role/lookup.h"
#include "tls/registry.h"

struct upstream;

MUST_CHECK int upstream_new(
	const struct client_options *o, struct registry *registry, struct upstream **ret, struct err *e);
void upstream_free(struct upstream *u);

/* Ends the questions under way and fails those to come, so that nobody waits for a main server that is away.
 */
void upstream_cancel(struct upstream *u);

/* The next requests make connections of their own, with the files as they are then. From any thread. */
void upstream_reload(struct upstream *u);

void upstream_register(struct upstream *u, const struct sealed *messages, unsigned count);

/* arg is the upstream. */
lookup_fn upstream_lookup;

#endif
