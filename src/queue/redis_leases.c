/* redis_leases.c - leases and verdicts of the Redis engine. A message is known by its id, 16 bytes in
 * queue_ref.handle and .part; a token is instance, number and partition. */
#include <stdlib.h>
#include <string.h>

#include "base/macros.h"
#include "queue/redis_engine.h"

enum {
	LEASE_MAX = 16384, /* messages in a batch, whatever is asked for */
	EXPIRE_AT_ONCE = 512,
	TOKEN_BYTES = 8,
	INSTANCE_BYTES = 4,
	PARTITION_BITS = 8,
	LEASE_ROW = 3, /* id, attempts, record */
};

static_assert(REDIS_PARTITIONS_MAX <= 1 << PARTITION_BITS, "a token names the partition");
static_assert(sizeof(((struct queue_ref *)NULL)->handle) + sizeof(((struct queue_ref *)NULL)->part) ==
		      sizeof(struct uuid),
	"a reference holds an id");

/* --- tokens and references --- */

static uint64_t new_token(struct redis_queue *q, unsigned part)
{
	q->token_number = (q->token_number + 1) & 0xffffff;
	return (uint64_t)q->instance << 32 | (uint64_t)q->token_number << PARTITION_BITS | part;
}

static unsigned part_of(const struct redis_queue *q, uint64_t token)
{
	unsigned part = token & ((1 << PARTITION_BITS) - 1);
	return part < q->part_count ? part : 0;
}

static void add_token(struct buf *out, uint64_t token, size_t bytes)
{
	unsigned char big_endian[TOKEN_BYTES];
	for (unsigned i = 0; i < TOKEN_BYTES; i++)
		big_endian[i] = (unsigned char)(token >> (56 - 8 * i));
	redis_word(out, str_mem(big_endian, bytes));
}

static struct queue_ref ref_of(const struct uuid *id, uint64_t token)
{
	struct queue_ref ref = {.token = token};
	memcpy(&ref.handle, id->b, sizeof(ref.handle));
	memcpy(&ref.part, id->b + sizeof(ref.handle), sizeof(ref.part));
	return ref;
}

static struct uuid id_of(const struct queue_ref *ref)
{
	struct uuid id;
	memcpy(id.b, &ref->handle, sizeof(ref->handle));
	memcpy(id.b + sizeof(ref->handle), &ref->part, sizeof(ref->part));
	return id;
}

/* --- giving back --- */

/* Remembers a batch of the group, in case that it is aborted. */
static int note_token(struct redis_queue *q, uint64_t token, struct err *e)
{
	if (redis_reserve((void **)&q->tokens, sizeof(*q->tokens), q->token_count, &q->token_room, e) < 0)
		return -1;
	q->tokens[q->token_count++] = token;
	return 0;
}

/* The newest one's answer was lost: what it may have leased is given back when the server can be reached. */
static void lose_token(struct redis_queue *q)
{
	uint64_t token = q->tokens[q->token_count - 1];
	q->tokens[q->token_count - 1] = q->tokens[q->lost_count];
	q->tokens[q->lost_count++] = token;
}

static void add_leave(struct redis_queue *q, uint64_t token, size_t bytes, unsigned part)
{
	redis_eval(q, &q->now, REDIS_LEAVE, part, 1);
	add_token(&q->now, token, bytes);
}

void redis_give_back(struct redis_queue *q)
{
	if (!q->token_count)
		return;
	/* The newest first, so that all go back to where they were. */
	for (size_t i = q->token_count; i-- > 0;)
		add_leave(q, q->tokens[i], TOKEN_BYTES, part_of(q, q->tokens[i]));
	struct redis_exchange x = {.count = (unsigned)q->token_count, .again = true};
	q->looked = false;
	if (redis_now(q, &x, NULL) == 0)
		q->token_count = 0;
	q->lost_count = q->token_count;
}

void redis_leave(struct redis_queue *q)
{
	struct redis_exchange x = {.count = q->part_count, .again = true};
	for (unsigned i = 0; i < q->part_count; i++)
		add_leave(q, (uint64_t)q->instance << 32, INSTANCE_BYTES, i);
	/* If it cannot be done, the leases run out. */
	int left = redis_now(q, &x, NULL);
	(void)left;
}

