/* spool_tag.c - see spool_tag.h. */
#include "queue/spool_tag.h"

#include "base/buf.h"

/* At the end of the envelope: the key's part, if there is one, then a byte that says so. */
enum { TAG_PLAIN = 0, TAG_KEYED = 1, TAG_KEY_BYTES = 2 * QUEUE_HASH_BYTES + 2 * 2 };

struct str spool_tag_add(
	struct arena *arena, struct str envelope, const struct queue_put *put, unsigned index)
{
	size_t n = envelope.n + (put->has_key ? TAG_KEY_BYTES : 0) + 1;
	char *bytes = arena_alloc(arena, n);
	if (!bytes)
		return (struct str){NULL, 0};
	/* A buf over it, as large as it may ever get. */
	struct buf out = {.p = bytes, .room = n, .ceiling_bytes = n};
	buf_add_str(&out, envelope);
	if (put->has_key) {
		buf_add(&out, put->key_hash, QUEUE_HASH_BYTES);
		buf_add(&out, put->payload_hash, QUEUE_HASH_BYTES);
		buf_add_u16(&out, (uint16_t)index);
		buf_add_u16(&out, (uint16_t)put->count);
	}
	buf_add_u8(&out, put->has_key ? TAG_KEYED : TAG_PLAIN);
	return buf_str(&out);
}

int spool_tag_take(struct str *envelope, struct spool_tag *ret, struct err *e)
{
	uint8_t kind = envelope->n ? (uint8_t)envelope->p[envelope->n - 1] : TAG_PLAIN;
	size_t tag_bytes = 1 + (kind == TAG_KEYED ? TAG_KEY_BYTES : 0);
	if (kind > TAG_KEYED || envelope->n < tag_bytes)
		return err_set(e, ERR_FATAL, "the spool holds a message that it did not write");
	*ret = (struct spool_tag){.has_key = kind == TAG_KEYED};
	envelope->n -= tag_bytes;
	if (!ret->has_key)
		return 0;
	struct cursor c = cursor_of(str_mem(envelope->p + envelope->n, TAG_KEY_BYTES));
	cursor_copy(&c, ret->key_hash, QUEUE_HASH_BYTES);
	cursor_copy(&c, ret->payload_hash, QUEUE_HASH_BYTES);
	ret->index = cursor_u16(&c);
	ret->count = cursor_u16(&c);
	return 0;
}
