/* h1_parse.h - the syntax of HTTP/1.1 (RFC 9112), strict, with no I/O and no state beyond the structs below.
 *
 * A head is read in two steps: h1_scan looks for its end as bytes arrive, never looking at a byte twice and never past the limits;
 * h1_parse then takes the complete head apart. Bodies in chunks go through h1_chunked. How the bytes were cut
 * up on their way never changes a verdict.
 *
 * Where the RFC leaves a choice:
 *   - one CRLF before a request line is skipped (RFC 9112 section 2.2), no more;
 *   - a bare LF or CR, NUL, obs-fold, or space around a header's name is malformed;
 *   - Content-Length is digits only and occurs once; Transfer-Encoding occurs once and is exactly "chunked";
 *     both together are malformed, as is Transfer-Encoding from an HTTP/1.0 peer;
 *   - Host occurs exactly once and is a host with an optional port; only HTTP/1.0 may leave it out;
 *   - HTTP/1.0 is served, one request a connection; HTTP/1.2 to 1.9 count as 1.1; other versions are malformed;
 *   - targets: origin-form and absolute-form of RFC 3986's characters, and '*' for OPTIONS; authority-form is malformed;
 *   - chunk extensions are skipped, trailers are checked and dropped; both are bounded.
 *
 * Ownership: results are views into the bytes given.
 * Threads:   none of its own.
 * Security:  every verdict but H1_DONE and H1_MORE ends the connection: what follows cannot be trusted. */
#ifndef HTTP_H1_PARSE_H
#define HTTP_H1_PARSE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"
#include "http/http.h"

enum h1_verdict {
	H1_MORE, /* right so far */
	H1_DONE,
	H1_DATA, /* h1_chunked only: a piece of the body */
	H1_MALFORMED,
	H1_TOO_LARGE, /* past a limit */
};

struct h1_limits {
	size_t head_bytes; /* request line and headers with their line ends */
	size_t target_bytes;
	unsigned header_count;
};

/* What is too large in a head, in words for the client. */
#define H1_RULE_HEAD    "the request line and the headers are too long together (head_max)"
#define H1_RULE_HEADERS "there are too many headers (headers_max)"
#define H1_RULE_TARGET  "path and query are too long together (target_max)"

/* --- finding the end of a head --- */

struct h1_scan {
	size_t start; /* of the request line: 0, or 2 after a skipped CRLF */
	size_t line_start;
	size_t scanned; /* everything before was looked at */
	unsigned line_count;
};

/* `window` holds everything since the end of the previous request; it may move between calls but only grow.
 * H1_DONE: *ret_head is the head without the empty line, and s->line_start bytes of the window were taken.
 * On H1_MALFORMED and H1_TOO_LARGE *ret_rule says which rule was broken, in words for the client. */
enum h1_verdict h1_scan(struct h1_scan *s, struct str window, const struct h1_limits *l, struct str *ret_head,
	const char **ret_rule);

/* Headers in a head that h1_scan found, so that the caller can make room. */
static inline unsigned h1_scan_headers(const struct h1_scan *s)
{
	return s->line_count - 1;
}

/* --- taking a head apart --- */

struct h1_head {
	struct str method, target, path, query; /* query without the '?' */
	bool version_1_0;
	bool close; /* Connection: close */
	bool expect_continue;
	bool chunked;
	uint64_t content_length;
	unsigned header_count;
};

/* `head` from h1_scan; `headers` has room for h1_scan_headers. */
enum h1_verdict h1_parse(struct str head, const struct h1_limits *l, struct http_header *headers,
	struct h1_head *ret, const char **ret_rule);

/* Splits an origin-form or absolute-form target; the path of OPTIONS's asterisk-form is "*". False for others. */
MUST_CHECK bool h1_target(struct str method, struct str target, struct str *ret_path, struct str *ret_query);

/* Whether it is a host with an optional port. */
MUST_CHECK bool h1_host(struct str s);

/* --- chunked bodies (RFC 9112 section 7.1) --- */

struct h1_chunked {
	enum {
		H1_CHUNK_SIZE, /* first: a zeroed struct is ready */
		H1_CHUNK_EXTENSION,
		H1_CHUNK_SIZE_LF,
		H1_CHUNK_DATA,
		H1_CHUNK_DATA_CR,
		H1_CHUNK_DATA_LF,
		H1_TRAILER_START,
		H1_TRAILER_NAME,
		H1_TRAILER_VALUE,
		H1_TRAILER_LF,
		H1_CHUNKED_LF,
	} state;
	unsigned digits;
	bool extension_begun;
	uint64_t left;         /* of the current chunk */
	size_t overhead_bytes; /* extensions and trailers so far */
	unsigned trailer_count;
};

/* Takes bytes from the front of *in. H1_DATA: *ret_data is the next piece; call again. H1_MORE: all of *in was
 * taken. H1_DONE: *in is what follows the body. H1_TOO_LARGE: a chunk larger than room_bytes was announced (before
 * any of it is read), or extensions and trailers pass the limits of a head. */
enum h1_verdict h1_chunked(struct h1_chunked *c, struct str *in, uint64_t room_bytes,
	const struct h1_limits *l, struct str *ret_data, const char **ret_rule);

#endif