/* --- expire --- */

struct expiry {
	struct redis_queue *q;
	bool more;
};

static int expire_reply(void *arg, unsigned number, const redisReply *reply, struct err *e)
{
	struct expiry *x = arg;
	if (number >= x->q->part_count)
		return redis_take_look(x->q, number - x->q->part_count, reply, e);
	x->more = x->more || (reply->type == REDIS_REPLY_INTEGER && reply->integer == EXPIRE_AT_ONCE);
	return 0;
}

int redis_expire(struct redis_queue *q, bool *ret_more, struct err *e)
{
	struct expiry expiry = {.q = q};
	struct redis_exchange x = {
		.count = 2 * q->part_count, .again = true, .reply = expire_reply, .arg = &expiry};
	for (unsigned i = 0; i < q->part_count; i++) {
		redis_eval(q, &q->now, REDIS_EXPIRE, i, 4);
		redis_time(q, &q->now);
		redis_number(&q->now, EXPIRE_AT_ONCE);
		redis_word(
			&q->now, STR("lease_expired: no result in time, or the process that held it ended"));
		redis_number(&q->now, q->idempotency_ms);
	}
	redis_add_looks(q, &q->now);
	if (redis_now(q, &x, e) < 0)
		return -1;
	redis_looked(q);
	*ret_more = expiry.more;
	return 0;
}

/* --- lease --- */

/* What a lease got from one partition. */
struct batch {
	struct redis_queue *q;
	struct queue_lease *lease;
	uint64_t token;
	redisReply *rows; /* kept: id, attempts, record of each */
};

static struct uuid row_id(const redisReply *rows, size_t row)
{
	struct uuid id = {{0}};
	struct str s = redis_text(rows->element[LEASE_ROW * row]);
	if (s.n == sizeof(id.b))
		memcpy(id.b, s.p, s.n);
	return id;
}

static void add_settlement(struct redis_queue *q, const struct uuid *id, uint64_t token, const char *verdict,
	int64_t wait_ms, struct str reason)
{
	redis_word(&q->now, redis_id(id));
	add_token(&q->now, token, TOKEN_BYTES);
	redis_word(&q->now, str_of(verdict));
	redis_number(&q->now, wait_ms);
	redis_word(&q->now, reason);
}

/* Those of the batch that were not handed out: back, or to the dead letters where `damaged`. */
static int return_rest(
	struct batch *b, const bool *handed_out, const bool *damaged, size_t count, struct err *e)
{
	size_t rest = 0;
	for (size_t i = 0; i < count; i++)
		rest += !handed_out[i];
	if (!rest)
		return 0;
	struct redis_queue *q = b->q;
	redis_eval(q, &q->now, REDIS_SETTLE, part_of(q, b->token), 1 + 5 * rest);
	redis_time(q, &q->now);
	for (size_t i = 0; i < count; i++) {
		struct uuid id = row_id(b->rows, i);
		if (!handed_out[i])
			add_settlement(q, &id, b->token, damaged[i] ? "x" : "u", 0,
				STR("damaged: the stored record cannot be read"));
	}
	struct redis_exchange x = {.count = 1, .again = true};
	q->looked = false;
	return redis_now(q, &x, e);
}

enum handing { HANDED_OUT, NO_ROOM, DAMAGED };

static enum handing hand_out(struct batch *b, struct queue_message *m, size_t row)
{
	const redisReply *attempts = b->rows->element[LEASE_ROW * row + 1];
	struct uuid id = row_id(b->rows, row);
	struct str record = arena_copy(b->lease->arena, redis_text(b->rows->element[LEASE_ROW * row + 2]));
	if (!record.p)
		return NO_ROOM;
	if (sealed_decode(record, &m->sealed, NULL) < 0)
		return DAMAGED;
	m->ref = ref_of(&id, b->token);
	m->attempt_count = attempts->type == REDIS_REPLY_INTEGER ? (unsigned)attempts->integer : 0;
	return HANDED_OUT;
}

