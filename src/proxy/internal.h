/* internal.h - what the files of proxy/ share. */
#ifndef PROXY_INTERNAL_H
#define PROXY_INTERNAL_H

#include <stdatomic.h>

#include "crypto/seal.h"
#include "proxy/proxy.h"

/* What one I/O loop keeps for itself, so that loops share nothing on the hot path. */
struct proxy_shard {
	struct sealer *sealer;
	uint64_t key_generation;          /* of the sealing key this sealer has */
	struct buf envelope;              /* scratch */
	struct buf answer;                /* scratch */
	struct message_problems problems; /* scratch */
} __attribute__((aligned(64)));

struct proxy {
	struct role_context context; /* first: the health routes read it */
	const struct clock *clock;
	struct queue *queue;
	struct registry *registry;
	struct tls_server *tls;
	struct http_server *http;
	struct uuid_source ids;

	struct proxy_shard *shards;
	unsigned shard_count;

	pthread_mutex_t key_lock; /* guards sealing_key */
	struct sealing_public sealing_key;
	_Atomic uint64_t key_generation; /* 0: no key yet */

	_Atomic int64_t disk_free_bytes, disk_free_min_bytes;
};

/* The shard of the request's loop, with the newest sealing key; NULL when there is no key yet. */
struct proxy_shard *proxy_shard_of(struct proxy *p, struct http_request *r);

/* Answers 503 and returns false when nothing can be accepted now (disk low, accepting paused). */
bool proxy_can_accept(struct proxy *p, struct http_request *r);

/* Whether Content-Type is application/json (any parameters but another charset than UTF-8 refused). */
bool proxy_content_type_is(const struct http_request *r, struct str media_type);

/* POST /api/v1/messages */
http_handler proxy_post_message;

#endif
