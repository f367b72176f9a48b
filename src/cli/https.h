/* https.h - libcurl as the client commands use it: TLS 1.3, a client certificate, one trusted authority, the
 * host name checked.
 *
 * Ownership: handles are the caller's (curl_easy_cleanup); the options must outlive them.
 * Threads:   a handle belongs to one thread at a time.
 * Errors:    see https_error. */
#ifndef CLI_HTTPS_H
#define CLI_HTTPS_H

#include <curl/curl.h>

#include "base/buf.h"
#include "base/err.h"

enum { HTTPS_ANSWER_BYTES = 4 << 20 };

struct https_options {
	const char *url; /* https://HOST:PORT, maybe with a path in front of the API's */
	const char *cert, *key, *ca;
	long timeout_ms; /* for connecting and for a whole request */
	bool plain;      /* http:// is taken too: a metrics listener on this machine */
};

/* What libcurl does not keep: the alert with which the server refused, and its error text. */
struct https_failure {
	int alert; /* -1: none */
	char text[CURL_ERROR_SIZE];
};

/* Whether certificate, key and authority can be used, before anything is sent: libcurl's own words for this
 * do not name the file. */
MUST_CHECK int https_check(const struct https_options *o, struct err *e);

/* A handle that appends the answer's body to `answer` and notes failures in `failure`. */
MUST_CHECK int https_handle(const struct https_options *o, const char *path, struct buf *answer,
	struct https_failure *failure, CURL **ret, struct err *e);

/* A failed transfer as an error: ERR_FORBIDDEN when one side does not accept the other's certificate,
 * ERR_RETRY when the server could not be reached or broke off, ERR_REJECT for the rest. Returns -1. */
int https_error(CURLcode code, const struct https_failure *failure, const char *url, struct err *e);

/* One GET, from start to end. */
MUST_CHECK int https_get(
	const struct https_options *o, const char *path, int *ret_status, struct buf *answer, struct err *e);

#endif
