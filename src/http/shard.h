/* shard.h - what one server keeps on one loop: connections, their deadlines, a pool of requests, the buffers that
 * all of them share while one is being served, and the list of those with answers to send.
 *
 * Answers leave at the end of the loop's turn: whatever a turn completed for a connection goes out in one write.
 *
 * Private to http/. Threads: the loop's, but for what says otherwise. */
#ifndef HTTP_SHARD_H
#define HTTP_SHARD_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/buf.h"
#include "http/deadline.h"
#include "http/room.h"
#include "http/router.h"
#include "http/server.h"
#include "http/stats.h"
#include "http/tally.h"

struct conn;
struct listener;
struct request;

enum {
	DATE_BYTES = 29,           /* IMF-fixdate, RFC 9110 section 5.6.7 */
	RECEIVE_BYTES = 64 * 1024, /* taken from a peer at once */
	REQUEST_POOL = 256,        /* unused requests kept, at most */
	TICK_MS = 100,             /* how late a deadline may be noticed */
	SHARD_HANDLES = 3,         /* counted as alive by a running shard */
};

struct shard {
	struct http_server *server;
	struct loop *loop;
	unsigned index;
	struct http_limits limits;
	struct link conns; /* all, in no order */
	struct link dirty; /* those with something to send */
	struct deadlines deadlines;
	uv_prepare_t turn_end;
	uv_idle_t again; /* runs while `dirty` is left for the next turn */
	uv_timer_t tick;
	char *received;     /* RECEIVE_BYTES */
	struct buf answers; /* being put together for one connection */
	struct request *pool;
	unsigned pooled;
	_Atomic unsigned in_flight;  /* written by the loop only */
	struct room_share bodies;    /* request bodies in memory, and what handlers keep for them */
	size_t answer_bytes;         /* answers, until the kernel has taken them */
	_Atomic unsigned conn_count; /* those handed over and not yet closed; any thread */
	bool draining;               /* no new connections */
	int64_t date_second;         /* of `date` */
	char date[DATE_BYTES];
	char id_prefix[17]; /* of request ids that we make */
	uint64_t id_next;
};

struct http_server {
	struct http_server_options options; /* without the caller's arrays */
	struct router *router;
	struct stats *stats;
	struct tally *addresses, *clients;
	struct room bodies;
	struct shard *shards; /* of the I/O loops, then of the handshake loops */
	unsigned io_count, shard_count;
	struct listener **listeners;
	unsigned listener_count;
	size_t conn_bytes; /* request bodies that one connection may have in memory, and the same of answers */
	_Atomic unsigned next_handshake;
	_Atomic unsigned open; /* connections */
	_Atomic int64_t refusal_second;
	_Atomic unsigned refusals; /* of certificates, in that second */
	pthread_mutex_t lock;
	pthread_cond_t gone; /* `open` or `alive` fell */
	unsigned alive;      /* under lock: structs and handles that still exist on some loop */
	bool collecting;     /* metrics_on_collect was called */
};

MUST_CHECK int shard_start(
	struct shard *s, struct http_server *server, struct loop *loop, unsigned index, struct err *e);

/* From the owner's thread. All connections are gone. server_gone is called for the handles as they close. */
void shard_stop(struct shard *s);

/* One more connection, to be removed with link_remove. */
void shard_add(struct shard *s, struct link *conn);

static inline struct mono shard_now(const struct shard *s)
{
	return clock_mono(s->server->options.clock);
}

/* The value of Date, DATE_BYTES long. */
const char *shard_date(struct shard *s);

/* The I/O shard with the fewest connections. Any thread. */
struct shard *server_pick_io(struct http_server *server);

/* A lasting count of things on loops that keep the server alive. Any thread. */
void server_alive(struct http_server *server);
void server_gone(struct http_server *server);

#endif
