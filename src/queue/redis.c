/* redis.c - the queue on a Redis server that several processes share.
 *
 * Every change is one call of a script (redis/), which Redis runs and writes to its log as a whole: no crash of
 * a process or of the server leaves half of one. What the keys are: redis/common.lua; why not a stream:
 * doc/decisions.
 *
 * A group is gathered here and sent by commit in one round trip, with a look at the counts behind it; so an
 * abort has nothing to undo, and answers come with the commit (QUEUE_AT_COMMIT). A lease cannot wait: it is a
 * round trip of its own and sees what is committed; an abort gives it back. When the connection breaks during
 * a commit nobody knows what has been done. The group is sent again then: ids that are known already are its
 * own, so that nothing is there twice.
 *
 * Nothing is kept here that other processes could change: counts, pauses and what is due are looked at again
 * with each group, and between groups often enough that an idle worker sees new messages soon. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/auto.h"
#include "queue/redis_engine.h"

enum {
	PUT_WORDS_BYTES = 1 << 20, /* of one call of the script: a server does nothing else meanwhile */
	GROUP_BYTES = 1 << 30,
	FRESH_MS = 20,        /* a look is good for as long */
	PULSE_BUSY_MS = 40,   /* between looks while somebody asks for messages */
	PULSE_IDLE_MS = 1000, /* while nobody does */
	BUSY_FOR_MS = 10000,  /* after a lease */
	ANSWER_BYTES = 16 + 8 + 4,
	DEFAULT_TIMEOUT_MS = 3000,
};

/* --- commands --- */

void redis_eval(
	const struct redis_queue *q, struct buf *out, enum redis_script script, unsigned part, size_t count)
{
	redis_command(out, 4 + count);
	redis_word(out, STR("EVALSHA"));
	redis_word(out, str_mem(q->shas->of[script], REDIS_SHA_BYTES));
	redis_word(out, STR("1"));
	redis_word(out, str_of(q->parts[part].tag));
}

void redis_time(const struct redis_queue *q, struct buf *out)
{
	if (q->own_clock)
		redis_number(out, clock_wall(q->clock).ms);
	else
		redis_word(out, STR(""));
}

struct str redis_text(const redisReply *reply)
{
	return reply->type == REDIS_REPLY_STRING || reply->type == REDIS_REPLY_STATUS
		       ? str_mem(reply->str, reply->len)
		       : STR("");
}

int redis_odd_answer(struct err *e)
{
	return err_set(e, ERR_RETRY, "a script's answer is not what it should be: were its keys changed?");
}

/* Makes room for one more element. */
static int reserve(void **items, size_t item_bytes, size_t count, size_t *room, struct err *e)
{
	if (count < *room)
		return 0;
	size_t bigger = *room ? *room * 2 : 64;
	void *p = reallocarray(*items, bigger, item_bytes);
	if (!p)
		return err_oom(e);
	*items = p;
	*room = bigger;
	return 0;
}

int redis_promise(struct redis_queue *q, const struct redis_pending *p, struct err *e)
{
	if (reserve((void **)&q->pending, sizeof(*q->pending), q->pending_count, &q->pending_room, e) < 0)
		return -1;
	q->pending[q->pending_count++] = *p;
	return 0;
}

int redis_now(struct redis_queue *q, struct redis_exchange *x, struct err *e)
{
	if (buf_check(&q->now, e) < 0)
		return -1;
	x->commands = buf_str(&q->now);
	int rc = redis_session_exchange(q->session, x, e);
	buf_reset(&q->now);
	return rc;
}

/* --- looking --- */

void redis_add_looks(struct redis_queue *q, struct buf *out)
{
	for (unsigned i = 0; i < q->part_count; i++) {
		redis_eval(q, out, REDIS_LOOK, i, 1);
		redis_time(q, out);
	}
}

static int64_t moment_of(const redisReply *reply)
{
	int64_t ms;
	return str_to_i64(redis_text(reply), &ms) ? ms : INT64_MAX;
}

static struct uuid uuid_of(const redisReply *reply)
{
	struct uuid id = {{0}};
	struct str s = redis_text(reply);
	if (s.n == sizeof(id.b))
		memcpy(id.b, s.p, s.n);
	return id;
}

