/* remembered.c - see remembered.h. Hashes are compared whole; the print only finds candidates. */
#include "queue/remembered.h"

#include <string.h>

uint64_t remembered_print(const uint8_t key_hash[QUEUE_HASH_BYTES])
{
	uint64_t print;
	memcpy(&print, key_hash, sizeof(print));
	return print;
}

struct remembered remembered_of(const struct queue_put *put)
{
	const struct sealed *first = &put->messages[0];
	struct remembered r = {
		.key = uuid_order_key(&first->id),
		.first_id = first->id,
		.accepted_at = first->accepted_at,
		.position = put->position,
		.count = put->count,
	};
	memcpy(r.key_hash, put->key_hash, sizeof(r.key_hash));
	memcpy(r.payload_hash, put->payload_hash, sizeof(r.payload_hash));
	return r;
}

int remembered_answer(const struct remembered *r, struct queue_put *put)
{
	if (memcmp(r->payload_hash, put->payload_hash, sizeof(r->payload_hash)) != 0)
		return QUEUE_MISMATCH;
	put->first_id = r->first_id;
	put->first_accepted_at = r->accepted_at;
	put->first_position = r->position;
	put->first_count = r->count;
	return QUEUE_REPLAYED;
}

uint64_t remembered_floor(struct wall now, int64_t idempotency_ms)
{
	int64_t ms = now.ms - idempotency_ms;
	return ms > 0 ? (uint64_t)ms << 16 : 0;
}
