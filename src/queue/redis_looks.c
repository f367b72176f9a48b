/* redis_looks.c - what the engine knows of Redis between its groups: a look at every partition, and what follows
 * from the last one: counts, ages, pauses, when something falls due. See redis_engine.h. */
#include <stdio.h>
#include <string.h>

#include "queue/redis_engine.h"

enum { FRESH_MS = 20 /* a look is good for as long */ };

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
	LOOK_KEYS,
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
		.keys = (uint64_t)r[LOOK_KEYS]->integer,
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

int redis_look(struct redis_queue *q, struct err *e)
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
	stats->keys += l->keys;
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

int redis_stats(void *state, struct queue_stats *stats, struct err *e)
{
	struct redis_queue *q = state;
	if (!looked_just_now(q) && redis_look(q, e) < 0)
		return -1;
	struct queue_stats all = {.op = stats->op};
	for (unsigned i = 0; i < q->part_count; i++)
		add_to_stats(q, &q->parts[i].look, &all);
	pauses_report(&q->pauses, &all);
	*stats = all;
	return 0;
}

uint64_t redis_floor_key(void *state)
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

bool redis_foresee(const struct redis_queue *q, struct mono now, struct mono *ret_next)
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
