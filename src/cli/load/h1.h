/* h1.h - reads HTTP/1.1 answers (RFC 9112): status, Content-Length or chunked, Connection: close.
 * As little as a load generator needs; an answer without a length is an error.
 * Ownership: views point into the input.
 * Threads:   none of its own. */
#ifndef CLI_LOAD_H1_H
#define CLI_LOAD_H1_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"

enum { H1_HEAD_BYTES = 16384 };

struct h1_parser {
	enum { H1_AT_HEAD, H1_AT_BODY, H1_AT_CHUNK, H1_AT_CHUNK_DATA, H1_AT_CHUNK_END, H1_AT_TRAILER } at;
	int status;
	bool close;    /* the server will close after this answer */
	uint64_t left; /* of the body or the chunk */
};

enum h1_step {
	H1_MORE, /* nothing more to be had from this input; keep what is left of it */
	H1_BODY, /* *ret_piece is part of the body */
	H1_DONE, /* the answer is complete; status and close are set */
	H1_BAD,  /* not HTTP/1.1 as we read it */
};

/* Takes the next thing off the front of *in. Starts zeroed. */
MUST_CHECK enum h1_step h1_next(struct h1_parser *p, struct str *in, struct str *ret_piece);

/* What a connection keeps. */
struct h1 {
	struct h1_parser parser;
	struct buf carry; /* the start of a head or chunk line that came in pieces */
};

#endif
