/* router.h - the table of routes, made ready for matching: path → method → who may.
 *
 * Literal patterns win over those with parameters. A path is compared byte for byte, without normalisation: "/a/../b",
 * "/a//b" or "/%61" are other paths than "/b" or "/a". Parameters are whole, non-empty segments.
 *
 * Who asks is told no more than they may know: without a certificate, on a server that has routes for certificates
 * only, what is not there looks like what is not allowed (401).
 *
 * Threads: immutable after router_new. */
#ifndef HTTP_ROUTER_H
#define HTTP_ROUTER_H

#include "http/http.h"

struct router;

/* The table must outlive the router. ERR_FATAL for a bad or repeated pattern. */
MUST_CHECK int router_new(const struct http_route *routes, struct router **ret, struct err *e);
void router_free(struct router *r);

unsigned router_route_count(const struct router *r);

enum router_outcome {
	ROUTER_FOUND,
	ROUTER_NOT_FOUND,
	ROUTER_METHOD, /* path known, method not: 405, see router_allow */
	ROUTER_UNAUTHENTICATED,
	ROUTER_FORBIDDEN,
};

struct router_match {
	unsigned index; /* of the route in the table */
	const struct http_route *route;
	struct str params[HTTP_PARAMS]; /* as sent; .p NULL past the last */
};

/* HEAD is served by a GET route. */
enum router_outcome router_find(const struct router *r, struct str method, struct str path, enum role role,
	bool local, struct router_match *ret);

/* "GET, HEAD, POST": what the path knows, for Allow. NULL when out of memory. */
const char *router_allow(const struct router *r, struct str path, struct arena *arena);

/* Percent-decoding (RFC 3986 section 2.1) into the arena; .p NULL when out of memory. A view of `s` itself when there is nothing
 * to decode. The escapes must be well-formed. */
struct str percent_decode(struct str s, struct arena *arena);

#endif
