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
	GROUP_BYTES = 1 << 30,
	PULSE_BUSY_MS = 40,   /* between looks while somebody asks for messages */
	PULSE_IDLE_MS = 1000, /* while nobody does */
	BUSY_FOR_MS = 10000,  /* after a lease */
	DEFAULT_TIMEOUT_MS = 3000,
};

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
	if (!options.prefix)
		options.prefix = "sealpost";
	if (!options.partitions)
		options.partitions = 1;
	AUTO(redis_close_auto) struct redis_queue *q = calloc(1, sizeof(*q));
	if (!q)
		return err_oom(e);
	q->clock = o->clock;
	q->idempotency_ms = o->idempotency_ms;
	q->keys_max = o->keys_max;
	q->own_clock = options.own_clock;
	q->part_count = options.partitions;
	q->pulse_at = q->leased_at = clock_mono(q->clock);
	buf_init(&q->out, GROUP_BYTES);
	buf_init(&q->now, GROUP_BYTES);
	buf_init(&q->record, SEALED_MAX_BYTES);
	if (q->part_count > REDIS_PARTITIONS_MAX)
		return err_set(e, ERR_REJECT, "more than %d partitions", (int)REDIS_PARTITIONS_MAX);
	if (getrandom(&q->instance, sizeof(q->instance), 0) != sizeof(q->instance))
		return err_sys(e, ERR_FATAL, "random bytes from the kernel");
	if (make_partitions(q, options.prefix, e) < 0 ||
		redis_session_open(&options, o->clock, &q->session, e) < 0)
		return -1;
	q->shas = redis_session_shas(q->session);
	/* A server that is away, or not as it has to be, is no reason not to open: queue.h's glance says so. */
	struct err why = ERR_INIT;
	int looked = redis_look(q, &why);
	(void)looked;
	*ret_state = TAKE(q);
	return 0;
}

static const char *redis_durability(void *state)
{
	struct redis_queue *q = state;
	return redis_session_durability(q->session);
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
		return redis_answer_puts(q, p, reply, e);
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
		if (redis_close_puts(q, i, e) < 0)
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

static bool redis_tick(void *state, struct mono now, struct mono *ret_next)
{
	struct redis_queue *q = state;
	struct mono next = {INT64_MAX};
	redis_foresee(q, now, &next);
	if (mono_reached(now, q->pulse_at) || mono_reached(now, next) || !q->looked)
		pulse(q, now);
	*ret_next = q->pulse_at;
	bool due = redis_foresee(q, now, ret_next);
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
