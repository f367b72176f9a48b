/* listen.h - sockets that connections come from: made or inherited, polled on one loop, accepted in bunches and
 * handed to the shards.
 *
 * When descriptors run out, one kept in reserve is used to accept and close, so that the peer is told and the loop
 * does not spin.
 *
 * Private to http/. Threads: open, stop and free from the owner; the rest on the loop. */
#ifndef HTTP_LISTEN_H
#define HTTP_LISTEN_H

#include "http/shard.h"

struct listener;

/* Bound and listening; accepts once started. ERR_CONFLICT: address in use. */
MUST_CHECK int listener_open(
	struct http_server *server, const struct http_listen *o, struct listener **ret, struct err *e);

/* Polled on the loop of that shard, under its limits. */
MUST_CHECK int listener_start(struct listener *l, struct shard *home, struct err *e);

/* Accepts no more; the address is free again. May be called twice, and before start. */
void listener_stop(struct listener *l);

/* After the server's handles are gone. Takes NULL. */
void listener_free(struct listener *l);

const char *listener_address(const struct listener *l);
bool listener_is_tls(const struct listener *l);

#endif
