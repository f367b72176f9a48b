/* connection.h - one TLS connection of the load generator, carrying HTTP/1.1 or HTTP/2.
 *
 * connection_open → handlers.opened → connection_start, connection_flush → handlers.answered … →
 * handlers.closed. It may be opened again after `closed`.
 *
 * Ownership: the owner embeds or allocates it zeroed and calls init; clear frees everything.
 * Threads:   a connector and its connections belong to one thread.
 * Errors:    end in handlers.closed with a class and a text. Handlers must not clear the connection that they
 *            are called for, and only `opened` may start requests on it. */
#ifndef CLI_LOAD_CONNECTION_H
#define CLI_LOAD_CONNECTION_H

#include <nghttp2/nghttp2.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <sys/socket.h>

#include "base/buf.h"
#include "base/err.h"
#include "cli/load/h1.h"
#include "cli/load/request.h"

enum failure {
#define FAILURE(id, name, meaning) id,
#include "cli/load/failure.def"
#undef FAILURE
	FAILURES
};

/* "connect", "reset", … */
const char *failure_name(enum failure f);

/* One request and its answer. */
struct exchange {
	struct exchange *next; /* in the free list, or the next one sent */
	int64_t start_ns;      /* when it was sent, or should have been */
	int status;            /* 0 until the answer's head is there */
	size_t sent_bytes;     /* HTTP/2: of the body, into the frames */
	struct buf body;       /* the answer's, where it is kept */
};

struct connection;

struct handlers {
	void (*opened)(struct connection *c);
	void (*answered)(struct connection *c, const struct exchange *x);
	/* `why` is FAILURES when the connection ended in order. */
	void (*closed)(struct connection *c, enum failure why, unsigned unanswered, const struct err *e);
};

/* How requests become bytes and bytes become answers. */
struct protocol {
	const char *name;
	struct str alpn; /* wire form */
	/* The handshake is done. */
	int (*open)(struct connection *c, struct err *e);
	/* Puts the request into c->out, or where fill finds it. */
	int (*send)(struct connection *c, struct exchange *x, struct err *e);
	/* Bytes from the peer; calls exchange_answered. */
	int (*received)(struct connection *c, struct str bytes, struct err *e);
	/* Adds what the protocol itself has to say to c->out; may be NULL. */
	int (*fill)(struct connection *c, struct err *e);
	void (*close)(struct connection *c);
};

extern const struct protocol load_protocol_h1, load_protocol_h2;

/* Where to connect: one address of the host, and the name its certificate must bear. */
struct target {
	struct sockaddr_storage address;
	socklen_t address_bytes;
	const char *host;
	bool host_is_address;
};

/* The first address of the host that takes a connection. Blocks. ERR_RETRY when none does. */
MUST_CHECK int target_find(const struct load_options *o, struct target *ret, struct err *e);

/* What the connections of one thread share. */
struct connector {
	SSL_CTX *tls;
	const struct target *target;
	const struct protocol *protocol;
	const struct handlers *handlers;
	struct request *request;
	unsigned depth;
	int epoll_fd;
	bool keep_bodies; /* else only those of partly refused batches */
	int64_t now_ns;   /* when the bytes under way were read */
	char *scratch;    /* SCRATCH_BYTES: the largest TLS record */
};

enum { SCRATCH_BYTES = 16384 };

enum connection_state { CONNECTION_CLOSED, CONNECTION_CONNECTING, CONNECTION_HANDSHAKE, CONNECTION_OPEN };

struct connection {
	struct connector *connector;
	enum connection_state state;
	int fd;
	unsigned interest; /* EPOLL bits registered */
	SSL *ssl;
	struct buf out; /* from out_at: not yet written */
	size_t out_at;
	struct exchange *exchanges, *free, *first,
		**last; /* first: sent and not answered, oldest first (HTTP/1.1) */
	unsigned in_flight;
	bool finish; /* to be ended after the answers under way; the server's wish or the owner's */
	struct h1 h1;
	nghttp2_session *h2;
	/* The owner's: */
	struct connection *next_idle, *next_shut;
	bool idle; /* in the idle list */
	int64_t opened_ns;
};

MUST_CHECK int connection_init(struct connection *c, struct connector *connector, struct err *e);
void connection_clear(struct connection *c);

/* Starts to connect. May call closed before it returns. */
void connection_open(struct connection *c);

/* What epoll reported. */
void connection_event(struct connection *c, unsigned events);

/* Whether connection_start may be called. */
static inline bool connection_has_room(const struct connection *c)
{
	return c->state == CONNECTION_OPEN && !c->finish && c->in_flight < c->connector->depth;
}

/* Queues one request; connection_flush sends what is queued. */
void connection_start(struct connection *c, int64_t start_ns);
void connection_flush(struct connection *c);

/* For protocols: the answer is complete. */
void exchange_answered(struct connection *c, struct exchange *x);

/* For protocols: bytes of the answer's body. */
MUST_CHECK int exchange_body(struct connection *c, struct exchange *x, struct str piece, struct err *e);

int64_t load_now_ns(void);

#endif
