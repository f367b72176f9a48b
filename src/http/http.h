/* http.h - requests, answers, routes: what a handler sees. The connection side is in server.h.
 *
 * A handler gets a complete request (head and body), and answers it once: at once, or later from a completion on
 * the same loop thread. Until it answers, the request stays valid, even if the peer goes away (then the answer
 * is dropped). HTTP/1.1 and HTTP/2 look the same from here.
 *
 * Ownership: the request and everything in it belong to the server and live in the request's arena until the
 *            answer is given. An answer's body is copied, or handed over with http_reply_buf.
 * Threads:   handler and answer on the connection's loop thread.
 * Security:  headers and target are validated (RFC 9110, RFC 9112) and bounded before a handler sees them. */
#ifndef HTTP_HTTP_H
#define HTTP_HTTP_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/err.h"
#include "loop/loop.h"
#include "tls/identity.h"

struct http_request;
struct http_server;

struct http_header {
	struct str name; /* as sent; compare with str_eq_nocase */
	struct str value;
};

enum { HTTP_PARAMS = 4 };

struct http_request {
	struct str method, target, path,
		query; /* path is percent-decoded only where a route has a parameter */
	struct str body;
	const struct http_header *headers;
	unsigned header_count;
	struct str params[HTTP_PARAMS]; /* {…} of the route's pattern, in order */
	const struct http_route *route;
	const struct identity *peer; /* role none: no certificate */
	bool peer_local;             /* over the admin socket or from loopback */
	char peer_address[64];
	char request_id[65];     /* the client's X-Request-Id if sane, else one of ours */
	struct mono received_at; /* head complete */
	struct arena *arena;
	struct loop *loop;
	void *context; /* of the server: struct http_server_options.context */
};

/* Value of the first header of that name; .p NULL when absent. */
struct str http_header(const struct http_request *r, struct str name);

/* The same for a header that may occur once only: false when it occurs more often, whatever the values. */
MUST_CHECK bool http_header_once(const struct http_request *r, struct str name, struct str *ret);

/* Value of a query parameter, percent-decoded into the arena; .p NULL when absent. */
struct str http_query(struct http_request *r, struct str name);

/* It waits for something that may be long in coming, and does nothing meanwhile: it gives its place among the requests
 * in flight back. How many can wait is bounded by connections and streams. */
void http_wait(struct http_request *r);

/* Counts memory that a handler keeps until it answers among that of the bodies. False: they have taken all the room there
 * is, it is to be answered 503. A request that is alone always gets it. */
MUST_CHECK bool http_take_room(struct http_request *r, size_t bytes);

/* --- answering --- */

/* Adds a header to the answer; before http_reply. Name and value are copied; bad characters in the name are a bug of
 * ours. A value that no header can hold (control characters) is left out: values may come from the network. */
void http_set_header(struct http_request *r, const char *name, struct str value);

/* Sends the answer. content_type (a literal, or in the request's arena) NULL: no body. The status is one of
 * statuses.def. The request is gone afterwards. */
void http_reply(struct http_request *r, int status, const char *content_type, struct str body);

/* Answers and then closes the connection (revoked certificate). */
void http_reply_close(struct http_request *r, int status, const char *content_type, struct str body);

/* As http_reply, without a copy: takes the body over and leaves *body empty. For large answers. */
void http_reply_buf(struct http_request *r, int status, const char *content_type, struct buf *body);

/* As http_reply, without a copy: for a body that outlives the server, such as a literal. */
void http_reply_lasting(struct http_request *r, int status, const char *content_type, struct str body);

/* --- problems: application/problem+json, RFC 9457 --- */

/* One table (problems.def): id, code, status, title. */
enum http_problem {
#define PROBLEM(id, code, status, title) PROBLEM_##id,
#include "http/problems.def"
#undef PROBLEM
	PROBLEM_COUNT
};

struct http_field_problem {
	const char *pointer, *code, *detail;
};

struct http_problem_options {
	const char *detail; /* may be NULL */
	const struct http_field_problem *fields;
	unsigned field_count;
	unsigned retry_after_s; /* 0: the table's default where the code asks for one */
	bool close;
};

void http_reply_problem(
	struct http_request *r, enum http_problem problem, const struct http_problem_options *o);

/* By the one table over error kinds: RETRY 503, REJECT 400, FORBIDDEN 403, NOT_FOUND 404, CONFLICT 409, FATAL 500
 * (whose text goes to the log, not to the client). */
void http_reply_err(struct http_request *r, const struct err *e);

/* The problem as a JSON object, for batch results. */
void http_problem_write(struct buf *out, enum http_problem problem, const struct http_problem_options *o,
	const char *request_id);
const char *http_problem_code(enum http_problem problem);
int http_problem_status(enum http_problem problem);

/* Default for Retry-After; 0 where the problem asks for none. */
unsigned http_problem_retry_after_s(enum http_problem problem);

/* --- routes --- */

typedef void http_handler(struct http_request *r);

struct http_route {
	const char *method;
	const char *pattern; /* "/api/v1/messages/{id}" */
	unsigned roles;      /* ROLE_BIT mask; ROLE_BIT(ROLE_NONE): anyone, also without a certificate */
	bool local;          /* also anyone from loopback or the admin socket */
	http_handler *handler;
	const char *summary;       /* for OpenAPI and --help */
	size_t body_ceiling_bytes; /* larger: 413; 0: no body allowed */
	bool late;                 /* a certificate that has ended, in its grace, is enough */
};

#endif
