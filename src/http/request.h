/* request.h - what stands behind a struct http_request: its way from a complete head to a sent answer.
 *
 *	request_begin → RECEIVING → request_dispatch → HANDLING → http_reply → ANSWERED → request_release
 *
 * A request that must be refused (no such route, not allowed, …) is known when its head is complete. A small body is
 * still taken and thrown away, so that the connection can go on; otherwise the connection ends with the answer.
 *
 * Ownership: pooled by the shard with its memory. Holds a reference to its connection.
 * Private to http/. Threads: the connection's loop. */
#ifndef HTTP_REQUEST_H
#define HTTP_REQUEST_H

#include "http/conn.h"
#include "http/http.h"

enum {
	ANSWER_HEADERS = 16,
	DISCARDED_BODY_BYTES = 64 * 1024, /* of a refused request */
};

enum request_state { REQUEST_RECEIVING, REQUEST_HANDLING, REQUEST_ANSWERED };

struct answer {
	int status;
	const char *content_type;
	struct http_header headers[ANSWER_HEADERS];
	unsigned header_count;
	struct buf body; /* unless the text is somebody else's */
	struct str text; /* what is sent as the body */
	size_t sent;     /* of `text`: given to the connection, or to nghttp2 */
	bool begun;      /* HTTP/1: the head was given to the connection */
	bool close;
};

/* RFC 9110 section 6.4.1 */
static inline bool answer_has_body(const struct answer *a)
{
	return a->status >= 200 && a->status != 204 && a->status != 304;
}

struct refusal {
	const char *detail; /* may be NULL */
	enum http_problem problem;
	bool set, close;
};

struct request {
	struct http_request http; /* first: handlers hold this */
	struct conn *conn;
	struct request *next; /* in the pool, or in an HTTP/1 connection */
	enum request_state state;
	struct refusal refusal;
	unsigned route_index;
	bool head_only;    /* HEAD: no body in the answer */
	bool counted;      /* in shard->in_flight */
	bool continue_due; /* 100 Continue is awaited */
	bool failed;       /* out of memory while answering */
	struct arena arena;
	struct buf body;
	size_t received_bytes; /* of the body, kept or thrown away */
	size_t room_bytes;     /* what http_take_room counted */
	struct answer answer;

	/* HTTP/2 only */
	struct link link; /* in the connection */
	int32_t stream_id;
	struct deadline deadline;       /* of this stream */
	bool stream_closed;             /* while a handler works on it */
	struct http_header *h2_headers; /* http.headers, being filled */
	unsigned header_room;
	size_t head_bytes; /* names and values so far */
};

static inline struct request *request_of(struct http_request *r)
{
	return container_of(r, struct request, http);
}

/* NULL when out of memory. */
struct request *request_begin(struct conn *c);

/* Frees the pool's requests. */
void request_pool_clear(struct shard *s);

/* Method, target, path, query and headers are set: finds the route and whether the request is refused. */
void request_head_done(struct request *r);

/* Refuses it, unless it is refused already; `detail` is a literal, in the request's arena, or NULL. */
void request_refuse(struct request *r, enum http_problem problem, const char *detail, bool close);

/* Its head is larger than some limit, `what` says which (a literal); or more body comes than may. */
void request_refuse_head(struct request *r, const char *what, bool close);
void request_refuse_body(struct request *r, bool close);

/* How many bytes of body may come. */
size_t request_body_ceiling(const struct request *r);

/* A piece of the body. False: bodies have taken all the room there is; the request is refused, and to be dispatched. */
MUST_CHECK bool request_add_body(struct request *r, struct str piece);

/* Complete: calls the handler, or answers the refusal. */
void request_dispatch(struct request *r);

/* http_reply was called: the state changes; the place of a request in flight and its body are free again, and the
 * answer takes room until it is released. */
void request_answered(struct request *r);

/* Counts the answer that leaves now, for metrics and the access log. */
void request_sent(const struct request *r, struct mono now);

/* Back to the pool, everything wiped. */
void request_release(struct request *r);

#endif
