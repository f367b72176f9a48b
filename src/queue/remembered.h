/* remembered.h - the first answer to a request with an Idempotency-Key, as drivers keep it.
 * Threads: none of its own. */
#ifndef QUEUE_REMEMBERED_H
#define QUEUE_REMEMBERED_H

#include "queue/queue.h"

struct remembered {
	uint64_t key; /* order key of the request's first message: unique, and in order of time */
	uint8_t key_hash[QUEUE_HASH_BYTES], payload_hash[QUEUE_HASH_BYTES];
	struct uuid first_id;
	struct wall accepted_at;
	uint64_t position;
	unsigned count;
};

/* What a map of keys in memory knows a request by; equal ones may still differ in key_hash. */
uint64_t remembered_print(const uint8_t key_hash[QUEUE_HASH_BYTES]);

/* The answer that `put` is given now. */
struct remembered remembered_of(const struct queue_put *put);

/* Gives `put` the first answer again; returns QUEUE_REPLAYED, or QUEUE_MISMATCH for another payload. */
MUST_CHECK int remembered_answer(const struct remembered *r, struct queue_put *put);

/* The lowest order key that is remembered at this time; those below are forgotten. */
uint64_t remembered_floor(struct wall now, int64_t idempotency_ms);

#endif