static void take_pause(const redisReply *on, const redisReply *reason, bool *ret_on, char *ret, size_t room)
{
	struct str s = redis_text(reason);
	*ret_on = str_eq(redis_text(on), STR("1"));
	snprintf(ret, room, "%.*s", STR_ARG(s));
}

/* In the order of look.lua. */
enum {
	LOOK_NOW,
	LOOK_ALL,
	LOOK_LEASED,
	LOOK_DEAD,
	LOOK_RETRY,
	LOOK_OLDEST,
	LOOK_FLOOR,
	LOOK_HEAD_MS,
	LOOK_RETRY_MS,
	LOOK_LEASE_MS,
	LOOK_ACCEPT,
	LOOK_ACCEPT_WHY,
	LOOK_DELIVERY,
	LOOK_DELIVERY_WHY,
	LOOK_WORDS
};

int redis_take_look(struct redis_queue *q, unsigned part, const redisReply *reply, struct err *e)
{
	redisReply **r = reply->element;
	if (reply->type != REDIS_REPLY_ARRAY || reply->elements != LOOK_WORDS)
		return redis_odd_answer(e);
	q->parts[part].look = (struct redis_look){
		.now_ms = r[LOOK_NOW]->integer,
		.waiting = (uint64_t)r[LOOK_ALL]->integer,
		.leased = (uint64_t)r[LOOK_LEASED]->integer,
		.dead = (uint64_t)r[LOOK_DEAD]->integer,
		.retrying = (uint64_t)r[LOOK_RETRY]->integer,
		.oldest = uuid_of(r[LOOK_OLDEST]),
		.floor = uuid_of(r[LOOK_FLOOR]),
		.head_ms = moment_of(r[LOOK_HEAD_MS]),
		.retry_ms = moment_of(r[LOOK_RETRY_MS]),
		.lease_ms = moment_of(r[LOOK_LEASE_MS]),
	};
	/* Pauses are the same in every partition. */
	if (part == 0) {
		take_pause(r[LOOK_ACCEPT], r[LOOK_ACCEPT_WHY], &q->pauses.accept_on, q->pauses.accept_reason,
			sizeof(q->pauses.accept_reason));
		take_pause(r[LOOK_DELIVERY], r[LOOK_DELIVERY_WHY], &q->pauses.delivery_on,
			q->pauses.delivery_reason, sizeof(q->pauses.delivery_reason));
	}
	return 0;
}

void redis_looked(struct redis_queue *q)
{
	q->looked = true;
	q->looked_at = clock_mono(q->clock);
}

static int look_reply(void *arg, unsigned number, const redisReply *reply, struct err *e)
{
	return redis_take_look(arg, number, reply, e);
}

static int look(struct redis_queue *q, struct err *e)
{
	struct redis_exchange x = {.count = q->part_count, .again = true, .reply = look_reply, .arg = q};
	redis_add_looks(q, &q->now);
	if (redis_now(q, &x, e) < 0)
		return -1;
	redis_looked(q);
	return 0;
}

static bool looked_just_now(const struct redis_queue *q)
{
	return q->looked && mono_diff_ms(clock_mono(q->clock), q->looked_at) < FRESH_MS;
}

/* The scripts' time now, going by the last look. */
static int64_t time_of_look(const struct redis_queue *q, const struct redis_look *l)
{
	return l->now_ms + mono_diff_ms(clock_mono(q->clock), q->looked_at);
}

static void earliest(int64_t *ms, int64_t other_ms)
{
	if (other_ms < *ms)
		*ms = other_ms;
}

static bool is_nil(const struct uuid *id)
{
	static const struct uuid nil;
	return uuid_eq(id, &nil);
}

/* Since when something has been due at most, in milliseconds; 0 when nothing is. */
static int64_t overdue_ms(const struct redis_queue *q, const struct redis_look *l)
{
	int64_t now_ms = time_of_look(q, l), due_ms = INT64_MAX;
	earliest(&due_ms, l->head_ms);
	earliest(&due_ms, l->retry_ms);
	return due_ms < now_ms ? now_ms - due_ms : 0;
}

