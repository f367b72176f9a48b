/* redis_calls.c - calls of the engine's scripts: how they are written, gathered and sent, and what is odd in an
 * answer. See redis_engine.h. */
#include <stdlib.h>

#include "queue/redis_engine.h"

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

int redis_reserve(void **items, size_t item_bytes, size_t count, size_t *room, struct err *e)
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
	if (redis_reserve((void **)&q->pending, sizeof(*q->pending), q->pending_count, &q->pending_room, e) <
		0)
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