/* From the reply into the lease; what the arena has no room for goes back. */
static int fill_lease(struct batch *b, struct err *e)
{
	struct queue_lease *lease = b->lease;
	size_t count = b->rows->elements / LEASE_ROW;
	bool *handed_out = calloc(2 * count + 1, sizeof(*handed_out)), room = true;
	if (!handed_out)
		return err_oom(e);
	bool *damaged = handed_out + count;
	for (size_t i = 0; i < count && room; i++) {
		enum handing h = hand_out(b, &lease->messages[lease->count], i);
		handed_out[i] = h == HANDED_OUT;
		damaged[i] = h == DAMAGED;
		lease->count += handed_out[i];
		room = h != NO_ROOM;
	}
	int rc = return_rest(b, handed_out, damaged, count, e);
	free(handed_out);
	if (rc == 0 && !room && !lease->count)
		rc = err_set(e, ERR_REJECT, "the memory given holds no message");
	return rc;
}

static int make_room(struct batch *b, unsigned wanted, struct err *e)
{
	struct queue_lease *lease = b->lease;
	size_t count = b->rows->elements / LEASE_ROW;
	if (lease->messages || !count)
		return 0;
	/* Other partitions fill the rest. */
	size_t most = b->q->part_count > 1 ? wanted : count;
	lease->messages = arena_alloc(lease->arena, most * sizeof(*lease->messages));
	if (lease->messages)
		return 0;
	redis_give_back(b->q);
	return err_set(e, ERR_REJECT, "the memory given holds no %zu messages", most);
}

static int lease_reply(void *arg, unsigned number, const redisReply *reply, struct err *e)
{
	struct batch *b = arg;
	if (number)
		return redis_take_look(b->q, number - 1, reply, e);
	return reply->type == REDIS_REPLY_ARRAY && reply->elements % LEASE_ROW == 0 ? 0 : redis_odd_answer(e);
}

static void add_lease(struct batch *b, unsigned max)
{
	struct redis_queue *q = b->q;
	struct str worker = str_of(b->lease->worker);
	if (worker.n > HISTORY_WORKER_BYTES)
		worker.n = HISTORY_WORKER_BYTES;
	redis_eval(q, &q->now, REDIS_LEASE, part_of(q, b->token), 6);
	redis_time(q, &q->now);
	redis_number(&q->now, max);
	redis_number(&q->now, b->lease->lease_ms);
	add_token(&q->now, b->token, TOKEN_BYTES);
	redis_word(&q->now, worker);
	redis_word(&q->now, q->retries_first ? STR("r") : STR("f"));
}

/* Up to `max` from one partition. */
static int lease_from(
	struct redis_queue *q, struct queue_lease *lease, unsigned part, unsigned max, struct err *e)
{
	struct batch b = {.q = q, .lease = lease, .token = new_token(q, part)};
	redisReply *replies[1 + REDIS_PARTITIONS_MAX] = {NULL};
	struct redis_exchange x = {
		.count = 1 + q->part_count, .reply = lease_reply, .arg = &b, .keep = replies};
	if (note_token(q, b.token, e) < 0)
		return -1;
	add_lease(&b, max);
	redis_add_looks(q, &q->now);
	int rc = redis_now(q, &x, e);
	if (rc == 0) {
		redis_looked(q);
		b.rows = replies[0];
		rc = make_room(&b, max, e) < 0 || fill_lease(&b, e) < 0 ? -1 : 0;
	} else {
		/* Nothing for now: what else is in the group need not suffer, and the next look says why. */
		lose_token(q);
		q->looked = false;
		rc = 0;
	}
	for (size_t i = 0; i < ARRAY_LEN(replies); i++)
		freeReplyObject(replies[i]);
	return rc;
}

int redis_lease(void *state, struct queue_lease *lease, struct err *e)
{
	struct redis_queue *q = state;
	unsigned max = lease->max < LEASE_MAX ? lease->max : LEASE_MAX;
	lease->count = 0;
	lease->messages = NULL;
	lease->deadline = mono_add_ms(clock_mono(q->clock), lease->lease_ms);
	q->leased_at = clock_mono(q->clock);
	unsigned first = q->turn++;
	for (unsigned i = 0; i < q->part_count && lease->count < max; i++)
		if (lease_from(q, lease, (first + i) % q->part_count, max - lease->count, e) < 0)
			return -1;
	q->retries_first = !q->retries_first;
	return 0;
}

/* --- settle, renew --- */

