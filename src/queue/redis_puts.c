/* redis_puts.c - messages into the Redis engine: gathered by partition, answered by the commit. See redis_engine.h. */
#include "queue/redis_engine.h"

enum { PUT_WORDS_BYTES = 1 << 20 /* of one call of the script: a server does nothing else meanwhile */ };

/* Of put.lua, besides positions and 0: an id is known. */
enum { ANSWER_MISMATCH = -1, ANSWER_KEYS_FULL = -2 };

/* FNV-1a: every process, of every version, has to find the same partition. */
static unsigned partition_of(const struct redis_queue *q, struct str client)
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325);
	for (size_t i = 0; i < client.n; i++)
		hash = (hash ^ (unsigned char)client.p[i]) * UINT64_C(0x100000001b3);
	return (unsigned)(hash % q->part_count);
}

/* What put.lua remembers under the key: the first message's id and time, and how many there were. */
static void add_answer(struct redis_queue *q, struct buf *words, const struct queue_put *put)
{
	buf_reset(&q->record);
	buf_add_str(&q->record, redis_id(&put->messages[0].id));
	buf_add_u64(&q->record, (uint64_t)put->messages[0].accepted_at.ms);
	buf_add_u32(&q->record, put->count);
	redis_word(words, buf_str(&q->record));
}

/* How many keys the partition may remember: what those of others leave, going by the last look. */
static void add_keys_max(struct redis_queue *q, struct buf *words, const struct queue_put *put, unsigned part)
{
	if (!put->has_key || put->key_promised || !q->keys_max) {
		redis_word(words, STR(""));
		return;
	}
	uint64_t elsewhere = 0;
	for (unsigned i = 0; i < q->part_count; i++)
		if (i != part)
			elsewhere += q->parts[i].look.keys;
	redis_number(words, elsewhere < q->keys_max ? (int64_t)(q->keys_max - elsewhere) : 0);
}

static int add_messages(struct redis_queue *q, struct buf *words, const struct queue_put *put, struct err *e)
{
	for (unsigned i = 0; i < put->count; i++) {
		buf_reset(&q->record);
		sealed_encode(&put->messages[i], &q->record);
		if (buf_check(&q->record, e) < 0)
			return -1;
		redis_word(words, redis_id(&put->messages[i].id));
		redis_word(words, buf_str(&q->record));
	}
	return 0;
}

static int note_put(struct redis_queue *q, struct queue_put *put, unsigned part, struct err *e)
{
	if (redis_reserve((void **)&q->puts, sizeof(*q->puts), q->put_count, &q->put_room, e) < 0)
		return -1;
	q->puts[q->put_count++] = (struct redis_put){put, part};
	return 0;
}

int redis_close_puts(struct redis_queue *q, unsigned part, struct err *e)
{
	struct redis_partition *p = &q->parts[part];
	if (!p->put_count)
		return 0;
	struct redis_pending pending = {
		.kind = PENDING_PUTS, .part = part, .first = p->first_put, .count = p->put_count};
	if (buf_check(&p->words, e) < 0 || redis_promise(q, &pending, e) < 0)
		return -1;
	redis_eval(q, &q->out, REDIS_PUT, part, 2 + p->word_count);
	redis_time(q, &q->out);
	redis_number(&q->out, q->idempotency_ms);
	buf_add_str(&q->out, buf_str(&p->words));
	buf_reset(&p->words);
	p->word_count = p->put_count = 0;
	return 0;
}

int redis_put(void *state, struct queue_put *put, struct err *e)
{
	struct redis_queue *q = state;
	struct str client = put->messages[0].client_id;
	unsigned part = partition_of(q, client);
	struct redis_partition *p = &q->parts[part];
	struct str key = put->has_key ? str_mem(put->key_hash, sizeof(put->key_hash)) : STR("");
	if (!p->put_count)
		p->first_put = q->put_count;
	if (note_put(q, put, part, e) < 0)
		return -1;
	redis_word(&p->words, client);
	redis_word(&p->words, key);
	redis_word(&p->words, str_mem(put->payload_hash, sizeof(put->payload_hash)));
	add_answer(q, &p->words, put);
	add_keys_max(q, &p->words, put, part);
	redis_number(&p->words, put->count);
	if (add_messages(q, &p->words, put, e) < 0)
		return -1;
	p->word_count += 6 + 2 * (size_t)put->count;
	p->put_count++;
	if (p->words.n >= PUT_WORDS_BYTES && redis_close_puts(q, part, e) < 0)
		return -1;
	return QUEUE_AT_COMMIT;
}

/* Those that wait in other partitions were counted by the last look. */
static uint64_t waiting_elsewhere(const struct redis_queue *q, unsigned part)
{
	uint64_t count = 0;
	for (unsigned i = 0; i < q->part_count; i++)
		if (i != part)
			count += q->parts[i].look.waiting - q->parts[i].look.leased;
	return count;
}

static int answer_stored(struct redis_queue *q, struct queue_put *put, unsigned part, uint64_t position)
{
	put->position = waiting_elsewhere(q, part) + position;
	return QUEUE_STORED;
}

/* The first answer to this key; if that is to these very messages, the group was sent twice. */
static int answer_again(struct redis_queue *q, struct queue_put *put, unsigned part, struct str answer)
{
	struct cursor c = cursor_of(answer);
	cursor_copy(&c, put->first_id.b, sizeof(put->first_id.b));
	put->first_accepted_at.ms = (int64_t)cursor_u64(&c);
	put->first_count = cursor_u32(&c);
	put->first_position = cursor_u64(&c);
	if (!cursor_done(&c))
		return redis_odd_answer(&put->op.err);
	if (uuid_eq(&put->first_id, &put->messages[0].id))
		return answer_stored(q, put, part, put->first_position);
	return QUEUE_REPLAYED;
}

static int answer_put(struct redis_queue *q, struct queue_put *put, unsigned part, const redisReply *r)
{
	if (r->type == REDIS_REPLY_STRING)
		return answer_again(q, put, part, redis_text(r));
	if (r->type != REDIS_REPLY_INTEGER)
		return redis_odd_answer(&put->op.err);
	if (r->integer > 0)
		return answer_stored(q, put, part, (uint64_t)r->integer);
	if (r->integer == ANSWER_MISMATCH)
		return QUEUE_MISMATCH;
	if (r->integer == ANSWER_KEYS_FULL)
		return QUEUE_KEYS_FULL;
	if (q->commit.was_sent_again)
		return answer_stored(q, put, part, q->parts[part].look.waiting);
	return err_set(&put->op.err, ERR_CONFLICT, "the queue holds a message with this id already");
}

int redis_answer_puts(
	struct redis_queue *q, const struct redis_pending *p, const redisReply *reply, struct err *e)
{
	if (reply->type != REDIS_REPLY_ARRAY || reply->elements != p->count)
		return redis_odd_answer(e);
	size_t answered = 0;
	for (size_t i = p->first; answered < p->count; i++) {
		struct redis_put *it = &q->puts[i];
		if (it->part == p->part)
			it->put->op.result = answer_put(q, it->put, p->part, reply->element[answered++]);
	}
	return 0;
}
