/* conn.h - one connection: bytes in, bytes out, over TLS or plain; and the deadlines of both directions. What the
 * bytes mean is its protocol's business (h1.c, h2.c).
 *
 *	accept → [handshake loop] → HANDSHAKE → [I/O loop] → OPEN → LINGER → CLOSED
 *
 * Ownership: counted: one for the transport, one for each request that exists. Freed on its loop.
 * Private to http/. Threads: the shard's loop. */
#ifndef HTTP_CONN_H
#define HTTP_CONN_H

#include "http/h1_parse.h"
#include "http/shard.h"

struct nghttp2_session;

/* What is thrown away after our last word, while the peer still sends: many a client sends its whole body before it
 * looks at the answer. The time for it is DEADLINE_LINGER. */
enum { LINGER_BYTES = 16 << 20 };

struct protocol {
	/* Prepares the connection's state; <0: out of memory. */
	int (*open)(struct conn *c);

	/* Takes bytes from the front; returns how many. The rest is offered again with more behind it. */
	size_t (*input)(struct conn *c, struct str bytes);

	/* Whether more input could be taken now. False stops reading until output was made. */
	bool (*wants_input)(const struct conn *c);

	/* The peer has sent its last byte, and all of them were offered. */
	void (*end_of_input)(struct conn *c);

	/* A request of the connection was answered. May be NULL. */
	void (*answered)(struct conn *c, struct request *r);

	/* The deadline of a request has passed. May be NULL when the protocol sets none. */
	void (*request_late)(struct conn *c, struct request *r);

	/* Sends what is ready, by conn_send. */
	void (*output)(struct conn *c);

	/* No new requests; finish those that there are. */
	void (*drain)(struct conn *c);

	/* The transport is gone: lets go of every request that no handler holds. */
	void (*closed)(struct conn *c);
};

extern const struct protocol protocol_h1, protocol_h2;

enum conn_state {
	CONN_HANDSHAKE,
	CONN_OPEN,
	CONN_LINGER, /* everything is said; the peer's last bytes are thrown away, so that no reset overtakes our answer */
	CONN_CLOSED,
};

enum conn_verdict {
	CONN_GOOD,
	CONN_LATE,       /* good, but the certificate has ended: for some routes only */
	CONN_OVER_LIMIT, /* too many connections of this client */
	CONN_EXPIRED,    /* the certificate ran out since the handshake */
	CONN_REVOKED,
	CONN_SUSPENDED,
	CONN_UNKNOWN,
};

struct h1 {
	struct request *first, *last; /* in order of arrival */
	unsigned count;
	struct h1_scan scan;
	struct request *incoming; /* = last, while its body arrives */
	bool chunked;
	uint64_t body_left; /* unless chunked */
	struct h1_chunked chunks;
	bool no_more; /* nothing is read after what was read */
};

struct h2 {
	struct nghttp2_session *session;
	struct link requests; /* all, also those whose stream is gone while a handler works on them */
	unsigned count;
	int32_t head_stream; /* whose header block is arriving; 0: none */
	bool no_more;        /* GOAWAY was sent */
};

struct conn {
	struct shard *shard;
	struct link link;  /* in shard->conns */
	struct link dirty; /* in shard->dirty */
	struct task task;  /* moves between loops, or reads on in the next turn */
	const struct protocol *protocol;
	enum conn_state state;
	unsigned refs;

	int fd;
	struct tls_server *tls; /* NULL: plain */
	SSL *ssl;
	uv_poll_t poll;
	int polled;         /* events that libuv was asked for */
	bool write_blocked; /* TLS must write before it can go on */
	bool input_ended;   /* the peer sent FIN or close_notify */
	bool finishing;     /* closes once `out` is sent */
	bool leaving;       /* closes now, nothing is owed */
	bool broken;        /* to be cut as soon as nobody stands on it */
	bool reading_on;    /* `task` is on its way */
	struct buf in;      /* received, not yet taken by the protocol */
	struct buf out;     /* not yet taken by the kernel */
	size_t out_sent;    /* of `out` */
	size_t out_mark;    /* bytes still to be sent that the write deadline is about */
	struct deadline read_deadline, write_deadline;
	size_t lingered_bytes;
	uint64_t received_bytes;

	size_t body_bytes;   /* request bodies in memory */
	size_t answer_bytes; /* answers in memory, besides `out` */

	const struct identity *peer;
	bool local;
	bool over_client_limit;
	char address[64];
	struct tally_entry *address_entry, *client_entry;
	uint64_t registry_generation; /* of the last check */
	enum conn_verdict registry_verdict;
	bool registry_checked;

	union {
		struct h1 h1;
		struct h2 h2;
	};
};

/* Where an accepted socket comes from. */
struct conn_origin {
	const char *address; /* at most 63 characters */
	bool local;
	struct tally_entry *address_entry;
	struct tls_server *tls; /* NULL: plain */
};

/* Any thread. Takes the fd and the tally entry over; NULL when out of memory, and then it does not. */
struct conn *conn_new(struct http_server *server, int fd, const struct conn_origin *origin);

/* Sends it to the shard's loop, where it starts; any thread, called once. */
void conn_hand_over(struct conn *c, struct shard *to);

void conn_ref(struct conn *c);
void conn_unref(struct conn *c);

/* Sends bytes, now or when the peer takes them. For protocols. */
void conn_send(struct conn *c, struct str bytes);

static inline size_t conn_unsent(const struct conn *c)
{
	return c->out.n - c->out_sent;
}

/* Has output() called at the end of the turn. */
void conn_mark_dirty(struct conn *c);

/* What the shard calls for each dirty connection. */
void conn_flush(struct conn *c);

/* For protocols: the connection closes in peace once everything is sent. */
void conn_finish(struct conn *c);

/* For protocols: no request is open, the connection closes as soon as what was said is sent. */
void conn_leave(struct conn *c);

/* For protocols: the connection is cut as soon as the protocol returns. */
void conn_break(struct conn *c);

/* For the shard: asks the protocol to come to an end. */
void conn_drain(struct conn *c);

/* Closes now; what was not sent is lost. The struct lives on while requests need it. Not for protocols, which may
 * stand on what it frees. */
void conn_cut(struct conn *c);

/* Starts the read deadline of that class, unless one of that class runs already: deadlines are absolute. */
void conn_expect(struct conn *c, enum deadline_class class);
void conn_expect_nothing(struct conn *c);

/* Counts one that passed. */
void conn_count_timeout(struct conn *c, enum deadline_class class);

/* When a deadline of that class ends if it begins now. */
struct mono conn_deadline_at(const struct conn *c, enum deadline_class class);

/* The peer's standing, checked anew for each request. */
enum conn_verdict conn_check_peer(struct conn *c);

#endif
