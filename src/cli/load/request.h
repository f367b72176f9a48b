/* request.h - the request that a load run sends, built once; each sending only changes digits in place.
 * Every message gets its own sender number from a block of a hundred million under +49151, so that nothing
 * downstream sees one number only.
 * Threads: one owner; each worker builds its own. */
#ifndef CLI_LOAD_REQUEST_H
#define CLI_LOAD_REQUEST_H

#include "base/buf.h"
#include "cli/load/options.h"

struct request {
	const char *method, *path, *content_type, *authority;
	struct buf bytes;     /* as HTTP/1.1 */
	size_t body_at;       /* where the body starts in bytes */
	size_t number_at;     /* of the first message's digits, in bytes */
	size_t message_bytes; /* distance to the next message's */
	unsigned messages;
	uint32_t number; /* the next sender number */
};

/* POST of one message, or of a batch as NDJSON. `first_number` sets workers apart. */
MUST_CHECK int request_init_ingest(
	struct request *r, const struct load_options *o, uint32_t first_number, struct err *e);

/* GET without a body. */
MUST_CHECK int request_init_get(
	struct request *r, const struct load_options *o, const char *path, struct err *e);
void request_clear(struct request *r);

/* New sender numbers for all messages. */
void request_vary(struct request *r);

static inline struct str request_body(const struct request *r)
{
	return str_mem(r->bytes.p + r->body_at, r->bytes.n - r->body_at);
}

#endif
