/* spool_tag.h - what a put has beside its messages, kept at the end of every envelope that is in a spool: so the
 * put can be made again from messages alone, whichever driver holds them. */
#ifndef QUEUE_SPOOL_TAG_H
#define QUEUE_SPOOL_TAG_H

#include "base/arena.h"
#include "queue/queue.h"

struct spool_tag {
	bool has_key;
	uint8_t key_hash[QUEUE_HASH_BYTES], payload_hash[QUEUE_HASH_BYTES];
	uint16_t index, count; /* this message of those of its put */
};

/* The envelope of a put's message with its tag behind it; .p NULL when the arena is full. */
struct str spool_tag_add(
	struct arena *arena, struct str envelope, const struct queue_put *put, unsigned index);

/* Takes the tag off the end again. ERR_FATAL: there is none. */
MUST_CHECK int spool_tag_take(struct str *envelope, struct spool_tag *ret, struct err *e);

#endif
