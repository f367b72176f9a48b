/* internal.h - what the files of proxy/ share. */
#ifndef PROXY_INTERNAL_H
#define PROXY_INTERNAL_H

#include <stdatomic.h>

#include "crypto/seal.h"
#include "proxy/proxy.h"
#include "proxy/rate.h"
#include "role/lookup.h"

/* What one I/O loop keeps for itself, so that loops share nothing on the hot path. */
struct proxy_shard {
	struct sealer *sealer;
	uint64_t key_generation;          /* of the sealing key this sealer has */
	struct buf envelope;              /* scratch */
	struct buf answer;                /* scratch */
	struct message_problems problems; /* scratch */
} __attribute__((aligned(64)));

/* Rates as configured. A reload puts a new one in front; older ones are kept until the end, because a loop
 * may still read them. */
struct proxy_rates {
	struct proxy_rates *older;
	bool any; /* anything but off */
	struct rate_limit client, domain;
	size_t own_count;
	struct {
		char domain[DOMAIN_NAME_BYTES + 1];
		struct rate_limit client, whole;
	} own[]; /* domains with settings of their own */
};

struct proxy {
	struct role_context context; /* first: the health routes read it */
	const struct clock *clock;
	struct queue *queue;
	struct registry *registry;
	struct tls_server *tls;
	struct http_server *http;
	struct http_route *routes;
	struct uuid_source ids;

	struct proxy_shard *shards;
	unsigned shard_count;

	pthread_mutex_t key_lock; /* guards sealing_key */
	struct sealing_public sealing_key;
	_Atomic uint64_t key_generation; /* 0: no key yet */

	_Atomic int64_t disk_free_bytes, disk_free_min_bytes;

	struct rate *client_rates, *domain_rates;
	_Atomic(struct proxy_rates *) rates;

	lookup_fn *lookup; /* asks the main server; NULL: only the queue is asked */
	void *lookup_arg;
	struct upstream *upstream;
};

/* The shard of the request's loop, with the newest sealing key; NULL when there is no key yet. */
struct proxy_shard *proxy_shard_of(struct proxy *p, struct http_request *r);

/* --- admit.c: each answers the request when it returns false --- */

/* Counts the refusal by its code, as one message, and answers. */
void proxy_refuse(struct http_request *r, enum http_problem problem, const struct http_problem_options *o);

/* The same of a request that is known to hold so many messages. */
void proxy_refuse_messages(struct http_request *r, unsigned count, enum http_problem problem,
	const struct http_problem_options *o);
/* An operation of the queue failed. What it says may name the queue's server or files: that goes to the log. */
void proxy_reply_failed(struct http_request *r, const struct err *e);

/* The queue remembers as many idempotency keys as it may; older ones have their promise, so the new one waits. */
void proxy_refuse_key(struct http_request *r, unsigned count);

void proxy_refuse_invalid(struct http_request *r, const struct message_problems *problems);

/* Whether there is room now: the disk is not low. */
bool proxy_can_accept(struct proxy *p, struct http_request *r);

/* Takes `count` messages' worth of the client's and the domain's rate; sets the RateLimit headers. */
bool proxy_take_rate(struct proxy *p, struct http_request *r, unsigned count);

/* Gives back what proxy_take_rate took: rates are about messages that are accepted, so a replay by Idempotency-Key, a
 * mismatch and a failed commit cost nothing. */
void proxy_give_rate_back(struct proxy *p, const struct http_request *r, unsigned count);

/* Idempotency-Key: 1 to 255 visible ASCII characters, scoped to the client; sets what put has of it.
 */
bool proxy_take_key(struct http_request *r, struct queue_put *put);

/* Whether the body came as it is: not compressed or the like, which nobody here undoes. */
bool proxy_is_plain(struct http_request *r);

/* Whether Content-Type is `media_type`, given once; a charset other than UTF-8 is not. Answers nothing. */
bool proxy_content_type_is(const struct http_request *r, struct str media_type);

/* The W3C trace context of the request, empty when there is none or it is not sane. */
struct str proxy_traceparent(const struct http_request *r);

/* What the ingest listener serves besides the health routes; ends with method NULL. */
extern const struct http_route proxy_routes[];

/* openapi.yaml, which describes them. */
extern const char proxy_openapi[];

/* --- handlers --- */
http_handler proxy_post_message; /* ingest.c */
http_handler proxy_post_batch;   /* batch.c */
http_handler proxy_get_message;  /* status.c */

#endif