static bool is_in(const struct redis_queue *q, const struct queue_ref *ref, unsigned part)
{
	return part_of(q, ref->token) == part;
}

static int64_t wait_ms(const struct redis_queue *q, const struct queue_settlement *item)
{
	int64_t ms = item->due_at.ms - clock_wall(q->clock).ms;
	return item->verdict == QUEUE_RETRY && ms > 0 ? ms : 0;
}

static void add_item(struct redis_queue *q, const struct queue_settlement *item)
{
	static const char *const verdicts[] = {
		[QUEUE_DONE] = "d", [QUEUE_RETRY] = "r", [QUEUE_DEAD] = "x", [QUEUE_RELEASE] = "u"};
	struct uuid id = id_of(&item->ref);
	struct str reason = item->reason;
	if (reason.n > HISTORY_REASON_BYTES)
		reason.n = HISTORY_REASON_BYTES;
	redis_word(&q->out, redis_id(&id));
	add_token(&q->out, item->ref.token, TOKEN_BYTES);
	redis_word(&q->out, str_of(verdicts[item->verdict]));
	redis_number(&q->out, wait_ms(q, item));
	redis_word(&q->out, reason);
}

static int settle_part(struct redis_queue *q, struct queue_settle *settle, unsigned part, struct err *e)
{
	size_t count = 0;
	for (unsigned i = 0; i < settle->count; i++)
		count += is_in(q, &settle->items[i].ref, part);
	if (!count)
		return 0;
	struct redis_pending p = {.kind = PENDING_SETTLE, .op = settle, .part = part, .count = count};
	if (redis_promise(q, &p, e) < 0)
		return -1;
	redis_eval(q, &q->out, REDIS_SETTLE, part, 1 + 5 * count);
	redis_time(q, &q->out);
	for (unsigned i = 0; i < settle->count; i++)
		if (is_in(q, &settle->items[i].ref, part))
			add_item(q, &settle->items[i]);
	return 0;
}

int redis_settle(void *state, struct queue_settle *settle, struct err *e)
{
	struct redis_queue *q = state;
	settle->stale_count = 0;
	for (unsigned i = 0; i < settle->count; i++)
		settle->items[i].stale = false;
	for (unsigned part = 0; part < q->part_count; part++)
		if (settle_part(q, settle, part, e) < 0)
			return -1;
	return 0;
}

void redis_settled(struct redis_queue *q, const struct redis_pending *p, const redisReply *reply)
{
	struct queue_settle *settle = p->op;
	struct str stale = redis_text(reply);
	size_t at = 0;
	/* Sent again after some of it had been done: nothing that could still be said is true. */
	if (q->commit.was_sent_again)
		return;
	for (unsigned i = 0; i < settle->count && at < stale.n; i++) {
		if (!is_in(q, &settle->items[i].ref, p->part))
			continue;
		settle->items[i].stale = stale.p[at++] == '1';
		settle->stale_count += settle->items[i].stale;
	}
}

static int renew_part(struct redis_queue *q, struct queue_renew *renew, unsigned part, struct err *e)
{
	size_t count = 0;
	for (unsigned i = 0; i < renew->count; i++)
		count += is_in(q, &renew->refs[i], part);
	if (!count)
		return 0;
	struct redis_pending p = {.kind = PENDING_RENEW, .op = renew, .part = part, .count = count};
	if (redis_promise(q, &p, e) < 0)
		return -1;
	redis_eval(q, &q->out, REDIS_RENEW, part, 2 + 2 * count);
	redis_time(q, &q->out);
	redis_number(&q->out, renew->lease_ms);
	for (unsigned i = 0; i < renew->count; i++) {
		struct uuid id = id_of(&renew->refs[i]);
		if (!is_in(q, &renew->refs[i], part))
			continue;
		redis_word(&q->out, redis_id(&id));
		add_token(&q->out, renew->refs[i].token, TOKEN_BYTES);
	}
	return 0;
}

int redis_renew(void *state, struct queue_renew *renew, struct err *e)
{
	struct redis_queue *q = state;
	renew->stale_count = 0;
	for (unsigned part = 0; part < q->part_count; part++)
		if (renew_part(q, renew, part, e) < 0)
			return -1;
	return 0;
}