static void add_to_stats(const struct redis_queue *q, const struct redis_look *l, struct queue_stats *stats)
{
	stats->queued += l->waiting - l->leased;
	stats->processing += l->leased;
	stats->failed += l->dead;
	stats->retrying += l->retrying;
	int64_t overdue = overdue_ms(q, l);
	if (overdue > stats->oldest_due_ms)
		stats->oldest_due_ms = overdue;
	if (is_nil(&l->oldest))
		return;
	struct wall accepted = uuid_time(&l->oldest);
	if (stats->oldest_accepted_at.ms && stats->oldest_accepted_at.ms <= accepted.ms)
		return;
	int64_t age_ms = time_of_look(q, l) - accepted.ms;
	stats->oldest_accepted_at = accepted;
	stats->oldest_age_ms = age_ms > 0 ? age_ms : 0;
}

static int redis_stats(void *state, struct queue_stats *stats, struct err *e)
{
	struct redis_queue *q = state;
	if (!looked_just_now(q) && look(q, e) < 0)
		return -1;
	struct queue_stats all = {.op = stats->op};
	for (unsigned i = 0; i < q->part_count; i++)
		add_to_stats(q, &q->parts[i].look, &all);
	pauses_report(&q->pauses, &all);
	*stats = all;
	return 0;
}

/* --- open, close --- */

static void redis_close(void *state)
{
	struct redis_queue *q = state;
	if (!q)
		return;
	if (q->shas)
		redis_leave(q);
	redis_session_close(q->session);
	for (unsigned i = 0; q->parts && i < q->part_count; i++) {
		free(q->parts[i].tag);
		buf_clear(&q->parts[i].words);
	}
	free(q->parts);
	free(q->pending);
	free(q->puts);
	free(q->tokens);
	buf_clear(&q->out);
	buf_clear(&q->now);
	buf_clear(&q->record);
	free(q);
}

AUTO_DEFINE(redis_close, struct redis_queue *)

static int make_partitions(struct redis_queue *q, const char *prefix, struct err *e)
{
	q->parts = calloc(q->part_count, sizeof(*q->parts));
	for (unsigned i = 0; q->parts && i < q->part_count; i++) {
		buf_init(&q->parts[i].words, GROUP_BYTES);
		if (asprintf(&q->parts[i].tag, "%s:{%u}", prefix, i) < 0)
			q->parts[i].tag = NULL;
		if (!q->parts[i].tag)
			return err_oom(e);
	}
	return q->parts ? 0 : err_oom(e);
}

static int redis_open(const struct queue_driver_options *o, void **ret_state, struct err *e)
{
	const struct redis_options *r = o->arg;
	struct redis_options options = r ? *r : (struct redis_options){0};
	if (!options.url)
		options.url = o->location;
	if (!options.timeout_ms)
		options.timeout_ms = DEFAULT_TIMEOUT_MS;
	AUTO(redis_close_auto) struct redis_queue *q = calloc(1, sizeof(*q));
	if (!q)
		return err_oom(e);
	q->clock = o->clock;
	q->idempotency_ms = o->idempotency_ms;
	q->own_clock = options.own_clock;
	q->part_count = options.partitions ? options.partitions : 1;
	q->pulse_at = q->leased_at = clock_mono(q->clock);
	buf_init(&q->out, GROUP_BYTES);
	buf_init(&q->now, GROUP_BYTES);
	buf_init(&q->record, SEALED_MAX_BYTES);
	if (q->part_count > REDIS_PARTITIONS_MAX)
		return err_set(e, ERR_REJECT, "more than %d partitions", (int)REDIS_PARTITIONS_MAX);
	if (getrandom(&q->instance, sizeof(q->instance), 0) != sizeof(q->instance))
		return err_sys(e, ERR_FATAL, "random bytes from the kernel");
	if (make_partitions(q, options.prefix ? options.prefix : "sealpost", e) < 0 ||
		redis_session_open(&options, o->clock, &q->session, e) < 0)
		return -1;
	q->shas = redis_session_shas(q->session);
	/* A server that is away, or not as it has to be, is no reason not to open: queue.h's glance says so. */
	struct err why = ERR_INIT;
	int looked = look(q, &why);
	(void)looked;
	*ret_state = TAKE(q);
	return 0;
}

static const char *redis_durability(void *state)
{
	struct redis_queue *q = state;
	return redis_session_durability(q->session);
}

static uint64_t redis_floor_key(void *state)
{
	struct redis_queue *q = state;
	uint64_t floor_key = 0;
	for (unsigned i = 0; i < q->part_count; i++) {
		uint64_t key = uuid_order_key(&q->parts[i].look.floor);
		if (key > floor_key)
			floor_key = key;
	}
	return floor_key;
}

/* --- put --- */

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
	if (reserve((void **)&q->puts, sizeof(*q->puts), q->put_count, &q->put_room, e) < 0)
		return -1;
	q->puts[q->put_count++] = (struct redis_put){put, part};
	return 0;
}

/* The partition's puts become a command of the group. */
static int close_puts(struct redis_queue *q, unsigned part, struct err *e)
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

static int redis_put(void *state, struct queue_put *put, struct err *e)
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
	redis_number(&p->words, put->count);
	if (add_messages(q, &p->words, put, e) < 0)
		return -1;
	p->word_count += 5 + 2 * (size_t)put->count;
	p->put_count++;
	if (p->words.n >= PUT_WORDS_BYTES && close_puts(q, part, e) < 0)
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
	if (r->integer < 0)
		return QUEUE_MISMATCH;
	if (q->commit.was_sent_again)
		return answer_stored(q, put, part, q->parts[part].look.waiting);
	return err_set(&put->op.err, ERR_CONFLICT, "the queue holds a message with this id already");
}

static int answer_puts(
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

/* --- groups --- */

static void forget_group(struct redis_queue *q)
{
	for (unsigned i = 0; i < q->part_count; i++) {
		buf_reset(&q->parts[i].words);
		q->parts[i].word_count = q->parts[i].put_count = 0;
	}
	buf_reset(&q->out);
	q->pending_count = q->put_count = 0;
}

static int redis_begin(void *state, struct err *e)
{
	struct redis_queue *q = state;
	if (redis_session_ensure(q->session, e) < 0)
		return -1;
	if (q->lost_count)
		redis_give_back(q);
	return 0;
}

/* So many fewer than were found: somebody else was there first. */
static void correct_matched(uint64_t *matched, const struct redis_pending *p, const redisReply *reply)
{
	if (reply->type == REDIS_REPLY_INTEGER && reply->integer >= 0 && (size_t)reply->integer < p->count)
		*matched -= p->count - (size_t)reply->integer;
}

static void take_renewed(const struct redis_pending *p, const redisReply *reply)
{
	struct queue_renew *renew = p->op;
	if (reply->type == REDIS_REPLY_INTEGER)
		renew->stale_count += (unsigned)reply->integer;
}

static int commit_reply(void *arg, unsigned number, const redisReply *reply, struct err *e)
{
	struct redis_queue *q = arg;
	if (number >= q->pending_count)
		return redis_take_look(q, number - (unsigned)q->pending_count, reply, e);
	const struct redis_pending *p = &q->pending[number];
	switch (p->kind) {
	case PENDING_PUTS:
		return answer_puts(q, p, reply, e);
	case PENDING_SETTLE:
		redis_settled(q, p, reply);
		return 0;
	case PENDING_RENEW:
		take_renewed(p, reply);
		return 0;
	case PENDING_REDRIVE:
		correct_matched(&((struct queue_redrive *)p->op)->matched, p, reply);
		return 0;
	case PENDING_PURGE:
		correct_matched(&((struct queue_purge *)p->op)->matched, p, reply);
		return 0;
	case PENDING_PAUSE:
		return 0;
	}
	return 0;
}

static int redis_commit(void *state, struct err *e)
{
	struct redis_queue *q = state;
	for (unsigned i = 0; i < q->part_count; i++)
		if (close_puts(q, i, e) < 0)
			return -1;
	if (q->pending_count) {
		redis_add_looks(q, &q->out);
		q->commit = (struct redis_exchange){
			.commands = buf_str(&q->out),
			.count = (unsigned)q->pending_count + q->part_count,
			.again = true,
			.writes = true,
			.reply = commit_reply,
			.arg = q,
		};
		if (buf_check(&q->out, e) < 0 || redis_session_exchange(q->session, &q->commit, e) < 0)
			return -1;
		redis_looked(q);
	}
	forget_group(q);
	q->token_count = q->lost_count;
	return 0;
}

static void redis_abort(void *state)
{
	struct redis_queue *q = state;
	forget_group(q);
	redis_give_back(q);
}

/* --- pause, probe, tick --- */

static int pause_partition(struct redis_queue *q, unsigned part, struct queue_pause *pause, struct err *e)
{
	redis_command(&q->out, 6);
	redis_word(&q->out, STR("HSET"));
	buf_reset(&q->record);
	buf_addf(&q->record, "%s:state", q->parts[part].tag);
	redis_word(&q->out, buf_str(&q->record));
	redis_word(&q->out, pause->accept ? STR("accept_paused") : STR("delivery_paused"));
	redis_word(&q->out, pause->on ? STR("1") : STR("0"));
	redis_word(&q->out, pause->accept ? STR("accept_reason") : STR("delivery_reason"));
	redis_word(&q->out, str_mem(pause->reason, strnlen(pause->reason, sizeof(pause->reason))));
	return redis_promise(q, &(struct redis_pending){.kind = PENDING_PAUSE, .op = pause}, e);
}

/* Every partition has them, so that none hands out anything to a process that has not heard of a pause. */
static int redis_pause(void *state, struct queue_pause *pause, struct err *e)
{
	struct redis_queue *q = state;
	for (unsigned i = 0; i < q->part_count; i++)
		if (pause_partition(q, i, pause, e) < 0)
			return -1;
	return 0;
}

static int redis_probe(void *state, struct err *e)
{
	struct redis_queue *q = state;
	struct redis_exchange x = {.count = 1, .again = true, .writes = true};
	redis_command(&q->now, 4);
	redis_word(&q->now, STR("HSET"));
	buf_reset(&q->record);
	buf_addf(&q->record, "%s:state", q->parts[0].tag);
	redis_word(&q->now, buf_str(&q->record));
	redis_word(&q->now, STR("probed_ms"));
	redis_number(&q->now, clock_wall(q->clock).ms);
	return redis_now(q, &x, e);
}

/* Ends what has run out, and looks. Failures show in the next group or look. */
static void pulse(struct redis_queue *q, struct mono now)
{
	struct err e = ERR_INIT;
	bool more = false;
	bool busy = mono_diff_ms(now, q->leased_at) < BUSY_FOR_MS;
	q->pulse_at = mono_add_ms(now, busy ? PULSE_BUSY_MS : PULSE_IDLE_MS);
	if (redis_session_ensure(q->session, &e) < 0) {
		q->looked = false;
		q->pulse_at = redis_session_next_try(q->session);
		return;
	}
	if (q->lost_count)
		redis_give_back(q);
	if (redis_expire(q, &more, &e) < 0)
		q->looked = false;
	if (more)
		q->pulse_at = now;
}

/* Whether something is due; *ret_next, when something falls due or runs out. */
static bool foresee(const struct redis_queue *q, struct mono now, struct mono *ret_next)
{
	bool due = false;
	for (unsigned i = 0; i < q->part_count; i++) {
		const struct redis_look *l = &q->parts[i].look;
		int64_t now_ms = time_of_look(q, l), next_ms = INT64_MAX;
		due = due || l->head_ms != INT64_MAX || l->retry_ms <= now_ms;
		if (l->retry_ms > now_ms)
			earliest(&next_ms, l->retry_ms);
		earliest(&next_ms, l->lease_ms);
		if (next_ms == INT64_MAX)
			continue;
		struct mono next = mono_add_ms(now, next_ms > now_ms ? next_ms - now_ms : 0);
		if (next.ns < ret_next->ns)
			*ret_next = next;
	}
	return due;
}

static bool redis_tick(void *state, struct mono now, struct mono *ret_next)
{
	struct redis_queue *q = state;
	struct mono next = {INT64_MAX};
	foresee(q, now, &next);
	if (mono_reached(now, q->pulse_at) || mono_reached(now, next) || !q->looked)
		pulse(q, now);
	*ret_next = q->pulse_at;
	bool due = foresee(q, now, ret_next);
	return q->looked && due;
}

const struct queue_driver queue_driver_redis = {
	.name = "redis",
	.open = redis_open,
	.close = redis_close,
	.durability = redis_durability,
	.floor_key = redis_floor_key,
	.begin = redis_begin,
	.commit = redis_commit,
	.abort = redis_abort,
	.put = redis_put,
	.lease = redis_lease,
	.settle = redis_settle,
	.renew = redis_renew,
	.find = redis_find,
	.list = redis_list,
	.stats = redis_stats,
	.redrive = redis_redrive,
	.purge = redis_purge,
	.pause = redis_pause,
	.tick = redis_tick,
	.probe = redis_probe,
};
